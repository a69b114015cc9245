"""The loop: its optimizers, its bookkeeping, and that an image depends on its own job alone."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from neural_fits.features import FeatureExtractor
from stimuli.appearance import to_float
from synth import LayerUnit, _projections, _slots, synthesize
from synth._slots import Task
from synth.aperture import Aperture
from synth.engine import Status, run
from synth.jobs import Job
from synth.objectives import Objective, OneHot, SiteScale, Stretch
from synth.recipes import PAPER, ROBUST, SynthesisConfig
from synth.store import Memory
from synth.transforms import Affine, PixelNoise

CPU = torch.device("cpu")
VIEWS = dataclasses.replace(ROBUST, start="pink")  # photographs are chosen before the engine is called
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


def go(model, jobs, config, size=(16, 16), sites=("a", "b"), slots=2, store=None, base_image=None, **options):
    store = Memory() if store is None else store
    task = Task(model, model, scale(*sites), config, size, CPU, base_image)
    run(task, jobs, slots=slots, store=store, **options)
    return [store.made(number) for number in range(len(jobs))]


def same(one, other):
    return np.array_equal(one.codes, other.codes) and one.trace == other.trace and one.step == other.step


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
@pytest.mark.parametrize("recipe", [VIEWS, PAPER])
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
    go(model, [Job(Stretch("a"), 0)], dataclasses.replace(VIEWS, steps=2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (np.random.get_state()[1] == numbers).all()  # noqa: NPY002
    assert model.weight.grad is None
    made_of = tiny_model()
    go(made_of, [Job(Stretch("a"), 0)], dataclasses.replace(VIEWS, steps=2), (32, 32), made_of.site_ids)
    assert all(weight.grad is None and not weight.requires_grad for weight in made_of.parameters())


def test_pixels_climb_a_real_network_through_all_that_makes_it_fast():
    """Each rule, on a folded network whose gradients lie in memory in another order than the image."""
    bare = FeatureExtractor("efficientnet-lite0", "blocks.3", 64)
    reached = {}
    for optimizer, step_size in (("adam", 0.03), ("sign", 0.03), ("gradient_std", 0.03), ("gradient_norm", 2.0)):
        config = SynthesisConfig(param="pixels", optimizer=optimizer, step_size=step_size, steps=16, check_every=4)
        made = synthesize(bare, [LayerUnit("blocks.3", 0)], seeds=1, recipe=config, slots=2, device="cpu")
        reached[optimizer] = made.trace["score"].tolist()
        images = torch.from_numpy(made.stimuli.images())
        features = bare(images)[:, 0].mean().item()
        assert features == pytest.approx(max(reached[optimizer]), rel=1e-3)
    assert all(scores == sorted(scores) for scores in reached.values())
    tops = [scores[-1] for scores in reached.values()]
    assert min(tops) > 0.6 * max(tops)
    assert min(tops) > 5 * abs(reached["adam"][0])


class NoReading(TorchDispatchMode):
    """Refuses whatever makes the host wait for a number."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function.overloadpacket not in (
            torch.ops.aten._local_scalar_dense,
            torch.ops.aten.is_nonzero,
            torch.ops.aten.nonzero,
            torch.ops.aten.equal,
        ), function
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "recipe",
    [
        VIEWS,
        PAPER,
        dataclasses.replace(PIXELS, mean_luminance=0.5, rms_contrast=0.2, gradient_blur_px=(2.0, 0.5)),
        dataclasses.replace(PIXELS, start="base", max_rms_change=0.1, aperture=Aperture(), optimizer="sign"),
    ],
)
def test_steps_never_wait_for_a_number(tiny_model, monkeypatch, recipe):
    monkeypatch.setattr(_projections, "_all", lambda flags: False)  # looks on a CPU only
    model = tiny_model()
    config = dataclasses.replace(recipe, steps=4, check_every=2, channels=3)
    base = (lambda name: np.full((3, 32, 32), 0.4, np.float32)) if config.start == "base" else None
    task = Task(model, model, SiteScale.of(model), config, (32, 32), CPU, base)
    slots = _slots.Slots(task, 2)
    for number, objective in enumerate((Stretch("a"), OneHot("b"))):
        slots.put([(number, Job(objective, 0), None)])
    slots.read()
    slots.advance()
    slots.read()
    with NoReading():
        slots.advance()
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoReading():
        slots.keys[0].item()


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
    made = go(model, jobs, PIXELS, slots=3, progress=lambda done, total, status: seen.append((done, total)))
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
    real = _slots.gaussian_blur

    def watch(gradient, px, largest):
        widths.append(px.tolist())
        return real(gradient, px, largest)

    monkeypatch.setattr(_slots, "gaussian_blur", watch)
    config = dataclasses.replace(PIXELS, steps=5, gradient_blur_px=(2.0, 1.0))
    go(Linear(), [Job(Stretch("a"), 0)], config, slots=1)
    assert widths == [[2.0], [1.75], [1.5], [1.25], [1.0]]


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


