"""Logs of PsychoPy: the CSV that run_rsvp.py writes, and the wide CSV of an ExperimentHandler."""

from __future__ import annotations

from pathlib import Path

from stimuli.event_logs._cells import Cells, plan_columns, read_cells, unmarked
from stimuli.event_logs.log import UNKNOWN, EventLog, event_log
from stimuli.event_logs.names import StimulusNames

__all__ = ["read"]

STARTED, STOPPED = ".started", ".stopped"
_STIMULUS = ("stimulus_id", "filename", "image", "image_file", "stim_file", "stimulus")
_COMPONENT = ("image", "stimulus", "stim", "picture")  # names of a component that shows an image, the likely ones first


def read(path: Path, names: StimulusNames, part: str | None = None) -> EventLog:
    r"""
    Read a log of PsychoPy.

    The log of our run_rsvp.py has the columns stimulus_id, onset_s, duration_s and shown. In the wide CSV that PsychoPy
    writes itself, onsets are in a column ``<component>.started``; rows without a stimulus are left out, and rows with
    a stimulus that never started were not shown. Where nothing marks broken presentations, a note says so.

    Parameters
    ----------
    path : Path
        The CSV file.
    names : StimulusNames
        The stimuli that may occur.
    part : str, optional
        The component whose ``<component>.started`` is the onset, where there are several.

    Returns
    -------
    EventLog
        The presentations.

    Raises
    ------
    ValueError
        If the file has no stimuli or onsets, two of its columns name two stimuli in one row, or what it has is not as
        `event_log` expects.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     file = Path(place) / "run.csv"
    ...     _ = file.write_text("image,trials.thisN,image.started,\nimages/a.png,0,1.25,\n")
    ...     read(file, StimulusNames(["a"])).table["onset_s"].tolist()
    [1.25]
    """
    cells = read_cells(path)
    named = {column: cells.columns[column] for column in _stimulus_columns(cells, names)}
    meant = names.identify(named, cells.line, path.name)
    keep = [k for k, name in enumerate(meant) if name is not None]
    cells = cells.take(keep)
    onset_name = _onset_column(cells) if part is None else part.removesuffix(STARTED) + STARTED
    onset = cells.numbers(cells.need(onset_name))
    rows: dict[str, list[object]] = {"stimulus": [meant[k] for k in keep], "onset_s": [*onset], "line": [*cells.line]}
    started = [value == value for value in onset]
    rows["shown"] = [*cells.truth("shown")] if "shown" in cells.columns else [*started]
    stopped = onset_name.removesuffix(STARTED) + STOPPED
    if "duration_s" in cells.columns:
        rows["duration_s"] = [*cells.numbers("duration_s")]
    elif onset_name.endswith(STARTED) and stopped in cells.columns:
        rows["duration_s"] = [end - start for end, start in zip(cells.numbers(stopped), onset, strict=True)]
    rows |= {name: [*values] for name, values in _plan(cells).items()}
    return event_log(rows, names, format="psychopy", file=path.name, notes=unmarked(cells, rows["shown"]))


def _stimulus_columns(cells: Cells, names: StimulusNames) -> list[str]:
    """Return all columns that name the stimulus, or the likely one, which then says what is wrong with it."""
    known = [column for column in _STIMULUS if column in cells.columns]
    telling = [column for column in known if names.tells(column, cells.columns[column])]
    if not known:  # a condition file of one's own may call it anything
        telling = [column for column, values in cells.columns.items() if names.tells(column, values)][:1]
    return telling or known[:1] or [cells.need(*_STIMULUS[:2])]


def _onset_column(cells: Cells) -> str:
    if "onset_s" in cells.columns:
        return "onset_s"
    started = [name for name in cells.columns if name.endswith(STARTED)]
    likely = [name for part in _COMPONENT for name in started if name == part + STARTED]
    if len(started) > 1 and not likely:
        raise ValueError(
            f"{cells.file!r} has the onsets {', '.join(started)}: say by part which component is the image."
        )
    return (likely or started or ["onset_s"])[0]


def _plan(cells: Cells) -> dict[str, list[int]]:
    plan = plan_columns(cells, UNKNOWN)
    loops = [name for name in cells.columns if name.endswith(".thisN")]
    if "trial" not in plan and loops:
        plan["trial"] = cells.whole(loops[-1], UNKNOWN)
    return plan
