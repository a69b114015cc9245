"""Gratings and Gabors against planted frequency, orientation, phase, place and size; polar ones against their phase."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stimuli import Display
from stimuli.families import draw
from stimuli.gratings import Gabor, Grating
from stimuli.polar import Concentric, Hyperbolic, LogPolar, Radial, Spiral

SIZE_DEG = 8.0


def codes_of(pattern, size_px=128, size_deg=SIZE_DEG, **options):
    return draw([pattern], size_px=size_px, size_deg=size_deg, **options).codes()[0, 0]


def modulation(codes):
    """The image as contrast about the code 127.5, as float."""
    return codes / 127.5 - 1.0


def places(size_px, size_deg=SIZE_DEG):
    """Pixel centers in degrees, written out from the conventions: x right, y up."""
    x = [((i + 0.5) / size_px - 0.5) * size_deg for i in range(size_px)]
    return np.meshgrid(x, [-value for value in x])


def peak(codes, size_deg=SIZE_DEG, pad=8):
    """Frequency in cycles/deg and direction in degrees (y up, 0 to 180) of the windowed spectrum's maximum."""
    n = len(codes)
    window = np.outer(np.hanning(n), np.hanning(n))
    image = codes - codes.mean()
    power = np.abs(np.fft.fft2(image * window, s=(pad * n, pad * n))) ** 2
    axis = np.fft.fftfreq(pad * n, d=size_deg / n)
    row, column = np.unravel_index(int(np.argmax(power)), power.shape)
    fx, fy = axis[column], -axis[row]  # rows run downward
    return math.hypot(fx, fy), math.degrees(math.atan2(fy, fx)) % 180.0


def turn_between(a, b):
    return abs((a - b + 90.0) % 180.0 - 90.0)


@settings(max_examples=25, deadline=None)
@given(f=st.floats(1.0, 6.0), t=st.floats(0.0, 180.0), p=st.floats(0.0, 360.0), c=st.floats(0.2, 1.0))
def test_the_fourier_peak_of_a_grating_is_where_it_was_asked(f, t, p, c):
    found, direction = peak(codes_of(Grating(frequency_cpd=f, orientation_deg=t, phase_deg=p, contrast=c)))
    assert found == pytest.approx(f, rel=0.02)
    assert math.radians(turn_between(direction, t)) < 0.02


@settings(max_examples=15, deadline=None)
@given(f=st.floats(1.5, 5.0), t=st.floats(0.0, 180.0), p=st.floats(0.0, 360.0), aspect=st.floats(0.75, 1.5))
def test_the_fourier_peak_of_a_gabor_is_where_it_was_asked(f, t, p, aspect):
    gabor = Gabor(frequency_cpd=f, orientation_deg=t, phase_deg=p, sigma_deg=0.8, aspect=aspect)
    found, direction = peak(codes_of(gabor))
    assert found == pytest.approx(f, rel=0.02)
    assert math.radians(turn_between(direction, t)) < 0.02


@pytest.mark.parametrize("distance_cm", [40.0, 57.0, 114.0])
def test_a_period_is_ppd_over_f_pixels_at_every_distance(distance_cm):
    display = Display(resolution_px=(640, 480), width_cm=53.0, distance_cm=distance_cm)
    made = draw([Grating(frequency_cpd=1.5, phase_deg=-90.0)], size_deg=4.0, display=display)
    assert made.size_px[1] == round(4.0 * display.ppd)
    row = modulation(made.codes()[0, 0])[0]
    rising = np.flatnonzero((row[:-1] < 0) & (row[1:] >= 0))
    at = rising + row[rising] / (row[rising] - row[rising + 1])
    assert np.diff(at).mean() == pytest.approx(display.ppd / 1.5, rel=0.02)


@given(t=st.sampled_from([0.0, 30.0, 90.0, 135.0]), p=st.floats(-180.0, 180.0))
@settings(max_examples=20, deadline=None)
def test_phase_at_the_origin(t, p):
    grating = Grating(frequency_cpd=2.0, orientation_deg=t, phase_deg=p, x_deg=0.3, y_deg=-0.2)
    x, y = places(128)
    u = (x - 0.3) * math.cos(math.radians(t)) + (y + 0.2) * math.sin(math.radians(t))
    window = np.outer(np.hanning(128), np.hanning(128))
    demodulated = np.sum(window * modulation(codes_of(grating)) * np.exp(-2j * math.pi * 2.0 * u))
    assert abs((math.degrees(np.angle(demodulated)) - p + 180.0) % 360.0 - 180.0) < 1.0


