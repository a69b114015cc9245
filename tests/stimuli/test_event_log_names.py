"""Which stimulus a name in a log means, where ids, files, labels and numbers look alike."""

from __future__ import annotations

import numpy as np
import pytest

from stimuli import StimulusSet
from stimuli.bids_labels import bids_labels
from stimuli.event_logs import read_event_log
from stimuli.event_logs.names import StimulusNames

IDS = ["face_1", "face-1", "tree.2", "gray"]


def test_names_of_every_kind_mean_the_stimulus():
    noise = np.random.default_rng(0).random((3, 1, 4, 4))
    table = {"stimulus_id": ["a", "b", "c"], "filename": ["images/one.png", "left/two.png", "right/two.png"]}
    names = StimulusNames(StimulusSet.from_arrays(noise, table))
    for name, meant in {
        "a": "a",
        "images/one.png": "a",
        "one.png": "a",
        "C:\\rig\\images\\one.png": "a",
        "/data/left/two.png": "b",
        "right/two.png": "c",
        "stim-c": "c",
        "stim-c_image.png": "c",
        "gray": "gray",
        "two.png": None,  # either of two
        "d": None,
        "": None,
    }.items():
        assert names.find(name) == meant, name
    assert names.ids == ("a", "b", "c")


def test_a_name_with_slashes_is_a_file_before_it_is_an_id(tmp_path):
    names = StimulusNames(["a", "a.png"])  # of which the files are a.png and a.png.png
    assert [names.find(name) for name in ("C:\\rig\\a.png", "images/a.png", "x/a.png.png")] == ["a", "a", "a.png"]
    assert [names.find(name) for name in ("a.png", "a", "rig/a")] == ["a.png", "a", "a"]
    path = tmp_path / "run.csv"
    for column, meant in (("filename", "a"), ("image", "a"), ("stimulus_id", "a.png"), ("mine", "a.png")):
        path.write_text(f"{column},onset_s\na.png,1\n")
        assert read_event_log(path, ["a", "a.png"]).table["stimulus_id"].tolist() == [meant], column


def test_a_label_of_bids_is_a_label_before_it_is_an_id(tmp_path):
    ids = ["a", "stim-a"]
    assert bids_labels(ids) == ["a", "stima"]
    rows = ["0\t0.1\tstim-a\tn/a", "1\t0.1\tstim-stima\tstim-stima_image.png", "2\t0.1\tn/a\tstimuli/stim-a_image.png"]
    (tmp_path / "a.tsv").write_text("\n".join(["onset\tduration\tstim_id\tstim_file", *rows]))
    assert read_event_log(tmp_path / "a.tsv", ids).table["stimulus_id"].tolist() == ["a", "stim-a", "a"]
    (tmp_path / "a.csv").write_text("stimulus_id,onset_s\na,0\nstim-a,1\n")
    assert read_event_log(tmp_path / "a.csv", ids).table["stimulus_id"].tolist() == ids


def test_every_column_that_names_a_stimulus_is_read(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("stimulus_id,filename,stimulus,onset_s\nface_1,,gray,1\n,images/gray.png,natural,2\n,,natural,3\n")
    assert read_event_log(path, IDS).table["stimulus_id"].tolist() == ["face_1", "gray"]  # stimulus is a kind here
    path.write_text("image,image_file,onset_s\nv1,images/gray.png,1\nv2,tree.2.png,2\n")
    assert read_event_log(path, IDS).table["stimulus_id"].tolist() == ["gray", "tree.2"]


def test_numbers_count_a_gray_image_only_where_one_was_exported(tmp_path):
    """The exporter adds gray, unless an image is uniform already, whatever it is called."""
    path = tmp_path / "events.csv"
    path.write_text("time,name,value\n1,stimulus_presented,2\n")
    noise = np.random.default_rng(0).integers(0, 256, (2, 1, 4, 4), dtype=np.uint8)
    without = StimulusSet.from_arrays(noise, {"stimulus_id": ["a", "b"]})
    assert read_event_log(path, without).table["stimulus_id"].tolist() == ["gray"]
    noise[1] = 128
    plain = StimulusSet.from_arrays(noise, {"stimulus_id": ["a", "plain"]})
    with pytest.raises(ValueError, match="shows the image 2 in row 2, but the set has 2 images"):
        read_event_log(path, plain)
    assert StimulusNames(plain).order == ("a", "plain")
    assert StimulusNames(["gray", "a"]).order == ("gray", "a")
