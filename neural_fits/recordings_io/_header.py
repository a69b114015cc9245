"""Our own arrays: recordings as named plain arrays and one JSON text, for HDF5 and npz."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neural_fits.recordings import SiteRecordings
from neural_fits.recordings_io._columns import pack, site_table, texts, unpack
from neural_fits.recordings_io._options import damaged

FORMAT = "neural_fits.SiteRecordings"
FORMAT_VERSION = 1
#: name of the JSON text beside the arrays
HEADER = "neural_fits"


def to_arrays(recordings: SiteRecordings) -> tuple[dict[str, NDArray[Any]], str]:
    """Return the arrays and the JSON text that hold everything; text arrays have dtype object."""
    arrays: dict[str, NDArray[Any]] = {
        "responses": recordings.responses,
        "stimulus_ids": np.asarray(recordings.stimulus_ids, dtype=object),
        "site_ids": np.asarray(recordings.site_ids, dtype=object),
    }
    columns = []
    for k, (name, column) in enumerate(recordings.sites.items()):
        arrays[f"site_column_{k}"], missing = pack(column)
        columns.append({"name": str(name), "missing": missing})
    return arrays, header(recordings, columns=columns)


def header(recordings: SiteRecordings, **more: Any) -> str:
    """Return what is not an array as JSON text."""
    record = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "axes": "stimulus repeat site" + (" time" if recordings.time_bins_ms is not None else ""),
        "window_ms": recordings.window_ms,
        "time_bins_ms": recordings.time_bins_ms,
        "unit": recordings.unit,
        "meta": recordings.meta,
    }
    return json.dumps(record | more)


def parse(text: str, path: Path) -> dict[str, Any]:
    """Return the record of a file of ours, unless a newer package wrote it."""
    record = json.loads(text)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError("the header is not ours")
    if int(record["format_version"]) > FORMAT_VERSION:
        raise NewerFormatError(
            f"{path.name!r} has format version {record['format_version']}, but this package reads up to "
            f"{FORMAT_VERSION}; update neural-population-control."
        )
    return record


class NewerFormatError(ValueError):
    """A file of a newer package: not damaged, and not ours to guess at."""


def from_arrays(get: Callable[[str], Any], text: object, path: Path, kind: str) -> SiteRecordings:
    """Return the recordings that `to_arrays` took apart."""
    try:
        record = parse(str(text), path)
        columns = {c["name"]: unpack(get(f"site_column_{k}"), c["missing"]) for k, c in enumerate(record["columns"])}
        return assemble(record, get("responses"), texts(get("stimulus_ids")), texts(get("site_ids")), columns)
    except NewerFormatError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, kind) from error


def assemble(
    record: dict[str, Any],
    responses: NDArray[Any],
    stimulus_ids: list[str],
    site_ids: list[str],
    columns: dict[str, Any],
) -> SiteRecordings:
    """Put the parts of a file of ours together."""
    bins, window = record["time_bins_ms"], record["window_ms"]
    return SiteRecordings(
        responses,
        tuple(stimulus_ids),
        site_table(site_ids, columns),
        window_ms=None if window is None else (window[0], window[1]),
        time_bins_ms=None if bins is None else tuple((b[0], b[1]) for b in bins),
        unit=record["unit"],
        meta=record["meta"],
    )
