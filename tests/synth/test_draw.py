"""``npc draw`` on real files; every wrong input is one sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from stimuli import StimulusSet
from stimuli.apertures import Aperture
from stimuli.families import FAMILIES, draw, grid, sample
from stimuli.textures import phase_scrambled, pink_noise
from synth.commands import draw as command


@pytest.fixture
def npc():
    app = typer.Typer()
    app.command("draw")(command.draw)
    app.command("other")(lambda: None)

    def run(*arguments):
        result = CliRunner().invoke(app, ["draw", *map(str, arguments)])
        if result.exit_code and not isinstance(result.exception, SystemExit):
            raise result.exception  # what synth.cli.main turns into one sentence
        assert result.exit_code == 0, result.output
        return result

    return run


def same(folder, expected):
    found = StimulusSet.load(folder)
    assert found.stimulus_ids == expected.stimulus_ids
    np.testing.assert_array_equal(found.codes(), expected.codes())
    return found


def test_a_sample(npc, tmp_path):
    result = npc(
        "gabor", "-n", 4, "--seed", 3, "--size-px", 64, "--size-deg", 6, "--range", "frequency_cpd=0.5:4", "--set",
        "contrast=0.8", "--set", "phase_deg=0,90", "--set", "zero_mean=true", "--aperture-deg", 2, "--out",
        tmp_path / "gabors", "--json",
    )  # fmt: skip
    expected = draw(
        sample("gabor", 4, seed=3, frequency_cpd=(0.5, 4.0), contrast=0.8, phase_deg=[0, 90], zero_mean=True),
        size_px=64,
        size_deg=6.0,
        aperture=Aperture(2.0, 0.5),
    )
    found = same(tmp_path / "gabors", expected)
    assert found.table["seed"].tolist() == [3] * 4
    assert json.loads(result.stdout) == {
        "stimuli": 4, "family": "gabor", "size_px": 64, "size_deg": 6.0, "set": str(tmp_path / "gabors"),
    }  # fmt: skip


def test_a_grid_at_a_receptive_field(npc, tmp_path):
    npc("grating", "--grid", "--set", "frequency_cpd=1,2", "--set", "orientation_deg=0,45,90", "--at", -1.3, 0.4,
        "--aperture-deg", 2, "--edge-deg", 1, "--rgb", "--out", tmp_path / "made")  # fmt: skip
    patterns = grid("grating", frequency_cpd=[1, 2], orientation_deg=[0, 45, 90], x_deg=-1.3, y_deg=0.4)
    same(tmp_path / "made", draw(patterns, aperture=Aperture(2.0, 1.0, -1.3, 0.4), channels=3))


def test_the_whole_curvature_family_and_ones_own_radii(npc, tmp_path):
    npc("contour", "--grid", "--set", "radii=all", "--set", "orientation_deg=0,180", "--set", "radius_deg=2",
        "--size-px", 24, "--out", tmp_path / "all")  # fmt: skip
    found = StimulusSet.load(tmp_path / "all")
    assert 71 < len(found) < 142
    npc("contour", "--grid", "--set", "radii=1 .5 1 .5, 1 1 1", "--out", tmp_path / "own")
    assert StimulusSet.load(tmp_path / "own").table["radii"].tolist() == ["1 0.5 1 0.5", "1 1 1"]


def test_noise_scrambled_and_outlines(npc, tmp_path):
    npc("pink_noise", "-n", 2, "--set", "alpha=1.5", "--seed", 4, "--size-px", 64, "--out", tmp_path / "noise")
    noise = pink_noise(2, alpha=1.5, seed=4, size_px=64)
    same(tmp_path / "noise", noise)
    npc("phase_scrambled", "--from", tmp_path / "noise", "--set", "fraction=0.5", "--out", tmp_path / "scrambled")
    same(tmp_path / "scrambled", phase_scrambled(noise, 0.5))
    npc("phase_scrambled", "--from", tmp_path / "noise", "--aperture-deg", 2, "--out", tmp_path / "window")
    window = StimulusSet.load(tmp_path / "window").codes()[:, 0]
    assert (window[:, Aperture(2.0, 0.5).mask((64, 64), 8.0) == 0] == 128).all()
    (tmp_path / "shapes.csv").write_text("shape,x,y\nwedge,0,0\nwedge,2,0\nwedge,0,1\n")
    npc("outline", "--shapes", tmp_path / "shapes.csv", "--set", "radius_deg=1", "--out", tmp_path / "outline")
    assert StimulusSet.load(tmp_path / "outline").table["radius_deg"].tolist() == [1.0]


def test_a_screen_gives_the_pixels_or_a_warning(npc, tmp_path):
    screen = ("--screen", "640x480", "--width-cm", 40, "--distance-cm", 57)
    npc("grating", "-n", 1, "--size-deg", 4, *screen, "--out", tmp_path / "fits")
    fits = StimulusSet.load(tmp_path / "fits")
    assert fits.display is not None
    assert fits.size_px[1] == round(4 * fits.display.ppd)
    arguments = ("grating", "-n", 1, "--size-deg", 4, "--size-px", 100, *screen, "--quiet")
    result = npc(*arguments, "--out", tmp_path / "other")
    assert result.stderr.startswith("npc: Images of 100 px")
    assert "resample" in result.stderr
    assert result.stdout.strip() == str(tmp_path / "other")


def test_the_list_names_every_family_and_range(npc):
    text = npc("--list").stdout
    for name, kind in FAMILIES.items():
        assert f"{name}: " in text
        assert all(parameter in text for parameter in kind.ranges)
    assert "0.5 to 4 (log-uniform)" in text
    for name in ("outline", "pink_noise", "phase_scrambled"):
        assert f"{name}: " in text


def test_the_screen_has_three_options_or_none(npc, tmp_path):
    with pytest.raises(ValueError, match="--distance-cm is missing: a screen needs"):
        npc("gabor", "--screen", "640x480", "--width-cm", 40, "--out", tmp_path / "made")
    with pytest.raises(ValueError, match="--screen and --distance-cm is missing"):
        npc("gabor", "--width-cm", 40, "--out", tmp_path / "made")
    with pytest.raises(ValueError, match="--screen is 'big'; give width x height"):
        npc("gabor", "--screen", "big", "--width-cm", 40, "--distance-cm", 57, "--out", tmp_path / "made")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "needs the name of a family"),
        ("gabr", "no family 'gabr': did you mean 'gabor'"),
        ("pinknoise", "did you mean 'pink_noise'"),
        ("gabor --set cntrast=1", "did you mean 'contrast'"),
        ("gabor --set contrast", "--set got 'contrast'; give NAME=VALUE"),
        ("gabor --set contrast=", "--set got 'contrast='"),
        ("gabor --set contrast=high", "'high' in 'contrast=high' is not a number"),
        ("gabor --set contrast=1,,2", "'' in 'contrast=1,,2' is not a number"),
        ("gabor --set contrast=2", "contrast of a gabor pattern is 2"),
        ("gabor --set contrast=all", "contrast of gabor has no ready-made values"),
        ("grating --grid --set orientation_deg=all", "orientation_deg of grating has no ready-made values"),
        ("pink_noise --set alpha=all", "alpha of pink_noise has no ready-made values"),
        ("contour --range orientation_deg=0:90", "chosen from values; give --set orientation_deg=VALUE,VALUE"),
        ("grating --grid --range frequency_cpd=1:2", "--grid takes no --range"),
        ("pink_noise --at 2 0", "--at is the middle of an aperture for pink_noise; give --aperture-deg too"),
        ("phase_scrambled --from absent --at 2 0", "--at is the middle of an aperture for phase_scrambled"),
        ("phase_scrambled --from absent --shapes s.csv", "--shapes is for outline; leave it out for phase_scrambled"),
        ("pink_noise --seed 4294967296", "seed is 4294967296"),
        ("gabor --range contrast=1", "give NAME=LOW:HIGH"),
        ("gabor --range contrast=1:x", "'x' in 'contrast=1:x'"),
        ("gabor --range contrast=1:0.5", "lower end first"),
        ("gabor --set contrast=1 --range contrast=0:1", "contrast is given twice"),
        ("gabor --set x_deg=1 --at 1 1", "--at stands for x_deg and y_deg"),
        ("gabor --grid -n 3", "-n does not go with --grid"),
        ("gabor --edge-deg 1", "give --aperture-deg too"),
        ("gabor --aperture-deg 1 --edge-deg 2", "edge from 0 to the radius"),
        ("gabor --from set", "--from is for phase_scrambled"),
        ("gabor --shapes shapes.csv", "--shapes is for outline; leave it out for gabor"),
        ("gabor --size-px 16", "frequency"),
        ("outline", "outline needs the file of shapes; give it with --shapes"),
        ("outline --shapes absent.csv", "no file"),
        ("outline --shapes absent.csv -n 2", "-n does not go with --shapes"),
        ("pink_noise --set beta=1", "pink_noise has no parameter 'beta'"),
        ("pink_noise --range alpha=1:2", "alpha of pink_noise is"),
        ("pink_noise --grid", "--grid does not go with pink_noise"),
        ("phase_scrambled", "needs the set whose images are scrambled"),
        ("phase_scrambled --from absent", "no folder"),
        ("phase_scrambled --from absent --size-px 64", "leave --size-px out"),
        ("phase_scrambled --from absent --rgb", "leave --rgb out"),
        ("phase_scrambled --from absent -n 4", "leave -n out"),
    ],
)
def test_wrong_input_is_one_sentence_and_writes_nothing(npc, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError), match=words) as caught:
        npc(*arguments.split(), "--out", "made")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["sigma_deg=0.5 0.7", "sigma_deg=0.5,0.6 0.7", "contrast=1 1"])
def test_a_space_is_no_range(npc, tmp_path, text):
    with pytest.raises(ValueError, match="is not a number; put commas between values"):
        npc("gabor", "--set", text, "--out", tmp_path / "made")


def test_all_stands_for_every_value_that_is_allowed(npc, tmp_path):
    npc(
        "gabor",
        "--grid",
        "--set",
        "zero_mean=all",
        "--set",
        "sigma_deg=0.4",
        "--size-px",
        32,
        "--out",
        tmp_path / "both",
    )
    assert StimulusSet.load(tmp_path / "both").table["zero_mean"].tolist() == [False, True]


def test_an_aperture_has_a_place(npc, tmp_path):
    npc("pink_noise", "-n", 1, "--aperture-deg", 1, "--at", 2, -1, "--size-px", 64, "--out", tmp_path / "made")
    same(tmp_path / "made", pink_noise(1, size_px=64, aperture=Aperture(1.0, 0.25, 2.0, -1.0)))


def test_an_earlier_set_is_replaced_only_when_asked(npc, tmp_path):
    arguments = ("grating", "-n", 1, "--size-px", 32, "--set", "frequency_cpd=1", "--out", tmp_path / "made")
    npc(*arguments)
    with pytest.raises(FileExistsError, match="--overwrite"):
        npc(*arguments)
    with pytest.raises(FileExistsError, match="--overwrite"):  # before any work: not even the values are read
        npc(*arguments, "--set", "contrast=high")
    npc(*arguments, "--seed", 1, "--overwrite")
    assert StimulusSet.load(tmp_path / "made").table["seed"].tolist() == [1]


def test_a_parameter_of_names(npc, tmp_path):
    npc("stroke", "--grid", "--set", "figure=cross,half_arc", "--size-px", 32, "--set", "width_deg=0.5", "--out",
        tmp_path / "two")  # fmt: skip
    assert StimulusSet.load(tmp_path / "two").table["figure"].tolist() == ["cross", "half_arc"]
    npc("stroke", "--grid", "--set", "figure=all", "--out", tmp_path / "all")
    assert len(StimulusSet.load(tmp_path / "all")) == 11
