"""The page and the picture of a control report: complete, self-contained, and true to the numbers."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from PIL import Image

from stimuli import StimulusSet
from synth._report_cards import MOST_TARGETS
from synth._report_plots import comparable
from synth._report_rows import spread
from synth._report_words import gain_text, short
from synth.control import ControlReport
from synth.report import control_figure, render_report, save_control_figure

NASTY = "<script>alert('ü')</script> & $\\frac$ \u96fb\u6975 " + "very_long_" * 30


def make_report(sites=("a", "b"), families=("stretch", "ohp"), seeds=2, recorded=True, channels=3, size=12, **changes):
    """A report with planted numbers; `changes` replace columns of the images before targets are averaged."""
    rng = np.random.default_rng(0)
    rows = []
    for family in families:
        for number, site in enumerate(sites):
            objective = f"{'Stretch' if family == 'stretch' else 'OneHot'}({site!r})"
            best = 40.0 + number if family == "stretch" else 0.3 + 0.01 * number
            for seed in range(seeds):
                gain = 1.25 if number % 2 == 0 else 0.9
                achieved = best * gain * (1 + 0.01 * seed)
                rows.append(
                    {
                        "stimulus_id": f"{family}{number}-{seed}",
                        "objective": objective,
                        "target_site": site,
                        "family": family,
                        "forecast_driver": 1.1 * achieved,
                        "forecast_validator": 0.8 * achieved,
                        "best_natural": best,
                        "achieved": achieved if recorded else np.nan,
                    }
                )
    images = pd.DataFrame(rows).assign(**changes)
    columns = ["forecast_driver", "forecast_validator", "best_natural", "achieved"]
    groups = images.groupby(["family", "target_site", "objective"], sort=False)
    targets = groups[columns].mean().reset_index()
    targets["images"] = groups.size().to_numpy()
    targets["gain"] = targets["achieved"] / targets["best_natural"].where(targets["best_natural"] > 0) - 1
    targets["beyond"] = (targets["achieved"] > targets["best_natural"]).where(targets["achieved"].notna())
    summary = {}
    for family, gain in (("stretch", "median_gain"), ("ohp", "median_improvement")):
        mine = targets[targets["family"] == family]
        known = mine["gain"].notna().any()
        summary[family] = {
            gain: float(mine["gain"].median()) if known else None,
            f"{gain}_interval": [-0.07, 0.31] if known and len(mine) > 1 else None,
            "forecast_over_achieved_driver": 1.1 if known else None,
            "forecast_over_achieved_validator": 0.8 if known and mine["forecast_validator"].notna().any() else None,
        }
    made = rng.integers(0, 256, (len(images), channels, size, size), dtype=np.uint8)
    natural = rng.integers(0, 256, (7, channels, size, size), dtype=np.uint8)
    reference = StimulusSet.from_arrays(natural, {"stimulus_id": [f"photo{k}" for k in range(7)]})
    return ControlReport(
        images,
        targets,
        summary,
        StimulusSet.from_arrays(made, {"stimulus_id": list(images["stimulus_id"])}),
        reference,
        {text: f"photo{k % 7}" for k, text in enumerate(targets["objective"])},
    )


class Page(HTMLParser):
    """Tags with their attributes, tables as lists of rows, and the visible text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.tables, self.named, self.text, self._open, self._depth = [], [], {}, "", False, []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br"):  # the parser itself closes <tag/>
            self._depth.append(tag)
        if tag == "table":
            self.tables.append([])
            self.named[dict(attributes).get("id")] = self.tables[-1]
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._open = True

    def handle_endtag(self, tag):
        assert self._depth.pop() == tag
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data):
        if self._depth[-1:] != ["style"]:
            self.text += data
        if self._open:
            self.tables[-1][-1][-1] += data

    def images(self):
        return [attributes for tag, attributes in self.tags if tag == "img"]


def number(text):
    return float("nan") if text == "–" else float(text.replace("−", "-"))


def percent(text):
    return float("nan") if text == "–" else float(text.replace("−", "-").removesuffix("\u00a0%")) / 100


def pixels(source):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,")))))


def svgs(page):
    start = "data:image/svg+xml;base64,"
    return [base64.b64decode(i["src"][len(start) :]) for i in page.images() if i["src"].startswith(start)]


