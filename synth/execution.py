"""How a run is computed: device, slots, precision, acceleration, on this machine or on many. Not what is computed.

In: a `Driver`, jobs and a recipe. Out: images in a store. `synthesize` calls it; what it chooses by timing is recorded.
"""

from __future__ import annotations

import dataclasses
import gc
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stimuli import StimulusSet
from stimuli.hints import did_you_mean
from synth._slots import Network, Task
from synth.driver import Driver
from synth.engine import Progress, repeatable, run
from synth.folding import fold
from synth.jobs import Job
from synth.recipes import SynthesisConfig
from synth.store import Store

#: torch.compile is not among them: on a folded network its first gradient was wrong (torch 2.15), and on others the end
#: of the pass at the layer read makes it fall back to plain calls
ACCELERATIONS = ("none", "graphs")
BACKENDS = ("local", "ray")


@dataclass(frozen=True)
class Execution:
    """Where and how the work is done.

    Parameters
    ----------
    device : torch.device
        Where.
    slots : int, optional
        Images optimized together; None until it is chosen by timing.
    amp : bool
        Gradients in bfloat16.
    accelerate : str, optional
        ``"none"`` or ``"graphs"``; None until it is chosen.
    backend : str
        ``"local"`` or ``"ray"``.
    checkpoint_s : float
        Seconds between two writings of the state of unfinished images.

    Raises
    ------
    ValueError
        For an unknown name, slots below 1, or CUDA graphs without CUDA.

    Examples
    --------
    >>> Execution(torch.device("cpu"), slots=4, accelerate="none").provenance()["slots"]
    4
    """

    device: torch.device
    slots: int | None = None
    amp: bool = False
    accelerate: str | None = None
    backend: str = "local"
    checkpoint_s: float = 30.0

    def __post_init__(self) -> None:
        if self.slots is not None:
            object.__setattr__(self, "slots", operator.index(self.slots))  # JSON knows no whole numbers of numpy
        if self.slots is not None and self.slots < 1:
            raise ValueError(f"slots is {self.slots}; expected the number of images to optimize together, at least 1")
        for name, known in (("accelerate", (None, *ACCELERATIONS)), ("backend", BACKENDS)):
            value = getattr(self, name)
            if value not in known:
                hint = did_you_mean(str(value), [each for each in known if each])
                raise ValueError(f"{name} is {value!r}; {hint}known: {', '.join(str(each) for each in known if each)}")
        if self.accelerate == "graphs" and self.device.type != "cuda":
            raise ValueError(f"accelerate='graphs' needs a CUDA device and the device is {self.device}; leave it out")

    def description(self) -> str:
        """Return the kind of hardware, on which equal settings give equal bytes.

        Returns
        -------
        str
            Name of the GPU, or the instruction set of the CPU.
        """
        if self.device.type == "cuda":
            here = torch.cuda.is_available()  # the GPUs may be those of a cluster
            return f"cuda, {torch.cuda.get_device_name(self.device) if here else 'of other machines'}"
        return f"{self.device.type}, {torch.backends.cpu.get_cpu_capability()}"

    def provenance(self) -> dict[str, Any]:
        """Return what is recorded with the images.

        Returns
        -------
        dict
            Device, slots, precision and acceleration.
        """
        return {
            "slots": self.slots,
            "device": str(self.device),
            "amp": "bfloat16" if self.amp else "off",
            "accelerate": self.accelerate,
            "backend": self.backend,
        }

    def task(self, driver: Driver, config: SynthesisConfig, base: StimulusSet | None = None) -> Task:
        """Return the networks, folded and accelerated, with the recipe.

        Parameters
        ----------
        driver : Driver
            What drives the images.
        config : SynthesisConfig
            The recipe.
        base : StimulusSet, optional
            Images to change.

        Returns
        -------
        Task
            For `engine.run`.
        """
        folded = fold(driver.network, driver.size_px)
        climb: Network = fold(driver.network, driver.size_px, torch.bfloat16) if self.amp else folded

        def judge(images: Tensor) -> Tensor:
            with repeatable(self.device, tf32=False):
                return folded(images)

        if self.accelerate == "graphs":
            climb = _Graphs(climb, self.device)

        at = {} if base is None else {name: k for k, name in enumerate(base.stimulus_ids)}

        def base_image(name: str) -> np.ndarray:
            assert base is not None
            image = base.images([at[name]])[0]
            return np.broadcast_to(image, (driver.channels, *driver.size_px)).copy()

        return Task(
            climb, judge, driver.scale, config, driver.size_px, self.device, None if base is None else base_image
        )

    def tuned(self, driver: Driver, config: SynthesisConfig, jobs: list[Job]) -> Execution:
        """Return the same with slots and acceleration chosen, where they are not given.

        Parameters
        ----------
        driver : Driver
            What drives the images.
        config : SynthesisConfig
            The recipe.
        jobs : list of Job
            What is to be made.

        Returns
        -------
        Execution
            With slots and acceleration.
        """
        from synth.autotune import USUAL_SLOTS, choose_acceleration, choose_slots

        chosen = self
        if self.backend == "ray":  # the workers may be other machines
            return dataclasses.replace(
                self, slots=self.slots or USUAL_SLOTS[self.device.type], accelerate=self.accelerate or "none"
            )
        if chosen.accelerate is None:
            chosen = dataclasses.replace(chosen, accelerate=choose_acceleration(chosen, driver, config, jobs))
        if chosen.slots is None:
            chosen = dataclasses.replace(chosen, slots=choose_slots(chosen, driver, config, jobs))
        return chosen


