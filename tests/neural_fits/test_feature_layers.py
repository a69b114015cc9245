"""Several layers of a network read in one pass."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from neural_fits.backbones import Backbone, load_backbone
from neural_fits.features import FeatureExtractor

PX = 96


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, PX, PX, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def small():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def by_hand(maps):
    """Bring maps to the smallest grid by means over integer blocks, and join their channels."""
    side = min(each.shape[-1] for each in maps)
    blocks = [each.unflatten(3, (side, -1)).unflatten(2, (side, -1)).mean((3, 5)) for each in maps]
    return torch.cat(blocks, 1)


JOINED = {
    "alexnet": ["features.6", "features.3", "features.7"],  # before an in-place ReLU and the ReLU itself
    "resnet18": ["layer2", "conv1", "layer1.0"],
    "efficientnet-lite0": ["blocks.1", "blocks.4", "blocks.2"],
    "vit_b_16": ["encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_2"],
}


@pytest.fixture(scope="module", params=list(JOINED))
def case(request, lite0):
    """A network and the layers asked of it."""
    name = request.param
    if name == "vit_b_16":  # with fewer patches than usual, for speed
        network = torchvision.models.vit_b_16(weights=None, image_size=PX)
        return Backbone("module:vit", network, fixed_size=True, input_px=PX), JOINED[name]
    return (lite0 if name in lite0.name else load_backbone(f"torchvision:{name}", pretrained=False)), JOINED[name]


class Odd(nn.Module):
    """A network with a layer that is never run and layers that give no map."""

    class Pair(nn.Module):
        def forward(self, inputs):
            return inputs, inputs

    class Deep(nn.Module):
        def forward(self, inputs):
            return inputs[..., None]

    def __init__(self):
        super().__init__()
        self.first, self.unused, self.last = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1), nn.Flatten()
        self.pair, self.deep = self.Pair(), self.Deep()

    def forward(self, images):
        hidden = self.first(images)
        self.pair(hidden)
        self.deep(hidden)
        return self.last(hidden)


def test_several_layers_are_those_of_separate_passes(case, images):
    backbone, asked = case
    separate = [FeatureExtractor(backbone, layer)(images) for layer in asked]
    joined = FeatureExtractor(backbone, asked)
    assert joined.layer == joined.layers_read == tuple(asked)
    if all(max(m.shape[-1] for m in separate) % m.shape[-1] == 0 for m in separate):
        torch.testing.assert_close(joined(images), by_hand(separate), atol=1e-5, rtol=1e-5)
    start = 0
    for layer, each in zip(asked, separate, strict=True):
        part = joined(images)[:, start : start + each.shape[1]]
        start += each.shape[1]
        if each.shape == part.shape:
            assert torch.equal(part, each), layer
        else:
            assert torch.equal(part, nn.functional.adaptive_avg_pool2d(each, part.shape[-2:])), layer
    assert start == joined(images).shape[1]
    assert min(m.shape[-1] for m in separate) == joined(images).shape[-1]


def test_several_layers_cost_as_much_as_the_deepest(case, images):
    backbone, asked = case
    counts = []
    for layers in (*([layer] for layer in asked), asked):
        extractor = FeatureExtractor(backbone, layers)
        extractor(images)  # where channels = height = width a first pass tells them apart
        with FlopCounterMode(display=False) as counter:
            extractor(images)
        counts.append(counter.get_total_flops())
    assert counts[-1] == max(counts[:-1]) > 1e6


def test_gradient_of_several_layers_is_the_sum_of_theirs(images):
    backbone = load_backbone("torchvision:alexnet", pretrained=False)
    layers = ["features.7", "features.3", "features.6"]

    def gradient(names, weights):
        leaf = images.clone().requires_grad_(True)
        features = FeatureExtractor(backbone, names)(leaf)
        (nn.functional.adaptive_avg_pool2d(features, weights.shape[-2:]) * weights).sum().backward()
        return leaf.grad

    shape = FeatureExtractor(backbone, layers)(images).shape
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    channels = [FeatureExtractor(backbone, layer)(images).shape[1] for layer in layers]
    parts = [gradient(layer, part) for layer, part in zip(layers, weights.split(channels, 1), strict=True)]
    wanted = sum(parts)
    torch.testing.assert_close(gradient(layers, weights), wanted, atol=1e-5 * wanted.abs().max().item(), rtol=1e-4)
    assert wanted.abs().max() > 0


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_order_asked_is_the_order_of_the_channels(order, small):
    """Each layer adds a constant in place, so an unprotected output would carry the constants of its successors."""

    class Add(nn.Module):
        def __init__(self, amount):
            super().__init__()
            self.amount = amount

        def forward(self, inputs):
            return inputs.add_(self.amount)

    network = nn.Sequential(nn.Identity(), Add(1.0), Add(10.0), Add(100.0))
    features = FeatureExtractor(network, [str(k + 1) for k in order])(small.clone())
    wanted = torch.cat([small + sum([1.0, 10.0, 100.0][: k + 1]) for k in order], 1)
    torch.testing.assert_close(features, wanted)


def test_maps_of_any_ratio_and_without_space_are_joined(small):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide, self.narrow, self.flat = (
                nn.AdaptiveAvgPool2d((12, 9)),
                nn.AdaptiveAvgPool2d((5, 10)),
                nn.Flatten(),
            )

        def forward(self, images):
            self.wide(images)
            return self.flat(self.narrow(images)[..., :1, :1])

    network = Mixed()
    features = FeatureExtractor(network, ["wide", "narrow"])(small)
    assert features.shape == (3, 6, 5, 9)
    rows = np.floor(np.arange(5) * 12 / 5).astype(int), np.ceil((np.arange(5) + 1) * 12 / 5).astype(int)
    wide = network.wide(small)
    wanted = torch.stack([wide[:, :, top:bottom].mean(2) for top, bottom in zip(*rows, strict=True)], 2)
    torch.testing.assert_close(features[:, :3], wanted)
    pooled = FeatureExtractor(network, ["wide", "flat"])(small)
    assert pooled.shape == (3, 6, 1, 1)
    torch.testing.assert_close(pooled[:, :3, 0, 0], wide.mean((2, 3)))


def test_two_threads_read_different_sets_of_layers(small):
    network = nn.Sequential(nn.AvgPool2d(2), nn.AvgPool2d(2), nn.AvgPool2d(2))
    sets = (["0", "1"], ["2", "0"], ["1"], ["1", "2"])
    extractors = [FeatureExtractor(network, layers) for layers in sets]
    wanted = [extractor(small) for extractor in extractors]
    wrong = []

    def read(k):
        for _ in range(40):
            if not torch.equal(extractors[k](small), wanted[k]):
                wrong.append(k)

    threads = [threading.Thread(target=read, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert sum(len(module._forward_hooks) for module in network.modules()) == 3


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        ([], "no layer was given"),
        (["last", "last"], "'last' is asked twice"),
        (["first", "lost"], "no layer 'lost'; did you mean 'last'"),
        (["last", "unused"], "'unused'.*never run"),
        (["pair", "last"], "'pair' yields tuple"),
        (["deep", "last"], "'deep'.*expected 2, 3 or 4 axes"),
    ],
)
def test_wrong_sets_of_layers_are_refused(layers, sentence, small):
    with pytest.raises(ValueError, match=sentence):
        FeatureExtractor(Odd(), layers)(small)
