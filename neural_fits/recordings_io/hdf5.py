"""HDF5 and MATLAB files: our own, the two public data sets known by their layout, or arrays with named axes."""

from __future__ import annotations

import io
from pathlib import Path

import h5py

from neural_fits.recordings import SiteRecordings
from neural_fits.recordings_io import _header, _matlab, npc_v4, tvsd
from neural_fits.recordings_io._arrays import from_foreign_arrays
from neural_fits.recordings_io._options import NO_OPTIONS, ReadOptions, damaged, with_window

__all__ = ["encode", "read"]


def encode(recordings: SiteRecordings) -> bytes:
    """Turn recordings into the content of an HDF5 file.

    Parameters
    ----------
    recordings : SiteRecordings
        What to write.

    Returns
    -------
    bytes
        The file: ``responses``, ``stimulus_ids``, ``site_ids``, ``site_column_0``, ... and one attribute of JSON text.
    """
    arrays, text = _header.to_arrays(recordings)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs[_header.HEADER] = text
        for name, values in arrays.items():
            if values.dtype == object:
                file.create_dataset(name, data=values, dtype=h5py.string_dtype())
            elif values.size:
                file.create_dataset(name, data=values, compression="gzip", compression_opts=1)  # zlib adds a checksum
            else:
                file.create_dataset(name, data=values)
    return buffer.getvalue()


def read(path: Path, options: ReadOptions = NO_OPTIONS) -> SiteRecordings:
    """Read an HDF5 or MATLAB file, recognized by its content.

    Parameters
    ----------
    path : Path
        File to read.
    options : ReadOptions
        What the content needs: see `neural_fits.recordings_io.read`.

    Returns
    -------
    SiteRecordings
        The recordings.

    Raises
    ------
    ValueError
        If the file is damaged, newer than this package, or an option is missing or of no use.
    """
    if _matlab.is_old_format(path):
        return from_foreign_arrays(_matlab.read_old_format(path), options, path)
    try:
        with h5py.File(path, "r") as file:
            return _read(file, path, options)
    except (OSError, KeyError, RuntimeError) as error:  # h5py's errors for damaged files
        raise damaged(path, "HDF5") from error


def _read(file: h5py.File, path: Path, options: ReadOptions) -> SiteRecordings:
    if _header.HEADER in file.attrs:
        options.refuse(("axes", "dataset"), path, "this package wrote it and states its axes")
        recordings = _header.from_arrays(lambda name: file[name][()], file.attrs[_header.HEADER], path, "HDF5")
        return with_window(recordings, options.window_ms, path)
    for layout in (npc_v4, tvsd):
        if layout.recognizes(file):
            return layout.read(file, path, options)
    return from_foreign_arrays(_matlab.arrays(file), options, path)
