"""Are calibrated forecasts right? Ratio to what is achieved, and how often intervals hold it: part of ``control.py``.

What the default recipe's images did is set beside what driver and validator predicted. ``same_brain``: each target is
forecast from the images of the other targets of its animal, as a lab does from its last session. ``other_brains``: it
is forecast from the other kinds of brain alone, as before a first session.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from neural_fits import Ensemble, SimulatedBrain, SiteModel, SiteRecordings
from stimuli import StimulusSet
from synth._recorded_scores import judged_objectives, recorded_scale
from synth.calibration import Calibration, calibration_table, fit_calibration
from synth.objectives import SiteScale, parse_objective

LEVELS = (0.8, 0.95)
Model = SiteModel | Ensemble


def rows_of(
    brain: SimulatedBrain,
    shown: StimulusSet,
    natural: SiteRecordings,
    answers: SiteRecordings,
    driver: Model,
    validator: Model,
) -> dict[str, Any]:
    """Return what models predicted and what was recorded, with all that a forecast of these images needs."""
    scale = recorded_scale(natural)
    objectives = judged_objectives(shown, tuple(brain.site_ids))
    table = calibration_table(shown, objectives, answers, [driver], [validator], scale)
    table["family"] = table["image"].map(dict(zip(shown.stimulus_ids, shown.table["family"], strict=True)))
    table["objective"] = table["image"].map(dict(zip(shown.stimulus_ids, map(repr, objectives), strict=True)))
    return {
        "table": table.to_dict("list"),
        "mean": scale.mean.tolist(),
        "std": scale.std.tolist(),
        "sites": list(scale.site_ids),
    }


def accuracy(animals: dict[tuple[str, int], dict[str, Any]]) -> dict[str, Any]:
    """Return how right calibrated forecasts are, for targets of known animals and for new kinds of brain."""
    tables = {}
    for (brain, seed), kept in animals.items():
        table = pd.DataFrame(kept["table"])
        tables[brain, seed] = table.assign(brain=brain, animal=f"{brain} {seed}")
    same, other = [], []
    for (brain, seed), kept in animals.items():
        table = tables[brain, seed]
        for group in table["group"].unique():
            learned = fit_calibration(table[table["group"] != group])
            same.append(_forecast(learned, table[table["group"] == group], kept).assign(brain=brain, seed=seed))
        rest = [each.assign(group=each["animal"]) for (name, _), each in tables.items() if name != brain]
        if len(rest) > 2:
            learned = fit_calibration(pd.concat(rest, ignore_index=True))
            other.append(_forecast(learned, table, kept).assign(brain=brain, seed=seed))
    found = {"same_brain": _summary(pd.concat(same, ignore_index=True))}
    return found | ({"other_brains": _summary(pd.concat(other, ignore_index=True))} if other else {})


def _forecast(learned: Calibration, rows: pd.DataFrame, kept: dict[str, Any]) -> pd.DataFrame:
    """Return forecast, interval and achieved score of every image."""
    scale = SiteScale(tuple(kept["sites"]), torch.tensor(kept["mean"]), torch.tensor(kept["std"]))
    mean, std = np.array(kept["mean"]), np.array(kept["std"])
    wide = {
        name: rows.pivot(index="image", columns="site", values=name)[kept["sites"]].to_numpy() * std + mean
        for name in ("driver_z", "validator_z", "achieved_z")
    }
    images = rows.drop_duplicates("image").set_index("image").sort_index()
    objectives = [parse_objective(text) for text in images["objective"]]
    learned = learned.for_sites(rows.groupby("site")["r"].first().to_dict())
    made = images[["family", "group"]].copy()
    achieved = torch.from_numpy(wide["achieved_z"])
    made["achieved"] = [float(each.score(achieved[k : k + 1], scale)[0]) for k, each in enumerate(objectives)]
    for level in LEVELS:
        found = learned.forecast(objectives, wide["driver_z"], wide["validator_z"], scale, level=level)
        made["forecast"] = found["forecast"].to_numpy()
        made[f"holds_{level}"] = made["achieved"].between(
            found["forecast_low"].to_numpy(), found["forecast_high"].to_numpy()
        )
    return made.reset_index()


def _summary(made: pd.DataFrame) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for family, rows in made.groupby("family"):
        by_target = rows.groupby(["brain", "seed", "group"])[["forecast", "achieved"]].mean()
        ratio = by_target["forecast"] / by_target["achieved"].clip(lower=1e-9)
        found[str(family)] = {
            "targets": len(by_target),
            "forecast_over_achieved_median": round(float(ratio.median()), 3),
            "median_absolute_error": round(float((ratio - 1).abs().median()), 3),
            "per_brain": {str(brain): round(float(each.median()), 3) for brain, each in ratio.groupby("brain")},
            **{f"coverage_{level}": round(float(rows[f"holds_{level}"].mean()), 3) for level in LEVELS},
        }
    return found
