"""Drawings of the control report: forecast against achieved, and best natural beside achieved.

In: the table of targets of a `ControlReport`. Out: matplotlib axes and SVG text. matplotlib is imported when drawing.
Intervals are drawn where the report holds them.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from synth._report_rows import column, families, has, made_for, spread
from synth._report_words import (
    BEYOND,
    INK,
    NOT_BEYOND,
    PALE,
    gain_text,
    heading,
    kind,
    mark,
    short,
    value_name,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from synth.control import ControlReport

# Marker, face and edge differ, so that the forecasts can be told apart without color.
LOOKS: dict[str, dict[str, Any]] = {
    "forecast_driver": {"marker": "o", "markerfacecolor": "#0b62a8", "markeredgecolor": "white", "markersize": 8},
    "forecast_validator": {"marker": "D", "markerfacecolor": "white", "markeredgecolor": "#c2670a", "markersize": 6},
    "forecast": {"marker": "s", "markerfacecolor": "#5b3a8c", "markeredgecolor": "white", "markersize": 8},
}
LABELS = {"forecast_driver": "driver", "forecast_validator": "validator", "forecast": "calibrated"}
MOST_ROWS = 40
CONNECT_UP_TO = 40


@contextmanager
def plain_style() -> Iterator[None]:
    """Draw alike on every machine: matplotlib's own defaults, not the user's settings."""
    import matplotlib.style

    ours = {
        "axes.edgecolor": PALE,
        "axes.labelcolor": INK,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "font.size": 9.5,
        "svg.fonttype": "none",  # text stays text: small files, any script
        "svg.hashsalt": "control report",  # otherwise the ids inside the file are random
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    with matplotlib.style.context(["default", ours]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in a script that the font lacks is still a name
        yield


def svg(figure: Figure) -> bytes:
    """Render a figure as SVG without a time stamp."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()


def comparable(rows: pd.DataFrame, family: str) -> pd.DataFrame:
    """Return forecasts and achieved values per target on the scale of the scatter, where they can be compared.

    Stretch is divided by each target's best natural image, so that 1 is the best natural image; other scores stay.
    """
    names = ["achieved", "achieved_low", "achieved_high", "forecast_low", "forecast_high", *LOOKS]
    values = pd.DataFrame({name: column(rows, name) for name in names})
    if family == "stretch":
        values = values.div(rows["best_natural"].where(rows["best_natural"] > 0), axis=0)
    return values[values["achieved"].notna() & values[list(LOOKS)].notna().any(axis=1)]


def draw_scatter(axes: Axes, rows: pd.DataFrame, family: str, *, intervals: bool = True) -> None:
    """Draw what was forecast (x) against what was achieved (y), one point per target and forecast."""
    values = comparable(rows, family)
    low, high = _limits(values, family)
    if family == "stretch":
        axes.axhspan(1, high, color=BEYOND, alpha=0.07, linewidth=0, zorder=0)
        inset = 0.02 * (high - low)
        axes.text(low + inset, high - inset, "beyond the best natural image", color=BEYOND, fontsize="small", va="top")
    if len(values) <= CONNECT_UP_TO:
        forecasts = values[list(LOOKS)]
        axes.hlines(
            values["achieved"], forecasts.min(axis=1), forecasts.max(axis=1), color=PALE, linewidth=0.8, zorder=2
        )
    if len(values) <= CONNECT_UP_TO and intervals:
        axes.hlines(
            values["achieved"], values["forecast_low"], values["forecast_high"], color="#5b3a8c", linewidth=2.2,
            alpha=0.45, zorder=2,
        )  # fmt: skip
        best = next((name for name in reversed(LOOKS) if values[name].notna().any()), "forecast_driver")
        axes.vlines(values[best], values["achieved_low"], values["achieved_high"], color=PALE, linewidth=1.2, zorder=2)
    for name, look in LOOKS.items():
        if values[name].notna().any():
            axes.plot(values[name], values["achieved"], linestyle="", label=LABELS[name], zorder=3, **look)
    axes.plot([low, high], [low, high], color=PALE, linewidth=1, label="equal", zorder=1)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    unit = " / best natural" if family == "stretch" else f" {value_name(family, '')}"
    axes.set_xlabel(f"forecast{unit}")
    axes.set_ylabel(f"achieved{unit}")
    axes.set_title(kind(family).capitalize(), loc="left", fontweight="bold", pad=24)
    _legend(axes, 4 if values["forecast"].notna().any() else 3)


