"""Three rounds of the closed loop against one round with the same number of presentations, on simulated brains.

Both begin with the same driver and the same brain. The loop shows a third of the images, learns from what they did, and
goes on; the single round shows all of them at once. Judged by the noiseless truth, which only a simulation knows:

- ``typical``: what an image does, mean over the last round of the loop, or over all images of the single round;
- ``best``: of all images shown in either arm, equally many, the one with the best recorded mean.

Gains are over the best natural image of the truth. ``python benchmarks/closed_loop.py --json``
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from neural_fits import SimulatedBrain, SiteRecordings, load_model
from stimuli import StimulusSet, natural_photos
from synth.closed_loop import LoopConfig, loop_state, next_round, start_loop
from synth.objectives import Objective, OneHot, SiteScale, parse_objective
from synth.progress import Progress


def run(folder: Path, config: LoopConfig, brain: SimulatedBrain, progress: Progress) -> None:
    """Run a loop to its end."""

    def record(stimuli: StimulusSet, number: int) -> SiteRecordings:
        repeats = config.image_repeats if number else config.repeats
        return brain.record(stimuli, n_repeats=repeats, seed=1000 * config.seed + number)

    while loop_state(folder).step != "done":
        next_round(folder, record=record, progress=progress)


def single_round(loop: Path, folder: Path, config: LoopConfig) -> None:
    """Make the folder of the single round, with the models that the loop began with."""
    start_loop(folder, config, StimulusSet.load(loop / "natural"))
    shutil.copy(loop / "recordings_natural.nc", folder)
    for role in ("driver", "validator"):
        shutil.copytree(loop / "round1" / role, folder / "round1" / role)


def true_scores(folder: Path, brain: SimulatedBrain) -> pd.DataFrame:
    """Return of every image its round, objective, true and recorded score, and the best natural image's true one."""
    rates = brain.truth(StimulusSet.load(folder / "natural")).astype(float)
    scale = SiteScale(tuple(brain.site_ids), *(torch.from_numpy(f(rates, axis=0)) for f in (np.mean, np.std)))
    rows = []
    for k in range(1, loop_state(folder).config.rounds + 1):
        shown = StimulusSet.load(folder / f"round{k}" / "stimuli")
        truth = brain.truth(shown).astype(float)
        seen = SiteRecordings.load(folder / f"round{k}" / "recordings.nc").align(shown, extra="drop").mean()
        for number, text in enumerate(shown.table["objective"]):
            objective = as_scored(parse_objective(text), brain.site_ids)

            def score(responses: np.ndarray, objective: Objective = objective) -> float:
                return float(objective.score(torch.from_numpy(responses.astype(float)), scale).max())

            row = {"round": k, "family": objective.family, "objective": text, "natural": score(rates)}
            rows.append(row | {"true": score(truth[[number]]), "recorded": score(seen[[number]])})
    return pd.DataFrame(rows)


def as_scored(objective: Objective, everything: list[str]) -> Objective:
    """Return one-hot control as a probability, whatever form was climbed."""
    if isinstance(objective, OneHot):
        return OneHot(objective.site, objective.population or everything, objective.temperature, form="softmax")
    return objective


def gains(scores: pd.DataFrame, last: int) -> pd.DataFrame:
    """Return the gains of every objective: of a typical image of the last round, and of the best of all."""
    rows = []
    for (family, text), some in scores.groupby(["family", "objective"], sort=False):
        natural = some["natural"].iloc[0]
        typical = some.loc[some["round"] == last, "true"].mean()
        best = some.loc[some["recorded"].idxmax(), "true"]
        row = {"family": family, "objective": text, "typical": typical / natural - 1, "best": best / natural - 1}
        row |= {f"round{k}": some.loc[some["round"] == k, "true"].mean() / natural - 1 for k in range(1, last + 1)}
        rows.append(row)
    return pd.DataFrame(rows).set_index(["family", "objective"])


