"""The recipe of 2019 against its published rule written out in numpy; validation of configurations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from synth._slots import Task
from synth.engine import run
from synth.jobs import Job, start_generator
from synth.objectives import SiteScale, Stretch
from synth.random_streams import Streams
from synth.recipes import PAPER, RECIPES, ROBUST, SynthesisConfig, recipe
from synth.store import Memory
from synth.transforms import Affine, Jitter, PixelNoise

SIDE = 48


class Linear(nn.Module):
    """One site: the inner product of image and weights."""

    def __init__(self, weight):
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(weight).float())

    def forward(self, images):
        return (images * self.weight).sum((1, 2, 3))[:, None]


def published_rule(weight, start, jitters, clip=1.0):
    """Follow x <- clip(x - 0.01 g / (std(g) + 1e-8), -1, 1) in [-1, 1] with loss -S + 500 TV; paper.md section 2."""
    x = start.copy()
    seen = []
    for shift in jitters:
        view = np.roll(x, shift, (0, 1))
        gradient = -weight / 2  # S = sum(weight * (x + 1) / 2)
        rows, columns = np.diff(view, axis=0), np.diff(view, axis=1)
        variation = np.zeros_like(view)
        variation[1:] += rows / rows.size
        variation[:-1] -= rows / rows.size
        variation[:, 1:] += columns / columns.size
        variation[:, :-1] -= columns / columns.size
        gradient = np.roll(gradient + 500 * variation, [-s for s in shift], (0, 1))
        x = np.clip(x - 0.01 * gradient / (gradient.std() + 1e-8), -clip, clip)
        seen.append(x)
    return seen


def codes_of(x):
    return np.uint8(0.99 * 128 * x + 128)


@pytest.fixture
def planted():
    """Return weights of one site, with structure at several scales; their mean makes many pixels run into the clip."""
    rng = np.random.default_rng(5)
    coarse = np.kron(rng.normal(0, 0.4, (SIDE // 8, SIDE // 8)), np.ones((8, 8)))
    return 0.4 + coarse + rng.normal(0, 0.2, (SIDE, SIDE))


def make(weight, config, seed=3):
    scale = SiteScale(("a",), torch.zeros(1), torch.ones(1))
    model, store = Linear(weight), Memory()
    task = Task(model, model, scale, config, (SIDE, SIDE), torch.device("cpu"))
    run(task, [Job(Stretch("a"), seed)], slots=1, store=store)
    return store.made(0)


def draws(config, seed=3, weight_start=True):
    """Return start in [-1, 1] and shifts from the random stream of the job."""
    job = Job(Stretch("a"), seed)
    noise = torch.rand((1, SIDE, SIDE), generator=start_generator(job, 0)).double().numpy()[0] * 2 - 1
    key = torch.tensor([job.key("views")])
    shifts = [
        tuple(Streams(key, torch.tensor([step])).integers(-19, 18, 2)[0].tolist()) for step in range(config.steps)
    ]
    return noise / (2 * np.abs(noise).max()), shifts


@pytest.mark.parametrize("steps", [1, 7, 200])
def test_paper_is_the_published_rule(planted, steps):
    config = recipe("paper", steps=steps)
    start, shifts = draws(config)
    expected = codes_of(published_rule(planted, start, shifts)[-1])
    made = make(planted, config)
    assert made.codes.shape == (1, SIDE, SIDE)  # gray
    assert made.step == steps  # the last image, not the best
    difference = np.abs(made.codes[0].astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
    assert np.abs(expected.astype(int) - codes_of(start)).max() >= min(steps, 20)  # something happened


def test_paper_matters_in_every_part(planted):
    """The agreement above is not blind: without any one ingredient the images differ."""
    start, shifts = draws(PAPER)
    after = published_rule(planted, start, shifts)
    expected = codes_of(after[-1])
    unclipped = codes_of(np.clip(published_rule(planted, start, shifts, clip=np.inf)[-1], -1, 1))
    assert (np.abs(unclipped.astype(int) - expected) > 1).mean() > 0.01
    for change in (
        {"total_variation": 0.0},
        {"step_size": 0.01},
        {"optimizer": "adam"},
        {"output_gain": 1.0},
        {"start": "pink", "steps": 30},  # after 200 steps a linear site has forgotten its start
        {"transforms": ()},
        {"steps": 199},
    ):
        config = dataclasses.replace(PAPER, **change)
        other = make(planted, config).codes[0].astype(int)
        wanted = codes_of(after[29]) if "start" in change else expected
        assert (other != wanted).mean() > 0.05, change  # the rule itself differs in fewer than 1e-3


def test_paper_jitters_by_19_to_18_pixels_over_200_steps():
    _, shifts = draws(PAPER)
    assert PAPER.steps == len(shifts) == 200
    assert (np.min(shifts), np.max(shifts)) == (-19, 18)
    assert PAPER.transforms == (Jitter(-19, 18),)


def test_paper_codes_of_the_extremes():
    made = make(np.full((SIDE, SIDE), 1.0) + np.random.default_rng(0).normal(0, 0.1, (SIDE, SIDE)), PAPER)
    assert made.codes.max() == np.uint8(0.99 * 128 + 128)  # 254: their gain never reaches 255


@pytest.mark.parametrize("config", [ROBUST, PAPER, SynthesisConfig(), recipe("robust", rms_contrast=0.2, steps=7)])
def test_repr_of_a_config_evaluates_to_it(config):
    names = {kind.__name__: kind for kind in (SynthesisConfig, Affine, Jitter, PixelNoise)}
    assert eval(repr(config), {"__builtins__": {}}, names) == config


def test_recipe_by_name_with_changes_and_as_it_is():
    assert recipe("robust") == ROBUST == RECIPES["robust"]
    assert recipe(PAPER) is not None
    assert recipe(PAPER, steps=3) == dataclasses.replace(PAPER, steps=3) == recipe("paper", steps=3)
    assert PAPER.steps == 200  # unchanged
    assert ROBUST.keep == "best"


def test_unknown_recipe_gets_a_suggestion():
    with pytest.raises(ValueError, match=r"unknown recipe 'papers'; did you mean 'paper'\? known: robust, paper"):
        recipe("papers")
    with pytest.raises(ValueError, match="unknown recipe 'zzz'; known: robust, paper"):
        recipe("zzz")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"param": "fourrier"}, "param is 'fourrier'; expected one of 'pixels', 'fourier'"),
        ({"start": "grey"}, "start is 'grey'; expected one of 'uniform', 'pink', 'gray', 'base'"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'; expected one of 'adam', 'sign', 'gradient_std', 'gradient_norm'"),
        ({"patience": 0}, "patience is 0; expected a number of readings of at least 1, or None"),
        ({"views": 0}, "steps, check_every and views must be at least 1"),
        ({"max_change": -0.1}, "max_change is -0.1"),
        ({"keep": "first"}, "keep is 'first'; expected one of 'best', 'last'"),
        ({"channels": 4}, "channels is 4; expected one of None, 1, 3"),
        ({"steps": 0}, "steps, check_every and views must be at least 1"),
        ({"check_every": 0}, "steps, check_every and views must be at least 1"),
        ({"step_size": 0.0}, "step_size above 0"),
        ({"step_size": float("nan")}, "step_size above 0"),
        ({"total_variation": -1.0}, "must not be negative"),
        ({"gradient_blur_px": (1.0, 0.5)}, "use them with param='pixels'"),
        ({"param": "pixels", "gradient_blur_px": (-1.0, 0.5)}, "must not be negative"),
        ({"mean_luminance": 0.95, "rms_contrast": 0.4}, "mean luminance 0.95 reach values between 0 and 0.218"),
        ({"rms_contrast": 0.7}, "RMS contrast is 0.7"),
    ],
)
def test_config_refuses(given, message):
    with pytest.raises(ValueError, match=message):
        SynthesisConfig(**given)
    with pytest.raises(ValueError, match=message):
        recipe("robust", **given)


def test_misspelt_field_is_refused():
    with pytest.raises(ValueError, match=r"a recipe has no 'step_sizes'; did you mean 'step_size'\?"):
        recipe("paper", step_sizes=1)
