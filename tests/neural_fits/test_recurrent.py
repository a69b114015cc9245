"""Time-resolved sites of a recurrent network: fitted, scored, lesioned, saved, against planted truth."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from torch import nn

from neural_fits import SiteRecordings, fit_sites
from neural_fits.backbones import Backbone
from neural_fits.folds import group_folds, group_labels
from neural_fits.networks import recurrent_fit
from neural_fits.networks.recurrent_files import load_recurrent
from neural_fits.networks.recurrent_fit import RecurrentConfig, fit_recurrent
from neural_fits.networks.simulated_dynamics import SimulatedDynamics
from neural_fits.site_model import load_model
from stimuli import StimulusSet, natural_photos

BINS = tuple((20.0 * k, 20.0 * (k + 1)) for k in range(6))


class Colors(nn.Module):
    """Mean color in quadrants: six features, with a name to read them by."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(2)

    def forward(self, images):
        return self.pool(images)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 1, (90, 3, 2, 2)).repeat(8, 2).repeat(8, 3)
    table = {"stimulus_id": [f"i{k}" for k in range(90)], "photograph": [f"p{k // 3}" for k in range(90)]}
    return StimulusSet.from_arrays(coarse.astype(np.float32), table)


@pytest.fixture(scope="module")
def muscles(pictures):
    """Three outputs without noise: an early one, a late one, and one that is 0 in the first bin."""
    images = pictures.images()
    red, blue = images[:, 0, :8].mean((1, 2)), images[:, 2, :, 8:].mean((1, 2))
    rise = 1 - np.exp(-np.arange(1, 7) / 1.5)
    late = np.clip(np.arange(6) - 2, 0, None) / 3
    courses = np.stack([red[:, None] * rise, blue[:, None] * late, (red - blue)[:, None] * rise * late], 1)
    sites = pd.DataFrame({"part": ["first", "second", "second"]}, index=pd.Index(["m0", "m1", "m2"], name="site_id"))
    return SiteRecordings(courses[:, None], tuple(pictures.stimulus_ids), sites, unit="cm", time_bins_ms=BINS)


CONFIG = RecurrentConfig(
    *(("first", "second"), 10),
    feedback=False,
    site_column="part",
    inputs="pca",
    components=12,
    step_ms=20,
    weight_penalty=1e-5,
    rate_penalty=1e-4,
    learning_rate=2e-2,
    max_epochs=80,
    patience=10,
    folds=3,
)


@pytest.fixture(scope="module")
def colors():
    return Backbone("module:Colors", Colors(), input_px=16)


@pytest.fixture(scope="module")
def fitted(pictures, muscles, colors):
    return fit_recurrent(pictures, muscles, CONFIG, backbone=colors, layer="pool")


def test_muscle_like_outputs_of_one_repeat_are_learned(fitted, muscles, pictures):
    scores = fitted.held_out_scores()
    assert list(scores.index) == [site for site in ("m0", "m1", "m2") for _ in BINS]
    assert np.isnan(scores.loc["m1", "r"].to_numpy()[:3]).all()  # nothing varies there
    assert (scores["r"].dropna() > 0.85).all()
    assert scores["explained_variance"].isna().all()  # one repeat has no reliability
    predicted, truth = fitted.predict(pictures), muscles.mean()
    assert np.square(predicted - truth).mean() < 0.1 * truth.var()
    assert np.abs(predicted.mean(0) - truth.mean(0)).max() < 0.08  # the mean course, in the unit of the recording


def test_sites_follow_the_module_they_are_read_from(fitted, pictures):
    whole, lesioned = fitted.predict(pictures), fitted.lesion("second").predict(pictures)
    assert np.array_equal(whole[:, 0], lesioned[:, 0])
    assert lesioned[:, 1:].std(0).max() < 1e-6
    assert whole[:, 1:].std(0).max() > 0.05
    np.testing.assert_allclose(lesioned[0, 1:], fitted.readout.bias[1:, None].expand(-1, 6), atol=1e-6)
    with pytest.raises(ValueError, match="never scored"):
        fitted.lesion("second").held_out_scores()


