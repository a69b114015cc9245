"""Files of recordings: one module per format, each with ``read(path)`` and ``encode(recordings) -> bytes``."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from stimuli.files import atomic_write

if TYPE_CHECKING:
    from neural_fits.recordings import SiteRecordings

__all__ = ["read", "write"]

_FORMATS = {".nc": "netcdf", ".csv": "tidy_csv"}


def read(path: str | os.PathLike[str]) -> SiteRecordings:
    """Read recordings in the format the suffix names.

    Parameters
    ----------
    path : path-like
        File to read.

    Returns
    -------
    SiteRecordings
        The recordings.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the suffix is unknown or the file is not what it says.
    """
    file = Path(path)
    module = _module(file)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file of recordings at {str(file)!r}; check the path.")
    recordings: SiteRecordings = module.read(file)
    return recordings


def write(recordings: SiteRecordings, path: str | os.PathLike[str]) -> None:
    """Write recordings in the format the suffix names, whole or not at all.

    Parameters
    ----------
    recordings : SiteRecordings
        What to write.
    path : path-like
        File to write; an existing one is replaced.

    Raises
    ------
    OSError
        If the file cannot be written there; an older one is then untouched.
    ValueError
        If the suffix is unknown or the format cannot hold a name in the recordings.
    """
    file = Path(path)
    module = _module(file)
    atomic_write(file, module.encode(recordings))


def _module(path: Path) -> ModuleType:
    name = _FORMATS.get(path.suffix.lower())
    if name is None:
        raise ValueError(
            f"{path.name!r} ends in {path.suffix!r}, but recordings are read and written as {' or '.join(_FORMATS)}; "
            "choose one of these suffixes."
        )
    return importlib.import_module(f"neural_fits.recordings_io.{name}")
