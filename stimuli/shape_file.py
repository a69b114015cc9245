"""Shapes from a user's file of coordinates."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from stimuli._table import check_ids
from stimuli.hints import did_you_mean
from stimuli.pattern import PLACE
from stimuli.ranges import LENGTH, MOST, Choice, Range
from stimuli.shapes import ClosedShape, Points, closed_spline

COLUMNS = ("shape", "x", "y")
MAX_BYTES = 20_000_000
MAX_POINTS = 2_000  # of one shape


@dataclass(frozen=True, kw_only=True)
class OutlineShape(ClosedShape):
    """
    A shape inside an outline of given points, as `read_shapes` returns it.

    Parameters
    ----------
    contrast : float
        1 gives a white shape on gray, -1 a black one.
    x_deg, y_deg : float
        Where the origin of the points stands.
    seed : int, optional
        Seed of the sampler, for the table.
    radius_deg : float
        Distance of the farthest point of the outline from the origin of the points, in degrees.
    orientation_deg : float
        Turn of the shape in degrees, counterclockwise.
    shape : str
        Name of the shape.
    points : tuple of pair of float
        Points in order round the shape, in any unit; x to the right, y up.
    spline : bool
        Whether the points are control points of a closed cubic B-spline, which smooths them, or corners of a polygon.

    Examples
    --------
    >>> corner = OutlineShape(shape="corner", points=((0, 0), (2, 0), (0, 2)), radius_deg=1.0)
    >>> corner.signal(np.array([0.4, 0.6]), np.array([0.4, 0.6])).tolist()
    [1.0, 0.0]
    """

    family: ClassVar[str] = "outline"
    ranges: ClassVar[Mapping[str, Range | Choice]] = {
        "radius_deg": Range("log", 0.75, 2.5, legal=LENGTH),
        "orientation_deg": Range("uniform", 0.0, 0.0),
        "spline": Choice((False,), legal=(False, True)),
        **PLACE,
    }

    shape: str = "triangle"
    points: tuple[tuple[float, float], ...] = ((1.0, 0.0), (-0.5, 0.75), (-0.5, -0.75))
    spline: bool = False

    def __post_init__(self) -> None:
        """Check every parameter and store plain numbers."""
        super().__post_init__()
        coordinate = Range("uniform", 0.0, 0.0)
        label = f"A coordinate of the shape {self.shape!r}"
        if not 3 <= len(self.points) <= MAX_POINTS or any(len(point) != 2 for point in self.points):
            raise ValueError(
                f"The shape {self.shape!r} has {len(self.points)} points: give 3 to {MAX_POINTS} points (x, y)."
            )
        pairs = tuple((float(coordinate.check(label, x)), float(coordinate.check(label, y))) for x, y in self.points)
        object.__setattr__(self, "points", pairs)
        corners = self._corners()
        turned = np.roll(corners, -1, axis=0)
        area = 0.5 * abs(float(np.sum(corners[:, 0] * turned[:, 1] - corners[:, 1] * turned[:, 0])))
        if area <= 1e-9 * float(np.abs(corners).max()) ** 2:
            raise ValueError(f"The shape {self.shape!r} encloses no area: give its points in order round the shape.")

    def _corners(self) -> Points:
        points = np.array(self.points)
        return closed_spline(points) if self.spline else points

    def outline(self) -> Points:
        """
        Give the outline before it is scaled and turned.

        Returns
        -------
        array, shape (n, 2)
            Corners; the farthest is at the distance 1 from the origin.
        """
        corners = self._corners()
        return corners / np.hypot(*corners.T).max()

    def columns(self) -> dict[str, Any]:
        """
        Give the row of the stimulus table: the parameters, and the number of points in place of the points.

        Returns
        -------
        dict
            The family, the name of the shape, and the parameters.
        """
        row = super().columns()
        return row | {"points": len(self.points)}


def read_shapes(
    path: str | os.PathLike[str], *, spline: bool = False, radius_deg: float | None = None, contrast: float = 1.0
) -> list[OutlineShape]:
    """
    Read shapes from a CSV file with the columns shape, x and y, one row per point in order round the shape.

    Parameters
    ----------
    path : path
        The file, UTF-8, at most 20 MB; other columns are left aside. x is to the right and y up, relative to where the
        origin of the shape is to stand.
    spline : bool
        Whether the points are control points of a closed cubic B-spline or corners of a polygon.
    radius_deg : float, optional
        Scale every shape so that its farthest point is at this distance; by default the coordinates are degrees.
    contrast : float
        1 gives white shapes on gray, -1 black ones.

    Returns
    -------
    list of OutlineShape
        The shapes in the order of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is too large, is not such a table, or a shape is not closed by its points.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     file = Path(place) / "shapes.csv"
    ...     _ = file.write_text("shape,x,y" + chr(10) + chr(10).join(["wedge,0,0", "wedge,2,0", "wedge,0,1"]))
    ...     shapes = read_shapes(file)
    >>> shapes[0].shape, shapes[0].radius_deg
    ('wedge', 2.0)
    """
    place = Path(path)
    if not place.is_file():
        raise FileNotFoundError(f"There is no file {place}: give a CSV file with the columns {', '.join(COLUMNS)}.")
    if place.stat().st_size > MAX_BYTES:
        raise ValueError(f"{place} is larger than {MAX_BYTES // 1_000_000} MB: give a file of shape outlines.")
    points: dict[str, list[tuple[float, float]]] = {}
    last = None
    for row, (name, x, y) in _rows(place):
        if name != last and name in points:
            raise ValueError(f"In {place}, row {row}, the shape {name!r} comes again: keep its rows together.")
        last = name
        points.setdefault(name, []).append((_number(place, row, "x", x), _number(place, row, "y", y)))
    if not points:
        raise ValueError(f"{place} holds no points: give one row per point below the header.")
    try:
        check_ids(list(points))
        shapes = []
        for name, given in points.items():
            shape = OutlineShape(shape=name, points=tuple(given), spline=spline, contrast=contrast)
            reach = float(np.hypot(*shape._corners().T).max()) if radius_deg is None else radius_deg
            shapes.append(
                OutlineShape(shape=name, points=tuple(given), spline=spline, contrast=contrast, radius_deg=reach)
            )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place} cannot be used: {str(error).replace('stimulus_id', 'The shape name')}") from None
    return shapes


def _rows(place: Path) -> Iterator[tuple[int, list[str]]]:
    """Give the number and the three cells of every row."""
    try:
        with place.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            for name in COLUMNS:
                if header.count(name) != 1:
                    hint = did_you_mean(name, header) if name not in header else ""
                    raise ValueError(
                        f"has {header.count(name)} columns {name!r}: {hint}expected the columns {', '.join(COLUMNS)}"
                    )
            at = [header.index(name) for name in COLUMNS]
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise ValueError(f"row {reader.line_num} has {len(row)} cells for {len(header)} columns")
                yield reader.line_num, [row[k].strip() for k in at]
    except UnicodeDecodeError:
        raise ValueError(f"{place} is not UTF-8 text: save it as CSV (UTF-8).") from None
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{place} cannot be read: {error}; give a CSV file with one row per point.") from None


def _number(place: Path, row: int, column: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not abs(value) <= MOST:
        shown = cell if len(cell) <= 40 else cell[:40] + "…"
        raise ValueError(f"In {place}, row {row}, {column} is {shown!r}: give a number of at most {MOST:g}.")
    return value
