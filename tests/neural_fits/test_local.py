from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV

from neural_fits import local
from neural_fits.local import (
    RELATIVE_ALPHAS,
    WINDOW_SPAN,
    WINDOWS,
    fit_local,
    fit_pooled,
    gaussian_windows,
    pool_windows,
    window_weights,
)
from neural_fits.readout import LinearReadout
from neural_fits.ridge import fit_ridge

CENTER_ROW, CENTER_COLUMN, SIGMA = 0.3, 0.7, 0.12


def planted_field(height, width):
    rows, columns = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    distance = (rows[:, None] - CENTER_ROW) ** 2 + (columns - CENTER_COLUMN) ** 2
    field = np.exp(-distance / (2 * SIGMA**2))
    return field / field.sum(), distance < (2 * SIGMA) ** 2


def test_planted_receptive_field_is_recovered(photo_features):
    features = photo_features.numpy()
    count, channels, height, width = features.shape
    field, inside = planted_field(height, width)
    rng = np.random.default_rng(0)
    sites = 12
    weight = np.zeros((sites, channels))
    for site in range(sites):
        weight[site, rng.choice(channels, 4, replace=False)] = rng.normal(size=4)
    pooled = np.einsum("nchw,hw->nc", features / features.std((0, 2, 3), keepdims=True), field)
    truth = pooled @ weight.T
    truth = (truth - truth.mean(0)) / truth.std(0)
    noisy = torch.from_numpy(truth + 0.7 * rng.normal(size=truth.shape)).float()
    train, test = slice(0, 110), slice(110, count)

    def held_out(fit):
        readout = fit(photo_features[train], noisy[train])
        predicted = readout(photo_features[test]).numpy()
        return readout, np.median([np.corrcoef(predicted[:, s], truth[test, s])[0, 1] for s in range(sites)])

    readout, r = held_out(fit_local)
    _, r_ridge = held_out(fit_ridge)
    assert r > 0.6
    assert r > r_ridge + 0.03
    energy = readout.weight.square().sum(1).numpy()
    share = energy[:, inside].sum(1) / energy.sum((1, 2))
    assert np.median(share) > 0.7


def test_windows_are_gaussians_on_a_grid_for_every_size():
    height, width = 80, 120
    windows = gaussian_windows(height, width).double().numpy()
    np.testing.assert_allclose(windows.sum((1, 2)), 1, rtol=1e-5)
    rows, columns = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    start = 0
    for sigma, grid in WINDOWS:
        family = windows[start : start + grid * grid].reshape(grid, grid, height, width)
        start += grid * grid
        centers = np.linspace(*WINDOW_SPAN, grid)
        for j, row in enumerate(centers):
            for i, column in enumerate(centers):
                distance = (rows[:, None] - row) ** 2 + (columns - column) ** 2
                wanted = np.exp(-distance / (2 * sigma**2))
                np.testing.assert_allclose(family[j, i], wanted / wanted.sum(), rtol=1e-3, atol=1e-9)
    assert start == len(windows)


