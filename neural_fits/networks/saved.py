"""Networks whose weights nobody else keeps (fine-tuned, or trained here), on disk: how to build one, and its weights.

In: a `Backbone` with `built_from`. Out: a folder of ``network.json`` and ``weights.safetensors``, found again by
``load_backbone("saved:FOLDER")``. `SiteModel.save` carries the same inside a model. Nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neural_fits.backbones import Backbone, _hash_weights
from neural_fits.manifests import read_manifest, read_tensors
from neural_fits.networks.architectures import build_network
from stimuli.files import atomic_folder, made_of
from stimuli.provenance import sha256_bytes, to_jsonable

FORMAT, FORMAT_VERSION = "neural-population-control network", 1
#: numbers that a network may hold beside its saved weights, such as a head that is replaced
_SPARE = 2**24
#: whether a folder holds a saved network and nothing else, so that it may be replaced
NETWORK_FILES = made_of("network.json", "weights.safetensors")


def save_backbone(
    backbone: Backbone, folder: str | Path, overwrite: bool = False, record: Mapping[str, Any] | None = None
) -> Path:
    """Write a network to a folder: ``network.json`` and ``weights.safetensors``, whole or not at all.

    Parameters
    ----------
    backbone : Backbone
        A network that says how it is built (`built_from`).
    folder : str or Path
        Where to write.
    overwrite : bool
        Replace a saved network that is already there.
    record : mapping, optional
        What else to keep in ``network.json``, such as the names of classes.

    Returns
    -------
    Path
        The folder; ``load_backbone(f"saved:{folder}")`` reads it.

    Raises
    ------
    ValueError
        When the network does not say how it is built, or what it says builds another one.
    FileExistsError
        When something is there and `overwrite` is False, or it is not a saved network.

    Examples
    --------
    >>> import tempfile
    >>> from neural_fits.backbones import load_backbone
    >>> lite = load_backbone("efficientnet-lite0")
    >>> own = Backbone("mine", lite.network, lite.mean, lite.std, 224, built_from={"base": "efficientnet-lite0"})
    >>> with tempfile.TemporaryDirectory() as place:
    ...     load_backbone(f"saved:{save_backbone(own, place + '/net')}").name == own.name
    True
    """
    from safetensors.torch import save

    weights = save(_tensors(backbone))
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "file_sha256": sha256_bytes(weights),
        "network": _describe(backbone),
        "record": to_jsonable(dict(record or {}), "record"),
    }
    with atomic_folder(folder, overwrite, NETWORK_FILES) as target:
        (target / "weights.safetensors").write_bytes(weights)
        (target / "network.json").write_text(json.dumps(manifest, indent=1, allow_nan=False))
    return Path(folder)


def load_saved(folder: str | Path) -> Backbone:
    """Read a network written by `save_backbone`.

    Parameters
    ----------
    folder : str or Path
        The folder.

    Returns
    -------
    Backbone
        The network, frozen, with the same weights to the bit.

    Raises
    ------
    FileNotFoundError
        When there is no saved network.
    ValueError
        When a file was changed or is of a newer format.
    """
    return read_saved(folder)[0]


def read_saved(folder: str | Path) -> tuple[Backbone, dict[str, Any]]:
    """Read a network and the record kept beside it.

    Parameters
    ----------
    folder : str or Path
        The folder.

    Returns
    -------
    backbone : Backbone
        The network.
    record : dict
        What `save_backbone` was given as `record`.

    Raises
    ------
    FileNotFoundError
        When there is no saved network.
    ValueError
        When a file was changed or is of a newer format.
    """
    folder = Path(folder)
    path = folder / "network.json"
    damaged = f"{str(path)!r} does not describe a network or was damaged; save the network again"
    absent = f"there is no saved network in {str(folder)!r}: network.json is missing; write one with save_backbone"
    manifest = read_manifest(path, "network", FORMAT_VERSION, absent, damaged, FORMAT)
    tensors = read_tensors(folder / "weights.safetensors", manifest.get("file_sha256"), "network")
    try:
        return _restored(manifest["network"], tensors), dict(manifest["record"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(damaged) from error


def _describe(backbone: Backbone) -> dict[str, Any]:
    """Return what a manifest says of a network that says how it is built."""
    fields = ("name", "built_from", "weights_sha256")
    described = {name: to_jsonable(getattr(backbone, name), name) for name in fields}
    return {**described, **backbone.preprocessing()}


def _tensors(backbone: Backbone) -> dict[str, Tensor]:
    """Return the weights of a network on the CPU, after making sure that it can be built again from them."""
    if backbone.built_from is None:
        raise ValueError(
            f"backbone {backbone.name!r} does not say how it is built, so that saved weights could not be loaded; make "
            "it with Backbone(..., built_from={'base': NAME}) or register its class in ARCHITECTURES"
        )
    if _hash_weights(backbone.network) != backbone.weights_sha256:
        raise ValueError(
            f"the weights of backbone {backbone.name!r} were changed after it was made; make a new Backbone of them"
        )
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in backbone.network.state_dict().items()}
    again = build_network(backbone.built_from)
    _require_same_tensors(again, state, backbone.name)
    again.load_state_dict(state)
    wanted = _outputs(backbone.network, backbone.input_px)
    found = _outputs(again.requires_grad_(False).to(memory_format=torch.channels_last), backbone.input_px)
    for layer, output in wanted.items():
        if layer not in found or not _close(found[layer], output):
            where = f"layer {layer!r}" if layer else "the whole"
            raise ValueError(
                f"network {backbone.name!r}, built again from {dict(backbone.built_from)} with the same weights, does "
                f"something else ({where} differs): register a class that builds it in ARCHITECTURES"
            )
    return state


def _outputs(network: nn.Module, side: int) -> dict[str, Tensor]:
    """Return what every layer yields of one fixed image: an option that is not among the weights shows there."""
    outputs: dict[str, Tensor] = {}
    handles = []
    for name, module in network.named_modules():

        def keep(_module: nn.Module, _inputs: object, output: object, name: str = name) -> None:
            if isinstance(output, Tensor):
                outputs[name] = output.detach().float().cpu().clone()

        handles.append(module.register_forward_hook(keep))
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 4 - 2
    device = next((tensor.device for tensor in network.state_dict().values()), None)
    try:
        with torch.no_grad():
            network(image.to(device).contiguous(memory_format=torch.channels_last))
    except Exception:  # a network of images of another shape: what ran before is compared
        pass
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def _close(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape and torch.allclose(
        found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()) if wanted.numel() else 0.0, equal_nan=True
    )


def _restored(entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Backbone:
    """Build a network, never larger than its weights, and load them."""
    name, built_from = entry["name"], entry["built_from"]
    mean, std, input_px, fixed_size = (entry[key] for key in ("mean", "std", "input_px", "fixed_size"))
    numbers = all(isinstance(each, list) and all(isinstance(one, float) for one in each) for each in (mean, std))
    if not (numbers and isinstance(name, str) and isinstance(built_from, dict) and isinstance(fixed_size, bool)):
        raise TypeError("a field is of another kind")
    require_side(input_px)
    network = build_network(built_from, 4 * sum(tensor.numel() for tensor in tensors.values()) + _SPARE)
    _require_same_tensors(network, tensors, name)
    network.load_state_dict(dict(tensors))
    found = Backbone(name, network, tuple(mean), tuple(std), input_px, fixed_size, built_from=built_from)
    if found.weights_sha256 != entry["weights_sha256"]:
        raise ValueError(
            f"network {name!r} was saved with other weights than those that were loaded; a part of it is not in its "
            "state, or a library has changed it"
        )
    if found.name != name:
        raise ValueError(
            f"what is said of network {name!r} was changed since it was saved (mean, std, input_px, fixed_size or "
            "built_from); save it again"
        )
    return found


def require_side(side: object) -> None:
    """Refuse what is no size of an image.

    Parameters
    ----------
    side : object
        Read from a file: a size in pixels.

    Raises
    ------
    TypeError
        When it is not a whole number of at least 1.
    """
    if isinstance(side, bool) or not isinstance(side, int) or side < 1:
        raise TypeError(f"input_px is {side!r}")


def pack_networks(networks: Sequence[Backbone]) -> tuple[list[dict[str, Any]], bytes]:
    """Return what a file of another kind needs to carry networks: their descriptions, and one file of their weights.

    Parameters
    ----------
    networks : sequence of Backbone
        Networks that say how they are built; those without `built_from` are found by name and are left out.

    Returns
    -------
    descriptions : list of dict
        JSON-able, one per different network.
    weights : bytes
        A safetensors file; empty when nothing has to be carried.
    """
    from safetensors.torch import save

    own = list({backbone.name: backbone for backbone in networks if backbone.built_from is not None}.values())
    tensors = {f"{k}.{key}": value for k, each in enumerate(own) for key, value in _tensors(each).items()}
    return [_describe(backbone) for backbone in own], save(tensors) if own else b""


def unpack_networks(descriptions: Sequence[Mapping[str, Any]], tensors: Mapping[str, Tensor]) -> dict[str, Backbone]:
    """Return the networks that `pack_networks` packed, by name.

    Parameters
    ----------
    descriptions : sequence of mapping
        As packed.
    tensors : mapping of str to Tensor
        What the file of weights holds.

    Returns
    -------
    dict of Backbone
        The networks.

    Raises
    ------
    ValueError
        When weights do not fit.
    """
    found = {}
    for k, entry in enumerate(descriptions):
        own = {key.partition(".")[2]: value for key, value in tensors.items() if key.partition(".")[0] == str(k)}
        found[str(entry["name"])] = _restored(entry, own)
    return found


def _require_same_tensors(network: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    wanted = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    given = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    for key in sorted(wanted.keys() | given.keys()):
        if wanted.get(key) != given.get(key):
            raise ValueError(
                f"the weights of network {name!r} do not fit what built_from builds: {key!r} has shape "
                f"{given.get(key, 'none')}, expected {wanted.get(key, 'none')}"
            )
