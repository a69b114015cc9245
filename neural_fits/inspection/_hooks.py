"""Look at, or change, what the modules of a network yield while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from torch import nn

#: module, its inputs, its output -> None, or what takes the output's place
Hook = Callable[[nn.Module, tuple[Any, ...], Any], Any]


@contextmanager
def hooked(pairs: Iterable[tuple[nn.Module, Hook]]) -> Iterator[None]:
    """Hang hooks before all others: a `FeatureExtractor` ends the pass at its layer by a hook of its own.

    Parameters
    ----------
    pairs : iterable of (nn.Module, callable)
        Modules and what is called when they have run.
    """
    handles = [module.register_forward_hook(hook, prepend=True) for module, hook in pairs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def at_run(run: int, hook: Hook) -> Hook:
    """Return a hook that acts at one run only: a network may run a module, such as a ReLU, several times an image.

    Parameters
    ----------
    run : int
        Which run, from 0.
    hook : callable
        What is called then.

    Returns
    -------
    callable
        For one pass of the network.
    """
    runs = count()
    return lambda module, given, output: hook(module, given, output) if next(runs) == run else None
