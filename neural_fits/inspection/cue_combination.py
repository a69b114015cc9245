"""Cue combination: several uncertain maps of one thing as one, each counting by the inverse of its variance.

In: maps of one thing, such as class activation maps of trials (trial, frequency, time), or of one image by several
networks (network, height, width). Out: `CombinedCues`. In the published ccCAM the cues are the filters of the network
instead: `filter_cues`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

#: the least variance that a cue may get, as a part of the median: estimates by differences can fall below 0
_LEAST = 0.05


@dataclass(frozen=True)
class CombinedCues:
    """Several maps of one thing as one.

    Parameters
    ----------
    values : ndarray, (...)
        The combined map.
    variance : ndarray, (...)
        Its variance, if cues are independent and their variances right.
    weights : ndarray, (cue, ...)
        What each cue counted; they sum to 1 over cues.
    """

    values: NDArray[np.float64]
    variance: NDArray[np.float64]
    weights: NDArray[np.float64]


def combine_cues(maps: ArrayLike | Tensor, variances: ArrayLike) -> CombinedCues:
    """Return the average of cues by inverse variance: ``M = sum_i (M_i / v_i) / sum_i (1 / v_i)``.

    It has the least variance among unbiased averages of independent cues, ``1 / sum_i (1 / v_i)``.

    Parameters
    ----------
    maps : array_like, (cue, ...)
        Maps of one thing, such as class activation maps of several trials, subjects or networks.
    variances : array_like, (cue,) or (cue, ...)
        Variance of each cue, or of each cue at each place.

    Returns
    -------
    CombinedCues
        Combined map, its variance and the weights.

    Raises
    ------
    ValueError
        When shapes do not match, a variance is not positive, or a map is not finite.

    Examples
    --------
    >>> combine_cues([[0.0], [4.0]], [1.0, 3.0]).values
    array([1.])
    """
    cues, spread = _finite(maps), _numbers(variances)
    if cues.ndim < 1 or not len(cues) or spread.shape not in (cues.shape, cues.shape[:1]):
        raise ValueError(
            f"maps have shape {cues.shape} and variances {spread.shape}; expected (cue, ...) and one variance a cue, "
            "or one for each cue and place"
        )
    if not (np.isfinite(spread) & (spread > 0)).all():
        raise ValueError("a variance is not positive; leave the cue out, or give it the least variance it can have")
    precision = 1 / np.broadcast_to(spread.reshape(spread.shape + (1,) * (cues.ndim - spread.ndim)), cues.shape)
    total = precision.sum(0)
    weights = precision / total
    return CombinedCues((weights * cues).sum(0), 1 / total, weights)


def trial_variances(maps: ArrayLike | Tensor) -> NDArray[np.float64]:
    """Return how noisy each map of one thing is, from the differences between maps.

    With independent errors ``mean (M_i - M_j)^2 = v_i + v_j``; least squares over all pairs gives, for n maps,
    ``v_i = (sum_j d_ij - D) / (n - 2)`` with ``D = sum_(i<j) d_ij / (n - 1)``. What the maps share drops out. Estimates
    below 5 % of the median are raised to it.

    Parameters
    ----------
    maps : array_like, (trial, ...)
        At least three maps.

    Returns
    -------
    ndarray, (trial,)
        Variances in squared units of the maps; all 1 when the maps are equal.

    Raises
    ------
    ValueError
        For fewer than three maps, or maps that are not finite.

    Examples
    --------
    >>> trial_variances([[0.0, 0.0], [1.0, -1.0], [-1.0, -1.0]]).round(2)
    array([0.05, 1.  , 1.  ])
    """
    flat = _finite(maps)
    if flat.ndim < 2 or len(flat) < 3:
        raise ValueError(f"maps have shape {flat.shape}; the noise of single maps needs at least 3 (trial, ...)")
    flat = flat.reshape(len(flat), -1)
    flat = flat - flat.mean(0)
    gram = flat @ flat.T
    apart = (np.diag(gram)[:, None] + np.diag(gram)[None] - 2 * gram) / flat.shape[1]
    np.fill_diagonal(apart, 0)
    each = apart.sum(1)
    variances = (each - each.sum() / 2 / (len(flat) - 1)) / (len(flat) - 2)
    middle = float(np.median(np.maximum(variances, 0)))
    if middle <= 0:
        middle = float(np.maximum(variances, 0).mean()) or 1 / _LEAST
    return np.maximum(variances, _LEAST * middle)


def combine_trials(maps: ArrayLike | Tensor, groups: Sequence[object] | None = None) -> CombinedCues:
    """Return one map of many trials, noisy trials or groups counting less.

    Without groups every trial is a cue with one variance (`trial_variances`). With groups, such as subjects or
    sessions, the mean of every group is a cue and its variance is known place by place: that of the mean over the
    group's trials.

    Differences in strength count as noise: bring maps to one scale first where their strength means nothing. A cue
    whose variance grows with its mean, as that of a rectified map does, pulls the combination down.

    Parameters
    ----------
    maps : array_like, (trial, ...)
        Maps of single trials.
    groups : sequence, optional
        The group of each trial.

    Returns
    -------
    CombinedCues
        Combined map, its variance and the weights of trials or groups, groups in the order of first appearance.

    Raises
    ------
    ValueError
        For fewer than three trials, groups of fewer than two or that do not match, or maps that are not finite.

    Examples
    --------
    >>> noisy = np.random.default_rng(0).normal(size=(5, 40)) * [[0.1], [0.1], [0.1], [0.1], [9.0]] + 1
    >>> combine_trials(noisy).weights[:, 0].argmin()
    np.int64(4)
    """
    trials = _finite(maps)
    if groups is None:
        return combine_cues(trials, trial_variances(trials))
    names = list(dict.fromkeys(groups))
    if trials.ndim < 1 or not len(trials) or len(groups) != len(trials):
        raise ValueError(f"{len(groups)} groups came for maps of shape {trials.shape}; give one group a trial")
    parts = [trials[[each == name for each in groups]] for name in names]
    few = [name for name, part in zip(names, parts, strict=True) if len(part) < 2]
    if few:
        raise ValueError(
            f"group {few[0]!r} has one trial, which tells nothing of its variance; give two or more a group"
        )
    spread = np.stack([part.var(0, ddof=1) / len(part) for part in parts])
    # Places where all trials of a group agree by chance, or are both silent, must not get all of the weight.
    least = _LEAST * np.median(spread, axis=tuple(range(1, spread.ndim)), keepdims=True)
    least = np.where(least > 0, least, spread.mean() or 1)
    return combine_cues(np.stack([part.mean(0) for part in parts]), np.maximum(spread, least))


def _numbers(values: ArrayLike | Tensor) -> NDArray[np.float64]:
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)


def _finite(values: ArrayLike | Tensor) -> NDArray[np.float64]:
    found = _numbers(values)
    if not np.isfinite(found).all():
        raise ValueError("maps have values that are not finite; leave those cues out")
    return found
