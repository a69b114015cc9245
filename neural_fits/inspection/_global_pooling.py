"""Find, by running it, whether a classifier is "mean of a feature map, then one linear layer"; and read that map."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from neural_fits.backbones import Backbone
from neural_fits.inspection._map_views import map_view
from neural_fits.inspection.targets import network_input

Hook = Callable[[nn.Module, tuple[Any, ...], Any], None]


@dataclass(frozen=True)
class PooledMap:
    """What a classifier pools, and how classes are read from it: ``scores = weight @ mean(maps) + bias``.

    Parameters
    ----------
    maps : Tensor, (image, channel, height, width)
        The pooled feature map, rectified where the network rectifies it before pooling.
    weight : Tensor, (class, channel)
        Weights of the linear layer.
    bias : Tensor, (class,)
        Its offsets.
    scores : Tensor, (image, class)
        Class scores of the network itself, before the softmax.
    """

    maps: Tensor
    weight: Tensor
    bias: Tensor
    scores: Tensor


@dataclass(frozen=True)
class _Place:
    """One run of one module: a network may run a module, such as a ReLU, several times an image."""

    name: str
    module: nn.Module
    run: int


@dataclass(frozen=True)
class _Found:
    source: _Place
    rectified: bool
    #: None where the scores are the mean of a map of classes
    classifier: _Place | None


def read_pooled_map(backbone: Backbone, images: Tensor) -> PooledMap:
    """Run a classifier and return the feature map that it pools, with weights and scores.

    Parameters
    ----------
    backbone : Backbone
        The classifier.
    images : Tensor, (image, channel, height, width)
        As for the network.

    Returns
    -------
    PooledMap
        Everything that a class activation map is made of.

    Raises
    ------
    ValueError
        When the network does not pool a feature map straight before one linear layer; names `grad_cam`.
    """
    with torch.no_grad():
        inputs = network_input(backbone, images)
        size = (inputs.shape[-2], inputs.shape[-1])
        # Noise instead of the user's image: on a flat or symmetric one a maximum could pass for a mean.
        noise = torch.randn((1, *inputs.shape[1:]), generator=torch.Generator().manual_seed(0)).to(inputs)
        found = _find(backbone, noise, size)
        kept: dict[str, Any] = {}

        def keep(place: _Place | None, key: str) -> Hook:
            runs = iter(range(10**9))

            def hook(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
                if place is not None and next(runs) == place.run:
                    kept[key] = output.clone()

            return hook

        pairs = [(found.source.module, keep(found.source, "map"))]
        if found.classifier is not None:
            pairs.append((found.classifier.module, keep(found.classifier, "scores")))
        with _hooked(pairs):
            output = backbone.network(inputs)
        view = map_view(kept["map"], found.source.name, size)
        if view is None:
            raise RuntimeError(f"layer {found.source.name!r} of {backbone.name!r} gave no map at its second run")
        maps = view[0].relu() if found.rectified else view[0]
        if found.classifier is None:
            classes = maps.shape[1]
            return PooledMap(maps, torch.eye(classes).to(maps), maps.new_zeros(classes), output.flatten(1))
        weight, bias = _linear(found.classifier.module)
        return PooledMap(maps, weight, bias, kept["scores"].flatten(1))


def _find(backbone: Backbone, inputs: Tensor, size: tuple[int, int]) -> _Found:
    network = backbone.network
    names = {module: name for name, module in network.named_modules()}
    runs: dict[nn.Module, int] = {}
    maps: list[tuple[_Place, Tensor]] = []
    linear: list[tuple[_Place, Tensor, Tensor]] = []

    def record(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        place = _Place(names[module], module, runs.setdefault(module, 0))
        runs[module] += 1
        if module is network or not isinstance(output, Tensor):
            return
        view = map_view(output, place.name, size)
        if view is not None:
            maps.append((place, view[0].clone()))  # what follows may change it in place
        elif _is_linear(module) and given and given[0].flatten(1).shape[1] == _linear(module)[0].shape[1]:
            linear.append((place, given[0].flatten(1).clone(), output.flatten(1).clone()))

    with _hooked([(module, record) for module in names]):
        output = network(inputs)
    if isinstance(output, Tensor):
        scores = output.flatten(1)
        for place, pooled, made in reversed(linear):
            source = _mean_of(maps, pooled) if _is_output(made, scores) else None
            if source is not None:
                return _Found(*source, place)
        source = _mean_of(maps, scores)
        if source is not None:
            return _Found(*source, None)
    raise ValueError(
        f"{backbone.name!r} does not average a feature map over its positions straight before one linear layer (images "
        f"of {size[0]} x {size[1]} px), as class activation maps need; use grad_cam, or larger images if its map "
        "shrinks to one position"
    )


def _mean_of(maps: list[tuple[_Place, Tensor]], pooled: Tensor) -> tuple[_Place, bool] | None:
    """Return the last map whose mean over positions, as it is or rectified, is what was pooled."""
    if not pooled.any():
        return None
    for rectified in (False, True):
        for place, each in reversed(maps):
            if each.shape[1] != pooled.shape[1]:
                continue
            mean = (each.relu() if rectified else each).mean((2, 3))
            if _same(mean, pooled):
                return place, rectified
    return None


def _is_output(made: Tensor, scores: Tensor) -> bool:
    """Say whether the network yields these scores, or their softmax, as networks of signals often do."""
    if made.shape != scores.shape:
        return False
    return any(_same(each, scores) for each in (made, functional.softmax(made, 1), functional.log_softmax(made, 1)))


def _same(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-5 * b.abs().max())


def _is_linear(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):  # 1 x 1 over one position
        return module.kernel_size == (1, 1) and module.groups == 1
    return isinstance(module, nn.Linear)


def _linear(module: nn.Module) -> tuple[Tensor, Tensor]:
    weight = module.get_parameter("weight").detach().flatten(1)
    bias = module.bias.detach() if isinstance(module.bias, Tensor) else weight.new_zeros(len(weight))
    return weight, bias


@contextmanager
def _hooked(pairs: list[tuple[nn.Module, Hook]]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module, hook in pairs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
