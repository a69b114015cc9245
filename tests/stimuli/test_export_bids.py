"""The BIDS dataset: labels, events in both ways of naming stimuli, the screen; judged in test_clients.py."""

from __future__ import annotations

import csv
import dataclasses
import json
import re

import numpy as np
import pytest
from exported import IDS, SCREEN, bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stimuli import Display
from stimuli.bids_labels import bids_labels
from stimuli.event_logs import read_event_log
from stimuli.export import bids


@pytest.fixture
def written(tmp_path):
    made = bundle(tmp_path / "set")
    (made.folder / "bids").mkdir()
    bids.write(made)
    return made


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_images_lie_under_their_labels_with_the_same_bytes(written):
    rows = table(written.folder / "bids/stimuli/stimuli.tsv")
    assert [row["stimulus_name"] for row in rows] == [*IDS, "gray"]
    assert [row["type"] for row in rows] == ["image"] * 5
    names = []
    for row, filename in zip(rows, written.stimuli.table["filename"], strict=True):
        assert re.fullmatch(r"stim-[A-Za-z0-9]+", row["stimulus_id"])
        copy = written.folder / "bids/stimuli" / f"{row['stimulus_id']}_image.png"
        assert copy.read_bytes() == (written.folder / filename).read_bytes()
        names.append(copy.name)
    found = {path.name for path in (written.folder / "bids/stimuli").glob("*.png")}
    assert found == set(names)
    assert len(found) == 5
    gray = np.array(Image.open(written.folder / "bids/stimuli/stim-gray_image.png"))
    assert (gray == 128).all()


def test_the_table_keeps_all_columns_and_describes_them(written):
    rows = table(written.folder / "bids/stimuli/stimuli.tsv")
    assert [row["family"] for row in rows] == ["synthesized", "synthesized", "n/a", "Bäume, groß", "uniform_gray"]
    assert [row["contrast"] for row in rows] == ["0.1", "n/a", "1.0", "0.25", "n/a"]
    about = json.loads((written.folder / "bids/stimuli/stimuli.json").read_text())
    assert set(rows[0]) <= set(about)
    assert about["ImageSize"]["Pixels"] == [24, 24]
    assert about["ImageSize"]["DegreesOfVisualAngle"] == [6.0, 6.0]


