"""Recordings as Parquet: the columns of the tidy CSV, typed and compressed."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd

from neural_fits.recordings import SiteRecordings
from neural_fits.recordings_io import _tidy
from neural_fits.recordings_io._options import NO_OPTIONS, ReadOptions, damaged, with_window

__all__ = ["encode", "read"]


def encode(recordings: SiteRecordings) -> bytes:
    """Turn recordings into the content of a Parquet file.

    Parameters
    ----------
    recordings : SiteRecordings
        What to write; its `meta` is left out.

    Returns
    -------
    bytes
        The file.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    """
    _require_pyarrow()
    table = _tidy.to_table(recordings)
    for name in ("stimulus_id", "site_id"):
        table[name] = table[name].astype("category")
    for name in map(str, recordings.sites.columns):  # back to the types that went through object columns
        dtype = recordings.sites[name].dtype
        if pd.api.types.is_numeric_dtype(dtype):
            table[name] = table[name].astype(dtype)
        else:
            table[name] = table[name].map(lambda v: None if pd.isna(v) else str(v))
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False, engine="pyarrow")
    return buffer.getvalue()


def read(path: Path, options: ReadOptions = NO_OPTIONS) -> SiteRecordings:
    """Read a Parquet file with the columns of the tidy CSV.

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
    ImportError
        If pyarrow is not installed.
    ValueError
        If the file is damaged, a column is missing, a value is not a number, or a trial is there twice; rows are
        counted from 1.
    """
    options.refuse(("axes", "dataset"), path, "a tidy table has one row per trial and named columns")
    _require_pyarrow()
    try:
        table = pd.read_parquet(path, engine="pyarrow").reset_index(drop=True)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors and OSErrors
        raise damaged(path, "Parquet") from error
    table.columns = pd.Index([str(c) for c in table.columns])
    return with_window(_tidy.from_table(table, path, row="row", first_row=1), options.window_ms, path)


def _require_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Parquet files need pyarrow, which is not installed; python -m pip install "
            "'neural-population-control[parquet]', or use .csv or .nc."
        ) from error
