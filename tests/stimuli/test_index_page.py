"""The page of a set: every stimulus in its group, exact small pictures, escaped text, bounded size, and a browser."""

import base64
import io
import re
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from browser import browse
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from stimuli import Display, StimulusSet, index_page
from stimuli._groups import Group, groups, thin
from stimuli._thumbnails import data_uri, picture
from stimuli.index_page import cell_text, index_html

EVIL = "<script>alert('x')</script>\"&"


def made(n=12, size=24, channels=1, seed=0, **columns):
    codes = np.random.default_rng(seed).integers(0, 256, (n, channels, size, size), dtype=np.uint8)
    return StimulusSet.from_arrays(codes, {"stimulus_id": [f"i{k}" for k in range(n)], **columns}, name="some set")


def two_families():
    """Eight images for two sites in turn, three gratings, one of no family."""
    return made(
        12,
        family=["stretch"] * 8 + ["grating"] * 3 + [None],
        target_site=["a1", "b2"] * 4 + [None] * 4,
        contrast=[1.0] * 12,
        source=["z" * 60 + str(k) for k in range(12)],
        orientation_deg=[None] * 8 + [0.0, 45.0, 90.0] + [None],
    )


def predicted():
    values = np.array([[10.0 + k, 1000.0 - k, np.nan] for k in range(12)])
    return pd.DataFrame(values, index=[f"i{k}" for k in range(12)], columns=["a1", "c3", "dead"])


