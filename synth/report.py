"""Show the control that was achieved: one self-contained page, and one picture.

In: a `ControlReport`. Out: HTML without scripts or outside references, or a matplotlib figure. Called by
`ControlReport.to_html`, ``npc report``, the demo. jinja2 and matplotlib are imported when something is rendered.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from PIL import Image

from stimuli.files import atomic_write
from synth import _report_plots as plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stimuli import StimulusSet
    from synth.control import ControlReport

MOST_TARGETS, MOST_IMAGES = 24, 5  # pictures per family and per target; the tables list every target
_PICTURE_BYTES = 3_000_000
_SIDES_PX = (256, 192, 160, 128, 96, 64)
_GAIN = {"stretch": "median_gain", "ohp": "median_improvement"}  # names in the summary


@dataclass(frozen=True)
class _Picture:
    source: str
    alt: str
    natural: bool
    value: str


@dataclass(frozen=True)
class _Card:
    site: str
    objective: str
    mark: str
    word: str
    line: str
    pictures: tuple[_Picture, ...]


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
        What else to state at the end: seed, recipe, versions, device, seconds.

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
    import jinja2

    _check(report)
    shown = {family: plots.spread(rows, MOST_TARGETS) for family, rows in plots.families(report).items()}
    pictures = _encode(report, shown)
    template = files("synth").joinpath("templates/report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    recorded = bool(report.targets["achieved"].notna().any())
    return environment.from_string(template).render(
        title=title,
        recorded=recorded,
        statements=[_statement(report, family) for family in shown],
        natural=len(report.reference),
        sections=[_section(report, family, rows, pictures) for family, rows in shown.items()],
        plots=list(_plots(report, recorded)),
        facts={**_own_facts(report), **(facts or {})},
        gain=plots.gain_text,
        number=_number,
        mark=plots.mark,
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


def _number(value: float, family: str) -> str:
    """Round to three digits, one-hot scores to three decimals; a missing number is an en dash."""
    if not math.isfinite(value):
        return "–"
    decimals = 3 if family == "ohp" or value == 0 else min(4, max(0, 2 - math.floor(math.log10(abs(value)))))
    return f"{value:.{decimals}f}".replace("-", "−")


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _statement(report: ControlReport, family: str) -> str:
    """Say in words what was achieved in one family, or what is forecast."""
    rows, numbers, kind = plots.families(report)[family], report.summary[family], plots.KIND[family]
    measured = rows[rows["achieved"].notna()]
    if not len(measured):
        words = [
            f"the {role} expects {int((forecast > rows['best_natural']).sum())} beyond their best natural image"
            for role in plots.ROLES
            if (forecast := rows[f"forecast_{role}"]).notna().any()
        ]
        return f"{_count(len(rows), f'{kind} target')}: {'; '.join(words) or 'no forecast'}."
    count, one = int(measured["beyond"].astype(bool).sum()), len(measured) == 1
    verb = f"{'was' if one else 'were'} driven beyond" if family == "stretch" else "scored above"
    text = f"{count} of {_count(len(measured), f'{kind} target')} {verb} {'its' if one else 'their'} best natural image"
    gain, ends = numbers[_GAIN[family]], numbers[f"{_GAIN[family]}_interval"]
    if gain is not None:
        interval = f" (95\u00a0% interval over targets {' to '.join(map(plots.gain_text, ends))})" if ends else ""
        text += f"; {'the' if one else 'the median'} gain is {plots.gain_text(gain)}{interval}"
    if "beyond_upper" in measured:
        above = int(measured["beyond_upper"].astype(bool).sum())
        text += f"; {above} also exceed the maximum over all repeats, which noise biases upward"
    ratios = {role: numbers[f"forecast_over_achieved_{role}"] for role in plots.ROLES}
    start = "For it" if one else "In the median"
    words = [f"the {role} forecast {ratio:.2f} times" for role, ratio in ratios.items() if ratio is not None]
    text += "." + (f" {start} {' and '.join(words)} what was achieved." if words else "")
    missing = len(rows) - len(measured)
    return text + (f" {_count(missing, 'further target')} not recorded." if missing else "")


def _encode(report: ControlReport, shown: Mapping[str, pd.DataFrame]) -> dict[tuple[str, str], str]:
    """Encode every picture of the page once, all at the largest size at which the page stays small."""
    objectives = [objective for rows in shown.values() for objective in rows["objective"]]
    wanted: list[tuple[str, StimulusSet, str]] = []
    for objective in objectives:
        best = report.best_natural_ids.get(objective)
        if best is not None:
            wanted.append(("natural", report.reference, best))
        made = plots.made_for(report, objective)["stimulus_id"][:MOST_IMAGES]
        wanted.extend(("made", report.stimuli, name) for name in made)
    for side in _SIDES_PX:
        found: dict[tuple[str, str], str] = {}
        total = 0
        for role, source, name in wanted:
            if (role, name) not in found:
                found[role, name] = _png(source, name, side)
            total += len(found[role, name])
            if total > _PICTURE_BYTES and side != _SIDES_PX[-1]:
                break
        else:
            return found
    return found


def _png(source: StimulusSet, name: str, side: int) -> str:
    codes = source.codes([name])[0]
    image = Image.fromarray(codes[0] if len(codes) == 1 else codes.transpose(1, 2, 0).copy())
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return _inline(buffer.getvalue(), "image/png")


def _inline(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _section(
    report: ControlReport, family: str, shown: pd.DataFrame, pictures: Mapping[tuple[str, str], str]
) -> dict[str, Any]:
    rows = plots.families(report)[family]
    twice = set(rows["target_site"][rows["target_site"].duplicated()])  # then only the objective tells them apart
    cards = [_card(report, family, row, pictures, row["target_site"] in twice) for _, row in shown.iterrows()]
    return {
        "family": family,
        "heading": plots.HEADINGS[family],
        "cards": cards,
        "rows": rows.to_dict("records"),
        "twice": twice,
        "images": min(MOST_IMAGES, int(rows["images"].max())),
        "left_out": int(rows["images"].max()) > MOST_IMAGES,
    }


def _card(
    report: ControlReport, family: str, row: pd.Series, pictures: Mapping[tuple[str, str], str], name_objective: bool
) -> _Card:
    site, objective = str(row["target_site"]), str(row["objective"])
    best, base = report.best_natural_ids.get(objective), _number(row["best_natural"], family)
    shown = []
    if best is not None:
        alt = f"Best natural image for {site}: {best}"
        shown.append(_Picture(pictures["natural", best], alt, True, base))
    recorded = math.isfinite(row["achieved"])
    column = "achieved" if recorded else "forecast_driver"
    for _, image in plots.made_for(report, objective)[:MOST_IMAGES].iterrows():
        name = str(image["stimulus_id"])
        alt = f"Image synthesized for {site}: {name}"
        shown.append(_Picture(pictures["made", name], alt, False, _number(image[column], family)))
    if recorded:
        line = f"achieved {_number(row['achieved'], family)} against {base}: gain\u00a0{plots.gain_text(row['gain'])}"
    else:
        forecasts = [f"{role} forecasts {_number(row[f'forecast_{role}'], family)}" for role in plots.ROLES]
        line = f"{', '.join(forecasts)}; best natural {base}"
    return _Card(site, objective if name_objective else "", *plots.mark(row["beyond"]), line, tuple(shown))


def _plots(report: ControlReport, recorded: bool) -> Iterator[dict[str, str]]:
    for family, rows in plots.families(report).items():
        kind = plots.KIND[family]
        compared = plots.comparable(rows, family)
        if len(compared):
            joined = len(compared.dropna()) and len(compared) <= plots.CONNECT_UP_TO
            alt = f"Scatter of forecast against achieved control for {_count(len(compared), f'{kind} target')}"
            left = int(rows["achieved"].notna().sum()) - len(compared)
            caption = "Below the line the forecast was too high."
            caption += " A gray bar joins the forecasts of one target." if joined else ""
            caption += f" {_count(left, 'target')} without a positive baseline or a forecast left out." if left else ""
            yield {"alt": alt, "caption": caption, "source": _inline(plots.scatter_svg(rows, family), "image/svg+xml")}
        against = "achieved" if recorded else "forecast"
        alt = f"For {_count(len(rows), f'{kind} target')}: best natural image and {against} value, sorted by gain"
        caption = f"Best natural image and {against} value of each target" + (", with its gain." if recorded else ".")
        if len(rows) > plots.MOST_ROWS:
            caption += f" {plots.MOST_ROWS} of {len(rows)} targets, evenly over the ranks."
        yield {"alt": alt, "caption": caption, "source": _inline(plots.paired_svg(rows, family), "image/svg+xml")}


def _own_facts(report: ControlReport) -> dict[str, str]:
    channels, height, width = report.stimuli.shape
    return {
        "synthesized images": str(len(report.images)),
        "natural images": str(len(report.reference)),
        "image size": f"{channels} × {height} × {width} px (channel, height, width), {report.stimuli.size_deg:g} deg",
    }
