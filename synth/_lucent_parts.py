"""What `lucent_bridge` returns: an image param, a transform and an objective that run lucent's functions.

In: functions of torch-lucent, or of its kind. Out: objects with the interfaces that `engine` asks of ours. Each image
is rendered, transformed and scored alone, with random numbers of its own.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import operator
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from neural_fits._torchvision import import_torchvision
from neural_fits.backbones import Backbone
from neural_fits.features import FeatureExtractor
from synth._score_tables import Term, Terms
from synth.image_objectives import LayerUnit
from synth.objectives import Objective, SiteScale
from synth.random_streams import Streams

Image = Callable[[], Tensor]
Layers = Callable[[Any], Tensor]  # a loss, of a function from the name of a layer to its activations
#: the generators of the whole process are borrowed by one thread at a time
_BORROWED = threading.Lock()


def lucent_module(name: str) -> Any:
    """Return a module of lucent."""
    try:
        import_torchvision()
        return importlib.import_module(f"lucent.optvis.{name}")
    except ImportError as error:
        raise ImportError(
            f"lucent.optvis.{name} cannot be imported ({error}); python -m pip install "
            "'neural-population-control[lucent]' (torch-lucent; PyPI's lucent is another package)"
        ) from error


@dataclass(frozen=True)
class LucentParam:
    name: str
    param_f: Callable[..., tuple[Sequence[Tensor], Image]] = field(repr=False, compare=False)
    encode: Callable[[Tensor], Tensor] | None = field(repr=False, compare=False)

    def __call__(self, images: Tensor, statistics: object = None) -> LucentImages:
        del statistics  # lucent has its own
        return LucentImages(images, self)


class LucentImages(nn.Module):
    """Latent and images of a lucent param; the interface is that of `image_params`."""

    def __init__(self, images: Tensor, made_by: LucentParam) -> None:
        super().__init__()
        with _own_random(0, images.device):  # lucent starts from noise; here the start image is given
            params, self.image_f = made_by.param_f(batch=len(images))
        params = list(params)
        if len(params) != 1 or params[0].ndim < 1 or len(params[0]) != len(images):
            raise ValueError(
                f"lucent param {made_by.name} has tensors of shape {[tuple(each.shape) for each in params][:4]} for "
                f"{len(images)} images; expected one tensor with the image axis first, as of param.image "
                "(param.cppn shares its weights over all images)"
            )
        with torch.no_grad():
            rendered = self.image_f()
        if rendered.shape != images.shape or rendered.device != images.device:
            raise ValueError(
                f"lucent param {made_by.name} renders {tuple(rendered.shape)} on {rendered.device}, the start images "
                f"are {tuple(images.shape)} on {images.device}; give it that size, and lucent's device to the run"
            )
        inverse, self.bounded = _inverse(self.image_f) if made_by.encode is None else (made_by.encode, True)
        if inverse is None:
            raise ValueError(f"how lucent param {made_by.name} renders an image is not known; give encode=")
        self._inverse: Callable[[Tensor], Tensor] = inverse
        # The function holds this very tensor, so it must be the parameter itself and not a copy.
        params[0]._is_param = True
        self.latent: nn.Parameter = params[0]  # type: ignore[assignment]
        with torch.no_grad():
            self.latent.copy_(self.encode(images))

    def forward(self) -> Tensor:
        return self.image_f()

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        return self._inverse(images)

    @torch.no_grad()
    def project_(self, images: Tensor) -> None:
        if not self.bounded:  # else every latent renders to an image in [0, 1]
            self.latent.copy_(self.encode(images))


def _inverse(image_f: Image) -> tuple[Callable[[Tensor], Tensor] | None, bool]:
    """Return the inverse of an image function of lucent, and whether its images are always in [0, 1].

    Lucent renders ``sigmoid(C * irfft2(latent * scale) / 4)``, with the sigmoid, C or the transform left out in turn.
    """
    if not getattr(image_f, "__module__", "").startswith("lucent."):
        return None, False
    held = inspect.getclosurevars(image_f).nonlocals
    kind = image_f.__qualname__.split(".")[0]
    if kind == "pixel_image":
        return torch.clone, False
    if kind == "fft_image":
        return functools.partial(_spectrum, scale=held["scale"]), False
    if kind != "to_valid_rgb":
        return None, False
    inner, _ = _inverse(held["image_f"])
    if inner is None:
        return None, True
    color = lucent_module("param.color").color_correlation_normalized if held["decorrelate"] else np.eye(1)

    def encode(images: Tensor) -> Tensor:
        logits = images.clamp(0.004, 0.996).logit()
        unmix = torch.from_numpy(np.linalg.inv(color.astype(np.float64))).to(logits) if len(color) == 3 else None
        return inner(logits if unmix is None else torch.einsum("dc,nchw->ndhw", unmix, logits))

    return encode, True


def _spectrum(images: Tensor, scale: Tensor) -> Tensor:
    spectrum = torch.view_as_real(torch.fft.rfft2(4 * images, norm="ortho"))
    spectrum = spectrum / scale[..., : spectrum.shape[-2], :]
    # Lucent carries one frequency too many where the width is odd; it is never rendered.
    return functional.pad(spectrum, (0, 0, 0, scale.shape[-2] - spectrum.shape[-2]))


@dataclass(frozen=True)
class LucentTransforms:
    name: str
    fit: str
    transforms: tuple[Callable[[Tensor], Tensor], ...] = field(repr=False, compare=False)

    def __call__(self, images: Tensor, streams: Streams) -> Tensor:
        seeds = [a << 32 | b << 16 | c for a, b, c in streams.integers(0, 65534, 3).tolist()]
        return torch.cat([self._one(image[None], seed) for image, seed in zip(images, seeds, strict=True)])

    def _one(self, image: Tensor, seed: int) -> Tensor:
        height, width = image.shape[-2:]
        with _own_random(seed, image.device):
            for transform in self.transforms:
                image = transform(image)
        if self.fit == "crop":
            top, left = max(0, image.shape[-2] - height) // 2, max(0, image.shape[-1] - width) // 2
            image = image[..., top : top + height, left : left + width]
        if image.shape[-2:] == (height, width):
            return image
        return functional.interpolate(image, (height, width), mode="bilinear", align_corners=True)


@contextmanager
def _own_random(seed: int, device: torch.device) -> Iterator[None]:
    """Put the generators of the process at a seed, and afterwards back where they were."""
    with _BORROWED, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        kept = random.getstate(), np.random.get_state()  # noqa: NPY002
        try:
            random.seed(seed)
            own = np.random.MT19937(seed).state["state"]
            np.random.set_state(("MT19937", own["key"], own["pos"], 0, 0.0))  # noqa: NPY002
            torch.random.set_rng_state(torch.Generator().manual_seed(seed).get_state())
            if device.type == "cuda":  # the state there is seed and offset
                torch.cuda.set_rng_state(torch.tensor([seed, 0]).view(torch.uint8), device)
            yield
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])  # noqa: NPY002


@dataclass(frozen=True)
class LucentObjective(Objective):
    name: str
    network: str
    together: bool
    objective: Layers = field(repr=False, compare=False)
    taps: Taps = field(repr=False, compare=False)

    @property
    def family(self) -> str:
        return "lucent"

    @property
    def coupled(self) -> bool:
        return self.together

    def score(self, responses: Tensor, scale: SiteScale, images: Tensor | None = None) -> Tensor:
        del responses, scale
        if images is None:
            raise ValueError(f"lucent objective {self.name} looks at images; call score(responses, scale, images)")
        layers = self.taps.of(images)
        if self.together:
            return (-self.objective(layers) / len(images)).reshape(1).expand(len(images))
        alone = [functools.partial(_rows, layers, k) for k in range(len(images))]
        return torch.stack([-self.objective(layer).reshape(()) for layer in alone])


def _rows(layers: Callable[[str], Tensor], image: int, name: str) -> Tensor:
    return layers(name)[image : image + 1]


class Taps:
    """Lucent's ``T``: layers of a network by name, each computed once for some images, no hook left behind."""

    def __init__(self, backbone: Backbone, input_px: int | None = None) -> None:
        self.backbone, self.input_px = backbone, input_px
        self.names = {each.replace(".", "_"): each for each in backbone.layers()}
        self.extractors: dict[str, FeatureExtractor] = {}

    @property
    def device(self) -> torch.device:
        return next((each.device for each in self.backbone.network.parameters()), torch.device("cpu"))

    def of(self, images: Tensor) -> Callable[[str], Tensor]:
        found: dict[str, Tensor] = {"input": images}

        def layer(name: str) -> Tensor:
            if name not in found:
                found[name] = self._extractor(name, images.device)(images)
            return found[name]

        return layer

    def dotted(self, name: str) -> str:
        """Return torch's name of a layer that lucent names."""
        return self.backbone.layers()[-1] if name == "labels" else self.names.get(name, name)

    def _extractor(self, name: str, device: torch.device) -> FeatureExtractor:
        if name not in self.extractors:
            self.extractors[name] = FeatureExtractor(self.backbone, self.dotted(name), self.input_px)
        if self.extractors[name].mean.device != device:
            self.extractors[name].to(device)
        return self.extractors[name]


