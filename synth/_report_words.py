"""Words and numbers of the control report: how a value, an interval, a gain, a p-value and a result are written.

In: numbers of a `ControlReport`. Out: text. Every other part of the report takes its wording from here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

KIND = {"stretch": "stretch", "ohp": "one-hot"}
HEADINGS = {
    "stretch": "Stretch: one site as high as possible",
    "ohp": "One-hot: one site up, the others down",
    "suppress": "Suppression: one site as low as possible",
    "contrast": "Contrast: one site against named others",
    "pattern": "Pattern: sites held at wanted responses",
}
BEYOND, NOT_BEYOND, INK, PALE = "#00735c", "#b3440e", "#22272e", "#8a939e"
NBSP = "\u00a0"


def kind(family: str) -> str:
    """Return the word for a family of objectives."""
    return KIND.get(family, family)


def heading(family: str) -> str:
    """Return the heading of a family of objectives."""
    return HEADINGS.get(family, f"{family[:1].upper()}{family[1:]} objectives")


def is_ratio(family: str) -> bool:
    """Say whether gains of a family are ratios to the baseline; those of other objectives are differences."""
    return family in KIND


def number(value: float, family: str = "stretch") -> str:
    """Round to three digits, one-hot scores to three decimals; a missing number is an en dash."""
    if not math.isfinite(value):
        return "–"
    decimals = 3 if family == "ohp" or value == 0 else min(4, max(0, 2 - math.floor(math.log10(abs(value)))))
    return f"{value:.{decimals}f}".replace("-", "−")


def interval(low: float, high: float, family: str = "stretch") -> str:
    """Write both ends of an interval, those of one-hot scores to two decimals, or nothing where one is missing."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    between = "–" if low >= 0 else f"{NBSP}to{NBSP}"  # a dash beside a minus sign reads as a third number
    ends = [f"{end:.2f}".replace("-", "−") if family == "ohp" else number(end, family) for end in (low, high)]
    return between.join(ends)


def gain_text(gain: float, family: str = "stretch") -> str:
    """Write a gain as a signed percentage, where it is a difference as a signed number, or an en dash."""
    if not np.isfinite(gain):
        return "–"
    sign = "−" if gain < 0 else "+"
    if not is_ratio(family):
        return f"{sign}{number(abs(gain), family)}"
    percent = abs(100 * gain)
    digits = (
        0 if percent == 0 or percent >= 0.95 else 1 if percent >= 0.095 else 2
    )  # a target just below its baseline must not read +0 %
    return f"{sign}{percent:.{digits}f}{NBSP}%"


def gain_interval(low: float, high: float, family: str = "stretch") -> str:
    """Write both ends of the interval of a gain, or nothing where one is missing."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{gain_text(low, family)} to {gain_text(high, family)}"


def p_text(p: float) -> str:
    """Write a p-value with three decimals and without a false zero."""
    if not math.isfinite(p):
        return "–"
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def count(amount: int, word: str) -> str:
    """Write an amount with its word in singular or plural."""
    return f"{amount:,} {word}" if amount == 1 else f"{amount:,} {word}s"


def mark(beyond: Any) -> tuple[str, str]:
    """Choose sign and word for a target: beyond, not beyond, or not recorded."""
    if pd.isna(beyond):
        return "○", "not recorded"
    return ("▲", "beyond") if beyond else ("▽", "not beyond")


def short(name: str, most: int = 18) -> str:
    """Shorten a name in its middle, where names of sites differ least; leave out what cannot be printed."""
    clean = "".join(letter if letter.isprintable() else "·" for letter in " ".join(str(name).split()))
    if len(clean) <= most:
        return clean
    tail = (most - 1) // 2
    return f"{clean[: most - 1 - tail]}…{clean[-tail:]}"


def unit_of(family: str, unit: str) -> str:
    """Return the unit in which values of a family are given, empty where they have none."""
    return unit if family in ("stretch", "suppress") else ""


def value_name(family: str, unit: str) -> str:
    """Name what the values of a family are, with their unit: the label of an axis."""
    if family == "stretch":
        return f"response ({unit})" if unit else "response, unit of the recordings"
    if family == "ohp":
        return "one-hot score"
    return f"{kind(family)} score" + (f" ({unit_of(family, unit)})" if unit_of(family, unit) else "")
