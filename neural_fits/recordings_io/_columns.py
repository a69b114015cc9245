"""Columns of the site table as plain arrays, for every format that stores arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neural_fits._recording_checks import RESERVED_COLUMNS


def pack(column: pd.Series[Any]) -> tuple[NDArray[Any], list[int]]:
    """Return a column as numbers, or as text with the rows that are missing."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
        return column.to_numpy(), []
    missing = column.isna().to_numpy()
    text = np.array(["" if gone else str(v) for v, gone in zip(column, missing, strict=True)], dtype=object)
    return text, np.flatnonzero(missing).tolist()


def unpack(values: NDArray[Any], missing: Iterable[int] = ()) -> Any:
    """Return what `pack` was given, as something a DataFrame takes as a column."""
    if values.dtype.kind in "biuf":
        return values
    gone = set(missing)
    return [None if row in gone else text for row, text in enumerate(texts(values))]


def texts(values: Any) -> list[str]:
    """Return an array of text, bytes or numbers as a list of text; whole numbers without a decimal point."""
    return [_text(v) for v in np.asarray(values).ravel().tolist()]


def _text(value: Any) -> str:
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def id_texts(values: Any, name: str, path: Path) -> list[str]:
    """Return ids as text; refuse those that are missing (NaN, None or empty)."""
    array = np.asarray(values).ravel()
    ids = texts(array)
    missing = np.flatnonzero(pd.isna(array) | np.array([not i for i in ids], dtype=bool))
    if len(missing):
        raise ValueError(
            f"{path.name!r} lacks {len(missing)} of the {len(ids)} ids in {name!r}, the first in row "
            f"{int(missing[0]) + 1}; write an id there, or leave these rows out."
        )
    return ids


def site_table(site_ids: Sequence[str], columns: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Make a table of sites, leaving out columns whose names recordings keep for themselves."""
    kept = {name: values for name, values in (columns or {}).items() if name not in RESERVED_COLUMNS}
    return pd.DataFrame(kept, index=pd.Index(list(site_ids), name="site_id", dtype="str"))
