"""The table of a stimulus set: columns of numbers, text and booleans, written to CSV and read back unchanged."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from stimuli.files import safe_name

RESERVED = ("stimulus_id", "filename")
WRITTEN = "sha256"  # added by save, checked and dropped by load
_SAFE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_EXACT = 2**53  # the largest whole number up to which floating point holds every one


def some(names: Iterable[object], limit: int = 3) -> str:
    """List the first names and count the rest."""
    listed = [repr(name) for name in names]
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def tidy_column(name: object, column: pd.Series) -> pd.Series:
    """Bring a column to bool or int64 (boolean or Int64 with missing values), float64, or object of text and None."""
    if not isinstance(name, str) or not name:
        raise TypeError(f"Column name {name!r} is not text: name the columns of a stimulus table with text.")
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    missing = column.isna()
    values = list(column[~missing])
    if values and all(isinstance(v, (bool, np.bool_)) for v in values):
        return column.astype(object).astype("boolean" if missing.any() else bool)
    if all(isinstance(v, (int, float, np.integer, np.floating)) and not isinstance(v, bool) for v in values):
        whole = [int(v) for v in values if isinstance(v, (int, np.integer))]
        if any(not -(2**63) <= v < 2**63 for v in whole):
            raise ValueError(f"Column {name!r} holds whole numbers beyond 64 bits: store them as text.")
        if values and len(whole) == len(values):
            return _whole(column, missing)
        if any(abs(v) > _EXACT for v in whole):
            raise ValueError(
                f"Column {name!r} holds whole numbers beyond 2**53 among fractions, which would be rounded: store them "
                "as text."
            )
        return column.astype(object).where(~missing, np.nan).astype("float64")
    if all(isinstance(v, str) for v in values):
        return pd.Series([None if gone else v for v, gone in zip(column, missing, strict=True)], dtype=object)
    kinds = sorted({type(v).__name__ for v in values})
    raise TypeError(f"Column {name!r} holds {' and '.join(kinds)}: a stimulus table holds numbers, text or booleans.")


def _whole(cells: Iterable[Any], missing: Sequence[bool] | pd.Series) -> pd.Series:
    """Make a column of whole numbers, nullable where some are missing; never by way of floating point."""
    gone = np.array(missing, dtype=bool)
    numbers = np.array([0 if absent else int(cell) for cell, absent in zip(cells, gone, strict=True)], dtype=np.int64)
    return pd.Series(pd.arrays.IntegerArray(numbers, gone)) if gone.any() else pd.Series(numbers)


def tidy_table(table: pd.DataFrame | Mapping[str, Any] | None, count: int) -> pd.DataFrame:
    """Copy a user's table into tidy columns and check its length."""
    if table is None:
        return pd.DataFrame(index=pd.RangeIndex(count))
    if isinstance(table, pd.DataFrame):
        frame = table.reset_index(drop=True)
    elif isinstance(table, Mapping):
        scalar = [name for name, values in table.items() if np.ndim(values) == 0]
        if scalar:
            raise TypeError(f"Column {scalar[0]!r} is one value: give a list with one value per image.")
        lengths = {name: len(values) for name, values in table.items()}
        wrong = [name for name, length in lengths.items() if length != count]
        if wrong:
            raise ValueError(f"Column {wrong[0]!r} has {lengths[wrong[0]]} values for {count} images: give one each.")
        frame = pd.DataFrame({name: pd.Series(list(values), dtype=object) for name, values in table.items()})
    else:
        raise TypeError(f"The table is a {type(table).__name__}: give a pandas DataFrame or a dict of columns.")
    if len(frame) != count:
        raise ValueError(f"The table has {len(frame)} rows for {count} images: give one row per image.")
    repeated = list(frame.columns[frame.columns.duplicated()])
    if repeated:
        raise ValueError(f"The table has the column {repeated[0]!r} twice: rename one of them.")
    if WRITTEN in frame.columns:
        raise ValueError(f"The column {WRITTEN!r} is written by save: leave it out of the table.")
    columns = {name: tidy_column(name, frame[name]).reset_index(drop=True) for name in frame.columns}
    return pd.DataFrame(columns, index=pd.RangeIndex(count))


