"""Line figures: bars, crosses, stars, angles, arcs and circles."""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, Self

import numpy as np

from stimuli.gratings import rotated
from stimuli.pattern import PLACE, Pattern, Plane, within
from stimuli.ranges import LENGTH, Choice, Range

Segment = tuple[tuple[float, float], tuple[float, float]]


def _rays(count: int) -> tuple[Segment, ...]:
    turns = (2.0 * math.pi * k / count for k in range(count))
    return tuple(((0.0, 0.0), (math.cos(turn), math.sin(turn))) for turn in turns)


def _angle(opening_deg: float) -> tuple[Segment, ...]:
    # inscribed: vertex and ends on the unit circle, so that an arm makes half of the opening with the axis
    end = math.radians(opening_deg)
    return tuple(((-1.0, 0.0), (math.cos(end), side * math.sin(end))) for side in (1.0, -1.0))


#: Straight parts of each figure inside the unit circle; the axis of the figure is x.
_SEGMENTS: Mapping[str, tuple[Segment, ...]] = MappingProxyType(
    {
        "bar": _rays(2),
        "tristar": _rays(3),
        "cross": _rays(4),
        "star": _rays(8),
        "acute_angle": _angle(45.0),
        "right_angle": _angle(90.0),
        "obtuse_angle": _angle(135.0),
    }
)
#: Arcs of the unit circle about the x axis: degrees that they span.
_ARCS: Mapping[str, float] = MappingProxyType(
    {"quarter_arc": 90.0, "half_arc": 180.0, "three_quarter_arc": 270.0, "circle": 360.0}
)
FIGURES = (*_SEGMENTS, *_ARCS)
#: Degrees of turn after which a figure looks the same; the others need a whole turn.
_SYMMETRY: Mapping[str, float] = MappingProxyType(
    {"bar": 180.0, "tristar": 120.0, "cross": 90.0, "star": 45.0, "circle": math.inf}
)


@dataclass(frozen=True, kw_only=True)
class Stroke(Pattern):
    """
    A figure of lines of even width with round ends: 1 on the lines, 0 elsewhere.

    The kinds of figure are those of Hegdé & Van Essen (2000, Journal of Neuroscience 20; 2007, Cerebral Cortex
    17, 1100): bar, tristar, cross, star, acute_angle (45 deg), right_angle, obtuse_angle (135 deg), quarter_arc,
    half_arc, three_quarter_arc and circle. Sizes and proportions are ours. Rays run from the middle to a circle, the
    vertex and the ends of an angle lie on it, and an arc is a part of it.

    Parameters
    ----------
    contrast : float
        1 gives white lines on gray, -1 black ones.
    x_deg, y_deg : float
        Middle of the circle.
    seed : int, optional
        Seed of the sampler, for the table.
    figure : str
        Which figure.
    radius_deg : float
        Radius of the circle in degrees, to the middle of the line.
    width_deg : float
        Width of the lines in degrees.
    orientation_deg : float
        Direction in degrees, counterclockwise from the x axis, in which a bar lies, an angle opens, the first ray of a
        star points, or the middle of an arc stands.

    Examples
    --------
    >>> bar = Stroke(figure="bar", radius_deg=2.0, width_deg=0.5, orientation_deg=90.0)
    >>> bar.signal(np.array([0.0, 0.2, 0.3]), np.array([1.9, -1.0, 0.0])).tolist()
    [1.0, 1.0, 0.0]
    """

    family: ClassVar[str] = "stroke"
    ranges: ClassVar[Mapping[str, Range | Choice]] = {
        "figure": Choice(FIGURES, legal=FIGURES),
        "radius_deg": Range("log", 0.75, 2.5, legal=LENGTH),
        "width_deg": Range("log", 0.15, 0.4, legal=LENGTH),
        "orientation_deg": Range("uniform", 0.0, 360.0),
        **PLACE,
    }
    supersample: ClassVar[int] = 8

    figure: str = "bar"
    radius_deg: float = 1.5
    width_deg: float = 0.25
    orientation_deg: float = 0.0

    def fitted(self, size_px: int, size_deg: float) -> Self:
        """
        Return the figure if the image holds it whole and its lines are a pixel wide.

        Parameters
        ----------
        size_px : int
            Width and height of the image in pixels.
        size_deg : float
            Width and height of the image in degrees.

        Returns
        -------
        Stroke
            This figure.

        Raises
        ------
        ValueError
            If its circle leaves the image or its lines are thinner than a pixel.
        """
        if self.width_deg < size_deg / size_px:
            raise ValueError(
                f"width_deg of a {self.family} is {self.width_deg:g} and a pixel is {size_deg / size_px:.3g} deg wide: "
                "give wider lines or more pixels."
            )
        self.refuse_beyond(
            max(abs(self.x_deg), abs(self.y_deg)) + self.radius_deg + self.width_deg / 2, size_px, size_deg
        )
        return super().fitted(size_px, size_deg)

    def _look(self) -> Hashable:
        """Give the figure at the first of its equal orientations, as a cross has after every quarter turn."""
        symmetry = _SYMMETRY.get(self.figure, 360.0)
        turn = 0.0 if math.isinf(symmetry) else within(self.orientation_deg, symmetry)
        return replace(self, seed=None, orientation_deg=turn)

    def signal(self, x: Plane, y: Plane) -> Plane:
        """
        Give the modulation about the background.

        Parameters
        ----------
        x, y : array of float64
            Degrees to the right of and above the middle of the image; shapes that broadcast.

        Returns
        -------
        array of float64
            1 on the lines, 0 elsewhere.
        """
        u, v = rotated(*self._centered(x, y), self.orientation_deg)
        u, v = u / self.radius_deg, v / self.radius_deg
        if self.figure in _ARCS:
            squared = _from_arc(u, v, math.radians(_ARCS[self.figure]) / 2)
        else:
            squared = functools.reduce(np.minimum, (_from_segment(u, v, part) for part in _SEGMENTS[self.figure]))
        return (squared <= (0.5 * self.width_deg / self.radius_deg) ** 2).astype(np.float64)


def _from_segment(u: Plane, v: Plane, part: Segment) -> Plane:
    """Give the squared distance, which is faster than the distance."""
    (u0, v0), (u1, v1) = part
    along = ((u - u0) * (u1 - u0) + (v - v0) * (v1 - v0)) / ((u1 - u0) ** 2 + (v1 - v0) ** 2)
    near = np.clip(along, 0.0, 1.0)
    return (u - (u0 + near * (u1 - u0))) ** 2 + (v - (v0 + near * (v1 - v0))) ** 2


def _from_arc(u: Plane, v: Plane, half: float) -> Plane:
    on_circle = (np.sqrt(u**2 + v**2) - 1.0) ** 2
    from_end = (u - math.cos(half)) ** 2 + (np.abs(v) - math.sin(half)) ** 2
    return np.where(np.abs(np.arctan2(v, u)) <= half, on_circle, from_end)
