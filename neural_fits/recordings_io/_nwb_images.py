"""The images inside an NWB file: their ids, and which of them a number in a table or an IndexSeries means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SAME_TIME_S = 1e-3


@dataclass(frozen=True)
class ImageSource:
    """One container of images: `ordered` says that numbers may refer to them."""

    container: Any
    ids: tuple[str, ...]
    ordered: bool


def image_sources(nwb: Any) -> dict[str, ImageSource]:
    """Return all Images and ImageSeries with pixels, by name.

    Images keep their own names; frame i of a series is ``<series>_0000`` counted from 0, as numbers in NWB are.
    """
    from pynwb.base import Images
    from pynwb.image import ImageSeries, IndexSeries

    found: dict[str, ImageSource] = {}
    for place in (nwb.stimulus_template, nwb.stimulus):
        for name, item in place.items():
            if isinstance(item, Images):
                ordered = item.order_of_images is not None
                ids = [image.name for image in item.order_of_images.data[:]] if ordered else list(item.images)
                found[name] = ImageSource(item, tuple(ids), ordered)
            elif isinstance(item, ImageSeries) and not isinstance(item, IndexSeries) and _has_pixels(item):
                digits = max(4, len(str(len(item.data))))
                found[name] = ImageSource(item, tuple(f"{name}_{i:0{digits}d}" for i in range(len(item.data))), True)
    return found


def _has_pixels(series: Any) -> bool:
    """Whether the frames are inside the file: a movie elsewhere leaves an empty array."""
    return np.ndim(series.data) >= 3 and len(series.data) > 0


def index_series(nwb: Any) -> dict[str, Any]:
    """Return every IndexSeries among the stimuli, by name."""
    from pynwb.image import IndexSeries

    return {name: item for name, item in nwb.stimulus.items() if isinstance(item, IndexSeries)}


def series_onsets(series: Any) -> NDArray[np.float64]:
    """Return the times of an IndexSeries in s, from its timestamps or its rate."""
    if series.timestamps is not None:
        return np.asarray(series.timestamps[:], dtype=np.float64)
    return float(series.starting_time or 0.0) + np.arange(len(series.data)) / float(series.rate)


def series_names(series: Any, sources: dict[str, ImageSource]) -> tuple[str, ...] | None:
    """Return the ids of the images that an IndexSeries counts, None where it counts images without an order."""
    target = series.indexed_images if series.indexed_images is not None else series.indexed_timeseries
    source = None if target is None else sources.get(target.name)
    return source.ids if source is not None and source.ordered else None


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
