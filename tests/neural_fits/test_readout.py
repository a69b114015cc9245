from __future__ import annotations

import numpy as np
import pytest
import torch

from neural_fits.readout import LinearReadout, ReadoutFamily, fit_complete, uncompressed
from neural_fits.ridge import fit_ridge


def test_readout_is_an_affine_map():
    rng = np.random.default_rng(0)
    weight, bias, features = rng.normal(size=(5, 3, 2, 4)), rng.normal(size=5), rng.normal(size=(7, 3, 2, 4))
    readout = LinearReadout(torch.from_numpy(weight), torch.from_numpy(bias))
    wanted = np.einsum("schw,nchw->ns", weight, features) + bias
    np.testing.assert_allclose(readout(torch.from_numpy(features)).numpy(), wanted, rtol=1e-12)


def test_features_of_another_size_are_refused():
    readout = LinearReadout(torch.zeros(1, 3, 2, 4), torch.zeros(1))
    with pytest.raises(ValueError, match=r"\(3, 4, 2\) per image.*\(3, 2, 4\)"):
        readout(torch.zeros(1, 3, 4, 2))  # as many numbers, in another shape


def test_sites_with_missing_stimuli_are_fitted_as_if_alone():
    rng = np.random.default_rng(1)
    features = torch.from_numpy(rng.normal(size=(40, 3, 2, 2))).float()
    responses = (rng.normal(size=(40, 6)) + features[:, 0, 0, :1].numpy() * 2).astype(np.float32)
    responses[rng.random((40, 6)) < 0.2] = np.nan
    responses[:, 4] = np.where(np.isnan(responses[:, 1]), np.nan, responses[:, 5])  # two sites share a pattern
    responses[:, 2] = rng.normal(size=40)  # one site is complete
    together = fit_complete(fit_ridge, features, responses)
    for site in range(6):
        shown = np.isfinite(responses[:, site])
        alone = fit_ridge(features[shown], torch.from_numpy(responses[shown, site : site + 1]))
        torch.testing.assert_close(together.weight[site], alone.weight[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(together.bias[site], alone.bias[0], atol=1e-5, rtol=1e-4)


def test_solver_never_sees_a_missing_response():
    seen = []

    def spy(features, responses):
        seen.append((len(features), responses.shape))
        assert torch.isfinite(responses).all()
        return LinearReadout(torch.zeros(responses.shape[1], 1, 1, 1), torch.zeros(responses.shape[1]))

    responses = np.zeros((10, 4))
    responses[:3, [0, 2]] = np.nan
    fit_complete(spy, torch.zeros(10, 1, 1, 1), responses)
    assert sorted(seen) == [(7, (7, 2)), (10, (10, 2))]


def test_a_penalty_rule_reaches_the_solver():
    rng = np.random.default_rng(0)
    features, responses = torch.from_numpy(rng.normal(size=(30, 8, 1, 1))), torch.from_numpy(rng.normal(size=(30, 3)))
    family = ReadoutFamily(fit_ridge, penalized=True)
    assert family.with_penalty("ridge", "best") is family
    changed = family.with_penalty("ridge", "one_se").solve(features, responses)
    assert torch.equal(changed.weight, fit_ridge(features, responses, "one_se").weight)
    assert not torch.equal(changed.weight, fit_ridge(features, responses).weight)


def test_a_rule_that_means_nothing_is_refused():
    with pytest.raises(ValueError, match="'two_se' is unknown; give 'best' or 'one_se'"):
        ReadoutFamily(fit_ridge, penalized=True).with_penalty("ridge", "two_se")
    with pytest.raises(ValueError, match="'pls' has no ridge penalty to choose by 'one_se'"):
        ReadoutFamily(fit_ridge).with_penalty("pls", "one_se")


def test_uncompressed_features_stay_as_they_are():
    features, readout = torch.randn(2, 3, 4, 5), LinearReadout(torch.zeros(1, 3, 4, 5), torch.zeros(1))
    same = uncompressed(features)
    assert same.features is features
    assert same.expand(readout) is readout
