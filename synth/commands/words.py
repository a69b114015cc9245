"""The figures of a control experiment as lines of a terminal."""

from __future__ import annotations

from typing import Any


def percent(value: float | None) -> str:
    """Say a fraction in words."""
    return "an unknown part" if value is None else f"{value:.0%}"


def control_lines(summary: dict[str, Any]) -> str:
    """Say what a control experiment achieved, one line a kind of objective."""
    lines = []
    for name, key, fraction, gain, verb in (
        ("stretch", "stretch", "fraction_beyond_best_natural", "median_gain", "beyond their best natural image"),
        ("one-hot", "ohp", "fraction_improved", "median_improvement", "above their best natural image"),
    ):
        block = summary[key]
        if not block["targets"]:
            continue
        if block[fraction] is None:
            lines.append(f"{name}: {block['targets']} targets, not shown yet: forecasts only")
            continue
        ratios = [
            f"{role} forecast {block[f'forecast_over_achieved_{role}']:.2f} x achieved"
            for role in ("driver", "validator")
            if block[f"forecast_over_achieved_{role}"] is not None
        ]
        gained = "" if block[gain] is None else f", median gain {block[gain]:+.0%}"
        lines.append(
            f"{name}: {block[fraction]:.0%} of {block['targets']} targets {verb}{gained}; " + ", ".join(ratios)
        )
    if other := summary.get("other"):
        lines.append(
            f"other objectives: {other['fraction_improved']:.0%} of {other['targets']} targets above their best "
            f"natural image, median difference {other['median_improvement']:+.2g}"
            if other["fraction_improved"] is not None
            else f"other objectives: {other['targets']} targets, not shown yet: forecasts only"
        )
    return "\n".join(lines)
