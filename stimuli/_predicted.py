"""Predicted responses, lined up with the stimuli of a set and put into words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stimuli._groups import Group
from stimuli.hints import did_you_mean

_MOST_FAMILIES = 8


@dataclass(frozen=True)
class Predicted:
    """Responses (stimulus, site) in the order of the set; not a number where none was predicted."""

    model: str
    sites: tuple[str, ...]
    row: dict[str, int]
    values: NDArray[np.float64]
    z: NDArray[np.float64]

    @classmethod
    def of(cls, predictions: pd.DataFrame, ids: Sequence[str], model: str = "") -> Predicted:
        """Check a data frame of predictions and bring it into the order of the ids."""
        if not isinstance(predictions, pd.DataFrame):
            raise TypeError(
                f"predictions are a {type(predictions).__name__}: give a DataFrame with stimulus ids as index and one "
                "column a site."
            )
        known = {name: row for row, name in enumerate(ids)}
        strange = [name for name in predictions.index if name not in known]
        if strange:
            hint = did_you_mean(str(strange[0]), known)
            raise ValueError(
                f"predictions are for {strange[0]!r}, which is not a stimulus of the set: {hint}"
                f"index them by stimulus_id ({len(strange)} of {len(predictions)} rows are not in the set)."
            )
        if predictions.index.has_duplicates:
            twice = predictions.index[predictions.index.duplicated()][0]
            raise ValueError(f"predictions have {twice!r} twice: give one row a stimulus.")
        if predictions.columns.has_duplicates:
            twice = predictions.columns[predictions.columns.duplicated()][0]
            raise ValueError(f"predictions have the column {twice!r} twice: give one column a site.")
        wrong = [name for name in predictions.columns if not pd.api.types.is_numeric_dtype(predictions[name])]
        if wrong:
            raise TypeError(
                f"The column {wrong[0]!r} of the predictions does not hold numbers: give one column a site."
            )
        ordered = predictions.reindex(list(ids)).astype(np.float64)
        sd = ordered.std(ddof=0)
        z = (ordered - ordered.mean()) / sd.where(sd > 0)
        return cls(model, tuple(map(str, predictions.columns)), known, ordered.to_numpy(), z.to_numpy())

    def words(self, name: str, target: str | None) -> str:
        """Word the prediction for one stimulus: of its target, or else of the site that it drives most for this set."""
        row = self.row[name]
        if target in self.sites:
            value = self.values[row, self.sites.index(target)]
            return "" if np.isnan(value) else self._said(target, f"{value:.4g}")
        if not len(self.sites) or np.isnan(self.z[row]).all():
            return ""
        best = int(np.nanargmax(self.z[row]))
        return self._said(self.sites[best], f"{self.values[row, best]:.4g} ({self.z[row, best]:+.1f} sd)")

    def _said(self, site: str | None, value: str) -> str:
        return f"{self.model}: {site} {value}" if self.model else f"{site} predicted {value}"

    def columns(self, found: list[Group]) -> list[str]:
        """Name the families of the table of sites, with their counts."""
        return [f"{family} ({len(rows):,})" for family, rows in _families(found).items()]

    def site_rows(self, table: pd.DataFrame, found: list[Group]) -> list[dict[str, Any]]:
        """Give for every site its largest prediction in every family, and the stimulus with the largest of all."""
        families = list(_families(found).values())
        ids = list(table["stimulus_id"])
        rows = []
        for column, site in enumerate(self.sites):
            values = np.where(np.isnan(self.values[:, column]), -np.inf, self.values[:, column])
            largest = [values[chosen].max() for chosen in families]
            rows.append(
                {
                    "name": site,
                    "largest": [f"{value:.4g}" if np.isfinite(value) else "–" for value in largest],
                    "best": ids[int(values.argmax())] if np.isfinite(values).any() else "–",
                }
            )
        return rows


def _families(found: list[Group]) -> dict[str, list[int]]:
    families: dict[str, list[int]] = {}
    for group in found:
        families.setdefault(group.family, []).extend(group.rows)
    return dict(list(families.items())[:_MOST_FAMILIES])
