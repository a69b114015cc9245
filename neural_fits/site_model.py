"""A fitted model of recorded sites: images in, responses out, in the recording's own unit.

In: a `FeatureExtractor` and a `LinearReadout`. Out: an ``nn.Module`` that maps images (image, channel, height, width)
in [0, 1] to responses (image, site). `Ensemble` averages several. Made by `fit_sites`, driven by `synthesize`.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from neural_fits._scores_json import scores_from_json, scores_to_json
from neural_fits.backbones import Backbone
from neural_fits.features import FeatureExtractor, for_image_batches
from neural_fits.image_size import require_image_size, require_size_px
from neural_fits.manifests import read_manifest, read_tensors
from neural_fits.networks.saved import pack_networks, unpack_networks
from neural_fits.readout import LinearReadout
from neural_fits.site_info import SiteInfo
from stimuli import StimulusSet
from stimuli.files import atomic_folder, made_of
from stimuli.provenance import sha256_bytes, to_jsonable

FORMAT_VERSION = 2  # 2 carries the weights of networks that nobody else keeps; models without such still write 1
#: whether a folder holds a model and nothing else, so that it may be replaced
MODEL_FILES = made_of("model.json", "weights.safetensors", "networks.safetensors", "scores.csv", "sites.png")


class _Predictor(nn.Module):
    """What a single model and an ensemble share."""

    info: SiteInfo
    scores: pd.DataFrame | None
    provenance: dict[str, Any]

    @property
    def site_ids(self) -> tuple[str, ...]:
        """Names of the sites, in the order of the responses."""
        return self.info.site_ids

    def predict(self, stimuli: StimulusSet, batch_size: int = 32) -> np.ndarray:
        """Return the predicted responses to a stimulus set.

        Parameters
        ----------
        stimuli : StimulusSet
            Images of the size, in pixels and degrees, that the model was fitted on.
        batch_size : int
            Images a pass.

        Returns
        -------
        ndarray, (stimulus, site)
            Responses in the recording's unit, float32.

        Raises
        ------
        ValueError
            For images of another size.
        """
        require_image_size(stimuli, self.info.size_px, self.info.size_deg)
        device = next(self.buffers()).device
        parts = for_image_batches(lambda _, images: self(images).cpu().numpy(), stimuli, batch_size, device)
        return np.concatenate(parts)

    def held_out_scores(self) -> pd.DataFrame:
        """Return the cross-validated scores.

        Returns
        -------
        DataFrame
            One row a site: r, reliability, explained variance, number of stimuli.

        Raises
        ------
        ValueError
            When the model was never scored.
        """
        if self.scores is None:
            raise ValueError(f"{self!r} was never scored on held-out images; fit it by fit_sites")
        return self.scores

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Write the model to a folder: ``model.json`` and ``weights.safetensors``, whole or not at all.

        The weights of published backbones are not copied; their names and hashes are kept and checked on loading. Those
        of fine-tuned networks, or of networks trained here (`Backbone.built_from`), go to ``networks.safetensors``.

        Parameters
        ----------
        folder : str or Path
            Where to write.
        overwrite : bool
            Replace a model that is already there.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        FileExistsError
            When something is there and `overwrite` is False, or it is not a model.
        """
        from safetensors.torch import save

        members = self._members()
        known: dict[str, tuple[object, ...]] = {}
        for backbone in (member.extractor.backbone for member in members):
            what = backbone.weights_sha256, backbone.preprocessing()
            if known.setdefault(backbone.name, what) != what:
                raise ValueError(
                    f"two networks are both called {backbone.name!r}, which a loaded model could not tell apart; "
                    "name them by Backbone(name, network) and fit again"
                )
        tensors = {
            f"{k}.{name}": tensor.detach().cpu().contiguous()
            for k, member in enumerate(members)
            for name, tensor in (("weight", member.readout.weight), ("bias", member.readout.bias))
        }
        weights = save(tensors)
        networks, own_weights = pack_networks([member.extractor.backbone for member in members])
        carried = {"networks": networks, "networks_sha256": sha256_bytes(own_weights)} if networks else {}
        manifest = {
            "format": "neural-population-control model",
            "format_version": FORMAT_VERSION if carried else 1,
            **carried,
            "ensemble": isinstance(self, Ensemble),
            "weights_sha256": sha256_bytes(weights),
            "members": [member._describe() for member in members],
            "scores": scores_to_json(self.scores),
            "provenance": to_jsonable(self.provenance),
        }
        with atomic_folder(folder, overwrite, MODEL_FILES) as target:
            (target / "weights.safetensors").write_bytes(weights)
            if carried:
                (target / "networks.safetensors").write_bytes(own_weights)
            (target / "model.json").write_text(json.dumps(manifest, indent=1, allow_nan=False))
        return Path(folder)

    def _members(self) -> list[SiteModel]:
        raise NotImplementedError

    def _repr_html_(self) -> str:
        head = f"<p><b>{html.escape(repr(self))}</b></p>"
        return head if self.scores is None else head + self.scores.head(8).round(3).to_html()


