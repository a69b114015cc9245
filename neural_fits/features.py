"""From images in [0, 1] to the activations of one layer, computing nothing beyond that layer.

In: a `Backbone`, the name of a layer, images of any size. Out: features (image, channel, height, width).
Size, color and mean/std of a network live here and nowhere else. Used by every readout and by the synthesis loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from neural_fits.backbones import Backbone, load_backbone
from neural_fits.parallel import side_by_side
from stimuli import StimulusSet
from stimuli.hints import did_you_mean

Result = TypeVar("Result")
#: the layer that ends the pass now under way in each thread, if any
_PASS = threading.local()
_REGISTERING = threading.Lock()


class _LayerReached(Exception):
    """Raised by the hook with the layer's output, so that nothing after the layer is computed."""

    def __init__(self, output: object) -> None:
        self.output = output


def _end_pass(module: nn.Module, _inputs: object, output: object) -> None:
    """Do nothing, but in a pass that reads this layer: one inert hook stays, so threads never change a network."""
    if getattr(_PASS, "layer", None) is module:
        raise _LayerReached(output)


class FeatureExtractor(nn.Module):
    """Activations of one layer of a frozen network, truncated exactly at that layer.

    ``features = layer((resize(image) - mean) / std)``; a forward hook ends the pass at the layer, so the later layers
    cost nothing, whatever the architecture. Gradients flow to the images and never to the weights.

    Parameters
    ----------
    backbone : str, nn.Module or Backbone
        As for `load_backbone`.
    layer : str
        Dotted name of the layer, for example ``"blocks.4"``; see `layers`.
    input_px : int, optional
        Side in pixels to which images are resized (bilinear, antialiased). By default images enter as they are, except
        for networks with one fixed size.

    Raises
    ------
    ValueError
        When the layer does not exist (the closest name is suggested), or is not reached, or yields no feature map.

    Examples
    --------
    >>> extractor = FeatureExtractor("efficientnet-lite0", "blocks.2")
    >>> extractor(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 40, 8, 8])
    """

    def __init__(self, backbone: str | nn.Module | Backbone, layer: str, input_px: int | None = None) -> None:
        super().__init__()
        self.backbone = load_backbone(backbone)
        self.network = self.backbone.network
        self.layer = layer
        self.input_px = input_px if input_px is not None or not self.backbone.fixed_size else self.backbone.input_px
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(self.backbone.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self.backbone.std).view(1, 3, 1, 1), persistent=False)
        known = self.layers()
        if layer not in known:
            raise ValueError(
                f"backbone {self.backbone.name!r} has no layer {layer!r}; {did_you_mean(layer, known)}"
                f"its outermost layers are: {', '.join(name for name in known if name.count('.') == 0)}"
            )
        module = self.network.get_submodule(layer)
        with _REGISTERING:
            if _end_pass not in module._forward_hooks.values():
                module.register_forward_hook(_end_pass)

    def layers(self) -> list[str]:
        """Return the names of all layers of the network.

        Returns
        -------
        list of str
            Dotted module names.
        """
        return self.backbone.layers()

    def train(self, mode: bool = True) -> FeatureExtractor:
        """Stay in evaluation mode whatever is asked: batch statistics of a few images would change the features.

        Parameters
        ----------
        mode : bool
            Ignored.

        Returns
        -------
        FeatureExtractor
            Itself.
        """
        del mode
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the layer's activations.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Values in [0, 1]; one channel (gray) or three (RGB).

        Returns
        -------
        Tensor, (image, channel, height, width)
            Activations; layers without space have height = width = 1, tokens of a transformer stand on their grid.
        """
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"images have shape {tuple(images.shape)}; expected (image, channel, height, width), 1 or 3 channels"
            )
        images = images.expand(-1, 3, -1, -1)
        if self.input_px is not None and images.shape[-2:] != (self.input_px, self.input_px):
            size = (self.input_px, self.input_px)
            images = functional.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        normalized = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return _as_map(self._run(normalized), self.layer, square=images.shape[-1] == images.shape[-2])

    def _run(self, inputs: Tensor) -> Tensor:
        _PASS.layer = self.network.get_submodule(self.layer)
        try:
            self.network(inputs)
        except _LayerReached as reached:
            output = reached.output
        else:
            raise ValueError(f"layer {self.layer!r} of {self.backbone.name!r} is never run on an image; choose another")
        finally:
            _PASS.layer = None
        if not isinstance(output, Tensor):
            raise ValueError(f"layer {self.layer!r} yields {type(output).__name__}, not one tensor; choose another")
        return output

    @torch.no_grad()
    def extract(self, stimuli: StimulusSet, batch_size: int = 32) -> Tensor:
        """Return the features of a whole stimulus set, computed in batches.

        Parameters
        ----------
        stimuli : StimulusSet
            The images.
        batch_size : int
            Images a pass.

        Returns
        -------
        Tensor, (stimulus, channel, height, width)
            Features, float32, on the extractor's device.
        """
        if not len(stimuli):
            raise ValueError("the stimulus set is empty; give at least one image")
        device = self.mean.device
        one = self(torch.from_numpy(stimuli.images([0])).to(device))
        features = torch.empty((len(stimuli), *one.shape[1:]), device=device)  # the features are never held twice

        def fill(start: int, images: Tensor) -> None:
            features[start : start + len(images)] = self(images)

        for_image_batches(fill, stimuli, batch_size, device)
        return features


def for_image_batches(
    function: Callable[[int, Tensor], Result], stimuli: StimulusSet, batch_size: int, device: torch.device
) -> list[Result]:
    """Call a function on a stimulus set in batches, without gradients, side by side on a CPU.

    Parameters
    ----------
    function : callable
        Takes the index of the first image and images (image, channel, height, width) in [0, 1].
    stimuli : StimulusSet
        The images.
    batch_size : int
        Images a batch.
    device : torch.device
        Where the images go.

    Returns
    -------
    list
        What the function returned, in the order of the images.
    """

    @torch.no_grad()
    def call(start: int) -> Result:
        index = list(range(start, min(start + batch_size, len(stimuli))))
        return function(start, torch.from_numpy(np.ascontiguousarray(stimuli.images(index))).to(device))

    return side_by_side(call, range(0, len(stimuli), batch_size), device)


def _as_map(output: Tensor, layer: str, square: bool) -> Tensor:
    if output.ndim == 4:  # Swin and ConvNeXt compute in (image, height, width, channel)
        channels_last = square and output.shape[1] == output.shape[2] != output.shape[3]
        return output.permute(0, 3, 1, 2) if channels_last else output
    if output.ndim == 2:
        return output[:, :, None, None]
    if output.ndim == 3:  # tokens of a transformer, class and register tokens first
        side = int(output.shape[1] ** 0.5)
        return output[:, output.shape[1] - side * side :].transpose(1, 2).unflatten(2, (side, side))
    raise ValueError(f"layer {layer!r} yields an array of shape {tuple(output.shape)}; expected 2, 3 or 4 axes")
