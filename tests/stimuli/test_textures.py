"""Noise against its spectrum, and scrambled images against what scrambling keeps and changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stimuli import Display, StimulusSet, natural_photos
from stimuli.apertures import Aperture
from stimuli.textures import noise_plane, phase_scrambled, pink_noise, scrambled


@pytest.fixture(scope="module")
def photos():
    return natural_photos(4, 64, seed=1)


def amplitude_slope(planes):
    """Slope of log amplitude over log frequency, from the mean spectrum, each ring of frequencies alike."""
    n = planes.shape[-1]
    power = np.mean(np.abs(np.fft.fft2(planes)) ** 2, axis=0)
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(n), np.fft.fftfreq(n))) * n
    rings = np.arange(2, n // 2)
    mean = [np.sqrt(power[(radius > k - 0.5) & (radius <= k + 0.5)].mean()) for k in rings]
    return np.polyfit(np.log(rings), np.log(mean), 1)[0]


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0, 1.5])
def test_the_amplitude_falls_as_one_over_f_to_the_alpha(alpha):
    planes = pink_noise(24, size_px=64, alpha=alpha, seed=2).images()[:, 0]
    assert amplitude_slope(planes) == pytest.approx(-alpha, abs=0.05)


@settings(max_examples=20, deadline=None)
@given(alpha=st.floats(0.0, 3.0), h=st.integers(8, 40), w=st.integers(8, 40), seed=st.integers(0, 99))
def test_a_noise_plane_has_mean_0_and_sd_1(alpha, h, w, seed):
    plane = noise_plane((h, w), alpha, np.random.default_rng(seed))
    assert plane.shape == (h, w)
    assert (plane.mean(), plane.std()) == pytest.approx((0.0, 1.0), abs=1e-9)


def test_a_noise_set():
    made = pink_noise(5, size_px=64, rms=0.1, seed=3, channels=3)
    codes = made.codes()
    assert codes.shape == (5, 3, 64, 64)
    assert (np.ptp(codes.astype(int), axis=1) == 0).all()
    assert codes[:, 0].mean(axis=(1, 2)) == pytest.approx([127.5] * 5, abs=0.05)
    assert codes[:, 0].std(axis=(1, 2)) == pytest.approx([25.5] * 5, abs=0.1)
    table = made.table
    assert table["rms_contrast"].tolist() == pytest.approx((codes[:, 0].std(axis=(1, 2)) / 255).tolist())
    assert table[["family", "alpha", "seed", "clipped_fraction"]].drop_duplicates().values.tolist() == [
        ["pink_noise", 1.0, 3, 0.0]
    ]
    assert table["number"].tolist() == [0, 1, 2, 3, 4]
    assert made.provenance["seed"] == 3
    again = pink_noise(2, size_px=64, rms=0.1, seed=3)
    np.testing.assert_array_equal(again.codes()[:, 0], codes[:2, 0])
    assert len({*again.stimulus_ids, *pink_noise(2, size_px=64, rms=0.1, seed=4).stimulus_ids}) == 4


def test_strong_noise_reports_what_was_clipped():
    made = pink_noise(3, size_px=64, rms=0.4, seed=1)
    z = [noise_plane((64, 64), 1.0, np.random.default_rng([1, k])) for k in range(3)]
    assert made.table["clipped_fraction"].tolist() == pytest.approx(
        [np.mean(0.4 * np.abs(plane) > 0.5 + 0.5 / 255) for plane in z]
    )
    assert made.table["clipped_fraction"].min() > 0.1


def test_noise_in_an_aperture_on_a_screen():
    display = Display(resolution_px=(640, 480), width_cm=40.0)
    made = pink_noise(2, size_deg=4.0, display=display, aperture=Aperture(1.0, 0.5))
    assert made.size_px[1] == round(4.0 * display.ppd)
    mask = Aperture(1.0, 0.5).mask(made.size_px, 4.0)
    assert (made.codes()[:, 0, mask == 0] == 128).all()
    assert made.codes()[:, 0, mask == 1].std() > 20
    assert made.table["aperture_edge_deg"].tolist() == [0.5, 0.5]


@settings(max_examples=25, deadline=None)
@given(
    fraction=st.floats(0.0, 1.0), c=st.sampled_from([1, 3]), h=st.integers(5, 32), w=st.integers(5, 32),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_scrambling_keeps_amplitudes_mean_and_sd(fraction, c, h, w, seed):
    rng = np.random.default_rng(seed)
    image = rng.random((c, h, w))
    other = scrambled(image, fraction, rng)
    np.testing.assert_allclose(np.abs(np.fft.fft2(other)), np.abs(np.fft.fft2(image)), atol=1e-9)
    assert other.mean(axis=(1, 2)) == pytest.approx(image.mean(axis=(1, 2)))
    assert other.std(axis=(1, 2)) == pytest.approx(image.std(axis=(1, 2)))


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 15, 22), (1, 9, 9)])
def test_scrambling_moves_phases_by_the_fraction(shape):
    image = np.random.default_rng(0).random(shape)
    moved = {}
    for fraction in (0.0, 0.5, 1.0):
        other = scrambled(image, fraction, np.random.default_rng(1))
        turn = np.fft.fft2(other) / np.fft.fft2(image)
        moved[fraction] = np.angle(turn)
        np.testing.assert_allclose(moved[fraction][0], moved[fraction][-1], atol=1e-9)  # the same in every channel
    np.testing.assert_allclose(moved[0.0], 0.0, atol=1e-9)
    free = np.abs(moved[1.0][0]) > 1e-9
    assert free.sum() >= free.size - 4  # all but those that are their own conjugates
    np.testing.assert_allclose(moved[0.5][0][free], moved[1.0][0][free] / 2, atol=1e-9)
    assert np.histogram(moved[1.0][0][free], bins=4, range=(-np.pi, np.pi))[0].min() > 0.1 * free.sum()


def test_scrambled_photographs(photos):
    made = phase_scrambled(photos, seed=5)
    table = made.table
    assert table["source"].tolist() == photos.stimulus_ids
    assert table["photograph"].tolist() == photos.table["photograph"].tolist()
    assert table[["family", "fraction", "seed"]].drop_duplicates().values.tolist() == [["phase_scrambled", 1.0, 5]]
    assert (made.size_deg, made.shape) == (photos.size_deg, photos.shape)
    assert made.provenance["of"]["seed"] == 1
    images, originals = made.images(), photos.images()
    for i, row in table.iterrows():
        if row["clipped_fraction"] < 0.01:
            assert images[i].mean() == pytest.approx(originals[i].mean(), abs=0.005)
            assert images[i].std() == pytest.approx(originals[i].std(), rel=0.05)
        assert abs(np.corrcoef(images[i].ravel(), originals[i].ravel())[0, 1]) < 0.6
    assert (table["clipped_fraction"] > 0).any()
    assert table["rms_contrast"].tolist() == pytest.approx((made.codes() / 255.0).std(axis=(1, 2, 3)).tolist())
    joined = StimulusSet.concat([photos, made])
    assert len(joined) == 8


def test_a_scrambled_copy_depends_on_seed_and_source_alone(photos):
    whole = phase_scrambled(photos, 0.5, seed=1)
    alone = phase_scrambled(photos.select([2]), 0.5, seed=1)
    np.testing.assert_array_equal(alone.codes()[0], whole.codes()[2])
    assert phase_scrambled(photos, 0.5, seed=2).stimulus_ids != whole.stimulus_ids
    noise = pink_noise(2, size_px=32, rms=0.1)
    turns = np.fft.fft2(phase_scrambled(noise).images()[:, 0]) / np.fft.fft2(noise.images()[:, 0])
    assert np.abs(np.angle(turns[0] / turns[1]))[1:6, 1:6].mean() > 0.5  # the turn of one is not that of the other
    untouched = phase_scrambled(photos, 0.0)
    np.testing.assert_array_equal(untouched.codes(), photos.codes())


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda photos: pink_noise(0), ValueError, "n is 0"),
        (lambda photos: pink_noise(1, seed=-1), ValueError, "seed is -1"),
        (lambda photos: pink_noise(1, seed=2**32), ValueError, "seed is 4294967296"),
        (lambda photos: phase_scrambled(photos, seed=2**32), ValueError, "seed is 4294967296"),
        (lambda photos: pink_noise(1, alpha=5), ValueError, "alpha is 5: give a number from 0 to 4"),
        (lambda photos: pink_noise(1, alpha="1"), TypeError, "alpha is '1'"),
        (lambda photos: pink_noise(1, rms=0), ValueError, "rms is 0"),
        (lambda photos: pink_noise(1, rms=float("nan")), TypeError, "rms is nan"),
        (lambda photos: pink_noise(1, channels=2), ValueError, "channels is 2"),
        (lambda photos: pink_noise(1, size_px=0), ValueError, "0 px wide"),
        (lambda photos: phase_scrambled(photos, 1.5), ValueError, "fraction is 1.5"),
        (lambda photos: phase_scrambled(photos, seed=0.5), ValueError, "seed is 0.5"),
    ],
)
def test_wrong_calls(photos, call, error, words):
    with pytest.raises(error, match=words):
        call(photos)