class SiteModel(_Predictor):
    """Predicted responses of sites: ``y = readout(layer(image))``.

    Parameters
    ----------
    extractor : FeatureExtractor
        Truncated network.
    readout : LinearReadout
        Fitted weights.
    info : SiteInfo
        Names, statistics and units.
    scores : DataFrame, optional
        Cross-validated scores, one row a site.
    provenance : dict, optional
        How it was fitted.

    Examples
    --------
    >>> extractor = FeatureExtractor("efficientnet-lite0", "blocks.2")
    >>> readout = LinearReadout(torch.zeros(1, 40, 8, 8), torch.ones(1))
    >>> model = SiteModel(extractor, readout, SiteInfo(("a",), (1.0,), (1.0,), (64, 64), 8.0, "spikes"))
    >>> model(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 1])
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        readout: LinearReadout,
        info: SiteInfo,
        scores: pd.DataFrame | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if len(readout.bias) != len(info.site_ids):
            raise ValueError(f"the readout has {len(readout.bias)} sites, {len(info.site_ids)} ids were given")
        self.extractor, self.readout, self.info, self.scores = extractor, readout, info, scores
        self.provenance = provenance or {}
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the responses to images.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Values in [0, 1], of the size the model was fitted on.

        Returns
        -------
        Tensor, (image, site)
            Responses in the recording's unit.

        Raises
        ------
        ValueError
            For images of another size.
        """
        require_size_px((images.shape[-2], images.shape[-1]), self.info.size_px)
        return self.readout(self.extractor(images))

    def _members(self) -> list[SiteModel]:
        return [self]

    def _describe(self) -> dict[str, Any]:
        return {
            "backbone": self.extractor.backbone.name,
            "backbone_sha256": self.extractor.backbone.weights_sha256,
            "preprocessing": self.extractor.backbone.preprocessing(),
            "layer": self.extractor.layer,
            "input_px": self.extractor.input_px,
            "info": to_jsonable(self.info),
            "scores": scores_to_json(self.scores),
            "provenance": to_jsonable(self.provenance),
        }

    def __repr__(self) -> str:
        height, width = self.info.size_px
        read = f"{self.extractor.backbone.name} {'+'.join(self.extractor.layers_read)}"
        return f"SiteModel({len(self.site_ids)} sites, {read}, {height} x {width} px, unit {self.info.unit!r})"


