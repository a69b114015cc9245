"""Make the images: a fitted model and objectives in, a `Synthesis` with its stimulus set out.

Calls the loop in `engine`, on this machine or through `distributed` on many; called by users, ``npc synth`` and
``npc demo``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import operator
import os
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neural_fits.features import FeatureExtractor
from neural_fits.fit import best_device
from neural_fits.site_model import Ensemble, SiteModel
from stimuli import Display, StimulusSet
from stimuli.files import require_free
from stimuli.provenance import sha256_bytes
from synth._run_record import functions_sha256
from synth.driver import Driver, driver_of
from synth.engine import Progress
from synth.execution import Execution, execute
from synth.jobs import Job
from synth.natural_starts import best_starts, photographs_for
from synth.objectives import Objective
from synth.recipes import SynthesisConfig, recipe
from synth.run_folder import RunFolder, on_full_disk, remove_run
from synth.store import Memory, Store
from synth.synthesis import Synthesis, assemble, saved_before, with_forecast


def synthesize(
    model: SiteModel | Ensemble | FeatureExtractor,
    objectives: Objective | Iterable[Objective],
    *,
    seeds: int | Sequence[int] = 5,
    recipe: str | SynthesisConfig = "robust",
    base: StimulusSet | None = None,
    natural: StimulusSet | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str | torch.device | None = None,
    slots: int | None = None,
    amp: bool = False,
    accelerate: str | None = None,
    backend: str = "local",
    address: str | None = None,
    checkpoint_s: float = 30.0,
    display: Display | None = None,
    progress: Progress | None = None,
) -> Synthesis:
    """Synthesize images, one for each objective and seed, and for each base image where there are some.

    An image depends on the model, its objective, seed, start, recipe and the number of slots, and on nothing else:
    not on the other images, nor on where a run was interrupted.

    Parameters
    ----------
    model : SiteModel, Ensemble or FeatureExtractor
        The driver, or a bare network for `LayerUnit` objectives; it is moved to the device.
    objectives : Objective or iterable of Objective
        What is asked, for example ``[Stretch(site) for site in model.site_ids]``.
    seeds : int or sequence of int
        Images per objective: their number (seeds 0, 1, ...), or the seeds themselves.
    recipe : str or SynthesisConfig
        ``"robust"``, ``"paper"``, or a configuration.
    base : StimulusSet, optional
        Images to change: one image for each of them, too; see ``max_rms_change`` of `SynthesisConfig`.
    natural : StimulusSet, optional
        Photographs to start from, best those that were recorded, for recipes whose start is ``"natural"``: seed 0 of an
        objective starts from the one that the driver scores best, seed 1 from the second best. By default crops of the
        embedded photographs.
    out : path, optional
        Folder of the set. While the images are made, ``<out>.partial`` holds the finished ones and the state of the
        others, and memory does not grow with their number.
    resume : bool
        Go on with the interrupted run in ``<out>.partial``; the images are those of an uninterrupted run. A set that is
        complete already is returned as it is.
    overwrite : bool
        Replace an earlier set at `out`.
    device : str or torch.device, optional
        Where the work is done; the best there is by default.
    slots : int, optional
        Images optimized together; by default chosen by a short timing, and recorded.
    amp : bool
        Compute gradients in bfloat16; readings stay in full precision.
    accelerate : str, optional
        ``"none"`` or ``"graphs"`` (CUDA graphs); by default what a short timing favors on a GPU, and
        none on a CPU.
    backend : str
        ``"local"``, or ``"ray"``: chunks of jobs go to the workers of a Ray cluster.
    address : str, optional
        Address of the Ray cluster; by default one is started on this machine.
    checkpoint_s : float
        Seconds between two writings of the state of unfinished images; a killed run loses no more.
    display : Display, optional
        The screen the images are meant for; kept with the set.
    progress : callable, optional
        Called with (image steps done, image steps in all, status); ``str(status)`` says what has been made.

    Returns
    -------
    Synthesis
        The images in the order objective, base image, seed.

    Raises
    ------
    TypeError
        For an objective that is none.
    ValueError
        For an unknown site or recipe, no objective or the same one twice, or seeds or slots below 1.
    FileExistsError
        When `out` or an interrupted run is in the way, or another process makes images there.

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
    if base is not None:
        config = dataclasses.replace(config, start="base")
    elif config.start == "base" or config.constraints.has_budget:
        raise ValueError("the recipe changes base images and none were given; give base=, a StimulusSet")
    wanted, numbers = _checked(objectives), _numbers(seeds)
    if resume and out is None:
        raise ValueError("there is nothing to resume without a folder; give out=, that of the interrupted run")
    with contextlib.ExitStack() as held:
        place = best_device(device) if backend != "ray" else _workers_device(device, address, held)
        execution = Execution(place, slots, amp, accelerate, backend, checkpoint_s)
        home = torch.device("cpu") if backend == "ray" else place  # workers have devices of their own
        driver = driver_of(model, wanted, home)
        driver = dataclasses.replace(driver, channels=config.channels or driver.channels)
        loop = dataclasses.replace(config, channels=driver.channels)
        if config.start == "natural":
            base, loop = photographs_for(driver, natural), dataclasses.replace(loop, start="base")
        if base is not None:
            _check_base(base, driver)
        if out is not None and not resume:
            require_free(out, overwrite, _is_set)
        partial = None if out is None else Path(f"{Path(out).resolve()}.partial")
        if resume and partial is not None:
            execution = _as_before(execution, partial, partial.with_suffix(""))
        jobs = _jobs(driver, wanted, numbers, base, config, home)
        execution = execution.tuned(driver, loop, jobs)
        record = _record(driver, jobs, config, base, execution)
        run_sha256 = sha256_bytes(json.dumps(record).encode())
        store: Store = Memory()
        if partial is not None:
            place_out = partial.with_suffix("")
            if resume and (whole := saved_before(place_out, run_sha256, config)):  # killed after the set was saved
                remove_run(partial)
                return whole
            if resume:
                require_free(place_out, overwrite, _is_set)
            store = held.enter_context(RunFolder(partial, record, resume))
            held.enter_context(on_full_disk(partial))
        slots = execute(execution, driver, jobs, loop, base, store, progress)
        execution = dataclasses.replace(execution, slots=slots)
        made = with_forecast(assemble(driver, jobs, store, config, execution, display, run_sha256), model)
        if partial is None:
            return made
        made = made.save(partial.with_suffix(""), overwrite)
        remove_run(partial)
        return made


