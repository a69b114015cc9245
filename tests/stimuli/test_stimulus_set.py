from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest

from stimuli import Display, StimulusSet


def _codes(n=5, c=3, h=6, w=4, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, c, h, w), dtype=np.uint8)


@pytest.fixture
def five():
    table = {"stimulus_id": list("abcde"), "family": ["x", "x", "y", "y", "z"], "level": [1, 2, 3, 4, 5]}
    return StimulusSet.from_arrays(
        _codes(), table, size_deg=4.0, display=Display(), provenance={"seed": 1}, name="five"
    )


def test_attributes(five):
    assert (len(five), five.shape, five.size_px, five.size_deg) == (5, (3, 6, 4), (6, 4), 4.0)
    assert (five.name, five.display, five.provenance) == ("five", Display(), {"seed": 1})
    assert five.table["filename"].tolist() == [f"images/{i}.png" for i in "abcde"]
    assert five.table.columns.tolist() == ["stimulus_id", "filename", "family", "level"]


def test_images_are_codes_over_255(five):
    images = five.images()
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, _codes().astype(np.float32) / 255)
    np.testing.assert_array_equal(five.codes(), _codes())


def test_float_images_are_rounded_half_up():
    made = StimulusSet.from_arrays(np.full((1, 1, 3, 3), 0.5, dtype=np.float32))
    assert np.unique(made.codes()).tolist() == [128]


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (None, [0, 1, 2, 3, 4]),
        (slice(1, None, 2), [1, 3]),
        ([4, 0, 4], [4, 0, 4]),
        ([-1], [4]),
        (np.array([2, 1]), [2, 1]),
        (["d", "b"], [3, 1]),
        ([True, False, False, True, False], [0, 3]),
        (pd.Series([False, True, False, False, False]), [1]),
        ([], []),
    ],
)
def test_every_kind_of_index(five, index, rows):
    np.testing.assert_array_equal(five.codes(index), _codes()[rows])


@pytest.mark.parametrize(
    ("index", "error", "words"),
    [
        (["alpha"], ValueError, "no stimulus 'alpha'"),
        ([5], ValueError, "Position 5"),
        ([True, False], ValueError, "2 values for 5"),
        ("a", TypeError, "give a list"),
        (2, TypeError, "give a list"),
        ([1.5], TypeError, "mixed"),
    ],
)
def test_wrong_index_is_one_sentence(five, index, error, words):
    with pytest.raises(error, match=words):
        five.codes(index)


def test_misspelt_id_suggests_the_closest():
    made = StimulusSet.from_arrays(_codes(2), {"stimulus_id": ["grating_01", "face_01"]})
    with pytest.raises(ValueError, match="did you mean 'grating_01'"):
        made.select(["gratin_01"])


def test_content_ids_are_stable_and_depend_on_shape_and_pixels():
    codes = _codes()
    first, again = StimulusSet.from_arrays(codes), StimulusSet.from_arrays(codes[::-1] / 255.0)
    assert first.stimulus_ids == again.stimulus_ids[::-1]
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in first.stimulus_ids)
    turned = StimulusSet.from_arrays(codes.reshape(5, 3, 4, 6))
    changed = codes.copy()
    changed[0, 0, 0, 0] ^= 1
    assert not set(turned.stimulus_ids) & set(first.stimulus_ids)
    assert StimulusSet.from_arrays(changed).stimulus_ids[0] != first.stimulus_ids[0]
    expected = hashlib.sha256(b"(1, 2, 2)" + bytes([0, 255, 0, 255])).hexdigest()[:16]
    assert StimulusSet.from_arrays([[[[0.0, 1.0], [0.0, 1.0]]]]).stimulus_ids == [expected]


def test_identical_images_are_named_unless_ids_are_given():
    codes = _codes()
    codes[3] = codes[1]
    with pytest.raises(ValueError, match="rows 1, 3 are identical"):
        StimulusSet.from_arrays(codes)
    assert len(StimulusSet.from_arrays(codes, {"stimulus_id": list("abcde")})) == 5


