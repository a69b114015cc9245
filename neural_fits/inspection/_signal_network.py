"""Signals and the networks that read them: checks, evaluation mode, the output of one layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from stimuli.hints import did_you_mean


def names_or_numbers(given: Sequence[str] | None, count: int, what: str) -> tuple[str, ...]:
    """Return the names given, or numbers where none are."""
    if given is None:
        return tuple(f"{what} {k}" for k in range(count))
    if len(given) != count:
        raise ValueError(f"there are {count} {what}s and {len(given)} names for them; give one name each")
    return tuple(map(str, given))


def checked_signals(signals: ArrayLike | Tensor, network: Callable[[Tensor], Tensor]) -> Tensor:
    """Return signals (trial, channel, time) as a tensor in the network's precision and place."""
    given = signals.detach() if isinstance(signals, Tensor) else torch.from_numpy(np.array(signals))
    if given.ndim != 3 or len(given) < 3 or given.shape[2] < 2:
        raise ValueError(
            f"signals have shape {tuple(given.shape)}; expected (trial, channel, time) with at least 3 trials and 2 "
            "times (images have spectral_tuning)"
        )
    if not given.is_floating_point():
        given = given.float()
    if not given.isfinite().all():
        raise ValueError("signals hold NaN or infinite values; leave those trials or channels out")
    if isinstance(network, nn.Module):  # the network's own precision and place
        weights = next((each for each in network.parameters() if each.is_floating_point()), None)
        given = given if weights is None else given.to(weights)
    return given


@contextmanager
def evaluating(network: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Keep an ``nn.Module`` in evaluation mode meanwhile: dropout would look like an effect of the noise."""
    training = [each for each in network.modules() if each.training] if isinstance(network, nn.Module) else []
    try:
        for each in training:
            each.training = False
        yield
    finally:
        for each in training:
            each.training = True


def reader(network: Callable[[Tensor], Tensor], layer: str | None) -> Callable[[Tensor], Tensor]:
    """Return a function that gives the activations meant."""

    def read(signals: Tensor) -> Tensor:
        if layer is None:
            return _activations(network(signals), "the network")
        if not isinstance(network, nn.Module):
            raise ValueError(f"layer {layer!r} was asked of a function; give the nn.Module that has it")
        known = [name for name, _ in network.named_modules() if name]
        if layer not in known:
            hint = did_you_mean(layer, known)
            raise ValueError(f"the network has no layer {layer!r}; {hint}its layers are: {', '.join(known)}")
        seen: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: object, output: object) -> None:
            seen.append(_activations(output, f"layer {layer!r}").clone())  # what follows may change it in place

        handle = network.get_submodule(layer).register_forward_hook(keep)
        try:
            network(signals)
        finally:
            handle.remove()
        if not seen:
            raise ValueError(f"layer {layer!r} is never run on a signal; choose another")
        return seen[0]

    return read


def _activations(output: object, where: str) -> Tensor:
    if not isinstance(output, Tensor) or output.ndim < 2:
        came = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"{where} yields {came}; expected a tensor (trial, unit) or (trial, unit, time)")
    return output
