"""Random halves of the repeats: the split behind reliabilities, best natural images and the choice of sites.

In: trials (stimulus, repeat, site), NaN where nothing was recorded. A split is drawn per (stimulus, repeat) and shared
by the sites, so sites recorded on the same trials are split alike and none depends on its neighbors in the array.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["iterate_halves", "random_half_mask", "random_halves"]


def random_halves(
    responses: NDArray[np.floating], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Split the recorded repeats of every stimulus into two random halves and average each.

    The random order is drawn once per (stimulus, repeat) and used for all sites, so sites recorded on the same trials
    are split alike, and the halves of a site do not depend on which other sites are in the array. An odd repeat goes
    to a random side.

    Parameters
    ----------
    responses : ndarray
        Trials, shape (stimulus, repeat, site); NaN = not shown or rejected.
    rng : numpy.random.Generator
        Source of the random order.

    Returns
    -------
    first : ndarray
        Mean of one half, shape (stimulus, site); NaN where the stimulus has fewer than two repeats at that site.
    second : ndarray
        Mean of the other half, same shape and the same NaN.

    Examples
    --------
    >>> trials = np.array([[[1.0], [1.0], [np.nan]], [[2.0], [np.nan], [np.nan]]])
    >>> first, second = random_halves(trials, np.random.default_rng(0))
    >>> first.ravel().tolist(), second.ravel().tolist()
    ([1.0, nan], [1.0, nan])
    """
    finite = np.isfinite(responses)
    return _halves(np.where(finite, responses, 0.0).astype(np.float64), _trial_patterns(finite), rng)


def _trial_patterns(finite: NDArray[np.bool_]) -> list[tuple[NDArray[np.intp], NDArray[np.bool_]]]:
    """Group the sites by which trials they have, as (site indices, finite (stimulus, repeat))."""
    n_sites = finite.shape[2]
    if n_sites == 0:
        return []
    if (finite == finite[:, :, :1]).all():
        return [(np.arange(n_sites), finite[:, :, 0])]
    packed = np.packbits(finite.reshape(-1, n_sites), axis=0)
    _, group = np.unique(packed, axis=1, return_inverse=True)
    members = [np.flatnonzero(group.ravel() == g) for g in range(int(group.max()) + 1)]
    return [(sites, finite[:, :, sites[0]]) for sites in members]


def _draw(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Random order of the repeats of every stimulus, and on which side an odd one goes."""
    return rng.random(shape), rng.random(shape[0]) < 0.5


def _in_first(
    finite: NDArray[np.bool_], keys: NDArray[np.float64], extra_goes_first: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which of the recorded trials (stimulus, repeat) are in the first half."""
    # Missing repeats sort last, so ranks 0 .. n-1 are a random order of the n recorded ones.
    rank = np.where(finite, keys, np.inf).argsort(axis=1).argsort(axis=1)
    n = finite.sum(axis=1)
    n_first = n // 2 + (n % 2) * extra_goes_first
    return finite & (rank < n_first[:, None])


def _halves(
    filled: NDArray[np.float64],
    patterns: list[tuple[NDArray[np.intp], NDArray[np.bool_]]],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One random split of `filled` (missing = 0) whose sites share the trials in `patterns`."""
    n_stimuli, n_repeats, n_sites = filled.shape
    draw = _draw((n_stimuli, n_repeats), rng)
    first, second = np.full((2, n_stimuli, n_sites), np.nan)
    for sites, finite in patterns:
        in_first, n = _in_first(finite, *draw), finite.sum(axis=1)
        in_second = finite & ~in_first
        trials = filled if len(sites) == n_sites else filled[:, :, sites]
        for half, chosen in ((first, in_first), (second, in_second)):
            total = np.matmul(chosen[:, None, :].astype(np.float64), trials)[:, 0, :]
            mean = total / np.maximum(chosen.sum(axis=1), 1)[:, None]
            half[:, sites] = np.where((n >= 2)[:, None], mean, np.nan)
    return first, second


def iterate_halves(
    responses: NDArray[np.floating], n_splits: int, seed: int
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield the two half means of one random split after the other.

    Parameters
    ----------
    responses : ndarray
        Trials, shape (stimulus, repeat, site); NaN = not shown or rejected.
    n_splits : int
        Number of random splits.
    seed : int
        Seed of the splits.

    Yields
    ------
    first : ndarray
        Mean of one half, shape (stimulus, site), as `random_halves` gives it.
    second : ndarray
        Mean of the other half.
    """
    rng = np.random.default_rng(seed)
    finite = np.isfinite(responses)
    filled = np.where(finite, responses, 0.0).astype(np.float64)
    patterns = _trial_patterns(finite)
    for _ in range(n_splits):
        yield _halves(filled, patterns, rng)


def random_half_mask(responses: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Choose a random half of the recorded repeats of every stimulus, trial by trial.

    Parameters
    ----------
    responses : ndarray
        Trials, shape (stimulus, repeat, site); NaN = not shown or rejected.
    rng : numpy.random.Generator
        Source of the random order.

    Returns
    -------
    ndarray
        True for the trials in the half, shape (stimulus, repeat, site); an odd repeat goes to a random side, and sites
        recorded on the same trials are split alike.
    """
    finite = np.isfinite(responses)
    draw = _draw(finite.shape[:2], rng)
    chosen = np.zeros(finite.shape, dtype=bool)
    for sites, pattern in _trial_patterns(finite):
        chosen[:, :, sites] = _in_first(pattern, *draw)[:, :, None]
    return chosen
