"""Scores as functions of weights over stimuli: all weights 1 gives the score, bootstrap counts give its replicates.

Every score is a ratio of weighted means over stimuli, so that a thousand resamples are a few matrix products. A
stimulus is weighted as a whole, with all its repeats: no trial is ever doubled within a stimulus, which would make a
site look more reliable than it is. Used by `corrections`, `scores` and `intervals`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neural_fits._time_bins import refuse_time_resolved
from neural_fits.halves import iterate_halves
from neural_fits.reliability import spearman_brown

if TYPE_CHECKING:
    from neural_fits.recordings import SiteRecordings

Floats = NDArray[np.float64]
HalfPredictions = tuple[ArrayLike, ArrayLike]

FEWEST_STIMULI = 3  # two points always lie on a line
_NOTHING = 1e-13  # share of the largest squared response below which a variance is only rounding


@dataclass(frozen=True, eq=False)
class Paired:
    """Trials and predictions of the stimuli that can be scored: those predicted and shown at least twice.

    Responses and predictions are shifted by the site's mean and divided by its largest response, so that sums of
    squares lose no digits; unused entries are 0.
    """

    used: NDArray[np.bool_]  # (stimulus, site)
    trials: NDArray[np.float32]  # (stimulus, repeat, site), in the unit of the recordings; NaN = not used
    n: Floats  # repeats, (stimulus, site)
    mean: Floats  # over repeats, (stimulus, site)
    noise: Floats  # variance over repeats with ddof 1, (stimulus, site)
    predicted: Floats  # (stimulus, site)
    half_predictions: tuple[Floats, Floats] | None
    n_splits: int
    seed: int


def check_predicted(predicted: ArrayLike, recordings: SiteRecordings, name: str = "predicted") -> Floats:
    """Return predictions as (stimulus, site) of the recordings' size, or say what they are instead."""
    refuse_time_resolved(recordings, "a score")
    guess = np.asarray(predicted, dtype=np.float64)
    expected = (recordings.shape[0], recordings.shape[2])
    if guess.shape != expected:
        raise ValueError(
            f"{name} has shape {guess.shape} but the recordings have {expected[0]} stimuli and {expected[1]} sites; "
            "predict the same stimuli and sites in the same order (recordings.align(stimuli), "
            "recordings.select_sites(site_ids))."
        )
    return guess


def pair(
    predicted: ArrayLike | None,
    recordings: SiteRecordings,
    half_predictions: HalfPredictions | None = None,
    n_splits: int = 1,
    seed: int = 0,
) -> Paired:
    """Bring predictions and trials together; without predictions, all stimuli shown twice or more are used."""
    refuse_time_resolved(recordings, "a score")
    shape = (recordings.shape[0], recordings.shape[2])
    guess = np.zeros(shape) if predicted is None else check_predicted(predicted, recordings)
    finite = np.isfinite(recordings.responses)
    n = finite.sum(axis=1)
    used = np.isfinite(guess) & (n >= 2)
    halves = None
    if half_predictions is not None:
        first, second = (check_predicted(p, recordings, "a half of half_predictions") for p in half_predictions)
        used &= np.isfinite(first) & np.isfinite(second)
        halves = (np.where(used, first, 0.0), np.where(used, second, 0.0))
    keep = finite & used[:, None, :]
    filled = np.where(keep, recordings.responses, 0.0).astype(np.float64)
    offset = filled.sum(axis=(0, 1)) / np.maximum(keep.sum(axis=(0, 1)), 1)
    filled = np.where(keep, filled - offset, 0.0)
    scale = np.abs(filled).max(axis=(0, 1), initial=0.0)
    scale = np.where(scale > 0, scale, 1.0)
    filled /= scale
    count = np.where(used, n, 1)
    mean = filled.sum(axis=1) / count
    residual = np.where(keep, filled - mean[:, None, :], 0.0)
    return Paired(
        used=used,
        trials=np.where(keep, recordings.responses, np.float32(np.nan)),
        n=count.astype(np.float64),
        mean=mean,
        noise=np.where(used, np.square(residual).sum(axis=1) / np.maximum(count - 1, 1), 0.0),
        predicted=np.where(used, (np.where(used, guess, 0.0) - offset) / scale, 0.0),
        half_predictions=halves,
        n_splits=n_splits,
        seed=seed,
    )


def score(name: str, paired: Paired, weights: Floats | None = None) -> Floats:
    """Return a score by name, shape (resample, site); without weights one row, each stimulus counting once."""
    every = np.ones((1, len(paired.used))) if weights is None else weights
    sample = _Sample(paired, every, every @ paired.used)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        values = _SCORES[name](sample)
    return np.where((sample.count >= FEWEST_STIMULI) & np.isfinite(values), values, np.nan)


