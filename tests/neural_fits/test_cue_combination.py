"""Cue combination: the formula, single noisy trials, and filters by what their removal costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from inspection_models import noise
from torch import nn
from torch.nn import functional

from neural_fits.inspection.class_activation import class_activation_maps
from neural_fits.inspection.cue_combination import combine_cues, combine_trials, trial_variances
from neural_fits.inspection.filter_cues import cue_combination_maps

RNG = np.random.default_rng


def test_equals_the_formula_with_one_variance_a_cue_and_one_a_place():
    rng = RNG(0)
    maps, spread = rng.normal(size=(5, 3, 4)), rng.uniform(0.1, 9, size=(5, 3, 4))
    found = combine_cues(maps, spread)
    for place in np.ndindex(3, 4):
        numbers = [(maps[(i, *place)], spread[(i, *place)]) for i in range(5)]
        below = sum(1 / v for _, v in numbers)
        assert found.values[place] == pytest.approx(sum(m / v for m, v in numbers) / below, rel=1e-12)
        assert found.variance[place] == pytest.approx(1 / below, rel=1e-12)
    np.testing.assert_allclose(found.weights.sum(0), 1)
    single = combine_cues(maps, spread[:, 0, 0])
    np.testing.assert_allclose(single.values, np.average(maps, axis=0, weights=1 / spread[:, 0, 0]))
    np.testing.assert_allclose(combine_cues(maps, np.full(5, 3.0)).values, maps.mean(0))


def test_has_the_variance_it_says_and_less_than_the_mean():
    rng, spread = RNG(1), np.array([0.2, 1.0, 5.0, 25.0])
    cues = 2 + rng.normal(size=(4, 40_000)) * np.sqrt(spread)[:, None]
    found = combine_cues(cues, spread)
    assert found.values.var() == pytest.approx(found.variance[0], rel=0.03)
    assert found.variance[0] < cues.mean(0).var() / 5


def test_noise_of_single_trials_is_found_whatever_they_share():
    rng = RNG(2)
    true = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 1.0])
    shared = 30 * rng.normal(size=(50, 60))
    found = trial_variances(shared + rng.normal(size=(6, 50, 60)) * np.sqrt(true)[:, None, None])
    np.testing.assert_allclose(found, true, rtol=0.15)
    # the same by least squares over all pairs
    small = rng.normal(size=(5, 30)) * np.array([1, 2, 3, 1, 2])[:, None]
    pairs = [(i, j) for i in range(5) for j in range(i)]
    design = np.array([[k in pair for k in range(5)] for pair in pairs], dtype=float)
    apart = [np.mean((small[i] - small[j]) ** 2) for i, j in pairs]
    fitted = np.linalg.lstsq(design, apart, rcond=None)[0]
    np.testing.assert_allclose(trial_variances(small), np.maximum(fitted, 0.05 * np.median(np.maximum(fitted, 0))))


def test_equal_maps_count_equally():
    found = combine_trials(np.full((4, 3), 2.0))
    np.testing.assert_allclose(found.weights, 0.25)
    np.testing.assert_allclose(found.values, 2)


def test_groups_are_cues_with_the_variance_of_their_mean_at_each_place():
    rng = RNG(3)
    trials = rng.normal(size=(9, 200)) * np.array([1] * 4 + [6] * 5)[:, None] + 1
    groups = ["s1"] * 4 + ["s2"] * 5
    found = combine_trials(trials, groups)
    means = np.stack([trials[:4].mean(0), trials[4:].mean(0)])
    errors = np.stack([trials[:4].var(0, ddof=1) / 4, trials[4:].var(0, ddof=1) / 5])
    errors = np.maximum(errors, 0.05 * np.median(errors, axis=1, keepdims=True))
    np.testing.assert_allclose(found.values, (means / errors).sum(0) / (1 / errors).sum(0))
    assert found.weights.shape == (2, 200)
    assert found.weights[0].mean() > 0.85


def test_wrong_maps_variances_and_groups_are_named():
    with pytest.raises(ValueError, match="one variance a cue"):
        combine_cues(np.zeros((3, 2)), np.ones(2))
    with pytest.raises(ValueError, match="not positive"):
        combine_cues(np.zeros((3, 2)), [1, 0, 1])
    with pytest.raises(ValueError, match="at least 3"):
        combine_trials(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="has one trial"):
        combine_trials(np.zeros((3, 4)), ["a", "a", "b"])
    with pytest.raises(ValueError, match="2 groups came"):
        combine_trials(np.zeros((3, 4)), ["a", "a"])
    with pytest.raises(ValueError, match="0 groups came"):
        combine_trials(np.zeros((0, 4)), [])
    spoiled = np.zeros((4, 3))
    spoiled[2, 1] = np.nan
    for groups in (None, ["a", "a", "b", "b"]):
        with pytest.raises(ValueError, match="maps have values that are not finite"):
            combine_trials(spoiled, groups)


def test_tensors_with_gradients_are_maps_too():
    maps = noise(4, 3, 5).requires_grad_()
    np.testing.assert_array_equal(combine_trials(maps).values, combine_trials(maps.detach().numpy()).values)


class Band(nn.Module):
    """A planted classifier of spectrograms: two filters, local power and its negative, averaged and compared."""

    def __init__(self, channels=1):
        super().__init__()
        self.power, self.out = nn.Conv2d(channels, 2, (3, 5), padding=(1, 2)), nn.Linear(2, 2)
        with torch.no_grad():
            self.power.weight.fill_(1 / (15 * channels))
            self.power.weight[1] *= -1
            self.power.bias.copy_(torch.tensor([-0.4, 0.4]))
            self.out.weight.copy_(torch.tensor([[-2.0, 1.0], [2.0, -1.0]]))
            self.out.bias.zero_()

    def forward(self, trials):
        return self.out(self.power(trials).relu().mean((2, 3)))


FREQUENCIES = np.arange(2, 82, 2)  # Hz
BAND = (FREQUENCIES >= 23) & (FREQUENCIES <= 33)


def spectrograms(n, n_noisy, channels, seed=0):
    """Return trials with a weak planted 23-33 Hz burst; some carry strong artifacts at random frequencies."""
    rng = RNG(seed)
    trials = 0.15 * np.abs(rng.normal(size=(n, channels, len(FREQUENCIES), 48)))
    trials[:, :, BAND, 18:30] += 1.0
    for k in range(n_noisy):
        at = rng.integers(20, 38)  # 42 Hz and more: muscles
        trials[k, :, at : at + 3] += 12 * rng.random((channels, 3, 48))
    return torch.from_numpy(trials).float()


@pytest.mark.parametrize("channels", [1, 2])
def test_planted_band_is_recovered_where_the_plain_mean_is_misled_by_noisy_trials(channels):
    trials = spectrograms(24, 6, channels)
    maps = class_activation_maps(Band(channels).eval(), trials, classes=1).maps[:, 0]
    profiles = {"mean": maps.mean(0).numpy().mean(1), "combined": combine_trials(maps).values.mean(1)}
    assert not BAND[profiles["mean"].argmax()]
    assert BAND[profiles["combined"].argmax()]
    above = profiles["combined"] > 0.5 * profiles["combined"].max()
    assert 23 - 2 <= FREQUENCIES[above].min() <= FREQUENCIES[above].max() <= 33 + 2
    weights = combine_trials(maps).weights[:, 0, 0]
    assert weights[:6].max() < weights[6:].min()


def cost_per_energy(network, trials, labels, layers):
    """Cost over energy, with one run of the network's tail a filter and trial."""
    features = network[:layers](trials)
    costs, energies = torch.zeros(2, max(labels) + 1, features.shape[1], dtype=features.dtype)
    for n, label in enumerate(labels):
        before = functional.cross_entropy(network[layers:](features[n : n + 1]), torch.tensor([label]))
        for k in range(features.shape[1]):
            masked = features[n : n + 1].clone()
            masked[:, k] = 0
            after = functional.cross_entropy(network[layers:](masked), torch.tensor([label]))
            costs[label, k] += after - before
            energies[label, k] += features[n, k].square().sum()
    return features, (costs / energies).nan_to_num()


