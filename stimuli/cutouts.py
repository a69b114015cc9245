"""Objects cut out of their background: a user's PNG files with transparency, and simple solids that are built in."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stimuli import _solids
from stimuli._crops import open_photo
from stimuli.hints import did_you_mean

MOST_SIDE_PX = 4096


@dataclass(frozen=True, eq=False)
class Cutout:
    """
    An object without its background.

    Parameters
    ----------
    name : str
        Name used in the table.
    codes : array of uint8, shape (h, w, 4)
        Red, green, blue and opacity; what is transparent all round the object is cut away.

    Raises
    ------
    TypeError
        If the name is no text or the codes are no uint8.
    ValueError
        If the shape is another, or nothing is opaque.

    Examples
    --------
    >>> square = np.zeros((9, 9, 4), np.uint8)
    >>> square[2:6, 3:8] = 255
    >>> Cutout("square", square).codes.shape
    (4, 5, 4)
    """

    name: str
    codes: NDArray[np.uint8]

    def __post_init__(self) -> None:
        """Check and trim the picture."""
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"The name of a cut-out is {self.name!r}: give it as text.")
        codes = np.asarray(self.codes)
        if codes.dtype != np.uint8:
            raise TypeError(f"The cut-out {self.name!r} is of type {codes.dtype}: give uint8 codes.")
        if codes.ndim != 3 or codes.shape[2] != 4:
            raise ValueError(f"The cut-out {self.name!r} has the shape {codes.shape}: give (height, width, 4).")
        rows, columns = (np.flatnonzero(codes[..., 3].any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            raise ValueError(f"The cut-out {self.name!r} is transparent everywhere: give a picture of an object.")
        trimmed = codes[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()
        trimmed.flags.writeable = False
        object.__setattr__(self, "codes", trimmed)


def sample_cutouts(names: Sequence[str] | None = None) -> list[Cutout]:
    """
    Render simple solid objects: ball, bottle, chair, cone, cube, jack, mug and ring.

    They stand in until you have cut-outs of real objects, see `read_cutouts`.

    Parameters
    ----------
    names : sequence of str, optional
        Which; by default all.

    Returns
    -------
    list of Cutout
        The objects, about 190 px at their longer side.

    Raises
    ------
    ValueError
        If there is no such object.

    Examples
    --------
    >>> [each.name for each in sample_cutouts(["cube", "mug"])]
    ['cube', 'mug']
    """
    wanted = list(_solids.NAMES if names is None else names)
    for name in wanted:
        if name not in _solids.NAMES:
            hint = did_you_mean(str(name), _solids.NAMES)
            raise ValueError(f"There is no sample object {name!r}: {hint}They are {', '.join(_solids.NAMES)}.")
    return [Cutout(name, _solids.solid(name)) for name in wanted]


def read_cutouts(folder: str | os.PathLike[str]) -> list[Cutout]:
    """
    Read the PNG files of a folder as cut-outs; the transparent part of each is its background.

    Parameters
    ----------
    folder : path
        Folder with PNG files that hold an alpha channel, at most 4096 px a side; sub-folders are not searched.

    Returns
    -------
    list of Cutout
        One a file in the order of their names; the name is the file's without its ending.

    Raises
    ------
    FileNotFoundError
        If there is no such folder or no PNG in it.
    ValueError
        If a file cannot be read, is too large, or has no transparency.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     Image.fromarray(sample_cutouts(["mug"])[0].codes).save(f"{place}/cup.png")
    ...     [each.name for each in read_cutouts(place)]
    ['cup']
    """
    place = Path(folder)
    if not place.is_dir():
        raise FileNotFoundError(f"There is no folder {place}: give a folder of PNG files with transparency.")
    paths = sorted(p for p in place.iterdir() if p.is_file() and p.suffix.lower() == ".png")
    paths = [path for path in paths if not path.name.startswith(".")]
    if not paths:
        raise FileNotFoundError(f"{place} holds no PNG: put cut-outs with transparency into it.")
    return [Cutout(path.stem, _read(path)) for path in paths]


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        # The header only: a size is refused before it is unpacked.
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            size = _size(path)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        raise ValueError(f"{path} cannot be read as a PNG of at most {MOST_SIDE_PX} px a side: repair it.") from None
    if max(size) > MOST_SIDE_PX:
        raise ValueError(f"{path} is {size[0]} x {size[1]} px: give cut-outs of at most {MOST_SIDE_PX} px a side.")
    image = open_photo(path, None)
    if not image.has_transparency_data:
        raise ValueError(f"{path} has no transparency: cut the object out, so that its background is transparent.")
    codes = np.asarray(image.convert("RGBA"))
    if codes[..., 3].min() == 255:
        raise ValueError(f"{path} is opaque everywhere: cut the object out, so that its background is transparent.")
    return codes


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path, formats=["PNG"]) as header:
        return header.size