@dataclass(frozen=True, eq=False)
class _Sample:
    """The data, and how often each stimulus counts in each resample."""

    data: Paired
    weights: Floats  # (resample, stimulus)
    count: Floats  # stimuli used, (resample, site)

    def average(self, values: Floats) -> Floats:
        """Mean over the used stimuli of (stimulus, site), which must be 0 where not used."""
        return (self.weights @ values) / self.count

    def covariance(self, x: Floats, y: Floats) -> Floats:
        """Covariance over the used stimuli, ddof 0, of values that are 0 where not used and about centered."""
        return self.average(x * y) - self.average(x) * self.average(y)

    def unit(self, values: Floats) -> Floats:
        """Values centered and divided by their largest size, where only their shape counts; 0 if constant."""
        used = self.data.used
        center = np.where(used, values, 0.0).sum(axis=0) / np.maximum(used.sum(axis=0), 1)
        centered = np.where(used, values - center, 0.0)
        spread = np.abs(centered).max(axis=0, initial=0.0)
        flat = spread <= _NOTHING * np.abs(values, where=used, out=np.zeros_like(values)).max(axis=0, initial=0.0)
        return centered / np.where(flat, np.inf, spread)

    def correlation(self, x: Floats, y: Floats) -> Floats:
        """Pearson r; NaN where either does not vary."""
        x, y = self.unit(x), self.unit(y)
        spread = _above_rounding(self.covariance(x, x)) * _above_rounding(self.covariance(y, y))
        return np.clip(self.covariance(x, y) / np.sqrt(spread), -1.0, 1.0)

    def noise_of_mean(self) -> Floats:
        """Mean over stimuli of s2_i / n_i: each mean is as noisy as its own number of repeats makes it."""
        return self.average(self.data.noise / self.data.n)

    def variance_of_mean(self) -> Floats:
        """Variance over stimuli of the mean responses, ddof 1."""
        return self.covariance(self.data.mean, self.data.mean) * self.count / (self.count - 1.0)

    def signal_power(self) -> Floats:
        """Variance over stimuli of the noiseless response, ddof 1; NaN where the estimate is not positive."""
        return _above_rounding(self.variance_of_mean() - self.noise_of_mean())


def _above_rounding(variance: Floats) -> Floats:
    return np.where(variance > _NOTHING, variance, np.nan)


def _r(sample: _Sample) -> Floats:
    return sample.correlation(sample.data.predicted, sample.data.mean)


def _reliability(sample: _Sample) -> Floats:
    data = sample.data
    total, count = np.zeros((2, *sample.count.shape))
    for first, second in iterate_halves(data.trials, data.n_splits, data.seed):
        r = sample.correlation(first, second)
        defined = np.isfinite(r)
        total += np.where(defined, r, 0.0)
        count += defined
    return spearman_brown(total / count)


def _explained(r: Floats, ceiling: Floats) -> Floats:
    return np.square(np.maximum(r, 0.0)) / np.where(ceiling > 0, ceiling, np.nan)


def _explained_variance(sample: _Sample) -> Floats:
    return _explained(_r(sample), _reliability(sample))


def _explained_variance_2019(sample: _Sample) -> Floats:
    if sample.data.half_predictions is None:
        raise ValueError(
            "explained_variance_2019 needs half_predictions=(first, second), the held-out predictions of two models "
            "fitted on two halves of the repeats; fit them, or choose explained_variance."
        )
    data, model = _reliability(sample), spearman_brown(sample.correlation(*sample.data.half_predictions))
    return _explained(_r(sample), np.where((data > 0) & (model > 0), data * model, np.nan))


def _cc_norm(sample: _Sample) -> Floats:
    guess = sample.unit(sample.data.predicted)
    spread = _above_rounding(sample.covariance(guess, guess))
    scaled = sample.covariance(guess, sample.data.mean) / np.sqrt(spread * sample.signal_power())
    return scaled * np.sqrt(sample.count / (sample.count - 1.0))


def _fev(sample: _Sample) -> Floats:
    signal = sample.signal_power()
    return signal / (signal + sample.average(sample.data.noise))


def _feve(sample: _Sample) -> Floats:
    error = sample.average(np.square(sample.data.mean - sample.data.predicted)) - sample.noise_of_mean()
    return 1.0 - error / (sample.signal_power() * (sample.count - 1.0) / sample.count)


def _r2_er(sample: _Sample) -> Floats:
    guess = sample.unit(sample.data.predicted)
    spread = _above_rounding(sample.covariance(guess, guess))
    shared = sample.count * np.square(sample.covariance(guess, sample.data.mean)) / spread
    return (shared - sample.noise_of_mean()) / (sample.signal_power() * (sample.count - 1.0))


def _oracle_jackknife(sample: _Sample) -> Floats:
    # With y = mean + e and the mean of the others o = mean - e / (n - 1), where sum e = 0, the sums over trials of
    # y y, o o and y o need no more than n, mean and variance of every stimulus.
    n = np.where(sample.data.used, sample.data.n, 0.0)
    lever = np.maximum(sample.data.n - 1.0, 1.0)
    squares = sample.data.noise * lever
    trials = sample.average(n)
    center = sample.average(n * sample.data.mean) / trials

    def moment(share: Floats | float) -> Floats:
        return sample.average(n * sample.data.mean**2 + share * squares) / trials - center**2

    spread = _above_rounding(moment(1.0)) * _above_rounding(moment(1.0 / lever**2))
    return moment(-1.0 / lever) / np.sqrt(spread)


def _oracle_conservative(sample: _Sample) -> Floats:
    spread = _above_rounding(sample.variance_of_mean())
    return np.sqrt(spread / (spread + sample.average(sample.data.noise)))


_SCORES: dict[str, Callable[[_Sample], Floats]] = {
    "r": _r,
    "reliability": _reliability,
    "explained_variance": _explained_variance,
    "explained_variance_2019": _explained_variance_2019,
    "cc_norm": _cc_norm,
    "fev": _fev,
    "feve": _feve,
    "r2_er": _r2_er,
    "oracle_jackknife": _oracle_jackknife,
    "oracle_conservative": _oracle_conservative,
}
SCORE_NAMES = tuple(_SCORES)
