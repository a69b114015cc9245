"""Find, by running it, whether a classifier is "mean of a feature map, then one linear layer"; and read that map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from neural_fits._feature_maps import as_map
from neural_fits.backbones import Backbone
from neural_fits.inspection._hooks import Hook, at_run, hooked
from neural_fits.inspection._images import BATCH
from neural_fits.inspection.targets import network_input

#: what a layer yields -> map (image, channel, height, width)
ToMap = Callable[[Tensor], Tensor]


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
    """One run of one module."""

    module: nn.Module
    run: int


@dataclass(frozen=True)
class _Found:
    source: _Place
    to_map: ToMap
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
        first = network_input(backbone, images[:1])
        # Noise instead of the user's image: on a flat or symmetric one a maximum could pass for a mean.
        noise = torch.randn(first.shape, generator=torch.Generator().manual_seed(0)).to(first)
        found = _find(backbone, noise)
        if found is None:
            raise _not_pooling(backbone, images)
        maps, scores = (torch.cat(each) for each in zip(*_parts(backbone, images, found), strict=True))
        if found.classifier is None:
            weight, bias = torch.eye(maps.shape[1]).to(maps), maps.new_zeros(maps.shape[1])
        else:
            weight, bias = _linear(found.classifier.module)
        # What holds for noise may fail on these images, as with a rectifier that saturates.
        error = (maps.mean((2, 3)) @ weight.T + bias - scores).abs().max()
        if not error <= 1e-4 * scores.abs().max():
            raise _not_pooling(backbone, images)
        return PooledMap(maps, weight, bias, scores)


def _parts(backbone: Backbone, images: Tensor, found: _Found) -> list[tuple[Tensor, Tensor]]:
    """Return maps and scores of images, batch by batch."""
    kept: dict[str, Tensor] = {}

    def keep(key: str) -> Hook:
        def hook(_module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> None:
            kept[key] = output.clone()

        return hook

    parts = []
    for batch in images.split(BATCH):
        pairs = [(found.source.module, at_run(found.source.run, keep("map")))]
        if found.classifier is not None:
            pairs.append((found.classifier.module, at_run(found.classifier.run, keep("scores"))))
        with hooked(pairs):
            output = backbone.network(network_input(backbone, batch))
        maps = found.to_map(kept["map"])
        assert maps is not None
        parts.append((maps.relu() if found.rectified else maps, kept.get("scores", output).flatten(1)))
    return parts


def _not_pooling(backbone: Backbone, images: Tensor) -> ValueError:
    return ValueError(
        f"{backbone.name!r} does not average a feature map over its positions straight before one linear layer "
        f"(images of {images.shape[-2]} x {images.shape[-1]} px), as class activation maps need; use grad_cam, or "
        "larger images if its map shrinks to one position"
    )


def _find(backbone: Backbone, inputs: Tensor) -> _Found | None:
    network = backbone.network
    runs: Counter[nn.Module] = Counter()
    maps: list[tuple[_Place, Tensor]] = []
    linear: list[tuple[_Place, Tensor, Tensor]] = []

    def record(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        place = _Place(module, runs[module])
        runs[module] += 1
        if module is network or not isinstance(output, Tensor):
            return
        if output.ndim in (3, 4) and output.is_floating_point() and output[0].numel() > max(output.shape[1:]):
            maps.append((place, output.clone()))  # what follows may change it in place
        if _is_linear(module) and given and given[0].flatten(1).shape[1] == _linear(module)[0].shape[1]:
            linear.append((place, given[0].flatten(1).clone(), output.flatten(1).clone()))

    with hooked([(module, record) for module in network.modules()]):
        output = network(inputs)
    if not isinstance(output, Tensor):
        return None
    scores = output.flatten(1)
    ways = [(pooled, place) for place, pooled, made in reversed(linear) if _is_output(made, scores)]
    for pooled, classifier in [*ways, (scores, None)]:
        source = _mean_of(maps, pooled, (inputs.shape[-2], inputs.shape[-1]))
        if source is not None:
            return _Found(*source, classifier)
    return None


def _mean_of(
    maps: list[tuple[_Place, Tensor]], pooled: Tensor, size: tuple[int, int]
) -> tuple[_Place, ToMap, bool] | None:
    """Return the last map whose mean over positions, as it is or rectified, is what was pooled."""
    if not pooled.any():
        return None
    for rectified in (False, True):
        for place, output in reversed(maps):
            # The numbers decide which axis the channels are, not the lengths of the axes.
            for to_map in (_as_it_is, _channels_first) if output.ndim == 4 else (partial(_tokens, size=size),):
                try:
                    each = to_map(output)
                except ValueError:  # tokens that form no grid
                    continue
                if each.shape[1] != pooled.shape[1] or each[0, 0].numel() < 2:
                    continue
                if _same((each.relu() if rectified else each).mean((2, 3)), pooled):
                    return place, to_map, rectified
    return None


def _as_it_is(output: Tensor) -> Tensor:
    return output


def _channels_first(output: Tensor) -> Tensor:
    return output.permute(0, 3, 1, 2)


def _tokens(output: Tensor, size: tuple[int, int]) -> Tensor:
    found = as_map(output, "tokens", size)
    return output if found is None else found


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