@pytest.mark.parametrize("inputs", ["pca", "readout"])
def test_nothing_of_a_held_out_fold_reaches_its_model(inputs, pictures, muscles, colors, monkeypatch):
    predictions, score = [], recurrent_fit.recurrent_scores
    monkeypatch.setattr(
        recurrent_fit, "recurrent_scores", lambda found, *rest: predictions.append(found) or score(found, *rest)
    )
    config = dataclasses.replace(CONFIG, inputs=inputs, max_epochs=5, folds=2)
    _, test = group_folds(group_labels(pictures, "photograph"), 2, config.seed)[0]
    images, responses = pictures.images().copy(), muscles.responses.copy()
    if inputs == "pca":  # linear readouts scale channels without responses, on all images, as in fit_sites
        images[test[0]] = np.random.default_rng(1).uniform(size=images[0].shape)
    responses[test] = np.random.default_rng(2).normal(3, 5, responses[test].shape)
    responses[test[1:4]] = np.nan
    others = StimulusSet.from_arrays(
        images, {name: list(pictures.table[name]) for name in pictures.table if name != "filename"}
    )
    fit_recurrent(pictures, muscles, config, backbone=colors, layer="pool")
    fit_recurrent(others, dataclasses.replace(muscles, responses=responses), config, backbone=colors, layer="pool")
    once, again = predictions
    assert np.array_equal(once[test[1:]], again[test[1:]])
    rest = np.setdiff1d(np.arange(90), test)
    assert not np.isclose(once[rest], again[rest]).all(1).any()  # learned from what was changed


def test_an_image_counts_as_often_as_it_was_repeated(pictures, colors):
    """Every picture is there twice, with other responses: red nine times, blue once."""
    images = pictures.images()[:60]
    table = {"stimulus_id": [f"{k}" for k in range(120)], "photograph": [f"p{k % 60}" for k in range(120)]}
    twice = StimulusSet.from_arrays(np.concatenate([images, images]), table)
    red, blue = images[:, 0].mean((1, 2)), images[:, 2].mean((1, 2))
    responses = np.concatenate([red, blue])[:, None, None, None].repeat(9, 1)
    responses[60:, 1:] = np.nan
    site = pd.DataFrame(index=pd.Index(["site"], name="site_id"))
    recorded = SiteRecordings(responses, tuple(twice.stimulus_ids), site, unit="1", time_bins_ms=((0, 60),))
    quick = dataclasses.replace(CONFIG, modules=("only",), site_column=None, folds=2, max_epochs=60)
    predicted = fit_recurrent(twice, recorded, quick, backbone=colors, layer="pool").predict(twice)[:60, 0, 0]
    (by_red, by_blue, _), *_ = np.linalg.lstsq(np.c_[red, blue, np.ones(60)], predicted, rcond=None)
    assert by_red / (by_red + by_blue) == pytest.approx(0.9, abs=0.07)


def test_sites_recorded_on_few_stimuli_are_named(pictures, muscles, colors):
    def fit(recorded, folds=2):  # a site in a bin on these stimuli only
        responses = muscles.responses.copy()
        responses[np.setdiff1d(np.arange(90), recorded), :, 1, 4] = np.nan
        few = dataclasses.replace(muscles, responses=responses)
        quick = dataclasses.replace(CONFIG, inputs="readout", folds=folds, max_epochs=1)
        return fit_recurrent(pictures, few, quick, backbone=colors, layer="pool")

    with pytest.raises(ValueError, match=r"no response at all \('m1@80-100ms'\)"):
        fit([])
    with pytest.raises(ValueError, match="fewer than 8 stimuli: m1@80-100ms"):
        fit(np.arange(7))
    groups = group_labels(pictures, "photograph")
    pairs = group_folds(groups, 2, 0)
    with pytest.raises(ValueError, match=r"too few groups of stimuli.* m1@80-100ms"):
        fit(pairs[0][1])
    parts = [train[group_folds(groups[train], 3, 0)[0][1]] for train, _ in pairs]
    with pytest.raises(ValueError, match=r"too few groups of stimuli.* m1@80-100ms"):
        fit(np.concatenate(parts))  # each fold has some, but not each part of one that says when to stop
    holes = np.random.default_rng(5).uniform(size=muscles.responses.shape) < 0.4  # with enough left, all is well
    some = dataclasses.replace(muscles, responses=np.where(holes, np.nan, muscles.responses))
    quick = dataclasses.replace(CONFIG, inputs="readout", max_epochs=1)
    scores = fit_recurrent(pictures, some, quick, backbone=colors, layer="pool").scores
    assert scores["r"].loc["m0"].notna().all()


