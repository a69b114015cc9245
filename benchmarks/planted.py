"""Planted truth: features of a random network and sites whose noiseless rates are known exactly.

Images are objects of eight classes on 1/f ground; a random three-layer network with oriented first filters turns them
into feature maps whose covariance is as steep as a trained network's (participation ratio about 21). A site multiplies
a smooth mask (one in five has two lobes) by a few channels (85 % of its variance), adds a product of two other readouts
(15 %, which nothing linear explains), and fires through a softplus with Poisson and gain noise. What the recipe leaves
open was set so that plain ridge recovers .88 of the truth from 576 images and .80 from 100, and the median reliability
is .93; no other readout took part in that. Read by ``benchmarks/fits.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Planted:
    """Features and responses with their truth."""

    features: Tensor  # (image, channel, height, width), float32
    rates: np.ndarray  # (image, site), noiseless, spikes per window
    trials: np.ndarray  # (image, repeat, site), spikes per window


def plant(seed: int = 0, images: int = 640, sites: int = 107, repeats: int = 20, channels: int = 384) -> Planted:
    """Return features of 13 x 13 positions and the trials of sites that read them."""
    rng = np.random.default_rng(seed)
    features = _network(_pictures(rng, images), rng, channels)
    rates = _rates(features, rng, sites)
    shared = rng.gamma(40, 1 / 40, (images, repeats, 1))  # gain of the whole array on a trial
    private = rng.gamma(40, 1 / 40, (images, repeats, sites))
    trials = rng.poisson(rates[:, None] * shared * private)
    return Planted(features, rates, trials.astype(np.float32))


def _pictures(rng: np.random.Generator, count: int, side: int = 112) -> Tensor:
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=(count, side, side))) / frequency
    ground = np.fft.irfft2(spectrum, s=(side, side))
    ground /= ground.std((1, 2), keepdims=True)
    y, x = np.mgrid[:side, :side] / side - 0.5
    pictures = np.empty((count, side, side), dtype=np.float32)
    for k in range(count):
        kind, size = k % 8, rng.uniform(0.3, 0.42)
        cx, cy, turn = rng.uniform(-0.06, 0.06), rng.uniform(-0.06, 0.06), rng.uniform(-0.4, 0.4)
        u = ((x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)) / size
        v = (-(x - cx) * np.sin(turn) + (y - cy) * np.cos(turn)) / size
        r, angle = np.hypot(u, v), np.arctan2(v, u)
        inside = (
            r < 1,
            np.maximum(abs(u), abs(v)) < 0.8,
            (abs(u) < 1.2) & (abs(v) < 0.3),
            (r < 1) & (r > 0.6),
            (v > -0.5) & (v < 1 - 2 * abs(u)),
            r < 0.7 + 0.3 * np.cos(5 * angle),
            (np.minimum(abs(u), abs(v)) < 0.25) & (r < 1.2),
            (r < 1) & (np.cos(8 * u) > 0),
        )[kind]
        brightness = rng.uniform(1, 2.5) * rng.choice((-1, 1))
        pictures[k] = rng.uniform(0.4, 1) * np.where(inside, brightness, 0.2 * ground[k])
    return torch.from_numpy(pictures)[:, None]


def _network(pictures: Tensor, rng: np.random.Generator, channels: int) -> Tensor:
    reach = 10
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    bank = []
    for turn in np.arange(8) * np.pi / 8:
        for period in (8.0, 14.0):
            u, v = x * np.cos(turn) + y * np.sin(turn), -x * np.sin(turn) + y * np.cos(turn)
            for phase in (0.0, np.pi / 2):
                patch = np.exp(-(u**2 + v**2) / (2 * (period / 2.2) ** 2)) * np.cos(2 * np.pi * u / period + phase)
                patch -= patch.mean()
                bank.append(patch / np.linalg.norm(patch))
    first = torch.tensor(np.array(bank), dtype=torch.float32)[:, None]

    def random(out: int, inner: int, size: int) -> Tensor:
        return torch.from_numpy(rng.normal(size=(out, inner, size, size)).astype(np.float32)) / (inner**0.5 * size)

    second, third = random(128, len(bank), 5), random(channels, 128, 4)
    maps = functional.conv2d(pictures, first, stride=2, padding=reach)
    maps = functional.avg_pool2d(functional.relu(maps / maps.std()), 2)
    maps = functional.conv2d(maps, second, padding=2)
    maps = functional.avg_pool2d(functional.relu(maps / maps.std()), 2)
    maps = torch.cat([functional.conv2d(batch, third, padding=1) for batch in maps.split(64)])
    return functional.relu(maps / maps.std())


def _rates(features: Tensor, rng: np.random.Generator, sites: int) -> np.ndarray:
    _, channels, height, width = features.shape
    y, x = np.mgrid[:height, :width] / (height - 1) - 0.5

    def mask() -> np.ndarray:
        total = np.zeros((height, width))
        lobes = 2 if rng.random() < 0.2 else 1
        for _ in range(lobes):
            cx, cy, turn = rng.uniform(-0.3, 0.3), rng.uniform(-0.3, 0.3), rng.uniform(0, np.pi)
            a, b = rng.uniform(0.12, 0.3, 2)
            u, v = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn), -(x - cx) * np.sin(turn) + (y - cy) * np.cos(turn)
            total += np.exp(-(u**2) / (2 * a**2) - v**2 / (2 * b**2))
        return total / total.sum()

    def linear() -> np.ndarray:
        pooled = torch.einsum("nchw,hw->nc", features, torch.tensor(mask(), dtype=torch.float32)).numpy()
        chosen = rng.choice(channels, rng.integers(10, 41), replace=False)
        weight = rng.normal(size=len(chosen)) / pooled[:, chosen].std(0).clip(1e-6)
        return _z(pooled[:, chosen] @ weight)

    drives = [np.sqrt(0.85) * linear() + np.sqrt(0.15) * _z(linear() * linear()) for _ in range(sites)]
    drive = np.stack(drives, axis=1)
    scale = rng.uniform(0.4, 4.5, sites)
    return scale * np.logaddexp(0, drive + 1.5)


def _z(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()
