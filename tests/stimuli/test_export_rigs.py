"""Files for PsychoPy and MonkeyLogic: PsychoPy's script run against a stand-in, tables checked by their rules."""

from __future__ import annotations

import csv
import json
import re
import runpy
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stimuli import Display, StimulusSet
from stimuli.event_logs import read_event_log
from stimuli.export.export_set import export_set
from stimuli.sequence import SequenceConfig

SCREEN = Display(refresh_hz=60.0)


def export(folder, *rigs, size_deg=16 / SCREEN.ppd, display=SCREEN, shape=(16, 16), position_deg=(0, 0), **config):
    codes = np.random.default_rng(0).integers(0, 256, (7, 1, *shape), dtype=np.uint8)
    ids = ["0012", *(f"s-{k}.x" for k in range(6))]
    stimuli = StimulusSet.from_arrays(codes, {"stimulus_id": ids}, size_deg=size_deg, display=display, name="set")
    sequence = SequenceConfig(**{"repeats": 2, "images_per_trial": 5, **config})
    return export_set(stimuli, folder, rigs=rigs, sequence=sequence, position_deg=position_deg)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return export(tmp_path_factory.mktemp("rigs") / "set", "psychopy", "monkeylogic", "psychtoolbox")


def planned(folder):
    return pd.read_csv(folder / "presentation.csv", dtype={"stimulus_id": str})


class FakePsychoPy:
    """A screen of 60 Hz that notes what each frame shows; keys come at given frames."""

    def __init__(self, monkeypatch, keys=(), size_px=(1920, 1080)):
        self.frames, self.drawn, self.keys, self.asked = [], [], dict(keys), {}
        outer = self

        class Window:
            def __init__(self, **named):
                outer.asked["window"] = named
                self.size = np.array(size_px)

            def getActualFrameRate(self):
                return 60.02

            def flip(self):
                outer.frames.append(tuple(outer.drawn))
                outer.drawn.clear()
                return len(outer.frames) / 60

            def close(self):
                outer.asked["closed"] = True

        class Stim:
            def __init__(self, window, image=None, **named):
                self.name = "fixation" if "radius" in named else "square" if image is None else Path(image).name
                self.fillColor = None
                assert image is None or Path(image).is_file()
                if image is not None:
                    outer.asked["image"] = named

            def draw(self):
                outer.drawn.append(self.name if self.fillColor is None else f"{self.name} {self.fillColor[0]}")

        class Monitor:
            def __init__(self, name, width, distance):
                outer.asked["monitor"] = (name, width, distance)

            def setSizePix(self, size):
                outer.asked["pixels"] = size

        def get_keys(keyList):
            assert set(keyList) == {"space", "b", "escape"}
            return self.keys.get(len(self.frames), [])

        package = types.ModuleType("psychopy")
        package.visual = types.SimpleNamespace(Window=Window, ImageStim=Stim, Circle=Stim, Rect=Stim)
        package.monitors = types.SimpleNamespace(Monitor=Monitor)
        package.event = types.SimpleNamespace(getKeys=get_keys)
        monkeypatch.setitem(sys.modules, "psychopy", package)

    def run(self, folder, log, *options):
        script = runpy.run_path(str(folder / "psychopy" / "run_rsvp.py"))
        script["main"]([*options, "--log", str(log)])
        with log.open(newline="") as file:
            return list(csv.DictReader(file))


def test_psychopy_shows_every_image_for_its_frames_and_logs_its_onset(made, tmp_path, monkeypatch):
    rig = FakePsychoPy(monkeypatch)
    rows = rig.run(made, tmp_path / "log.csv", "--free")
    plan = planned(made)
    assert [row["stimulus_id"] for row in rows] == plan["stimulus_id"].tolist()
    for name in ("trial", "position", "block", "repeat", "filename"):
        assert [row[name] for row in rows] == plan[name].astype(str).tolist()
    assert {row["shown"] for row in rows} == {"1"}
    assert [float(row["duration_s"]) for row in rows] == pytest.approx([0.1] * len(plan))
    onset = np.array([float(row["onset_s"]) for row in rows])
    assert onset - onset[0] == pytest.approx((plan["onset_ms_nominal"] - plan["onset_ms_nominal"][0]) / 1000, abs=1e-5)
    pictures = [[name for name in frame if name.endswith(".png")] for frame in rig.frames]
    assert max(map(len, pictures)) == 1
    counts = pd.Series([names[0] for names in pictures if names]).value_counts()
    expected = 6 * plan["filename"].str.removeprefix("images/").value_counts()
    assert counts.to_dict() == expected.to_dict()
    for frame, names in zip(rig.frames, pictures, strict=True):
        assert ("square 255" in frame) == bool(names)
        assert not names or frame[0] == names[0]  # the fixation point is drawn over the image
    assert rig.asked["closed"]


