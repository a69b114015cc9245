"""The last step of a round: what its images did, beside what was forecast.

In: a round with recordings. Out: its report and tables, in its folder. Forecasts are calibrated by what the rounds
before achieved. Called by `closed_loop`.
"""

from __future__ import annotations

import json

import pandas as pd

from neural_fits import load_model
from stimuli.files import atomic_write
from synth._loop_data import merged, seen_by, shown_in
from synth._recorded_scores import part_of, recorded_scale
from synth.calibration import Calibration, fit_calibration
from synth.calibration_table import calibration_table
from synth.control import evaluate_control, rounded
from synth.loop_state import LoopState
from synth.objectives import parse_objective
from synth.report import render_report

#: targets below which earlier rounds do not say what a forecast is worth
_FEWEST_TARGETS = 4


def judge(state: LoopState, device: str | None) -> None:
    """Judge a round against the natural images, and write its report and tables; the last file is summary.json."""
    config, place = state.config, state.place
    driver, validator = load_model(place / "driver"), load_model(place / "validator")
    everything, recordings = merged(state, state.round)
    natural = everything.select((everything.table["round"] == 0).to_numpy())
    shown, own = shown_in(place)
    calibration = _calibration(state, device)
    report = evaluate_control(
        shown,
        reference=natural,
        recordings=recordings,
        drivers=[driver],
        validators=[validator],
        calibration=calibration,
        seed=config.seed,
        device=device,
    )
    trials = own.select_stimuli(shown.stimulus_ids).n_repeats.max(1)
    told = {
        "round": state.round,
        "presentations": int(trials.sum()),
        **{
            f"{name}_ev_median": rounded(model.held_out_scores()["explained_variance"].median())
            for name, model in (("driver", driver), ("validator", validator))
        },
    }
    facts = {
        "round": f"{state.round} of {config.rounds}",
        "presentations": f"{told['presentations']} trials of {len(shown)} images",
        "driver": repr(driver),
        "validator": f"other photographs, other synthesized images, {config.validator_readout} readout: {validator!r}",
        "fitted on": _fitted_on(state),
        "explained variance, held out": f"driver {told['driver_ev_median']}, validator {told['validator_ev_median']}",
        "forecasts calibrated by": f"rounds 1 to {state.round - 1}" if calibration else "nothing yet",
        "recipe": repr(config.synthesis()),
        "seed": str(config.seed),
    }
    for name, table in (("images", report.images), ("targets", report.targets)):
        atomic_write(place / f"{name}.csv", table.to_csv(index=False, float_format="%.6g"))
    title = f"Closed loop, round {state.round} of {config.rounds}"
    atomic_write(place / "report.html", render_report(report, title=title, facts=facts))
    summary = json.dumps({**told, **report.summary}, indent=1, allow_nan=False)
    atomic_write(place / "summary.json", summary)  # last: it says that the round is judged


def _calibration(state: LoopState, device: str | None) -> Calibration | None:
    """Learn from earlier rounds what a forecast is worth: each by the models that made it, which had not seen it."""
    everything, recordings = merged(state, state.round - 1)
    natural = recordings.select_stimuli(everything.select((everything.table["round"] == 0).to_numpy()).stimulus_ids)
    tables = []
    for number in range(1, state.round):
        place = state.folder / f"round{number}"
        shown, _ = shown_in(place)
        objectives = [parse_objective(text) for text in shown.table["objective"]]
        driver, validator = load_model(place / "driver"), load_model(place / "validator")
        scale = part_of(recorded_scale(natural), driver.site_ids)
        responses = recordings.align(shown, extra="drop")
        tables.append(calibration_table(shown, objectives, responses, [driver], [validator], scale, device=device))
    if not tables:
        return None
    table = pd.concat(tables, ignore_index=True).dropna(subset=["achieved_z"])  # a site may be lost on a day
    table = table.drop_duplicates(["site", "image"], keep="last")  # an image may be made again
    if table.loc[table["target"], "group"].nunique() < _FEWEST_TARGETS:
        return None
    return fit_calibration(table, own_sites=True, seed=state.config.seed)


def _fitted_on(state: LoopState) -> str:
    """Say what the models of a round saw."""
    stimuli, _ = merged(state, state.round - 1)
    counts = []
    for role in ("driver", "validator"):
        seen = seen_by(stimuli, role, group=state.config.group, seed=state.config.seed)
        rounds = stimuli.table["round"].iloc[seen]
        natural = int((rounds == 0).sum())
        counts.append(f"{role} {natural} natural and {len(rounds) - natural} synthesized images of earlier rounds")
    return ", ".join(counts)