@pytest.fixture
def classifier():
    with torch.random.fork_rng(devices=[]):
        network = nn.Sequential(
            *(nn.Conv2d(1, 70, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(70, 3))
        )
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
        network[0].bias[0] = -100  # a silent filter
    return network.eval().requires_grad_(False)


def test_filters_count_by_what_their_removal_costs(classifier):
    trials, labels = noise(6, 1, 9, 11), [0, 0, 2, 2, 2, 0]
    classifier, trials = classifier.double(), trials.double()
    features, weights = cost_per_energy(classifier, trials, labels, 2)
    for signed in (False, True):
        found = cue_combination_maps(classifier, trials, labels, signed=signed)
        kept = weights if signed else weights.clamp(min=0)
        assert found.classes == (0, 2)
        torch.testing.assert_close(found.reliability, kept[[0, 2]])
        assert found.reliability[:, 0].abs().max() == 0
        for n, label in enumerate(labels):
            expected = torch.einsum("k,khw->hw", kept[label], features[n]) / kept[label].abs().sum()
            torch.testing.assert_close(found.maps[n], expected)


def test_one_nearly_silent_trial_says_little(classifier):
    trials, labels = noise(6, 1, 9, 11), [0, 0, 0, 0, 0, 0]
    network = classifier.requires_grad_(False)
    network[0].bias.zero_()
    trials[0] *= 1e-6
    with_it, without = (cue_combination_maps(network, trials[k:], labels[k:]).reliability for k in (0, 1))
    torch.testing.assert_close(with_it, without, rtol=1e-3, atol=1e-6)


def test_signed_weights_that_sum_below_zero_keep_their_signs(classifier):
    """Filters that speak against the class are dark in the map, whatever the other weights sum to."""
    trials = noise(6, 1, 9, 11)
    found = [cue_combination_maps(classifier, trials, [label] * 6, signed=True) for label in range(3)]
    assert any(each.reliability.sum() < 0 for each in found)
    features = classifier[:2](trials)
    for each in found:
        raw = torch.einsum("k,nkhw->nhw", each.reliability[0], features)
        assert (each.maps.sign() == raw.sign()).all()
        assert each.maps.abs().max() <= features.max()  # an average, however near 0 the sum of the weights


def test_cues_of_images():
    """Color images of one scene, some with glare, and a classifier of its red patch."""
    network = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.append(nn.Linear(2, 2))
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
        network[0].weight[0, 0, 1, 1] = network[0].weight[1, 2, 1, 1] = 1  # red, and blue, which tells nothing
        network[4].weight.copy_(torch.tensor([[-9.0, 0.0], [9.0, 0.0]]))
    images = 0.1 * noise(8, 3, 12, 16)
    images[:, 0, 4:7, 9:13] += 0.5
    images[:, 2, 9:11, 2:5] += 0.9
    images[:3, 0, 0:3, 0:3] += torch.tensor([0.9, 0.7, 0.8]).view(3, 1, 1)  # glare in some
    found = cue_combination_maps(network, images, [1] * 8)
    assert found.reliability[0, 1] < 1e-3 * found.reliability[0, 0]
    combined = combine_trials(found.maps).values
    inside = np.zeros((12, 16), dtype=bool)
    inside[4:7, 9:13] = True
    assert combined[inside].min() > combined[~inside].max()
    assert found.maps.mean(0)[:3, :3].max() > combined[:3, :3].max()


def test_a_useless_filter_gets_no_say():
    """One filter sees the planted burst; the other, louder one sees artifacts, and the classifier does not use it."""
    network = Band().eval()
    with torch.no_grad():
        network.power.weight[1] = network.power.weight[0] * 5
        network.power.bias.copy_(torch.tensor([-0.4, 0.0]))
        network.out.weight.copy_(torch.tensor([[-2.0, 0.0], [2.0, 0.0]]))
    found = cue_combination_maps(network, spectrograms(8, 0, 1), [1] * 8)
    assert found.reliability[0, 1] < 1e-3 * found.reliability[0, 0]


def test_wrong_labels_and_useless_networks_are_named(classifier):
    trials = noise(2, 1, 9, 9)
    for labels in ([0], [0, 3], [0, -1], [0.0, 1.0]):
        with pytest.raises(ValueError, match="expected one class"):
            cue_combination_maps(classifier, trials, labels)
    classifier[-1].weight.zero_()
    with pytest.raises(ValueError, match="no filter"):
        cue_combination_maps(classifier, trials, [0, 1])
