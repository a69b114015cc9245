"""Small drawings of one target: where synthesized images lie among all natural ones, and what was forecast for them.

In: arrays of responses and scores. Out: SVG as text, written by hand because a page holds dozens of them. Colors and
shapes are those of the page's legend: filled circle achieved, hollow diamond forecast, dashed line best natural.
"""

from __future__ import annotations

import html
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synth._report_words import BEYOND, INK, NOT_BEYOND, short
from synth._report_words import number as written

Array = NDArray[np.floating]
WIDTH, HEIGHT = 360, 176
_LEFT, _TOP, _BOTTOM = 42, 22, 30
MOST_SITES, MOST_MARKS = 30, 16
FORECAST, NATURAL, SOFT = "#c2670a", "#c3cbd4", "#57606a"
_NAN = float("nan")


@dataclass(frozen=True)
class Mark:
    """What was achieved with one image and what was forecast for it, with intervals; not a number where missing."""

    achieved: float = _NAN
    achieved_low: float = _NAN
    achieved_high: float = _NAN
    forecast: float = _NAN
    forecast_low: float = _NAN
    forecast_high: float = _NAN


@dataclass(frozen=True)
class _Axis:
    """A vertical axis: values from low to high between two heights of the drawing."""

    low: float
    high: float
    bottom: float = HEIGHT - _BOTTOM
    top: float = _TOP

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.bottom - share * (self.bottom - self.top), 1)

    def ticks(self, x: float, label: str, side: str = "left") -> str:
        sign, anchor = (-1, "end") if side == "left" else (1, "start")
        parts = [_line(x, self.top, x, self.bottom, SOFT, 1)]
        for value in _round_values(self.low, self.high):
            y = self(value)
            parts.append(_line(x, y, x + 4 * sign, y, SOFT, 1))
            parts.append(_text(x + 6 * sign, y + 3.5, f"{value:g}".replace("-", "−"), anchor))
        parts.append(_text(2 if side == "left" else WIDTH - 2, 12, label, "start" if side == "left" else "end"))
        return "".join(parts)


def tuning_strip(site: str, natural: Array, baseline: float, marks: Sequence[Mark], unit: str) -> str:
    """Draw the responses of one site to all natural images, sorted, and to the synthesized images beside them.

    Parameters
    ----------
    site : str
        Name of the site.
    natural : array, (natural image,)
        Mean responses; those that are not numbers are left out.
    baseline : float
        The best natural image, chosen and measured on different repeats.
    marks : sequence of Mark
        One per synthesized image; the first 16 are drawn.
    unit : str
        Unit of the responses.

    Returns
    -------
    str
        The SVG element.
    """
    ranked = np.sort(natural[np.isfinite(natural)].astype(float))
    shown = marks[:MOST_MARKS]
    axis = _axis([0.0, baseline, *ranked[[0, -1]]] if len(ranked) else [0.0, baseline], shown)
    split, right = 218.0, WIDTH - 6.0
    parts = [axis.ticks(_LEFT, unit or "response")]
    if len(ranked):
        at = np.unique(np.linspace(0, len(ranked) - 1, 150).round().astype(int))
        x = _LEFT + 1 + (split - _LEFT - 2) * (at + 0.5) / len(ranked)
        points = " ".join(f"{a:.1f},{axis(v)}" for a, v in zip(x, ranked[at], strict=True))
        floor = axis(max(axis.low, 0.0))
        parts.append(f'<polygon fill="{NATURAL}" points="{x[0]:.1f},{floor} {points} {x[-1]:.1f},{floor}"/>')
        parts.append(f'<polyline fill="none" stroke="{SOFT}" stroke-width="1.2" points="{points}"/>')
    parts.append(_baseline(axis, _LEFT, right, baseline, True))
    parts.append(_marks(axis, split + 14, right, shown, baseline))
    parts.append(_text((_LEFT + split) / 2, HEIGHT - 12, f"{len(ranked):,} natural images, sorted", "middle"))
    parts.append(_text((split + 14 + right) / 2, HEIGHT - 12, _synthesized(shown, marks), "middle"))
    middle = written(float(np.median(ranked))) if len(ranked) else "unknown"
    alt = (
        f"Responses of {site}{f' in {unit}' if unit else ''}: {len(ranked)} natural images, median {middle}, best "
        f"{written(baseline)}; synthesized images {_spoken(shown, written)}"
    )
    return _svg(alt, parts)


