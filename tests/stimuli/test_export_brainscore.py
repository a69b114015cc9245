"""Brain-Score's CSV and ZIP: names, numbers, RGB, checksums, the same bytes again; judged in test_clients.py."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import re
import zipfile

import numpy as np
import pandas as pd
import pytest
from exported import IDS, bundle
from PIL import Image

from stimuli import StimulusSet
from stimuli.export import brainscore

REQUESTED = re.compile(r"[a-zA-Z0-9]+_?(?!0)\d+\.png")  # the rule for sets that Brain-Score shows to animals


def write(folder, **named):
    made = bundle(folder, **named)
    (made.folder / "brainscore").mkdir()
    brainscore.write(made)
    return made, made.folder / "brainscore"


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_rgb_with_the_codes_of_the_set(channels, tmp_path):
    made, place = write(tmp_path / "set", channels=channels)
    with zipfile.ZipFile(place / "stimulus_npc_Round1Stretch.zip") as archive:
        assert archive.namelist() == [f"image_{k}.png" for k in range(1, 6)]
        assert all(REQUESTED.fullmatch(name) for name in archive.namelist())
        assert archive.testzip() is None
        for k, name in enumerate(archive.namelist()):
            image = Image.open(io.BytesIO(archive.read(name)))
            assert image.mode == "RGB"
            assert not image.info
            codes = made.stimuli.codes([k])[0]
            expected = np.broadcast_to(codes, (3, *codes.shape[1:])).transpose(1, 2, 0)
            np.testing.assert_array_equal(np.array(image), expected)


def test_the_table_names_the_files_of_the_zip(tmp_path):
    _, place = write(tmp_path / "set")
    text = (place / "stimulus_npc_Round1Stretch.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0])[:3] == ["stimulus_id", "filename", "degrees"]
    assert [row["stimulus_id"] for row in rows] == [*IDS, "gray"]
    assert [row["filename"] for row in rows] == [f"image_{k}.png" for k in range(1, 6)]
    assert {row["degrees"] for row in rows} == {"6.0"}  # not the user's own column of that name
    assert rows[3]["family"] == "Bäume, groß"


@pytest.mark.parametrize(
    ("ids", "prefix"),
    [(["a", "b", "c", "d"], ""), (["0012", "12", "7", "d"], "id_"), (["True", "b", "c", "d"], "id_")],
)
def test_ids_that_look_like_values_get_a_prefix(ids, prefix, tmp_path):
    made = bundle(tmp_path / "first")
    stimuli = made.stimuli.select(slice(0, 4))
    named = StimulusSet.from_arrays(stimuli.codes(), {"stimulus_id": ids}).save(tmp_path / "set")
    (tmp_path / "set" / "brainscore").mkdir()
    brainscore.write(dataclasses.replace(made, stimuli=named, folder=tmp_path / "set"))
    read = pd.read_csv(tmp_path / "set" / "brainscore" / "stimulus_npc_Round1Stretch.csv")  # as Brain-Score does
    assert read["stimulus_id"].tolist() == [prefix + name for name in ids]
    record = json.loads((tmp_path / "set" / "brainscore" / "stimulus_npc_Round1Stretch.json").read_text())
    assert record["stimulus_id_prefix"] == prefix


def test_the_record_has_the_identifier_and_both_sums(tmp_path):
    _, place = write(tmp_path / "set")
    record = json.loads((place / "stimulus_npc_Round1Stretch.json").read_text())
    for kind in ("csv", "zip"):
        data = (place / f"stimulus_npc_Round1Stretch.{kind}").read_bytes()
        assert record[f"{kind}_sha1"] == hashlib.sha1(data).hexdigest()
    assert record["identifier"] == "npc.Round1Stretch"
    assert record["count"] == 5


def test_the_bytes_are_the_same_again(tmp_path):
    first, second = write(tmp_path / "a")[1], write(tmp_path / "b")[1]
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name
    with zipfile.ZipFile(first / "stimulus_npc_Round1Stretch.zip") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("name", ["a", "v4 stretch", "2019_set", "__", "Größe", "x.y"])
def test_identifiers_follow_the_convention(name):
    assert re.fullmatch(r"[a-z]+\.[A-Z][a-zA-Z0-9]+", brainscore.identifier(name))