class Page(HTMLParser):
    """Tags in order, and the text of every heading, caption and cell."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.open, self.text = [], [], {}
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "meta"):
            self.open.append(tag)
            self.text.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag  # every element is closed, in order

    def handle_data(self, data):
        for tag in set(self.open):
            self.text[tag][-1] += data


def words(page, tag):
    return [" ".join(text.split()) for text in page.text.get(tag, [])]


def test_every_stimulus_stands_in_its_group():
    page = Page(index_html(two_families(), predicted()))
    assert page.open == []
    assert words(page, "h1") == ["some set"]
    assert words(page, "h2")[:3] == ["stretch 8 stimuli", "grating 3 stimuli", "without a family 1 stimulus"]
    assert words(page, "h3") == ["a1 4", "b2 4"]
    order = [values["id"] for tag, values in page.tags if tag == "figure"]
    assert order == [f"s-i{k}" for k in (0, 2, 4, 6, 1, 3, 5, 7, 8, 9, 10, 11)]
    assert [values["alt"] for tag, values in page.tags if tag == "img"][:5:4] == ["i0, stretch, a1", "i1, stretch, b2"]
    captions = words(page, "figcaption")
    assert captions[0].startswith("i0")
    assert "a1 predicted 10" in captions[0]
    assert "orientation_deg 45" in captions[9]
    assert "contrast" not in captions[9]
    assert "In all of them: contrast 1." in words(page, "p")
    assert "12 gray images of 24 × 24 px, 8 deg wide" in words(page, "p")[0]


@pytest.mark.parametrize(("block", "small"), [(3, 6), (3, 2), (5, 6), (48, 2)])
def test_every_stimulus_stands_there_once_however_the_browser_lays_out(block, small, monkeypatch):
    monkeypatch.setattr(index_page, "_BLOCK", block)
    monkeypatch.setattr(index_page, "_SMALL", small)
    page = Page(index_html(two_families()))
    order = [values["id"] for tag, values in page.tags if tag == "figure"]
    assert order == [f"s-i{k}" for k in (0, 2, 4, 6, 1, 3, 5, 7, 8, 9, 10, 11)]
    assert words(page, "h3") == ["a1 4", "b2 4"]


def test_prediction_is_of_the_target_or_of_the_site_driven_most():
    captions = words(Page(index_html(two_families(), predicted())), "figcaption")
    assert "a1 predicted 16" in captions[3]  # i6, made for a1
    assert "c3 predicted 999 (+1.3 sd)" in captions[4]  # i1, made for b2, of which nothing is known
    assert "a1 predicted 20 (+1.3 sd)" in captions[10]  # and not c3, whose rates are always higher
    of_one = two_families().with_columns(target_site=["a1"] * 3 + [None] * 9)
    captions = words(Page(index_html(of_one, predicted())), "figcaption")
    assert sum("a1 predicted" in text for text in captions) == 12
    partly = predicted().loc[["i8", "i9"]]
    captions = words(Page(index_html(two_families(), partly)), "figcaption")
    assert [("predicted" in text) for text in captions] == [False] * 8 + [True, True, False, False]


def test_site_table_holds_the_largest_of_every_family_and_links_to_the_best():
    source = index_html(two_families(), predicted())
    table = source[source.index("Largest predicted response") :]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", table)]
    assert rows[0][:4] == ["site", "stretch (8)", "grating (3)", "without a family (1)"]
    assert rows[1] == ["a1", "17", "20", "21", '<a href="#s-i11">i11</a>']
    assert rows[2] == ["c3", "1000", "992", "989", '<a href="#s-i0">i0</a>']
    assert rows[3][1:] == ["–"] * 4
    ids = re.findall(r'\bid="([^"]*)"', source)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', source)) <= set(ids)


def test_pictures_of_small_images_are_exact():
    for channels in (1, 3):
        shown = made(3, channels=channels)
        sources = re.findall(r'src="data:image/png;base64,([^"]*)"', index_html(shown))
        for source, codes in zip(sources, shown.codes(), strict=True):
            seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(source))))
            assert (np.atleast_3d(seen).transpose(2, 0, 1) == codes).all()


def test_larger_images_are_averaged_and_keep_their_shape():
    stripes = np.zeros((1, 400, 200), np.uint8)
    stripes[0, :, ::2] = 255
    small = np.asarray(picture(stripes, 100), dtype=float)
    assert small.shape == (100, 50)
    assert abs(small[5:-5, 5:-5] - 127.5).max() < 2
    assert picture(stripes, 1000).size == (200, 400)


def test_text_is_escaped_everywhere():
    evil = made(2, family=[EVIL] * 2, target_site=[EVIL] * 2, note=[EVIL, EVIL + "2"])
    evil = StimulusSet.concat([evil], name=EVIL)
    table = pd.DataFrame({EVIL: [1.0, 2.0]}, index=["i0", "i1"])
    source = index_html(evil, table, {EVIL: EVIL})
    assert "<script" not in source
    assert unescape(source).count(EVIL) >= 10
    page = Page(source)
    assert words(page, "h1") == [EVIL]


def test_page_asks_for_nothing_and_is_the_same_each_time():
    source = index_html(two_families(), predicted(), {"animal": "M1"})
    assert source == index_html(two_families(), predicted(), {"animal": "M1"})
    assert not re.search(r"(src|href)=\"(?!data:image/|#)", source)
    assert "<script" not in source
    assert "http" not in source
    assert not re.search(r"20\d\d-\d\d-\d\d", source)  # no times
    assert source.count("loading=") == 12


def test_facts_state_screen_and_what_is_given():
    shown = StimulusSet.from_arrays(np.full((1, 1, 8, 8), 0.5), {"stimulus_id": ["g"]}, display=Display(width_cm=60.0))
    rows = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', index_html(shown, facts={"repeats": 10}))
    facts = dict(rows)
    assert "31.84 px/deg" in facts["screen"]
    assert facts["repeats"] == "10"
    assert "not stated" in dict(re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', index_html(made(1))))["screen"]


def test_size_stays_below_what_is_allowed(monkeypatch):
    noise = made(40, size=96, channels=3)
    exact = len(index_html(noise))
    monkeypatch.setattr(index_page, "_BYTES", 40 * 2000)
    small = index_html(noise)
    assert len(small) < 40 * (2000 * 4 / 3 + 500) + 20_000 < exact
    assert small.count("data:image/jpeg") == 40
    assert len(data_uri(noise.codes([0])[0], 96, 1200)) < 1650
    flat = data_uri(np.full((1, 96, 96), 128, np.uint8), 96, 300)
    assert flat.startswith("data:image/png")  # small enough as it is


def test_of_too_many_stimuli_an_even_choice_is_shown(monkeypatch):
    monkeypatch.setattr(index_page, "MOST_SHOWN", 10)
    source = index_html(made(44, family=["p"] * 40 + ["q"] * 4), pd.DataFrame({"s": [1.0]}, index=["i1"]))
    page = Page(source)
    shown = [values["id"] for tag, values in page.tags if tag == "figure"]
    assert len(shown) == 9 + 1
    assert shown[0] == "s-i0"
    assert shown[8] == "s-i39"
    assert any("shows 10 of them" in text for text in words(page, "p"))
    assert words(page, "h2")[0] == "p 40 stimuli"
    assert "<td>i1</td>" in source  # the best is named where it is not shown, and not linked
    assert thin([Group("p", "", tuple(range(7)))], 7)[0].rows == tuple(range(7))


def test_of_too_many_groups_an_even_choice_is_shown(monkeypatch):
    monkeypatch.setattr(index_page, "MOST_SHOWN", 10)
    page = Page(index_html(made(40, objective=[f"o{k}" for k in range(40)])))
    shown = [values["id"] for tag, values in page.tags if tag == "figure"]
    assert (len(shown), shown[0], shown[-1]) == (10, "s-i0", "s-i39")
    assert any("shows 10 of them, and leaves 30 groups out" in text for text in words(page, "p"))


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30), most=st.integers(1, 60))
@example(sizes=[40, 1, 1, 1, 1, 1], most=6)
def test_no_more_are_kept_than_asked(sizes, most):
    starts = np.cumsum([0, *sizes])
    found = [Group("f", str(k), tuple(range(a, b))) for k, (a, b) in enumerate(pairwise(starts))]
    kept = thin(found, most)
    count = sum(len(group.rows) for group in kept)
    assert count <= most
    assert len(kept) == min(len(found), most)
    for group in kept:
        rows = found[int(group.target)].rows
        assert len(set(group.rows)) == len(group.rows) >= 1
        assert set(group.rows) <= set(rows)
        assert len(group.rows) <= max(1, len(rows) * most / sum(sizes)) or count == sum(sizes)


def test_a_large_page_starts_folded(monkeypatch):
    monkeypatch.setattr(index_page, "_OPEN", 5)
    page = Page(index_html(two_families()))
    assert [tag for tag, _ in page.tags if tag in ("h2", "details")] == ["h2", "h2", "details", "h2", "details", "h2"]


def test_groups_fall_back_to_objectives():
    table = pd.DataFrame({"objective": ["Stretch('a')", None], "target_site": [None, None]})
    assert groups(table) == [
        Group("without a family", "Stretch('a')", (0,)),
        Group("without a family", "", (1,)),
    ]


def test_cells_are_worded_shortly():
    assert [cell_text(v) for v in (np.float64(1 / 3), 12345.678, np.bool_(True), None, np.nan, 7)] == [
        *("0.3333", "1.235e+04", "yes", "", "", "7")
    ]
    assert len(cell_text("x" * 10_000)) == 48


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ([1.0], TypeError, "are a list"),
        (pd.DataFrame({"s": [1.0]}, index=["i00"]), ValueError, r"'i00', which is not a stimulus .* did you mean 'i0'"),
        (pd.DataFrame({"s": [1.0]}), ValueError, "are for 0, which is not"),
        (pd.DataFrame({"s": [1.0, 2.0]}, index=["i0", "i0"]), ValueError, "have 'i0' twice"),
        (pd.DataFrame([[1.0, 2.0]], index=["i0"], columns=["s", "s"]), ValueError, "have the column 's' twice"),
        (pd.DataFrame({"s": ["high"]}, index=["i0"]), TypeError, "'s' of the predictions does not hold numbers"),
    ],
)
def test_wrong_predictions_are_one_sentence(given, error, match):
    with pytest.raises(error, match=match):
        index_html(made(2), given)


def test_page_is_whole_in_a_browser_at_two_widths(tmp_path):
    long = "x" * 190
    odd = made(2, family=["odd"] * 2, target_site=["y" * 300, EVIL], seed=1).table.assign(stimulus_id=[long, "z"])
    codes = np.random.default_rng(2).integers(0, 256, (2, 1, 24, 24), dtype=np.uint8)
    odd = StimulusSet.from_arrays(codes, odd.drop(columns="filename"))
    source = index_html(StimulusSet.concat([two_families(), odd]), predicted(), {"k" * 100: "v" * 500})
    seen, console = browse(source, tmp_path)
    assert console == []
    for width, page in seen.items():
        assert page["images"] == 14
        assert page["broken"] == [], width
        assert page["scroll"] <= page["client"], (width, page["outside"])
        assert page["outside"] == [], width
        assert page["small"] == [], width
        assert page["over"] == [], width


def test_the_browser_would_see_what_is_wrong(tmp_path):
    wrong = '<!DOCTYPE html><body><main><p style="width:600px">x</p><img alt="lost" width="20" src="data:,">'
    wrong += '<figure style="width:50px"><p style="width:99px">x</p></figure>'
    seen, console = browse(wrong + '</main><script>console.error("planted")</script></body>', tmp_path)
    assert len(console) == 2
    assert [page["broken"] for page in seen.values()] == [["lost"], ["lost"]]
    assert [page["small"] for page in seen.values()] == [["lost"], ["lost"]]
    assert [len(page["over"]) for page in seen.values()] == [1, 1]
    assert seen[390]["scroll"] > seen[390]["client"]
