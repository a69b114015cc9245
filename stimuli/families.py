"""Parametric families: sample or enumerate their parameters, and draw them as a stimulus set."""

from __future__ import annotations

import itertools
import warnings
import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stimuli._checks import check_size_deg
from stimuli._drawn import drawn_set
from stimuli.apertures import Aperture
from stimuli.appearance import quantize
from stimuli.display import Display
from stimuli.gratings import Gabor, Grating
from stimuli.hints import did_you_mean
from stimuli.pattern import Pattern, Plane
from stimuli.polar import Concentric, Hyperbolic, LogPolar, Radial, Spiral
from stimuli.provenance import provenance_record
from stimuli.ranges import Choice, checked_seed, wanted_values, whole
from stimuli.raster import GRAY, raster_px, rendered
from stimuli.shapes import ContourShape
from stimuli.stimulus_set import StimulusSet
from stimuli.strokes import Stroke

_HALF_CODE = 1.0 / 255.0  # in contrast, of which 2 are the 255 codes
_FAINT = 0.01

#: Every parametric family by its name.
FAMILIES: dict[str, type[Pattern]] = {
    kind.family: kind
    for kind in (Grating, Gabor, Concentric, Radial, Spiral, LogPolar, Hyperbolic, Stroke, ContourShape)
}


def family_named(kind: str | type[Pattern]) -> type[Pattern]:
    """
    Return the class of a family.

    Parameters
    ----------
    kind : str or type
        Name of a family, or a class derived from `Pattern`.

    Returns
    -------
    type
        The class.

    Raises
    ------
    ValueError
        If there is no family of that name.

    Examples
    --------
    >>> family_named("gabor").__name__
    'Gabor'
    """
    if isinstance(kind, type) and issubclass(kind, Pattern):
        return kind
    found = FAMILIES.get(kind) if isinstance(kind, str) else None
    if found is None:
        hint = did_you_mean(str(kind), FAMILIES)
        raise ValueError(f"There is no family {kind!r}: {hint}The families are {', '.join(FAMILIES)}.")
    return found


def sample(kind: str | type[Pattern], n: int, *, seed: int = 0, **parameters: Any) -> list[Pattern]:
    """
    Draw the parameters of n patterns at random.

    A longer sample begins with the shorter one, and fixing a parameter leaves the others as they were. No pattern comes
    twice.

    Parameters
    ----------
    kind : str or type
        Name of a family (see `FAMILIES`) or its class.
    n : int
        Number of patterns.
    seed : int
        Seed of the drawing.
    **parameters : number, tuple or list
        Per parameter a fixed value, the ends ``(low, high)`` of a range drawn by the law of the family, or a list of
        values of which one is drawn; the others follow the ranges of the family.

    Returns
    -------
    list of Pattern
        The patterns.

    Raises
    ------
    TypeError
        If a value is of the wrong kind.
    ValueError
        If a family or parameter is unknown, a value is out of range, or there are not so many different patterns.

    Examples
    --------
    >>> pair = sample("gabor", 2, seed=1, frequency_cpd=(1.0, 2.0), phase_deg=[0.0, 90.0], aspect=1.0)
    >>> pair[0].aspect, pair[0].phase_deg in (0.0, 90.0), 1.0 <= pair[1].frequency_cpd <= 2.0
    (1.0, True, True)
    """
    family = family_named(kind)
    whole("n", n, 1)
    seed = checked_seed(seed)
    _check_names(family, parameters)
    laws = dict(family.ranges)
    for name, given in parameters.items():
        laws[name] = _law(family, name, given)
    drawn: dict[Hashable, Pattern] = {}
    for k in range(100 * n + 1000):
        rng = np.random.default_rng([seed, k, zlib.crc32(family.family.encode())])
        quantiles = rng.random(len(laws))  # one each, so that none moves another
        values = {name: law.at(float(u)) for (name, law), u in zip(laws.items(), quantiles, strict=True)}
        pattern = family(**values, seed=seed)
        drawn.setdefault(pattern.key(), pattern)
        if len(drawn) == n:
            return list(drawn.values())
    raise ValueError(
        f"Only {len(drawn)} of {n} patterns of the family {family.family} could be drawn that differ: ask for fewer, "
        "give ranges rather than fixed values, or list them all with grid."
    )


