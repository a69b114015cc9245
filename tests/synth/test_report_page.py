"""The complete page of a control report: intervals, strips, flags, families, methods, and how a browser shows it."""

from __future__ import annotations

import dataclasses
import html
import itertools
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from browser import browse

from stimuli import StimulusSet
from synth._report_pictures import SHOWN_CSS_PX
from synth._report_strips import Mark, population_strip, tuning_strip
from synth._report_words import interval, p_text
from synth.control import ControlReport
from synth.report import render_report

SITES = ("a1", "b2", "c3", "d4")
FLAG = "judges disagree: driver +6.1 sd, validator +1.2 sd"


def rich_report(recorded=True, images=3):
    """A report with every column: planted numbers, three families of objectives, two families of reference stimuli."""
    rng = np.random.default_rng(5)
    natural = rng.gamma(2.0, 10.0, (40, len(SITES)))
    rows, means = [], []
    kinds = {"stretch": "Stretch({!r})", "ohp": "OneHot({!r})", "suppress": "Suppress({!r})"}
    for family, text in kinds.items():
        for number, site in enumerate(SITES[: 1 if family == "suppress" else 4]):
            best = {"stretch": 40.0 + number, "ohp": 0.4, "suppress": -6.0}[family]
            for image in range(images):
                achieved = best + (0.1 if family == "ohp" else 8.0) * (-1 if number == 3 else 1) + 0.01 * image
                means.append(rng.gamma(2.0, 10.0, len(SITES)))
                rows.append(
                    {
                        "stimulus_id": f"{family}-{site}-{image}",
                        "objective": text.format(site),
                        "target_site": site,
                        "family": family,
                        "achieved": achieved if recorded else np.nan,
                        "achieved_low": achieved - 0.05 if recorded else np.nan,
                        "achieved_high": achieved + 0.05 if recorded else np.nan,
                        "forecast": 1.05 * achieved,
                        "forecast_low": achieved - 0.2,
                        "forecast_high": achieved + 0.3,
                        "forecast_driver": 1.3 * achieved,
                        "forecast_validator": 0.7 * achieved,
                        "best_natural": best,
                        "best_natural_upper": best + 0.03,
                        "flag": FLAG if (site, image) == ("b2", 1) else "",
                    }
                )
    table = pd.DataFrame(rows)
    groups = table.groupby(["family", "target_site", "objective"], sort=False)
    numeric = [name for name in table if table[name].dtype == float]
    targets = groups[numeric].mean().reset_index()
    targets["images"], targets["flagged"] = (
        groups.size().to_numpy(),
        groups["flag"].agg(lambda f: (f != "").sum()).array,
    )
    ratio, difference = targets["achieved"] / targets["best_natural"] - 1, targets["achieved"] - targets["best_natural"]
    targets["gain"] = ratio.where(targets["family"] != "suppress", difference)
    targets["gain_low"], targets["gain_high"] = targets["gain"] - 0.05, targets["gain"] + 0.06
    known = targets["achieved"].notna()
    targets["beyond"] = (targets["achieved"] > targets["best_natural"]).where(known)
    targets["beyond_upper"] = (targets["achieved"] > targets["best_natural_upper"]).where(known)
    targets["best5_natural"], targets["p99_natural"] = 0.9 * targets["best_natural"], 0.8 * targets["best_natural"]
    targets["p_value"] = pd.Series(np.where(targets["beyond"].astype(float) == 1, 0.0004, 0.62)).where(known)
    targets["significant"] = (targets["p_value"] < 0.05).where(known)
    targets["significant_every_image"] = (targets["p_value"] < 0.01).where(known)
    block = {"q": 0.05, "forecast_over_achieved": 1.05, "coverage": 0.94, "forecast_over_achieved_driver": 1.3}
    summary = {family: {**block, "median_gain": 0.17, "median_improvement": 0.25} for family in ("stretch", "ohp")}
    families = pd.DataFrame(
        [
            {"objective": row["objective"], "target_site": row["target_site"], "reference_family": name, "n": n}
            | {"best": share * row["best_natural"], "best5": 0.31 * row["best_natural"], "p99": 0.2}
            for _, row in targets.iterrows()
            for name, n, share in (("photograph", 30, 1.0), ("grating", 10, 0.5))
        ]
    )
    ids = [f"photo{k}" for k in range(40)]
    reference = {"stimulus_id": ids, "family": ["photograph"] * 30 + ["grating"] * 10}
    made = table[["stimulus_id"]].assign(seed=[7 + k % images for k in range(len(table))], recipe="robust")
    return ControlReport(
        table,
        targets,
        summary if recorded else {},
        StimulusSet.from_arrays(rng.integers(0, 256, (len(table), 3, 24, 24), dtype=np.uint8), made, size_deg=6.0),
        StimulusSet.from_arrays(rng.integers(0, 256, (40, 3, 24, 24), dtype=np.uint8), reference),
        {text: ids[k] for k, text in enumerate(targets["objective"])},
        families,
        natural.astype(np.float32),
        np.array(means, np.float32) if recorded else None,
        SITES,
        "spikes/s",
    )