def test_a_set_is_not_changed_through_what_it_was_made_from_or_gives(five):
    codes = _codes()
    made = StimulusSet.from_arrays(codes)
    codes[:] = 0
    np.testing.assert_array_equal(made.codes(), _codes())
    made.codes()[:] = 0
    table = five.table
    table["family"] = "changed"
    five.provenance["seed"] = 9
    np.testing.assert_array_equal(made.codes(), _codes())
    assert five.table["family"].tolist() == ["x", "x", "y", "y", "z"]
    assert five.provenance == {"seed": 1}


@pytest.mark.parametrize(
    ("ids", "error", "words"),
    [
        (["a", "b", "a", "c", "b"], ValueError, "'a', 'b' occurs more than once"),
        (["a", "b", "../c", "d", "e"], ValueError, r"'\.\./c' cannot be a file name"),
        (["a", "b", "c/d", "d", "e"], ValueError, "cannot be a file name"),
        (["a", "b", "", "d", "e"], ValueError, "cannot be a file name"),
        (["a", "b", ".c", "d", "e"], ValueError, "cannot be a file name"),
        ([1, 2, 3, 4, 5], TypeError, "as text"),
    ],
)
def test_ids_must_be_distinct_file_names(ids, error, words):
    with pytest.raises(error, match=words):
        StimulusSet.from_arrays(_codes(), {"stimulus_id": ids})


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (np.zeros((2, 4, 4)), ValueError, r"\(2, 4, 4\)"),
        (np.zeros((2, 2, 4, 4)), ValueError, "1 or 3 channels"),
        (np.zeros((0, 1, 4, 4)), ValueError, "at least one"),
        (np.full((1, 1, 4, 4), 255.0), ValueError, "range from 255 to 255"),
        (np.full((1, 1, 4, 4), np.nan), ValueError, "NaN"),
        (np.zeros((1, 1, 4, 4), dtype=int), TypeError, "int64"),
    ],
)
def test_wrong_images_are_refused(images, error, words):
    with pytest.raises(error, match=words):
        StimulusSet.from_arrays(images)


@pytest.mark.parametrize(
    ("table", "error", "words"),
    [
        ({"a": [1, 2]}, ValueError, "2 values for 5"),
        (pd.DataFrame({"a": [1]}), ValueError, "1 rows for 5"),
        ({"a": 3}, TypeError, "one value"),
        ({"a": [[1], [2], [3], [4], [5]]}, TypeError, "one value|list"),
        ({"sha256": list("abcde")}, ValueError, "written by save"),
        ({"filename": ["../x.png", *"abcd"]}, ValueError, "leaves its folder"),
        ({"filename": ["set.json", *"abcd"]}, ValueError, "not the name of a PNG"),
        ({3: list("abcde")}, TypeError, "Column name 3"),
    ],
)
def test_wrong_tables_are_refused(table, error, words):
    with pytest.raises(error, match=words):
        StimulusSet.from_arrays(_codes(), table)


@pytest.mark.parametrize("size", [0, -1.0, float("nan")])
def test_size_deg_is_positive(size):
    with pytest.raises(ValueError, match="size_deg"):
        StimulusSet.from_arrays(_codes(), size_deg=size)


def test_display_and_name_are_checked():
    with pytest.raises(TypeError, match="display is 'lab'"):
        StimulusSet.from_arrays(_codes(), display="lab")
    with pytest.raises(TypeError, match="name is 3"):
        StimulusSet.from_arrays(_codes(), name=3)


def test_select_keeps_rows_with_images(five):
    some = five.select(["d", "a"])
    np.testing.assert_array_equal(some.codes(), _codes()[[3, 0]])
    assert some.table["level"].tolist() == [4, 1]
    assert some.table.index.tolist() == [0, 1]
    assert (some.name, some.size_deg, some.display) == (five.name, five.size_deg, five.display)
    masked = five.select(five.table["family"] == "y")
    assert masked.stimulus_ids == ["c", "d"]
    with pytest.raises(ValueError, match="none of the 5"):
        five.select([])
    with pytest.raises(ValueError, match="twice"):
        five.select(["a", "a"])


