"""The THINGS ventral stream spiking data set (TVSD; Papale, Wang, Self & Roelfsema, 2025): its MATLAB v7.3 files.

``THINGS_normMUA.mat`` holds normalized multi-unit activity, averaged over a window of each area; in the file it is
(electrode, stimulus[, repeat]), which HDF5 shows reversed. ``THINGS_MUA_trials.mat`` holds the time course of every
trial, (electrode, trial, time), with electrodes in the order of the recording system until a mapping puts them right.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from neural_fits.recordings import SiteRecordings
from neural_fits.recordings_io import _matlab
from neural_fits.recordings_io._columns import site_table
from neural_fits.recordings_io._options import ReadOptions, choose, numbered
from neural_fits.recordings_io._stack import stack

_ARRAY_SITES = 64
#: electrodes of each area, counted from 0, as the authors' normalization script lists them
_REGIONS = {
    "monkeyN": (("V1", 0, 512), ("V4", 512, 768), ("IT", 768, 1024)),
    "monkeyF": (("V1", 0, 512), ("IT", 512, 832), ("V4", 832, 1024)),
}
_QUALITY = {"reliab": "reliability", "SNR": "snr", "SNR_max": "snr_max", "oracle": "oracle"}
_BLOCK_BYTES = 2**27


def recognizes(file: h5py.File) -> bool:
    """Tell whether a file is one of the two of TVSD.

    Parameters
    ----------
    file : h5py.File
        The open file.

    Returns
    -------
    bool
        True if it is.
    """
    return {"ALLMUA", "ALLMAT"} <= set(file) or any(k in file for k in ("train_MUA", "test_MUA_reps", "test_MUA"))


def read(file: h5py.File, path: Path, options: ReadOptions) -> SiteRecordings:
    """Read the training or the test images of a TVSD file.

    Stimulus ids are the names of the THINGS images without folder and suffix (``aardvark_01b``) where
    ``things_imgs.mat`` lies beside the file or in ``_logs``, with the paths in ``meta["things_path"]``; otherwise
    ``train_00001``, ... in the order of the file. Regions are given where the name of the file or of its folder says
    which monkey it is.

    Parameters
    ----------
    file : h5py.File
        The open file.
    path : Path
        Its place, for messages and for what lies beside it.
    options : ReadOptions
        `dataset`: train or test; for the trials `window_ms`, over which the activity is averaged.

    Returns
    -------
    SiteRecordings
        The recordings.

    Raises
    ------
    ValueError
        If an option is missing or of no use, or the file is not laid out as described.
    """
    options.refuse(("axes",), path, "its layout (TVSD) is known")
    return _trials(file, path, options) if "ALLMUA" in file else _normalized(file, path, options)


def _normalized(file: h5py.File, path: Path, options: ReadOptions) -> SiteRecordings:
    known = [k for k in ("train", "test") if f"{k}_MUA" in file or f"{k}_MUA_reps" in file]
    kind = choose(options.dataset, known, path, "sets of images") if options.dataset or len(known) > 1 else known[0]
    options.refuse(("window_ms",), path, "its responses were averaged over one window per area when it was made")
    name = f"{kind}_MUA_reps" if f"{kind}_MUA_reps" in file else f"{kind}_MUA"
    values = file[name][()].astype(np.float32)  # (repeat, stimulus, electrode) or (stimulus, electrode)
    trials = values[None] if values.ndim == 2 else values
    if trials.ndim != 3:
        raise ValueError(
            f"{name!r} of {path.name!r} has shape {values.shape[::-1]}; (electrode, stimulus[, repeat]) is expected."
        )
    ids, meta = _stimulus_names(path, kind, trials.shape[1])
    site_ids, columns = _electrodes(path, trials.shape[2], in_order=True)
    for source, column in _QUALITY.items():
        quality = _per_electrode(file, source, len(site_ids))
        if quality is not None:
            columns[column] = quality
    return SiteRecordings(
        np.moveaxis(trials, 0, 1),
        tuple(ids),
        site_table(site_ids, columns),
        unit="normalized MUA",
        meta={"source": "TVSD", "dataset": kind, "windows_ms": {"V1": [25, 125], "V4": [50, 150], "IT": [75, 175]}}
        | meta,
    )


def _trials(file: h5py.File, path: Path, options: ReadOptions) -> SiteRecordings:
    kind = choose(options.dataset, ("train", "test"), path, "sets of images")
    if "tb" not in file:
        raise ValueError(f"{path.name!r} has no 'tb' (the times in ms of its samples); download the file again.")
    times = np.ravel(file["tb"][()]).astype(float)
    span = f"{times.min():g} to {times.max():g} ms"
    if options.window_ms is None:
        raise ValueError(
            f"{path.name!r} holds the time course from {span}; say which part to average with window_ms, for instance "
            "window_ms=(50, 150) for V4."
        )
    start, end = options.window_ms
    inside = np.flatnonzero((times >= start) & (times < end))
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    if start < times.min() or end > times.max() + step:
        raise ValueError(
            f"window_ms={options.window_ms} reaches beyond the samples of {path.name!r}, {span}; choose one inside."
        )
    table = file["ALLMAT"][()]  # reversed: (column, trial); columns 1 and 2 number the train and the test images from 1
    data = file["ALLMUA"]  # reversed: (time, trial, electrode)
    if data.ndim != 3 or data.shape[:2] != (len(times), table.shape[1]) or len(table) < 3:
        raise ValueError(
            f"{path.name!r} has ALLMUA of shape {data.shape[::-1]}, ALLMAT of {table.shape[::-1]}, {len(times)} times; "
            "(electrode, trial, time) and (trial, 6 or 7 columns) are expected."
        )
    number = table[1 if kind == "train" else 2].astype(np.intp)
    rows = np.flatnonzero(number > 0)
    if not len(rows) or not len(inside):
        what = f"trials of {kind} images" if len(inside) else f"samples in {options.window_ms} ms"
        raise ValueError(f"{path.name!r} has no {what}; choose another dataset or window.")
    means = _window_means(data, slice(int(inside[0]), int(inside[-1]) + 1))[rows]
    ids, meta = _stimulus_names(path, kind, int(number.max()), at_least=True)
    mapping = _mapping(path, data.shape[2])
    site_ids, columns = _electrodes(path, data.shape[2], in_order=mapping is not None)
    responses, stimulus_ids = stack(
        means if mapping is None else means[:, mapping],
        [ids[n - 1] for n in number[rows]],
        path,
        order=[ids[n - 1] for n in np.unique(number[rows])],
    )
    if "things_path" in meta:
        meta["things_path"] = [meta["things_path"][n - 1] for n in np.unique(number[rows])]
    order = "cortical arrays" if mapping is not None else "recording system (no *1024chns_mapping*.mat beside the file)"
    return SiteRecordings(
        responses,
        stimulus_ids,
        site_table(site_ids, columns),
        window_ms=options.window_ms,
        unit="MUA",
        meta={"source": "TVSD", "dataset": kind, "electrode_order": order} | meta,
    )


def _window_means(data: h5py.Dataset, window: slice) -> NDArray[np.float32]:
    """Average (time, trial, electrode) over a window, block by block: the file holds tens of gigabytes."""
    _, n_trials, n_electrodes = data.shape
    rows = max(1, _BLOCK_BYTES // ((window.stop - window.start) * n_electrodes * data.dtype.itemsize))
    means = np.empty((n_trials, n_electrodes), dtype=np.float32)
    for first in range(0, n_trials, rows):
        means[first : first + rows] = data[window, first : first + rows].mean(axis=0, dtype=np.float64)
    return means


def _stimulus_names(path: Path, kind: str, count: int, at_least: bool = False) -> tuple[list[str], dict[str, Any]]:
    """Return the ids of the images, and their paths inside THINGS where a log beside the file names them."""
    log = _beside(path, "things_imgs.mat")
    if log is None:
        return numbered(kind, count, 5), {}
    try:
        with h5py.File(log, "r") as file:
            paths = [p.replace("\\", "/") for p in _matlab.cell_texts(file[f"{kind}_imgs/things_path"])]
    except (OSError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"{log} does not list '{kind}_imgs/things_path'; download it again or move it away."
        ) from error
    if len(paths) < count or (len(paths) != count and not at_least):
        raise ValueError(
            f"{log.name!r} names {len(paths)} {kind} images, but {path.name!r} has {count}; they are not of the same "
            "recording."
        )
    stems = [PurePosixPath(p).stem for p in paths]
    return (stems if len(set(stems)) == len(stems) else paths), {"things_path": paths}


def _electrodes(path: Path, count: int, in_order: bool) -> tuple[list[str], dict[str, Any]]:
    """Return ids of the electrodes, and their array and area where the order is that of the arrays."""
    monkey = _monkey(path)
    columns: dict[str, Any] = {} if monkey is None else {"animal": [monkey] * count}
    if in_order and count == 1024:
        columns["array"] = [str(e // _ARRAY_SITES + 1) for e in range(count)]
        if monkey is not None:
            columns["region"] = [area for area, first, end in _REGIONS[monkey] for _ in range(first, end)]
    return numbered("electrode", count), columns


def _monkey(path: Path) -> str | None:
    """Return monkeyF or monkeyN where the file name, or the nearest folder that names one, is clear."""
    for part in (path.resolve().name, *reversed(path.resolve().parts[:-1])):
        letters = {letter.upper() for letter in re.findall(r"monkey[ _-]?([FN])(?![a-z])", part, flags=re.IGNORECASE)}
        if letters:
            return f"monkey{letters.pop()}" if len(letters) == 1 else None
    return None


def _per_electrode(file: h5py.File, name: str, count: int) -> NDArray[np.float64] | None:
    """Return one value for each electrode: the mean over pairs of trials or over days, NaN left out."""
    if name not in file:
        return None
    values = np.asarray(file[name][()], dtype=np.float64)
    values = values if values.shape[-1] == count else values.T
    if values.ndim != 2 or values.shape[-1] != count:
        return None
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def _mapping(path: Path, count: int) -> NDArray[np.intp] | None:
    """Return which channel of the recording system each electrode is, from the authors' file beside the data."""
    file = _beside(path, "*1024chns_mapping*.mat")
    if file is None:
        return None
    if _matlab.is_old_format(file):
        values = _matlab.read_old_format(file).get("mapping")
    else:
        with h5py.File(file, "r") as opened:
            values = opened["mapping"][()] if "mapping" in opened else None
    order = np.ravel(values).astype(np.intp) - 1 if values is not None else np.empty(0, dtype=np.intp)
    if not np.array_equal(np.sort(order), np.arange(count)):
        raise ValueError(
            f"{file.name!r} is no order of the {count} channels of {path.name!r}; move it away or correct it."
        )
    return order


def _beside(path: Path, pattern: str) -> Path | None:
    for folder in (path.parent, path.parent / "_logs", path.parent.parent / "_logs"):
        found = sorted(folder.glob(pattern)) if folder.is_dir() else []
        if found:
            return found[0]
    return None
