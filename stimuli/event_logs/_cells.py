"""The cells of a log: delimited text to columns of text, and columns of text to numbers and truth values."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stimuli.event_logs.names import is_nothing
from stimuli.hints import did_you_mean

_TRUE, _FALSE = frozenset({"true", "1", "1.0", "yes"}), frozenset({"false", "0", "0.0", "no"})
_DELIMITERS = "\t,;"
_LONGEST = 10_000_000  # characters of one field: a whole #stimDisplayUpdate is far shorter


@dataclass(frozen=True)
class Cells:
    """Columns of text, and the line of the file that each row begins in."""

    columns: dict[str, list[str]]
    line: list[int]
    file: str

    def __len__(self) -> int:
        return len(self.line)

    def take(self, rows: Sequence[int]) -> Cells:
        """Keep some rows."""
        return Cells(
            {k: [v[r] for r in rows] for k, v in self.columns.items()}, [self.line[r] for r in rows], self.file
        )

    def first(self, *names: str) -> str | None:
        """Return the first of these columns that is there."""
        return next((name for name in names if name in self.columns), None)

    def need(self, *names: str) -> str:
        """Return the first of these columns that is there, or say that all are missing."""
        found = self.first(*names)
        if found is None:
            hint = did_you_mean(names[0], self.columns)
            listed = ", ".join(map(repr, list(self.columns)[:12])) or "none"
            raise ValueError(
                f"{self.file!r} has no column {' or '.join(map(repr, names))} (its columns are {listed}): "
                f"{hint}Export the log with that column."
            )
        return found

    def numbers(self, name: str) -> list[float]:
        """Read a column of numbers; a cell without a value is NaN."""
        found = []
        for cell, line in zip(self.columns[name], self.line, strict=True):
            try:
                value = math.nan if is_nothing(cell) else float(cell)
            except ValueError:
                value = math.inf
            if math.isinf(value):
                raise ValueError(
                    f"{self.file!r} has {name} = {cell[:80]!r} in row {line} where a number is expected: correct it."
                )
            found.append(value)
        return found

    def whole(self, name: str, unknown: int) -> list[int]:
        """Read a column of whole numbers; a cell without a value is `unknown`."""
        values = self.numbers(name)
        for value, line in zip(values, self.line, strict=True):
            if not math.isnan(value) and value % 1:
                raise ValueError(f"{self.file!r} has {name} = {value:g} in row {line}: a whole number is expected.")
        return [unknown if math.isnan(value) else int(value) for value in values]

    def truth(self, name: str) -> list[bool]:
        """Read a column of true and false, 1 and 0; a cell without a value is false."""
        found = []
        for cell, line in zip(self.columns[name], self.line, strict=True):
            word = cell.strip().lower()
            if word not in _TRUE and word not in _FALSE and not is_nothing(cell):
                raise ValueError(
                    f"{self.file!r} has {name} = {cell[:80]!r} in row {line} where true or false is expected: correct "
                    "it."
                )
            found.append(word in _TRUE)
        return found


def column_names(path: Path) -> list[str]:
    """Read the header of comma, semicolon or tab separated text."""
    first = next((line for line in _text(path).splitlines() if line.strip()), "")
    return [name.strip().strip('"') for name in first.split(max(_DELIMITERS, key=first.count))]


def read_cells(path: Path, quoted: bool = True) -> Cells:
    """
    Read comma, semicolon or tab separated text with a header; empty rows and unnamed empty columns are dropped.

    Where `quoted` is False a quotation mark is a character like others, as in BIDS.
    """
    header, rows, line = _parse(_text(path), path.name, csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)
    named = [k for k, name in enumerate(header) if name or any(row[k] for row in rows)]
    names = [header[k] for k in named]
    if "" in names or len(set(names)) != len(names):
        twice = next((name for name in names if not name or names.count(name) > 1), "")
        raise ValueError(f"{path.name!r} has the column {twice!r} without a name of its own: name every column once.")
    return Cells({header[k]: [row[k] for row in rows] for k in named}, line, path.name)


def _text(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path.name!r} is not UTF-8 text: export the log as CSV or TSV in UTF-8.") from None
    if "\0" in text:
        raise ValueError(f"{path.name!r} holds null characters, so it is no text: export the log as CSV or TSV.")
    if not text.strip():
        raise ValueError(f"{path.name!r} is empty: give the log of a run.")
    return text


def _parse(text: str, file: str, quoting: Literal[0, 3]) -> tuple[list[str], list[list[str]], list[int]]:
    first = next(part for part in text.splitlines() if part.strip())
    delimiter = max(_DELIMITERS, key=first.count)
    limit = csv.field_size_limit(_LONGEST)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, quoting=quoting)
        rows, line, last = [], [], 0
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append(row)
                line.append(last + 1)
            last = reader.line_num
    except csv.Error as error:
        raise ValueError(f"{file!r} cannot be read as a table ({error}): export the log as CSV or TSV.") from None
    finally:
        csv.field_size_limit(limit)
    header = [name.strip() for name in rows[0]]
    for row, number in zip(rows[1:], line[1:], strict=True):
        while len(row) > len(header) and not row[-1]:
            row.pop()
        if len(row) != len(header):
            raise ValueError(
                f"{file!r} has {len(row)} cells in row {number} where its header has {len(header)}: the file is cut "
                "off or damaged; export it again."
            )
    return header, rows[1:], line[1:]


def plan_columns(cells: Cells, unknown: int) -> dict[str, list[int]]:
    """Read the columns trial, position and block where they are there."""
    return {k: cells.whole(k, unknown) for k in ("trial", "position", "block") if k in cells.columns}


def unmarked(cells: Cells, shown: Sequence[object]) -> list[str]:
    """Return a note where nothing marks broken presentations, so that all count as shown."""
    if "shown" in cells.columns or not all(shown):
        return []
    return [
        f"{cells.file!r} has no column shown, so all {len(cells)} presentations count as shown; if some were broken, "
        "add the column with true or false in every row"
    ]
