"""What to ask of an experiment's time: a balanced set of targets whose images fit into the session.

In: a scored model, candidate objectives, the time there is. Out: a `SessionPlan`: objectives, seeds, repeats, natural
images to show again, seconds. Called by users and ``npc plan``; ``npc loop --plan`` reads what it wrote.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neural_fits.recordings import SiteRecordings
from neural_fits.site_maps import site_table
from neural_fits.site_model import Ensemble, SiteModel
from stimuli.files import atomic_write
from synth.objectives import Objective, OneHot, SiteScale, Stretch
from synth.site_overlap import readout_similarity, site_overlap

#: where in a site's range of responses natural images shown again are taken, in this order
_QUANTILES = (1.0, 0.0, 0.5, 0.75, 0.25, 0.9, 0.1)


@dataclass(frozen=True, eq=False)
class SessionPlan:
    """Objectives that fit into a session.

    Parameters
    ----------
    objectives : tuple of Objective
        What to synthesize.
    seeds : tuple of int
        Seeds of the images of each objective.
    repeats : int
        Presentations of each image.
    reference_ids : tuple of str
        Natural images to show again, as often; empty where only their number is known.
    reference_images : int
        Number of natural images to show again.
    trial_s : float
        Seconds of one presentation, gap included.
    budget_s : float
        Seconds that there are.
    table : DataFrame
        One row a target, in the order chosen: ``objectives`` (their number), ``explained_variance``, ``reliability``,
        receptive field in degrees where it is one site, ``similarity`` to the most similar target chosen before.
    """

    objectives: tuple[Objective, ...]
    seeds: tuple[int, ...]
    repeats: int
    reference_ids: tuple[str, ...]
    reference_images: int
    trial_s: float
    budget_s: float
    table: pd.DataFrame

    @property
    def images(self) -> int:
        """Number of synthesized images."""
        return len(self.objectives) * len(self.seeds)

    @property
    def presentations(self) -> int:
        """Number of presentations, natural images included."""
        return (self.images + self.reference_images) * self.repeats

    @property
    def seconds(self) -> float:
        """Seconds that the session takes."""
        return self.presentations * self.trial_s

    def to_json(self, path: str | Path) -> Path:
        """Write the plan for ``npc loop --plan`` and for whoever runs the session.

        Parameters
        ----------
        path : str or Path
            File to write.

        Returns
        -------
        Path
            The file.
        """
        told: dict[str, Any] = {
            "objectives": [repr(objective) for objective in self.objectives],
            "seeds": list(self.seeds),
            "repeats": self.repeats,
            "reference_ids": list(self.reference_ids),
            "reference_images": self.reference_images,
            "trial_s": self.trial_s,
            "budget_s": self.budget_s,
            "presentations": self.presentations,
            "seconds": self.seconds,
        }
        return atomic_write(path, json.dumps(told, indent=1, allow_nan=False))

    def __repr__(self) -> str:
        return (
            f"SessionPlan({len(self.objectives)} objectives of {len(self.table)} targets x {len(self.seeds)} images + "
            f"{self.reference_images} natural images, {self.repeats} repeats: {self.presentations} presentations, "
            f"{self.seconds / 60:.1f} of {self.budget_s / 60:.1f} min)"
        )

    def _repr_html_(self) -> str:
        return f"<p><b>{html.escape(repr(self))}</b></p>{self.table.round(2).to_html()}"


def plan_session(
    model: SiteModel | Ensemble,
    budget_s: float,
    *,
    candidates: Iterable[Objective] | None = None,
    targets: int | None = None,
    images: int = 2,
    repeats: int = 24,
    stimulus_s: float = 0.1,
    gap_s: float = 0.1,
    reference_images: int = 20,
    recordings: SiteRecordings | None = None,
    spread: float = 0.5,
    min_explained_variance: float = 0.1,
    seed: int = 0,
) -> SessionPlan:
    """Choose targets that a model explains well and that differ, as many as the time allows.

    Targets are taken one after the other. The next one has the largest ``q (1 - spread * s)``: q is the explained
    variance times the reliability, the share of the variance of recorded means that the model explains, and s the
    similarity to the most similar target before, ``(overlap of receptive fields + cosine of readouts) / 2``, not below
    0. With a target come all its candidates, so that stretch and one-hot have the same sites.

    Parameters
    ----------
    model : SiteModel or Ensemble
        The driver, scored on held-out images.
    budget_s : float
        Seconds of presentations that there are.
    candidates : iterable of Objective, optional
        What may be asked; by default each site stretched, and one-hot against the other targets chosen. An objective
        without a target, such as a `Pattern`, is a target of its own, as good as its sites are on average.
    targets : int, optional
        Most targets.
    images : int
        Images per objective.
    repeats : int
        Presentations of each image.
    stimulus_s, gap_s : float
        Seconds an image is on, and until the next one comes.
    reference_images : int
        Natural images shown again in the session, to see whether the sites still answer as before.
    recordings : SiteRecordings, optional
        Responses to the natural images, from which those shown again are chosen: over the range of every target.
    spread : float
        From 0, explained variance alone, to 1.
    min_explained_variance : float
        Sites explained less are no targets.
    seed : int
        Seed of the first image.

    Returns
    -------
    SessionPlan
        The plan.

    Raises
    ------
    ValueError
        When not even one target fits (the sentence says how long it would take), no site is explained well enough, or
        a number is out of range.

    Examples
    --------
    >>> from neural_fits import SimulatedBrain, fit_sites
    >>> from stimuli import natural_photos
    >>> natural = natural_photos(80, size_px=64)
    >>> recorded = SimulatedBrain(natural, n_sites=4).record(natural)
    >>> model = fit_sites(natural, recorded, backbone="efficientnet-lite0", layer="blocks.2", folds=3)
    >>> plan = plan_session(model, 600, targets=2, recordings=recorded, min_explained_variance=-1)
    >>> plan.presentations, round(plan.seconds), len(plan.reference_ids)
    (672, 134, 20)
    """
    numbers = {"images": images, "repeats": repeats, "targets": 1 if targets is None else targets}
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; expected 1 or more")
    trial_s = stimulus_s + gap_s
    if not (stimulus_s > 0 and gap_s >= 0 and budget_s > 0 and 0 <= spread <= 1 and reference_images >= 0):
        raise ValueError(
            f"budget {budget_s} s, stimulus {stimulus_s} s, gap {gap_s} s, spread {spread}, {reference_images} natural "
            "images: expected positive times, a spread from 0 to 1 and no negative number"
        )
    if recordings is not None:
        reference_images = min(reference_images, recordings.n_stimuli)
    groups = _groups(model, candidates)
    one_hot = candidates is None
    table = _ordered(model, groups, spread, min_explained_variance)
    slots = math.floor(budget_s / (trial_s * repeats) * (1 + 1e-12)) - reference_images
    sizes = [len(groups[name]) * images for name in table.index]
    if one_hot:  # one target is stretched, several are each stretched and one-hot
        fitting = [k for k in range(1, len(sizes) + 1) if images * (k if k == 1 else 2 * k) <= slots]
    else:
        fitting = [k for k, total in enumerate(np.cumsum(sizes), start=1) if total <= slots]
    if not fitting:
        least = (sizes[0] + reference_images) * repeats * trial_s
        raise ValueError(
            f"{budget_s:g} s are too short: one target with {sizes[0]} images and {reference_images} natural ones, "
            f"{repeats} repeats of {trial_s:g} s, takes {least:g} s; give at least that, or fewer repeats or images"
        )
    count = min(max(fitting), targets or len(table))
    chosen = list(table.index[:count])
    objectives = [objective for name in chosen for objective in groups[name]]
    if one_hot and count > 1:
        objectives += [OneHot(site, tuple(chosen)) for site in chosen]
    table = table.iloc[:count].assign(objectives=[sum(o.target == name for o in objectives) or 1 for name in chosen])
    again: tuple[str, ...] = ()
    if recordings is not None:
        sites = [site for site in chosen if site in model.site_ids] or list(model.site_ids)
        again = reference_choice(recordings, sites, reference_images)
    seeds = tuple(range(seed, seed + images))
    return SessionPlan(tuple(objectives), seeds, repeats, again, reference_images, trial_s, float(budget_s), table)


def reference_choice(recordings: SiteRecordings, sites: Sequence[str], count: int) -> tuple[str, ...]:
    """Choose natural images to show again that cover the range of every site.

    In turns, each site takes the image at the next of its quantiles 1, 0, .5, .75, .25, .9, .1 that nobody has taken,
    or the nearest free one; its best natural image comes first.

    Parameters
    ----------
    recordings : SiteRecordings
        Responses to natural images.
    sites : sequence of str
        The sites to cover.
    count : int
        Number of images.

    Returns
    -------
    tuple of str
        Ids, in the order of the recordings.

    Raises
    ------
    ValueError
        For an unknown site, or more images than were recorded.
    """
    if not 0 <= count <= recordings.n_stimuli:
        raise ValueError(f"{count} images were asked for, {recordings.n_stimuli} were recorded")
    means = recordings.select_sites(sites).mean()
    orders = [np.argsort(np.where(np.isfinite(column), column, np.nanmedian(column))) for column in means.T]
    free = np.ones(recordings.n_stimuli, dtype=bool)
    turn = 0
    while free.sum() > recordings.n_stimuli - count:
        order = orders[turn % len(orders)]
        level = _QUANTILES[turn // len(orders) % len(_QUANTILES)]
        wanted = round(level * (len(order) - 1))
        ranks = np.flatnonzero(free[order])
        free[order[ranks[np.abs(ranks - wanted).argmin()]]] = False
        turn += 1
    return tuple(name for name, left in zip(recordings.stimulus_ids, free, strict=True) if not left)


def _groups(model: SiteModel | Ensemble, candidates: Iterable[Objective] | None) -> dict[str, list[Objective]]:
    """Return the candidates of each target."""
    if candidates is None:
        return {site: [Stretch(site)] for site in model.site_ids}
    groups: dict[str, list[Objective]] = {}
    for objective in candidates:
        if not isinstance(objective, Objective):
            raise TypeError(f"{objective!r} is not an objective; expected for example Stretch({objective!r})")
        groups.setdefault(objective.target or repr(objective), []).append(objective)
    if not groups:
        raise ValueError("no candidate was given; give objectives, or leave them out for stretch and one-hot")
    return groups


def _ordered(
    model: SiteModel | Ensemble, groups: dict[str, list[Objective]], spread: float, minimum: float
) -> pd.DataFrame:
    """Return the targets that are explained well enough, in the order in which they are taken."""
    scores, scale = site_table(model), SiteScale.of(model)
    shared = (site_overlap(model).to_numpy() + readout_similarity(model).to_numpy()) / 2
    similar = np.nan_to_num(shared).clip(0, 1)
    members = [_sites(name, group, scale) for name, group in groups.items()]
    explained, reliable = (
        np.array([scores[key].to_numpy()[sites].mean() for sites in members])
        for key in ("explained_variance", "reliability")
    )
    usable = np.flatnonzero(np.isfinite(explained) & (explained >= minimum))
    if not len(usable):
        best = np.max(explained, where=np.isfinite(explained), initial=-np.inf)
        raise ValueError(
            f"no target has an explained variance of {minimum:g} or more (the best has {best:.2g}); "
            "lower min_explained_variance, or fit better first"
        )
    quality = explained * np.nan_to_num(reliable, nan=1.0).clip(0, 1)
    order: list[int] = []
    nearest = np.zeros(len(members))
    told = []
    while len(order) < len(usable):
        left = np.setdiff1d(usable, order)
        worth = np.where(quality[left] > 0, quality[left] * (1 - spread * nearest[left]), quality[left])
        best = int(left[worth.argmax()])
        order.append(best)
        told.append(nearest[best])
        between = np.array([similar[np.ix_(sites, members[best])].mean() for sites in members])
        nearest = np.maximum(nearest, between)
    rows: list[dict[str, float]] = []
    for k, similarity in zip(order, told, strict=True):
        row = {"explained_variance": explained[k], "reliability": reliable[k], "similarity": similarity}
        if len(members[k]) == 1:
            row |= {key: float(scores[key].iloc[members[k][0]]) for key in ("rf_x_deg", "rf_y_deg")}
        rows.append(row)
    return pd.DataFrame(rows, index=pd.Index([list(groups)[k] for k in order], name="target"))


def _sites(name: str, group: list[Objective], scale: SiteScale) -> NDArray[np.int_]:
    """Return the columns of a target: the site, or all that the objective reads."""
    if group[0].target:
        return np.array([scale.index(name)])
    columns = [int(column) for _, term in group[0].flat_terms(scale) for column in term.columns]
    if not columns:
        raise ValueError(f"{name} reads no recorded site, so that nothing says how well it can be driven; leave it out")
    return np.unique(columns)
