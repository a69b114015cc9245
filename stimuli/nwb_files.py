"""NWB files with pynwb, the extra ``nwb``: open them, and find the images and the presentations that they hold."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: how the session_description of an exported plan begins
PLANNED = "Planned presentation of the stimulus set"
#: stimulus_onset, stim_on_time, stimOn_times, image_start_time, onset_s and the like; times of the session in s
_ONSET = re.compile(
    r"(?:(?:stim(?:ulus|uli)?|image|img|pic|picture|presentation|visual)_?(?:on(?:set)?|start)|onset)s?(?:_times?|_s)?",
    re.IGNORECASE,
)
_ROUNDING_S = 1e-6


def require_pynwb() -> None:
    """
    Raise with a way out where pynwb is not installed.

    Raises
    ------
    ImportError
        If pynwb is not installed.
    """
    try:
        import pynwb  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "NWB files need pynwb, which is not installed; python -m pip install 'neural-population-control[nwb]'."
        ) from error


@contextlib.contextmanager
def open_nwb(path: Path) -> Iterator[Any]:
    """
    Open an NWB file; what it holds is read from the disk as long as the block lasts.

    The warnings of pynwb concern the makers of a file and are silenced.

    Parameters
    ----------
    path : Path
        The file.

    Yields
    ------
    NWBFile
        The content.

    Raises
    ------
    ImportError
        If pynwb is not installed.
    ValueError
        If the file is damaged, or uses an extension whose specification it does not carry.
    """
    require_pynwb()
    from pynwb import NWBHDF5IO

    with contextlib.ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            io = stack.enter_context(NWBHDF5IO(path=str(path), mode="r", load_namespaces=True))
            nwb = io.read()
        except Exception as error:  # hdmf lets through whatever its parts raise
            extension = re.search(r"'([\w-]+)' not a namespace", str(error))
            if extension:
                raise ValueError(
                    f"{path.name!r} uses the NWB extension {extension[1]!r} without carrying its specification; "
                    "install the Python package of that name, or export the file again with its specifications."
                ) from error
            raise ValueError(
                f"{path.name!r} cannot be read as NWB: it is damaged, cut short or of another format; copy or export "
                "it again."
            ) from error
        yield nwb


def plain_columns(table: Any) -> dict[str, Any]:
    """
    Return the columns of a dynamic table that hold one number or text per row.

    Parameters
    ----------
    table : DynamicTable
        A table of an open NWB file.

    Returns
    -------
    dict of str to array
        Numbers and truth values as arrays of their kind, texts as arrays of objects.
    """
    from hdmf.common import DynamicTableRegion, VectorIndex

    ragged = {c.target.name for c in table.columns if isinstance(c, VectorIndex)}
    found = {}
    for column in table.columns:
        if isinstance(column, VectorIndex | DynamicTableRegion) or column.name in ragged:
            continue
        values = _values(column.data)
        if values is not None and len(values) == len(table):
            found[column.name] = values
    return found


def _values(data: Any) -> Any:
    array = np.asarray(data[:]) if len(data) else np.empty(0)
    if array.ndim != 1 or array.dtype.kind not in "biufSUO":
        return None
    if array.dtype.kind in "biuf":
        return array
    cells = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in array.tolist()]
    if not all(v is None or isinstance(v, str) for v in cells):
        return None
    return np.array(cells, dtype=object)


@dataclass(frozen=True)
class ImageSource:
    """
    One container of images in an NWB file.

    Parameters
    ----------
    container : Images or ImageSeries
        The container.
    ids : tuple of str
        Names of its images.
    ordered : bool
        Whether numbers may refer to the images by their place.
    """

    container: Any
    ids: tuple[str, ...]
    ordered: bool


def image_sources(nwb: Any) -> dict[str, ImageSource]:
    """
    Return all Images and ImageSeries with pixels, by name.

    Images keep their own names; frame i of a series is ``<series>_0000`` counted from 0, as numbers in NWB are.

    Parameters
    ----------
    nwb : NWBFile
        An open file.

    Returns
    -------
    dict of str to ImageSource
        The containers among stimuli and stimulus templates.
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
    """
    Return every IndexSeries among the stimuli, by name.

    Parameters
    ----------
    nwb : NWBFile
        An open file.

    Returns
    -------
    dict of str to IndexSeries
        The series.
    """
    from pynwb.image import IndexSeries

    return {name: item for name, item in nwb.stimulus.items() if isinstance(item, IndexSeries)}


