"""Logs of rigs read back: every identity and repeat of a planned order, broken trials, and what cannot be read."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from exported import bundle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stimuli.bids_labels import bids_labels
from stimuli.event_logs import read_event_log
from stimuli.event_logs.log import COLUMNS
from stimuli.export import nwb as export_nwb
from stimuli.sequence import SequenceConfig, presentation_order

IDS = ["face_1", "face-1", "tree.2", "gray"]
ORDER = presentation_order(IDS, SequenceConfig(repeats=5, images_per_trial=3, blanks_per_block=2)).table
BROKEN = {2, 7, 8, 19}  # rows of the order that were broken off


def written(order=ORDER, broken=BROKEN):
    """Return what was shown, as a test knows it: ids, onsets in s, shown, and the true repeat."""
    truth = order.assign(onset_s=order["onset_ms_nominal"] / 1000 + 3.0, duration_s=order["duration_ms"] / 1000)
    truth["shown"] = [k not in broken for k in range(len(order))]
    seen: dict[str, int] = {}
    truth["true_repeat"] = -1
    for k, name in enumerate(truth["stimulus_id"]):
        if truth["shown"].iloc[k]:
            truth.loc[k, "true_repeat"] = seen.get(name, 0)
            seen[name] = seen.get(name, 0) + 1
    return truth


def as_psychopy(truth, path):
    columns = ["trial", "position", "block", "repeat", "stimulus_id", "filename", "onset_s", "duration_s", "shown"]
    truth[columns].to_csv(path, index=False)


def as_builder(truth, path):
    """The wide CSV of an ExperimentHandler: what did not start has no time, a routine row has no image."""
    rows = ["image_file,trials.thisN,fixation.started,image.started,image.stopped,notes,"]
    for k, row in truth.iterrows():
        rows.append(f",{k},{row.onset_s - 0.1},,,,")
        on, off = (row.onset_s, row.onset_s + row.duration_s) if row.shown else ("None", "None")
        rows.append(f"../{row.filename},{k},,{on},{off},,")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8-sig")


def as_bids(truth, path):
    label = dict(zip(IDS, bids_labels(IDS), strict=True))
    rows = ["onset\tduration\tstim_file\tstim_id\ttrial\tposition\tblock\tshown"]
    for k, row in truth.iterrows():
        name = f"stim-{label[row.stimulus_id]}"
        file, name = (f"{name}_image.png", "n/a") if k % 3 == 0 else ("n/a", name)
        shown = str(row.shown).lower()
        rows.append(
            f"{row.onset_s}\t{row.duration_s}\t{file}\t{name}\t{row.trial}\t{row.position}\t{row.block}\t{shown}"
        )
        rows.append(f"{row.onset_s + 0.05}\tn/a\tn/a\tn/a\tn/a\tn/a\tn/a\tn/a")  # a response of the animal
    path.write_text("\n".join(rows) + "\n")


def mworks_events(truth, value, outcome=1):
    """Events of an RSVP experiment in order of time: trial lines, images on and off, whether fixation held."""
    events = [(0, "stimulus_presented", value(None)), (0, "correct_fixation", 0)]
    for _, row in truth.iterrows():
        on = round(row.onset_s * 1e6)
        off = on + round(row.duration_s * 1e6)
        if row.position == 0:
            events += [(on - 9000, "trial_start_line", 1), (on - 8000, "trial_start_line", 0)]
        events += [(on, "stimulus_presented", value(row)), (off, "stimulus_presented", value(None))]
        events.append((off + 10, "correct_fixation", outcome * int(row.shown)))
    return events


def as_mworks(truth, path):
    """As our rsvp.mwel logs: ids, and the row of the order, which goes up after a whole presentation."""
    events = mworks_events(truth, lambda row: "" if row is None else row.stimulus_id)
    events.insert(2, (0, "presentation", 0))
    ends = (truth["onset_s"] + truth["duration_s"])[truth["shown"]]
    events += [(round(end * 1e6) + 20, "presentation", k + 1) for k, end in enumerate(ends)]
    pd.DataFrame(events, columns=["time", "name", "value"]).to_csv(path, index=False)


def as_mworks_indices(truth, path):
    """As laboratories log: the index into the set, event by event instead of in order of time."""
    events = mworks_events(truth, lambda row: -1 if row is None else IDS.index(row.stimulus_id))
    frame = pd.DataFrame(events, columns=["time_us", "event", "data"])
    frame.sort_values("event", kind="stable").to_csv(path, index=False, sep="\t")


def as_mworks_updates(truth, path):
    """Only what is on the screen is logged, as Python writes it; the fixation point is drawn all the time."""
    point = {"type": "circle", "name": "fixation", "action": "draw"}
    rows = []
    for _, row in truth.iterrows():
        image = {"type": "image", "name": "x", "filename": f"/rig/{row.filename}", "action": "draw"}
        on, off = round(row.onset_s * 1e6), round((row.onset_s + row.duration_s) * 1e6)
        rows += [(on, "#stimDisplayUpdate", repr([image, point])), (on + 5, "#announceStimulus", repr(point))]
        rows += [(on + 10_000, "#stimDisplayUpdate", json.dumps([image, point]))]  # a redraw shows nothing new
        rows += [(off, "#stimDisplayUpdate", repr([point])), (off + 10, "correct_fixation", bool(row.shown))]
    pd.DataFrame(rows, columns=["time", "name", "value"]).to_csv(path, index=False)


def as_mworks_table(truth, path):
    """The table of presentations that the DiCarlo laboratory makes of events and photodiode."""
    frame = pd.DataFrame(
        {
            "stim_on_time_ms": truth["duration_s"] * 1000,
            "stimulus_presented": [IDS.index(name) for name in truth["stimulus_id"]],
            "fixation_correct": truth["shown"].astype(int),
            "stimulus_order_in_trial": truth["position"] + 1,
            "samp_on_us": (truth["onset_s"] * 1e6).round().astype(int) - 1000,
            "photodiode_on_us": (truth["onset_s"] * 1e6).round().astype(int),
        }
    )
    frame.to_csv(path, index=False)


def nwb_file(path, truth, what):
    """An NWB file with trials, with a table of its own, or with an IndexSeries into Images."""
    pynwb = pytest.importorskip("pynwb")
    from datetime import UTC, datetime

    from pynwb.base import ImageReferences, Images
    from pynwb.image import GrayscaleImage, IndexSeries

    nwb = pynwb.NWBFile(session_description="x", identifier="x", session_start_time=datetime(2026, 1, 1, tzinfo=UTC))
    if isinstance(what, dict):  # trials with these columns besides start_time and stop_time
        for name in what:
            nwb.add_trial_column(name, "x")
        for k, values in enumerate(zip(*what.values(), strict=True)):
            nwb.add_trial(start_time=float(k), stop_time=k + 0.9, **dict(zip(what, values, strict=True)))
    elif what == "trials":
        nwb.add_trial_column("image_name", "file of the image")
        nwb.add_trial_column("fixation_correct", "whether fixation held")
        nwb.add_trial_column("position", "place in the trial")
        for _, row in truth.iterrows():
            nwb.add_trial(
                start_time=row.onset_s,
                stop_time=row.onset_s + row.duration_s,
                image_name=row.filename,
                fixation_correct=bool(row.shown),
                position=int(row.position),
            )
    else:
        listed = ["gray", *[name for name in IDS if name != "gray"]]  # not in the order of the set
        images = [GrayscaleImage(name=name, data=np.zeros((2, 2), np.uint8)) for name in listed]
        references = ImageReferences(name="order_of_images", data=images)
        template = Images(name="pictures", images=images, order_of_images=references, description="x")
        nwb.add_stimulus_template(template)
        shown = truth[truth["shown"]]
        series = IndexSeries(
            name="shown",
            data=np.array([listed.index(name) for name in shown["stimulus_id"]], np.uint32),
            unit="N/A",
            indexed_images=template,
            timestamps=shown["onset_s"].to_numpy(),
        )
        nwb.add_stimulus(series)
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(nwb)


WRITERS = {
    "psychopy": (as_psychopy, "run.csv", {"trial", "position", "block", "duration_s"}),
    "builder": (as_builder, "wide.csv", {"duration_s"}),
    "bids": (as_bids, "sub-01_task-rsvp_events.tsv", {"trial", "position", "block", "duration_s"}),
    "mworks": (as_mworks, "events.csv", {"trial", "position", "duration_s"}),
    "mworks indices": (as_mworks_indices, "events.tsv", {"trial", "position", "duration_s"}),
    "mworks updates": (as_mworks_updates, "updates.csv", {"duration_s"}),
    "mworks table": (as_mworks_table, "day_mwk.csv", {"trial", "position", "duration_s"}),
    "nwb trials": (lambda truth, path: nwb_file(path, truth, "trials"), "trials.nwb", {"position", "duration_s"}),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_log_gives_back_every_identity_and_repeat(name, tmp_path):
    write, file, also = WRITERS[name]
    truth = written()
    write(truth, tmp_path / file)
    log = read_event_log(tmp_path / file, IDS)
    assert log.format == name.split()[0].replace("builder", "psychopy")
    assert list(log.table.columns) == list(COLUMNS)
    assert log.table["stimulus_id"].tolist() == truth["stimulus_id"].tolist()
    assert log.table["repeat"].tolist() == truth["true_repeat"].tolist()
    assert log.shown.tolist() == truth["shown"].tolist()
    known = log.shown | (name != "builder")  # what never started has no time there
    np.testing.assert_allclose(log.table["onset_s"][known], truth["onset_s"][known], atol=1e-6)
    for column in also:
        np.testing.assert_allclose(log.table[column][known], truth[column][known], atol=1e-6, err_msg=column)
    for column in {"trial", "position", "block"} - also - ({"trial"} if name == "builder" else set()):
        assert set(log.table[column]) == {-1}, column
    assert log.counts().to_dict() == truth[truth["shown"]]["stimulus_id"].value_counts().reindex(IDS).to_dict()


def test_an_index_series_gives_identities_by_the_order_of_its_images(tmp_path):
    truth = written()
    nwb_file(tmp_path / "series.nwb", truth, "series")
    log = read_event_log(tmp_path / "series.nwb", IDS)
    shown = truth[truth["shown"]]
    assert log.table["stimulus_id"].tolist() == shown["stimulus_id"].tolist()
    assert log.table["repeat"].tolist() == shown["true_repeat"].tolist()
    np.testing.assert_array_equal(log.table["onset_s"], shown["onset_s"])


def test_a_log_written_again_is_the_same(tmp_path):
    as_bids(written(), tmp_path / "a_events.tsv")
    log = read_event_log(tmp_path / "a_events.tsv", IDS)
    again = read_event_log(log.to_csv(tmp_path / "again.csv"), IDS)
    pd.testing.assert_frame_equal(again.table, log.table)
    assert "4 of them broken" in repr(again)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    ids=st.lists(st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,7}[a-z]", fullmatch=True), min_size=1, unique=True),
    name=st.sampled_from(["psychopy", "bids", "mworks"]),
)
def test_any_ids_and_any_breaks_survive(data, ids, name, tmp_path):
    shown = data.draw(st.lists(st.sampled_from(ids), min_size=1, max_size=25))
    broken = data.draw(st.sets(st.integers(0, len(shown) - 1)))
    count = len(shown)
    order = pd.DataFrame(
        {
            "trial": np.arange(count) // 3,
            "position": np.arange(count) % 3,
            "block": 0,
            "repeat": 0,
            "stimulus_id": pd.Series(shown, dtype=object),
            "filename": [f"images/{stimulus}.png" for stimulus in shown],
            "onset_ms_nominal": np.arange(count) * 200.0,
            "duration_ms": 100.0,
        }
    )
    truth = written(order, broken)
    path = tmp_path / WRITERS[name][1]
    if name == "bids":
        label = dict(zip(ids, bids_labels(ids), strict=True))
        rows = [f"{r.onset_s}\t0.1\tstim-{label[r.stimulus_id]}\t{r.shown}" for r in truth.itertuples()]
        path.write_text("onset\tduration\tstim_id\tshown\n" + "\n".join(rows))
    else:
        WRITERS[name][0](truth, path)
    log = read_event_log(path, ids)
    assert log.table["stimulus_id"].tolist() == shown
    assert log.table["repeat"].tolist() == truth["true_repeat"].tolist()


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,5}", fullmatch=True), unique=True))
def test_bids_labels_are_distinct_and_do_not_depend_on_the_order(ids):
    labels = bids_labels(ids)
    assert len({label.lower() for label in labels}) == len(ids)
    assert all(label.isascii() and label.isalnum() for label in labels)
    assert bids_labels(["Face_1", "b"]) == ["Face1", "b"]
    assert dict(zip(ids, labels, strict=True)) == dict(zip(ids[::-1], bids_labels(ids[::-1]), strict=True))


def test_the_part_chooses_among_components_and_tables(tmp_path):
    path = tmp_path / "wide.csv"
    path.write_text("image,first.started,second.started\nface_1,1,2\ngray,3,4\n")
    assert read_event_log(path, IDS, part="second").table["onset_s"].tolist() == [2.0, 4.0]
    with pytest.raises(ValueError, match=r"did you mean 'second\.started'"):
        read_event_log(path, IDS, part="the_second")
    nwb_file(tmp_path / "a.nwb", written(), "trials")
    with pytest.raises(ValueError, match="did you mean 'trials'"):
        read_event_log(tmp_path / "a.nwb", IDS, part="trails")
    as_bids(written(), tmp_path / "a.tsv")
    with pytest.raises(ValueError, match="leave it out"):
        read_event_log(tmp_path / "a.tsv", IDS, part="x")


@pytest.mark.parametrize("column", ["stimulus_onset", "stim_on_time", "stimOn_times", "onset_s", "image_start_time"])
def test_an_onset_in_a_trial_is_no_start_of_the_trial(column, tmp_path):
    trials = {"image_name": ["gray", "face_1"], column: [0.4, 1.5], "reward_onset": [0.8, 1.8]}
    nwb_file(tmp_path / "a.nwb", None, trials)
    log = read_event_log(tmp_path / "a.nwb", IDS)
    assert log.table["onset_s"].tolist() == [0.4, 1.5]
    assert log.table["duration_s"].isna().all()  # a trial ends later than its image
    assert log.notes == ()
    nwb_file(tmp_path / "b.nwb", None, {"image_name": ["gray", "face_1"], "duration_s": [0.1, 0.2]})
    log = read_event_log(tmp_path / "b.nwb", IDS)
    assert (log.table["onset_s"].tolist(), log.table["duration_s"].tolist()) == ([0.0, 1.0], [0.1, 0.2])
    assert "onsets are start_time of the trials" in log.notes[0]
    assert log.notes[0] in repr(log)


def test_a_wrong_choice_was_shown_all_the_same(tmp_path):
    trials = {"image_name": ["gray", "gray"], "onset": [0.1, 1.1], "correct": [False, True]}
    nwb_file(tmp_path / "a.nwb", None, trials)
    log = read_event_log(tmp_path / "a.nwb", IDS)
    assert log.shown.all()
    assert "correct was not read" in log.notes[0]
    nwb_file(tmp_path / "b.nwb", None, trials | {"fixation_correct": [True, False]})
    assert read_event_log(tmp_path / "b.nwb", IDS).shown.tolist() == [True, False]


@pytest.mark.parametrize(
    ("file", "text", "doubtful"),
    [
        ("run.csv", "stimulus_id,onset_s\ngray,1\nface_1,2\n", True),
        ("run.csv", "stimulus_id,onset_s,shown\ngray,1,True\nface_1,2,True\n", False),
        ("wide.csv", "image,image.started\ngray,1\nface_1,2\n", True),
        ("wide.csv", "image,image.started\ngray,1\nface_1,None\n", False),  # what was not shown has no time
        ("a_events.tsv", "onset\tduration\tstim_id\n1\t.1\tstim-gray\n2\t.1\tstim-gray\n", True),
        ("a_events.tsv", "onset\tduration\tstim_id\tshown\n1\t.1\tstim-gray\ttrue\n", False),
        ("events.csv", "time,name,value\n1,stimulus_presented,0\n9,correct_fixation,1\n", False),
    ],
)
def test_a_log_that_marks_nothing_as_broken_says_so(file, text, doubtful, tmp_path):
    (tmp_path / file).write_text(text)
    said = [note for note in read_event_log(tmp_path / file, IDS).notes if "count as shown" in note]
    expected = (
        f"{file!r} has no column shown, so all 2 presentations count as shown; if some were broken, add the column "
    )
    assert said == ([expected + "with true or false in every row"] if doubtful else [])


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"stimulus_onset": [0.4, 0.5]}, r"stimulus_onset = 0.5 s in row 2, which lasts from 1 to 1.9 s"),
        ({"stimulus_onset": [0.4, 1.5], "image_onset": [0.4, 1.6]}, "stimulus_onset and image_onset, which differ"),
        ({"stimulus_id": ["gray", "tree.2"]}, "'gray' and 'tree.2.png' in row 1, which .*: correct .*image_name"),
    ],
)
def test_trials_that_contradict_themselves_are_refused(columns, sentence, tmp_path):
    nwb_file(tmp_path / "a.nwb", None, {"image_name": ["tree.2.png", "images/tree.2.png"], **columns})
    with pytest.raises(ValueError, match=sentence):
        read_event_log(tmp_path / "a.nwb", IDS)


def test_a_plan_says_that_it_is_one(tmp_path):
    pytest.importorskip("pynwb")
    made = bundle(tmp_path / "set")
    (tmp_path / "set" / "nwb").mkdir()
    export_nwb.write(made)
    for part in (export_nwb.TABLE, export_nwb.SERIES):
        log = read_event_log(tmp_path / "set" / "nwb" / "stimuli.nwb", made.stimuli, part=part)
        assert "'stimuli.nwb' is the plan as it was exported" in log.notes[0]
