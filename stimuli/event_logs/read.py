"""read_event_log: the log of a rig, whichever wrote it, to an EventLog."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from stimuli.event_logs import bids, mworks, nwb, psychopy
from stimuli.event_logs._cells import column_names
from stimuli.event_logs.log import EventLog
from stimuli.event_logs.names import StimulusNames
from stimuli.hints import did_you_mean
from stimuli.stimulus_set import StimulusSet

FORMATS = ("bids", "mworks", "nwb", "psychopy")


def read_event_log(
    path: str | os.PathLike[str],
    stimuli: StimulusSet | Sequence[str],
    format: str | None = None,
    *,
    part: str | None = None,
) -> EventLog:
    r"""
    Read what a rig has shown, and number the repeats of every stimulus by it.

    The presentation order that was exported is a plan; this is what happened. Broken presentations stay in the log
    with ``shown`` False.

    Parameters
    ----------
    path : path
        A CSV log of run_rsvp.py or an ExperimentHandler of PsychoPy, a table of MWorks events, a BIDS events.tsv, or
        an NWB file.
    stimuli : StimulusSet or sequence of str
        The set that was exported, or its ids in order.
    format : str, optional
        "psychopy", "mworks", "bids" or "nwb"; by default told from the suffix and the columns.
    part : str, optional
        Which one, where there are several: the component of PsychoPy whose ``<component>.started`` is the onset, or the
        table or IndexSeries of an NWB file.

    Returns
    -------
    EventLog
        One row per presentation, by increasing onset.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the format is unknown or the log cannot be read; a stimulus that is not in the set comes with the closest
        match.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     file = Path(place) / "run.csv"
    ...     _ = file.write_text("stimulus_id,onset_s,shown\na,0.1,True\nb,0.3,False\nb,0.9,True\na,1.1,True\n")
    ...     log = read_event_log(file, ["a", "b"])
    >>> log.table["repeat"].tolist()
    [0, -1, 0, 1]
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file}: give the log of a rig.")
    names = StimulusNames(stimuli)
    chosen = _guess(file) if format is None else format
    if chosen not in FORMATS:
        raise ValueError(
            f"The format {chosen!r} is unknown: {did_you_mean(str(chosen), FORMATS)}Give one of {', '.join(FORMATS)}."
        )
    if chosen in ("psychopy", "nwb"):
        return {"psychopy": psychopy.read, "nwb": nwb.read}[chosen](file, names, part)
    if part is not None:
        raise ValueError(f"part={part!r} is for logs of PsychoPy and NWB, and {file.name!r} is {chosen}: leave it out.")
    return {"bids": bids.read, "mworks": mworks.read}[chosen](file, names)


def _guess(file: Path) -> str:
    """Tell the format from the suffix and the columns."""
    if file.suffix.lower() == ".nwb":
        return "nwb"
    columns = set(column_names(file))
    if {"onset", "duration"} <= columns:
        return "bids"
    if "onset_s" in columns or any(name.endswith(psychopy.STARTED) for name in columns):
        return "psychopy"
    if {"time", "time_us", "photodiode_on_us", "samp_on_us"} & columns:
        return "mworks"
    listed = ", ".join(map(repr, sorted(columns)[:12]))
    raise ValueError(
        f"The format of {file.name!r} cannot be told from its columns {listed}: give format, one of "
        f"{', '.join(FORMATS)}."
    )
