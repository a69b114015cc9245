"""Images made alike in mean, contrast, histogram or amplitude spectrum, and a report of what that did."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from stimuli._checks import content_id
from stimuli._contrast import Window, largest_shared
from stimuli._derived import CLIPPED_BEFORE, derive
from stimuli._histogram import MIN_PIXELS, average_values, match_histogram
from stimuli._spectrum import match_spectrum
from stimuli.apertures import Aperture
from stimuli.appearance import quantize, to_gray
from stimuli.hints import did_you_mean
from stimuli.ranges import checked_seed
from stimuli.stimulus_set import StimulusSet

Image = NDArray[np.float64]
Read = Callable[[int], Image]
BACKGROUND = 0.5
SPECTRA = ("full", "rotational")


@dataclass(frozen=True, eq=False)
class Matched:
    """
    A matched set and what matching did to every image.

    Parameters
    ----------
    stimuli : StimulusSet
        The set with the ids of the original and the columns mean_luminance, rms_contrast and clipped_fraction; what the
        original says of its own clipping, which stays, is in clipped_fraction_before.
    report : DataFrame
        One row per stimulus: stimulus_id, uniform (left as it was), mean_before, rms_before, mean_luminance,
        rms_contrast, pixel_change, the root mean square difference from the original inside the aperture, all from the
        8-bit codes and in units of [0, 1]; then clipped_fraction, and clipped_as_asked, what it would be at the
        contrast asked.
    mean, rms : float or None
        The mean and the contrast that the images were given; rms may be lower than asked where clipping was limited.
    limited_by : str, optional
        The image for the sake of which the contrast is lower: one with few very bright or dark pixels sets that of all.
    over_limit : int
        How many images would be clipped in more than max_clipped at the contrast asked; without them it could be had.

    Examples
    --------
    >>> two = StimulusSet.from_arrays(np.random.default_rng(0).uniform(0.3, 0.7, (2, 1, 16, 16)))
    >>> match_appearance(two, mean=0.5, rms=0.2).summary()["stimuli"]
    2
    """

    stimuli: StimulusSet
    report: pd.DataFrame
    mean: float | None
    rms: float | None
    limited_by: str | None = None
    over_limit: int = 0

    def summary(self) -> dict[str, Any]:
        """
        Give the report in a few numbers.

        Returns
        -------
        dict
            stimuli, uniform (how many were left as they were), target mean and rms, limited_by, over_limit, the range
            of the means and contrasts reached, the mean and the largest clipped fraction, clipped_before (the largest
            that the original tells of itself, None where it tells none), and the image clipped most.

        Examples
        --------
        >>> two = StimulusSet.from_arrays(np.random.default_rng(0).uniform(0.3, 0.7, (2, 1, 16, 16)))
        >>> match_appearance(two, mean=0.5, rms=0.2).summary()["largest_clipped_fraction"]
        0.0
        """
        changed = self.report[~self.report["uniform"]]
        clipped = self.report["clipped_fraction"]
        ends = {
            name: [float(changed[name].min()), float(changed[name].max())]
            for name in ("mean_luminance", "rms_contrast")
            if len(changed)
        }
        return {
            "stimuli": len(self.report),
            "uniform": int(self.report["uniform"].sum()),
            "target_mean": self.mean,
            "target_rms": self.rms,
            "limited_by": self.limited_by,
            "over_limit": self.over_limit,
            **ends,
            "mean_clipped_fraction": float(clipped.mean()),
            "largest_clipped_fraction": float(clipped.max()),
            "clipped_before": self._clipped_before(),
            "most_clipped": str(self.report["stimulus_id"].iloc[int(clipped.to_numpy().argmax())]),
        }

    def _clipped_before(self) -> float | None:
        table = self.stimuli.table
        largest = float(table[CLIPPED_BEFORE].max()) if CLIPPED_BEFORE in table else math.nan
        return None if math.isnan(largest) else largest


def match_appearance(
    stimuli: StimulusSet,
    *,
    mean: float | str | None = None,
    rms: float | str | None = None,
    max_clipped: float | None = None,
    histogram: ArrayLike | str | None = None,
    spectrum: str | None = None,
    aperture: Aperture | None = None,
    keep_surround: bool = False,
    gray: bool = False,
    seed: int = 0,
) -> Matched:
    """
    Make the images of a set alike, in the ways of the SHINE toolbox, and round once at the end.

    In this order: the amplitude spectrum of the whole image, the histogram of the fully open pixels, then mean and
    contrast inside the aperture, ``I' = (I - mean) / std * rms + mean'`` up to the edge of the aperture, where gain and
    offset are solved so that the windowed image has the statistics. Each step disturbs what the step before it did.
    Uniform images, such as a gray control, have nothing to match: they are left out of averages and not changed.

    Matching after synthesis changes what models predict: constrain contrast during synthesis where you can, and see
    `neural_fits.appearance_effect` for what matching did.

    Parameters
    ----------
    stimuli : StimulusSet
        The images. Values are pixel codes / 255, whatever the screen makes of them.
    mean : float or "average", optional
        Mean over pixels and channels, weighted by the aperture; "average" is that of the set.
    rms : float or "average", optional
        Contrast: standard deviation over pixels and channels in units of [0, 1], weighted by the aperture.
    max_clipped : float, optional
        Lower the shared rms until no image is clipped in more than this fraction of its values inside the aperture; ask
        rms=0.5 for the largest contrast there is. Without it values outside [0, 1] are clipped and reported.
    histogram : "average", id of a stimulus, or array of float, optional
        Give all images the same values: the average of the sorted values of the set, those of one of its images, or
        any values in [0, 1]. Ranks are kept and ties broken by the neighborhood, so the histogram is exact.
    spectrum : "full" or "rotational", optional
        Give all images the mean amplitude spectrum of the set, or its average over orientations.
    aperture : Aperture, optional
        Where images are compared; outside it they become gray. By default the whole image.
    keep_surround : bool
        Leave images as they are outside the aperture, such as images that have a window already.
    gray : bool
        Turn color into its luma first (`to_gray`); histogram and spectrum are for one channel.
    seed : int
        Seed of the random order of pixels that nothing else tells apart.

    Returns
    -------
    Matched
        The new set and the report.

    Raises
    ------
    ValueError
        If a number is out of range, nothing is asked, a histogram or spectrum is asked of color images, an aperture has
        too little that is fully open for a histogram, or an image cannot have the contrast.

    References
    ----------
    Willenbockel et al. (2010), Controlling low-level image properties: The SHINE toolbox, Behavior Research Methods
    42, 671-684.

    Examples
    --------
    >>> two = StimulusSet.from_arrays(np.random.default_rng(0).uniform(0.3, 0.7, (2, 1, 16, 16)))
    >>> matched = match_appearance(two, mean=0.5, rms=0.2)
    >>> matched.report["rms_contrast"].round(3).tolist()
    [0.2, 0.2]
    """
    seed = checked_seed(seed)
    _check(mean, rms, max_clipped, spectrum, [mean, rms, histogram, spectrum, aperture, gray or None])
    if (histogram is not None or spectrum is not None) and stimuli.shape[0] != 1 and not gray:
        raise ValueError(
            f"{stimuli.name!r} has {stimuli.shape[0]} channels, and histogram and spectrum are matched for one: ask "
            "for gray=True (--gray)."
        )
    mask = np.ones(stimuli.size_px) if aperture is None else aperture.mask(stimuli.size_px, stimuli.size_deg)
    window = Window(mask, None if keep_surround or aperture is None else BACKGROUND)
    original = _reader(stimuli, gray)
    members = [i for i in range(len(stimuli)) if np.ptp(original(i)[:, mask > 0], axis=1).any()]
    if not members:
        raise ValueError(f"Every image of {stimuli.name!r} is uniform inside the aperture: there is nothing to match.")
    read = original if spectrum is None else match_spectrum(original, members, spectrum == "rotational")
    if histogram is not None:
        opened = _opened(mask, aperture)
        values = _target(histogram, stimuli, original, read, members, opened)
        read = match_histogram(read, opened, values, _random_streams(stimuli, seed))
    goal_mean, goal_rms = _goals(mean, rms, members, lambda i: window.moments(window.blend(original(i), read(i))))

    def solve(position: int, contrast: float | None) -> Image | None:
        return window.solve(original(position), read(position), goal_mean, contrast)

    asked_rms, limiting = goal_rms, None
    if goal_rms is not None and max_clipped is not None:
        goal_rms, limiting = _lowered(solve, window, members, goal_rms, max_clipped, stimuli)
    changing = set(members)
    rows: list[dict[str, Any]] = []

    def make(position: int) -> NDArray[np.uint8]:
        before, uniform = original(position), position not in changing
        new = window.blend(before, before) if uniform else solve(position, goal_rms)
        if new is None:
            raise ValueError(
                f"Image {stimuli.stimulus_ids[position]!r} cannot have an RMS contrast of {goal_rms:g}"
                + ("" if limiting is None else f", to which max_clipped lowered it for {limiting!r}")
                + ": its edge against the surround alone has more; ask for more contrast"
                + ("" if limiting is None else " by a larger max_clipped or without that image")
                + ", or a mean nearer to the surround."
            )
        codes = quantize(new[np.newaxis])[0][0]
        clipped = window.clipped(new)
        as_asked = new if uniform or limiting is None else solve(position, asked_rms)
        asked = clipped if as_asked is new or as_asked is None else window.clipped(as_asked)
        told = {"uniform": uniform} | _moments(window, before, codes / 255.0)
        rows.append(told | {"clipped_fraction": clipped, "clipped_as_asked": asked})
        return codes

    def columns() -> dict[str, Any]:
        told = pd.DataFrame(rows)[["mean_luminance", "rms_contrast", "clipped_fraction"]]
        return {**told} | ({} if aperture is None else aperture.columns())

    config = {
        "mean": goal_mean,
        "rms": goal_rms,
        "rms_asked": rms,
        "max_clipped": max_clipped,
        "histogram": histogram if histogram is None or isinstance(histogram, str) else "values",
        "spectrum": spectrum,
        "aperture": aperture,
        "keep_surround": keep_surround,
        "gray": gray,
    }
    used_seed = None if histogram is None else seed
    channels = 1 if gray else stimuli.shape[0]
    made = derive(stimuli, make, {"match_appearance": config}, columns=columns, channels=channels, seed=used_seed)
    report = pd.DataFrame(rows)
    report.insert(0, "stimulus_id", stimuli.stimulus_ids)
    over = 0 if max_clipped is None else int((report["clipped_as_asked"] > max_clipped).sum())
    return Matched(made, report, goal_mean, goal_rms, limiting, over)


def _reader(stimuli: StimulusSet, gray: bool) -> Read:
    def original(position: int) -> Image:
        codes = stimuli.codes([position])[0]
        return np.asarray((to_gray(codes) if gray else codes) / 255.0)

    return original


def _random_streams(stimuli: StimulusSet, seed: int) -> Callable[[int], np.random.Generator]:
    """Give every image a stream by its content, so that it does not depend on its place in the set."""
    return lambda position: np.random.default_rng([seed, int(content_id(stimuli.codes([position])[0]), 16)])


def _lowered(
    solve: Callable[[int, float], Image | None],
    window: Window,
    members: Sequence[int],
    rms: float,
    limit: float,
    stimuli: StimulusSet,
) -> tuple[float, str | None]:
    shared, position = largest_shared(solve, window, members, rms, limit)
    name = None if position is None else stimuli.stimulus_ids[position]
    if shared is not None:
        return shared, name
    raise ValueError(
        f"Image {name!r} is clipped in more than {limit:g} of its values at any contrast: "
        "raise max_clipped, ask for a mean nearer to 0.5, or leave the image out."
    )


def _moments(window: Window, before: Image, after: Image) -> dict[str, float]:
    old, new = window.moments(before), window.moments(after)
    return {
        "mean_before": old[0],
        "rms_before": old[1],
        "mean_luminance": new[0],
        "rms_contrast": new[1],
        "pixel_change": float(np.sqrt(np.mean((after - before)[:, window.mask > 0] ** 2))),
    }


def _check(mean: Any, rms: Any, max_clipped: float | None, spectrum: str | None, asked: Sequence[Any]) -> None:
    if all(value is None for value in asked):
        raise ValueError("Nothing was asked to be matched: give mean, rms, histogram, spectrum or an aperture.")
    for name, value, top in (("mean", mean, 1.0), ("rms", rms, 0.5)):
        if value is None or value == "average":
            continue
        if not (_is_number(value) and 0 < value <= top):
            raise ValueError(f'{name} is {value!r}: give a number above 0 and at most {top:g}, or "average".')
    if max_clipped is not None and rms is None:
        raise ValueError("max_clipped lowers a shared contrast, and no rms was given: give rms too.")
    if max_clipped is not None and not (_is_number(max_clipped) and 0 <= max_clipped < 1):
        raise ValueError(f"max_clipped is {max_clipped!r}: give a fraction from 0 to below 1, such as 0.01.")
    if spectrum is not None and spectrum not in SPECTRA:
        raise ValueError(
            f"spectrum is {spectrum!r}: {did_you_mean(str(spectrum), SPECTRA)}give one of {', '.join(SPECTRA)}."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _opened(mask: Image, aperture: Aperture | None) -> NDArray[np.bool_]:
    opened = mask >= 1.0
    if opened.sum() < MIN_PIXELS:
        raise ValueError(
            f"{'The image' if aperture is None else aperture} has {int(opened.sum())} fully open pixels, and a "
            f"histogram needs {MIN_PIXELS}: give a narrower edge or a wider radius."
        )
    return np.asarray(opened)


def _target(
    histogram: ArrayLike | str,
    stimuli: StimulusSet,
    original: Read,
    read: Read,
    members: Sequence[int],
    opened: NDArray[np.bool_],
) -> Image:
    """Return the values that all images shall have."""
    if isinstance(histogram, str):
        if histogram == "average":
            return average_values(read, members, opened)
        ids = stimuli.stimulus_ids
        if histogram not in ids:
            raise ValueError(
                f"The histogram {histogram!r} is no stimulus of {stimuli.name!r}: {did_you_mean(histogram, ids)}give "
                '"average", the id of a stimulus, or values.'
            )
        values = original(ids.index(histogram))[0][opened]
    else:
        values = np.asarray(histogram, np.float64).ravel()
        if values.size < 2 or not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise ValueError(f"The histogram has {values.size} values: give at least two finite values in [0, 1].")
    if not np.ptp(values):
        raise ValueError(
            f"The histogram {histogram if isinstance(histogram, str) else 'given'!r} has one value alone, "
            f"{values[0]:.3g}, and would make every image uniform: give one that varies."
        )
    return values


def _goals(
    mean: float | str | None,
    rms: float | str | None,
    members: Sequence[int],
    moments: Callable[[int], tuple[float, float]],
) -> tuple[float | None, float | None]:
    averages = (0.0, 0.0)
    if "average" in (mean, rms):
        means, contrasts = np.mean([moments(i) for i in members], axis=0)
        averages = (float(means), float(contrasts))
    goals = [averages[k] if value == "average" else value for k, value in enumerate((mean, rms))]
    first, second = (None if goal is None else float(goal) for goal in goals)
    return first, second
