"""Objects on unrelated backgrounds, at little, more or much variation of place, size and turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stimuli._checks import check_size_deg
from stimuli._drawn import drawn_set
from stimuli._warp import warp
from stimuli.appearance import quantize, to_float
from stimuli.cutouts import Cutout, sample_cutouts
from stimuli.display import Display
from stimuli.hints import did_you_mean
from stimuli.photos import natural_photos
from stimuli.provenance import provenance_record
from stimuli.ranges import checked_seed, whole
from stimuli.raster import raster_px
from stimuli.stimulus_set import StimulusSet

_LUMA = np.array([0.299, 0.587, 0.114])[:, None, None]  # ITU-R BT.601, as for photographs
_POOL = 160  # photographs that backgrounds are taken from when none are given


@dataclass(frozen=True)
class Variation:
    """
    How much the view of an object varies.

    Parameters
    ----------
    shift : float
        Largest displacement of its middle from the middle of the image, to each side, in widths of the image.
    zoom : float
        Largest factor by which it is larger or smaller than `size`; 1 is always the same size.
    turn_deg : float
        Largest turn in the plane of the image, to each side.
    size : float
        Usual length of its longer side in widths of the image.

    Raises
    ------
    ValueError
        If a number is out of its range.

    Examples
    --------
    >>> VARIATIONS["low"]
    Variation(shift=0.0, zoom=1.0, turn_deg=0.0, size=0.5)
    """

    shift: float = 0.0
    zoom: float = 1.0
    turn_deg: float = 0.0
    size: float = 0.5

    def __post_init__(self) -> None:
        """Check the numbers."""
        ranges = {"shift": (0, 0.5), "zoom": (1, 4), "turn_deg": (0, 180), "size": (0.05, 1)}
        for field in fields(self):
            value, (low, high) = getattr(self, field.name), ranges[field.name]
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise ValueError(f"Variation.{field.name} is {value!r}: give a number from {low} to {high}.")


#: Levels in the manner of the sets of Majaj et al. 2015, whose objects were rendered in depth; the ranges are our own.
VARIATIONS: dict[str, Variation] = {
    "low": Variation(),
    "medium": Variation(shift=0.12, zoom=1.3, turn_deg=30.0),
    "high": Variation(shift=0.25, zoom=1.7, turn_deg=90.0),
}


def scenes(
    n: int,
    *,
    cutouts: Sequence[Cutout] | None = None,
    backgrounds: StimulusSet | Literal["photographs", "gray"] = "photographs",
    variation: str | Variation = "medium",
    seed: int = 0,
    size_px: int | None = None,
    size_deg: float = 8.0,
    channels: int = 1,
    display: Display | None = None,
    name: str = "scenes",
) -> StimulusSet:
    """
    Put objects on backgrounds that have nothing to do with them.

    Objects take turns; background and view are drawn at random, places and turns uniformly, sizes uniformly on a
    logarithmic scale. An object comes on every background once before it comes on one again. Scene k depends on the
    seed and k alone, and its object, background and direction of change are the same at every level of variation, so
    that levels compare like with like.

    Parameters
    ----------
    n : int
        Number of scenes.
    cutouts : sequence of Cutout, optional
        The objects, see `read_cutouts`; by default `sample_cutouts`.
    backgrounds : StimulusSet, "photographs" or "gray"
        Images to stand behind the objects; they then decide size, channels and screen. By default crops of the embedded
        photographs.
    variation : str or Variation
        "low" (always the same view), "medium", "high", or your own ranges.
    seed : int
        Seed of the drawing.
    size_px : int, optional
        Width and height in pixels; by default ``round(size_deg * display.ppd)``, or 128 without a display.
    size_deg : float
        Width on the screen in degrees.
    channels : int
        1 for gray (luma), 3 for RGB.
    display : Display, optional
        The screen that the set is made for.
    name : str
        Name of the set.

    Returns
    -------
    StimulusSet
        n images with the columns family, cutout, background (a stimulus id, or gray), variation, x_deg, y_deg,
        width_deg (longer side of the object), rotation_deg (counterclockwise) and seed, and the photograph of the
        background if it has one.

    Raises
    ------
    TypeError
        If cut-outs or backgrounds are of the wrong kind.
    ValueError
        If a number is out of range, a level is unknown, n is more than there are scenes at no variation, or two scenes
        are the same picture.

    Examples
    --------
    >>> made = scenes(2, cutouts=sample_cutouts(["cube", "mug"]), backgrounds="gray", variation="high", size_px=64)
    >>> made.table["cutout"].tolist(), made.shape
    (['cube', 'mug'], (1, 64, 64))
    """
    whole("n", n, 1)
    seed = checked_seed(seed)
    objects = _objects(cutouts)
    level, ranges = _variation(variation)
    gray = isinstance(backgrounds, str) and backgrounds == "gray"
    behind = _behind(backgrounds, size_px, size_deg, channels, display)
    if n > len(objects) * len(behind) and ranges == Variation(size=ranges.size):
        raise ValueError(
            f"{n} scenes are asked for, and without variation there are {len(objects) * len(behind)}, each object on "
            "each background: ask for fewer, vary the view, or give more of them."
        )
    orders = [np.random.default_rng([seed, j, 1]).permutation(len(behind)) for j in range(min(n, len(objects)))]
    images: list[NDArray[np.uint8]] = []
    rows: list[dict[str, Any]] = []
    for k in range(n):
        right, up, larger, turn = np.random.default_rng([seed, k]).uniform(-1, 1, 4)
        turns, which = divmod(k, len(objects))
        thing, place = objects[which], int(orders[which][turns % len(behind)])
        view = {
            "x_deg": right * ranges.shift * behind.size_deg,
            "y_deg": up * ranges.shift * behind.size_deg,
            "width_deg": ranges.size * math.exp(larger * math.log(ranges.zoom)) * behind.size_deg,
            "rotation_deg": turn * ranges.turn_deg,
        }
        view = {key: value + 0.0 for key, value in view.items()}  # no negative zeros in the table
        codes = composed(thing, behind.images([place])[0], behind.size_deg, **view)
        images.append(codes)
        told = {"cutout": thing.name, "background": "gray" if gray else behind.stimulus_ids[place], "variation": level}
        carried = {name: behind.table[name].iloc[place] for name in ("photograph",) if name in behind.table}
        rows.append({"family": "scene"} | told | view | {"seed": seed} | carried)
    config = {
        "n": n,
        "cutouts": [each.name for each in objects],
        "variation": asdict(ranges),
        "size_px": behind.size_px,
    }
    return drawn_set(
        images,
        rows,
        size_deg=behind.size_deg,
        display=behind.display,
        provenance=provenance_record(seed=seed, config=config | {"backgrounds": behind.provenance}),
        name=name,
    )


def composed(
    thing: Cutout,
    background: NDArray[np.float32],
    size_deg: float,
    *,
    x_deg: float = 0.0,
    y_deg: float = 0.0,
    width_deg: float = 4.0,
    rotation_deg: float = 0.0,
) -> NDArray[np.uint8]:
    """
    Put one object on one background, ``image = opacity * object + (1 - opacity) * background``.

    Parameters
    ----------
    thing : Cutout
        The object.
    background : array of float32, shape (c, h, w)
        What stands behind it, in [0, 1].
    size_deg : float
        Width of the background in degrees.
    x_deg, y_deg : float
        Place of the middle of the object, to the right of and above the middle of the image.
    width_deg : float
        Length of its longer side before it is turned.
    rotation_deg : float
        Its turn counterclockwise.

    Returns
    -------
    array of uint8, shape (c, h, w)
        The codes.

    Examples
    --------
    >>> white = Cutout("white", np.full((4, 4, 4), 255, np.uint8))
    >>> composed(white, np.zeros((1, 8, 8), np.float32), 8.0, width_deg=4.0, x_deg=2.0)[0, 4].tolist()
    [0, 0, 0, 0, 255, 255, 255, 255]
    """
    channels, height, width = background.shape
    pixels = to_float(thing.codes).astype(np.float64).transpose(2, 0, 1)
    color = pixels[:3] if channels == 3 else (_LUMA * pixels[:3]).sum(axis=0, keepdims=True)
    layers = np.concatenate([color * pixels[3:], pixels[3:]])
    ppd = width / size_deg
    layers = warp(
        layers,
        (height, width),
        right_px=x_deg * ppd,
        up_px=y_deg * ppd,
        rotation_deg=rotation_deg,
        scale=width_deg * ppd / max(thing.codes.shape[:2]),
        outside="empty",
        order=1,  # a cubic would ring round sharp outlines
    )
    opacity = np.clip(layers[-1:], 0.0, 1.0)
    image = np.clip(layers[:-1], 0.0, opacity) + (1.0 - opacity) * background
    codes: NDArray[np.uint8] = quantize(image[None])[0][0]
    return codes


def _objects(cutouts: Sequence[Cutout] | None) -> list[Cutout]:
    objects = sample_cutouts() if cutouts is None else list(cutouts)
    wrong = [each for each in objects if not isinstance(each, Cutout)]
    if wrong or not objects:
        came = f"a {type(wrong[0]).__name__}" if wrong else "none"
        raise TypeError(f"cutouts hold {came}: give a list of Cutout, such as read_cutouts returns.")
    return objects


def _variation(given: str | Variation) -> tuple[str, Variation]:
    if isinstance(given, Variation):
        return next((level for level, ranges in VARIATIONS.items() if ranges == given), "own"), given
    if given not in VARIATIONS:
        hint = did_you_mean(str(given), VARIATIONS)
        raise ValueError(f"variation is {given!r}: {hint}Give {', '.join(VARIATIONS)}, or a Variation.")
    return given, VARIATIONS[given]


def _behind(
    given: StimulusSet | str, size_px: int | None, size_deg: float, channels: int, display: Display | None
) -> StimulusSet:
    if isinstance(given, StimulusSet):
        return given
    pixels = raster_px(check_size_deg(size_deg), size_px, display)
    if given == "gray":
        return StimulusSet.from_arrays(
            np.full((1, channels, pixels, pixels), 0.5), size_deg=size_deg, display=display, name="gray"
        )
    if given != "photographs":
        raise TypeError(f"backgrounds is {given!r}: give a StimulusSet, 'photographs' or 'gray'.")
    photos = natural_photos(_POOL, pixels, channels=channels)
    return StimulusSet.from_arrays(
        photos.codes(),
        {"stimulus_id": photos.stimulus_ids, "photograph": list(photos.table["photograph"])},
        size_deg=size_deg,
        display=display,
        provenance=photos.provenance,
        name="photographs",
    )
