"""Grids of maximizing inputs: the right unit for every tile, natural images in order, a picture that opens."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from neural_fits.backbones import Backbone
from neural_fits.features import FeatureExtractor
from stimuli import StimulusSet, natural_photos
from synth import LayerUnit, SynthesisConfig
from synth.layer_grid import grids_png, layer_grid

QUICK = SynthesisConfig(param="pixels", start="gray", steps=20, step_size=0.05)


@pytest.fixture(scope="module")
def colors():
    """A layer whose channels are red, green, blue and brightness after a stride of 2: the answers are known."""
    layer = nn.Conv2d(3, 4, 2, stride=2)
    layer.weight.data = torch.cat([torch.eye(3) - 1 / 3, torch.ones(1, 3)])[:, :, None, None].expand(4, 3, 2, 2) / 4
    layer.bias.data.zero_()
    return Backbone("module:colors", nn.Sequential(layer, nn.ReLU()), input_px=16)


@pytest.fixture(scope="module")
def photos():
    return natural_photos(30, 64)


@pytest.fixture(scope="module")
def grid(colors, photos):
    return layer_grid(colors, "0", size_px=16, natural=photos, top=3, recipe=QUICK)


def test_every_channel_of_the_layer_gets_the_image_it_wants(grid, colors):
    assert [unit.channel for unit in grid.units] == [0, 1, 2, 3]
    assert grid.map_size == (8, 8)
    images = grid.synthesis.stimuli.images()
    means = images.mean((2, 3))
    for channel in range(3):
        assert means[channel].argmax() == channel
        assert means[channel, channel] > 0.9
    assert (means[3] > 0.9).all()
    measured = FeatureExtractor(colors, "0", 16)(torch.from_numpy(images)).mean((2, 3)).diagonal()
    np.testing.assert_allclose(grid.activations, measured, rtol=1e-5)
    assert grid.synthesis.stimuli.table["channel"].tolist() == [0, 1, 2, 3]


def test_natural_images_are_the_best_of_different_photographs(grid, colors, photos):
    features = FeatureExtractor(colors, "0", 16).extract(photos).mean((2, 3)).numpy()
    origin = photos.table["photograph"].to_numpy()
    for channel in range(4):
        order, wanted = np.argsort(-features[:, channel], kind="stable"), []
        for place in order:
            if origin[place] not in origin[wanted]:
                wanted.append(place)
        assert grid.nearest[channel].tolist() == wanted[:3]
        np.testing.assert_allclose(grid.nearest_activations[channel], features[wanted[:3], channel], rtol=1e-4)
    told = grid.synthesis.stimuli.table
    assert told["natural_best"].tolist() == [photos.stimulus_ids[place] for place in grid.nearest[:, 0]]


def test_one_place_some_channels_and_sets_without_photographs(colors, photos):
    plain = StimulusSet.from_arrays(photos.codes()[:5])
    units = [2, LayerUnit("0", 1, position=(1, 6))]
    grid = layer_grid(colors, "0", units, size_px=16, natural=plain, top=9, recipe=QUICK)
    assert grid.nearest.shape == (2, 5)
    assert grid.synthesis.stimuli.table[["channel", "row", "column"]].to_numpy().tolist() == [[2, -1, -1], [1, 1, 6]]
    image = grid.synthesis.stimuli.images([1])[0]
    assert image[1, 2:4, 12:14].min() > 0.9
    np.testing.assert_allclose(image[:, 8:], 0.5, atol=0.01)


def test_the_layer_of_class_scores_gives_class_images():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2, bias=False))
    network[2].weight.data = torch.tensor([[1.0, -1.0, 0.0], [0.0, -1.0, 1.0]])
    made = layer_grid(Backbone("module:classes", network, input_px=16), "2", size_px=16, recipe=QUICK)
    assert made.map_size == (1, 1)
    means = made.synthesis.stimuli.images().mean((2, 3))
    assert (means[:, 1] < 0.1).all()
    assert means[[0, 1], [0, 2]].min() > 0.9
    np.testing.assert_allclose(made.activations, [means[0, 0] - means[0, 1], means[1, 2] - means[1, 1]], rtol=1e-4)


def test_mistakes_are_named(colors):
    with pytest.raises(ValueError, match="4 channels, the first 9 were asked"):
        layer_grid(colors, "0", 9, size_px=16)
    with pytest.raises(ValueError, match="no channel was given"):
        layer_grid(colors, "0", [], size_px=16)
    with pytest.raises(ValueError, match="of another layer than '0'"):
        layer_grid(colors, "0", [LayerUnit("1", 0)], size_px=16)
    for top in (0, -1):
        with pytest.raises(ValueError, match=f"top is {top}; keep at least 1"):
            layer_grid(colors, "0", 1, size_px=16, top=top)
    with pytest.raises(ValueError, match="not in it"):
        layer_grid(colors, "0", [7], size_px=16)
    with pytest.raises(ValueError, match="0 grids"):
        grids_png([])


def test_the_picture_shows_every_image(grid, colors):
    bare = layer_grid(colors, "1", 2, size_px=16, recipe=QUICK)
    one, both = (
        np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in (grid.png(), grids_png([grid, bare]))
    )
    assert one.shape[1] == both.shape[1] == 1350
    assert both.shape[0] > one.shape[0] + 200
    for channel in range(3):  # a tile of its own color
        pure = grid.synthesis.stimuli.codes([channel])[0].reshape(3, -1).mean(1)
        near = (np.abs(one.astype(float) - pure).max(-1) < 12).mean()
        assert near > 0.02, channel
    assert grid.png() == grid.png()


def test_natural_images_that_are_no_set_are_named(colors, photos):
    with pytest.raises(
        TypeError, match=r"natural is a Tensor; expected a StimulusSet, such as StimulusSet\.from_arrays"
    ):
        layer_grid(colors, "0", size_px=16, natural=torch.from_numpy(photos.images()), recipe=QUICK)
