from __future__ import annotations

import io
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold
from torch import nn

from neural_fits.backbones import Backbone
from neural_fits.cross_validation import READOUTS
from neural_fits.features import FeatureExtractor
from neural_fits.fit import best_device, fit_sites
from neural_fits.folds import part_of_groups
from neural_fits.parallel import side_by_side
from neural_fits.recordings import SiteRecordings
from neural_fits.ridge import RELATIVE_ALPHAS
from neural_fits.site_model import Ensemble, load_model
from stimuli import StimulusSet

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def few(photos):
    return photos.select(range(80))


@pytest.fixture(scope="module")
def recorded(brain, few):
    return brain.record(few, n_repeats=4, seed=0)


@pytest.fixture(scope="module")
def tiny():
    """A network of one layer, so that a fit takes milliseconds."""
    network = nn.Sequential(nn.Conv2d(3, 5, 8, stride=8), nn.Softplus())
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return network


@pytest.fixture(scope="module")
def model(few, recorded, lite0):
    return fit_sites(few, recorded, backbone=lite0)


def test_model_predicts_what_it_never_saw(model, brain, photos, few, recorded):
    unseen = photos.select(range(80, 160))
    predicted, truth = model.predict(unseen), brain.truth(unseen)
    r = [np.corrcoef(predicted[:, s], truth[:, s])[0, 1] for s in range(6)]
    assert np.median(r) > 0.3
    assert list(model.scores.index) == list(model.site_ids) == recorded.site_ids
    assert (model.scores["n_stimuli"] == 80).all()
    assert model.scores["r"].median() > 0.1
    assert model.scores["reliability"].between(0.3, 1).all()
    assert (model.info.size_px, model.info.size_deg, model.info.unit) == ((64, 64), few.size_deg, "spikes/s")
    np.testing.assert_allclose(model.info.natural_mean, recorded.mean().astype(float).mean(0), rtol=1e-6)
    np.testing.assert_allclose(model.info.natural_std, recorded.mean().astype(float).std(0), rtol=1e-6)
    assert model.extractor.layers_read == ("blocks.2", "blocks.3", "blocks.4")
    assert list(model.scores)[4:] == ["explained_variance_low", "explained_variance_high"]
    known = model.scores.dropna()
    assert len(known) >= 4
    assert (known["explained_variance_low"] <= known["explained_variance"]).all()
    assert (known["explained_variance"] <= known["explained_variance_high"]).all()


def test_provenance_says_how_it_was_fitted(model):
    assert model.provenance["seed"] == 0
    assert model.provenance["config"] == {
        "readout": "local",
        "penalty": "best",
        "min_reliability": None,
        "split": None,
        "group": "photograph",
        "folds": 5,
    }
    assert set(model.provenance["inputs"]) == {"stimuli", "responses"}


@pytest.mark.parametrize("readout", sorted(READOUTS))
def test_scores_come_from_photographs_left_out(few, recorded, tiny, readout):
    """An independent cross-validation with the public pieces gives the same r."""
    fitted = fit_sites(few, recorded, backbone=tiny, layer="1", readout=readout, folds=3)
    features, mean = FeatureExtractor(tiny, "1").extract(few), recorded.mean()
    family, held_out = READOUTS[readout], np.full(mean.shape, np.nan)

    small = family.compress(features)  # knows no response

    def solve(rows):
        return small.expand(family.solve(small.features[rows], torch.from_numpy(mean[rows])))

    groups = few.table["photograph"].to_numpy()
    for train, test in GroupKFold(3, shuffle=True, random_state=0).split(mean, groups=groups):
        assert not set(groups[train]) & set(groups[test])
        (part,) = side_by_side(solve, [train], CPU)
        held_out[test] = part(features[test]).numpy()
    wanted = [np.corrcoef(held_out[:, s], mean[:, s])[0, 1] for s in range(6)]
    np.testing.assert_allclose(fitted.scores["r"], wanted, atol=2e-3)


