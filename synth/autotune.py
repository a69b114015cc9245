"""Choose the number of slots, and on a GPU the acceleration, by a short timing of real steps.

Called by `execution` where the user names neither. What is chosen is recorded with the images, because the bytes of an
image depend on the number of slots.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from synth._slots import Slots
from synth.jobs import Job
from synth.recipes import SynthesisConfig

if TYPE_CHECKING:
    from synth.driver import Driver
    from synth.execution import Execution

USUAL_SLOTS = {"cpu": 4, "cuda": 128, "mps": 16}
_OTHER_SLOTS = {"cpu": (8, 2), "cuda": (32, 64, 256, 512, 1024), "mps": (8, 32)}
_MARGIN = 1.15  # another choice must be so much faster: timings are noisy, and the usual choice gives the usual bytes
_STEPS = 3


def choose_slots(execution: Execution, driver: Driver, config: SynthesisConfig, jobs: Sequence[Job]) -> int:
    """Return the number of slots with the highest rate, unless the usual one is nearly as fast.

    Parameters
    ----------
    execution : Execution
        Where and how.
    driver : Driver
        What drives the images.
    config : SynthesisConfig
        The recipe.
    jobs : sequence of Job
        What is to be made; few jobs are spread evenly over the threads of a CPU, and are not worth a timing.

    Returns
    -------
    int
        Number of slots.
    """
    coupled = max((_coupled(jobs, job) for job in dict.fromkeys(jobs) if job.objective.coupled), default=1)
    usual = USUAL_SLOTS[execution.device.type]
    workers = torch.get_num_threads() if execution.device.type == "cpu" else 1
    each = max(coupled, -(-len(jobs) // workers))
    others = [slots for slots in _OTHER_SLOTS[execution.device.type] if coupled <= slots <= each]
    if each <= 4 * usual or not others:
        return max(coupled, min(usual, each))
    best, best_rate = usual, _rate(execution, driver, config, jobs[0], usual) * _MARGIN
    for slots in others:
        try:
            rate = _rate(execution, driver, config, jobs[0], slots)
        except (torch.OutOfMemoryError, MemoryError):
            continue
        if rate > best_rate:
            best, best_rate = slots, rate * _MARGIN
    return max(coupled, best)


def choose_acceleration(execution: Execution, driver: Driver, config: SynthesisConfig, jobs: int) -> str:
    """Return ``"graphs"`` where CUDA graphs are faster than plain calls, else ``"none"``.

    Compilation is never chosen: on CPUs it was slower, and elsewhere it costs minutes before the first step.

    Parameters
    ----------
    execution : Execution
        Where and how.
    driver : Driver
        What drives the images.
    config : SynthesisConfig
        The recipe.
    jobs : int
        Number of images to make.

    Returns
    -------
    str
        ``"graphs"`` or ``"none"``.
    """
    if execution.device.type != "cuda":
        return "none"
    from synth.objectives import Stretch

    job = Job(Stretch(driver.scale.site_ids[0]), 0)
    slots = execution.slots or min(jobs, USUAL_SLOTS["cuda"])
    rates = {
        name: _rate(dataclasses.replace(execution, accelerate=name), driver, config, job, slots)
        for name in ("none", "graphs")
    }
    return max(rates, key=lambda name: rates[name])


def _coupled(jobs: Sequence[Job], job: Job) -> int:
    return sum(other.objective == job.objective and other.base == job.base for other in jobs)


def _rate(execution: Execution, driver: Driver, config: SynthesisConfig, job: Job, slots: int) -> float:
    """Return image steps a second, with one thread on a CPU, where several workers run side by side."""
    start = "pink" if config.start == "base" else config.start
    trial = dataclasses.replace(
        config, start=start, steps=10**6, check_every=_STEPS, max_rms_change=None, max_change=None
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        under_way = Slots(execution.task(driver, trial, slots=slots), slots)
        for number in range(slots):
            under_way.put([(number, dataclasses.replace(job, seed=number, base=""), None)])
        under_way.advance()  # first calls choose kernels and capture graphs
        began = time.perf_counter()
        under_way.advance()
        if execution.device.type == "cuda":
            torch.cuda.synchronize(execution.device)
        return slots * _STEPS / (time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