FACTS = {"driver": "three networks", "validator": "two others", "repeats": "12", "device": "a laptop"}


@pytest.fixture(scope="module")
def source():
    return render_report(rich_report(), title="Night <1>", facts=FACTS)


def table_of(source, name):
    """Return a table as rows of (value, small print)."""
    found = re.search(rf'<table id="table-{name}">.*?</table>', source, re.S).group(0)
    rows = list(ElementTree.fromstring(found).iter("tr"))
    return [
        [((cell.text or "").rstrip(" "), *(small.text for small in cell.iter("small"))) for cell in row] for row in rows
    ]


def drawn(text):
    """Return the drawing, and a function from heights to values made from the ticks of one side of it."""
    tree = ElementTree.fromstring(text)
    height = float(tree.get("height"))

    def scale(anchor):
        ticks = [
            (float(node.get("y")) - 3.5, float(node.text.replace("−", "-")))
            for node in tree.iter("text")
            if node.get("text-anchor") == anchor
            and re.fullmatch(r"−?[\d.]+", node.text)
            and float(node.get("y")) < height - 25
        ]
        slope, offset = np.polyfit(*zip(*ticks, strict=True), 1)
        return lambda y: slope * float(y) + offset

    return tree, scale


def test_tuning_strip_shows_the_numbers_on_its_axis():
    natural = np.array([3.0, np.nan, 31.0, 12.0])
    marks = [Mark(44.0, 40.0, 49.0, 52.0, 45.0, 60.0), Mark(forecast=20.0), Mark(18.0)]
    tree, scale = drawn(tuning_strip("x", natural, 30.0, marks, "Hz"))
    value = scale("end")
    circles = [value(node.get("cy")) for node in tree.iter("circle")]
    np.testing.assert_allclose(circles, [44.0, 18.0], atol=0.6)
    assert [node.get("fill") for node in tree.iter("circle")] == ["#00735c", "#b3440e"]
    curve = [value(point.split(",")[1]) for point in tree.find("polyline").get("points").split()]
    np.testing.assert_allclose(curve, [3.0, 12.0, 31.0], atol=0.6)
    spans = [
        sorted((value(n.get("y1")), value(n.get("y2")))) for n in tree.iter("line") if n.get("stroke-width") == "1.8"
    ]
    np.testing.assert_allclose(spans, [[40.0, 49.0], [45.0, 60.0]], atol=0.6)
    dashed = next(node for node in tree.iter("path") if node.get("stroke-dasharray"))
    assert value(dashed.get("d").split(" ")[1].split("H")[0]) == pytest.approx(30.0, abs=0.6)
    diamonds = [node.get("d") for node in tree.iter("path") if node.get("fill") == "#fff"]
    tops = [value(float(path.split(" ")[1].split("l")[0]) + 4.2) for path in diamonds]
    np.testing.assert_allclose(tops, [52.0, 20.0], atol=0.6)
    assert "3 natural images" in tree.get("aria-label")
    assert "achieved 44.0, 18.0; forecast 52.0, 20.0" in tree.get("aria-label")


