"""Stimulus sets on disk: round trips, and every way in which a folder can be wrong."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import zlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stimuli import Display, StimulusSet, _table, png


def _codes(n=4, c=3, h=6, w=4, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, c, h, w), dtype=np.uint8)


TABLE = {
    "stimulus_id": ["0012", "1e5", "NA", "b.c-d_e"],
    "photograph": ["", "NA", 'with, "quotes"\nand\rlines', "é"],
    "site": [None, "A", None, "B"],
    "level": [1, -2, 3, 2**62],
    "score": [0.1, math.nan, math.inf, 1e-300],
    "mirrored": [True, False, True, False],
}


@pytest.fixture
def made():
    return StimulusSet.from_arrays(
        _codes(), TABLE, size_deg=3.5, display=Display(gamma=2.2), provenance={"seed": 7}, name="röund"
    )


@pytest.fixture
def folder(made, tmp_path):
    made.save(tmp_path / "set")
    return tmp_path / "set"


def _images(folder):
    return sorted((folder / "images").iterdir())


def _edit_csv(folder, change):
    """Change stimuli.csv and repair its hash, as somebody who wants to be believed would."""
    text = change((folder / "stimuli.csv").read_bytes().decode())
    (folder / "stimuli.csv").write_bytes(text.encode())
    _edit_json(folder, stimuli_csv_sha256=hashlib.sha256(text.encode()).hexdigest())


def _edit_json(folder, **changes):
    record = json.loads((folder / "set.json").read_text())
    (folder / "set.json").write_text(json.dumps(record | changes))


@pytest.mark.parametrize("channels", [1, 3])
def test_round_trip(tmp_path, channels):
    made = StimulusSet.from_arrays(_codes(c=channels), TABLE, display=Display(gamma=2.2), provenance={"seed": 7})
    saved = made.save(tmp_path / "new" / "set")
    loaded = StimulusSet.load(str(tmp_path / "new" / "set"))
    for other in (saved, loaded):
        np.testing.assert_array_equal(other.codes(), _codes(c=channels))
        pd.testing.assert_frame_equal(other.table, made.table)
        assert (other.shape, other.size_deg, other.display) == (made.shape, made.size_deg, made.display)
        assert (other.provenance, other.name) == (made.provenance, made.name)
    assert loaded.stimulus_ids == ["0012", "1e5", "NA", "b.c-d_e"]


def test_images_are_read_from_the_folder_when_asked(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved = made.save("set")
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(saved.images(["NA"]), _codes()[[2]].astype(np.float32) / 255)
    victim = tmp_path / "set" / "images" / "NA.png"
    victim.unlink()
    with pytest.raises(ValueError, match=r"NA\.png is missing"):
        saved.images(["NA"])
    assert len(saved.images(["0012"])) == 1


def test_same_images_same_bytes_and_plain_chunks(made, folder, tmp_path):
    made.save(tmp_path / "again")
    StimulusSet.load(folder).save(tmp_path / "copy")
    for path in _images(folder):
        data = path.read_bytes()
        assert data == (tmp_path / "again" / "images" / path.name).read_bytes()
        assert data == (tmp_path / "copy" / "images" / path.name).read_bytes()
        kinds, at = [], 8
        while at < len(data):
            length = int.from_bytes(data[at : at + 4], "big")
            kinds.append(data[at + 4 : at + 8])
            at += 12 + length
        assert set(kinds) == {b"IHDR", b"IDAT", b"IEND"}
        assert data[24] == 8  # bits per sample


def test_manifest_and_hashes(made, folder):
    record = json.loads((folder / "set.json").read_text())
    assert [record[key] for key in ("count", "channels", "height", "width", "size_deg")] == [4, 3, 6, 4, 3.5]
    assert record["stimuli_csv_sha256"] == hashlib.sha256((folder / "stimuli.csv").read_bytes()).hexdigest()
    table = pd.read_csv(folder / "stimuli.csv", dtype=str, keep_default_na=False)
    assert table.columns[:3].tolist() == ["stimulus_id", "filename", "sha256"]
    for name, digest in zip(table["filename"], table["sha256"], strict=True):
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert "sha256" not in StimulusSet.load(folder).table


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8"), max_size=5),
            st.one_of(st.none(), st.text(min_size=1, max_size=3)),
            st.floats(allow_nan=True),
            st.integers(-(2**63), 2**63 - 1),
            st.one_of(st.none(), st.booleans()),
            st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_table_survives_csv(rows):
    columns = dict(zip("abcdef", (list(column) for column in zip(*rows, strict=True)), strict=True))
    table = _table.tidy_table(columns, len(rows))
    again = _table.from_csv(_table.to_csv(table).encode().decode(), _table.column_kinds(table))
    pd.testing.assert_frame_equal(again, table, check_exact=True)


def test_whole_numbers_with_missing_values_are_exact_on_disk(tmp_path):
    large = 2**53 + 1  # not a floating-point number
    made = StimulusSet.from_arrays(_codes(), TABLE | {"trial": [large, None, -large, 0]})
    assert made.table["trial"].dtype == "Int64"
    made.save(tmp_path / "set")
    assert json.loads((tmp_path / "set" / "set.json").read_text())["columns"]["trial"] == "int_or_missing"
    loaded = StimulusSet.load(tmp_path / "set").table["trial"]
    assert [None if pd.isna(value) else int(value) for value in loaded] == [large, None, -large, 0]
    StimulusSet.load(tmp_path / "set").select(["0012", "NA"]).save(tmp_path / "part")
    part = StimulusSet.load(tmp_path / "part").table["trial"]
    assert (part.tolist(), str(part.dtype)) == ([large, -large], "Int64")


def test_sets_whose_missing_whole_numbers_were_stored_as_fractions_still_load(folder):
    """Before there was the kind int_or_missing they were float, 1.0 for 1."""
    text = (folder / "stimuli.csv").read_text().replace(str(2**62), "").replace(",-2,", ",-2.0,")
    _edit_csv(folder, lambda _: text)
    record = json.loads((folder / "set.json").read_text())
    _edit_json(folder, columns=record["columns"] | {"level": "float"})
    level = StimulusSet.load(folder).table["level"]
    assert level.dtype == "float64"
    assert level.tolist()[:3] == [1.0, -2.0, 3.0]
    assert math.isnan(level[3])


def test_overwrite_needs_leave_and_a_set_alone(made, folder):
    other = made.select(["NA"])
    with pytest.raises(FileExistsError, match="overwrite=True"):
        other.save(folder)
    (folder / "report.html").write_text("mine")
    with pytest.raises(FileExistsError, match=r"report\.html"):
        other.save(folder, overwrite=True)
    assert len(StimulusSet.load(folder)) == 4
    (folder / "report.html").unlink()
    other.save(folder, overwrite=True)
    assert StimulusSet.load(folder).stimulus_ids == ["NA"]
    assert [path.name for path in folder.parent.iterdir()] == ["set"]


def test_overwrite_spares_a_folder_that_is_no_set(made, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "data.csv").write_text("1")
    with pytest.raises(FileExistsError):
        made.save(tmp_path / "mine", overwrite=True)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["data.csv"]


def test_a_lazy_set_can_replace_its_own_folder(folder):
    loaded = StimulusSet.load(folder)
    kept = loaded.select([1, 2]).save(folder, overwrite=True)
    np.testing.assert_array_equal(kept.codes(), _codes()[[1, 2]])


def test_error_while_saving_leaves_nothing_and_keeps_the_old(made, folder, monkeypatch):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    real, calls = png.encode, []

    def failing(codes):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return real(codes)

    monkeypatch.setattr(png, "encode", failing)
    with pytest.raises(OSError, match="No space left"):
        made.with_columns(extra=1).save(folder, overwrite=True)
    calls.clear()
    with pytest.raises(OSError, match="No space left"):
        made.save(folder.parent / "other" / "deep")
    assert [path.name for path in folder.parent.iterdir()] == ["set"]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_place_that_cannot_be_written(made, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Cannot write .*choose a location"):
        made.save(tmp_path / "file" / "set")


def test_changed_image_is_found_at_load_and_count_is_given(folder):
    for path in _images(folder)[:2]:
        with Image.open(path) as image:
            pixels = np.array(image)
        pixels[0, 0] ^= 255
        Image.fromarray(pixels).save(path)
    with pytest.raises(ValueError, match=r"images/0012\.png does not match its sha256 \(2 of 4 files"):
        StimulusSet.load(folder)
    assert len(StimulusSet.load(folder, verify=False)) == 4


def test_truncated_image_is_found_at_load_and_at_reading(folder):
    path = _images(folder)[0]
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"images/0012\.png .*1 of 4"):
        StimulusSet.load(folder)
    with pytest.raises(ValueError, match=r"0012\.png is truncated or not a PNG"):
        StimulusSet.load(folder, verify=False).images()


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n" + zlib.compress(b"x" * 99)]
)
def test_rubbish_in_place_of_an_image(folder, data):
    _images(folder)[1].write_bytes(data)
    with pytest.raises(ValueError, match=r"images/1e5\.png is not a readable PNG"):
        StimulusSet.load(folder)
    with pytest.raises(ValueError, match=r"1e5\.png is truncated or not a PNG"):
        StimulusSet.load(folder, verify=False).codes()


def test_other_size_and_mode_are_named(folder):
    Image.new("RGB", (9, 6)).save(_images(folder)[0])
    with pytest.raises(ValueError, match=r"0012\.png is 6 x 9 px .* where the set has 6 x 4"):
        StimulusSet.load(folder)
    Image.new("L", (4, 6)).save(_images(folder)[0])
    with pytest.raises(ValueError, match=r"0012\.png has the mode L where the set has RGB"):
        StimulusSet.load(folder)
    with pytest.raises(ValueError, match=r"0012\.png has the mode L"):
        StimulusSet.load(folder, verify=False).codes()


def test_missing_image(folder):
    _images(folder)[2].unlink()
    with pytest.raises(ValueError, match=r"images/NA\.png is missing"):
        StimulusSet.load(folder, verify=False)


def test_edited_table_is_found(folder):
    path = folder / "stimuli.csv"
    path.write_bytes(path.read_bytes().replace(b"0012", b"0013"))
    with pytest.raises(ValueError, match=r"stimuli\.csv was changed"):
        StimulusSet.load(folder)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", ["../outside.png", "/tmp/outside.png", "images/../../outside.png"])
def test_names_in_the_table_cannot_leave_the_folder(folder, name, verify):
    shutil.copy(_images(folder)[0], folder.parent / "outside.png")
    _edit_csv(folder, lambda text: text.replace("images/0012.png", name))
    with pytest.raises(ValueError, match=r"outside\.png' leaves the folder of the set"):
        StimulusSet.load(folder, verify=verify)


def test_links_cannot_leave_the_folder(folder):
    path = _images(folder)[0]
    shutil.move(path, folder.parent / "outside.png")
    path.symlink_to(folder.parent / "outside.png")
    with pytest.raises(ValueError, match="leaves the folder"):
        StimulusSet.load(folder)


def test_repeated_ids_and_wrong_count(folder):
    _edit_csv(folder, lambda text: text.replace('"1e5"', '"0012"'))
    with pytest.raises(ValueError, match="'0012' occurs more than once"):
        StimulusSet.load(folder)
    _edit_json(folder, count=5)
    with pytest.raises(ValueError, match=r"lists 4 stimuli where set\.json says 5"):
        StimulusSet.load(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format_version": 2}, "format version 2 .*update"),
        ({"format_version": "x"}, "format version 'x'"),
        ({"format": "other"}, "does not describe a stimulus set"),
        ({"height": -1}, "height = -1"),
        ({"channels": 2}, "channels = 2"),
        ({"size_deg": "wide"}, "size_deg"),
        ({"columns": []}, "cannot be read"),
        ({"columns": {"level": "complex"}}, "kind 'complex' is unknown"),
        ({"display": {"widht_cm": 3}}, "did you mean 'width_cm'"),
    ],
)
def test_wrong_manifests_are_one_sentence(folder, changes, words):
    _edit_json(folder, **changes)
    with pytest.raises(ValueError, match=words):
        StimulusSet.load(folder)


def test_absent_set_is_named(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="no folder"):
        StimulusSet.load(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no set\.json"):
        StimulusSet.load(tmp_path / "empty")
    (folder / "stimuli.csv").unlink()
    with pytest.raises(ValueError, match=r"stimuli\.csv is missing"):
        StimulusSet.load(folder)
    (folder / "set.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        StimulusSet.load(folder)
