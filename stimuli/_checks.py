"""Checks of what a stimulus set is made from: images, ids, size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from stimuli import _table, png
from stimuli.appearance import ROUNDING, quantize
from stimuli.provenance import sha256_bytes


def as_codes(images: ArrayLike) -> NDArray[np.uint8]:
    """Copy images into read-only codes (n, c, h, w) after checking shape and range."""
    array = np.asarray(images)
    if array.ndim != 4 or array.shape[1] not in png.MODES or 0 in array.shape:
        raise ValueError(
            f"The images have the shape {array.shape}: give (image, channel, height, width) with 1 or 3 channels and "
            "at least one image."
        )
    if array.dtype == np.uint8:
        codes: NDArray[np.uint8] = array.copy()
    elif np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        if low < -ROUNDING or high > 1.0 + ROUNDING:
            raise ValueError(
                f"The images range from {low:g} to {high:g} where [0, 1] is expected: scale them, or clip them with "
                "quantize."
            )
        codes, _ = quantize(array)
    else:
        raise TypeError(f"The images are of type {array.dtype}: give floating point in [0, 1] or uint8 codes.")
    codes.flags.writeable = False
    return codes


def content_id(codes: NDArray[np.uint8]) -> str:
    """Name an image (c, h, w) by a hash of its shape and codes."""
    return sha256_bytes(f"{codes.shape}".encode() + codes.tobytes())[:16]


def refuse_twins(ids: Sequence[str]) -> None:
    """Raise if two images have the same content id."""
    rows: dict[str, list[int]] = {}
    for row, stimulus in enumerate(ids):
        rows.setdefault(stimulus, []).append(row)
    twins = [same for same in rows.values() if len(same) > 1]
    if twins:
        listed = "; ".join(", ".join(map(str, same[:5])) for same in twins[:3])
        raise ValueError(
            f"The images in rows {listed} are identical ({len(twins)} such groups): remove the copies or give a "
            "column stimulus_id."
        )


def check_size_deg(size_deg: float) -> float:
    """Return a positive size as a float, or raise."""
    if isinstance(size_deg, bool) or not isinstance(size_deg, (int, float, np.number)):
        raise TypeError(f"size_deg is {size_deg!r}: give the width on screen in degrees as a number.")
    if not (np.isfinite(size_deg) and size_deg > 0):
        raise ValueError(f"size_deg is {size_deg!r}: give a positive width on screen in degrees.")
    return float(size_deg)


def name_stimuli(frame: pd.DataFrame, codes: NDArray[np.uint8]) -> pd.DataFrame:
    """Put checked columns stimulus_id and filename first, made up where the table lacks them."""
    free = frame.copy()
    if "stimulus_id" in free.columns:
        ids = list(free.pop("stimulus_id"))
    else:
        ids = [content_id(image) for image in codes]
        refuse_twins(ids)
    _table.check_ids(ids)
    filenames = list(free.pop("filename")) if "filename" in free.columns else [f"images/{name}.png" for name in ids]
    _table.check_filenames(filenames)
    free.insert(0, "stimulus_id", pd.Series(ids, dtype=object))
    free.insert(1, "filename", pd.Series(filenames, dtype=object))
    return free
