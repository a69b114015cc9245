"""What the best natural images do by an objective, chosen and measured on different repeats.

In: recordings of natural images, objectives. Out: a `NaturalBaseline` for each, and the same numbers for families of
images. Called by `evaluate_control`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neural_fits.recordings import SiteRecordings
from synth._recorded_scores import SPLITS, score
from synth.objectives import Objective, SiteScale


@dataclass(frozen=True, eq=False)
class NaturalBaseline:
    """What natural images reach by one objective.

    Parameters
    ----------
    best, best5, p99 : float
        Score of the best image, mean of the five best, and the 99th percentile over images, all chosen on one random
        half of the repeats and measured on the other: the mean over splits and both directions.
    upper : float
        The largest score of means over all repeats, which noise biases upward.
    image : int
        Row of the image that is chosen most often.
    scores : ndarray, (image,)
        Mean score over the halves; NaN where fewer than two repeats were recorded.
    variance : ndarray, (image,)
        Variance of these scores by trial noise, from the difference of the halves.
    halves : ndarray, (direction, image)
        Scores on the choosing halves; those on the measuring halves are the same rows from the last to the first.
    """

    best: float
    best5: float
    p99: float
    upper: float
    image: int
    scores: NDArray[np.float64]
    variance: NDArray[np.float64]
    halves: NDArray[np.float64]


def natural_baselines(
    natural: SiteRecordings, objectives: Sequence[Objective], scale: SiteScale, seed: int
) -> dict[Objective, NaturalBaseline]:
    """Measure the natural baselines of every objective.

    Parameters
    ----------
    natural : SiteRecordings
        Responses to the natural images.
    objectives : sequence of Objective
        What scores them.
    scale : SiteScale
        The recorded sites with their natural mean and standard deviation.
    seed : int
        Seed of the splits; split k has the seed ``seed + k``.

    Returns
    -------
    dict of Objective to NaturalBaseline
        One entry for each different objective.

    Raises
    ------
    ValueError
        When no image has two repeats at every site that an objective reads, or such a site never varies.

    Examples
    --------
    >>> import torch
    >>> from synth.objectives import Stretch
    >>> trials = np.repeat(np.arange(4.0)[:, None, None], 2, axis=1)
    >>> recorded = SiteRecordings(trials, ("a", "b", "c", "d"), pd.DataFrame(index=pd.Index(["s"], name="site_id")))
    >>> scale = SiteScale(("s",), torch.zeros(1), torch.ones(1))
    >>> found = natural_baselines(recorded, [Stretch("s")], scale, seed=0)[Stretch("s")]
    >>> found.best, found.best5, found.image
    (3.0, 1.5, 3)
    """
    pairs = [natural.halves(seed + split) for split in range(SPLITS)]
    halves = np.stack([first for first, _ in pairs] + [second for _, second in reversed(pairs)])
    everything = natural.mean()
    found = {}
    for objective in dict.fromkeys(objectives):
        scores = score(objective, halves, scale)
        scores[:, ~np.isfinite(scores).all(axis=0)] = np.nan
        if np.isnan(scores).all():
            raise ValueError(
                f"no natural image has two repeats at every site of {objective!r}, or one of these sites never "
                "varies; the best natural image must be chosen on one half of the repeats and measured on the "
                "other: record more repeats, or name a smaller population"
            )
        best, best5, p99 = cross_validated(scores)
        chosen = np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)
        found[objective] = NaturalBaseline(
            best=best,
            best5=best5,
            p99=p99,
            upper=float(np.nanmax(score(objective, everything, scale))),
            image=int(np.bincount(chosen).argmax()),
            scores=scores.mean(axis=0),
            variance=np.square(scores - scores[::-1]).mean(axis=0) / 4,
            halves=scores,
        )
    return found


def cross_validated(halves: NDArray[np.float64]) -> tuple[float, float, float]:
    """Choose the best images on one half of the repeats and measure them on the other.

    Parameters
    ----------
    halves : ndarray, (direction, image)
        Scores on the halves: row k chooses, the k-th row from the end measures. An image that is NaN in one row is so
        in all, and left out.

    Returns
    -------
    best : float
        Measured score of the image chosen as the best, mean over directions; NaN where there is no image.
    best5 : float
        That of the five best, or of all where there are fewer.
    p99 : float
        That at the 99th percentile, interpolated between the two images chosen as next to it.

    Examples
    --------
    >>> cross_validated(np.array([[1.0, 2.0, 3.0], [1.0, 5.0, 3.0]]))
    (2.5, 2.5, 2.53)
    """
    halves = halves[:, ~np.isnan(halves[0])]
    images = halves.shape[1]
    if not images:
        return np.nan, np.nan, np.nan
    order = np.argsort(-halves, axis=1, kind="stable")
    measured = np.take_along_axis(halves[::-1], order, axis=1).mean(axis=0)  # by rank of the choosing half
    place = 0.01 * (images - 1)
    p99 = np.interp(place, np.arange(images), measured)
    return float(measured[0]), float(measured[:5].mean()), float(p99)


def family_baselines(
    baselines: Mapping[str, tuple[Objective, NaturalBaseline]], families: Sequence[str]
) -> pd.DataFrame:
    """Measure the same baselines within each family of the natural images.

    Parameters
    ----------
    baselines : mapping of str to (Objective, NaturalBaseline)
        For every objective, as written in the table, what `natural_baselines` found.
    families : sequence of str
        Family of every natural image.

    Returns
    -------
    DataFrame
        One row for each objective and family: objective, target_site, reference_family, n (images with two repeats),
        best, best5, p99.

    Examples
    --------
    >>> family_baselines({}, ["photo", "grating"]).columns.tolist()
    ['objective', 'target_site', 'reference_family', 'n', 'best', 'best5', 'p99']
    """
    labels = np.array([str(family) for family in families], dtype=object)
    rows = []
    for name, (objective, baseline) in baselines.items():
        for family in dict.fromkeys(labels):
            halves = baseline.halves[:, labels == family]
            count = int((~np.isnan(halves[0])).sum())
            rows.append((name, objective.target, family, count, *cross_validated(halves)))
    return pd.DataFrame(rows, columns=["objective", "target_site", "reference_family", "n", "best", "best5", "p99"])
