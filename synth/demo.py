"""A whole control experiment on one machine, offline: record, fit, synthesize, record again, judge.

The animal is a `SimulatedBrain` on a network that neither driver nor validator uses. Called by ``npc demo``; read it as
the longest example of how the parts fit together.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neural_fits import SimulatedBrain, SiteRecordings, fit_sites
from neural_fits.fit import best_device
from stimuli import StimulusSet, natural_photos
from stimuli.files import atomic_folder, made_of
from synth.control import ControlReport, evaluate_control, rounded
from synth.objectives import OneHot, Stretch
from synth.progress import Progress
from synth.recipes import SynthesisConfig, one_hot_form, recipe
from synth.report import render_report, save_control_figure
from synth.synthesize import synthesize

#: how a driver is read for control: the mean of two readouts errs less than either where no photograph has been
DRIVER_READOUT = "local+alternating"
#: what a demonstration writes
_FILES = (
    *("natural", "recordings_natural.nc", "driver", "validator", "synthesized", "trace.csv"),
    *("recordings_synthesized.nc", "control.png", "report.html", "summary.json"),
)


@dataclass(frozen=True)
class DemoConfig:
    """Size of the demonstration.

    Parameters
    ----------
    seed : int
        Seed of everything: photographs, brain, trials, splits and images.
    sites : int
        Sites recorded.
    natural : int
        Natural images shown; one half fits the driver, the other half, of other photographs, the validator.
    targets : int
        Stretch targets, and size of the one-hot population: the sites that the driver explains best on held-out images.
    images : int
        Images per target and objective.
    size_px : int
        Side of the images in pixels.
    repeats : int
        Trials of every natural image; synthesized ones, being few, are shown four times as often.
    recipe : str
        Name of the synthesis recipe.
    steps : int, optional
        Gradient steps; the recipe's own by default.

    Raises
    ------
    ValueError
        For sizes too small to make an experiment.
    """

    seed: int = 0
    sites: int = 32
    natural: int = 1280
    targets: int = 8
    images: int = 2
    size_px: int = 128
    repeats: int = 8
    recipe: str = "robust"
    steps: int | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.targets <= self.sites:
            raise ValueError(
                f"{self.targets} targets of {self.sites} sites: expected 2 targets or more, at most the sites"
            )
        if self.natural < 80 or self.images < 1 or self.repeats < 2 or self.size_px < 32:
            raise ValueError(
                "the demo needs at least 80 natural images of 32 px, 1 image per target and 2 repeats; got "
                f"{self.natural}, {self.size_px} px, {self.images} and {self.repeats}"
            )
        self.synthesis()  # a misspelt recipe shows here

    def synthesis(self) -> SynthesisConfig:
        """Return the configuration of the synthesis.

        Returns
        -------
        SynthesisConfig
            The recipe, with the number of steps asked for.
        """
        return recipe(self.recipe) if self.steps is None else recipe(self.recipe, steps=self.steps)


def run_demo(
    out: str | Path,
    config: DemoConfig | None = None,
    *,
    device: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run the demonstration and write everything it makes to a folder.

    Parameters
    ----------
    out : str or Path
        Folder to write; it appears when everything is done.
    config : DemoConfig, optional
        Sizes and seed.
    device : str, optional
        Where networks run; the best there is by default.
    overwrite : bool
        Replace an earlier demonstration in that folder.
    progress : Progress, optional
        Told of each stage.

    Returns
    -------
    dict
        The summary, also written to ``summary.json``.

    Raises
    ------
    FileExistsError
        When the folder is there and is not an earlier demonstration to be replaced.
    """
    config = config or DemoConfig()
    progress = progress or Progress(quiet=True)
    began = time.monotonic()

    def say(who: str) -> Callable[[str], None]:
        return lambda text: progress.stage(f"{who}: {text}")

    place = best_device(device)
    with atomic_folder(out, overwrite, made_of(*_FILES)) as folder:
        progress.stage(f"cropping {config.natural} natural images")
        natural = natural_photos(config.natural, config.size_px, seed=config.seed).save(folder / "natural")
        progress.stage(f"recording {config.sites} sites, {config.repeats} trials an image")
        brain = SimulatedBrain(natural, n_sites=config.sites, seed=config.seed)
        recorded = brain.record(natural, n_repeats=config.repeats, seed=config.seed)
        recorded.save(folder / "recordings_natural.nc")
        # With the weaker default penalty it predicts better but promises more than it achieves.
        driver = fit_sites(
            natural,
            recorded,
            split="A",
            readout=DRIVER_READOUT,
            penalty="one_se",
            seed=config.seed,
            device=device,
            progress=say("driver"),
        )
        driver.save(folder / "driver")
        validator = fit_sites(
            natural,
            recorded,
            split="B",
            readout="gaussian",
            seed=config.seed,
            device=device,
            progress=say("validator"),
        )
        validator.save(folder / "validator")
        explained = driver.held_out_scores()["explained_variance"].fillna(-np.inf)
        chosen = tuple(explained.sort_values(ascending=False, kind="stable").index[: config.targets])
        objectives = [
            *(Stretch(site) for site in chosen),
            *(OneHot(site, chosen, form=one_hot_form(config.recipe)) for site in chosen),
        ]
        progress.stage(f"synthesizing {len(objectives) * config.images} images")
        made = synthesize(
            driver,
            objectives,
            seeds=config.images,
            recipe=config.synthesis(),
            natural=natural,
            device=device,
            progress=progress.step,
        )
        made.stimuli.save(folder / "synthesized")
        made.trace.to_csv(folder / "trace.csv", index=False)
        progress.stage("recording and judging them")
        shown = StimulusSet.load(folder / "synthesized")  # what an animal would see: the files
        answers = brain.record(shown, n_repeats=4 * config.repeats, seed=config.seed + 1)  # few images, so more trials
        answers.save(folder / "recordings_synthesized.nc")

        def judge(recordings: SiteRecordings) -> ControlReport:
            return evaluate_control(
                shown,
                reference=natural,
                recordings=recordings,
                drivers=[driver],
                validators=[validator],
                seed=config.seed,
            )

        report = judge(recorded.concat_stimuli(answers))
        truth = noiseless(brain, natural, recorded).concat_stimuli(noiseless(brain, shown, recorded))
        truth_lines = _truth_lines(judge(truth).summary)
        summary = {
            "sites": config.sites,
            "natural_images": config.natural,
            "driver_ev_median": rounded(driver.held_out_scores()["explained_variance"].median()),
            "validator_ev_median": rounded(validator.held_out_scores()["explained_variance"].median()),
            "targets_chosen_by": "driver's explained variance on held-out photographs",
            "recipe": config.recipe,
            **report.summary,
            "noiseless": truth_lines,
            "seed": config.seed,
            "device": str(place),
            "peak_memory_mb": round(_peak_memory_mb()),
        }
        facts = {
            "animal": f"simulated brain, {config.sites} sites on efficientnet-lite2, {config.repeats} trials an image",
            "driver": repr(driver),
            "validator": f"the same networks, other photographs, one Gaussian window a site: {validator!r}",
            "explained variance, held-out photographs": (
                f"driver {summary['driver_ev_median']}, validator {summary['validator_ev_median']} (medians over sites)"
            ),
            "targets": f"the {config.targets} sites that the driver explains best on held-out photographs",
            "noiseless truth of the simulated sites": ", ".join(
                f"{name} {value}" for name, value in truth_lines.items()
            ),
            "recipe": repr(config.synthesis()),
            "repeats": f"{config.repeats} of every natural image, {4 * config.repeats} of every synthesized one",
            "seed": str(config.seed),
            "device": str(place),
        }
        (folder / "report.html").write_text(render_report(report, title="npc demo", facts=facts), encoding="utf-8")
        save_control_figure(report, folder / "control.png")
        summary |= {"seconds": round(time.monotonic() - began, 1), "report": str(Path(out) / "report.html")}
        (folder / "summary.json").write_text(json.dumps(summary, indent=1, allow_nan=False), encoding="utf-8")
    return summary


def noiseless(brain: SimulatedBrain, stimuli: StimulusSet, like: SiteRecordings) -> SiteRecordings:
    """Return the noiseless rates as recordings with two equal trials, so that the same scoring applies.

    Parameters
    ----------
    brain : SimulatedBrain
        The brain.
    stimuli : StimulusSet
        The images.
    like : SiteRecordings
        Recordings whose sites, window and unit are kept.

    Returns
    -------
    SiteRecordings
        Responses (stimulus, 2, site).
    """
    rates = brain.truth(stimuli)[:, None].repeat(2, axis=1)
    return SiteRecordings(rates, tuple(stimuli.stimulus_ids), like.sites, like.window_ms, like.unit)


def _truth_lines(summary: dict[str, Any]) -> dict[str, float | None]:
    """Return the numbers that trial noise cannot touch."""
    return {
        "stretch_fraction_beyond_best_natural": summary["stretch"]["fraction_beyond_best_natural"],
        "stretch_median_gain": summary["stretch"]["median_gain"],
        "ohp_fraction_improved": summary["ohp"]["fraction_improved"],
        "ohp_median_improvement": summary["ohp"]["median_improvement"],
    }


def _peak_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)
