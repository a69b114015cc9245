"""Images drawn by networks: exact starts, one network an image, and runs that resume to the same bytes."""

from __future__ import annotations

import dataclasses
import signal
import threading
import time

import numpy as np
import pytest
import torch

from stimuli import natural_photos
from synth import OneHot, Stretch, recipe, synthesize
from synth.deep_prior import DeepPrior
from synth.natural_statistics import NaturalStatistics
from synth.recipes import SynthesisConfig

SHORT = SynthesisConfig(param="deep_prior", steps=6, check_every=2)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (1, 3, 33, 20), (2, 1, 9, 7), (1, 1, 64, 48), (1, 1, 1, 3)])
def test_starts_are_rendered_within_an_8_bit_step(shape):
    images = torch.rand(shape, generator=generator())
    images[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    rendered = DeepPrior(images)()
    torch.testing.assert_close(rendered, images.clamp(0.004, 0.996), atol=2e-6, rtol=0)
    codes = [(each * 255 + 0.5).floor() for each in (rendered, images)]
    assert (codes[0] - codes[1]).abs().max() <= 1
    gray = torch.full(shape, 0.5)
    assert torch.equal(DeepPrior(gray)(), gray)


def test_only_weights_have_a_gradient_and_all_of_them():
    param = DeepPrior(0.2 + 0.6 * torch.rand((2, 3, 32, 32), generator=generator()))
    with torch.no_grad():  # factors and offsets of every kind
        param.latent += 0.1 * torch.randn(param.latent.shape, generator=generator(1))
    weights = torch.randn((2, 3, 32, 32), generator=generator(2))
    (gradient,) = torch.autograd.grad((param() * weights).sum(), param.latent)
    *parts, rest = gradient.split(param._lengths, dim=1)
    assert not rest.any()
    assert rest.shape[1] == 3 * 32 * 32
    for part, shape in zip(parts, param._shapes, strict=True):
        assert part.shape[1] == shape.numel()
        assert (part != 0).float().mean() > 0.5, shape


def test_gradient_is_that_of_finite_differences():
    param = DeepPrior(torch.rand((1, 1, 8, 8), generator=generator())).double()
    latent = param.latent.detach().clone()

    def drawn(value):
        with torch.no_grad():
            param.latent.copy_(value)
        return param()

    weights = torch.randn((1, 1, 8, 8), generator=generator(1)).double()
    (gradient,) = torch.autograd.grad((drawn(latent) * weights).sum(), param.latent)
    free = gradient[0].nonzero()[:, 0]
    for place in free[:: len(free) // 12]:
        change = torch.zeros_like(latent)
        change[0, place] = 1e-5
        slope = ((drawn(latent + change) - drawn(latent - change)).detach() * weights).sum() / 2e-5
        assert gradient[0, place].item() == pytest.approx(slope.item(), rel=1e-4, abs=1e-9)


def test_every_start_has_its_own_network_and_no_global_generator_moves():
    state = torch.random.get_rng_state()
    images = torch.rand((2, 3, 16, 16), generator=generator())
    param = DeepPrior(images)
    assert torch.equal(torch.random.get_rng_state(), state)
    number = sum(param._lengths[:-1])
    first = param.latent[:, :number]
    assert (first[0] != first[1]).float().mean() > 0.9
    assert torch.equal(DeepPrior(images.flip(0)).latent[1], param.latent[0])
    assert [each is param.latent for each in param.parameters()] == [True]


def test_colors_are_those_of_the_statistics():
    amplitude = np.ones((16, 9), np.float32)
    red = np.array([[1.0, 0, 0], [0, 1e-3, 0], [0, 0, 1e-3]], np.float32)
    param = DeepPrior(torch.full((1, 3, 16, 16), 0.5), NaturalStatistics(red, amplitude, 16))
    with torch.no_grad():
        param.latent[:, : sum(param._lengths[:-1])] *= -1
        change = (param() - 0.5).abs().mean((0, 2, 3))
    assert change[0] > 100 * change[1:].max()
    with pytest.raises(ValueError, match="statistics are of gray images"):
        DeepPrior(torch.full((1, 3, 16, 16), 0.5), NaturalStatistics(np.ones((1, 1), np.float32), amplitude, 16))


def test_the_noise_is_pink():
    noise = DeepPrior(torch.full((1, 1, 64, 48), 0.5)).noise[0].numpy()
    rows, columns = np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(48)[None]
    frequency = np.hypot(rows, columns).ravel()
    amplitude = np.sqrt((np.abs(np.fft.rfft2(noise)) ** 2).mean(0)).ravel()
    slope, _ = np.polyfit(np.log(frequency[1:]), np.log(amplitude[1:]), 1)
    assert slope == pytest.approx(-1, abs=0.1)
    np.testing.assert_allclose([noise.mean((1, 2)), noise.std((1, 2))], [[0.5] * 8, [0.25] * 8], rtol=1e-3)


@pytest.mark.parametrize("size", [(2, 2), (1, 1)])
def test_images_too_small_to_be_drawn_are_refused(size):
    with pytest.raises(ValueError, match="at least 3 pixels on one side, or choose another param"):
        DeepPrior(torch.full((1, 3, *size), 0.5))


def test_changes_are_smoother_than_those_of_pixels():
    """The prior of the architecture: what a step changes is correlated between neighbors, for any gradient."""
    start = torch.full((1, 1, 32, 32), 0.5)
    param = DeepPrior(start)
    noise = torch.randn(start.shape, generator=generator(3))
    (gradient,) = torch.autograd.grad((param() * noise).sum(), param.latent)
    with torch.no_grad():
        param.latent += 0.05 * gradient.sign()
        change = (param() - start)[0, 0]
    change = change - change.mean()
    correlation = (change[:, 1:] * change[:, :-1]).mean() / change.square().mean()
    white = noise[0, 0] - noise.mean()
    assert correlation > 0.4 > 0.2 > (white[:, 1:] * white[:, :-1]).mean().abs()


def test_the_usual_step_climbs(tiny_model):
    model = tiny_model()
    made = synthesize(
        model, [Stretch("a")], seeds=2, device="cpu", recipe=SynthesisConfig(param="deep_prior", steps=30), slots=2
    )
    for _, trace in made.trace.groupby("stimulus_id"):
        scores = trace["score"].to_numpy()
        assert scores[-1] > scores[0] + 1
        assert (np.diff(scores) > 0).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_depends_on_its_own_job_only(tiny_model, channels):
    model = tiny_model()
    config = dataclasses.replace(recipe("robust", steps=4), param="deep_prior", start="pink", channels=channels)

    def codes(objectives, seeds=1):
        made = synthesize(model, objectives, seeds=seeds, recipe=config, slots=3, device="cpu").stimuli
        return {
            (row["objective"], row["seed"]): image
            for (_, row), image in zip(made.table.iterrows(), made.codes(), strict=True)
        }

    alone = codes([OneHot("b")])
    for objectives in ([OneHot("b"), Stretch("a")], [Stretch("a"), OneHot("b"), Stretch("c")]):
        together = codes(objectives, seeds=2)
        for key, image in alone.items():
            np.testing.assert_array_equal(together[key], image)
    assert len({image.tobytes() for image in together.values()}) == 6


def test_base_images_are_changed_within_their_budget(tiny_model):
    base = natural_photos(2, 32)
    config = dataclasses.replace(SHORT, start="base", max_rms_change=0.05)
    made = synthesize(tiny_model(), [Stretch("a")], seeds=1, recipe=config, base=base, device="cpu").stimuli
    change = np.sqrt(((made.images() - base.images()) ** 2).mean((1, 2, 3)))
    assert (change <= 0.052).all()
    assert (change > 0.01).all()


def test_an_interrupted_run_goes_on_to_the_same_bytes(tiny_model, tmp_path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    calls = []

    def stop(done, total, status):
        calls.append(done)
        if len(calls) == 3:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.05)  # the main thread has to wake

    def make(folder, **options):
        usual = {"seeds": 3, "slots": 2, "device": "cpu", "checkpoint_s": 0.0, "recipe": SHORT}
        return synthesize(tiny_model(), [Stretch("a"), OneHot("b")], out=tmp_path / folder, **usual, **options)

    try:
        make("whole")
        with pytest.raises(KeyboardInterrupt):
            make("cut", progress=stop)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "cut.partial").is_dir()
    make("cut", resume=True)
    for file in [*sorted((tmp_path / "whole" / "images").iterdir()), tmp_path / "whole" / "trace.csv"]:
        assert (tmp_path / "cut" / file.relative_to(tmp_path / "whole")).read_bytes() == file.read_bytes()
