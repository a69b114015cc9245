"""Positions of stimuli from ids, numbers, slices or masks."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Index: TypeAlias = slice | Sequence[int] | Sequence[str] | Sequence[bool] | NDArray[Any] | pd.Series | None


def positions(index: Index, order: Mapping[str, int], name: str) -> list[int]:
    """Turn any index into positions, with a clear error for what is not in the set."""
    n = len(order)
    if index is None:
        return list(range(n))
    if isinstance(index, slice):
        return list(range(n))[index]
    if isinstance(index, (str, bytes)) or np.ndim(index) != 1:
        raise TypeError(f"Cannot index stimuli with {index!r}: give a list of ids or positions, a slice or a mask.")
    values = list(index)
    if all(isinstance(v, str) for v in values):
        return [_find(str(v), order, name) for v in values]
    if all(isinstance(v, (bool, np.bool_)) for v in values):
        if len(values) != n:
            raise ValueError(f"The mask has {len(values)} values for {n} stimuli: give one boolean each.")
        return [i for i, chosen in enumerate(values) if chosen]
    if not all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in values):
        raise TypeError("Cannot index stimuli with mixed values: give only ids, only positions or only booleans.")
    wrong = [v for v in values if not -n <= v < n]
    if wrong:
        raise ValueError(f"Position {wrong[0]} is not in {name!r}, which has {n} stimuli (0 to {n - 1}).")
    return [int(v) % n for v in values]


def _find(stimulus: str, order: Mapping[str, int], name: str) -> int:
    position = order.get(stimulus)
    if position is None:
        close = difflib.get_close_matches(stimulus, list(order), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"ids are like {next(iter(order))!r}."
        raise ValueError(f"There is no stimulus {stimulus!r} in {name!r}: {hint}")
    return position