def _workers_device(device: str | torch.device | None, address: str | None, held: contextlib.ExitStack) -> torch.device:
    from synth.distributed import cluster

    found = held.enter_context(cluster(address))
    return found if device is None else torch.device(device)


_recipe = recipe  # the argument of `synthesize` has the same name


def _checked(objectives: Objective | Iterable[Objective]) -> list[Objective]:
    wanted = [objectives] if isinstance(objectives, Objective) else list(objectives)
    if not wanted:
        raise ValueError("no objective was given; give at least one, for example Stretch(model.site_ids[0])")
    seen: set[str] = set()
    for objective in wanted:
        if not isinstance(objective, Objective):
            raise TypeError(f"{objective!r} is not an objective; expected for example Stretch({objective!r})")
        if repr(objective) in seen:
            raise ValueError(f"{objective!r} is given twice and would make the same images; ask for more seeds instead")
        seen.add(repr(objective))
    return wanted


def _jobs(
    driver: Driver,
    objectives: list[Objective],
    seeds: list[int],
    base: StimulusSet | None,
    config: SynthesisConfig,
    device: torch.device,
) -> list[Job]:
    if config.start == "natural" and base is not None:
        starts = best_starts(driver, objectives, base, seeds, device)
        return [
            Job(objective, seed, name)
            for objective, names in zip(objectives, starts, strict=True)
            for seed, name in zip(seeds, names, strict=True)
        ]
    bases = [""] if base is None else base.stimulus_ids
    return [Job(objective, seed, name) for objective in objectives for name in bases for seed in seeds]


def _numbers(seeds: int | Sequence[int]) -> list[int]:
    try:
        numbers = list(range(seeds)) if isinstance(seeds, (int, np.integer)) else [operator.index(k) for k in seeds]
    except TypeError:
        raise TypeError(f"seeds is {seeds!r}; expected a whole number, or several") from None
    if not numbers or len(set(numbers)) != len(numbers):
        raise ValueError(f"seeds is {seeds!r}; expected a number of at least 1, or distinct seeds")
    return numbers


def _check_base(base: StimulusSet, driver: Driver) -> None:
    if base.size_px != driver.size_px or base.shape[0] not in (1, driver.channels):
        raise ValueError(
            f"base images are {base.shape[0]} x {base.size_px[0]} x {base.size_px[1]} (channels, height, width), the "
            f"driver takes {driver.channels} x {driver.size_px[0]} x {driver.size_px[1]}; convert them"
        )


def _record(
    driver: Driver, jobs: list[Job], config: SynthesisConfig, base: StimulusSet | None, execution: Execution
) -> dict[str, Any]:
    """Return all that decides the bytes of the images."""
    return {
        "version": version("neural-population-control"),
        "torch": torch.__version__,
        "device": execution.description(),
        "slots": execution.slots,
        "amp": execution.amp,
        "accelerate": execution.accelerate,
        "model_sha256": driver.sha256(),
        "base_sha256": "" if base is None else _pixels_sha256(base),
        "size_px": list(driver.size_px),
        "recipe": repr(config),
        "functions": functions_sha256(jobs),
        "jobs": [[repr(job.objective), job.seed, job.base] for job in jobs],
    }


def _pixels_sha256(stimuli: StimulusSet) -> str:
    return sha256_bytes("".join(sha256_bytes(stimuli.codes([k]).tobytes()) for k in range(len(stimuli))).encode())


def _is_set(folder: Path) -> bool:
    return (folder / "set.json").is_file()


def _as_before(execution: Execution, partial: Path, out: Path) -> Execution:
    """Return what a new timing might choose otherwise as in an earlier run.

    That run may have ended between saving its set and removing its folder.
    """
    earlier = RunFolder.recorded(partial)
    if not earlier and _is_set(out):
        earlier = StimulusSet.load(out).provenance.get("config", {})
    slots, accelerate = (getattr(execution, name) or earlier.get(name) for name in ("slots", "accelerate"))
    return dataclasses.replace(execution, slots=slots, accelerate=accelerate)
