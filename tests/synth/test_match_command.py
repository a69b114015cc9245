"""`npc match`: a set in, a matched set, its report and the change of predictions out."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from neural_fits.appearance_effect import appearance_effect
from neural_fits.site_model import load_model
from stimuli import StimulusSet, natural_photos
from stimuli.apertures import Aperture
from stimuli.matching import match_appearance
from synth.commands.match import match


def run(*arguments):
    app = typer.Typer()
    app.command()(match)
    return CliRunner().invoke(app, [*map(str, arguments), "--quiet"], catch_exceptions=True)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    gray = StimulusSet.from_arrays(np.full((1, 3, 64, 64), 0.5), {"stimulus_id": ["gray"]})
    return StimulusSet.concat([natural_photos(4, 64, seed=2), gray]).save(tmp_path_factory.mktemp("sets") / "photos")


@pytest.fixture
def place(photos):
    return photos._items[0].parent.parent


def test_files_hold_what_the_function_gives(photos, place, tmp_path):
    out = tmp_path / "matched"
    options = ("--mean", 0.5, "--rms", 0.3, "--max-clipped", 0.01, "--aperture-deg", 3, "--at", 0.5, -0.25)
    done = run(place, *options, "--out", out)
    assert done.exit_code == 0, done.output
    wanted = match_appearance(photos, mean=0.5, rms=0.3, max_clipped=0.01, aperture=Aperture(3.0, 0.75, 0.5, -0.25))
    made = StimulusSet.load(out)
    np.testing.assert_array_equal(made.codes(), wanted.stimuli.codes())
    assert (made.codes(["gray"]) == 128).all()
    report = pd.read_csv(out / "matching.csv")
    np.testing.assert_allclose(report["rms_contrast"], wanted.report["rms_contrast"], rtol=1e-5)
    assert f"RMS contrast {wanted.rms:.4g}, lowered from 0.3 for {wanted.limited_by}" in done.output
    assert "1 uniform images left as they were" in done.output
    assert done.output.splitlines()[-1] == str(out)


def test_predictions_before_and_after_are_those_of_the_models(photos, place, tmp_path, lite_model):
    out = tmp_path / "matched"
    models = ("--model", lite_model[0], "--model", lite_model[1])
    done = run(place, "--rms", "average", "--device", "cpu", *models, "--out", out, "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.output.splitlines()[-1])
    table = pd.read_csv(out / "predicted_change.csv")
    for folder in lite_model:
        effect = appearance_effect(photos, StimulusSet.load(out), load_model(folder))
        rows = table[table["model"] == str(folder)]
        np.testing.assert_allclose(rows["change_sd"], effect.table["change_sd"], rtol=1e-4, atol=1e-5)
        assert result["effects"][str(folder)]["median_r"] == pytest.approx(effect.summary()["median_r"], rel=1e-5)
        assert rows[rows["stimulus_id"] == "gray"]["change_sd"].abs().max() < 1e-6
    assert result["stimuli"] == 5
    assert result["uniform"] == 1


@pytest.fixture(scope="module")
def lite_model(tmp_path_factory):
    """Two small models on an embedded network, saved."""
    import torch

    from neural_fits.backbones import load_backbone
    from neural_fits.features import FeatureExtractor
    from neural_fits.readout import LinearReadout
    from neural_fits.site_model import SiteInfo, SiteModel

    extractor = FeatureExtractor(load_backbone("efficientnet-lite0"), "blocks.0", input_px=64)
    shape = extractor(torch.zeros(1, 3, 64, 64)).shape[1:]
    folders = []
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(2, *shape, generator=generator) / 100
        info = SiteInfo(("a", "b"), (0.0, 0.0), (1.0, 2.0), (64, 64), 8.0, "spikes")
        model = SiteModel(extractor, LinearReadout(weight, torch.zeros(2)), info)
        folders.append(model.save(tmp_path_factory.mktemp("models") / f"model{seed}"))
    return folders


def test_histogram_spectrum_and_gray(photos, place, tmp_path):
    out = tmp_path / "shine"
    done = run(place, "--gray", "--spectrum", "rotational", "--histogram", "average", "--seed", 3, "--out", out)
    assert done.exit_code == 0, done.output
    made = StimulusSet.load(out)
    assert made.shape == (1, 64, 64)
    codes = np.sort(made.codes()[:4].reshape(4, -1), axis=1)
    np.testing.assert_array_equal(codes, codes[:1].repeat(4, axis=0))
    assert made.provenance["seed"] == 3
    wanted = match_appearance(photos, gray=True, spectrum="rotational", histogram="average", seed=3)
    np.testing.assert_array_equal(made.codes(), wanted.stimuli.codes())


def test_an_earlier_result_is_replaced_only_when_asked_and_nothing_else_ever(place, tmp_path):
    out = tmp_path / "twice"
    assert run(place, "--mean", "average", "--out", out).exit_code == 0
    again = run(place, "--mean", "average", "--out", out)
    assert isinstance(again.exception, FileExistsError)
    assert run(place, "--mean", 0.45, "--out", out, "--overwrite").exit_code == 0
    report = pd.read_csv(out / "matching.csv")
    whole = report[(report["clipped_fraction"] == 0) & ~report["uniform"]]
    assert len(whole) > 0
    np.testing.assert_allclose(whole["mean_luminance"], 0.45, atol=2e-3)
    (out / "mine.txt").write_text("notes")
    foreign = run(place, "--mean", 0.45, "--out", out, "--overwrite")
    assert isinstance(foreign.exception, FileExistsError)


def test_models_are_looked_at_before_the_images_are_matched(photos, place, tmp_path, lite_model, monkeypatch):
    def no_matching(*args, **kwargs):
        raise AssertionError("matched before the models were looked at")

    monkeypatch.setattr("stimuli.matching.match_appearance", no_matching)
    absent = run(place, "--mean", 0.5, "--model", tmp_path / "nomodel", "--out", tmp_path / "none")
    assert isinstance(absent.exception, FileNotFoundError)
    photos.on_screen(size_deg=2.0).save(tmp_path / "small")
    other = run(tmp_path / "small", "--mean", 0.5, "--model", lite_model[0], "--out", tmp_path / "none")
    with pytest.raises(ValueError, match="are 2 deg wide, the model was fitted on images of 8 deg"):
        raise other.exception
    assert not (tmp_path / "none").exists()


def test_clipping_of_an_earlier_step_is_told(place, tmp_path):
    assert run(place, "--mean", 0.5, "--rms", 0.4, "--out", tmp_path / "strong").exit_code == 0
    done = run(tmp_path / "strong", "--rms", 0.1, "--out", tmp_path / "weak")
    assert done.exit_code == 0, done.output
    before = StimulusSet.load(tmp_path / "strong").table["clipped_fraction"]
    table = StimulusSet.load(tmp_path / "weak").table
    assert table["clipped_fraction_before"].tolist() == before.tolist()
    assert f"clipped before, when the set was made: up to {100 * before.max():.2g} % of the values" in done.output
    assert "clipped before" not in run(place, "--mean", 0.5, "--out", tmp_path / "once").output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "Nothing was asked"),
        (("--mean", "half"), "--mean is 'half'; give a number, or average"),
        (("--mean", 0.5, "--edge-deg", 1), "give its --aperture-deg"),
        (("--mean", 0.5, "--keep-surround"), "give its --aperture-deg"),
        (("--histogram", "average"), r"gray=True \(--gray\)"),
        (("--rms", 0.2, "--max-clipped", 3), "max_clipped is 3"),
    ],
)
def test_wrong_options_write_nothing(place, tmp_path, options, words):
    done = run(place, *options, "--out", tmp_path / "none")
    assert isinstance(done.exception, ValueError)
    with pytest.raises(ValueError, match=words):
        raise done.exception
    assert not (tmp_path / "none").exists()


def test_images_that_miss_the_contrast_are_counted(place, tmp_path):
    done = run(place, "--rms", 0.3, "--out", tmp_path / "clipped")
    table = pd.read_csv(tmp_path / "clipped" / "matching.csv")
    off = (table.loc[~table["uniform"], "rms_contrast"] / 0.3 - 1).abs() > 0.02
    assert off.any()
    assert f"{off.sum()} of 4 images are off the RMS contrast 0.3" in done.output
    assert "are off the RMS contrast" not in run(place, "--rms", 0.05, "--out", tmp_path / "fits").output
