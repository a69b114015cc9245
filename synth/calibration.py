"""Forecasts that keep their promise: from what models predict to what a brain will do, with intervals.

In: predictions of drivers and validators beside responses to images that were shown (earlier rounds, other brains, the
bench). Out: a `Calibration`, which forecasts any objective on sites. Called by `evaluate_control` and users.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student

from stimuli.provenance import provenance_record, to_jsonable
from synth._calibration_form import FORMS, Array, Curve, effective_count, fit_curve, site_effects
from synth._calibration_rows import coded, split_errors, usable_rows, within_slope
from synth._objective_sites import read_columns, require_sites, targeted_columns
from synth._recorded_scores import score
from synth.calibration_table import calibration_table as calibration_table
from synth.objectives import Objective, SiteScale

if TYPE_CHECKING:
    from typing import Self

_FORMAT = 1
_KEPT = 1000  # images whose residuals are kept
_DRAWS = 1000


@dataclass(frozen=True)
class Calibration:
    """What predictions are worth: the level to expect, and how wrong that may be.

    A site's level in z units of natural responses is ``f(d, v, r)`` of driver d, validator v and the accuracy r of the
    site's model on held-out images, by one monotone curve for the sites an image was made for and another for the rest.
    Around it, errors are drawn as they were found on images whose target the curves had not seen; those of one image
    stay together. See `fit_calibration`.

    Parameters
    ----------
    target : Curve
        For the sites that an image was made for.
    other : Curve or None
        For the others; None when no image was recorded at a site it was not made for.
    errors : tuple of (float, float, float)
        For every image: its weight, the error at its target, and the mean error at its other sites, in units of the
        curves' spread.
    private : tuple of float
        Quantiles of the errors at the other sites around their mean in the image.
    groups : int
        Targets behind the errors.
    effective : float
        Independent errors that they are worth: between targets and images, by how alike the errors of a target are.
    median_accuracy : float
        The median r of the sites it was fitted on.
    accuracy : mapping
        r of the sites to be forecast, by name; those not named have the median.
    within_slope : float or None
        Change of the achieved level for a change of 1 in the validator's, among images of the same target: how much of
        a judge's preference is real. None when no target had two images.
    provenance : dict
        How it was made; under ``config``, the error of every form that was tried.
    """

    target: Curve
    other: Curve | None
    errors: tuple[tuple[float, float, float], ...]
    private: tuple[float, ...]
    groups: int
    effective: float
    median_accuracy: float
    accuracy: Mapping[str, float] = field(default_factory=dict)
    within_slope: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def for_sites(self, accuracy: Mapping[str, float]) -> Self:
        """Return the same for sites of known accuracy.

        Parameters
        ----------
        accuracy : mapping of str to float
            Correlation r with held-out natural images by site, as in ``driver.held_out_scores()["r"]``.

        Returns
        -------
        Calibration
            With these r.
        """
        known = {str(site): float(r) for site, r in accuracy.items() if np.isfinite(r)}
        return dataclasses.replace(self, accuracy=known)

    def forecast(
        self,
        objectives: Sequence[Objective],
        driver: NDArray[np.floating],
        validator: NDArray[np.floating],
        scale: SiteScale,
        *,
        level: float = 0.95,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Return what each image should achieve, and an interval for it.

        Responses of all sites are drawn with errors as they were found, and scored. The forecast is the median; the
        interval holds a new target's image with probability `level` when its errors are exchangeable with the old ones.
        With fewer than ``2 / (1 - level) - 1`` independent old errors none is rare enough, and the interval ends at
        the outermost, or at a quantile of Student's t where that is farther.

        Parameters
        ----------
        objectives : sequence of Objective
            The objective of every image.
        driver, validator : ndarray, (image, site)
            Mean predictions of the drivers and of the validators, in the recording's unit.
        scale : SiteScale
            Names of the sites (columns), mean and standard deviation of recorded natural responses.
        level : float
            Probability that the interval holds the achieved value.
        seed : int
            Seed of the draws.

        Returns
        -------
        DataFrame
            Columns ``forecast, forecast_low, forecast_high``, one row an image, in the unit of its objective's score.

        Raises
        ------
        ValueError
            When shapes differ, a needed validator is missing, or an objective is not about recorded sites.
        """
        if not 0 < level < 1:
            raise ValueError(f"level is {level}; expected a probability between 0 and 1, for example 0.95")
        shape = (len(objectives), len(scale.site_ids))
        for name, values in (("driver", driver), ("validator", validator)):
            if np.shape(values) != shape:
                raise ValueError(
                    f"{name} has shape {np.shape(values)}; expected {shape}, one row an image, one column a site"
                )
        mean, std = (part.double().cpu().numpy() for part in (scale.mean, scale.std))
        d, v = ((np.asarray(values, dtype=np.float64) - mean) / std for values in (driver, validator))
        curves = [self.target] + ([self.other] if self.other else [])
        if any(curve.needs_validator for curve in curves) and np.isnan(v).all():
            raise ValueError("this calibration needs a validator's predictions and none came; give validators=[...]")
        r = np.array([self.accuracy.get(site, self.median_accuracy) for site in scale.site_ids])
        require_sites(list(dict.fromkeys(objectives)))
        centers = [_placed(curve, d, v, r, scale.site_ids) for curve in (self.target, self.other or self.target)]
        weight, (of_targets, of_others) = self._draws(shape[1], np.random.default_rng(seed))
        tail = self._tail(level)
        made = np.empty((shape[0], 3))
        for objective in dict.fromkeys(objectives):
            rows = [row for row, other in enumerate(objectives) if other == objective]
            made_for = np.isin(np.arange(shape[1]), targeted_columns(objective, scale))
            if self.other is None and not made_for[read_columns(objective, scale)].all():
                raise ValueError(
                    f"{objective!r} reads sites that its images were not made for, and the calibration saw none such; "
                    "fit it on a table with rows where target is False"
                )
            center, width = (np.where(made_for, *(pair[k][rows] for pair in centers))[:, None] for k in (0, 1))
            errors = np.where(made_for, 0.0, of_others)
            errors[:, made_for] = of_targets[:, : made_for.sum()]
            ends = np.where(made_for, np.array([[-tail], [tail]]), 0.0)
            z = center + width * np.concatenate([errors, ends])  # (image, draw, site)
            found = score(objective, (mean + std * z).reshape(-1, shape[1]), scale).reshape(len(rows), -1)
            made[rows] = [_interval(row[:-2], weight, row[-2:], self.effective, level) for row in found]
        return pd.DataFrame(made, columns=["forecast", "forecast_low", "forecast_high"])

    def _draws(self, n_sites: int, rng: np.random.Generator) -> tuple[Array, tuple[Array, Array]]:
        """Return weights (draw,), errors of a first, second, ... target, and of other sites (draw, site).

        A draw is an image: its first target and other sites have the errors of that image, further targets another's.
        """
        table = np.array(self.errors)
        rows = np.tile(np.arange(len(table)), max(_DRAWS // len(table), 1))
        weight = table[rows, 0] / table[rows, 0].sum()
        share = table[:, 0] / table[:, 0].sum()
        own = np.column_stack([rows, rng.choice(len(table), (len(rows), n_sites - 1), p=share)])[:, :n_sites]
        private = np.quantile(self.private, rng.random((len(rows), n_sites))) if self.private else 0.0
        return weight, (table[own, 1], table[rows, 2][:, None] + private)

    def _tail(self, level: float) -> float:
        weight, error, _ = np.array(self.errors).T
        size = np.sqrt(np.average(error**2, weights=weight) * (1 + 1 / self.effective))
        return float(size * student.ppf((1 + level) / 2, max(self.effective - 1, 1)))

    def to_json(self) -> str:
        """Return it as text.

        Returns
        -------
        str
            JSON, for `from_json`.
        """
        return json.dumps(
            {"format": "npc calibration", "format_version": _FORMAT, **to_jsonable(self)}, allow_nan=False
        )

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """Return the calibration that `to_json` wrote.

        Parameters
        ----------
        text : str
            The JSON.

        Returns
        -------
        Calibration
            The calibration.

        Raises
        ------
        ValueError
            When the text is something else, damaged, or of a newer format.
        """
        damaged = "the text is not a calibration or was damaged; write it with Calibration.to_json()"
        try:
            record = json.loads(text)
            if record.pop("format") != "npc calibration":
                raise ValueError(damaged)
            version = int(record.pop("format_version"))
            if version > _FORMAT:
                raise ValueError(f"the calibration has format {version}, this version reads up to {_FORMAT}; update")
            curves = {key: _curve(record[key]) for key in ("target", "other")}
            if curves["target"] is None:
                raise ValueError(damaged)
            errors = tuple(tuple(map(float, row)) for row in record["errors"])
            private = tuple(map(float, record["private"]))
            return cls(**{**record, **curves, "errors": errors, "private": private})
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(damaged) from error

    def __repr__(self) -> str:
        return f"Calibration({self.target.form!r}, {len(self.errors)} images of {self.groups} targets)"


def fit_calibration(table: pd.DataFrame, *, own_sites: bool = False, seed: int = 0) -> Calibration:
    """Learn what predictions are worth from images that were shown.

    Each curve is the simplest of a few monotone forms, of at most one parameter for six groups, whose error on left-out
    groups is within a standard error of the best. Groups (targets) count equally. Errors are those on left-out groups,
    so that intervals made of their quantiles hold for a new group. Rows of an image count as the group of its target;
    natural images, which have none, inform the curve of the other sites, with no more weight than the images that were
    made.

    Parameters
    ----------
    table : DataFrame
        One row for an image at a site: ``site``, ``image``, ``target`` (whether the image was made for that site),
        ``driver_z``, ``validator_z`` and ``achieved_z`` in z units of natural responses, ``r`` (accuracy of the
        site's model on held-out images), ``group`` (the target, or the photograph). See `calibration_table`. Where
        forecasts are for another brain than those of the table, let ``group`` be the brain: brains differ more than the
        targets of one do, and intervals from errors on left-out brains are as wide as that asks for.
    own_sites : bool
        The sites to be forecast are those of the table, so that what is known of each is used: its shift, shrunk by
        how much sites differ, and its narrower interval.
    seed : int
        Seed that chooses among more than 1,000 images.

    Returns
    -------
    Calibration
        The curves, errors and their provenance.

    Raises
    ------
    ValueError
        When columns are missing or fewer than three groups have an image made for a site.

    References
    ----------
    Lee, Barber & Willett, "Distribution-free inference with hierarchical data", 2023, for the weights of quantiles.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> d = rng.normal(5, 1, 40)
    >>> made = pd.DataFrame({"site": range(40), "image": range(40), "target": True, "driver_z": d})
    >>> made = made.assign(validator_z=d, achieved_z=d / 2 + rng.normal(0, 0.2, 40), r=0.6, group=made["site"])
    >>> fit_calibration(made)
    Calibration('share of validator', 40 images of 40 targets)
    """
    rows = usable_rows(table)
    made = rows[rows["target"]]
    groups = int(made["group"].nunique())
    if groups < 3:
        raise ValueError(
            f"{groups} target(s) with a predicted and recorded image; a calibration needs at least 3, better 40: "
            "record synthesized images (natural ones do not show how predictions fail on images made by them)"
        )
    has_validator = made["validator_z"].notna().all()
    forms = tuple(form for form, used in FORMS.items() if has_validator or not {1, 3} & set(used))
    forms = forms if made["r"].nunique() > 1 else tuple(form for form in forms if "accuracy" not in form)
    site_names = [str(site) for site in pd.unique(rows["site"])]
    every = coded(rows, site_names)
    targeted = rows["target"].to_numpy()
    target_rows = every.take(targeted)
    target, target_error, tried = fit_curve(target_rows, forms)
    other: Curve | None = None
    common: dict[int, float] = {}
    private: tuple[float, ...] = ()
    other_tried: dict[str, float] = {}
    if not targeted.all():
        other_rows = every.take(~targeted)
        other, other_error, other_tried = fit_curve(other_rows, forms)
        of_made = np.isin(other_rows.image, target_rows.image)
        common, private = split_errors(other_error[of_made], other_rows.image[of_made])
        if own_sites:
            other = dataclasses.replace(other, effects=site_effects(other_error, other_rows, site_names))
    if own_sites:
        target = dataclasses.replace(target, effects=site_effects(target_error, target_rows, site_names))
    errors = [
        (round(w, 6), round(e, 4), round(common.get(image, 0.0), 4))
        for w, e, image in zip(target_rows.weight * groups, target_error, target_rows.image, strict=True)
    ]
    if len(errors) > _KEPT:
        errors = [errors[k] for k in np.sort(np.random.default_rng(seed).choice(len(errors), _KEPT, replace=False))]
    accuracy = rows.groupby("site")["r"].first()
    config = {"error_by_form": tried, "error_by_form_other": other_tried, "rows": len(rows), "own_sites": own_sites}
    return Calibration(
        target,
        other,
        tuple(errors),
        private,
        groups,
        effective_count(target_error, target_rows),
        float(accuracy.median()) if accuracy.notna().any() else 0.0,
        {str(site): float(r) for site, r in accuracy.dropna().items()} if own_sites else {},
        within_slope(made),
        provenance_record(seed=seed, config=config),
    )


def _placed(
    curve: Curve, driver: Array, validator: Array, accuracy: Array, sites: Sequence[str]
) -> tuple[Array, Array]:
    """Return levels and spreads (image, site), with what is known of each site."""
    level = curve.level(driver, validator, np.broadcast_to(accuracy, driver.shape))
    spread = curve.spread(level)
    shift, factor = np.array([curve.effects.get(site, (0.0, 1.0)) for site in sites]).T
    return level + shift * spread, spread * factor


def _interval(found: Array, weight: Array, ends: Array, count: float, level: float) -> tuple[float, float, float]:
    """Return the median and the interval of a new score beside `count` independent weighted old ones.

    A new one falls into each of the gaps between n old ones, and beyond either end, with probability 1 / (n + 1):
    quantiles at k / (n + 1). Where that does not reach far enough, the interval ends at `ends`.
    """
    if not np.isfinite(found).all():
        return (float("nan"),) * 3
    order = np.argsort(found, kind="stable")
    value, share = found[order], weight[order]
    at = ((np.cumsum(share) - share / 2) * count + 0.5) / (count + 1)
    below = (1 - level) / 2
    middle, low, high = np.interp([0.5, below, 1 - below], at, value).tolist()
    low = low if below >= at[0] else min(low, float(ends.min()))
    high = high if 1 - below <= at[-1] else max(high, float(ends.max()))
    return middle, low, high


def _curve(record: Mapping[str, Any] | None) -> Curve | None:
    if record is None:
        return None
    knots = tuple((float(at), float(value)) for at, value in record["knots"])
    effects = {str(site): (float(shift), float(factor)) for site, (shift, factor) in record["effects"].items()}
    return Curve(
        str(record["form"]),
        tuple(map(float, record["weights"])),
        float(record["floor"]),
        float(record["slope"]),
        knots,
        effects,
    )
