"""Constraints are met exactly; blur and total variation are those of scipy and of a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from synth.constraints import check_luminance_contrast, fix_luminance_contrast, gaussian_blur, total_variation


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def statistics(images):
    flat = images.detach().double().numpy().reshape(len(images), -1)
    return flat.mean(1), flat.std(1)


SHAPES = {  # from symmetric to badly skewed distributions of gray
    "flat": lambda x: x,
    "dark": lambda x: x**6,
    "bright": lambda x: 1 - x**6,
    "faint": lambda x: 0.5 + 0.01 * x,
    "faint and dark": lambda x: 0.03 * x,
    "out of range": lambda x: 6 * x - 2,
    "heavy tails": lambda x: 0.5 + torch.tan(3 * (x - 0.5)) / 8,
}


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(SHAPES)),
    st.floats(0.25, 0.75),
    st.floats(0.05, 0.8),
    st.sampled_from([1, 3]),
    st.integers(0, 10**6),
)
def test_mean_and_contrast_are_met(shape, mean, share, channels, seed):
    rms = share * (mean * (1 - mean)) ** 0.5
    images = fix_luminance_contrast(SHAPES[shape](noise(2, channels, 24, 24, seed=seed)), mean, rms)
    means, contrasts = statistics(images)
    np.testing.assert_allclose(means, mean, atol=1e-3)
    np.testing.assert_allclose(contrasts, rms, atol=1e-3)
    assert images.min() >= 0
    assert images.max() <= 1
    again = fix_luminance_contrast(images, mean, rms)
    torch.testing.assert_close(again, images, atol=5e-4, rtol=0)


@pytest.mark.parametrize("shape", ["flat", "dark", "bright", "faint"])
def test_one_of_the_two_may_be_free(shape):
    images = SHAPES[shape](noise(2, 3, 24, 24))
    means, _ = statistics(fix_luminance_contrast(images, 0.6, None))
    np.testing.assert_allclose(means, 0.6, atol=1e-3)
    _, contrasts = statistics(fix_luminance_contrast(images, None, 0.2))
    np.testing.assert_allclose(contrasts, 0.2, atol=1e-3)


def test_without_clipping_it_is_the_affine_map():
    images = 0.4 + 0.2 * noise(1, 3, 16, 16)
    mean, std = statistics(images)
    expected = (images.double() - mean[0]) / std[0] * 0.1 + 0.5
    torch.testing.assert_close(fix_luminance_contrast(images, 0.5, 0.1).double(), expected, atol=1e-5, rtol=0)


def test_images_do_not_share_gain_and_offset():
    images = torch.cat([noise(1, 3, 16, 16), 0.1 * noise(1, 3, 16, 16, seed=1)])
    both = fix_luminance_contrast(images, 0.5, 0.2)
    torch.testing.assert_close(both[1:], fix_luminance_contrast(images[1:], 0.5, 0.2), atol=1e-6, rtol=0)


def test_without_targets_only_the_range_is_kept():
    images = 3 * noise(1, 1, 8, 8) - 1
    assert torch.equal(fix_luminance_contrast(images, None, None), images.clamp(0, 1))


@pytest.mark.parametrize("gray", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize(("mean", "rms"), [(0.5, 0.2), (None, 0.2), (0.4, None)])
def test_uniform_image_stays_uniform(gray, mean, rms):
    images = fix_luminance_contrast(torch.full((1, 3, 16, 16), gray), mean, rms)
    assert images.isfinite().all()
    assert images.std() < 1e-3
    if mean is not None:
        assert images.mean().item() == pytest.approx(mean, abs=1e-3)


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_gradient_is_the_gain_where_nothing_is_clipped(shape):
    images = SHAPES[shape](noise(1, 1, 16, 16)).requires_grad_()
    fixed = fix_luminance_contrast(images, 0.5, 0.25)
    (gradient,) = torch.autograd.grad(fixed.sum(), images)
    free = (fixed > 1e-4) & (fixed < 1 - 1e-4)
    gains = gradient[free]
    assert gradient.isfinite().all()
    assert gains.min() > 0
    torch.testing.assert_close(gains, gains[:1].expand_as(gains))
    assert ((gradient == 0) | (gradient == gains[0])).all()


def test_pixels_at_the_ends_of_the_range_are_free_to_leave_and_pixels_beyond_are_not():
    images = torch.tensor([-0.5, 0.0, 0.4, 1.0, 1.5]).view(1, 1, 1, 5).requires_grad_()
    (gradient,) = torch.autograd.grad(fix_luminance_contrast(images, None, None).sum(), images)
    assert gradient.flatten().tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("mean", "rms", "message"),
    [
        (0.95, 0.4, r"RMS contrast is 0.4; images in \[0, 1\] with mean luminance 0.95 reach .* 0.218"),
        (None, 0.6, "RMS contrast is 0.6"),
        (0.5, 0.5, "RMS contrast is 0.5"),
        (0.5, 0.0, "RMS contrast is 0.0"),
        (0.5, float("nan"), "RMS contrast is nan"),
        (1.2, None, "mean luminance is 1.2; expected a number between 0 and 1"),
        (0.0, 0.1, "mean luminance is 0.0"),
    ],
)
def test_what_no_image_can_have_is_refused(mean, rms, message):
    for refuse in (check_luminance_contrast, lambda m, r: fix_luminance_contrast(noise(1, 1, 4, 4), m, r)):
        with pytest.raises(ValueError, match=message):
            refuse(mean, rms)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 1.5, 3.0])
def test_blur_is_that_of_scipy(sigma):
    images = noise(2, 3, 24, 31)
    expected = ndimage.gaussian_filter(images.double().numpy(), (0, 0, sigma, sigma), mode="mirror", truncate=3)
    np.testing.assert_allclose(gaussian_blur(images, sigma).numpy(), expected, atol=1e-3)


def test_blur_of_zero_width_is_nothing_and_a_wide_one_keeps_the_mean_gray():
    images = noise(1, 1, 8, 8)
    assert torch.equal(gaussian_blur(images, 0.0), images)
    wide = gaussian_blur(torch.full((1, 1, 8, 8), 0.3), 9.0)  # wider than the image
    torch.testing.assert_close(wide, torch.full((1, 1, 8, 8), 0.3))


def test_total_variation_is_that_of_a_plain_loop():
    images = noise(2, 3, 5, 7)
    x = images.double().numpy()
    for k in range(2):
        down = [(x[k, c, i + 1, j] - x[k, c, i, j]) ** 2 for c in range(3) for i in range(4) for j in range(7)]
        right = [(x[k, c, i, j + 1] - x[k, c, i, j]) ** 2 for c in range(3) for i in range(5) for j in range(6)]
        expected = sum(down) / (2 * len(down)) + sum(right) / (2 * len(right))
        assert total_variation(images)[k].item() == pytest.approx(expected, rel=1e-5)
