"""Event tables of MWorks, as people export them from .mwk2 files to CSV: time in microseconds, event, value.

Names of events and columns are those that laboratories' own readers of .mwk2 files use; MWorks prescribes none but
``#stimDisplayUpdate`` and ``#announceStimulus``.
"""

from __future__ import annotations

import ast
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stimuli.event_logs._cells import Cells, read_cells
from stimuli.event_logs.log import UNKNOWN, EventLog, event_log
from stimuli.event_logs.names import StimulusNames, is_nothing

__all__ = ["read"]

PRESENTED = "stimulus_presented"  # value: index into the set from 0, id or file of the image; -1 when it is gone
UPDATES = ("#stimDisplayUpdate", "#announceStimulus")  # value: what is on the screen, images with their file names
OUTCOME = ("correct_fixation", "fixation_correct")  # value: whether the presentation before it was whole
TRIAL = ("trial_start_line", "trial_start")
ORDER_ROW = "presentation"  # logged by our rsvp.mwel, whose stimulus_presented holds ids and never an index
_ORDER = ("stimulus_order_in_trial",)
_ONSETS_US = ("photodiode_on_us", "samp_on_us")


def read(path: Path, names: StimulusNames) -> EventLog:
    r"""
    Read a table of MWorks events, or the table of presentations that is made of them.

    A table of events has the columns time (in microseconds; ``time_us`` or ``time``), event (``name``, ``event`` or
    ``code``) and value (``value`` or ``data``). Images come from stimulus_presented, or from #stimDisplayUpdate and
    #announceStimulus where that is not logged; correct_fixation says of the presentation before it whether it was
    whole, and trial_start_line begins a trial. A table of presentations has stimulus_presented or stimulus_filename,
    photodiode_on_us or samp_on_us, and fixation_correct. Numbers count the images of the set from 0, except that our
    rsvp.mwel logs ids.

    Parameters
    ----------
    path : Path
        The CSV or TSV file.
    names : StimulusNames
        The stimuli that may occur.

    Returns
    -------
    EventLog
        The presentations.

    Raises
    ------
    ValueError
        If columns are missing, no event shows an image, or an index is beyond the set.

    Examples
    --------
    >>> import tempfile
    >>> events = "time,name,value\n1000000,stimulus_presented,0\n1100000,correct_fixation,1\n"
    >>> with tempfile.TemporaryDirectory() as place:
    ...     file = Path(place) / "events.csv"
    ...     _ = file.write_text(events)
    ...     read(file, StimulusNames(["a"])).table[["stimulus_id", "onset_s", "shown"]].values.tolist()
    [['a', 1.0, True]]
    """
    cells = read_cells(path)
    onset = cells.first(*_ONSETS_US)
    rows = _from_events(cells, names) if onset is None else _from_presentations(cells, onset, names)
    return event_log(rows, names, format="mworks", file=path.name)


def _from_presentations(cells: Cells, onset: str, names: StimulusNames) -> dict[str, list[Any]]:
    column = cells.need("stimulus_filename", PRESENTED)
    rows: dict[str, list[Any]] = {
        "stimulus": [_named(cell, names, cells.file, line) for cell, line in _lines(cells, column)],
        "onset_s": [us / 1e6 for us in cells.numbers(onset)],
        "line": [*cells.line],
    }
    if "stim_on_time_ms" in cells.columns:
        rows["duration_s"] = [ms / 1e3 for ms in cells.numbers("stim_on_time_ms")]
    outcome, order = cells.first(*OUTCOME), cells.first(*_ORDER)
    if outcome is not None:
        rows["shown"] = cells.truth(outcome)
    if order is not None:
        place = cells.whole(order, UNKNOWN)
        rows["position"] = [k - 1 if k > 0 else UNKNOWN for k in place]
        rows["trial"] = [n - 1 for n in itertools.accumulate(int(k == 1) for k in place)]
    return rows


def _lines(cells: Cells, column: str) -> Iterator[tuple[str, int]]:
    return zip(cells.columns[column], cells.line, strict=True)


