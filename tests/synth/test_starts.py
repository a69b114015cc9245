"""Starts are what they say, and depend on their generator alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from synth.starts import STARTS, pink_start, start_image, uniform_start


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 17, 24)])
def test_uniform_start_fills_half_the_range(shape):
    x = 2 * uniform_start(shape, generator()).double() - 1
    assert x.shape == shape
    assert x.abs().max().item() == pytest.approx(0.5, abs=1e-6)
    assert x.std().item() == pytest.approx(0.5 / 3**0.5, rel=0.08)  # of a uniform distribution in [-0.5, 0.5]
    assert x.mean().item() == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("contrast", [0.02, 0.1])
@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 63, 48)])
def test_pink_start_is_gray_noise_with_a_1_over_f_spectrum(shape, contrast):
    images = torch.stack([pink_start(shape, generator(seed), contrast) for seed in range(6)]).double().numpy()
    assert images.mean() == pytest.approx(0.5, abs=1e-6)
    np.testing.assert_allclose(images.std((1, 2, 3), ddof=1), contrast, rtol=1e-4)
    power = (np.abs(np.fft.fft2(images - 0.5)) ** 2).mean((0, 1))
    rows, columns = np.fft.fftfreq(shape[1])[:, None], np.fft.fftfreq(shape[2])[None, :]
    frequency = np.hypot(rows, columns)
    band = (frequency > 0.03) & (frequency < 0.45)
    slope, _ = np.polyfit(np.log(frequency[band]), np.log(np.sqrt(power[band])), 1)
    assert slope == pytest.approx(-1, abs=0.1)


@pytest.mark.parametrize("attempt", [0, 1])
@pytest.mark.parametrize("name", STARTS)
def test_starts_depend_on_their_generator_alone(name, attempt):
    base = torch.rand((3, 8, 8), generator=generator(9))
    before = torch.random.get_rng_state()
    first, second, other = (start_image(name, (3, 8, 8), generator(seed), attempt, base) for seed in (3, 3, 4))
    assert torch.equal(first, second)
    assert torch.equal(first, other) == (name in ("gray", "base") and attempt == 0)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert 0 <= first.min() <= first.max() <= 1


def test_names_give_their_starts():
    shape, base = (3, 8, 8), torch.rand((3, 8, 8), generator=generator(9))
    assert torch.equal(start_image("uniform", shape, generator()), uniform_start(shape, generator()))
    assert torch.equal(start_image("pink", shape, generator()), pink_start(shape, generator(), 0.02))
    assert torch.equal(start_image("gray", shape, generator()), torch.full(shape, 0.5))
    assert torch.equal(start_image("base", shape, generator(), base=base), base)


def test_next_attempts_have_more_contrast():
    shape, base = (3, 16, 16), torch.full((3, 16, 16), 0.4)
    stds = {
        name: [start_image(name, shape, generator(), attempt, base).std().item() for attempt in range(5)]
        for name in ("pink", "gray", "base")
    }
    assert stds["pink"] == pytest.approx([0.02, 0.08, 0.2, 0.2, 0.2], rel=0.03)  # the strongest are clipped a little
    assert stds["gray"] == pytest.approx([0, 0.02, 0.08, 0.2, 0.2], rel=0.03)
    assert stds["base"] == pytest.approx([0, 0.02, 0.08, 0.2, 0.2], rel=0.05, abs=1e-6)
    assert start_image("base", shape, generator(), 2, base).mean().item() == pytest.approx(0.4, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "base", "message"),
    [
        ("pinc", None, "unknown start 'pinc'.*pink"),
        ("base", None, r"start 'base' got no base image; give one of shape \(3, 8, 8\)"),
        ("base", torch.zeros(3, 8, 9), r"got a base image of shape \(3, 8, 9\)"),
    ],
)
def test_what_is_not_there_is_refused(name, base, message):
    with pytest.raises(ValueError, match=message):
        start_image(name, (3, 8, 8), generator(), base=base)
