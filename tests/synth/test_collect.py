"""`npc collect`: finished images as they are, crops of a folder, crops of the installed photographs."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from stimuli import StimulusSet
from synth.cli import app


def collect(*arguments):
    return CliRunner().invoke(app, ["collect", *map(str, arguments)], catch_exceptions=True)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "mine"
    place.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (80, 80), dtype=np.uint8)).save(place / name)
    (place / "images.csv").write_text("filename,category\nb.png,hand\n")
    return place


def test_finished_images_keep_their_codes(folder, tmp_path):
    done = collect(folder, "--size-deg", 5, "--out", tmp_path / "set", "--json")
    assert json.loads(done.output.splitlines()[-1]) == {
        "set": str(tmp_path / "set"),
        "stimuli": 2,
        "size_px": [80, 80],
        "size_deg": 5.0,
    }
    made = StimulusSet.load(tmp_path / "set")
    assert np.array_equal(made.codes(["a"])[0, 0], np.asarray(Image.open(folder / "a.png")))


def test_a_table_chooses(folder, tmp_path):
    assert collect(folder, "--table", folder / "images.csv", "--out", tmp_path / "set").exit_code == 0
    assert StimulusSet.load(tmp_path / "set").table[["stimulus_id", "category"]].values.tolist() == [["b", "hand"]]


def test_crops(folder, tmp_path):
    assert collect(folder, "--crops", 3, "--size-px", 64, "--gray", "--out", tmp_path / "one").exit_code == 0
    assert StimulusSet.load(tmp_path / "one").shape == (1, 64, 64)
    assert collect("--crops", 4, "--size-px", 64, "--size-deg", 3, "--out", tmp_path / "two").exit_code == 0
    made = StimulusSet.load(tmp_path / "two")
    assert (made.shape, len(made), made.size_deg) == ((3, 64, 64), 4, 3.0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--table", "t.csv"), "give their FOLDER"),
        (("nowhere",), "no folder"),
        (("MINE", "--gray"), "goes with --crops"),
    ],
)
def test_wrong_input_is_one_sentence_and_writes_nothing(folder, tmp_path, arguments, words):
    done = collect(*(folder if part == "MINE" else part for part in arguments), "--out", tmp_path / "set")
    assert words in str(done.exception)
    assert isinstance(done.exception, (ValueError, FileNotFoundError))
    assert not (tmp_path / "set").exists()
