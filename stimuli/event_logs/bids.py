"""Logs in BIDS: a task-*_events.tsv with stim_file or, as Stim-BIDS (BEP044, a draft) has it, stim_id."""

from __future__ import annotations

from pathlib import Path

from stimuli.event_logs._cells import plan_columns, read_cells
from stimuli.event_logs.log import UNKNOWN, EventLog, event_log
from stimuli.event_logs.names import StimulusNames

__all__ = ["read"]


def read(path: Path, names: StimulusNames) -> EventLog:
    r"""
    Read the events of a BIDS dataset.

    Rows in which both stim_id and stim_file are "n/a" are other events and left out. The column shown of our template
    (true or false) marks broken presentations; without it every row with an onset was shown.

    Parameters
    ----------
    path : Path
        The TSV file.
    names : StimulusNames
        The stimuli that may occur.

    Returns
    -------
    EventLog
        The presentations.

    Raises
    ------
    ValueError
        If onset, or both stim_file and stim_id are missing, or stim_file and stim_id of a row mean two stimuli.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     file = Path(place) / "sub-01_task-rsvp_events.tsv"
    ...     _ = file.write_text("onset\tduration\tstim_file\n0.5\t0.1\tstim-a_image.png\n0.7\t0.1\tn/a\n")
    ...     read(file, StimulusNames(["a"])).table["stimulus_id"].tolist()
    ['a']
    """
    cells = read_cells(path, quoted=False)
    cells.need("onset")
    columns = [name for name in ("stim_id", "stim_file") if name in cells.columns]
    if not columns:
        cells.need("stim_file", "stim_id")
    cells = cells.take(
        [k for k in range(len(cells)) if any(not names.is_missing(cells.columns[c][k]) for c in columns)]
    )
    given = [
        [cell for cell in row if not names.is_missing(cell)]
        for row in zip(*(cells.columns[name] for name in columns), strict=True)
    ]
    for row, line in zip(given, cells.line, strict=True):
        meant = set(names.resolve(row, path.name))
        if len(meant) > 1:
            raise ValueError(
                f"{path.name!r} names {' and '.join(map(repr, row))} in row {line}, which are the two stimuli "
                f"{' and '.join(map(repr, sorted(meant)))}: correct stim_id or stim_file."
            )
    onset = cells.numbers("onset")
    rows: dict[str, list[object]] = {"stimulus": [row[0] for row in given], "onset_s": [*onset], "line": [*cells.line]}
    rows["shown"] = [*cells.truth("shown")] if "shown" in cells.columns else [value == value for value in onset]
    if "duration" in cells.columns:
        rows["duration_s"] = [*cells.numbers("duration")]
    rows |= {name: [*values] for name, values in plan_columns(cells, UNKNOWN).items()}
    return event_log(rows, names, format="bids", file=path.name)
