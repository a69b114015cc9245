"""What drives the images: a fitted model, or a bare network, as one map from images to named response columns.

In: a `SiteModel`, `Ensemble` or `FeatureExtractor`, and objectives. Out: a `Driver`, whose columns are the sites and
the layer units that the objectives ask for. Made by `synthesize`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neural_fits.features import FeatureExtractor
from neural_fits.site_model import Ensemble, SiteModel
from stimuli.hints import did_you_mean
from synth.image_objectives import LayerUnit
from synth.objectives import Objective, SiteScale


class _Columns(nn.Module):
    """Site responses followed by the responses of layer units."""

    def __init__(self, model: SiteModel | Ensemble | None, taps: nn.ModuleList, units: list[list[LayerUnit]]) -> None:
        super().__init__()
        self.model, self.taps, self.units = model, taps, units
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return responses (image, site and unit)."""
        found = [] if self.model is None else [self.model(images)]
        for tap, units in zip(self.taps, self.units, strict=True):
            features = tap(images)
            found += [unit.read(features)[:, None] for unit in units]
        return torch.cat(found, 1) if found else images.new_zeros(len(images), 0)


@dataclass(frozen=True, eq=False)
class Driver:
    """A network with named outputs, and the images that it takes.

    Parameters
    ----------
    network : nn.Module
        Images (image, channel, height, width) in [0, 1] to responses (image, column); frozen.
    scale : SiteScale
        Names and natural statistics of the columns; layer units have mean 0 and standard deviation 1.
    size_px : tuple of int
        Height and width of the images.
    size_deg : float
        Their width in degrees of visual angle.
    channels : int
        1 or 3.
    inputs : dict
        Hashes of what it was fitted on.
    """

    network: nn.Module
    scale: SiteScale
    size_px: tuple[int, int]
    size_deg: float
    channels: int
    inputs: dict[str, str]

    def to(self, device: torch.device) -> Driver:
        """Return the driver on a device; its network is moved there.

        Parameters
        ----------
        device : torch.device
            The device.

        Returns
        -------
        Driver
            The driver.
        """
        return dataclasses.replace(self, network=self.network.to(device), scale=self.scale.to(device))

    def sha256(self) -> str:
        """Return a hash of all that decides the responses and their scale.

        Returns
        -------
        str
            SHA-256 over weights, preprocessing, layers, and the columns' names and statistics.
        """
        digest = hashlib.sha256(repr(self.scale.site_ids).encode())
        for module in self.network.modules():
            if isinstance(module, FeatureExtractor):
                digest.update(f"{module.layers_read} {module.input_px}".encode())
        held = [*self.network.named_parameters(), *self.network.named_buffers()]
        for name, tensor in (*held, ("mean", self.scale.mean), ("std", self.scale.std)):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def driver_of(
    model: SiteModel | Ensemble | FeatureExtractor, objectives: Sequence[Objective], device: torch.device
) -> Driver:
    """Return what drives the images.

    Parameters
    ----------
    model : SiteModel, Ensemble or FeatureExtractor
        A fitted model, or a bare network for objectives on layer units alone; moved to the device.
    objectives : sequence of Objective
        What is asked; the layer units among them become columns.
    device : torch.device
        Where the work is done.

    Returns
    -------
    Driver
        The driver.

    Raises
    ------
    TypeError
        For another kind of model.
    ValueError
        For a site, layer, channel or network that is not there; the closest name is suggested.

    Examples
    --------
    >>> bare = FeatureExtractor("efficientnet-lite0", "blocks.2", input_px=64)
    >>> driver_of(bare, [LayerUnit("blocks.2", 5)], torch.device("cpu")).scale.site_ids
    ('blocks.2[5]',)
    """
    if not isinstance(model, (SiteModel, Ensemble, FeatureExtractor)):
        raise TypeError(f"the model is {type(model).__name__}; expected a SiteModel, an Ensemble or a FeatureExtractor")
    model.to(device)
    wanted = list(dict.fromkeys(unit for objective in objectives for unit in objective.units))
    fitted = None if isinstance(model, FeatureExtractor) else model
    extractors = [model] if isinstance(model, FeatureExtractor) else _extractors(model)
    by_layer: dict[tuple[str, str], list[LayerUnit]] = {}
    for unit in wanted:
        by_layer.setdefault((unit.backbone, unit.layer), []).append(unit)
    taps = nn.ModuleList(
        FeatureExtractor(read.backbone, layer, read.input_px)
        for name, layer in by_layer
        for read in [_extractor(name, extractors)]
    ).to(device)
    units = list(by_layer.values())
    info: Any = None if fitted is None else fitted.info
    if info is None:
        side = extractors[0].input_px or extractors[0].backbone.input_px
        size_px, size_deg, channels = (side, side), 8.0, 3
    else:
        size_px, size_deg, channels = info.size_px, info.size_deg, info.channels
    scale = SiteScale((), *(torch.zeros(0, device=device),) * 2) if fitted is None else SiteScale.of(fitted, device)
    scale = scale.with_units([unit for group in units for unit in group])
    driver = Driver(
        _Columns(fitted, taps, units) if units or fitted is None else fitted,
        scale,
        size_px,
        size_deg,
        channels,
        {} if fitted is None else {str(k): str(v) for k, v in fitted.provenance.get("inputs", {}).items()},
    )
    _try_out(driver, objectives, device)
    return driver


def _extractors(model: SiteModel | Ensemble) -> list[FeatureExtractor]:
    members = model.members if isinstance(model, Ensemble) else [model]
    return [each.extractor for each in members]  # type: ignore[misc]


def _extractor(name: str, extractors: Sequence[FeatureExtractor]) -> FeatureExtractor:
    known = {extractor.backbone.name: extractor for extractor in reversed(extractors)}  # the first of a name counts
    if not name:
        return extractors[0]
    if name not in known:
        raise ValueError(f"the model has no network {name!r}; {did_you_mean(name, known)}known: {', '.join(known)}")
    return known[name]


@torch.no_grad()
def _try_out(driver: Driver, objectives: Sequence[Objective], device: torch.device) -> None:
    """Score gray images once: a misspelt site or a missing channel shows here, not after an hour."""
    images = torch.full((2, driver.channels, *driver.size_px), 0.5, device=device)
    responses = driver.network(images)
    for objective in objectives:
        score = objective.score(responses, driver.scale, images)
        if not isinstance(score, Tensor) or score.shape != (2,):
            got = f"shape {tuple(score.shape)}" if isinstance(score, Tensor) else type(score).__name__
            raise ValueError(f"the score of {objective!r} on 2 images is of {got}; expected one number per image")
