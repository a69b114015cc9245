"""The one loop: jobs go through a fixed number of slots, climb their own scores, and leave as 8-bit images.

In: a frozen model (images -> responses), jobs, a config. Out: one image and one score trace per job, handed to a
store as soon as it is made. On a CPU several workers with slots of their own run side by side, each on one thread.
What a step does is in `_slots`; what survives a killed run is in `run_folder`. Called by `execution`, here and on the
workers of `distributed`.
"""

from __future__ import annotations

import contextlib
import gc
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from neural_fits.parallel import side_by_side
from synth._slots import Slots, Task
from synth.jobs import Job, Made, Unfinished
from synth.store import Store


class Status(NamedTuple):
    """What has been made so far; as text, a few words.

    Parameters
    ----------
    images, wanted : int
        Images made, and images asked for.
    median_score : float, optional
        Over the images made by this process.

    Examples
    --------
    >>> str(Status(3, 40, 1.25))
    '3 of 40 images, median score 1.25'
    """

    images: int
    wanted: int
    median_score: float | None = None

    def __str__(self) -> str:
        score = "" if self.median_score is None else f", median score {self.median_score:.3g}"
        return f"{self.images} of {self.wanted} images{score}"


#: called with image steps done, image steps in all, and what has been made
Progress = Callable[[int, int, Status], None]


def run(
    task: Task,
    jobs: Sequence[Job],
    *,
    slots: int,
    store: Store,
    checkpoint_s: float = 30.0,
    progress: Progress | None = None,
) -> int:
    """Make one image per job that the store does not hold yet.

    Where memory runs out, the images under way begin anew with half the slots, and a warning says so.

    Parameters
    ----------
    task : Task
        Networks, recipe and device.
    jobs : sequence of Job
        Objectives and seeds.
    slots : int
        Images optimized together, by each worker.
    store : Store
        Takes the images.
    checkpoint_s : float
        Seconds between two writings of the state of unfinished images.
    progress : callable, optional
        Called with image steps done, image steps in all, and a `Status`.

    Returns
    -------
    int
        The slots in use at the end.

    Raises
    ------
    ValueError
        When coupled images are more than the slots.
    MemoryError
        When one image at a time does not fit.
    """
    states = store.unfinished()
    while True:
        try:
            with repeatable(task.device):
                _Run(task, jobs, slots, store, states, checkpoint_s, progress).work()
            return slots
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if slots == 1:
                raise MemoryError("one image at a time does not fit into memory; take smaller images") from error
            said = f"out of memory with {slots} slots; going on with {slots // 2}"
        slots //= 2
        warnings.warn(said, RuntimeWarning, stacklevel=2)
        states = {}
        gc.collect()  # the error, its frames and their images refer to each other
        if task.device.type == "cuda":
            torch.cuda.empty_cache()


def repeatable(device: torch.device, tf32: bool = True) -> contextlib.AbstractContextManager[None]:
    """Return a context in which convolutions on a GPU give the same bits at every run.

    Parameters
    ----------
    device : torch.device
        Where the work is done; nothing is changed but for CUDA.
    tf32 : bool
        Whether products may be rounded to 10 bits of mantissa: for gradients, never for readings.

    Returns
    -------
    context manager
        Restores the settings at its end.
    """
    if device.type != "cuda":
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32)


def out_of_memory(error: BaseException) -> bool:
    """Say whether an error is a lack of memory, in the words of CPU, CUDA, its libraries or MPS.

    Parameters
    ----------
    error : BaseException
        Any error.

    Returns
    -------
    bool
        Whether less work at a time would help.
    """
    words = ("allocate memory", "out of memory", "ALLOC_FAILED")
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or (isinstance(error, RuntimeError) and any(each in str(error) for each in words))