def compare(looped: pd.DataFrame, single: pd.DataFrame, rng: np.random.Generator) -> dict[str, dict]:
    """Return medians of both arms and of their difference, with a 95 % interval over objectives."""
    found: dict[str, dict] = {}
    for family in looped["family"].unique():
        mine, theirs = looped[looped["family"] == family], single[single["family"] == family]
        found[family] = {"objectives": len(mine)}
        for name in ("typical", "best"):
            difference = mine[name].to_numpy() - theirs[name].to_numpy()
            drawn = rng.choice(difference, (2000, len(difference)))
            found[family][name] = {
                "loop": round(float(mine[name].median()), 3),
                "one_round": round(float(theirs[name].median()), 3),
                "beyond_loop": round(float((mine[name] > 0).mean()), 3),
                "beyond_one_round": round(float((theirs[name] > 0).mean()), 3),
                "mean_difference": round(float(difference.mean()), 3),
                "interval": [round(float(end), 3) for end in np.quantile(drawn.mean(1), [0.025, 0.975])],
                "loop_better": round(float((difference > 0).mean()), 3),
            }
        rounds = [name for name in mine if name.startswith("round")]
        found[family]["median_gain_per_round"] = [round(float(mine[name].median()), 3) for name in rounds]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--quick", action="store_true", help="few small images, one network: a smoke test")
    parser.add_argument("--seeds", type=int, default=2, help="brains")
    parser.add_argument("--targets", type=int, default=4, help="sites, each stretched and one-hot")
    parser.add_argument("--images", type=int, default=2, help="images per objective and round of the loop")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--natural", type=int, default=400)
    parser.add_argument("--size-px", type=int, default=96)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--recipe", default="robust")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.targets, options.natural, options.size_px, options.steps = 1, 2, 80, 64, 3
    began, looped, single, ev = time.perf_counter(), [], [], []
    for seed in range(options.seeds):
        natural = natural_photos(options.natural, options.size_px, seed=seed)
        brain = SimulatedBrain(natural, n_sites=4 * options.targets, seed=seed)
        config = LoopConfig(
            rounds=options.rounds,
            targets=options.targets,
            images=options.images,
            steps=options.steps,
            recipe=options.recipe,
            seed=seed,
            folds=3,
            validator_readout="ridge",  # the quickest: no validator takes part in what is measured here
            **({"backbone": ("efficientnet-lite0",), "layer": "blocks.2"} if options.quick else {}),
        )
        with tempfile.TemporaryDirectory() as place, Progress() as progress:
            start_loop(f"{place}/loop", config, natural)
            run(Path(place, "loop"), config, brain, progress)
            once = dataclasses.replace(config, rounds=1, images=options.rounds * options.images)
            single_round(Path(place, "loop"), Path(place, "once"), once)
            run(Path(place, "once"), once, brain, progress)
            looped.append(gains(true_scores(Path(place, "loop"), brain), options.rounds).assign(brain=seed))
            single.append(gains(true_scores(Path(place, "once"), brain), 1).assign(brain=seed))
            models = [load_model(Path(place, "loop", f"round{k}", "driver")) for k in range(1, options.rounds + 1)]
            ev.append([float(model.held_out_scores()["explained_variance"].median()) for model in models])
    everything = [pd.concat(arms).reset_index() for arms in (looped, single)]
    result = {
        **compare(everything[0], everything[1], np.random.default_rng(0)),
        "presentations_each": 2 * options.targets * options.images * options.rounds * config.image_repeats,
        "driver_ev_per_round": np.mean(ev, axis=0).round(3).tolist(),
        "seeds": options.seeds,
        "seconds": round(time.perf_counter() - began, 1),
    }
    sys.stderr.write(everything[0].round(2).to_string() + "\n" + everything[1].round(2).to_string() + "\n")
    for name, value in result.items():
        print(f"{name}: {json.dumps(value)}")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
