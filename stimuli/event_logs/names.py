"""The names under which a rig may log a stimulus: its id, its file, a path to it, or its BIDS label."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from stimuli import _table
from stimuli.bids_labels import bids_labels
from stimuli.gray import GRAY_ID, gray_control_id
from stimuli.hints import did_you_mean
from stimuli.stimulus_set import StimulusSet

NOTHING = frozenset({"", "n/a", "na", "nan", "none", "null", "--"})  # cells in which rigs say that there is no value
Kind = Literal["id", "file", "label"]
_FILES = frozenset({"filename", "image", "image_file", "image_name", "stim_file", "stimulus_filename"})  # columns


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
        self._set = stimuli if isinstance(stimuli, StimulusSet) else None
        if GRAY_ID not in self.ids:
            ids, filenames = [*ids, GRAY_ID], [*filenames, f"images/{GRAY_ID}.png"]
        labels = [f"stim-{label}" for label in bids_labels(ids)]
        pictures = [f"{label}_image.png" for label in labels]
        files = [name.rsplit("/", 1)[-1] for name in filenames]
        stems = [name.removesuffix(".png") for name in files]
        self._found: dict[Kind, dict[str, str | None]] = {  # where one text means two stimuli, the first list wins
            "id": _lookup(ids, ids, filenames, labels, pictures, files, stems),
            "file": _lookup(ids, filenames, files, pictures, ids, labels, stems),
            "label": _lookup(ids, labels, pictures, ids, filenames, files, stems),
        }

    @cached_property
    def order(self) -> tuple[str, ...]:
        """
        Return the ids as an exported set counts them: with the gray control at the end, unless the set has one.

        Returns
        -------
        tuple of str
            The ids; which of them is uniform gray is looked up in the images, where none is called "gray".

        Examples
        --------
        >>> StimulusNames(["b", "a"]).order
        ('b', 'a', 'gray')
        """
        if GRAY_ID in self.ids:
            return self.ids
        if self._set is not None:
            try:
                gray_control_id(self._set)
            except ValueError:
                pass  # none is uniform: the exporter has added one
            else:
                return self.ids
        return (*self.ids, GRAY_ID)

    def find(self, name: str, first: Kind = "id") -> str | None:
        """
        Return the id of the stimulus that a name means.

        Parameters
        ----------
        name : str
            An id, a file name, a path with slashes of either kind, or a BIDS name ``stim-<label>``.
        first : {"id", "file", "label"}
            What the name rather is, where it could be the id of one stimulus and the file or label of another. A name
            with slashes is never an id before it is a file.

        Returns
        -------
        str or None
            The id; None where the name means no stimulus, or two.

        Examples
        --------
        >>> StimulusNames(["a"]).find("b") is None
        True
        >>> names = StimulusNames(["a", "a.png"])  # the files are a.png and a.png.png
        >>> names.find("a.png"), names.find("a.png", "file"), names.find("rig/a.png")
        ('a.png', 'a', 'a')
        """
        parts = re.split(r"[/\\]", name.strip())
        known = self._found["file" if first == "id" and len(parts) > 1 else first]
        for start in range(len(parts)):
            found = known.get("/".join(parts[start:]))
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
        return is_nothing(cell) and str(cell).strip() not in self._found["id"]  # whole: n/a is no path to an a

    def tells(self, column: str, cells: Sequence[Any]) -> bool:
        """
        Say whether a column names stimuli of the set.

        Parameters
        ----------
        column : str
            Name of the column.
        cells : sequence
            Its cells.

        Returns
        -------
        bool
            True if all cells with a value do; for stimulus_id and filename, which mean nothing else, if any does.

        Examples
        --------
        >>> StimulusNames(["a"]).tells("image", ["a", "b"]), StimulusNames(["a"]).tells("filename", ["a", "b"])
        (False, True)
        """
        given = dict.fromkeys(str(cell) for cell in cells if not self.is_missing(cell))
        found = [self.find(cell, _kind(column)) is not None for cell in given]
        return any(found) if column in ("stimulus_id", "filename") else bool(found) and all(found)

    def identify(
        self, columns: Mapping[str, Sequence[Any]], line: Sequence[int], file: str, first: Kind | None = None
    ) -> list[str | None]:
        """
        Return the stimulus of every row from all columns that name it.

        Parameters
        ----------
        columns : mapping of str to sequence
            Cells by name of the column.
        line : sequence of int
            Where each row begins in the file.
        file : str
            Name of the log.
        first : {"id", "file", "label"}, optional
            What the names rather are, see `find`; by default told from the names of the columns.

        Returns
        -------
        list of str or None
            One id per row, None where no column names a stimulus.

        Raises
        ------
        ValueError
            If a name means no stimulus of the set, or two columns name two.

        Examples
        --------
        >>> StimulusNames(["a", "b"]).identify({"stimulus_id": ["a", ""], "filename": ["", ""]}, [2, 3], "log.csv")
        ['a', None]
        """
        meant: list[str | None] = [None] * len(line)
        said = [("", "")] * len(line)  # the cell and its column
        for column, cells in columns.items():
            rows = [k for k, cell in enumerate(cells) if not self.is_missing(cell)]
            found = self.resolve([cells[k] for k in rows], file, first or _kind(column))
            for k, name in zip(rows, found, strict=True):
                before = meant[k]
                if before is not None and before != name:
                    raise ValueError(
                        f"{file!r} names {said[k][0]!r} and {str(cells[k])!r} in row {line[k]}, which are the two "
                        f"stimuli {' and '.join(map(repr, sorted([before, name])))}: correct {said[k][1]} or {column}."
                    )
                meant[k], said[k] = name, (str(cells[k]), column)
        return meant

    def resolve(self, given: Sequence[Any], file: str, first: Kind = "id") -> list[str]:
        """
        Return the ids of all stimuli in a log, or say which name is unknown.

        Parameters
        ----------
        given : sequence
            Names as the log has them; anything but text is turned into text.
        file : str
            Name of the log.
        first : {"id", "file", "label"}
            What the names rather are, see `find`.

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
        ids = {name: self.find(name, first) for name in dict.fromkeys(texts)}
        unknown = [name for name, found in ids.items() if found is None]
        if unknown:
            name = unknown[0] if len(unknown[0]) <= 80 else unknown[0][:80] + "…"
            last = re.split(r"[/\\]", name)[-1]
            hint = did_you_mean(last, self._found[first])
            raise ValueError(
                f"{file!r} names the stimulus {name!r}, which is not among the {len(self.ids)} stimuli of the set "
                f"({len(unknown)} of {len(ids)} names): {hint}Give the set that was shown."
            )
        return [str(ids[name]) for name in texts]


def _lookup(ids: Sequence[str], *keys: Sequence[str]) -> dict[str, str | None]:
    """Return the stimulus that each key means, earlier keys first; None where one list has a key for two."""
    found: dict[str, str | None] = {}
    for names in keys:
        new: dict[str, str | None] = {}
        for stimulus, name in zip(ids, names, strict=True):
            new[name] = stimulus if new.get(name, stimulus) == stimulus else None
        found = {**new, **found}
    return found


def _kind(column: str) -> Kind:
    return "file" if column in _FILES else "id"


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
