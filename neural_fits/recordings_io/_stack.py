"""Presentations in a row, each of some stimulus, to the dense array (stimulus, repeat, site[, time])."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def stack(
    values: NDArray[np.floating],
    shown: Sequence[str],
    path: Path,
    *,
    order: Sequence[str] | None = None,
    repeat: NDArray[np.intp] | None = None,
    n_repeats: int = 0,
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Sort (presentation, site[, time]) by stimulus; repeats are counted where no number is given.

    Stimuli come in the given order, or in that of their first presentation.
    """
    listed = list(dict.fromkeys(shown)) if order is None else list(order)
    position = {name: i for i, name in enumerate(listed)}
    lost = next((name for name in shown if name not in position), None)
    if lost is not None:
        raise ValueError(f"{path.name!r} is inconsistent: stimulus {lost!r} is shown but not listed; write it again.")
    stimulus = np.array([position[name] for name in shown], dtype=np.intp)
    counted = pd.Series(stimulus).groupby(stimulus).cumcount().to_numpy() if repeat is None else repeat
    twice = pd.DataFrame({"stimulus": stimulus, "repeat": counted}).duplicated().to_numpy()
    if twice.any():
        raise ValueError(
            f"{path.name!r} holds {int(twice.sum())} presentations twice, the first of stimulus "
            f"{shown[int(twice.argmax())]!r}; number the repetitions of each stimulus."
        )
    n_repeats = max(int(counted.max(initial=-1)) + 1, n_repeats)
    responses = np.full((len(listed), n_repeats, *values.shape[1:]), np.nan, dtype=np.float32)
    responses[stimulus, counted] = values
    return responses, tuple(listed)