class _Graphs:
    """The network as two CUDA graphs, one forward and one backward, captured anew when slots become fewer."""

    def __init__(self, network: Network, device: torch.device) -> None:
        self.network, self.device = network, device
        self.shape: tuple[int, ...] = ()
        self.captured: Network | None = None

    def __call__(self, images: Tensor) -> Tensor:
        if self.captured is None or self.shape != tuple(images.shape):
            self.captured = None  # its memory is needed
            gc.collect()  # a graph that is freed while another is captured breaks that one
            self.captured, self.shape = self._capture(tuple(images.shape)), tuple(images.shape)
        return self.captured(images)

    def _capture(self, shape: tuple[int, ...]) -> Network:
        network, sample = self.network, torch.zeros(shape, device=self.device, requires_grad=True)

        def call(images: Tensor) -> Tensor:
            return network(images)  # not by way of self, or the memory would stay until cycles are collected

        # capture follows the streams of the thread's current GPU, which is the first one unless it is told
        with torch.cuda.device(self.device), repeatable(self.device):
            captured: Network = torch.cuda.make_graphed_callables(call, (sample,))  # type: ignore[assignment]
        return captured


def execute(
    execution: Execution,
    driver: Driver,
    jobs: list[Job],
    config: SynthesisConfig,
    base: StimulusSet | None,
    store: Store,
    progress: Progress | None,
) -> int:
    """Make the images that the store does not hold yet.

    Parameters
    ----------
    execution : Execution
        Where and how, with slots chosen.
    driver : Driver
        What drives the images.
    jobs : list of Job
        What is to be made.
    config : SynthesisConfig
        The recipe.
    base : StimulusSet, optional
        Images to change.
    store : RunFolder or Memory
        Takes the images.
    progress : callable, optional
        Called with image steps done, image steps in all, and a `Status`.

    Returns
    -------
    int
        The slots in use at the end.
    """
    assert execution.slots is not None
    if execution.backend == "ray":
        from synth.distributed import run_on_ray

        return run_on_ray(execution, driver, jobs, config, base, store, progress)
    task = execution.task(driver, config, base)
    return run(task, jobs, slots=execution.slots, store=store, checkpoint_s=execution.checkpoint_s, progress=progress)
