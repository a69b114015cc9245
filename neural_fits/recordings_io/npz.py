"""Recordings as numpy files: our own .npz, and any array in .npz or .npy whose axes the caller names."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from neural_fits.recordings import SiteRecordings
from neural_fits.recordings_io import _header
from neural_fits.recordings_io._arrays import from_foreign_arrays
from neural_fits.recordings_io._options import NO_OPTIONS, ReadOptions, damaged, with_window

__all__ = ["encode", "read"]


def encode(recordings: SiteRecordings) -> bytes:
    """Turn recordings into the content of an npz file that numpy reads without pickle.

    Parameters
    ----------
    recordings : SiteRecordings
        What to write.

    Returns
    -------
    bytes
        The file.
    """
    arrays, text = _header.to_arrays(recordings)
    plain: dict[str, Any] = {k: v.astype(np.str_) if v.dtype == object else v for k, v in arrays.items()}
    plain[_header.HEADER] = np.array(text)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **plain)
    return buffer.getvalue()


def read(path: Path, options: ReadOptions = NO_OPTIONS) -> SiteRecordings:
    """Read an npz file of this package, or any npz or npy array.

    Parameters
    ----------
    path : Path
        File to read.
    options : ReadOptions
        For arrays of others `axes`, and `dataset` where there are several.

    Returns
    -------
    SiteRecordings
        The recordings.

    Raises
    ------
    ValueError
        If the file is damaged, needs pickle, is newer than this package, or an option is missing.
    """
    arrays = _load(path)
    if _header.HEADER in arrays:
        options.refuse(("axes", "dataset"), path, "this package wrote it and states its axes")
        recordings = _header.from_arrays(arrays.__getitem__, arrays[_header.HEADER], path, "npz")
        return with_window(recordings, options.window_ms, path)
    return from_foreign_arrays(arrays, options, path)


def _load(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:  # numpy leaves a file of its own open when it is damaged
            loaded = np.load(file, allow_pickle=False)
            return {path.stem: loaded} if isinstance(loaded, np.ndarray) else {n: loaded[n] for n in loaded.files}
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise ValueError(
                f"{path.name!r} holds Python objects, which could run code when they are read; save numbers as float "
                "arrays and ids as arrays of text (dtype 'U')."
            ) from error
        raise damaged(path, path.suffix[1:]) from error
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, SyntaxError) as error:
        raise damaged(path, path.suffix[1:]) from error
