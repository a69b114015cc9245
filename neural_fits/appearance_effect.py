"""What a change of appearance does to predicted responses: matching, apertures, quantization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from neural_fits.image_size import same_size_deg
from neural_fits.site_model import Ensemble, SiteModel
from stimuli import StimulusSet
from stimuli.hints import did_you_mean


@dataclass(frozen=True, eq=False)
class AppearanceEffect:
    """
    Predicted responses before and after images were changed.

    Parameters
    ----------
    table : DataFrame
        One row per stimulus and site: stimulus_id, site_id, before and after in the unit of the recording, and
        change_sd, their difference in standard deviations of the site's mean responses to the images it was fitted on.
    sites : DataFrame
        One row per site: site_id, mean_change_sd, rms_change_sd and r, the correlation of before and after over the
        stimuli (missing where either does not vary).

    Examples
    --------
    >>> table = pd.DataFrame({"stimulus_id": ["a"], "site_id": ["s"], "before": [1.0], "after": [2.0]})
    >>> site = pd.DataFrame({"site_id": ["s"], "mean_change_sd": [0.5], "rms_change_sd": [0.5], "r": [np.nan]})
    >>> AppearanceEffect(table.assign(change_sd=0.5), site).summary()["largest_change_sd"]
    0.5
    """

    table: pd.DataFrame
    sites: pd.DataFrame

    def summary(self) -> dict[str, Any]:
        """
        Give the effect in a few numbers.

        Returns
        -------
        dict
            Medians over sites of rms_change_sd, mean_change_sd and r, and the largest change with its stimulus and
            site; None where nothing is known.

        Examples
        --------
        >>> empty = pd.DataFrame({"site_id": [], "mean_change_sd": [], "rms_change_sd": [], "r": []}, dtype=float)
        >>> nothing = pd.DataFrame({"stimulus_id": [], "site_id": [], "change_sd": []}, dtype=float)
        >>> AppearanceEffect(nothing, empty).summary()["median_r"] is None
        True
        """
        medians = {f"median_{name}": self.sites[name].median() for name in ("rms_change_sd", "mean_change_sd", "r")}
        numbers: dict[str, Any] = {
            name: float(value) if np.isfinite(value) else None for name, value in medians.items()
        }
        known = self.table.dropna(subset=["change_sd"])
        if len(known):
            worst = known.iloc[int(known["change_sd"].abs().to_numpy().argmax())]
            numbers["largest_change_sd"] = float(worst["change_sd"])
            numbers["largest_change_at"] = {"stimulus_id": worst["stimulus_id"], "site_id": worst["site_id"]}
        return numbers


def appearance_effect(before: StimulusSet, after: StimulusSet, model: SiteModel | Ensemble) -> AppearanceEffect:
    """
    Compare what a model predicts for the 8-bit codes of two sets of the same stimuli.

    A control image whose contrast was matched may no longer do what it was made for: this says by how much.

    Parameters
    ----------
    before, after : StimulusSet
        The images with the same ids, in any order, such as a set and the one that `stimuli.matching` made from it.
    model : SiteModel or Ensemble
        The model, on the device where it shall run.

    Returns
    -------
    AppearanceEffect
        Predictions per stimulus and site, and their change per site.

    Raises
    ------
    ValueError
        If the sets have other ids, or images of another size in pixels or degrees than each other or the model.

    Examples
    --------
    >>> from neural_fits import Backbone, FeatureExtractor, LinearReadout, SiteInfo
    >>> import torch
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3))
    >>> extractor = FeatureExtractor(Backbone("module:tiny", network, (0.5,) * 3, (1.0,) * 3, 8), "0")
    >>> readout = LinearReadout(torch.ones(1, 2, 6, 6), torch.zeros(1))
    >>> model = SiteModel(extractor, readout, SiteInfo(("s",), (0.0,), (2.0,), (8, 8), 4.0, "spikes"))
    >>> images = np.random.default_rng(0).random((3, 3, 8, 8))
    >>> same = StimulusSet.from_arrays(images, size_deg=4.0)
    >>> appearance_effect(same, same, model).table["change_sd"].tolist()
    [0.0, 0.0, 0.0]
    """
    ids, there = before.stimulus_ids, set(after.stimulus_ids)
    missing = [name for name in ids if name not in there]
    if missing or len(after) != len(before):
        named = f"; {missing[0]!r} is missing: {did_you_mean(missing[0], after.stimulus_ids)}" if missing else ": "
        raise ValueError(
            f"{before.name!r} has {len(before)} stimuli before and {len(after)} after the change{named}give two sets "
            "of the same stimuli."
        )
    if not same_size_deg(before.size_deg, after.size_deg):
        raise ValueError(
            f"{before.name!r} is {before.size_deg:g} deg wide before and {after.size_deg:g} deg after the change: give "
            "two sets of one size."
        )
    old = model.predict(before).astype(np.float64)
    new = model.predict(after.select(ids)).astype(np.float64)
    spread = np.asarray(model.info.natural_std, np.float64)
    change = np.divide(new - old, spread, out=np.full_like(old, np.nan), where=spread > 0)
    sites = list(model.site_ids)
    table = pd.DataFrame(
        {
            "stimulus_id": np.repeat(np.array(ids, object), len(sites)),
            "site_id": np.tile(np.array(sites, object), len(ids)),
            "before": old.ravel(),
            "after": new.ravel(),
            "change_sd": change.ravel(),
        }
    )
    per_site = pd.DataFrame(
        {
            "site_id": np.array(sites, object),
            "mean_change_sd": change.mean(axis=0),
            "rms_change_sd": np.sqrt((change**2).mean(axis=0)),
            "r": [_correlation(a, b) for a, b in zip(old.T, new.T, strict=True)],
        }
    )
    return AppearanceEffect(table, per_site)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])
