"""The names under which a rig may log a stimulus: its id, its file, a path to it, or its BIDS label."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from stimuli import _table
from stimuli.bids_labels import bids_labels
from stimuli.gray import GRAY_ID
from stimuli.hints import did_you_mean
from stimuli.stimulus_set import StimulusSet

NOTHING = frozenset({"", "n/a", "na", "nan", "none", "null", "--"})  # cells in which rigs say that there is no value


class StimulusNames:
    """
    Finds the stimulus that a name in a log means.

    Parameters
    ----------
    stimuli : StimulusSet or sequence of str
        The set that was shown, or its ids; the uniform gray control "gray" of every exported set is known besides.

    Raises
    ------
    TypeError
        If neither a set nor ids come.

    Examples
    --------
    >>> names = StimulusNames(["face_1", "face_2"])
    >>> names.find("face_2"), names.find("/rig/images/face_2.png"), names.find("stim-face1_image.png")
    ('face_2', 'face_2', 'face_1')
    """

    def __init__(self, stimuli: StimulusSet | Sequence[str]) -> None:
        if isinstance(stimuli, StimulusSet):
            ids, filenames = stimuli.stimulus_ids, list(stimuli.table["filename"])
        else:
            if isinstance(stimuli, str) or not all(isinstance(name, str) for name in stimuli):
                raise TypeError(f"stimuli is {stimuli!r}: give a StimulusSet or a list of stimulus ids.")
            ids, filenames = list(stimuli), [f"images/{name}.png" for name in stimuli]
        _table.check_ids(ids)
        self.ids = tuple(ids)
        if GRAY_ID not in self.ids:
            ids, filenames = [*ids, GRAY_ID], [*filenames, f"images/{GRAY_ID}.png"]
        self.order = tuple(ids)  # with the gray control at its end, as an exported set has it
        self._found: dict[str, str | None] = {}
        for keys in (ids, filenames, [f"stim-{label}" for label in bids_labels(ids)]):
            self._add(ids, keys)  # whole names first: they win over parts
        self._add(ids, [f"stim-{label}_image.png" for label in bids_labels(ids)])
        self._add(ids, [name.rsplit("/", 1)[-1] for name in filenames])
        self._add(ids, [name.rsplit("/", 1)[-1].removesuffix(".png") for name in filenames])

    def _add(self, ids: Sequence[str], keys: Sequence[str]) -> None:
        new: dict[str, str | None] = {}
        for stimulus, key in zip(ids, keys, strict=True):
            new[key] = stimulus if new.get(key, stimulus) == stimulus else None  # None: two files of one name
        self._found = {**new, **self._found}

    def find(self, name: str) -> str | None:
        """
        Return the id of the stimulus that a name means.

        Parameters
        ----------
        name : str
            An id, a file name, a path with slashes of either kind, or a BIDS name ``stim-<label>``.

        Returns
        -------
        str or None
            The id; None where the name means no stimulus, or two.

        Examples
        --------
        >>> StimulusNames(["a"]).find("b") is None
        True
        """
        parts = re.split(r"[/\\]", name.strip())
        for start in range(len(parts)):
            found = self._found.get("/".join(parts[start:]))
            if found is not None:
                return found
        return None

    def is_missing(self, cell: Any) -> bool:
        """
        Say whether a cell names no stimulus because there was none.

        Parameters
        ----------
        cell : object
            The cell of a log.

        Returns
        -------
        bool
            True for an empty cell, "n/a", "nan", "none" and the like, unless a stimulus is called so.

        Examples
        --------
        >>> StimulusNames(["a"]).is_missing("none"), StimulusNames(["none"]).is_missing("none")
        (True, False)
        """
        return is_nothing(cell) and str(cell).strip() not in self._found  # whole: the path n/a does not end in an a

    def resolve(self, given: Sequence[Any], file: str) -> list[str]:
        """
        Return the ids of all stimuli in a log, or say which name is unknown.

        Parameters
        ----------
        given : sequence
            Names as the log has them; anything but text is turned into text.
        file : str
            Name of the log.

        Returns
        -------
        list of str
            One id per name.

        Raises
        ------
        ValueError
            If a name means no stimulus of the set, or two.

        Examples
        --------
        >>> StimulusNames(["face_1"]).resolve(["face_l"], "log.csv")
        Traceback (most recent call last):
        ...
        ValueError: 'log.csv' names the stimulus 'face_l', which is not among the 1 stimuli of the set \
(1 of 1 names): did you mean 'face_1'? Give the set that was shown.
        """
        texts = [str(name) for name in given]
        ids = {name: self.find(name) for name in dict.fromkeys(texts)}
        unknown = [name for name, found in ids.items() if found is None]
        if unknown:
            name = unknown[0] if len(unknown[0]) <= 80 else unknown[0][:80] + "…"
            last = re.split(r"[/\\]", name)[-1]
            hint = did_you_mean(last, self._found)
            raise ValueError(
                f"{file!r} names the stimulus {name!r}, which is not among the {len(self.ids)} stimuli of the set "
                f"({len(unknown)} of {len(ids)} names): {hint}Give the set that was shown."
            )
        return [str(ids[name]) for name in texts]


def is_nothing(cell: Any) -> bool:
    """
    Say whether a cell of a log means that there is no value.

    Parameters
    ----------
    cell : object
        The cell.

    Returns
    -------
    bool
        True for an empty cell, "n/a", "nan", "none" and the like.

    Examples
    --------
    >>> is_nothing("n/a"), is_nothing("0")
    (True, False)
    """
    return cell is None or str(cell).strip().lower() in NOTHING
