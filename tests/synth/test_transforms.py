"""Views: one stream per image, and each does exactly what it says, in both directions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional

from synth._resample import _Sample, roll, warp
from synth.lucent_views import LUCENT_STANDARD, Pad, Rescale, Rotate
from synth.preconditioning import gaussian_blur
from synth.random_streams import Streams
from synth.transforms import Affine, Blur, Jitter, PixelNoise

ALL = [
    Jitter(-3, 2),
    Affine(10.0, 0.1, 2.0),
    Affine(10.0, 0.1, 2.0, "gray"),
    Blur(0.0, 1.5),
    Rotate((-5.0, 0.0, 5.0)),
    Rescale((0.9, 1.0, 1.1), "gray"),
]
ALL_AND_NOISE = [*ALL, PixelNoise(0.2)]


def streams(*keys, step=0):
    return Streams(torch.tensor(keys), torch.full((len(keys),), step))


def noise(*shape, seed=99):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


class Known:
    """Streams of known numbers: rotation, change of size, shift right, shift down, in [-1, 1]."""

    def __init__(self, *numbers):
        self.numbers = numbers

    def uniform(self, *shape):
        return (torch.tensor([self.numbers]) + 1) / 2


@pytest.mark.parametrize("transform", ALL_AND_NOISE)
def test_view_of_an_image_does_not_depend_on_its_neighbors_or_slot(transform):
    images = noise(19, 3, 16, 21)
    alone = transform(images[2:3], streams(7))
    for others, keys, slot in (
        (images, list(range(100, 119)), 2),
        (images[[2, 0]], [7, 1], 0),
        (images[[0, 1, 2]], [7, 7, 7], 2),
    ):
        keys[slot] = 7
        assert torch.equal(transform(others, streams(*keys))[slot], alone[0])


@pytest.mark.parametrize("transform", ALL_AND_NOISE)
def test_gradient_of_an_image_does_not_depend_on_its_neighbors(transform):
    images, weights = noise(9, 3, 16, 21).requires_grad_(), noise(9, 3, 16, 21, seed=1)
    (together,) = torch.autograd.grad(transform(images, streams(*range(9))), images, weights)
    (alone,) = torch.autograd.grad(transform(images[4:5], streams(4)), images, weights[4:5])
    assert torch.equal(together[4], alone[4])


@pytest.mark.parametrize("transform", [*ALL_AND_NOISE, *LUCENT_STANDARD[1:]])
def test_views_change_from_step_to_step_and_follow_the_stream(transform):
    images = noise(1, 1, 16, 16)
    views = [transform(images, streams(3, step=step)) for step in range(8)]
    assert any(not torch.equal(views[0], view) for view in views[1:])
    assert torch.equal(views[0], transform(images, streams(3)))
    numbers = streams(3)
    assert any(not torch.equal(transform(images, numbers), views[0]) for _ in range(8))


@pytest.mark.parametrize("transform", ALL_AND_NOISE)
def test_global_random_state_is_left_alone(transform):
    before, numbers = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    transform(noise(2, 3, 8, 8), streams(0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (np.random.get_state()[1] == numbers).all()  # noqa: NPY002


@pytest.mark.parametrize("transform", [*ALL, Pad(3)])
def test_gradient_of_a_view_is_its_transpose(transform):
    images = noise(2, 2, 6, 7).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: transform(x, streams(0, 1)), images, fast_mode=True)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("transform", ALL_AND_NOISE)
def test_views_do_not_depend_on_the_layout_in_memory(transform, layout):
    images = noise(3, 3, 12, 14)
    plain = transform(images, streams(0, 1, 2))
    torch.testing.assert_close(transform(images.to(memory_format=layout), streams(0, 1, 2)), plain, atol=1e-6, rtol=0)


def test_jitter_is_a_circular_shift_over_exactly_its_range():
    image = noise(1, 1, 11, 13)
    seen = set()
    for step in range(600):
        view = Jitter(-3, 2)(image, streams(0, step=step))[0, 0].numpy()
        matches = [
            (down, right)
            for down in range(-4, 4)
            for right in range(-4, 4)
            if np.array_equal(view, np.roll(image[0, 0].numpy(), (down, right), (0, 1)))
        ]
        assert len(matches) == 1
        seen |= set(matches)
    assert seen == {(down, right) for down in range(-3, 3) for right in range(-3, 3)}


@pytest.mark.parametrize("reach", [5, 9, 40])
def test_every_image_rolls_by_its_own_shift(reach):
    images = noise(40, 3, 7, 8).requires_grad_()
    generator = torch.Generator().manual_seed(0)
    down, right = torch.randint(-reach, reach + 1, (2, 40), generator=generator)
    expected = torch.stack(
        [x.roll((d, r), (1, 2)) for x, d, r in zip(images, down.tolist(), right.tolist(), strict=True)]
    )
    rolled = roll(images, down, right, reach)
    assert torch.equal(rolled, expected)
    weights = noise(40, 3, 7, 8, seed=1)
    (ours,), (theirs,) = (torch.autograd.grad(result, images, weights) for result in (rolled, expected))
    assert torch.equal(ours, theirs)


def test_affine_of_nothing_is_the_image():
    images = noise(2, 3, 15, 20)
    for border in ("reflect", "gray"):
        torch.testing.assert_close(Affine(0, 0, 0, border)(images, streams(0, 1)), images, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("right", "down"), [(0.75, 0.0), (0.0, 0.75), (-0.5, 1.0)])
def test_affine_shift_is_a_roll_inside_the_image(right, down):
    images = noise(1, 3, 16, 24)
    view = Affine(0.0, 0.0, 4.0)(images, Known(0.0, 0.0, right, down))
    rolled = images.roll((int(-4 * down), int(-4 * right)), (2, 3))
    torch.testing.assert_close(view[..., 4:-4, 4:-4], rolled[..., 4:-4, 4:-4], atol=1e-4, rtol=0)


@pytest.mark.parametrize("sign", [1, -1])
def test_affine_turns_by_its_angle(sign):
    images = noise(1, 2, 16, 16)
    view = Affine(90.0, 0.0, 0.0)(images, Known(float(sign), 0.0, 0.0, 0.0))
    torch.testing.assert_close(view, images.rot90(sign, (2, 3)), atol=1e-4, rtol=0)


def test_affine_does_not_shear_images_that_are_not_square():
    images = noise(1, 1, 12, 20)
    view = Affine(90.0, 0.0, 0.0)(images, Known(1.0, 0.0, 0.0, 0.0))
    # what was the central square is the central square, turned
    torch.testing.assert_close(view[..., 4:16], images[..., 4:16].rot90(1, (2, 3)), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("border", "mode"), [("reflect", "reflect"), ("gray", "constant")])
def test_affine_equals_scipy(border, mode):
    rotate, rescale, shift = 12.0, 0.2, 1.5
    image = ndimage.gaussian_filter(noise(24, 30).double().numpy(), 2)
    view = Affine(rotate, rescale, shift, border)(
        torch.from_numpy(image).float()[None, None], Known(1.0, -1.0, 1.0, -1.0)
    )[0, 0]
    angle, center = np.radians(rotate), (np.array(image.shape) - 1) / 2
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / (1 - rescale)  # (row, column)
    offset = center - turn @ center + np.array([-shift, shift])
    padded = np.pad(image, 12, mode="symmetric") if mode == "reflect" else np.pad(image, 12, constant_values=0.5)
    rows, columns = np.indices(image.shape)
    source = np.tensordot(turn, np.stack([rows, columns]), 1) + offset[:, None, None]
    expected = ndimage.map_coordinates(padded, source + 12, order=1)
    np.testing.assert_allclose(view.numpy(), expected, atol=1e-4)


def test_affine_draws_over_its_whole_range_and_not_beyond():
    ramp = torch.linspace(0, 1, 65).expand(400, 1, 65, 65)
    views = Affine(0, 0, 4.0)(ramp, streams(*range(400)))
    moved = (views[:, 0, 32, 32] - 0.5) * 64  # pixels that the center moved
    assert 3.9 < moved.max() <= 4.001
    assert -4.001 <= moved.min() < -3.9
    assert moved.std().item() == pytest.approx(4 / 3**0.5, rel=0.1)


def random_grid(count, height, width, seed=3):
    """Positions inside, on the last pixels, and far outside."""
    grid = 3 * noise(count, height, width, 2, seed=seed) - 1.5
    grid[:, 0, 0] = -1.0
    grid[:, -1, -1] = 1.0
    grid[:, 0, 1] = 4.7
    return grid


@pytest.mark.parametrize("padding", ["zeros", "reflection"])
@pytest.mark.parametrize("size", [(9, 12), (16, 5)])
def test_sampling_for_gpus_equals_that_of_torch_in_both_directions(padding, size):
    images = noise(3, 2, *size).requires_grad_()
    grid, weights = random_grid(3, 14, 11), noise(3, 2, 14, 11, seed=1) - 0.5
    ours = _Sample.apply(images, grid, padding)
    theirs = functional.grid_sample(images, grid, padding_mode=padding, align_corners=False)
    assert torch.equal(ours, theirs)
    (our_gradient,), (their_gradient,) = (torch.autograd.grad(y, images, weights) for y in (ours, theirs))
    torch.testing.assert_close(our_gradient, their_gradient, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padding", ["zeros", "reflection"])
def test_gradient_of_sampling_for_gpus(padding):
    images, grid = noise(2, 2, 5, 6).double().requires_grad_(), random_grid(2, 4, 5).double()
    assert torch.autograd.gradcheck(lambda x: _Sample.apply(x, grid, padding), images)


def test_gradient_of_sampling_for_gpus_does_not_depend_on_the_order_of_additions(monkeypatch):
    images, grid = noise(2, 3, 8, 8).requires_grad_(), 0.2 * random_grid(2, 40, 40)  # many land on a pixel
    weights = (noise(2, 3, 40, 40) - 0.5) * 10.0 ** (8 * noise(2, 3, 40, 40, seed=2) - 4)
    real, order = torch.Tensor.scatter_add_, torch.randperm(2 * 3 * 1600, generator=torch.Generator().manual_seed(0))

    def shuffled(total, axis, index, parts):
        return real(total, axis, index[order], parts[order])

    def gradient():
        return torch.autograd.grad(_Sample.apply(images, grid, "reflection"), images, weights)[0]

    plain = gradient()
    monkeypatch.setattr(torch.Tensor, "scatter_add_", shuffled)
    assert torch.equal(gradient(), plain)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e20])
def test_sampling_for_gpus_keeps_gradients_of_any_size(scale):
    images, grid, weights = noise(1, 1, 6, 6).requires_grad_(), random_grid(1, 6, 6), noise(1, 1, 6, 6, seed=1)
    gradients = [
        torch.autograd.grad(_Sample.apply(images, grid, "zeros"), images, weights * factor)[0] / factor
        for factor in (1.0, scale)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_sampling_for_gpus_passes_broken_gradients_on_to_their_image_only():
    images, grid, weights = noise(3, 1, 6, 6).requires_grad_(), random_grid(3, 6, 6), noise(3, 1, 6, 6, seed=1)
    (whole,) = torch.autograd.grad(_Sample.apply(images, grid, "zeros"), images, weights)
    weights[0, 0, 2, 2], weights[2, 0, 2, 2] = torch.nan, torch.inf
    (gradient,) = torch.autograd.grad(_Sample.apply(images, grid, "zeros"), images, weights)
    assert gradient[[0, 2]].isnan().all()
    assert torch.equal(gradient[1], whole[1])
    weights[:] = 0
    assert (torch.autograd.grad(_Sample.apply(images, grid, "zeros"), images, weights)[0] == 0).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("transform", ALL_AND_NOISE)
def test_views_on_a_gpu_are_repeatable_and_equal_those_of_the_cpu(transform):
    images, weights = noise(4, 3, 64, 64), noise(4, 3, 64, 64, seed=1)

    def both(device):
        start = images.to(device).requires_grad_()
        numbers = Streams(torch.arange(4, device=device), torch.zeros(4, dtype=torch.int64, device=device))
        views = transform(start, numbers)
        return views.detach().cpu(), torch.autograd.grad(views, start, weights.to(device))[0].cpu()

    first, second, cpu = both("cuda"), both("cuda"), both("cpu")
    for ours, again, theirs in zip(first, second, cpu, strict=True):
        assert torch.equal(ours, again)
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_blur_is_the_gaussian_blur_of_a_drawn_width():
    images = noise(6, 3, 12, 15)
    views = Blur(0.5, 2.0)(images, streams(*range(6)))
    widths = 0.5 + 1.5 * streams(*range(6)).uniform()
    assert widths.std() > 0.1
    for k in range(6):
        expected = gaussian_blur(images[k : k + 1], widths[k].item())[0]
        torch.testing.assert_close(views[k], expected, atol=1e-6, rtol=0)
    assert torch.equal(Blur(0.0, 0.0)(images, streams(*range(6))), images)


def test_pixel_noise_is_gaussian_of_its_sd():
    images = noise(2, 3, 64, 64)
    added = (PixelNoise(0.25)(images, streams(0, 1)) - images).double().numpy()
    assert added.std() == pytest.approx(0.25, rel=0.02)
    assert added.mean() == pytest.approx(0, abs=0.005)
    assert (np.abs(added) < 0.25).mean() == pytest.approx(0.6827, abs=0.01)
    assert abs(np.corrcoef(added[0].ravel(), added[1].ravel())[0, 1]) < 0.03


@pytest.mark.parametrize("kind", [lambda values: Rotate(values), lambda values: Rescale(values)])
def test_choices_are_made_from_the_whole_list(kind):
    images = noise(60, 1, 8, 8)[:1].expand(60, -1, -1, -1)
    values = (0.5, 1.0, 1.5)
    views = kind(values)(images, streams(*range(60)))
    expected = torch.cat([kind((value,))(images[:1], streams(0)) for value in values])
    chosen = (views[:, None] - expected[None]).flatten(2).abs().amax(2).argmin(1)
    assert (views - expected[chosen]).abs().max() < 1e-6
    assert (torch.bincount(chosen, minlength=3) > 8).all()


def smooth(*shape):
    return gaussian_blur(noise(*shape), 2.5)


def lucent_transform():
    pytest.importorskip("lucent", reason="parity with torch-lucent needs the extra: pip install '.[lucent]'")
    from lucent.optvis import transform

    return transform


@pytest.mark.parametrize("angle", [-10.0, 7.0])
def test_rotation_is_that_of_lucent(angle):
    images = smooth(1, 3, 40, 48)
    theirs = lucent_transform().random_rotate([angle])(images)
    ours = Rotate((angle,))(images, streams(0))
    torch.testing.assert_close(ours[..., 8:-8, 8:-8], theirs[..., 8:-8, 8:-8], atol=2e-3, rtol=0)


def test_rescaling_is_that_of_lucent():
    images = smooth(1, 3, 41, 41)
    theirs = lucent_transform().random_scale([49 / 41])(images)  # a larger frame; its corner pixels stay corners
    ours = Rescale((48 / 40,))(images, streams(0))
    assert theirs.shape == (1, 3, 49, 49)
    torch.testing.assert_close(ours[..., 2:-2, 2:-2], theirs[..., 6:-6, 6:-6], atol=2e-3, rtol=0)


def test_padding_is_that_of_lucent_and_their_list_has_the_same_order():
    images = noise(2, 3, 5, 6)
    assert torch.equal(
        Pad(12)(images, streams(0, 1)), lucent_transform().pad(12, mode="constant", constant_value=0.5)(images)
    )
    theirs = [kind.__qualname__.split(".")[0] for kind in lucent_transform().standard_transforms]
    ours = [
        {"Rescale": "random_scale", "Rotate": "random_rotate"}.get(type(t).__name__, type(t).__name__.lower())
        for t in LUCENT_STANDARD
    ]
    assert ours == theirs


def test_warp_takes_points_through_its_matrix():
    images = torch.zeros(1, 1, 21, 31)
    images[0, 0, 10 + 3, 15 + 6] = 1.0
    matrix = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])
    view = warp(images, matrix, torch.tensor([[0.0, 1.0]]), "gray")
    assert (view[0, 0] > 0.99).nonzero().tolist() == [[10 + 2, 15 + 3]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Jitter(3, 2), "low 3 and high 2"),
        (lambda: Affine(-1.0, 0.0, 0.0), "rotate_deg and shift_px"),
        (lambda: Affine(0.0, 1.0, 0.0), "rescale is between 0 and 1"),
        (lambda: Affine(0.0, 0.0, 0.0, "black"), "border is 'black'; expected 'reflect' or 'gray'"),
        (lambda: Rotate(()), "got no angles"),
        (lambda: Rotate((1.0,), "wrap"), "border is 'wrap'"),
        (lambda: Rescale((1.0, 0.0)), "all positive"),
        (lambda: Pad(-1), "must not be negative"),
        (lambda: Blur(2.0, 1.0), "expected 0 <= low <= high"),
        (lambda: PixelNoise(-0.1), "must not be negative"),
    ],
)
def test_views_that_are_none_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("transform", [*ALL_AND_NOISE, Pad(2)])
def test_repr_makes_an_equal_transform(transform):
    names = {kind.__name__: kind for kind in (Affine, Blur, Jitter, Pad, PixelNoise, Rescale, Rotate)}
    assert eval(repr(transform), names) == transform
