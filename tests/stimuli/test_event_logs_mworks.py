"""Events of MWorks read back: the times of the screen, runs that stop in an image, runs that begin anew."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stimuli.event_logs import read_event_log

IDS = ["face_1", "face-1", "tree.2", "gray"]


def of_mworks(path, *events):
    """Read events in ms (time, name, value)."""
    rows = [(round(1000 * time), name, value) for time, name, value in events]
    pd.DataFrame(rows, columns=["time", "name", "value"]).to_csv(path, index=False)
    return read_event_log(path, IDS, "mworks")


@pytest.mark.parametrize("after_ms", [9, -40])
def test_mworks_onsets_are_those_of_the_update_that_has_the_image(tmp_path, after_ms):
    """Whether a protocol logs the image after update_display (9 ms before the screen has it) or long before."""
    point, image = {"type": "circle", "name": "fixation"}, {"type": "image", "filename": "/rig/images/tree.2.png"}
    other = {"type": "image", "filename": "/rig/images/gray.png"}
    events = [(0, "stimulus_presented", -1), (10, "#stimDisplayUpdate", [point])]
    for start, what, index in ((100, image, 2), (300, other, 3)):
        events += [(start, "#stimDisplayUpdate", [what, point]), (start + 16, "#stimDisplayUpdate", [what, point])]
        events += [(start + 50, "#stimDisplayUpdate", 2), (start + 100, "#stimDisplayUpdate", [point])]
        events += [(start - after_ms, "stimulus_presented", index), (start + 91, "stimulus_presented", -1)]
    log = of_mworks(tmp_path / "a.csv", *events).table
    assert log["stimulus_id"].tolist() == ["tree.2", "gray"]
    assert log["onset_s"].tolist() == [0.1, 0.3]
    assert log["duration_s"].tolist() == pytest.approx([0.1, 0.1])


def test_a_run_of_mworks_that_stops_in_an_image_did_not_show_it(tmp_path):
    shown = [(100, "stimulus_presented", 0), (200, "stimulus_presented", -1), (300, "stimulus_presented", 2)]
    for last, whole in ((), False), ((400, "stimulus_presented", -1), True), ((400, "correct_fixation", 1), True):
        log = of_mworks(tmp_path / "a.csv", *shown, *([last] if last else []))
        assert log.shown.tolist() == [True, whole], last
    log = of_mworks(tmp_path / "a.csv", *shown[::2])  # a protocol that never says that an image is gone
    assert log.shown.tolist() == [True, True]
    on = {"type": "image", "filename": "gray.png"}
    updates = [(1, "#stimDisplayUpdate", [on]), (2, "#stimDisplayUpdate", []), (3, "#stimDisplayUpdate", [on])]
    assert of_mworks(tmp_path / "a.csv", *updates).shown.tolist() == [True, False]


def test_our_protocol_of_mworks_begun_anew_counts_what_went_up(tmp_path):
    events = [(0, "presentation", 0), (100, "stimulus_presented", "gray"), (200, "stimulus_presented", "")]
    events += [(300, "presentation", 1), (350, "stimulus_presented", "tree.2")]  # stopped in it, then started again
    events += [(60_000, "presentation", 0), (60_001, "stimulus_presented", ""), (60_500, "stimulus_presented", "gray")]
    events += [(60_600, "stimulus_presented", ""), (60_700, "presentation", 1)]
    log = of_mworks(tmp_path / "a.csv", *events)
    assert log.table["stimulus_id"].tolist() == ["gray", "tree.2", "gray"]
    assert log.shown.tolist() == [True, False, True]
    np.testing.assert_allclose(log.table["duration_s"], [0.1, np.nan, 0.1])


def test_of_mworks_events_of_one_time_the_image_comes_first(tmp_path):
    events = [(0, "trial_start_line", 1), (100, "stimulus_presented", 0), (150, "correct_fixation", 0)]
    events += [(300, "correct_fixation", 1), (300, "stimulus_presented", 2), (300, "trial_start_line", 1)]
    log = of_mworks(tmp_path / "a.csv", *events)
    assert log.shown.tolist() == [False, True]
    assert log.table["trial"].tolist() == [0, 1]
