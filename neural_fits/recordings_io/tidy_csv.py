"""Recordings as a tidy CSV, one row per trial and site: what any program of a laboratory can write and open.

The columns are those of Parquet. Commas, semicolons and tabs are told apart by the header; with semicolons or tabs
the decimal mark may be a comma. A time axis is one row per time bin, with its window columns.
"""

from __future__ import annotations

import csv
import io
import warnings
from pathlib import Path

import pandas as pd

from neural_fits.recordings import SiteRecordings
from neural_fits.recordings_io import _tidy
from neural_fits.recordings_io._options import NO_OPTIONS, ReadOptions, with_window

__all__ = ["encode", "read"]

_KNOWN = {*_tidy.NEEDED, *_tidy.WINDOW, _tidy.UNIT, *(a for names in _tidy.ALIASES.values() for a in names)}


def encode(recordings: SiteRecordings) -> bytes:
    """Turn recordings into the content of a CSV file.

    Parameters
    ----------
    recordings : SiteRecordings
        What to write; its `meta` is left out.

    Returns
    -------
    bytes
        The file, UTF-8, with commas.
    """
    return _tidy.to_table(recordings).to_csv(index=False, lineterminator="\n").encode()


def read(path: Path, options: ReadOptions = NO_OPTIONS) -> SiteRecordings:
    """Read a tidy CSV file.

    Parameters
    ----------
    path : Path
        File to read.
    options : ReadOptions
        Only `window_ms`.

    Returns
    -------
    SiteRecordings
        The recordings; stimuli and sites in the order of their first rows. Columns that are not constant per site
        are listed in ``meta["columns_not_read"]``.

    Raises
    ------
    ValueError
        If a column is missing, a value is not a number, or a trial is there twice; lines are counted from 1.
    """
    options.refuse(("axes", "dataset"), path, "a tidy table has one row per trial and named columns")
    text = _text(path)
    separator = _separator(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                io.StringIO(text),
                sep=separator,
                dtype=str,
                keep_default_na=False,
                skip_blank_lines=False,
                index_col=False,
            )
    except (ValueError, pd.errors.ParserWarning) as error:  # pandas' parser errors are ValueErrors
        raise _unreadable(path, _problem(text, separator)) from error
    table = table.fillna("")  # rows cut short
    table.columns = pd.Index([str(c).strip() for c in table.columns])
    table = table[(table != "").any(axis=1)]
    decimal = "," if separator != "," and _has_decimal_commas(table) else "."
    recordings = _tidy.from_table(table, path, row="line", first_row=2, decimal=decimal)  # after the header line
    return with_window(recordings, options.window_ms, path)


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise _unreadable(path, f"line {line} is not UTF-8 text") from error
    if not text.strip():
        raise _unreadable(path, "it is empty")
    return text


def _unreadable(path: Path, problem: str) -> ValueError:
    return ValueError(
        f"{path.name!r} cannot be read as a CSV file ({problem}); save it as UTF-8 text with one header line and "
        "commas, semicolons or tabs."
    )


def _separator(text: str) -> str:
    """Return the separator that makes most known column names of the header; the commonest where none does."""
    header = text[: text.index("\n")] if "\n" in text else text

    def names_made(separator: str) -> tuple[int, int]:
        cells = [c.strip() for c in next(csv.reader([header], delimiter=separator), [])]
        return len(_KNOWN & set(cells)), len(cells)

    return max(",;\t", key=names_made)


def _problem(text: str, separator: str) -> str:
    """Say what is wrong with text that pandas could not split into rows."""
    if "\0" in text:
        return "it holds zero bytes, so it is not a text file"
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        fields = len(next(rows))
        for row in rows:
            if len(row) > fields:
                return f"line {rows.line_num} has {len(row)} fields where the header has {fields}"
    except csv.Error:
        return f'line {rows.line_num} opens a quote (") that is never closed'
    return "its rows do not fit its header"


def _has_decimal_commas(table: pd.DataFrame) -> bool:
    columns = [c for c in ("response", *_tidy.WINDOW) if c in table]
    return any(table[c].str.contains(",", regex=False).any() for c in columns)
