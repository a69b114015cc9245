"""Drawing, sampling and enumerating: properties that hold for every family."""

from __future__ import annotations

import dataclasses
import math
import runpy
import tracemalloc
import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stimuli import Display, StimulusSet
from stimuli.apertures import Aperture
from stimuli.families import FAMILIES, draw, family_named, grid, sample
from stimuli.gratings import Gabor, Grating
from stimuli.pattern import Pattern
from stimuli.polar import Radial
from stimuli.ranges import Choice, Range
from stimuli.raster import rendered
from stimuli.shapes import BASE_SHAPES, POSITIONS_DEG

SMALL = {"size_px": 72, "size_deg": 8.0}  # finer than 4 cycles/deg, larger than shapes and patches


def one(name, seed, **parameters):
    return sample(name, 1, seed=seed, **parameters)[0]


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), contrast=st.floats(-1.0, 1.0).filter(lambda c: abs(c) > 0.05))
def test_codes_stay_within_contrast_of_gray(name, seed, contrast):
    codes = draw([one(name, seed, contrast=contrast)], **SMALL).codes().astype(float)
    assert codes.min() >= math.floor(127.5 * (1 - abs(contrast)) + 0.5)
    assert codes.max() <= math.floor(127.5 * (1 + abs(contrast)) + 0.5)
    assert codes.max() > codes.min()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_signal_is_between_minus_one_and_one(name):
    x, y = np.random.default_rng(0).uniform(-5, 5, (2, 2000))
    for pattern in sample(name, 20, seed=3, x_deg=(-1.0, 1.0), y_deg=(-1.0, 1.0)):
        s = pattern.signal(x, y)
        assert s.shape == x.shape
        assert -1 <= s.min() <= s.max() <= 1


