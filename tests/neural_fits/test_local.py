from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from neural_fits import local
from neural_fits.local import RELATIVE_ALPHAS, fit_local, gaussian_windows
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


def test_windows_are_gaussians_at_their_places():
    windows = gaussian_windows(40, 60).numpy()
    assert windows.shape == (3 * 7 * 7, 40, 60)
    np.testing.assert_allclose(windows.sum((1, 2)), 1, rtol=1e-5)
    # the smallest window in the middle has its moments; corner windows tell rows from columns
    rows, columns = (np.arange(40) + 0.5) / 40, (np.arange(60) + 0.5) / 60
    middle = windows[3 * 7 + 3]
    assert (middle.sum(1) @ rows, middle.sum(0) @ columns) == pytest.approx((0.5, 0.5), abs=1e-5)
    spread = (middle.sum(1) @ (rows - 0.5) ** 2) ** 0.5, (middle.sum(0) @ (columns - 0.5) ** 2) ** 0.5
    assert spread == pytest.approx((0.08, 0.08), rel=0.01)
    places = {(round(float(w.sum(1) @ rows), 1), round(float(w.sum(0) @ columns), 1)) for w in windows[:49]}
    assert {(0.1, 0.9), (0.9, 0.1), (0.1, 0.1), (0.9, 0.9)} <= places


def brute_force(pooled, responses):
    """Smallest leave-one-out error over the penalties, and the refit with that penalty, for one window and site."""
    centered = pooled - pooled.mean(0)
    alphas = np.array(RELATIVE_ALPHAS) * np.linalg.eigvalsh(centered.T @ centered).mean()
    errors = []
    for alpha in alphas:
        residuals = []
        for left in range(len(pooled)):
            rest = np.delete(np.arange(len(pooled)), left)
            refit = Ridge(alpha).fit(pooled[rest], responses[rest])
            residuals.append(refit.predict(pooled[left : left + 1])[0] - responses[left])
        errors.append(np.mean(np.square(residuals)))
    return min(errors), Ridge(alphas[int(np.argmin(errors))]).fit(pooled, responses)


@pytest.mark.parametrize("averaged", [1, 2])
def test_windows_and_penalties_are_chosen_by_leaving_one_out(monkeypatch, averaged):
    rng = np.random.default_rng(0)
    count, channels = 24, 4
    features = rng.normal(size=(count, channels, 6, 6)) * np.array([0.5, 1, 2, 4])[:, None, None] + 1
    windows = rng.random((3, 6, 6)) ** 4
    windows /= windows.sum((1, 2), keepdims=True)
    pooled = np.einsum("nchw,mhw->mnc", features, windows)
    responses = np.stack([pooled[k] @ rng.normal(size=channels) * 3 for k in (0, 1, 2)], 1)
    responses += np.array([0.1, 1.0, 2.0]) * rng.normal(size=responses.shape) + 20
    monkeypatch.setattr(local, "gaussian_windows", lambda height, width: torch.from_numpy(windows))
    monkeypatch.setattr(local, "BEST_WINDOWS", averaged)
    predicted = fit_local(torch.from_numpy(features).float(), torch.from_numpy(responses).float())(
        torch.from_numpy(features).float()
    ).numpy()
    for site in range(3):
        fits = [brute_force(pooled[m], responses[:, site]) for m in range(3)]
        best = np.argsort([error for error, _ in fits])[:averaged]
        wanted = np.mean([fits[m][1].predict(pooled[m]) for m in best], axis=0)
        np.testing.assert_allclose(predicted[:, site], wanted, atol=1e-3 * responses[:, site].std())


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
