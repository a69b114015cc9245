"""Stimuli grouped as people look at them: by family, and within it by the site that they were made for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

NO_FAMILY = "without a family"


@dataclass(frozen=True)
class Group:
    """Rows of the table with one family and one target (empty: no target)."""

    family: str
    target: str
    rows: tuple[int, ...]

    @property
    def title(self) -> str:
        """Family and target in one line."""
        return f"{self.family}, {self.target}" if self.target else self.family


def groups(table: pd.DataFrame) -> list[Group]:
    """Group the rows by family and target, both in the order of their first stimulus."""
    families = [_text(value) or NO_FAMILY for value in _column(table, "family")]
    targets = [
        _text(site) or _text(objective)
        for site, objective in zip(_column(table, "target_site"), _column(table, "objective"), strict=True)
    ]
    found: dict[str, dict[str, list[int]]] = {}
    for row, (family, target) in enumerate(zip(families, targets, strict=True)):
        found.setdefault(family, {}).setdefault(target, []).append(row)
    return [Group(family, target, tuple(rows)) for family, some in found.items() for target, rows in some.items()]


def thin(found: list[Group], most: int) -> list[Group]:
    """
    Keep at most `most` rows, of every group the same part, evenly over its rows and at least one.

    Of more groups than that, as many are kept as may be, evenly over all.
    """
    total = sum(len(group.rows) for group in found)
    if total <= most:
        return found
    if len(found) > most:
        found = [found[i] for i in np.linspace(0, len(found) - 1, most).round().astype(int)]
    counts = np.array([max(1, len(group.rows) * most // total) for group in found])
    while counts.sum() > most:  # each small group has one, more than its part: from the largest
        counts[counts.argmax()] -= 1
    kept = []
    for group, count in zip(found, counts, strict=True):
        places = np.linspace(0, len(group.rows) - 1, count).round().astype(int)
        kept.append(Group(group.family, group.target, tuple(group.rows[i] for i in places)))
    return kept


def _column(table: pd.DataFrame, name: str) -> list[Any]:
    return list(table[name]) if name in table else [None] * len(table)


def _text(value: Any) -> str:
    return "" if value is None or bool(pd.isna(value)) else str(value)