@pytest.mark.parametrize("name", FAMILIES)
def test_a_picture_does_not_depend_on_its_neighbors(name):
    patterns = sample(name, 4, seed=5)
    together = draw(patterns, **SMALL)
    for i in (2, 0):
        alone = draw([patterns[i]], **SMALL)
        assert alone.stimulus_ids == [together.stimulus_ids[i]]
        np.testing.assert_array_equal(alone.codes()[0], together.codes()[i])


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_seed_gives_the_same_and_a_longer_sample_begins_alike(name):
    assert sample(name, 3, seed=1) == sample(name, 6, seed=1)[:3]
    assert sample(name, 3, seed=1) != sample(name, 3, seed=2)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_table_remakes_every_picture(name, tmp_path):
    saved = draw(sample(name, 3, seed=2, contrast=(0.3, 0.9)), **SMALL).save(tmp_path / "set")
    table = StimulusSet.load(tmp_path / "set").table
    assert (table["family"] == name).all()
    assert (table["seed"] == 2).all()
    known = {field.name for field in dataclasses.fields(FAMILIES[name])}
    for i, row in table.iterrows():
        values = {key: row[key] for key in known & set(table.columns)}
        if "radii" in values:
            values["radii"] = tuple(map(float, values["radii"].split()))
        remade = draw([FAMILIES[name](**values)], **SMALL)
        np.testing.assert_array_equal(remade.codes()[0], saved.codes()[i])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_pattern_moves_with_its_place(name):
    pattern = one(name, 4)
    step = 8.0 / 72
    moved = dataclasses.replace(pattern, x_deg=3 * step, y_deg=2 * step)
    plain = rendered(pattern, 72, 8.0, pattern.supersample)
    shifted = rendered(moved, 72, 8.0, pattern.supersample)
    np.testing.assert_allclose(shifted[:-2, 3:], plain[2:, :-3], atol=0.05 if name == "radial" else 1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_sampled_parameters_keep_to_their_ranges(name):
    patterns = sample(name, 60, seed=9)
    for parameter, allowed in FAMILIES[name].ranges.items():
        values = [getattr(pattern, parameter) for pattern in patterns]
        if isinstance(allowed, Choice):
            assert set(values) <= set(allowed.values)
        else:
            assert allowed.low <= min(values) <= max(values) <= allowed.high
            assert len(set(values)) > 5 or allowed.low == allowed.high


def test_frequencies_are_log_uniform_and_angles_uniform():
    patterns = sample("grating", 800, seed=0, frequency_cpd=(0.5, 8.0))
    logs = np.log2([pattern.frequency_cpd for pattern in patterns])
    assert np.histogram(logs, bins=4, range=(-1, 3))[0].min() > 150
    angles = [pattern.orientation_deg for pattern in patterns]
    assert np.histogram(angles, bins=4, range=(0, 180))[0].min() > 150
    assert abs(np.corrcoef(logs, angles)[0, 1]) < 0.1


def test_fixing_a_parameter_leaves_the_others():
    free, fixed = sample("gabor", 5, seed=3), sample("gabor", 5, seed=3, sigma_deg=0.5, x_deg=(-1, 1))
    assert {pattern.sigma_deg for pattern in fixed} == {0.5}
    assert [p.frequency_cpd for p in free] == [p.frequency_cpd for p in fixed]
    assert [p.aspect for p in free] == [p.aspect for p in fixed]
    assert len({p.x_deg for p in fixed}) == 5


def test_a_range_of_cycles_may_span_what_is_excluded():
    cycles = {pattern.angular_cycles for pattern in sample("spiral", 60, angular_cycles=(0, 3))}
    assert cycles == {1, 2, 3}


def test_a_patch_that_is_cut_off_is_told():
    small, large = Gabor(sigma_deg=1.0), Gabor(sigma_deg=1.5, orientation_deg=45.0)
    with pytest.warns(UserWarning, match=r"1 of 2 patterns are cut off .* Gabor\(.*sigma_deg=1.5"):
        draw([small, large], size_px=64)
    for x, y in ((3.6, 0.0), (-3.6, 0.0), (0.0, 3.6), (0.0, -3.6)):
        with pytest.warns(UserWarning, match="1 of 1 patterns"):
            draw([Gabor(sigma_deg=0.4, x_deg=x, y_deg=y)], size_px=64)
    draw([small, large], size_px=64, aperture=Aperture(4.0, 1.0))  # faded: no warning
    draw([Grating()], size_px=64)  # a grating is meant to fill the image


def test_families_do_not_share_their_draws():
    assert sample("grating", 1)[0].frequency_cpd != sample("gabor", 1)[0].frequency_cpd


def test_no_pattern_comes_twice():
    shapes = sample("contour", 120, seed=0, radius_deg=2.0)
    assert len({pattern.key() for pattern in shapes}) == 120
    assert len(draw(shapes[:40], **SMALL)) == 40
    with pytest.raises(ValueError, match="Only 4 of 5 patterns of the family grating"):
        sample("grating", 5, frequency_cpd=[1, 2], orientation_deg=[0, 90], phase_deg=0.0)


def test_the_tails_of_a_patch_are_the_background():
    """Half a code from the background is the background, on either side of it."""
    gabor = Gabor(sigma_deg=0.4)
    plane = 127.5 * rendered(gabor, 72, 8.0)
    codes = draw([gabor], **SMALL).codes()[0, 0]
    assert (codes[np.abs(plane) < 0.499] == 128).all()
    assert (codes[np.abs(plane) > 0.501] == np.floor(128 + plane)[np.abs(plane) > 0.501]).all()
    assert (codes == 127).sum() < 30
    assert (codes[:, 0] == 128).all()


def test_a_faint_contrast_is_told_and_never_raised():
    with pytest.warns(
        UserWarning, match=r"1 of 2 patterns have a contrast below 0.01, the first is Gabor\(contrast=0.009"
    ):
        made = draw([Gabor(contrast=0.5, sigma_deg=0.5), Gabor(contrast=0.009, sigma_deg=0.5)], size_px=64)
    assert set(np.unique(made.codes()[1])) == {127, 128, 129}
    with pytest.raises(ValueError, match="uniform image in 8 bits"):
        draw([Grating(contrast=0.002)], size_px=64)  # which would be half a code up and down
    draw([Gabor(contrast=0.01, sigma_deg=0.5)], size_px=64)


def test_seeds_are_of_32_bits():
    assert sample("gabor", 1, seed=np.int64(3)) == sample("gabor", 1, seed=3)
    assert type(sample("gabor", 1, seed=np.int64(3))[0].seed) is int
    with pytest.raises(ValueError, match=r"seed is 4294967296: give a whole number below 2\*\*32"):
        sample("gabor", 1, seed=2**32)


def test_the_table_of_the_docs_is_that_of_the_families():
    """Else run ``python docs/make_families.py``."""
    script = Path(__file__).parents[2] / "docs" / "make_families.py"
    page = script.with_name("families.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(script))["with_table"](page) == page


def test_grid_is_every_combination_in_order():
    found = grid("gabor", frequency_cpd=[1, 2], orientation_deg=range(0, 180, 60), phase_deg=np.array([0.0, 90.0]))
    assert [(g.frequency_cpd, g.orientation_deg, g.phase_deg) for g in found] == [
        (f, t, p) for f in (1.0, 2.0) for t in (0.0, 60.0, 120.0) for p in (0.0, 90.0)
    ]
    assert {g.sigma_deg for g in found} == {0.75}
    assert grid(Gabor, contrast=0.5) == [Gabor(contrast=0.5)]


def test_the_whole_curvature_family():
    shapes = grid("contour", radii=list(BASE_SHAPES), orientation_deg=list(POSITIONS_DEG))
    assert len(shapes) == 513
    assert len(draw(shapes[::9], **SMALL)) == 57  # no two look the same, or draw would refuse


def test_an_aperture_fades_into_exact_gray():
    aperture = Aperture(2.0, 0.5, 0.5, -0.5)
    made = draw(sample("grating", 3), aperture=aperture, **SMALL)
    mask = aperture.mask((72, 72), 8.0)
    assert (made.codes()[:, 0, mask == 0] == 128).all()
    bare = draw(sample("grating", 3), **SMALL)
    np.testing.assert_array_equal(made.codes()[:, 0, mask == 1], bare.codes()[:, 0, mask == 1])
    half = np.abs(mask - 0.5) < 0.1
    np.testing.assert_allclose(
        made.codes()[:, 0, half] - 127.5, mask[half] * (bare.codes()[:, 0, half] - 127.5), atol=1.0
    )
    assert made.table["aperture_radius_deg"].tolist() == [2.0] * 3
    assert made.provenance["config"]["aperture"]["x_deg"] == 0.5


def test_channels_display_and_provenance():
    display = Display(resolution_px=(800, 600), width_cm=40.0)
    made = draw(sample("gabor", 2, seed=7, sigma_deg=0.4), size_deg=4.0, display=display, channels=3, name="mine")
    side = round(4.0 * display.ppd)
    assert made.shape == (3, side, side)
    assert (np.ptp(made.codes().astype(int), axis=1) == 0).all()
    assert (made.name, made.display, made.size_deg) == ("mine", display, 4.0)
    assert made.provenance["seed"] == 7
    assert made.provenance["config"]["families"] == ["gabor"]
    assert draw([Grating()], size_px=32, provenance={"by": "hand"}).provenance == {"by": "hand"}
    with pytest.warns(UserWarning, match="resample"):
        draw([Grating()], size_deg=4.0, size_px=side + 1, display=display)


ODD = [0, 1e-300, 1e-4, 0.5, 3, 1e3, 1e300, 10**400, -1, True, None, "1"]


def outcome(call):
    """What a call gives, or its sentence where it refuses."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(cut off by the edge|contrast below)")
        try:
            return call()
        except (TypeError, ValueError) as error:
            return str(error)


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_numbers_give_a_picture_or_one_sentence(name, data):
    chosen = data.draw(st.lists(st.sampled_from([*FAMILIES[name].ranges]), min_size=1, max_size=3, unique=True))
    parameters = {key: data.draw(st.floats() | st.integers() | st.sampled_from(ODD)) for key in chosen}
    size_deg = data.draw(st.sampled_from([1e-3, 4.0, 8.0, 1e4]))
    result = outcome(lambda: draw(grid(name, **parameters), size_px=16, size_deg=size_deg))
    if isinstance(result, str):
        assert len(result) < 500
        assert "\n" not in result
    else:
        assert result.shape == (1, 16, 16)


def test_progress_counts_every_image():
    told = []
    draw(sample("grating", 3), size_px=64, size_deg=4.0, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


@settings(max_examples=20, deadline=None)
@given(cycles=st.integers(1, 12), phase=st.floats(0.0, 360.0), upright=st.booleans(), contrast=st.floats(0.1, 1.0))
def test_whole_cycles_average_to_gray_at_their_contrast(cycles, phase, upright, contrast):
    """RMS of a sinusoid is contrast / sqrt(2) of the mean."""
    grating = Grating(
        frequency_cpd=cycles / 8, orientation_deg=90.0 if upright else 0.0, phase_deg=phase, contrast=contrast
    )
    codes = draw([grating], **SMALL).codes().astype(float)
    assert codes.mean() == pytest.approx(127.5, abs=0.3)
    assert codes.std() == pytest.approx(127.5 * contrast / math.sqrt(2), abs=0.5)


@pytest.mark.parametrize("name", ["concentric", "radial", "spiral", "log_polar", "hyperbolic", "stroke", "contour"])
def test_pixels_are_means_over_their_area(name):
    patterns = sample(name, 5, seed=1)
    off = {1: [], "default": []}
    for pattern in patterns:
        exact = rendered(pattern, 64, 8.0, 32)
        off[1].append(np.abs(rendered(pattern, 64, 8.0, 1) - exact))
        off["default"].append(np.abs(rendered(pattern, 64, 8.0, pattern.supersample) - exact))
    assert np.quantile(off["default"], 0.99) < 0.07
    assert np.quantile(off["default"], 0.99) < 0.5 * np.quantile(off[1], 0.99)


@pytest.mark.parametrize("distance_cm", [40.0, 57.0, 114.0])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_degree_is_ppd_pixels_at_every_distance(name, distance_cm):
    """What is at a place in degrees lies ppd times as many pixels from the middle, right and up."""
    display = Display(resolution_px=(640, 480), width_cm=53.0, distance_cm=distance_cm)
    ppd = 2 * distance_cm * math.tan(math.radians(0.5)) * 640 / 53.0
    slow = {key: 0.5 for key in FAMILIES[name].ranges if key == "frequency_cpd"}
    pattern = one(name, 3, **slow, x_deg=0.7, y_deg=-0.4)
    side = round(9.0 * ppd)
    codes = draw([pattern], size_deg=side / ppd, display=display).codes()[0, 0]
    assert codes.shape == (side, side)
    for right, up in np.random.default_rng(1).uniform(-2.0, 2.0, (40, 2)):
        column = math.floor(side / 2 + right * ppd)
        row = math.floor(side / 2 - up * ppd)
        fine = (np.arange(20) + 0.5) / 20
        x = (column + fine - side / 2) / ppd
        y = (side / 2 - row - fine) / ppd
        if math.hypot(right - 0.7, up + 0.4) > 1.0 or name in ("grating", "gabor", "stroke", "contour"):
            expected = pattern.signal(x[None, :], y[:, None]).mean()
            assert codes[row, column] / 127.5 - 1 == pytest.approx(expected, abs=0.06)


def test_families_mix_in_one_set():
    made = draw([Grating(), Radial(), Gabor()], size_px=64)
    assert made.name == "grating+radial+gabor"
    assert made.table["family"].tolist() == ["grating", "radial", "gabor"]
    assert made.table["sigma_deg"].isna().tolist() == [True, True, False]


def test_averaging_is_the_mean_over_the_pixel():
    """The mean of cos over a pixel is cos at its middle times sinc; many samples come near to it."""
    grating = Grating(frequency_cpd=3.0, orientation_deg=0.0, phase_deg=20.0)
    point, mean = rendered(grating, 64, 8.0, 1), rendered(grating, 64, 8.0, 16)
    np.testing.assert_allclose(mean, np.sinc(3.0 * 8.0 / 64) * point, atol=1e-3)


def test_memory_is_bounded():
    pattern = one("hyperbolic", 0)
    tracemalloc.start()
    try:
        rendered(pattern, 512, 8.0, 8)  # 16.8 million samples, 134 MB an array
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 80e6


def test_a_family_of_ones_own():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Bar(Pattern):
        family: ClassVar[str] = "bar"
        ranges: ClassVar[dict] = {"width_deg": Range("log", 0.2, 1.0, legal=(0.0, 9.0))}
        width_deg: float = 0.5

        def signal(self, x, y):
            return (np.abs(x) < self.width_deg / 2) * np.ones_like(y)

    made = draw(sample(Bar, 3, width_deg=(0.5, 2.0)), **SMALL)
    assert (made.table["width_deg"] >= 0.5).all()
    assert grid(Bar, width_deg=[1.0])[0] == Bar(width_deg=1.0)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: sample("gabr", 1), ValueError, "no family 'gabr': did you mean 'gabor'"),
        (lambda: family_named(3), ValueError, "no family 3: The families are grating, gabor"),
        (lambda: sample("gabor", 0), ValueError, "n is 0: give a whole number of 1 or more"),
        (lambda: sample("gabor", 1, seed=-1), ValueError, "seed is -1"),
        (lambda: sample("gabor", 1, seed=1.5), ValueError, "seed is 1.5"),
        (lambda: sample("gabor", 1, frequencycpd=1), ValueError, "did you mean 'frequency_cpd'"),
        (lambda: sample("gabor", 1, frequency_cpd=(2, 1)), ValueError, "range 2 to 1: give the lower end first"),
        (lambda: sample("gabor", 1, frequency_cpd=(0, 1)), ValueError, "frequency_cpd of the family gabor is 0"),
        (lambda: sample("gabor", 1, frequency_cpd=(1, 2, 3)), ValueError, r"is \(1, 2, 3\): give one value, a list"),
        (lambda: sample("gabor", 1, frequency_cpd=("a", 2)), TypeError, "is 'a': give a finite number"),
        (lambda: sample("gabor", 1, contrast=[]), ValueError, "contrast of the family gabor is an empty list"),
        (lambda: sample("radial", 1, angular_cycles=(1.5, 3)), ValueError, "whole number"),
        (lambda: sample("spiral", 1, angular_cycles=(0, 0)), ValueError, "not 0"),
        (lambda: sample("radial", 1, inner_radius_deg=(0, 1)), ValueError, "inner_radius_deg of the family radial"),
        (lambda: grid("gabor", contrast=[]), ValueError, "empty list"),
        (lambda: grid("gabor", seed=[1]), ValueError, "no parameter 'seed'"),
        (lambda: draw([]), ValueError, "no patterns"),
        (lambda: draw(["gabor"]), TypeError, "draw got str among the patterns"),
        (lambda: draw([Gabor()], channels=2), ValueError, "channels is 2"),
        (lambda: draw([Gabor()], size_px=1), ValueError, "would be 1 px wide"),
        (lambda: draw([Gabor()], size_px=100_000), ValueError, "from 2 to 8192"),
        (lambda: draw([Gabor()], size_px=64.5), ValueError, "would be 64.5 px"),
        (lambda: draw([Gabor()], size_deg=0), ValueError, "size_deg is 0"),
        (lambda: draw([Gabor()], size_deg=1e-9, display=Display()), ValueError, "would be 0 px wide"),
        (lambda: draw([Gabor()], supersample=0), ValueError, "supersample is 0"),
        (lambda: draw([Gabor()], supersample=2.0), ValueError, "supersample is 2.0: give a whole number from 1 to 32"),
        (
            lambda: sample("contour", 1, orientation_deg=(0, 90)),
            ValueError,
            "has no range from 0 to 90: give one value",
        ),
        (lambda: draw([Gabor()], display="screen"), TypeError, "display is 'screen'"),
        (lambda: draw([Gabor(), Gabor()], size_px=32), ValueError, "Images 0 and 1 of 2 are the same picture .*gabor"),
        (lambda: draw([Gabor(x_deg=50.0)], size_px=32), ValueError, "Pattern 0 is a uniform image in 8 bits, Gabor"),
    ],
)
def test_wrong_calls_end_in_one_sentence(call, error, words):
    with pytest.raises(error, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_no_contrast_is_a_blank_of_code_128():
    assert (draw([Gabor(contrast=0.0)], size_px=32).codes() == 128).all()