def test_population_strip_is_in_natural_standard_deviations():
    rng = np.random.default_rng(0)
    natural = rng.gamma(2.0, 4.0, (300, 3)) * [1.0, 5.0, 20.0]
    made = np.array([[20.0, 90.0, 100.0], [10.0, 95.0, 500.0]])
    marks = [Mark(0.7), Mark(0.2)]
    drawing = population_strip("b", ("a", "b", "c"), natural, natural[4], made, 0.5, marks, "one-hot score")
    tree, scale = drawn(drawing)
    value, score = scale("end"), scale("start")
    z = (made - natural.mean(axis=0)) / natural.std(axis=0)
    order = [1, *sorted((0, 2), key=lambda k: -z[:, k].mean())]  # the target, then from strong to weak
    columns = list(tree.iter("g"))
    assert [column.find("title").text[0] for column in columns] == ["abc"[k] for k in order]
    for column, site in zip(columns, order, strict=True):
        np.testing.assert_allclose([value(dot.get("cy")) for dot in column.iter("circle")], z[:, site], atol=0.1)
        bar = column.find("rect")
        ends = [value(float(bar.get("y")) + float(bar.get("height"))), value(bar.get("y"))]
        wanted = np.percentile((natural[:, site] - natural[:, site].mean()) / natural[:, site].std(), [1, 99])
        np.testing.assert_allclose(ends, wanted, atol=0.1)
    np.testing.assert_allclose([score(node.get("cy")) for node in tree.findall("circle")], [0.7, 0.2], atol=0.02)


def test_strips_survive_missing_numbers_and_strange_names():
    bad = "<&\"'>"
    for natural in (np.full(4, np.nan), np.zeros(3), np.array([5.0])):
        ElementTree.fromstring(tuning_strip(bad, natural, np.nan, [Mark(), Mark(1.0)] * 30, bad))
    dead = np.stack([np.full(5, np.nan), np.ones(5), np.arange(5.0)], axis=1)
    ElementTree.fromstring(population_strip(bad, (bad, "b", "c"), dead, None, None, np.nan, [], bad))
    many = np.random.default_rng(0).random((9, 200))
    tree = ElementTree.fromstring(population_strip("7", list(map(str, range(200))), many, None, None, 0.1, [], "s"))
    assert len(list(tree.iter("g"))) == 30
    assert any(node.text == "then 29 of 199 others, strongest first" for node in tree.iter("text"))


def test_target_table_holds_intervals_and_significance(source):
    head, *rows = table_of(source, "targets-stretch")
    at = {name[0]: place for place, name in enumerate(head)}
    achieved = rich_report().targets.loc[0]
    low, high = achieved["achieved_low"], achieved["achieved_high"]
    assert rows[0][at["achieved"]] == (f"{achieved['achieved']:.1f}", f"{low:.1f}–{high:.1f}")
    assert rows[0][at["best natural"]] == ("40.0", "at most 40.0")
    assert rows[0][at["gain"]] == ("+20\u00a0%", "+15\u00a0% to +26\u00a0%")
    assert [row[at["p"]] for row in rows] == [("< .001", "significant")] * 3 + [(".620", "not significant")]
    assert [row[at["flagged"]][0] for row in rows] == ["0", "1", "0", "0"]
    assert rows[0][at["best five natural"]] == ("36.0",)
    assert rows[0][at["natural 99th percentile"]] == ("32.0",)


def test_other_objectives_gain_by_difference(source):
    head, row = table_of(source, "targets-suppress")
    assert row[[name[0] for name in head].index("gain")] == ("+8.01", "+7.96 to +8.07")
    assert "1 of 1 suppress target scored above its best natural image; the gain is +8.01" in source


def test_reference_families_stand_side_by_side(source):
    head, *rows = table_of(source, "families")
    assert [cell[0] for cell in head] == ["target", "photograph (30)", "grating (10)", "achieved by synthesis"]
    assert rows[0] == [("a1", "stretch"), ("40.0", "12.4 / 0.200"), ("20.0", "12.4 / 0.200"), ("48.0",)]
    assert len(rows) == 9


def test_flags_stand_below_the_picture_and_in_a_table(source):
    _, *rows = table_of(source, "flagged")
    assert [row[0][0] for row in rows] == ["stretch-b2-1", "ohp-b2-1"]
    assert rows[0][2] == (FLAG,)
    figure = next(
        part for part in source.split("<figure")[1:] if 'alt="Image synthesized for b2: stretch-b2-1"' in part
    )
    assert f"⚑ {FLAG}" in figure.split("</figure>")[0]
    assert source.count("⚑") == 2