def test_missing_trials_are_left_out_and_the_seed_decides(pictures, muscles, colors, global_rng_untouched):
    responses = muscles.responses.repeat(2, axis=1)
    responses[:, 1] = np.nan
    holes = np.random.default_rng(3).uniform(size=(90, 3)) < 0.2
    responses[:, 0][holes] = np.nan
    some = dataclasses.replace(muscles, responses=responses)
    quick = dataclasses.replace(CONFIG, max_epochs=25, learning_rate=3e-2)
    with global_rng_untouched():
        first = fit_recurrent(pictures, some, quick, backbone=colors, layer="pool")
    masked = dataclasses.replace(muscles, responses=responses[:, :1])  # a repeat that was never recorded
    second = fit_recurrent(pictures, masked, quick, backbone=colors, layer="pool")
    assert np.array_equal(first.predict(pictures), second.predict(pictures))
    predicted, truth = first.predict(pictures)[:, 0, -1], muscles.mean()[:, 0, -1]
    assert np.corrcoef(predicted[holes[:, 0]], truth[holes[:, 0]])[0, 1] > 0.9
    brief = dataclasses.replace(quick, max_epochs=2)
    seeds = [dataclasses.replace(brief, seed=seed) for seed in (0, 1)]
    by_seed = [fit_recurrent(pictures, some, each, backbone=colors, layer="pool").predict(pictures) for each in seeds]
    assert not np.array_equal(*by_seed)


@pytest.fixture(scope="module")
def lab():
    natural = natural_photos(60, size_px=32)
    bins = ((0, 50), (50, 100), (75, 175), (100, 125))  # overlapping, of different lengths
    brain = SimulatedDynamics(natural, sites_per_region=1, bins_ms=bins)
    recorded = brain.record(natural, n_repeats=6)
    quick = RecurrentConfig(units=6, components=4, max_epochs=4, folds=3, site_column="region")
    return natural, recorded, fit_recurrent(natural, recorded, quick, layer="blocks.1")


def test_the_baseline_is_a_linear_readout_of_the_bin_in_the_same_folds(lab):
    natural, recorded, model = lab
    scores = model.scores[model.scores["start_ms"] == 75]
    linear = fit_sites(natural, recorded.in_window(75, 175), backbone="efficientnet-lite0", layer="blocks.1", folds=3)
    np.testing.assert_allclose(scores["baseline_r"], linear.scores["r"], rtol=1e-6)
    np.testing.assert_allclose(
        scores["baseline_explained_variance"], linear.scores["explained_variance"], rtol=0.3, atol=0.05
    )


