"""Choose the number of slots, and on a GPU the acceleration, by a short timing of real steps.

Called by `execution` where the user names neither. What is chosen is recorded with the images, because the bytes of an
image depend on the number of slots.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from synth._slots import Slots
from synth.engine import out_of_memory
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
    together = Counter((repr(job.objective), job.base) for job in jobs if job.objective.coupled)
    coupled = max(together.values(), default=1)
    usual = USUAL_SLOTS[execution.device.type]
    workers = torch.get_num_threads() if execution.device.type == "cpu" else 1
    each = max(coupled, -(-len(jobs) // workers))
    others = [slots for slots in _OTHER_SLOTS[execution.device.type] if coupled <= slots <= each]
    if each <= 4 * usual or not others:
        return max(coupled, min(usual, each))
    best, best_rate = usual, _rate(execution, driver, config, jobs[0], usual) * _MARGIN
    for slots in others:
        rate = _rate(execution, driver, config, jobs[0], slots)
        if rate > best_rate:
            best, best_rate = slots, rate * _MARGIN
    return max(coupled, best)


def choose_acceleration(execution: Execution, driver: Driver, config: SynthesisConfig, jobs: Sequence[Job]) -> str:
    """Return ``"graphs"`` where CUDA graphs are faster than plain calls, else ``"none"``.

    Parameters
    ----------
    execution : Execution
        Where and how.
    driver : Driver
        What drives the images.
    config : SynthesisConfig
        The recipe.
    jobs : sequence of Job
        What is to be made.

    Returns
    -------
    str
        ``"graphs"`` or ``"none"``.
    """
    if execution.device.type != "cuda":
        return "none"
    slots = execution.slots or min(len(jobs), USUAL_SLOTS["cuda"])
    rates = {
        name: _rate(dataclasses.replace(execution, accelerate=name), driver, config, jobs[0], slots)
        for name in ("none", "graphs")
    }
    return max(rates, key=lambda name: rates[name])


def _rate(execution: Execution, driver: Driver, config: SynthesisConfig, job: Job, slots: int) -> float:
    """Return image steps a second, with one thread on a CPU, where several run side by side; 0 if impossible."""
    changes: dict[str, Any] = {"steps": 10**6, "check_every": _STEPS}
    if config.start == "base":  # without base images: what refers to them may be impossible
        changes |= {"start": "pink", "aperture": None, "max_rms_change": None, "max_change": None}
    trial = dataclasses.replace(config, **changes)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        under_way = Slots(execution.task(driver, trial), slots)
        for number in range(slots):
            under_way.put([(number, dataclasses.replace(job, seed=number, base=""), None)])
        under_way.advance()  # first calls choose kernels and capture graphs
        began = time.perf_counter()
        under_way.advance()
        if execution.device.type == "cuda":
            torch.cuda.synchronize(execution.device)
        return slots * _STEPS / (time.perf_counter() - began)
    except (RuntimeError, MemoryError) as error:
        if execution.accelerate == "graphs" or out_of_memory(error):  # not every network can be captured
            return 0.0
        raise
    finally:
        torch.set_num_threads(threads)