def test_psychopy_draws_pixel_by_pixel_on_exact_gray(made, tmp_path, monkeypatch):
    rig = FakePsychoPy(monkeypatch)
    rig.run(made, tmp_path / "log.csv", "--free")
    image, window = rig.asked["image"], rig.asked["window"]
    assert (image["units"], image["size"], image["pos"], image["interpolate"]) == ("pix", (16, 16), (0, 0), False)
    assert (window["color"], window["colorSpace"], window["fullscr"]) == ([128] * 3, "rgb255", True)
    assert (rig.asked["monitor"], rig.asked["pixels"]) == (("set", 53.0, 57.0), [1920, 1080])


def test_psychopy_waits_for_the_space_bar(made, tmp_path, monkeypatch):
    rig = FakePsychoPy(monkeypatch, {k: ["space"] for k in range(200, 5000)})
    rows = rig.run(made, tmp_path / "log.csv")
    assert 200 / 60 < float(rows[0]["onset_s"]) < 225 / 60


def test_a_broken_trial_is_shown_again_at_the_end(made, tmp_path, monkeypatch):
    rig = FakePsychoPy(monkeypatch, {30 + 10 + 12 + 3: ["b"]})  # pause, lead-in, first image and gap, three frames
    rows = rig.run(made, tmp_path / "log.csv", "--free")
    plan = planned(made)
    first = plan["stimulus_id"][plan["trial"] == 0].tolist()
    later = plan["stimulus_id"][plan["trial"] > 0].tolist()
    assert [row["stimulus_id"] for row in rows] == [*first[:2], *later, *first]
    assert [row["shown"] for row in rows[:3]] == ["1", "0", "1"]
    assert float(rows[1]["duration_s"]) == pytest.approx(3 / 60)
    assert float(rows[2]["onset_s"]) - float(rows[1]["onset_s"]) > 0.6


def test_escape_ends_the_run_and_keeps_the_log(made, tmp_path, monkeypatch):
    rows = FakePsychoPy(monkeypatch, {55: ["escape"]}).run(made, tmp_path / "log.csv", "--free")
    assert [row["shown"] for row in rows] == ["1", "0"]


@pytest.mark.parametrize("gap_ms", [0.0, 50.0])
def test_psychopy_without_a_gap(tmp_path, monkeypatch, gap_ms):
    folder = export(tmp_path / "set", "psychopy", gap_ms=gap_ms)
    rows = FakePsychoPy(monkeypatch).run(folder, tmp_path / "log.csv", "--free")
    assert [float(row["duration_s"]) for row in rows] == pytest.approx([0.1] * len(rows))
    assert float(rows[1]["onset_s"]) - float(rows[0]["onset_s"]) == pytest.approx(0.1 + gap_ms / 1000)


def test_psychopy_refuses_a_screen_of_another_rate(tmp_path, monkeypatch):
    folder = export(tmp_path / "set", "psychopy", display=Display(refresh_hz=85.0))
    with pytest.raises(SystemExit, match=r"runs at 60.02 Hz and the set was made for 85.0 Hz"):
        FakePsychoPy(monkeypatch).run(folder, tmp_path / "log.csv", "--free")


def test_psychopy_refuses_a_screen_of_other_pixels(made, tmp_path, monkeypatch):
    rig = FakePsychoPy(monkeypatch, size_px=(1280, 720))
    with pytest.raises(SystemExit, match="screen has 1280 x 720 px and the set was made for 1920 x 1080: set its res"):
        rig.run(made, tmp_path / "log.csv", "--free")
    assert rig.asked["closed"]
    assert not list(tmp_path.iterdir())  # no log of a run that was none
    assert rig.run(made, tmp_path / "log.csv", "--free", "--windowed")


def test_psychopy_refuses_the_name_of_a_log_before_it_opens_a_window(made, tmp_path, monkeypatch):
    (tmp_path / "log.csv").write_text("kept")
    rig = FakePsychoPy(monkeypatch)
    with pytest.raises(SystemExit, match=r"log\.csv cannot be made \(File exists\): give another name by --log"):
        rig.run(made, tmp_path / "log.csv", "--free")
    assert "window" not in rig.asked
    assert (tmp_path / "log.csv").read_text() == "kept"


