"""Control of simulated brains that share nothing with the driver: what each recipe achieves, and what was forecast.

For every brain and seed, 1,280 natural images are shown 8 times; the driver is fitted on the trials of 640 of them, the
validator (another network) on the others, of other photographs. Each recipe makes images for the eight sites that the
driver explains best on held-out photographs; they are saved as PNG files, read again, shown 32 times and judged by
`evaluate_control`: stretch against the best natural image, chosen and measured on different repeats; one-hot control of
a population of 16 against the natural image that scores best. ``noiseless`` is the same on the rates behind the trials,
where noise favors neither side. ``ceiling`` is what the same ascent reaches on the brain itself.

Everything is kept below ``--out``; a run that was interrupted goes on. ``python benchmarks/control.py --json``
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from brains import BRAINS, as_model, make_brain, validator_network
from control_forecasts import accuracy, rows_of
from control_nuisance import sensitivity
from control_recipes import ABLATIONS, ALONE, RECIPES, Column
from control_v4 import on_recordings

from neural_fits import Ensemble, SiteModel, SiteRecordings, fit_sites
from stimuli import StimulusSet
from stimuli.files import atomic_write
from synth import OneHot, Stretch, evaluate_control, recipe, synthesize
from synth.demo import noiseless

FIGURES = ("stretch_fraction_beyond", "stretch_median_gain", "ohp_fraction_improved", "ohp_median_improvement")


@dataclass(frozen=True)
class Size:
    """How much is done."""

    natural: int = 1280
    size_px: int = 112
    sites: int = 32
    targets: int = 8
    population: int = 16
    repeats: int = 8
    steps: int | None = None


SMALL = Size(natural=120, size_px=64, sites=6, targets=2, population=4, steps=10)


class Animal:
    """One brain and seed: what was recorded, and the models fitted to it. Everything is made once, when asked for."""

    def __init__(self, name: str, seed: int, size: Size, out: Path) -> None:
        self.name, self.seed, self.size, self.out = name, seed, size, out
        self.brain, self.natural = make_brain(
            name, natural=size.natural, size_px=size.size_px, sites=size.sites, seed=seed
        )
        self.recorded = self.brain.record(self.natural, n_repeats=size.repeats, seed=seed)
        self.truth = noiseless(self.brain, self.natural, self.recorded)
        self._models: dict[str, SiteModel | Ensemble] = {}

    def driver(self, column: Column) -> SiteModel | Ensemble:
        """Return what a recipe climbs."""
        networks = [each for each in column.backbones if each != BRAINS[self.name].network]
        fitted = self._fitted(split="A", penalty=column.penalty, readout=column.readout, backbone=networks)
        return as_model(self.brain, fitted) if column.on_brain else fitted

    def validator(self) -> SiteModel | Ensemble:
        """Return the model that did not make the images: other photographs, another network."""
        network, layer = validator_network(self.name)
        return self._fitted(split="B", backbone=network, layer=layer)

    def chosen(self, count: int) -> tuple[str, ...]:
        """Return the sites that the default driver explains best."""
        explained = self.driver(RECIPES["robust"]).held_out_scores()["explained_variance"].fillna(-np.inf)
        return tuple(explained.sort_values(ascending=False, kind="stable").index[:count])

    def _fitted(self, **how: Any) -> SiteModel | Ensemble:
        if repr(how) not in self._models:
            self._models[repr(how)] = fit_sites(
                self.natural, self.recorded, seed=self.seed, cache=self.out / "features", **how
            )
        return self._models[repr(how)]


def judged(animal: Animal, name: str, column: Column) -> dict[str, Any]:
    """Make the images of one recipe, show them to one brain, and judge them."""
    size = animal.size
    targets, population = animal.chosen(size.targets), animal.chosen(size.population)
    objectives = [*map(Stretch, targets), *(OneHot(site, population, form=column.one_hot) for site in targets)]
    driver = animal.driver(column)
    config = recipe(column.config, steps=min(column.config.steps, size.steps or column.config.steps))
    place = animal.out / "sets" / f"{animal.name} {animal.seed} {name}"
    synthesize(
        driver,
        objectives,
        seeds=[0],
        recipe=config,
        natural=animal.natural,
        out=place,
        overwrite=True,
        slots=8,
    )
    shown = StimulusSet.load(place)
    trials = animal.brain.record(shown, n_repeats=4 * size.repeats, seed=animal.seed + 1)

    def figures(natural: SiteRecordings, answers: SiteRecordings) -> dict[str, Any]:
        summary = evaluate_control(
            shown,
            reference=animal.natural,
            recordings=natural.concat_stimuli(answers),
            drivers=[driver],
            validators=[animal.validator()],
            seed=animal.seed,
        ).summary
        stretch, ohp = summary["stretch"], summary["ohp"]
        return {
            "stretch_fraction_beyond": stretch["fraction_beyond_best_natural"],
            "stretch_median_gain": stretch["median_gain"],
            "ohp_fraction_improved": ohp["fraction_improved"],
            "ohp_median_improvement": ohp["median_improvement"],
            "forecast_over_achieved": stretch["forecast_over_achieved_driver"],
            "forecast_over_achieved_validator": stretch["forecast_over_achieved_validator"],
        }

    recorded = figures(animal.recorded, trials)
    truth = figures(animal.truth, noiseless(animal.brain, shown, animal.recorded))
    found = recorded | {"noiseless": {key: truth[key] for key in FIGURES}} | sensitivity(animal.brain, shown)
    if name == "robust":
        rows = rows_of(animal.brain, shown, animal.recorded, trials, driver, animal.validator())
        found["rows"] = rows  # for the calibrated forecasts
    return found


def cell(place: Path, made_by: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what the same recipe and size found before, or find it and keep it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.is_file() or json.loads(place.read_text())["made_by"] != made_by:
        began = time.monotonic()
        found = make() | {"seconds": round(time.monotonic() - began, 1), "made_by": made_by}
        atomic_write(place, json.dumps(found))
    return json.loads(place.read_text())


def pooled(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean over brains and seeds of each figure."""
    keys = [*FIGURES, "forecast_over_achieved", "forecast_over_achieved_validator"]
    found = {key: _mean([each[key] for each in cells]) for key in keys}
    found["noiseless"] = {key: _mean([each["noiseless"][key] for each in cells]) for key in FIGURES}
    found["kept_after"] = {key: _mean([each["kept_after"][key] for each in cells]) for key in cells[0]["kept_after"]}
    return found


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), 3) if known else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("control_bench"), help="folder that keeps what was made")
    parser.add_argument("--brains", nargs="+", choices=BRAINS, default=list(BRAINS))
    parser.add_argument("--seeds", type=int, default=2, help="animals of each kind")
    parser.add_argument("--alone", action="store_true", help="the peers' rules also on one network with plain ridge")
    parser.add_argument("--ablations", action="store_true", help="the default recipe also without each of its parts")
    parser.add_argument(
        "--data", type=Path, help="folder of session 210325: the recipes on readouts of recorded V4 sites too"
    )
    parser.add_argument("--small", action="store_true", help="a rehearsal: tiny sizes, figures without meaning")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    columns = RECIPES | (ALONE if options.alone else {}) | (ABLATIONS if options.ablations else {})
    size, began = SMALL if options.small else Size(), time.monotonic()
    if options.small:
        options.out = options.out / "small"  # cells are found by name: a rehearsal's must not be taken for real ones
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {} for name in columns}
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for seed in range(options.seeds):
        for brain in options.brains:
            animal: list[Animal] = []  # made only where a cell is missing

            def make(name: str, brain: str = brain, seed: int = seed, animal: list[Animal] = animal) -> dict[str, Any]:
                if not animal:
                    animal.append(Animal(brain, seed, size, options.out))
                return judged(animal[0], name, columns[name])

            for name in columns:
                place = options.out / "cells" / f"{brain} {seed} {name}.json"
                each = cell(place, repr((columns[name], size)), lambda name=name, make=make: make(name))
                found[name].setdefault(brain, []).append(each)
                print(_line(name, brain, seed, each), flush=True)
            rows[brain, seed] = found["robust"][brain][seed]["rows"]
    table: dict[str, Any] = {
        name: pooled([each for cells in by_brain.values() for each in cells])
        | {"per_brain": {brain: pooled(cells) for brain, cells in by_brain.items()}}
        for name, by_brain in found.items()
    }
    for name, row in table.items():
        print(_line(name, "all", options.seeds, row))
    forecasts = None if options.small else accuracy(rows)
    print(f"calibrated forecasts: {json.dumps(forecasts)}")
    recorded = on_recordings(options.data, columns, size.targets, size.steps) if options.data else None
    print(f"recorded V4 readouts, by a validator: {json.dumps(recorded)}")
    if options.json:
        made = sum(each["seconds"] for by in found.values() for cells in by.values() for each in cells)
        facts = {"brains": options.brains, "seeds": options.seeds, "small": options.small, "seconds_of_cells": made}
        facts |= {"calibrated_forecasts": forecasts, "recorded_v4": recorded}
        print(json.dumps(table | {"bench": facts | {"seconds": round(time.monotonic() - began, 1)}}))


def _line(name: str, brain: str, seed: int, each: dict[str, Any]) -> str:
    parts = [
        f"{each[f'{kind}_{count}'] or 0:5.0%} {each[f'{kind}_{median}'] or 0:+6.0%} "
        f"({each['noiseless'][f'{kind}_{count}'] or 0:4.0%} {each['noiseless'][f'{kind}_{median}'] or 0:+6.0%})"
        for kind, count, median in (
            ("stretch", "fraction_beyond", "median_gain"),
            ("ohp", "fraction_improved", "median_improvement"),
        )
    ]
    ratio = each["forecast_over_achieved"]
    return f"{name:14s} {brain:9s} {seed}  stretch {parts[0]}  one-hot {parts[1]}  forecast/achieved {ratio or 0:.2f}"


if __name__ == "__main__":
    main()
