"""Units of an NWB file: spikes counted in a window after each onset, and what the table says of each unit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neural_fits.recordings_io._columns import texts
from neural_fits.spike_counts import count_in_windows
from stimuli.nwb_files import plain_columns

_NAMES = ("site_id", "neuroid_id", "unit_name", "unit_id", "site_name")


def count_spikes(
    units: Any, onsets_s: NDArray[np.float64], window_ms: tuple[float, float], path: Path
) -> NDArray[np.float32]:
    """Count each unit's spikes in [onset + start, onset + end), shape (presentation, unit).

    NaN where the window is not inside one of the unit's observation intervals; a unit without any is taken as observed
    throughout.
    """
    if units is None or "spike_times" not in units.colnames:
        raise ValueError(
            f"{path.name!r} has no units with spike times; export sorted units or threshold crossings as units, or "
            "name binned responses with dataset=..."
        )
    start, end = onsets_s + window_ms[0] / 1000, onsets_s + window_ms[1] / 1000
    spikes = _ragged(units, "spike_times")
    observed = _ragged(units, "obs_intervals") if "obs_intervals" in units.colnames else None
    counts = np.empty((len(onsets_s), len(units)), dtype=np.float32)
    for k in range(len(units)):
        counts[:, k] = count_in_windows(spikes(k), onsets_s, window_ms)
        intervals = None if observed is None else observed(k)
        if intervals is not None and len(intervals):
            counts[~_inside(start, end, intervals), k] = np.nan
    return counts


def unit_table(units: Any) -> tuple[list[str], dict[str, Any]]:
    """Return ids of the units, and every column with one number or text per unit."""
    columns = plain_columns(units)
    ids = [f"unit_{i}" for i in np.asarray(units.id.data[:]).tolist()]
    for name in _NAMES:
        if name in columns and len(set(texts(columns[name]))) == len(ids):
            ids = texts(columns.pop(name))
            break
    for name, values in _electrode_columns(units).items():
        columns.setdefault(name, values)
    return ids, {name: v if v.dtype.kind in "biuf" else v.tolist() for name, v in columns.items()}


def _electrode_columns(units: Any) -> dict[str, NDArray[Any]]:
    """Return the electrode group of each unit, and where its first electrode is."""
    found: dict[str, list[Any]] = {}
    for row in range(len(units)):
        group = units["electrode_group"][row] if "electrode_group" in units.colnames else None
        place = None if group is None else group.location
        if "electrodes" in units.colnames:
            electrode = units["electrodes"][row]
            if len(electrode) and "location" in electrode:
                place = str(electrode["location"].iloc[0])
            if group is None and len(electrode) and "group" in electrode:
                group = electrode["group"].iloc[0]
        found.setdefault("electrode_group", []).append(None if group is None else group.name)
        found.setdefault("location", []).append(place)
    return {k: np.array(v, dtype=object) for k, v in found.items() if any(x is not None for x in v)}


def _ragged(units: Any, name: str) -> Any:
    """Return a function giving the values of row k, all read at once: one read per unit takes far longer."""
    index = units.get(f"{name}_index") if f"{name}_index" in {c.name for c in units.columns} else units[name]
    values = np.asarray(index.target.data[:], dtype=np.float64)
    ends = np.asarray(index.data[:], dtype=np.int64)
    starts = np.concatenate([[0], ends[:-1]])
    return lambda k: values[starts[k] : ends[k]]


def _inside(start: NDArray[np.float64], end: NDArray[np.float64], intervals: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each window lies inside one interval; intervals that touch count as one."""
    ordered = intervals[np.argsort(intervals[:, 0])]
    reach = np.maximum.accumulate(ordered[:, 1])
    new = np.concatenate([[True], ordered[1:, 0] > reach[:-1]])
    firsts = ordered[new, 0]
    lasts = np.maximum.reduceat(ordered[:, 1], np.flatnonzero(new))
    at = np.searchsorted(firsts, start, side="right") - 1
    return (at >= 0) & (end <= lasts[np.maximum(at, 0)])
