"""Numbers over targets: the summary of a control report.

In: the tables of images and targets. Out: a dict that JSON can hold. Called by `evaluate_control`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from neural_fits.scores import bootstrap_interval
from synth.control_statistics import FALSE_DISCOVERY_RATE

_NAMES = {
    "stretch": ("fraction_beyond_best_natural", "median_gain"),
    "ohp": ("fraction_improved", "median_improvement"),
    "other": ("fraction_improved", "median_improvement"),
}


def summarize(images: pd.DataFrame, targets: pd.DataFrame, natural_images: int, seed: int) -> dict[str, Any]:
    """Summarize stretch and one-hot targets, and all others together where there are any."""
    block = targets["family"].where(targets["family"].isin(_NAMES), "other")
    of_images = images["family"].where(images["family"].isin(_NAMES), "other")
    return {
        name: _block(name, images[of_images == name], targets[block == name], natural_images, seed)
        for name in _NAMES
        if name != "other" or (block == name).any()
    }


def _block(name: str, images: pd.DataFrame, rows: pd.DataFrame, natural_images: int, seed: int) -> dict[str, Any]:
    fraction, gain = _NAMES[name]
    gains = rows["gain"].dropna().to_numpy()
    significant = rows["significant"].dropna().astype(float)
    known = images.dropna(subset=["achieved", "forecast_low", "forecast_high"])
    covered = known["achieved"].between(known["forecast_low"], known["forecast_high"])
    return {
        "targets": len(rows),
        "targets_measured": int(rows["achieved"].notna().sum()),
        "images": int(rows["images"].sum()),
        "natural_images": natural_images,
        fraction: rounded(rows["beyond"].dropna().astype(float).mean()),
        f"{fraction}_upper": rounded(rows["beyond_upper"].dropna().astype(float).mean()),
        gain: rounded(np.median(gains) if len(gains) else np.nan),
        f"{gain}_interval": [rounded(end) for end in bootstrap_interval(gains, seed)] if len(gains) > 1 else None,
        "significant": int(significant.sum()),
        "significant_fraction": rounded(significant.mean()),
        "significant_every_image": int(rows["significant_every_image"].dropna().astype(float).sum()),
        "q": FALSE_DISCOVERY_RATE,
        "flagged_images": int((images["flag"] != "").sum()),
        **_accuracy(name, rows),
        "coverage": rounded(covered.astype(float).mean()),
    }


def _accuracy(name: str, rows: pd.DataFrame) -> dict[str, float | None]:
    """Return the median forecast over achieved; a score that may be negative is compared by difference."""
    columns = {"_driver": "forecast_driver", "_validator": "forecast_validator", "": "forecast"}
    if name == "other":
        return {
            f"forecast_minus_achieved{role}": rounded((rows[column] - rows["achieved"]).median())
            for role, column in columns.items()
        }
    return {f"forecast_over_achieved{role}": rounded(over_achieved(rows, column)) for role, column in columns.items()}


def over_achieved(rows: pd.DataFrame, column: str) -> float:
    """Return the median over targets of a forecast over what was achieved.

    A target driven to zero or below was forecast infinitely too high; dropping it would flatter the forecast.
    """
    achieved = rows["achieved"].where(rows["achieved"].isna() | (rows["achieved"] > 0), 0.0)
    with np.errstate(divide="ignore"):
        return float((rows[column] / achieved).median())


def rounded(value: float) -> float | None:
    """Return a number as summaries hold it.

    Parameters
    ----------
    value : float
        Any number.

    Returns
    -------
    float or None
        Four decimals; None, JSON's null, where it is not finite.

    Examples
    --------
    >>> rounded(0.123456), rounded(float("nan"))
    (0.1235, None)
    """
    return None if not np.isfinite(value) else round(float(value), 4)
