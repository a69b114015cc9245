from __future__ import annotations

import json

import numpy as np
import pytest

from stimuli import Display


def test_ppd_is_the_size_of_one_degree_on_the_screen():
    screen = Display(resolution_px=(1280, 1024), width_cm=40.0, distance_cm=100.0)
    edges_cm = 100.0 * np.tan(np.deg2rad([-0.5, 0.5]))
    assert screen.ppd == pytest.approx((edges_cm[1] - edges_cm[0]) / 40.0 * 1280, rel=1e-12)
    assert Display(width_cm=60.0).ppd == pytest.approx(31.84, abs=0.005)


def test_degrees_and_pixels_are_inverse_for_arrays():
    screen = Display()
    deg = np.array([0.1, 1.0, 8.0])
    np.testing.assert_allclose(screen.px_to_deg(screen.deg_to_px(deg)), deg)
    np.testing.assert_allclose(screen.deg_to_px(deg), deg * screen.ppd)


def test_dict_round_trip_through_json():
    screen = Display((800, 600), 30, 57, 0.4, (0.3, 120), 2.2, 100)
    again = Display.from_dict(json.loads(json.dumps(screen.to_dict())))
    assert again == screen
    assert again.luminance_cd_m2 == (0.3, 120.0)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"resolution_px": (0, 5)}, ValueError, "resolution_px"),
        ({"resolution_px": (10.5, 5)}, ValueError, "whole"),
        ({"resolution_px": 5}, TypeError, "pair"),
        ({"width_cm": -1.0}, ValueError, "width_cm"),
        ({"distance_cm": float("nan")}, ValueError, "distance_cm"),
        ({"distance_cm": "57"}, TypeError, "distance_cm"),
        ({"background": 1.5}, ValueError, "background"),
        ({"luminance_cd_m2": (5.0, 1.0)}, ValueError, "black"),
        ({"gamma": 0.0}, ValueError, "gamma"),
        ({"refresh_hz": float("inf")}, ValueError, "refresh_hz"),
    ],
)
def test_bad_values_are_refused(fields, error, words):
    with pytest.raises(error, match=words):
        Display(**fields)


def test_misspelt_field_suggests_the_right_one():
    with pytest.raises(ValueError, match="did you mean 'width_cm'"):
        Display.from_dict({"widht_cm": 3.0})


def test_formula_is_named_and_gives_the_number():
    screen = Display((1280, 1024), 40.0, 100.0)
    formula = screen.ppd_formula.split("(central")[0].split("=")[1]
    values = {"distance_cm": 100.0, "width_cm": 40.0, "resolution_px": (1280, 1024)}
    written = formula.replace("tan(0.5 deg)", "0.00872686779075879")
    assert eval(written, {}, values) == pytest.approx(screen.ppd, rel=1e-12)


def test_height_follows_from_square_pixels():
    assert Display((1600, 900), width_cm=32.0).height_cm == pytest.approx(18.0)


@pytest.mark.parametrize("deg", [0.0, 1.0, 8.0, -16.0])
def test_exact_eccentricity_is_a_tangent(deg):
    screen = Display((1920, 1080), 60.0, 57.0)
    px = screen.deg_to_px(deg, exact=True)
    assert px == pytest.approx(57.0 * np.tan(np.deg2rad(deg)) / 60.0 * 1920)
    assert screen.px_to_deg(px, exact=True) == pytest.approx(deg)
    assert abs(px) >= abs(screen.deg_to_px(deg)) * 0.99998


def test_nothing_lies_at_ninety_degrees_on_a_flat_screen():
    with pytest.raises(ValueError, match="90 deg"):
        Display().deg_to_px(90.0, exact=True)


def test_resampling_names_both_ways_out_and_both_work():
    screen = Display((1920, 1080), 60.0, 57.0)
    assert screen.resampling(255, 8.0) is None
    assert screen.resampling((100, 255), 8.0) is None  # height and width: the width counts
    warning = screen.resampling(256, 8.0)
    size_deg = float(warning.split("show them at ")[1].split(" deg")[0])
    size_px = int(warning.split("make them with ")[1].split(" px")[0])
    assert screen.resampling(256, size_deg) is None
    assert screen.resampling(size_px, 8.0) is None
    assert size_px == round(8.0 * screen.ppd)
