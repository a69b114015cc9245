"""How well a segmentation agrees with the truth: areas, and single objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ObjectScores:
    """Agreement object by object.

    Parameters
    ----------
    hits : int
        True objects of which a found one shares more than half of their union.
    found, true : int
        Objects found, and objects there.

    Examples
    --------
    >>> ObjectScores(hits=3, found=4, true=5).f1
    0.6666666666666666
    """

    hits: int
    found: int
    true: int

    @property
    def f1(self) -> float:
        """Harmonic mean of the shares of found objects that are right and of true objects that are found."""
        return 2 * self.hits / max(self.found + self.true, 1)


def mean_iou(found: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """Return the area that two masks share over that of both together, averaged over images.

    Parameters
    ----------
    found, true : ndarray of bool, (image, height, width)
        Masks.

    Returns
    -------
    float
        From 0 to 1; images where both are empty count 1.

    Raises
    ------
    ValueError
        When the shapes differ.

    Examples
    --------
    >>> mean_iou(np.array([[[True, True, False]]]), np.array([[[True, False, False]]]))
    0.5
    """
    if found.shape != true.shape:
        raise ValueError(f"masks have shapes {found.shape} and {true.shape}; give maps of the same shape")
    shared, both = (found & true).sum((1, 2)), (found | true).sum((1, 2))
    return float(np.where(both > 0, shared / np.maximum(both, 1), 1.0).mean())


def matched_objects(found: NDArray[np.int64], true: NDArray[np.int64]) -> ObjectScores:
    """Count the objects that are found, those that are merged or split being missed.

    Parameters
    ----------
    found, true : ndarray of int, (image, height, width)
        0 is the background, every other number of an image an object.

    Returns
    -------
    ObjectScores
        The counts; an object is found when the intersection over the union exceeds one half, which only one can.

    Examples
    --------
    >>> matched_objects(np.array([[[1, 0, 2, 2]]]), np.array([[[3, 0, 4, 0]]]))
    ObjectScores(hits=1, found=2, true=2)
    """
    hits = ours = theirs = 0
    for one, other in zip(found, true, strict=True):
        names, true_names = np.unique(one[one > 0]), np.unique(other[other > 0])
        ours, theirs = ours + len(names), theirs + len(true_names)
        for name in true_names:
            inside = other == name
            for candidate in np.unique(one[inside]):
                same = one == candidate
                hits += bool(candidate and (same & inside).sum() > 0.5 * (same | inside).sum())
    return ObjectScores(hits, ours, theirs)
