"""Every readout, layer and network on recorded V4 sites, cross-validated over images, in one table.

``--data`` is the folder of session 210325 of the public data set of Cowley, Stan, Pillow & Smith (2023), 50 neurons and
640 images; nothing of it is kept. Session 210224, where it lies beside, is scored as a check on neurons and images by
which no default was chosen. ``python benchmarks/v4.py --data v4_210325 --json``
"""

from __future__ import annotations

import argparse
import json
import runpy
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from neural_fits import SiteRecordings, fit_sites, split_half_reliability
from neural_fits.cross_validation import READOUTS
from neural_fits.fit import DEFAULT_BACKBONES, DEFAULT_LAYERS
from stimuli import StimulusSet

EXAMPLE = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "02_recorded_v4.py"))
LAYERS = ("blocks.2", "blocks.3", "blocks.4", "blocks.5", "blocks.3+blocks.4", "blocks.2+blocks.3+blocks.4")


def trials_of(folder: Path) -> tuple[StimulusSet, SiteRecordings]:
    """Read a session, whether it holds trials or means only."""
    if (folder / "responses_trials.npy").is_file():
        return EXAMPLE["read_session"](folder)
    stimuli = EXAMPLE["read_images"](folder)
    mean = np.load(folder / "responses_mean.npy").T[:, None].astype(np.float32)
    sites = pd.DataFrame(index=pd.Index([f"n{k:02d}" for k in range(mean.shape[2])], name="site_id"))
    return stimuli, SiteRecordings(mean, stimuli.stimulus_ids, sites, (50.0, 150.0), "spikes/100 ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of session 210325")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--default-only", action="store_true", help="only what fit_sites does when nothing is named")
    options = parser.parse_args()
    stimuli, recorded = trials_of(options.data)
    ceiling = float(np.median(split_half_reliability(recorded)))
    with tempfile.TemporaryDirectory() as cache:
        rows: dict[str, dict[str, float | None]] = {}

        def row(name: str, stimuli: StimulusSet = stimuli, recorded: SiteRecordings = recorded, **how) -> dict:
            start, cpu = time.perf_counter(), time.process_time()
            scores = fit_sites(stimuli, recorded, folds=10, cache=cache, **how).scores
            unknown = bool(scores["explained_variance"].isna().all())  # only means are public
            found = {
                "mean_r": float(scores["r"].mean()),
                "median_ev": None if unknown else float(scores["explained_variance"].median()),
                "seconds": time.perf_counter() - start,
                "cpu_s": time.process_time() - cpu,
            }
            rows[name] = found
            ev = "unknown" if unknown else f"{found['median_ev']:.3f}"
            print(
                f"{name:58s} r {found['mean_r']:.3f}  EV {ev}  {found['seconds']:4.0f} s",
                flush=True,
            )
            return found

        default = row("default: lite0 + lite1, layers 2+3+4, local")
        if not options.default_only:
            shuffled = np.random.default_rng(0).permutation(len(stimuli))
            wrong = SiteRecordings(
                recorded.responses[shuffled], recorded.stimulus_ids, recorded.sites, recorded.window_ms
            )
            row("control: default on shuffled images", recorded=wrong)
            for network in DEFAULT_BACKBONES:
                for layer in LAYERS:
                    row(f"{network} {layer} local", backbone=network, layer=layer)
            for layer in LAYERS:
                row(f"efficientnet-lite0 {layer} ridge", backbone="efficientnet-lite0", layer=layer, readout="ridge")
            joined = DEFAULT_LAYERS["efficientnet-lite0"]
            for readout in READOUTS:
                if readout not in ("local", "ridge"):
                    row(f"efficientnet-lite0 {joined} {readout}", backbone="efficientnet-lite0", readout=readout)
            row(f"efficientnet-lite0 {joined} local one_se", backbone="efficientnet-lite0", penalty="one_se")
            row("lite0 + lite1, 224 px, local", input_px=224)
            row(
                "lite0 + lite1, layers and readout chosen in the folds",
                layer=LAYERS,
                readout=["local", "ridge"],
            )
            row(
                "lite0 + lite1 + lite2, local",
                backbone=("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2"),
            )
            other = options.data.parent / "v4_210224"
            if other.is_dir():
                images, means = trials_of(other)
                for layer in (*LAYERS[1:3], joined):
                    row(f"210224: lite0 {layer} local", images, means, backbone="efficientnet-lite0", layer=layer)
                row("210224: default", images, means)
    summary = {
        "sites": len(recorded.site_ids),
        "mean_r": default["mean_r"],
        "median_ev": default["median_ev"],
        "ceiling_median": ceiling,
        "seconds": default["seconds"],
        "per_readout": rows,
    }
    if options.json:
        print(json.dumps(summary))


if __name__ == "__main__":
    main()
