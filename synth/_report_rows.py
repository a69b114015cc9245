"""Rows of a control report, chosen and completed: families, images of a target, columns that may be missing.

In: a `ControlReport`. Out: data frames and series. A column that a report lacks reads as not a number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from synth._report_words import KIND

if TYPE_CHECKING:
    from synth.control import ControlReport

ROLES = ("driver", "validator")
#: column of the forecast, and the word for it: the first that a report holds is shown beside what was achieved
FORECASTS = {"forecast": "calibrated", "forecast_validator": "of the validator", "forecast_driver": "of the driver"}


def families(report: ControlReport) -> dict[str, pd.DataFrame]:
    """Split the targets by family, stretch and one-hot first, leaving out a family without any."""
    present = list(dict.fromkeys(report.targets["family"]))
    order = [*(name for name in KIND if name in present), *(name for name in present if name not in KIND)]
    return {name: report.targets[report.targets["family"] == name] for name in order}


def made_for(report: ControlReport, objective: str) -> pd.DataFrame:
    """Return the rows of the images made for an objective."""
    return report.images[report.images["objective"] == objective]


def column(rows: pd.DataFrame, name: str) -> pd.Series:
    """Return a column as finite numbers, not a number where the report lacks it or an interval has no end."""
    if name not in rows:
        return pd.Series(np.nan, index=rows.index, dtype=float)
    return rows[name].astype(float).replace([np.inf, -np.inf], np.nan)


def has(rows: pd.DataFrame, name: str) -> bool:
    """Say whether a column is there and holds any number."""
    return bool(column(rows, name).notna().any())


def value(row: pd.Series, name: str) -> float:
    """Return one number of a row, not a number where the report lacks it."""
    return float(row[name]) if name in row and pd.notna(row[name]) else float("nan")


def flags(rows: pd.DataFrame) -> pd.Series:
    """Return the flag of every image as text, empty where there is none."""
    if "flag" not in rows:
        return pd.Series("", index=rows.index, dtype=object)
    return rows["flag"].fillna("").astype(str)


def recorded(report: ControlReport) -> bool:
    """Say whether any target was recorded."""
    return has(report.targets, "achieved")


def shown_forecast(report: ControlReport) -> str | None:
    """Return the column of the forecast to show beside what was achieved: the best founded one there is."""
    return next((name for name in FORECASTS if has(report.images, name)), None)


def spread(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """Sort targets by gain (before recording: by the driver's), keep at most so many, evenly over the ranks."""
    gain = rows["gain"]
    if gain.isna().all():
        gain = rows["forecast_driver"] / rows["best_natural"].where(rows["best_natural"] > 0)
    ranked = rows.loc[gain.sort_values(ascending=False, kind="stable", na_position="last").index]
    if len(ranked) <= most:
        return ranked
    return ranked.iloc[np.linspace(0, len(ranked) - 1, most).round().astype(int)]
