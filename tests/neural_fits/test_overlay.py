"""Maps over pictures: positions, colors, boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator
from skimage.measure import label, regionprops

from neural_fits.features import FeatureExtractor, feature_positions
from neural_fits.inspection.overlay import box, overlay, upsampled


def test_cells_stand_where_the_positions_of_the_features_are(lite0):
    """Between the outermost centers: bilinear interpolation of the values at `feature_positions`, done by scipy."""
    size, deg = (64, 96), 6.0
    places = feature_positions(FeatureExtractor(lite0, "blocks.2"), size, deg)
    values = np.random.default_rng(0).normal(size=places.shape[:2])
    x, y = places[0, :, 0], places[:, 0, 1]
    scale = deg / size[1]
    columns, rows = ((np.arange(n) + 0.5) * scale - n * scale / 2 for n in (size[1], size[0]))
    down = -rows  # y is upward
    within_x, within_y = (columns >= x[0]) & (columns <= x[-1]), (down <= y[0]) & (down >= y[-1])
    grid = np.stack(np.meshgrid(down[within_y], columns[within_x], indexing="ij"), -1)
    expected = RegularGridInterpolator((y[::-1], x), values[::-1])(grid)
    found = upsampled(torch.from_numpy(values), size).numpy()[np.ix_(within_y, within_x)]
    assert found.shape == (56, 88)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_any_leading_axes_are_kept():
    maps = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    bigger = upsampled(maps, (8, 20))
    assert bigger.shape == (2, 3, 8, 20)
    torch.testing.assert_close(bigger[1, 2], upsampled(maps[1, 2], (8, 20)))


def test_signs_and_strengths_have_their_colors():
    image = np.full((3, 4, 6), 0.5)
    values = np.zeros((4, 6))
    values[0, 0], values[3, 5], values[2, 2] = 4, -4, 2
    picture = overlay(image, values).astype(int)
    assert picture.shape == (4, 6, 3)
    assert picture[0, 0, 0] > picture[0, 0, 2] + 50  # red drives
    assert picture[3, 5, 2] > picture[3, 5, 0] + 50  # blue suppresses
    assert (picture[1, 4] == 128).all()  # nothing where nothing is
    assert 0 < picture[2, 2, 0] - picture[2, 2, 2] < picture[0, 0, 0] - picture[0, 0, 2]
    weaker = overlay(image, values, limit=40).astype(int)
    assert np.ptp(weaker[0, 0]) < np.ptp(picture[0, 0])


def test_positive_maps_get_brighter_and_images_turn_gray():
    image = np.random.default_rng(0).random((3, 8, 8))
    values = np.linspace(0, 1, 8)[None].repeat(8, 0)
    picture = overlay(image, values)
    np.testing.assert_array_equal(picture[:, 0], np.round(image.mean(0)[:, :1] * 255).repeat(3, 1).astype(np.uint8))
    assert (picture[:, 7, 0].astype(int) - picture[:, 7, 2] > 80).all()
    gray = overlay(image.mean(0, keepdims=True), values)
    np.testing.assert_allclose(gray.astype(int), picture, atol=1)
    assert (overlay(image, np.zeros((2, 2))) == overlay(image, np.zeros((4, 4)))).all()  # a map of nothing


def test_box_is_that_of_the_largest_region_above_a_fifth_of_the_maximum():
    values = torch.zeros(10, 12)
    values[2, 3], values[7, 9] = 5, 4
    values = upsampled(values, (80, 96)).numpy()
    found = box(values)
    largest = max(regionprops(label(values > 0.2 * values.max(), connectivity=1)), key=lambda each: each.area)
    assert found == largest.bbox
    assert box(values, 0.9) != found
    values = np.zeros((6, 6))
    values[0, 0], values[2, 1:4] = 10, 3
    assert box(values) == (2, 1, 3, 4)  # by its size, neither by its height nor by its sum
    assert box(values, 0.5) == (0, 0, 1, 1)
    assert box(-values + 1) == (0, 0, 6, 6)


def test_corners_do_not_connect_and_ties_go_to_the_stronger():
    assert box(np.array([[1.0, 0, 0], [0, 2, 0], [0, 0, 0]])) == (1, 1, 2, 2)


def test_what_cannot_be_drawn_is_named():
    with pytest.raises(ValueError, match="one map"):
        overlay(np.zeros((3, 4, 4)), np.zeros((1, 4, 4)))
    with pytest.raises(ValueError, match="one image"):
        overlay(np.zeros((4, 4, 3)), np.zeros((4, 4)))
    with pytest.raises(ValueError, match="not finite"):
        overlay(np.zeros((3, 4, 4)), np.full((4, 4), np.nan))
    for wrong in (np.full((3, 4, 4), np.nan), np.full((3, 4, 4), 200, np.uint8), np.full((1, 4, 4), -0.5)):
        with pytest.raises(ValueError, match=r"the image has values from .*; expected 0 to 1"):
            overlay(wrong, np.ones((4, 4)))
    with pytest.raises(ValueError, match="not finite"):
        box([[1.0, np.nan]])
    with pytest.raises(ValueError, match="limit is -1"):
        overlay(np.zeros((3, 4, 4)), np.zeros((4, 4)), limit=-1)
    with pytest.raises(ValueError, match="without positive values"):
        box(-np.ones((3, 3)))
    with pytest.raises(ValueError, match="fraction is 1"):
        box(np.ones((3, 3)), 1)
