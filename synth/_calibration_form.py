"""From predicted to achieved levels: a monotone curve of few parameters, its spread, and what it may err by.

In: arrays of rows (one image at one site). Out: a `Curve` and residuals of rows that the curve did not see. All levels
are z units of natural responses. Called by `calibration` only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Array = NDArray[np.float64]

#: The columns of `features` that each form uses, the simplest first. Weights other than the intercept are at least 0,
#: so that a larger prediction never means a smaller forecast.
FORMS: dict[str, tuple[int, ...]] = {
    "share of validator": (1,),
    "share of driver": (2,),
    "shares of both": (1, 2),
    "validator": (0, 1),
    "driver": (0, 2),
    "both": (0, 1, 2),
    "validator by accuracy": (0, 1, 3),
    "driver by accuracy": (0, 2, 4),
    "isotonic": (1,),
    "both by accuracy": (0, 1, 2, 3, 4),
}
#: Groups that a parameter takes. In a simulated experiment with four targets the mean error at a left-out one was 1.1 z
#: for a share of the driver, and 1.4 to 1.6 z for the forms with an intercept.
_GROUPS_PER_PARAMETER = 6
_ISOTONIC_PARAMETERS = 4
_WIDTH = 5
_FLOOR = 0.25  # of the mean absolute residual: no forecast is called certain


@dataclass(frozen=True)
class Rows:
    """Rows of a calibration table as arrays, all of one length."""

    driver: Array
    validator: Array
    accuracy: Array
    achieved: Array
    group: NDArray[np.int64]  # 0 ... groups - 1
    site: NDArray[np.int64]
    image: NDArray[np.int64]
    weight: Array  # equal for all groups in sum

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Rows:
        """Return some of the rows."""
        return Rows(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class Curve:
    """The level to expect, and the unit in which its errors are alike.

    ``f = w . (1, v, d, r v, r d)`` of driver d, validator v and the site's accuracy r, or knots of a monotone function
    of v; ``spread = floor + slope |f|``. ``effects`` holds for each site that was seen before the shift of its level,
    in units of the spread, and the factor of its spread.
    """

    form: str
    weights: tuple[float, ...]
    floor: float
    slope: float
    knots: tuple[tuple[float, float], ...] = ()
    effects: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def needs_validator(self) -> bool:
        """Whether it cannot do without a validator."""
        return bool(self.knots) or any(self.weights[k] for k in (1, 3))

    def level(self, driver: Array, validator: Array, accuracy: Array) -> Array:
        """Return the expected level."""
        if self.knots:
            at, value = np.array(self.knots).T
            return np.interp(validator, at, value)
        design = features(driver, validator, accuracy)
        used = np.flatnonzero(self.weights)  # a prediction that is missing and not used does no harm
        return np.asarray(design[..., used] @ np.array(self.weights)[used])

    def spread(self, level: Array) -> Array:
        """Return the unit of errors at a level."""
        return self.floor + self.slope * np.abs(level)


def features(driver: Array, validator: Array, accuracy: Array) -> Array:
    """Return the columns of which a level is a weighted sum, in the last axis."""
    one = np.ones_like(np.asarray(driver, dtype=float))
    return np.stack([one, validator, driver, accuracy * validator, accuracy * driver], axis=-1)


def fit_curve(rows: Rows, forms: tuple[str, ...]) -> tuple[Curve, Array, dict[str, float]]:
    """Return the curve, residuals over spread of rows whose group it did not see, and the error of every form.

    The form is the simplest whose mean absolute error on left-out groups is within one standard error of the best: the
    standard error is that of the difference from the best, over groups.
    """
    allowed = max(len(np.unique(rows.group)) // _GROUPS_PER_PARAMETER, 1)
    forms = tuple(form for form in forms if _parameters(form) <= allowed)
    left_out = {form: _left_out(rows, form) for form in forms}
    by_group = {form: _group_means(np.abs(rows.achieved - guess), rows.group) for form, guess in left_out.items()}
    errors = {form: float(values.mean()) for form, values in by_group.items()}
    best = min(errors, key=lambda form: errors[form])
    for form in forms:
        excess = by_group[form] - by_group[best]
        if excess.mean() <= excess.std() / np.sqrt(max(len(excess) - 1, 1)):
            break
    weights, knots = _fit(rows, form)
    guess = left_out[form]
    residual = rows.achieved - guess
    floor, slope = _spread(residual, guess, rows.weight)
    return Curve(form, weights, floor, slope, knots), residual / (floor + slope * np.abs(guess)), errors


def effective_count(residual: Array, rows: Rows) -> float:
    """Return how many independent residuals these are worth: ``N / (1 + (n - 1) c)``.

    c is the correlation of residuals of one group (from the analysis of variance), n the usual number of a group.
    """
    counts = np.bincount(rows.group)
    counts = counts[counts > 0]
    total, groups = len(residual), len(counts)
    usual = (total - float((counts**2).sum()) / total) / max(groups - 1, 1)
    if total == groups or usual <= 1:
        return float(groups)
    means = _group_means(residual, rows.group)
    between = float((counts * (means - residual.mean()) ** 2).sum()) / (groups - 1)
    within = max(float((residual**2).sum() - (counts * means**2).sum()) / (total - groups), 1e-12)
    alike = min(max((between - within) / (between + (usual - 1) * within), 0.0), 1.0)
    return float(total / (1 + (usual - 1) * alike))


def site_effects(residual: Array, rows: Rows, names: list[str]) -> dict[str, tuple[float, float]]:
    """Return for each site the shift and the factor of its spread, given its own residuals.

    With variance t between sites and s within, of n residuals of mean m the site's shift is ``m t / (t + s / n)``, and
    the variance that remains is ``s + t (s / n) / (t + s / n)`` of ``s + t``: an empirical Bayes estimate.
    """
    sites, counts = np.unique(rows.site, return_counts=True)
    if len(sites) < 3 or counts.max() < 2:
        return {}
    means = np.array([residual[rows.site == site].mean() for site in sites])
    sums = sum(float(((residual[rows.site == k] - m) ** 2).sum()) for k, m in zip(sites, means, strict=True))
    within = sums / max(len(residual) - len(sites), 1)
    between = max(float(means.var(ddof=1)) - within * float((1 / counts).mean()), 0.0)
    if between == 0 or within == 0:
        return {}
    kept = between / (between + within / counts)
    factor = np.sqrt((within + between * (1 - kept)) / (within + between))
    return {
        names[site]: (float(share * mean), float(size))
        for site, share, mean, size in zip(sites, kept, means, factor, strict=True)
    }


def _parameters(form: str) -> int:
    return _ISOTONIC_PARAMETERS if form == "isotonic" else len(FORMS[form])


def _group_means(values: Array, group: NDArray[np.int64]) -> Array:
    counts = np.bincount(group)
    return np.bincount(group, values)[counts > 0] / counts[counts > 0]


def _left_out(rows: Rows, form: str) -> Array:
    """Return predictions for each row by a curve fitted on the other groups."""
    guess = np.empty(len(rows.group))
    if form == "isotonic":
        for group in np.unique(rows.group):
            out = rows.group == group
            _, knots = _fit(rows.take(~out), form)
            guess[out] = np.interp(rows.validator[out], *np.array(knots).T)
        return guess
    columns = list(FORMS[form])
    design = features(rows.driver, rows.validator, rows.accuracy)[:, columns]
    augmented = np.column_stack([design, rows.achieved])
    grams = np.stack(
        [
            (augmented[rows.group == group] * rows.weight[rows.group == group, None]).T @ augmented[rows.group == group]
            for group in range(rows.group.max() + 1)
        ]
    )
    total = grams.sum(0)
    for group in np.unique(rows.group):
        out = rows.group == group
        guess[out] = design[out] @ _nonnegative(total - grams[group], columns[0] == 0)
    return guess


def _fit(rows: Rows, form: str) -> tuple[tuple[float, ...], tuple[tuple[float, float], ...]]:
    if form == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        fitted = IsotonicRegression(out_of_bounds="clip").fit(rows.validator, rows.achieved, rows.weight)
        pairs = zip(fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist(), strict=True)
        return (0.0,) * _WIDTH, tuple(pairs)
    columns = list(FORMS[form])
    design = features(rows.driver, rows.validator, rows.accuracy)[:, columns]
    augmented = np.column_stack([design, rows.achieved])
    weights = np.zeros(_WIDTH)
    weights[columns] = _nonnegative((augmented * rows.weight[:, None]).T @ augmented, columns[0] == 0)
    return tuple(weights.tolist()), ()


def _nonnegative(gram: Array, intercept: bool) -> Array:
    """Return least-squares weights at least 0, the first one free, from ``[X y]^T W [X y]``."""
    values, vectors = np.linalg.eigh(gram)
    root = np.sqrt(np.clip(values, 0, None))[:, None] * vectors.T  # root^T root is the Gram matrix
    design, wanted = root[:, :-1], root[:, -1]
    if not intercept:
        return np.asarray(nnls(design, wanted)[0])
    found = nnls(np.column_stack([design, -design[:, 0]]), wanted)[0]  # a free number is a difference of two
    return np.concatenate([[found[0] - found[-1]], found[1:-1]])


def _spread(residual: Array, level: Array, weight: Array) -> tuple[float, float]:
    size = np.abs(residual)
    design = np.stack([np.ones_like(size), np.abs(level)], axis=1)
    floor, slope = nnls(design * np.sqrt(weight)[:, None], size * np.sqrt(weight))[0]
    least = _FLOOR * float(np.average(size, weights=weight))
    return max(float(floor), least, 1e-9), float(slope)