def test_ridge_equals_ridge_cv(few, recorded, lite0):
    fitted = fit_sites(few, recorded, backbone=lite0, layer="blocks.4", readout="ridge")
    flat = FeatureExtractor(lite0, "blocks.4").extract(few).flatten(1).double().numpy()
    centered = flat - flat.mean(0)
    alphas = np.array(RELATIVE_ALPHAS) * np.linalg.eigvalsh(centered @ centered.T).mean()
    mean = recorded.mean().astype(float)
    theirs = RidgeCV(alphas, alpha_per_target=True).fit(flat, mean)
    np.testing.assert_allclose(fitted.predict(few), theirs.predict(flat), atol=1e-3 * mean.std())


@pytest.fixture(scope="module")
def leaky(photos, as_recordings):
    """Every photograph has its own random response: nothing to learn but which photograph an image is cut from."""
    rng = np.random.default_rng(0)
    _, photograph = np.unique(photos.table["photograph"], return_inverse=True)
    level = rng.normal(size=(photograph.max() + 1, 40))[photograph]
    return as_recordings(level + 0.1 * rng.normal(size=level.shape), photos)


@pytest.mark.parametrize("readout", ["local", "ridge"])
def test_photographs_do_not_leak_between_folds(photos, leaky, lite0, readout):
    kwargs = {"backbone": lite0, "layer": "blocks.2", "readout": readout}
    grouped = fit_sites(photos, leaky, **kwargs).scores["r"].mean()
    random = fit_sites(photos, leaky, **kwargs, group="stimulus_id").scores["r"].mean()
    assert grouped < 0.1
    assert random > grouped + 0.3


@pytest.mark.parametrize("readout", ["local", "ridge", "factorized"])
def test_pure_noise_scores_nothing(few, as_recordings, tiny, readout):
    noise = np.random.default_rng(1).normal(size=(80, 2, 40))
    fitted = fit_sites(few, as_recordings(noise, few), backbone=tiny, layer="1", readout=readout)
    r = fitted.scores["r"].fillna(0)
    assert -0.3 < r.mean() < 0.05  # a little below zero: the mean of the others runs against what is left out


def test_a_half_never_looks_at_the_other(few, recorded, tiny):
    kwargs = {"backbone": tiny, "layer": "1", "folds": 3, "seed": 2}
    groups = few.table["photograph"].to_numpy()
    other = part_of_groups(groups, "B", 2)
    spoiled = recorded.responses.copy()
    spoiled[other] = 1e6
    changed = SiteRecordings(spoiled, recorded.stimulus_ids, recorded.sites, unit=recorded.unit)
    first, again = (fit_sites(few, data, split="A", **kwargs) for data in (recorded, changed))
    assert torch.equal(first.readout.weight, again.readout.weight)
    assert (first.scores["n_stimuli"] == 80 - len(other)).all()
    second = fit_sites(few, recorded, split="B", **kwargs)
    assert (second.scores["n_stimuli"] == len(other)).all()
    assert first.provenance["inputs"] != second.provenance["inputs"]


def test_order_of_the_recordings_does_not_matter(few, recorded, tiny):
    shuffled = recorded.select_stimuli([few.stimulus_ids[k] for k in np.random.default_rng(0).permutation(80)])
    first, second = (fit_sites(few, data, backbone=tiny, layer="1") for data in (recorded, shuffled))
    assert torch.equal(first.readout.weight, second.readout.weight)


def test_sites_that_lack_stimuli_are_fitted_on_theirs(few, recorded, tiny):
    trials = recorded.responses.copy()
    trials[10:30, :, 1] = np.nan
    ragged = SiteRecordings(trials, recorded.stimulus_ids, recorded.sites)
    for readout in ("local", "ridge"):
        kwargs = {"backbone": tiny, "layer": "1", "readout": readout, "folds": 3}
        both, complete = fit_sites(few, ragged, **kwargs), fit_sites(few, recorded, **kwargs)
        torch.testing.assert_close(both.readout.weight[2:], complete.readout.weight[2:], rtol=1e-4, atol=1e-4)
        assert not torch.allclose(both.readout.weight[1], complete.readout.weight[1], rtol=1e-3)
        assert both.scores["n_stimuli"].tolist() == [80, 60, 80, 80, 80, 80]
        assert np.isfinite(both.scores).all().all()