VARIANTS = {
    "both": {},
    "one target": {"sites": ("only",), "seeds": 1},
    "no one-hot": {"families": ("stretch",)},
    "no stretch": {"families": ("ohp",)},
    "gray": {"channels": 1},
    "no validator": {"forecast_validator": np.nan},
    "forecast only": {"recorded": False},
    "forecast only, no validator": {"recorded": False, "forecast_validator": np.nan},
    "no positive baseline": {"best_natural": -1.0},
    "no positive baseline, forecast only": {"best_natural": -1.0, "recorded": False},
    "names": {"sites": (NASTY, NASTY + "2", "$\\frac$", "\u96fb\u6975", "\n\t", "")},
    "many": {"sites": tuple(f"s{k}" for k in range(50)), "seeds": 7},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_page_is_whole_and_self_contained(variant):
    report = make_report(**VARIANTS[variant])
    source = render_report(report)
    page = Page(source)
    assert "<script" not in source.lower()
    assert not re.search(r"https?:|url\(|@import|<link|<iframe|\bon\w+=\"", re.sub(r">[^<]*<", "><", source))
    assert {tag for tag, _ in page.tags} >= {"main", "h1", "section", "figure", "table"}
    for tag, attributes in page.tags:
        assert tag != "th" or attributes["scope"] in ("row", "col")
        assert tag != "img" or attributes["alt"].strip()
        assert attributes.get("href", "#").startswith("#")
        assert attributes.get("src", "data:").startswith("data:")
    for attributes in page.images():
        if attributes["src"].startswith("data:image/png"):
            assert pixels(attributes["src"]).size > 0
    for drawing in svgs(page):
        tree = ElementTree.fromstring(drawing)
        assert tree.tag.endswith("svg")
        assert not any("href" in key and not value.startswith("#") for e in tree.iter() for key, value in e.items())
    assert render_report(make_report(**VARIANTS[variant])) == source


@pytest.mark.parametrize("variant", VARIANTS)
def test_figure_is_drawn_for_every_report(variant, tmp_path):
    report = make_report(**VARIANTS[variant])
    one, two = (save_control_figure(report, tmp_path / f"{k}.png").read_bytes() for k in range(2))
    assert one == two
    picture = Image.open(io.BytesIO(one))
    assert not {"Software", "Creation Time", "date"} & set(picture.info)
    assert picture.size[0] < 1700


def test_tables_hold_the_numbers_of_the_report():
    report = make_report(sites=("a", "b", "c"))
    named = Page(render_report(report)).named
    for family, rows in report.targets.groupby("family", sort=False):
        head, *cells = named[f"table-targets-{family}"]
        assert [row[0] for row in cells] == list(rows["target_site"])
        found = dict(zip(head, zip(*cells, strict=True), strict=True))
        assert [int(text) for text in found["images"]] == list(rows["images"])
        columns = {"forecast, driver": "forecast_driver", "forecast, validator": "forecast_validator"}
        for column, name in {"best natural": "best_natural", "achieved": "achieved", **columns}.items():
            np.testing.assert_allclose(list(map(number, found[column])), rows[name], rtol=5e-3, err_msg=family)
        np.testing.assert_allclose(list(map(percent, found["gain"])), rows["gain"], atol=0.00501)
        assert [text.split(" ", 1)[1] == "beyond" for text in found["beyond best natural"]] == list(rows["beyond"])
        images = named[f"table-images-{family}"]
        assert [row[0] for row in images[1:]] == list(report.images["stimulus_id"][report.images["family"] == family])


def test_statement_says_what_was_achieved():
    text = Page(render_report(make_report(sites=("a", "b", "c")))).text
    assert "2 of 3 stretch targets were driven beyond their best natural image; the median gain is +26\u00a0%" in text
    assert "interval over targets −7\u00a0% to +31\u00a0%" in text
    assert "the driver forecast 1.10 times and the validator forecast 0.80 times what was achieved" in text
    assert "2 of 3 one-hot targets scored above" in text
    assert "best of 7 natural images" in text
    assert "different repeats" in text


def test_one_target_is_singular_and_without_interval():
    text = Page(render_report(make_report(**VARIANTS["one target"]))).text
    assert "1 of 1 stretch target was driven beyond its best natural image; the gain is +25\u00a0%." in text
    assert "interval over targets +" not in text


def test_a_target_without_recording_is_counted_apart():
    report = make_report(sites=("a", "b", "c"), families=("stretch",))
    missing = report.images["target_site"] == "c"
    partly = make_report(
        sites=("a", "b", "c"), families=("stretch",), achieved=report.images["achieved"].mask(missing).to_numpy()
    )
    page = Page(render_report(partly))
    assert "1 of 2 stretch targets" in page.text
    assert "1 further target not recorded." in page.text
    assert page.tables[0][3][3:6] == ["–", "–", "○ not recorded"]


def test_forecast_only_shows_no_achieved_number():
    page = Page(render_report(make_report(recorded=False)))
    assert "Forecast only: the images have not been shown yet" in page.text
    assert "2 stretch targets: the driver expects 1 beyond" in page.text
    head = ["target", "images", "best natural", "forecast, driver", "forecast, validator"]
    assert page.named["table-targets-stretch"][0] == head
    assert not any({"gain", "achieved"} & set(table[0]) for table in page.tables)
    assert not any(b"achieved" in drawing for drawing in svgs(page))


def test_missing_numbers_are_en_dashes():
    page = Page(render_report(make_report(best_natural=-1.0, forecast_validator=np.nan)))
    head, *rows = page.named["table-targets-stretch"]
    assert "forecast, validator" not in head
    assert all(row[head.index("gain")] == "–" for row in rows)
    assert "nan" not in page.text.lower()
    assert "median gain is" not in page.text


def test_each_picture_stands_with_its_target():
    report = make_report(channels=1)
    page = Page(render_report(report))
    shown = {image["alt"]: pixels(image["src"]) for image in page.images() if "png" in image["src"][:20]}
    for _, row in report.images.iterrows():
        expected = report.stimuli.codes([row["stimulus_id"]])[0, 0]
        alt = f"Image synthesized for {row['target_site']}: {row['stimulus_id']}"
        np.testing.assert_array_equal(shown[alt], expected)
    for _, row in report.targets.iterrows():
        best = report.best_natural_ids[row["objective"]]
        expected = report.reference.codes([best])[0, 0]
        np.testing.assert_array_equal(shown[f"Best natural image for {row['target_site']}: {best}"], expected)
    assert len(shown) == len(report.images) + len(report.targets)


def test_a_site_with_two_objectives_names_both():
    report = make_report(sites=("a", "b"), families=("ohp",))
    renamed = report.targets.assign(target_site="a")
    other = ControlReport(
        report.images, renamed, report.summary, report.stimuli, report.reference, report.best_natural_ids
    )
    assert [row[0] for row in Page(render_report(other)).tables[0][1:]] == ["a OneHot('a')", "a OneHot('b')"]


def test_text_from_outside_is_escaped():
    report = make_report(sites=(NASTY,))
    source = render_report(report, title="<b>T</b>", facts={"<i>recipe": '"&<img src=x onerror=y>'})
    page = Page(source)
    assert NASTY.strip() in page.text
    assert "<b>T</b>" in page.text
    assert page.tables[-1][-1] == ["<i>recipe", '"&<img src=x onerror=y>']
    assert not any(tag in ("b", "i", "script") for tag, _ in page.tags)
    assert all("src" in a and a["src"].startswith("data:") for a in page.images())


def test_sixty_noise_images_stay_below_five_megabytes():
    # Noise cannot be compressed: nothing that a synthesis makes is larger.
    report = make_report(sites=tuple("abcdef"), seeds=5, size=300)
    assert len(report.images) == 60
    source = render_report(report)
    assert len(source.encode()) < 5_000_000
    assert sum(image["src"].startswith("data:image/jpeg") for image in Page(source).images()) == 72
    assert re.search(r"the pictures were reduced to (160|192|256) px at most and compressed as JPEG", source)


def test_many_targets_are_shown_evenly_and_listed_all():
    page = Page(render_report(make_report(**VARIANTS["many"])))
    assert len(page.tables[0]) == 51
    assert sum(image["alt"].startswith("Best natural") for image in page.images()) == 2 * MOST_TARGETS
    assert f"{MOST_TARGETS} of 50 targets are shown" in page.text
    assert "up to 5 of the images" in page.text


def test_spread_keeps_best_and_worst():
    rows = pd.DataFrame({"gain": [0.1, np.nan, 0.4, -0.2, 0.3], "forecast_driver": 1.0, "best_natural": 1.0})
    assert spread(rows, 9)["gain"].tolist()[:4] == [0.4, 0.3, 0.1, -0.2]
    assert spread(rows.dropna(), 2)["gain"].tolist() == [0.4, -0.2]


def test_spread_before_recording_ranks_by_forecast_gain():
    rows = pd.DataFrame({"gain": np.nan, "forecast_driver": [30.0, 20.0], "best_natural": [30.0, 10.0]})
    assert spread(rows, 2)["best_natural"].tolist() == [10.0, 30.0]


def test_scatter_is_relative_to_the_best_natural_image():
    rows = pd.DataFrame(
        {"best_natural": [10.0, -1.0], "achieved": [15.0, 3.0], "forecast_driver": 20.0, "forecast_validator": np.nan}
    )
    assert comparable(rows, "stretch")[["achieved", "forecast_driver"]].to_numpy().tolist() == [[1.5, 2.0]]
    assert comparable(rows, "ohp")["achieved"].tolist() == [15.0, 3.0]


def test_figure_shows_scatter_with_equal_axes_and_forecast_on_x():
    report = make_report(sites=("a", "b", "c"))
    plot = next(axes for axes in control_figure(report).axes if axes.get_xlabel() == "forecast / best natural")
    assert plot.get_xlim() == plot.get_ylim()
    assert plot.get_aspect() == 1.0
    rows = report.targets[report.targets["family"] == "stretch"]
    for role in ("driver", "validator"):
        line = next(line for line in plot.lines if line.get_label() == role)
        np.testing.assert_allclose(line.get_xdata(), rows[f"forecast_{role}"] / rows["best_natural"])
        np.testing.assert_allclose(line.get_ydata(), rows["achieved"] / rows["best_natural"])


def test_figure_marks_beyond_by_sign_and_color():
    figure = control_figure(make_report(sites=("a", "b"), families=("stretch",)))
    labels = {axes.get_xlabel(): axes.spines["left"].get_edgecolor() for axes in figure.axes if axes.images}
    assert {"▲ +26\u00a0%", "▽ −10\u00a0%"} <= set(labels)
    assert labels["▲ +26\u00a0%"] != labels["▽ −10\u00a0%"]
    assert to_rgba("white") not in labels.values()


def test_figure_is_readme_sized():
    figure = control_figure(make_report(sites=tuple("abcdefghij")))
    width, height = figure.get_size_inches() * figure.dpi
    assert 1500 <= width <= 1700
    assert 850 <= height <= 950
    assert sum(bool(axes.images) for axes in figure.axes) == 2 * 2 * 8


def test_picture_does_not_depend_on_the_users_settings(tmp_path):
    import matplotlib

    report = make_report()
    plain = save_control_figure(report, tmp_path / "plain.png").read_bytes()
    page = render_report(report)
    with matplotlib.rc_context({"axes.facecolor": "red", "savefig.bbox": "tight", "font.size": 20}):
        assert save_control_figure(report, tmp_path / "other.png").read_bytes() == plain
        assert render_report(report) == page


def test_empty_report_is_refused():
    report = make_report()
    empty = ControlReport(report.images[:0], report.targets[:0], {}, report.stimuli, report.reference, {})
    with pytest.raises(ValueError, match="no target"):
        render_report(empty)
    with pytest.raises(ValueError, match="no target"):
        control_figure(empty)


@pytest.mark.parametrize(
    ("gain", "text"),
    [
        (0.194, "+19\u00a0%"),
        (-0.05, "−5\u00a0%"),
        (-0.001, "−0.1\u00a0%"),
        (-0.0004, "−0.04\u00a0%"),
        (0.0, "+0\u00a0%"),
        (np.nan, "–"),
    ],
)
def test_gain_text(gain, text):
    assert gain_text(gain) == text


def test_short_keeps_both_ends():
    assert short("array1_electrode_0017", 12) == "array1…_0017"
    assert short("a\nb") == "a b"


def test_import_is_light():
    code = "import sys, synth.report; print(sorted({'matplotlib', 'torch', 'jinja2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
