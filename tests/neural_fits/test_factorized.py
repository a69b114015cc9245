from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from neural_fits.factorized import RIDGE, SMOOTHNESS, factorized_loss, fit_factorized
from neural_fits.parallel import side_by_side

CPU = torch.device("cpu")


def test_loss_equals_its_formula():
    rng = np.random.default_rng(0)
    predicted, responses = rng.normal(size=(2, 30, 5))
    mask, channels = rng.normal(size=(5, 6, 4)), rng.normal(size=(5, 7))
    laplace = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]])
    rough = [np.sum(ndimage.convolve(one, laplace, mode="constant") ** 2) for one in mask]
    size = np.mean([np.sum(one**2) for one in mask]) + np.mean([np.sum(one**2) for one in channels])
    error = np.sqrt(np.sum((predicted - responses) ** 2) / 5)
    wanted = error + SMOOTHNESS * np.mean(rough) + RIDGE * size
    tensors = [torch.from_numpy(array).float() for array in (predicted, responses, mask, channels)]
    assert factorized_loss(*tensors).item() == pytest.approx(wanted, rel=1e-5)


def test_weight_of_the_sites_does_not_depend_on_their_number():
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(shape, generator=generator) for shape in ((20, 1), (20, 1), (1, 4, 4), (1, 3))]
    once = factorized_loss(*parts)
    many = factorized_loss(*(part.repeat(1, 9) for part in parts[:2]), parts[2].repeat(9, 1, 1), parts[3].repeat(9, 1))
    torch.testing.assert_close(once, many)


@pytest.fixture(scope="module")
def planted():
    """Sites that pool one channel each in the upper right quarter, in other units than the features."""
    scale, level = (torch.tensor(values).view(4, 1, 1) for values in ([0.1, 1.0, 10.0, 1.0], [2.0, -3.0, 50.0, 0.0]))
    features = level + scale * torch.randn(460, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    truth = features[:, :3, 1:3, 3:5].mean((2, 3))
    truth = 50 + 20 * (truth - truth.mean(0)) / truth.std(0)
    noisy = truth + 5 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    return features, noisy, truth


@pytest.fixture(scope="module")
def fits(planted):
    """Fits with the seeds 0, 0 and 1, and whether they moved the global generators."""
    features, noisy, _ = planted
    before = torch.random.get_rng_state()
    found = side_by_side(lambda seed: fit_factorized(features[:400], noisy[:400], seed), (0, 0, 1), CPU)
    return found, torch.equal(torch.random.get_rng_state(), before)


@pytest.fixture(scope="module")
def fitted(fits):
    return fits[0][0]


def test_planted_place_and_channel_are_recovered(planted, fitted):
    features, _, truth = planted
    predicted = fitted(features[400:]).detach()
    for site in range(3):
        assert torch.corrcoef(torch.stack([predicted[:, site], truth[400:, site]]))[0, 1] > 0.7
        energy = (fitted.weight[site] * features.std((0, 2, 3))[:, None, None]).square()
        assert energy.sum((1, 2)).argmax() == site
        assert energy.sum(0)[1:3, 3:5].sum() / energy.sum() > 0.6
    torch.testing.assert_close(predicted.mean(0), truth.mean(0), atol=5.0, rtol=0)


def test_every_weight_is_an_outer_product(fitted):
    values = torch.linalg.svdvals(fitted.weight.flatten(2))
    assert (values[:, 0] > 0).all()
    assert (values[:, 1] / values[:, 0] < 1e-5).all()
    assert not fitted.weight.requires_grad


def test_the_seed_alone_decides(fits):
    (first, again, other), untouched = fits
    assert untouched
    assert torch.equal(again.weight, first.weight)
    assert torch.equal(again.bias, first.bias)
    assert not torch.equal(other.weight, first.weight)


def test_a_channel_that_never_varied_gets_no_weight(planted):
    features, noisy, _ = planted
    silent = features.clone()
    silent[:, 3] = 0.3
    (readout,) = side_by_side(lambda data: fit_factorized(*data), [(silent[:100], noisy[:100])], CPU)
    assert torch.isfinite(readout.bias).all()
    assert (readout.weight[:, 3] == 0).all()


def test_units_of_features_and_responses_do_not_matter(planted):
    features, noisy = planted[0][:80], planted[1][:80]
    fits = side_by_side(lambda unit: fit_factorized(features * unit, noisy * unit), (1.0, 1e-9), CPU)
    torch.testing.assert_close(fits[1](features * 1e-9) * 1e9, fits[0](features), atol=0.05, rtol=1e-3)


@pytest.mark.parametrize(("shape", "sites"), [((5, 1, 1), 1), ((160, 1, 1), 2), ((160, 3, 4), 1), ((5, 3, 4), 2)])
def test_features_without_space_more_channels_than_stimuli_and_one_site(shape, sites):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(150, *shape, generator=generator)
    responses = 3 * features[:, :sites].mean((2, 3)) + 10
    predicted = fit_factorized(features, responses)(features)
    assert predicted.shape == responses.shape
    for site in range(sites):
        assert torch.corrcoef(torch.stack([predicted[:, site], responses[:, site]]))[0, 1] > 0.5


def test_features_or_responses_that_never_varied_give_the_mean():
    responses = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)) + 10
    readout = fit_factorized(torch.full((40, 3, 2, 2), 3.3), responses)
    assert (readout.weight == 0).all()
    torch.testing.assert_close(readout.bias, responses.mean(0), atol=0.1, rtol=0)
    features = torch.randn(40, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    flat = fit_factorized(features, torch.full((40, 1), 7.3))
    torch.testing.assert_close(flat(features), torch.full((40, 1), 7.3), atol=1e-3, rtol=0)