def test_psychopy_is_told_degrees_where_pixels_do_not_fit(tmp_path, monkeypatch):
    folder = export(tmp_path / "set", "psychopy", size_deg=3.0, shape=(8, 16))
    rig = FakePsychoPy(monkeypatch)
    rig.run(folder, tmp_path / "log.csv", "--free")
    image = rig.asked["image"]
    assert (image["units"], image["size"], image["interpolate"]) == ("deg", (3.0, 1.5), True)


def test_odd_images_lie_on_whole_pixels(tmp_path, monkeypatch):
    folder = export(tmp_path / "set", "psychopy", size_deg=15 / SCREEN.ppd, shape=(16, 15))
    rig = FakePsychoPy(monkeypatch)
    rig.run(folder, tmp_path / "log.csv", "--free")
    assert rig.asked["image"]["pos"] == (0.5, 0)


def test_a_position_reaches_every_script(tmp_path, monkeypatch):
    folder = export(tmp_path / "set", "psychopy", "monkeylogic", "psychtoolbox", position_deg=(2.0, -1.0), repeats=1)
    rig = FakePsychoPy(monkeypatch)
    rig.run(folder, tmp_path / "log.csv", "--free")
    assert rig.asked["image"]["pos"] == (72, -36)  # 36.04 px/deg
    images, _ = check_conditions(folder / "monkeylogic" / "conditions.txt")
    own_ppd = 2202.907 / (2 * np.degrees(np.arctan(60.8095 / 2 / 57)))  # of MonkeyLogic, by the diagonal of the screen
    ((x, y),) = {image[1:3] for row in images for image in row}
    assert (float(x) * own_ppd, float(y) * own_ppd) == pytest.approx((2 * SCREEN.ppd, -SCREEN.ppd), abs=0.01)
    assert f"monkeylogic has degrees of its own, {own_ppd:.2f} px each" in (folder / "README_RIG.txt").read_text()
    assert "s.shift_px = [72, 36];  % of their middle: right, down" in (folder / "psychtoolbox/load_set.m").read_text()
    assert "middle at x 2, y -1 deg" in (folder / "README_RIG.txt").read_text()
    assert json.loads((folder / "display.json").read_text())["image_position_deg"] == [2.0, -1.0]


def test_logs_of_the_scripts_are_read_back(made, tmp_path, monkeypatch):
    rows = FakePsychoPy(monkeypatch, {55: ["b"]}).run(made, tmp_path / "log.csv", "--free")
    log = read_event_log(tmp_path / "log.csv", StimulusSet.load(made)).table
    assert log["stimulus_id"].tolist() == [row["stimulus_id"] for row in rows]
    assert log["shown"].tolist() == [row["shown"] == "1" for row in rows]
    for _, shown in log[log["shown"]].groupby("stimulus_id"):
        assert shown["repeat"].tolist() == list(range(len(shown)))


def test_psychopy_conditions_follow_its_rules(made):
    with (made / "psychopy" / "conditions.csv").open(newline="") as file:
        header, *rows = list(csv.reader(file))
    assert all(re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) for name in header)
    assert len(set(header)) == len(header)
    assert all(len(row) == len(header) for row in rows)
    where = header.index("image_file")
    assert all((made / "psychopy" / row[where]).is_file() for row in rows)
    assert "stimulus_id" not in header  # one of the ids looks like a number
    assert [row[where] for row in rows] == ("../" + planned(made)["filename"]).tolist()
    monitor = json.loads((made / "psychopy" / "monitor.json").read_text())
    assert (monitor["gamma"], monitor["refresh_hz"]) == (None, 60.0)


MEASURED = {"gamma": 2.2, "luminance_cd_m2": (0.5, 100.0)}
READINGS = ((0.0, 0.5), (0.5, 30.0), (1.0, 100.0))


