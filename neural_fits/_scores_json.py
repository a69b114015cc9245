"""The table of scores inside the manifest of a model."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd


def scores_to_json(scores: pd.DataFrame | None) -> dict[str, Any] | None:
    """Return a table as JSON can hold it."""
    return None if scores is None else json.loads(scores.to_json(orient="split", double_precision=15))


def scores_from_json(stored: dict[str, Any] | None) -> pd.DataFrame | None:
    """Return the table that `scores_to_json` was given."""
    if stored is None:
        return None
    index = pd.Index(stored["index"], name="site_id", dtype=str)
    # JSON's null is NaN: a column of nothing else must stay a column of numbers.
    return pd.DataFrame(stored["data"], index, stored["columns"]).apply(pd.to_numeric)
