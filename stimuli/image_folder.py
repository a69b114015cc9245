"""A lab's own finished images as a stimulus set: every file of a folder, pixel codes unchanged."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from stimuli import _crops, _table, png
from stimuli.display import Display
from stimuli.hints import did_you_mean
from stimuli.photos import image_files
from stimuli.provenance import provenance_record, sha256_file
from stimuli.stimulus_set import StimulusSet

MAX_SIDE_PX = 8192
_INT = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(  # a longer whole number would be rounded, and stays text
    r"[+-]?(0|[1-9][0-9]{0,14}|(0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?inf", re.IGNORECASE
)
_TRUTH = {word: value for value in (True, False) for word in (str(value), str(value).lower(), str(value).upper())}
_NOT_GIVEN = ("", "na", "nan", "n/a", "null", "none")  # in a column of numbers or truth values


def images_from_folder(
    folder: str | os.PathLike[str],
    table: str | os.PathLike[str] | pd.DataFrame | None = None,
    *,
    size_deg: float = 8.0,
    display: Display | None = None,
) -> StimulusSet:
    """
    Take the images of a folder as they are, one stimulus a file, with the name of the file as its id.

    8-bit gray and RGB PNG files are read when needed and never altered; other formats are decoded now, upright by their
    EXIF orientation, with transparency shown on gray 128. When one image is in color, gray ones get three equal
    channels. For crops of photographs see `photos_from_folder`.

    Parameters
    ----------
    folder : path
        Folder with bmp, jpg, png, tif or webp images of one size; sub-folders are not searched.
    table : path or DataFrame, optional
        A CSV file (UTF-8) or table with the column filename (names in the folder) and any others; it chooses and orders
        the images. Without a column stimulus_id the names without their ending are the ids. A column of a CSV file is
        text, whatever it says, unless all that is given in it are numbers or all True and False; 0012 is text.
    size_deg : float
        Width of the images on the screen in degrees of visual angle.
    display : Display, optional
        The screen that the set is made for.

    Returns
    -------
    StimulusSet
        One stimulus a file.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, no image in it, or a file of the table is missing.
    ValueError
        If an image cannot be read, is larger than 8192 px or of another size, or a name cannot serve as an id.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as place:
    ...     Image.radial_gradient("L").save(f"{place}/disc.png")
    ...     images_from_folder(place, size_deg=4.0).stimulus_ids
    ['disc']
    """
    place = Path(folder).absolute()  # a lazy set must survive a change of the working directory
    frame, paths = _chosen(place, table)
    ids = list(frame["stimulus_id"])
    try:
        _table.check_ids(ids)
    except ValueError as error:
        raise ValueError(f"In {place}, {error} Rename the file, or give a table with a column stimulus_id.") from None
    headers = [_header(path) for path in paths]
    size = headers[0][0]
    for path, (other, _) in zip(paths, headers, strict=True):
        if other != size:
            raise ValueError(
                f"{path.name} is {other[0]} x {other[1]} px where {paths[0].name} is {size[0]} x {size[1]} px: bring "
                "the images to one size, or cut crops of one size with photos_from_folder."
            )
    channels = 3 if any(mode == 3 for _, mode in headers) else 1
    items = [_item(path, mode, channels) for path, (_, mode) in zip(paths, headers, strict=True)]
    frame["filename"] = [f"images/{name}.png" for name in ids]
    order = ["stimulus_id", "filename", *(c for c in frame.columns if c not in _table.RESERVED)]
    hashes = {path.name: sha256_file(path) for path in paths}
    return StimulusSet(
        items,
        _table.tidy_table(frame[order], len(frame)),
        shape=(channels, size[1], size[0]),
        size_deg=size_deg,
        display=display,
        provenance=provenance_record(inputs=hashes),
        name=place.resolve().name,
    )


def _chosen(place: Path, table: str | os.PathLike[str] | pd.DataFrame | None) -> tuple[pd.DataFrame, list[Path]]:
    """Give the table, with the column stimulus_id, and the files."""
    if table is None:
        paths = image_files(place)
        return pd.DataFrame({"stimulus_id": [path.stem for path in paths]}), paths
    if not place.is_dir():
        raise FileNotFoundError(f"There is no folder {place}: give a folder of images.")
    frame = _read(table).reset_index(drop=True)
    if "filename" not in frame.columns:
        hint = did_you_mean("filename", map(str, frame.columns))
        raise ValueError(f"The table has no column 'filename': {hint}name the image of every row in it.")
    if not len(frame):
        raise ValueError("The table has no rows: give one per image.")
    paths = []
    for row, name in enumerate(frame["filename"]):
        if not isinstance(name, str) or not name or Path(name).name != name or "\\" in name or name in (".", ".."):
            raise ValueError(
                f"filename {name!r} in row {row} is not the name of a file in {place.name}: give it alone."
            )
        paths.append(place / name)
        if not paths[-1].is_file():
            near = did_you_mean(name, (entry.name for entry in place.iterdir()))
            raise FileNotFoundError(f"{place} has no file {name!r}: {near}check the column filename.")
    if "stimulus_id" not in frame.columns:
        frame["stimulus_id"] = [path.stem for path in paths]
    return frame.copy(), paths


def _read(table: str | os.PathLike[str] | pd.DataFrame) -> pd.DataFrame:
    if isinstance(table, pd.DataFrame):
        return table
    try:
        cells = _table.from_csv(Path(table).read_bytes().decode("utf-8-sig").rstrip("\r\n"), {})
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no table {table}: give a CSV file with a column filename.") from None
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{table} cannot be read as a CSV table: {' '.join(str(error).split())}") from None
    cells = cells.rename(columns={"": "unnamed"})  # such as the index that pandas writes
    for name in (column for column in cells if column not in _table.RESERVED):
        cells[name] = pd.Series(_typed(list(cells[name])), dtype=object)
    return cells


def _typed(cells: list[str]) -> list[Any]:
    """Read cells as numbers or truth values where all that are given are such, and as the text that they are if not."""
    given = [cell.strip() for cell in cells]
    known = [cell for cell in given if cell.lower() not in _NOT_GIVEN]
    kinds = ((_INT.fullmatch, int), (_FLOAT.fullmatch, float), (_TRUTH.get, _TRUTH.get))
    for fits, read in kinds if known else ():
        if all(fits(cell) is not None for cell in known):
            return [read(cell) if cell.lower() not in _NOT_GIVEN else None for cell in given]
    return [cell or None for cell in cells]


def _header(path: Path) -> tuple[tuple[int, int], int]:
    """Give the upright size and the channels of an image without decoding it."""
    try:
        with Image.open(path) as image:
            size, turned = image.size, _orientation(image) in (5, 6, 7, 8)
            channels = 1 if image.mode in ("1", "L", "LA", "I", "I;16", "F") else 3
    except Image.DecompressionBombError:
        raise ValueError(_too_large(path)) from None
    except png.UNREADABLE:
        raise ValueError(f"{path} cannot be read as an image: repair or remove the file.") from None
    if max(size) > MAX_SIDE_PX:
        raise ValueError(_too_large(path))
    return (size[1], size[0]) if turned else size, channels


def _too_large(path: Path) -> str:
    return f"{path} claims a side of more than {MAX_SIDE_PX} px: reduce the image to what the screen shows."


def _item(path: Path, mode: int, channels: int) -> Path | NDArray[np.uint8]:
    with Image.open(path) as image:
        plain = image.format == "PNG" and image.mode == png.MODES[channels] and not image.has_transparency_data
        plain = plain and _orientation(image) == 1
        width, height = image.size
    if plain:
        png.read(path, (channels, height, width))  # a truncated file is found now, not in the session
        return path
    pixels: NDArray[Any] = np.asarray(_crops.open_photo(path, png.MODES[mode]))
    codes = pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    codes = np.ascontiguousarray(np.broadcast_to(codes, (channels, *codes.shape[1:])))
    codes.flags.writeable = False
    return codes


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation from the header; asking a PNG that has none would decode it."""
    return 1 if image.format == "PNG" and "exif" not in image.info else image.getexif().get(0x0112, 1)
