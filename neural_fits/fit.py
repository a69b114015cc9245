"""Fit sites: stimuli and recordings in, a scored `SiteModel` out.

Folds and splits keep all stimuli of one group (one photograph) on one side. Calls a readout solver, `site_scores` and
`FeatureExtractor`; called by users, ``npc fit`` and ``npc demo``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold
from torch import Tensor, nn

from neural_fits.backbones import Backbone, load_backbone
from neural_fits.factorized import fit_factorized
from neural_fits.features import FeatureExtractor
from neural_fits.local import fit_local
from neural_fits.parallel import side_by_side
from neural_fits.readout import LinearReadout, Solver, fit_complete
from neural_fits.recordings import SiteRecordings
from neural_fits.ridge import cross_validate_ridge, fit_ridge, gram
from neural_fits.scores import site_scores
from neural_fits.site_model import Ensemble, SiteInfo, SiteModel
from stimuli import StimulusSet
from stimuli.hints import did_you_mean
from stimuli.provenance import provenance_record, sha256_bytes

#: layer read when none is named: the one that fits recorded V4 sites best in the networks we ship
DEFAULT_LAYERS = {
    "efficientnet-lite0": "blocks.4",
    "efficientnet-lite1": "blocks.4",
    "efficientnet-lite2": "blocks.4",
    "torchvision:alexnet": "features.7",  # conv3 after its ReLU, the layer of 2019
}
#: networks of a driver: control holds outside the model only when several agree
DEFAULT_BACKBONES = ("efficientnet-lite0", "efficientnet-lite1")
READOUTS: dict[str, Solver] = {"local": fit_local, "ridge": fit_ridge, "factorized": fit_factorized}


def fit_sites(
    stimuli: StimulusSet,
    recordings: SiteRecordings,
    *,
    backbone: str | nn.Module | Backbone | Sequence[str | nn.Module | Backbone] = DEFAULT_BACKBONES,
    layer: str | None = None,
    readout: str = "local",
    split: str | None = None,
    group: str = "photograph",
    folds: int = 5,
    seed: int = 0,
    input_px: int | None = None,
    device: str | torch.device | None = None,
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
    layer : str, optional
        Layer read; embedded networks have a default.
    readout : str
        ``"local"`` (receptive-field windows times channels), ``"ridge"`` (all features) or ``"factorized"`` (2019).
    split : str, optional
        ``"A"`` or ``"B"`` fits on one half of the groups only, so that a model on the other half shares no photograph
        with it; None fits on everything.
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
    progress : callable, optional
        Called with one line of text as each network begins.

    Returns
    -------
    SiteModel or Ensemble
        The model, with ``scores`` (one row a site: r, reliability, explained variance on held-out stimuli).

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
    >>> model.scores.shape
    (3, 4)
    """
    if readout not in READOUTS:
        raise ValueError(f"unknown readout {readout!r}; {did_you_mean(readout, READOUTS)}known: {', '.join(READOUTS)}")
    recordings = recordings.align(stimuli)
    groups = _groups(stimuli, group)
    if split is not None:
        chosen = split_half_groups(groups, split, seed)
        stimuli = stimuli.select(chosen)
        recordings = recordings.select_stimuli(stimuli.stimulus_ids)
        groups = groups[chosen]
    recordings.check_usable()
    responses = recordings.mean()
    _check_enough(responses, recordings.site_ids, groups, folds)
    pairs = list(GroupKFold(folds, shuffle=True, random_state=seed).split(responses, groups=groups))
    _check_trainable(responses, recordings.site_ids, pairs)
    names = [backbone] if isinstance(backbone, (str, nn.Module, Backbone)) else list(backbone)
    networks = [load_backbone(name) for name in names]
    extractors = [FeatureExtractor(network, layer or _default_layer(network), input_px) for network in networks]
    info = _site_info(stimuli, recordings, responses)
    settings = {"readout": readout, "split": split, "group": group, "folds": folds}
    record = provenance_record(
        seed=seed,
        config=settings,
        inputs={
            "stimuli": sha256_bytes("\n".join(stimuli.stimulus_ids).encode()),
            "responses": sha256_bytes(np.ascontiguousarray(recordings.responses).tobytes()),
        },
    )
    models, predictions = [], []
    for extractor in extractors:
        if progress is not None:
            progress(f"fitting {len(info.site_ids)} sites on {extractor.backbone.name}")
        extractor.to(best_device(device))
        features = extractor.extract(stimuli)
        fitted, held_out = _fit_and_cross_validate(features, responses, readout, pairs)
        scores = site_scores(held_out, recordings, seed=seed)
        models.append(SiteModel(extractor, fitted, info, scores, record))
        predictions.append(held_out)
    if len(models) == 1:
        return models[0]
    ensemble = Ensemble(models)
    ensemble.scores = site_scores(np.mean(predictions, axis=0), recordings, seed=seed)
    ensemble.provenance = record
    return ensemble