@pytest.mark.parametrize(
    ("screen", "gamma", "told", "note"),
    [
        ({"pixel_values": "linear", **MEASURED}, 2.2, "corrects the gamma 2.2", None),
        ({"pixel_values": "display", **MEASURED}, None, "load no gamma table, correct nothing", None),
        ({}, None, "Leave the rig as it is in all of your sessions", "measure it, to know"),
        ({"pixel_values": "srgb"}, None, "set the screen to sRGB", None),
        (
            {"pixel_values": "linear", "gamma_offset": 0.5, **MEASURED},
            None,
            "correct the curve",
            "gamma with an offset",
        ),
        ({"pixel_values": "linear", "luminance_table": READINGS}, None, "correct the curve", "photometer readings"),
        ({"pixel_values": "linear", "luminance_table": READINGS, **MEASURED}, None, "correct the curve", "readings"),
        ({"pixel_values": "linear"}, None, "correct the curve", "not known"),
    ],
)
def test_the_curve_of_the_screen_is_corrected_only_as_the_set_says(tmp_path, screen, gamma, told, note):
    display = Display(refresh_hz=60.0, **screen)
    folder = export(tmp_path / "set", "psychopy", "psychtoolbox", display=display, lead_in_ms=150.0)
    assert json.loads((folder / "psychopy" / "monitor.json").read_text())["gamma"] == gamma
    readme = " ".join((folder / "README_RIG.txt").read_text().split())
    assert told in readme
    assert ("corrects the gamma" in readme) == (gamma is not None)
    assert ("correct the curve" in readme.lower()) == (display.pixel_values == "linear")
    assert ("correct nothing" in readme) == (display.pixel_values == "display" and display.gamma is not None)
    assert (note is None) == ("NOTE" not in readme)
    assert note is None or note in readme
    assert ("no script here corrects" in readme) == (display.pixel_values == "linear" and gamma is None)


def check_conditions(path):
    """Read a conditions file by the rules of MonkeyLogic's manual, and return its images by condition."""
    lines = path.read_text(encoding="ascii").splitlines()
    header = lines[0].split("\t")
    fixed = ["Condition", "Info", "Frequency", "Block", "Timing File"]
    assert header == [*fixed, *(f"TaskObject#{k + 1}" for k in range(len(header) - len(fixed)))]
    images, infos = [], []
    for number, line in enumerate(lines[1:], start=1):
        cells = line.split("\t")
        assert len(cells) <= len(header)
        assert all(cells), "several tabs are read as one, so no column may be empty"
        assert cells[0] == str(number), "conditions are numbered from 1 without gaps"
        assert float(cells[2]) > 0
        assert re.fullmatch(r"[\d ]+|all", cells[3])
        assert (path.parent / f"{cells[4]}.m").is_file()
        infos.append(dict(re.findall(r"'(\w+)',(\d+)", cells[1])))
        assert cells[5] == "fix(0,0)"
        found = [re.fullmatch(r"pic\(([^,\s()]+),(-?[\d.]+),(-?[\d.]+)(?:,(\d+),(\d+))?\)", cell) for cell in cells[6:]]
        assert all(found)
        assert all((path.parent / match[1]).is_file() for match in found)
        images.append([match.groups() for match in found])
    return images, infos


def test_monkeylogic_conditions_follow_its_rules(made):
    images, infos = check_conditions(made / "monkeylogic" / "conditions.txt")
    plan = planned(made)
    expected = [("../" + rows["filename"]).tolist() for _, rows in plan.groupby("trial")]
    assert [[image[0] for image in row] for row in images] == expected
    assert {image[3] for row in images for image in row} == {None}  # shown pixel by pixel
    assert [(int(i["trial"]), int(i["images"])) for i in infos] == [(k, len(row)) for k, row in enumerate(expected)]


def test_monkeylogic_is_told_pixels_where_images_do_not_fit(tmp_path):
    folder = export(tmp_path / "set", "monkeylogic", size_deg=3.0, shape=(8, 16))
    images, _ = check_conditions(folder / "monkeylogic" / "conditions.txt")
    assert {image[3:] for row in images for image in row} == {("108", "54")}


def test_monkeylogic_refuses_long_trials(tmp_path):
    with pytest.raises(ValueError, match="A trial has 160 images and MonkeyLogic's script takes 90"):
        export(tmp_path / "set", "monkeylogic", images_per_trial=500, repeats=20)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("distance_cm", "odd"), [(57.0, False), (570.0, True), (5.7, True)])
def test_a_screen_that_few_have_is_questioned(tmp_path, distance_cm, odd):
    folder = export(tmp_path / "out", "psychopy", display=Display(distance_cm=distance_cm))
    assert ("px/deg, which few have" in " ".join((folder / "README_RIG.txt").read_text().split())) == odd
