"""Recordings as netCDF, with the dimension and coordinate names that Brain-Score's assemblies use.

``responses(presentation, neuroid, time_bin)``; flat coordinates, since netCDF holds no MultiIndex. Repeats that nobody
recorded are not written; the order of stimuli and the number of repeats are kept beside the data, so reading gives
back exactly what was written.
"""

from __future__ import annotations

import difflib
import json
import tempfile
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neural_fits.recordings import SiteRecordings
from neural_fits.recordings_io._columns import id_texts, pack, site_table, texts, unpack
from neural_fits.recordings_io._options import NO_OPTIONS, ReadOptions, damaged, with_window
from neural_fits.recordings_io._stack import stack

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["encode", "read"]

FORMAT = "neural_fits.SiteRecordings"
FORMAT_VERSION = 1
_DIMS = ("presentation", "neuroid", "time_bin")


def encode(recordings: SiteRecordings) -> bytes:
    """Turn recordings into the content of a netCDF-4 file.

    Parameters
    ----------
    recordings : SiteRecordings
        What to write.

    Returns
    -------
    bytes
        The file.

    Raises
    ------
    ValueError
        If a site column has a name that netCDF does not allow.
    """
    import xarray as xr

    presented = ~np.isnan(recordings.responses).all(axis=tuple(range(2, recordings.responses.ndim)))
    stimulus, repeat = np.nonzero(presented)
    ids = np.asarray(recordings.stimulus_ids, dtype=object)
    bins = recordings.time_bins_ms
    edges = np.array([recordings.window_ms or (np.nan, np.nan)] if bins is None else bins, dtype=np.float64)
    edges = edges.reshape(-1, 2)
    coords: dict[Hashable, Any] = {
        "stimulus_id": ("presentation", ids[stimulus]),
        "repetition": ("presentation", repeat),
        "neuroid_id": ("neuroid", np.asarray(recordings.site_ids, dtype=object)),
        "time_bin_start": ("time_bin", edges[:, 0]),
        "time_bin_end": ("time_bin", edges[:, 1]),
    }
    for name, column in recordings.sites.items():
        if not str(name).strip() or "/" in str(name) or str(name) != str(name).strip():
            raise ValueError(f"the sites table has a column {name!r}, which netCDF cannot hold; rename it.")
        values, missing = pack(column)
        coords[name] = ("neuroid", values, {"missing": missing} if missing else {})
    trials = recordings.responses[stimulus, repeat]
    dataset = xr.Dataset(
        {
            "responses": (_DIMS, trials[:, :, None] if bins is None else trials),
            "stimulus_order": ("stimulus", ids),
        },
        coords=coords,
        attrs={
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "unit": recordings.unit,
            "meta": json.dumps(recordings.meta),
            "n_repeats": recordings.shape[1],
            "time_resolved": int(bins is not None),
        },
    )
    compress = {"zlib": True, "complevel": 1, "fletcher32": True} if recordings.responses.size else {}
    with tempfile.TemporaryDirectory() as folder:  # older xarray writes HDF5 to named files only
        path = Path(folder) / "recordings.nc"
        dataset.to_netcdf(path, engine="h5netcdf", encoding={"responses": compress})
        return path.read_bytes()


def read(path: Path, options: ReadOptions = NO_OPTIONS) -> SiteRecordings:
    """Read a netCDF file written by this package or by Brain-Score.

    Parameters
    ----------
    path : Path
        File to read.
    options : ReadOptions
        Only `window_ms`.

    Returns
    -------
    SiteRecordings
        The recordings; several time bins give a time axis.

    Raises
    ------
    ValueError
        If the file is damaged, newer than this package, or lacks a dimension or coordinate.
    """
    options.refuse(("axes", "dataset"), path, "a netCDF assembly names its own dimensions")
    dataset = _open(path)
    ours = dataset.attrs if dataset.attrs.get("format") == FORMAT else {}
    version = int(ours.get("format_version", 0))
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path.name!r} has format version {version}, but this package reads up to {FORMAT_VERSION}; "
            "update neural-population-control."
        )
    array = _responses(dataset, path)
    shown, site_ids = (
        id_texts(found.values, str(found.name), path)
        for found in (
            _coordinate(array, "presentation", ("stimulus_id", "image_id"), path),
            _coordinate(array, "neuroid", ("neuroid_id", "site_id"), path),
        )
    )
    responses, stimulus_ids = stack(
        array.values,
        shown,
        path,
        order=texts(dataset["stimulus_order"].values) if "stimulus_order" in dataset else None,
        repeat=_repeats(array, as_numbered="n_repeats" in ours),
        n_repeats=int(ours.get("n_repeats", 0)),
    )
    edges = _edges(dataset, array.sizes["time_bin"], path)
    resolved = bool(ours.get("time_resolved", 0)) or array.sizes["time_bin"] > 1
    recordings = SiteRecordings(
        responses if resolved else responses[..., 0],
        stimulus_ids,
        site_table(site_ids, _site_columns(array)),
        window_ms=None if resolved or not edges else edges[0],
        time_bins_ms=edges if resolved else None,
        unit=str(ours.get("unit", "spikes/window")),
        meta=json.loads(ours.get("meta", "{}")),
    )
    return with_window(recordings, options.window_ms, path)


