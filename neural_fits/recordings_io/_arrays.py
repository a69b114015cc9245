"""Arrays of other programs: what each axis means comes from the caller, ids from arrays beside it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neural_fits._recording_checks import as_ids
from neural_fits.recordings import SiteRecordings
from neural_fits.recordings_io._columns import id_texts, site_table
from neural_fits.recordings_io._numbered import NUMBERED
from neural_fits.recordings_io._options import ReadOptions, choose, first_in, numbered, with_window
from neural_fits.recordings_io._stack import stack

_WORDS = {
    "stimulus": "stimulus",
    "image": "stimulus",
    "repeat": "repeat",
    "repetition": "repeat",
    "trial": "repeat",
    "site": "site",
    "neuron": "site",
    "unit": "site",
    "neuroid": "site",
    "electrode": "site",
    "channel": "site",
    "time": "time",
    "presentation": "presentation",
}
_ORDER = ("presentation", "stimulus", "repeat", "site", "time")
_STIMULUS_IDS = ("stimulus_ids", "image_ids", "stimulus_id", "image_id")
_SITE_IDS = ("site_ids", "neuroid_ids", "site_id", "neuroid_id")
_TIME_BINS = "time_bins_ms"


def from_foreign_arrays(arrays: Mapping[str, Any], options: ReadOptions, path: Path) -> SiteRecordings:
    """Return the recordings in one of several arrays (numpy arrays, or whatever ``np.asarray`` reads)."""
    names = _parse_axes(options.axes)
    beside = {*_STIMULUS_IDS, *_SITE_IDS, _TIME_BINS}
    known = [k for k in arrays if arrays[k].dtype.kind in "biuf" and arrays[k].ndim >= 2 and k not in beside]
    if not known:
        shapes = {k: arrays[k].shape for k in list(arrays)[:8]}
        raise ValueError(
            f"{path.name!r} holds no array of numbers with two or more axes (found {shapes}); responses by stimulus "
            "and site are expected."
        )
    # MATLAB's vectors have two axes as well; they stay in the choice only where there is nothing larger.
    likely = [k for k in known if sum(length > 1 for length in arrays[k].shape) > 1] or known
    likely = [k for k in likely if names and arrays[k].ndim == len(names)] or likely
    name = choose(options.dataset, likely if options.dataset is None else known, path, "arrays")
    shape = tuple(arrays[name].shape)
    if not names:
        guess = {2: "site stimulus", 3: "repeat stimulus site", 4: "repeat stimulus site time"}.get(len(shape), "...")
        raise ValueError(
            f"{path.name!r} does not say what the {len(shape)} axes of {name!r} with shape {shape} are; name them in "
            f"order, for instance SiteRecordings.load({path.name!r}, axes={guess!r})."
        )
    if len(names) != len(shape):
        raise ValueError(
            f"axes={options.axes!r} names {len(names)} axes, but {name!r} in {path.name!r} has shape {shape}; name "
            "each of them once."
        )
    values = _ordered(np.asarray(arrays[name]), names)
    bins = _time_bins(arrays, values.shape[-1], name, path) if "time" in names else None
    site_axis = 1 if "presentation" in names else 2
    site_ids = _ids(arrays, _SITE_IDS, values.shape[site_axis], "site", path) or numbered(
        "site", values.shape[site_axis], 3
    )
    if "presentation" in names:
        shown = _ids(arrays, _STIMULUS_IDS, len(values), "presentation", path, unique=False)
        if not shown:
            raise ValueError(
                f"{path.name!r} has {len(values)} presentations but no array {_STIMULUS_IDS[0]!r} that says which "
                "stimulus each one showed; add it."
            )
        values, stimulus_ids = stack(values, shown, path)
        meta = {}
    else:
        found = _ids(arrays, _STIMULUS_IDS, len(values), "stimulus", path)
        stimulus_ids = tuple(found or numbered("stimulus", len(values)))
        meta = {} if found else {"stimulus_ids": NUMBERED}
    recordings = SiteRecordings(values, stimulus_ids, site_table(site_ids), time_bins_ms=bins, meta=meta)
    return with_window(recordings, options.window_ms, path)


def _parse_axes(axes: str | None) -> tuple[str, ...]:
    """Return our names of the axes in the order given; nothing where nothing is said."""
    if axes is None:
        return ()
    words = axes.replace(",", " ").lower().split()
    for word in words:
        if word not in _WORDS:
            near = difflib.get_close_matches(word, _WORDS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"axes={axes!r} holds the word {word!r}; {hint}known words: {', '.join(_WORDS)}.")
    names = tuple(_WORDS[word] for word in words)
    if len(set(names)) != len(names):
        raise ValueError(f"axes={axes!r} names an axis twice; name each once, as in 'repeat stimulus site'.")
    if "presentation" in names and {"stimulus", "repeat"} & set(names):
        raise ValueError(
            f"axes={axes!r} mixes presentation (one row per trial, of any stimulus) with stimulus or repeat; use "
            "'presentation site' or 'repeat stimulus site'."
        )
    missing = [n for n in ("stimulus", "site") if n not in names and not (n == "stimulus" and "presentation" in names)]
    if missing:
        raise ValueError(
            f"axes={axes!r} lacks the word {missing[0]!r}; 'repeat stimulus site' is an example, and 'presentation "
            "site' stands for one row per trial with an array 'stimulus_ids' beside it."
        )
    return names


def _ordered(values: NDArray[Any], names: tuple[str, ...]) -> NDArray[np.float32]:
    """Return (stimulus, repeat, site[, time]) or (presentation, site[, time])."""
    values = values.transpose([names.index(n) for n in _ORDER if n in names])
    if "presentation" not in names and "repeat" not in names:  # means: one repeat
        values = values[:, None]
    return np.ascontiguousarray(values, dtype=np.float32)


def _ids(
    arrays: Mapping[str, Any], names: tuple[str, ...], count: int, axis: str, path: Path, unique: bool = True
) -> list[str]:
    name = first_in(names, arrays)
    if name is None:
        return []
    ids = id_texts(arrays[name], name, path)
    if len(ids) != count:
        raise ValueError(
            f"{path.name!r} has {len(ids)} ids in {name!r} but {count} entries along the axis {axis!r}; correct axes "
            "or the ids."
        )
    if unique:
        as_ids(ids, f"{name} of {path.name!r}")
    return ids


def _time_bins(arrays: Mapping[str, Any], count: int, name: str, path: Path) -> tuple[tuple[float, float], ...]:
    if _TIME_BINS not in arrays:
        raise ValueError(
            f"{name!r} in {path.name!r} has a time axis of {count} bins, but the file does not say when they are; add "
            f"an array {_TIME_BINS!r} of shape ({count}, 2) with the start and end of each bin in ms."
        )
    edges = np.asarray(arrays[_TIME_BINS], dtype=float)
    if edges.shape != (count, 2):
        raise ValueError(f"{_TIME_BINS!r} in {path.name!r} has shape {edges.shape}; ({count}, 2) is expected.")
    return tuple((float(a), float(b)) for a, b in edges)
