"""Round windows against the written formula, and what they leave of a set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stimuli import Display, StimulusSet
from stimuli.apertures import Aperture, apply_aperture, pixel_centers
from stimuli.matching import match_appearance


def noise(n=2, channels=1, size=(24, 32), seed=0):
    codes = np.random.default_rng(seed).integers(0, 256, (n, channels, *size), dtype=np.uint8)
    return StimulusSet.from_arrays(codes, size_deg=8.0, display=Display(), name="noise")


@pytest.mark.parametrize("size", [(4, 4), (3, 6), (7, 5)])
def test_pixels_lie_where_the_convention_says(size):
    x, y = pixel_centers(size, 8.0)
    h, w = size
    for i in range(w):
        assert x[0, i] == pytest.approx(((i + 0.5) / w - 0.5) * 8.0)
    for j in range(h):
        assert y[j, 0] == pytest.approx(-((j + 0.5) / h - 0.5) * 8.0 * h / w)
    assert y[0, 0] > 0 > x[0, 0]  # the first pixel is at the top left
    np.testing.assert_allclose(np.diff(x), -np.diff(y.T)[0, 0])  # square pixels


def test_mask_is_the_raised_cosine_of_the_distance():
    aperture = Aperture(radius_deg=3.0, edge_deg=1.2, x_deg=0.5, y_deg=-0.25)
    mask = aperture.mask((40, 60), 8.0)
    for j, i in np.ndindex(40, 60):
        x = ((i + 0.5) / 60 - 0.5) * 8.0
        y = -((j + 0.5) / 40 - 0.5) * 8.0 * 40 / 60
        r = np.hypot(x - 0.5, y + 0.25)
        inside = 3.0 - 1.2
        wanted = 1.0 if r <= inside else 0.0 if r >= 3.0 else 0.5 * (1 + np.cos(np.pi * (r - inside) / 1.2))
        assert mask[j, i] == pytest.approx(wanted, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(radius=st.floats(0.5, 6.0), share=st.floats(0.0, 1.0), x=st.floats(-1, 1), y=st.floats(-1, 1))
def test_mask_falls_with_the_distance(radius, share, x, y):
    aperture = Aperture(radius, share * radius, x, y)
    mask = aperture.mask((20, 30), 8.0)
    px, py = pixel_centers((20, 30), 8.0)
    order = np.argsort(np.hypot(px - x, py - y).ravel(), kind="stable")
    assert mask.min() >= 0
    assert mask.max() <= 1
    assert (np.diff(mask.ravel()[order]) <= 1e-12).all()


def test_gray_outside_and_unchanged_inside():
    stimuli = noise()
    made = apply_aperture(stimuli, Aperture(3.0, 1.0))
    mask = Aperture(3.0, 1.0).mask((24, 32), 8.0)
    old, new = stimuli.codes()[:, 0], made.codes()[:, 0]
    assert (new[:, mask == 0] == 128).all()
    np.testing.assert_array_equal(new[:, mask == 1], old[:, mask == 1])
    edge = (mask > 0) & (mask < 1)
    wanted = np.floor(255 * (0.5 + mask[edge] * (old[:, edge] / 255 - 0.5)) + 0.5)
    np.testing.assert_array_equal(new[:, edge], wanted)
    assert made.stimulus_ids == stimuli.stimulus_ids
    assert made.display == stimuli.display
    assert made.table["aperture_radius_deg"].tolist() == [3.0, 3.0]
    assert made.provenance["of"] == stimuli.provenance
    assert made.provenance["config"]["apply_aperture"]["edge_deg"] == 1.0


def test_arrays_and_sets_agree():
    stimuli = noise(channels=3)
    aperture = Aperture(2.0, 0.5, 1.0, 0.5)
    as_array = apply_aperture(stimuli.images(), aperture, 0.25, size_deg=8.0)
    as_set = apply_aperture(stimuli, aperture, 0.25)
    np.testing.assert_allclose(as_set.images(), as_array, atol=0.5 / 255 + 1e-6)
    assert (as_set.codes()[:, :, 0, 0] == 64).all()


def test_what_the_table_says_of_the_pixels_stays_true():
    strong = match_appearance(noise(), mean=0.4, rms=0.4).stimuli
    made = apply_aperture(strong, Aperture(2.0, 0.5))
    images = made.codes() / 255.0
    np.testing.assert_allclose(made.table["rms_contrast"], images.std(axis=(1, 2, 3)))
    np.testing.assert_allclose(made.table["mean_luminance"], images.mean(axis=(1, 2, 3)))
    assert (made.table["clipped_fraction"] > 0.02).all()
    assert made.table["clipped_fraction"].tolist() == strong.table["clipped_fraction"].tolist()
    assert not {"rms_contrast", "mean_luminance"} & set(apply_aperture(noise(), Aperture(2.0)).table)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_codes_are_not_taken_for_values(dtype):
    with pytest.raises(TypeError, match=f"images of type {np.dtype(dtype)}: give floating point"):
        apply_aperture(np.ones((1, 8, 8), dtype), Aperture(2.0), size_deg=8.0)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"radius_deg": 0.0}, ValueError, "positive"),
        ({"radius_deg": 1.0, "edge_deg": 1.5}, ValueError, "edge"),
        ({"radius_deg": 1.0, "x_deg": float("nan")}, ValueError, "x_deg"),
        ({"radius_deg": "2"}, TypeError, "radius_deg"),
    ],
)
def test_impossible_apertures_are_refused(fields, error, words):
    with pytest.raises(error, match=words):
        Aperture(**fields)


def test_an_aperture_beside_the_image_and_missing_sizes_are_refused():
    with pytest.raises(ValueError, match="closed at every pixel of an image of 24 x 32 px and 8 deg"):
        Aperture(1.0, 0.1, x_deg=20.0).mask((24, 32), 8.0)
    with pytest.raises(TypeError, match="without size_deg"):
        apply_aperture(np.zeros((4, 4)), Aperture(1.0))
    with pytest.raises(TypeError, match="leave size_deg out"):
        apply_aperture(noise(), Aperture(1.0), size_deg=8.0)
    with pytest.raises(ValueError, match="background"):
        apply_aperture(noise(), Aperture(1.0), 128)
    with pytest.raises(ValueError, match="size_px"):
        pixel_centers((0, 4), 8.0)
