"""Latents render to the images they were made from, as lucent renders them, in the colors of photographs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stimuli import natural_photos
from synth.image_params import NATURAL_COLOR, PARAMS, STARTS, Fourier, Pixels, pink_start, uniform_start


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("decay", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (1, 3, 15, 20), (2, 3, 12, 17), (1, 1, 13, 11), (3, 1, 8, 8)])
def test_fourier_renders_the_images_it_was_made_from(shape, decay):
    images = 0.01 + 0.98 * torch.rand(shape, generator=generator())
    torch.testing.assert_close(Fourier(images, decay)(), images, atol=2e-5, rtol=0)


def test_fourier_clips_what_a_sigmoid_cannot_reach():
    images = torch.tensor([0.0, 1.0, 0.3, 0.5]).view(1, 1, 2, 2)
    expected = torch.tensor([0.004, 0.996, 0.3, 0.5]).view(1, 1, 2, 2)
    torch.testing.assert_close(Fourier(images)(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (15, 20), (16, 21), (9, 7)])
def test_fourier_equals_lucent(height, width):
    pytest.importorskip("lucent", reason="parity with torch-lucent needs the extra: pip install '.[lucent]'")
    from lucent.optvis.param import color, spatial

    with torch.random.fork_rng():
        (latent,), image_f = spatial.fft_image((2, 3, height, width))
    drawn = torch.randn(latent.shape, generator=generator(1))
    latent.data.copy_(drawn)
    theirs = color.to_valid_rgb(image_f, decorrelate=True)().detach().cpu()
    ours = Fourier(torch.full((2, 3, height, width), 0.5), color=torch.from_numpy(color.color_correlation_normalized))
    # Lucent carries one frequency too many where the width is odd; it is never rendered.
    ours.latent.data.copy_(drawn[..., : width // 2 + 1, :])
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours().detach(), theirs, atol=1e-5, rtol=0)


def test_fourier_gradient_reaches_every_free_coefficient():
    param = Fourier(torch.rand((1, 3, 9, 9), generator=generator()))
    weights = torch.randn((1, 3, 9, 9), generator=generator(2))
    (param() * weights).sum().backward()
    zero = (param.latent.grad == 0).nonzero()[:, 2:].tolist()
    # only the imaginary part of the mean is not there in a real image
    assert {tuple(index) for index in zero} == {(0, 0, 1)}


def test_natural_color_is_the_root_covariance_of_the_photographs():
    images = natural_photos(640).images(list(range(640)))
    pixels = images.transpose(1, 0, 2, 3).reshape(3, -1).astype(np.float64)
    variance, axes = np.linalg.eigh(np.cov(pixels))
    root = (axes * np.sqrt(variance))[:, ::-1]
    root = root * np.sign(root[0]) / np.linalg.norm(root, axis=0).max()
    np.testing.assert_allclose(np.array(NATURAL_COLOR), root, atol=2e-3)
    color = Fourier(torch.full((1, 3, 4, 4), 0.5)).color
    np.testing.assert_array_equal(color.numpy(), np.array(NATURAL_COLOR, dtype=np.float32))


def test_pixels_are_the_images_and_move_where_they_are_put():
    images = torch.rand((2, 3, 4, 5), generator=generator())
    param = Pixels(images)
    images[0] = 0  # the latent is a copy
    assert param().min() > 0
    param.project_(torch.full((2, 3, 4, 5), 0.25))
    assert (param() == 0.25).all()
    assert param.latent.requires_grad


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 17, 24)])
def test_uniform_start_fills_half_the_range(shape):
    x = 2 * uniform_start(shape, generator()).double() - 1
    assert x.shape == shape
    assert x.abs().max().item() == pytest.approx(0.5, abs=1e-6)
    assert x.std().item() == pytest.approx(0.5 / 3**0.5, rel=0.08)  # of a uniform distribution in [-0.5, 0.5]
    assert x.mean().item() == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 63, 48)])
def test_pink_start_is_faint_gray_noise_with_a_1_over_f_spectrum(shape):
    images = torch.stack([pink_start(shape, generator(seed)) for seed in range(6)]).double().numpy()
    assert images.mean() == pytest.approx(0.5, abs=1e-6)
    np.testing.assert_allclose(images.std((1, 2, 3), ddof=1), 0.02, rtol=1e-4)
    power = (np.abs(np.fft.fft2(images - 0.5)) ** 2).mean((0, 1))
    rows, columns = np.fft.fftfreq(shape[1])[:, None], np.fft.fftfreq(shape[2])[None, :]
    frequency = np.hypot(rows, columns)
    band = (frequency > 0.03) & (frequency < 0.45)
    slope, _ = np.polyfit(np.log(frequency[band]), np.log(np.sqrt(power[band])), 1)
    assert slope == pytest.approx(-1, abs=0.1)


@pytest.mark.parametrize("start", STARTS.values())
def test_starts_depend_on_their_generator_alone(start):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first, second, other = (start((3, 8, 8), generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_names_of_params():
    assert dict(PARAMS) == {"pixels": Pixels, "fourier": Fourier}
