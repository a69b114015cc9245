"""Latents render to the images they were made from, as lucent renders them, in the colors of photographs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stimuli import natural_photos
from synth.deep_prior import DeepPrior
from synth.image_params import NATURAL_COLOR, PARAMS, Fourier, PhaseOnly, Pixels
from synth.natural_statistics import NaturalStatistics, natural_statistics


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("decay", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (1, 3, 15, 20), (2, 3, 12, 17), (1, 1, 13, 11), (3, 1, 8, 8)])
def test_fourier_renders_the_images_it_was_made_from(shape, decay):
    images = 0.01 + 0.98 * torch.rand(shape, generator=generator())
    torch.testing.assert_close(Fourier(images, decay=decay)(), images, atol=2e-5, rtol=0)


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


@pytest.fixture(scope="module")
def photographs():
    """Statistics of photographs, 17 x 17 so that no frequency is its own negative but the mean."""
    return natural_statistics(natural_photos(24, size_px=17))


def flat_statistics(channels, height, width):
    return NaturalStatistics(np.eye(channels, dtype=np.float32), np.ones((height, width // 2 + 1), np.float32), width)


@pytest.mark.parametrize("name", PARAMS)
@pytest.mark.parametrize("shape", [(3, 3, 16, 17), (2, 1, 9, 12)])
def test_every_param_can_take_over_one_slot(name, shape):
    images, statistics = 0.1 + 0.8 * torch.rand(shape, generator=generator()), flat_statistics(3, *shape[2:])
    for given in (None, statistics):
        param, other = PARAMS[name](images, given), PARAMS[name](images.flip(0), given)
        assert param.latent.requires_grad
        assert len(param.latent) == shape[0]
        with torch.no_grad():
            param.latent[0] = param.encode(images[-1:])[0]
        rendered = param()
        assert not rendered[0].equal(other()[1])
        assert torch.equal(rendered[0], other()[0])
        assert 0 <= rendered.min() <= rendered.max() <= 1


@pytest.mark.parametrize("size", [(15, 16), (9, 7), (64, 63)])
@pytest.mark.parametrize("name", PARAMS)
def test_images_are_not_coupled(name, size):
    images, weights = (
        torch.rand((7, 3, *size), generator=generator()),
        torch.randn((7, 3, *size), generator=generator(1)),
    )
    together = PARAMS[name](images)
    (gradient,) = torch.autograd.grad((together() * weights).sum(), together.latent)
    for k in range(7):
        alone = PARAMS[name](images[k : k + 1])
        assert torch.equal(alone()[0], together()[k])
        (own,) = torch.autograd.grad((alone() * weights[k : k + 1]).sum(), alone.latent)
        assert torch.equal(own[0], gradient[k])


def test_fourier_with_statistics_renders_what_it_was_made_from_in_the_measured_spectrum(photographs):
    images = 0.01 + 0.98 * torch.rand((2, 3, 17, 17), generator=generator())
    param = Fourier(images, photographs)
    torch.testing.assert_close(param(), images, atol=2e-5, rtol=0)
    np.testing.assert_array_equal(param.color.numpy(), photographs.color)
    ours, plain = param.amplitude[..., 0].numpy(), Fourier(images).amplitude[..., 0].numpy()
    ratio = (ours / photographs.amplitude).ravel()[1:]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)
    assert ours.ravel()[1:].mean() == pytest.approx(plain.ravel()[1:].mean(), rel=1e-5)
    assert ours[0, 0] >= max(ours[0, 1], ours[1, 0])


def test_fourier_moves_at_frequencies_that_the_photographs_lack():
    amplitude = np.ones((8, 5), np.float32)
    amplitude[3, 2] = 0
    param = Fourier(torch.rand((1, 1, 8, 8), generator=generator()), NaturalStatistics(np.ones((1, 1)), amplitude, 8))
    assert param.latent.isfinite().all()
    assert param.amplitude[3, 2, 0] == pytest.approx(1e-3 * param.amplitude[1, 1, 0].item(), rel=0.05)


def test_phase_only_has_the_measured_magnitudes_whatever_the_latent(photographs):
    param = PhaseOnly(torch.full((2, 3, 17, 17), 0.5), photographs)
    param.latent.data.copy_(10 * torch.randn(param.latent.shape, generator=generator()))
    linear = param().detach().double().logit().numpy() / 4
    plain = np.einsum("dc,nchw->ndhw", np.linalg.inv(photographs.color.astype(np.float64)), linear)
    magnitude = np.abs(np.fft.rfft2(plain, norm="ortho"))
    expected = photographs.amplitude.astype(np.float64)
    expected[0, 0] = 0
    # all decorrelated channels have one spectrum, such that luminance has the measured one
    share = np.sqrt((photographs.color.mean(0, dtype=np.float64) ** 2).sum())
    np.testing.assert_allclose(magnitude, np.broadcast_to(expected / share, magnitude.shape), atol=2e-4)
    assert linear.mean() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("size", [(16, 16), (15, 16), (16, 15), (9, 7)])
def test_phase_only_keeps_the_phases_it_was_made_from(size):
    start = torch.rand((2, 1, *size), generator=generator())
    param = PhaseOnly(start)
    spectra = [np.fft.rfft2(x.detach().double().logit().numpy()) for x in (start.clamp(0.004, 0.996), param())]
    difference = np.angle(spectra[1] / spectra[0])
    own = np.zeros(spectra[0].shape, dtype=bool)  # real numbers in every image: the sign of those is fixed
    for row in {0, size[0] // 2 if size[0] % 2 == 0 else 0}:
        for column in {0, size[1] // 2 if size[1] % 2 == 0 else 0}:
            own[..., row, column] = True
    np.testing.assert_allclose(difference[~own], 0, atol=1e-3)
    torch.testing.assert_close(PhaseOnly(param().detach())(), param(), atol=1e-4, rtol=0)


def test_phase_only_without_statistics_falls_as_1_over_f_with_the_contrast_asked_for():
    param = PhaseOnly(torch.rand((3, 3, 32, 32), generator=generator()), contrast=0.1)
    linear = param().detach().double().logit().numpy() / 4
    magnitude = np.abs(np.fft.rfft2(np.einsum("dc,nchw->ndhw", np.linalg.inv(np.array(NATURAL_COLOR)), linear)))
    rows, columns = np.fft.fftfreq(32)[:, None], np.fft.rfftfreq(32)[None, :]
    product = (magnitude * np.hypot(rows, columns))[..., 1:]
    np.testing.assert_allclose(product, product.mean(), rtol=2e-3)
    power = [
        (PhaseOnly(torch.rand((1, 1, 32, 32), generator=generator(k)), contrast=0.1)().logit() / 4).std()
        for k in range(3)
    ]
    np.testing.assert_allclose([p.item() for p in power], 0.1, rtol=2e-3)


def test_phase_only_gradient():
    param = PhaseOnly(torch.rand((1, 3, 5, 6), generator=generator())).double()
    latent = param.latent.detach().clone().requires_grad_()

    def render(value):
        return torch.func.functional_call(param, {"latent": value}, ())

    assert torch.autograd.gradcheck(render, latent)


@pytest.mark.parametrize("kind", [Fourier, PhaseOnly])
def test_statistics_of_other_images_are_refused(kind):
    images = torch.full((1, 3, 8, 8), 0.5)
    with pytest.raises(ValueError, match=r"of images of \(8, 9\) pixels .* to be made have \(8, 8\)"):
        kind(images, flat_statistics(3, 8, 9))
    with pytest.raises(ValueError, match="statistics are of gray images, the images to be made have 3 channels"):
        kind(images, flat_statistics(1, 8, 8))
    kind(images[:, :1], flat_statistics(3, 8, 8))  # the luminance of color photographs serves gray images


@pytest.mark.parametrize("kind", [Pixels, Fourier, PhaseOnly])
def test_bounded_params_render_images_whatever_their_latent(kind):
    param = kind(torch.rand((1, 3, 8, 8), generator=generator()))
    param.latent.data *= 1000
    with torch.no_grad():
        images = param()
    assert kind.bounded == bool(images.min() >= 0 and images.max() <= 1)
    assert kind.bounded or hasattr(param, "project_")


def test_names_of_params():
    assert dict(PARAMS) == {"pixels": Pixels, "fourier": Fourier, "phase": PhaseOnly, "deep_prior": DeepPrior}
