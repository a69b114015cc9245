"""The recipes of ``control.py`` on the readouts of recorded V4 sites, judged by a validator of the other half.

No brain answers here. The driver is fitted on one half of the images of session 210325, the validator (EfficientNet-
Lite2, which the driver does not use) on the other; a gain is what the validator expects of the synthesized images over
the largest response that it expects of the images that it was not fitted on. Nothing of the session is kept.
"""

from __future__ import annotations

import runpy
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from control_recipes import Column

from neural_fits import fit_sites
from neural_fits.folds import group_labels, part_of_groups
from synth import Stretch, recipe, synthesize

EXAMPLE = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "02_recorded_v4.py"))


def on_recordings(
    folder: Path, columns: dict[str, Column], targets: int, steps: int | None, seed: int = 0
) -> dict[str, Any]:
    """Return, for every recipe, what driver and validator expect of its stretch images."""
    natural, recorded = EXAMPLE["read_session"](folder)
    held = part_of_groups(group_labels(natural, "photograph"), "A", seed)  # the validator was fitted on the others
    with tempfile.TemporaryDirectory() as cache:
        fit = {"seed": seed, "cache": cache}
        judge = fit_sites(natural, recorded, split="B", backbone="efficientnet-lite2", **fit)
        best = judge.predict(natural.select(held)).max(0)
        drivers: dict[tuple[object, ...], Any] = {}
        found = {}
        for name, column in columns.items():
            if column.on_brain:
                continue
            how = {"penalty": column.penalty, "backbone": column.backbones, "readout": column.readout}
            driver = drivers.setdefault(tuple(how.values()), None) or fit_sites(
                natural, recorded, split="A", **how, **fit
            )
            drivers[tuple(how.values())] = driver
            explained = next(iter(drivers.values())).held_out_scores()["explained_variance"]
            sites = explained.nlargest(targets).index
            made = synthesize(
                driver,
                [Stretch(site) for site in sites],
                seeds=[seed],
                natural=natural.select(held),  # photographs that the judge has not seen
                recipe=recipe(column.config, steps=min(column.config.steps, steps or column.config.steps)),
                slots=8,
            ).stimuli
            at = [driver.site_ids.index(site) for site in sites]
            rows = range(len(sites))
            gains = judge.predict(made)[rows, at] / best[at] - 1
            own = driver.predict(made)[rows, at] / driver.predict(natural)[:, at].max(0) - 1
            found[name] = {
                "targets": len(sites),
                "validator_fraction_beyond": float(np.mean(gains > 0)),
                "validator_median_gain": round(float(np.median(gains)), 3),
                "driver_median_gain": round(float(np.median(own)), 3),
            }
    return found
