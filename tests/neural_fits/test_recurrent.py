"""Modular recurrent networks and time-resolved sites, against another integration, solve_ivp and planted truth."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import nn

from neural_fits import SiteRecordings, fit_sites
from neural_fits.backbones import Backbone
from neural_fits.networks.recurrent import ModularRNN, Wiring
from neural_fits.networks.recurrent_files import load_recurrent
from neural_fits.networks.recurrent_fit import RecurrentConfig, fit_recurrent
from neural_fits.networks.simulated_dynamics import SimulatedDynamics
from neural_fits.networks.timeline import Timeline
from neural_fits.site_model import load_model
from stimuli import StimulusSet, natural_photos

BINS = tuple((20.0 * k, 20.0 * (k + 1)) for k in range(6))


def random_network(seed=0, **wiring):
    network = ModularRNN(Wiring(seed=seed, **{"units": 5, "link_density": 0.4, **wiring}), 3, tau_ms=40)
    generator = torch.Generator().manual_seed(seed)
    for parameter in (network.hold, network.bias, network.start):
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return network


def as_numpy(network):
    names = ("inputs", "hold", "bias", "start", "alive")
    return {"J": network.weights().detach().numpy(), **{k: getattr(network, k).detach().numpy() for k in names}}


def test_steps_agree_with_loops_in_double_precision():
    network = random_network().lesioned("V4", 0.4, seed=3).double()
    timeline = Timeline(((-20, 30), (30, 90)), step_ms=10, latency_ms=5, duration_ms=40, hold_ms=(0, 25))
    inputs = np.random.default_rng(0).standard_normal((2, 3))
    found = network(torch.from_numpy(inputs), timeline).detach().numpy()
    held = as_numpy(network)
    assert (held["alive"] == 0).sum() == 2
    for image, given in enumerate(inputs):
        x = held["start"].copy()
        rate = np.maximum(0, np.tanh(x)) * held["alive"]
        for step, start in enumerate(range(-20, 90, 10)):
            on = max(0, min(start + 10, 45) - max(start, 5)) / 10
            hold = max(0, min(start + 10, 25) - max(start, 0)) / 10
            change = np.zeros_like(x)
            for i in range(len(x)):
                drive = sum(held["inputs"][i, k] * given[k] for k in range(3)) if i < 5 else 0.0
                heard = sum(held["J"][i, j] * rate[j] for j in range(len(x)))
                change[i] = -x[i] + heard + on * drive + hold * held["hold"][i] + held["bias"][i]
            x = x + 10 / 40 * change
            rate = np.maximum(0, np.tanh(x)) * held["alive"]
            np.testing.assert_allclose(found[image, step], rate, atol=1e-12)


def test_short_steps_agree_with_solve_ivp():
    network, inputs = random_network(seed=1).double(), np.random.default_rng(1).standard_normal(3)
    held = as_numpy(network)
    drive = np.concatenate([held["inputs"] @ inputs, np.zeros(10)])

    def slope(time, x):
        return (-x + held["J"] @ np.maximum(0, np.tanh(x)) + (time >= 20) * drive + held["bias"]) / 40

    x = held["start"]
    for span in ((0, 20), (20, 80)):  # the solver must not step over the onset of the input
        x = solve_ivp(slope, span, x, rtol=1e-9, atol=1e-11, args=()).y[:, -1]
    exact = np.maximum(0, np.tanh(x))
    errors = []
    for step in (1.0, 0.5, 0.25):
        rates = network(torch.from_numpy(inputs)[None], Timeline(((0, 80),), step_ms=step, latency_ms=20))
        errors.append(np.abs(rates[0, -1].detach().numpy() - exact).max())
    assert errors[-1] < 2e-3
    np.testing.assert_allclose(np.array(errors[:-1]) / errors[1:], 2, rtol=0.1)  # first order


def test_links_are_as_wired_and_absent_ones_have_no_gradient():
    wiring = Wiring(("a", "b", "c"), units=20, link_density=0.1, seed=4)
    links = wiring.links().numpy()
    blocks = links.reshape(3, 20, 3, 20).sum((1, 3))
    assert blocks.tolist() == [[400, 40, 0], [40, 400, 40], [0, 40, 400]]
    forward = dataclasses.replace(wiring, feedback=False).links().numpy()
    assert forward.reshape(3, 20, 3, 20).sum((1, 3)).tolist() == [[400, 0, 0], [40, 400, 0], [0, 40, 400]]
    assert (forward <= links).all()
    network = ModularRNN(wiring, 2)
    network(torch.ones(4, 2), Timeline(BINS)).square().sum().backward()
    assert (network.recurrent.grad[network.links == 0] == 0).all()
    assert (network.recurrent.grad[network.links == 1] != 0).any()
    assert not torch.equal(links_of(5), links_of(4))


def links_of(seed):
    return Wiring(units=20, seed=seed).links()


@pytest.mark.parametrize("change", [lambda n: n.lesioned("V4"), lambda n: n.cut("V1", "V4")])
def test_a_lesion_changes_what_is_downstream_and_nothing_else(change):
    network = random_network(feedback=False, units=12)
    inputs = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
    whole, changed = network(inputs, Timeline(BINS)), change(network)(inputs, Timeline(BINS))
    first, middle, last = (network.wiring.slice_of(name) for name in ("V1", "V4", "IT"))
    assert torch.equal(whole[..., first], changed[..., first])
    assert (whole[..., last] - changed[..., last]).abs().max() > 0.01
    assert float(changed[..., middle].detach().std(0).max()) == pytest.approx(0, abs=1e-6)  # the image is lost
    again = network(inputs, Timeline(BINS))
    assert torch.equal(again, whole)  # the original is as it was
    feedback = random_network(feedback=True, units=12)
    moved = feedback(inputs, Timeline(BINS)) - change(feedback)(inputs, Timeline(BINS))
    assert moved[..., first].abs().max() > 1e-4  # with feedback it comes back


def test_a_part_of_a_module_is_silenced():
    network = random_network(units=10).lesioned("IT", 0.3, seed=1)
    assert network.alive.reshape(3, 10).sum(1).tolist() == [10, 10, 7]
    assert not torch.equal(network.alive, random_network(units=10).lesioned("IT", 0.3, seed=2).alive)


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
    folds=2,
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
    with pytest.raises(ValueError, match="never scored"):
        fitted.lesion("second").held_out_scores()


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

    with pytest.raises(ValueError, match="no time axis"):
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
    with pytest.raises(ValueError, match="no response in time bin 4"):
        fit(silent)
    with pytest.raises(ValueError, match="0-20ms"):
        fitted.at((0, 21))
    with pytest.raises(ValueError, match="did you mean 'second'"):
        fitted.lesion("secondq")
    with pytest.raises(ValueError, match="no link leads from 'second' to 'first'"):
        fitted.cut("second", "first")
    with pytest.raises(ValueError, match="fraction is 2"):
        fitted.lesion("first", 2)
    with pytest.raises(ValueError, match="default layer"):
        fit_recurrent(pictures, muscles, CONFIG, backbone=colors)
