"""Grad-CAM: a class activation map for any network with a layer that has space, a site's included.

In: a network, a target as in `targets`, images, a layer. Out: maps on that layer's grid, computed by captum's
``LayerGradCam``. Where `class_activation_maps` or `site_activation_maps` apply, they are exact and to be preferred.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neural_fits.backbones import Backbone, load_backbone
from neural_fits.features import FeatureExtractor
from neural_fits.inspection._grids import on_grid
from neural_fits.inspection._hooks import at_run, hooked
from neural_fits.inspection._images import BATCH, images_for, left_as_found
from neural_fits.inspection._map_views import MapLayer, layers_run
from neural_fits.inspection.saliency import import_captum
from neural_fits.inspection.targets import Network, Target, TargetFunction, target_function
from neural_fits.site_model import Ensemble, SiteModel
from stimuli import StimulusSet
from stimuli.hints import did_you_mean


def grad_cam(
    network: Network, target: Target, images: Tensor | StimulusSet, layer: str | None = None, rectified: bool = True
) -> Tensor:
    """Return where a layer's map speaks for a target: ``L = relu(sum_k a_k f_k)``, ``a_k = mean(dS / df_k)``.

    The gradient is averaged over positions. For a classifier with global average pooling the map is then, up to the
    number of positions, its class activation map. For a site, whose readout weighs every position by itself, the
    average forgets where the weights are; `site_activation_maps` does not.

    Parameters
    ----------
    network, target : network and target
        As for `target_function`.
    images : Tensor or StimulusSet, (image, channel, height, width)
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
        When the layer is unknown, is not run, or has no space, or the network has no such layer; when images have other
        axes, or values that are not finite or out of range.
    TypeError
        When the images are no floating numbers.
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
    given = images_for(network, images)
    if isinstance(network, Ensemble):
        maps = [_signed(member, target, given, layer) for member in network._members()]
        size = max(each.shape[1] for each in maps), max(each.shape[2] for each in maps)
        found = torch.stack([on_grid(each, size) for each in maps]).mean(0)
    else:
        with left_as_found(network):
            loaded = load_backbone(network) if isinstance(network, (str, Backbone)) else network
            found = _signed(loaded, target, given, layer)
    return found.relu() if rectified else found


class _Through(nn.Module):
    """The target with a layer's map sent through an identity, where captum finds it with its channels first."""

    def __init__(self, function: TargetFunction, layer: MapLayer) -> None:
        super().__init__()
        self.function, self.layer, self.map = function, layer, nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        def reroute(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> Any:
            view = self.layer.view(output)
            if view is None:  # none for one image of this batch only
                raise ValueError(f"layer {self.layer.name!r} yields no map of more than one position; use saliency")
            return view[1](self.map(view[0]))

        with hooked([(self.layer.module, at_run(self.layer.run, reroute))]):
            return self.function(images)


def _signed(network: Network, target: Target, images: Tensor, layer: str | None) -> Tensor:
    function = target_function(network, target)
    extractor = network.extractor if isinstance(network, SiteModel) else network
    read = extractor if isinstance(extractor, FeatureExtractor) else None
    root = (load_backbone(extractor) if read is None else read.backbone).network
    if layer is not None:
        chosen = _named_layer(function, root, layer, images[:1])
    else:
        chosen = _last_layer(function, root, images[:1], None if read is None else read.layers_read)
    through = _Through(function, chosen)
    attribution: Callable[[Tensor], Tensor] = import_captum().LayerGradCam(through, through.map).attribute
    return torch.cat([attribution(part).detach() for part in images.split(BATCH)])[:, 0]


def _named_layer(function: TargetFunction, root: nn.Module, name: str, image: Tensor) -> MapLayer:
    known = [each for each, _ in root.named_modules() if each]
    if name not in known:
        outermost = ", ".join(each for each in known if "." not in each)
        raise ValueError(
            f"the network has no layer {name!r}; {did_you_mean(str(name), known)}its outermost layers are: {outermost}"
        )
    with torch.no_grad():
        _, seen = layers_run(function, root, [name], image)
    if not seen:
        raise ValueError(f"layer {name!r} is never run on an image before the target; choose another")
    layer, output = seen[0]
    if layer.view(output) is None:
        got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"layer {name!r} yields {got}, no map of more than one position; choose another layer, or use saliency"
        )
    return layer


def _last_layer(function: TargetFunction, root: nn.Module, image: Tensor, among: Sequence[str] | None) -> MapLayer:
    """Return the last layer through which all of the image reaches the target, at more than one position.

    Not simply the last map: a class token leaves the patches of its own layer unused, and inside an attention block
    keys and queries look like maps while the image goes round them. Layers that a model reads need no such test.
    """
    names = among if among is not None else [name for name, _ in root.named_modules() if name]
    image = image.clone().requires_grad_()
    with torch.enable_grad():
        value, seen = layers_run(function, root, names, image)
        score = value.sum()
    maps = [(layer, output) for layer, output in seen if layer.view(output) is not None and output.requires_grad]
    if maps and score.requires_grad:
        gradients = torch.autograd.grad(score, [output for _, output in maps], allow_unused=True)
        for (layer, _), gradient in reversed(list(zip(maps, gradients, strict=True))):
            used = gradient is not None and _reaches(layer, gradient)
            if used and (among is not None or _carries_all(function, layer, image)):
                return layer
    raise ValueError(
        "no layer of more than one position carries all of the image to the target; name a layer, or use saliency"
    )


def _reaches(layer: MapLayer, gradient: Tensor) -> bool:
    """Say whether the target depends on any position, class tokens aside."""
    view = layer.view(gradient)
    return view is not None and bool(view[0].any())


def _carries_all(function: TargetFunction, layer: MapLayer, image: Tensor) -> bool:
    """Say whether the target no longer depends on the image once the gradient is stopped at the layer."""
    stop = at_run(layer.run, lambda _module, _inputs, output: output.detach())
    with torch.enable_grad(), hooked([(layer.module, stop)]):
        score = function(image).sum()
    if not score.requires_grad:
        return True
    (gradient,) = torch.autograd.grad(score, image, allow_unused=True)
    return gradient is None or not bool(gradient.any())