@pytest.mark.parametrize(("count", "channels"), [(24, 4), (24, 40)], ids=["n > channels", "n < channels"])
def test_windows_and_penalties_equal_ridge_cv_in_every_window(monkeypatch, count, channels):
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.5, 4, channels)[:, None, None]
    features = rng.normal(size=(count, channels, 6, 6)) * scale + 1
    windows = rng.random((3, 6, 6)) ** 4
    windows /= windows.sum((1, 2), keepdims=True)
    pooled = np.einsum("nchw,mhw->mnc", features / features.std((0, 2, 3), ddof=1, keepdims=True), windows)
    responses = np.stack([pooled[k] @ rng.normal(size=channels) * 3 for k in (0, 1, 2)], 1)
    responses += np.array([0.1, 1.0, 2.0]) * rng.normal(size=responses.shape) + 20
    monkeypatch.setattr(local, "gaussian_windows", lambda height, width: torch.from_numpy(windows))
    inputs = torch.from_numpy(features)
    compressed = pool_windows(inputs)
    small = fit_pooled(compressed.features, torch.from_numpy(responses))
    predicted = compressed.expand(small)(inputs).numpy()
    np.testing.assert_allclose(small(compressed.features).numpy(), predicted, rtol=1e-8)
    for site in range(3):
        fits = []
        for few in pooled:
            alphas = np.array(RELATIVE_ALPHAS) * np.square(few - few.mean(0)).sum() / count
            fits.append(RidgeCV(alphas).fit(few, responses[:, site]))
        error = np.array([-fit.best_score_ for fit in fits])
        share = np.exp(-count / 20 * (error / error.min() - 1))
        wanted = np.average([fits[m].predict(pooled[m]) for m in range(3)], axis=0, weights=share)
        np.testing.assert_allclose(predicted[:, site], wanted, atol=1e-6 * responses[:, site].std())


def test_pooled_photographs_lead_back_to_every_position(photo_features):
    compressed = pool_windows(photo_features)
    generator = torch.Generator().manual_seed(0)
    small = LinearReadout(torch.randn(3, *compressed.features.shape[1:], generator=generator), torch.ones(3))
    wanted = small(compressed.features)
    found = compressed.expand(small)(photo_features)
    torch.testing.assert_close(found, wanted, atol=1e-4 * wanted.abs().max().item(), rtol=0)


def test_more_windows_than_are_solved_at_once_change_nothing(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 5, 8, 8, generator=generator)
    responses = torch.randn(40, 2, generator=generator) + 5 * features[:, :2, 3, 3]
    once = fit_local(features, responses)
    monkeypatch.setattr(local, "_WINDOWS_AT_ONCE", 5)
    torch.testing.assert_close(fit_local(features, responses).weight, once.weight, atol=1e-5, rtol=1e-3)


def test_features_without_space_are_fitted_by_channel_ridge():
    generator = torch.Generator().manual_seed(0)
    features, noise = torch.randn(50, 5, 1, 1, generator=generator), torch.randn(50, 1, generator=generator)
    responses = features[:, :1, 0, 0] * 3 + noise
    standard = (features / features.std(0)).flatten(1).numpy()
    alphas = np.array(RELATIVE_ALPHAS) * np.square(standard - standard.mean(0)).sum() / 50
    wanted = RidgeCV(alphas).fit(standard, responses[:, 0]).predict(standard)
    np.testing.assert_allclose(fit_local(features, responses)(features)[:, 0], wanted, atol=1e-4)


@pytest.mark.parametrize("constant", [slice(0, 1), slice(0, 4)], ids=["one channel", "all channels"])
def test_channels_without_variance_give_no_nan_and_no_weight(constant):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 4, 5, 5, generator=generator)
    features[:, constant] = 3.3
    responses = torch.randn(40, 2, generator=generator) + features[:, 3:, 2, 2]
    readout = fit_local(features, responses)
    assert torch.isfinite(readout.weight).all()
    assert torch.isfinite(readout(features)).all()
    assert readout.weight[:, constant].abs().max() < 1e-2
    torch.testing.assert_close(readout(features).mean(0), responses.mean(0), atol=1e-3, rtol=1e-3)


def test_few_stimuli_share_a_readout_among_more_windows():
    error = torch.tensor([[1.0, 3.0], [1.2, 3.3], [2.0, 6.0]])
    few, many = window_weights(error, 20), window_weights(error, 500)
    torch.testing.assert_close(few.sum(0), torch.ones(2))
    assert few[0, 0] < many[0, 0] < 1
    assert (few[0] > few[1]).all()
    assert (few[1] > few[2]).all()
    assert many[2].max() < 1e-6
    perfect = window_weights(torch.zeros(3, 1), 50)
    torch.testing.assert_close(perfect, torch.full((3, 1), 1 / 3))
