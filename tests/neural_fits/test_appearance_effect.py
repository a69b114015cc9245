"""What matching does to predicted responses, on models whose answer can be written down."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from neural_fits.appearance_effect import appearance_effect
from neural_fits.backbones import Backbone
from neural_fits.features import FeatureExtractor
from neural_fits.readout import LinearReadout
from neural_fits.site_model import SiteInfo, SiteModel
from stimuli import StimulusSet
from stimuli.matching import match_appearance

SIDE = 8


@pytest.fixture
def model():
    """A model of sites that read the mean over pixels and channels: 10 and -4 times, plus 1 and 2."""
    network = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False))
    nn.init.constant_(network[0].weight, 1 / 3)
    extractor = FeatureExtractor(Backbone("module:mean", network, (0.0,) * 3, (1.0,) * 3, SIDE), "0")
    weight = torch.tensor([10.0, -4.0])[:, None, None, None].expand(2, 1, SIDE, SIDE) / SIDE**2
    info = SiteInfo(("up", "down"), (0.0, 0.0), (2.0, 0.5), (SIDE, SIDE), 4.0, "spikes/s")
    return SiteModel(extractor, LinearReadout(weight, torch.tensor([1.0, 2.0])), info)


@pytest.fixture
def images():
    return StimulusSet.from_arrays(np.random.default_rng(0).uniform(0.2, 0.6, (6, 1, SIDE, SIDE)), size_deg=4.0)


def test_change_is_that_of_the_means_in_units_of_each_site(model, images):
    matched = match_appearance(images, mean=0.5, rms=0.1).stimuli
    effect = appearance_effect(images, matched, model)
    old, new = (made.codes().mean((1, 2, 3)) / 255 for made in (images, matched))
    table = effect.table.set_index(["stimulus_id", "site_id"])
    for i, name in enumerate(images.stimulus_ids):
        for site, gain, base, spread in (("up", 10, 1, 2.0), ("down", -4, 2, 0.5)):
            row = table.loc[(name, site)]
            assert row["before"] == pytest.approx(base + gain * old[i], abs=1e-4)
            assert row["after"] == pytest.approx(base + gain * new[i], abs=1e-4)
            assert row["change_sd"] == pytest.approx(gain * (new[i] - old[i]) / spread, abs=1e-3)
    sites = effect.sites.set_index("site_id")
    assert sites.loc["up", "mean_change_sd"] == pytest.approx(np.mean(10 * (new - old) / 2.0), abs=1e-4)
    assert sites.loc["down", "rms_change_sd"] == pytest.approx(np.sqrt(np.mean((4 * (new - old) / 0.5) ** 2)), abs=1e-3)
    summary = effect.summary()
    worst = int(np.abs(new - old).argmax())
    assert summary["largest_change_at"] == {"stimulus_id": images.stimulus_ids[worst], "site_id": "down"}
    assert summary["largest_change_sd"] == pytest.approx(-8 * (new - old)[worst], abs=1e-3)


def test_correlation_tells_what_kept_its_order(model, images):
    codes = images.codes()
    darker = StimulusSet.from_arrays((codes // 2).astype(np.uint8), images.table, size_deg=4.0)
    np.testing.assert_allclose(appearance_effect(images, darker, model).sites["r"], 1.0, atol=0.01)
    turned = StimulusSet.from_arrays((255 - codes).astype(np.uint8), images.table, size_deg=4.0)
    np.testing.assert_allclose(appearance_effect(images, turned, model).sites["r"], -1.0, atol=1e-4)


def test_stimuli_are_paired_by_id_and_not_by_place(model, images):
    effect = appearance_effect(images, images.select(slice(None, None, -1)), model)
    np.testing.assert_allclose(effect.table["change_sd"], 0.0, atol=1e-6)
    assert effect.table["stimulus_id"].tolist() == np.repeat(images.stimulus_ids, 2).tolist()


def test_one_image_and_a_site_that_never_varied_have_no_numbers(model, images):
    still = SiteModel(
        model.extractor, model.readout, SiteInfo(("up", "down"), (0.0,) * 2, (2.0, 0.0), (8, 8), 4.0, "s")
    )
    effect = appearance_effect(images.select([0]), images.select([0]), still)
    assert effect.table["change_sd"].isna().tolist() == [False, True]
    assert effect.sites["r"].isna().all()
    summary = effect.summary()
    assert summary["median_r"] is None
    assert summary["largest_change_at"]["site_id"] == "up"


def test_other_sizes_in_degrees_are_refused(model, images):
    small = images.on_screen(size_deg=2.0)
    with pytest.raises(ValueError, match="is 4 deg wide before and 2 deg after the change: give two sets of one size"):
        appearance_effect(images, small, model)
    with pytest.raises(ValueError, match="are 2 deg wide, the model was fitted on images of 4 deg"):
        appearance_effect(small, small, model)
    fits = images.on_screen(size_deg=4.03)  # what fits the pixels of a screen
    assert (appearance_effect(fits, images, model).table["change_sd"] == 0).all()


def test_ids_are_looked_up_in_time_proportional_to_their_number(model, images, monkeypatch):
    asked = []
    ids = images.stimulus_ids
    monkeypatch.setattr(StimulusSet, "stimulus_ids", property(lambda stimuli: asked.append(stimuli) or ids))
    appearance_effect(images, images, model)
    assert len(asked) < len(images)


def test_other_stimuli_are_refused(model, images):
    with pytest.raises(ValueError, match="6 stimuli before and 5 after"):
        appearance_effect(images, images.select(slice(0, 5)), model)
    renamed = StimulusSet.from_arrays(images.codes(), {"stimulus_id": [f"x{i}" for i in range(6)]}, size_deg=4.0)
    with pytest.raises(ValueError, match="is missing: give two sets of the same stimuli"):
        appearance_effect(images, renamed, model)
