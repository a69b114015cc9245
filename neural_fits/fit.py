"""Fit sites: stimuli and recordings in, a scored `SiteModel` out.

Folds and splits keep all stimuli of one group (one photograph) on one side. Extracts features, cross-validates readouts
and scores them; called by users, ``npc fit`` and ``npc demo``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import nn

from neural_fits.backbones import Backbone, load_backbone
from neural_fits.cross_validation import Option, compress, cross_validate, readout_family
from neural_fits.features import FeatureExtractor
from neural_fits.fit_streaming import STREAM_FROM, cross_validate_streaming
from neural_fits.fit_task import prepare
from neural_fits.loo import PenaltyRule
from neural_fits.recordings import SiteRecordings
from neural_fits.site_model import Ensemble, SiteModel
from stimuli import StimulusSet

#: layers read when none is named: joined, those that fit recorded V4 sites best in the networks we ship
DEFAULT_LAYERS = {
    "efficientnet-lite0": "blocks.2+blocks.3+blocks.4",
    "efficientnet-lite1": "blocks.2+blocks.3+blocks.4",
    "efficientnet-lite2": "blocks.2+blocks.3+blocks.4",
    "torchvision:alexnet": "features.7",  # conv3 after its ReLU, the layer of 2019
}
#: networks of a driver: control holds outside the model only when several agree
DEFAULT_BACKBONES = ("efficientnet-lite0", "efficientnet-lite1")


def fit_sites(
    stimuli: StimulusSet,
    recordings: SiteRecordings,
    *,
    backbone: str | nn.Module | Backbone | Sequence[str | nn.Module | Backbone] = DEFAULT_BACKBONES,
    layer: str | Sequence[str] | None = None,
    readout: str | Sequence[str] = "local",
    penalty: PenaltyRule = "best",
    min_reliability: float | None = None,
    split: str | None = None,
    group: str = "photograph",
    folds: int = 5,
    seed: int = 0,
    input_px: int | None = None,
    device: str | torch.device | None = None,
    cache: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> SiteModel | Ensemble:
    """Fit a readout from network features to every recorded site, and score it on held-out stimuli.

    Parameters
    ----------
    stimuli : StimulusSet
        The images shown.
    recordings : SiteRecordings
        Responses to exactly these stimuli.
    backbone : str, nn.Module, Backbone, or a sequence of them
        Networks; several give an `Ensemble`.
    layer : str or sequence of str, optional
        Layer read; ``"blocks.3+blocks.4"`` reads two layers jointly, a sequence names alternatives among which the
        training stimuli of every fold choose. Embedded networks have a default.
    readout : str or sequence of str
        ``"local"`` (receptive-field windows times channels), ``"alternating"`` (one mask times channels), ``"ridge"``
        (all features), ``"pls"`` (25 components, the field's baseline), ``"gaussian"`` (one Gaussian window) or
        ``"factorized"`` (2019); a sequence names alternatives, as for `layer`.
    penalty : {"best", "one_se"}
        Ridge penalty of the smallest leave-one-out error, or, with control in mind, the largest one within one
        standard error of it.
    min_reliability : float, optional
        Leave out sites whose mean over all repeats is less reliable. Half of the trials choose, the other half scores
        the held-out predictions, since chosen sites look too reliable on the trials that chose them.
    split : str, optional
        ``"A"`` or ``"B"`` fits on one half of the groups only, ``"2/3"`` on the second of three parts, so that models
        on different parts share no photograph; None fits on everything.
    group : str
        Column of ``stimuli.table`` whose equal values stay on one side; where it is absent each stimulus is its own.
    folds : int
        Number of cross-validation folds.
    seed : int
        Seed of splits and folds.
    input_px : int, optional
        Size to which the network's input is resized; by default images enter as they are.
    device : str or torch.device, optional
        Where features are computed; the best there is by default.
    cache : str or Path, optional
        Folder in which features are kept for the next fit of the same images.
    progress : callable, optional
        Called with one line of text as each network begins.

    Returns
    -------
    SiteModel or Ensemble
        The model, with ``scores``: one row a site with r, reliability, explained variance on held-out stimuli, number
        of stimuli, and the ends of a 95 % interval of the explained variance over stimuli.

    Raises
    ------
    ValueError
        When ids do not match, a site has no usable response, or a name is unknown.

    Examples
    --------
    >>> from stimuli import natural_photos
    >>> from neural_fits import SimulatedBrain
    >>> natural = natural_photos(60, size_px=64)
    >>> brain = SimulatedBrain(natural, n_sites=3, seed=0)
    >>> model = fit_sites(natural, brain.record(natural, n_repeats=4, seed=0), backbone="efficientnet-lite0")
    >>> list(model.scores)[:4]
    ['r', 'reliability', 'explained_variance', 'n_stimuli']
    """
    families = {name: readout_family(name, penalty) for name in _names(readout)}
    task = prepare(
        stimuli, recordings, split=split, group=group, folds=folds, seed=seed, min_reliability=min_reliability
    )
    networks = [load_backbone(name) for name in _listed(backbone)]
    extractors = [[_extractor(network, name, input_px) for name in _layers(layer, network)] for network in networks]
    settings: dict[str, object] = {"readout": readout, "penalty": penalty, "min_reliability": min_reliability}
    settings |= {"split": split, "group": group, "folds": folds}
    models, predictions = [], []
    for alternatives in extractors:
        if progress is not None:
            progress(f"fitting {len(task.info.site_ids)} sites on {alternatives[0].backbone.name}")
        if list(families) == ["ridge"] and len(alternatives) == 1 and len(task.stimuli) >= STREAM_FROM:
            (extractor,) = alternatives
            fitted, held_out = cross_validate_streaming(extractor.to(best_device(device)), task, cache, penalty)
            models.append(SiteModel(extractor, fitted, task.info, task.scored(held_out), task.provenance(settings)))
            predictions.append(held_out)
            continue
        options, readers = [], {}
        for extractor in alternatives:
            features = extractor.to(best_device(device)).extract(task.stimuli, cache=cache)
            layers = "+".join(extractor.layers_read)
            for name, family in families.items():
                options.append(Option(f"{layers} {name}", compress(family, features), family))
                readers[options[-1].name] = extractor
            del features  # pooled ones are all that the local readout keeps
        chosen, fitted, held_out, tried = cross_validate(options, task.responses, task.folds, task.groups, seed)
        choice = {"chosen": chosen.name, "inner_r": tried} if tried else {}
        record = task.provenance({**settings, **choice})
        models.append(SiteModel(readers[chosen.name], fitted, task.info, task.scored(held_out), record))
        predictions.append(held_out)
    return task.assembled(models, predictions, settings)


def best_device(device: str | torch.device | None) -> torch.device:
    """Return the device asked for, or the best there is for everything.

    Parameters
    ----------
    device : str or torch.device, optional
        None chooses CUDA, then the CPU. Apple's MPS lacks the double precision of the fits: name it for synthesis only.

    Returns
    -------
    torch.device
        The device.

    Raises
    ------
    ValueError
        When the device asked for is not there.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device {str(device)!r} is not available here; leave it out to use the best there is"
        ) from error
    return chosen


