"""Presentations of an NWB file: which stimulus was shown when, from a table of intervals or an IndexSeries."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neural_fits.recordings_io._nwb_images import name_numbers
from stimuli.nwb_files import (
    image_sources,
    index_series,
    plain_columns,
    presentation_onsets,
    series_names,
    series_onsets,
)

_IDS = ("stimulus_id", "image_id", "stimulus_filename", "image_name", "stimulus_presented")
_NUMBERS = ("stimulus_id", "image_id", "stimulus_presented", "image_index", "stimulus_index", "frame")
#: often the kind of stimulus, or a name that no image has: asked last
_OTHERS = ("stimulus_name", "stimulus", "image", "image_hash")
_CORRECT = ("fixation_correct", "correct")
_NOT_A_STIMULUS = frozenset({"", "nan", "none", "n/a", "omitted"})


@dataclass(frozen=True)
class Presentations:
    """Ids and onsets (s) of what was shown and looked at, and how many rows were left out for which reason.

    `numbers` says how numbers in the column count the images, nothing where it holds text or an IndexSeries decides.
    """

    ids: list[str]
    onsets_s: NDArray[np.float64]
    column: str
    skipped: dict[str, int] = field(default_factory=dict)
    numbers: str = ""


def presentation_tables(nwb: Any) -> dict[str, Any]:
    """Return the tables of intervals that say which stimulus was shown, by name."""
    tables = {} if nwb.trials is None else {"trials": nwb.trials}
    tables |= {
        name: t for name, t in (nwb.intervals or {}).items() if name not in ("trials", "epochs", "invalid_times")
    }
    wanted = {*_IDS, *_NUMBERS, *_OTHERS}
    return {name: table for name, table in tables.items() if wanted & set(table.colnames)}


def table_presentations(nwb: Any, name: str, table: Any, path: Path) -> Presentations:
    """Return the presentations of one table."""
    columns = plain_columns(table)
    _, onsets = presentation_onsets(columns, range(len(table)), f"{path.name}, table {name}")
    column, ids, counted = _stimulus_column(nwb, name, columns, onsets, path)
    correct = np.ones(len(ids), dtype=bool)
    for key in _CORRECT:
        if key in columns:
            correct &= np.array([_is_true(v) for v in columns[key].tolist()], dtype=bool)
    kept = _kept(ids, onsets, correct, column, f"table {name!r} of {path.name!r}")
    return dataclasses.replace(kept, numbers=counted)


def series_presentations(nwb: Any, name: str, path: Path) -> Presentations:
    """Return the presentations of one IndexSeries."""
    series = index_series(nwb)[name]
    names = series_names(series, image_sources(nwb))
    numbers = np.asarray(series.data[:]).astype(np.int64)
    ids: list[str | None] = [str(n) if n >= 0 else None for n in numbers.tolist()]
    if names:
        if numbers.max(initial=-1) >= len(names):
            raise ValueError(
                f"IndexSeries {name!r} of {path.name!r} shows image {int(numbers.max())}, but there are {len(names)} "
                "images counted from 0; write the file again."
            )
        ids = [names[n] if n >= 0 else None for n in numbers.tolist()]
    everything = np.ones(len(ids), dtype=bool)
    return _kept(ids, series_onsets(series), everything, name, f"IndexSeries {name!r} of {path.name!r}")


def _stimulus_column(
    nwb: Any, table: str, columns: dict[str, Any], onsets: NDArray[np.float64], path: Path
) -> tuple[str, list[str | None], str]:
    """Return the column that tells the images apart, its ids (names of images in the file first), how they count."""
    texts = {
        k: [_text(v) for v in columns[k]] for k in (*_IDS, *_OTHERS) if k in columns and columns[k].dtype == object
    }
    known = {i for source in image_sources(nwb).values() for i in source.ids}
    for name, ids in texts.items():
        if known and {i for i in ids if i is not None} <= known:
            return name, ids, ""
    numbers = {k: _whole(columns[k]) for k in _NUMBERS if k in columns and columns[k].dtype != object}
    candidates: dict[str, list[str | None]] = {k: texts[k] for k in _IDS if k in texts}
    named = {k: name_numbers(v, onsets, table, nwb) for k, v in numbers.items() if v is not None}
    candidates |= {k: ids for k, (ids, _) in named.items()}
    candidates |= {k: texts[k] for k in _OTHERS if k in texts}
    telling = [name for name, ids in candidates.items() if len({i for i in ids if i is not None}) > 1]
    if candidates:
        name = next(iter(telling or candidates))
        return name, candidates[name], named[name][1] if name in named else ""
    raise ValueError(
        f"table {table!r} of {path.name!r} has columns {list(columns)}, none of which names a stimulus by text or "
        f"whole numbers; one of {', '.join((*_IDS, *_OTHERS))} is expected."
    )


def _kept(
    ids: list[str | None], onsets: NDArray[np.float64], correct: NDArray[np.bool_], column: str, what: str
) -> Presentations:
    timed = np.isfinite(onsets) & (onsets >= 0)
    named = np.array([i is not None for i in ids], dtype=bool)
    reasons = {"no onset": ~timed, "no stimulus": timed & ~named, "fixation not correct": timed & named & ~correct}
    skipped = {reason: int(rows.sum()) for reason, rows in reasons.items() if rows.any()}
    keep = np.flatnonzero(timed & named & correct)
    if not len(keep):
        raise ValueError(f"{what} has {len(ids)} rows, but none is usable ({skipped}); check the file.")
    if len(keep) > 1 and len(np.unique(onsets[keep])) == 1:
        raise ValueError(
            f"{what} gives the same onset {onsets[keep[0]]:g} s to all {len(keep)} presentations, so its times are "
            "only placeholders; name another table with dataset=..., or correct the file."
        )
    return Presentations([str(ids[k]) for k in keep], onsets[keep], column, skipped)


def _text(value: Any) -> str | None:
    return None if value is None or str(value).strip().lower() in _NOT_A_STIMULUS else str(value)


def _whole(values: NDArray[Any]) -> NDArray[np.int64] | None:
    """Return whole numbers, -1 for NaN; None where a number is not whole."""
    if values.dtype.kind != "f":
        return values.astype(np.int64)
    filled = np.where(np.isfinite(values), values, -1.0)
    return filled.astype(np.int64) if (filled % 1 == 0).all() else None


def _is_true(value: Any) -> bool:
    return value.strip().lower() in ("true", "1", "yes") if isinstance(value, str) else bool(value == 1)
