"""Which image of an NWB file a number in a table means."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stimuli.nwb_files import image_sources, index_series, series_names, series_onsets

_SAME_TIME_S = 1e-3


def name_numbers(
    numbers: NDArray[np.integer], onsets: NDArray[np.float64], table: str, nwb: Any
) -> tuple[list[str | None], str]:
    """Return the id of the image that each number means, and how they count; negative numbers mean none.

    An IndexSeries with the same onsets decides; else the only images of the file, or those named as the table is: from
    0 where 0 occurs, from 1 where the largest is the number of images. Numbers that may be either, or fit no images,
    stay numbers.
    """
    sources = image_sources(nwb)
    for series in index_series(nwb).values():
        names = series_names(series, sources)
        if names and len(series.data) == len(numbers) and _same(series_onsets(series), onsets):
            return _named(np.asarray(series.data[:]).astype(np.int64), names), ""
    stem = table.removesuffix("_presentations")
    ordered = {name: source for name, source in sources.items() if source.ordered}
    fitting = [s for n, s in ordered.items() if n.startswith(stem)] if len(ordered) > 1 else list(ordered.values())
    present = numbers[numbers >= 0]
    if len(fitting) == 1 and len(present):
        names, largest, from_zero = fitting[0].ids, int(present.max()), bool((present == 0).any())
        if from_zero and largest < len(names):
            return _named(numbers, names), "0-based"
        if not from_zero and largest == len(names):
            return _named(numbers - 1, names), "1-based"
        if largest < len(names):
            return _unnamed(numbers), (
                f"kept as ids, because they may count the images from 0 or from 1: 0 never occurs, and the largest is "
                f"{largest} with {len(names)} images"
            )
    return _unnamed(numbers), ""


def _unnamed(numbers: NDArray[np.integer]) -> list[str | None]:
    return [str(n) if n >= 0 else None for n in numbers.tolist()]


def _named(numbers: NDArray[np.integer], names: tuple[str, ...]) -> list[str | None]:
    return [names[n] if 0 <= n < len(names) else None for n in numbers.tolist()]


def _same(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    return bool(np.allclose(a, b, rtol=0.0, atol=_SAME_TIME_S, equal_nan=True))
