"""Event tables of MWorks, as people export them from .mwk2 files to CSV: time in microseconds, event, value.

Names of events and columns are those that laboratories' own readers of .mwk2 files use; MWorks prescribes none but
``#stimDisplayUpdate`` and ``#announceStimulus``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stimuli.event_logs._cells import Cells, read_cells
from stimuli.event_logs._mworks_screen import Screen, images_in
from stimuli.event_logs.log import UNKNOWN, EventLog, event_log
from stimuli.event_logs.names import StimulusNames, is_nothing

__all__ = ["read"]

PRESENTED = "stimulus_presented"  # value: index into the set from 0, id or file of the image; -1 when it is gone
UPDATES = ("#stimDisplayUpdate", "#announceStimulus")  # value: what is on the screen, images with their file names
OUTCOME = ("correct_fixation", "fixation_correct")  # value: whether the presentation before it was whole
TRIAL = ("trial_start_line", "trial_start")
ORDER_ROW = "presentation"  # logged by our rsvp.mwel, whose stimulus_presented holds ids and never an index
OUTPUT_TIME = "output_time"  # logged by our rsvp.mwel before stimulus_presented: when the screen shows that, in us
_ORDER = ("stimulus_order_in_trial",)
_ONSETS_US = ("photodiode_on_us", "samp_on_us")


def read(path: Path, names: StimulusNames) -> EventLog:
    r"""
    Read a table of MWorks events, or the table of presentations that is made of them.

    A table of events has the columns time (in microseconds; ``time_us`` or ``time``), event (``name``, ``event`` or
    ``code``) and value (``value`` or ``data``). Images come from stimulus_presented, or from #stimDisplayUpdate and
    #announceStimulus where that is not logged; correct_fixation says of the presentation before it whether it was
    whole, and trial_start_line begins a trial. A presentation that the log ends in was not shown. A table of
    presentations has stimulus_presented or stimulus_filename, photodiode_on_us or samp_on_us, and fixation_correct.
    Numbers count the images of the set from 0, except that our rsvp.mwel logs ids; there, a presentation was whole if
    the event presentation goes up after it.

    An event of stimulus_presented is up to a frame older than the image on the screen. Onsets are the times that
    MWorks predicted for the screen: output_time of our rsvp.mwel, or the event #stimDisplayUpdate that first has the
    image; where neither was exported, the time of stimulus_presented. A photodiode knows better.

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
    time_us = _times(cells)
    name_column, value_column = cells.need("name", "event", "code"), cells.need("value", "data")
    kinds, values = [kind.strip() for kind in cells.columns[name_column]], cells.columns[value_column]
    shows = next((kind for kind in (PRESENTED, *UPDATES) if kind in kinds), None)
    if shows is None:
        raise ValueError(
            f"{cells.file!r} shows no image: none of its events is {PRESENTED}, {' or '.join(UPDATES)} "
            f"(it has {', '.join(sorted(set(kinds))[:8]) or 'none'}); export these events, by name."
        )
    # tables are often written event by event; of events of one time, what is said of an image comes after it
    rank = {**dict.fromkeys((*TRIAL, OUTPUT_TIME), 0), shows: 1}
    order = sorted(range(len(cells)), key=lambda k: (time_us[k], rank.get(kinds[k], 2)))
    ours = ORDER_ROW in kinds
    predicts = ours and OUTPUT_TIME in kinds
    screen = Screen()
    found: list[dict[str, Any]] = []
    current: dict[str, Any] | None = None  # what is on the screen now
    trial, position, order_row, tells_ends = UNKNOWN, 0, math.nan, False
    for k in order:
        kind, value, line = kinds[k], values[k].strip(), cells.line[k]
        if kind == shows:
            if shows == PRESENTED:
                image = _presented(value, ours, names, cells.file, line)
            else:
                image = _on_screen(value, names, cells.file, line)
                if image is None and shows == UPDATES[1]:  # it announces other stimuli one by one, images stay
                    continue
            change = screen.change(time_us[k], image)
            if current is not None and image != current["stimulus"]:
                current["ended"] = True
                if image is None or ours:  # elsewhere, what replaces an image need not have come when that went
                    current["off"] = change
                tells_ends = tells_ends or image is None
                current = None
            if image is not None and (current is None or shows == PRESENTED):
                current = {"stimulus": image, "on": change, "off": None, "line": line, "shown": not ours}
                current |= {"trial": trial, "position": position if trial >= 0 else UNKNOWN, "ended": False}
                found.append(current)
                position += 1
        elif kind == UPDATES[0] and not predicts:
            screen.update(time_us[k], value, names, cells.file, line)
        elif kind == OUTPUT_TIME and predicts:
            screen.predict(time_us[k], _number(kind, value, line, cells.file), line, cells.file)
        elif kind == ORDER_ROW:
            row = _number(kind, value, line, cells.file)
            if found and (row > order_row or (math.isnan(order_row) and row > 0)):
                found[-1]["shown"] = True
            elif row < order_row:  # the protocol begins anew
                current = None
            order_row = row
        elif kind in OUTCOME and found and not ours and not is_nothing(value):
            found[-1]["shown"] = Cells({kind: [value]}, [line], cells.file).truth(kind)[0]
            found[-1]["ended"] = tells_ends = True
        elif kind in TRIAL and value not in ("0", "False", "false"):  # the line falls again after its pulse
            trial, position = trial + 1, 0
    if found and tells_ends and not found[-1]["ended"]:
        found[-1]["shown"] = False  # the log ends in the middle of it
    keys = ("stimulus", "shown", "trial", "position", "line")
    return {key: [row[key] for row in found] for key in keys} | screen.times(found)


def _times(cells: Cells) -> list[float]:
    column = cells.need("time_us", "time")
    time_us = cells.numbers(column)
    for time, line in zip(time_us, cells.line, strict=True):
        if math.isnan(time):
            raise ValueError(
                f"{cells.file!r} has no time in row {line}: every event of MWorks has one, export it again."
            )
        if column == "time" and time % 1:
            raise ValueError(
                f"{cells.file!r} has the time {time:g} in row {line}, where MWorks counts whole microseconds: give the "
                "times in microseconds."
            )
    return time_us


def _number(kind: str, value: str, line: int, file: str) -> float:
    return Cells({kind: [value]}, [line], file).numbers(kind)[0]


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
    if not (digits.isascii() and digits.isdecimal()) or (len(digits) > 1 and digits[0] == "0"):  # "0012" is a name
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
    known, images = images_in(value, names, file, line)
    if not images or known:
        return known[0] if known else None
    return names.resolve(images, file)[0]  # says which name is unknown
