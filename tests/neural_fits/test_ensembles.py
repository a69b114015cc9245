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
    how = {"backbone": network, "layer": "1", "folds": 3}
    model = fit_sites(photos.select(range(120)), first_day.select_stimuli(photos.stimulus_ids[:120]), **how)
    few, unseen = photos.select(range(90, 120)), photos.select(range(120, 160))
    second_day = as_recordings(new[90:120], few)
    carried, scratch = transfer(model, few, second_day, folds=3), fit_sites(few, second_day, **how)

    def r(fitted):
        predicted = fitted.predict(unseen)
        return np.mean([np.corrcoef(predicted[:, s], new[120:, s])[0, 1] for s in range(5)])

    assert r(carried) > r(scratch) + 0.02
    assert list(carried.site_ids) == second_day.site_ids
    assert carried.scores["n_stimuli"].tolist() == [30] * 5
    loaded = load_model(carried.save(tmp_path / "model"), {model.extractor.backbone.name: network})
    np.testing.assert_array_equal(loaded.predict(unseen), carried.predict(unseen))


def test_transfer_wants_images_of_the_same_size(photos, planted):
    network, first_day, _ = planted
    model = fit_sites(photos, first_day, backbone=network, layer="1", folds=3)
    from stimuli import natural_photos

    with pytest.raises(ValueError, match="32 x 32 px, the model was fitted on 64 x 64 px; resize them"):
        transfer(model, natural_photos(20, size_px=32), first_day)