def test_orientation_is_the_direction_of_modulation_counterclockwise():
    vertical_bars = modulation(codes_of(Grating(frequency_cpd=1.0, orientation_deg=0.0)))
    assert np.ptp(vertical_bars, axis=0).max() == 0
    # at 45 deg the phase is the same along the falling diagonal: right and down
    diagonal = modulation(codes_of(Grating(frequency_cpd=1.0, orientation_deg=45.0, phase_deg=30.0)))
    np.testing.assert_allclose(diagonal[1:, 1:], diagonal[:-1, :-1], atol=1 / 127)
    assert np.abs(diagonal[1:, :-1] - diagonal[:-1, 1:]).max() > 0.2


def test_even_and_odd_phase():
    for kind in (Grating, Gabor):
        even = codes_of(kind(frequency_cpd=1.3, orientation_deg=20.0)).astype(int)
        odd = codes_of(kind(frequency_cpd=1.3, orientation_deg=20.0, phase_deg=90.0)).astype(int)
        np.testing.assert_array_equal(even, even[::-1, ::-1])
        assert np.abs(odd + odd[::-1, ::-1] - 255).max() <= 1
    right = codes_of(Gabor(frequency_cpd=1.0, phase_deg=-90.0)).astype(int)
    assert right[:, 64:72].mean() > 128 > right[:, 56:64].mean()


@settings(max_examples=20, deadline=None)
@given(
    sigma=st.floats(0.4, 0.7),
    aspect=st.floats(0.7, 1.4),
    t=st.floats(0.0, 180.0),
    x=st.floats(-1.0, 1.0),
    y=st.floats(-1.0, 1.0),
)
def test_place_and_width_of_a_gabor(sigma, aspect, t, x, y):
    """The energy of a quadrature pair is a Gaussian with half the variance of the envelope."""
    parts = {"frequency_cpd": 3.0, "orientation_deg": t, "sigma_deg": sigma, "aspect": aspect, "x_deg": x, "y_deg": y}
    pair = [modulation(codes_of(Gabor(phase_deg=phase, **parts))) for phase in (0.0, 90.0)]
    energy = (pair[0] ** 2 + pair[1] ** 2) * (pair[0] ** 2 + pair[1] ** 2 > 2e-4)
    energy /= energy.sum()
    right, up = places(128)
    mean = (energy * right).sum(), (energy * up).sum()
    assert mean == pytest.approx((x, y), abs=0.02)
    angle = math.radians(t)
    u = (right - x) * math.cos(angle) + (up - y) * math.sin(angle)
    v = (up - y) * math.cos(angle) - (right - x) * math.sin(angle)
    assert math.sqrt(2 * (energy * u**2).sum()) == pytest.approx(sigma, rel=0.02)
    assert math.sqrt(2 * (energy * v**2).sum()) == pytest.approx(sigma / aspect, rel=0.02)


def test_a_zero_mean_gabor_integrates_to_zero():
    x, y = places(256)
    low = {"frequency_cpd": 0.4, "sigma_deg": 0.6, "aspect": 0.8, "orientation_deg": 30.0}
    for phase in (0.0, 60.0, 90.0, 180.0):
        plain = Gabor(phase_deg=phase, **low).signal(x, y).mean()
        assert abs(Gabor(phase_deg=phase, zero_mean=True, **low).signal(x, y).mean()) < 1e-8
        assert abs(plain) > 1e-3 or phase == 90.0


def test_contrast_is_michelson_and_a_negative_one_inverts():
    half = codes_of(Grating(frequency_cpd=1.0, contrast=0.5, phase_deg=180.0 / 16), size_px=128).astype(float)
    assert (half.max() - half.min()) / (half.max() + half.min()) == pytest.approx(0.5, abs=0.01)
    plain, inverted = (codes_of(Grating(contrast=sign)).astype(int) for sign in (0.8, -0.8))
    assert np.abs(plain + inverted - 255).max() <= 1