@dataclass(frozen=True)
class LucentUnit(Objective):
    """A lucent objective on one layer of the driver, as a further column of the responses, like a `LayerUnit`."""

    name: str
    layer: str
    objective: Layers = field(repr=False, compare=False)
    backbone: str = field(default="", init=False, repr=False)

    @property
    def family(self) -> str:
        return "lucent"

    @property
    def column(self) -> str:
        return repr(self)

    @property
    def units(self) -> tuple[Any, ...]:
        return (self,)

    def read(self, features: Tensor) -> Tensor:
        """Return minus the loss of every image alone, from the layer's features."""
        return torch.stack(
            [-self.objective(lambda _, k=k: features[k : k + 1]).reshape(()) for k in range(len(features))]
        )

    def _terms(self, scale: SiteScale) -> Terms:
        return ((1.0, Term("linear", [scale.index(self.column)])),)


def as_units(objective: Any, taps: Taps, size_px: tuple[int, int]) -> Objective | None:
    """Return the same as columns of the driver, where it is sums and multiples of objectives on one layer each."""
    function = getattr(objective, "objective_func", objective)
    if not inspect.isfunction(function) or function.__module__ != "lucent.optvis.objectives":
        return None
    held = inspect.getclosurevars(function).nonlocals
    kind = _name(function)
    if kind == "handle_batch" and held["batch"] is None:
        return _as_unit(function, held["f"], taps, size_px)
    if kind == "Objective.__mul__":
        part = as_units(held["self"], taps, size_px)
        return None if part is None else float(held["other"]) * part
    if kind in ("Objective.__add__", "Objective.sum"):
        parts = [as_units(each, taps, size_px) for each in held.get("objs", (held.get("self"), held.get("other")))]
        whole = [part for part in parts if part is not None]
        return functools.reduce(operator.add, whole) if whole and len(whole) == len(parts) else None
    return None


