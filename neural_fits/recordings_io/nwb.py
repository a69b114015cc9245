"""Recordings in NWB files: our own, or presentations and spike times as laboratories write them.

A presentation is a row of the trials, of another table of intervals that names stimuli, or of an IndexSeries. Rows
without an onset (NaN or negative) or a stimulus are left out, and so are those whose `fixation_correct` (or `correct`)
is false.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from neural_fits.recordings import SiteRecordings
from neural_fits.recordings_io import _header
from neural_fits.recordings_io._columns import site_table, texts, unpack
from neural_fits.recordings_io._nwb_binned import binned_names, read_binned
from neural_fits.recordings_io._nwb_tables import (
    Presentations,
    presentation_tables,
    series_presentations,
    table_presentations,
)
from neural_fits.recordings_io._nwb_units import count_spikes, unit_table
from neural_fits.recordings_io._options import NO_OPTIONS, ReadOptions, choose, damaged, with_window
from neural_fits.recordings_io._stack import stack
from neural_fits.recordings_io.nwb_write import MODULE
from stimuli.nwb_files import index_series, open_nwb

__all__ = ["read"]

#: where V4 and IT answer, and what the field counts in
DEFAULT_WINDOW_MS = (70.0, 170.0)


def read(path: Path, options: ReadOptions = NO_OPTIONS) -> SiteRecordings:
    """Read an NWB file.

    Parameters
    ----------
    path : Path
        File to read.
    options : ReadOptions
        `dataset` names the table, IndexSeries or binned counts where there are several; `window_ms` is the window in
        which spikes are counted, 70 to 170 ms by default.

    Returns
    -------
    SiteRecordings
        The recordings; repeats are numbered in the order of the rows. Where they came from, and how many rows were
        left out, is in `meta`; ``meta["stimulus_numbers"]`` says whether a column of numbers counts the images from 0
        or from 1, or that they stay numbers because it may be either.

    Raises
    ------
    ImportError
        If pynwb is not installed.
    ValueError
        If the file is damaged, names no stimuli, holds no spike times, or several tables.
    """
    options.refuse(("axes",), path, "NWB names its own dimensions")
    with open_nwb(path) as nwb:
        if MODULE in nwb.processing and "responses" in nwb.processing[MODULE].data_interfaces:
            options.refuse(("dataset",), path, "this package wrote it and it holds one set of responses")
            return with_window(_ours(nwb, path), options.window_ms, path)
        return _theirs(nwb, path, options)


def _theirs(nwb: Any, path: Path, options: ReadOptions) -> SiteRecordings:
    tables, series, binned = presentation_tables(nwb), index_series(nwb), binned_names(path)
    everything = [*tables, *series, *binned]
    if not everything:
        columns = {t: list(getattr(nwb.intervals[t], "colnames", ())) for t in nwb.intervals or {}}
        raise ValueError(
            f"{path.name!r} does not say which stimulus was shown when: no table of intervals has a column such as "
            f"stimulus_id or image_name (found {columns}), and there is no IndexSeries; add such a column to the "
            "trials."
        )
    likely = list(tables or series or binned)
    name = choose(
        options.dataset, likely if options.dataset is None and len(likely) == 1 else everything, path, "tables"
    )
    if name in tables:
        return _counted(nwb, table_presentations(nwb, name, tables[name], path), name, path, options)
    if name in series:
        return _counted(nwb, series_presentations(nwb, name, path), name, path, options)
    parts = read_binned(path, name, binned)
    ids, columns = unit_table(nwb.units) if nwb.units is not None else ([], {})
    rows = parts["rows"]
    if not ids or max(rows, default=-1) >= len(ids):
        ids, columns = [f"unit_{k}" for k in range(max(rows, default=-1) + 1)], {}
    recordings = SiteRecordings(
        parts["responses"],
        parts["stimulus_ids"],
        site_table(ids, columns).iloc[rows],
        time_bins_ms=parts["time_bins_ms"],
        unit="spikes/bin",
        meta={"source": "NWB", "dataset": name},
    )
    return with_window(recordings, options.window_ms, path)


def _counted(nwb: Any, shown: Presentations, name: str, path: Path, options: ReadOptions) -> SiteRecordings:
    window_ms = options.window_ms or DEFAULT_WINDOW_MS
    counts = count_spikes(nwb.units, shown.onsets_s, window_ms, path)
    responses, stimulus_ids = stack(counts, shown.ids, path)
    meta: dict[str, Any] = {"source": "NWB", "dataset": name, "stimulus_column": shown.column}
    if shown.numbers:
        meta["stimulus_numbers"] = shown.numbers
    if shown.skipped:
        meta["presentations_left_out"] = shown.skipped
    for key in ("identifier", "session_id"):
        if getattr(nwb, key, None):
            meta[key] = str(getattr(nwb, key))
    sites = site_table(*unit_table(nwb.units))
    return SiteRecordings(responses, stimulus_ids, sites, window_ms=window_ms, meta=meta)


def _ours(nwb: Any, path: Path) -> SiteRecordings:
    module = nwb.processing[MODULE]
    try:
        series, table = module["responses"], module["sites"]
        record = _header.parse(series.comments, path)
        columns = {
            c["name"]: unpack(_column(table, f"site_column_{k}"), c["missing"]) for k, c in enumerate(record["columns"])
        }
        repeat = np.asarray(nwb.trials["repeat"].data[:], dtype=np.intp)
        n_sites = len(table)
        n_bins = () if record["time_bins_ms"] is None else (len(record["time_bins_ms"]),)
        values = np.asarray(series.data[:], dtype=np.float32).reshape(len(repeat), n_sites, *n_bins)
        responses, ids = stack(
            values,
            texts(_column(nwb.trials, "stimulus_id")),
            path,
            order=json.loads(record["stimulus_ids"]),
            repeat=repeat,
            n_repeats=record["n_repeats"],
        )
        return _header.assemble(record, responses, list(ids), json.loads(record["site_ids"]), columns)
    except _header.NewerFormatError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, "NWB") from error


def _column(table: Any, name: str) -> Any:
    return np.asarray(table[name].data[:])
