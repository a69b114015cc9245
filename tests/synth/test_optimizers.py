"""Rules of ascent, against those of torch and against their formulae; each image by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from synth.optimizers import OPTIMIZERS

SHAPES = [(2, 3, 5, 4), (2, 1, 6, 4, 2)]


def climb(name, latent, gradients, step_size):
    rule = OPTIMIZERS[name]
    state = rule.start(latent)
    for gradient in gradients:
        rule.ascend_(latent, gradient, state, step_size)
    return latent


def gradients(shape, count, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=rng) * (1 + step % 7) for step in range(count)]


def test_adam_is_that_of_torch():
    shape = (2, 3, 5, 4, 2)
    start = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    theirs = nn.Parameter(start.clone())
    reference = torch.optim.Adam([theirs], lr=0.07, maximize=True)
    rule, ours = OPTIMIZERS["adam"], start.clone()
    state = rule.start(ours)
    for gradient in gradients(shape, 60):
        theirs.grad = gradient.clone()
        reference.step()
        rule.ascend_(ours, gradient, state, 0.07)
        torch.testing.assert_close(ours, theirs.detach(), atol=2e-6, rtol=1e-5)


def test_every_image_counts_its_own_steps():
    first, second = gradients((1, 3, 4, 4), 2)
    alone = climb("adam", torch.zeros(1, 3, 4, 4), [second], 0.1)
    rule = OPTIMIZERS["adam"]
    latent = torch.zeros(2, 3, 4, 4)
    state = rule.start(latent)
    rule.ascend_(latent, torch.cat([first, first]), state, 0.1)
    latent[1] = 0
    for tensor in state.values():
        tensor[1] = 0  # as a slot is refilled
    rule.ascend_(latent, torch.cat([second, second]), state, 0.1)
    assert torch.equal(latent[1], alone[0])
    assert not torch.equal(latent[0], latent[1])


@pytest.mark.parametrize("shape", SHAPES)
def test_rules_without_memory_follow_their_formulae(shape):
    (gradient,) = gradients(shape, 1)
    gradient += 2
    g = gradient.double().numpy()
    for name, direction in (
        ("gradient_std", lambda image: image / (image.std() + 1e-8)),
        ("gradient_norm", lambda image: image / np.linalg.norm(image)),
        ("sign", np.sign),
    ):
        moved = climb(name, torch.zeros(shape), [gradient], 0.5)
        np.testing.assert_allclose(moved.numpy(), [0.5 * direction(image) for image in g], rtol=1e-5)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_images_do_not_touch_each_other(name):
    steps = gradients((3, 3, 4, 4), 5)
    together = climb(name, torch.zeros(3, 3, 4, 4), steps, 0.1)
    for k in range(3):
        broken = [gradient.clone() for gradient in steps]
        for gradient in broken:
            gradient[torch.arange(3) != k] = torch.nan
        assert torch.equal(climb(name, torch.zeros(3, 3, 4, 4), broken, 0.1)[k], together[k])


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_no_gradient_is_no_step(name):
    latent = torch.ones(1, 1, 2, 2)
    assert torch.equal(climb(name, latent.clone(), [torch.zeros(1, 1, 2, 2)], 0.1), latent)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_gradients_may_lie_in_memory_in_another_order(name):
    (gradient,) = gradients((2, 3, 5, 4), 1)
    last = gradient.contiguous(memory_format=torch.channels_last)  # as they come from most networks
    plain, other = (climb(name, torch.zeros(2, 3, 5, 4), [g] * 3, 0.1) for g in (gradient, last))
    torch.testing.assert_close(other, plain)
