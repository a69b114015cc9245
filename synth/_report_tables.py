"""Tables of the control report: every target, every image, reference families, flags.

In: a `ControlReport`. Out: frozen tables of text, which one macro of the template writes. A column without any number
is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from synth import _report_rows as rows_of
from synth import _report_words as words
from synth._report_rows import value

if TYPE_CHECKING:
    from synth.control import ControlReport

MOST_IMAGE_ROWS = 2000


@dataclass(frozen=True)
class Cell:
    """A value, what stands small below it, and a class for its color."""

    text: str
    small: str = ""
    look: str = ""


@dataclass(frozen=True)
class Table:
    """A table: the first column names the rows."""

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    folded: str = ""  # words on the button that unfolds it


_Writer = Callable[[pd.Series], Cell]


def _plain(name: str, family: str) -> _Writer:
    return lambda row: Cell(words.number(value(row, name), family))


def _ranged(name: str, family: str) -> _Writer:
    def write(row: pd.Series) -> Cell:
        ends = words.interval(value(row, f"{name}_low"), value(row, f"{name}_high"), family)
        return Cell(words.number(value(row, name), family), ends)

    return write


def _gain(name: str, family: str) -> _Writer:
    def write(row: pd.Series) -> Cell:
        ends = words.gain_interval(value(row, f"{name}_low"), value(row, f"{name}_high"), family)
        return Cell(words.gain_text(value(row, name), family), ends)

    return write


def _tested(row: pd.Series) -> Cell:
    """Write a p-value, and below it whether it is among the discoveries."""
    sure = value(row, "significant")
    word = "" if math.isnan(sure) else "significant" if sure else "not significant"
    return Cell(words.p_text(value(row, "p_value")), word)


def _beyond(row: pd.Series) -> Cell:
    sign, word = words.mark(row["beyond"])
    return Cell(f"{sign} {word}", "", word.replace(" ", "-"))


def target_table(report: ControlReport, family: str, rows: pd.DataFrame) -> Table:
    """Return the table of all targets of a family."""
    unit = words.unit_of(family, report.unit)
    twice = set(rows["target_site"][rows["target_site"].duplicated()])  # then only the objective tells them apart

    def name(row: pd.Series) -> Cell:
        return Cell(str(row["target_site"]), str(row["objective"]) if row["target_site"] in twice else "")

    def best(row: pd.Series) -> Cell:
        upper = value(row, "best_natural_upper")  # the maximum over all repeats: noise biases it upward
        return Cell(
            words.number(value(row, "best_natural"), family),
            f"at most {words.number(upper, family)}" if math.isfinite(upper) else "",
        )

    writers: dict[str, _Writer] = {"target": name, "images": lambda row: Cell(str(row["images"]))}
    writers["best natural"] = best
    if rows_of.recorded(report):
        writers |= {"achieved": _ranged("achieved", family), "gain": _gain("gain", family)}
        writers["beyond best natural"] = _beyond
        if rows_of.has(rows, "p_value"):
            writers["p"] = _tested
    others: dict[str, tuple[str, _Writer]] = {
        "forecast, calibrated": ("forecast", _ranged("forecast", family)),
        "forecast, driver": ("forecast_driver", _plain("forecast_driver", family)),
        "forecast, validator": ("forecast_validator", _plain("forecast_validator", family)),
        "best five natural": ("best5_natural", _plain("best5_natural", family)),
        "natural 99th percentile": ("p99_natural", _plain("p99_natural", family)),
        "gain over base image": ("gain_over_base", _gain("gain_over_base", family)),
    }
    writers |= {head: write for head, (column, write) in others.items() if rows_of.has(rows, column)}
    if "flagged" in rows:
        writers["flagged"] = lambda row: Cell(f"{value(row, 'flagged'):.0f}")
    kind = words.kind(family).capitalize()
    scale = {"stretch": f"responses{f' in {unit}' if unit else ' in the unit of the recordings'}"}
    caption = f"{kind}: {scale.get(family, 'scores between 0 and 1' if family == 'ohp' else 'scores of the objective')}"
    if "p" in writers:
        caption += f"; significant: false discovery rate held at q = {_q(report, family)}"
    return _table(f"targets-{family}", caption, writers, rows)


def image_table(report: ControlReport, family: str) -> Table:
    """Return the table of all images of a family, folded until it is asked for."""
    rows = report.images[report.images["family"] == family]
    shown = rows[:MOST_IMAGE_ROWS]
    writers: dict[str, _Writer] = {
        "image": lambda row: Cell(str(row["stimulus_id"])),
        "target": lambda row: Cell(str(row["target_site"])),
    }
    optional: dict[str, tuple[str, _Writer]] = {
        "achieved": ("achieved", _ranged("achieved", family)),
        "forecast, calibrated": ("forecast", _ranged("forecast", family)),
        "forecast, driver": ("forecast_driver", _plain("forecast_driver", family)),
        "forecast, validator": ("forecast_validator", _plain("forecast_validator", family)),
        "its base image": ("base_achieved", _plain("base_achieved", family)),
    }
    writers |= {head: write for head, (column, write) in optional.items() if rows_of.has(rows, column)}
    if (rows_of.flags(rows) != "").any():
        writers["flag"] = lambda row: Cell(str(row["flag"] or "") if pd.notna(row["flag"]) else "", "", "words")
    kind = words.kind(family).capitalize()
    some = f", the first {len(shown):,} of {len(rows):,}" if len(shown) < len(rows) else ""
    folded = f"{kind}: every image ({len(rows):,})"
    return _table(f"images-{family}", f"{kind}: images{some}", writers, shown, folded)


def reference_table(report: ControlReport) -> Table | None:
    """Return the baselines of every target in each family of reference stimuli, side by side."""
    rows = report.families
    if not len(rows):
        return None
    found = {(row["objective"], str(row["reference_family"])): row for _, row in rows.iterrows()}
    sizes = rows.groupby("reference_family", sort=False)["n"].max()

    def write(name: str) -> _Writer:
        def cell(target: pd.Series) -> Cell:
            row = found.get((target["objective"], name))
            if row is None:
                return Cell("–")
            best, five, p99 = (words.number(value(row, key), target["family"]) for key in ("best", "best5", "p99"))
            return Cell(best, f"{five} / {p99}")

        return cell

    writers: dict[str, _Writer] = {"target": lambda row: Cell(str(row["target_site"]), words.kind(str(row["family"])))}
    writers |= {f"{name} ({int(n):,})": write(str(name)) for name, n in sizes.items()}
    if rows_of.recorded(report):
        writers["achieved by synthesis"] = lambda row: Cell(words.number(value(row, "achieved"), row["family"]))
    shown = report.targets[report.targets["objective"].isin(rows["objective"])]
    caption = "Best stimulus of each family (number of stimuli); below it the mean of the best five / 99th percentile"
    return _table("families", caption, writers, shown, f"All {len(shown)} targets" if len(shown) > 40 else "")


def flag_table(report: ControlReport) -> Table | None:
    """Return the images on which the judges disagree, if there are any."""
    flags = rows_of.flags(report.images)
    rows = report.images[flags != ""]
    if not len(rows):
        return None
    writers: dict[str, _Writer] = {
        "image": lambda row: Cell(str(row["stimulus_id"])),
        "target": lambda row: Cell(str(row["target_site"]), words.kind(str(row["family"]))),
        "flag": lambda row: Cell(str(row["flag"]), "", "words"),
    }
    if rows_of.has(rows, "achieved"):
        writers["achieved"] = lambda row: Cell(words.number(value(row, "achieved"), str(row["family"])))
    return _table("flagged", f"{words.count(len(rows), 'image')} of {len(report.images):,} flagged", writers, rows)


def _q(report: ControlReport, family: str) -> str:
    block = report.summary.get(family) or report.summary.get("other") or {}
    return f"{block.get('q') or 0.05:g}".removeprefix("0")


def _table(name: str, caption: str, writers: dict[str, _Writer], rows: pd.DataFrame, folded: str = "") -> Table:
    def lines() -> Iterator[tuple[Cell, ...]]:
        for _, row in rows.iterrows():
            yield tuple(write(row) for write in writers.values())

    return Table(name, caption, tuple(writers), tuple(lines()), folded)
