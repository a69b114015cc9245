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
import pandas as pd
from numpy.typing import NDArray

from neural_fits._recording_checks import RESERVED_COLUMNS
from neural_fits.recordings import SiteRecordings

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

    presented = ~np.isnan(recordings.responses).all(axis=2)
    stimulus, repeat = np.nonzero(presented)
    ids = np.asarray(recordings.stimulus_ids, dtype=object)
    window = recordings.window_ms or (np.nan, np.nan)
    coords: dict[Hashable, Any] = {
        "stimulus_id": ("presentation", ids[stimulus]),
        "repetition": ("presentation", repeat),
        "neuroid_id": ("neuroid", np.asarray(recordings.site_ids, dtype=object)),
        "time_bin_start": ("time_bin", np.array([window[0]], dtype=np.float64)),
        "time_bin_end": ("time_bin", np.array([window[1]], dtype=np.float64)),
    }
    for name, column in recordings.sites.items():
        if not str(name).strip() or "/" in str(name) or str(name) != str(name).strip():
            raise ValueError(f"the sites table has a column {name!r}, which netCDF cannot hold; rename it.")
        coords[name] = _column_to_variable(column)
    dataset = xr.Dataset(
        {
            "responses": (_DIMS, recordings.responses[stimulus, repeat][:, :, None]),
            "stimulus_order": ("stimulus", ids),
        },
        coords=coords,
        attrs={
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "unit": recordings.unit,
            "meta": json.dumps(recordings.meta),
            "n_repeats": recordings.shape[1],
        },
    )
    compress = {"zlib": True, "complevel": 1, "fletcher32": True} if recordings.responses.size else {}
    with tempfile.TemporaryDirectory() as folder:  # older xarray writes HDF5 to named files only
        path = Path(folder) / "recordings.nc"
        dataset.to_netcdf(path, engine="h5netcdf", encoding={"responses": compress})
        return path.read_bytes()


def read(path: Path) -> SiteRecordings:
    """Read a netCDF-4 file written by this package or by Brain-Score.

    Parameters
    ----------
    path : Path
        File to read.

    Returns
    -------
    SiteRecordings
        The recordings.

    Raises
    ------
    ValueError
        If the file is damaged, newer than this package, time-resolved, or lacks a dimension or coordinate.
    """
    dataset = _open(path)
    ours = dataset.attrs if dataset.attrs.get("format") == FORMAT else {}
    version = int(ours.get("format_version", 0))
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path.name!r} has format version {version}, but this package reads up to {FORMAT_VERSION}; "
            "update neural-population-control."
        )
    array = _responses(dataset, path)
    presented_ids = _texts(_coordinate(array, "presentation", ("stimulus_id", "image_id"), path))
    site_ids = _texts(_coordinate(array, "neuroid", ("neuroid_id",), path))
    order = _texts(dataset["stimulus_order"]) if "stimulus_order" in dataset else list(dict.fromkeys(presented_ids))
    position = {name: i for i, name in enumerate(order)}
    lost = [name for name in presented_ids if name not in position]
    if lost:
        raise ValueError(
            f"{path.name!r} is inconsistent: stimulus {lost[0]!r} is shown but not listed; write it again."
        )
    stimulus = np.array([position[name] for name in presented_ids], dtype=np.intp)
    repeat = _repeats(array, stimulus, presented_ids, path, as_numbered="n_repeats" in ours)
    n_repeats = max(int(repeat.max(initial=-1)) + 1, int(ours.get("n_repeats", 0)))

    responses = np.full((len(order), n_repeats, len(site_ids)), np.nan, dtype=np.float32)
    responses[stimulus, repeat] = array.values
    return SiteRecordings(
        responses,
        tuple(order),
        _site_table(array, site_ids),
        window_ms=_window(dataset),
        unit=str(ours.get("unit", "spikes/window")),
        meta=json.loads(ours.get("meta", "{}")),
    )


def _open(path: Path) -> xr.Dataset:
    import xarray as xr

    try:
        with xr.open_dataset(path, engine="h5netcdf", decode_times=False) as lazy:
            return lazy.load()
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path.name!r} cannot be read as netCDF-4: it is damaged, cut short or of another format; copy or export "
            "it again."
        ) from error


