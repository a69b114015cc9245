"""Columns of the site table as plain arrays, for every format that stores arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    array = np.asarray(values).ravel()
    if array.dtype.kind == "f" and (array == np.floor(array)).all():
        array = array.astype(np.int64)
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in array.tolist()]


def site_table(site_ids: Sequence[str], columns: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Make a table of sites, leaving out columns whose names recordings keep for themselves."""
    kept = {name: values for name, values in (columns or {}).items() if name not in RESERVED_COLUMNS}
    return pd.DataFrame(kept, index=pd.Index(list(site_ids), name="site_id", dtype="str"))
