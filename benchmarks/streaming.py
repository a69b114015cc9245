"""Ridge on more than memory holds: time against the floor of its arithmetic, peak memory, and the truth recovered.

Features (low rank plus noise) are made block by block from a seed and never held whole; responses are a known linear
readout of them plus noise. The floor is the arithmetic that no exact solution avoids, at the rate of large matrix
products measured in the same run: the smaller Gram matrix (one half of it) and one Cholesky factorization for each
distinct penalty that was chosen. Reading, penalties, substitution, weights are all overhead against it. The features
of this benchmark cost time to make, which is told apart. ``--json`` adds one JSON object on the last line.

    python benchmarks/streaming.py [--stimuli 22000] [--sites 1000] [--features 50000] [--seed 0] [--threads N] [--json]
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import sys
import time
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neural_fits.streaming import fit_ridge_streaming

RANK, HELD_OUT, TILE, NOISE, OWN = 200, 500, 500, 1.0, 0.5


@dataclass
class Generated:
    """Features ``scores @ loadings + noise``, made when they are read; stimuli from `first` on."""

    stimuli: int
    features: int
    seed: int
    first: int = 0
    seconds: float = 0.0
    scores: Tensor = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 1])
        strength = np.geomspace(1, 0.1, RANK, dtype=np.float32)
        scores = rng.standard_normal((self.stimuli + HELD_OUT, RANK), dtype=np.float32) * strength
        self.scores = torch.from_numpy(scores[self.first :][: self.shape[0]])

    @property
    def shape(self) -> tuple[int, ...]:
        """Stimuli, channels, height, width."""
        return (HELD_OUT if self.first else self.stimuli, self.features, 1, 1)

    def block(self, top: int, bottom: int, start: int, stop: int) -> Tensor:
        """Any rectangle, put together from tiles that each have a generator of their own, so any order is the same."""
        began = time.perf_counter()
        block = torch.empty(bottom - top, stop - start)
        for column in range(start // TILE * TILE, stop, TILE):
            loadings = np.random.default_rng([self.seed, 2, column]).standard_normal((RANK, TILE), dtype=np.float32)
            low, high = max(start, column), min(stop, column + TILE)
            for row in range(top // TILE * TILE, bottom, TILE):
                up, down = max(top, row), min(bottom, row + TILE)
                tile = np.random.default_rng([self.seed, 5, self.first, row, column])
                own = torch.from_numpy(tile.standard_normal((TILE, TILE), dtype=np.float32))
                block[up - top : down - top, low - start : high - start] = own[
                    up - row : down - row, low - column : high - column
                ]
            shared = torch.from_numpy(loadings[:, low - column : high - column])
            part = block[:, low - start : high - start]
            part.mul_(OWN).addmm_(self.scores[top:bottom], shared, alpha=RANK**-0.5)
        self.seconds += time.perf_counter() - began
        return block

    def columns(self, start: int, stop: int) -> Tensor:
        """Consecutive features of all stimuli."""
        return self.block(0, self.shape[0], start, stop)

    def rows(self, start: int, stop: int) -> Tensor:
        """Consecutive stimuli."""
        return self.block(start, stop, 0, self.features).view(-1, *self.shape[1:])


def true_responses(source: Generated, sites: int, tiles: int = 20) -> Tensor:
    """Noiseless responses: each site reads the features of some tiles with random weights."""
    rng = np.random.default_rng([source.seed, 3])
    starts = range(0, source.features, TILE)
    signal = torch.zeros(source.shape[0], sites)
    for k in rng.choice(len(starts), min(tiles, len(starts)), replace=False):
        features = source.columns(starts[k], min(starts[k] + TILE, source.features))
        signal += features @ torch.from_numpy(rng.standard_normal((features.shape[1], sites), dtype=np.float32))
    return signal


def correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    a, b = a - a.mean(0), b - b.mean(0)
    return (a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0))


def gemm_rate(size: int = 4096) -> float:
    """FLOP/s of a large product in single precision, best of three."""
    a, out = torch.randn(size, size, generator=torch.Generator().manual_seed(0)), torch.zeros(size, size)
    best = 0.0
    for _ in range(3):
        began = time.perf_counter()
        out.addmm_(a, a.T)
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stimuli", type=int, default=22000)
    parser.add_argument("--sites", type=int, default=1000)
    parser.add_argument("--features", type=int, default=50000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    n, p = options.stimuli, options.features
    rates = [gemm_rate()]
    source = Generated(n, p, options.seed)
    signal = true_responses(source, options.sites)
    noise = torch.from_numpy(
        np.random.default_rng([options.seed, 4]).standard_normal((n, options.sites), dtype=np.float32)
    )
    responses = (signal + NOISE * signal.std(0) * noise).numpy()
    del noise, signal
    stages: list[tuple[str, float]] = []

    def tell(line: str) -> None:
        stages.append((line, time.perf_counter()))
        print(f"{time.perf_counter() - began:8.1f} s  {line}", file=sys.stderr, flush=True)

    source.seconds = 0.0
    began, began_cpu = time.perf_counter(), time.process_time()
    readout = fit_ridge_streaming(source, responses, seed=options.seed, progress=tell)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    stages.append(("end", time.perf_counter()))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rates.append(gemm_rate())
    rate = max(rates)

    small = min(n, p)
    factorizations = sum(line.startswith("factorization") for line, _ in stages)
    floor_seconds = (n * p * small + factorizations * small**3 / 3) / rate
    held_out = Generated(n, p, options.seed, first=n)
    truth = true_responses(held_out, options.sites).double().numpy()
    predicted = torch.zeros(HELD_OUT, options.sites)
    for start in range(0, p, TILE):
        stop = min(start + TILE, p)
        predicted += held_out.columns(start, stop) @ readout.weight.flatten(1)[:, start:stop].T
    r = correlation(predicted.double().numpy(), truth)
    spent: dict[str, float] = {}
    for (line, at), (_, until) in itertools.pairwise(stages):
        spent[line.split()[0]] = spent.get(line.split()[0], 0.0) + until - at
    result = {
        "benchmark": "streaming",
        "stimuli": n,
        "sites": options.sites,
        "features": p,
        "threads": options.threads,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "seconds_making_features": round(source.seconds, 2),
        "stages": {name: round(value, 2) for name, value in spent.items()},
        "factorizations": factorizations,
        "peak_mb": round(peak_mb),
        "gemm_gflops": [round(each / 1e9, 1) for each in rates],
        "floor_seconds": round(floor_seconds, 2),
        "ratio_to_floor": round(seconds / floor_seconds, 2),
        # what the ratio would be with the threads to itself: other programs take wall time, not CPU time
        "cpu_ratio_to_floor": round(cpu_seconds / (options.threads * floor_seconds), 2),
        "median_r_with_truth": round(float(np.median(r)), 4),
    }
    for name, value in result.items():
        print(f"{name:>24}: {value}")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
