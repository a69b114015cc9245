"""Light from codes and back: gamma, full gamma, tables and sRGB against written-out formulae and other libraries."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2xyz

from stimuli import Display
from stimuli.gamma_fit import fit_gamma
from stimuli.luminance import GammaCurve, SrgbCurve, TableCurve

CODES = np.linspace(0.0, 1.0, 256)
TABLE = tuple((i / 16, 0.4 + 119.6 * (i / 16) ** 2.2) for i in range(17))


def test_simple_gamma_is_black_plus_a_power():
    screen = Display(luminance_cd_m2=(0.4, 120.0), gamma=2.2)
    np.testing.assert_allclose(screen.decode(CODES), 0.4 + 119.6 * CODES**2.2, rtol=1e-12)
    np.testing.assert_allclose(screen.encode(60.2), 0.5 ** (1 / 2.2), rtol=1e-12)


def test_full_gamma_has_the_written_constants_and_the_measured_ends():
    a, b, k, g = 0.3, 1.1, 7.0, 2.4
    light = a + (b + k * CODES) ** g
    screen = Display(luminance_cd_m2=(light[0], light[-1]), gamma=g, gamma_offset=b)
    np.testing.assert_allclose(screen.curve.constants, (a, b, k), rtol=1e-9)
    np.testing.assert_allclose(screen.decode(CODES), light, rtol=1e-12)
    np.testing.assert_allclose(screen.encode(light), ((light - a) ** (1 / g) - b) / k, rtol=1e-12)


def test_a_negative_offset_is_black_until_the_screen_starts():
    curve = GammaCurve(0.0, 100.0, 2.0, offset=-2.5)  # k = 12.5: light begins at the code 0.2
    assert curve.luminance([0.0, 0.1, 0.2]).tolist() == [0.0, 0.0, 0.0]
    np.testing.assert_allclose(curve.luminance([0.6, 1.0]), [25.0, 100.0])
    np.testing.assert_allclose(curve.code([0.0, 25.0]), [0.2, 0.6])


@settings(max_examples=60, deadline=None)
@given(
    black=st.floats(0.0, 5.0),
    span=st.floats(1.0, 1000.0),
    gamma=st.floats(0.5, 4.0),
    share=st.floats(-0.5, 1.0),
    code=st.floats(0.3, 1.0),
)
def test_encode_inverts_decode(black, span, gamma, share, code):
    offset = share * (black if share > 0 else span) ** (1 / gamma)
    screen = Display(luminance_cd_m2=(black, black + span), gamma=gamma, gamma_offset=min(offset, black ** (1 / gamma)))
    light = screen.decode(code)
    np.testing.assert_allclose(screen.decode(screen.encode(light)), light, rtol=1e-9, atol=1e-9 * span)
    if offset >= 0 and light > black + 1e-3 * span:
        np.testing.assert_allclose(screen.encode(light), code, rtol=1e-6)
    np.testing.assert_allclose(screen.decode([0.0, 1.0]), [black, black + span], rtol=1e-9, atol=1e-9 * span)


def test_srgb_agrees_with_scikit_image():
    light = rgb2xyz(np.repeat(CODES[:, None], 3, axis=1))[:, 1]
    np.testing.assert_allclose(
        SrgbCurve().luminance(CODES), light, atol=2e-6
    )  # its matrix sums to 1.000000 in six digits
    np.testing.assert_allclose(SrgbCurve().code(SrgbCurve().luminance(CODES)), CODES, atol=1e-7)
    half = Display(pixel_values="srgb", luminance_cd_m2=(0.5, 100.5)).decode(128 / 255)
    assert half == pytest.approx(0.5 + 100 * ((128 / 255 + 0.055) / 1.055) ** 2.4, rel=1e-12)


def test_a_table_goes_through_its_readings_and_back():
    screen = Display(luminance_table=TABLE, gamma=1.0)  # the table is preferred
    codes, light = np.array(TABLE).T
    np.testing.assert_allclose(screen.decode(codes), light, rtol=1e-12)
    np.testing.assert_allclose(screen.encode(screen.decode(CODES)), CODES, atol=1e-12)
    truth = 0.4 + 119.6 * CODES**2.2
    assert np.abs(screen.decode(CODES) - truth).max() < 0.0015 * 119.6
    assert screen.luminance_cd_m2 == (TABLE[0][1], TABLE[-1][1])


def test_a_rig_that_corrects_its_screen_shows_light_in_proportion():
    screen = Display(luminance_cd_m2=(1.0, 101.0), gamma=2.2, pixel_values="linear")
    np.testing.assert_allclose(screen.decode([0.0, 0.25, 1.0]), [1.0, 26.0, 101.0])


def test_relative_luminance_needs_no_photometer():
    screen = Display(gamma=2.0)
    assert screen.decode(0.5, relative=True) == pytest.approx(0.25)
    assert screen.encode(0.25, relative=True) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="luminance_cd_m2"):
        screen.encode(0.25)
    with pytest.raises(ValueError, match="luminance_cd_m2"):
        screen.decode(0.5)
    measured = Display(luminance_cd_m2=(10.0, 110.0), gamma=2.0)
    assert measured.decode(0.5, relative=True) == pytest.approx(0.25)
    assert measured.encode(0.25, relative=True) == pytest.approx(0.5)


@pytest.mark.parametrize("light", [0.39, 120.1, np.nan, [1.0, np.inf]])
def test_what_the_screen_cannot_show_is_refused(light):
    with pytest.raises(ValueError, match=r"0\.4 to 120 can be shown"):
        Display(luminance_cd_m2=(0.4, 120.0), gamma=2.2).encode(light)


def test_codes_beyond_the_range_and_unmeasured_screens_are_refused():
    with pytest.raises(ValueError, match="0 to 1 can be shown"):
        Display(gamma=2.2).decode(128, relative=True)
    with pytest.raises(ValueError, match="neither gamma nor luminance_table"):
        Display().decode(0.5)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"pixel_values": "sgrb"}, "did you mean 'srgb'"),
        ({"gamma_offset": 1.0}, "without a gamma"),
        ({"gamma": 2.0, "gamma_offset": 1.5, "luminance_cd_m2": (1.0, 100.0)}, "offset"),
        ({"gamma": 2.0, "gamma_offset": 0.1}, "offset"),
        ({"luminance_table": ((0.0, 1.0),)}, "at least two"),
        ({"luminance_table": ((0, 1.0), (255, 90.0))}, "from 0 to 1"),
        ({"luminance_table": ((0, 1.0), (0.5, 1.0), (1, 90.0))}, "stays at code 0.5"),
        ({"luminance_table": ((0, 1.0), (1, float("nan")))}, "finite"),
        ({"luminance_table": (1.0, 2.0)}, "pairs"),
        ({"luminance_table": TABLE, "luminance_cd_m2": (1.0, 100.0)}, "leave luminance_cd_m2 out"),
    ],
)
def test_a_wrong_measurement_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        Display(**fields)


def test_every_field_survives_json_and_old_files_are_read():
    screen = Display(gamma=2.2, gamma_offset=0.5, luminance_cd_m2=(1.0, 100.0), pixel_values="linear")
    for display in (screen, Display(luminance_table=TABLE, pixel_values="display")):
        assert Display.from_dict(json.loads(json.dumps(display.to_dict()))) == display
    old = {"resolution_px": [800, 600], "width_cm": 30.0, "distance_cm": 57.0, "background": 0.5, "gamma": None}
    assert Display.from_dict(old | {"luminance_cd_m2": None, "refresh_hz": 60.0}).pixel_values == "display"


@pytest.mark.parametrize(("offset", "full"), [(0.0, False), (0.0, True), (0.8, True), (-1.5, True)])
def test_fit_finds_the_planted_curve(offset, full):
    truth = GammaCurve(1.5, 140.0, 2.3, offset)
    codes = np.linspace(0, 1, 17)
    fit = fit_gamma(codes, truth.luminance(codes), full=full)
    np.testing.assert_allclose(fit.curve.luminance(CODES), truth.luminance(CODES), atol=0.02)
    assert fit.curve.gamma == pytest.approx(2.3, abs=0.02)
    assert fit.rms_error < 0.01
    screen = dataclasses.replace(Display(), **fit.display_fields())
    np.testing.assert_allclose(screen.decode(codes), fit.curve.luminance(codes))


@pytest.mark.parametrize("gamma", [1.2, 1.5, 1.8, 2.4])
@pytest.mark.parametrize("share", [-0.12, -0.02, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("ends", [(0.63, 128.0), (1.5, 220.0), (0.0, 20.0)])
def test_full_fit_finds_every_planted_curve(ends, share, gamma):
    black, white = ends
    truth = GammaCurve(black, white, gamma, share * (black if share > 0 else white) ** (1 / gamma))
    codes = np.linspace(0, 1, 17)
    fit = fit_gamma(codes, truth.luminance(codes), full=True)
    assert fit.largest_error < 1e-4 * white
    np.testing.assert_allclose(fit.curve.luminance(CODES), truth.luminance(CODES), atol=1e-3 * white)


@pytest.mark.parametrize(("black", "white", "gamma", "offset"), [(0.8, 100.0, 1.3, -2.0), (1.5, 220.0, 1.5, -2.4)])
def test_full_fit_finds_screens_that_start_late(black, white, gamma, offset):
    truth = GammaCurve(black, white, gamma, offset)
    codes = np.linspace(0, 1, 17)
    fit = fit_gamma(codes, truth.luminance(codes), full=True)
    assert (fit.curve.gamma, fit.curve.offset) == (pytest.approx(gamma, abs=1e-4), pytest.approx(offset, abs=1e-3))


@pytest.mark.parametrize("seed", range(5))
def test_an_offset_never_makes_the_fit_worse(seed):
    rng = np.random.default_rng(seed)
    codes = np.linspace(0, 1, 9)
    light = (0.5 + 119.5 * codes ** rng.uniform(0.5, 3) + rng.normal(0, 1.0, 9)).clip(0)
    simple, full = fit_gamma(codes, light), fit_gamma(codes, light, full=True)
    assert full.rms_error <= simple.rms_error


def test_a_fit_takes_the_place_of_a_table_and_a_table_that_of_a_fit():
    table = Display(luminance_table=TABLE)
    fit = fit_gamma(*np.array(TABLE).T)
    fitted = dataclasses.replace(table, **fit.display_fields())
    assert fitted.curve == fit.curve
    new = tuple((code, 2 * light) for code, light in TABLE)
    for old in (table, fitted):
        with pytest.raises(ValueError, match="in replace means luminance_cd_m2=None"):
            dataclasses.replace(old, luminance_table=new)
        again = dataclasses.replace(old, luminance_table=new, luminance_cd_m2=None)
        assert again.luminance_cd_m2 == (new[0][1], new[-1][1])


def test_fit_averages_noisy_readings_and_says_how_well_it_fits():
    rng = np.random.default_rng(3)
    codes = np.tile(np.linspace(0, 1, 17), 3)
    light = 0.5 + 119.5 * codes**2.2 + rng.normal(0, 0.5, codes.shape).clip(-0.4, None)
    fit = fit_gamma(codes, light)
    assert fit.curve.gamma == pytest.approx(2.2, abs=0.05)
    residuals = fit.curve.luminance(codes) - light
    assert fit.rms_error == pytest.approx(np.sqrt(np.mean(residuals**2)))
    assert fit.largest_error == pytest.approx(np.abs(residuals).max())


@pytest.mark.parametrize(
    ("codes", "light", "words"),
    [
        ([0, 0.5, 1], [1.0, 20.0], "one finite reading per code"),
        ([0, 1, 1], [1.0, 20.0, 21.0], "at least 3 different codes"),
        ([0, 128, 255], [1.0, 20.0, 90.0], "0 to 1"),
        ([0, 0.5, 1], [9.0, 5.0, 1.0], "rise with the code"),
        ([0, 0.5, 1], [-1.0, 5.0, 10.0], "at least 0"),
    ],
)
def test_fit_refuses_readings_that_are_none(codes, light, words):
    with pytest.raises(ValueError, match=words):
        fit_gamma(codes, light)


def test_curves_are_no_arrays_of_pairs_by_accident():
    assert TableCurve([[0, 0.5], [1, 80]]).readings == ((0.0, 0.5), (1.0, 80.0))
