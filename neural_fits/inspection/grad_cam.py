"""Grad-CAM: a class activation map for any network with a layer that has space, a site's included.

In: a network, a target as in `targets`, images, a layer. Out: maps on that layer's grid, computed by captum's
``LayerGradCam``. Where `class_activation_maps` or `site_activation_maps` apply, they are exact and to be preferred.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neural_fits.backbones import Backbone, load_backbone
from neural_fits.features import FeatureExtractor
from neural_fits.inspection._grids import on_grid
from neural_fits.inspection._map_views import map_view
from neural_fits.inspection.saliency import import_captum
from neural_fits.inspection.targets import Network, Target, TargetFunction, target_function
from neural_fits.site_model import Ensemble, SiteModel
from stimuli.hints import did_you_mean


def grad_cam(
    network: Network, target: Target, images: Tensor, layer: str | None = None, rectified: bool = True
) -> Tensor:
    """Return where a layer's map speaks for a target: ``L = relu(sum_k a_k f_k)``, ``a_k = mean(dS / df_k)``.

    The gradient is averaged over positions. For a classifier with global average pooling the map is then, up to the
    number of positions, its class activation map. For a site, whose readout weighs every position by itself, the
    average forgets where the weights are; `site_activation_maps` does not.

    Parameters
    ----------
    network, target : network and target
        As for `target_function`.
    images : Tensor, (image, channel, height, width)
        Values in [0, 1].
    layer : str, optional
        Dotted name of the layer; a layer that runs several times an image counts at its first run. By default the last
        one of more than one position through which all of the image reaches the target; for a site the layer that it
        was fitted on, the deepest of several.
    rectified : bool
        Leave out what speaks against the target, as published; False keeps it as negative values.

    Returns
    -------
    Tensor, (image, height, width)
        Maps in the unit of the target. An ensemble's is the mean over its members on the finest grid among them.

    Raises
    ------
    ValueError
        When the layer is unknown, is not run, or has no space, or the network has no such layer.
    ImportError
        When captum is not installed.

    Notes
    -----
    Source: Selvaraju et al. 2017, Grad-CAM; computed by captum's ``LayerGradCam``.

    Examples
    --------
    >>> grad_cam("efficientnet-lite0", "tabby", torch.rand(2, 3, 64, 64), layer="blocks.4").shape
    torch.Size([2, 4, 4])
    """
    if isinstance(network, Ensemble):
        maps = [_signed(member, target, images, layer) for member in network._members()]
        size = max(each.shape[1] for each in maps), max(each.shape[2] for each in maps)
        found = torch.stack([on_grid(each, size) for each in maps]).mean(0)
    else:
        if isinstance(network, (str, Backbone)):
            network = load_backbone(network)
        found = _signed(network, target, images, layer)
    return found.relu() if rectified else found


@dataclass(frozen=True)
class _Layer:
    """One run of one layer, and the size of the images that enter its network."""

    name: str
    module: nn.Module
    run: int
    size: tuple[int, int]


class _Through(nn.Module):
    """The target with a layer's map sent through an identity, where captum finds it with its channels first."""

    def __init__(self, function: TargetFunction, layer: _Layer) -> None:
        super().__init__()
        self.function, self.layer, self.map = function, layer, nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        runs = iter(range(10**9))

        def reroute(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> Any:
            if next(runs) != self.layer.run:
                return None
            view = map_view(output, self.layer.name, self.layer.size)
            if view is None:
                got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
                raise ValueError(
                    f"layer {self.layer.name!r} yields {got}, no map of more than one position; choose another layer, "
                    "or use saliency"
                )
            maps, back = view
            return back(self.map(maps))

        with _hooked({self.layer.module: reroute}):
            return self.function(images)


def _signed(network: Network, target: Target, images: Tensor, layer: str | None) -> Tensor:
    function = target_function(network, target)
    root, size = _root(network, images)
    if layer is None:
        extractor = getattr(network, "extractor", network)
        read = extractor.layers_read if isinstance(extractor, FeatureExtractor) else None
        chosen = _last_layer(function, root, size, images, read)
    else:
        chosen = _named_layer(root, layer, size)
    through = _Through(function, chosen)
    attribution: Callable[[Tensor], Tensor] = import_captum().LayerGradCam(through, through.map).attribute
    try:
        maps = torch.cat([attribution(part).detach() for part in images.detach().split(16)])
    except AssertionError as error:  # captum's way to say that the identity was not reached
        raise ValueError(f"layer {chosen.name!r} is never run on an image before the target; choose another") from error
    return maps[:, 0]


def _root(network: Network, images: Tensor) -> tuple[nn.Module, tuple[int, int]]:
    """Return the network whose layers have names, and the size at which it sees images."""
    extractor = network.extractor if isinstance(network, SiteModel) else network
    backbone = extractor.backbone if isinstance(extractor, FeatureExtractor) else load_backbone(extractor)
    side = extractor.input_px if isinstance(extractor, FeatureExtractor) else None
    if side is None and backbone.fixed_size:
        side = backbone.input_px
    return backbone.network, (images.shape[-2], images.shape[-1]) if side is None else (side, side)


def _named_layer(root: nn.Module, name: str, size: tuple[int, int]) -> _Layer:
    modules = dict(root.named_modules())
    if not name or name not in modules:
        known = [each for each in modules if each]
        outermost = ", ".join(each for each in known if "." not in each)
        raise ValueError(
            f"the network has no layer {name!r}; {did_you_mean(name, known)}its outermost layers are: {outermost}"
        )
    return _Layer(name, modules[name], 0, size)


def _last_layer(
    function: TargetFunction, root: nn.Module, size: tuple[int, int], images: Tensor, among: tuple[str, ...] | None
) -> _Layer:
    """Return the last layer through which all of the image reaches the target, at more than one position.

    Not simply the last map: a class token leaves the patches of its own layer unused, and inside an attention block
    keys and queries look like maps while the image goes round them. Layers that a model reads need no such test.
    """
    names = {module: name for name, module in root.named_modules() if among is None or name in among}
    runs: dict[nn.Module, int] = {}
    seen: list[tuple[_Layer, Tensor]] = []

    def record(module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        run = runs.setdefault(module, 0)
        runs[module] += 1
        if module is root or not isinstance(output, Tensor) or not output.requires_grad:
            return
        if map_view(output, names[module], size) is not None:
            seen.append((_Layer(names[module], module, run, size), output))

    image = images[:1].detach().clone().requires_grad_()
    with torch.enable_grad(), _hooked(dict.fromkeys(names, record)):
        score = function(image).sum()
    if seen and score.requires_grad:
        gradients = torch.autograd.grad(score, [output for _, output in seen], allow_unused=True)
        for (layer, _), gradient in reversed(list(zip(seen, gradients, strict=True))):
            view = None if gradient is None else map_view(gradient, layer.name, size)
            if view is not None and view[0].any() and (among is not None or _carries_all(function, layer, image)):
                return layer
    raise ValueError(
        "no layer of more than one position carries all of the image to the target; name a layer, or use saliency"
    )


def _carries_all(function: TargetFunction, layer: _Layer, image: Tensor) -> bool:
    """Say whether the target no longer depends on the image once the gradient is stopped at the layer."""
    runs = iter(range(10**9))

    def stop(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> Any:
        return output.detach() if next(runs) == layer.run else None

    with torch.enable_grad(), _hooked({layer.module: stop}):
        score = function(image).sum()
    if not score.requires_grad:
        return True
    (gradient,) = torch.autograd.grad(score, image, allow_unused=True)
    return gradient is None or not bool(gradient.any())


@contextmanager
def _hooked(hooks: dict[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Hang hooks before all others: a `FeatureExtractor` ends the pass at its layer by a hook of its own."""
    handles = [module.register_forward_hook(hook, prepend=True) for module, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
