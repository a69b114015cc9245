"""Sentences of the control report: what was achieved, and how it was measured, with the numbers that a paper needs.

In: a `ControlReport` and facts told by whoever made it. Out: text. What the report cannot know is said to be missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from synth import _report_rows as rows_of
from synth import _report_words as words

if TYPE_CHECKING:
    from stimuli import StimulusSet
    from synth.control import ControlReport

_GAIN = {"stretch": "median_gain", "ohp": "median_improvement"}  # names in the summary
_WHO = {"forecast": "calibrated forecast", "forecast_driver": "driver", "forecast_validator": "validator"}
_MISSING = "[not stated to this report]"


def statement(report: ControlReport, family: str) -> str:
    """Say in words what was achieved in one family, or what is forecast."""
    rows, kind = rows_of.families(report)[family], words.kind(family)
    numbers = _block(report, family)
    measured = rows[rows["achieved"].notna()]
    if not len(measured):
        told = [
            f"the {who} expects {int((rows[name] > rows['best_natural']).sum())} beyond their best natural image"
            for name, who in _WHO.items()
            if rows_of.has(rows, name)
        ]
        return f"{words.count(len(rows), f'{kind} target')}: {'; '.join(told) or 'no forecast'}."
    beyond, one = int(measured["beyond"].astype(bool).sum()), len(measured) == 1
    verb = f"{'was' if one else 'were'} driven beyond" if family == "stretch" else "scored above"
    of = words.count(len(measured), f"{kind} target")
    text = f"{beyond} of {of} {verb} {'its' if one else 'their'} best natural image"
    gain, ends = median_gain(report, family)
    if np.isfinite(gain):
        between = f" (95{words.NBSP}% interval over targets {ends})" if ends else ""
        text += f"; {'the' if one else 'the median'} gain is {words.gain_text(gain, family)}{between}"
    if rows_of.has(measured, "significant"):
        sure = int(rows_of.column(measured, "significant").sum())
        text += f"; {sure} significantly, at a false discovery rate of {_q(report, family):g}"
    if rows_of.has(measured, "beyond_upper"):
        above = int(measured["beyond_upper"].astype(bool).sum())
        text += f"; {above} also exceed the maximum over all repeats, which noise biases upward"
    ratios = {f"the {role}": numbers.get(f"forecast_over_achieved_{role}") for role in rows_of.ROLES}
    ratios["the calibrated forecast"] = numbers.get("forecast_over_achieved")
    start = "For it" if one else "In the median"
    told = [
        f"{who} {'was' if who.endswith('forecast') else 'forecast'} {ratio:.2f} times"
        for who, ratio in ratios.items()
        if ratio is not None
    ]
    joined = f"{', '.join(told[:-1])} and {told[-1]}" if len(told) > 1 else "".join(told)
    text += "." + (f" {start} {joined} what was achieved." if told else "")
    if numbers.get("coverage") is not None:
        text += f" {_percent(numbers['coverage'])} of images lie within their calibrated interval."
    missing = len(rows) - len(measured)
    return text + (f" {words.count(missing, 'further target')} not recorded." if missing else "")


def median_gain(report: ControlReport, family: str) -> tuple[float, str]:
    """Return the median gain of a family and its interval in words, from the summary where it has them."""
    numbers = _block(report, family)
    name = _GAIN.get(family, "median_improvement")
    if name in numbers:
        gain, ends = numbers[name], numbers.get(f"{name}_interval")
        return float("nan") if gain is None else float(gain), words.gain_interval(
            ends[0], ends[1], family
        ) if ends else ""
    return float(rows_of.families(report)[family]["gain"].median()), ""


def key_figures(report: ControlReport, family: str) -> Iterator[tuple[str, str, str]]:
    """Yield value, label and small print of the figures at the head of the page."""
    rows = rows_of.families(report)[family]
    numbers = _block(report, family)
    measured = rows[rows["achieved"].notna()]
    if len(measured):
        beyond = int(measured["beyond"].astype(bool).sum())
        share = f"{_percent(beyond / len(measured))} of targets"
        label = f"{'target' if len(measured) == 1 else 'targets'} beyond the best natural image"
        yield f"{beyond} of {len(measured)}", label, share
        gain, ends = median_gain(report, family)
        yield words.gain_text(gain, family), "median gain over it", f"95{words.NBSP}% interval {ends}" if ends else ""
        if rows_of.has(measured, "significant"):
            sure = int(rows_of.column(measured, "significant").sum())
            yield f"{sure} of {len(measured)}", "significant", f"false discovery rate {_q(report, family):g}"
        for key, label in (("", "calibrated"), ("_validator", "validator's"), ("_driver", "driver's")):
            ratio = numbers.get(f"forecast_over_achieved{key}")
            if ratio is not None:
                covered = numbers.get("coverage") if not key else None
                small = f"{_percent(covered)} of images within its interval" if covered is not None else "median"
                yield f"{ratio:.2f}{words.NBSP}×", f"{label} forecast over achieved", small
                break
    else:
        for name, who in _WHO.items():
            if rows_of.has(rows, name):
                above = int((rows[name] > rows["best_natural"]).sum())
                gain = float((rows[name] / rows["best_natural"].where(rows["best_natural"] > 0) - 1).median())
                small = f"median gain {words.gain_text(gain)}" if words.is_ratio(family) and np.isfinite(gain) else ""
                yield f"{above} of {len(rows)}", f"expected beyond the best natural image by the {who}", small
    if "flag" in report.images:
        mine = report.images[report.images["family"] == family]
        flagged = int((rows_of.flags(mine) != "").sum())
        yield f"{flagged} of {len(mine)}", "images flagged", "judges disagree" if flagged else "judges agree"


def methods(report: ControlReport, facts: Mapping[str, str]) -> list[str]:
    """Return the paragraphs of the methods."""
    made, natural = report.stimuli, report.reference
    channels, height, width = made.shape
    color = "color" if channels == 3 else "gray"
    per = sorted(set(report.targets["images"].astype(int)))
    each = f"{per[0]}" if len(per) == 1 else f"{per[0]} to {per[-1]}"
    targets = ", ".join(f"{len(rows):,} {words.kind(f)}" for f, rows in rows_of.families(report).items())
    sites = f"{len(report.site_ids):,}" if report.site_ids else _MISSING
    shown = "and" if rows_of.recorded(report) else "; not yet shown are"
    size = f"{natural.shape[1]} × {natural.shape[2]} px, {natural.size_deg:g} deg wide"
    stimuli = (
        f"Responses of {sites} sites{f' ({report.unit})' if report.unit else ''} were recorded to {len(natural):,} "
        f"natural images ({_families(natural)}) of {size}, "
        f"{shown} {len(made):,} synthesized {color} images of {height} × {width} px, {made.size_deg:g} deg wide: "
        f"{each} for each of {len(report.targets):,} targets ({targets}). "
        f"Repeats of an image: {facts.get('repeats', _MISSING)}."
    ).replace(", ;", ";")
    return [stimuli, _synthesis(report, facts), _statistics(report), _software(report, facts)]


def _synthesis(report: ControlReport, facts: Mapping[str, str]) -> str:
    table, records = report.stimuli.table, list(_records(report.stimuli.provenance))
    named = ", ".join(sorted(set(table["recipe"].astype(str)))) if "recipe" in table else ""
    full = facts.get("recipe") or "; ".join(dict.fromkeys(_config(r, "synthesis") for r in records)).strip("; ")
    seeds = ", ".join(map(str, sorted(set(table["seed"].dropna())))) if "seed" in table else facts.get("seed", _MISSING)
    recipe = f"{named} = {full}" if named and full and named != full else named or full or _MISSING
    return (
        f"Images were synthesized by gradient ascent through the driver ({facts.get('driver', _MISSING)}) with the "
        f"recipe {recipe}; seeds {seeds}. They were judged from the 8-bit files by validators that had no part in "
        f"making them ({facts.get('validator', _validators(report))})."
    )


def _validators(report: ControlReport) -> str:
    return _MISSING if rows_of.has(report.images, "forecast_validator") else "none"


def _statistics(report: ControlReport) -> str:
    from synth._recorded_scores import SPLITS

    text = (
        "For each target the best natural image was chosen by the mean of one random half of the repeats and measured "
        f"on the other half; the baseline is the mean over {SPLITS} random splits and both directions. The mean of the "
        "best five and the 99th percentile were chosen and measured likewise. Gain is achieved over baseline minus 1"
    )
    if not all(map(words.is_ratio, report.targets["family"])):
        text += ", and the difference of the two for objectives whose score has no natural zero"
    text += f". Intervals are 95{words.NBSP}% bootstrap intervals"
    if rows_of.has(report.targets, "achieved_low"):
        text += ": of an image over its repeats, of a target over images and repeats within images, baseline included"
    text += "; those of medians are over targets. Intervals and tests speak of the images shown."
    if rows_of.has(report.targets, "p_value") and rows_of.has(report.targets, "significant_every_image"):
        q = _q(report, str(report.targets["family"].iloc[0]))
        text += (
            " p-values are one-sided, for achieved above this baseline (Student's t, both sampling variances); "
            f"{int(rows_of.column(report.targets, 'significant_every_image').sum())} of {len(report.targets)} targets "
            "were also significant against every natural image (Welch tests against each, of which the largest p-value "
            f"counts). The false discovery rate within a family of objectives was controlled at q = {q:g} by the "
            "procedure of Benjamini and Hochberg."
        )
    if rows_of.has(report.images, "forecast"):
        text += (
            " Calibrated forecasts map the predictions of driver and validators to responses achieved on held-out "
            f"natural images and earlier synthesized ones; their intervals are conformal, at 95{words.NBSP}%."
        )
    return text


def _software(report: ControlReport, facts: Mapping[str, str]) -> str:
    records = [*_records(report.stimuli.provenance), *_records(report.reference.provenance)]
    first = next((record for record in records if record.get("packages")), {})
    packages = ", ".join(f"{name} {version}" for name, version in first.get("packages", {}).items())
    own = f"{first.get('project', 'neural-population-control')} {first.get('version', _MISSING)}"
    text = f"Software: {own}, Python {first.get('python', _MISSING)}{f', {packages}' if packages else ''}"
    if "versions" in facts:
        text += f"; {facts['versions']}"
    device = facts.get("device") or next((found for r in records if (found := _config(r, "device"))), "")
    return text + (f"; device {device}" if device else "") + "."


def _records(provenance: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the provenance of a set, or of each of its parts."""
    if "parts" in provenance:
        for part in provenance["parts"]:
            yield from _records(part.get("provenance") or {})
    else:
        yield provenance


def _config(record: Mapping[str, Any], key: str) -> str:
    config = record.get("config")
    return str(config.get(key) or "") if isinstance(config, Mapping) else ""


def _families(natural: StimulusSet) -> str:
    if "family" not in natural.table:
        return "one family"
    counts: pd.Series = natural.table["family"].astype(str).value_counts()
    listed = [f"{amount:,} {name}" for name, amount in counts.items()]
    return ", ".join(listed[:6]) + (f" and {len(listed) - 6} more families" if len(listed) > 6 else "")


def _block(report: ControlReport, family: str) -> Mapping[str, Any]:
    """Return the numbers of the summary on a family; those of several other families together belong to none."""
    others = [name for name in rows_of.families(report) if not words.is_ratio(name)]
    return report.summary.get(family) or (report.summary.get("other") if others == [family] else None) or {}


def _q(report: ControlReport, family: str) -> float:
    block = report.summary.get(family) or report.summary.get("other") or {}
    return float(block.get("q") or 0.05)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}{words.NBSP}%"