def series_onsets(series: Any) -> NDArray[np.float64]:
    """
    Return the times of an IndexSeries in s, from its timestamps or its rate.

    Parameters
    ----------
    series : IndexSeries
        The series.

    Returns
    -------
    array of float, shape (presentation,)
        Onsets in s.
    """
    if series.timestamps is not None:
        return np.asarray(series.timestamps[:], dtype=np.float64)
    return float(series.starting_time or 0.0) + np.arange(len(series.data)) / float(series.rate)


def presentation_onsets(
    columns: Mapping[str, NDArray[Any]], rows: Sequence[int], file: str
) -> tuple[str, NDArray[np.float64]]:
    """
    Return when the images of a table of trials or presentations came, and the column that says so.

    A trial often begins before its image: a column such as stimulus_onset, stim_on_time or onset_s is taken before
    start_time.

    Parameters
    ----------
    columns : mapping of str to array
        The columns of the table, among them start_time and stop_time.
    rows : sequence of int
        The rows that matter, counted from 0.
    file : str
        What to call the table in an error.

    Returns
    -------
    column : str
        Name of the column.
    onsets : array of float, shape (row,)
        Onsets in s, not a number where there is none.

    Raises
    ------
    ValueError
        If two such columns differ, or a time lies outside its row, such as one from the start of the row.

    Examples
    --------
    >>> table = {"start_time": np.array([1.0]), "stop_time": np.array([2.0]), "stim_on_time": np.array([1.4])}
    >>> presentation_onsets(table, [0], "trials")[0]
    'stim_on_time'
    """
    chosen = list(rows)
    start, stop = (np.asarray(columns[name], dtype=np.float64)[chosen] for name in ("start_time", "stop_time"))
    onsets = {k: np.asarray(v)[chosen] for k, v in columns.items() if _ONSET.fullmatch(k) and v.dtype.kind == "f"}
    first, *others = onsets or ["start_time"]
    for other in others:
        if not np.allclose(onsets[other], onsets[first], rtol=0, atol=_ROUNDING_S, equal_nan=True):
            raise ValueError(
                f"{file!r} has the onsets {first} and {other}, which differ: keep the column that says when the image "
                "came, or rename the other one."
            )
    for name, onset in onsets.items():
        outside = np.flatnonzero((onset < start - _ROUNDING_S) | (onset > stop + _ROUNDING_S))
        if len(outside):
            k = outside[0]
            raise ValueError(
                f"{file!r} has {name} = {onset[k]:g} s in row {chosen[k] + 1}, which lasts from {start[k]:g} to "
                f"{stop[k]:g} s: give onsets on the clock of start_time, not from the start of the row."
            )
    return first, onsets.get(first, start)


def series_names(series: Any, sources: dict[str, ImageSource]) -> tuple[str, ...] | None:
    """
    Return the ids of the images that an IndexSeries counts.

    Parameters
    ----------
    series : IndexSeries
        The series.
    sources : dict of str to ImageSource
        The images of the file, from `image_sources`.

    Returns
    -------
    tuple of str or None
        Ids in the order counted; None where the series counts images without an order.
    """
    target = series.indexed_images if series.indexed_images is not None else series.indexed_timeseries
    source = None if target is None else sources.get(target.name)
    return source.ids if source is not None and source.ordered else None