def _law(family: type[Pattern], name: str, given: Any) -> Any:
    law = family.ranges.get(name)
    of_tuples = isinstance(law, Choice) and any(isinstance(value, tuple) for value in law.values)
    if not isinstance(given, tuple) or of_tuples:
        values = wanted_values(given)
        if not values:
            raise ValueError(f"{name} of the family {family.family} is an empty list: give at least one value.")
        return Choice(values)
    label = f"{name} of the family {family.family}"
    if law is None or len(given) != 2:
        raise ValueError(f"{label} is {given!r}: give one value, a list of values, or the two ends of a range.")
    return law.between(label, *given)


def grid(kind: str | type[Pattern], **parameters: Any) -> list[Pattern]:
    """
    Give every combination of lists of parameters, the last one varying fastest, each look once.

    A symmetric shape looks the same at several orientations, and a grating at 180 deg as at 0 with its phase turned
    round: the first that is listed stands for all.

    Parameters
    ----------
    kind : str or type
        Name of a family (see `FAMILIES`) or its class.
    **parameters : list or number
        Per parameter the values to combine, or one value; the others take the defaults of the family.

    Returns
    -------
    list of Pattern
        The patterns.

    Raises
    ------
    TypeError
        If a value is of the wrong kind.
    ValueError
        If a family or parameter is unknown, a list is empty, or a value is out of range.

    Examples
    --------
    >>> [g.orientation_deg for g in grid("grating", frequency_cpd=2.0, orientation_deg=[0, 45, 90])]
    [0.0, 45.0, 90.0]
    """
    family = family_named(kind)
    _check_names(family, parameters)
    lists = {name: wanted_values(given) for name, given in parameters.items()}
    for name, values in lists.items():
        if not values:
            raise ValueError(f"{name} of the family {family.family} is an empty list: give at least one value.")
    found: dict[Hashable, Pattern] = {}
    for values in itertools.product(*lists.values()):
        pattern = family(**dict(zip(lists, values, strict=True)))
        found.setdefault(pattern.key(), pattern)
    return list(found.values())


def _check_names(family: type[Pattern], parameters: Mapping[str, Any]) -> None:
    known = [field.name for field in fields(family) if field.name != "seed"]
    for name in parameters:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ValueError(f"The family {family.family} has no parameter {name!r}: {hint}It has {', '.join(known)}.")


