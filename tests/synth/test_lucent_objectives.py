"""Lucent's objectives score in our loop as in lucent, image by image; those on the driver become layer units."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn

from neural_fits.backbones import Backbone
from neural_fits.features import FeatureExtractor
from synth.driver import driver_of
from synth.image_objectives import LayerUnit
from synth.image_params import PARAMS
from synth.lucent_bridge import from_lucent_objective, from_lucent_param, from_lucent_transforms, without_hooks
from synth.objectives import SiteScale, Stretch
from synth.random_streams import Streams
from synth.recipes import SynthesisConfig
from synth.synthesize import synthesize

pytest.importorskip("lucent", reason="the bridge needs torch-lucent: pip install '.[lucent]'")

from lucent.optvis import objectives, param, render, transform

NO_SITES = SiteScale((), torch.zeros(0), torch.zeros(0))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def drawn(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def streams(*keys, step=0):
    return Streams(torch.tensor(keys), torch.full((len(keys),), step))


def tiny_network(inplace=False):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 5, stride=2),
            nn.ReLU(inplace),
            nn.Sequential(nn.Conv2d(4, 6, 3, stride=2), nn.ReLU(inplace)),
            nn.Conv2d(6, 6, 1),
        )


def score(objective, images):
    return objective.score(torch.zeros(len(images), 0), NO_SITES, images)


def by_lucent(objective, network, images):
    """Return what lucent's own hooks say of one image at a time."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in IMAGENET)
    losses = []
    with without_hooks(network):
        for image in images:
            layers = render.hook_model(network, lambda image=image: image[None])
            network((image[None] - mean) / std)
            losses.append(objective(layers))
    return -torch.stack(losses)


@pytest.mark.parametrize(
    "make",
    [
        lambda: objectives.channel("2_0", 3),
        lambda: objectives.neuron("2_1", 2),
        lambda: objectives.channel("2_0", 1) - 0.5 * objectives.neuron("0", 2, x=1, y=2),
        lambda: objectives.direction("3", torch.arange(6.0)),
        lambda: objectives.channel("labels", 4) + 0.01 * objectives.blur_input_each_step(),
        lambda: objectives.as_objective("3:5"),
    ],
)
def test_objectives_have_the_value_of_lucent(make):
    network = tiny_network()
    images = drawn(3, 3, 32, 32)
    wrapped = from_lucent_objective(make(), Backbone("module:Tiny", network, *IMAGENET), size_px=32)
    assert by_lucent(make(), network, images).std() > 1e-4
    torch.testing.assert_close(score(wrapped, images), by_lucent(make(), network, images), atol=1e-5, rtol=1e-5)


def test_channels_and_neurons_of_the_driver_become_layer_units(tiny_model):
    model = tiny_model()
    assert from_lucent_objective("2:5", model) == LayerUnit("2", 5)
    assert from_lucent_objective("labels:1", model.extractor, size_px=32) == LayerUnit("4", 1)
    assert from_lucent_objective(objectives.neuron("2", 1, x=3, y=2), model) == LayerUnit("2", 1, position=(2, 3))
    middle = from_lucent_objective(objectives.neuron("2", 1), model)  # a map of 6 x 6
    assert middle == LayerUnit("2", 1, position=(3, 3))
    several = objectives.Objective.sum([objectives.channel("2", 1), objectives.channel("3", 2)])
    mixed = 2 * objectives.channel("0", 0) - objectives.neuron("2", 1) / 4 + several
    expected = 2 * LayerUnit("0", 0) - 0.25 * middle + LayerUnit("2", 1) + LayerUnit("3", 2)
    assert from_lucent_objective(mixed, model) == expected


def test_other_objectives_on_a_layer_become_columns_of_the_driver(tiny_model):
    model = tiny_model()
    direction = objectives.direction("2", torch.arange(6.0))
    wrapped = from_lucent_objective(direction * 3 + objectives.channel("3", 1), model)
    driver = driver_of(model, [wrapped, Stretch("a")], torch.device("cpu"))
    images = drawn(3, 3, 32, 32)
    network, mean, std = model.extractor.network, model.extractor.mean, model.extractor.std
    second = network[:3]((images - mean) / std)
    expected = -3 * torch.stack([direction(lambda _, k=k: second[k : k + 1]) for k in range(3)])
    expected += network[3](second)[:, 1].mean((1, 2))
    found = wrapped.score(driver.network(images), driver.scale)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    other = from_lucent_objective(objectives.direction("2", torch.ones(6)), model)
    assert other.column not in driver.scale.site_ids
    assert other == from_lucent_objective(objectives.direction("2", torch.ones(6)), model)


@pytest.mark.parametrize(
    "objective",
    [
        objectives.channel("input", 1),
        objectives.channel("input", 1) + objectives.channel("2", 1),
        objectives.channel("2", 1) + 3,
        objectives.channel("2", 1, batch=0),
    ],
)
def test_other_objectives_on_the_driver_keep_lucents_value(tiny_model, objective):
    model = tiny_model()
    wrapped = from_lucent_objective(objective, model)
    assert not wrapped.units
    images = drawn(2, 3, 32, 32)
    network, mean, std = model.extractor.network, model.extractor.mean, model.extractor.std
    layers = {"input": images, "2": network[:3]((images - mean) / std)}
    expected = torch.stack([-objective(lambda name, k=k: layers[name][k : k + 1]) for k in range(2)])
    torch.testing.assert_close(score(wrapped, images), expected, atol=1e-5, rtol=1e-5)


