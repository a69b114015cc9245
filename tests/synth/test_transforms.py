"""Views: one stream per image, and each does exactly what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from synth import transforms
from synth.transforms import Affine, Jitter, PixelNoise

ALL = [Jitter(-3, 2), Affine(10.0, 0.1, 2.0), PixelNoise(0.2)]


def streams(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def noise(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(99))


@pytest.fixture
def draw(monkeypatch):
    """Let Affine draw known numbers in [-1, 1]: rotation, change of size, shift right, shift down."""

    def fix(*numbers):
        monkeypatch.setattr(transforms, "_uniform", lambda generators, count: torch.tensor([numbers] * len(generators)))

    return fix


@pytest.mark.parametrize("transform", ALL)
def test_view_of_an_image_does_not_depend_on_its_neighbors_or_slot(transform):
    images = noise(4, 3, 16, 20)
    alone = transform(images[2:3], streams(7))
    for others, slot in (
        [(images, [1, 2, 7, 4]), 2],
        [(images[[2, 0]], [7, 1]), 0],
        [(images[[0, 1, 2]], [7, 7, 7]), 2],
    ):
        batch, seeds = others
        assert torch.equal(transform(batch, streams(*seeds))[slot], alone[0])


@pytest.mark.parametrize("transform", ALL)
def test_views_change_from_call_to_call_and_follow_the_stream(transform):
    images = noise(1, 1, 16, 16)
    (stream,) = streams(0)
    first, second = transform(images, [stream]), transform(images, [stream])
    assert not torch.equal(first, second)
    assert torch.equal(first, transform(images, streams(0)))


@pytest.mark.parametrize("transform", ALL)
def test_global_random_state_is_left_alone(transform):
    before, numbers = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    transform(noise(2, 3, 8, 8), streams(0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (np.random.get_state()[1] == numbers).all()  # noqa: NPY002


@pytest.mark.parametrize("transform", ALL)
def test_gradient_of_a_view_reaches_the_image(transform):
    images = noise(2, 3, 16, 16).requires_grad_()
    weights = torch.randn((2, 3, 16, 16), generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((transform(images, streams(0, 1)) * weights).sum(), images)
    # all are linear in the image: <w, T(x + d) - T(x)> = <gradient, d>
    change = torch.randn((2, 3, 16, 16), generator=torch.Generator().manual_seed(2))
    moved = transform(images.detach() + change, streams(0, 1)) - transform(images.detach(), streams(0, 1))
    assert (gradient * change).sum().item() == pytest.approx((moved * weights).sum().item(), abs=1e-3)


def test_jitter_is_a_circular_shift_over_exactly_its_range():
    image = noise(1, 1, 11, 13)
    (stream,) = streams(0)
    seen = set()
    for _ in range(600):
        view = Jitter(-3, 2)(image, [stream])[0, 0].numpy()
        matches = [
            (down, right)
            for down in range(-4, 4)
            for right in range(-4, 4)
            if np.array_equal(view, np.roll(image[0, 0].numpy(), (down, right), (0, 1)))
        ]
        assert len(matches) == 1
        seen |= set(matches)
    assert seen == {(down, right) for down in range(-3, 3) for right in range(-3, 3)}


def test_affine_of_nothing_is_the_image():
    images = noise(2, 3, 15, 20)
    torch.testing.assert_close(Affine(0, 0, 0)(images, streams(0, 1)), images, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("right", "down"), [(0.75, 0.0), (0.0, 0.75), (-0.5, 1.0)])
def test_affine_shift_is_a_roll_inside_the_image(draw, right, down):
    draw(0.0, 0.0, right, down)
    images = noise(1, 3, 16, 24)
    view = Affine(0.0, 0.0, 4.0)(images, streams(0))
    rolled = images.roll((int(-4 * down), int(-4 * right)), (2, 3))
    torch.testing.assert_close(view[..., 4:-4, 4:-4], rolled[..., 4:-4, 4:-4], atol=1e-4, rtol=0)


@pytest.mark.parametrize("sign", [1, -1])
def test_affine_turns_by_its_angle(draw, sign):
    draw(float(sign), 0.0, 0.0, 0.0)
    images = noise(1, 2, 16, 16)
    view = Affine(90.0, 0.0, 0.0)(images, streams(0))
    torch.testing.assert_close(view, images.rot90(sign, (2, 3)), atol=1e-4, rtol=0)


def test_affine_does_not_shear_images_that_are_not_square(draw):
    draw(1.0, 0.0, 0.0, 0.0)
    images = noise(1, 1, 12, 20)
    view = Affine(90.0, 0.0, 0.0)(images, streams(0))
    # what was the central square is the central square, turned
    torch.testing.assert_close(view[..., 4:16], images[..., 4:16].rot90(1, (2, 3)), atol=1e-4, rtol=0)


def test_affine_equals_scipy_inside_the_image(draw):
    draw(1.0, 1.0, 1.0, -1.0)
    rotate, rescale, shift = 12.0, 0.2, 1.5
    image = ndimage.gaussian_filter(noise(24, 30).double().numpy(), 2)
    view = Affine(rotate, rescale, shift)(torch.from_numpy(image).float()[None, None], streams(0))[0, 0]
    angle, center = np.radians(rotate), (np.array(image.shape) - 1) / 2
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / (1 + rescale)  # (row, column)
    offset = center - turn @ center + np.array([-shift, shift])
    expected = ndimage.affine_transform(image, turn, offset, order=1)
    np.testing.assert_allclose(view.numpy()[8:-8, 8:-8], expected[8:-8, 8:-8], atol=1e-4)


def test_affine_draws_over_its_whole_range_and_not_beyond():
    ramp = torch.linspace(0, 1, 65).expand(1, 1, 65, 65)
    (stream,) = streams(3)
    moved = [
        ((Affine(0, 0, 4.0)(ramp, [stream])[0, 0, 32, 32] - 0.5) * 64).item() for _ in range(400)
    ]  # pixels that the center moved
    assert 3.9 < max(moved) <= 4.001
    assert -4.001 <= min(moved) < -3.9
    assert np.std(moved) == pytest.approx(4 / 3**0.5, rel=0.1)


def test_pixel_noise_is_gaussian_of_its_sd():
    images = noise(2, 3, 64, 64)
    added = (PixelNoise(0.25)(images, streams(0, 1)) - images).double().numpy()
    assert added.std() == pytest.approx(0.25, rel=0.02)
    assert added.mean() == pytest.approx(0, abs=0.005)
    assert (np.abs(added) < 0.25).mean() == pytest.approx(0.6827, abs=0.01)
    assert abs(np.corrcoef(added[0].ravel(), added[1].ravel())[0, 1]) < 0.03