def population_strip(
    target: str,
    sites: Sequence[str],
    natural: Array,
    best: Array | None,
    made: Array | None,
    baseline: float,
    marks: Sequence[Mark],
    label: str,
) -> str:
    """Draw every site of a population in standard deviations of its natural responses, and the scores beside it.

    Parameters
    ----------
    target : str
        Name of the target; drawn first where it is one of the sites.
    sites : sequence of str
        Names of the population; at most 30 are drawn, evenly over the ranks of their responses.
    natural : array, (natural image, site)
        Mean responses to natural images: their mean is 0 and their standard deviation 1 in the drawing.
    best : array, (site,), optional
        Responses to the best natural image.
    made : array, (synthesized image, site), optional
        Responses to the synthesized images.
    baseline : float
        Score of the best natural image.
    marks : sequence of Mark
        Scores of the synthesized images; the first 16 are drawn.
    label : str
        Name of the score.

    Returns
    -------
    str
        The SVG element.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a site without any natural response has no column
        center, spread = np.nanmean(natural, axis=0), np.nanstd(natural, axis=0)
        spread = np.where(spread > 0, spread, np.nan)
        z = (natural - center) / spread
        low, high = np.nanpercentile(z, [1, 99], axis=0)
    z_best = None if best is None else (best - center) / spread
    z_made = np.empty((0, len(sites))) if made is None else (made[:MOST_MARKS] - center) / spread
    order = _order(target, sites, z_made if len(z_made) else z)
    extent = [low[order], high[order], z_made[:, order].ravel(), [] if z_best is None else z_best[order]]
    axis, split = _axis(list(np.concatenate([np.asarray(part, float) for part in extent])), ()), 238.0
    step = (split - _LEFT - 6) / len(order)
    parts = [axis.ticks(_LEFT, "sd of natural responses"), _line(_LEFT, axis(0), split, axis(0), SOFT, 0.7)]
    for place, site in enumerate(order):
        x, wide = round(_LEFT + 5 + step * (place + 0.5), 1), min(0.62 * step, 12.0)
        name, isfirst = sites[site], sites[site] == target
        said = f"{name}: natural {written(low[site])} to {written(high[site])} sd"
        column = [f"<g><title>{html.escape(said)}</title>"]
        if math.isfinite(low[site]):
            column.append(_rect(x - wide / 2, axis(high[site]), wide, axis(low[site]) - axis(high[site])))
        if z_best is not None and math.isfinite(z_best[site]):
            y = axis(z_best[site])
            column.append(_line(x - wide / 2 - 1, y, x + wide / 2 + 1, y, INK, 1.4))
        color = BEYOND if isfirst else SOFT
        radius = max(1.8, min(3.2, 0.3 * step))
        for value in z_made[:, site]:
            if math.isfinite(value):
                column.append(
                    f'<circle cx="{x}" cy="{axis(value)}" r="{radius:.1f}" fill="{color}" fill-opacity=".8"/>'
                )
        parts.append("".join(column) + "</g>")
    others = len(sites) - (target in sites)
    drawn = len(order) - (target in sites)
    count = f"{others} others" if drawn == others else f"{drawn} of {others} others"
    if target in sites:
        parts.append(_text(_LEFT + 3, HEIGHT - 16, short(target, 12), "start", BEYOND))
        parts.append(_text(split, HEIGHT - 3 if others else HEIGHT + 20, f"then {count}, strongest first", "end"))
    else:
        parts.append(_text((_LEFT + split) / 2, HEIGHT - 12, f"{len(order)} of {len(sites)} sites", "middle"))
    scores = _axis([baseline, 0.0], marks[:MOST_MARKS])
    left, right = split + 22, WIDTH - 32.0
    parts += [scores.ticks(right, label, "right"), _baseline(scores, left - 8, right, baseline, False)]
    parts.append(_marks(scores, left, right - 4, marks[:MOST_MARKS], baseline))
    parts.append(_text((left + right) / 2, HEIGHT - 16, _synthesized(marks[:MOST_MARKS], marks), "middle"))

    def said_score(value: float) -> str:
        return written(value, "ohp")

    alt = f"{target} among {len(sites)} sites; {label}: best natural image {said_score(baseline)}, synthesized images "
    return _svg(alt + _spoken(marks[:MOST_MARKS], said_score), parts)


def _order(target: str, sites: Sequence[str], z: Array) -> list[int]:
    """Return the sites to draw: the target, then the others from strong to weak, thinned evenly."""
    level = np.array([np.mean(c[np.isfinite(c)]) if np.isfinite(c).any() else -np.inf for c in z.T])
    others = [k for k in np.argsort(-level, kind="stable") if sites[k] != target]
    first = [k for k, name in enumerate(sites) if name == target]
    most = MOST_SITES - len(first)
    if len(others) > most:
        others = [others[k] for k in np.linspace(0, len(others) - 1, most).round().astype(int)]
    return [int(k) for k in (*first, *others)]


def _axis(values: Sequence[float], marks: Sequence[Mark]) -> _Axis:
    numbers = [*values, *(v for m in marks for v in vars(m).values())]
    finite = [float(v) for v in numbers if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if low == high:
        return _Axis(low - 0.5, high + 0.5)
    margin = 0.06 * (high - low)
    return _Axis(low if low == 0 else low - margin, high if high == 0 else high + margin)


def _round_values(low: float, high: float) -> list[float]:
    """Return two to five round numbers between two ends."""
    rough = (high - low) / 3
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * k for k in (1, 2, 2.5, 5, 10) if unit * k >= rough * 0.8)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _marks(axis: _Axis, left: float, right: float, marks: Sequence[Mark], baseline: float) -> str:
    parts = []
    step = (right - left) / max(len(marks), 1)
    for place, each in enumerate(marks):
        x = left + step * (place + 0.5)
        offset = min(6.0, step / 4) if math.isfinite(each.achieved) and math.isfinite(each.forecast) else 0.0
        color = NOT_BEYOND if each.achieved <= baseline else BEYOND
        if math.isfinite(each.achieved):
            a = round(x - offset, 1)
            parts.append(_span(axis, a, each.achieved_low, each.achieved_high, color))
            parts.append(f'<circle cx="{a}" cy="{axis(each.achieved)}" r="3.6" fill="{color}"/>')
        if math.isfinite(each.forecast):
            f, y = round(x + offset, 1), axis(each.forecast)
            parts.append(_span(axis, f, each.forecast_low, each.forecast_high, FORECAST))
            shape = f"M{f} {y - 4.2:.1f}l4 4.2l-4 4.2l-4 -4.2z"
            parts.append(f'<path d="{shape}" fill="#fff" stroke="{FORECAST}" stroke-width="1.5"/>')
    return "".join(parts)


def _baseline(axis: _Axis, left: float, right: float, value: float, named: bool) -> str:
    if not math.isfinite(value):
        return ""
    y = axis(value)
    line = f'<path d="M{left} {y}H{right}" stroke="{INK}" stroke-width="1.2" stroke-dasharray="4 3"/>'
    return line + (_text(left + 4, y - 4, f"best natural {written(value)}", "start", INK) if named else "")


def _span(axis: _Axis, x: float, low: float, high: float, color: str) -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return _line(x, axis(low), x, axis(high), color, 1.8)


def _synthesized(shown: Sequence[Mark], marks: Sequence[Mark]) -> str:
    return "synthesized" if len(shown) == len(marks) else f"{len(shown)} of {len(marks)} synthesized"


def _spoken(marks: Sequence[Mark], say: Callable[[float], str]) -> str:
    achieved = [say(each.achieved) for each in marks if math.isfinite(each.achieved)]
    forecast = [say(each.forecast) for each in marks if math.isfinite(each.forecast)]
    parts = [
        f"{word} {', '.join(values)}" for word, values in (("achieved", achieved), ("forecast", forecast)) if values
    ]
    return "; ".join(parts) or "not recorded"


def _svg(alt: str, parts: Sequence[str]) -> str:
    label = html.escape(alt, quote=True)
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return f'<svg class="tuning" role="img" aria-label="{label}" {box}>{"".join(parts)}</svg>'


def _line(x: float, y: float, x2: float, y2: float, color: str, width: float) -> str:
    return f'<line x1="{x:g}" y1="{y:g}" x2="{x2:g}" y2="{y2:g}" stroke="{color}" stroke-width="{width:g}"/>'


def _rect(x: float, y: float, width: float, height: float) -> str:
    return f'<rect x="{x:.1f}" y="{y:g}" width="{width:.1f}" height="{max(height, 0.5):.1f}" fill="{NATURAL}"/>'


def _text(x: float, y: float, words: str, anchor: str, color: str = SOFT) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{color}">{html.escape(words)}</text>'