def test_several_networks_make_an_ensemble(few, recorded, tiny, tmp_path):
    lines = []
    other = nn.Sequential(nn.AvgPool2d(8), nn.Hardtanh(0.2, 0.8))
    fitted = fit_sites(few, recorded, backbone=[tiny, other], layer="1", progress=lines.append)
    assert isinstance(fitted, Ensemble)
    assert len(lines) == 2
    assert all("6 sites" in line for line in lines)
    single = [fit_sites(few, recorded, backbone=network, layer="1") for network in (tiny, other)]
    np.testing.assert_allclose(
        fitted.predict(few), (single[0].predict(few) + single[1].predict(few)) / 2, rtol=1e-4, atol=1e-4
    )
    for member, alone in zip(fitted.members, single, strict=True):
        pd.testing.assert_frame_equal(member.scores, alone.scores)
    assert (fitted.scores["r"] > np.minimum(single[0].scores["r"], single[1].scores["r"]) - 0.05).all()
    assert not fitted.scores["r"].equals(single[0].scores["r"])
    with pytest.raises(ValueError, match=r"both called 'module:Sequential'.*name them"):
        fitted.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    named = [Backbone(name, network) for name, network in (("module:tiny", tiny), ("module:other", other))]
    renamed = fit_sites(few, recorded, backbone=named, layer="1")
    loaded = load_model(renamed.save(tmp_path / "model"), {"module:tiny": named[0], "module:other": named[1]})
    np.testing.assert_array_equal(loaded.predict(few), renamed.predict(few))


def test_random_state_of_the_process_is_left_alone(few, recorded, global_rng_untouched):
    with global_rng_untouched():
        first = fit_sites(few, recorded, backbone="efficientnet-lite0", layer="blocks.1", readout="ridge", folds=3)
        again = fit_sites(few, recorded, backbone="efficientnet-lite0", layer="blocks.1", readout="ridge", folds=3)
    np.testing.assert_allclose(first.scores["r"], again.scores["r"], atol=1e-5)


WRONG = {
    "readout": ({"readout": "loca"}, "unknown readout 'loca'; did you mean 'local'"),
    "readout twice": ({"readout": ["ridge", "ridge"]}, "named once each"),
    "penalty": ({"penalty": "1se"}, "penalty rule '1se' is unknown; give 'best' or 'one_se'"),
    "no penalty": ({"readout": "pls", "penalty": "one_se"}, "'pls' has no ridge penalty"),
    "too reliable": ({"min_reliability": 0.99}, "none of the 6 sites reaches a reliability of 0.99"),
    "joined twice": ({"layer": "1+1"}, "asked twice"),
    "stray plus": ({"layer": "1+"}, "'1\\+' has an empty name"),
    "backbone": ({"backbone": "eficientnet-lite0"}, "did you mean 'efficientnet-lite"),
    "layer": ({"layer": "3"}, "no layer '3'"),
    "no layer": ({"layer": None}, "no default layer; name one with layer="),
    "split": ({"split": "C"}, "split is 'C'; expected 'A' or 'B', 'k/n'"),
    "group": ({"group": "photogaph"}, "no column 'photogaph' to group by; did you mean 'photograph'"),
    "one fold": ({"folds": 1}, "1 folds asked for"),
    "too many folds": ({"folds": 50}, r"50 folds asked for, \d+ group"),
    "device": ({"device": "abacus"}, "device 'abacus' is not available"),
    "no network": ({"backbone": []}, "no backbone was named; give at least one"),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_wrong_names_and_numbers_get_one_sentence(few, recorded, tiny, what):
    changed, sentence = WRONG[what]
    with pytest.raises(ValueError, match=sentence) as caught:
        fit_sites(few, recorded, **{"backbone": tiny, "layer": "1", **changed})
    assert "\n" not in str(caught.value)


def without_a_site(trials):
    trials[:, :, 2] = np.nan


def constant(trials):
    trials[:, :, 2] = 3.3  # its standard deviation in float32 is not exactly zero


def rare(trials):
    trials[10:, :, 2] = np.nan


def one_photograph(trials, groups):
    trials[groups != "camera", :, 2] = np.nan


def infinite(trials):
    trials[0, 0, 2] = np.inf


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (without_a_site, r"no response at all \(['\"]?site02"),
        (constant, r"1 site\(s\) respond equally to every stimulus: site02; drop them"),
        (rare, r"1 site\(s\) have responses to fewer than 20 stimuli: site02"),
        (infinite, "infinite"),
    ],
)
def test_sites_without_information_are_named(few, recorded, tiny, spoil, sentence):
    trials = recorded.responses.copy()
    spoil(trials)
    spoiled = SiteRecordings(trials, recorded.stimulus_ids, recorded.sites)
    with pytest.raises(ValueError, match=sentence):
        fit_sites(few, spoiled, backbone=tiny, layer="1")


