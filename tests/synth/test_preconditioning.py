"""Blur is that of scipy, Fourier smoothing that of numpy, total variation that of a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from synth.preconditioning import fourier_smooth, gaussian_blur, radial_frequency, total_variation


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sigma", [0.4, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("form", ["number", "tensor", "bounded"])
def test_blur_is_that_of_scipy(sigma, form):
    images = noise(2, 3, 24, 31)
    expected = ndimage.gaussian_filter(images.double().numpy(), (0, 0, sigma, sigma), mode="mirror", truncate=3)
    width = sigma if form == "number" else torch.full((2,), sigma)
    blurred = gaussian_blur(images, width, 5.0 if form == "bounded" else None)
    np.testing.assert_allclose(blurred.numpy(), expected, atol=1e-3)


def test_every_image_has_its_own_width():
    images = noise(4, 3, 15, 20)
    widths = torch.tensor([0.0, 0.5, 2.0, 1.3])
    blurred = gaussian_blur(images, widths, 4.0)
    assert torch.equal(blurred[0], images[0])
    for k in range(1, 4):
        torch.testing.assert_close(blurred[k], gaussian_blur(images[k : k + 1], widths[k].item())[0], atol=1e-6, rtol=0)
        assert torch.equal(blurred[k], gaussian_blur(images[k : k + 1], widths[k : k + 1], 4.0)[0])


def test_blur_of_zero_width_is_nothing_and_a_wide_one_keeps_the_mean_gray():
    images = noise(1, 1, 8, 8)
    assert torch.equal(gaussian_blur(images, 0.0), images)
    assert torch.equal(gaussian_blur(images, torch.zeros(1), 0.0), images)
    wide = gaussian_blur(torch.full((1, 1, 8, 8), 0.3), 9.0)  # wider than the image
    torch.testing.assert_close(wide, torch.full((1, 1, 8, 8), 0.3))


def test_blur_of_broken_numbers_stays_in_its_image():
    images = noise(2, 1, 8, 8)
    images[0, 0, 3, 3] = torch.nan
    blurred = gaussian_blur(images, torch.ones(2), 1.0)
    assert blurred[0].isnan().any()
    assert torch.equal(blurred[1:], gaussian_blur(images[1:], torch.ones(1), 1.0))


def test_gradient_of_blur():
    images = noise(2, 2, 6, 7).double().requires_grad_()
    widths = torch.tensor([0.7, 1.6], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: gaussian_blur(x, widths, 2.0), images, fast_mode=True)


def test_blur_needs_one_width_per_image():
    with pytest.raises(ValueError, match=r"sigma_px has shape \(3,\); expected one width for each of 2 images"):
        gaussian_blur(noise(2, 1, 4, 4), torch.ones(3))


@pytest.mark.parametrize("decay", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (2, 1, 15, 20), (1, 3, 9, 7)])
def test_fourier_smoothing_divides_the_spectrum_and_keeps_the_norm(decay, shape):
    gradient = noise(*shape) - 0.4
    x = gradient.double().numpy()
    height, width = shape[-2:]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    frequency = np.maximum(frequency, 1 / max(height, width))
    expected = np.fft.ifft2(np.fft.fft2(x) / frequency**decay).real
    expected *= np.sqrt((x**2).sum((1, 2, 3)) / (expected**2).sum((1, 2, 3)))[:, None, None, None]
    np.testing.assert_allclose(fourier_smooth(gradient, decay).numpy(), expected, atol=1e-5)


def test_fourier_smoothing_of_nothing_or_by_nothing():
    gradient = noise(2, 3, 8, 8)
    assert torch.equal(fourier_smooth(gradient, 0.0), gradient)
    assert torch.equal(fourier_smooth(torch.zeros(1, 1, 8, 8), 1.0), torch.zeros(1, 1, 8, 8))
    tiny = fourier_smooth(gradient * 1e-30, 1.0) * 1e30  # squares would vanish
    torch.testing.assert_close(tiny, fourier_smooth(gradient, 1.0))


def test_fourier_smoothing_does_not_couple_images():
    gradient = noise(5, 3, 12, 10)
    smooth = fourier_smooth(gradient, 1.0)
    for k in range(5):
        assert torch.equal(fourier_smooth(gradient[k : k + 1], 1.0)[0], smooth[k])


def test_the_mean_counts_as_the_lowest_frequency():
    assert radial_frequency(10, 20)[0, :3].tolist() == pytest.approx([0.05, 0.05, 0.1])
    assert radial_frequency(10, 20)[5, 10].item() == pytest.approx(0.5 * 2**0.5)


def test_total_variation_is_that_of_a_plain_loop():
    images = noise(2, 3, 5, 7)
    x = images.double().numpy()
    for k in range(2):
        down = [(x[k, c, i + 1, j] - x[k, c, i, j]) ** 2 for c in range(3) for i in range(4) for j in range(7)]
        right = [(x[k, c, i, j + 1] - x[k, c, i, j]) ** 2 for c in range(3) for i in range(5) for j in range(6)]
        expected = sum(down) / (2 * len(down)) + sum(right) / (2 * len(right))
        assert total_variation(images)[k].item() == pytest.approx(expected, rel=1e-5)
