"""The same jobs over Ray: chunks go to workers, one a GPU or one a core, and come back as images.

In: what `execution.execute` takes. Out: images in the store of the process that asked. A chunk whose worker dies is
made again by another; an image depends on its own job and the number of slots, so the set is that of one process.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from stimuli import StimulusSet
from synth._allocator import keep_freed_memory
from synth._slots import Task
from synth.driver import Driver
from synth.engine import Progress, Status, run, units_to_do
from synth.execution import Execution
from synth.jobs import Job, Made
from synth.recipes import SynthesisConfig
from synth.store import Memory, Store

_ROUNDS = 4  # fillings of the slots in a chunk: enough to refill slots that end early, few enough to lose little
_RETRIES = 5
_LOADED: dict[str, tuple[Task, int]] = {}  # of this worker: networks are loaded and folded once


@contextlib.contextmanager
def cluster(address: str | None) -> Iterator[torch.device]:
    """Connect to a cluster, and leave it at the end unless the caller was connected before.

    Parameters
    ----------
    address : str, optional
        Of the cluster; None or ``"local"`` starts one on this machine, with a worker for each thread of torch.

    Yields
    ------
    torch.device
        The kind of device that its workers have: CUDA where the cluster has GPUs, else the CPU.

    Raises
    ------
    ImportError
        Without Ray.
    ConnectionError
        When there is no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            "Ray is not installed; install it with: python -m pip install 'neural-population-control[ray]'"
        ) from error
    connected = ray.is_initialized()
    if not connected:
        local = {"address": "local", "num_cpus": torch.get_num_threads(), "include_dashboard": False}
        where: dict[str, Any] = local if address in (None, "local") else {"address": address}
        _require_cluster(where["address"])
        terminate = signal.getsignal(signal.SIGTERM)
        ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminate)  # Ray takes it over
    try:
        yield torch.device("cuda" if ray.cluster_resources().get("GPU", 0) >= 1 else "cpu")
    finally:
        if not connected:
            ray.shutdown()


def _require_cluster(address: str) -> None:
    """Raise when nobody answers at an address: Ray itself would try for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address in ("local", "auto"):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ConnectionError(
            f"there is no Ray cluster at {address!r} ({error}); give host:port of its head node, 'auto' for that of "
            "this machine, or no address to start one here"
        ) from error


def run_on_ray(
    execution: Execution,
    driver: Driver,
    jobs: Sequence[Job],
    config: SynthesisConfig,
    base: StimulusSet | None,
    store: Store,
    progress: Progress | None,
) -> int:
    """Make the images that the store does not hold yet on the workers of the connected `cluster`.

    Parameters
    ----------
    execution : Execution
        Where and how; its device is that of the workers.
    driver : Driver
        What drives the images, on the CPU.
    jobs : sequence of Job
        What is to be made.
    config : SynthesisConfig
        The recipe.
    base : StimulusSet, optional
        Images to change.
    store : RunFolder or Memory
        Takes the images, chunk by chunk.
    progress : callable, optional
        Called with image steps done, image steps in all, and a `Status`.

    Returns
    -------
    int
        The smallest number of slots that a worker had to use.
    """
    import ray

    slots = execution.slots or 1
    kind = "GPU" if execution.device.type == "cuda" else "CPU"
    workers = max(1, int(ray.cluster_resources().get(kind, 1)))
    made = store.finished()
    done, least = len(made), slots
    chunks = _chunks(units_to_do(jobs, made, {}, slots), slots, workers)
    shared = ray.put((execution, driver, config, base))
    make = ray.remote(_make_chunk).options(
        num_cpus=1, num_gpus=1 if kind == "GPU" else 0, max_retries=_RETRIES, retry_exceptions=False
    )
    pending: dict[Any, None] = {}
    try:
        while True:
            while len(pending) < 2 * workers and (chunk := next(chunks, None)) is not None:
                pending[make.remote([shared], [(number, jobs[number]) for number in chunk])] = None
            if not pending:
                break
            ready, _ = ray.wait(list(pending), num_returns=1)
            used, images = _received(ready[0])
            del pending[ready[0]]
            least = min(least, used)
            for number, image in images:
                store.add(number, image)
            done += len(images)
            if progress is not None:
                progress(done * config.steps, len(jobs) * config.steps, Status(done, len(jobs)))
    finally:
        for reference in pending:
            ray.cancel(reference, force=True)
    if least < slots:
        warnings.warn(f"a worker ran out of memory with {slots} slots and used {least}", RuntimeWarning, stacklevel=2)
    return least


def _received(chunk: Any) -> tuple[int, list[tuple[int, Made]]]:
    """Return what a worker made, or raise its own error."""
    import ray

    try:
        received: tuple[int, list[tuple[int, Made]]] = ray.get(chunk)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        reason = str(error).strip().partition("\n")[0]
        raise RuntimeError(f"workers died {_RETRIES + 1} times while they made the same images: {reason}") from error
    return received


def _chunks(units: Sequence[list[int]], slots: int, workers: int) -> Iterator[list[int]]:
    """Yield numbers of jobs that one worker makes, those that belong together in one chunk."""
    images = sum(map(len, units))
    size = max(slots, min(_ROUNDS * slots, -(-images // workers)))
    chunk: list[int] = []
    for unit in units:
        if chunk and len(chunk) + len(unit) > size:
            yield chunk
            chunk = []
        chunk += unit
    if chunk:
        yield chunk


def _make_chunk(shared: list[Any], chunk: list[tuple[int, Job]]) -> tuple[int, list[tuple[int, Made]]]:
    """Make a chunk of images in a worker; the reference is in a list, so that Ray does not load it for every chunk."""
    import ray

    torch.set_num_threads(1)
    keep_freed_memory()
    name = shared[0].hex()
    if name not in _LOADED:
        execution, driver, config, base = ray.get(shared[0])
        _LOADED.clear()
        _LOADED[name] = execution.task(driver.to(execution.device), config, base), execution.slots
    task, slots = _LOADED[name]
    store = Memory()
    used = run(task, [job for _, job in chunk], slots=slots, store=store)
    return used, [(number, store.made(k)) for k, (number, _) in enumerate(chunk)]
