"""Closed shapes: smooth contours by curvature and angular position, and outlines from a user's file."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from stimuli.pattern import PLACE, Pattern, Plane
from stimuli.ranges import LENGTH, Choice, Range

Points = NDArray[np.float64]
STEPS = 24  # points of the polygon per segment of a spline
_WEIGHTS = np.array([[1.0, 4.0, 1.0, 0.0], [-3.0, 0.0, 3.0, 0.0], [3.0, -6.0, 3.0, 0.0], [-1.0, 3.0, -3.0, 1.0]]) / 6.0
_ROUND, _DENT = 0.65, 0.25  # control radius of the body between convexities; their tips have 1
_SHOULDER = {"broad": 0.9, "sharp": 0.5}  # control radius half a step beside a tip
POSITIONS_DEG = tuple(range(0, 360, 45))


def closed_spline(control: Points, steps: int = STEPS, derivative: int = 0) -> Points:
    """
    Give points on the closed uniform cubic B-spline of control points.

    A segment is ``sum_k w_k(t) P_k`` with ``w = ((1-t)^3, 3t^3-6t^2+4, -3t^3+3t^2+3t+1, t^3) / 6``.

    Parameters
    ----------
    control : array, shape (n, 2)
        The control points, at least 3. The curve smooths them: it passes inside of the tips.
    steps : int
        Points per segment.
    derivative : int
        0 for points, 1 or 2 for derivatives with respect to t.

    Returns
    -------
    array, shape (n * steps, 2)
        Points, or derivatives; the first lies near the first control point.

    Examples
    --------
    >>> square = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    >>> closed_spline(square, steps=1).round(3)[0].tolist()
    [0.667, 0.0]
    """
    t = np.arange(steps) / steps
    powers = np.zeros((steps, 4))
    for power in range(derivative, 4):
        powers[:, power] = math.perm(power, derivative) * t ** (power - derivative)
    around = np.stack([np.roll(control, shift, axis=0) for shift in (1, 0, -1, -2)], axis=1)
    return np.einsum("sk,nkd->nsd", powers @ _WEIGHTS, around).reshape(-1, 2)


def inside(outline: Points, x: Plane, y: Plane) -> NDArray[np.bool_]:
    """
    Say which places lie inside a polygon, by the even-odd rule.

    Parameters
    ----------
    outline : array, shape (n, 2)
        Corners in order; the last is joined to the first.
    x, y : array
        Places, shapes that broadcast. A row of x and a column of y are worked on row by row, which is fast.

    Returns
    -------
    array of bool
        True inside.

    Examples
    --------
    >>> inside(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.array([0.2, 0.9]), np.array([0.2, 0.9])).tolist()
    [True, False]
    """
    shape = np.broadcast_shapes(np.shape(x), np.shape(y))
    if np.ndim(x) == 2 and np.ndim(y) == 2 and np.shape(x)[0] == 1 and np.shape(y)[1] == 1:
        across, up = np.broadcast_to(x, shape), y[:, 0]
    else:
        across, up = np.broadcast_to(x, shape).reshape(-1, 1), np.broadcast_to(y, shape).ravel()
    odd = np.zeros(across.shape, dtype=bool)
    for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        rows = np.flatnonzero((y0 > up) != (y1 > up))
        crossing = x0 + (up[rows] - y0) * ((x1 - x0) / (y1 - y0)) if len(rows) else up[rows]
        odd[rows] ^= across[rows] < crossing[:, None]
    return odd.reshape(shape)


@dataclass(frozen=True, kw_only=True)
class ClosedShape(Pattern):
    """
    A filled shape: 1 inside its outline, 0 outside.

    Parameters
    ----------
    contrast : float
        1 gives a white shape on gray, -1 a black one.
    x_deg, y_deg : float
        Origin of the outline.
    seed : int, optional
        Seed of the sampler, for the table.
    radius_deg : float
        Distance of the farthest point of the outline from its origin in degrees.
    orientation_deg : float
        Turn of the outline in degrees, counterclockwise.
    """

    supersample: ClassVar[int] = 8

    radius_deg: float = 1.5
    orientation_deg: float = 0.0

    @abstractmethod
    def outline(self) -> Points:
        """
        Give the outline before it is scaled and turned.

        Returns
        -------
        array, shape (n, 2)
            Corners of a fine polygon; the farthest is at the distance 1 from the origin.
        """

    def placed(self) -> Points:
        """
        Give the outline in degrees, as it stands in the image.

        Returns
        -------
        array, shape (n, 2)
            Corners of a fine polygon, x to the right and y up.
        """
        return self.radius_deg * self._turned(self.outline()) + np.array([self.x_deg, self.y_deg])

    def _turned(self, points: Points) -> Points:
        t = math.radians(self.orientation_deg)
        return points @ np.array([[math.cos(t), math.sin(t)], [-math.sin(t), math.cos(t)]])

    def fitted(self, size_px: int, size_deg: float) -> Self:
        """
        Return the shape if the image holds it whole.

        Parameters
        ----------
        size_px : int
            Width and height of the image in pixels.
        size_deg : float
            Width and height of the image in degrees.

        Returns
        -------
        ClosedShape
            This shape.

        Raises
        ------
        ValueError
            If the outline leaves the image.
        """
        self.refuse_beyond(float(np.abs(self.placed()).max()), size_px, size_deg)
        return super().fitted(size_px, size_deg)

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
            1 inside, 0 outside.
        """
        return inside(self.placed(), x, y).astype(np.float64)

    def _look(self) -> Hashable:
        """Give the sides of the outline, wherever it begins: a symmetric shape has the same after a turn."""
        steps = np.round(self.placed() * (1e6 / math.pi)).astype(
            np.int64
        )  # no decimal or binary fraction is half a step
        corners = [tuple(corner) for corner in steps.tolist()]
        sides = zip(corners, [*corners[1:], *corners[:1]], strict=True)
        return frozenset(frozenset(side) for side in sides), self.contrast


