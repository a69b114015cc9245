"""What synthesized images have to beat: the best images of a set, and changed copies of them.

Bashivan, Kar & DiCarlo (Science 2019) set affine-transformed, cropped and contrast-enhanced copies of the best natural
images beside their own (so recalled; the ranges here are ours). An image that beats such copies does not owe its gain
to place, size, turn or contrast alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from stimuli._contrast import rms_contrast
from stimuli._drawn import drawn_set
from stimuli._warp import warp
from stimuli.apertures import Aperture, apply_aperture
from stimuli.appearance import quantize, to_float
from stimuli.hints import did_you_mean
from stimuli.provenance import provenance_record, sha256_bytes
from stimuli.ranges import checked_seed, whole
from stimuli.raster import GRAY
from stimuli.stimulus_set import StimulusSet

_CARRIED = ("photograph", "target_site")  # true of a copy as of its source; splits by photograph need the first

#: from id and image of a source to the images of its copies, each with the columns that tell how it was made
Copies = Callable[[str, NDArray[np.float64]], Iterable[tuple[NDArray[np.float64], dict[str, Any]]]]


def best_stimuli(
    stimuli: StimulusSet,
    scores: pd.Series | Mapping[str, float] | ArrayLike,
    k: int = 1,
    *,
    target_site: str | None = None,
) -> StimulusSet:
    """
    Take the k stimuli with the largest scores, the best first.

    The largest of n noisy scores is too large by an amount that grows with n, so the number of stimuli that it was
    chosen from is a column of the result: choose on some repeats and measure on others.

    Parameters
    ----------
    stimuli : StimulusSet
        The images to choose from.
    scores : Series, mapping or array
        One number a stimulus, such as its recorded or predicted response: by stimulus id, or in the order of the set.
        What is not a number is never chosen.
    k : int
        How many.
    target_site : str, optional
        The site whose responses the scores are, for the table.

    Returns
    -------
    StimulusSet
        k stimuli with the columns score, rank (from 1) and chosen_from, and target_site if it is given.

    Raises
    ------
    TypeError
        If scores are not numbers.
    ValueError
        If scores are not for these stimuli, or fewer than k of them are numbers.

    Examples
    --------
    >>> noise = np.random.default_rng(0).random((3, 1, 4, 4))
    >>> three = StimulusSet.from_arrays(noise, {"stimulus_id": ["a", "b", "c"]})
    >>> best_stimuli(three, {"a": 1.0, "b": 3.0, "c": 2.0}, 2).stimulus_ids
    ['b', 'c']
    """
    whole("k", k, 1)
    values = _in_order(stimuli, scores)
    known = int(np.isfinite(values).sum())
    if known < k:
        raise ValueError(f"{k} stimuli are asked for and {known} of {len(values)} have a score: ask for fewer.")
    order = np.argsort(-np.where(np.isfinite(values), values, -np.inf), kind="stable")[:k]
    chosen = stimuli.select([int(i) for i in order])
    columns: dict[str, Any] = {"score": values[order], "rank": np.arange(1, k + 1), "chosen_from": known}
    return chosen.with_columns(**columns, **({} if target_site is None else {"target_site": target_site}))


def affine_copies(
    stimuli: StimulusSet,
    n: int = 5,
    *,
    shift_deg: float = 0.5,
    rotation_deg: float = 20.0,
    zoom: float = 1.25,
    seed: int = 0,
    outside: Literal["mirror", "gray"] = "mirror",
) -> StimulusSet:
    """
    Make n shifted, turned and scaled copies of every stimulus, by cubic splines and antialiased.

    A copy depends on the seed, its number and the id of its source alone. Where a copy is smaller than its source,
    what would be finer than the pixels is filtered out first.

    Parameters
    ----------
    stimuli : StimulusSet
        The sources, such as `best_stimuli` returns; uniform ones, such as the gray control, are left out.
    n : int
        Copies of each.
    shift_deg : float
        Largest shift to each side, to the right and up, drawn uniformly.
    rotation_deg : float
        Largest turn to each side, drawn uniformly; positive is counterclockwise.
    zoom : float
        Largest factor by which a copy is larger or smaller, drawn uniformly on a logarithmic scale.
    seed : int
        Seed of the drawing.
    outside : "mirror" or "gray"
        What shows where the source has ended: the source mirrored, or the code 128.

    Returns
    -------
    StimulusSet
        The copies with the columns x_deg, y_deg, rotation_deg, zoom, seed and those of `copied_set`; the family is
        affine_copy.

    Raises
    ------
    ValueError
        If a number is out of range, every source is uniform, or two copies are the same picture.

    Examples
    --------
    >>> noise = np.random.default_rng(0).random((2, 1, 16, 16))
    >>> pair = StimulusSet.from_arrays(noise, {"stimulus_id": ["a", "b"]})
    >>> affine_copies(pair, 2).table["source"].tolist()
    ['a', 'a', 'b', 'b']
    """
    whole("n", n, 1)
    seed = checked_seed(seed)
    for name, value, low, high in (
        ("shift_deg", shift_deg, 0, stimuli.size_deg),
        ("rotation_deg", rotation_deg, 0, 180),
        ("zoom", zoom, 1, 8),
    ):
        _number(name, value, low, high)
    if outside not in ("mirror", "gray"):
        raise ValueError(f"outside is {outside!r}: give 'mirror' or 'gray'.")
    ppd = stimuli.size_px[1] / stimuli.size_deg

    def copies(source: str, image: NDArray[np.float64]) -> Iterable[tuple[NDArray[np.float64], dict[str, Any]]]:
        for number in range(n):
            rng = np.random.default_rng([seed, number, int(sha256_bytes(source.encode())[:12], 16)])
            right, up, turn, larger = rng.uniform(-1.0, 1.0, 4)
            told = {"x_deg": right * shift_deg, "y_deg": up * shift_deg, "rotation_deg": turn * rotation_deg}
            told["zoom"] = math.exp(larger * math.log(zoom))
            move: dict[str, Any] = {
                "right_px": told["x_deg"] * ppd,
                "up_px": told["y_deg"] * ppd,
                "rotation_deg": told["rotation_deg"],
                "scale": told["zoom"],
            }
            moved = warp(image, stimuli.size_px, **move)
            if outside == "gray":  # faded by how much of a pixel the source covers: a spline would ring at its border
                cover = warp(np.ones((1, *stimuli.size_px)), stimuli.size_px, **move, outside="empty", order=1)
                moved = GRAY + np.clip(cover, 0.0, 1.0) * (moved - GRAY)
            yield moved, told | {"seed": seed}

    config = {"n": n, "shift_deg": shift_deg, "rotation_deg": rotation_deg, "zoom": zoom, "outside": outside}
    return copied_set(stimuli, "affine_copy", copies, config, seed)


def contrast_copies(
    stimuli: StimulusSet, *, gains: Sequence[float] = (), rms_contrasts: Sequence[float] = ()
) -> StimulusSet:
    """
    Make copies of every stimulus with another contrast, ``mean + gain * (image - mean)`` for each channel.

    Parameters
    ----------
    stimuli : StimulusSet
        The sources, such as `best_stimuli` returns; uniform ones, such as the gray control, are left out.
    gains : sequence of float
        Factors of contrast, from 0.01 to 100, one copy each; 1.5 and 2 if neither argument is given.
    rms_contrasts : sequence of float
        RMS contrasts to reach before clipping, one copy each: the standard deviation over pixels and channels in units
        of [0, 1]. Give that of the synthesized images to compare with copies of equal contrast.

    Returns
    -------
    StimulusSet
        The copies with the columns gain and those of `copied_set`; the family is contrast_copy.

    Raises
    ------
    TypeError
        If gains or contrasts are not a list of numbers.
    ValueError
        If a number is out of range, every source is uniform, one has such a cast of color that its channel means alone
        have more than an RMS contrast asked, or two copies are the same picture.

    Examples
    --------
    >>> noise = np.random.default_rng(0).uniform(0.4, 0.6, (1, 1, 32, 32))
    >>> copy = contrast_copies(StimulusSet.from_arrays(noise), rms_contrasts=[0.1])
    >>> round(float(copy.table["rms_contrast"][0]), 3)
    0.1
    """
    factors, contrasts = _numbers("gains", gains, 0.01, 100), _numbers("rms_contrasts", rms_contrasts, 0.004, 0.5)
    factors = factors if factors or contrasts else [1.5, 2.0]

    def copies(source: str, image: NDArray[np.float64]) -> Iterable[tuple[NDArray[np.float64], dict[str, Any]]]:
        mean = image.mean(axis=(1, 2), keepdims=True)
        for gain in (*factors, *(_gain_for(rms, image - mean, mean, source) for rms in contrasts)):
            yield mean + gain * (image - mean), {"gain": float(gain)}

    config = {"gains": factors, "rms_contrasts": contrasts}
    return copied_set(stimuli, "contrast_copy", copies, config)


def cropped_copies(stimuli: StimulusSet, aperture: Aperture) -> StimulusSet:
    """
    Make a copy of every stimulus that shows it through an aperture, such as a receptive field, on gray.

    Parameters
    ----------
    stimuli : StimulusSet
        The sources, such as `best_stimuli` returns; uniform ones, such as the gray control, are left out.
    aperture : Aperture
        The window in degrees.

    Returns
    -------
    StimulusSet
        The copies with the columns of the aperture and those of `copied_set`; the family is cropped_copy.

    Raises
    ------
    ValueError
        If the aperture is closed at every pixel, every source is uniform, or two copies are the same picture.

    Examples
    --------
    >>> edge = StimulusSet.from_arrays(np.repeat([[[[1.0], [0.0]]]], 4, axis=3), size_deg=4.0)
    >>> cropped_copies(edge, Aperture(1.0)).codes()[0, 0].tolist()
    [[128, 255, 255, 128], [128, 0, 0, 128]]
    """

    def copies(source: str, image: NDArray[np.float64]) -> Iterable[tuple[NDArray[np.float64], dict[str, Any]]]:  # noqa: ARG001
        yield apply_aperture(image, aperture, GRAY, size_deg=stimuli.size_deg), dict(aperture.columns())

    return copied_set(stimuli, "cropped_copy", copies, {"aperture": aperture.columns()})


def copied_set(
    stimuli: StimulusSet, family: str, copies: Copies, config: Mapping[str, Any], seed: int | None = None
) -> StimulusSet:
    """
    Make a set of copies whose table says of every copy what it is a copy of, and how it differs.

    Uniform sources, such as the gray control, are left out: there is nothing in them to move, scramble or scale.

    Parameters
    ----------
    stimuli : StimulusSet
        The sources.
    family : str
        Value of the column family, and beginning of every id; the rest of an id is a hash of the pixels.
    copies : callable
        Takes the id and the image (c, h, w) of a source, float64 in [0, 1], and gives for every copy the image and a
        dict of columns. What lies outside [0, 1] is clipped.
    config : mapping
        Settings for the provenance.
    seed : int, optional
        Seed for the provenance.

    Returns
    -------
    StimulusSet
        The copies, those of one source together, with the columns family, source, those of `copies`, rms_contrast and
        clipped_fraction (both of the 8-bit copy), and the photograph and target_site of the source if it has any.

    Raises
    ------
    ValueError
        If every source is uniform or two copies are the same picture.

    Examples
    --------
    >>> edge = StimulusSet.from_arrays(np.array([[[[0.5, 0.25]]]]), {"stimulus_id": ["edge"]})
    >>> brighter = copied_set(edge, "brighter", lambda source, image: [(image + 0.25, {"added": 0.25})], {})
    >>> int(brighter.codes().max()), brighter.table["source"].tolist()
    (192, ['edge'])
    """
    images: list[NDArray[np.uint8]] = []
    rows: list[dict[str, Any]] = []
    table = stimuli.table
    for place, source in enumerate(stimuli.stimulus_ids):
        given = stimuli.codes([place])[0]
        if is_uniform(given):
            continue
        carried = {name: table[name].iloc[place] for name in _CARRIED if name in table}
        for image, told in copies(source, to_float(given).astype(np.float64)):
            codes, clipped = quantize(image[None])
            seen = {"rms_contrast": rms_contrast(codes[0]), "clipped_fraction": float(clipped[0])}
            rows.append({"family": family, "source": source} | told | seen | carried)
            images.append(codes[0])
    if not images:
        raise ValueError(f"Every image of {stimuli.name!r} is uniform, which leaves nothing to copy: give others.")
    record = provenance_record(seed=seed, config={"family": family} | dict(config))
    return drawn_set(
        images,
        rows,
        size_deg=stimuli.size_deg,
        display=stimuli.display,
        provenance=record | {"of": stimuli.provenance},
        name=f"{family} of {stimuli.name}",
    )


def _gain_for(rms: float, swing: NDArray[np.float64], mean: NDArray[np.float64], source: str) -> float:
    """Return the gain of the swing about the means of the channels, whose differences count and are not changed."""
    between = rms_contrast(mean)
    if not rms > between:
        raise ValueError(
            f"The stimulus {source!r} cannot have an RMS contrast of {rms:g}: the means of its color channels alone "
            f"differ by {between:.3g}; ask for more."
        )
    return math.sqrt(rms**2 - between**2) / rms_contrast(swing)


def is_uniform(codes: NDArray[np.uint8]) -> bool:
    """
    Say whether an image is one color, as the gray control is.

    Parameters
    ----------
    codes : array of uint8, shape (c, h, w)
        The image.

    Returns
    -------
    bool
        Whether each of its channels has one code.

    Examples
    --------
    >>> is_uniform(np.full((3, 2, 2), 128, np.uint8)), is_uniform(np.arange(4, dtype=np.uint8).reshape(1, 2, 2))
    (True, False)
    """
    return bool((codes == codes[:, :1, :1]).all())


def _in_order(stimuli: StimulusSet, scores: Any) -> NDArray[np.float64]:
    if isinstance(scores, pd.Series) and scores.index.has_duplicates:
        twice = scores.index[scores.index.duplicated()][0]
        raise ValueError(f"scores have {twice!r} twice: give one number a stimulus.")
    if isinstance(scores, (pd.Series, Mapping)):
        given = dict(scores.items())
        missing = [name for name in stimuli.stimulus_ids if name not in given]
        if missing:
            hint = did_you_mean(missing[0], map(str, given))
            raise ValueError(f"scores lack the stimulus {missing[0]!r}: {hint}Give one number a stimulus of the set.")
        scores = [given[name] for name in stimuli.stimulus_ids]
    try:
        values = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError("scores hold something else than numbers: give one number a stimulus.") from None
    if values.shape != (len(stimuli),):
        raise ValueError(f"scores have the shape {values.shape} for {len(stimuli)} stimuli: give one number each.")
    return values


def _numbers(name: str, given: Any, low: float, high: float) -> list[float]:
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise TypeError(f"{name} is {given!r}: give a list of numbers, such as [1.5, 2.0].")
    values = list(given)
    for value in values:
        _number(name, value, low, high)
    return [float(value) for value in values]


def _number(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}: give a number from {low:g} to {high:g}.")