def _responses(dataset: xr.Dataset, path: Path) -> xr.DataArray:
    """Return the recorded values as (presentation, neuroid)."""
    found = [v for v in dataset.data_vars.values() if {"presentation", "neuroid"} <= set(v.dims)]
    array = dataset["responses"] if "responses" in dataset.data_vars else found[0] if len(found) == 1 else None
    if array is None:
        raise ValueError(
            f"{path.name!r} has {len(found)} variables over (presentation, neuroid) and dimensions "
            f"{sorted(map(str, dataset.sizes))}; one variable over (presentation, neuroid, time_bin) is expected."
        )
    if array.sizes.get("time_bin", 1) != 1:
        raise ValueError(
            f"{path.name!r} has {array.sizes['time_bin']} time bins; time-resolved recordings are not supported yet, "
            "so average over the bins of the window first."
        )
    if not set(array.dims) <= set(_DIMS):
        raise ValueError(
            f"{path.name!r} has responses over {array.dims}; (presentation, neuroid, time_bin) is expected."
        )
    if "time_bin" in array.dims:
        array = array.isel(time_bin=0)
    return array.transpose("presentation", "neuroid")


def _coordinate(array: xr.DataArray, dim: str, names: tuple[str, ...], path: Path) -> xr.DataArray:
    for name in names:
        if name in array.coords:
            return array.coords[name]
    present = [str(c) for c in array.coords if array.coords[c].dims == (dim,)]
    near = difflib.get_close_matches(names[0], present, n=1)
    hint = f"closest is {near[0]!r}" if near else f"found {present}"
    raise ValueError(f"{path.name!r} has no coordinate {' or '.join(names)} on {dim!r} ({hint}); rename or add it.")


def _repeats(
    array: xr.DataArray, stimulus: NDArray[np.intp], ids: list[str], path: Path, as_numbered: bool
) -> NDArray[np.intp]:
    """Return the repeat of each presentation: our own number, the rank of theirs, or counted where there is none."""
    if "repetition" not in array.coords:
        repeat = pd.Series(stimulus).groupby(stimulus).cumcount().to_numpy(dtype=np.intp)
    elif as_numbered:
        repeat = array.coords["repetition"].values.astype(np.intp)
    else:
        repeat = np.unique(array.coords["repetition"].values, return_inverse=True)[1].ravel()
    twice = pd.DataFrame({"stimulus": stimulus, "repeat": repeat}).duplicated().to_numpy()
    if twice.any():
        raise ValueError(
            f"{path.name!r} holds {int(twice.sum())} presentations twice, the first of stimulus "
            f"{ids[int(twice.argmax())]!r}; number the repetitions of each stimulus."
        )
    return np.asarray(repeat, dtype=np.intp)


def _window(dataset: xr.Dataset) -> tuple[float, float] | None:
    if "time_bin_start" not in dataset or "time_bin_end" not in dataset:
        return None
    start, end = (float(np.ravel(dataset[name].values)[0]) for name in ("time_bin_start", "time_bin_end"))
    return (start, end) if np.isfinite([start, end]).all() else None


def _site_table(array: xr.DataArray, site_ids: list[str]) -> pd.DataFrame:
    names = [str(c) for c in array.coords if array.coords[c].dims == ("neuroid",) and c not in RESERVED_COLUMNS]
    columns = {name: _variable_to_column(array.coords[name]) for name in names}
    return pd.DataFrame(columns, index=pd.Index(site_ids, name="site_id", dtype="str"))


def _column_to_variable(column: pd.Series[Any]) -> tuple[Any, ...]:
    """Numbers as they are; anything else as text, with the rows that are missing listed in an attribute."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
        return "neuroid", column.to_numpy()
    missing = column.isna().to_numpy()
    text = np.array(["" if gone else str(v) for v, gone in zip(column, missing, strict=True)], dtype=object)
    return "neuroid", text, {"missing": np.flatnonzero(missing)} if missing.any() else {}


def _variable_to_column(variable: xr.DataArray) -> Any:
    if variable.dtype.kind in "biuf":
        return variable.values
    missing = set(np.atleast_1d(variable.attrs.get("missing", [])).astype(int).tolist())
    return [None if row in missing else text for row, text in enumerate(_texts(variable))]


def _texts(variable: xr.DataArray) -> list[str]:
    return [v.decode() if isinstance(v, bytes) else str(v) for v in variable.values.ravel()]
