"""One card of the control report per target: pictures, numbers with intervals, tuning strip, flags.

In: a `ControlReport` and its encoded pictures. Out: frozen cards that the template writes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from synth import _report_rows as rows_of
from synth import _report_words as words
from synth._report_pictures import Pictures
from synth._report_rows import value
from synth._report_strips import Mark, population_strip, tuning_strip

if TYPE_CHECKING:
    from stimuli import StimulusSet
    from synth.control import ControlReport

MOST_TARGETS, MOST_IMAGES = 24, 5  # pictures per family and per target; the tables list every target


@dataclass(frozen=True)
class Picture:
    """A picture with its caption: what it is, lines of numbers, and a flag."""

    source: str
    alt: str
    natural: bool
    title: str
    lines: tuple[str, ...]
    flag: str


@dataclass(frozen=True)
class Card:
    """A target."""

    site: str
    objective: str
    mark: str
    word: str
    test: str
    pictures: tuple[Picture, ...]
    strip: str
    numbers: tuple[tuple[str, str, str], ...]  # what, value, interval
    flags: str  # where not every image is shown


def wanted_pictures(report: ControlReport, targets: pd.DataFrame) -> list[tuple[str, StimulusSet, str]]:
    """Return role, set and id of every picture that the cards of these targets show."""
    wanted: list[tuple[str, StimulusSet, str]] = []
    for objective in targets["objective"]:
        best = report.best_natural_ids.get(objective)
        if best is not None:
            wanted.append(("natural", report.reference, best))
        made = rows_of.made_for(report, objective)["stimulus_id"][:MOST_IMAGES]
        wanted.extend(("made", report.stimuli, str(name)) for name in made)
    return wanted


def card(report: ControlReport, family: str, row: pd.Series, pictures: Pictures, name_objective: bool) -> Card:
    """Make the card of one target."""
    site, objective = str(row["target_site"]), str(row["objective"])
    made = rows_of.made_for(report, objective)
    shown = []
    best = report.best_natural_ids.get(objective)
    if best is not None:
        alt = f"Best natural image for {site}: {best}"
        lines = (_with_unit(value(row, "best_natural"), family, report.unit),)
        shown.append(Picture(pictures.sources["natural", best], alt, True, "best natural", lines, ""))
    flags = rows_of.flags(made)
    for place, ((_, image), flag) in enumerate(zip(made[:MOST_IMAGES].iterrows(), flags, strict=False), 1):
        name = str(image["stimulus_id"])
        alt = f"Image synthesized for {site}: {name}"
        title = f"synthesized {place}" if len(made) > 1 else "synthesized"
        if not math.isfinite(value(image, "achieved")) and math.isfinite(value(image, "forecast")):
            title += ", forecast"
        source = pictures.sources["made", name]
        shown.append(Picture(source, alt, False, title, tuple(_captions(image, family, report.unit)), flag))
    significant = row.get("significant")
    p = value(row, "p_value")
    tested = f"p\u00a0{'' if p < 0.001 else '= '}{words.p_text(p)}" if math.isfinite(p) else ""
    if tested and pd.notna(significant):
        tested += ", significant" if significant else ", not significant"
    flagged = int((flags != "").sum())
    return Card(
        site,
        objective if name_objective else "",
        *words.mark(row["beyond"]),
        tested,
        tuple(shown),
        _strip(report, family, row, made),
        tuple(_numbers(row, family)),
        f"{flagged} of {words.count(len(made), 'image')} flagged" if flagged and len(made) > MOST_IMAGES else "",
    )


def _with_unit(amount: float, family: str, unit: str) -> str:
    unit = words.unit_of(family, unit)
    return words.number(amount, family) + (f"\u00a0{unit}" if unit and math.isfinite(amount) else "")


def _captions(image: pd.Series, family: str, unit: str) -> list[str]:
    lines = []
    if math.isfinite(achieved := value(image, "achieved")):
        ends = words.interval(value(image, "achieved_low"), value(image, "achieved_high"), family)
        lines.append(f"{words.number(achieved, family)} ({ends})" if ends else _with_unit(achieved, family, unit))
    if math.isfinite(forecast := value(image, "forecast")):
        ends = words.interval(value(image, "forecast_low"), value(image, "forecast_high"), family)
        word = "forecast " if math.isfinite(achieved) else ""  # otherwise the title says it
        lines.append(f"{word}{words.number(forecast, family)}" + (f" ({ends})" if ends else ""))
    elif not math.isfinite(achieved):
        lines += [
            f"{role} {words.number(value(image, f'forecast_{role}'), family)}"
            for role in rows_of.ROLES
            if math.isfinite(value(image, f"forecast_{role}"))
        ]
    if math.isfinite(base := value(image, "base_achieved")):
        lines.append(f"its base image {words.number(base, family)}")
    return lines


def _numbers(row: pd.Series, family: str) -> list[tuple[str, str, str]]:
    """Return what stands beside the strip: name, value and interval; nothing for what the report lacks."""
    achieved, gain = value(row, "achieved"), value(row, "gain")
    found = []
    if math.isfinite(achieved):
        ends = words.interval(value(row, "achieved_low"), value(row, "achieved_high"), family)
        found.append(("achieved", words.number(achieved, family), ends))
        ends = words.gain_interval(value(row, "gain_low"), value(row, "gain_high"), family)
        found.append(("gain", words.gain_text(gain, family), ends))
    ends = words.interval(value(row, "forecast_low"), value(row, "forecast_high"), family)
    found.append(("forecast, calibrated", words.number(value(row, "forecast"), family), ends))
    found += [(f"forecast, {r}", words.number(value(row, f"forecast_{r}"), family), "") for r in rows_of.ROLES]
    if math.isfinite(over := value(row, "gain_over_base")):
        found.append(("gain over base image", words.gain_text(over, family), ""))
    return [each for each in found if each[1] != "–"]


def _strip(report: ControlReport, family: str, row: pd.Series, made: pd.DataFrame) -> str:
    """Draw the tuning strip of a stretch target, the population of any other; nothing where responses are unknown."""
    site, baseline = str(row["target_site"]), value(row, "best_natural")
    if not report.natural_means.size or (site not in report.site_ids and family == "stretch"):
        return ""
    forecast = rows_of.shown_forecast(report)
    marks = [
        Mark(
            achieved=value(image, "achieved"),
            achieved_low=value(image, "achieved_low"),
            achieved_high=value(image, "achieved_high"),
            forecast=value(image, forecast or ""),
            forecast_low=value(image, "forecast_low") if forecast == "forecast" else math.nan,
            forecast_high=value(image, "forecast_high") if forecast == "forecast" else math.nan,
        )
        for _, image in made.iterrows()
    ]
    if family == "stretch":
        natural = report.natural_means[:, report.site_ids.index(site)]
        return tuning_strip(site, natural, baseline, marks, report.unit)
    at = _population(str(row["objective"]), report.site_ids)
    best = report.best_natural_ids.get(str(row["objective"]))
    natural = report.natural_means[:, at]
    return population_strip(
        site,
        [report.site_ids[k] for k in at],
        natural,
        None if best is None else natural[list(report.reference.stimulus_ids).index(best)],
        None if report.achieved_means is None else report.achieved_means[np.ix_(_positions(report, made), at)],
        baseline,
        marks,
        "one-hot score" if family == "ohp" else "score",
    )


def _positions(report: ControlReport, made: pd.DataFrame) -> list[int]:
    """Return where images stand among all images of the report."""
    return [int(k) for k in report.images.index.get_indexer(made.index)]


def _population(objective: str, site_ids: tuple[str, ...]) -> list[int]:
    """Return the columns of the recorded sites on which the score depends, all of them where that is unknown."""
    import torch

    from synth._objective_sites import read_columns
    from synth.objectives import SiteScale, parse_objective

    everything = SiteScale(site_ids, torch.zeros(len(site_ids)), torch.ones(len(site_ids)))
    try:
        return read_columns(parse_objective(objective), everything)
    except (ValueError, TypeError):  # a name that was not recorded
        return list(range(len(site_ids)))
