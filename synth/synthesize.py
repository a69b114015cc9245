"""Make the images: a fitted model and objectives in, a `Synthesis` with its stimulus set out.

Calls the loop in `engine`; called by users, ``npc synth`` and ``npc demo``.
"""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from neural_fits.fit import best_device
from neural_fits.site_model import Ensemble, SiteModel
from stimuli import Display, StimulusSet
from stimuli.provenance import provenance_record, sha256_bytes
from synth.engine import Job, run
from synth.objectives import Objective, SiteScale
from synth.recipes import SynthesisConfig, recipe, recipe_name


@dataclass(frozen=True, eq=False)
class Synthesis:
    """Images made, and how.

    Parameters
    ----------
    stimuli : StimulusSet
        The images; columns ``family, objective, target_site, seed, recipe, step`` and ``forecast_response``, what the
        driver expects of the target site on the 8-bit image.
    trace : DataFrame
        Columns ``stimulus_id, step, score``: the driver's score of the 8-bit image as it was made.
    config : SynthesisConfig
        The recipe.
    """

    stimuli: StimulusSet
    trace: pd.DataFrame
    config: SynthesisConfig

    def _repr_html_(self) -> str:
        return f"<p><b>{html.escape(repr(self))}</b></p>{self.stimuli._repr_html_()}"

    def __repr__(self) -> str:
        return f"Synthesis({len(self.stimuli)} images, {self.config.steps} steps, param {self.config.param!r})"


def synthesize(
    model: SiteModel | Ensemble,
    objectives: Objective | Iterable[Objective],
    *,
    seeds: int | Sequence[int] = 5,
    recipe: str | SynthesisConfig = "robust",
    device: str | torch.device | None = None,
    slots: int | None = None,
    display: Display | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Synthesis:
    """Synthesize images, one for each objective and seed.

    Parameters
    ----------
    model : SiteModel or Ensemble
        The driver; it is moved to the device.
    objectives : Objective or iterable of Objective
        What is asked, for example ``[Stretch(site) for site in model.site_ids]``.
    seeds : int or sequence of int
        Images per objective: their number (seeds 0, 1, ...), or the seeds themselves.
    recipe : str or SynthesisConfig
        ``"robust"``, ``"paper"``, or a configuration.
    device : str or torch.device, optional
        Where the work is done; the best there is by default.
    slots : int, optional
        Images optimized together; 4 on a CPU and 32 on a GPU by default.
    display : Display, optional
        The screen the images are meant for; kept with the set.
    progress : callable, optional
        Called with (image steps done, image steps in all).

    Returns
    -------
    Synthesis
        The images in the order objective, seed.

    Raises
    ------
    TypeError
        For an objective that is none.
    ValueError
        For an unknown site or recipe, no objective or the same one twice, or seeds or slots below 1.

    Examples
    --------
    >>> from synth import Stretch
    >>> from stimuli import natural_photos
    >>> from neural_fits import SimulatedBrain, fit_sites
    >>> natural = natural_photos(60, size_px=64)
    >>> brain = SimulatedBrain(natural, n_sites=3)
    >>> model = fit_sites(natural, brain.record(natural), backbone="efficientnet-lite0")
    >>> synthesize(model, [Stretch("site00")], seeds=1, recipe=SynthesisConfig(steps=2), slots=1).stimuli.shape
    (3, 64, 64)
    """
    config = _recipe(recipe)
    wanted = [objectives] if isinstance(objectives, Objective) else list(objectives)
    if not wanted:
        raise ValueError("no objective was given; give at least one, for example Stretch(model.site_ids[0])")
    for k, objective in enumerate(wanted):
        if not isinstance(objective, Objective):
            raise TypeError(f"{objective!r} is not an objective; expected for example Stretch({objective!r})")
        if objective in wanted[:k]:
            raise ValueError(f"{objective!r} is given twice and would make the same images; ask for more seeds instead")
    numbers = list(range(seeds)) if isinstance(seeds, (int, np.integer)) else [int(seed) for seed in seeds]
    if not numbers or len(set(numbers)) != len(numbers):
        raise ValueError(f"seeds is {seeds!r}; expected a number of at least 1, or distinct seeds")
    if slots is not None and slots < 1:
        raise ValueError(f"slots is {slots}; expected the number of images to optimize together, at least 1")
    place = best_device(device)
    width = slots or (4 if place.type == "cpu" else 32)
    model.to(place)
    scale = SiteScale.of(model, place)
    for objective in wanted:  # a misspelt site shows here, not after an hour
        objective.score(torch.zeros(1, len(scale.site_ids), device=place), scale)
    jobs = [Job(objective, seed) for objective in wanted for seed in numbers]
    made = run(
        model,
        scale,
        jobs,
        dataclasses.replace(config, channels=config.channels or model.info.channels),
        model.info.size_px,
        slots=width,
        device=place,
        progress=progress,
    )
    codes = np.stack([image.codes for image in made])
    stimuli = StimulusSet.from_arrays(
        codes,
        table=_table(jobs, made_steps=[image.step for image in made], recipe=recipe_name(config), codes=codes),
        size_deg=model.info.size_deg,
        display=display,
        provenance=provenance_record(
            config={"synthesis": repr(config), "slots": width, "device": str(place), "seeds": numbers},
            inputs={f"model.{key}": str(value) for key, value in model.provenance.get("inputs", {}).items()},
        ),
        name="synthesis",
    )
    responses = model.predict(stimuli)
    column = [scale.index(job.objective.target) if job.objective.target else -1 for job in jobs]
    forecast = [float(responses[k, site]) if site >= 0 else float("nan") for k, site in enumerate(column)]
    stimuli = stimuli.with_columns(forecast_response=forecast)
    trace = pd.DataFrame(
        [
            (name, step, score)
            for name, image in zip(stimuli.stimulus_ids, made, strict=True)
            for step, score in image.trace
        ],
        columns=["stimulus_id", "step", "score"],
    )
    return Synthesis(stimuli, trace, config)


_recipe = recipe  # the argument of `synthesize` has the same name


def _table(jobs: list[Job], *, made_steps: list[int], recipe: str, codes: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "stimulus_id": [_image_id(job, image) for job, image in zip(jobs, codes, strict=True)],
            "family": [job.objective.family for job in jobs],
            "objective": [repr(job.objective) for job in jobs],
            "target_site": [job.objective.target for job in jobs],
            "seed": [job.seed for job in jobs],
            "recipe": recipe,
            "step": made_steps,
        }
    )


def _image_id(job: Job, image: np.ndarray) -> str:
    # A file name that people can read, and a hash of objective and content: two objectives may end in the same image.
    target = re.sub("[^A-Za-z0-9]", "-", job.objective.target)[:40] or "image"
    digest = sha256_bytes(repr(job.objective).encode() + image.tobytes())
    return f"{job.objective.family}_{target}_{job.seed}_{digest[:8]}"