def _from_events(cells: Cells, names: StimulusNames) -> dict[str, list[Any]]:
    time_column = cells.need("time_us", "time")
    name_column, value_column = cells.need("name", "event", "code"), cells.need("value", "data")
    time_us = cells.numbers(time_column)
    lost = next((line for time, line in zip(time_us, cells.line, strict=True) if math.isnan(time)), None)
    if lost is not None:
        raise ValueError(f"{cells.file!r} has no time in row {lost}: every event of MWorks has one, export it again.")
    order = sorted(range(len(cells)), key=lambda k: time_us[k])  # tables are often written event by event
    kinds, values = [kind.strip() for kind in cells.columns[name_column]], cells.columns[value_column]
    shows = next((kind for kind in (PRESENTED, *UPDATES) if kind in kinds), None)
    if shows is None:
        raise ValueError(
            f"{cells.file!r} shows no image: none of its events is {PRESENTED}, {' or '.join(UPDATES)} "
            f"(it has {', '.join(sorted(set(kinds))[:8]) or 'none'}); export these events, by name."
        )
    by_id = ORDER_ROW in kinds
    found: list[dict[str, Any]] = []
    current: dict[str, Any] | None = None  # what is on the screen now
    trial, position = UNKNOWN, 0
    for k in order:
        kind, value, line = kinds[k], values[k].strip(), cells.line[k]
        if kind == shows:
            if shows == PRESENTED:
                image = _presented(value, by_id, names, cells.file, line)
            else:
                image = _on_screen(value, names, cells.file, line)
                if image is None and shows == UPDATES[1]:  # it announces other stimuli one by one, images stay
                    continue
            if current is not None and image != current["stimulus"]:
                if image is None:  # whatever replaces an image at once need not have been there all the time
                    current["duration_s"] = (time_us[k] / 1e6) - current["onset_s"]
                current = None
            if image is not None and (current is None or shows == PRESENTED):
                current = {"stimulus": image, "onset_s": time_us[k] / 1e6, "line": line, "shown": True}
                current |= {"duration_s": math.nan, "trial": trial, "position": position if trial >= 0 else UNKNOWN}
                found.append(current)
                position += 1
        elif kind in OUTCOME and found and not is_nothing(value):
            found[-1]["shown"] = Cells({kind: [value]}, [line], cells.file).truth(kind)[0]
        elif kind in TRIAL and value not in ("0", "False", "false"):  # the line falls again after its pulse
            trial, position = trial + 1, 0
    keys = ("stimulus", "onset_s", "duration_s", "shown", "trial", "position", "line")
    return {key: [row[key] for row in found] for key in keys}


def _presented(value: str, by_id: bool, names: StimulusNames, file: str, line: int) -> str | None:
    """Return the image that a value of stimulus_presented means, None where there is none."""
    text = value.strip("'\"")
    if names.is_missing(text) or (not by_id and text in ("-1", "-1.0")):
        return None
    return text if by_id else _named(text, names, file, line)


def _named(value: str, names: StimulusNames, file: str, line: int) -> str:
    """Return the id for an index from 0, or the name as it is."""
    text = value.strip().strip("'\"")
    digits = text.removesuffix(".0")
    if not digits.isdigit() or (len(digits) > 1 and digits[0] == "0"):  # "0012" is a name
        return text
    index = int(digits)
    if index >= len(names.order):
        raise ValueError(
            f"{file!r} shows the image {index} in row {line}, but the set has {len(names.order)} images counted from "
            "0: give the set that was shown."
        )
    named = names.find(text)
    if named not in (None, names.order[index]):
        raise ValueError(
            f"{file!r} shows {text!r} in row {line}, which is the id of one image and the place of another "
            f"({names.order[index]!r}): log file names instead."
        )
    return names.order[index]


def _on_screen(value: str, names: StimulusNames, file: str, line: int) -> str | None:
    """Return the image of the set among what is on the screen, None if there is none."""
    items = [item for item in _parse(value, file, line) if isinstance(item, dict)]
    images = [item for item in items if item.get("type") == "image" and item.get("action") != "erase"]
    given = [str(item.get("filename") or item.get("name") or "") for item in images]
    known = [found for found in map(names.find, given) if found is not None]
    if not images or known:
        return known[0] if known else None
    return names.resolve(given, file)[0]  # says which name is unknown


def _parse(value: str, file: str, line: int) -> list[Any]:
    """Read a list of dictionaries as JSON or Python writes it; nothing is evaluated."""
    if is_nothing(value):
        return []
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        try:
            parsed = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise ValueError(
                f"{file!r} has in row {line} a value that is neither JSON nor a Python literal: export the values of "
                f"{' and '.join(UPDATES)} as JSON."
            ) from None
    return parsed if isinstance(parsed, list) else [parsed]
