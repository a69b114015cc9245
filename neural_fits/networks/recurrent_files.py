"""Recurrent sites on disk: ``recurrent.json``, ``recurrent.safetensors`` and the inputs, which are a `SiteModel`.

Whole or not at all, nothing pickled, every file checked by its hash.
"""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn

from neural_fits._scores_json import scores_from_json, scores_to_json
from neural_fits.backbones import Backbone
from neural_fits.manifests import read_manifest, read_tensors
from neural_fits.networks.recurrent import ModularRNN, Wiring
from neural_fits.networks.recurrent_sites import RecurrentSites
from neural_fits.networks.timeline import Timeline
from neural_fits.readout import LinearReadout
from neural_fits.site_info import SiteInfo
from neural_fits.site_model import SiteModel, load_model
from stimuli.files import atomic_folder, made_of
from stimuli.provenance import sha256_bytes, to_jsonable

FORMAT_VERSION = 1
_FORMAT = "neural-population-control recurrent sites"
#: whether a folder holds recurrent sites and nothing else, so that it may be replaced
RECURRENT_FILES = made_of("recurrent.json", "recurrent.safetensors", "inputs")


def save_recurrent(model: RecurrentSites, folder: str | Path, overwrite: bool = False) -> Path:
    """Write recurrent sites to a folder, whole or not at all; the weights of published networks are not copied.

    Parameters
    ----------
    model : RecurrentSites
        The model.
    folder : str or Path
        Where to write.
    overwrite : bool
        Replace such a model that is already there.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    FileExistsError
        When something is there and `overwrite` is False, or it is not such a model.
    """
    from safetensors.torch import save

    tensors = {f"network.{name}": each for name, each in model.network.state_dict().items()}
    tensors |= {f"readout.{name}": each for name, each in model.readout.state_dict().items()}
    tensors |= {"natural_mean": model.natural_mean, "natural_std": model.natural_std}
    weights = save({name: each.detach().cpu().contiguous().clone() for name, each in tensors.items()})
    manifest = {
        "format": _FORMAT,
        "format_version": FORMAT_VERSION,
        "weights_sha256": sha256_bytes(weights),
        "wiring": to_jsonable(model.network.wiring),
        "tau_ms": model.network.tau_ms,
        "timeline": to_jsonable(model.timeline),
        "info": to_jsonable(model.info),
        "scores": scores_to_json(model.scores),
        "provenance": to_jsonable(model.provenance),
    }
    with atomic_folder(folder, overwrite, RECURRENT_FILES) as target:
        (target / "recurrent.safetensors").write_bytes(weights)
        (target / "recurrent.json").write_text(json.dumps(manifest, indent=1, allow_nan=False))
        model.inputs.save(target / "inputs")
    return Path(folder)


def load_recurrent(folder: str | Path, backbones: dict[str, nn.Module | Backbone] | None = None) -> RecurrentSites:
    """Load a model written by `RecurrentSites.save`.

    Parameters
    ----------
    folder : str or Path
        The folder.
    backbones : dict, optional
        Your own networks by name, as for `load_model`.

    Returns
    -------
    RecurrentSites
        The model, with the same predictions.

    Raises
    ------
    FileNotFoundError
        When there is no such model.
    ValueError
        When a file was changed, is of a newer format, or a backbone is missing or has other weights.
    """
    path = Path(folder) / "recurrent.json"
    absent = f"there are no recurrent sites in {str(folder)!r}: recurrent.json is missing; write them with save"
    damaged = f"{str(path)!r} does not describe recurrent sites or was damaged; fit again"
    manifest = read_manifest(path, "model", FORMAT_VERSION, absent, damaged)
    tensors = read_tensors(Path(folder) / "recurrent.safetensors", manifest.get("weights_sha256"), "model")
    inputs = load_model(Path(folder) / "inputs", backbones)
    try:
        wiring, timeline = Wiring(**manifest["wiring"]), Timeline(**manifest["timeline"])
        network = ModularRNN(wiring, tensors["network.inputs"].shape[1], manifest["tau_ms"])
        held = {name.removeprefix("network."): each for name, each in tensors.items() if name.startswith("network.")}
        network.load_state_dict(held)
        info = SiteInfo.from_json(manifest["info"])
        readout = LinearReadout(tensors["readout.weight"], tensors["readout.bias"])
        statistics = tensors["natural_mean"], tensors["natural_std"]
        scores = scores_from_json(manifest["scores"])
        if not isinstance(inputs, SiteModel):
            raise TypeError("the inputs are an ensemble")
        return RecurrentSites(
            inputs, network, readout, timeline, info, *statistics, scores=scores, provenance=manifest["provenance"]
        )
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(damaged) from error
