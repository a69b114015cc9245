"""Constraints are met exactly, together, once and for all, by each image on its own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from synth.aperture import Aperture
from synth.constraints import Constraints, check_luminance_contrast, fix_luminance_contrast


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def statistics(images, mask=None):
    x = images.detach().double().numpy()
    weights = np.ones_like(x) if mask is None else np.broadcast_to(mask.double().numpy(), x.shape)
    mean = (x * weights).sum((1, 2, 3)) / weights.sum((1, 2, 3))
    square = ((x - mean[:, None, None, None]) ** 2 * weights).sum((1, 2, 3)) / weights.sum((1, 2, 3))
    return mean, np.sqrt(square)


SHAPES = {  # from symmetric to badly skewed distributions of gray
    "flat": lambda x: x,
    "dark": lambda x: x**6,
    "bright": lambda x: 1 - x**6,
    "faint": lambda x: 0.5 + 0.01 * x,
    "faint and dark": lambda x: 0.03 * x,
    "out of range": lambda x: 6 * x - 2,
    "heavy tails": lambda x: 0.5 + torch.tan(3 * (x - 0.5)) / 8,
}
shapes, seeds = st.sampled_from(sorted(SHAPES)), st.integers(0, 10**6)
BASES = {"noise": noise(3, 20, 20, seed=5), "black": torch.zeros(3, 20, 20), "white": torch.ones(3, 20, 20)}


@settings(max_examples=60, deadline=None)
@given(shapes, st.floats(0.25, 0.75), st.floats(0.05, 0.8), st.sampled_from([1, 3]), seeds, st.sampled_from([24, 100]))
def test_mean_and_contrast_are_met(shape, mean, share, channels, seed, size):
    rms = share * (mean * (1 - mean)) ** 0.5
    images = fix_luminance_contrast(SHAPES[shape](noise(2, channels, size, size, seed=seed)), mean, rms)
    means, contrasts = statistics(images)
    np.testing.assert_allclose(means, mean, atol=5e-5)
    np.testing.assert_allclose(contrasts, rms, atol=5e-5)
    assert images.min() >= 0
    assert images.max() <= 1
    again = fix_luminance_contrast(images, mean, rms)
    torch.testing.assert_close(again, images, atol=1e-4, rtol=0)


@settings(max_examples=60, deadline=None)
@given(shapes, st.floats(0.35, 0.65), st.floats(0.05, 0.6), st.floats(0.25, 0.5), st.floats(0, 0.15), seeds)
def test_mean_and_contrast_are_met_within_an_aperture(shape, mean, rms_share, radius, edge, seed):
    aperture = Aperture(0.05, -0.1, radius, edge)
    mask = aperture.mask(24, 30)
    largest = (mask**3).sum().item() / mask.sum().item() / 4 - (mean - 0.5) ** 2  # squared, of pixels at their ends
    rms = rms_share * largest**0.5
    constraints = Constraints(mean, rms, aperture)
    images = constraints(SHAPES[shape](noise(2, 3, 24, 30, seed=seed)))
    means, contrasts = statistics(images, mask)
    np.testing.assert_allclose(means, mean, atol=1e-4)
    np.testing.assert_allclose(contrasts, rms, atol=1e-4)
    assert (images[:, :, mask[0, 0] == 0] == 0.5).all()
    assert ((images - 0.5).abs() <= mask / 2 + 1e-6).all()
    torch.testing.assert_close(constraints(images), images, atol=2e-4, rtol=0)


@pytest.mark.parametrize("shape", ["flat", "dark", "bright", "faint"])
def test_one_of_the_two_may_be_free(shape):
    images = SHAPES[shape](noise(2, 3, 24, 24))
    means, _ = statistics(fix_luminance_contrast(images, 0.6, None))
    np.testing.assert_allclose(means, 0.6, atol=1e-5)
    _, contrasts = statistics(fix_luminance_contrast(images, None, 0.2))
    np.testing.assert_allclose(contrasts, 0.2, atol=1e-5)
    inside = Aperture(edge=0.1)
    means, _ = statistics(Constraints(0.6, aperture=inside)(images), inside.mask(24, 24))
    np.testing.assert_allclose(means, 0.6, atol=1e-5)


@pytest.mark.parametrize("size", [16, 128])
def test_without_clipping_it_is_the_affine_map(size):
    images = 0.4 + 0.2 * noise(1, 3, size, size)
    mean, std = statistics(images)
    expected = (images.double() - mean[0]) / std[0] * 0.1 + 0.5
    torch.testing.assert_close(fix_luminance_contrast(images, 0.5, 0.1).double(), expected, atol=1e-5, rtol=0)


def test_images_that_meet_the_constraints_stay_as_they_are():
    images = fix_luminance_contrast(noise(3, 3, 96, 96), 0.5, 0.2)
    assert torch.equal(fix_luminance_contrast(images, 0.5, 0.2), images)


ALL = [
    Constraints(0.5, 0.2),
    Constraints(0.5, 0.2, Aperture(0.1, 0.0, 0.4, 0.1)),
    Constraints(aperture=Aperture(edge=0.0)),
    Constraints(max_rms_change=0.05),
    Constraints(max_rms_change=0.05, max_change=0.1, aperture=Aperture()),
    Constraints(max_change=0.1),
]


@pytest.mark.parametrize("constraints", ALL)
@pytest.mark.parametrize("size", [16, 100])
def test_images_are_not_coupled(constraints, size):
    kinds = list(SHAPES.values())[:5]
    images = torch.cat([kind(noise(1, 3, size, size, seed=seed)) for seed, kind in enumerate(kinds)])
    broken = torch.full_like(images[:1], torch.nan)
    base = noise(3, size, size, seed=9)
    together = constraints(torch.cat([broken, images, torch.full_like(broken, 0.5)]), base)
    for k in range(len(images)):
        assert torch.equal(together[k + 1], constraints(images[k : k + 1], base)[0])
    assert together[1:].isfinite().all()


def test_without_targets_only_the_range_is_kept():
    images = 3 * noise(1, 1, 8, 8) - 1
    assert torch.equal(fix_luminance_contrast(images, None, None), images.clamp(0, 1))
    assert torch.equal(Constraints()(images, noise(1, 8, 8)), images.clamp(0, 1))


@pytest.mark.parametrize("size", [16, 100])
@pytest.mark.parametrize("gray", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize(("mean", "rms"), [(0.5, 0.2), (None, 0.2), (0.4, None)])
def test_uniform_image_stays_uniform(gray, mean, rms, size):
    images = fix_luminance_contrast(torch.full((1, 3, size, size), gray), mean, rms)
    assert images.isfinite().all()
    assert images.std() < 1e-3
    if mean is not None:
        assert images.mean().item() == pytest.approx(mean, abs=1e-4)


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
    images = torch.tensor([-0.5, -0.001, 0.0, 0.4, 1.0, 1.001, 1.5]).view(1, 1, 1, 7).requires_grad_()
    (gradient,) = torch.autograd.grad(fix_luminance_contrast(images, None, None).sum(), images)
    assert gradient.flatten().tolist() == [0, 0, 1, 1, 1, 0, 0]


def test_gradient_of_an_aperture_ends_with_it():
    images = torch.full((1, 3, 20, 20), 0.5, requires_grad=True)
    aperture = Aperture(0.1, 0.1, 0.3, 0.1)
    (gradient,) = torch.autograd.grad(Constraints(aperture=aperture)(images).sum(), images)
    assert torch.equal(gradient > 0, (aperture.mask(20, 20) > 0).expand_as(gradient))


def test_gradient_within_a_budget_is_the_share_of_the_change():
    base, images = torch.full((1, 8, 8), 0.5), (0.5 + 0.4 * (noise(1, 1, 8, 8) - 0.5)).requires_grad_()
    made = Constraints(max_rms_change=0.05)(images, base)
    (gradient,) = torch.autograd.grad(made.sum(), images)
    share = ((made - 0.5) / (images - 0.5)).detach()
    assert share.max() < 0.6
    torch.testing.assert_close(gradient, share, atol=1e-4, rtol=0)


@settings(max_examples=60, deadline=None)
@given(
    shapes,
    st.sampled_from(sorted(BASES)),
    st.one_of(st.none(), st.floats(0.005, 0.6)),
    st.one_of(st.none(), st.floats(0.005, 1)),
    st.one_of(st.none(), st.just(Aperture(-0.1, 0.1, 0.3, 0.1))),
    seeds,
)
def test_budgets_are_kept_together(shape, name, rms, largest, aperture, seed):
    if rms is None and largest is None:
        return
    constraints = Constraints(aperture=aperture, max_rms_change=rms, max_change=largest)
    base, images = BASES[name], SHAPES[shape](noise(2, 3, 20, 20, seed=seed))
    made = constraints(images, base)
    change = (made - base).double()
    assert made.min() >= 0
    assert made.max() <= 1
    if largest is not None:
        assert change.abs().max() <= largest + 1e-6
    if aperture is not None:
        mask = aperture.mask(20, 20)
        assert (change[:, :, mask[0, 0] == 0] == 0).all()
        assert (made - base <= mask * (1 - base) + 1e-6).all()
        assert (base - made <= mask * base + 1e-6).all()
    if rms is not None:
        reached = (change**2).mean((1, 2, 3)).sqrt()
        assert (reached <= rms * (1 + 1e-5)).all()
        free = (dataclasses.replace(constraints, max_rms_change=None)(images, base) - base).double()
        unbounded = (free**2).mean((1, 2, 3)).sqrt()
        torch.testing.assert_close(reached, unbounded.clamp(max=rms), rtol=1e-5, atol=1e-7)  # used up, or not needed
    torch.testing.assert_close(constraints(made, base), made, atol=1e-6, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_budgets_give_the_nearest_image(seed):
    base, images = noise(1, 3, 4, seed=seed), 3 * noise(1, 1, 3, 4, seed=seed + 10) - 1
    made = Constraints(max_rms_change=0.2, max_change=0.3)(images, base).double().numpy().ravel()
    start, wanted = base.double().numpy().ravel(), images.double().numpy().ravel()
    found = optimize.minimize(
        lambda x: ((x - wanted) ** 2).sum(),
        start,
        jac=lambda x: 2 * (x - wanted),
        method="SLSQP",
        bounds=[(max(0, b - 0.3), min(1, b + 0.3)) for b in start],
        constraints={"type": "ineq", "fun": lambda x: 0.2**2 - ((x - start) ** 2).mean()},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    np.testing.assert_allclose(made, found.x, atol=1e-4)


def test_each_image_may_have_its_own_base():
    bases, images = noise(3, 1, 8, 8, seed=1), noise(3, 1, 8, 8, seed=2)
    constraints = Constraints(max_rms_change=0.1, aperture=Aperture())
    made = constraints(images, bases)
    for k in range(3):
        torch.testing.assert_close(made[k], constraints(images[k : k + 1], bases[k])[0], atol=0, rtol=0)


def test_outside_the_aperture_is_the_base_image_and_inside_is_as_asked():
    base, aperture = noise(3, 40, 40, seed=3), Aperture(0.0, 0.0, 0.3, 0.0)
    made = Constraints(0.5, 0.2, aperture)(noise(2, 3, 40, 40), base)
    mask = aperture.mask(40, 40)
    outside = (mask == 0).expand_as(made)
    assert torch.equal(made[outside], base.expand_as(made)[outside])
    means, contrasts = statistics(made, mask)
    np.testing.assert_allclose(means, 0.5, atol=1e-5)
    np.testing.assert_allclose(contrasts, 0.2, atol=1e-5)


def test_aperture_is_a_raised_cosine_placed_right_and_up_of_the_middle():
    mask = Aperture(0.2, 0.1, 0.25, 0.1).mask(80, 100)[0, 0].double().numpy()
    y, x = np.mgrid[:80, :100] + 0.5
    distance = np.hypot((x - 50) / 100 - 0.2, (40 - y) / 100 - 0.1)
    expected = np.where(
        distance < 0.15, 1, np.where(distance > 0.25, 0, 0.5 + 0.5 * np.cos(np.pi * (distance - 0.15) / 0.1))
    )
    np.testing.assert_allclose(mask, expected, atol=1e-6)
    center = (mask * x).sum() / mask.sum(), (mask * y).sum() / mask.sum()
    assert center == pytest.approx((70, 30), abs=0.1)
    assert set(np.unique(Aperture(edge=0.0).mask(9, 9))) == {0, 1}


def test_aperture_of_a_receptive_field():
    aperture = Aperture.from_receptive_field(-1.0, 2.0, 0.8, size_deg=10.0, extent=2.0)
    assert dataclasses.astuple(aperture) == pytest.approx((-0.1, 0.2, 0.16, 0.08))


def test_masks_are_made_once():
    aperture, calls = Aperture(0.031, 0.0, 0.4, 0.1), []

    class Counted(Aperture):
        def mask(self, height, width):
            calls.append((height, width))
            return super().mask(height, width)

    counted = Counted(*dataclasses.astuple(aperture))
    with torch.inference_mode():
        Constraints(aperture=counted)(noise(1, 3, 8, 8))
    images = noise(1, 3, 8, 8).requires_grad_()
    Constraints(aperture=counted)(images).sum().backward()  # also after it was made where no gradient is wanted
    assert calls == [(8, 8)]


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
    for refuse in (check_luminance_contrast, lambda m, r: fix_luminance_contrast(noise(1, 1, 4, 4), m, r), Constraints):
        with pytest.raises(ValueError, match=message):
            refuse(mean, rms)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_change": 0.0}, "max_change is 0.0; expected a number above 0"),
        ({"max_rms_change": float("nan")}, "max_rms_change is nan"),
        ({"max_rms_change": 0.1, "mean_luminance": 0.5}, "cannot both be met exactly"),
        ({"max_change": 0.1, "rms_contrast": 0.2}, "cannot both be met exactly"),
        ({"rms_contrast": 0.2, "aperture": Aperture()}, "within an aperture needs mean_luminance too"),
    ],
)
def test_combinations_that_cannot_hold_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Constraints(**arguments)


@pytest.mark.parametrize(
    ("constraints", "base", "message"),
    [
        (Constraints(max_change=0.1), None, "limit the change of a base image; give one"),
        (
            Constraints(max_change=0.1),
            torch.zeros(1, 8, 8),
            r"base image has shape \(1, 8, 8\); expected .*\(2, 3, 8, 8\)",
        ),
        (Constraints(0.5, 0.45, Aperture(edge=0.4)), None, "cannot be met within Aperture.*at most 0.3"),
        (Constraints(0.95, None, Aperture(edge=0.4)), None, "mean luminance 0.95 and RMS contrast None cannot be met"),
        (Constraints(aperture=Aperture(3.0)), None, "closed at every pixel of an image of 8 x 8"),
    ],
)
def test_images_that_cannot_be_constrained_are_refused(constraints, base, message):
    with pytest.raises(ValueError, match=message):
        constraints(noise(2, 3, 8, 8), base)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((float("inf"), 0.0, 0.5, 0.1), "x of the aperture is inf"),
        ((0.0, 0.0, 0.0, 0.0), "radius 0.0 and edge 0.0"),
        ((0.0, 0.0, 0.2, 0.3), "an edge between 0 and the radius"),
    ],
)
def test_apertures_that_are_none_are_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        Aperture(*numbers)
    with pytest.raises(ValueError, match="sd_deg is 0"):
        Aperture.from_receptive_field(0, 0, 0, 8.0)