def check_ids(ids: Sequence[object]) -> None:
    """Raise unless the ids are distinct text that can serve as file names everywhere."""
    wrong = [value for value in ids if not isinstance(value, str)]
    if wrong:
        raise TypeError(f"stimulus_id {wrong[0]!r} is a {type(wrong[0]).__name__}: give stimulus ids as text.")
    unsafe = [value for value in ids if not _SAFE_ID.fullmatch(str(value)) or str(value).endswith(".")]
    if unsafe:
        raise ValueError(
            f"stimulus_id {some(unsafe)} cannot be a file name: use letters, digits, '_', '-' and '.', at most 200."
        )
    repeated = _repeated(ids)
    if repeated:
        raise ValueError(f"stimulus_id {some(repeated)} occurs more than once: give every stimulus its own id.")


def check_filenames(filenames: Sequence[object]) -> None:
    """Raise unless the file names are distinct, relative and end in .png."""
    for name in filenames:
        if not isinstance(name, str) or not name.endswith(".png"):
            raise ValueError(f"filename {name!r} is not the name of a PNG: give relative names that end in '.png'.")
        safe_name(name)
    repeated = _repeated(filenames)
    if repeated:
        raise ValueError(f"filename {some(repeated)} occurs more than once: give every stimulus its own file.")


def _repeated(values: Sequence[object]) -> list[object]:
    seen: set[object] = set()
    twice: dict[object, None] = {}
    for value in values:
        if value in seen:
            twice[value] = None
        seen.add(value)
    return list(twice)


def column_kinds(table: pd.DataFrame) -> dict[str, str]:
    """Name the kind of every column, as stored beside the CSV."""
    names = {"bool": "bool", "boolean": "bool_or_missing", "float64": "float"}
    names |= {"int64": "int", "Int64": "int_or_missing"}
    kinds = {}
    for column in table.columns:
        kind = names.get(str(table[column].dtype))
        kinds[column] = kind or ("text_or_missing" if table[column].isna().any() else "text")
    return kinds


def to_csv(table: pd.DataFrame) -> str:
    """Write a tidy table as CSV text with exact numbers; a missing value is an empty field."""
    rows = [
        ["" if pd.isna(value) else _cell(value) for value in row] for row in table.itertuples(index=False, name=None)
    ]
    # The csv module of Python 3.11 leaves a lone carriage return unquoted, so such a table is quoted throughout.
    quote_all = any("\r" in cell for row in [list(table.columns), *rows] for cell in row)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL)
    writer.writerow(table.columns)
    writer.writerows(rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    return repr(float(value)) if isinstance(value, float) else str(value)


def from_csv(text: str, kinds: Mapping[str, str]) -> pd.DataFrame:
    """Read CSV text written by `to_csv`; every column not named in `kinds` is text."""
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    if not rows:
        raise ValueError("the table is empty")
    header, body = rows[0], rows[1:]
    if len(set(header)) != len(header) or any(len(row) != len(header) for row in body):
        raise ValueError("the table has rows of different lengths or a repeated column")
    columns = {name: _parse([row[i] for row in body], kinds.get(name, "text")) for i, name in enumerate(header)}
    return pd.DataFrame(columns, index=pd.RangeIndex(len(body)))


def _parse(cells: list[str], kind: str) -> pd.Series:
    if kind == "int":
        return pd.Series([int(cell) for cell in cells], dtype="int64")
    if kind == "int_or_missing":
        return _whole(cells, [not cell for cell in cells]).astype("Int64")
    if kind == "float":
        return pd.Series([float(cell) if cell else np.nan for cell in cells], dtype="float64")
    if kind in ("bool", "bool_or_missing"):
        words = {"True": True, "False": False} | ({"": None} if kind == "bool_or_missing" else {})
        if not set(cells) <= set(words):
            raise ValueError(f"a column of booleans holds {some(set(cells) - set(words))}")
        return pd.Series([words[cell] for cell in cells], dtype="bool" if kind == "bool" else "boolean")
    if kind in ("text", "text_or_missing"):
        return pd.Series([cell if cell or kind == "text" else None for cell in cells], dtype=object)
    raise ValueError(f"the column kind {kind!r} is unknown")