def test_columns_of_the_set_that_are_called_as_ours_are_kept(tmp_path):
    made = bundle(tmp_path / "first")
    stimuli = made.stimuli.with_columns(type=["a", "b", "c", "d", "e"], stimulus_name=[1, 2, 3, 4, 5])
    again = dataclasses.replace(made, stimuli=stimuli.save(tmp_path / "set"), folder=tmp_path / "set")
    (again.folder / "bids").mkdir()
    bids.write(again)
    rows = table(again.folder / "bids/stimuli/stimuli.tsv")
    assert [row["set_type"] for row in rows] == ["a", "b", "c", "d", "e"]
    assert [row["set_stimulus_name"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [row["stimulus_name"] for row in rows] == [*IDS, "gray"]


def test_events_are_the_planned_order_under_both_names(written):
    path = written.folder / "bids/sub-Mx1/ses-20261123/beh/sub-Mx1_ses-20261123_task-rsvp_events.tsv"
    rows, order = table(path), written.order.table
    assert list(rows[0])[:2] == ["onset", "duration"]
    label = {row["stimulus_name"]: row["stimulus_id"] for row in table(written.folder / "bids/stimuli/stimuli.tsv")}
    assert [row["stim_id"] for row in rows] == [label[name] for name in order["stimulus_id"]]
    assert [row["stim_file"] for row in rows] == [f"{label[name]}_image.png" for name in order["stimulus_id"]]
    np.testing.assert_allclose([float(row["onset"]) for row in rows], order["onset_ms_nominal"] / 1000, atol=1e-6)
    np.testing.assert_allclose([float(row["duration"]) for row in rows], order["duration_ms"] / 1000, atol=1e-6)
    assert {row["shown"] for row in rows} == {"n/a"}  # planned: nothing has been shown
    about = json.loads(path.with_suffix(".json").read_text())
    assert "n/a before the run" in about["shown"]["Description"]
    assert "n/a by true" in (written.folder / "bids/README.md").read_text()
    assert "n/a in the column shown by true" in bids.START
    screen = about["StimulusPresentation"]
    assert screen["ScreenDistance"] == 0.57
    assert screen["ScreenSize"] == pytest.approx([0.53, 0.53 * 1080 / 1920])
    assert screen["ScreenResolution"] == [1920, 1080]
    assert screen["ScreenRefreshRate"] == 60.0
    assert "draft" in about["stim_id"]["Description"]


@pytest.mark.parametrize("column", ["stim_id", "stim_file"])
def test_the_events_read_back_by_either_name(column, written, tmp_path):
    path = next((written.folder / "bids").rglob("*_events.tsv"))
    text = re.sub(r"\tn/a$", "\ttrue", path.read_text(), flags=re.MULTILINE)  # as after a run without a broken trial
    lines = [line.split("\t") for line in text.splitlines()]
    gone = lines[0].index({"stim_id": "stim_file", "stim_file": "stim_id"}[column])
    kept = "\n".join("\t".join(cell for k, cell in enumerate(row) if k != gone) for row in lines)
    (tmp_path / "one_events.tsv").write_text(kept)
    log, order = read_event_log(tmp_path / "one_events.tsv", written.stimuli), written.order.table
    for name in ("stimulus_id", "repeat", "trial", "position", "block"):
        assert log.table[name].tolist() == order[name].tolist(), name


def test_without_animal_and_day_and_with_other_heights(tmp_path):
    made = bundle(tmp_path / "set", size_px=(12, 24), animal="", day="")
    (made.folder / "bids").mkdir()
    bids.write(made)
    assert (made.folder / "bids/sub-01/beh/sub-01_task-rsvp_events.tsv").is_file()
    about = json.loads((made.folder / "bids/stimuli/stimuli.json").read_text())
    assert about["ImageSize"]["DegreesOfVisualAngle"] == [6.0, 3.0]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["type", "stimulus_name", "set_type"], ["set_set_type", "set_stimulus_name", "set_type"]),
        (["type", "set_type", "set_set_type"], ["set_set_set_type", "set_type", "set_set_type"]),
        (["ImageSize", "a b", "a\tb"], ["set_ImageSize", "a b", "set_a b"]),
    ],
)
def test_columns_never_share_a_name(columns, expected, tmp_path):
    made = bundle(tmp_path / "first")
    values = {name: [f"{name} {k}".replace("\t", " tab ") for k in range(5)] for name in columns}
    again = dataclasses.replace(
        made, stimuli=made.stimuli.with_columns(**values).save(tmp_path / "set"), folder=tmp_path / "set"
    )
    (again.folder / "bids").mkdir()
    bids.write(again)
    rows = table(again.folder / "bids/stimuli/stimuli.tsv")
    for name, new in zip(columns, expected, strict=True):
        assert [row[new] for row in rows] == values[name]
    about = json.loads((again.folder / "bids/stimuli/stimuli.json").read_text())
    assert set(rows[0]) <= set(about)
    assert about["ImageSize"]["Pixels"] == [24, 24]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("aA1_-", min_size=1, max_size=3), min_size=1, max_size=12, unique=True), st.booleans())
def test_labels_are_distinct_whatever_the_ids(ids, planted):
    if planted:  # ids that are the labels which others get
        ids = list(dict.fromkeys([*ids, *bids_labels(ids), *bids_labels(ids[::-1])]))
    labels = bids_labels(ids)
    assert len({label.lower() for label in labels}) == len(ids)
    assert all(re.fullmatch("[A-Za-z0-9]+", label) for label in labels)
    assert dict(zip(ids[::-1], bids_labels(ids[::-1]), strict=True)) == dict(zip(ids, labels, strict=True))


def test_an_id_that_is_the_label_of_another_loses_no_image():
    assert bids_labels(["a_1", "a-1"]) == ["a11426674c", "a12f8fe63a"]
    labels = bids_labels(["a_1", "a-1", "a11426674c"])
    assert len(set(labels)) == 3
    assert labels[1] == "a12f8fe63a"
    assert labels[0].startswith("a11426674c")
    with pytest.raises(ValueError, match="more than once"):
        bids_labels(["a", "a"])


def test_tabs_and_line_ends_cannot_break_a_row():
    assert bids._tsv(["a", "b"], [["x\ty\r\nz", float("nan")], ["", '"quoted"']]) == 'a\tb\nx y z\tn/a\nn/a\t"quoted"\n'


def test_what_is_not_known_of_the_screen_is_left_out():
    assert "ScreenRefreshRate" not in bids.stimulus_presentation(Display())
    assert bids.stimulus_presentation(SCREEN)["ScreenRefreshRate"] == 60.0


def test_the_bytes_are_the_same_again(written, tmp_path):
    again = bundle(tmp_path / "again")
    (again.folder / "bids").mkdir()
    bids.write(again)
    files = sorted(path.relative_to(written.folder) for path in (written.folder / "bids").rglob("*") if path.is_file())
    assert len(files) > 9
    for name in files:
        assert (written.folder / name).read_bytes() == (again.folder / name).read_bytes(), name