class _Run:
    """One pass over the queue of jobs, by one or several workers."""

    def __init__(
        self,
        task: Task,
        jobs: Sequence[Job],
        slots: int,
        store: Store,
        states: dict[int, Unfinished],
        checkpoint_s: float,
        progress: Progress | None,
    ) -> None:
        self.task, self.jobs, self.width, self.store, self.states = task, jobs, slots, store, states
        self.checkpoint_s, self.progress = checkpoint_s, progress
        made = store.finished()
        self.made, self.under_way = len(made), dict[int, int]()
        self.scores: list[float] = []
        self.waiting = deque(units_to_do(jobs, made, states, slots))
        self.stopped: BaseException | None = None
        self.lock = threading.Lock()

    def work(self) -> None:
        """Run the workers, and wait for all of them whatever happens."""
        places = -(-sum(map(len, self.waiting)) // self.width)
        workers = min(places, torch.get_num_threads()) if self.task.device.type == "cpu" else min(places, 1)
        try:  # on threads of their own, also a single one, so that Ctrl-C does not break a step
            side_by_side(self._worker, range(workers), torch.device("cpu"), stop=self._stop)
        except BaseException as error:
            self._stop(error)
            raise self.stopped or error from None  # the first failure, not that of a worker which it stopped

    def _stop(self, error: BaseException) -> None:
        """Let all workers end, with a checkpoint, at their next reading."""
        self.stopped = self.stopped or error

    def _worker(self, worker: int) -> None:
        try:
            self._fill_and_climb(worker)
        except BaseException as error:
            self._stop(error)
            raise

    def _fill_and_climb(self, worker: int) -> None:
        slots, written = Slots(self.task, self.width), time.monotonic()
        while True:
            while (unit := self._next(len(slots.free))) is not None:
                slots.put([(number, self.jobs[number], self.states.pop(number, None)) for number in unit])
            if len(slots.free) == slots.count:
                return
            if not slots.unread:
                slots.advance()
            slots.read()
            for number, made in slots.take_ended():
                self._finish(number, made)
            self._report(slots)
            late = time.monotonic() - written > self.checkpoint_s
            if late or self.stopped:
                self.store.checkpoint(worker, slots.unfinished())
                written = time.monotonic()
            if self.stopped:
                raise InterruptedError("another worker failed or the run was interrupted")

    def _next(self, free: int) -> list[int] | None:
        """Return the numbers of the next jobs that belong together, if they fit."""
        with self.lock:
            return self.waiting.popleft() if self.waiting and len(self.waiting[0]) <= free else None

    def _finish(self, number: int, made: Made) -> None:
        self.store.add(number, made)
        with self.lock:
            self.made += 1
            self.under_way.pop(number, None)
            if made.codes is not None:
                self.scores.append(dict(made.trace)[made.step])

    def _report(self, slots: Slots) -> None:
        if self.progress is None:
            return
        with self.lock:
            self.under_way.update(slots.steps_taken())
            done = self.made * self.task.config.steps + sum(self.under_way.values())  # early ends count as whole
            median = float(np.median(self.scores)) if self.scores else None
            self.progress(done, len(self.jobs) * self.task.config.steps, Status(self.made, len(self.jobs), median))


def units_to_do(jobs: Sequence[Job], made: set[int], states: dict[int, Unfinished], slots: int) -> list[list[int]]:
    """Return the numbers of the jobs to do, those that depend on each other in one list; images under way come first.

    Parameters
    ----------
    jobs : sequence of Job
        All jobs.
    made : set of int
        Numbers of those that are made.
    states : dict of int to Unfinished
        State of those under way; states that cannot be used are removed.
    slots : int
        Images that fit together.

    Returns
    -------
    list of list of int
        Numbers of jobs.

    Raises
    ------
    ValueError
        When images that depend on each other do not fit together.
    """
    units: dict[object, list[int]] = {}
    for number, job in enumerate(jobs):
        together = (repr(job.objective), job.base) if job.objective.coupled else number
        units.setdefault(together, []).append(number)
    todo = []
    for unit in units.values():
        if set(unit) <= made:
            continue
        if len(unit) > slots:
            raise ValueError(
                f"{len(unit)} images of {jobs[unit[0]].objective!r} depend on each other but only {slots} fit "
                "together; ask for fewer seeds or more slots"
            )
        if not set(unit) <= set(states):  # coupled images go on together or begin together
            for number in unit:
                states.pop(number, None)
        todo.append(unit)
    return sorted(todo, key=lambda unit: unit[0] not in states)