class NoSlope(torch.autograd.Function):
    """A number whose gradient is not one, where it is asked for."""

    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.where(gradient == 0, 0.0, torch.nan)


class Bad(nn.Module):
    """Site a works; site b breaks in the score, only in the gradient, or after the start."""

    def __init__(self, where):
        super().__init__()
        self.where = where

    def forward(self, images):
        luminance = images.mean((1, 2, 3))
        bad = {
            "score": torch.full_like(luminance, torch.nan),
            "gradient": NoSlope.apply(luminance),
            "later": torch.where(luminance > 0.502, torch.nan, luminance),
        }[self.where]
        return torch.stack([luminance, bad], 1)


@pytest.mark.parametrize("where", ["score", "gradient", "later"])
def test_numbers_that_break_end_that_image_and_no_other(where):
    jobs = [Job(Stretch("a"), 0), Job(Stretch("b"), 0), Job(Stretch("a"), 1), Job(Stretch("a"), 2)]
    config = dataclasses.replace(PIXELS, step_size=0.001)
    made = go(Bad(where), jobs, config)
    alone = [go(Bad(where), [job], config)[0] for job in jobs]
    assert [image.ended for image in made] == ["steps", "not finite", "steps", "steps"]
    assert all(map(same, made, alone))
    broken = made[1]
    if where == "score":
        assert broken.codes is None
        assert broken.trace == []
    else:  # the last image whose numbers were good is kept
        assert broken.step in (0, 4)
        assert broken.codes is not None
        assert np.isfinite([score for _, score in broken.trace]).all()


class Ramp(nn.Module):
    """Responses without any gradient until the image has contrast."""

    def __init__(self, needed):
        super().__init__()
        self.needed = needed

    def forward(self, images):
        return (images.std((1, 2, 3)) - self.needed).clamp(min=0)[:, None]


def test_dead_start_is_replaced_by_one_with_more_contrast():
    jobs = [Job(Stretch("a"), seed) for seed in range(3)]
    config = dataclasses.replace(PIXELS, start="gray")
    made = go(Ramp(0.01), jobs, config, sites=("a",))
    assert [image.restarts for image in made] == [1, 1, 1]
    assert all(image.ended == "steps" and image.trace[-1][1] > image.trace[0][1] for image in made)
    assert [step for step, _ in made[0].trace] == [0, 4, 8, 12]
    assert len({image.codes.tobytes() for image in made}) == 3
    (more,) = go(Ramp(0.1), jobs[:1], config, sites=("a",))
    assert more.restarts == 3
    (never,) = go(Ramp(0.9), jobs[:1], config, sites=("a",))
    assert (never.ended, never.restarts) == ("no gradient", 3)


def test_patience_ends_an_image_that_gains_no_more():
    config = dataclasses.replace(PIXELS, steps=400, step_size=0.05, check_every=5, patience=2)
    model = Linear()
    made = go(model, [Job(Stretch("a"), 0), Job(Stretch("b"), 0)], config)
    whole = go(Linear(), [Job(Stretch("a"), 0)], dataclasses.replace(config, patience=None))[0]
    for image in made:
        scores = dict(image.trace)
        last = image.trace[-1][0]
        assert image.ended == "patience"
        assert last < 100  # a linear site is at its top after 0.5 / 0.05 = 10 steps and a few more
        gained = scores[last - 10] - scores[0]
        assert scores[last] <= scores[last - 10] + 0.01 * gained
        assert scores[last - 10] > scores[last - 15] + 0.01 * (scores[last - 15] - scores[0])
    assert made[0].trace == whole.trace[: len(made[0].trace)]
    assert model.calls < 2 * 120


class Saturating(Linear):
    """Site b is at its top soon."""

    def forward(self, images):
        first, second = super().forward(images).unbind(1)
        return torch.stack([first, (second / 30).tanh()], 1)


def test_early_ends_make_room_and_change_nothing():
    jobs = [Job(Stretch(site), seed) for seed in range(4) for site in ("a", "b")] + [Job(-1 * Stretch("a"), 7)]
    config = dataclasses.replace(PIXELS, steps=37, step_size=0.03, check_every=5, patience=1, min_gain=0.05)
    made = go(Saturating(), jobs, config, slots=3)
    assert {len(image.trace) for image in made} > {len(made[0].trace)}  # they end at different steps
    order = np.random.default_rng(0).permutation(len(jobs))
    mixed = go(Saturating(), [jobs[k] for k in order], config, slots=3)
    alone = [go(Saturating(), [job], config, slots=3)[0] for job in jobs]
    for k, place in enumerate(np.argsort(order)):
        assert same(made[k], mixed[place])
        assert same(made[k], alone[k])


