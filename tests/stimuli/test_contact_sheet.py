"""The contact sheet: every picture at its place on gray paper, an even choice of many, equal bytes; notebook view."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from stimuli import StimulusSet, contact_sheet
from stimuli._groups import groups, thin
from stimuli.contact_sheet import _placed, save_contact_sheet


def colors(n, size=20, **columns):
    """Uniform images of distinct codes, none of them gray or black."""
    codes = np.zeros((n, 3, size, size), np.uint8)
    codes[:, 0] = 200
    codes[:, 1] = np.arange(n)[:, None, None] + 20
    return StimulusSet.from_arrays(codes, {"stimulus_id": [f"i{k}" for k in range(n)], **columns})


def found(sheet, k):
    """Rows and columns of the pixels of image k."""
    rows, columns = np.nonzero((np.asarray(sheet) == (200, k + 20, 0)).all(axis=2))
    return rows, columns


def test_every_picture_is_there_in_reading_order_on_gray():
    sheet = contact_sheet.contact_sheet(colors(7), columns=4, side_px=20)
    corners = []
    for k in range(7):
        rows, columns = found(sheet, k)
        assert len(rows) == 400
        corners.append((rows.min(), columns.min()))
    assert corners == sorted(corners)
    assert len({row for row, _ in corners}) == 2
    assert sheet.getpixel((0, 0)) == sheet.getpixel((sheet.width - 1, sheet.height - 1)) == (128, 128, 128)
    assert sheet.mode == "RGB"


def test_groups_stand_under_their_names_and_small_ones_beside_each_other():
    shown = colors(9, family=["a"] * 2 + ["b"] * 2 + ["c"] * 5)
    sheet = contact_sheet.contact_sheet(shown, columns=4, side_px=20)
    tops = [found(sheet, k)[0].min() for k in range(9)]
    assert tops[0] == tops[1] == tops[2] == tops[3] < tops[4] == tops[7] < tops[8]
    pixels = np.asarray(sheet)
    for k in (0, 2, 4):  # ink above the first picture of each group
        rows, columns = found(sheet, k)
        above = pixels[rows.min() - 18 : rows.min() - 2, columns.min() : columns.min() + 20]
        assert (above < 60).all(axis=2).sum() > 5
    assert _placed([2, 2, 5, 1], [2, 2, 4, 2], 4, 10)[0] == [(0, 8), (2, 8), (0, 46), (0, 94)]
    assert _placed([1, 1, 1], [3, 1, 1], 4, 10)[0] == [(0, 8), (3, 8), (0, 46)]  # a long name needs room


def test_large_images_are_made_smaller_and_keep_their_shape():
    codes = np.full((1, 1, 100, 50), 255, np.uint8)
    sheet = np.asarray(contact_sheet.contact_sheet(StimulusSet.from_arrays(codes), side_px=40))
    rows, columns = np.nonzero((sheet == 255).all(axis=2))
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (40, 20)


def test_of_many_an_even_choice_is_shown():
    shown = colors(60, family=["a"] * 40 + ["b"] * 20)
    sheet = contact_sheet.contact_sheet(shown, side_px=20, most=12)
    there = [k for k in range(60) if len(found(sheet, k)[0])]
    assert there == [row for group in thin(groups(shown.table), 12) for row in group.rows]
    assert len(there) == 12
    assert {0, 39, 40, 59} <= set(there)


def test_of_many_groups_no_more_are_shown():
    shown = colors(60, objective=[f"o{k}" for k in range(60)])
    sheet = contact_sheet.contact_sheet(shown, side_px=20, most=12)
    there = [k for k in range(60) if len(found(sheet, k)[0])]
    assert (len(there), there[0], there[-1]) == (12, 0, 59)


def test_strange_names_are_drawn_and_cut_to_their_room():
    shown = colors(3, family=["日本\n<b>" + "x" * 300] * 3)
    sheet = contact_sheet.contact_sheet(StimulusSet.concat([shown], name="n" * 300), columns=3, side_px=20)
    assert sheet.width == 2 * 14 + 3 * 26 - 6
    assert (np.asarray(sheet)[:, -12:] == 128).all()  # no ink in the margin
    assert (np.asarray(sheet)[:40] < 60).any()


def test_files_are_the_same_bytes_each_time(tmp_path):
    first, again = (save_contact_sheet(colors(5), tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
    assert first == again
    with Image.open(tmp_path / "a.png") as saved:
        assert saved.size == contact_sheet.contact_sheet(colors(5)).size


@pytest.mark.parametrize("wrong", [{"columns": 0}, {"side_px": 2.5}, {"most": 0}, {"columns": 101}])
def test_wrong_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        contact_sheet.contact_sheet(colors(2), **wrong)


def test_notebook_view_shows_small_averaged_pictures_with_their_names():
    stripes = np.zeros((1, 1, 400, 400), np.uint8)
    stripes[..., ::2] = 255
    page = StimulusSet.from_arrays(stripes, {"stimulus_id": ["fine"], "score": [1 / 3]})._repr_html_()
    (source,) = re.findall(r'src="data:image/png;base64,([^"]*)"', page)
    with Image.open(io.BytesIO(base64.b64decode(source))) as seen:
        assert max(seen.size) == 192
        assert abs(np.asarray(seen, dtype=float) - 127.5).max() < 40  # not every k-th column, which is white or black
    assert ">fine</small>" in page
    assert "0.3333" in page
