"""Which sites look at the same place: overlap of fitted receptive fields, populations chosen by it, target patterns.

In: a fitted model. Out: an overlap matrix, names of sites, objectives. Independent control is hardest, and tells most,
where receptive fields overlap. Called by users and `session_plan`.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neural_fits.site_maps import receptive_fields
from neural_fits.site_model import Ensemble, SiteModel
from stimuli.hints import did_you_mean
from synth.site_objectives import Pattern


def site_overlap(model: SiteModel | Ensemble) -> pd.DataFrame:
    """Return how much the receptive fields of a model's sites overlap, as their readouts tell.

    The cosine of energy maps, ``o_ij = sum_xy e_i e_j / sqrt(sum_xy e_i^2 sum_xy e_j^2)`` with ``e = m^2`` and m the
    map of `receptive_fields`: 1 for the same map, 0 for maps that share no place; ``exp(-d^2 / 2 s^2)`` for two
    Gaussian weightings of standard deviation s at distance d.

    Parameters
    ----------
    model : SiteModel or Ensemble
        A fitted model.

    Returns
    -------
    DataFrame, (site, site)
        Overlaps from 0 to 1, symmetric; NaN where a site's readout is zero everywhere.

    Examples
    --------
    >>> from neural_fits import SimulatedBrain, fit_sites
    >>> from stimuli import natural_photos
    >>> natural = natural_photos(60, size_px=64)
    >>> recorded = SimulatedBrain(natural, n_sites=3).record(natural)
    >>> model = fit_sites(natural, recorded, backbone="efficientnet-lite0", layer="blocks.2", folds=3)
    >>> site_overlap(model).shape
    (3, 3)
    """
    energy = receptive_fields(model).reshape(len(model.site_ids), -1) ** 2
    return pd.DataFrame(_cosine(energy), index=list(model.site_ids), columns=list(model.site_ids))


def readout_similarity(model: SiteModel | Ensemble) -> pd.DataFrame:
    """Return how alike the readouts of a model's sites are, in place and in features together.

    The cosine of the weights over all features, mean over members: near 1 for sites that nothing can drive apart.

    Parameters
    ----------
    model : SiteModel or Ensemble
        A fitted model.

    Returns
    -------
    DataFrame, (site, site)
        Similarities from -1 to 1, symmetric; NaN where a site's readout is zero everywhere.
    """
    members = model._members()
    weights = [member.readout.weight.detach().cpu().double().flatten(1).numpy() for member in members]
    mean = np.mean([_cosine(weight) for weight in weights], axis=0)
    return pd.DataFrame(mean, index=list(model.site_ids), columns=list(model.site_ids))


def overlapping_population(model: SiteModel | Ensemble, target: str, size: int) -> tuple[str, ...]:
    """Return the target and the sites whose receptive fields overlap its own most: a population for `OneHot`.

    Parameters
    ----------
    model : SiteModel or Ensemble
        A fitted model.
    target : str
        The site to be driven.
    size : int
        Number of sites, the target included.

    Returns
    -------
    tuple of str
        The target, then the others by decreasing overlap; of equal ones the first in the model.

    Raises
    ------
    ValueError
        For an unknown site, or a size that the model does not have.

    Examples
    --------
    >>> from synth import OneHot
    >>> make = lambda model: OneHot(model.site_ids[0], overlapping_population(model, model.site_ids[0], 8))
    """
    known = model.site_ids
    if target not in known:
        raise ValueError(f"site {target!r} is not in the model; {did_you_mean(target, known)}it has {len(known)} sites")
    if not 2 <= size <= len(known):
        raise ValueError(f"a population of {size} was asked for, the model has {len(known)} sites; give 2 to all")
    others = site_overlap(model)[target].drop(target).fillna(-1.0).sort_values(ascending=False, kind="stable")
    return (target, *map(str, others.index[: size - 1]))


def balanced_patterns(
    sites: tuple[str, ...] | list[str], count: int, *, seed: int = 0, up: float = 2.0, down: float = -0.5
) -> list[Pattern]:
    """Draw random patterns with half of the sites up and half down, and every site up in half of the patterns.

    Patterns come in pairs of opposites, so that what is common to all images cancels. With an odd number of sites or
    of patterns "half" is as near as it can be.

    Parameters
    ----------
    sites : sequence of str
        The population.
    count : int
        Number of patterns, all different.
    seed : int
        Seed of the drawing.
    up, down : float
        Responses wanted, in standard deviations over natural images from their mean.

    Returns
    -------
    list of Pattern
        The objectives.

    Raises
    ------
    ValueError
        For fewer than two sites or one pattern, more patterns than there are, or `up` not above `down`.

    Examples
    --------
    >>> [pattern.values for pattern in balanced_patterns(("a", "b"), 2)]
    [(('a', 2.0), ('b', -0.5)), (('a', -0.5), ('b', 2.0))]
    """
    names = list(sites)
    most = math.comb(len(names), len(names) // 2) * (1 + len(names) % 2)
    if len(names) < 2 or not 1 <= count <= most:
        raise ValueError(
            f"{count} patterns of {len(names)} sites were asked for; expected 1 to {most}, of at least 2 sites"
        )
    if not up > down:
        raise ValueError(f"up is {up} and down {down}; expected up above down")
    rng = np.random.default_rng(seed)
    chosen: dict[tuple[bool, ...], None] = {}  # in the order drawn
    while len(chosen) < count:
        pattern = np.isin(np.arange(len(names)), rng.permutation(len(names))[: len(names) // 2])
        for one in (pattern, ~pattern):
            chosen.setdefault(tuple(one.tolist()))
    return [
        Pattern({name: up if high else down for name, high in zip(names, one, strict=True)})
        for one in list(chosen)[:count]
    ]


def _cosine(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cosines between rows; NaN for a row of zeros."""
    length = np.sqrt((rows**2).sum(1))
    unit = rows / np.where(length > 0, length, np.nan)[:, None]
    return unit @ unit.T
