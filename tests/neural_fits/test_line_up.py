"""Responses sorted by the log of a rig: planted numbers come out at their stimulus and repeat."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neural_fits.line_up import line_up, line_up_spikes
from neural_fits.spike_counts import count_in_windows
from neural_fits.trial_responses import read_sites, read_trial_responses
from stimuli.event_logs.log import event_log
from stimuli.event_logs.names import StimulusNames

IDS = ["a", "b", "c"]


def log_of(shown, broken=(), ids=IDS):
    rows = {"stimulus": shown, "onset_s": np.arange(len(shown)) * 0.2 + 1.0}
    rows["shown"] = [k not in set(broken) for k in range(len(shown))]
    return event_log(rows, StimulusNames(ids), format="psychopy", file="run.csv")


@settings(max_examples=60, deadline=None)
@given(data=st.data(), shown=st.lists(st.sampled_from([*IDS, "gray"]), min_size=1, max_size=20))
def test_every_response_comes_to_its_stimulus_and_repeat(data, shown):
    broken = data.draw(st.sets(st.integers(0, len(shown) - 1)))
    whole = data.draw(st.booleans())
    log = log_of(shown, broken)
    values = np.arange(len(shown) * 2, dtype=float).reshape(-1, 2)
    rows = values if whole else values[[k for k in range(len(shown)) if k not in broken]]
    recorded = line_up(log, rows, ["s0", "s1"], broken_left_out=not whole)
    expected: dict[str, list[list[float]]] = {name: [] for name in IDS}
    for k, name in enumerate(shown):
        if k not in broken:
            expected.setdefault(name, []).append(values[k].tolist())
    assert list(recorded.stimulus_ids) == list(expected)
    for name, trials in zip(recorded.stimulus_ids, recorded.responses, strict=True):
        assert trials[: len(expected[name])].tolist() == expected[name]
        assert np.isnan(trials[len(expected[name]) :]).all()


def test_time_bins_site_tables_and_units_stay():
    sites = pd.DataFrame({"region": ["V4"]}, index=pd.Index(["s0"], name="site_id"))
    bins = ((0.0, 50.0), (50.0, 100.0))
    recorded = line_up(log_of(["b", "b"]), np.arange(4.0).reshape(2, 1, 2), sites, time_bins_ms=bins, unit="spikes/bin")
    assert recorded.responses[1, :, 0].tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert (recorded.time_bins_ms, recorded.unit, recorded.sites["region"].tolist()) == (bins, "spikes/bin", ["V4"])
    assert recorded.meta == {"event_log": "run.csv", "format": "psychopy", "presentations": 2, "shown": 2}


def test_spikes_are_counted_in_the_window_after_each_onset():
    log = log_of(["a", "b", "a"], broken=[1])
    spikes = np.array([1.0699, 1.07, 1.1, 1.1699, 1.17, 1.3, 1.48])  # onsets 1.0, (1.2), 1.4
    recorded = line_up_spikes(log, {"s0": spikes[::-1], "s1": []}, (70, 170))
    assert recorded.responses[0].tolist() == [[3.0, 0.0], [1.0, 0.0]]
    assert recorded.window_ms == (70.0, 170.0)
    later = line_up_spikes(log, {"s0": spikes + 100}, (70, 170), onsets_s=log.table["onset_s"] + 100.0)
    assert later.responses[0, :, 0].tolist() == [3.0, 1.0]


def test_a_broken_presentation_needs_no_onset():
    log = log_of(["a", "b"], broken=[1])
    recorded = line_up_spikes(log, {"s0": [5.1]}, (70, 170), onsets_s=[5.0, np.nan])
    assert recorded.responses[0].tolist() == [[1.0]]


@settings(max_examples=60, deadline=None)
@given(
    times=st.lists(st.integers(-50, 300), max_size=40),
    onsets=st.lists(st.integers(0, 200), max_size=8),
    start=st.integers(-60, 60),
    length=st.integers(1, 90),
)
def test_counting_is_what_counting_one_by_one_gives(times, onsets, start, length):
    seconds, at = np.array(times, float), np.array(onsets, float)  # whole seconds: no rounding at the edges
    found = count_in_windows(seconds, at, (start * 1000.0, (start + length) * 1000.0))
    assert found.tolist() == [sum(o + start <= t < o + start + length for t in times) for o in onsets]


@pytest.mark.parametrize(
    ("responses", "sites", "sentence"),
    [
        (
            np.zeros((4, 1)),
            ["s0"],
            "4 rows, but 'run.csv' has 3 presentations, 2 of them shown whole: give 3 rows .*--broken",
        ),
        (np.zeros((3, 2)), ["s0"], r"shape \(2, 2\) where .* with 1 sites"),
        (np.zeros(3), ["s0"], r"\(presentation, site\) or"),
        (np.zeros((3, 1)), ["s0", "s0"], "must be unique"),
    ],
)
def test_what_does_not_fit_the_log_is_refused(responses, sites, sentence):
    with pytest.raises(ValueError, match=sentence):
        line_up(log_of(["a", "b", "a"], broken=[1]), responses, sites)


def test_an_array_that_lost_a_row_is_not_taken_for_one_without_broken_presentations():
    log = log_of(["a", "b", "a"], broken=[1])
    with pytest.raises(ValueError, match=r"2 rows, .* 3 presentations, 2 of .*: give 3 rows .*broken_left_out=True"):
        line_up(log, [[1.0], [3.0]], ["s0"])
    with pytest.raises(ValueError, match=r"3 rows, .* 2 of them shown whole: broken_left_out=True .* wants 2 rows"):
        line_up(log, [[1.0], [2.0], [3.0]], ["s0"], broken_left_out=True)
    left_out = line_up(log, [[1.0], [3.0]], ["s0"], broken_left_out=True)
    every = line_up(log, [[1.0], [2.0], [3.0]], ["s0"])
    np.testing.assert_array_equal(left_out.responses, every.responses)


def test_text_missing_onsets_and_windows_are_refused():
    log = log_of(["a", "b"])
    with pytest.raises(TypeError, match="give real numbers"):
        line_up(log, [["x"], ["y"]], ["s0"])
    with pytest.raises(ValueError, match="2 presentations: give one for each"):
        line_up_spikes(log, {"s0": [1.0]}, (70, 170), onsets_s=[1.0])
    with pytest.raises(ValueError, match="1 presentations that were shown have no onset"):
        line_up_spikes(log, {"s0": [1.0]}, (70, 170), onsets_s=[1.0, np.nan])
    with pytest.raises(ValueError, match="give \\(start, end\\) in ms"):
        line_up_spikes(log, {"s0": [1.0]}, (170, 70))


def test_spikes_padded_with_nan_are_counted_whatever_their_order():
    spikes = np.array([0.2, np.nan, 0.1, 0.5, 0.6])  # a difference to NaN is neither up nor down
    assert count_in_windows(spikes, np.array([0.0, 0.4]), (0, 300)).tolist() == [2, 2]


def test_a_table_of_sites_names_columns_in_any_order_and_keeps_what_is_known(tmp_path):
    (tmp_path / "sites.csv").write_text("region,site_id,x,note,array\nV4,0012,1,007,1.5\nIT,7,2,8,\n")
    sites = read_sites(tmp_path / "sites.csv")
    assert list(sites.index) == ["0012", "7"]
    assert sites[["region", "x", "note"]].values.tolist() == [["V4", 1, "007"], ["IT", 2, "8"]]
    assert (sites["x"].dtype.kind, sites["array"].dtype.kind) == ("i", "f")
    (tmp_path / "r.csv").write_text("7,0012\n1,2\n")  # could be responses as well
    with pytest.raises(ValueError, match="begins with the numbers"):
        read_trial_responses(tmp_path / "r.csv", sites)
    (tmp_path / "ids.txt").write_text("left\nright\n")
    (tmp_path / "r.csv").write_text("right,left\n1,2\n,NaN\n3e-1,-.5\n\n", encoding="utf-8-sig")
    values, found = read_trial_responses(tmp_path / "r.csv", read_sites(tmp_path / "ids.txt"))
    assert list(found.index) == ["right", "left"]
    np.testing.assert_array_equal(values, [[1, 2], [np.nan, np.nan], [0.3, -0.5]])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("s1,s2\n1,2,\n3,4,\n", "3 cells in line 2 where its first row has 2"),
        ("s1,s2\n0,1,2\n1,3,4\n", "3 cells in line 2"),  # a reader of tables takes the first column for an index
        ("s1,s2\n1,2\n3\n", "1 cells in line 3"),
        ("s1\n1\n\n3\n", "0 cells in line 3"),  # left out, all later rows would shift
        (",s1,s2\n0,1,2\n1,3,4\n", "no name in column 1: .* index=False"),
        ("s1,s1\n1,2\n", "'s1' in more than one column"),
        ("1,2.5\n3,4\n", "begins with the numbers '1', '2.5': write the ids"),
        ("s1,s2\n1,x\n", "'x' in line 2 where a response"),
        ("s1;s2\n1,5;2,5\n", "3 cells in line 2"),
        ("s1,s2\n1,inf\n", "'inf' in line 2"),
        ("", "is empty: write one cell per site"),
        ("s1,s3\n1,2\n", "differ in 2 ids \\('s2', 's3'\\)"),
    ],
)
def test_a_table_of_responses_that_a_lenient_reader_would_shift_is_refused(text, sentence, tmp_path):
    (tmp_path / "r.csv").write_text(text)
    (tmp_path / "ids.txt").write_text("s1\ns2")
    sites = read_sites(tmp_path / "ids.txt")
    with pytest.raises(ValueError, match=sentence):
        read_trial_responses(tmp_path / "r.csv", sites if "s3" in text else None)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty: write one line per site"),
        ("a\n\nb\n", "0 cells in line 2"),
        ("a\nb\na\n", "'a' in more than one line"),
        ("site_id,region\na,V4\n ,IT\n", "no name in line 2"),
        ("id,region\na,V4\n", "no column 'site_id'"),
        ("site_id,repetition\na,1\n", "a name that files use otherwise"),
    ],
)
def test_a_list_of_sites_that_leaves_one_open_is_refused(text, sentence, tmp_path):
    (tmp_path / "sites.csv").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read_sites(tmp_path / "sites.csv")
