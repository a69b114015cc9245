"""Files of recordings: one module per format, with ``read(path, options)`` and ``encode(recordings) -> bytes``."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from stimuli.files import atomic_write

if TYPE_CHECKING:
    from neural_fits.recordings import SiteRecordings

__all__ = ["read", "write"]

_READERS = {
    ".nc": "netcdf",
    ".nwb": "nwb",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".mat": "hdf5",
    ".npz": "npz",
    ".npy": "npz",
    ".csv": "tidy_csv",
    ".tsv": "tidy_csv",
    ".parquet": "parquet",
}
_WRITERS = {
    ".nc": "netcdf",
    ".nwb": "nwb_write",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".npz": "npz",
    ".csv": "tidy_csv",
    ".parquet": "parquet",
}


def read(
    path: str | os.PathLike[str],
    *,
    axes: str | None = None,
    window_ms: tuple[float, float] | None = None,
    dataset: str | None = None,
) -> SiteRecordings:
    """Read recordings in the format that the suffix, and within HDF5 the content, names.

    =================  ===============================================  ==========================================
    suffix             content                                          what must be said
    =================  ===============================================  ==========================================
    .nc                netCDF assembly (Brain-Score's names); exact     nothing
    .nwb               table of presentations + spike times of units    ``dataset`` where there are several tables
    .h5 .hdf5          written by this package; exact                   nothing
    .h5 .hdf5          ``npc_v4_data.h5`` of 2019                       ``dataset``: naturalistic, synthetic, ...
    .mat               TVSD ``THINGS_normMUA.mat``                      ``dataset``: train or test
    .mat               TVSD ``THINGS_MUA_trials.mat``                   ``dataset`` and ``window_ms``
    .h5 .hdf5 .mat     any array                                        ``axes``; ``dataset`` where several arrays
    .npz               written by this package; exact                   nothing
    .npz .npy          any array                                        ``axes``; ``dataset`` where several arrays
    .csv .tsv          one row per trial and site                       nothing
    .parquet           the same columns                                 nothing
    =================  ===============================================  ==========================================

    Parameters
    ----------
    path : path-like
        File to read.
    axes : str, optional
        Order of the axes of an array that does not state it: words among stimulus (image), repeat (trial, repetition),
        site (neuron, unit, neuroid, electrode, channel), time, or presentation (one row per trial, with `stimulus_ids`
        beside the array), separated by spaces or commas. Ids come from arrays `stimulus_ids` (`image_ids`) and
        `site_ids` (`neuroid_ids`) in the file, bins of a time axis from `time_bins_ms`, (time, 2); stimuli and sites
        without ids are numbered, for stimuli ``meta["stimulus_ids"]`` says so. For MATLAB files the order that
        MATLAB's ``size`` shows.
    window_ms : tuple of float, optional
        Counting window after stimulus onset in ms, half-open. Spikes of NWB units are counted in it (70 to 170 ms
        where it is left out). Time-resolved responses are combined over it: summed where the unit holds "spike" and is
        no rate ("/s", "Hz"), averaged otherwise. Responses without a time axis must have been taken in it; where the
        file does not say, it is noted as theirs.
    dataset : str, optional
        Which of several tables, arrays or parts to read.

    Returns
    -------
    SiteRecordings
        The recordings.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If the format needs a package that is not installed.
    TypeError
        If an option is of the wrong kind.
    ValueError
        If the suffix is unknown, the file is not what it says, an option is missing (the sentence says what to give),
        or an option is given that the format has no use for.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as place:
    ...     np.savez(f"{place}/day1.npz", rates=np.zeros((5, 12, 3)), site_ids=["a1", "a2", "b1"])
    ...     read(f"{place}/day1.npz", axes="repeat image site", window_ms=(70, 170))
    SiteRecordings(12 stimuli x up to 5 repeats x 3 sites, 70-170 ms, spikes/window)
    """
    from neural_fits.recordings_io._options import ReadOptions

    file = Path(path)
    name = _module(file, _READERS, "read")
    if not file.is_file():
        raise FileNotFoundError(f"there is no file of recordings at {str(file)!r}; check the path.")
    options = ReadOptions(axes, window_ms, dataset)
    recordings: SiteRecordings = importlib.import_module(name).read(file, options)
    return recordings


def write(recordings: SiteRecordings, path: str | os.PathLike[str]) -> None:
    """Write recordings in the format the suffix names, whole or not at all.

    Parameters
    ----------
    recordings : SiteRecordings
        What to write.
    path : path-like
        File to write; an existing one is replaced. ``.nc``, ``.h5``, ``.hdf5``, ``.npz`` and ``.nwb`` are exact;
        ``.csv`` and ``.parquet`` leave out `meta`.

    Raises
    ------
    ImportError
        If the format needs a package that is not installed.
    OSError
        If the file cannot be written there; an older one is then untouched.
    ValueError
        If the suffix is unknown or the format cannot hold a name in the recordings.
    """
    file = Path(path)
    module = importlib.import_module(_module(file, _WRITERS, "written"))
    unwritable = next((name for name in (*recordings.stimulus_ids, *recordings.site_ids) if "\0" in name), None)
    if unwritable is not None:
        raise ValueError(f"the id {unwritable!r} holds a zero character, which files cannot hold; rename it.")
    atomic_write(file, module.encode(recordings))


def _module(path: Path, formats: dict[str, str], verb: str) -> str:
    name = formats.get(path.suffix.lower())
    if name is None:
        raise ValueError(
            f"{path.name!r} ends in {path.suffix!r}, but recordings are {verb} as "
            f"{', '.join(list(formats)[:-1])} or {list(formats)[-1]}; choose one of these suffixes."
        )
    return f"neural_fits.recordings_io.{name}"
