"""The uniform gray control: appended once, exactly 128, found again, and never in place of another image."""

from __future__ import annotations

import numpy as np
import pytest

from stimuli import Display, StimulusSet
from stimuli.gray import gray_control_id, with_gray_control


def noise(n=3, channels=1, **columns):
    images = np.random.default_rng(0).random((n, channels, 8, 6))
    table = {"stimulus_id": [f"s{k}" for k in range(n)], **columns}
    return StimulusSet.from_arrays(images, table, size_deg=3.0, display=Display(), provenance={"made": "by hand"})


@pytest.mark.parametrize("channels", [1, 3])
def test_one_image_of_code_128_is_appended_and_nothing_else_changes(channels):
    before = noise(channels=channels, family=["a", "b", "c"])
    after = with_gray_control(before)
    assert after.stimulus_ids == ["s0", "s1", "s2", "gray"]
    assert np.array_equal(after.codes()[:3], before.codes())
    assert np.unique(after.codes(["gray"])).tolist() == [128]
    last = after.table.iloc[3]
    assert (last["family"], last["filename"]) == ("uniform_gray", "images/gray.png")
    assert (after.size_deg, after.display, after.name) == (before.size_deg, before.display, before.name)
    assert after.provenance == before.provenance
    assert gray_control_id(after) == "gray"


def test_whole_numbers_of_the_set_stay_exact():
    after = with_gray_control(noise(serial=[2**53 + 1, 7, -1], level=[0.5, 1.0, 2.0])).table
    assert str(after["serial"].dtype) == "Int64"
    assert [int(value) for value in after["serial"][:3]] == [2**53 + 1, 7, -1]
    assert after["serial"].isna().tolist() == [False, False, False, True]
    assert str(after["level"].dtype) == "float64"


def test_a_set_with_a_uniform_gray_image_stays_as_it_is():
    codes = np.random.default_rng(0).integers(0, 256, (3, 1, 4, 4), dtype=np.uint8)
    codes[1] = 128
    own = StimulusSet.from_arrays(codes, {"stimulus_id": ["a", "plain", "b"]})
    assert with_gray_control(own) is own
    assert gray_control_id(own) == "plain"


@pytest.mark.parametrize("code", [127, 129])
def test_uniform_but_not_128_is_no_control(code):
    codes = np.full((1, 1, 4, 4), code, dtype=np.uint8)
    near = StimulusSet.from_arrays(codes, {"stimulus_id": ["near"]})
    assert with_gray_control(near).stimulus_ids == ["near", "gray"]
    with pytest.raises(ValueError, match="no uniform image of code 128"):
        gray_control_id(near)


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"stimulus_id": ["gray"]}, "stimulus_id 'gray'"),
        ({"stimulus_id": ["a"], "filename": ["images/gray.png"]}, "filename 'images/gray.png'"),
    ],
)
def test_another_image_of_that_name_is_an_error(columns, what):
    images = np.random.default_rng(0).random((1, 1, 4, 4))
    with pytest.raises(ValueError, match=f"{what} for an image that is not uniform 128: rename it"):
        with_gray_control(StimulusSet.from_arrays(images, columns))
