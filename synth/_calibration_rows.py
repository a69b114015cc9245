"""A calibration table checked and as arrays. Called by `calibration` only."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synth._calibration_form import Array, Rows

COLUMNS = ("site", "image", "target", "driver_z", "validator_z", "achieved_z", "r", "group")
_QUANTILES = 99


def usable_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with a prediction and a response, with the group of their image."""
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise ValueError(f"the table lacks the columns {missing}; expected {list(COLUMNS)}, as calibration_table makes")
    rows: pd.DataFrame = table[list(COLUMNS)].copy()
    rows["target"] = rows["target"].astype(bool)
    if rows.duplicated(["site", "image"]).any():
        twice = rows[rows.duplicated(["site", "image"])].iloc[0]
        raise ValueError(
            f"image {twice['image']!r} has two rows for site {twice['site']!r}; give sites and images of different "
            "brains different names"
        )
    needed = ["driver_z", "achieved_z"] + (["validator_z"] if rows["validator_z"].notna().any() else [])
    finite = np.isfinite(rows[needed].to_numpy(float)).all(axis=1)
    return rows.loc[finite].reset_index(drop=True)


def coded(rows: pd.DataFrame, site_names: list[str]) -> Rows:
    """Return arrays; the rows of a group weigh 1 / groups together, and natural images no more than made ones."""
    made = rows["image"].isin(rows.loc[rows["target"], "image"]).to_numpy()
    group = pd.factorize(rows["group"])[0]
    weight = np.empty(len(rows))
    for kind in (rows["target"].to_numpy(), made & ~rows["target"].to_numpy(), ~made):
        sizes = np.bincount(group[kind], minlength=group.max() + 1)
        weight[kind] = 1 / sizes[group[kind]] / max((sizes > 0).sum(), 1)
    accuracy = rows["r"].to_numpy(np.float64)
    middle = float(np.nanmedian(accuracy)) if np.isfinite(accuracy).any() else 0.0
    return Rows(
        driver=rows["driver_z"].to_numpy(float),
        validator=rows["validator_z"].to_numpy(float),
        accuracy=np.where(np.isfinite(accuracy), accuracy, middle),
        achieved=rows["achieved_z"].to_numpy(float),
        group=group.astype(np.int64),
        site=pd.Categorical(rows["site"].astype(str), site_names).codes.astype(np.int64),
        image=pd.factorize(rows["image"])[0].astype(np.int64),
        weight=weight,
    )


def split_errors(error: Array, image: NDArray[np.int64]) -> tuple[dict[int, float], tuple[float, ...]]:
    """Return what the errors of an image share, and quantiles of the errors around it.

    The mean of n errors varies by ``s^2 / n`` even when they share nothing (s: of one error around the mean), so means
    are drawn together to the variance that remains; errors around them are widened by ``sqrt(n / (n - 1))``.
    """
    if not len(error):
        return {}, ()
    numbers, at, counts = np.unique(image, return_inverse=True, return_counts=True)
    means = np.bincount(at, error) / counts
    several = counts[at] > 1
    if not several.any():
        return dict(zip(numbers.tolist(), means.tolist(), strict=True)), ()
    around = (error - means[at])[several] * np.sqrt(counts[at][several] / (counts[at][several] - 1))
    center, varies = float(means.mean()), float(means.var())
    real = max(varies - float((around**2).mean() / counts.mean()), 0.0)
    common = center + (means - center) * np.sqrt(real / varies if varies > 0 else 0.0)
    private = np.round(np.quantile(around, np.linspace(0, 1, _QUANTILES)), 4)
    return dict(zip(numbers.tolist(), common.tolist(), strict=True)), tuple(private.tolist())


def within_slope(made: pd.DataFrame) -> float | None:
    """Return the slope, in [0, 1], of the achieved level on the validator's, among images for one site."""
    both = ["validator_z", "achieved_z"]
    inner = made[both] - made.groupby(["group", "site"])[both].transform("mean")
    power = float((inner["validator_z"] ** 2).sum())
    if not power > 0:
        return None
    return float(np.clip((inner["validator_z"] * inner["achieved_z"]).sum() / power, 0, 1))