POLAR = [
    (Concentric(frequency_cpd=1.2), lambda r, x, y: 1.2 + 0 * r),
    (Radial(angular_cycles=7), lambda r, x, y: 7 / (2 * math.pi * r)),
    (Spiral(frequency_cpd=0.9, angular_cycles=-5), lambda r, x, y: np.hypot(0.9, 5 / (2 * math.pi * r))),
    (LogPolar(radial_frequency=6.0, angular_cycles=8), lambda r, x, y: 10 / (2 * math.pi * r)),
    (Hyperbolic(frequency_cpd=1.1), lambda r, x, y: 1.1 * r / np.sqrt(np.abs(x**2 - y**2) + 1e-12)),
]


@pytest.mark.parametrize(("pattern", "local_cpd"), POLAR, ids=lambda value: getattr(value, "family", ""))
@pytest.mark.parametrize("phase_deg", [0.0, 77.0])
def test_local_frequency(pattern, local_cpd, phase_deg):
    """|grad s| = |grad phase| sqrt(1 - s^2), measured on the 8-bit image where it is neither flat nor too fine."""
    fields = {name: getattr(pattern, name) for name in pattern.ranges if name != "phase_deg"}
    size_px = 384
    image = modulation(codes_of(type(pattern)(**fields, phase_deg=phase_deg), size_px=size_px))
    step = SIZE_DEG / size_px
    slope = np.hypot(*(side / step for side in np.gradient(image)))
    x, y = places(size_px)
    r = np.hypot(x, y)
    expected = local_cpd(r, x, y)
    clear = (np.abs(image) < 0.8) & (r > 1.2) & (r < 3.9) & (expected < 2.0)
    assert clear.sum() > 10_000
    ratio = slope[clear] / np.sqrt(1 - image[clear] ** 2) / (2 * math.pi * expected[clear])
    assert np.median(ratio) == pytest.approx(1.0, abs=0.02)
    assert np.quantile(np.abs(ratio - 1), 0.8) < 0.06  # everywhere, not on average


@pytest.mark.parametrize(
    "pattern",
    [Concentric(), Radial(angular_cycles=4), Spiral(angular_cycles=4), LogPolar(angular_cycles=-4), Hyperbolic()],
    ids=lambda pattern: pattern.family,
)
def test_a_quarter_turn_keeps_fourfold_pictures(pattern):
    codes = codes_of(pattern).astype(int)
    assert np.abs(np.rot90(codes) - codes).max() <= 1


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 20), seed=st.integers(0, 99))
def test_n_fold_symmetry(n, seed):
    x, y = np.random.default_rng(seed).uniform(-4, 4, (2, 50))
    turn = 2 * math.pi / n
    turned = x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)
    half = math.cos(turn / 2) * x - math.sin(turn / 2) * y, math.sin(turn / 2) * x + math.cos(turn / 2) * y
    for pattern in (Radial(angular_cycles=n), Spiral(angular_cycles=n), LogPolar(angular_cycles=n)):
        s = pattern.signal(x, y)
        np.testing.assert_allclose(pattern.signal(*turned), s, atol=1e-9)
        np.testing.assert_allclose(pattern.signal(*half), -s, atol=1e-9)


def test_the_sign_of_the_cycles_is_the_handedness():
    for kind in (Spiral, LogPolar):
        one, other = (codes_of(kind(angular_cycles=n, phase_deg=40.0)).astype(int) for n in (3, -3))
        assert np.abs(one[::-1] - other).max() <= 1  # mirrored top to bottom: the angle changes sign
        assert np.abs(one - other).max() > 100
    # with a positive number the arm through (1, 0) is a quarter turn clockwise at a quarter period more
    below, above = Spiral(frequency_cpd=1.0, angular_cycles=1).signal(np.zeros(2), np.array([-1.25, 1.25]))
    assert below == pytest.approx(1.0)
    assert above == pytest.approx(-1.0)


def test_a_log_polar_grating_repeats_at_every_scale():
    pattern = LogPolar(radial_frequency=2 * math.pi * 2 / math.log(2), angular_cycles=3)
    x, y = np.random.default_rng(0).uniform(-2, 2, (2, 40))
    np.testing.assert_allclose(pattern.signal(2 * x, 2 * y), pattern.signal(x, y), atol=1e-9)


def test_the_middle_of_a_log_polar_grating_has_a_value():
    assert np.isfinite(LogPolar().signal(np.array(0.0), np.array(0.0)))


