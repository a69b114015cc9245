from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.linear_model import RidgeCV

from neural_fits import alternating
from neural_fits.alternating import fit_alternating, smooth_basis
from neural_fits.local import RELATIVE_ALPHAS, fit_local
from neural_fits.loo import RELATIVE_ALPHAS as MASK_ALPHAS

SIDE, TRAIN = 10, 260


@pytest.fixture(scope="module")
def planted():
    """Sites that see through long, oblique masks, which no round window fits; channels on scales of their own."""
    rng = np.random.default_rng(0)
    maps = ndimage.gaussian_filter(rng.normal(size=(TRAIN + 100, 5, SIDE, SIDE)), (0, 0, 0.7, 0.7))
    maps = maps * np.array([0.1, 1, 1, 10, 1])[:, None, None] + np.array([2, -3, 0, 50, 0])[:, None, None]
    y, x = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE - 0.5
    masks = []
    for turn, shift in ((np.pi / 4, 0.0), (-np.pi / 4, 0.1), (0.0, -0.1)):
        u, v = x * np.cos(turn) + y * np.sin(turn) - shift, -x * np.sin(turn) + y * np.cos(turn)
        masks.append(np.exp(-(u**2) / (2 * 0.3**2) - v**2 / (2 * 0.07**2)))
    masks = np.array(masks)
    weights = rng.normal(size=(3, 5))
    truth = np.einsum("nchw,shw,sc->ns", maps / maps.std((0, 2, 3), keepdims=True), masks, weights)
    truth = 50 + 20 * (truth - truth.mean(0)) / truth.std(0)
    noisy = truth + 8 * rng.normal(size=truth.shape)
    return torch.from_numpy(maps).float(), torch.from_numpy(noisy).float(), truth, masks


@pytest.fixture(scope="module")
def fitted(planted):
    return fit_alternating(planted[0][:TRAIN], planted[1][:TRAIN])


def split(readout, features):
    """Masks and channel weights, in standardized channels, from the first singular vectors of every site."""
    weight = readout.weight * features.std((0, 2, 3))[:, None, None]
    left, values, right = np.linalg.svd(weight.flatten(2).double().numpy(), full_matrices=False)
    return right[:, 0], left[:, :, 0] * values[:, :1]


def channel_fits(features, responses, masks):
    """Ridge with leave-one-out penalty on the channels that each site's mask pools, by scikit-learn."""
    standard = ((features - features.mean((0, 2, 3), keepdim=True)) / features.std((0, 2, 3))[:, None, None]).flatten(2)
    for site, mask in enumerate(masks):
        pooled = standard.double().numpy() @ mask
        alphas = np.array(RELATIVE_ALPHAS) * np.square(pooled - pooled.mean(0)).sum() / len(pooled)
        yield pooled, RidgeCV(alphas).fit(pooled, responses[:, site].double().numpy())


def test_every_weight_is_an_outer_product(fitted):
    values = torch.linalg.svdvals(fitted.weight.flatten(2))
    assert (values[:, 0] > 0).all()
    assert (values[:, 1] / values[:, 0] < 1e-5).all()


def test_masks_that_no_window_fits_are_found(planted, fitted):
    features, noisy, truth, masks = planted
    others = {"alternating": fitted, "local": fit_local(features[:TRAIN], noisy[:TRAIN])}
    r = {}
    for name, readout in others.items():
        predicted = readout(features[TRAIN:]).numpy()
        r[name] = np.array([np.corrcoef(predicted[:, s], truth[TRAIN:, s])[0, 1] for s in range(3)])
    assert (r["alternating"] > 0.9).all()
    assert r["alternating"].mean() > r["local"].mean() + 0.02
    found = split(fitted, features[:TRAIN])[0]
    for site in range(3):
        assert abs(np.corrcoef(found[site], masks[site].ravel())[0, 1]) > 0.85


def test_channels_are_ridge_given_the_mask(planted, fitted):
    features, noisy = planted[0][:TRAIN], planted[1][:TRAIN]
    found = split(fitted, features)[0]
    predicted = fitted(features).numpy()
    for site, (pooled, fit) in enumerate(channel_fits(features, noisy, found)):
        np.testing.assert_allclose(predicted[:, site], fit.predict(pooled), atol=1e-3 * predicted[:, site].std())


def test_it_is_never_worse_than_its_start(planted, fitted, monkeypatch):
    features, noisy = planted[0][:TRAIN], planted[1][:TRAIN]

    def errors(readout, responses):
        return np.array([-fit.best_score_ for _, fit in channel_fits(features, responses, split(readout, features)[0])])

    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(TRAIN, 3, generator=rng)
    ends = {"signal": errors(fitted, noisy), "noise": errors(fit_alternating(features, noise), noise)}
    monkeypatch.setattr(alternating, "ALTERNATIONS", 0)
    starts = {
        name: errors(fit_alternating(features, data), data) for name, data in (("signal", noisy), ("noise", noise))
    }
    assert (ends["signal"] < 0.95 * starts["signal"]).all()
    assert (ends["noise"] <= starts["noise"] * (1 + 1e-5)).all()
    # and where a new mask only makes it worse, the start stays
    start = fit_alternating(features, noisy)
    monkeypatch.setattr(alternating, "ALTERNATIONS", 3)
    monkeypatch.setattr(alternating, "_fit_masks", lambda inputs, targets, channels, local, basis: torch.eye(100)[:3])
    assert torch.equal(fit_alternating(features, noisy).weight, start.weight)