class Ensemble(_Predictor):
    """The mean of several models of the same sites: ``y = mean_k y_k``.

    Parameters
    ----------
    members : sequence of SiteModel or Ensemble
        Models of the same sites and image size, fitted in different ways; members of an ensemble count one by one.
    scores : DataFrame, optional
        Cross-validated scores of the mean, one row a site.
    provenance : dict, optional
        How it was fitted.

    Raises
    ------
    ValueError
        When the members do not describe the same sites and images.
    """

    def __init__(
        self,
        members: Sequence[SiteModel | Ensemble],
        scores: pd.DataFrame | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        members = [single for member in members for single in member._members()]
        if not members:
            raise ValueError("an ensemble needs at least one member; none was given")
        first = members[0].info
        for member in members[1:]:
            fields = ("site_ids", "unit", "size_px", "size_deg", "channels")
            if any(getattr(member.info, field) != getattr(first, field) for field in fields):
                raise ValueError(
                    "members describe different sites, units, or images of another size in px or deg or color: "
                    f"{members[0]!r} and {member!r}"
                )
        self.members = nn.ModuleList(members)
        self.info = first
        self.scores, self.provenance = scores, provenance or {}
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean response of the members.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Values in [0, 1].

        Returns
        -------
        Tensor, (image, site)
            Responses in the recording's unit.
        """
        return torch.stack([member(images) for member in self.members]).mean(0)

    def _members(self) -> list[SiteModel]:
        return list(self.members)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"Ensemble({', '.join(map(repr, self.members))})"


def load_model(folder: str | Path, backbones: dict[str, nn.Module | Backbone] | None = None) -> SiteModel | Ensemble:
    """Load a model written by ``save``.

    Parameters
    ----------
    folder : str or Path
        The folder.
    backbones : dict, optional
        Your own networks by the name the model knows them by, for models not fitted on a named backbone.

    Returns
    -------
    SiteModel or Ensemble
        The model, with the same predictions.

    Raises
    ------
    FileNotFoundError
        When there is no model.
    ValueError
        When a file was changed, is of a newer format, or a backbone is missing or has other weights.
    """
    folder = Path(folder)
    path = folder / "model.json"
    damaged = f"{str(path)!r} is not a model manifest or was damaged; fit again"
    absent = f"there is no model in {str(folder)!r}: model.json is missing; make one with npc fit"
    manifest = read_manifest(path, "model", FORMAT_VERSION, absent, damaged)
    tensors = read_tensors(folder / "weights.safetensors", manifest.get("weights_sha256"), "model")
    try:
        carried: dict[str, nn.Module | Backbone] = {}
        if "networks" in manifest:
            own_weights = read_tensors(folder / "networks.safetensors", manifest["networks_sha256"], "model")
            carried.update(unpack_networks(manifest["networks"], own_weights))
        given = {**carried, **(backbones or {})}
        models = [_restore(entry, tensors, k, given) for k, entry in enumerate(manifest["members"])]
        if not manifest["ensemble"]:
            return models[0]
        return Ensemble(models, scores_from_json(manifest["scores"]), manifest["provenance"])
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(damaged) from error


def _restore(
    entry: dict[str, Any], tensors: dict[str, Tensor], k: int, backbones: dict[str, nn.Module | Backbone]
) -> SiteModel:
    name = entry["backbone"]
    if name not in backbones and name.startswith("module:"):
        raise ValueError(
            f"the model was fitted on a network of your own; load_model(folder, backbones={{{name!r}: ...}})"
        )
    network, expected = backbones.get(name, name), entry.get("preprocessing")  # older files do not tell
    if expected is not None and isinstance(network, nn.Module):
        sizes = expected["input_px"], expected["fixed_size"]
        network = Backbone(name, network, tuple(expected["mean"]), tuple(expected["std"]), *sizes)
    extractor = FeatureExtractor(network, entry["layer"], entry["input_px"])
    if extractor.backbone.weights_sha256 != entry["backbone_sha256"]:
        raise ValueError(
            f"backbone {name!r} has other weights than the model was fitted on; its readout would be wrong"
        )
    prepared = extractor.backbone.preprocessing()
    if expected is not None and prepared != expected:
        raise ValueError(
            f"backbone {name!r} expects images as {prepared}, the model was fitted with {expected}; give the same "
            "Backbone"
        )
    info = SiteInfo.from_json(entry["info"])
    readout = LinearReadout(tensors[f"{k}.weight"], tensors[f"{k}.bias"])
    return SiteModel(extractor, readout, info, scores_from_json(entry["scores"]), entry["provenance"])
