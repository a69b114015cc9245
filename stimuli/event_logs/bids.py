"""Logs in BIDS: a task-*_events.tsv with stim_file or, as Stim-BIDS (BEP044, a draft) has it, stim_id."""

from __future__ import annotations

from pathlib import Path

from stimuli.event_logs._cells import Cells, plan_columns, read_cells, unmarked
from stimuli.event_logs.log import UNKNOWN, EventLog, event_log
from stimuli.event_logs.names import StimulusNames, is_nothing

__all__ = ["read"]


def read(path: Path, names: StimulusNames) -> EventLog:
    r"""
    Read the events of a BIDS dataset.

    Rows in which both stim_id and stim_file are "n/a" are other events and left out. ``stim-<label>`` is a label here,
    before it is an id. The column shown of our template (true or false) marks broken presentations; without it every
    row with an onset was shown, and a note says so where all have one.

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
        If onset, or both stim_file and stim_id are missing, stim_file and stim_id of a row mean two stimuli, or shown
        is "n/a" for a presentation, as in the template, which is a plan.

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
    meant = names.identify({name: cells.columns[name] for name in columns}, cells.line, path.name, "label")
    keep = [k for k, name in enumerate(meant) if name is not None]
    cells = cells.take(keep)
    _refuse_unmarked(cells)
    onset = cells.numbers("onset")
    rows: dict[str, list[object]] = {"stimulus": [meant[k] for k in keep], "onset_s": [*onset], "line": [*cells.line]}
    rows["shown"] = [*cells.truth("shown")] if "shown" in cells.columns else [value == value for value in onset]
    if "duration" in cells.columns:
        rows["duration_s"] = [*cells.numbers("duration")]
    rows |= {name: [*values] for name, values in plan_columns(cells, UNKNOWN).items()}
    return event_log(rows, names, format="bids", file=path.name, notes=unmarked(cells, rows["shown"]))


def _refuse_unmarked(cells: Cells) -> None:
    unmarked = [k for k, cell in enumerate(cells.columns.get("shown", [])) if is_nothing(cell)]
    if unmarked:
        what = "which is the plan as it was exported" if len(unmarked) == len(cells) else "which says neither"
        raise ValueError(
            f"{cells.file!r} has shown = n/a for {len(unmarked)} of {len(cells)} presentations, the first in row "
            f"{cells.line[unmarked[0]]}, {what}: write the onsets of the run, and true or false into every row."
        )
