"""Simple solid objects, shaded and cut out: signed distances, marched along parallel rays."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[Any]
Points = NDArray[Any]  # (n, 3): right, up, towards the viewer
Distance = Callable[[Points], Reals]

_HALF = 1.2  # of the side of the picture
_LIGHT = np.array([-0.5, 0.7, 0.55]) / np.linalg.norm([-0.5, 0.7, 0.55])


def _length(p: Points) -> Reals:
    return np.sqrt((p * p).sum(axis=1))


def _box(p: Points, middle: tuple[float, float, float], half: tuple[float, float, float]) -> Reals:
    q = np.abs(p - np.asarray(middle, p.dtype)) - np.asarray(half, p.dtype)
    return _length(np.maximum(q, 0.0)) + np.minimum(q.max(axis=1), 0.0)


def _tube(p: Points, radius: float, low: float, high: float) -> Reals:
    """Measure to a cylinder round the vertical axis."""
    q = np.stack([np.hypot(p[:, 0], p[:, 2]) - radius, np.abs(p[:, 1] - (low + high) / 2) - (high - low) / 2], axis=1)
    return _length(np.maximum(q, 0.0)) + np.minimum(q.max(axis=1), 0.0)


def _torus(p: Points, large: float, small: float) -> Reals:
    """Measure to a ring in the plane of right and up."""
    return np.hypot(np.hypot(p[:, 0], p[:, 1]) - large, p[:, 2]) - small


def _ball(p: Points) -> Reals:
    return _length(p) - 0.85


def _cube(p: Points) -> Reals:
    return _box(p, (0, 0, 0), (0.52, 0.52, 0.52)) - 0.06


def _ring(p: Points) -> Reals:
    return _torus(p, 0.68, 0.24)


def _cone(p: Points) -> Reals:
    slope = (np.hypot(p[:, 0], p[:, 2]) * 0.866 + (p[:, 1] - 0.85) * 0.5) * 0.95
    return np.maximum(slope, -p[:, 1] - 0.65)


def _jack(p: Points) -> Reals:
    return np.minimum.reduce([_length(p * (1 - w) + (p - np.clip(p, -0.8, 0.8)) * w) for w in np.eye(3)]) - 0.2


def _bottle(p: Points) -> Reals:
    body, neck = _tube(p, 0.36, -0.85, 0.2) - 0.05, _tube(p, 0.1, 0.1, 0.95) - 0.03
    h = np.clip(0.5 + 0.5 * (neck - body) / 0.25, 0.0, 1.0)
    return neck + (body - neck) * h - 0.25 * h * (1.0 - h)


def _mug(p: Points) -> Reals:
    wall = np.maximum(_tube(p, 0.55, -0.65, 0.65), -_tube(p, 0.46, -0.55, 0.9))
    handle = np.maximum(_torus(p - (0.55, 0.0, 0.0), 0.36, 0.09), 0.5 - p[:, 0])
    return np.minimum(wall, handle)


def _chair(p: Points) -> Reals:
    leg = _box(np.stack([np.abs(p[:, 0]), p[:, 1], np.abs(p[:, 2])], axis=1), (0.43, -0.52, 0.43), (0.07, 0.42, 0.07))
    back = _box(p, (0.0, 0.45, -0.43), (0.5, 0.5, 0.06))
    return np.minimum.reduce([leg, back, _box(p, (0, -0.05, 0), (0.5, 0.07, 0.5))])


#: distance, tilt of the top towards the viewer and turn about the vertical axis in degrees, color
_SOLIDS: dict[str, tuple[Distance, float, float, tuple[float, float, float]]] = {
    "ball": (_ball, 0, 0, (0.85, 0.45, 0.25)),
    "bottle": (_bottle, 14, 0, (0.35, 0.6, 0.45)),
    "chair": (_chair, 22, -35, (0.75, 0.55, 0.35)),
    "cone": (_cone, 18, 0, (0.9, 0.75, 0.3)),
    "cube": (_cube, 28, 38, (0.5, 0.6, 0.8)),
    "jack": (_jack, 24, 31, (0.7, 0.7, 0.72)),
    "mug": (_mug, 26, -24, (0.85, 0.85, 0.8)),
    "ring": (_ring, 52, 20, (0.8, 0.55, 0.6)),
}
NAMES = tuple(_SOLIDS)


@functools.cache
def solid(name: str, side_px: int = 192) -> NDArray[np.uint8]:
    """Render a solid as RGBA (h, w, 4), antialiased by four samples a pixel; the result is shared and read-only."""
    distance, tilt, turn, color = _SOLIDS[name]
    view = _turned(tilt, turn)
    n = 2 * side_px
    axis = ((np.arange(n) + 0.5) / n * 2 - 1) * _HALF
    points = np.stack([np.tile(axis, n), np.repeat(-axis, n), np.full(n * n, 1.8)], axis=1).astype(np.float32)
    going = np.arange(n * n)
    hit = np.zeros(n * n, dtype=bool)
    for _ in range(64):
        d = distance(points[going] @ view)
        points[going, 2] -= np.maximum(d, 1e-4)
        hit[going[d < 2e-3]] = True
        going = going[(d >= 2e-3) & (points[going, 2] > -1.8)]
        if not len(going):
            break
    shade = np.zeros((n * n, 4))
    shade[hit] = _shaded(distance, points[hit], view, np.array(color))
    shade[:, :3] *= shade[:, 3:]
    mean = shade.reshape(side_px, 2, side_px, 2, 4).mean(axis=(1, 3))
    np.divide(mean[..., :3], mean[..., 3:], out=mean[..., :3], where=mean[..., 3:] > 0)
    codes = np.floor(255 * np.clip(mean, 0, 1) + 0.5).astype(np.uint8)
    codes.flags.writeable = False
    return codes


def _shaded(distance: Distance, points: Points, view: Reals, color: Reals) -> Points:
    steps = np.float32(2e-3) * np.eye(3, dtype=np.float32)
    slope = [distance((points + step) @ view) - distance((points - step) @ view) for step in steps]
    normal = np.stack(slope, axis=1)
    normal /= np.maximum(_length(normal), 1e-9)[:, None]
    facing = np.clip(normal @ _LIGHT, 0, 1)
    half = _LIGHT + np.array([0.0, 0.0, 1.0])  # between the light and the viewer
    gloss = np.clip(normal @ (half / np.linalg.norm(half)), 0, 1) ** 30
    open_sky = np.clip(distance((points + 0.25 * normal) @ view) / 0.25, 0.3, 1)  # darker in corners
    light = (0.3 + 0.14 * normal[:, 1] + 0.65 * facing) * open_sky
    return np.concatenate([np.clip(light[:, None] * color + 0.35 * gloss[:, None], 0, 1), np.ones((len(points), 1))], 1)


def _turned(tilt_deg: float, turn_deg: float) -> Reals:
    """Return the matrix that takes rows of points as seen to points of the solid."""
    a, b = np.radians([tilt_deg, turn_deg])
    about_right = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_up = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    turned: Reals = (about_right @ about_up).astype(
        np.float32
    )  # orthogonal: as rows from the right this is the way back
    return turned
