from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from neural_fits.loo import RELATIVE_ALPHAS, leave_one_out, ridge_weights, thin_svd


def planted(n=18, p=8, sites=4, seed=0):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(n, p)) * rng.uniform(0.2, 3.0, p)
    responses = inputs @ rng.normal(size=(p, sites)) + np.arange(1, sites + 1) * rng.normal(size=(n, sites))
    return inputs - inputs.mean(0), responses - responses.mean(0)


def residuals_of_refits(inputs, responses, alpha):
    """Error of every stimulus (stimulus, site) under a ridge fitted, intercept and all, on the others."""
    left_out = []
    for row in range(len(inputs)):
        rest = np.delete(np.arange(len(inputs)), row)
        refit = Ridge(alpha).fit(inputs[rest], responses[rest])
        left_out.append(responses[row] - refit.predict(inputs[row : row + 1])[0])
    return np.array(left_out)


@pytest.mark.parametrize("p", [30, 8], ids=["n < p", "n > p"])
def test_leave_one_out_equals_leaving_one_out(p):
    inputs, responses = planted(p=p)
    alphas = [0.1, 2.0, 40.0]
    errors = np.array([(residuals_of_refits(inputs, responses, alpha) ** 2).mean(0) for alpha in alphas])
    basis, values, _ = thin_svd(torch.from_numpy(inputs))
    targets = torch.from_numpy(responses)
    for alpha, error in zip(alphas, errors, strict=True):
        np.testing.assert_allclose(leave_one_out(basis, values, targets, [alpha]).error, error, rtol=1e-7)
    chosen = leave_one_out(basis, values, targets, alphas)
    np.testing.assert_array_equal(chosen.alpha, np.array(alphas)[errors.argmin(0)])
    np.testing.assert_allclose(chosen.error, errors.min(0), rtol=1e-7)


def test_one_se_takes_the_largest_penalty_within_one_standard_error_of_the_best():
    inputs, responses = planted(n=25, p=10, sites=6)
    alphas = np.array([10.0 ** (k / 2) for k in range(-4, 9)])
    squared = np.array([residuals_of_refits(inputs, responses, alpha) ** 2 for alpha in alphas])
    errors, spreads = squared.mean(1), squared.std(1, ddof=1) / 5
    wanted, best = [], errors.argmin(0)
    for site in range(6):
        bound = errors[best[site], site] + spreads[best[site], site]
        wanted.append(max(k for k in range(len(alphas)) if errors[k, site] <= bound))
    assert (np.array(wanted) > best).any()
    basis, values, _ = thin_svd(torch.from_numpy(inputs))
    chosen = leave_one_out(basis, values, torch.from_numpy(responses), list(alphas), "one_se")
    np.testing.assert_allclose(chosen.alpha, alphas[wanted], rtol=1e-12)
    np.testing.assert_allclose(chosen.error, errors[wanted, range(6)], rtol=1e-7)


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (2, 9, 4), (2, 4, 9)])
def test_thin_svd_gives_the_matrix_back(shape):
    matrix = torch.from_numpy(np.random.default_rng(0).normal(size=shape))
    basis, values, directions = thin_svd(matrix)
    torch.testing.assert_close((basis * values.sqrt()[..., None, :]) @ directions.transpose(-1, -2), matrix)
    for columns in (basis, directions):
        product = columns.transpose(-1, -2) @ columns
        torch.testing.assert_close(product, torch.eye(4, dtype=torch.float64).expand(product.shape))
    assert (values.diff(dim=-1) >= 0).all()


@pytest.mark.parametrize("p", [30, 8], ids=["n < p", "n > p"])
@pytest.mark.parametrize("rule", ["best", "one_se"])
def test_many_sets_of_features_are_solved_as_one_by_one(p, rule):
    sets = np.stack([planted(p=p, seed=seed)[0] * scale for seed, scale in enumerate((1.0, 0.01, 100.0))])
    responses = planted(p=p)[1]
    weights, loo = ridge_weights(torch.from_numpy(sets), torch.from_numpy(responses), rule=rule)
    for k, inputs in enumerate(sets):
        alone, one = ridge_weights(torch.from_numpy(inputs), torch.from_numpy(responses), rule=rule)
        torch.testing.assert_close(weights[k], alone)
        torch.testing.assert_close(loo.error[k], one.error)
        relative = one.alpha.numpy() / (np.square(inputs).sum() / len(inputs))
        assert np.isclose(relative[:, None], RELATIVE_ALPHAS, rtol=1e-6).any(1).all()  # on the scale of each set
        wanted = Ridge(one.alpha.numpy(), fit_intercept=False).fit(inputs, responses).coef_.T
        np.testing.assert_allclose(weights[k], wanted, rtol=1e-6, atol=1e-8 * np.abs(wanted).max())


def test_features_of_zeros_get_no_weight():
    weights, loo = ridge_weights(torch.zeros(2, 6, 3), torch.randn(6, 2, generator=torch.Generator().manual_seed(0)))
    assert (weights == 0).all()
    assert torch.isfinite(loo.error).all()