def _limits(values: pd.DataFrame, family: str) -> tuple[float, float]:
    if family == "ohp":
        return -0.02, 1.02
    low, high = float(values.min().min()), float(values.max().max())
    if family == "stretch":
        low, high = min(low, 1.0), max(high, 1.0)
    margin = 0.08 * (high - low) or 0.1
    return low - margin, high + margin


def draw_paired(axes: Axes, rows: pd.DataFrame, family: str, unit: str = "") -> None:
    """Draw, for each target, the best natural image joined to what was achieved (or forecast), sorted by gain."""
    ranked = spread(rows, MOST_ROWS)
    natural = ranked["best_natural"].to_numpy(float)
    achieved = ranked["achieved"].to_numpy(float)
    at = np.arange(len(ranked))[::-1]
    if np.isfinite(achieved).any():
        beyond = achieved > natural
        low, high = column(ranked, "achieved_low").to_numpy(), column(ranked, "achieved_high").to_numpy()
        axes.hlines(at, natural, achieved, color=PALE, linewidth=1.2, zorder=1)
        for chosen, color, marker, word in ((beyond, BEYOND, "o", "beyond"), (~beyond, NOT_BEYOND, "s", "not beyond")):
            chosen = chosen & np.isfinite(achieved)
            if chosen.any():
                axes.plot(achieved[chosen], at[chosen], marker, color=color, markersize=7, label=word, zorder=3)
                axes.hlines(at[chosen], low[chosen], high[chosen], color=color, linewidth=3, alpha=0.4, zorder=2)
        for height, gain in zip(at, ranked["gain"], strict=True):
            axes.annotate(
                gain_text(gain, family), (1.02, height), xycoords=("axes fraction", "data"), va="center",
                fontsize="small",
            )  # fmt: skip
    else:
        for name, look in LOOKS.items():
            if has(ranked, name):
                forecast = column(ranked, name).to_numpy()
                axes.hlines(at, natural, forecast, color=PALE, linewidth=1.2, zorder=1)
                if name == "forecast":
                    ends = column(ranked, "forecast_low"), column(ranked, "forecast_high")
                    axes.hlines(at, *ends, color="#5b3a8c", linewidth=3, alpha=0.4, zorder=2)
                axes.plot(forecast, at, linestyle="", label=LABELS[name], zorder=3, **look)
    axes.plot(natural, at, "o", markerfacecolor="white", markeredgecolor=INK, markersize=6, label="best natural")
    axes.set_yticks(at, labels=[short(name) for name in ranked["target_site"]], parse_math=False)
    axes.set_ylim(-0.7, len(ranked) - 0.3)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(value_name(family, unit), parse_math=False)
    axes.set_title(kind(family).capitalize(), loc="left", fontweight="bold", pad=24)
    _legend(axes, 4 if has(rows, "forecast") else 3)


def _legend(axes: Axes, columns: int) -> None:
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1), borderaxespad=0.1, ncols=columns, frameon=False, handletextpad=0.3,
        columnspacing=0.9, handlelength=1.2, fontsize="small",
    )  # fmt: skip


def scatter_svg(rows: pd.DataFrame, family: str) -> bytes:
    """Render the scatter of one family as SVG."""
    from matplotlib.figure import Figure

    with plain_style():
        figure = Figure(figsize=(5.0, 5.3), layout="constrained")
        draw_scatter(figure.add_subplot(), rows, family)
        return svg(figure)


def paired_svg(rows: pd.DataFrame, family: str, unit: str) -> bytes:
    """Render the paired dots of one family as SVG."""
    from matplotlib.figure import Figure

    with plain_style():
        figure = Figure(figsize=(5.0, 1.3 + 0.29 * min(len(rows), MOST_ROWS)), layout="constrained")
        draw_paired(figure.add_subplot(), rows, family, unit)
        return svg(figure)


