"""Show the control that was achieved: one self-contained page, and one picture.

In: a `ControlReport`. Out: HTML without scripts or outside references, or a matplotlib figure. Called by
`ControlReport.to_html`, ``npc report``, the demo. jinja2 and matplotlib are imported when something is rendered.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from stimuli.files import atomic_write
from stimuli.templating import render
from synth import _report_methods as methods
from synth import _report_plots as plots
from synth import _report_rows as rows_of
from synth import _report_tables as tables
from synth import _report_words as words
from synth._report_cards import MOST_IMAGES, MOST_TARGETS, card, wanted_pictures
from synth._report_pictures import encode, inline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from synth._report_pictures import Pictures
    from synth.control import ControlReport


def render_report(
    report: ControlReport, *, title: str = "Neural population control", facts: Mapping[str, str] | None = None
) -> str:
    """Render a control report as one self-contained HTML page.

    The page has no script and asks for nothing from outside; its pictures are inside. At most 24 targets of a family
    are shown in pictures, evenly over the ranks of their gain; the tables hold all of them.

    Parameters
    ----------
    report : ControlReport
        What to show.
    title : str
        Heading of the page.
    facts : mapping of str to str, optional
        What else to state at the end. The methods take up ``driver``, ``validator``, ``recipe``, ``repeats``, ``seed``,
        ``device`` and ``versions``; what neither they nor the provenance of the sets tell is marked as not stated.

    Returns
    -------
    str
        The page. Equal reports and facts give equal text.

    Raises
    ------
    ValueError
        When the report holds no target.

    Examples
    --------
    >>> page = render_report(report, facts={"recipe": "robust"})  # doctest: +SKIP
    """
    _check(report)
    shown = {family: rows_of.spread(rows, MOST_TARGETS) for family, rows in rows_of.families(report).items()}
    pictures = encode([wanted for rows in shown.values() for wanted in wanted_pictures(report, rows)])
    told = facts or {}
    return render(
        "synth",
        "report.html.j2",
        title=title,
        recorded=rows_of.recorded(report),
        statements=[methods.statement(report, family) for family in shown],
        natural=len(report.reference),
        sections=[_section(report, family, rows, pictures) for family, rows in shown.items()],
        forecast=rows_of.FORECASTS.get(rows_of.shown_forecast(report) or "", ""),
        plots=list(_plots(report)),
        flagged=tables.flag_table(report),
        reference=tables.reference_table(report),
        methods=methods.methods(report, told),
        note=pictures.note,
        facts={**_own_facts(report), **told},
    )


def control_figure(report: ControlReport) -> Figure:
    """Draw natural over synthesized images for up to eight targets of each family, and forecast against achieved.

    The targets are taken evenly over the ranks of their gain, and for each the first image made for it: nothing is
    picked for its looks. Before anything was recorded, forecasts beside the best natural image take the right side.

    Parameters
    ----------
    report : ControlReport
        What to show.

    Returns
    -------
    matplotlib.figure.Figure
        About 1600 x 900 px with eight targets of both families, smaller with fewer.

    Raises
    ------
    ValueError
        When the report holds no target.

    Examples
    --------
    >>> figure = control_figure(report)  # doctest: +SKIP
    """
    _check(report)
    return plots.draw_control(report)


def save_control_figure(report: ControlReport, path: str | Path) -> Path:
    """Write `control_figure` as a PNG; equal reports give equal bytes.

    Parameters
    ----------
    report : ControlReport
        What to show.
    path : str or Path
        File to write.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        When the report holds no target.
    OSError
        When the file cannot be written.

    Examples
    --------
    >>> save_control_figure(report, "control.png")  # doctest: +SKIP
    """
    buffer = io.BytesIO()
    figure = control_figure(report)
    with plots.plain_style():
        figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return atomic_write(path, buffer.getvalue())


def _check(report: ControlReport) -> None:
    if not len(report.targets):
        raise ValueError("the control report holds no target; evaluate at least one synthesized image")


def _section(report: ControlReport, family: str, shown: pd.DataFrame, pictures: Pictures) -> dict[str, Any]:
    rows = rows_of.families(report)[family]
    twice = set(rows["target_site"][rows["target_site"].duplicated()])  # then only the objective tells them apart
    cards = [card(report, family, row, pictures, row["target_site"] in twice) for _, row in shown.iterrows()]
    unit = words.unit_of(family, report.unit) or "the unit of the recordings"
    scales = {"stretch": f"response in {unit}", "suppress": f"score, minus the response in {unit}"}
    return {
        "family": family,
        "heading": words.heading(family),
        "kind": words.kind(family),
        "figures": list(methods.key_figures(report, family)),
        "cards": cards,
        "targets": len(rows),
        "scale": scales.get(family, "score"),
        "images": min(MOST_IMAGES, int(rows["images"].max())),
        "left_out": int(rows["images"].max()) > MOST_IMAGES,
        "strips": any(each.strip for each in cards),
        "table": tables.target_table(report, family, rows),
        "image_table": tables.image_table(report, family),
    }


def _plots(report: ControlReport) -> Iterator[dict[str, str]]:
    recorded = rows_of.recorded(report)
    for family, rows in rows_of.families(report).items():
        kind = words.kind(family)
        compared = plots.comparable(rows, family)
        if len(compared):
            joined = (compared[list(plots.LOOKS)].notna().sum(axis=1) > 1).any()
            alt = f"Scatter of forecast against achieved control for {words.count(len(compared), f'{kind} target')}"
            left = int(rows["achieved"].notna().sum()) - len(compared)
            caption = "Below the line the forecast was too high."
            few = len(compared) <= plots.CONNECT_UP_TO
            caption += " A gray bar joins the forecasts of one target." if joined and few else ""
            caption += (
                f" {words.count(left, 'target')} without a positive baseline or a forecast left out." if left else ""
            )
            if few and rows_of.has(rows, "achieved_low"):
                caption += " Upright bars: 95 % intervals of what was achieved."
            if few and rows_of.has(rows, "forecast_low"):
                caption += " Violet bars: intervals of the calibrated forecast."
            yield {"alt": alt, "caption": caption, "source": inline(plots.scatter_svg(rows, family), "image/svg+xml")}
        against = "achieved" if recorded else "forecast"
        alt = f"For {words.count(len(rows), f'{kind} target')}: best natural image and {against} value, sorted by gain"
        caption = f"Best natural image and {against} value of each target" + (", with its gain." if recorded else ".")
        if recorded and rows_of.has(rows, "achieved_low"):
            caption += " Colored bars: 95 % intervals."
        if len(rows) > plots.MOST_ROWS:
            caption += f" {plots.MOST_ROWS} of {len(rows)} targets, evenly over the ranks."
        drawn = inline(plots.paired_svg(rows, family, report.unit), "image/svg+xml")
        yield {"alt": alt, "caption": caption, "source": drawn}


def _own_facts(report: ControlReport) -> dict[str, str]:
    channels, height, width = report.stimuli.shape
    return {
        "synthesized images": str(len(report.images)),
        "natural images": str(len(report.reference)),
        "image size": f"{channels} × {height} × {width} px (channel, height, width), {report.stimuli.size_deg:g} deg",
    }
