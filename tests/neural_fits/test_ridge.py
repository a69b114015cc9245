from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold

from neural_fits.loo import RELATIVE_ALPHAS, leave_one_out, ridge_weights, thin_svd
from neural_fits.readout import LinearReadout, fit_complete
from neural_fits.ridge import center, fit_ridge, gram, principal_scores


def planted(n, shape, sites=4, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, *shape)) * rng.uniform(0.2, 3.0, shape) + rng.normal(size=shape) * 2
    weight = rng.normal(size=(sites, *shape)) / np.prod(shape) ** 0.5
    signal = np.einsum("nchw,schw->ns", features, weight)
    noisy = signal + noise * np.arange(1, sites + 1) * rng.normal(size=signal.shape) + 10
    return torch.from_numpy(features), torch.from_numpy(noisy)


def default_alphas(features):
    centered = features - features.mean(0)
    eigenvalues = np.linalg.eigvalsh(centered @ centered.T)
    return np.array(RELATIVE_ALPHAS) * eigenvalues.clip(0).mean()


def ridge_cv(features, alphas):
    return RidgeCV(alphas, alpha_per_target=True, fit_intercept=True)


def chosen_alphas(inputs, responses, alphas=None):
    """Penalties that ridge chooses on features (stimulus, feature), among its own or absolute ones."""
    inputs, responses = inputs.double(), responses.double()
    centered, targets = inputs - inputs.mean(0), responses - responses.mean(0)
    if alphas is None:
        return ridge_weights(centered, targets)[1].alpha
    basis, values, _ = thin_svd(centered)
    return leave_one_out(basis, values, targets, alphas).alpha


@pytest.mark.parametrize(("n", "shape"), [(30, (5, 3, 4)), (90, (4, 2, 3))], ids=["n < p", "n > p"])
def test_equals_ridge_cv_of_scikit_learn(n, shape):
    features, responses = planted(n, shape)
    new, _ = planted(25, shape, seed=1)
    flat = features.flatten(1).numpy()
    alphas = default_alphas(flat)
    theirs = ridge_cv(flat, alphas).fit(flat, responses.numpy())
    scores = principal_scores(features).features.flatten(1)
    np.testing.assert_allclose(chosen_alphas(scores, responses), theirs.alpha_, rtol=1e-6)
    assert len(np.unique(theirs.alpha_)) > 1  # sites with different noise want different penalties
    given = [0.3, 3.0, 30.0]
    np.testing.assert_array_equal(
        chosen_alphas(scores, responses, given), ridge_cv(flat, given).fit(flat, responses.numpy()).alpha_
    )
    readout = fit_ridge(features, responses)
    scale = responses.std().item()
    for inputs in (features, new):
        wanted = theirs.predict(inputs.flatten(1).numpy())
        np.testing.assert_allclose(readout(inputs).numpy(), wanted, atol=1e-6 * scale)
    np.testing.assert_allclose(readout.bias, theirs.intercept_, atol=1e-6 * scale)
    np.testing.assert_allclose(readout.weight.flatten(1), theirs.coef_, atol=1e-6 * np.abs(theirs.coef_).max())


def test_equals_ridge_cv_on_features_of_photographs(photo_features):
    rng = np.random.default_rng(0)
    flat = photo_features.flatten(1).double().numpy()
    direction = rng.normal(size=(flat.shape[1], 3))
    drive = (flat - flat.mean(0)) @ direction
    responses = 5 + drive / drive.std(0) + np.array([0.1, 0.5, 1.0]) * rng.normal(size=(len(flat), 3))
    train, test = np.arange(100), np.arange(100, len(flat))
    theirs = ridge_cv(flat, default_alphas(flat[train])).fit(flat[train], responses[train])
    targets = torch.from_numpy(responses[train]).float()
    scores = principal_scores(photo_features).features.flatten(1)[torch.from_numpy(train)]
    np.testing.assert_allclose(chosen_alphas(scores, targets), theirs.alpha_, rtol=1e-3)
    readout = fit_ridge(photo_features[:100], targets)
    np.testing.assert_allclose(readout(photo_features).numpy(), theirs.predict(flat), atol=1e-3 * responses.std())
    assert np.corrcoef(readout(photo_features[test])[:, 0], responses[test, 0])[0, 1] > 0.5


def test_center_gives_the_kernel_of_the_fold():
    features, _ = planted(20, (3, 2, 2))
    flat = features.flatten(1)
    train, test = torch.tensor([0, 3, 4, 9, 12, 19]), torch.tensor([1, 2, 18])
    inner, outer = flat[train] - flat[train].mean(0), flat[test] - flat[train].mean(0)
    for kernel in (gram(features), flat @ flat.T):  # whatever it was centered by before
        torch.testing.assert_close(center(kernel, train), inner @ inner.T)
        torch.testing.assert_close(center(kernel, train, test), outer @ inner.T)


