"""How a network is built without its weights: from a published one, or from a registered class and its configuration.

In: ``{"base": NAME}`` or ``{"architecture": NAME, "config": {...}}``, perhaps with another head. Out: an ``nn.Module``.
Used by ``saved``; a file may name only what is registered here or what `load_backbone` knows, never code.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from neural_fits import backbones
from neural_fits.backbones import Backbone
from stimuli.hints import did_you_mean

#: networks that are built from a configuration: name -> class, or "module:class" (imported when it is asked for)
ARCHITECTURES: dict[str, str | Callable[..., nn.Module]] = {
    "capsules": "neural_fits.networks.capsules:CapsuleNetwork",
    "unet": "neural_fits.networks.unet:UNet",
    "unrolled": "neural_fits.networks.unrolled:build_unrolled",
}

#: functions of torch whose first arguments are the size of a new tensor
_MADE_BY_SIZE = frozenset({torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full})
#: how torchvision builds its published networks where that is not how it builds one without weights
_PUBLISHED: dict[str, dict[str, bool]] = {
    "torchvision:googlenet": {"transform_input": True, "aux_logits": False},
    "torchvision:inception_v3": {"transform_input": True},
}


def build_network(built_from: Mapping[str, Any], limit: float = math.inf) -> nn.Module:
    """Return a network with first weights, as described; its own weights are loaded into it afterwards.

    Parameters
    ----------
    built_from : mapping
        ``{"base": NAME}`` with an embedded, ``torchvision:`` or ``timm:`` name (nothing is downloaded), or
        ``{"architecture": NAME, "config": {...}}`` with a key of `ARCHITECTURES` and the arguments of its class. With
        ``"head": LAYER, "classes": n`` that linear layer is replaced by one with n outputs.
    limit : float
        The most numbers that its tensors may hold, so that a damaged file cannot ask for all memory.

    Returns
    -------
    nn.Module
        The network, in evaluation mode. Global random generators are not moved.

    Raises
    ------
    ValueError
        For a name that is not known, or arguments that do not fit, or more weights than `limit`.

    Examples
    --------
    >>> build_network({"base": "efficientnet-lite0", "head": "classifier", "classes": 5}).classifier.out_features
    5
    """
    try:
        with torch.random.fork_rng(devices=[]), _Limited(limit):
            network = _from_architecture(built_from) if "architecture" in built_from else _from_base(built_from)
            if "head" in built_from:
                head, classes = str(built_from["head"]), int(built_from["classes"])
                swap_layer(network, head, new_head(_layer(network, head), classes))
    except (TypeError, RuntimeError, ArithmeticError, LookupError, AttributeError, AssertionError) as error:
        why = str(error).partition("\n")[0]
        raise ValueError(f"a network cannot be built from {dict(built_from)}: {why}") from error
    return network.eval()


class _Limited(TorchFunctionMode):
    """Refuses tensors before they are made, once all together would hold more numbers than allowed."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.left = limit

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _MADE_BY_SIZE:
            size = (kwargs or {}).get("size", args[0] if args and isinstance(args[0], (tuple, list)) else args)
            self.left -= math.prod(each for each in size if isinstance(each, int))
            if self.left < 0:
                raise ValueError("the network described is larger than the weights saved with it; save it again")
        return func(*args, **(kwargs or {}))


def new_head(old: nn.Module, classes: int) -> nn.Module:
    """Return a linear layer, or a 1 x 1 convolution, of zeros with as many outputs as there are classes.

    Parameters
    ----------
    old : nn.Linear or nn.Conv2d
        The layer that it replaces.
    classes : int
        Number of outputs.

    Returns
    -------
    nn.Linear or nn.Conv2d
        The layer: from zeros a classifier starts at equal chances for all classes.

    Raises
    ------
    ValueError
        When the old layer is of another kind.

    Examples
    --------
    >>> new_head(nn.Linear(8, 1000), 3)
    Linear(in_features=8, out_features=3, bias=True)
    """
    head: nn.Module
    if isinstance(old, nn.Linear):
        head = nn.utils.skip_init(nn.Linear, old.in_features, classes)
    elif isinstance(old, nn.Conv2d) and old.kernel_size == (1, 1) and old.groups == 1:
        head = nn.utils.skip_init(nn.Conv2d, old.in_channels, classes, 1)
    else:
        raise ValueError(f"the head is {type(old).__name__}; expected a linear layer or a 1 x 1 convolution")
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    return head