def test_a_site_model_of_chosen_bins_predicts_the_same(lab):
    natural, recorded, model = lab
    whole = model.predict(natural)
    one, two = model.at((75, 175)), model.at([-1, 0])
    np.testing.assert_allclose(one.predict(natural), whole[:, :, 2], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(two.predict(natural), np.c_[whole[:, :, 3], whole[:, :, 0]], rtol=1e-5, atol=1e-6)
    assert one.site_ids == ("V1_0", "V4_0", "IT_0")
    assert two.site_ids[2:4] == ("IT_0@100-125ms", "V1_0@0-50ms")
    mean = recorded.mean()
    np.testing.assert_allclose(one.info.natural_mean, mean[:, :, 2].mean(0), rtol=1e-5)
    np.testing.assert_allclose(two.info.natural_std[3:], mean[:, :, 0].std(0), rtol=1e-4)
    np.testing.assert_array_equal(one.scores["r"], model.scores[model.scores["start_ms"] == 75]["r"])
    # counts grow with the length of a bin: so do those that are predicted
    assert whole[:, :, 2].mean() > 1.5 * whole[:, :, 3].mean()


def test_copies_share_nothing_with_the_model(lab):
    natural, _, model = lab
    before = model.predict(natural)
    for changed in (model.at(0), model.lesion("V4"), model.cut("V1", "V4")):
        changed.double()
        for tensor in (*changed.parameters(), *changed.buffers()):
            tensor.zero_()
    assert np.array_equal(model.predict(natural), before)


def test_models_come_back_from_disk(lab, tmp_path):
    natural, _, model = lab
    folder = model.save(tmp_path / "model")
    loaded = load_recurrent(folder)
    assert np.array_equal(loaded.predict(natural), model.predict(natural))
    pd.testing.assert_frame_equal(loaded.scores, model.scores, check_exact=False, rtol=1e-12)
    lesioned = load_recurrent(model.lesion("V4", 0.5).save(tmp_path / "lesioned"))
    assert np.array_equal(lesioned.predict(natural), model.lesion("V4", 0.5).predict(natural))
    assert lesioned.provenance["changes"] == ["lesion of 0.5 of V4"]
    chosen = model.at((50, 100))
    assert np.array_equal(load_model(chosen.save(tmp_path / "bin")).predict(natural), chosen.predict(natural))
    weights = folder / "recurrent.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(ValueError, match="was changed"):
        load_recurrent(folder)
    with pytest.raises(FileNotFoundError, match=r"recurrent\.json is missing"):
        load_recurrent(tmp_path)
    with pytest.raises(FileExistsError):
        model.save(tmp_path / "lesioned")
    (tmp_path / "lesioned" / "recurrent.json").write_text('{"format_version": 1}')
    with pytest.raises(ValueError, match=r"was changed|damaged"):
        load_recurrent(tmp_path / "lesioned")


def test_a_bin_of_a_network_of_your_own_says_that_it_cannot_be_saved(fitted, pictures, tmp_path, colors):
    chosen = fitted.at(2)
    np.testing.assert_allclose(chosen.predict(pictures), fitted.predict(pictures)[:, :, 2], atol=1e-5)
    with pytest.raises(ValueError, match="module:Colors"):
        chosen.save(tmp_path / "bin")
    assert not (tmp_path / "bin").exists()
    folder = fitted.save(tmp_path / "whole")
    again = load_recurrent(folder, {"module:Colors": colors})
    assert np.array_equal(again.predict(pictures), fitted.predict(pictures))


def test_mistakes_are_told(pictures, muscles, colors, fitted):
    def fit(recordings, **changes):
        return fit_recurrent(
            pictures, recordings, dataclasses.replace(CONFIG, **changes), backbone=colors, layer="pool"
        )

    with pytest.raises(ValueError, match=r"no time axis; .*SimulatedDynamics\(stimuli\)"):
        fit(muscles.in_window(0, 20))
    with pytest.raises(ValueError, match="did you mean 'part'"):
        fit(muscles, site_column="prat")
    with pytest.raises(ValueError, match="no module 'second'; known: first, third"):
        fit(muscles, modules=("first", "third"))
    with pytest.raises(ValueError, match="longer than the time constant"):
        fit(muscles, tau_ms=10)
    with pytest.raises(ValueError, match="inputs is 'pcs'"):
        fit(muscles, inputs="pcs")
    silent = dataclasses.replace(muscles, responses=np.where(np.arange(6) == 4, np.nan, muscles.responses))
    with pytest.raises(ValueError, match=r"no response at all.*'m0@80-100ms'"):
        fit(silent)
    with pytest.raises(ValueError, match="on from 300 to inf"):
        fit(muscles, latency_ms=300)
    with pytest.raises(ValueError, match="penalties are nan"):
        fit(muscles, weight_penalty=float("nan"))
    with pytest.raises(ValueError, match="0-20ms"):
        fitted.at((0, 21))
    with pytest.raises(ValueError, match="no time bin None"):
        fitted.at(None)
    with pytest.raises(ValueError, match="did you mean 'second'"):
        fitted.lesion("secondq")
    with pytest.raises(ValueError, match="no link leads from 'second' to 'first'"):
        fitted.cut("second", "first")
    with pytest.raises(ValueError, match="fraction is 2"):
        fitted.lesion("first", 2)
    with pytest.raises(ValueError, match="default layer"):
        fit_recurrent(pictures, muscles, CONFIG, backbone=colors)