def test_concat_joins_tables_and_keeps_types(five):
    other = StimulusSet.from_arrays(_codes(2, seed=1), {"mirrored": [True, False]}, size_deg=4.0, name="two")
    both = StimulusSet.concat([five, other])
    np.testing.assert_array_equal(both.codes(), np.concatenate([_codes(), _codes(2, seed=1)]))
    assert both.stimulus_ids == five.stimulus_ids + other.stimulus_ids
    assert both.table["family"].tolist() == ["x", "x", "y", "y", "z", None, None]
    assert both.table["mirrored"].dtype == "boolean"
    assert both.table["mirrored"].isna().tolist() == [True] * 5 + [False] * 2
    assert both.name == "five+two"
    assert [part["count"] for part in both.provenance["parts"]] == [5, 2]
    assert both.display == Display()
    assert StimulusSet.concat([five.select([0]), five.select([1])]).provenance == five.provenance


def test_concat_refuses_what_does_not_fit(five):
    with pytest.raises(ValueError, match="'a', 'b', 'c' and 2 more occurs more than once"):
        StimulusSet.concat([five, five])
    with pytest.raises(ValueError, match=r"\(1, 6, 4\).*\(3, 6, 4\)"):
        StimulusSet.concat([five, StimulusSet.from_arrays(_codes(1, c=1), size_deg=4.0)])
    with pytest.raises(ValueError, match=r"8\.0 deg"):
        StimulusSet.concat([five, StimulusSet.from_arrays(_codes(1, seed=4))])
    other = StimulusSet.from_arrays(_codes(1, seed=4), size_deg=4.0, display=Display(width_cm=20))
    with pytest.raises(ValueError, match="another display"):
        StimulusSet.concat([five, other])
    with pytest.raises(ValueError, match="at least one"):
        StimulusSet.concat([])


def test_concat_keeps_whole_numbers_and_truth_values_exact(five):
    large = 2**53 + 1
    first = five.with_columns(serial=[large, 2, 3, 4, 5], flag=True)
    second = StimulusSet.from_arrays(_codes(1, seed=9), {"stimulus_id": ["f"]}, size_deg=4.0)
    table = StimulusSet.concat([first, second]).table
    assert (str(table["serial"].dtype), str(table["flag"].dtype)) == ("Int64", "boolean")
    assert [int(value) for value in table["serial"][:5]] == [large, 2, 3, 4, 5]
    assert table["serial"].isna().tolist() == [False] * 5 + [True]
    again = StimulusSet.concat([StimulusSet.concat([first, second]).select(["f", "a"])]).table["serial"]
    assert int(again[1]) == large
    whole = StimulusSet.concat([first.select(["a"]), first.select(["b"])]).table["serial"]
    assert str(whole.dtype) == "int64"


def test_numbers_that_would_be_rounded_are_refused(five):
    with pytest.raises(ValueError, match=r"'serial' holds whole numbers beyond 2\*\*53 among fractions"):
        five.with_columns(serial=[2**53 + 1, 0.5, 1, 2, 3])
    with pytest.raises(ValueError, match="'serial' holds whole numbers beyond 64 bits"):
        five.with_columns(serial=[2**63, None, 1, 2, 3])
    with pytest.raises(ValueError, match="'serial' holds whole numbers beyond 64 bits"):
        five.with_columns(serial=np.array([2**63, 1, 1, 2, 3], dtype=np.uint64))
    assert five.with_columns(serial=[2**53, 0.5, None, 2, 3]).table["serial"][0] == 2**53


def test_with_columns_gives_a_new_set(five):
    new = five.with_columns(family="all", score=np.arange(5) / 2)
    assert new.table["family"].tolist() == ["all"] * 5
    assert new.table["score"].tolist() == [0, 0.5, 1, 1.5, 2]
    assert "score" not in five.table
    with pytest.raises(ValueError, match="2 values for 5"):
        five.with_columns(score=[1, 2])
    with pytest.raises(ValueError, match="'stimulus_id' belongs"):
        five.with_columns(stimulus_id=list("vwxyz"))


def test_repr_and_html_are_escaped(five):
    evil = five.with_columns(note="<script>alert(1)</script>")
    evil = StimulusSet.concat([evil], name="<b>bad</b>")
    page = evil._repr_html_()
    assert "<script>" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;" in page
    assert page.count("<img ") == 5
    assert "5 stimuli" in repr(five)
    many = StimulusSet.from_arrays(_codes(20, h=400, w=300))._repr_html_()
    assert many.count("<img ") == 8
    assert "and 12 more" in many
