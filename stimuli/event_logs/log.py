"""EventLog: one row per presentation, in order of time, with the repeat that it really was."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stimuli.event_logs.names import StimulusNames
from stimuli.files import atomic_write

COLUMNS = ("trial", "position", "block", "repeat", "stimulus_id", "onset_s", "duration_s", "shown")
UNKNOWN = -1  # a trial, position or block that the log does not tell, and the repeat of what was not shown


@dataclass(frozen=True, eq=False, repr=False)
class EventLog:
    """
    What was shown when, presentation by presentation.

    Parameters
    ----------
    table : DataFrame
        One row per presentation by increasing onset, with the columns trial, position, block, repeat, stimulus_id,
        onset_s, duration_s and shown. ``repeat`` counts the presentations of a stimulus that were really shown, from
        0; a broken one stays as a row with ``shown`` False and the repeat -1. A trial, position or block that the log
        does not tell is -1, an unknown duration is NaN.
    stimulus_ids : tuple of str
        The stimuli of the set, shown or not, in its order.
    format : str
        Format of the file that it was read from.
    file : str
        Name of that file.
    notes : tuple of str
        What the file leaves in doubt, one sentence each.

    Examples
    --------
    >>> rows = {"stimulus": ["a", "b", "a"], "onset_s": [0.0, 0.2, 0.4]}
    >>> log = event_log(rows, StimulusNames(["a", "b"]), format="psychopy", file="log.csv")
    >>> log.table["repeat"].tolist()
    [0, 0, 1]
    """

    table: pd.DataFrame
    stimulus_ids: tuple[str, ...]
    format: str
    file: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.table)

    @property
    def shown(self) -> NDArray[np.bool_]:
        """Whether each presentation was shown whole, shape (presentation,)."""
        return self.table["shown"].to_numpy(dtype=bool)

    def counts(self) -> pd.Series:
        """
        Count how often each stimulus of the set was really shown.

        Returns
        -------
        Series of int
            Indexed by stimulus_id in the order of the set; 0 for a stimulus that was never shown.

        Examples
        --------
        >>> log = event_log({"stimulus": ["b"], "onset_s": [0.0]}, StimulusNames(["a", "b"]), format="bids", file="x")
        >>> log.counts().to_dict()
        {'a': 0, 'b': 1}
        """
        seen = self.table.loc[self.shown, "stimulus_id"].value_counts()
        return seen.reindex(list(self.stimulus_ids), fill_value=0).rename("shown")

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """
        Write the table as CSV, which `read_event_log` reads as the format "psychopy".

        Parameters
        ----------
        path : path
            The file to write.

        Returns
        -------
        Path
            The file written.

        Examples
        --------
        >>> import tempfile
        >>> log = event_log({"stimulus": ["a"], "onset_s": [0.5]}, StimulusNames(["a"]), format="bids", file="x")
        >>> with tempfile.TemporaryDirectory() as place:
        ...     print(log.to_csv(f"{place}/log.csv").read_text().splitlines()[1])
        -1,-1,-1,0,a,0.5,,True
        """
        return atomic_write(path, self.table.to_csv(index=False, lineterminator="\n"))

    def __repr__(self) -> str:
        broken, seen = int((~self.shown).sum()), int((self.counts() > 0).sum())
        notes = "".join(f"; {note}" for note in self.notes)
        return (
            f"EventLog({self.file!r}, {self.format}: {len(self)} presentations, {broken} of them broken, of {seen} of "
            f"{len(self.stimulus_ids)} stimuli{notes})"
        )


def event_log(
    rows: Mapping[str, Sequence[Any]], names: StimulusNames, *, format: str, file: str, notes: Sequence[str] = ()
) -> EventLog:
    """
    Check the presentations of a log, name their stimuli and number the repeats by what was really shown.

    Parameters
    ----------
    rows : mapping of str to sequence
        Columns of equal length: ``stimulus`` (any name of a stimulus: id, file name, path), ``onset_s``, and if known
        ``duration_s``, ``shown``, ``trial``, ``position``, ``block`` and ``line`` (of the file, for errors).
    names : StimulusNames
        The stimuli that may occur.
    format : str
        Format of the file.
    file : str
        Name of the file.
    notes : sequence of str
        What the file leaves in doubt.

    Returns
    -------
    EventLog
        The checked log.

    Raises
    ------
    ValueError
        If there are no rows, a stimulus is not in the set, an onset is missing, repeated or earlier than the one
        before, or a duration is negative.

    Examples
    --------
    >>> rows = {"stimulus": ["images/a.png"], "onset_s": [1.5], "shown": [True]}
    >>> event_log(rows, StimulusNames(["a"]), format="psychopy", file="log.csv").table["stimulus_id"].tolist()
    ['a']
    """
    count = len(rows["stimulus"])
    if not count:
        raise ValueError(f"{file!r} holds no presentation of a stimulus: give the log of a run.")
    shown = np.asarray(rows.get("shown", np.ones(count)), dtype=bool)
    onset = np.asarray(rows["onset_s"], dtype=np.float64)
    duration = np.asarray(rows.get("duration_s", np.full(count, np.nan)), dtype=np.float64)
    line = [int(k) for k in rows.get("line", range(1, count + 1))]
    ids = names.resolve(list(rows["stimulus"]), file)
    _check_times(onset, duration, shown, line, file)
    table = pd.DataFrame({"stimulus_id": pd.Series(ids, dtype=object), "onset_s": onset, "duration_s": duration})
    for key in ("trial", "position", "block"):
        table[key] = np.asarray(rows.get(key, np.full(count, UNKNOWN)), dtype=np.int64)
    table["shown"] = shown
    table["repeat"] = UNKNOWN
    table.loc[shown, "repeat"] = table[shown].groupby("stimulus_id").cumcount()
    return EventLog(table[list(COLUMNS)], names.ids, format, file, tuple(notes))


def _check_times(
    onset: NDArray[np.float64], duration: NDArray[np.float64], shown: NDArray[np.bool_], line: list[int], file: str
) -> None:
    lost = np.flatnonzero(shown & ~np.isfinite(onset))
    if len(lost):
        raise ValueError(
            f"{file!r} has no onset for {len(lost)} presentations that were shown, the first in row {line[lost[0]]}: "
            "add the onsets, or mark the rows as not shown."
        )
    timed = np.flatnonzero(np.isfinite(onset))
    step = np.diff(onset[timed])
    for wrong, problem, remedy in (
        (step < 0, "is before", "two runs in one file? give each its own file; rows of one run, sort by onset"),
        (step == 0, "is the same as", "remove the copies: one presentation is one row"),
    ):
        if wrong.any():
            first = int(wrong.argmax())
            before, after = timed[first], timed[first + 1]
            raise ValueError(
                f"In {file!r}, the onset {onset[after]:g} s of row {line[after]} {problem} the onset "
                f"{onset[before]:g} s of row {line[before]} ({int(wrong.sum())} such rows): {remedy}."
            )
    negative = np.flatnonzero(duration < 0)
    if len(negative):
        raise ValueError(
            f"{file!r} has the duration {duration[negative[0]]:g} s in row {line[negative[0]]}: correct it or leave it "
            "empty."
        )