def convexity_radii(tips: Sequence[str], *, dented: bool = False) -> tuple[float, ...]:
    """
    Turn curvatures at equal steps around a shape into control radii.

    Parameters
    ----------
    tips : sequence of {"sharp", "broad", ""}
        What stands at each step: a sharp or a broad convexity, or the body.
    dented : bool
        Whether the body between the convexities is concave rather than round.

    Returns
    -------
    tuple of float
        Two control radii per step: at the step and half a step after it.

    Raises
    ------
    ValueError
        If a tip is of another kind.

    Examples
    --------
    >>> convexity_radii(["sharp", "", "broad", ""])
    (1.0, 0.5, 0.65, 0.9, 1.0, 0.9, 0.65, 0.5)
    """
    wrong = [tip for tip in tips if tip not in ("sharp", "broad", "")]
    if wrong:
        raise ValueError(f"A tip is {wrong[0]!r}: give 'sharp', 'broad' or '' for the body.")
    body = _DENT if dented else _ROUND
    radii = []
    for tip, after in zip(tips, [*tips[1:], *tips[:1]], strict=True):
        beside = "broad" if "broad" in (tip, after) else tip or after
        radii += [1.0 if tip else body, _SHOULDER.get(beside, body)]
    return tuple(radii)


def _base_shapes() -> tuple[tuple[float, ...], ...]:
    """Give the disk and all shapes with 1 to 4 convexities at 45 deg steps, none beside another, once per rotation."""
    found = [convexity_radii([""] * 8)]
    for word in itertools.product(("", "broad", "sharp"), repeat=8):
        convex = [bool(tip) for tip in word]
        apart = not any(a and b for a, b in zip(convex, convex[1:] + convex[:1], strict=True))
        if any(convex) and apart and all(word >= word[k:] + word[:k] for k in range(1, 8)):
            found += [convexity_radii(word), convexity_radii(word, dented=True)]
    return tuple(found)


BASE_SHAPES = _base_shapes()


