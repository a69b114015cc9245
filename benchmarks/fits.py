"""Readouts against scikit-learn on planted truth: same answer, CPU time, memory, recovered truth.

640 stimuli x 64,896 features x 107 sites, 10 folds, one thread, every contestant in a process of its own, all in one
run. ``--quick`` uses fewer features and folds. ``python benchmarks/fits.py --json``
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from planted import plant
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold

from neural_fits.cross_validation import READOUTS
from neural_fits.loo import RELATIVE_ALPHAS
from neural_fits.readout import fit_complete
from neural_fits.reliability import pearson_r

FEW = 100  # training stimuli of the second study


def ours(name: str) -> Callable[..., np.ndarray]:
    def run(features: np.ndarray, responses: np.ndarray, folds: list) -> np.ndarray:
        family, predicted = READOUTS[name], np.full(responses.shape, np.nan, np.float32)
        small = family.compress(torch.from_numpy(features)).features
        for train, test in folds:
            readout = fit_complete(family.solve, small[torch.from_numpy(train)], responses[train])
            predicted[test] = readout(small[torch.from_numpy(test)]).numpy()
        return predicted

    return run


def ridge_cv(features: np.ndarray, responses: np.ndarray, folds: list) -> np.ndarray:
    """Scikit-learn, with the same penalties, one per site."""
    flat, predicted = features.reshape(len(features), -1), np.full(responses.shape, np.nan, np.float32)
    for train, test in folds:
        inputs = flat[train]
        scale = float(((inputs - inputs.mean(0)) ** 2).sum(1, dtype=np.float64).mean())
        model = RidgeCV([a * scale for a in RELATIVE_ALPHAS], alpha_per_target=True).fit(inputs, responses[train])
        predicted[test] = model.predict(flat[test])
    return predicted


def floor(features: np.ndarray, responses: np.ndarray, folds: list) -> np.ndarray:
    """Do what no exact method can leave out: the Gram matrix once, one eigendecomposition per fold."""
    flat = torch.from_numpy(features).flatten(1)
    kernel = (flat @ flat.T).double()
    for train, _ in folds:
        rows = torch.from_numpy(train)
        torch.linalg.eigh(kernel[rows][:, rows])
    return np.zeros_like(responses)


CONTESTANTS = {"floor": floor, "sklearn": ridge_cv, **{name: ours(name) for name in READOUTS}}


def contest(name: str, folder: Path, train_size: int, fold_count: int) -> dict[str, float]:
    """Run one contestant on the data in a folder and keep its predictions there."""
    features, responses = np.load(folder / "features.npy"), np.load(folder / "responses.npy")
    folds = planted_folds(len(features), train_size, fold_count)
    torch.linalg.eigh(torch.eye(64, dtype=torch.float64))  # start the libraries before the clock
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far came from loading
    before, start, wall = _peak_mb(), time.process_time(), time.perf_counter()
    predicted = CONTESTANTS[name](features, responses, folds)
    result = {"cpu_s": time.process_time() - start, "wall_s": time.perf_counter() - wall}
    np.save(folder / f"{name}_{train_size}.npy", predicted)
    return {**result, "extra_mb": _peak_mb() - before}


def planted_folds(count: int, train_size: int, fold_count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the first of ten folds over stimuli, with at most so many training stimuli, drawn at random."""
    pairs = list(KFold(10, shuffle=True, random_state=0).split(np.arange(count)))[:fold_count]
    rng = np.random.default_rng(0)
    return [(rng.permutation(train)[:train_size], test) for train, test in pairs]


