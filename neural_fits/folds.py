"""Which stimuli stay together, and which are held out: groups, parts and folds over whole photographs.

In: a stimulus set and the name of a column. Out: index arrays. Used by `fit_sites` and `cross_validation`.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from stimuli import StimulusSet
from stimuli.hints import did_you_mean

#: indices of training and of held-out stimuli
Fold = tuple[NDArray[np.int_], NDArray[np.int_]]


def group_labels(stimuli: StimulusSet, column: str) -> NDArray[np.generic]:
    """Return the label of each stimulus's group.

    Parameters
    ----------
    stimuli : StimulusSet
        The images.
    column : str
        Column of ``stimuli.table``. A stimulus without a label there is a group of its own, and so is every stimulus
        where the column ``"photograph"`` is absent.

    Returns
    -------
    ndarray, (stimulus,)
        Labels.

    Raises
    ------
    ValueError
        When a column asked for by another name is absent.

    Examples
    --------
    >>> table = {"stimulus_id": ["a", "b", "c"], "photograph": ["lake", "lake", None]}
    >>> group_labels(StimulusSet.from_arrays(np.zeros((3, 1, 4, 4)), table), "photograph").tolist()
    ['lake', 'lake', 'c']
    """
    table = stimuli.table
    if column in table:
        # From Python strings: pandas would cut labels to one letter as soon as one of them is missing.
        cells = zip(table[column].notna(), table[column], stimuli.stimulus_ids, strict=True)
        return np.array([str(label) if named else stimulus for named, label, stimulus in cells], dtype=str)
    if column != "photograph":  # asked for by name, so its absence is a mistake
        hint = did_you_mean(column, list(table.columns))
        raise ValueError(
            f"the stimulus set has no column {column!r} to group by; {hint}it has: {', '.join(map(str, table))}"
        )
    return np.asarray(stimuli.stimulus_ids)


def part_of_groups(groups: NDArray[np.generic], part: str, seed: int = 0) -> NDArray[np.int_]:
    """Return the stimuli of one of several disjoint parts of the groups.

    Groups are shuffled, then given one after the other to the part with the fewest stimuli.

    Parameters
    ----------
    groups : ndarray, (stimulus,)
        Label of each stimulus's group.
    part : str
        ``"A"`` or ``"B"`` for halves, ``"2/3"`` for the second of three parts.
    seed : int
        Seed of the shuffle.

    Returns
    -------
    ndarray of int
        Indices of the stimuli, in their order.

    Raises
    ------
    ValueError
        For another name of a part, or fewer groups than parts.

    Examples
    --------
    >>> part_of_groups(np.array(["x", "x", "y", "y"]), "A").tolist() in ([0, 1], [2, 3])
    True
    """
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", {"A": "1/2", "B": "2/2"}.get(part, part))
    index, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= index <= count or count < 2:
        raise ValueError(
            f"split is {part!r}; expected 'A' or 'B', 'k/n' for the k-th of n parts, or None for everything"
        )
    names, counts = np.unique(groups, return_counts=True)
    if len(names) < count:
        raise ValueError(f"all stimuli belong to {len(names)} group(s); a split into {count} needs at least {count}")
    parts: list[list[int]] = [[] for _ in range(count)]
    sizes = np.zeros(count, dtype=int)
    for k in np.random.default_rng(seed).permutation(len(names)):
        smallest = int(sizes.argmin())
        parts[smallest].append(k)
        sizes[smallest] += int(counts[k])
    return np.flatnonzero(np.isin(groups, names[parts[index - 1]]))


def group_folds(groups: NDArray[np.generic], folds: int, seed: int) -> list[Fold]:
    """Return folds that keep the stimuli of one group on one side.

    Parameters
    ----------
    groups : ndarray, (stimulus,)
        Label of each stimulus's group.
    folds : int
        Number of folds.
    seed : int
        Seed of the assignment.

    Returns
    -------
    list of (train, test)
        Indices of the stimuli.

    Raises
    ------
    ValueError
        For fewer than two folds, or more than there are groups.
    """
    count = len(np.unique(groups))
    if count < 2:
        raise ValueError("all stimuli belong to one group, so none can be held out; group by another column")
    if folds < 2 or count < folds:
        raise ValueError(f"{folds} folds asked for, {count} group(s) of stimuli are there; expected 2 to {count} folds")
    return list(GroupKFold(folds, shuffle=True, random_state=seed).split(groups, groups=groups))