def split_half_groups(groups: NDArray[np.generic], split: str, seed: int = 0) -> NDArray[np.int_]:
    """Return the stimuli of one half of the groups.

    Groups are shuffled, then given one after the other to the half with fewer stimuli.

    Parameters
    ----------
    groups : ndarray, (stimulus,)
        Label of each stimulus's group.
    split : str
        ``"A"`` or ``"B"``.
    seed : int
        Seed of the shuffle.

    Returns
    -------
    ndarray of int
        Indices of the stimuli, in their order.

    Raises
    ------
    ValueError
        For another split, or fewer than two groups.

    Examples
    --------
    >>> split_half_groups(np.array(["x", "x", "y", "y"]), "A").tolist() in ([0, 1], [2, 3])
    True
    """
    if split not in ("A", "B"):
        raise ValueError(f"split is {split!r}; expected 'A' or 'B', or None for all stimuli")
    names, counts = np.unique(groups, return_counts=True)
    if len(names) < 2:
        raise ValueError("all stimuli belong to one group; a split needs at least two")
    halves: tuple[list[int], list[int]] = ([], [])
    sizes = [0, 0]
    for k in np.random.default_rng(seed).permutation(len(names)):
        side = int(sizes[1] < sizes[0])
        halves[side].append(k)
        sizes[side] += int(counts[k])
    return np.flatnonzero(np.isin(groups, names[halves["AB".index(split)]]))


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


def _fit_and_cross_validate(
    features: Tensor, responses: NDArray[np.float32], readout: str, folds: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[LinearReadout, np.ndarray]:
    if readout == "ridge":  # folds come from one Gram matrix

        def solve(features: Tensor) -> tuple[LinearReadout, Tensor]:
            return fit_complete(fit_ridge, features, responses), gram(features)

        ((fitted, kernel),) = side_by_side(solve, [features], features.device)
        return fitted, cross_validate_ridge(kernel, responses, folds)
    predicted = np.full(responses.shape, np.nan, dtype=np.float32)

    def fit(train: NDArray[np.int_], test: NDArray[np.int_]) -> LinearReadout:
        rows, held = (torch.from_numpy(index).to(features.device) for index in (train, test))
        model = fit_complete(READOUTS[readout], features[rows], responses[train])
        predicted[test] = model(features[held]).cpu().numpy()
        return model

    everything, nothing = np.arange(len(responses)), np.arange(0)
    models = side_by_side(lambda fold: fit(*fold), [*folds, (everything, nothing)], features.device)
    return models[-1], predicted


def _groups(stimuli: StimulusSet, column: str) -> NDArray[np.generic]:
    table = stimuli.table
    if column in table:
        return table[column].astype(str).to_numpy()
    if column != "photograph":  # asked for by name, so its absence is a mistake
        hint = did_you_mean(column, list(table.columns))
        raise ValueError(
            f"the stimulus set has no column {column!r} to group by; {hint}it has: {', '.join(map(str, table))}"
        )
    return np.asarray(stimuli.stimulus_ids)


def _default_layer(backbone: Backbone) -> str:
    name = backbone.name
    if name not in DEFAULT_LAYERS:
        raise ValueError(
            f"backbone {name!r} has no default layer; name one with layer=, as FeatureExtractor.layers() lists"
        )
    return DEFAULT_LAYERS[name]


def _site_info(stimuli: StimulusSet, recordings: SiteRecordings, responses: NDArray[np.float32]) -> SiteInfo:
    constant = np.nanmax(responses, axis=0) == np.nanmin(responses, axis=0)
    if constant.any():
        silent = [site for site, same in zip(recordings.site_ids, constant, strict=True) if same]
        raise ValueError(
            f"{len(silent)} site(s) respond equally to every stimulus: {', '.join(silent[:5])}; drop them with "
            "recordings.select_sites([...])"
        )
    exact = responses.astype(np.float64)
    return SiteInfo(
        tuple(recordings.site_ids),
        tuple(np.nanmean(exact, axis=0).tolist()),
        tuple(np.nanstd(exact, axis=0).tolist()),
        stimuli.size_px,
        float(stimuli.size_deg),
        recordings.unit,
        stimuli.shape[0],
    )


def _check_enough(
    responses: NDArray[np.float32], site_ids: Sequence[str], groups: NDArray[np.generic], folds: int
) -> None:
    count = len(np.unique(groups))
    if folds < 2 or count < folds:
        raise ValueError(f"{folds} folds asked for, {count} group(s) of stimuli are there; expected 2 to {count} folds")
    shown = np.isfinite(responses).sum(0)
    few = [site for site, n in zip(site_ids, shown, strict=True) if n < 4 * folds]
    if few:
        raise ValueError(
            f"{len(few)} site(s) have responses to fewer than {4 * folds} stimuli: {', '.join(few[:5])}; record more, "
            "or drop them with recordings.select_sites([...])"
        )


def _check_trainable(
    responses: NDArray[np.float32], site_ids: Sequence[str], pairs: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    fewest = np.min([np.isfinite(responses[train]).sum(0) for train, _ in pairs], axis=0)
    lost = [site for site, n in zip(site_ids, fewest, strict=True) if n < 2]
    if lost:
        raise ValueError(
            f"{len(lost)} site(s) were recorded on too few groups of stimuli, so that a fold has nothing to train on: "
            f"{', '.join(lost[:5])}; drop them with recordings.select_sites([...])"
        )


__all__ = ["DEFAULT_BACKBONES", "DEFAULT_LAYERS", "READOUTS", "best_device", "fit_sites", "split_half_groups"]
