from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from neural_fits.gaussian import fit_gaussian, windows

HEIGHT, WIDTH, TRAIN = 12, 10, 300
CENTERS, SIGMAS = np.array([[0.3, 0.7], [0.65, 0.4]]), np.array([0.12, 0.22])


def test_windows_are_normalized_isotropic_gaussians():
    found = windows(torch.from_numpy(CENTERS), torch.from_numpy(SIGMAS), 6, 9).numpy()
    rows, columns = np.meshgrid((np.arange(6) + 0.5) / 6, (np.arange(9) + 0.5) / 9, indexing="ij")
    for window, center, sigma in zip(found, CENTERS, SIGMAS, strict=True):
        wanted = stats.multivariate_normal(center, sigma**2).pdf(np.stack([rows, columns], -1))
        np.testing.assert_allclose(window, wanted / wanted.sum(), rtol=1e-6)


def test_a_window_narrower_than_the_grid_reads_the_nearest_position():
    window = windows(torch.tensor([[0.4, 0.9]]), torch.tensor([1e-3]), 4, 4)[0]
    assert window.sum() == 1
    assert window[1, 3] == 1


@pytest.fixture(scope="module")
def planted():
    """Sites that see through a Gaussian, two channels each, in other units than the features."""
    rng = np.random.default_rng(0)
    maps = ndimage.gaussian_filter(rng.normal(size=(TRAIN + 100, 4, HEIGHT, WIDTH)), (0, 0, 0.8, 0.8))
    maps = maps / maps.std() * np.array([0.1, 1, 10, 1])[:, None, None] + np.array([2, -3, 50, 0])[:, None, None]
    rows, columns = (np.arange(HEIGHT) + 0.5) / HEIGHT, (np.arange(WIDTH) + 0.5) / WIDTH
    truth = []
    for site, ((row, column), sigma) in enumerate(zip(CENTERS, SIGMAS, strict=True)):
        window = np.exp(-((rows[:, None] - row) ** 2 + (columns - column) ** 2) / (2 * sigma**2))
        pooled = np.einsum("nchw,hw->nc", maps / maps.std((0, 2, 3), keepdims=True), window)
        truth.append(pooled[:, site] - 0.5 * pooled[:, site + 2])
    truth = np.stack(truth, 1)
    truth = 50 + 20 * (truth - truth.mean(0)) / truth.std(0)
    noisy = truth + 5 * rng.normal(size=truth.shape)
    return torch.from_numpy(maps).float(), torch.from_numpy(noisy).float(), truth


@pytest.fixture(scope="module")
def fitted(planted):
    return fit_gaussian(planted[0][:TRAIN], planted[1][:TRAIN])


def test_planted_place_width_and_channels_are_recovered(planted, fitted):
    features, _, truth = planted
    predicted = fitted(features[TRAIN:]).numpy()
    rows, columns = (np.arange(HEIGHT) + 0.5) / HEIGHT, (np.arange(WIDTH) + 0.5) / WIDTH
    for site in range(2):
        assert np.corrcoef(predicted[:, site], truth[TRAIN:, site])[0, 1] > 0.97
        weight = (fitted.weight[site] * features.std((0, 2, 3))[:, None, None]).double().numpy()
        window = np.abs(weight[site]) / np.abs(weight[site]).sum()
        # the logarithm of a Gaussian is a parabola: its width is in the second difference
        place = np.unravel_index(window.argmax(), window.shape)
        np.testing.assert_allclose([rows[place[0]], columns[place[1]]], CENTERS[site], atol=0.1)
        curve = np.diff(np.log(window[:, place[1]]), 2).mean() * HEIGHT**2
        assert curve**-1 == pytest.approx(-(SIGMAS[site] ** 2), rel=0.35)
        sums = weight.sum((1, 2))
        assert sums[site + 2] / sums[site] == pytest.approx(-0.5, abs=0.1)
        others = [c for c in range(4) if c not in (site, site + 2)]
        assert np.abs(sums[others]).max() < 0.1 * abs(sums[site])
    np.testing.assert_allclose(predicted.mean(0), truth[TRAIN:].mean(0), atol=2)


def test_every_weight_is_an_outer_product(fitted):
    values = torch.linalg.svdvals(fitted.weight.flatten(2))
    assert (values[:, 0] > 0).all()
    assert (values[:, 1] / values[:, 0] < 1e-5).all()
    assert not fitted.weight.requires_grad


def test_the_seed_alone_decides(planted, global_rng_untouched):
    features, noisy = planted[0][:100], planted[1][:100]
    with global_rng_untouched():
        first, again, other = (fit_gaussian(features, noisy, seed) for seed in (0, 0, 1))
    assert torch.equal(again.weight, first.weight)
    assert torch.equal(again.bias, first.bias)
    assert not torch.equal(other.weight, first.weight)


def test_units_of_features_and_responses_do_not_matter(planted):
    features, noisy = planted[0][:80], planted[1][:80]
    plain = fit_gaussian(features, noisy)
    other = fit_gaussian(features * 1e-9, noisy * 1e-9)
    torch.testing.assert_close(other(features * 1e-9) * 1e9, plain(features), atol=0.05, rtol=1e-3)


@pytest.mark.parametrize(("shape", "sites"), [((5, 1, 1), 1), ((160, 1, 1), 2), ((160, 3, 4), 1), ((5, 3, 4), 2)])
def test_features_without_space_more_channels_than_stimuli_and_one_site(shape, sites):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(150, *shape, generator=generator)
    window = windows(torch.tensor([[0.5, 0.5]]), torch.tensor([0.2]), *shape[1:])[0]
    responses = 3 * (features[:, :sites] * window).sum((2, 3)) + 10
    predicted = fit_gaussian(features, responses)(features)
    assert predicted.shape == responses.shape
    for site in range(sites):
        assert torch.corrcoef(torch.stack([predicted[:, site], responses[:, site]]))[0, 1] > 0.8


@pytest.mark.parametrize("constant", [slice(0, 2), slice(0, 4)], ids=["some channels", "all channels"])
def test_channels_without_variance_get_no_weight(planted, constant):
    features, noisy = planted[0][:100].clone(), planted[1][:100]
    features[:, constant] = 3.3
    readout = fit_gaussian(features, noisy)
    assert (readout.weight[:, constant] == 0).all()
    torch.testing.assert_close(readout(features).mean(0), noisy.mean(0), atol=0.5, rtol=0)
