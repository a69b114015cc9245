"""Labels of images: their classes as numbers, groups held out class by class, and a table of confusions.

In: a stimulus set and labels. Out: arrays and tables. Used by ``fine_tuning``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stimuli import StimulusSet
from stimuli.hints import did_you_mean


def class_index(stimuli: StimulusSet, labels: str | Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int_]]:
    """Return the names of the classes, in alphabetical order, and the class of each image.

    Parameters
    ----------
    stimuli : StimulusSet
        The images.
    labels : str or sequence of str
        A column of ``stimuli.table``, or one label an image.

    Returns
    -------
    names : tuple of str
        The classes.
    index : ndarray of int, (stimulus,)
        The place of each image's class among them.

    Raises
    ------
    ValueError
        When labels are missing, of another number than images, or all the same.

    Examples
    --------
    >>> images = StimulusSet.from_arrays(np.random.default_rng(0).random((3, 1, 4, 4)))
    >>> class_index(images, ["dog", "cat", "dog"])
    (('cat', 'dog'), array([1, 0, 1]))
    """
    if isinstance(labels, str):
        if labels not in stimuli.table:
            hint = did_you_mean(labels, list(map(str, stimuli.table.columns)))
            raise ValueError(
                f"the stimulus set has no column {labels!r} of labels; {hint}it has: "
                f"{', '.join(map(str, stimuli.table))}"
            )
        labels = list(stimuli.table[labels])
    given = pd.Series(list(labels), dtype=object)
    if len(given) != len(stimuli):
        raise ValueError(f"{len(given)} labels were given for {len(stimuli)} images; give one for each image")
    if given.isna().any():
        missing = [stimuli.stimulus_ids[k] for k in np.flatnonzero(given.isna())[:5]]
        raise ValueError(f"{int(given.isna().sum())} image(s) have no label: {', '.join(missing)}; leave them out")
    names, index = np.unique(given.astype(str).to_numpy(dtype=str), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"all images are of one class, {str(names[0])!r}; give at least two classes")
    return tuple(map(str, names)), index


def split_groups(
    truth: NDArray[np.int_], groups: NDArray[np.generic], share: float, seed: int, names: Sequence[str]
) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Hold out whole groups until every class has its share, and leave every class at least one group.

    Parameters
    ----------
    truth : ndarray of int
        Class of each image.
    groups : ndarray
        Label of each image's group.
    share : float
        Share of the images of each class to hold out.
    seed : int
        Seed of the choice.
    names : sequence of str
        Names of the classes, for the error.

    Returns
    -------
    rest, held_out : ndarray of int
        Indices of the images.

    Raises
    ------
    ValueError
        When a class has too few groups.

    Examples
    --------
    >>> groups = np.array(["a", "a", "b", "c", "c", "d"])
    >>> rest, held_out = split_groups(np.array([0, 0, 0, 1, 1, 1]), groups, 0.3, 0, ["x", "y"])
    >>> sorted({str(groups[k]) for k in rest} & {str(groups[k]) for k in held_out})
    []
    """
    order = np.random.default_rng(seed)
    held: set[str] = set()
    text = groups.astype(str)
    for k, name in enumerate(names):
        own = text[truth == k]
        own_groups, sizes = np.unique(own, return_counts=True)
        if len(own_groups) < 2:
            raise ValueError(
                f"class {name!r} has {len(own)} image(s) in {len(own_groups)} group(s) left to split; give every class "
                "images of at least three groups (photographs): one to train, one to say when to stop, one to test"
            )
        taken = int(sizes[[group in held for group in own_groups]].sum())
        free = [j for j in order.permutation(len(own_groups)) if own_groups[j] not in held]
        for j in free[: len(free) - 1 if taken == 0 or len(free) == len(own_groups) else len(free)]:
            if taken >= share * len(own):
                break
            held.add(str(own_groups[j]))
            taken += int(sizes[j])
    out = np.array([group in held for group in text])
    for k, name in enumerate(names):
        if not (~out & (truth == k)).any():
            raise ValueError(f"class {name!r} shares all its groups with others held out; group by another column")
    return np.flatnonzero(~out), np.flatnonzero(out)


def confusion(truth: NDArray[np.int_], named: NDArray[np.int_], names: Sequence[str]) -> pd.DataFrame:
    """Count images by true class (rows) and named class (columns).

    Parameters
    ----------
    truth, named : ndarray of int
        Classes of the images.
    names : sequence of str
        Names of the classes.

    Returns
    -------
    DataFrame
        Counts.

    Examples
    --------
    >>> confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), ["cat", "dog"]).to_numpy().tolist()
    [[1, 0], [1, 1]]
    """
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (truth, named), 1)
    return pd.DataFrame(counts, index=pd.Index(names, name="true class"), columns=list(names))
