"""Recordings as a tidy CSV, one row per trial and site: what any program of a laboratory can write and open.

Columns ``stimulus_id, site_id, repetition, response``, optionally ``window_start_ms, window_end_ms, response_unit``,
and any columns that are constant per site (animal, session, region, ...), which become the site table. An empty
response means "not shown"; such rows also carry stimuli and sites that were never recorded. `meta` is not written.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neural_fits._recording_checks import RESERVED_COLUMNS
from neural_fits.recordings import SiteRecordings

__all__ = ["encode", "read"]

_NEEDED = ("stimulus_id", "site_id", "repetition", "response")
_WINDOW = ("window_start_ms", "window_end_ms")
_UNIT = "response_unit"
_NOT_SHOWN = frozenset({"", "nan", "na", "n/a", "none", "null"})
# These name an animal, a day or an array even where they look like numbers: "0012" is not 12.
_NAMES = frozenset({"animal", "array", "monkey", "region", "session", "setting", "subject"})
_MOST_CELLS = 10**8


def encode(recordings: SiteRecordings) -> bytes:
    """Turn recordings into the content of a CSV file.

    Parameters
    ----------
    recordings : SiteRecordings
        What to write; its `meta` is left out.

    Returns
    -------
    bytes
        The file, UTF-8.
    """
    shown = ~np.isnan(recordings.responses)
    # Empty rows keep the order of sites, the number of repeats and the stimuli that were never shown.
    shown[:1] = True
    shown[~shown.any(axis=(1, 2)), :1, :1] = True
    stimulus, repeat, site = np.nonzero(shown)
    columns: dict[str, Any] = {
        "stimulus_id": np.asarray(recordings.stimulus_ids, dtype=object)[stimulus],
        "site_id": np.asarray(recordings.site_ids, dtype=object)[site],
        "repetition": repeat,
        "response": recordings.responses[stimulus, repeat, site],
    }
    if recordings.window_ms is not None:
        columns |= dict(zip(_WINDOW, recordings.window_ms, strict=True))
    if recordings.unit != "spikes/window":
        columns[_UNIT] = recordings.unit
    for name, column in recordings.sites.items():
        columns[str(name)] = column.to_numpy(dtype=object)[site]
    return pd.DataFrame(columns, index=range(len(site))).to_csv(index=False, lineterminator="\n").encode()


def read(path: Path) -> SiteRecordings:
    """Read a tidy CSV file.

    Parameters
    ----------
    path : Path
        File to read.

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
    table = _rows(path)
    stimulus, stimulus_ids = pd.factorize(table["stimulus_id"])
    site, site_ids = pd.factorize(table["site_id"])
    label = _numbers(table, "repetition", path)
    if (label % 1 != 0).any():
        _refuse(table, "repetition", ~(label % 1 == 0), "is not a whole number", path)
    labels, repeat = np.unique(label, return_inverse=True)
    response = _numbers(table, "response", path, empty_allowed=True).astype(np.float32)

    twice = pd.DataFrame({"stimulus": stimulus, "site": site, "repeat": repeat}).duplicated().to_numpy()
    if twice.any():
        row = int(twice.argmax())
        raise ValueError(
            f"{path.name!r} has stimulus {table['stimulus_id'].iloc[row]!r}, site {table['site_id'].iloc[row]!r}, "
            f"repetition {int(label[row])} a second time in line {_line(table, row)} ({int(twice.sum())} such rows); "
            "number the repetitions of each stimulus."
        )
    shape = (len(stimulus_ids), len(labels), len(site_ids))
    if np.prod(shape, dtype=float) > max(_MOST_CELLS, 100 * len(table)):
        raise ValueError(
            f"{path.name!r} numbers {len(labels)} repetitions in {len(table)} rows, which looks like a count of all "
            "trials; number the repetitions of each stimulus from 0."
        )
    responses = np.full(shape, np.nan, dtype=np.float32)
    responses[stimulus, repeat, site] = response
    sites, not_read = _site_table(table, site, list(site_ids))
    return SiteRecordings(
        responses,
        tuple(stimulus_ids),
        sites,
        window_ms=_window(table, path),
        unit=_constant(table, _UNIT, path) if _UNIT in table else "spikes/window",
        meta={"columns_not_read": not_read} if not_read else {},
    )


