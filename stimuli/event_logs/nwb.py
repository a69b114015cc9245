"""Logs in NWB: the trials or another table of intervals with a column of stimuli, or an IndexSeries into Images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stimuli.event_logs._cells import Cells
from stimuli.event_logs.log import EventLog, event_log
from stimuli.event_logs.names import StimulusNames
from stimuli.hints import did_you_mean
from stimuli.nwb_files import (
    PLANNED,
    image_sources,
    index_series,
    open_nwb,
    plain_columns,
    presentation_onsets,
    series_names,
    series_onsets,
)

__all__ = ["read"]

_STIMULUS = ("stimulus_id", "image_id", "stimulus_filename", "image_name", "stimulus_name", "stimulus", "image")
_SHOWN = ("shown", "fixation_correct")


def read(path: Path, names: StimulusNames, part: str | None = None) -> EventLog:
    """
    Read the presentations of an NWB file.

    A table of intervals (the trials first) that names stimuli by text is read before an IndexSeries, because it can
    say more: stop_time gives durations, and shown or fixation_correct marks what was broken. Onsets are start_time,
    unless the table has a column such as stimulus_onset or stim_on_time: trials often begin before the image.

    Parameters
    ----------
    path : Path
        The file.
    names : StimulusNames
        The stimuli that may occur.
    part : str, optional
        The table or IndexSeries to read, where there are several.

    Returns
    -------
    EventLog
        The presentations.

    Raises
    ------
    ImportError
        If pynwb is not installed.
    ValueError
        If the file cannot be read, neither a table nor an IndexSeries names stimuli, two columns name two stimuli in
        one row, or onsets contradict each other or lie outside their rows.
    """
    with open_nwb(path) as nwb:
        tables = _tables(nwb, names)
        known = [*tables, *index_series(nwb)]
        if part is not None and part not in known:
            listed = ", ".join(map(repr, known)) or "none"
            raise ValueError(
                f"{path.name!r} has no table or IndexSeries {part!r} that names stimuli (it has {listed}): "
                f"{did_you_mean(part, known)}Give one of these as part."
            )
        if part is None and not known:
            raise ValueError(
                f"{path.name!r} does not say which stimulus was shown when: no table of intervals has a column of text "
                "such as stimulus_id, and there is no IndexSeries; add such a column to the trials."
            )
        if part is None and len(tables) != 1 and not (len(known) == 1 or "trials" in tables):
            raise ValueError(
                f"{path.name!r} names stimuli in {', '.join(map(repr, known))}: say which one was shown by part."
            )
        chosen = part or ("trials" if "trials" in tables else known[0])
        notes: list[str] = []
        if str(nwb.session_description).startswith(PLANNED):
            notes.append(f"{path.name!r} is the plan as it was exported, so nothing in it says what was really shown")
        if chosen in tables:
            columns, named = tables[chosen]
            rows, onset = _from_table(columns, named, names, f"{path.name}, table {chosen}")
            if chosen == "trials" and onset == "start_time":
                notes.append("onsets are start_time of the trials; if images came later, add a column stimulus_onset")
            if "correct" in columns and not set(_SHOWN) & set(columns):
                notes.append("the column correct was not read; call it fixation_correct if it says that fixation held")
        else:
            rows = _from_series(index_series(nwb)[chosen], image_sources(nwb), chosen, path)
        return event_log(rows, names, format="nwb", file=path.name, notes=notes)


def _tables(nwb: Any, names: StimulusNames) -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Return the columns of every table that names stimuli, and which of them do."""
    tables = {} if nwb.trials is None else {"trials": nwb.trials}
    tables |= {name: table for name, table in (nwb.intervals or {}).items() if name != "trials"}
    found = {}
    for name, table in tables.items():
        columns = plain_columns(table)
        texts = {k: column for k, column in columns.items() if column.dtype == object}
        telling = [k for k, cells in texts.items() if names.tells(k, cells)]
        filled = [k for k in _STIMULUS if k in texts and not all(map(names.is_missing, texts[k]))]
        likely = [k for k in _STIMULUS if k in telling] or telling[:1] or filled[:1]
        if likely:
            found[name] = (columns, likely)
    return found


def _from_table(
    columns: dict[str, Any], named: list[str], names: StimulusNames, file: str
) -> tuple[dict[str, list[Any]], str]:
    """Return what `event_log` takes, and the column of the onsets."""
    count = len(columns[named[0]])
    meant = names.identify({k: columns[k] for k in named}, range(1, count + 1), file)
    keep = [k for k, name in enumerate(meant) if name is not None]
    column, onset = presentation_onsets(columns, keep, file)
    start, stop = (np.asarray(columns[k], dtype=np.float64)[keep] for k in ("start_time", "stop_time"))
    rows: dict[str, list[Any]] = {
        "stimulus": [meant[k] for k in keep],
        "onset_s": onset.tolist(),
        "line": [k + 1 for k in keep],
        "shown": np.isfinite(onset).tolist(),
    }
    if "duration_s" in columns and columns["duration_s"].dtype.kind in "iuf":
        rows["duration_s"] = np.asarray(columns["duration_s"], dtype=np.float64)[keep].tolist()
    elif np.array_equal(onset, start, equal_nan=True):  # otherwise the row is longer than the image
        rows["duration_s"] = (stop - start).tolist()
    marks = next((k for k in _SHOWN if k in columns), None)
    if marks is not None:
        cells = Cells({marks: [str(columns[marks][k]) for k in keep]}, rows["line"], file)
        rows["shown"] = cells.truth(marks)
    for name in ("trial", "position", "block"):
        if name in columns and columns[name].dtype.kind in "iu":
            rows[name] = np.asarray(columns[name])[keep].tolist()
    return rows, column


def _from_series(series: Any, sources: dict[str, Any], name: str, path: Path) -> dict[str, list[Any]]:
    listed = series_names(series, sources)
    if listed is None:
        raise ValueError(
            f"The IndexSeries {name!r} of {path.name!r} counts images that have no order in the file: add "
            "order_of_images to the Images, or a table of intervals with a column stimulus_id."
        )
    numbers = np.asarray(series.data[:]).astype(np.int64)
    onset = series_onsets(series)
    beyond = numbers >= len(listed)
    if beyond.any():
        raise ValueError(
            f"The IndexSeries {name!r} of {path.name!r} shows image {int(numbers[beyond][0])}, but there are "
            f"{len(listed)} images counted from 0: write the file again."
        )
    keep = np.flatnonzero(numbers >= 0)  # a negative number means that nothing was shown
    return {
        "stimulus": [listed[numbers[k]] for k in keep],
        "onset_s": onset[keep].tolist(),
        "shown": np.isfinite(onset[keep]).tolist(),
        "line": (keep + 1).tolist(),
    }
