"""Matched sets: statistics recomputed from the codes, and histograms and spectra against scikit-image and numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.exposure import match_histograms

from stimuli import Display, StimulusSet, natural_photos
from stimuli.apertures import Aperture, apply_aperture
from stimuli.appearance import to_gray
from stimuli.matching import match_appearance
from stimuli.textures import phase_scrambled

APERTURE = Aperture(3.0, 1.0, 0.5, 0.25)
HALF_A_CODE = 0.5 / 255


@pytest.fixture(scope="module")
def photos():
    return natural_photos(5, 64, channels=1, seed=4)


def with_gray(stimuli):
    gray = np.full((1, *stimuli.shape), 128, np.uint8)
    return StimulusSet.concat([stimuli, StimulusSet.from_arrays(gray, {"stimulus_id": ["gray"]}, size_deg=8.0)])


def beyond(values):
    """Which values 8 bits cannot hold."""
    return (values < -HALF_A_CODE) | (values > 1 + HALF_A_CODE)


def statistics(stimuli, mask=None):
    """Mean and standard deviation of every image, weighted by the mask: numpy.average in float64."""
    images = stimuli.codes().astype(np.float64) / 255
    weights = np.broadcast_to(1.0 if mask is None else mask, images.shape[1:])
    means = np.array([np.average(image, weights=weights) for image in images])
    spreads = [np.sqrt(np.average((i - m) ** 2, weights=weights)) for i, m in zip(images, means, strict=True)]
    return means, np.array(spreads)


def test_mean_and_contrast_by_the_textbook_formula(photos):
    matched = match_appearance(photos, mean=0.45, rms=0.12)
    old = photos.codes().astype(np.float64) / 255
    mean, std = old.mean((1, 2, 3), keepdims=True), old.std((1, 2, 3), keepdims=True)
    wanted = np.clip(np.floor(255 * ((old - mean) / std * 0.12 + 0.45) + 0.5), 0, 255)
    np.testing.assert_array_equal(matched.stimuli.codes(), wanted)
    assert matched.stimuli.stimulus_ids == photos.stimulus_ids
    assert (matched.mean, matched.rms) == (0.45, 0.12)


@settings(max_examples=25, deadline=None)
@given(
    mean=st.floats(0.4, 0.6),
    rms=st.floats(0.08, 0.13),
    radius=st.floats(1.5, 5.0),
    share=st.floats(0.0, 1.0),
    keep=st.booleans(),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 1000),
)
def test_mean_and_contrast_are_exact_inside_any_aperture(mean, rms, radius, share, keep, channels, seed):
    noise = np.random.default_rng(seed).uniform(0.35, 0.65, (2, channels, 32, 40))
    stimuli = StimulusSet.from_arrays(noise, size_deg=8.0)
    aperture = Aperture(radius, share * radius, 0.3, -0.2)
    matched = match_appearance(stimuli, mean=mean, rms=rms, aperture=aperture, keep_surround=keep)
    mask = aperture.mask((32, 40), 8.0)
    means, spreads = statistics(matched.stimuli, mask)
    assert (matched.report["clipped_fraction"] < 0.02).all()
    if not (matched.report["clipped_fraction"] > 0).any():
        # Where the gain is near 1 all pixels may be rounded alike, by up to half a code.
        np.testing.assert_allclose(means, mean, atol=HALF_A_CODE + 1e-9)
        np.testing.assert_allclose(spreads, rms, atol=HALF_A_CODE + 1e-9)
    np.testing.assert_allclose(matched.report["mean_luminance"], means, atol=1e-9)
    np.testing.assert_allclose(matched.report["rms_contrast"], spreads, atol=1e-9)
    outside = matched.stimuli.codes()[..., mask == 0]
    assert (outside == (stimuli.codes()[..., mask == 0] if keep else 128)).all()


def test_before_and_change_are_those_of_the_codes(photos):
    matched = match_appearance(photos, mean=0.5, rms=0.15, aperture=APERTURE)
    mask = APERTURE.mask((64, 64), 8.0)
    means, spreads = statistics(photos, mask)
    np.testing.assert_allclose(matched.report["mean_before"], means, atol=1e-9)
    np.testing.assert_allclose(matched.report["rms_before"], spreads, atol=1e-9)
    difference = (matched.stimuli.codes().astype(float) - photos.codes()) / 255
    change = np.sqrt((difference[:, 0, mask > 0] ** 2).mean(1))
    np.testing.assert_allclose(matched.report["pixel_change"], change, atol=1e-9)
    assert matched.report["stimulus_id"].tolist() == photos.stimulus_ids


def test_clipped_fraction_counts_what_left_the_range(photos):
    matched = match_appearance(photos, mean=0.5, rms=0.4)
    old = photos.codes().astype(np.float64) / 255
    mean, std = old.mean((1, 2, 3), keepdims=True), old.std((1, 2, 3), keepdims=True)
    wide = (old - mean) / std * 0.4 + 0.5
    clipped = beyond(wide).mean((1, 2, 3))
    assert clipped.max() > 0.05
    np.testing.assert_allclose(matched.report["clipped_fraction"], clipped)
    np.testing.assert_allclose(matched.stimuli.table["clipped_fraction"], clipped)
    summary = matched.summary()
    assert summary["most_clipped"] == photos.stimulus_ids[int(clipped.argmax())]
    assert summary["largest_clipped_fraction"] == pytest.approx(clipped.max())


def test_clipped_fraction_is_of_the_values_inside_the_aperture(photos):
    aperture = Aperture(2.0)  # a sharp edge: the textbook formula holds inside
    matched = match_appearance(photos, mean=0.5, rms=0.4, aperture=aperture)
    inside = photos.codes()[:, 0, aperture.mask((64, 64), 8.0) == 1] / 255.0
    wide = (inside - inside.mean(1, keepdims=True)) / inside.std(1, keepdims=True) * 0.4 + 0.5
    np.testing.assert_allclose(matched.report["clipped_fraction"], beyond(wide).mean(1))


@pytest.mark.parametrize("aperture", [None, APERTURE])
@pytest.mark.parametrize("limit", [0.0, 0.01])
def test_shared_contrast_is_the_largest_that_clips_no_more_than_the_limit(photos, aperture, limit):
    matched = match_appearance(photos, mean=0.5, rms=0.5, max_clipped=limit, aperture=aperture)
    assert matched.report["clipped_fraction"].max() <= limit
    assert matched.summary()["limited_by"] == matched.limited_by
    without = photos.select([name for name in photos.stimulus_ids if name != matched.limited_by])
    assert match_appearance(without, mean=0.5, rms=0.5, max_clipped=limit, aperture=aperture).rms > matched.rms
    if limit == 0.0:
        np.testing.assert_allclose(matched.report["rms_contrast"], matched.rms, atol=1e-3)
    more = match_appearance(photos, mean=0.5, rms=1.01 * matched.rms, aperture=aperture)
    assert more.report["clipped_fraction"].max() > limit
    asked = match_appearance(photos, mean=0.5, rms=0.5, aperture=aperture).report["clipped_fraction"]
    np.testing.assert_array_equal(matched.report["clipped_as_asked"], asked)
    assert matched.over_limit == matched.summary()["over_limit"] == (asked > limit).sum() > 1
    if aperture is None and limit == 0.0:  # then it is known in closed form
        old = photos.codes().astype(np.float64) / 255
        z = (old - old.mean((1, 2, 3), keepdims=True)) / old.std((1, 2, 3), keepdims=True)
        assert matched.rms == pytest.approx((0.5 + HALF_A_CODE) / np.abs(z).max(), rel=2e-4)


def test_rounding_is_not_clipping():
    halves = np.zeros((2, 1, 64, 64), np.uint8)
    halves[0, :, :, 32:], halves[1, :, 32:] = 255, 255
    stimuli, window = StimulusSet.from_arrays(halves, size_deg=8.0), Aperture(3.0, 1.0)
    matched = match_appearance(stimuli, mean=0.5, rms="average", aperture=window)  # have both already, but for rounding
    np.testing.assert_array_equal(matched.stimuli.codes(), apply_aperture(stimuli, window).codes())
    assert matched.report["clipped_fraction"].tolist() == [0.0, 0.0]
    limited = match_appearance(stimuli, mean=0.5, rms="average", max_clipped=0.0, aperture=window)
    assert (limited.rms, limited.limited_by) == (matched.rms, None)


def brute_force(stimuli, limit, **options):
    """The largest of many contrasts that every image can have without more clipping than the limit."""
    for rms in np.arange(options.pop("rms"), 0.0, -0.002):
        try:
            report = match_appearance(stimuli, rms=rms, **options).report
        except ValueError:
            continue
        if report["clipped_fraction"].max() <= limit:
            return rms
    raise AssertionError("none is found")


@pytest.mark.parametrize(
    ("mean", "limit", "aperture"), [(0.7, 0.0, Aperture(2.5, 1.0)), (0.8, 0.05, Aperture(2.0, 2.0))]
)
def test_largest_contrast_is_found_above_that_of_the_edge_alone(mean, limit, aperture):
    noise = np.random.default_rng(0).uniform(0.4, 0.6, (2, 1, 32, 32))
    stimuli = StimulusSet.from_arrays(noise, size_deg=8.0)
    matched = match_appearance(stimuli, mean=mean, rms=0.5, max_clipped=limit, aperture=aperture)
    assert matched.rms == pytest.approx(brute_force(stimuli, limit, mean=mean, rms=0.2, aperture=aperture), abs=0.0021)
    assert matched.report["clipped_fraction"].max() <= limit
    assert matched.limited_by in stimuli.stimulus_ids
    with pytest.raises(ValueError, match="its edge against the surround alone has more"):
        match_appearance(stimuli, mean=mean, rms=0.01, max_clipped=limit, aperture=aperture)


def test_an_image_that_cannot_have_the_lowered_contrast_is_told_with_the_one_that_lowered_it():
    codes = np.full((2, 1, 64, 64), 40, np.uint8)
    codes[0, 0, ::2], codes[0, 0, :, 60:] = 60, 230
    codes[1, 0, 32, 32] = 255  # bright in a dark surround of its own, so that the edge of the window has much contrast
    stimuli = StimulusSet.from_arrays(codes, {"stimulus_id": ["stripes", "spot"]}, size_deg=8.0)
    options = {"mean": 0.5, "max_clipped": 0.0, "aperture": Aperture(4.5, 4.5), "keep_surround": True}
    with pytest.raises(ValueError, match=r"'spot' cannot have .* max_clipped lowered it for 'stripes'"):
        match_appearance(stimuli, rms=0.3, **options)


def test_clipping_of_an_earlier_step_stays_on_record(photos):
    scrambled = phase_scrambled(match_appearance(photos, mean=0.5, rms=0.3).stimuli, seed=1)
    before = scrambled.table["clipped_fraction"].tolist()
    assert max(before) > 0.02
    table = match_appearance(scrambled, mean=0.5, rms=0.1, max_clipped=0.0).stimuli.table
    assert table["clipped_fraction"].tolist() == [0.0] * 5
    assert table["clipped_fraction_before"].tolist() == before
    strong = match_appearance(scrambled, mean=0.5, rms=0.5).stimuli
    more = strong.table["clipped_fraction"].tolist()
    again = match_appearance(strong, mean=0.5, rms=0.1).stimuli.table
    assert again["clipped_fraction_before"].tolist() == np.maximum(before, more).tolist()
    assert "clipped_fraction_before" not in match_appearance(photos, mean=0.5).stimuli.table


def test_a_contrast_that_clips_little_is_not_lowered(photos):
    matched = match_appearance(photos, mean=0.5, rms=0.05, max_clipped=0.01)
    assert (matched.rms, matched.limited_by, matched.over_limit) == (0.05, None, 0)


def test_average_mean_and_contrast_are_those_of_the_set(photos):
    matched = match_appearance(photos, mean="average", rms="average")
    means, spreads = statistics(photos)
    assert matched.mean == pytest.approx(means.mean())
    assert matched.rms == pytest.approx(spreads.mean())


def test_uniform_images_stay_and_count_for_nothing(photos):
    both = with_gray(photos)
    options = {"mean": 0.4, "rms": "average", "histogram": "average", "spectrum": "full", "aperture": APERTURE}
    alone, matched = match_appearance(photos, **options), match_appearance(both, **options)
    assert (matched.stimuli.codes(["gray"]) == 128).all()
    assert matched.report["uniform"].tolist() == [False] * 5 + [True]
    assert matched.summary()["uniform"] == 1
    np.testing.assert_array_equal(matched.stimuli.codes(photos.stimulus_ids), alone.stimuli.codes())


def test_histograms_become_exactly_those_of_one_image(photos):
    first = photos.stimulus_ids[0]
    matched = match_appearance(photos, histogram=first)
    codes, target = matched.stimuli.codes(), photos.codes([0])[0, 0]
    np.testing.assert_array_equal(codes[0, 0], target)
    for image, old in zip(codes[:, 0], photos.codes()[:, 0], strict=True):
        np.testing.assert_array_equal(np.sort(image.ravel()), np.sort(target.ravel()))
        levels = np.unique(old)
        darkest, brightest = (np.array([end(image[old == level]) for level in levels]) for end in (np.min, np.max))
        assert (brightest[:-1] <= darkest[1:]).all()
        # scikit-image gives equal pixels one value, that of the brightest of them
        reference = np.array([match_histograms(old, target)[old == level][0] for level in levels[:-1]])
        np.testing.assert_allclose(brightest[:-1], reference, atol=2.0)


def test_average_histogram_is_the_mean_of_the_sorted_values(photos):
    matched = match_appearance(photos, histogram="average")
    wanted = np.sort(photos.codes().reshape(5, -1) / 255.0, axis=1).mean(0)
    for image in matched.stimuli.codes():
        np.testing.assert_array_equal(np.sort(image.ravel()), np.floor(255 * wanted + 0.5))


def test_average_histogram_does_not_depend_on_the_order_of_the_set(photos):
    six = StimulusSet.concat([photos, natural_photos(7, 64, channels=1, seed=5)])
    made = match_appearance(six, histogram="average").stimuli
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(len(six)).tolist()
        again = match_appearance(six.select(order), histogram="average").stimuli
        np.testing.assert_array_equal(again.codes(made.stimulus_ids), made.codes())


def test_values_make_a_flat_histogram_and_order_is_kept():
    ramp = (np.arange(4096).reshape(1, 1, 64, 64) % 199 + 20).astype(np.uint8)
    matched = match_appearance(StimulusSet.from_arrays(ramp), histogram=[0.0, 1.0])
    made = matched.stimuli.codes()[0, 0].astype(int)
    counts = np.bincount(made.ravel(), minlength=256)
    assert counts[1:-1].max() - counts[1:-1].min() <= 1
    for level in range(20, 218):  # a pixel that was darker is not brighter now
        assert made[ramp[0, 0] == level].max() <= made[ramp[0, 0] == level + 1].min()


def test_histogram_inside_an_aperture_is_exact_where_it_is_open(photos):
    matched = match_appearance(photos, histogram="average", aperture=APERTURE, seed=3)
    mask = APERTURE.mask((64, 64), 8.0)
    opened = matched.stimuli.codes()[:, 0, mask == 1]
    np.testing.assert_array_equal(np.sort(opened, axis=1), np.sort(opened[:1], axis=1).repeat(5, axis=0))
    assert (matched.stimuli.codes()[:, 0, mask == 0] == 128).all()
    kept = match_appearance(photos, histogram="average", aperture=APERTURE, keep_surround=True)
    np.testing.assert_array_equal(kept.stimuli.codes()[:, 0, mask == 0], photos.codes()[:, 0, mask == 0])


def test_ties_are_random_by_seed_and_content_and_not_by_place(photos):
    flat = (photos.codes() // 64 * 64).astype(np.uint8)  # four levels: nearly every pixel has equals
    stimuli = StimulusSet.from_arrays(flat)
    made = match_appearance(stimuli, histogram=np.linspace(0, 1, 50), seed=1).stimuli
    again = match_appearance(stimuli.select(slice(None, None, -1)), histogram=np.linspace(0, 1, 50), seed=1).stimuli
    other = match_appearance(stimuli, histogram=np.linspace(0, 1, 50), seed=2).stimuli
    np.testing.assert_array_equal(made.codes(), again.codes(made.stimulus_ids))
    assert (made.codes() != other.codes()).any()
    assert made.provenance["seed"] == 1


def test_full_spectrum_is_the_mean_amplitude_with_the_phases_of_the_image(photos):
    matched = match_appearance(photos, spectrum="full", mean=0.5, rms=0.05)  # no clipping: only rounding is left
    target = np.abs(np.fft.fft2(photos.codes()[:, 0] / 255.0)).mean(0)
    for image, old in zip(matched.stimuli.codes()[:, 0] / 255.0, photos.codes()[:, 0] / 255.0, strict=True):
        new, before = np.fft.fft2(image), np.fft.fft2(old)
        strong = target > 20
        strong[0, 0] = False
        ratio = np.abs(new[strong]) / target[strong]
        np.testing.assert_allclose(ratio, np.median(ratio), rtol=0.15)
        turned = np.angle(new[strong] * np.conj(before[strong]))
        assert np.abs(turned).max() < 0.15


def test_rotational_spectrum_matches_the_mean_at_every_radius(photos):
    def rings(image):  # counted over the whole plane, not the half that rfft2 keeps
        amplitude = np.abs(np.fft.fft2(image))
        radius = np.rint(np.hypot(*np.meshgrid(*[np.fft.fftfreq(64) * 64] * 2))).astype(int)
        return np.bincount(radius.ravel(), amplitude.ravel()) / np.bincount(radius.ravel())

    old = photos.codes()[:, 0] / 255.0
    target = np.mean([rings(image) for image in old], axis=0)
    matched = match_appearance(photos, spectrum="rotational", mean=0.5, rms=0.05)
    for image, before in zip(matched.stimuli.codes()[:, 0] / 255.0, old, strict=True):
        ratio = rings(image)[1:20] / target[1:20]
        np.testing.assert_allclose(ratio, ratio.mean(), rtol=0.05)
        gains = (np.abs(np.fft.fft2(image)) / np.abs(np.fft.fft2(before)))[[0, 3, 4, 5], [5, 4, 3, 0]]
        np.testing.assert_allclose(gains, gains[0], rtol=0.1)  # radius 5: one gain at every orientation


def test_a_frequency_that_an_image_lacks_stays_absent():
    x = np.arange(32)
    grating = np.broadcast_to(0.5 + 0.25 * np.cos(2 * np.pi * 4 * x / 32), (32, 32))
    noise = np.random.default_rng(0).uniform(0.2, 0.8, (32, 32))
    both = StimulusSet.from_arrays(np.stack([grating, noise])[:, None])
    made = match_appearance(both, spectrum="full").stimuli.codes([0])[0, 0]
    rows = made.astype(int)
    assert (rows == rows[:1]).all()  # still a vertical grating, no spot from phases of rounding


def test_color_is_matched_over_channels_or_turned_gray():
    color = natural_photos(3, 64, seed=1)
    means, spreads = statistics(match_appearance(color, mean=0.5, rms=0.5, max_clipped=0.0).stimuli)
    np.testing.assert_allclose(means, 0.5, atol=1e-3)
    np.testing.assert_allclose(spreads, spreads[0], atol=1e-3)
    gray = match_appearance(color, histogram="average", gray=True)
    assert gray.stimuli.shape == (1, 64, 64)
    with pytest.raises(ValueError, match="gray=True"):
        match_appearance(color, histogram="average")


def test_luma_is_that_of_pillow():
    codes = np.random.default_rng(0).integers(0, 256, (2, 3, 40, 40), dtype=np.uint8)
    wanted = [np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L")) for image in codes]
    np.testing.assert_array_equal(to_gray(codes)[:, 0], wanted)
    equal = np.arange(256, dtype=np.uint8).reshape(1, 16, 16).repeat(3, 0)
    np.testing.assert_array_equal(to_gray(equal), equal[:1])
    with pytest.raises(ValueError, match="channels"):
        to_gray(codes[:, :2])


def test_window_alone_is_the_aperture(photos):
    matched = match_appearance(photos, aperture=APERTURE)
    np.testing.assert_array_equal(matched.stimuli.codes(), apply_aperture(photos, APERTURE).codes())


def test_record_says_what_was_done(photos):
    screen = StimulusSet.from_arrays(photos.codes(), photos.table, display=Display(), name="photos")
    made = match_appearance(screen, mean=0.5, rms=0.5, max_clipped=0.0, aperture=APERTURE).stimuli
    config = made.provenance["config"]["match_appearance"]
    assert config["rms_asked"] == 0.5
    assert config["rms"] < 0.4
    assert config["aperture"]["edge_deg"] == 1.0
    assert made.provenance["of"] == screen.provenance
    assert (made.display, made.size_deg, made.name) == (Display(), 8.0, "photos")
    assert {"photograph", "aperture_radius_deg", "mean_luminance", "rms_contrast"} <= set(made.table)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "Nothing was asked"),
        ({"mean": 0.0}, "mean is 0.0"),
        ({"mean": 128}, "mean is 128"),
        ({"rms": 0.6}, "at most 0.5"),
        ({"rms": "mean"}, 'or "average"'),
        ({"rms": True}, "rms is True"),
        ({"mean": 0.5, "max_clipped": 0.01}, "give rms too"),
        ({"rms": 0.2, "max_clipped": 5}, "max_clipped is 5"),
        ({"spectrum": "rotation"}, "did you mean 'rotational'"),
        ({"histogram": "avrage"}, "is no stimulus of"),
        ({"histogram": [0.5, 2.0]}, "finite values in"),
        ({"histogram": "average", "aperture": Aperture(1.0, 1.0)}, "fully open pixels"),
        ({"histogram": "gray"}, "'gray' has one value alone, 0.502, and would make every image uniform"),
        ({"histogram": [0.25, 0.25]}, "one value alone"),
        ({"histogram": "average", "seed": -1}, "seed is -1: give a whole number of 0 or more"),
        ({"rms": 0.2, "max_clipped": "0.1"}, "max_clipped is '0.1': give a fraction"),
        ({"rms": 0.001, "mean": 0.9, "aperture": Aperture(3.0, 3.0)}, "cannot have an RMS contrast"),
        ({"rms": 0.3, "mean": 0.95, "max_clipped": 0.0, "aperture": Aperture(3.0, 3.0)}, "at any contrast"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(photos, options, words):
    with pytest.raises(ValueError, match=words):
        match_appearance(with_gray(photos), **options)


def test_a_set_of_uniform_images_has_nothing_to_match():
    with pytest.raises(ValueError, match="is uniform inside the aperture"):
        match_appearance(StimulusSet.from_arrays(np.full((1, 1, 8, 8), 0.5)), mean=0.5)