def draw(
    patterns: Sequence[Pattern],
    *,
    size_deg: float = 8.0,
    size_px: int | None = None,
    display: Display | None = None,
    aperture: Aperture | None = None,
    channels: int = 1,
    supersample: int | None = None,
    name: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> StimulusSet:
    """
    Draw patterns as a stimulus set, ``image = 0.5 + 0.5 * contrast * aperture * signal``.

    The parameters of every pattern are columns of the table. What differs from the background by less than half a
    code is the background, code 128. The id of a stimulus is its family and a hash of its pixels, so the same picture
    has the same id in every set. One image at a time is worked on.

    Parameters
    ----------
    patterns : sequence of Pattern
        What to draw, of one family or of several.
    size_deg : float
        Width of the square images in degrees.
    size_px : int, optional
        Width and height in pixels; by default ``round(size_deg * display.ppd)``, or 128 without a display.
    display : Display, optional
        The screen that the set is made for.
    aperture : Aperture, optional
        Fade the patterns into the background outside this disk.
    channels : int
        1 for gray, 3 for RGB with equal channels.
    supersample : int, optional
        Average so many times so many samples per pixel; by default as the family needs it.
    name : str, optional
        Name of the set; by default the families joined by ``+``.
    provenance : mapping, optional
        Record of the origin; by default software, seed and configuration.
    progress : callable, optional
        Takes how many images are drawn, and of how many.

    Returns
    -------
    StimulusSet
        The set, held in memory.

    Raises
    ------
    TypeError
        If something is not a pattern or not a number.
    ValueError
        If nothing is given, a pattern is finer than the pixels or does not fit into the image, is not visible, or two
        pictures are the same.

    Warns
    -----
    UserWarning
        If the size in pixels is not the size in degrees on this display, so that a rig would resample, if a Gabor
        patch is cut off by the edge of the image, or if a contrast is below 0.01, which is about one code up and down.

    Examples
    --------
    >>> bars = draw(grid("grating", frequency_cpd=[1, 2], orientation_deg=[0, 90]), size_deg=4.0, size_px=64)
    >>> bars.shape, bars.table["frequency_cpd"].tolist()
    ((1, 64, 64), [1.0, 1.0, 2.0, 2.0])
    """
    given = list(patterns)
    wrong = [type(pattern).__name__ for pattern in given if not isinstance(pattern, Pattern)]
    if wrong:
        raise TypeError(f"draw got {wrong[0]} among the patterns: give patterns such as sample or grid return.")
    if not given:
        raise ValueError("draw got no patterns: give at least one, such as sample or grid return.")
    width_deg = check_size_deg(size_deg)
    pixels = raster_px(width_deg, size_px, display)
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels!r}: give 1 (gray) or 3 (RGB).")
    wholes = isinstance(supersample, (int, np.integer)) and not isinstance(supersample, bool)
    if supersample is not None and not (wholes and supersample in range(1, 33)):
        raise ValueError(f"supersample is {supersample!r}: give a whole number from 1 to 32.")
    mask = None if aperture is None else aperture.mask((pixels, pixels), width_deg)
    images, rows, cut = [], [], []
    for i, pattern in enumerate(given):
        fitted = pattern.fitted(pixels, width_deg)
        plane = rendered(fitted, pixels, width_deg, supersample or fitted.supersample)
        codes = _codes(plane if mask is None else plane * mask, fitted, i)
        border = np.concatenate([codes[0, [0, -1]], codes[0, :, [0, -1]]], axis=None).astype(int)
        if fitted.bounded and np.abs(border - 128).max() > 2:
            cut.append(i)
        images.append(np.repeat(codes, channels, axis=0))
        rows.append(fitted.columns() | ({} if aperture is None else aperture.columns()))
        if progress is not None:
            progress(i + 1, len(given))
    if cut:
        warnings.warn(
            f"{len(cut)} of {len(given)} patterns are cut off by the edge of the image, the first is {given[cut[0]]}: "
            "make them smaller, move them, fade them with an aperture, or give more size_deg.",
            UserWarning,
            stacklevel=2,
        )
    faint = [pattern for pattern in given if 0.0 < abs(pattern.contrast) < _FAINT]
    if faint:
        warnings.warn(
            f"{len(faint)} of {len(given)} patterns have a contrast below {_FAINT}, the first is {faint[0]}: rounded "
            "to 8 bits it has another contrast than that; raise it.",
            UserWarning,
            stacklevel=2,
        )
    families = list(dict.fromkeys(pattern.family for pattern in given))
    if provenance is None:
        seeds = {pattern.seed for pattern in given}
        config = {"families": families, "n": len(given), "size_deg": width_deg, "size_px": pixels}
        config |= {"channels": channels, "supersample": supersample, "aperture": aperture}
        provenance = provenance_record(seed=seeds.pop() if len(seeds) == 1 else None, config=config)
    return drawn_set(
        images,
        rows,
        size_deg=width_deg,
        display=display,
        provenance=provenance,
        name="+".join(families) if name is None else name,
    )


def _codes(plane: Plane, pattern: Pattern, row: int) -> NDArray[np.uint8]:
    # 0.5 lies where rounding turns from 127 to 128: a negative tail of any size would be seen as a step
    shown = np.where(np.abs(plane) < _HALF_CODE, 0.0, plane)
    codes = quantize((GRAY + GRAY * shown)[None, None])[0][0]
    if pattern.contrast and codes.min() == codes.max():
        raise ValueError(
            f"Pattern {row} is a uniform image in 8 bits, {pattern}: raise its contrast, move it into the image or "
            "make it finer."
        )
    return codes
