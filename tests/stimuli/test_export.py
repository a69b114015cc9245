"""Exported sets: the layout, exact codes, reproducible bytes, hostile input, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import subprocess
import tracemalloc
import zlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stimuli import Display, StimulusSet
from stimuli.export import export_set as module
from stimuli.export._checks import check_table
from stimuli.export.export_set import RIGS, export_set
from stimuli.sequence import PresentationOrder, SequenceConfig, presentation_order

SCREEN = Display(refresh_hz=60.0)
TWICE = SequenceConfig(repeats=2, seed=1)


def noise(n=5, size=(8, 8), channels=1, display=SCREEN, seed=0, **columns):
    codes = np.random.default_rng(seed).integers(0, 256, (n, channels, *size), dtype=np.uint8)
    ids = columns.pop("stimulus_id", [f"s{k}" for k in range(n)])
    return StimulusSet.from_arrays(codes, {"stimulus_id": ids, **columns}, size_deg=4.0, display=display, name="set")


def export(stimuli, folder, rigs=("psychopy",), **named):
    return export_set(stimuli, folder, rigs=rigs, sequence=named.pop("sequence", TWICE), **named)


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    source = noise(seed=3, family=["noise"] * 5, objective=["-Stretch('a')"] * 5)
    folder = tmp_path_factory.mktemp("made") / "out"
    return source, export(source, folder, rigs=("psychopy", "mworks", "monkeylogic", "psychtoolbox"))


def test_the_layout(made):
    _, folder = made
    assert {p.name for p in folder.iterdir()} == {
        *("images", "stimuli.csv", "set.json", "presentation.csv", "presentation.json", "display.json"),
        *("provenance.json", "README_RIG.txt", "report.html", "checksums.sha256"),
        *("psychopy", "mworks", "monkeylogic", "psychtoolbox"),
    }


def test_codes_on_disk_are_those_of_the_set_and_gray_is_128(made):
    source, folder = made
    for stimulus, codes in zip(source.stimulus_ids, source.codes(), strict=True):
        with Image.open(folder / "images" / f"{stimulus}.png") as image:
            assert image.mode == "L"
            assert np.array_equal(np.array(image), codes[0])
    with Image.open(folder / "images" / "gray.png") as image:
        assert np.unique(np.array(image)).tolist() == [128]
    assert StimulusSet.load(folder).stimulus_ids == [*source.stimulus_ids, "gray"]
    assert StimulusSet.load(folder).display == SCREEN


def test_pngs_hold_nothing_but_pixels(made):
    for path in (made[1] / "images").iterdir():
        data, kinds, at = path.read_bytes(), [], 8
        while at < len(data):
            length, kind = struct.unpack(">I4s", data[at : at + 8])
            kinds.append(kind)
            at += length + 12
        assert set(kinds) == {b"IHDR", b"IDAT", b"IEND"}


def test_sha256sum_accepts_the_checksums(made):
    folder = made[1]
    lines = (folder / "checksums.sha256").read_text().splitlines()
    listed = {line[66:]: line[:64] for line in lines}
    assert set(listed) == set(files(folder)) - {"checksums.sha256", "provenance.json"}
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "-c", "--quiet", "checksums.sha256"], cwd=folder, check=True)


def test_the_same_input_gives_the_same_bytes(made, tmp_path):
    source, folder = made
    again = export(source, tmp_path / "again", rigs=("psychopy", "mworks", "monkeylogic", "psychtoolbox"))
    first, second = files(folder), files(again)
    assert {name for name in first if first[name] != second.get(name)} <= {"provenance.json"}
    assert str(tmp_path).encode() not in b"".join(second.values())


def test_an_exported_set_can_be_exported_again(made, tmp_path):
    again = export(StimulusSet.load(made[1]), tmp_path / "again")
    for name in ("stimuli.csv", "presentation.csv", "images/s0.png"):
        assert (again / name).read_bytes() == (made[1] / name).read_bytes()


def test_screen_and_provenance(made):
    source, folder = made
    screen = json.loads((folder / "display.json").read_text())
    assert screen["ScreenSize"] == pytest.approx([0.53, 0.53 * 1080 / 1920])
    assert (screen["ScreenDistance"], screen["ScreenRefreshRate"]) == (0.57, 60.0)
    assert screen["image_size_deg"] == [4.0, 4.0]
    assert (screen["gray_code"], screen["background_code"]) == (128, 128)
    assert Display.from_dict(screen["display"]) == SCREEN
    record = json.loads((folder / "provenance.json").read_text())
    assert record["stimuli"] == source.provenance
    assert record["config"]["sequence"]["repeats"] == 2
    digest = hashlib.sha256((folder / "checksums.sha256").read_bytes()).hexdigest()
    assert record["inputs"]["checksums.sha256"] == digest


def test_the_readme_says_what_matters(made):
    text = (made[1] / "README_RIG.txt").read_text()
    assert "6 gray images of 8 x 8 px, 4 deg wide" in text
    assert "Images of 8 px shown at 4 deg cover 144 px on this screen" in text
    assert "show them at 0.22197 deg, or make them with 144 px" in " ".join(text.split())
    assert "The lead-in is 166.667 ms on this screen instead of 160." in text
    assert "show images/gray.png" in text
    for rig in ("psychopy", "mworks", "monkeylogic", "psychtoolbox"):
        assert f"START: {rig}/" in text
    assert max(map(len, text.splitlines())) <= 106
    report = (made[1] / "report.html").read_text()
    assert "if no trial is broken off" in report


def test_order_of_the_export(made):
    source, folder = made
    order = PresentationOrder.from_csv(folder / "presentation.csv")
    expected = presentation_order([*source.stimulus_ids, "gray"], TWICE, refresh_hz=60.0)
    assert order.table.equals(expected.table)


def test_an_order_made_before_is_kept(tmp_path):
    order = presentation_order(["s4", "s1", "gray"], SequenceConfig(repeats=3))
    folder = export(noise(), tmp_path / "out", sequence=order)
    assert PresentationOrder.from_csv(folder / "presentation.csv").table.equals(order.table)
    wrong = presentation_order(["s4", "z", "gray"], SequenceConfig(repeats=1))
    with pytest.raises(ValueError, match=r"'z' from 'images/z.png', which is not in the set 'set'"):
        export(noise(), tmp_path / "two", sequence=wrong)
    moved = presentation_order(["s4", "gray"], SequenceConfig(repeats=1), filenames={"s4": "images/x.png"})
    with pytest.raises(ValueError, match=r"'images/x.png', where the set has 'images/s4.png'"):
        export(noise(), tmp_path / "two", sequence=moved)


def test_predictions_of_one_model_are_columns(tmp_path):
    frame = pd.DataFrame({"u1": [1.23456789, 2, 3, 4], "u2": 0.5}, index=["s0", "s1", "s2", "s3"])
    folder = export(noise(), tmp_path / "out", predictions=frame)
    table = StimulusSet.load(folder).table.set_index("stimulus_id")
    assert table["predicted_u1"].iloc[:4].tolist() == [1.23457, 2, 3, 4]
    assert table["predicted_u1"].iloc[4:].isna().all()
    assert table["size_deg"].unique().tolist() == [4.0]
    assert not (folder / "predictions").exists()
    page = (folder / "report.html").read_text()
    assert "1.235" in page
    assert "predicted_u1" not in page  # told once, as a prediction


def test_predictions_of_several_models_have_tables_of_their_own(tmp_path):
    frames = {name: pd.DataFrame({"u": np.arange(5.0) + k}, index=noise().stimulus_ids) for k, name in enumerate("ab")}
    folder = export(noise(), tmp_path / "out", predictions=frames)
    assert StimulusSet.load(folder).table["predicted_u"].tolist()[:5] == [0, 1, 2, 3, 4]
    read = pd.read_csv(folder / "predictions" / "b.csv", index_col="stimulus_id")
    assert read["u"].tolist()[:5] == [1, 2, 3, 4, 5]
    assert "predicted responses  a, b" in (folder / "README_RIG.txt").read_text()


@pytest.mark.parametrize(
    ("predictions", "error", "match"),
    [
        ({"m": 3}, TypeError, "predictions of 'm' are a int: give a DataFrame"),
        (pd.DataFrame({"u": [1.0]}, index=["zz"]), ValueError, "for other stimuli"),
        (pd.DataFrame({"u": ["x"]}, index=["s0"]), ValueError, "of the site 'u' are not numbers"),
        (pd.DataFrame({"=u": [1.0]}, index=["s0"]), ValueError, "would run '=u' in the name of a site"),
        (pd.DataFrame({"u": [1.0, 2.0]}, index=["s0", "s0"]), ValueError, "name a stimulus or a site twice"),
        ({n: pd.DataFrame({"u": [1.0]}, index=["s0"]) for n in ("a b", "a/b")}, ValueError, "would share a file"),
    ],
)
def test_wrong_predictions(tmp_path, predictions, error, match):
    with pytest.raises(error, match=match):
        export(noise(), tmp_path / "out", predictions=predictions)
    assert not list(tmp_path.iterdir())


HOSTILE = {
    "formula": ({"note": ["=cmd|' /C calc'!A0"] * 5}, "would run .* in the column 'note' of the stimulus 's0'"),
    "plus": ({"note": ["+1"] * 5}, "would run"),
    "minus": ({"note": ["-2+3"] * 5}, "would run"),
    "at": ({"note": ["@SUM(A1)"] * 5}, "would run"),
    "tab": ({"note": ["\t=1"] * 5}, "would run"),
    "return": ({"note": ["\r=1"] * 5}, "would run"),
    "wide": ({"note": ["＝1"] * 5}, "would run"),
    "objective": ({"objective": ["=1"] * 5}, "would run"),
    "header": ({"=x": ["a"] * 5}, "would run '=x' in the name of a column"),
    "null": ({"note": ["a\0b"] * 5}, "null character in the column 'note'"),
    "long": ({"note": ["x" * 10_000] * 5}, "10,000 characters in the column 'note' of the stimulus 's0': shorten"),
    "long header": ({"x" * 10_000: ["a"] * 5}, "10,000 characters in the name of a column"),
    "spaces": ({"filename": [f"images/a {k}.png" for k in range(5)]}, "not safe on every rig"),
    "unicode": ({"filename": [f"images/ä{k}.png" for k in range(5)]}, "not safe on every rig"),
    "elsewhere": ({"filename": [f"psychopy/a{k}.png" for k in range(5)]}, "not safe on every rig"),
    "case": ({"stimulus_id": ["a", "A", "b", "c", "d"]}, "differ in case only"),
    "files in case": ({"filename": [f"images/{k}.png" for k in ("a", "A", "b", "c", "d")]}, "differ in case only"),
    "device": ({"stimulus_id": ["a", "CON", "b", "c", "d"]}, "device on Windows"),
    "gray": ({"stimulus_id": ["a", "gray", "b", "c", "d"]}, "not uniform 128: rename"),
    **{
        f"missing {name}": ({"stimulus_id": ["a", name, "b", "c", "d"]}, f"'{name}' means 'no value' to the programs")
        for name in ("NA", "null", "None", "nan", "NULL", "NaN", "na", "nAn", "none")
    },
}


def test_every_id_that_pandas_reads_as_missing_is_refused():
    from pandas._libs.parsers import STR_NA_VALUES

    for name in STR_NA_VALUES:
        with pytest.raises(ValueError, match=r"no value|cannot be a file name"):
            check_table(noise(stimulus_id=["a", name, "b", "c", "d"]))


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_tables_are_refused_and_nothing_is_written(tmp_path, case):
    columns, match = HOSTILE[case]
    with pytest.raises(ValueError, match=match):
        export(noise(**columns), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_harmless_cells_pass(tmp_path):
    columns = {"note": ["-1.5", "-1e3", "a=b", "x+y", ""], "objective": ["-Stretch('a')"] * 5, "delta": [-1.0] * 5}
    folder = export(noise(**columns), tmp_path / "out")
    assert StimulusSet.load(folder).table["note"].tolist()[:4] == ["-1.5", "-1e3", "a=b", "x+y"]


def _huge_png(path):
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize("damage", ["truncated", "huge", "gone", "text"])
def test_damaged_images_are_refused_with_little_memory(tmp_path, damage):
    saved = noise().save(tmp_path / "source")
    path = tmp_path / "source" / "images" / "s3.png"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-30])
    elif damage == "huge":
        _huge_png(path)
    elif damage == "gone":
        path.unlink()
    else:
        path.write_text("not a picture")
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"s3.png is (truncated|missing)"):
        export(saved, tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_an_error_of_a_rig_leaves_nothing(tmp_path, monkeypatch):
    target = export(noise(), tmp_path / "out")
    before = files(target)
    monkeypatch.setattr("stimuli.export.psychopy.write", lambda bundle: 1 / 0)
    for folder in (tmp_path / "new", target):
        with pytest.raises(ZeroDivisionError):
            export(noise(seed=9), folder, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert files(target) == before


def test_overwriting_never_deletes_a_log(tmp_path):
    folder = export(noise(), tmp_path / "out")
    with pytest.raises(FileExistsError, match="not empty"):
        export(noise(), folder)
    export(noise(seed=1), folder, overwrite=True)
    (folder / "psychopy" / "logs").mkdir()
    (folder / "psychopy" / "logs" / "run.csv").write_text("trial\n")
    with pytest.raises(FileExistsError, match=r"holds 'psychopy/logs/run\.csv', added or edited after the export"):
        export(noise(seed=2), folder, overwrite=True)
    assert (folder / "psychopy" / "logs" / "run.csv").exists()


@pytest.mark.parametrize("name", ["psychopy/run_rsvp.py", "presentation.csv", "images/s1.png"])
def test_overwriting_never_deletes_what_was_edited(tmp_path, name):
    folder = export(noise(), tmp_path / "out")
    before = (folder / name).read_bytes()
    (folder / name).write_bytes(before + b"# mine\n")
    with pytest.raises(FileExistsError, match=f"holds '{name}', added or edited after the export.*move them away"):
        export(noise(seed=2), folder, overwrite=True)
    assert (folder / name).read_bytes() == before + b"# mine\n"
    assert not module.is_export(folder)
    (folder / name).write_bytes(before)
    assert module.is_export(folder)
    (folder / "README_RIG.txt").unlink()  # what is gone cannot be lost
    export(noise(seed=2), folder, overwrite=True)
    assert (folder / "README_RIG.txt").exists()


def test_what_an_earlier_export_added_is_not_credited_to_this_one(tmp_path):
    frame = pd.DataFrame({"u1": np.arange(5.0), "u2": 1.0}, index=noise().stimulus_ids)
    first = StimulusSet.load(export(noise(rank=[5, 4, 3, 2, 1]), tmp_path / "one", predictions=frame))
    assert first.table["size_deg"].unique().tolist() == [4.0]
    plain = export(first.on_screen(size_deg=2.0), tmp_path / "two")
    table = StimulusSet.load(plain).table
    assert table["size_deg"].unique().tolist() == [2.0]
    assert [name for name in table if name.startswith("predicted_")] == []
    report = (plain / "report.html").read_text()
    assert [word in report for word in ("rank", "predicted_", "size_deg")] == [True, False, False]
    other = export(first, tmp_path / "three", predictions=frame[["u2"]] + 1)
    table = StimulusSet.load(other).table
    assert [name for name in table if name.startswith("predicted_")] == ["predicted_u2"]
    assert table["predicted_u2"].tolist()[:5] == [2.0] * 5
    assert table["rank"].tolist()[:5] == [5, 4, 3, 2, 1]


def test_whole_numbers_are_exported_as_such(tmp_path):
    folder = export(noise(serial=[2**53 + 1, 1, 2, 3, 4]), tmp_path / "out", rigs=("bids", "brainscore"))
    for table in (folder / "stimuli.csv", folder / "bids/stimuli/stimuli.tsv", next(folder.glob("brainscore/*.csv"))):
        lines = table.read_text().splitlines()
        cut = "\t" if table.suffix == ".tsv" else ","
        column = lines[0].split(cut).index("serial")
        cells = [line.split(cut)[column] for line in lines[1:]]
        assert cells == [str(2**53 + 1), "1", "2", "3", "4", "n/a" if table.suffix == ".tsv" else ""]


def test_a_screen_is_needed_and_the_given_one_counts(tmp_path):
    with pytest.raises(ValueError, match=r"made for no screen.*--screen 1920x1080 --width-cm 53"):
        export(noise(display=None), tmp_path / "out")
    other = Display(resolution_px=(1024, 768), width_cm=40.0, refresh_hz=85.0)
    folder = export(noise(), tmp_path / "out", display=other)
    assert StimulusSet.load(folder).display == other
    assert json.loads((folder / "psychopy" / "monitor.json").read_text())["size_pix"] == [1024, 768]


def test_a_background_that_is_not_the_gray_is_told(tmp_path):
    folder = export(noise(), tmp_path / "out", display=Display(background=0.25))
    text = (folder / "README_RIG.txt").read_text()
    assert "The background of this screen is the code 64 and the gray of the images is 128" in " ".join(text.split())


@pytest.mark.parametrize(
    ("display", "position_deg", "told"),
    [
        (Display(resolution_px=(320, 240), width_cm=8.8), (0.0, 0.0), False),
        (Display(resolution_px=(320, 240), width_cm=8.8), (2.6, 0.0), True),
        (Display(resolution_px=(320, 240), width_cm=8.8), (0.0, -1.5), True),
    ],
)
def test_images_beyond_the_edge_are_told(tmp_path, display, position_deg, told):
    folder = export(noise(), tmp_path / "out", display=display, position_deg=position_deg)
    assert ("reach beyond the edge of this screen" in (folder / "README_RIG.txt").read_text()) == told


@pytest.mark.parametrize(
    ("named", "error", "match"),
    [
        ({"position_deg": (1.0,)}, ValueError, r"position_deg is \(1.0,\): give \(x, y\)"),
        ({"position_deg": (1.0, float("nan"))}, ValueError, "give .x, y. in degrees"),
        ({"rigs": "psychopy"}, TypeError, "give a list of names"),
        ({"rigs": ["psychpy"]}, ValueError, "no exporter for 'psychpy': did you mean 'psychopy'"),
        ({"sequence": 10}, TypeError, "give a SequenceConfig"),
    ],
)
def test_wrong_arguments(tmp_path, named, error, match):
    with pytest.raises(error, match=match):
        export(noise(), tmp_path / "out", **named)
    assert not list(tmp_path.iterdir())


def test_every_rig_has_a_module_with_its_two_names():
    for name in RIGS:
        found = module._rig(name)
        assert callable(found.write)
        assert found.START.strip()


def test_names_of_sets_never_reach_a_script_as_they_are(tmp_path):
    wild = noise()
    wild = StimulusSet.from_arrays(wild.codes(), wild.table, display=SCREEN, name='"""; import os\n<b>%s')
    folder = export(wild, tmp_path / "out", rigs=("psychopy", "mworks", "monkeylogic", "psychtoolbox"))
    for path in (p for p in folder.rglob("*") if p.suffix in (".py", ".mwel", ".m", ".txt")):
        assert "import os\n<b>" not in path.read_text()
        assert '"""; import' not in path.read_text()