def _names(given: str | Iterable[str]) -> list[str]:
    names = [given] if isinstance(given, str) else list(given)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"alternatives must be named once each; got {names}")
    return names


def _listed(
    backbone: str | nn.Module | Backbone | Sequence[str | nn.Module | Backbone],
) -> list[str | nn.Module | Backbone]:
    listed = [backbone] if isinstance(backbone, (str, nn.Module, Backbone)) else list(backbone)
    if not listed:
        raise ValueError("no backbone was named; give at least one, or leave it out for the default")
    return listed


def _layers(layer: str | Sequence[str] | None, network: Backbone) -> list[str]:
    if layer is not None:
        return _names(layer)
    if network.name not in DEFAULT_LAYERS:
        raise ValueError(
            f"backbone {network.name!r} has no default layer; name one with layer=, as FeatureExtractor.layers() lists"
        )
    return [DEFAULT_LAYERS[network.name]]


def _extractor(network: Backbone, layer: str, input_px: int | None) -> FeatureExtractor:
    joined = layer.split("+")
    if not all(joined):
        raise ValueError(f"layer {layer!r} has an empty name; join layers as in 'blocks.3+blocks.4'")
    return FeatureExtractor(network, joined[0] if len(joined) == 1 else joined, input_px)


__all__ = ["DEFAULT_BACKBONES", "DEFAULT_LAYERS", "best_device", "fit_sites"]
