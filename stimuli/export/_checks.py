"""What must not go to a rig: cells that a spreadsheet runs, and names that not every system takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from stimuli._table import some
from stimuli.event_logs.names import is_nothing
from stimuli.sequence import PresentationOrder
from stimuli.stimulus_set import StimulusSet

MAX_FIELD = 8000  # characters; a cell of a spreadsheet takes 32,767, and nothing but a mistake is longer than this
_RUNS = re.compile(r"[=+@\t\r\n\uff1d\uff0b\uff20\uff0d]")  # the last four are the wide forms of = + @ -
_FILE = re.compile(r"images/[A-Za-z0-9_][A-Za-z0-9._-]*\.png")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def check_table(stimuli: StimulusSet) -> None:
    """Raise if a cell or a column name could run in a spreadsheet or is too long, or a name cannot be a file."""
    table = stimuli.table
    for column in table.columns:
        _check_cell(str(column), "the name of a column", str(column))
        if table[column].dtype == object:
            for stimulus, cell in zip(table["stimulus_id"], table[column], strict=True):
                if isinstance(cell, str):
                    _check_cell(cell, f"the column {column!r} of the stimulus {stimulus!r}", str(column))
    _check_names(list(table["stimulus_id"]), list(table["filename"]))


def check_columns(names: Iterable[str], model: str) -> None:
    """Raise if the name of a site cannot be the name of a column."""
    for name in names:
        _check_cell(name, f"the name of a site predicted by {model!r}", "")


def _check_cell(cell: str, where: str, column: str) -> None:
    if len(cell) > MAX_FIELD:
        raise ValueError(f"There are {len(cell):,} characters in {where}: shorten it to {MAX_FIELD:,} for an export.")
    if "\0" in cell:
        raise ValueError(f"There is a null character in {where}: remove it.")
    runs = bool(_RUNS.match(cell)) or (cell.startswith("-") and column != "objective" and not is_number(cell))
    if runs:
        raise ValueError(
            f"A spreadsheet would run {cell[:40]!r} in {where} as a formula: begin it with a letter or a digit."
        )


def is_number(cell: str) -> bool:
    """Say whether Python reads a text as a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def is_value(name: str) -> bool:
    """Say whether pandas, by which programs of rigs read tables, may take a name for a number or a truth value."""
    return is_number(name) or name.lower() in ("true", "false")


def _check_names(ids: Sequence[str], filenames: Sequence[str]) -> None:
    wrong = [name for name in filenames if not _FILE.fullmatch(name)]
    if wrong:
        raise ValueError(
            f"filename {some(wrong)} is not safe on every rig: give names like 'images/name.png' made of letters, "
            "digits, '_', '-' and '.'."
        )
    nothing = [name for name in ids if is_nothing(name)]
    if nothing:
        raise ValueError(
            f"stimulus_id {some(nothing)} means 'no value' to the programs of rigs, which read tables with pandas: "
            "rename the stimulus."
        )
    for what, names in (("stimulus_id", ids), ("filename", [name.removeprefix("images/") for name in filenames])):
        reserved = [name for name in names if _RESERVED.fullmatch(name)]
        if reserved:
            raise ValueError(f"{what} {some(reserved)} is the name of a device on Windows: choose another name.")
        folded = pd.Series([name.lower() for name in names])
        if folded.duplicated().any():
            twins = [name for name, same in zip(names, folded.duplicated(keep=False), strict=True) if same]
            raise ValueError(
                f"{what} {some(twins)} differ in case only, so that one would replace the other on a rig with Windows "
                "or macOS: rename one of them."
            )


def check_position(position_deg: object) -> tuple[float, float]:
    """Return a position as two finite numbers, or raise."""
    pair = position_deg if isinstance(position_deg, (tuple, list)) else ()
    numbers = [float(p) for p in pair if isinstance(p, (int, float, np.number)) and not isinstance(p, bool)]
    if len(pair) != 2 or len(numbers) != 2 or not np.isfinite(numbers).all():
        raise ValueError(f"position_deg is {position_deg!r}: give (x, y) in degrees, x to the right and y up.")
    return numbers[0], numbers[1]


def check_order(order: PresentationOrder, stimuli: StimulusSet) -> None:
    """Raise unless every presentation is of a stimulus of the set under its file name."""
    table = stimuli.table
    files = dict(zip(table["stimulus_id"], table["filename"], strict=True))
    shown = order.table[["stimulus_id", "filename"]].drop_duplicates()
    for stimulus, filename in shown.itertuples(index=False):
        if files.get(stimulus) != filename:
            expected = files.get(stimulus)
            fix = f"where the set has {expected!r}" if expected else f"which is not in the set {stimuli.name!r}"
            raise ValueError(
                f"The presentation order shows {stimulus!r} from {filename!r}, {fix}: make the order from the set."
            )