class Together(Objective):
    """The score of an image is its distance from the others of the same objective."""

    coupled = True
    target = "a"

    def score(self, responses, scale, images=None):
        spread = images - images.mean(0, keepdim=True)
        return responses[:, 0] + 1e4 * spread.square().sum((1, 2, 3))

    def __repr__(self):
        return "Together()"

    def __eq__(self, other):
        return isinstance(other, Together)

    def __hash__(self):
        return 1


def test_coupled_images_climb_together_whatever_else_is_made():
    three = [Job(Together(), seed) for seed in range(3)]
    others = [Job(Stretch("b"), seed) for seed in range(4)]
    config = dataclasses.replace(PIXELS, steps=8)
    apart = go(Linear(), three, config, slots=4)
    mixed = go(Linear(), [others[0], *three, *others[1:]], config, slots=4)
    assert all(map(same, apart, mixed[1:4]))
    assert all(map(same, [mixed[0], *mixed[4:]], go(Linear(), others, config, slots=4)))
    two = go(Linear(), three[:2], config, slots=4)
    assert not np.array_equal(two[0].codes, apart[0].codes)
    with pytest.raises(ValueError, match=r"3 images of Together\(\) depend on each other but only 2 fit"):
        go(Linear(), three, config, slots=2)


def test_several_views_are_averaged(monkeypatch):
    seen = []

    class Watch(Linear):
        def forward(self, images):
            seen.append(images.detach().clone())
            return super().forward(images)

    config = dataclasses.replace(PIXELS, steps=1, transforms=(PixelNoise(0.2),), views=3)
    go(Watch(), [Job(Stretch("a"), 0), Job(Stretch("b"), 0)], config)
    start, views, _ = seen
    assert len(views) == 6
    noise = views.unflatten(0, (2, 3)) - start[:, None]
    assert np.corrcoef(noise.flatten(0, 1).flatten(1)) == pytest.approx(np.eye(6), abs=0.2)
    # on a linear site the mean over views has the gradient of one, whatever the noise
    one = go(Linear(), [Job(Stretch("a"), 0)], dataclasses.replace(PIXELS, views=1), slots=1)[0]
    four = go(Linear(), [Job(Stretch("a"), 0)], dataclasses.replace(PIXELS, views=4), slots=1)[0]
    np.testing.assert_array_equal(one.codes, four.codes)


def test_base_images_are_changed_within_their_budget():
    rng = np.random.default_rng(0)
    bases = {name: rng.random((3, 16, 16)).astype(np.float32) for name in ("x", "y")}
    config = dataclasses.replace(PIXELS, start="base", max_rms_change=0.05, optimizer="gradient_norm", step_size=0.3)
    jobs = [Job(Stretch("a"), 0, name) for name in bases]
    made = go(Linear(), jobs, config, base_image=bases.__getitem__)
    for image, job in zip(made, jobs, strict=True):
        change = to_float(image.codes) - bases[job.base]
        assert np.sqrt((change**2).mean()) == pytest.approx(0.05, abs=0.002)
        assert image.trace[-1][1] > image.trace[0][1] + 5
    # the best change of a linear site within the budget goes along its weights, but for clipping
    weight = Linear().weight[0].detach().numpy()
    change = to_float(made[0].codes) - bases["x"]
    assert (change * weight).sum() > 0.9 * np.sqrt((change**2).sum() * (weight**2).sum())


def test_out_of_memory_halves_the_slots_with_a_warning():
    class Small(Linear):
        def forward(self, images):
            if len(images) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(images)

    jobs = [Job(Stretch(site), seed) for seed in range(3) for site in ("a", "b")]
    with pytest.warns(RuntimeWarning, match="out of memory with 5 slots; going on with 2"):
        made = go(Small(), jobs, PIXELS, slots=5)
    assert all(map(same, made, go(Small(), jobs, PIXELS, slots=2)))

    class Full(Linear):
        def forward(self, images):
            raise MemoryError

    with pytest.raises(MemoryError, match="one image at a time does not fit"):
        go(Full(), jobs, PIXELS, slots=1)


def test_a_failing_model_ends_the_run_with_its_own_error(monkeypatch):
    class Partly(Linear):
        def forward(self, images):
            if images.requires_grad:
                time.sleep(0.002)
            elif len(self.marks) > 3:
                raise KeyError("broken")
            self.marks.append(1)
            return super().forward(images)

    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    model = Partly()
    model.marks = []
    with pytest.raises(KeyError, match="broken"):
        go(model, [Job(Stretch("a"), seed) for seed in range(4)], PIXELS, slots=1)


def test_status_tells_what_was_made():
    seen = []
    jobs = [Job(Stretch("a"), seed) for seed in range(3)]
    made = go(Linear(), jobs, PIXELS, progress=lambda done, total, status: seen.append(status))
    best = [dict(image.trace)[image.step] for image in made]
    assert seen[-1] == Status(3, 3, pytest.approx(np.median(best)))
    assert str(seen[-1]).startswith("3 of 3 images, median score ")
    assert str(Status(0, 2)) == "0 of 2 images"
