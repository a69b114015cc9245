"""Which noise correction recovers the truth? Every score against planted rates, by number of repeats.

Simulates sites whose noiseless rate is known, records Poisson trials with shared and private gain noise, predicts each
image with a ridge readout fitted on the other images, and compares every correction with the true
r^2(prediction, rate) of the same predictions. Prints median bias and mean absolute error over sites, averaged over
seeds because a single median over sites moves by some thousandths; ``--json`` adds one JSON object on the last line.

    python benchmarks/scores.py [--repeats 2 4 10 20] [--sites 107] [--images 640] [--seeds 8] [--json]
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neural_fits.recordings import SiteRecordings
from neural_fits.reliability import pearson_r
from neural_fits.scores import site_scores

UNBIASED = ("r2/rel", "CCnorm^2", "r2_ER", "FEVE")
SCORES = ("raw r2", *UNBIASED, "r2/(rel*rel_model)")
FOLDS, FEATURES, PENALTY = 10, 80, 30.0

Floats = NDArray[np.float64]


def simulate(images: int, sites: int, repeats: int, seed: int) -> tuple[Floats, Floats, NDArray[np.float32]]:
    """Features (image, feature), noiseless rates (image, site) and trials (image, repeat, site)."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(images, FEATURES)) * np.linspace(2.0, 0.3, FEATURES)
    pooled = features @ (rng.normal(size=(FEATURES, sites)) * (rng.random((FEATURES, sites)) < 0.3))
    products = (features @ rng.normal(size=(FEATURES, sites))) * (features @ rng.normal(size=(FEATURES, sites)))
    drive = np.sqrt(0.85) * pooled / pooled.std(axis=0) + np.sqrt(0.15) * products / products.std(axis=0)
    rate = rng.uniform(1.0, 6.0, sites) * np.log1p(np.exp(rng.uniform(0.5, 1.5, sites) * drive))
    shared = rng.gamma(50.0, 1 / 50.0, size=(images, repeats, 1))
    private = rng.gamma(20.0, 1 / 20.0, size=(images, repeats, sites))
    return features, rate, rng.poisson(rate[:, None, :] * shared * private).astype(np.float32)


def held_out_readout(features: Floats) -> Floats:
    """Matrix that turns mean responses (image, site) into predictions of each image from the other folds."""
    images = len(features)
    readout = np.zeros((images, images))
    for fold in range(FOLDS):
        test = np.arange(fold, images, FOLDS)
        train = np.setdiff1d(np.arange(images), test)
        mean = features[train].mean(axis=0)
        known, asked = features[train] - mean, features[test] - mean
        solve = np.linalg.solve(known.T @ known + PENALTY * np.eye(FEATURES), known.T)
        weights = asked @ solve
        readout[np.ix_(test, train)] = weights - weights.mean(axis=1, keepdims=True) + 1.0 / len(train)
    return readout


def estimate(features: Floats, rate: Floats, trials: NDArray[np.float32], seed: int) -> dict[str, Floats]:
    """Every score of the held-out predictions, and the truth, each (site,)."""
    images, repeats, sites = trials.shape
    table = pd.DataFrame(index=pd.Index([f"s{k}" for k in range(sites)], name="site_id"))
    recorded = SiteRecordings(trials, tuple(f"i{k}" for k in range(images)), table)
    readout = held_out_readout(features)
    half = trials[:, : repeats // 2].mean(axis=1), trials[:, repeats // 2 :].mean(axis=1)
    predicted = readout @ trials.mean(axis=1)
    scores = site_scores(
        predicted,
        recorded,
        seed=seed,
        metrics=("cc_norm", "r2_er", "feve", "explained_variance_2019"),
        half_predictions=(readout @ half[0], readout @ half[1]),
    )
    error, signal = np.mean((predicted - rate) ** 2, axis=0), rate.var(axis=0)
    return {
        "true r2": pearson_r(predicted, rate) ** 2,
        "true FEVE": 1.0 - error / signal,
        "reliability": scores["reliability"].to_numpy(),
        "raw r2": scores["r"].to_numpy() ** 2,
        "r2/rel": scores["explained_variance"].to_numpy(),
        "CCnorm^2": scores["cc_norm"].to_numpy() ** 2,
        "r2_ER": scores["r2_er"].to_numpy(),
        "FEVE": scores["feve"].to_numpy(),
        "r2/(rel*rel_model)": scores["explained_variance_2019"].to_numpy(),
    }


def measure(images: int, sites: int, repeats: int, seeds: int) -> dict[str, dict[str, float]]:
    """Median bias and mean absolute error over sites of every score, averaged over seeds."""
    found = [estimate(*simulate(images, sites, repeats, seed), seed) for seed in range(seeds)]
    truth = {"true r2": float(np.mean([np.median(f["true r2"]) for f in found]))}
    row: dict[str, dict[str, float]] = {
        "simulated": truth | {"reliability": float(np.mean([np.median(f["reliability"]) for f in found]))}
    }
    for name in SCORES:
        true = "true FEVE" if name == "FEVE" else "true r2"
        errors = [f[name] - f[true] for f in found]
        row[name] = {
            "bias": float(np.mean([np.nanmedian(e) for e in errors])),
            "mae": float(np.mean([np.nanmean(np.abs(e)) for e in errors])),
        }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, nargs="+", default=[2, 4, 10, 20])
    parser.add_argument("--sites", type=int, default=107)
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    start = time.perf_counter()
    rows = {n: measure(options.images, options.sites, n, options.seeds) for n in options.repeats}
    seconds = time.perf_counter() - start
    print(f"{options.sites} sites x {options.images} images; median bias (mean absolute error) over sites,")
    print(f"averaged over {options.seeds} seeds; FEVE against its own truth, the others against r2(prediction, rate)")
    print(f"{'repeats':>7} {'rel':>5} {'true':>5} " + " ".join(f"{name:>18}" for name in SCORES))
    for n, row in rows.items():
        cells = " ".join(f"{row[name]['bias']:+10.3f} ({row[name]['mae']:.3f})" for name in SCORES)
        print(f"{n:>7} {row['simulated']['reliability']:5.2f} {row['simulated']['true r2']:5.2f} {cells}")
    worst = max(abs(row[name]["bias"]) for row in rows.values() for name in UNBIASED)
    print(f"largest bias of {', '.join(UNBIASED)}: {worst:.4f} (asked for: at most 0.01); {seconds:.1f} s")
    if options.json:
        print(json.dumps({"benchmark": "scores", "largest_bias": worst, "seconds": seconds, "repeats": rows}))


if __name__ == "__main__":
    main()
