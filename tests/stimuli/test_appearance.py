from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from stimuli import quantize
from stimuli.appearance import to_float


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_half_is_code_128(dtype):
    codes, clipped = quantize(np.full((2, 3, 4, 4), 0.5, dtype=dtype))
    assert codes.dtype == np.uint8
    assert (codes == 128).all()
    assert clipped.tolist() == [0.0, 0.0]


@given(arrays(np.uint8, array_shapes(min_dims=4, max_dims=4, max_side=5)))
def test_codes_survive_float32(codes):
    again, clipped = quantize(to_float(codes))
    np.testing.assert_array_equal(again, codes)
    assert (clipped == 0).all()


def test_every_code_survives():
    codes = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    np.testing.assert_array_equal(quantize(to_float(codes))[0], codes)


@given(arrays(np.float64, (1, 1, 3, 3), elements=st.floats(0, 1)))
def test_rounding_error_is_at_most_half_a_code(images):
    codes, _ = quantize(images)
    assert np.abs(codes / 255.0 - images).max() <= 0.5 / 255 + 1e-12


def test_clipped_fraction_is_per_image():
    images = np.full((2, 1, 2, 2), 0.25)
    images[1, 0, 0] = [-0.1, 1.5]
    codes, clipped = quantize(images)
    assert clipped.tolist() == [0.0, 0.5]
    assert codes[1, 0, 0].tolist() == [0, 255]


def test_rounding_is_not_clipping_and_half_a_code_is():
    images = np.array([-1.01 / 510, -0.99 / 510, -1e-12, 1 + 1e-12, 1 + 0.99 / 510, 1 + 1.01 / 510])
    codes, clipped = quantize(images.reshape(1, 1, 2, 3))
    assert codes.ravel().tolist() == [0, 0, 0, 255, 255, 255]
    assert clipped.tolist() == [pytest.approx(2 / 6)]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_values_are_refused(bad):
    images = np.zeros((3, 1, 2, 2))
    images[1, 0, 0, 0] = bad
    with pytest.raises(ValueError, match="Image 1 of 3"):
        quantize(images)


def test_wrong_type_and_shape_are_refused():
    with pytest.raises(TypeError, match="int64"):
        quantize(np.zeros((1, 1, 2, 2), dtype=np.int64))
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        quantize(np.zeros((2, 2)))
    with pytest.raises(TypeError, match="uint8"):
        to_float(np.zeros(3))
