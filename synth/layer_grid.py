"""What the channels of a layer look for: a maximizing image for each, with the natural images that drive it best.

In: a network and a layer; no recordings, no fit. Out: a `LayerGrid` with its stimulus set, and a PNG of one or several
layers. Built on `synthesize` and `LayerUnit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neural_fits.backbones import Backbone, load_backbone
from neural_fits.features import FeatureExtractor, for_image_batches
from stimuli import StimulusSet
from synth._layer_grid_picture import draw_grids
from synth.engine import Progress
from synth.image_objectives import LayerUnit
from synth.recipes import SynthesisConfig
from synth.recipes import recipe as named
from synth.synthesis import Synthesis
from synth.synthesize import synthesize

#: from faint noise, so that nothing of a photograph is left in what a channel looks for
FILTERS = named("robust", start="pink", steps=150)


@dataclass(frozen=True, eq=False)
class LayerGrid:
    """Maximizing images of the units of one layer.

    Parameters
    ----------
    layer : str
        Name of the layer.
    units : tuple of LayerUnit
        What each image was made for.
    map_size : tuple of int
        Rows and columns of the layer's map.
    synthesis : Synthesis
        The images, in the order of the units; the columns ``layer``, ``channel``, ``row`` and ``column`` (-1 for the
        mean over the map), ``activation`` of the 8-bit image, and with natural images ``natural_best``, the name of the
        best, and ``natural_activation``.
    natural : StimulusSet, optional
        The natural images.
    nearest : ndarray, (unit, rank)
        Places of the natural images that drive each unit best in their set, best first.
    nearest_activations : ndarray, (unit, rank)
        Their activations.
    """

    layer: str
    units: tuple[LayerUnit, ...]
    map_size: tuple[int, int]
    synthesis: Synthesis
    natural: StimulusSet | None
    nearest: NDArray[np.intp]
    nearest_activations: NDArray[np.float32]

    @property
    def activations(self) -> NDArray[np.float64]:
        """Activation of every unit by its own image, as saved in 8 bits."""
        return self.synthesis.stimuli.table["activation"].to_numpy(float)

    def png(self, title: str = "", columns: int = 8) -> bytes:
        """Draw the grid; see `grids_png`.

        Parameters
        ----------
        title : str
            Heading; by default the network's layer.
        columns : int
            Units beside each other.

        Returns
        -------
        bytes
            A PNG.
        """
        return grids_png([self], title or f"What drives the channels of {self.layer}", columns)

    def _repr_png_(self) -> bytes:
        return self.png()


def layer_grid(
    backbone: str | nn.Module | Backbone,
    layer: str,
    channels: int | Sequence[int | LayerUnit] | None = None,
    *,
    size_px: int = 128,
    natural: StimulusSet | None = None,
    top: int = 4,
    seed: int = 0,
    recipe: str | SynthesisConfig = FILTERS,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> LayerGrid:
    """Synthesize an image for every channel of a layer: ``x* = argmax_x mean_xy f_k(x)``.

    Of the layer that yields class scores, such as ``"classifier"``, these are the class images of Simonyan, Vedaldi &
    Zisserman 2013 (section 2); what keeps an image natural is the recipe here, the norm of the image there.

    Parameters
    ----------
    backbone : str, nn.Module or Backbone
        As for `load_backbone`.
    layer : str
        Dotted name of the layer.
    channels : int or sequence, optional
        The first so many channels, or these: numbers, or `LayerUnit` for one position of the map. All by default, which
        takes a while in deep layers.
    size_px : int
        Side of the images; networks of one fixed size take their own.
    natural : StimulusSet, optional
        Natural images, resized to the same side, among which the best for each unit are found.
    top : int
        Number of natural images kept for each unit; of sets with a column ``photograph``, one crop of each photograph.
    seed : int
        Seed of the start images.
    recipe : str or SynthesisConfig
        How the images are made; by default ``recipe("robust", start="pink", steps=150)``.
    device : str or torch.device, optional
        Where to work; the best there is by default.
    progress : callable, optional
        Called after images are done, as by `synthesize`.

    Returns
    -------
    LayerGrid
        Images, activations and natural images.

    Raises
    ------
    ValueError
        For an unknown layer or channel, no channel at all, or `top` below 1.
    TypeError
        When `natural` is no StimulusSet.

    Examples
    --------
    >>> quick = layer_grid("efficientnet-lite0", "blocks.1", 2, size_px=32, recipe=SynthesisConfig(steps=2))
    >>> quick.synthesis.stimuli.table["channel"].tolist(), quick.map_size
    ([0, 1], (8, 8))
    """
    if top < 1:
        raise ValueError(f"top is {top}; keep at least 1 natural image, or give none")
    if natural is not None and not isinstance(natural, StimulusSet):
        raise TypeError(
            f"natural is a {type(natural).__name__}; expected a StimulusSet, such as "
            "StimulusSet.from_arrays(images, size_deg=8.0)"
        )
    network = load_backbone(backbone)
    side = network.input_px if network.fixed_size else size_px
    extractor = FeatureExtractor(network, layer, input_px=side)
    with torch.no_grad():
        count, rows, columns = extractor(extractor.mean.new_zeros(1, 3, side, side)).shape[1:]
    units = _units(layer, channels, count)
    made = synthesize(extractor, units, seeds=[seed], recipe=recipe, device=device, progress=progress)
    reached = _activations(extractor, units, made.stimuli).diagonal()
    places = [unit.position or (-1, -1) for unit in units]
    told: dict[str, object] = {
        "layer": layer,
        "channel": [unit.channel for unit in units],
        "row": [place[0] for place in places],
        "column": [place[1] for place in places],
        "activation": reached.tolist(),
    }
    nearest, best = np.zeros((len(units), 0), np.intp), np.zeros((len(units), 0), np.float32)
    if natural is not None:
        natural_activations = _activations(extractor, units, natural)
        nearest = _best_places(natural_activations, natural, top)
        best = np.take_along_axis(natural_activations.T, nearest, 1)
        told["natural_best"] = [natural.stimulus_ids[place] for place in nearest[:, 0]]
        told["natural_activation"] = best[:, 0].tolist()
    made = replace(made, stimuli=made.stimuli.with_columns(**told))
    return LayerGrid(layer, tuple(units), (rows, columns), made, natural, nearest, best)


def grids_png(grids: Sequence[LayerGrid], title: str = "", columns: int = 8) -> bytes:
    """Draw layers below each other: every unit's image, under it the natural images that drive it best.

    Below an image stands the activation that it reached, and how many times that of the best natural image it is. For
    one position of the map, marks at the upper and left edge point at it.

    Parameters
    ----------
    grids : sequence of LayerGrid
        The layers.
    title : str
        Heading.
    columns : int
        Units beside each other.

    Returns
    -------
    bytes
        A PNG, 9 inches wide at 150 dots an inch.

    Raises
    ------
    ValueError
        When there is nothing to draw.
    """
    if not grids or columns < 1:
        raise ValueError(f"{len(grids)} grids in {columns} columns; give at least one of each")
    return draw_grids(grids, title, columns)


def _units(layer: str, channels: int | Sequence[int | LayerUnit] | None, count: int) -> list[LayerUnit]:
    if channels is None or isinstance(channels, int):
        if channels is not None and not 1 <= channels <= count:
            raise ValueError(f"layer {layer!r} has {count} channels, the first {channels} were asked; ask 1 to {count}")
        channels = range(count if channels is None else channels)
    units = [each if isinstance(each, LayerUnit) else LayerUnit(layer, each) for each in channels]
    if not units:
        raise ValueError("no channel was given; give at least one, or a number of channels")
    if wrong := [unit for unit in units if unit.layer != layer]:
        raise ValueError(f"{wrong[0]!r} is of another layer than {layer!r}; draw one grid a layer")
    return units


def _best_places(activations: NDArray[np.float32], natural: StimulusSet, top: int) -> NDArray[np.intp]:
    """Return the places of the best natural images (unit, rank), crops of one photograph only once."""
    table = natural.table
    origin = table["photograph" if "photograph" in table else "stimulus_id"].astype(str).to_numpy()
    kept = min(top, len(set(origin)))
    order = np.argsort(-activations, axis=0, kind="stable").T
    first = [np.sort(np.unique(origin[row], return_index=True)[1])[:kept] for row in order]
    return np.stack([row[places] for row, places in zip(order, first, strict=True)])


def _activations(extractor: FeatureExtractor, units: Sequence[LayerUnit], stimuli: StimulusSet) -> NDArray[np.float32]:
    """Return the activation of every unit (image, unit), without keeping any map."""

    def read(_: int, images: Tensor) -> NDArray[np.float32]:
        maps = extractor(images)
        return torch.stack([unit.read(maps) for unit in units], 1).cpu().numpy()

    return np.concatenate(for_image_batches(read, stimuli, 32, extractor.mean.device))
