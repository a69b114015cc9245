"""Models made of models: one per part of the stimuli, and a known array's model carried to new recordings.

In: stimuli, recordings, options of `fit_sites` or a fitted model. Out: a scored `SiteModel` or `Ensemble`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neural_fits.cross_validation import READOUTS, Option, compress, cross_validate
from neural_fits.fit import best_device, fit_sites
from neural_fits.fit_task import FitTask, prepare
from neural_fits.folds import part_of_groups
from neural_fits.readout import Compressed, LinearReadout, ReadoutFamily
from neural_fits.recordings import SiteRecordings
from neural_fits.ridge import fit_ridge
from neural_fits.site_model import Ensemble, SiteModel
from stimuli import StimulusSet


def fit_parts(stimuli: StimulusSet, recordings: SiteRecordings, parts: int = 3, **options: Any) -> Ensemble:
    """Fit one model on each of several disjoint parts of the stimuli.

    Members that share no photograph err independently, so their spread tells where a synthesized image exploits one of
    them. The ensemble is scored on every stimulus by the members that did not see it.

    Parameters
    ----------
    stimuli : StimulusSet
        The images shown.
    recordings : SiteRecordings
        Responses to exactly these stimuli.
    parts : int
        Number of parts, two or more.
    **options : Any
        Further options of `fit_sites`, but ``split``.

    Returns
    -------
    Ensemble
        All members, with scores.

    Raises
    ------
    ValueError
        For fewer than two parts, or as `fit_sites`.

    Examples
    --------
    >>> from stimuli import natural_photos
    >>> from neural_fits import SimulatedBrain
    >>> natural = natural_photos(80, size_px=64)
    >>> recorded = SimulatedBrain(natural, n_sites=2, seed=0).record(natural, n_repeats=4, seed=0)
    >>> len(fit_parts(natural, recorded, 2, backbone="efficientnet-lite0", layer="blocks.2", folds=3).members)
    2
    """
    if "split" in options:
        raise ValueError("fit_parts makes the splits itself; leave split out, or use fit_sites(split=...)")
    if parts < 2:
        raise ValueError(f"parts is {parts}; an ensemble of parts needs at least 2")
    seed, group = options.get("seed", 0), options.get("group", "photograph")
    folds, minimum = options.get("folds", 5), options.get("min_reliability")
    task = prepare(stimuli, recordings, split=None, group=group, folds=folds, seed=seed, min_reliability=minimum)
    chosen = recordings.select_sites(task.info.site_ids)
    options = {**options, "min_reliability": None}
    names = [f"{k}/{parts}" for k in range(1, parts + 1)]
    members = [fit_sites(stimuli, chosen, **options, split=name) for name in names]
    total, count = np.zeros(task.responses.shape), np.zeros((len(stimuli), 1))
    for name, member in zip(names, members, strict=True):
        unseen = np.setdiff1d(np.arange(len(stimuli)), part_of_groups(task.groups, name, seed))
        total[unseen] += member.predict(stimuli.select(unseen))
        count[unseen] += 1
    settings = {"parts": parts, "min_reliability": minimum, "members": [member.provenance for member in members]}
    record = task.provenance(settings)
    return Ensemble(members, task.scored((total / count).astype(np.float32)), record)


def transfer(
    model: SiteModel | Ensemble,
    stimuli: StimulusSet,
    recordings: SiteRecordings,
    *,
    group: str = "photograph",
    folds: int = 5,
    seed: int = 0,
    device: str | torch.device | None = None,
    cache: str | Path | None = None,
) -> SiteModel | Ensemble:
    """Carry a fitted model of an array over to a new recording of it, with few images.

    A new site is the mean of two readouts: the local one fitted on the new images alone, and a ridge regression on what
    the known sites are predicted to do, ``y = A yhat_known + b``, which has tens of weights instead of thousands. The
    new sites need not be the old ones. Between two sessions of one V4 array (67 known, 50 new neurons) the mean
    predicted better than either from 25 new images (r .37 against .31 for a fit from scratch) to 200 (.58 against .57).

    Parameters
    ----------
    model : SiteModel or Ensemble
        Fitted on an earlier recording of the array.
    stimuli : StimulusSet
        The new images, of the same size.
    recordings : SiteRecordings
        Responses to exactly these.
    group : str
        As for `fit_sites`.
    folds : int
        Number of cross-validation folds.
    seed : int
        Seed of the folds.
    device : str or torch.device, optional
        Where features are computed; the best there is by default.
    cache : str or Path, optional
        Folder in which features are kept.

    Returns
    -------
    SiteModel or Ensemble
        A model of the new sites, with scores on held-out stimuli.

    Raises
    ------
    ValueError
        When the images differ from the model's in size, degrees or color, when some of them, or of the photographs they
        are cut from, were used to fit the model (its predictions of these are too good), or as `fit_sites`.
    """
    known, new = model.info, (*stimuli.size_px, float(stimuli.size_deg), stimuli.shape[0])
    if new != (*known.size_px, known.size_deg, known.channels):
        raise ValueError(
            "the new images are {} x {} px, {:g} deg, {} channel(s), ".format(*new)
            + "the model was fitted on {} x {} px, {:g} deg, {} channel(s); make them alike".format(
                *known.size_px, known.size_deg, known.channels
            )
        )
    task = prepare(stimuli, recordings, split=None, group=group, folds=folds, seed=seed)
    _refuse_fitted_images(model, task)
    settings = {"transfer_from": model.provenance, "group": group, "folds": folds}
    models, predictions = [], []
    for member in model._members():
        features = member.extractor.to(best_device(device)).extract(stimuli, cache=cache)
        options = [
            Option("local", compress(READOUTS["local"], features), READOUTS["local"]),
            Option("known sites", _known_sites(member.readout, features), ReadoutFamily(fit_ridge)),
        ]
        fits = [cross_validate([option], task.responses, task.folds, task.groups, seed) for option in options]
        held_out = np.mean([predicted for _, _, predicted, _ in fits], axis=0)
        readouts = [readout for _, readout, _, _ in fits]
        fitted = LinearReadout(
            torch.stack([readout.weight for readout in readouts]).mean(0),
            torch.stack([readout.bias for readout in readouts]).mean(0),
        )
        record = task.provenance(settings)
        models.append(SiteModel(member.extractor, fitted, task.info, task.scored(held_out), record))
        predictions.append(held_out)
    return task.assembled(models, predictions, settings)


def _refuse_fitted_images(model: SiteModel | Ensemble, task: FitTask) -> None:
    records = [member.provenance.get("fitted_on") or {} for member in model._members()]
    if not all(records):
        raise ValueError("the model does not say which images it was fitted on; fit it again with fit_sites")
    images = {image for record in records for image in record["images"]}
    groups = {label for record in records if record["group"] == task.fitted_on["group"] for label in record["groups"]}
    pairs = zip(task.fitted_on["images"], task.groups, strict=True)
    seen = sum(image in images or str(label) in groups for image, label in pairs)
    if seen:
        raise ValueError(
            f"{seen} of the {len(task.groups)} images, or other parts of the same photographs, were used to fit the "
            "model, whose predictions of them are too good; leave them out, or fit_sites on the new recording alone"
        )


def _known_sites(known: LinearReadout, features: Tensor) -> Compressed:
    known = known.to(features.device)

    def expand(readout: LinearReadout) -> LinearReadout:
        mixing = readout.weight.flatten(1)
        return LinearReadout(torch.einsum("sk,kchw->schw", mixing, known.weight), readout.bias + mixing @ known.bias)

    return Compressed(known(features)[:, :, None, None], expand)