def test_header_says_the_figures(source):
    figures = re.findall(r'<dt>([^<]*)</dt><dd class="big">([^<]*)</dd>(?:<dd class="small">([^<]*))?', source)
    assert figures[:5] == [
        ("targets beyond the best natural image", "3 of 4", "75\u00a0% of targets"),
        ("median gain over it", "+17\u00a0%", ""),
        ("significant", "3 of 4", "false discovery rate 0.05"),
        ("calibrated forecast over achieved", "1.05\u00a0×", "94\u00a0% of images within its interval"),
        ("images flagged", "1 of 12", "judges disagree"),
    ]


def test_methods_state_the_numbers_and_what_is_missing(source):
    text = html.unescape(
        re.sub("<[^>]*>", "", source[source.index('<h2 id="methods">') : source.index('<h2 id="defin')])
    )
    for said in (
        "Responses of 4 sites (spikes/s) were recorded to 40 natural images (30 photograph, 10 grating) of 24 × 24 px",
        "and 27 synthesized color images of 24 × 24 px, 6 deg wide: 3 for each of 9 targets (4 stretch, 4 one-hot, 1 s",
        "Repeats of an image: 12.",
        "(three networks) with the recipe robust; seeds 7, 8, 9",
        "(two others)",
        "20 random splits",
        "q = 0.05 by the procedure of Benjamini and Hochberg",
        f"numpy {np.__version__}",
        "device a laptop",
    ):
        assert said in text
    assert "not stated" not in text
    assert "Repeats of an image: <mark>[not stated to this report]</mark>." in render_report(rich_report(images=1))


def test_definitions_say_what_the_p_value_tests(source):
    told = source.split("<dt>Significant</dt>")[1].split("</dd>")[0]
    assert "driven beyond this baseline" in told  # and not beyond every natural image, which is p_every_image
    assert "does not ask whether every natural image" in told


def test_every_target_has_a_strip_also_before_recording(source):
    assert source.count('<svg class="tuning" role="img" aria-label=') == 9
    before = render_report(rich_report(recorded=False))
    assert before.count('<svg class="tuning"') == 9
    assert "the calibrated forecast expects 3 beyond their best natural image" in before
    assert "achieved 4" not in before


def test_structure_serves_a_screen_reader(source):
    levels = [int(level) for level in re.findall(r"<h([1-6])", source)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = re.findall(r'\bid="([^"]*)"', source)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', source)) | set(re.findall(r'labelledby="([^"]*)"', source)) <= set(ids)
    assert source.count("<caption") == source.count("<table")
    assert "Night &lt;1&gt;" in source


def test_an_interval_without_an_end_is_left_out():
    report = rich_report(images=1)
    endless = report.images.assign(forecast_high=np.inf), report.targets.assign(forecast_high=np.inf)
    page = render_report(dataclasses.replace(report, images=endless[0], targets=endless[1]))
    assert "inf" not in re.sub(r"<style>.*?</style>|base64,[^\"]*", "", page, flags=re.S).lower()


def test_words_of_numbers():
    assert interval(-2.0, 3.5) == "−2.00\u00a0to\u00a03.50"
    assert interval(0.2, 0.345, "ohp") == "0.20–0.34"
    assert interval(np.nan, 1.0) == ""
    assert [p_text(p) for p in (0.0009, 0.0316, 1.0, np.nan)] == ["< .001", ".032", "1.000", "–"]


def test_page_is_whole_in_a_browser_at_two_widths(source, tmp_path):
    seen, console = browse(source, tmp_path, selector=".strip img", least_px=SHOWN_CSS_PX)
    assert console == []
    for width, page in seen.items():
        assert page["images"] > 30
        assert page["broken"] == [], width
        assert page["scroll"] <= page["client"], (width, page["outside"])
        assert page["outside"] == [], width
        assert page["small"] == [], width


def test_the_browser_would_see_what_is_wrong(tmp_path):
    wrong = (
        '<!DOCTYPE html><body><main><p style="width:600px">x</p><div class="strip"><img alt="lost" src="data:image/png;'
    )
    wrong += 'base64,AAAA" width="20"></div></main><script>console.error("planted")</script></body>'
    seen, console = browse(wrong, tmp_path, selector=".strip img", least_px=SHOWN_CSS_PX)
    assert len(console) == 2
    assert [page["broken"] for page in seen.values()] == [["lost"], ["lost"]]
    assert [page["small"] for page in seen.values()] == [["lost"], ["lost"]]
    assert seen[390]["scroll"] > seen[390]["client"]
    assert len(seen[390]["outside"]) == 1
    assert seen[1280]["scroll"] <= seen[1280]["client"]
