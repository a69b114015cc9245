from __future__ import annotations

import copy
import threading
import time

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import Permute

from neural_fits.backbones import Backbone, load_backbone
from neural_fits.features import FeatureExtractor, feature_positions

PX = 96
VIT_LAYER = "encoder.layers.encoder_layer_2"


class Tokens(nn.Module):
    """The front of a torchvision vision transformer, written out."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs):
        network = self.network
        patches = network.conv_proj(inputs)
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = torch.cat([network.class_token.expand(len(inputs), -1, -1), tokens], 1)
        tokens = tokens + network.encoder.pos_embedding
        for k in range(3):
            tokens = network.encoder.layers[k](tokens)
        rows, columns = patches.shape[-2:]
        # token 1 + row * columns + column belongs to that place of the grid
        return torch.stack(
            [torch.stack([tokens[:, 1 + r * columns + c] for c in range(columns)], -1) for r in range(rows)], -2
        )


def hand_cut(name, network):
    if name == "alexnet":
        return network.features[:7]
    if name == "resnet18":
        front = [network.conv1, network.bn1, network.relu, network.maxpool]
        return nn.Sequential(*front, network.layer1, network.layer2)
    if name == "efficientnet-lite0":
        return nn.Sequential(network.conv_stem, network.bn1, *list(network.blocks)[:5])
    return Tokens(network)


LAYERS = {"alexnet": "features.6", "resnet18": "layer2", "efficientnet-lite0": "blocks.4", "vit_b_16": VIT_LAYER}


@pytest.fixture(scope="module", params=list(LAYERS))
def pair(request, lite0):
    """The name of a network, our extractor, and an independently cut copy of the network."""
    name = request.param
    if name == "vit_b_16":  # with fewer patches than usual, for speed
        network = torchvision.models.vit_b_16(weights=None, image_size=PX)
        backbone = Backbone("module:vit", network, fixed_size=True, input_px=PX)
    else:
        backbone = lite0 if name in lite0.name else load_backbone(f"torchvision:{name}", pretrained=False)
    network = backbone.network if name == "vit_b_16" else copy.deepcopy(backbone.network)
    return FeatureExtractor(backbone, LAYERS[name]), hand_cut(name, network)


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, PX, PX, generator=torch.Generator().manual_seed(0))


def test_truncated_network_equals_the_hand_cut_one(pair, images):
    extractor, cut = pair
    results = []
    for which in ("ours", "cut"):
        leaf = images.clone().requires_grad_(True)
        with FlopCounterMode(display=False) as counter:
            features = extractor(leaf) if which == "ours" else cut((leaf - extractor.mean) / extractor.std)
        weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
        (features * weights).sum().backward()
        results.append((features.detach(), leaf.grad, counter.get_total_flops()))
    (features, gradient, flops), (wanted, wanted_gradient, wanted_flops) = results
    assert features.shape == wanted.shape
    torch.testing.assert_close(features, wanted, atol=1e-5 * wanted.abs().max().item(), rtol=1e-5)
    torch.testing.assert_close(gradient, wanted_gradient, atol=1e-5 * wanted_gradient.abs().max().item(), rtol=1e-4)
    assert gradient.abs().max() > 0
    assert flops == wanted_flops > 1e7
    assert all(parameter.grad is None for parameter in extractor.parameters())


def test_layer_before_an_in_place_relu_keeps_its_negative_values(images):
    torch_state = torch.random.get_rng_state()
    extractor = FeatureExtractor(load_backbone("torchvision:alexnet", pretrained=False), "features.6")
    torch.random.set_rng_state(torch_state)
    assert extractor.network.features[7].inplace
    assert (extractor(images) < 0).float().mean() > 0.2


@pytest.fixture(scope="module")
def extractor(lite0):
    return FeatureExtractor(lite0, "blocks.2")


@pytest.fixture(scope="module")
def small():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_gray_images_are_three_equal_channels(extractor, small):
    gray = small[:, :1]
    assert torch.equal(extractor(gray), extractor(gray.repeat(1, 3, 1, 1)))


def test_memory_format_of_the_images_does_not_matter(extractor, small):
    there = extractor(small.contiguous(memory_format=torch.channels_last))
    assert there.shape == (3, 40, 8, 8)
    torch.testing.assert_close(there, extractor(small), atol=1e-5, rtol=1e-5)


def test_images_are_resized_only_where_asked(lite0, small):
    resized = FeatureExtractor(lite0, "blocks.2", input_px=96)
    assert resized(small).shape == (3, 40, 12, 12)
    wanted = nn.functional.interpolate(small, (96, 96), mode="bilinear", antialias=True)
    torch.testing.assert_close(resized(small), FeatureExtractor(lite0, "blocks.2")(wanted), atol=1e-4, rtol=1e-4)
    wide = small[:, :, :32]
    assert FeatureExtractor(lite0, "blocks.2")(wide).shape == (3, 40, 4, 8)


class TokenNetwork(nn.Module):
    """Patches as tokens behind `extra` class or register tokens."""

    def __init__(self, extra):
        super().__init__()
        self.patches, self.block, self.extra = nn.Conv2d(3, 5, 8, 8), nn.Identity(), extra

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return self.block(torch.cat([torch.full((len(images), self.extra, 5), 99.0), tokens], 1))


@pytest.mark.parametrize("extra", [0, 1, 5])
def test_tokens_stand_where_their_patch_is(extra):
    network = TokenNetwork(extra)
    image = torch.zeros(1, 3, 64, 64)
    image[..., 8:16, 40:48] = 1.0  # row 1, column 5 of the patches
    features = FeatureExtractor(Backbone("module:t", network, fixed_size=True, input_px=64), "block")(image)
    assert features.shape == (1, 5, 8, 8)
    assert torch.equal(features, network.patches(image))
    change = (features - features[..., :1, :1]).abs().sum(1)[0]
    assert change.nonzero().tolist() == [[1, 5]]


def test_transformer_of_one_size_gets_it(small):
    backbone = Backbone("module:t", TokenNetwork(1), fixed_size=True, input_px=32)
    assert FeatureExtractor(backbone, "block")(small).shape == (3, 5, 4, 4)


def test_maps_with_channels_at_the_end_are_turned(small):
    network = nn.Sequential(nn.Conv2d(3, 5, 8, 8), Permute([0, 2, 3, 1]))
    assert torch.equal(FeatureExtractor(network, "1")(small), FeatureExtractor(network, "0")(small))
    # an ordinary map of a square image stays as it is, even with as many channels as rows
    square = nn.Sequential(nn.Conv2d(3, 8, 8, 8))
    torch.testing.assert_close(FeatureExtractor(square, "0")(small), square(small))


class Odd(nn.Module):
    """A network with a layer that is never run, a layer that fails and layers that give no map."""

    class Pair(nn.Module):
        def forward(self, inputs):
            return inputs, inputs

    class Deep(nn.Module):
        def forward(self, inputs):
            return inputs[..., None]

    class Failing(nn.Module):
        def forward(self, inputs):
            raise ArithmeticError("no")

    def __init__(self):
        super().__init__()
        self.first, self.unused, self.last = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1), nn.Flatten()
        self.pair, self.deep, self.failing = self.Pair(), self.Deep(), self.Failing()
        self.fails = False

    def forward(self, images):
        hidden = self.first(images)
        if self.fails:
            self.failing(hidden)
        self.pair(hidden)
        self.deep(hidden)
        return self.last(hidden)


def count_hooks(network):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


@pytest.mark.parametrize(
    ("layer", "sentence"), [("unused", "never run"), ("pair", "yields tuple"), ("deep", "expected 2, 3 or 4 axes")]
)
def test_layers_without_a_map_are_refused(layer, sentence, small):
    with pytest.raises(ValueError, match=f"{layer}.*{sentence}"):
        FeatureExtractor(Odd(), layer)(small)


def test_one_inert_hook_a_layer_whatever_was_called(small):
    network = Odd()
    extractor = FeatureExtractor(network, "last")
    assert FeatureExtractor(network, "last")(small).shape == (3, 2 * 64 * 64, 1, 1)
    assert count_hooks(network) == 1
    network.fails = True
    with pytest.raises(ArithmeticError):
        extractor(small)
    network.fails = False
    FeatureExtractor(network, "deep")
    assert count_hooks(network) == 2
    assert network(small).shape == (3, 2 * 64 * 64)  # used on its own it runs to its end


def test_passes_in_other_threads_are_not_stopped(small):
    """Two extractors of one network at once: the hook of the slow one is there while the fast one passes its layer."""
    both_inside = threading.Barrier(2, timeout=20)

    class Gate(nn.Module):
        def forward(self, inputs):
            both_inside.wait()
            if threading.current_thread().name == "slow":
                time.sleep(0.3)
            return inputs

    network = nn.Sequential(Gate(), nn.AvgPool2d(2), nn.AvgPool2d(2))
    found = {}

    def read(name, layer):
        found[name] = FeatureExtractor(network, layer)(small)

    threads = [threading.Thread(target=read, args=(n, k), name=n) for n, k in (("slow", "1"), ("fast", "2"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found["slow"].shape[-1] == 32
    torch.testing.assert_close(found["fast"], nn.functional.avg_pool2d(small, 4))


def test_misspelt_layer_gets_a_suggestion(lite0):
    with pytest.raises(ValueError, match=r"no layer 'block\.2'; did you mean 'blocks\.2'"):
        FeatureExtractor(lite0, "block.2")


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 4, 64, 64), (2, 64, 64, 3)])
def test_other_shapes_are_refused(extractor, shape):
    with pytest.raises(ValueError, match="expected \\(image, channel, height, width\\)"):
        extractor(torch.zeros(shape))


def test_extract_does_not_depend_on_the_batch_size(extractor, photos):
    few = photos.select(range(9))
    whole = extractor(torch.from_numpy(few.images(list(range(9)))))
    for batch_size in (1, 4, 9, 100):
        features = extractor.extract(few, batch_size)
        torch.testing.assert_close(features, whole, atol=1e-5, rtol=1e-5)
        assert not features.requires_grad


def test_an_empty_set_is_refused(extractor):
    class Empty:
        def __len__(self):
            return 0

    with pytest.raises(ValueError, match="stimulus set is empty"):
        extractor.extract(Empty())


def test_positions_are_the_centers_of_patches_in_degrees():
    """A spot at the position that is told excites that place of the map and no other."""
    network = TokenNetwork(1)
    extractor = FeatureExtractor(Backbone("module:t", network, fixed_size=True, input_px=64), "block")
    for size_px in (64, 128):  # resized to 64 or not: degrees stay
        positions = feature_positions(extractor, (size_px, size_px), size_deg=16.0)
        assert positions.shape == (8, 8, 2)
        x, y = positions[1, 5]
        assert (x, y) == (3.0, 5.0)
        column, row = (x / 16 + 0.5) * size_px, (0.5 - y / 16) * size_px
        image = torch.zeros(1, 3, size_px, size_px)
        image[..., int(row), int(column)] = 1.0
        change = (extractor(image) - extractor(torch.zeros_like(image))).abs().sum(1)[0]
        assert divmod(int(change.argmax()), 8) == (1, 5)


def test_positions_of_an_oblong_image(lite0):
    positions = feature_positions(FeatureExtractor(lite0, ["blocks.1", "blocks.2"]), (64, 128), size_deg=8.0)
    assert positions.shape == (8, 16, 2)
    np.testing.assert_allclose(positions[0, :, 0], np.arange(16) * 0.5 - 3.75)
    np.testing.assert_allclose(positions[:, 3, 1], 1.75 - np.arange(8) * 0.5)
