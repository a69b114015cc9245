"""The kinds of noise of a perturbation analysis, and the checks that signals and images share."""

from __future__ import annotations

import math
from collections.abc import Mapping

from stimuli.hints import did_you_mean


def noise_size(kind: str, scale: float | None, published: Mapping[str, float]) -> float:
    """Return the size of the noise of a kind, by default the published one."""
    if kind not in published:
        hint = did_you_mean(str(kind), published)
        raise ValueError(f"there is no kind of perturbation {kind!r}; {hint}choose of {', '.join(published)}")
    size = published[kind] if scale is None else float(scale)
    if not (math.isfinite(size) and size > 0):
        raise ValueError(f"scale is {scale!r}; give a positive number, or None for the size used by default")
    return size


def require_at_least_one(**numbers: int) -> None:
    """Refuse counts below 1."""
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; give at least 1")
