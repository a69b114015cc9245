from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from neural_fits import _cholesky, streaming
from neural_fits._cholesky import add_product, mirror, solve_penalized
from neural_fits.feature_cache import cache_features
from neural_fits.feature_sources import ExtractorSource, TensorSource
from neural_fits.features import FeatureExtractor
from neural_fits.readout import fit_complete
from neural_fits.ridge import fit_ridge
from neural_fits.streaming import fit_ridge_streaming, streaming_gram, streaming_moments
from stimuli import StimulusSet


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Small problems must cross as many borders of tiles and blocks as large ones."""
    monkeypatch.setattr(_cholesky, "_TILE", 16)
    monkeypatch.setattr(streaming, "_BLOCK", 3000)
    monkeypatch.setattr(streaming, "_ROWS_COPIED", 11)


def planted(n, shape=(6, 5, 5), sites=4, noise=1.0, seed=0):
    """Features with a falling spectrum and an offset, linear responses, and the weights behind them."""
    rng = np.random.default_rng(seed)
    p = int(np.prod(shape))
    x = rng.normal(size=(n, p)) * np.geomspace(1, 0.03, p) @ np.linalg.qr(rng.normal(size=(p, p)))[0]
    w = rng.normal(size=(p, sites)) / np.sqrt(p)
    signal = x @ w
    y = 7 + signal / signal.std(0) + noise * rng.normal(size=(n, sites))
    return torch.from_numpy((x + 3).astype(np.float32)).view(n, *shape), y, signal


SIZES = {"dual": 90, "primal": 400}  # stimuli, with 150 features


class Guarded:
    """A source that gives what the fit may ask, and counts."""

    def __init__(self, features, largest=4000):
        self.features, self.largest, self.given, self.asked = features, largest, 0, []
        self.shape = tuple(features.shape)

    def rows(self, start, stop):
        return self._give("rows", self.features[start:stop].clone())

    def columns(self, start, stop):
        return self._give("columns", self.features.flatten(1)[:, start:stop].clone())

    def _give(self, kind, block):
        assert 0 < block.numel() <= self.largest
        self.given += block.numel()
        self.asked.append(kind)
        return block


@pytest.mark.parametrize("way", SIZES)
def test_it_is_the_fit_that_holds_everything(way):
    features, responses, _ = planted(SIZES[way], noise=0.5)
    source = Guarded(features)
    streamed = fit_ridge_streaming(source, responses)
    whole = fit_ridge(features, torch.from_numpy(responses).float())
    assert streamed.weight.shape == whole.weight.shape
    assert (streamed.weight - whole.weight).norm() < 1e-3 * whole.weight.norm()
    torch.testing.assert_close(streamed(features), whole(features), atol=2e-3, rtol=1e-3)
    # read in small blocks, whole columns or whole rows, no more often than needed
    assert set(source.asked) == {"columns" if way == "dual" else "rows"}
    assert source.given == (2 if way == "dual" else 1) * features.numel()


@pytest.mark.parametrize("way", SIZES)
@pytest.mark.parametrize("relative", [1e-4, 1e-1, 10.0])
def test_forced_penalty_gives_the_normal_equations(way, relative):
    features, responses, _ = planted(SIZES[way])
    streamed = fit_ridge_streaming(TensorSource(features), responses, relative_alphas=[relative])
    x = features.flatten(1).double().numpy()
    mean, n = x.mean(0), len(x)
    x = x - mean
    alpha = relative * (x**2).sum() / n
    wanted = np.linalg.solve(x.T @ x + alpha * np.eye(x.shape[1]), x.T @ (responses - responses.mean(0)))
    weight = streamed.weight.flatten(1).double().numpy().T
    assert np.linalg.norm(weight - wanted) < 1e-3 * np.linalg.norm(wanted)
    np.testing.assert_allclose(streamed.bias.numpy(), responses.mean(0) - mean @ wanted, rtol=1e-3, atol=1e-3)


def held_out_r(readout, features, signal):
    predicted = readout(features).numpy()
    return np.array([np.corrcoef(p, s)[0, 1] for p, s in zip(predicted.T, signal.T, strict=True)])


@pytest.mark.parametrize("way", ["dual", "primal"])
def test_penalties_of_a_subset_serve_all_stimuli(way, monkeypatch):
    """The best penalty does not grow with the number of stimuli: choosing it on a third of them costs nothing."""
    monkeypatch.setattr(_cholesky, "_TILE", 512)
    monkeypatch.setattr(streaming, "_BLOCK", 2**18)
    train, shape = (900, (40, 5, 5)) if way == "dual" else (900, (6, 5, 5))
    features, responses, signal = planted(train + 500, shape, sites=30, noise=1.5, seed=3)
    fits = {
        m: fit_ridge_streaming(TensorSource(features[:train]), responses[:train], loo_stimuli=m) for m in (300, train)
    }
    r = {m: held_out_r(fit, features[train:], signal[train:]) for m, fit in fits.items()}
    assert np.median(r[train]) > 0.65
    assert abs((r[300] - r[train]).mean()) < 0.005
    assert np.abs(r[300] - r[train]).max() < 0.03
    # it matters: a penalty that grew with the stimuli, or shrank, would be worse
    for wrong in (1e-4, 1e3):
        fit = fit_ridge_streaming(
            TensorSource(features[:train]), responses[:train], relative_alphas=[wrong], loo_stimuli=50
        )
        assert np.median(held_out_r(fit, features[train:], signal[train:])) < np.median(r[train]) - 0.01


def test_subset_is_drawn_from_the_seed():
    features, responses, _ = planted(90)
    fits = [fit_ridge_streaming(TensorSource(features), responses, loo_stimuli=12, seed=k) for k in (0, 0, 1)]
    assert torch.equal(fits[0].weight, fits[1].weight)
    assert not torch.equal(fits[0].weight, fits[2].weight)


def test_rule_reaches_the_choice():
    features, responses, _ = planted(90)
    best, careful = (fit_ridge_streaming(TensorSource(features), responses, rule=k) for k in ("best", "one_se"))
    assert (careful.weight.flatten(1).norm(dim=1) < best.weight.flatten(1).norm(dim=1)).all()


@pytest.mark.parametrize("way", SIZES)
def test_missing_responses(way):
    features, responses, _ = planted(SIZES[way], sites=5)
    responses[:20, [1, 4]] = np.nan
    responses[::3, 2] = np.nan
    streamed = fit_ridge_streaming(TensorSource(features), responses)
    whole = fit_complete(fit_ridge, features, responses)
    for site in range(5):
        error = (streamed.weight[site] - whole.weight[site]).norm()
        assert error < 1e-3 * whole.weight[site].norm(), site
    torch.testing.assert_close(streamed(features), whole(features), atol=3e-3, rtol=1e-3)


def test_gram_at_hand_serves_the_folds():
    features, responses, _ = planted(90)
    kernel = streaming_gram(features.flatten(1).split(13, dim=1))
    before = kernel.clone()
    fold = responses.copy()
    fold[::5] = np.nan
    source = Guarded(features)
    streamed = fit_ridge_streaming(source, fold, kernel=kernel)
    assert source.given == features.numel()  # read once, for the weights
    assert torch.equal(kernel, before)
    train = np.flatnonzero(np.isfinite(fold[:, 0]))
    alone = fit_ridge(features[train], torch.from_numpy(fold[train]).float())
    torch.testing.assert_close(streamed(features), alone(features), atol=3e-3, rtol=1e-3)


def test_gram_and_moments_are_those_of_numpy():
    features, responses, _ = planted(70)
    x, y = features.flatten(1) + 1000, torch.from_numpy(responses).float()  # a mean far larger than the spread
    centered = x.double() - x.double().mean(0)
    kernel = streaming_gram(x.split(17, dim=1))
    assert torch.equal(kernel, kernel.T)
    scale = (centered @ centered.T).abs().max()
    assert ((kernel - centered @ centered.T).abs().max() / scale) < 1e-3
    moments = streaming_moments(zip(x.split(9), y.split(9), strict=True))
    assert torch.equal(moments.xtx, moments.xtx.T)
    assert ((moments.xtx - centered.T @ centered).abs().max() / (centered.T @ centered).abs().max()) < 1e-3
    torch.testing.assert_close(moments.mean_x, x.double().mean(0), atol=1e-4, rtol=1e-7)
    torch.testing.assert_close(moments.mean_y, y.double().mean(0), atol=1e-5, rtol=1e-6)
    wanted = centered.T @ (y.double() - y.double().mean(0))
    assert ((moments.xty - wanted).abs().max() / wanted.abs().max()) < 1e-3


@pytest.mark.parametrize("n", [1, 15, 16, 17, 53])
def test_tiles_of_the_factorization(n):
    rng = np.random.default_rng(n)
    half = torch.from_numpy(rng.normal(size=(n, n + 3)))
    square = torch.zeros(n, n, dtype=torch.float64)
    add_product(square, half, half.T)
    torch.testing.assert_close(mirror(square), half @ half.T)
    alpha = torch.tensor([0.5, 2.0, 0.5])
    targets = torch.from_numpy(rng.normal(size=(n, 3)))
    told = []
    solved = solve_penalized(lambda dtype: square.to(dtype, copy=True), alpha, targets, told.append)
    for k, penalty in enumerate(alpha.tolist()):
        wanted = np.linalg.solve(square.numpy() + penalty * np.eye(n), targets[:, k].numpy())
        np.testing.assert_allclose(solved[:, k], wanted, atol=1e-8)
    assert told == ["factorization 1 of 2", "factorization 2 of 2"]


def test_matrix_that_single_precision_makes_indefinite_is_solved_in_double():
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(60, 60)))[0]
    exact = torch.from_numpy(rotation * np.geomspace(1e9, 1e-2, 60) @ rotation.T)
    exact = (exact + exact.T) / 2
    asked = []

    def copy(dtype):
        asked.append(dtype)
        return exact.to(dtype, copy=True)

    targets = torch.from_numpy(rng.normal(size=(60, 1))).float()
    solved = solve_penalized(copy, torch.tensor([1e-3], dtype=torch.float64), targets, lambda _: None)
    assert asked == [torch.float32, torch.float64]
    wanted = np.linalg.solve(exact.numpy() + 1e-3 * np.eye(60), targets.double().numpy())
    assert np.linalg.norm(solved.numpy() - wanted) < 1e-3 * np.linalg.norm(wanted)
    with pytest.raises(ValueError, match="lost in the rounding of the Gram matrix; give relative_alphas without"):
        solve_penalized(lambda dtype: -exact.to(dtype), torch.tensor([1e-3]), targets, lambda _: None)


class Pool(nn.Module):
    def __init__(self, side):
        super().__init__()
        self.pool = nn.AvgPool2d(side)

    def forward(self, images):
        return self.pool(images)


@pytest.mark.parametrize("side", [4, 8])  # 48 features, or 12
def test_images_and_cache_give_what_a_tensor_gives(tmp_path, side):
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 16, 16)).astype(np.uint8)
    stimuli = StimulusSet.from_arrays(images, {"stimulus_id": [f"i{k}" for k in range(40)]})
    extractor = FeatureExtractor(Pool(side), "pool")
    features = extractor.extract(stimuli)
    responses = features.mean((1, 2, 3)).numpy()[:, None] + np.random.default_rng(1).normal(0, 0.01, (40, 2))
    wanted = fit_ridge_streaming(TensorSource(features), responses)
    cached = fit_ridge_streaming(cache_features(extractor, stimuli, tmp_path), responses)
    torch.testing.assert_close(cached.weight, wanted.weight)
    computed = ExtractorSource(extractor, stimuli, batch_size=7)
    assert computed.shape == tuple(features.shape)
    if side == 8:
        torch.testing.assert_close(fit_ridge_streaming(computed, responses).weight, wanted.weight, atol=1e-4, rtol=1e-3)
    else:
        with pytest.raises(ValueError, match=r"40 stimuli are fewer than their 48 features.*cache_features"):
            fit_ridge_streaming(computed, responses)


def test_wrong_input_is_refused():
    features, responses, _ = planted(30)
    source = TensorSource(features)
    with pytest.raises(ValueError, match=r"shape \(29, 4\); expected \(stimulus, site\) with the 30 stimuli"):
        fit_ridge_streaming(source, responses[:29])
    with pytest.raises(ValueError, match=r"shape \(30,\)"):
        fit_ridge_streaming(source, responses[:, 0])
    responses[2:, 3] = np.nan
    with pytest.raises(ValueError, match="site number 3 has 2 responses, a fit needs 3"):
        fit_ridge_streaming(source, responses)
    with pytest.raises(ValueError, match="no blocks"):
        streaming_gram([])
    with pytest.raises(ValueError, match="no batches"):
        streaming_moments([])
    features[3, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="features hold NaN"):
        fit_ridge_streaming(source, responses[:, :3])


def test_features_that_never_vary_give_the_mean():
    fit = fit_ridge_streaming(TensorSource(torch.ones(20, 30, 1, 1)), np.arange(20.0)[:, None])
    torch.testing.assert_close(fit(torch.ones(1, 30, 1, 1)), torch.tensor([[9.5]]))


def test_stages_are_told():
    features, responses, _ = planted(40)
    told = []
    fit_ridge_streaming(TensorSource(features), responses, relative_alphas=[1.0], progress=told.append)
    assert told == [
        "Gram matrix of 40 stimuli from 150 features",
        "penalties of 4 sites from 40 stimuli",
        "factorization 1 of 1",
        "weights of 150 features",
    ]


MEMORY = """
from pathlib import Path
import numpy as np, torch
from neural_fits import _cholesky, streaming

class Made:
    shape = (5000, 5200, 1, 1)
    def columns(self, start, stop):
        return torch.randn(5000, stop - start, generator=torch.Generator().manual_seed(start))

def peak():
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])

streaming._BLOCK = 2**20
streaming._ROWS_COPIED = _cholesky._TILE = 64
responses = np.random.default_rng(0).normal(size=(5000, 2))
torch.linalg.eigh(torch.randn(400, 400, dtype=torch.float64))
before = peak()
streaming.fit_ridge_streaming(Made(), responses, loo_stimuli=200)
print((peak() - before) / (4 * 5000**2))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak memory of a process is read from /proc")
def test_memory_is_the_square_one_copy_and_blocks():
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert 1.9 < float(run.stdout) < 2.7  # in Gram matrices; the features alone are 1.04 of them