def draw_control(report: ControlReport) -> Figure:
    """Draw the picture of `synth.report.control_figure`."""
    from matplotlib.figure import Figure

    shown = {family: spread(rows, 8) for family, rows in families(report).items()}
    cell, left, top, block, side = 142, 50, 52, 408, 400  # px
    columns = max(2, *(len(rows) for rows in shown.values()))
    width, height = left + columns * cell + side, top + block * len(shown) + 20
    with plain_style():
        figure = Figure(figsize=(width / 100, height / 100), dpi=100)

        def add(x: float, y: float, w: float, h: float) -> Axes:  # px from the upper left corner
            return figure.add_axes((x / width, 1 - (y + h) / height, w / width, h / height))

        for number, (family, rows) in enumerate(shown.items()):
            upper = top + number * block
            figure.text(10 / width, 1 - (upper + 14) / height, heading(family), fontsize=12, va="center")
            _draw_grid(add, report, rows, left, upper + 54, cell)
            plot, everything = add(width - side + 84, upper + 54, side - 124, side - 124), families(report)[family]
            if len(comparable(everything, family)):
                draw_scatter(plot, everything, family, intervals=False)  # too small for them
            else:
                draw_paired(plot, rows, family)
            plot.set_title("", loc="left")  # the heading above the pictures says it
        size = 14 if columns > 4 else 10  # the line must fit a narrow figure
        figure.text(10 / width, 1 - 24 / height, _headline(report), fontsize=size, fontweight="bold", va="center")
        if report.targets["achieved"].notna().any():
            note = "▲ beyond the best natural image   ▽ not beyond   Percentage: gain, mean over the target's images"
            figure.text(10 / width, 14 / height, note, fontsize=9.5, color=PALE, va="center")
    return figure


def _headline(report: ControlReport) -> str:
    measured = report.targets[report.targets["achieved"].notna()]
    if measured.empty:
        return "Forecast only: the images have not been shown yet"
    parts = [
        f"{int(rows['beyond'].astype(bool).sum())} of {len(rows)} {kind(str(family))}"
        for family, rows in measured.groupby("family", sort=False)
    ]
    return f"Beyond the best natural image: {', '.join(parts)} target{'s' if len(measured) > 1 else ''}"


def _draw_grid(
    add: Callable[[float, float, float, float], Axes],
    report: ControlReport,
    rows: pd.DataFrame,
    left: int,
    upper: int,
    cell: int,
) -> None:
    """Draw one column per target: its best natural image over the first image made for it."""
    for place, (_, row) in enumerate(rows.iterrows()):
        sign, word = mark(row["beyond"])
        color = {"▲": BEYOND, "▽": NOT_BEYOND, "○": PALE}[sign]
        made = made_for(report, row["objective"])["stimulus_id"].iloc[0]
        both = ((report.reference, report.best_natural_ids.get(row["objective"])), (report.stimuli, made))
        for line, (source, name) in enumerate(both):
            axes = add(left + place * cell, upper + line * (cell + 2), cell - 8, cell - 8)
            axes.set(xticks=[], yticks=[])
            if name is not None:
                codes = source.codes([name])[0]
                pixels = codes[0] if len(codes) == 1 else codes.transpose(1, 2, 0)
                axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="lanczos", aspect="auto")
            for spine in axes.spines.values():
                spine.set(visible=True, color=color if line else PALE, linewidth=2.5 if line else 1)
            if place == 0:
                axes.set_ylabel("synthesized" if line else "best natural", fontsize=10.5, labelpad=8)
            if line == 0:
                axes.set_title(short(row["target_site"], 16), fontsize=10.5, pad=6, parse_math=False)
            else:
                text = word if sign == "○" else f"{sign} {gain_text(row['gain'], row['family'])}"
                axes.set_xlabel(text, fontsize=11.5, color=color, labelpad=5)
