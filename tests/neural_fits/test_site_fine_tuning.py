"""Tuning of sites finds what was planted above the cut, and no fold, stop or split sees what it must not see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from neural_fits.backbones import Backbone
from neural_fits.fit import fit_sites
from neural_fits.folds import group_folds, group_labels
from neural_fits.networks import site_fine_tuning
from neural_fits.networks.site_fine_tuning import SiteTuning, _loss, fine_tune_sites
from neural_fits.networks.tuning import Tuning
from neural_fits.site_model import Ensemble, load_model
from stimuli import natural_photos

COUNT = 120


def test_losses_ignore_missing_responses_and_agree_with_numpy():
    predicted, targets = torch.tensor([[2.0, 1.0], [3.0, -4.0]]), torch.tensor([[1.0, 0.0], [5.0, 7.0]])
    known = torch.tensor([[True, False], [True, True]])
    mean, spread = torch.tensor([2.0, 4.0]), torch.tensor([0.5, 2.0])
    wanted = ((1 / 0.5) ** 2 + (2 / 0.5) ** 2 + (11 / 2) ** 2) / 3
    assert _loss("gaussian", predicted, targets, known, mean, spread).item() == pytest.approx(wanted)
    p, y, m, s = (each.double().numpy() for each in (predicted, targets, mean, spread))
    rate = 0.1 * m * np.logaddexp(0, p / (0.1 * m)) + 1e-6 * m
    likelihood = 2 * m / s**2 * (rate - y * np.log(rate))
    found = _loss("poisson", predicted, targets, known, mean, spread).item()
    assert found == pytest.approx(likelihood[known.numpy()].mean(), rel=1e-5)


class Planted(nn.Module):
    """A frozen filter bank, then a layer that is blind to one direction of its outputs."""

    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.low = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.Tanh())
        self.high = nn.Sequential(nn.Conv2d(8, 6, 1), nn.ReLU())
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=generator) * 0.4

    def forward(self, x):
        return self.high(self.low(x))


@pytest.fixture(scope="module")
def planted(as_recordings):
    """Sites read the direction that the last layer of the network does not pass on."""
    photos = natural_photos(COUNT, size_px=32)
    network = Planted(0)
    low = network.low(torch.from_numpy(photos.images(slice(None)))).detach()
    flat = low.permute(0, 2, 3, 1).reshape(-1, 8) - low.mean((0, 2, 3))
    direction = torch.linalg.eigh(flat.T @ flat)[1][:, -2]
    filters = torch.randn(6, 8, generator=torch.Generator().manual_seed(3)) * 0.4
    filters = filters - (filters @ direction)[:, None] * direction
    network.high[0].weight.data = filters[:, :, None, None]
    network.high[0].bias.data = 2 * (flat @ filters.T).std(0) - filters @ low.mean((0, 2, 3))
    drive = torch.einsum("nchw,c->nhw", low - low.mean((0, 2, 3), keepdim=True), direction)
    parts = drive[:, :4], drive[:, 3:], drive[:, :, :4]
    rates = torch.stack([part.mean((1, 2)) for part in parts], 1).numpy()
    rates = rates / rates.std(0)
    noise = np.random.default_rng(0).normal(size=(COUNT, 4, 3)) * 0.2
    trials = (rates[:, None] - rates.min(0) + 0.2 + noise).clip(min=0)
    trials[:10, :, 1] = np.nan
    recorded = as_recordings(trials, photos)
    model = fit_sites(photos, recorded, backbone=Backbone("module:Planted", network), layer="high", folds=3)
    return photos, recorded, model


PLANTED = {"freeze": "low", "learning_rate": 0.01, "head_rate": 0.0, "pull": 0.0, "epochs": 15, "patience": 4}
QUICK = {**PLANTED, "epochs": 2}


def epochs_of(found):
    return found.training.loc[found.training["kept"], "epoch"].tolist()


def test_tuning_finds_a_direction_that_was_planted_above_the_cut(planted):
    photos, recorded, model = planted
    found = fine_tune_sites(model, photos, recorded, SiteTuning(**PLANTED))
    scores = found.model.scores
    assert (scores["r"] > scores["frozen_r"] + 0.05).all()  # the readout does not move: tuned features alone do it
    np.testing.assert_allclose(scores["frozen_r"], model.scores["r"], atol=1e-3)  # the same folds, the same readouts
    assert list(scores)[:4] == list(model.scores)[:4]
    network = found.model.extractor.network
    assert torch.equal(network.low[0].weight, model.extractor.network.low[0].weight)
    assert not torch.equal(network.high[0].weight, model.extractor.network.high[0].weight)
    assert found.model.extractor.backbone.name.startswith("module:Planted tuned@")
    assert not any(weight.requires_grad for weight in found.model.parameters())
    assert np.isfinite(found.held_out).all()
    assert found.stimulus_ids == tuple(photos.stimulus_ids)
    truth = recorded.mean()
    for k, site in enumerate(found.scores.index):
        known = np.isfinite(truth[:, k])
        for name, predicted in (("r", found.held_out), ("frozen_r", found.frozen)):
            wanted = np.corrcoef(predicted[known, k], truth[known, k])[0, 1]
            assert found.scores.loc[site, name] == pytest.approx(wanted, abs=1e-4)
    assert (found.scores["explained_variance"] > found.scores["frozen_explained_variance"]).all()
    assert found.epochs[0] > 0
    before, after = found.scores["frozen_r"].mean(), found.scores["r"].mean()
    assert repr(found) == (
        f"TunedSites(3 sites, {COUNT} stimuli, mean held-out r {before:.3f} frozen, {after:.3f} tuned; "
        f"tuned for {found.epochs[0]} epochs)"
    )
    settings = found.model.provenance["config"]
    assert (settings["fine_tuning"]["loss"], settings["readout"], settings["folds"]) == ("gaussian", "local", 3)


def test_no_fold_sees_the_responses_that_it_predicts(planted, as_recordings):
    photos, recorded, model = planted
    (_, test), *_ = group_folds(group_labels(photos, "photograph"), 3, 0)
    trials = recorded.responses.copy()
    trials[test] = np.random.default_rng(1).random(trials[test].shape) * 9
    other = as_recordings(trials, photos)
    one, two = (fine_tune_sites(model, photos, data, SiteTuning(**QUICK)) for data in (recorded, other))
    assert epochs_of(one)[0] > 0
    np.testing.assert_array_equal(one.held_out[test], two.held_out[test])
    np.testing.assert_array_equal(one.frozen[test], two.frozen[test])
    assert not np.array_equal(one.held_out, two.held_out)


def test_whole_photographs_say_when_to_stop_and_all_training_stimuli_are_used_then(planted, monkeypatch):
    photos, recorded, model = planted
    calls, real = [], site_fine_tuning._Member._descended

    def spy(self, rows, apart, epochs=None):
        found = real(self, rows, apart, epochs)
        calls.append((rows, apart, epochs, int(found[2].loc[found[2]["kept"], "epoch"].iloc[0])))
        return found

    monkeypatch.setattr(site_fine_tuning._Member, "_descended", spy)
    monkeypatch.setattr(site_fine_tuning, "side_by_side", lambda function, items, _: [function(k) for k in items])
    fine_tune_sites(model, photos, recorded, SiteTuning(**QUICK))
    groups = group_labels(photos, "photograph")
    folds = [*group_folds(groups, 3, 0), (np.arange(COUNT), None)]
    assert len(calls) == 8
    for (train, _), first, second in zip(folds, calls[::2], calls[1::2], strict=True):
        rows, apart, _, best = first
        assert not set(groups[rows]) & set(groups[apart])
        assert sorted([*rows, *apart]) == sorted(train)
        assert 0.1 < len(apart) / len(train) < 0.4
        assert sorted(second[0]) == sorted(train)
        assert second[1:3] == (None, best)


def test_the_loss_asked_for_is_used_and_the_input_size_stays(planted):
    photos, recorded, model = planted
    small = fit_sites(
        photos, recorded, backbone=model.extractor.backbone, layer="high", readout="ridge", folds=2, input_px=24
    )
    config = {**QUICK, "head_rate": 0.003, "stop_share": 0.5}
    one, two = (fine_tune_sites(small, photos, recorded, SiteTuning(**config, loss=x)) for x in ("gaussian", "poisson"))
    assert max(epochs_of(one)) > 0
    assert not np.array_equal(one.held_out, two.held_out)
    assert one.model.extractor.input_px == 24
    assert one.model.provenance["config"]["readout"] == "ridge"
    assert one.model.predict(photos).shape == (COUNT, 3)


def test_a_model_of_one_part_stays_on_its_part(planted, as_recordings):
    """Otherwise driver and judge would share photographs as soon as one of them is tuned."""
    photos, recorded, _ = planted
    trials = recorded.responses.copy()
    trials[..., 2] = np.random.default_rng(5).random(trials[..., 2].shape)
    recorded = as_recordings(trials, photos)
    options = {"backbone": Backbone("module:Planted", Planted(0)), "layer": "high", "folds": 2, "seed": 3}
    half = fit_sites(photos, recorded, split="A", min_reliability=0.5, **options)
    assert len(half.site_ids) == 2
    config = SiteTuning(freeze="low", epochs=1)
    found = fine_tune_sites(half, photos, recorded, config)
    tuned = found.model
    rows = [photos.stimulus_ids.index(name) for name in found.stimulus_ids]
    assert len(found.stimulus_ids) == len(found.held_out) < COUNT
    assert set(group_labels(photos, "photograph")[rows]) == set(half.provenance["fitted_on"]["groups"])
    assert tuned.provenance["fitted_on"] == half.provenance["fitted_on"]
    assert tuned.site_ids == half.site_ids
    again = fine_tune_sites(tuned, photos, recorded, config).model
    assert again.provenance["fitted_on"] == half.provenance["fitted_on"]
    other = fit_sites(photos, recorded, split="B", min_reliability=0.5, **options)
    with pytest.raises(ValueError, match=r"fitted with split='A' and split='B'; tune each"):
        fine_tune_sites(Ensemble([half, other]), photos, recorded, config)
    some = photos.select(slice(COUNT // 2, None))
    with pytest.raises(ValueError, match=r"fitted on part 'A' of other stimuli, without"):
        fine_tune_sites(half, some, recorded.select_stimuli(some.stimulus_ids), config)


def test_without_a_changed_weight_the_network_keeps_its_name_and_the_model_its_network(planted):
    photos, recorded, model = planted
    config = SiteTuning(freeze="low", learning_rate=0.0, epochs=1)
    tuned = fine_tune_sites(model, photos, recorded, config, folds=2).model
    assert tuned.extractor.backbone.name == "module:Planted"
    assert tuned.extractor.network is not model.extractor.network  # which may move to another device
    none = SiteTuning(freeze="low", learning_rate=0.0, head_rate=0.0)
    found = fine_tune_sites(model, photos, recorded, none, folds=2)
    np.testing.assert_allclose(found.held_out, found.frozen, rtol=1e-3, atol=1e-3)
    assert found.epochs == (0,)
    assert "frozen network kept" in repr(found)


def test_a_site_of_few_photographs_is_fitted_although_one_of_them_would_be_kept_apart(planted, as_recordings):
    photos, recorded, model = planted
    groups = group_labels(photos, "photograph")
    shown = []
    for train, _ in group_folds(groups, 2, 0):  # of each training half a photograph that would say when to stop
        _, apart = group_folds(groups[train], 5, 0)[0]
        names, sizes = np.unique(groups[train[apart]], return_counts=True)
        shown.append(names[sizes.argmax()])
    trials = recorded.responses.copy()
    trials[~np.isin(groups, shown), :, 2] = np.nan
    config = SiteTuning(**{**QUICK, "epochs": 1})
    found = fine_tune_sites(model, photos, as_recordings(trials, photos), config, folds=2)
    assert np.isfinite(found.held_out).all()


def test_nothing_is_gained_where_there_is_nothing(planted, as_recordings):
    photos, _, model = planted
    noise = np.random.default_rng(3).normal(5, 1, size=(COUNT, 4, 3)).clip(min=0)
    config = SiteTuning(**{**PLANTED, "epochs": 3, "patience": 1})
    scores = fine_tune_sites(model, photos, as_recordings(noise, photos), config).model.scores
    assert scores["r"].abs().max() < 0.3


def test_the_same_seed_gives_the_same_model_and_no_global_generator_moves(planted, global_rng_untouched):
    photos, recorded, model = planted
    with global_rng_untouched():
        one, other = (fine_tune_sites(model, photos, recorded, SiteTuning(**QUICK), folds=2).model for _ in range(2))
    np.testing.assert_array_equal(one.predict(photos), other.predict(photos))
    assert one.extractor.backbone.name == other.extractor.backbone.name


def test_tuned_sites_of_published_networks_are_saved_whole(photos, brain, lite0, tmp_path):
    some = photos.select(slice(0, 60))
    recorded = brain.record(some, n_repeats=3, seed=0)
    model = fit_sites(some, recorded, backbone=lite0, layer="blocks.1", folds=2)
    config = SiteTuning(epochs=2, learning_rate=1e-3, stop_share=0.5)
    found = fine_tune_sites(Ensemble([model, model]), some, recorded, config)
    tuned = found.model
    assert len(tuned.members) == len(found.epochs) == 2
    assert {"frozen_r", "frozen_explained_variance"} <= set(tuned.scores)
    assert tuned.members[0].provenance["config"]["fine_tuning"]["freeze"] == "blocks.0"
    loaded = load_model(tuned.save(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.predict(some), tuned.predict(some))
    assert tuned.members[0].extractor.layer == "blocks.1"


def test_sites_that_cannot_be_tuned_get_one_sentence(planted, as_recordings):
    photos, recorded, model = planted
    negative = as_recordings(np.random.default_rng(0).normal(size=(COUNT, 3)), photos)
    with pytest.raises(ValueError, match=r"responses go down to -\d.*loss='gaussian'"):
        fine_tune_sites(model, photos, negative, SiteTuning(loss="poisson"))
    with pytest.raises(ValueError, match="no default layer to freeze up to; name one before 'high'"):
        fine_tune_sites(model, photos, recorded)
    with pytest.raises(ValueError, match="loss is 'poison'; expected 'gaussian' or 'poisson'"):
        SiteTuning(loss="poison")
    with pytest.raises(ValueError, match="deg wide"):
        fine_tune_sites(model, photos.on_screen(size_deg=3.0), recorded)
    for wrong in ({"learning_rate": -1.0}, {"epochs": 0}, {"stop_share": 0.9}, {"pull": 2.0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*; expected"):
            Tuning(**wrong)
