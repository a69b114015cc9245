"""From images in [0, 1] to the activations of one or several layers, computing nothing beyond the deepest of them.

In: a `Backbone`, names of layers, images of any size. Out: features (image, channel, height, width).
Size, color and mean/std of a network live here and nowhere else. Used by every readout and by the synthesis loop.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from neural_fits._feature_maps import as_map, is_channels_last
from neural_fits.backbones import Backbone, load_backbone
from neural_fits.parallel import side_by_side
from stimuli import StimulusSet
from stimuli.hints import did_you_mean

Result = TypeVar("Result")
#: `reading` is the pass now under way in each thread, if any
_PASS = threading.local()
_REGISTERING = threading.Lock()


class _AllRead(Exception):
    """Raised by the hook of the layer that fires last, so that nothing after it is computed."""


class _Pass:
    """What one forward pass has to read, and what it has read so far."""

    def __init__(self, wanted: Sequence[nn.Module]) -> None:
        self.wanted = wanted
        self.outputs: dict[nn.Module, object] = {}


def _read_layer(module: nn.Module, _inputs: object, output: object) -> None:
    """Do nothing, but in a pass that reads this layer: one inert hook stays, so threads never change a network."""
    reading: _Pass | None = getattr(_PASS, "reading", None)
    if reading is None or module not in reading.wanted or module in reading.outputs:
        return
    reading.outputs[module] = output
    if len(reading.outputs) == len(reading.wanted):
        raise _AllRead
    if isinstance(output, Tensor):  # what follows may change it in place
        reading.outputs[module] = output.clone()


class FeatureExtractor(nn.Module):
    """Activations of one or several layers of a frozen network, truncated exactly at the deepest of them.

    ``features = layer((resize(image) - mean) / std)``; a forward hook ends the pass at the layer, so the later layers
    cost nothing, whatever the architecture. Gradients flow to the images and never to the weights.

    Several layers are read in one pass. Each map is brought to the smallest height and the smallest width among them
    by averaging over areas, and they are joined along the channels in the order given; a layer without space
    (height = width = 1) therefore takes the space from all of them.

    Parameters
    ----------
    backbone : str, nn.Module or Backbone
        As for `load_backbone`.
    layer : str or sequence of str
        Dotted name of the layer, for example ``"blocks.4"``, or several of them; see `layers`. The attribute ``layer``
        keeps the name or the tuple of names, ``layers_read`` is always a tuple.
    input_px : int, optional
        Side in pixels to which images are resized (bilinear, antialiased). By default images enter as they are, except
        for networks with one fixed size.

    Raises
    ------
    ValueError
        When the layer does not exist (the closest name is suggested), or is not reached, or yields no feature map; when
        no layer is given, or one twice.

    Examples
    --------
    >>> FeatureExtractor("efficientnet-lite0", "blocks.2")(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 40, 8, 8])
    >>> FeatureExtractor("efficientnet-lite0", ["blocks.1", "blocks.2"])(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 64, 8, 8])
    """

    def __init__(
        self, backbone: str | nn.Module | Backbone, layer: str | Sequence[str], input_px: int | None = None
    ) -> None:
        super().__init__()
        self.backbone = load_backbone(backbone)
        self.network = self.backbone.network
        self.layer: str | tuple[str, ...] = layer if isinstance(layer, str) else tuple(layer)
        self.layers_read: tuple[str, ...] = (layer,) if isinstance(layer, str) else tuple(layer)
        self.input_px = input_px if input_px is not None or not self.backbone.fixed_size else self.backbone.input_px
        self._channels_last: dict[str, bool] = {}
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(self.backbone.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self.backbone.std).view(1, 3, 1, 1), persistent=False)
        _check_layers(self.layers_read, self.backbone)
        with _REGISTERING:
            for name in self.layers_read:
                module = self.network.get_submodule(name)
                if _read_layer not in module._forward_hooks.values():
                    module.register_forward_hook(_read_layer)

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
        """Return the activations of the layer, or of all layers joined along the channels.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Values in [0, 1]; one channel (gray) or three (RGB).

        Returns
        -------
        Tensor, (image, channel, height, width)
            Activations; layers without space have height = width = 1, tokens of a transformer stand on their grid.
        """
        inputs = self.network_input(images)
        outputs = self._run(inputs)
        maps = [self._map(name, output, (inputs.shape[-2], inputs.shape[-1])) for name, output in outputs.items()]
        if len(maps) == 1:
            return maps[0]
        size = min(each.shape[-2] for each in maps), min(each.shape[-1] for each in maps)
        return torch.cat([_averaged(each, size) for each in maps], 1)

    def network_input(self, images: Tensor) -> Tensor:
        """Return images as the network takes them: in color, resized, normalized.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Values in [0, 1]; one channel (gray) or three (RGB).

        Returns
        -------
        Tensor, (image, 3, height, width)
            What enters the network.

        Raises
        ------
        ValueError
            For an array of another shape.
        """
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"images have shape {tuple(images.shape)}; expected (image, channel, height, width), 1 or 3 channels"
            )
        images = resized(images.expand(-1, 3, -1, -1), self.input_px)
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def _run(self, inputs: Tensor) -> dict[str, object]:
        """Return the outputs of the layers in the order asked, whatever the order in which they fire."""
        modules = {name: self.network.get_submodule(name) for name in self.layers_read}
        outer = getattr(_PASS, "reading", None)  # a network may itself hold an extractor, as a simulated brain does
        _PASS.reading = reading = _Pass(list(modules.values()))
        try:
            self.network(inputs)
        except _AllRead:
            return {name: reading.outputs[module] for name, module in modules.items()}
        finally:
            _PASS.reading = outer
        missed = next(name for name, module in modules.items() if module not in reading.outputs)
        raise ValueError(f"layer {missed!r} of {self.backbone.name!r} is never run on an image; choose another")

    def _map(self, name: str, output: object, size: tuple[int, int]) -> Tensor:
        if not isinstance(output, Tensor):
            raise ValueError(f"layer {name!r} yields {type(output).__name__}, not one tensor; choose another")
        found = as_map(output, name, size, self.network.get_submodule(name))
        if found is not None:
            return found
        if name not in self._channels_last:  # channel, height and width alike: an image twice as wide tells them apart
            with torch.no_grad():
                wider = self._run(self.mean.expand(1, 3, size[0], 2 * size[1]))[name]
            self._channels_last[name] = isinstance(wider, Tensor) and is_channels_last(output, wider)
        return output.permute(0, 3, 1, 2) if self._channels_last[name] else output

    @torch.no_grad()
    def extract(
        self, stimuli: StimulusSet, batch_size: int = 32, cache: str | os.PathLike[str] | None = None
    ) -> Tensor:
        """Return the features of a whole stimulus set, computed in batches.

        Parameters
        ----------
        stimuli : StimulusSet
            The images.
        batch_size : int
            Images a pass.
        cache : path, optional
            Folder in which features are kept between calls; see `cache_features`.

        Returns
        -------
        Tensor, (stimulus, channel, height, width)
            Features, float32, on the extractor's device.
        """
        if not len(stimuli):
            raise ValueError("the stimulus set is empty; give at least one image")
        if cache is not None:
            from neural_fits.feature_cache import cached_features

            return cached_features(self, stimuli, cache, batch_size)
        device = self.mean.device
        one = self(torch.from_numpy(stimuli.images([0])).to(device))
        features = torch.empty((len(stimuli), *one.shape[1:]), device=device)  # the features are never held twice

        def fill(start: int, images: Tensor) -> None:
            features[start : start + len(images)] = self(images)

        for_image_batches(fill, stimuli, batch_size, device)
        return features


def resized(images: Tensor, side: int | None) -> Tensor:
    """Return images at the size that a network takes.

    Parameters
    ----------
    images : Tensor, (image, channel, height, width)
        The images.
    side : int or None
        Height and width in pixels; None leaves them as they are.

    Returns
    -------
    Tensor, (image, channel, height, width)
        Resized images, bilinear and antialiased.
    """
    if side is None or images.shape[-2:] == (side, side):
        return images
    return functional.interpolate(images, (side, side), mode="bilinear", antialias=True, align_corners=False)


def _averaged(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Return averages over equal areas; the gradient of the general case is not the same at every run on a GPU."""
    height, width = features.shape[-2:]
    if (height, width) == size:
        return features
    if height % size[0] or width % size[1]:
        return functional.adaptive_avg_pool2d(features, size)
    return functional.avg_pool2d(features, (height // size[0], width // size[1]))


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


def feature_positions(extractor: FeatureExtractor, size_px: tuple[int, int], size_deg: float) -> NDArray[np.float64]:
    """Return where each position of the feature map is centered, in degrees of visual angle.

    Positions are taken to tile the image evenly, ``x_j = ((j + 1/2) / columns - 1/2) size_deg``, which holds for
    networks that pad every layer to keep its size ("same") and for patches of a transformer. A network that does not
    pad sees less of the border than this says. Resizing to ``input_px`` changes the number of positions, not the
    degrees that the image covers.

    Parameters
    ----------
    extractor : FeatureExtractor
        The features.
    size_px : tuple of int
        Height and width of the images that enter the extractor.
    size_deg : float
        Width of the images on the screen in degrees of visual angle, as in `StimulusSet`; pixels are square.

    Returns
    -------
    ndarray, (height, width, 2)
        x (to the right) and y (upward) of every position, from the center of the image.

    Examples
    --------
    >>> extractor = FeatureExtractor("efficientnet-lite0", "blocks.2")
    >>> feature_positions(extractor, (64, 64), size_deg=8.0)[0, 0].tolist()
    [-3.5, 3.5]
    """
    height_px, width_px = size_px
    with torch.no_grad():
        rows, columns = extractor(extractor.mean.new_zeros(1, 3, height_px, width_px)).shape[-2:]
    x = ((np.arange(columns) + 0.5) / columns - 0.5) * size_deg
    y = (0.5 - (np.arange(rows) + 0.5) / rows) * (size_deg * height_px / width_px)
    return np.stack(np.meshgrid(x, y), axis=-1)


def _check_layers(names: Sequence[str], backbone: Backbone) -> None:
    if not names:
        raise ValueError("no layer was given; name at least one, for example 'blocks.4'")
    known = backbone.layers()
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"a layer is {name!r}; give the dotted name of a layer, or a sequence of names")
        if name not in known:
            raise ValueError(
                f"backbone {backbone.name!r} has no layer {name!r}; {did_you_mean(name, known)}"
                f"its outermost layers are: {', '.join(each for each in known if each.count('.') == 0)}"
            )
    if len(set(names)) != len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise ValueError(f"layer {twice!r} is asked twice; name each layer once")