def _as_unit(function: Layers, inner: Any, taps: Taps, size_px: tuple[int, int]) -> Objective | None:
    kind, held = _name(inner), inspect.getclosurevars(inner).nonlocals
    if held.get("layer", "input") == "input":
        return None
    layer = taps.dotted(held["layer"])
    if kind == "channel":
        return LayerUnit(layer, int(held["n_channel"]))
    if kind != "neuron":
        return LucentUnit(describe(inner, "objective"), layer, function)
    with torch.no_grad():
        shape = taps.of(torch.full((1, 3, *size_px), 0.5, device=taps.device))(layer).shape
    x, y = (shape[axis] // 2 if held[at] is None else int(held[at]) for at, axis in (("x", 2), ("y", 3)))  # as lucent
    return LayerUnit(layer, int(held["n_channel"]), position=(y, x))


def describe(thing: Any, what: str) -> str:
    """Return what a lucent function is and holds: equal in every process, and different where it does other things."""
    if isinstance(thing, (bool, int, float, str, type(None), np.number)):
        return repr(thing)
    if isinstance(thing, (list, tuple)):
        return f"[{', '.join(describe(each, what) for each in thing)}]"
    if isinstance(thing, (Tensor, np.ndarray)):
        values = np.ascontiguousarray(thing.detach().cpu() if isinstance(thing, Tensor) else thing)
        return f"array({list(values.shape)}, {hashlib.sha256(values.tobytes()).hexdigest()[:12]})"
    if isinstance(thing, nn.Module) and not list(thing.parameters()):
        return repr(thing)
    if isinstance(thing, functools.partial):
        held = {str(k): value for k, value in enumerate(thing.args)} | thing.keywords
        return f"{describe(thing.func, what)}({', '.join(f'{k}={describe(v, what)}' for k, v in held.items())})"
    if getattr(type(thing), "__module__", "") == "lucent.optvis.objectives":
        return describe(thing.objective_func, what)
    if inspect.isfunction(thing) and thing.__module__.startswith("lucent."):
        held = dict(sorted(inspect.getclosurevars(thing).nonlocals.items()))
        return _name(thing) + (f"({', '.join(f'{k}={describe(v, what)}' for k, v in held.items())})" if held else "")
    raise ValueError(
        f"{what}: what tells {thing!r} from others cannot be seen, so its runs could not be resumed or repeated; "
        "give it a name of its own by name="
    )


def _name(function: Any) -> str:
    return str(function.__qualname__).split(".<locals>")[0]