@pytest.mark.parametrize("readout", ["local", "ridge"])
def test_a_site_seen_on_one_photograph_only_is_named(photos, as_recordings, tiny, readout):
    responses = np.random.default_rng(0).normal(size=(160, 3))
    names, counts = np.unique(photos.table["photograph"], return_counts=True)
    responses[photos.table["photograph"] != names[counts.argmax()], 1] = np.nan
    assert counts.max() >= 8
    with pytest.raises(ValueError, match=r"1 site\(s\) were recorded on too few groups.*: s1; drop them"):
        fit_sites(photos, as_recordings(responses, photos), backbone=tiny, layer="1", readout=readout, folds=2)


def test_other_stimuli_than_recorded_are_refused(few, photos, recorded, tiny):
    with pytest.raises(ValueError, match="80 of the 160 stimuli have no recording"):
        fit_sites(photos, recorded, backbone=tiny, layer="1")
    with pytest.raises(ValueError, match="10 of the 80 recorded stimuli are not in the stimulus set"):
        fit_sites(few.select(range(70)), recorded, backbone=tiny, layer="1")


def test_best_device_is_there():
    device = best_device(None)
    assert torch.zeros(1, device=device).device.type == device.type
    assert best_device("cpu") == torch.device("cpu")


def test_recorded_v4_sites_are_predicted(v4_data, lite0):
    with zipfile.ZipFile(v4_data / "images.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[:160]
        pixels = [np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names]
    ids = [name.removesuffix(".jpg") for name in names]
    images = StimulusSet.from_arrays(np.stack(pixels).transpose(0, 3, 1, 2), {"stimulus_id": ids})
    trials = np.load(v4_data / "responses_trials.npy")[:8, :160].transpose(1, 2, 0)
    sites = pd.DataFrame(index=pd.Index([f"v4_{k}" for k in range(8)], name="site_id"))
    scores = fit_sites(images, SiteRecordings(trials, ids, sites), backbone=lite0).scores
    assert scores["r"].median() > 0.35  # .48 when this was written
    assert scores["reliability"].median() > 0.6


def test_layers_and_readouts_are_chosen_by_training_images_only(few, recorded, lite0, tmp_path):
    """An alternative that cheats on held-out images cannot be seen: spoiling them changes no choice of their fold."""
    alternatives = {"layer": ["blocks.0", "blocks.4"], "readout": ["ridge", "local"], "folds": 3}
    fitted = fit_sites(few, recorded, backbone=lite0, **alternatives, cache=tmp_path)
    tried = fitted.provenance["config"]["inner_r"]
    assert sorted(tried) == ["blocks.0 local", "blocks.0 ridge", "blocks.4 local", "blocks.4 ridge"]
    chosen = max(tried, key=tried.get)
    assert fitted.provenance["config"]["chosen"] == chosen
    layer, readout = chosen.split()
    alone = fit_sites(few, recorded, backbone=lite0, layer=layer, readout=readout, folds=3, cache=tmp_path)
    np.testing.assert_allclose(fitted.predict(few), alone.predict(few), rtol=1e-4, atol=1e-4)


def test_unreliable_sites_are_left_out_and_the_others_scored_on_other_trials(few, recorded, tiny):
    noise = np.random.default_rng(0).normal(20, 3, size=(80, 4, 1)).astype(np.float32)
    trials = np.concatenate([recorded.responses, noise], 2)
    sites = pd.DataFrame(index=pd.Index([*recorded.site_ids, "noise"], name="site_id"))
    more = SiteRecordings(trials, recorded.stimulus_ids, sites)
    chosen = fit_sites(few, more, backbone=tiny, layer="1", min_reliability=0.4)
    assert "noise" not in chosen.site_ids
    everything = fit_sites(few, more, backbone=tiny, layer="1")
    index = [everything.site_ids.index(site) for site in chosen.site_ids]
    torch.testing.assert_close(chosen.readout.weight, everything.readout.weight[index], rtol=1e-4, atol=1e-4)
    assert (chosen.scores["reliability"] < everything.scores["reliability"].iloc[index]).mean() > 0.8  # half the trials


def test_repeats_of_one_image_never_fall_on_both_sides(few, recorded, tiny, monkeypatch):
    """Readouts see means over repeats, one row an image, and no image of a fold's test is in its training."""
    from neural_fits import cross_validation

    seen = []
    original = cross_validation.Option.fit

    def spy(self, responses, train):
        seen.append((len(responses), np.asarray(train)))
        return original(self, responses, train)

    monkeypatch.setattr(cross_validation.Option, "fit", spy)
    fit_sites(few, recorded, backbone=tiny, layer="1", folds=4)
    assert {count for count, _ in seen} == {80}
    assert sorted(len(np.unique(train)) == len(train) for _, train in seen) == [True] * 5
    held = [np.setdiff1d(np.arange(80), train) for _, train in seen if len(train) < 80]
    assert sorted(np.concatenate(held)) == list(range(80))


@pytest.mark.parametrize("wide", [True, False], ids=["more features than stimuli", "fewer"])
def test_many_stimuli_are_streamed_to_the_same_answer(photos, brain, lite0, monkeypatch, tmp_path, wide):
    from neural_fits import fit

    recorded = brain.record(photos, n_repeats=4, seed=1)
    how = {"backbone": lite0, "layer": "blocks.4", "readout": "ridge", "folds": 3}
    if not wide:
        network = nn.Sequential(nn.Conv2d(3, 8, 16, stride=16), nn.ReLU())
        generator = torch.Generator().manual_seed(0)
        for parameter in network.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
        how |= {"backbone": network, "layer": "1"}
    at_once = fit_sites(photos, recorded, **how)
    monkeypatch.setattr(fit, "STREAM_FROM", 100)
    called = []
    original = fit.cross_validate_streaming
    monkeypatch.setattr(fit, "cross_validate_streaming", lambda *given: called.append(1) or original(*given))
    streamed = fit_sites(photos, recorded, **how, cache=tmp_path)
    assert called == [1]
    np.testing.assert_allclose(streamed.scores["r"], at_once.scores["r"], atol=2e-3)
    few = photos.select(range(20))
    np.testing.assert_allclose(streamed.predict(few), at_once.predict(few), rtol=2e-3, atol=2e-3)


def test_a_missing_label_is_a_group_of_its_own(few, recorded, tiny):
    table = few.table.assign(photograph=few.table["photograph"].astype(object).where(np.arange(80) % 4 > 0, np.nan))
    some = StimulusSet.from_arrays(few.images(), table, size_deg=few.size_deg)
    scores = fit_sites(some, recorded, backbone=tiny, layer="1", folds=3).scores
    assert (scores["n_stimuli"] == 80).all()


def test_one_group_is_said_in_words(few, recorded, tiny):
    same = StimulusSet.from_arrays(few.images(), few.table.assign(photograph="one"), size_deg=few.size_deg)
    with pytest.raises(ValueError, match="all stimuli belong to one group, so none can be held out"):
        fit_sites(same, recorded, backbone=tiny, layer="1")


def test_provenance_knows_the_pixels(few, recorded, tiny):
    inverted = StimulusSet.from_arrays(1 - few.images(), few.table, size_deg=few.size_deg)
    records = [fit_sites(s, recorded, backbone=tiny, layer="1", folds=3).provenance for s in (few, inverted)]
    assert records[0]["inputs"]["stimuli"] != records[1]["inputs"]["stimuli"]
    assert not set(records[0]["fitted_on"]["images"]) & set(records[1]["fitted_on"]["images"])
