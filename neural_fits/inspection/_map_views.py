"""Layers that yield maps: found by running the network, whatever the order of their axes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from neural_fits._feature_maps import as_map, is_channels_last
from neural_fits.inspection._hooks import hooked


@dataclass(frozen=True)
class MapLayer:
    """One run of one layer.

    Parameters
    ----------
    name : str
        Its dotted name.
    module : nn.Module
        The layer.
    run : int
        Which of its runs in one pass of the network.
    size : tuple of int
        Height and width of the images that enter the network.
    channels_last : bool, optional
        Order of the axes where running the network told it.
    """

    name: str
    module: nn.Module
    run: int
    size: tuple[int, int]
    channels_last: bool | None = None

    def view(self, output: object) -> tuple[Tensor, Callable[[Tensor], Tensor]] | None:
        """Return what the layer yielded as a map of more than one position, and the way back.

        Parameters
        ----------
        output : object
            What the layer yielded.

        Returns
        -------
        tuple of (Tensor, callable), or None
            Map (image, channel, height, width) and a function that brings such a map to the axes of the output; None
            where the output is no map, or one of a single position.
        """
        if not isinstance(output, Tensor) or output.ndim not in (3, 4) or not output.is_floating_point():
            return None
        if output.ndim == 4 and self.channels_last is not None:
            found: Tensor | None = output.permute(0, 3, 1, 2) if self.channels_last else output
        else:
            try:
                found = as_map(output, self.name, self.size, self.module)
            except ValueError:
                return None
        found = output if found is None else found  # all three axes alike, and no more to be known: channels first
        positions = found.shape[2] * found.shape[3]
        if positions < 2:
            return None
        if output.ndim == 3:
            extra = output[:, : output.shape[1] - positions]
            return found, lambda maps: torch.cat([extra, maps.flatten(2).transpose(1, 2)], 1)
        if found is output:
            return found, lambda maps: maps
        return found, lambda maps: maps.permute(0, 2, 3, 1)


def layers_run(
    function: Callable[[Tensor], Tensor], root: nn.Module, names: Sequence[str], image: Tensor
) -> tuple[Tensor, list[tuple[MapLayer, Any]]]:
    """Run a function of images and return its value and what the layers of a network yielded on the way.

    Parameters
    ----------
    function : callable
        What is run; it runs the network.
    root : nn.Module
        The network.
    names : sequence of str
        The layers wanted.
    image : Tensor, (1, channel, height, width)
        What is given to the function.

    Returns
    -------
    value : Tensor
        What the function returned.
    layers : list of (MapLayer, output)
        Every run of every layer wanted, in the order of running.
    """
    runs: Counter[nn.Module] = Counter()
    seen: list[tuple[MapLayer, Any]] = []
    entered: list[Tensor] = []
    modules = {root.get_submodule(name): name for name in names}

    def record(module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        size = (entered[0].shape[-2], entered[0].shape[-1])
        seen.append((MapLayer(modules[module], module, runs[module], size), output))
        runs[module] += 1

    handle = root.register_forward_pre_hook(lambda _module, inputs: entered.append(inputs[0].detach()))
    try:
        with hooked([(module, record) for module in modules]):
            value = function(image)
    finally:
        handle.remove()
    unsure = {(layer.module, layer.run) for layer, output in seen if _is_unsure(layer, output)}
    wider = _outputs_to_wider(root, entered[0], {module for module, _ in unsure}) if unsure else {}
    for at, (layer, output) in enumerate(seen):
        known = wider.get((layer.module, layer.run))
        if known is not None and (layer.module, layer.run) in unsure:
            seen[at] = replace(layer, channels_last=is_channels_last(output, known)), output
    return value, seen


def _is_unsure(layer: MapLayer, output: object) -> bool:
    """Say whether the order of the axes is a guess: all alike, or taken as channels last by their lengths."""
    if not isinstance(output, Tensor) or output.ndim != 4:
        return False
    found = as_map(output, layer.name, layer.size, layer.module)
    return found is None or found is not output


def _outputs_to_wider(root: nn.Module, inputs: Tensor, modules: set[nn.Module]) -> dict[tuple[nn.Module, int], Tensor]:
    """Return what layers yield to an image twice as wide; networks of one size yield what comes before they refuse."""
    runs: Counter[nn.Module] = Counter()
    found: dict[tuple[nn.Module, int], Tensor] = {}

    def keep(module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            found[module, runs[module]] = output.detach()
        runs[module] += 1

    # A network may refuse another size by any error whatever.
    with torch.no_grad(), hooked([(module, keep) for module in modules]), suppress(Exception):
        root(torch.cat([inputs, inputs], -1))
    return found