def test_a_layer_is_its_own_output_and_not_what_the_next_makes_of_it():
    images = drawn(2, 3, 32, 32)
    plain, inplace = (
        score(
            from_lucent_objective(objectives.channel("2_0", 3) + objectives.channel("3", 1), network, size_px=32),
            images,
        )
        for network in (tiny_network(), tiny_network(inplace=True))
    )
    assert torch.equal(plain, inplace)


def test_an_image_is_scored_alone():
    wrapped = from_lucent_objective("2.0:3", tiny_network(), size_px=32)
    images = drawn(3, 3, 32, 32).requires_grad_()
    scores = score(wrapped, images)
    torch.testing.assert_close(score(wrapped, images[1:2]), scores[1:2], atol=1e-6, rtol=1e-6)
    (gradient,) = torch.autograd.grad(scores[1], images)
    assert gradient[1].abs().sum() > 0
    assert gradient[[0, 2]].abs().sum() == 0
    assert not wrapped.coupled


def test_a_coupled_objective_is_shared_between_its_images():
    network = tiny_network()
    wrapped = from_lucent_objective(objectives.diversity("2_0"), network, coupled=True, size_px=32)
    images = drawn(3, 3, 32, 32)
    scores = score(wrapped, images)
    flat = network[:2](images)
    maps = network[2][0](flat).flatten(2)
    grams = nn.functional.normalize(maps @ maps.mT, dim=(1, 2)).flatten(1)
    expected = (grams @ grams.T).fill_diagonal_(0).sum() / 3
    torch.testing.assert_close(scores, (expected / 3).expand(3), atol=1e-5, rtol=1e-4)
    assert wrapped.coupled


@pytest.mark.parametrize(
    "objective",
    [
        objectives.diversity("2_0"),
        objectives.alignment("2_0"),
        objectives.channel("2_0", 1) + 0.1 * objectives.diversity("2_0"),
        objectives.channel_interpolate("0", 1, "3", 2),
        objectives.channel("2_0", 1, batch=1),
    ],
)
def test_objectives_over_a_batch_are_refused_one_by_one(objective):
    with pytest.raises(ValueError, match="coupled=True"):
        from_lucent_objective(objective, tiny_network(), size_px=32)


def test_misspelt_layers_and_missing_images_say_so():
    with pytest.raises(ValueError, match=r"no layer '2\.00'"):
        from_lucent_objective("2.00:3", tiny_network(), size_px=32)
    wrapped = from_lucent_objective("2.0:3", tiny_network(), size_px=32)
    with pytest.raises(ValueError, match="looks at images"):
        wrapped.score(torch.zeros(1, 0), NO_SITES)
    with pytest.raises(ValueError, match="name="):
        from_lucent_objective(lambda T: -T("input").mean(), tiny_network(), size_px=32)


def test_objectives_are_told_apart_where_lucent_names_them_alike():
    network = tiny_network()
    once, twice, other, again = (
        from_lucent_objective(each, network, size_px=32)
        for each in (
            objectives.channel("2_0", 3),
            2 * objectives.channel("2_0", 3),
            objectives.channel("2_0", 4),
            objectives.channel("2_0", 3),
        )
    )
    assert len({repr(once), repr(twice), repr(other)}) == 3
    assert once == again
    assert once != twice
    assert "channel" in repr(once)


def test_scoring_leaves_no_growing_hooks():
    network = tiny_network()
    wrapped = from_lucent_objective("2.0:3", network, size_px=32)
    for _ in range(3):
        score(wrapped, drawn(1, 3, 32, 32))
    assert sum(len(module._forward_hooks) for module in network.modules()) == 1  # the inert one of the extractor


def test_lucents_parts_climb_in_a_loop_of_your_own():
    target = from_lucent_objective("blocks_2:5", "efficientnet-lite0", size_px=64)
    views = from_lucent_transforms([transform.jitter(3)])
    made = from_lucent_param(functools.partial(param.image, 64))(0.5 + 0.01 * drawn(2, 3, 64, 64))
    optimizer = torch.optim.Adam(made.parameters(), lr=0.05)
    before = score(target, made()).detach()
    for step in range(6):
        optimizer.zero_grad()
        (-score(target, views(made(), streams(1, 2, step=step))).sum()).backward()
        optimizer.step()
    after = score(target, made()).detach()
    assert (after > before + 2).all()


def test_lucents_parts_climb_in_our_engine_and_no_image_depends_on_another(monkeypatch):
    monkeypatch.setitem(PARAMS, "lucent", from_lucent_param(functools.partial(param.image, 64)))
    bare = FeatureExtractor("efficientnet-lite0", "blocks.2", input_px=64)
    wanted = [
        from_lucent_objective(objectives.channel("blocks_2", 5) - 0.1 * objectives.neuron("blocks_1", 2), bare),
        from_lucent_objective(objectives.direction("blocks_2", torch.arange(40.0) % 7), bare),
    ]
    recipe = SynthesisConfig(
        param="lucent", steps=6, check_every=3, transforms=(from_lucent_transforms(transform.standard_transforms),)
    )
    first, second = (synthesize(bare, wanted, seeds=2, recipe=recipe, slots=slots) for slots in (1, 3))
    for image in range(4):
        np.testing.assert_array_equal(first.stimuli.images([image]), second.stimuli.images([image]))
    scores = first.trace.groupby("stimulus_id", sort=False)["score"]
    gain = (scores.max() - scores.first()).to_numpy()
    assert (gain > [1, 1, 0.05, 0.05]).all()