def test_scores_give_the_kernel_of_the_fold():
    features, _ = planted(20, (3, 2, 2))
    flat = features.flatten(1)
    scores = principal_scores(features).features.flatten(1)  # centered over all stimuli, not over the fold's
    train, test = torch.tensor([0, 3, 4, 9, 12, 19]), torch.tensor([1, 2, 18])
    (inner, outer), (small_inner, small_outer) = (
        (x[train] - x[train].mean(0), x[test] - x[train].mean(0)) for x in (flat, scores)
    )
    torch.testing.assert_close(small_inner @ small_inner.T, inner @ inner.T)
    torch.testing.assert_close(small_outer @ small_inner.T, outer @ inner.T)


@pytest.mark.parametrize("shape", [(4, 3, 3), (8, 3, 3)], ids=["n > p", "n < p"])
def test_folds_equal_refitting_each_site_on_its_own_stimuli(shape):
    features, complete = planted(60, shape)
    responses = complete.float().numpy()
    rng = np.random.default_rng(2)
    responses[rng.random(60) < 0.2, 1] = np.nan
    responses[rng.random(60) < 0.3, 3] = np.nan
    compressed = principal_scores(features.float())
    flat = features.flatten(1).numpy()
    for train, test in list(KFold(4, shuffle=True, random_state=0).split(responses))[:2]:
        readout = fit_complete(fit_ridge, compressed.features[train], responses[train])
        predicted = readout(compressed.features[test]).numpy()
        back = compressed.expand(readout)(features.float()[test]).numpy()
        for site in range(4):
            rows = train[np.isfinite(responses[train, site])]
            refit = RidgeCV(default_alphas(flat[rows])).fit(flat[rows], responses[rows, site])
            np.testing.assert_allclose(predicted[:, site], refit.predict(flat[test]), atol=1e-3)
            np.testing.assert_allclose(back[:, site], refit.predict(flat[test]), atol=1e-3)


@pytest.mark.parametrize("shape", [(2, 2, 2), (9, 2, 2)], ids=["n > p", "n < p"])
def test_scores_keep_all_products_in_as_few_coordinates_as_there_are(shape):
    features, _ = planted(20, shape)
    scores = principal_scores(features).features
    assert scores.shape == (20, min(8, 19) if shape[0] == 2 else 19, 1, 1)
    flat, few = (features - features.mean(0)).flatten(1), scores.flatten(1)
    torch.testing.assert_close(few @ few.T, flat @ flat.T)
    torch.testing.assert_close(few.mean(0), torch.zeros(few.shape[1], dtype=torch.float64))


def test_scores_of_photographs_lead_back_to_every_position(photo_features):
    compressed = principal_scores(photo_features)
    count, coordinates = compressed.features.shape[:2]
    assert count - 4 <= coordinates < count
    generator = torch.Generator().manual_seed(0)
    scale = compressed.features.std(0).clamp(min=1e-3 * compressed.features.std(0).max())
    small = LinearReadout(
        torch.randn(3, coordinates, 1, 1, generator=generator) / scale, torch.tensor([1.0, -2.0, 5.0])
    )
    readout = compressed.expand(small)
    assert readout.weight.shape == (3, *photo_features.shape[1:])
    wanted = small(compressed.features)
    torch.testing.assert_close(readout(photo_features), wanted, atol=2e-3 * wanted.std().item(), rtol=0)


def test_one_se_shrinks_more_than_best():
    features, responses = planted(30, (5, 3, 4), noise=2.0)
    best, larger = (fit_ridge(features, responses, rule).weight.flatten(1).norm(dim=1) for rule in ("best", "one_se"))
    assert (larger <= best * (1 + 1e-9)).all()
    assert (larger < 0.9 * best).any()


def test_the_offset_is_the_mean_response_at_the_mean_feature():
    features, responses = planted(40, (3, 2, 2))
    readout = fit_ridge(features, responses + 1e3)
    torch.testing.assert_close(readout(features.mean(0, keepdim=True))[0], responses.mean(0) + 1e3)


@pytest.mark.parametrize("shape", [(2, 1, 1), (5, 4, 4)], ids=["n > p", "n < p"])
def test_features_without_variance_predict_the_mean(shape):
    _, responses = planted(12, shape)
    readout = fit_ridge(torch.full((12, *shape), 3.25, dtype=torch.float64), responses)
    torch.testing.assert_close(readout(torch.full((1, *shape), 3.25, dtype=torch.float64))[0], responses.mean(0))
    assert readout.weight.shape == (4, *shape)
