"""Colors and spectra are those computed from all pixels at once, and equal content is equal."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from stimuli import StimulusSet, natural_photos
from synth.natural_statistics import NaturalStatistics, natural_statistics


def planted(count=40, size=(12, 9), channels=3, seed=0):
    """Noise of known color covariance and known spectrum."""
    rng = np.random.default_rng(seed)
    noise = rng.uniform(-1, 1, (count, channels, *size))
    mix = np.array([[0.2, 0.05, 0.0], [0.2, 0.0, 0.01], [0.15, -0.05, 0.0]]) if channels == 3 else np.array([[0.2]])
    return np.clip(0.45 + np.einsum("cd,ndhw->nchw", mix, noise), 0, 1), mix


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_are_those_of_all_pixels_at_once(channels):
    images, _ = planted(channels=channels)
    stimuli = StimulusSet.from_arrays(images)
    pixels = stimuli.images().astype(np.float64)
    found = natural_statistics(stimuli)
    luminance = pixels.mean(1)
    means = luminance.mean((1, 2), keepdims=True)
    spectrum = np.abs(np.fft.fft2(luminance - means)).mean(0) / np.sqrt(12 * 9)
    np.testing.assert_allclose(found.amplitude.ravel()[1:], spectrum[:, :5].ravel()[1:], rtol=1e-5, atol=1e-7)
    assert found.amplitude[0, 0] == pytest.approx(means.std() * np.sqrt(12 * 9), rel=1e-5)
    assert found.size_px == (12, 9)
    if channels == 1:
        assert found.color.tolist() == [[1.0]]
        return
    covariance = np.cov(pixels.transpose(1, 0, 2, 3).reshape(3, -1), ddof=0)
    scale = np.linalg.norm(found.color, axis=0).max()
    assert scale == pytest.approx(1, rel=1e-6)
    root = found.color.astype(np.float64) * np.sqrt(np.linalg.eigvalsh(covariance)[-1])
    np.testing.assert_allclose(root @ root.T, covariance, atol=1e-8)
    lengths = np.linalg.norm(found.color, axis=0)
    assert (np.diff(lengths) < 0).all()
    assert (found.color[0] >= 0).all()


def test_color_finds_the_planted_covariance():
    images, mix = planted(count=300)
    color = natural_statistics(StimulusSet.from_arrays(images)).color.astype(np.float64)
    expected = mix @ mix.T
    ours = color @ color.T
    np.testing.assert_allclose(ours / np.trace(ours), expected / np.trace(expected), atol=5e-3)


def test_images_are_read_one_at_a_time(monkeypatch):
    stimuli, read = StimulusSet.from_arrays(planted()[0]), []
    real = StimulusSet.images
    monkeypatch.setattr(StimulusSet, "images", lambda self, index=None: read.append(index) or real(self, index))
    natural_statistics(stimuli)
    assert read == [[k] for k in range(40)]


def test_gray_photographs_in_color_files_have_colors_that_can_be_inverted():
    gray, _ = planted(channels=1)
    color = natural_statistics(StimulusSet.from_arrays(gray.repeat(3, 1))).color
    np.testing.assert_allclose(color[:, 0], 3**-0.5, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(color, axis=0), [1, 1e-3, 1e-3], rtol=1e-3)


def test_photographs_have_spectra_that_fall_with_frequency():
    amplitude = natural_statistics(natural_photos(40, size_px=64)).amplitude
    rows, columns = np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64)[None, :]
    frequency = np.hypot(rows, columns)
    band = (frequency > 0.03) & (frequency < 0.4)
    slope, _ = np.polyfit(np.log(frequency[band]), np.log(amplitude[band]), 1)
    assert -2 < slope < -0.8


def test_uniform_images_have_no_spectrum():
    with pytest.raises(ValueError, match="the 2 images of 'stimuli' are uniform and have no spectrum"):
        natural_statistics(StimulusSet.from_arrays(np.stack([np.zeros((3, 4, 4)), np.ones((3, 4, 4))])))


def test_equality_hash_and_repr_are_those_of_the_content():
    images, _ = planted()
    first, second = (natural_statistics(StimulusSet.from_arrays(images)) for _ in range(2))
    other = natural_statistics(StimulusSet.from_arrays(images[1:]))
    assert first == second == copy.deepcopy(first)
    assert first != other
    assert first != "statistics"
    assert hash(first) == hash(second)
    assert repr(first) == repr(second) == f"NaturalStatistics(3x12x9, sha256='{first.digest[:16]}')"
    assert repr(other) != repr(first)
    wider = NaturalStatistics(np.eye(3), np.ones((4, 3)), 4)
    assert wider != NaturalStatistics(np.eye(3), np.ones((4, 3)), 5)
    with pytest.raises(ValueError, match="read-only"):
        first.color[0, 0] = 2


@pytest.mark.parametrize(
    ("color", "amplitude", "width", "message"),
    [
        (np.eye(2), np.ones((4, 3)), 4, r"color has shape \(2, 2\)"),
        (np.full((3, 3), np.nan), np.ones((4, 3)), 4, "expected finite numbers"),
        (np.eye(3), np.ones((4, 4)), 4, r"amplitude has shape \(4, 4\); expected \(height, 3\)"),
        (np.eye(3), -np.ones((4, 3)), 4, "negative"),
        (np.eye(3), np.full((4, 3), np.inf), 4, "infinite"),
    ],
)
def test_what_cannot_be_statistics_is_refused(color, amplitude, width, message):
    with pytest.raises(ValueError, match=message):
        NaturalStatistics(color, amplitude, width)
