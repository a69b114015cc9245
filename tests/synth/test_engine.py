"""The loop: its optimizers, its bookkeeping, and that an image depends on its own job alone."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
import torch
from torch import nn

from stimuli.appearance import to_float
from synth import engine
from synth.engine import Job, run
from synth.objectives import OneHot, SiteScale, Stretch
from synth.recipes import PAPER, ROBUST, SynthesisConfig
from synth.transforms import Affine, PixelNoise

CPU = torch.device("cpu")
PIXELS = SynthesisConfig(param="pixels", start="pink", steps=12, check_every=4)


class Linear(nn.Module):
    """Sites that are inner products of image and weights; counts its calls."""

    def __init__(self, sites=2, shape=(3, 16, 16), seed=0):
        super().__init__()
        drawn = torch.randn((sites, *shape), generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(drawn)
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        return torch.einsum("nchw,schw->ns", images, self.weight)


def scale(*sites):
    return SiteScale(sites, torch.zeros(len(sites)), torch.ones(len(sites)))


def go(model, jobs, config, size=(16, 16), sites=("a", "b"), **options):
    return run(model, scale(*sites), jobs, config, size, **{"slots": 2, "device": CPU, **options})


def same(one, other):
    return np.array_equal(one.codes, other.codes) and one.trace == other.trace and one.step == other.step


def test_adam_is_that_of_torch():
    rng = torch.Generator().manual_seed(0)
    start = torch.randn((2, 3, 5, 4, 2), generator=rng)
    theirs = nn.Parameter(start.clone())
    reference = torch.optim.Adam([theirs], lr=0.07, maximize=True)
    ours = start.clone()
    advance = engine._Adam(ours, 0.07)
    for step in range(60):
        gradient = torch.randn(start.shape, generator=rng) * (1 + step % 7)
        theirs.grad = gradient.clone()
        reference.step()
        advance(gradient)
        torch.testing.assert_close(ours, theirs.detach(), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 1, 6, 4, 2)])
def test_gradient_std_divides_by_the_deviation_of_each_image(shape):
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 2
    latent = torch.zeros(shape)
    engine._GradientStd(latent, 0.5)(gradient)
    g = gradient.double().numpy()
    expected = [0.5 * image / (image.std() + 1e-8) for image in g]
    np.testing.assert_allclose(latent.numpy(), expected, rtol=1e-5)


def test_linear_site_climbs_to_its_optimum():
    model = Linear()
    config = dataclasses.replace(PIXELS, steps=40, step_size=0.05, check_every=1)
    made, low = go(model, [Job(Stretch("a"), 0), Job(-1 * Stretch("a"), 0)], config)
    weight = model.weight[0].detach().numpy()
    np.testing.assert_array_equal(made.codes, np.where(weight > 0, 255, 0))
    np.testing.assert_array_equal(low.codes, np.where(weight > 0, 0, 255))
    scores = [score for _, score in made.trace]
    assert scores[-1] == pytest.approx(weight[weight > 0].sum(), rel=1e-5)
    assert (np.diff(scores) >= -1e-4).all()
    assert scores[-1] > scores[0] + 100


def test_fourier_climbs_too(tiny_model):
    model = tiny_model()
    made = go(model, [Job(Stretch("a"), 0)], SynthesisConfig(steps=30), (32, 32), model.site_ids, slots=1)
    scores = [score for _, score in made[0].trace]
    assert scores[-1] > 1.5 * abs(scores[0])
    assert scores == sorted(scores)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("recipe", [ROBUST, PAPER])
def test_image_depends_on_its_own_job_only(tiny_model, recipe, channels):
    model = tiny_model()
    config = dataclasses.replace(recipe, steps=5, check_every=2, channels=channels)
    job = Job(OneHot("b"), 3)
    others = [Job(Stretch("a"), 3), Job(OneHot("b"), 4), Job(Stretch("c"), 0)]

    def make(jobs):
        return go(model, jobs, config, (32, 32), model.site_ids, slots=3)

    (alone,) = make([job])
    for jobs in ([job, *others], [others[0], job, *others[1:]], [*others, job], [*reversed(others), job, job]):
        assert same(make(jobs)[jobs.index(job)], alone)
    assert not np.array_equal(make(others)[1].codes, alone.codes)


def test_constraints_do_not_couple_images():
    config = dataclasses.replace(PIXELS, steps=6, mean_luminance=0.5, rms_contrast=0.25)
    jobs = [Job(Stretch("a"), 0), Job(Stretch("b"), 1), Job(Stretch("a"), 2)]
    apart = [go(Linear(), [job], config, slots=3)[0] for job in jobs]
    together = go(Linear(), jobs, config, slots=3)
    assert all(map(same, apart, together))
    for image in together:
        pixels = to_float(image.codes).astype(float)
        assert pixels.mean() == pytest.approx(0.5, abs=1e-3)
        assert pixels.std() == pytest.approx(0.25, abs=1e-3)


def test_seed_decides_the_image():
    jobs = [Job(Stretch("a"), 0), Job(Stretch("a"), 1), Job(Stretch("b"), 0)]
    config = dataclasses.replace(PIXELS, steps=1, step_size=1e-3)
    first, again = go(Linear(), jobs, config), go(Linear(), jobs, config)
    assert all(map(same, first, again))
    assert len({image.codes.tobytes() for image in first}) == 3


def test_global_random_state_and_weights_are_left_alone(tiny_model):
    state, numbers = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    model = Linear()
    go(model, [Job(Stretch("a"), 0)], dataclasses.replace(ROBUST, steps=2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (np.random.get_state()[1] == numbers).all()  # noqa: NPY002
    assert model.weight.grad is None
    made_of = tiny_model()
    go(made_of, [Job(Stretch("a"), 0)], dataclasses.replace(ROBUST, steps=2), (32, 32), made_of.site_ids)
    assert all(weight.grad is None and not weight.requires_grad for weight in made_of.parameters())


class Hill(nn.Module):
    """A response that rises and then falls: its top lies at mean luminance 0.6."""

    def forward(self, images):
        return -((images.mean((1, 2, 3)) - 0.6)[:, None] ** 2)


def test_best_image_is_kept_and_its_score_is_that_of_its_codes():
    config = SynthesisConfig(param="pixels", steps=11, step_size=0.04, check_every=1, output_gain=0.9)
    best, last = (
        go(Hill(), [Job(Stretch("a"), 1)], dataclasses.replace(config, keep=keep), sites=("a",))[0]
        for keep in ("best", "last")
    )
    steps, scores = zip(*best.trace, strict=True)
    assert steps == tuple(range(12))
    assert best.step == steps[int(np.argmax(scores))]
    assert 0 < best.step < 11
    assert last.step == 11
    for made in (best, last):
        images = torch.from_numpy(to_float(made.codes))[None]
        assert Hill()(images).item() == pytest.approx(dict(made.trace)[made.step], abs=1e-7)
    assert not np.array_equal(best.codes, last.codes)


@pytest.mark.parametrize(
    ("steps", "check_every", "read"), [(12, 4, [0, 4, 8, 12]), (10, 4, [0, 4, 8, 10]), (1, 9, [0, 1])]
)
def test_steps_are_counted_and_the_model_is_never_run_twice(steps, check_every, read):
    model = Linear()
    config = dataclasses.replace(PIXELS, steps=steps, check_every=check_every)
    made = go(model, [Job(Stretch("a"), 0)], config, slots=1)
    assert [step for step, _ in made[0].trace] == read
    assert model.calls == steps + len(read)
    exact = dataclasses.replace(config, steps=3, check_every=9, step_size=0.01)
    start, end = (made[0].trace[k][1] for made in [go(model, [Job(Stretch("a"), 0)], exact, slots=1)] for k in (0, 1))
    # Adam on a constant gradient moves every pixel by exactly one step size a step
    assert end - start == pytest.approx(0.03 * model.weight[0].abs().sum().item(), rel=0.02)


def test_slots_are_filled_and_results_keep_their_order():
    sizes = []

    class Watch(Linear):
        def forward(self, images):
            sizes.append(len(images))
            return super().forward(images)

    model = Watch()
    jobs = [Job(Stretch(site), seed) for site in ("a", "b") for seed in range(3)] + [Job(Stretch("a"), 9)]
    seen = []
    made = go(model, jobs, PIXELS, slots=3, progress=lambda done, total: seen.append((done, total)))
    assert len(made) == 7
    assert set(sizes) == {3}  # the batch never changes its size
    apart = [go(model, [job], PIXELS, slots=3)[0] for job in jobs]
    assert all(map(same, made, apart))
    total = 7 * PIXELS.steps
    done = [count for count, of in seen if of == total]
    assert len(done) == len(seen)
    assert done == sorted(done)
    assert done[0] < total == done[-1]
    assert done.count(total) == 1


def test_gradient_blur_goes_from_the_first_width_to_the_last(monkeypatch):
    widths = []
    real = engine.gaussian_blur
    monkeypatch.setattr(engine, "gaussian_blur", lambda gradient, px: widths.append(px) or real(gradient, px))
    config = dataclasses.replace(PIXELS, steps=5, gradient_blur_px=(2.0, 1.0))
    go(Linear(), [Job(Stretch("a"), 0)], config)
    assert widths == [2.0, 1.75, 1.5, 1.25, 1.0]


def test_total_variation_smooths_and_works_on_views():
    rough, smooth = (
        go(Linear(), [Job(Stretch("a"), 0)], dataclasses.replace(PIXELS, total_variation=weight), slots=1)[0].codes
        for weight in (0.0, 1e5)
    )
    assert np.abs(np.diff(smooth.astype(int))).mean() < 0.3 * np.abs(np.diff(rough.astype(int))).mean()


def test_views_are_applied_in_order_before_the_model():
    seen = []

    class Watch(Linear):
        def forward(self, images):
            seen.append(images.detach().clone())
            return super().forward(images)

    config = dataclasses.replace(PIXELS, steps=1, transforms=(PixelNoise(0.2), Affine(0.0, 0.0, 0.0), PixelNoise(0.0)))
    made = go(Watch(), [Job(Stretch("a"), 0)], config, slots=1)
    start, view, last = seen  # reading, step, reading
    assert (view - start).std().item() == pytest.approx(0.2, rel=0.05)
    np.testing.assert_array_equal(last[0].numpy(), to_float(made[0].codes))


class Bad(nn.Module):
    """Breaks in the score, or only in the gradient."""

    def __init__(self, where):
        super().__init__()
        self.where = where

    def forward(self, images):
        luminance = images.mean((1, 2, 3))[:, None]
        if self.where == "score":
            return luminance * torch.nan
        return (0 * luminance).sqrt()  # zero, with a gradient that is not a number


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("score", r"the score of Stretch\('a'\) became nan at step 0"),
        ("gradient", r"the image of Stretch\('a'\) became nan at step 4"),
    ],
)
def test_numbers_that_break_are_one_sentence_with_the_objective(where, message):
    with pytest.raises(ValueError, match=message):
        go(Bad(where), [Job(Stretch("a"), 0)], PIXELS, sites=("a",))


def test_first_failure_is_told_where_batches_run_side_by_side(monkeypatch):
    class Partly(nn.Module):
        """Site a works, slowly; site b does not."""

        def forward(self, images):
            luminance = images.mean((1, 2, 3))
            if luminance.requires_grad:
                time.sleep(0.002)
            return torch.stack([luminance, torch.full_like(luminance, torch.nan)], 1)

    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    jobs = [Job(Stretch("a"), 0), Job(Stretch("a"), 1), Job(Stretch("b"), 0), Job(Stretch("a"), 2)]
    config = dataclasses.replace(PIXELS, steps=40, check_every=1)
    for some in (jobs, jobs[1:]):
        with pytest.raises(ValueError, match=r"the score of Stretch\('b'\) became nan at step 0"):
            go(Partly(), some, config, slots=1)