def _open(path: Path) -> xr.Dataset:
    import xarray as xr

    with path.open("rb") as file:
        classic = file.read(3) == b"CDF"
    try:
        with xr.open_dataset(path, engine="scipy" if classic else "h5netcdf", decode_times=False) as lazy:
            return lazy.load()
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError, IndexError) as error:
        raise damaged(path, "netCDF-4") from error


def _responses(dataset: xr.Dataset, path: Path) -> xr.DataArray:
    """Return the recorded values as (presentation, neuroid, time_bin)."""
    found = [a for a in map(_stacked, dataset.data_vars.values()) if {"presentation", "neuroid"} <= set(a.dims)]
    ours = [a for a in found if a.name == "responses"]
    if len(ours or found) != 1:
        raise ValueError(
            f"{path.name!r} has {len(found)} variables over (presentation, neuroid) and dimensions "
            f"{sorted(map(str, dataset.sizes))}; one variable over (presentation, neuroid, time_bin) is expected."
        )
    array = (ours or found)[0]
    if not set(array.dims) <= set(_DIMS):
        raise ValueError(
            f"{path.name!r} has responses over {array.dims}; (presentation, neuroid, time_bin) is expected."
        )
    if "time_bin" not in array.dims:
        array = array.expand_dims("time_bin")
    return array.transpose(*_DIMS)


def _stacked(array: xr.DataArray) -> xr.DataArray:
    """Lay images and repetitions that are two dimensions in one row of presentations."""
    image = next((d for d in ("image", "stimulus", "image_id", "stimulus_id") if d in array.dims), None)
    repeat = next((d for d in ("repetition", "repeat", "repetition_index") if d in array.dims), None)
    if "presentation" in array.dims or image is None or repeat is None:
        return array
    return array.stack(presentation=(image, repeat)).reset_index("presentation")


def _coordinate(array: xr.DataArray, dim: str, names: tuple[str, ...], path: Path) -> xr.DataArray:
    for name in names:
        if name in array.coords:
            return array.coords[name]
    present = [str(c) for c in array.coords if array.coords[c].dims == (dim,)]
    near = difflib.get_close_matches(names[0], present, n=1)
    hint = f"closest is {near[0]!r}" if near else f"found {present}"
    raise ValueError(f"{path.name!r} has no coordinate {' or '.join(names)} on {dim!r} ({hint}); rename or add it.")


def _repeats(array: xr.DataArray, as_numbered: bool) -> NDArray[np.intp] | None:
    """Return the repeat of each presentation: our own number, the rank of theirs, or None where there is none."""
    name = next((n for n in ("repetition", "repetition_index", "repeat") if n in array.coords), None)
    if name is None:
        return None
    values = array.coords[name].values
    return values.astype(np.intp) if as_numbered else np.unique(values, return_inverse=True)[1].ravel().astype(np.intp)


def _edges(dataset: xr.Dataset, n_bins: int, path: Path) -> tuple[tuple[float, float], ...]:
    """Return (start, end) in ms of each time bin, or nothing where one unnamed bin has none."""
    if "time_bin_start" not in dataset or "time_bin_end" not in dataset:
        if n_bins == 1:
            return ()
        raise ValueError(
            f"{path.name!r} has {n_bins} time bins without the coordinates time_bin_start and time_bin_end in ms; "
            "add them."
        )
    start, end = (np.ravel(dataset[name].values).astype(float) for name in ("time_bin_start", "time_bin_end"))
    if n_bins == 1 and not np.isfinite([start, end]).all():
        return ()
    return tuple(zip(start.tolist(), end.tolist(), strict=True))


def _site_columns(array: xr.DataArray) -> dict[str, Any]:
    variables = {
        str(c): array.coords[c] for c in array.coords if array.coords[c].dims == ("neuroid",) and c != "neuroid"
    }
    return {
        name: unpack(v.values, np.atleast_1d(v.attrs.get("missing", [])).astype(int).tolist())
        for name, v in variables.items()
    }