def test_a_hyperbolic_grating_follows_hyperbolas():
    pattern = Hyperbolic(frequency_cpd=1.3, orientation_deg=25.0, phase_deg=10.0)
    t, angle = np.linspace(-1.0, 1.0, 20), math.radians(25.0)
    u, v = 1.5 * np.cosh(t), 1.5 * np.sinh(t)  # u^2 - v^2 = 1.5^2
    along = pattern.signal(u * math.cos(angle) - v * math.sin(angle), u * math.sin(angle) + v * math.cos(angle))
    np.testing.assert_allclose(along, math.cos(2 * math.pi * 1.3 * 1.5 + math.radians(10.0)), atol=1e-9)


def test_the_middle_is_blank_where_pixels_cannot_hold_it():
    made = draw([Radial(angular_cycles=12)], size_px=96)
    inner = made.table["inner_radius_deg"][0]
    assert inner == pytest.approx(12 / (2 * math.pi * 6.0))  # 12 pixels per degree, Nyquist at 6
    x, y = places(96)
    codes = made.codes()[0, 0]
    r, pixel = np.hypot(x, y), 8.0 / 96
    assert (codes[r < inner - pixel] == 128).all()
    assert np.ptp(codes[(r > 2 * inner) & (r < 2 * inner + 2 * pixel)].astype(int)) > 150
    for pattern in (LogPolar(radial_frequency=9.0, angular_cycles=12), Spiral(frequency_cpd=3.6, angular_cycles=6)):
        inner = draw([pattern], size_px=96).table["inner_radius_deg"][0]
        expected = {"log_polar": 15 / (2 * math.pi * 6.0), "spiral": 6 / (2 * math.pi * 4.8)}
        assert inner == pytest.approx(expected[pattern.family])
    wider = draw([Radial(angular_cycles=12, inner_radius_deg=1.0)], size_px=96).codes()[0, 0]
    assert (wider[r < 1.0 - pixel] == 128).all()


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (Grating(frequency_cpd=8.0), r"frequency_cpd of a grating pattern is 8 and the pixels hold less than 8"),
        (Gabor(frequency_cpd=9.0), "lower the frequency, or give more pixels"),
        (Concentric(frequency_cpd=8.5), "frequency_cpd"),
        (Gabor(frequency_cpd=2.0, sigma_deg=0.05), r"0.05 deg .* and a pixel is 0.0625 deg wide"),
        (Gabor(frequency_cpd=2.0, sigma_deg=0.2, aspect=4.0), r"standard deviation of 0.05 deg"),
        (Spiral(frequency_cpd=8.5), "frequency_cpd"),
        (Hyperbolic(frequency_cpd=9.0), "frequency_cpd"),
        (Radial(angular_cycles=12, inner_radius_deg=0.1), r"within 0.239 deg .* and inner_radius_deg is 0.1"),
        (LogPolar(radial_frequency=200.0, angular_cycles=200), "finer than the pixels hold"),
    ],
    ids=lambda value: getattr(value, "family", ""),
)
def test_what_is_finer_than_the_pixels_is_refused(pattern, words):
    with pytest.raises(ValueError, match=words):
        draw([pattern], size_px=128)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (
            lambda: Grating(frequency_cpd=0.0),
            ValueError,
            "frequency_cpd of a grating pattern is 0.0: give a",
        ),
        (lambda: Grating(frequency_cpd=math.nan), ValueError, "frequency_cpd"),
        (lambda: Grating(frequency_cpd="2"), TypeError, "frequency_cpd of a grating pattern is '2'"),
        (lambda: Grating(contrast=1.1), ValueError, "contrast .* of -1 or more and at most 1"),
        (lambda: Grating(orientation_deg=math.inf), ValueError, "orientation_deg"),
        (lambda: Gabor(sigma_deg=-1.0), ValueError, "sigma_deg"),
        (lambda: Gabor(sigma_deg=1e200), ValueError, "sigma_deg .* at most 1000"),
        (lambda: Gabor(zero_mean=1), ValueError, "zero_mean .* give False or True"),
        (lambda: Radial(angular_cycles=2.5), ValueError, "angular_cycles .* a whole number"),
        (lambda: Radial(angular_cycles=0), ValueError, "angular_cycles"),
        (lambda: Spiral(angular_cycles=0), ValueError, "not 0"),
        (lambda: Radial(angular_cycles=True), TypeError, "angular_cycles"),
        (lambda: Radial(inner_radius_deg=-1.0), ValueError, "inner_radius_deg"),
    ],
)
def test_illegal_parameters(make, error, words):
    with pytest.raises(error, match=words):
        make()
