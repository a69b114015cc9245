"""The small files beside the images of an exported set: screen, predictions, provenance, checksums."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stimuli import _table
from stimuli.display import Display
from stimuli.export._checks import check_columns
from stimuli.provenance import sha256_file

CHECKSUMS, PROVENANCE = "checksums.sha256", "provenance.json"
Predictions = pd.DataFrame | Mapping[str, pd.DataFrame] | None


def slug(name: str) -> str:
    """Return a name that is safe in file names, scripts and columns."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._-")[:80] or "stimuli"


def background_code(display: Display) -> int:
    """Return the 8-bit code of the empty screen, rounded as pixels are."""
    return int(np.floor(255 * display.background + 0.5))


def display_record(
    display: Display, size_px: tuple[int, int], size_deg: float, position_deg: tuple[float, float]
) -> dict[str, Any]:
    """Describe the screen with the names and SI units of BIDS, and the images on it."""
    return {
        "ScreenDistance": display.distance_cm / 100,
        "ScreenSize": [display.width_cm / 100, display.height_cm / 100],
        "ScreenResolution": list(display.resolution_px),
        "ScreenRefreshRate": display.refresh_hz,
        "pixels_per_degree": display.ppd,
        "pixels_per_degree_formula": display.ppd_formula,
        "image_size_px": [size_px[1], size_px[0]],
        "image_size_deg": [size_deg, size_deg * size_px[0] / size_px[1]],
        "image_size_order": "width, height",
        "image_position_deg": list(position_deg),
        "gray_code": 128,
        "background_code": background_code(display),
        "pixel_values": display.pixel_values,
        "display": display.to_dict(),
    }


def named_predictions(predictions: Predictions, ids: list[str]) -> dict[str, pd.DataFrame]:
    """Bring predictions to one checked table a model, rounded to six digits, with rows in the order of the set."""
    if predictions is None:
        return {}
    given = {"model": predictions} if isinstance(predictions, pd.DataFrame) else dict(predictions)
    tables = {}
    for model, frame in given.items():
        if not isinstance(frame, pd.DataFrame):
            raise TypeError(f"The predictions of {model!r} are a {type(frame).__name__}: give a DataFrame.")
        if frame.index.has_duplicates or frame.columns.has_duplicates:
            raise ValueError(f"The predictions of {model!r} name a stimulus or a site twice: name each once.")
        known = frame.index.intersection(ids)
        if not len(known):
            raise ValueError(
                f"The predictions of {model!r} are for other stimuli: give a table whose index is stimulus_id."
            )
        columns = {str(site): _rounded(frame[site].reindex(ids)) for site in frame.columns}
        check_columns(columns, model)
        tables[slug(model)] = pd.DataFrame(columns, index=pd.Index(ids, name="stimulus_id"))
    if len(tables) < len(given):
        raise ValueError(f"The models {_table.some(given)} would share a file: name them differently.")
    return tables


def _rounded(column: pd.Series) -> pd.Series:
    try:
        return pd.Series([float(f"{value:.6g}") for value in column.astype("float64")], index=column.index)
    except (TypeError, ValueError):
        raise ValueError(f"The predictions of the site {column.name!r} are not numbers: give responses.") from None


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record as UTF-8 JSON."""
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")


def write_predictions(folder: Path, predictions: Mapping[str, pd.DataFrame]) -> None:
    """Write one table a model; with a single model its columns in stimuli.csv say the same."""
    if len(predictions) < 2:
        return
    (folder / "predictions").mkdir()
    for model, frame in predictions.items():
        text = _table.to_csv(frame.reset_index())
        (folder / "predictions" / f"{model}.csv").write_text(text, encoding="utf-8", newline="")


def write_checksums(folder: Path) -> None:
    """List the SHA-256 of every file as ``sha256sum -c`` reads it; provenance.json, with its time, comes later."""
    lines = [f"{sha256_file(folder / name)}  {name}\n" for name in list_files(folder)]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="ascii", newline="\n")


def foreign_files(folder: Path) -> list[str] | None:
    """Name the files of an exported set that were added or edited since; None if the folder is no exported set."""
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    own = {line[66:]: line[:64] for line in lines}
    return [
        name
        for name in list_files(folder)
        if name not in (CHECKSUMS, PROVENANCE) and not _is_same(folder / name, own.get(name))
    ]


def _is_same(path: Path, digest: str | None) -> bool:
    return digest is not None and path.is_file() and sha256_file(path) == digest


def list_files(folder: Path) -> list[str]:
    """Name all files of a folder, in order."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
