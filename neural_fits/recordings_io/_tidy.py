"""Tidy tables, one row per trial and site (and time bin), to recordings and back: shared by CSV and Parquet.

Columns ``stimulus_id, site_id, repetition, response``, optionally ``window_start_ms, window_end_ms, response_unit``,
and any columns that are constant per site (animal, session, region, ...), which become the site table. An empty
response means "not shown"; such rows also carry stimuli and sites that were never recorded. `meta` is not written.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neural_fits._recording_checks import RESERVED_COLUMNS
from neural_fits.recordings import SiteRecordings
from neural_fits.recordings_io._columns import site_table, texts

NEEDED = ("stimulus_id", "site_id", "repetition", "response")
WINDOW = ("window_start_ms", "window_end_ms")
UNIT = "response_unit"
ALIASES = {"stimulus_id": ("image_id",), "site_id": ("neuroid_id",), "repetition": ("repeat", "repetition_index")}
_NOT_SHOWN = frozenset({"", "nan", "na", "n/a", "none", "null"})
# These name an animal, a day or an array even where they look like numbers: "0012" is not 12.
_NAMES = frozenset({"animal", "array", "monkey", "region", "session", "setting", "subject"})
_MOST_CELLS = 10**8


def to_table(recordings: SiteRecordings) -> pd.DataFrame:
    """Return one row per recorded trial, site and time bin, and one for what was never recorded."""
    bins = recordings.time_bins_ms
    responses = recordings.responses if bins is not None else recordings.responses[..., None]
    shown = ~np.isnan(responses)
    # Empty rows keep the order of sites, the number of repeats and the stimuli that were never shown.
    shown[:1] = True
    shown[~shown.any(axis=(1, 2, 3)), :1, :1] = True
    stimulus, repeat, site, time = np.nonzero(shown)
    columns: dict[str, Any] = {
        "stimulus_id": np.asarray(recordings.stimulus_ids, dtype=object)[stimulus],
        "site_id": np.asarray(recordings.site_ids, dtype=object)[site],
        "repetition": repeat,
        "response": responses[stimulus, repeat, site, time],
    }
    if bins is not None:
        edges = np.array(bins, dtype=np.float64).reshape(-1, 2)
        columns |= {name: edges[time, k] for k, name in enumerate(WINDOW)}
    elif recordings.window_ms is not None:
        columns |= dict(zip(WINDOW, recordings.window_ms, strict=True))
    if recordings.unit != "spikes/window":
        columns[UNIT] = recordings.unit
    for name, column in recordings.sites.items():
        columns[str(name)] = column.to_numpy(dtype=object)[site]
    return pd.DataFrame(columns, index=range(len(site)))


def from_table(table: pd.DataFrame, path: Path, *, row: str, first_row: int, decimal: str = ".") -> SiteRecordings:
    """Return the recordings of a checked table; `row` and `first_row` say how people count its rows."""
    places = _Places(path, row, first_row, decimal)
    table = _named(table, path)
    for key in ("stimulus_id", "site_id"):
        empty = (table[key].isna() | (table[key].astype(str) == "")).to_numpy()
        if empty.any():
            places.refuse(table, key, empty, "is empty")
    # Ids become text only after factorizing: a million equal rows hold a few hundred ids.
    stimulus, stimulus_ids = pd.factorize(table["stimulus_id"])
    site, site_ids = pd.factorize(table["site_id"])
    label = places.numbers(table, "repetition")
    if (label % 1 != 0).any():
        places.refuse(table, "repetition", ~(label % 1 == 0), "is not a whole number")
    labels, repeat = np.unique(label, return_inverse=True)
    response = places.numbers(table, "response", empty_allowed=True).astype(np.float32)
    time, edges = _time_bins(table, places)

    keys = pd.DataFrame({"stimulus": stimulus, "site": site, "repeat": repeat, "time": time})
    twice = keys.duplicated().to_numpy()
    if twice.any():
        at = int(twice.argmax())
        raise ValueError(
            f"{path.name!r} has stimulus {str(table['stimulus_id'].iloc[at])!r}, site "
            f"{str(table['site_id'].iloc[at])!r}, repetition {int(label[at])} a second time in {row} "
            f"{places.number(table, at)} ({int(twice.sum())} such rows); number the repetitions of each stimulus."
        )
    if len(edges) > 1 and not keys.drop(columns="time").duplicated().any():
        starts = ", ".join(f"{e[0]:g}" for e in edges[:3])
        raise ValueError(
            f"{path.name!r} has {len(edges)} values of window_start_ms and window_end_ms (starts {starts}, ...), but "
            "only one for each trial; one window per file is expected, so write one file for each."
        )
    shape = (len(stimulus_ids), len(labels), len(site_ids), max(len(edges), 1))
    if np.prod(shape, dtype=float) > max(_MOST_CELLS, 100 * len(table)):
        raise ValueError(
            f"{path.name!r} numbers {len(labels)} repetitions in {len(table)} rows, which looks like a count of all "
            "trials; number the repetitions of each stimulus from 0."
        )
    responses = np.full(shape, np.nan, dtype=np.float32)
    responses[stimulus, repeat, site, time] = response
    sites, not_read = _sites(table, site, texts(site_ids), decimal)
    resolved = len(edges) > 1
    return SiteRecordings(
        responses if resolved else responses[..., 0],
        tuple(texts(stimulus_ids)),
        sites,
        window_ms=None if resolved or not edges else edges[0],
        time_bins_ms=edges if resolved else None,
        unit=_constant(table, UNIT, path) if UNIT in table else "spikes/window",
        meta={"columns_not_read": not_read} if not_read else {},
    )


class _Places:
    """Numbers of a table, and the sentence naming the row where one is wrong."""

    def __init__(self, path: Path, row: str, first_row: int, decimal: str) -> None:
        self.path, self.row, self.first_row, self.decimal = path, row, first_row, decimal

    def number(self, table: pd.DataFrame, at: int) -> int:
        return int(table.index[at]) + self.first_row

    def numbers(self, table: pd.DataFrame, name: str, empty_allowed: bool = False) -> NDArray[np.float64]:
        column = table[name]
        if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
            values = column.to_numpy(dtype=np.float64)
            wrong = np.isnan(values) & (not empty_allowed)
        else:
            text = column.astype("str").fillna("").str.strip()
            if self.decimal == ",":
                text = text.str.replace(",", ".", regex=False)
            values = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
            wrong = np.isnan(values)
            if empty_allowed:
                wrong &= ~text.str.lower().isin(_NOT_SHOWN).to_numpy()
        if wrong.any():
            self.refuse(table, name, wrong, "is not a number")
        return values

    def refuse(self, table: pd.DataFrame, name: str, wrong: NDArray[np.bool_], problem: str) -> NoReturn:
        at = int(wrong.argmax())
        value = table[name].iloc[at]
        raise ValueError(
            f"{self.path.name!r} {self.row} {self.number(table, at)}: {name} "
            f"{'' if pd.isna(value) else str(value)!r} {problem} ({int(wrong.sum())} such rows); correct the file"
            f"{' or leave it empty' if name == 'response' else ''}."
        )


def _named(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return the table with our names for its columns, or name the one that is missing."""
    for name, aliases in ALIASES.items():
        if name not in table:
            other = next((a for a in aliases if a in table), None)
            table = table if other is None else table.rename(columns={other: name})
    for name in NEEDED:
        if name not in table:
            others = [column for column in table.columns if column not in NEEDED]
            near = difflib.get_close_matches(name, others, n=1, cutoff=0.5)
            hint = f"closest is {near[0]!r}" if near else f"found {list(table.columns)[:8]}"
            also = "".join(f" or {alias!r}" for alias in ALIASES.get(name, ()))
            raise ValueError(f"{path.name!r} has no column {name!r}{also} ({hint}); rename the header.")
    if table.empty:
        raise ValueError(f"{path.name!r} has a header but no rows; one row per trial and site is expected.")
    return table


