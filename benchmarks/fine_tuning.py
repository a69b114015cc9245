"""Does tuning the last blocks of a network help on recorded V4 sites? Tuned and frozen readouts in the same folds.

``--data`` is the folder that holds ``v4_210325``, session 210325 of the public data set of Cowley, Stan, Pillow & Smith
(2023), 50 neurons and 640 images, or that folder itself; nothing of it is kept. Every setting is compared with the
frozen readout that it starts from, image by image: intervals are over resampled images, the same for both.
``python benchmarks/fine_tuning.py --data DATA --json`` (about 12 minutes of one core)
"""

from __future__ import annotations

import argparse
import json
import runpy
import time
from pathlib import Path

import numpy as np

from neural_fits import SiteRecordings, fit_sites
from neural_fits.networks.site_fine_tuning import SiteTuning, TunedSites, fine_tune_sites

EXAMPLE = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "02_recorded_v4.py"))
#: the tuned blocks are those after the frozen layer, up to blocks.4, the deepest one read
SETTINGS = {
    "blocks.4 + readout": {},
    "blocks.4 + readout, Poisson loss": {"loss": "poisson"},
    "readout alone": {"learning_rate": 0.0},
    "blocks.4 + readout, a third of the steps": {"learning_rate": 3e-4, "head_rate": 1e-3},
    "blocks.3, blocks.4 + readout": {"freeze": "blocks.2"},
}
DEFAULTS = {"freeze": "blocks.3", "learning_rate": 1e-3, "head_rate": 3e-3, "epochs": 8, "patience": 2}
_RESAMPLES = 1000


def correlations(predicted: np.ndarray, recorded: np.ndarray) -> np.ndarray:
    """Return r per site."""
    a, b = predicted - predicted.mean(0), recorded - recorded.mean(0)
    return (a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0))


def gain_interval(found: TunedSites, recorded: np.ndarray) -> tuple[float, float, float]:
    """Return the gain in mean r and its 95 % interval over images."""
    draw = np.random.default_rng(0)
    gains = []
    for k in range(_RESAMPLES + 1):
        rows = draw.integers(len(recorded), size=len(recorded)) if k else np.arange(len(recorded))
        pair = [correlations(each[rows], recorded[rows]).mean() for each in (found.held_out, found.frozen)]
        gains.append(pair[0] - pair[1])
    low, high = np.quantile(gains[1:], (0.025, 0.975))
    return float(gains[0]), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds v4_210325")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--settings", type=int, default=len(SETTINGS), help="only the first of the settings")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    session = options.data if (options.data / "images.zip").is_file() else options.data / "v4_210325"
    stimuli, recorded = EXAMPLE["read_session"](session)
    shuffled = np.random.default_rng(0).permutation(len(stimuli))
    wrong = SiteRecordings(recorded.responses[shuffled], recorded.stimulus_ids, recorded.sites, recorded.window_ms)
    rows: dict[str, dict[str, object]] = {}
    todo = [(name, recorded, how) for name, how in list(SETTINGS.items())[: options.settings]]
    model = fit_sites(stimuli, recorded, backbone="efficientnet-lite0", folds=options.folds)
    for name, data, how in [*todo, ("control: shuffled images", wrong, {})]:
        start, cpu = time.perf_counter(), time.process_time()
        found = fine_tune_sites(model, stimuli, data, SiteTuning(**{**DEFAULTS, **how}), folds=options.folds)
        scores, kept = found.model.scores, found.training[found.training["kept"]]
        gain, low, high = gain_interval(found, data.mean())
        rows[name] = {
            "mean_r": float(scores["r"].mean()),
            "frozen_mean_r": float(scores["frozen_r"].mean()),
            "mean_ev": float(scores["explained_variance"].mean()),
            "frozen_mean_ev": float(scores["frozen_explained_variance"].mean()),
            "gain_r": gain,
            "gain_r_low": low,
            "gain_r_high": high,
            "sites_better": int((scores["r"] > scores["frozen_r"]).sum()),
            "epochs": [int(epoch) for epoch in kept["epoch"]],
            "seconds": time.perf_counter() - start,
            "cpu_s": time.process_time() - cpu,
        }
        print(
            f"{name:42s} r {rows[name]['mean_r']:.4f} (frozen {rows[name]['frozen_mean_r']:.4f})  "
            f"gain {gain:+.4f} [{low:+.4f}, {high:+.4f}]  EV {rows[name]['mean_ev']:.4f} "
            f"(frozen {rows[name]['frozen_mean_ev']:.4f})  better at {rows[name]['sites_better']} of {len(scores)}  "
            f"epochs {rows[name]['epochs']}  {rows[name]['cpu_s']:.0f} s CPU",
            flush=True,
        )
    if options.json:
        print(json.dumps({"stimuli": len(stimuli), "sites": len(recorded.site_ids), "settings": rows}))


if __name__ == "__main__":
    main()