def test_mask_step_is_ridge_under_its_prior(monkeypatch):
    """Against the dual: mask = P Z^T (Z P Z^T + a I)^-1 y with P the covariance, leave-one-out from the hat matrix."""
    monkeypatch.setattr(alternating, "_LEAST_VARIANCE", 1e-12)
    rng = np.random.default_rng(1)
    n, height, width = 40, 5, 7
    inputs = rng.normal(size=(n, 3, height * width))
    targets = rng.normal(size=(n, 2)) + inputs[:, 0, 10:12].sum(1, keepdims=True)
    channels, local = rng.normal(size=(2, 3)), rng.uniform(0.2, 1, (2, height * width))
    given = [torch.from_numpy(array) for array in (inputs, targets - targets.mean(0), channels, local)]
    masks = alternating._fit_masks(*given, smooth_basis(height, width).double()).numpy()
    places = np.stack(
        np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij"), -1
    ).reshape(-1, 2)
    square = ((places[:, None] - places) ** 2).sum(-1)
    for site in range(2):
        prior = np.outer(local[site], local[site]) * np.exp(-square / (2 * alternating.LENGTH_SCALE**2))
        z = np.einsum("ncp,c->np", inputs, channels[site])
        z, y = z - z.mean(0), targets[:, site] - targets[:, site].mean()
        kernel = z @ prior @ z.T
        tried = []
        for alpha in np.array(MASK_ALPHAS) * np.trace(kernel) / n:
            hat = kernel @ np.linalg.inv(kernel + alpha * np.eye(n))
            squared = ((y - hat @ y) / (1 - 1 / n - np.diag(hat))) ** 2
            tried.append((squared.mean(), squared.std(ddof=1) / n**0.5, alpha))
        smallest, spread, _ = min(tried)
        alpha = max(alpha for error, _, alpha in tried if error <= smallest + spread)
        wanted = prior @ z.T @ np.linalg.solve(kernel + alpha * np.eye(n), y)
        wanted /= np.abs(wanted).sum()
        np.testing.assert_allclose(masks[site], wanted, atol=1e-4 * np.abs(wanted).max())


def test_prior_is_smooth_over_positions_of_any_shape():
    basis = smooth_basis(6, 9).double().numpy()
    covariance = (basis @ basis.T).reshape(6, 9, 6, 9)
    for a, b, c, d in ((2, 3, 2, 3), (2, 3, 3, 3), (2, 3, 2, 4), (0, 0, 1, 2)):
        square = ((a - c) / 6) ** 2 + ((b - d) / 9) ** 2
        assert covariance[a, b, c, d] == pytest.approx(np.exp(-square / (2 * alternating.LENGTH_SCALE**2)), abs=0.02)


def test_sites_are_fitted_as_if_alone(planted, monkeypatch):
    features, noisy = planted[0][:60], planted[1][:60]
    together = fit_alternating(features, noisy)
    alone = [fit_alternating(features, noisy[:, site : site + 1]).weight for site in range(3)]
    tolerance = 1e-3 * together.weight.abs().max().item()
    torch.testing.assert_close(together.weight, torch.cat(alone), atol=tolerance, rtol=1e-3)
    monkeypatch.setattr(alternating, "_SITES_AT_ONCE", 2)
    torch.testing.assert_close(fit_alternating(features, noisy).weight, together.weight, atol=tolerance, rtol=1e-3)


def test_the_rule_reaches_the_channels(planted):
    features, noisy = planted[0][:60], planted[1][:60]
    norms = [np.linalg.norm(split(fit_alternating(features, noisy, rule), features)[1]) for rule in ("best", "one_se")]
    assert norms[1] < 0.95 * norms[0]


@pytest.mark.parametrize("shape", [(5, 1, 1), (60, 1, 1)], ids=["n > channels", "n < channels"])
def test_features_without_space_are_fitted_by_channel_ridge(shape):
    generator = torch.Generator().manual_seed(0)
    features, noise = torch.randn(40, *shape, generator=generator), torch.randn(40, 2, generator=generator)
    responses = 3 * features[:, :2, 0, 0] + noise
    wanted = fit_local(features, responses)(features)
    torch.testing.assert_close(fit_alternating(features, responses)(features), wanted, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("constant", [slice(0, 2), slice(0, 50)], ids=["some channels", "all channels"])
def test_channels_without_variance_get_no_weight(constant):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(30, 50, 4, 5, generator=generator)
    features[:, constant] = 3.3
    responses = torch.randn(30, 2, generator=generator) + 10
    readout = fit_alternating(features, responses)
    assert (readout.weight[:, constant] == 0).all()
    torch.testing.assert_close(readout(features).mean(0), responses.mean(0), atol=1e-3, rtol=1e-3)