def _rows(path: Path) -> pd.DataFrame:
    """All rows as text, with the file's line number minus 2 as index, and checked column names."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path, dtype=str, keep_default_na=False, skip_blank_lines=False, index_col=False, encoding="utf-8-sig"
            )
    except (ValueError, pd.errors.ParserWarning) as error:  # pandas' parser errors and bad UTF-8 are ValueErrors
        detail = " ".join(str(error).split())
        raise ValueError(
            f"{path.name!r} cannot be read as a CSV file ({detail}); save it as UTF-8 text with commas and one "
            "header line."
        ) from error
    table = table.fillna("")  # rows cut short
    table.columns = pd.Index([str(c).strip() for c in table.columns])
    if "stimulus_id" not in table and "image_id" in table:
        table = table.rename(columns={"image_id": "stimulus_id"})
    for name in _NEEDED:
        if name not in table:
            others = [column for column in table.columns if column not in _NEEDED]
            near = difflib.get_close_matches(name, others, n=1, cutoff=0.5)
            hint = f"closest is {near[0]!r}" if near else f"found {list(table.columns)[:8]}"
            raise ValueError(f"{path.name!r} has no column {name!r} ({hint}); rename the header.")
    table = table[(table != "").any(axis=1)]
    if table.empty:
        raise ValueError(f"{path.name!r} has a header but no rows; one row per trial and site is expected.")
    for name in ("stimulus_id", "site_id"):
        empty = (table[name] == "").to_numpy()
        if empty.any():
            _refuse(table, name, empty, "is empty", path)
    return table


def _numbers(table: pd.DataFrame, name: str, path: Path, empty_allowed: bool = False) -> NDArray[np.float64]:
    text = table[name].str.strip()
    values = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = np.isnan(values)
    if empty_allowed:
        wrong &= ~text.str.lower().isin(_NOT_SHOWN).to_numpy()
    if wrong.any():
        _refuse(table, name, wrong, "is not a number", path)
    return values


def _refuse(table: pd.DataFrame, name: str, wrong: NDArray[np.bool_], problem: str, path: Path) -> NoReturn:
    row = int(wrong.argmax())
    raise ValueError(
        f"{path.name!r} line {_line(table, row)}: {name} {table[name].iloc[row]!r} {problem} "
        f"({int(wrong.sum())} such rows); correct the file{' or leave it empty' if name == 'response' else ''}."
    )


def _line(table: pd.DataFrame, row: int) -> int:
    return int(table.index[row]) + 2  # a header line, and people count from 1


def _constant(table: pd.DataFrame, name: str, path: Path) -> str:
    values = table[name].unique()
    if len(values) != 1:
        raise ValueError(
            f"{path.name!r} has {len(values)} values of {name} ({', '.join(map(repr, values[:3]))}, ...); one window "
            "and one unit per file is expected, so write one file for each."
        )
    return str(values[0])


def _window(table: pd.DataFrame, path: Path) -> tuple[float, float] | None:
    if not all(name in table for name in _WINDOW):
        return None
    texts = [_constant(table, name, path) for name in _WINDOW]
    if all(t.strip().lower() in _NOT_SHOWN for t in texts):
        return None
    for name in _WINDOW:
        _numbers(table.iloc[:1], name, path)  # refuses what is not a number
    return float(texts[0]), float(texts[1])


def _site_table(table: pd.DataFrame, site: NDArray[np.intp], site_ids: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Columns with one value per site, and the names of the others."""
    first = np.unique(site, return_index=True)[1]
    kept: dict[str, Any] = {}
    not_read: list[str] = []
    for name in table.columns:
        if name in (*_NEEDED, *_WINDOW, _UNIT):
            continue
        code = pd.factorize(table[name])[0]
        if name not in RESERVED_COLUMNS and (code == code[first][site]).all():
            kept[name] = _typed(name, table[name].iloc[first].tolist())
        else:
            not_read.append(name)
    return pd.DataFrame(kept, index=pd.Index(list(site_ids), name="site_id", dtype="str")), not_read


def _typed(name: str, texts: list[str]) -> Any:
    """Numbers and truth values where every text is written as one; names stay text."""
    present = [t for t in texts if t != ""]
    if present and name not in _NAMES and not name.endswith("_id"):
        if len(present) == len(texts) and set(texts) <= {"True", "False"}:
            return np.array([t == "True" for t in texts])
        if len(present) == len(texts) and all(_is_plain(t, int) for t in texts):
            return np.array([int(t) for t in texts])
        if all(_is_plain(t, float) for t in present):
            return np.array([float(t) if t else np.nan for t in texts])
    return [t or None for t in texts]


def _is_plain(text: str, kind: type[int] | type[float]) -> bool:
    """Whether `text` is a number as a program writes it: no leading zeros, which mark a name."""
    try:
        kind(text)
    except ValueError:
        return False
    digits = text.lstrip("+-")
    return digits.isascii() and "_" not in digits and not (len(digits) > 1 and digits[0] == "0" and digits[1].isdigit())
