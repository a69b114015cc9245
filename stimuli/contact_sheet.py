"""A contact sheet: one PNG that shows the stimuli of a set in rows, under the names of their groups."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

from stimuli import _groups, _thumbnails
from stimuli.files import atomic_write

if TYPE_CHECKING:
    from stimuli.stimulus_set import StimulusSet

MOST_SHOWN = 600
_GAP = 6
_MARGIN = 14
_LINE = 20  # of text, in pixels
_SPACE = 8  # between rows of groups
_INK, _PAPER = (0, 0, 0), (128, 128, 128)


def contact_sheet(
    stimuli: StimulusSet, *, columns: int | None = None, side_px: int = 112, most: int = MOST_SHOWN
) -> Image.Image:
    """
    Draw the stimuli of a set on one gray sheet, grouped by family and by the site that images were made for.

    The paper is the code 128, so that a gray surround disappears as it does on the screen.

    Parameters
    ----------
    stimuli : StimulusSet
        What to show.
    columns : int, optional
        Pictures in a row; by default such that the sheet is about as high as it is wide, 24 at most.
    side_px : int
        Longer side of a picture in pixels; none is enlarged.
    most : int
        Largest number of pictures; of a larger set an even choice from every group is shown, of more groups an even
        choice of groups, and the sheet says so.

    Returns
    -------
    PIL.Image.Image
        The sheet, RGB. Equal sets give equal sheets with the same libraries.

    Raises
    ------
    ValueError
        If a number is out of range or an image cannot be read.

    Examples
    --------
    >>> import numpy as np
    >>> from stimuli import StimulusSet
    >>> noise = StimulusSet.from_arrays(np.random.default_rng(0).random((3, 1, 32, 32)))
    >>> contact_sheet(noise, columns=3, side_px=32).width
    136
    """
    for name, value, high in (("columns", 1 if columns is None else columns, 100), ("side_px", side_px, 1024)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= high:
            raise ValueError(f"{name} is {value!r}: give a whole number from 1 to {high}.")
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise ValueError(f"most is {most!r}: give the largest number of pictures, at least 1.")
    whole = _groups.groups(stimuli.table)
    shown = _groups.thin(whole, most)
    count = sum(len(group.rows) for group in shown)
    across = columns or min(24, max(4, round(count**0.5 * 1.2)))
    height, width = stimuli.size_px
    scale = min(1.0, side_px / max(height, width))
    step = (max(1, round(width * scale)) + _GAP, max(1, round(height * scale)) + _GAP)
    counts = {group.title: len(group.rows) for group in whole}
    titles = [f"{group.title} ({counts[group.title]:,})" for group in shown]
    font = ImageFont.load_default(size=13)
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    needed = [math.ceil((pen.textlength(" ".join(title.split()), font) + 2 * _GAP) / step[0]) for title in titles]
    rooms = [min(across, max(len(group.rows), least)) for group, least in zip(shown, needed, strict=True)]
    places, below = _placed([len(group.rows) for group in shown], rooms, across, step[1])
    sheet = Image.new("RGB", (2 * _MARGIN + across * step[0] - _GAP, 2 * _MARGIN + _LINE + below), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, _MARGIN), _fitting(pen, _title(stimuli, count), font, sheet.width - 2 * _MARGIN), _INK, font)
    for group, title, room, (column, down) in zip(shown, titles, rooms, places, strict=True):
        left, top = _MARGIN + column * step[0], _MARGIN + _LINE + down
        pen.text((left, top), _fitting(pen, title, font, room * step[0] - _GAP), _INK, font)
        for place, row in enumerate(group.rows):
            corner = (left + place % across * step[0], top + _LINE + place // across * step[1])
            sheet.paste(_thumbnails.picture(stimuli.codes([row])[0], side_px).convert("RGB"), corner)
    return sheet


def _placed(sizes: list[int], rooms: list[int], across: int, step: int) -> tuple[list[tuple[int, int]], int]:
    """Give column and height of every group, beside each other where there is room, and the height below all."""
    places, column, top, below = [], 0, _SPACE, _SPACE
    for size, room in zip(sizes, rooms, strict=True):
        if column and column + room > across:
            column, top = 0, below
        places.append((column, top))
        below = max(below, top + _LINE + -(-size // across) * step + _SPACE)
        column += room
    return places, below


def _fitting(pen: ImageDraw.ImageDraw, text: str, font: Any, room: int) -> str:
    """Cut a text to the room that there is for it."""
    line = " ".join(text.split())[:200]
    if pen.textlength(line, font=font) <= room:
        return line
    while line and pen.textlength(line + "...", font=font) > room:
        line = line[:-1]
    return line + "..."


def _title(stimuli: StimulusSet, count: int) -> str:
    shown = "" if count == len(stimuli) else f", {count:,} of them shown"
    height, width = stimuli.size_px
    return f"{stimuli.name}: {len(stimuli):,} stimuli{shown}, {width} x {height} px, {stimuli.size_deg:g} deg"


def save_contact_sheet(
    stimuli: StimulusSet, path: str | os.PathLike[str], *, columns: int | None = None, side_px: int = 112
) -> Path:
    """
    Write `contact_sheet` as a PNG file, whole or not at all.

    Parameters
    ----------
    stimuli : StimulusSet
        What to show.
    path : path
        File to write.
    columns : int, optional
        Pictures in a row.
    side_px : int
        Longer side of a picture in pixels.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If a number is out of range or an image cannot be read.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from stimuli import StimulusSet
    >>> with tempfile.TemporaryDirectory() as place:
    ...     save_contact_sheet(StimulusSet.from_arrays(np.zeros((1, 1, 8, 8))), f"{place}/sheet.png").name
    'sheet.png'
    """
    buffer = io.BytesIO()
    contact_sheet(stimuli, columns=columns, side_px=side_px).save(buffer, format="PNG")
    return atomic_write(path, buffer.getvalue())