def _constant(table: pd.DataFrame, name: str, path: Path) -> str:
    values = table[name].unique()
    if len(values) != 1:
        raise ValueError(
            f"{path.name!r} has {len(values)} values of {name} ({', '.join(repr(str(v)) for v in values[:3])}, ...); "
            "one unit per file is expected, so write one file for each."
        )
    return str(values[0])


def _time_bins(table: pd.DataFrame, places: _Places) -> tuple[NDArray[np.intp], tuple[tuple[float, float], ...]]:
    """Return the time bin of each row, and the bins in order; no bins where no window is named."""
    none = np.zeros(len(table), dtype=np.intp)
    if not all(name in table for name in WINDOW):
        return none, ()
    codes, pairs = pd.factorize(pd.MultiIndex.from_frame(table[list(WINDOW)]))
    first = np.unique(codes, return_index=True)[1] if len(pairs) else none
    distinct = table.iloc[first]
    if len(distinct) == 1 and all(
        pd.isna(v) or str(v).strip().lower() in _NOT_SHOWN for v in distinct[list(WINDOW)].iloc[0]
    ):
        return none, ()
    edges = np.stack([places.numbers(distinct, name) for name in WINDOW], axis=1)
    order = np.lexsort(edges.T[::-1])
    rank = np.empty(len(order), dtype=np.intp)
    rank[order] = np.arange(len(order))
    return rank[codes], tuple((float(a), float(b)) for a, b in edges[order])


def _sites(
    table: pd.DataFrame, site: NDArray[np.intp], site_ids: Sequence[str], decimal: str
) -> tuple[pd.DataFrame, list[str]]:
    """Columns with one value per site, and the names of the others."""
    first = np.unique(site, return_index=True)[1]
    kept: dict[str, Any] = {}
    not_read: list[str] = []
    for name in table.columns:
        if name in (*NEEDED, *WINDOW, UNIT):
            continue
        code = pd.factorize(table[name])[0]
        if name not in RESERVED_COLUMNS and (code == code[first][site]).all():
            values = table[name].iloc[first]
            plain = isinstance(values.dtype, np.dtype) and values.dtype.kind in "biuf"
            kept[name] = values.to_numpy() if plain else _typed(name, values.tolist(), decimal)
        else:
            not_read.append(name)
    return site_table(site_ids, kept), not_read


def _typed(name: str, values: list[Any], decimal: str) -> Any:
    """Numbers and truth values where every text is written as one; names stay text."""
    cells = ["" if pd.isna(v) else str(v) for v in values]
    numbers = [c.replace(",", ".") for c in cells] if decimal == "," else cells
    present = [n for n in numbers if n != ""]
    if present and name not in _NAMES and not name.endswith("_id"):
        if len(present) == len(cells) and set(cells) <= {"True", "False"}:
            return np.array([c == "True" for c in cells])
        if len(present) == len(cells) and all(_is_plain(n, int) for n in numbers):
            return np.array([int(n) for n in numbers])
        if all(_is_plain(n, float) for n in present):
            return np.array([float(n) if n else np.nan for n in numbers])
    return [c or None for c in cells]


def _is_plain(text: str, kind: type[int] | type[float]) -> bool:
    """Whether `text` is a number as a program writes it: no leading zeros, which mark a name."""
    try:
        kind(text)
    except ValueError:
        return False
    digits = text.lstrip("+-")
    return digits.isascii() and "_" not in digits and not (len(digits) > 1 and digits[0] == "0" and digits[1].isdigit())
