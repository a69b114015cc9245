"""Files of responses, one row per presentation, as they come from a lab's own analysis: .npy or .csv, and their sites.

Rows have no name here, only a place in the log: what a lenient reader would drop or shift is refused.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neural_fits._recording_checks import as_site_table, examples

__all__ = ["read_sites", "read_trial_responses"]

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_MISSING = frozenset({"", "nan", "na", "n/a"})


def read_trial_responses(path: Path, sites: pd.DataFrame | None = None) -> tuple[NDArray[Any], pd.DataFrame]:
    r"""Read responses with one row per presentation.

    Parameters
    ----------
    path : Path
        ``.npy`` of shape (presentation, site) or (presentation, site, time), or ``.csv`` with site ids in its first
        row; a cell that is empty or nan is a rejected response.
    sites : pandas.DataFrame, optional
        Table of the sites indexed by site_id: in the order of the columns of a ``.npy``, in any order for a ``.csv``.
        By default the columns of a ``.npy`` are called site_0001, site_0002, ...

    Returns
    -------
    responses : ndarray
        Shape (presentation, site[, time]).
    sites : pandas.DataFrame
        One row per column of the responses.

    Raises
    ------
    ValueError
        If the file holds something else, a row of a ``.csv`` has more or fewer cells than its header, the header has no
        id for a column or one id twice, or the sites are not those of the header.
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     file = Path(place) / "trials.csv"
    ...     _ = file.write_text("left,right\n1,2\nnan,4\n")
    ...     responses, sites = read_trial_responses(file)
    >>> responses.tolist(), list(sites.index)
    ([[1.0, 2.0], [nan, 4.0]], ['left', 'right'])
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: give responses as .npy or .csv")
    if path.suffix.lower() == ".npy":
        array = _array(path)
        named = _named([f"site_{k + 1:04d}" for k in range(array.shape[1])]) if sites is None else sites
        return array, named
    if path.suffix.lower() != ".csv":
        raise ValueError(f"{str(path)!r} is neither .npy nor .csv: give responses as one of these")
    header, rows, line = _cells(path, "write one cell per site in every row, nan where a response was rejected")
    if all(_NUMBER.fullmatch(name) for name in header):
        raise ValueError(
            f"{path.name!r} begins with the numbers {examples(header)}: write the ids of the sites, such as ch1, into "
            "the first row, or save the responses as .npy"
        )
    numbers = [[_number(cell, path, at) for cell in row] for row, at in zip(rows, line, strict=True)]
    named = _named(header)
    if sites is not None:
        odd = sorted(set(header) ^ set(sites.index))
        if odd:
            raise ValueError(
                f"{path.name!r} and the list of sites differ in {len(odd)} ids ({examples(odd)}): give the same ids "
                "in both"
            )
        named = sites.loc[header]
    return np.array(numbers, dtype=np.float64).reshape(len(rows), len(header)), named


def read_sites(path: Path) -> pd.DataFrame:
    r"""Read the ids of sites, and what else is known of them.

    Parameters
    ----------
    path : Path
        Text with one id per line, or CSV with the column site_id and any others, such as region.

    Returns
    -------
    pandas.DataFrame
        Indexed by site_id, in the order of the file; columns of numbers as numbers.

    Raises
    ------
    ValueError
        If the file is neither, or an id is missing or there twice.
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     file = Path(place) / "sites.csv"
    ...     _ = file.write_text("site_id,region,depth\n0012,V4,1.5\n7,IT,2\n")
    ...     read_sites(file).reset_index().values.tolist()
    [['0012', 'V4', 1.5], ['7', 'IT', 2.0]]
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: give the ids of the sites, one per line")
    header, rows, _ = _cells(path, "write one line per site")
    if "site_id" not in header:
        if len(header) > 1:
            raise ValueError(f"{path.name!r} has no column 'site_id' (it has {examples(header)}): name it so")
        header, rows = ["site_id"], [header, *rows]
    columns = {name: _column([row[k].strip() for row in rows]) for k, name in enumerate(header) if name != "site_id"}
    ids = [row[header.index("site_id")].strip() for row in rows]
    _refuse_twice(ids, path, "line")
    return as_site_table(pd.DataFrame(columns, index=pd.Index(ids, name="site_id", dtype="str")))


def _array(path: Path) -> NDArray[Any]:
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, MemoryError) as error:
        raise ValueError(
            f"{str(path)!r} cannot be read as an array: save plain numbers by numpy.save, not an archive of arrays"
        ) from error
    if array.ndim not in (2, 3):
        raise ValueError(
            f"{str(path)!r} holds an array of shape {array.shape}: (presentation, site) or (presentation, site, time) "
            "is expected"
        )
    return array


def _cells(path: Path, remedy: str) -> tuple[list[str], list[list[str]], list[int]]:
    """Return the first row, the others, and the lines on which they end; every row as long as the first."""
    try:
        reader = csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
        rows = [(row, reader.line_num) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path.name!r} cannot be read as CSV ({error}): export it as CSV in UTF-8") from error
    while rows and not rows[-1][0]:
        rows.pop()  # empty lines at the end, not in the middle: there, one stands for something
    if not rows:
        raise ValueError(f"{path.name!r} is empty: {remedy}")
    header = [name.strip() for name in rows[0][0]]
    for row, at in rows[1:]:
        if len(row) != len(header):
            raise ValueError(
                f"{path.name!r} has {len(row)} cells in line {at} where its first row has {len(header)}: {remedy}"
            )
    _refuse_twice(header, path, "column")
    return header, [row for row, _ in rows[1:]], [at for _, at in rows[1:]]


def _refuse_twice(names: list[str], path: Path, what: str) -> None:
    if not names or "" in names:
        at = names.index("") + 1 if names else 1
        raise ValueError(
            f"{path.name!r} has no name in {what} {at}: give every site an id, and write the file without the numbers "
            "of its rows (in pandas index=False)"
        )
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path.name!r} has {twice[:80]!r} in more than one {what}: give every site an id of its own")


def _number(cell: str, path: Path, at: int) -> float:
    if cell.strip().lower() in _MISSING:
        return np.nan
    if not _NUMBER.fullmatch(cell):
        raise ValueError(
            f"{path.name!r} has {cell[:80]!r} in line {at} where a response is expected: write numbers with a decimal "
            "point, nan where a response was rejected, and the ids of the sites into the first row"
        )
    return float(cell)


def _column(cells: list[str]) -> list[float] | list[int] | list[str | None]:
    """Return numbers where all are numbers: 0012 is a name."""
    given = [cell for cell in cells if cell]
    if given and all(_NUMBER.fullmatch(cell) and not re.match(r"0\d", cell) for cell in given):
        if len(given) == len(cells) and all(cell.isdecimal() for cell in cells):
            return [int(cell) for cell in cells]
        return [float(cell) if cell else np.nan for cell in cells]
    return [cell or None for cell in cells]


def _named(ids: list[str]) -> pd.DataFrame:
    return as_site_table(pd.DataFrame(index=pd.Index(ids, name="site_id", dtype="str")))
