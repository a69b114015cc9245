from __future__ import annotations

import numpy as np
import pytest
import torch

from neural_fits.backbones import Backbone
from neural_fits.features import FeatureExtractor
from neural_fits.reliability import split_half_reliability
from neural_fits.simulate import SimulatedBrain
from stimuli import StimulusSet


def test_the_same_seed_gives_the_same_brain(photos, global_rng_untouched):
    few = photos.select(range(20))
    with global_rng_untouched():
        first, second, other = (SimulatedBrain(few, n_sites=3, seed=seed) for seed in (4, 4, 5))
        first_trials, second_trials = (brain.record(few, n_repeats=2, seed=1) for brain in (first, second))
    np.testing.assert_array_equal(first.truth(few), second.truth(few))
    np.testing.assert_array_equal(first_trials.responses, second_trials.responses)
    assert first_trials.sites.equals(second_trials.sites)
    correlation = np.corrcoef(first.truth(few).T, other.truth(few).T)[:3, 3:]
    assert np.abs(correlation).max() < 0.95
    assert not first_trials.sites["rf_center_x"].equals(other.record(few, n_repeats=1).sites["rf_center_x"])


def test_trials_differ_by_their_seed_only(brain, photos):
    few = photos.select(range(10))
    first, again, other = (brain.record(few, n_repeats=3, seed=seed).responses for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()
    assert (first[:, 0] != first[:, 1]).all()


def test_reliability_of_eight_repeats_is_the_one_asked_for(photos):
    for asked in (0.6, 0.9):
        brain = SimulatedBrain(photos, n_sites=16, seed=1, reliability=(asked, asked))
        measured = split_half_reliability(brain.record(photos, n_repeats=8, seed=0), n_splits=20, seed=0)
        assert np.median(measured) == pytest.approx(asked, abs=0.05)


def test_truth_shows_only_in_the_mean_of_many_repeats(brain, photos):
    few = photos.select(range(30))
    truth = brain.truth(few)
    trials = brain.record(few, n_repeats=600, seed=3)
    spread = trials.responses.std(1)
    assert (spread > 0).all()
    standard_error = spread / 600**0.5
    z = (trials.mean() - truth) / standard_error
    assert np.abs(z).max() < 5
    assert z.std() == pytest.approx(1, abs=0.25)
    # the noise follows the rate: variance in proportion
    ratio = spread**2 / truth
    assert (ratio.std(0) / ratio.mean(0) < 0.12).all()
    assert trials.unit == "spikes/s"
    assert list(trials.sites.columns) == ["animal", "rf_center_x", "rf_center_y", "rf_sigma"]


def test_rates_have_the_range_of_neurons(brain, photos):
    truth = brain.truth(photos)
    assert truth.min() >= 0
    assert truth.max() < 60  # the largest peak rate
    assert (truth.std(0) > 0.1 * truth.mean(0)).all()
    single = brain(torch.from_numpy(photos.images([5, 6])))
    np.testing.assert_allclose(single.numpy(), truth[5:7], rtol=1e-3, atol=1e-3)


def test_images_of_low_contrast_give_low_rates(brain, photos):
    images = torch.from_numpy(photos.images(list(range(20))))
    rates = brain(images)
    faint = brain(0.5 + 0.02 * (images - 0.5))
    assert (faint.mean(0) < 0.1 * rates.mean(0)).all()
    assert brain(torch.full((1, 3, 64, 64), 0.5)).max() < 1e-3


def test_a_site_sees_only_its_receptive_field(brain, photos):
    """Changing the image far outside the field changes contrast nothing and the drive little."""
    sites = brain.record(photos.select([0]), n_repeats=1).sites
    image = torch.from_numpy(photos.images([0]))
    at = (torch.arange(64) + 0.5) / 64
    for k, site in enumerate(sites.itertuples()):
        distance = ((at[:, None] - site.rf_center_y) ** 2 + (at - site.rf_center_x) ** 2).sqrt()
        inside, outside = distance < 2 * site.rf_sigma, distance > 4 * site.rf_sigma
        changes = [
            (brain._contrast(torch.where(where, 0.5, image)) - brain._contrast(image))[0, k].abs()
            for where in (inside, outside)
        ]
        assert changes[1] < 0.02 < changes[0] + 0.02
        assert changes[1] < changes[0]


def test_gray_images_are_seen(brain, photos):
    gray = torch.from_numpy(photos.images([0, 1]))[:, :1]
    torch.testing.assert_close(brain(gray), brain(gray.repeat(1, 3, 1, 1)), atol=1e-4, rtol=1e-4)


def test_gradients_reach_the_images(brain, photos):
    images = torch.from_numpy(photos.images([0])).requires_grad_(True)
    brain(images).sum().backward()
    assert images.grad.abs().max() > 0


def test_wrong_input_gets_one_sentence(brain, photos):
    with pytest.raises(ValueError, match="32 x 32 px, the reference of this brain was 64 x 64"):
        brain(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match="expected 1 and 2 at least"):
        SimulatedBrain(photos.select([0]), n_sites=3)
    with pytest.raises(ValueError, match="expected 1 and 2 at least"):
        SimulatedBrain(photos, n_sites=0)
    with pytest.raises(ValueError, match="unknown tuning 'lineer'; did you mean 'linear'"):
        SimulatedBrain(photos, tuning="lineer")
    for wrong in ((0.0, 0.5), (0.9, 0.6), (0.5, 1.2)):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            SimulatedBrain(photos, reliability=wrong)
    with pytest.raises(ValueError):
        brain.record(StimulusSet.from_arrays(np.random.default_rng(0).random((1, 3, 32, 32))))


def test_tunings_share_drives_and_differ_in_how_rates_grow(photos):
    few = photos.select(range(30))
    rates = {
        name: SimulatedBrain(few, n_sites=3, seed=1, tuning=name).truth(few)
        for name in ("saturating", "linear", "accelerating")
    }
    for one, other in (("saturating", "linear"), ("linear", "accelerating")):
        for site in range(3):  # the same drive: one rate is a growing function of the other, and grows ever slower
            order = np.argsort(rates[other][:, site])
            ratio = rates[one][order, site] / rates[other][order, site]
            assert np.corrcoef(np.argsort(np.argsort(rates[one][:, site])), np.argsort(order))[0, 1] > 0.9
            assert ratio[:10].mean() > ratio[-10:].mean()


def test_a_brain_can_be_read_as_a_network(photos):
    """An extractor inside the network of another: the ceiling of what images can do is climbed on the brain itself."""
    few = photos.select(range(12))
    brain = SimulatedBrain(few, n_sites=3, seed=1)

    class Rates(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.brain, self.out = brain, torch.nn.Identity()

        def forward(self, images):
            return self.out(self.brain(images)[:, :, None, None])

    extractor = FeatureExtractor(Backbone("module:Rates", Rates()), "out")
    np.testing.assert_allclose(extractor.extract(few)[:, :, 0, 0].numpy(), brain.truth(few), rtol=1e-5)
