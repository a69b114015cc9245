"""Counts that were binned before they went into an NWB file: BinnedAlignedSpikes, and the PSTH array made from it.

Read from the HDF5 itself, so that the extension ndx-binned-spikes need not be installed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neural_fits.recordings_io._columns import id_texts
from neural_fits.recordings_io._stack import stack

PSTH = "psth_pipeline_format"
_WIDTH = ("bin_width_in_milliseconds", "bin_width_in_ms")
_FIRST = ("milliseconds_from_event_to_first_bin", "event_to_bin_offset_in_ms")


def binned_names(path: Path) -> dict[str, str]:
    """Return the binned counts of a file: name to place inside the HDF5."""
    found: dict[str, str] = {}
    with h5py.File(path, "r") as file:
        for module in (file.get("processing") or {}).values():
            for name, item in module.items():
                if isinstance(item, h5py.Group) and _attribute(item, _WIDTH) is not None and "data" in item:
                    found[name] = item.name
        if isinstance(file.get(f"scratch/{PSTH}"), h5py.Dataset | h5py.Group):
            found[PSTH] = f"/scratch/{PSTH}"
    return found


def read_binned(path: Path, name: str, places: dict[str, str]) -> dict[str, Any]:
    """Return responses (stimulus, repeat, unit, time), stimulus ids, time bins and unit rows of binned counts."""
    with h5py.File(path, "r") as file:
        if name == PSTH:
            return _psth(file, path, places)
        group = file[places[name]]
        counts = group["data"][()].astype(np.float32)  # (unit, event, bin)
        labels = _labels(group, path)
        if "condition_indices" not in group:
            raise ValueError(
                f"{name!r} of {path.name!r} does not say which stimulus each event was (no condition_indices); read a "
                "table of presentations instead."
            )
        shown = [labels[int(i)] for i in group["condition_indices"][()]]
        responses, ids = stack(np.moveaxis(counts, 0, 1), shown, path, order=labels)
        return {
            "responses": responses,
            "stimulus_ids": ids,
            "time_bins_ms": _bins(group, counts.shape[2]),
            "rows": _rows(group, len(counts)),
        }


def _psth(file: h5py.File, path: Path, places: dict[str, str]) -> dict[str, Any]:
    """Read (unit, stimulus, repeat, bin); its stimuli are the sorted labels of the binned counts it was made from."""
    source = next((file[place] for name, place in places.items() if name != PSTH), None)
    if source is None:
        raise ValueError(
            f"{PSTH!r} of {path.name!r} says neither when its bins are nor which stimuli it holds, and the "
            "BinnedAlignedSpikes that would are missing; read the trials with dataset='trials' instead."
        )
    item = file[places[PSTH]]
    counts = np.asarray(item["data"][()] if isinstance(item, h5py.Group) else item[()], dtype=np.float32)
    labels = sorted(_labels(source, path), key=_natural)
    if counts.ndim != 4 or counts.shape[1] != len(labels):
        raise ValueError(
            f"{PSTH!r} of {path.name!r} has shape {counts.shape}; (unit, stimulus, repeat, time) with {len(labels)} "
            "stimuli is expected."
        )
    return {
        "responses": counts.transpose(1, 2, 0, 3),
        "stimulus_ids": tuple(labels),
        "time_bins_ms": _bins(source, counts.shape[3]),
        "rows": _rows(source, len(counts)),
    }


def _labels(group: h5py.Group, path: Path) -> list[str]:
    if "condition_labels" in group:
        return id_texts(group["condition_labels"][()], "condition_labels", path)
    return [str(i) for i in range(int(np.max(group["condition_indices"][()], initial=-1)) + 1)]


def _bins(group: h5py.Group, count: int) -> tuple[tuple[float, float], ...]:
    width, first = float(_attribute(group, _WIDTH)), float(_attribute(group, _FIRST) or 0.0)
    return tuple((round(first + k * width, 9), round(first + (k + 1) * width, 9)) for k in range(count))


def _rows(group: h5py.Group, count: int) -> list[int]:
    region = group.get("units_region", group.get("units"))
    return region[()].astype(int).tolist() if isinstance(region, h5py.Dataset) else list(range(count))


def _attribute(item: Any, names: tuple[str, ...]) -> Any:
    return next((item.attrs[n] for n in names if n in item.attrs), None)


def _natural(label: str) -> list[tuple[int, int, str]]:
    """Sort image2 before image10."""
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.split(r"(\d+)", label) if p]