def _peak_mb() -> float:
    """Highest resident memory of this process alone; what getrusage says begins with that of the parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _in_own_process(name: str, folder: Path, train_size: int, fold_count: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--contest", name, str(folder), str(train_size), str(fold_count)]
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **one_thread})
    if done.returncode:
        raise SystemExit(f"{name} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def study(names: list[str], sizes: dict[int, int], channels: int, seed: int) -> dict[str, dict]:
    """Run contestants at every training size {size: folds}: CPU seconds, memory, r with the truth and as measured."""
    truth = plant(seed, channels=channels)
    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.save(folder / "features.npy", truth.features.numpy())
        responses = truth.trials.mean(1).astype(np.float32)
        np.save(folder / "responses.npy", responses)
        for size, fold_count in sizes.items():
            for name in names:
                found = _in_own_process(name, folder, size, fold_count)
                predicted = np.load(folder / f"{name}_{size}.npy")
                tests = [test for _, test in planted_folds(len(responses), size, fold_count)]
                for key, target in (("true_r", truth.rates), ("r", responses)):
                    by_fold = np.array([pearson_r(predicted[test], target[test]) for test in tests])
                    found[f"{key}_sites"] = by_fold.mean(0)
                found["true_r"] = float(np.median(found["true_r_sites"])) if name != "floor" else float("nan")
                results[f"{name} {size}"] = found
                print(
                    f"{name:12s} n {size:3d}: {found['cpu_s']:7.2f} CPU-s, {found['extra_mb']:6.0f} MB more, "
                    f"r with the truth {found['true_r']:.3f}",
                    flush=True,
                )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--quick", action="store_true", help="48 channels instead of 384, three folds: a smoke test")
    parser.add_argument("--all", action="store_true", help="every readout, not only ridge and local")
    parser.add_argument("--seeds", type=int, default=3, help="planted sets over which the recovered truth is averaged")
    parser.add_argument("--contest", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contest:
        name, folder, size, folds = options.contest
        torch.set_num_threads(1)
        print(json.dumps(contest(name, Path(folder), int(size), int(folds))))
        return
    folds, channels = (3, 48) if options.quick else (10, 384)
    names = ["floor", "sklearn", *(READOUTS if options.all else ("ridge", "local"))]
    first = study(names, {576: folds}, channels, seed=0)
    few = study(["ridge", "local"], {FEW: folds}, channels, seed=0)
    more = [study(["ridge", "local"], {576: min(folds, 3), FEW: folds}, channels, k) for k in range(1, options.seeds)]
    ours_, theirs, least = (first[f"{name} 576"] for name in ("ridge", "sklearn", "floor"))
    local = first["local 576"]

    def over_seeds(key: str, start: dict[str, dict]) -> list[float]:
        return [round(found[key]["true_r"], 4) for found in (start, *more)]

    summary = {
        "same_answer_max_abs_diff_r": float(np.abs(ours_["r_sites"] - theirs["r_sites"]).max()),
        "cpu_ratio_vs_sklearn_ridgecv": theirs["cpu_s"] / ours_["cpu_s"],
        "cpu_over_floor": ours_["cpu_s"] / least["cpu_s"],
        "local_cpu_over_ridge": local["cpu_s"] / ours_["cpu_s"],
        "ridge_true_r": ours_["true_r"],
        "local_true_r": local["true_r"],
        "ridge_true_r_n100": few[f"ridge {FEW}"]["true_r"],
        "local_true_r_n100": few[f"local {FEW}"]["true_r"],
        "by_seed": {
            "ridge_true_r": over_seeds("ridge 576", first),
            "local_true_r": over_seeds("local 576", first),
            "ridge_true_r_n100": over_seeds(f"ridge {FEW}", few),
            "local_true_r_n100": over_seeds(f"local {FEW}", few),
        },
        "peak_extra_mb": ours_["extra_mb"],
        "peak_extra_mb_sklearn": theirs["extra_mb"],
        "true_r_and_cpu_s": {
            name: [first[f"{name} 576"]["true_r"], first[f"{name} 576"]["cpu_s"]] for name in names[1:]
        },
    }
    for key, value in summary.items():
        print(f"{key}: {value if isinstance(value, dict) else round(value, 5)}")
    if options.json:
        print(json.dumps(summary))


if __name__ == "__main__":
    main()
