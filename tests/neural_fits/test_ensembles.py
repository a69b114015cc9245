from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from neural_fits.ensembles import fit_parts, transfer
from neural_fits.features import FeatureExtractor
from neural_fits.fit import fit_sites
from neural_fits.folds import part_of_groups
from neural_fits.site_model import Ensemble, load_model
from stimuli import StimulusSet, natural_photos


@pytest.fixture(scope="module")
def recorded(brain, photos):
    return brain.record(photos, n_repeats=4, seed=0)


KWARGS = {"backbone": "efficientnet-lite0", "layer": "blocks.3", "folds": 3}


def test_parts_are_scored_by_members_that_saw_none_of_it(photos, recorded):
    ensemble = fit_parts(photos, recorded, 2, **KWARGS)
    groups, mean = photos.table["photograph"].to_numpy(), recorded.mean()
    held_out = np.empty_like(mean)
    for k, other in ((0, "2/2"), (1, "1/2")):
        rows = part_of_groups(groups, other, 0)
        held_out[rows] = ensemble.members[k].predict(photos.select(rows))
    wanted = [np.corrcoef(held_out[:, s], mean[:, s])[0, 1] for s in range(mean.shape[1])]
    np.testing.assert_allclose(ensemble.scores["r"], wanted, atol=1e-5)
    seen = [set(groups[part_of_groups(groups, part, 0)]) for part in ("1/2", "2/2")]
    assert not seen[0] & seen[1]


def test_one_part_is_no_ensemble(photos, recorded):
    with pytest.raises(ValueError, match="parts is 1; an ensemble of parts needs at least 2"):
        fit_parts(photos, recorded, 1, **KWARGS)


def test_members_of_an_ensemble_count_one_by_one(photos, recorded):
    first, second = (fit_sites(photos, recorded, split=split, **KWARGS) for split in "AB")
    nested = Ensemble([Ensemble([first, second]), first])
    few = photos.select(range(4))
    wanted = (2 * first.predict(few) + second.predict(few)) / 3
    np.testing.assert_allclose(nested.predict(few), wanted, rtol=1e-4, atol=1e-4)
    assert len(nested.members) == 3


@pytest.fixture(scope="module")
def planted(photos, as_recordings):
    """Two arrays that read the same eight directions of one layer: the second can be had from the first."""
    network = nn.Sequential(nn.Conv2d(3, 24, 8, stride=4), nn.ReLU())
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    features = FeatureExtractor(network, "1").extract(photos).flatten(1)
    features = (features - features.mean(0)) / features.std()
    directions = torch.randn(8, features.shape[1], generator=generator)
    drive = features @ directions.T / features.shape[1] ** 0.5
    drive = drive / drive.std(0)
    known, new = (drive @ torch.randn(8, count, generator=generator) for count in (12, 5))
    noise = torch.randn(160, 12, generator=generator)
    return network, as_recordings((known + 0.1 * noise).numpy(), photos), new.numpy()


def test_a_known_array_needs_few_images(photos, planted, as_recordings, tmp_path):
    network, first_day, new = planted
    how = {"backbone": network, "layer": "1", "folds": 3, "group": "stimulus_id"}
    model = fit_sites(photos.select(range(90)), first_day.select_stimuli(photos.stimulus_ids[:90]), **how)
    few, unseen = photos.select(range(90, 120)), photos.select(range(120, 160))
    second_day = as_recordings(new[90:120], few)
    carried = transfer(model, few, second_day, folds=3, group="stimulus_id")
    scratch = fit_sites(few, second_day, **how)

    def r(fitted):
        predicted = fitted.predict(unseen)
        return np.mean([np.corrcoef(predicted[:, s], new[120:, s])[0, 1] for s in range(5)])

    assert r(carried) > r(scratch) + 0.02
    assert list(carried.site_ids) == second_day.site_ids
    assert carried.scores["n_stimuli"].tolist() == [30] * 5
    loaded = load_model(carried.save(tmp_path / "model"), {model.extractor.backbone.name: network})
    np.testing.assert_array_equal(loaded.predict(unseen), carried.predict(unseen))


def test_transfer_wants_images_of_the_same_kind(photos, planted):
    network, first_day, _ = planted
    model = fit_sites(photos, first_day, backbone=network, layer="1", folds=3)
    with pytest.raises(
        ValueError, match=r"are 32 x 32 px, 8 deg, 3 channel.*fitted on 64 x 64 px, 8 deg.*make them alike"
    ):
        transfer(model, natural_photos(20, size_px=32), first_day)
    small = StimulusSet.from_arrays(photos.images(), photos.table, size_deg=2.0)
    with pytest.raises(ValueError, match="2 deg"):
        transfer(model, small, first_day)
    other = fit_sites(small, first_day, backbone=network, layer="1", folds=3)
    with pytest.raises(ValueError, match="another size in px or deg"):
        Ensemble([model, other])


def test_transfer_refuses_images_that_the_model_was_fitted_on(photos, as_recordings):
    """Responses that no image explains: predictions of fitted images know them by heart, and would look held out."""
    network = nn.Sequential(nn.Conv2d(3, 24, 8, stride=4), nn.ReLU())
    code = np.random.default_rng(0).normal(size=(160, 6))
    days = [as_recordings(code + 0.1 * np.random.default_rng(k).normal(size=code.shape), photos) for k in (1, 2)]
    how = {"backbone": network, "layer": "1", "readout": "ridge", "group": "stimulus_id"}
    model = fit_sites(photos, days[0], **how)
    assert abs(model.scores["r"].mean()) < 0.2
    with pytest.raises(ValueError, match=r"160 of the 160 images.*leave them out"):
        transfer(model, photos, days[1], group="stimulus_id")
    half = fit_sites(photos, days[0], **how, split="A")
    with pytest.raises(ValueError, match="80 of the 160 images"):
        transfer(half, photos, days[1], group="stimulus_id")
    rest = photos.select(part_of_groups(np.asarray(photos.stimulus_ids), "B", 0))
    carried = transfer(half, rest, days[1].select_stimuli(rest.stimulus_ids), group="stimulus_id")
    assert abs(carried.scores["r"].mean()) < 0.2
    crops = fit_sites(photos, days[0], **{**how, "group": "photograph"}, split="A")
    with pytest.raises(ValueError, match="other parts of the same photographs"):
        transfer(crops, photos, days[1])


def test_parts_make_the_splits_themselves(photos, recorded):
    with pytest.raises(ValueError, match="leave split out"):
        fit_parts(photos, recorded, 2, split="A")