@dataclass(frozen=True, kw_only=True)
class ContourShape(ClosedShape):
    """
    A shape inside a closed cubic B-spline, given by control radii at equal angles.

    The ready-made radii (`BASE_SHAPES`) are a family of our own by curvature and angular position: sharp and broad
    convexities at multiples of 45 deg on a round or dented body. `grid("contour", radii=list(BASE_SHAPES),
    orientation_deg=list(POSITIONS_DEG))` lists all 513. The design follows Pasupathy & Connor (2001, Journal
    of Neurophysiology 86, 2505), the shapes do not: theirs are not reproduced here.

    Parameters
    ----------
    contrast : float
        1 gives a white shape on gray, -1 a black one.
    x_deg, y_deg : float
        Origin of the shape.
    seed : int, optional
        Seed of the sampler, for the table.
    radius_deg : float
        Distance of the farthest point of the contour from its origin in degrees.
    orientation_deg : float
        Turn of the shape in degrees, counterclockwise.
    radii : tuple of float
        Control radii (3 to 360, each from 0.001 to 1000; only their ratios count), the first on the x axis,
        counterclockwise.

    Examples
    --------
    >>> disk = ContourShape(radii=(1.0,) * 16, radius_deg=2.0)
    >>> disk.signal(np.array([1.9, 2.1]), np.array([0.0, 0.0])).tolist()
    [1.0, 0.0]
    """

    family: ClassVar[str] = "contour"
    ranges: ClassVar[Mapping[str, Range | Choice]] = {
        "radii": Choice(BASE_SHAPES),
        "radius_deg": Range("log", 0.75, 2.5, legal=LENGTH),
        "orientation_deg": Choice(tuple(map(float, POSITIONS_DEG))),
        **PLACE,
    }

    radii: tuple[float, ...] = BASE_SHAPES[-1]

    def __post_init__(self) -> None:
        """Check every parameter and store plain numbers."""
        super().__post_init__()
        turn = Range("uniform", 0.0, 0.0).check(f"orientation_deg of a {self.family} shape", self.orientation_deg)
        object.__setattr__(self, "orientation_deg", turn)
        if not isinstance(self.radii, (tuple, list, np.ndarray)) or not 3 <= len(self.radii) <= 360:
            raise ValueError(f"radii of a {self.family} shape are {self.radii!r}: give 3 to 360 positive numbers.")
        positive = Range("log", 1.0, 1.0, legal=LENGTH)
        label = f"A radius of a {self.family} shape"
        object.__setattr__(self, "radii", tuple(float(positive.check(label, radius)) for radius in self.radii))

    def control_points(self) -> Points:
        """
        Give the control points before they are scaled and turned.

        Returns
        -------
        array, shape (n, 2)
            The control radii at their angles.
        """
        angles = np.arange(len(self.radii)) * (2.0 * math.pi / len(self.radii))
        return np.array(self.radii)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)

    def outline(self) -> Points:
        """
        Give the outline before it is scaled and turned.

        Returns
        -------
        array, shape (n, 2)
            Corners of a fine polygon; the farthest is at the distance 1 from the origin.
        """
        curve = closed_spline(self.control_points())
        return curve / np.hypot(*curve.T).max()

    def curvature_per_deg(self) -> dict[int, float]:
        """
        Measure the curvature of the contour at multiples of 45 deg round its origin.

        Returns
        -------
        dict of int to float
            Signed curvature in 1/deg by angular position in degrees as the shape stands in the image; positive is
            convex, and a disk has 1 / radius_deg. NaN where a contour does not enclose its origin.

        Examples
        --------
        >>> round(ContourShape(radii=(1.0,) * 64, radius_deg=2.0).curvature_per_deg()[90], 2)
        0.5
        """
        control = self.control_points()
        place, first, second = (closed_spline(control, derivative=k) for k in range(3))
        scale = self.radius_deg / np.hypot(*place.T).max()
        turning = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
        curvature = turning / np.hypot(*first.T) ** 3 / scale
        distance = np.hypot(*place.T)
        angle = np.degrees(np.arctan2(place[:, 1], place[:, 0])) + self.orientation_deg
        found = {}
        for position in POSITIONS_DEG:
            off = (angle - position + 180.0) % 360.0 - 180.0
            after = np.roll(off, -1)
            crossings = np.flatnonzero((np.minimum(off, after) <= 0) & (np.maximum(off, after) > 0) & (abs(off) < 90))
            if not len(crossings):
                found[position] = math.nan
                continue
            k = crossings[np.argmax(distance[crossings])]  # the outermost, where the contour passes several times
            part = off[k] / (off[k] - after[k])
            found[position] = float((1 - part) * curvature[k] + part * curvature[(k + 1) % len(curvature)])
        return found

    def columns(self) -> dict[str, Any]:
        """
        Give the row of the stimulus table: the parameters and the measured curvatures.

        Returns
        -------
        dict
            The radii as text, and one column curvature_at_000_per_deg, curvature_at_045_per_deg and so on.
        """
        measured = {f"curvature_at_{k:03d}_per_deg": v for k, v in self.curvature_per_deg().items()}
        return super().columns() | {"radii": " ".join(f"{radius:g}" for radius in self.radii)} | measured