def swap_layer(network: nn.Module, name: str, layer: nn.Module) -> None:
    """Put another layer in the place of a named one.

    Parameters
    ----------
    network : nn.Module
        The network; it is changed.
    name : str
        Dotted name of the layer.
    layer : nn.Module
        What takes its place.

    Examples
    --------
    >>> network = nn.Sequential(nn.Linear(4, 2))
    >>> swap_layer(network, "0", nn.Linear(4, 7))
    >>> network[0].out_features
    7
    """
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, layer)


def with_weights(original: Backbone, network: nn.Module, what: str, **head: str | int) -> Backbone:
    """Return a network that was made from a known one by other weights, under a name of its own.

    Parameters
    ----------
    original : Backbone
        What it was made from.
    network : nn.Module
        The same architecture, with other weights.
    what : str
        What was done to it, for the name.
    **head : str or int
        ``head`` and ``classes`` when its last layer was replaced, see `build_network`.

    Returns
    -------
    Backbone
        ``"NAME what@HASH"``, frozen. It says how it is built when that is known; otherwise (a network of your own)
        `load_model` needs the network itself.

    Examples
    --------
    >>> original = backbones.load_backbone("efficientnet-lite0")
    >>> with_weights(original, original.network, "tuned").built_from
    {'base': 'efficientnet-lite0'}
    """
    built = original.built_from
    source = original.name.removeprefix("module:")
    if built is None and (source in backbones.EMBEDDED or source.partition(":")[0] in ("torchvision", "timm")):
        built = {"base": source}
    stem = original.name.partition("@")[0].removesuffix(f" {what}")
    made = Backbone(
        f"{stem} {what}",
        network,
        original.mean,
        original.std,
        original.input_px,
        original.fixed_size,
        built_from=None if built is None else {**built, **head},
    )
    if built is not None:
        return made
    return replace(made, name=f"{made.name}@{made._digest()}")


def _layer(network: nn.Module, name: str) -> nn.Module:
    known = [each for each, _ in network.named_modules() if each]
    if name not in known:
        raise ValueError(f"the network has no layer {name!r}; {did_you_mean(name, known)}name one of its layers")
    return network.get_submodule(name)


def _from_architecture(built_from: Mapping[str, Any]) -> nn.Module:
    name, config = built_from["architecture"], built_from.get("config", {})
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ValueError(
            f"unknown architecture {name!r}; {did_you_mean(str(name), ARCHITECTURES)}known: {', '.join(ARCHITECTURES)}"
        )
    return _made(ARCHITECTURES[name])(**config)


def _made(made: str | Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    if not isinstance(made, str):
        return made
    module, _, attribute = made.partition(":")
    found: Callable[..., nn.Module] = getattr(importlib.import_module(module), attribute)
    return found


def _from_base(built_from: Mapping[str, Any]) -> nn.Module:
    base = str(built_from["base"])
    if base in backbones.EMBEDDED:
        backbones.import_torchvision()
        import timm

        return timm.create_model(backbones.EMBEDDED[base][0], pretrained=False)
    if base.partition(":")[0] not in ("torchvision", "timm"):
        raise ValueError(
            f"a network cannot be built from base {base!r}; expected {', '.join(backbones.EMBEDDED)}, torchvision:NAME "
            "or timm:NAME"
        )
    if base in _PUBLISHED:
        backbones.import_torchvision()
        from torchvision import models

        return models.get_model(base.partition(":")[2], weights=None, init_weights=False, **_PUBLISHED[base])
    return backbones.load_backbone(base, pretrained=False).network
