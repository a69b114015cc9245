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

#: orders of the groups that are tried before a split counts as impossible
_TRIES = 100


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
    if "label" in names:
        raise ValueError("a class is called 'label', as is the column of predictions; call it something else")
    if len(names) < 2:
        raise ValueError(f"all images are of one class, {str(names[0])!r}; give at least two classes")
    return tuple(map(str, names)), index


def split_groups(
    truth: NDArray[np.int_],
    groups: NDArray[np.generic],
    share: float,
    seed: int,
    names: Sequence[str],
    leave: int = 1,
) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Hold out whole groups until every class has its share, and leave every class some groups.

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
    leave : int
        Groups that every class keeps at least.

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
    labels, place = np.unique(groups.astype(str), return_inverse=True)
    counts = np.zeros((len(labels), len(names)), dtype=int)  # images of every group and class
    np.add.at(counts, (place, truth), 1)
    for k, name in enumerate(names):
        own = int((counts[:, k] > 0).sum())
        if own <= leave:
            raise ValueError(
                f"class {name!r} has {int(counts[:, k].sum())} image(s) in {own} group(s) left to split; give every "
                "class images of at least three groups (photographs): one to train, one to say when to stop, one to "
                "test"
            )
    order = np.random.default_rng(seed)
    for _ in range(_TRIES):
        held = _held_groups(counts, share, leave, order)
        if (counts[held].sum(0) > 0).all():
            out = held[place]
            return np.flatnonzero(~out), np.flatnonzero(out)
    alone = names[int(np.argmin(counts[held].sum(0)))]
    raise ValueError(f"class {alone!r} shares its groups with classes that need them; group by another column")


def _held_groups(counts: NDArray[np.int_], share: float, leave: int, order: np.random.Generator) -> NDArray[np.bool_]:
    """Take groups class by class, in random order, but none without which a class would keep too few."""
    held = np.zeros(len(counts), dtype=bool)
    for own in counts.T:
        groups = np.flatnonzero(own)
        for group in groups[order.permutation(len(groups))]:
            if own[held].sum() >= share * own.sum():
                break
            held[group] = held[group] or ((counts[~held] > 0).sum(0) - (counts[group] > 0) >= leave).all()
    return held


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
