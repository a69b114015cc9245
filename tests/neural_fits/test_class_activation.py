"""Class activation maps: their mean is the class score, on every kind of network, and they are where the class is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from inspection_models import model_of, noise
from torch import nn
from torch.nn import functional

from neural_fits.backbones import Backbone, load_backbone
from neural_fits.features import FeatureExtractor
from neural_fits.inspection.class_activation import class_activation_maps
from neural_fits.inspection.targets import target_function
from neural_fits.site_model import Ensemble


def sum_rule_error(found):
    pooled = found.maps.mean((2, 3)) + found.bias
    return float((pooled - found.scores).abs().max() / found.scores.abs().max())


#: network, images, grid of its last map; of every kind: head before pooling, residual sum, functional rectifier, pooled
#: classes, functional mean, channels last (networks without global pooling: test_grad_cam)
POOLED = {
    "efficientnet-lite0": ((2, 3, 96, 128), (3, 4)),
    "torchvision:resnet18": ((2, 1, 96, 128), (3, 4)),
    "torchvision:densenet121": ((1, 3, 64, 96), (2, 3)),
    "torchvision:squeezenet1_1": ((2, 3, 64, 96), (3, 5)),
    "torchvision:shufflenet_v2_x0_5": ((2, 3, 64, 96), (2, 3)),
    "torchvision:swin_t": ((1, 3, 64, 96), (2, 3)),
    "timm:swin_tiny_patch4_window7_224": ((1, 1, 64, 96), (7, 7)),
}


@pytest.mark.parametrize("name", list(POOLED))
def test_mean_of_the_map_and_offset_are_the_class_score(name):
    shape, grid = POOLED[name]
    backbone, images = load_backbone(name, pretrained=False), noise(*shape)
    found = class_activation_maps(backbone, images, classes=[3, 700])
    assert found.maps.shape == (shape[0], 2, *grid)
    assert sum_rule_error(found) < 1e-5
    for column, index in enumerate((3, 700)):
        score = target_function(backbone, index)(images)
        torch.testing.assert_close(found.scores[:, column], score, rtol=1e-5, atol=1e-5)


def test_a_map_of_one_position_is_refused():
    with pytest.raises(ValueError, match="larger images"):
        class_activation_maps(load_backbone("torchvision:resnet18", pretrained=False), noise(1, 3, 32, 32))


def test_map_is_the_weighted_sum_of_the_last_feature_map(lite0):
    images = noise(2, 3, 96, 96)
    features = FeatureExtractor(lite0, "bn2")(images)
    weight = lite0.network.get_parameter("classifier.weight")
    by_hand = sum(weight[281, k] * features[:, k] for k in range(features.shape[1]))
    found = class_activation_maps(lite0, images, classes="tabby")
    torch.testing.assert_close(found.maps[:, 0], by_hand, rtol=1e-4, atol=1e-4)
    assert found.names == (("tabby",), ("tabby",))


def test_top_classes_are_those_of_each_image_best_first(lite0, photos):
    images = torch.from_numpy(photos.images([0, 40, 80]))
    scores = lite0.network((images - 127 / 255) / (128 / 255))
    found = class_activation_maps(lite0, images, top=4)
    assert torch.equal(found.class_index, scores.topk(4, 1).indices)
    torch.testing.assert_close(found.scores, scores.topk(4, 1).values)
    assert sum_rule_error(found) < 1e-5
    assert [len(names) for names in found.names] == [4, 4, 4]


class Tail(nn.Module):
    """Feature map, then a chosen way to scores; the names of the parts tell nothing."""

    def __init__(self, way, channels=1):
        super().__init__()
        self.b, self.a = nn.Linear(5, 3), nn.Conv2d(channels, 5, 3, padding=1)
        self.relu, self.way = nn.ReLU(inplace=True), way
        self.requires_grad_(False)

    def forward(self, images):
        return self.way(self, self.relu(self.a(self.relu(images - 0.5))))


def last(network, maps):
    return network.b(maps.mean((2, 3)))


WAYS = {
    "mean": last,
    "mean, the linear layer run before on something else": lambda n, m: n.b(m.amax((2, 3))) * 0 + last(n, m),
    "softmax": lambda n, m: last(n, m).softmax(1),
    "log-softmax": lambda n, m: functional.log_softmax(last(n, m), 1),
}


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_plain_module_on_inputs_of_any_channels_and_shape(way, channels):
    network = Tail(WAYS[way], channels).eval()
    trials = noise(3, channels, 12, 17) * 4 - 2  # spectrograms need not lie in [0, 1]
    found = class_activation_maps(network, trials, classes=[0, 2])
    maps = network.a((trials - 0.5).relu()).relu()
    expected = torch.einsum("nkhw,ck->nchw", maps, network.b.weight[[0, 2]])
    torch.testing.assert_close(found.maps, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.scores, network.b(maps.mean((2, 3)))[:, [0, 2]])  # before the softmax
    assert found.names[0] == ("class 0", "class 2")


@pytest.mark.parametrize(
    "way",
    [
        lambda n, m: n.b(m.amax((2, 3))),
        lambda n, m: n.b(m[:, :, 0, 0]),
        lambda n, m: n.b(functional.normalize(m.mean((2, 3)))),
        lambda n, m: last(n, m).tanh(),
        lambda n, m: n.b(1.00005 * m.mean((2, 3))),  # nearly, and no other score of the network
    ],
)
def test_anything_but_a_mean_and_one_linear_layer_is_refused(way):
    network = Tail(way)
    network.a.bias.fill_(1)
    flat = torch.full((2, 1, 8, 8), 0.3)  # its map is flat, so that a maximum is a mean
    with pytest.raises(ValueError, match="use grad_cam"):
        class_activation_maps(network, flat)


def test_the_sum_is_checked_on_the_users_images():
    """On noise of unit variance a rectifier that saturates at 6 looks like any other."""
    network = Tail(lambda n, m: n.b(functional.relu6(m).mean((2, 3)))).eval()
    images = noise(2, 1, 9, 9)
    assert sum_rule_error(class_activation_maps(network, images, classes=[0, 1])) < 1e-5
    with pytest.raises(ValueError, match="use grad_cam"):
        class_activation_maps(network, images * 40)


@pytest.mark.parametrize("size", [(8, 8), (8, 9), (5, 5)])
def test_channels_last_whatever_the_lengths_of_the_axes(size):
    network = Tail(lambda n, m: n.b(n.turn(m.permute(0, 2, 3, 1)).mean((1, 2)))).eval()
    network.turn = nn.Tanh()
    images = noise(2, 1, *size)
    maps = network.a((images - 0.5).relu()).relu().tanh()
    expected = torch.einsum("nkhw,ck->nchw", maps, network.b.weight)
    torch.testing.assert_close(class_activation_maps(network, images, classes=[0, 1, 2]).maps, expected)


def test_tokens_whose_mean_is_read():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch, self.mix, self.out = nn.Conv2d(3, 6, 4, stride=4), nn.Linear(6, 6), nn.Linear(6, 4)

        def forward(self, images):
            return self.out(self.mix(self.patch(images).flatten(2).transpose(1, 2)).mean(1))

    with torch.random.fork_rng(devices=[]):
        network = Tokens().eval()
    images = noise(2, 3, 12, 20)
    found = class_activation_maps(network, images, classes=[0, 3])
    with torch.no_grad():
        tokens = network.mix(network.patch(images).flatten(2).transpose(1, 2))
        expected = (tokens @ network.out.weight[[0, 3]].T).transpose(1, 2).unflatten(2, (3, 5))
    torch.testing.assert_close(found.maps, expected)


def test_planted_patch_is_where_the_map_is():
    network = Tail(last).eval()
    with torch.no_grad():
        network.a.weight.fill_(0)
        network.a.weight[2, 0, 1, 1] = 1  # channel 2 is brightness
        network.a.bias.zero_()
        network.b.weight.zero_()
        network.b.weight[1, 2] = 3
    images = torch.full((1, 1, 10, 14), 0.5)
    images[0, 0, 6, 9] = 1
    found = class_activation_maps(network, images, classes=1)
    assert np.unravel_index(int(found.maps[0, 0].argmax()), (10, 14)) == (6, 9)
    assert float(found.maps[0, 0, 6, 9]) == pytest.approx(1.5)


def test_a_named_backbone_of_the_user_gets_its_normalization():
    network = Tail(last, 3)
    backbone = Backbone("module:mine", network, (0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    images = noise(2, 3, 9, 9)
    mean = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    found = class_activation_maps(backbone, images, classes=[0, 1, 2])
    torch.testing.assert_close(found.scores, network((images - mean) / 0.5))


def test_wrong_classes_are_named(lite0):
    images = noise(1, 3, 64, 64)
    with pytest.raises(ValueError, match="did you mean"):
        class_activation_maps(lite0, images, classes="tabbi")
    several = "classes with that word: tabby cat, tiger cat, Persian cat, Siamese cat, Egyptian cat, ...;"
    with pytest.raises(ValueError, match=several):
        class_activation_maps(lite0, images, classes="Cat")
    with pytest.raises(ValueError, match="'site03'; sites are asked of a SiteModel; give"):
        class_activation_maps(lite0, images, classes="site03")
    with pytest.raises(ValueError, match="did you mean 'n02123045'"):
        class_activation_maps(lite0, images, classes="n0212304")
    sites = model_of(FeatureExtractor(lite0, "blocks.2"), (64, 64))
    for model in (sites, Ensemble([sites, sites])):
        with pytest.raises(TypeError, match=r"has sites, not classes; use site_activation_maps"):
            class_activation_maps(model, images)
    with pytest.raises(ValueError, match="classes 0 to 999, 1000 came"):
        class_activation_maps(lite0, images, classes=1000)
    by_number = class_activation_maps(lite0, images, classes=np.int64(7))
    assert by_number.class_index.tolist() == [[7]]
    assert class_activation_maps(lite0, images, classes=np.array([7, 3])).class_index.tolist() == [[7, 3]]
    with pytest.raises(TypeError, match=r"index or a name; 1\.5 came"):
        class_activation_maps(lite0, images, classes=1.5)
    with pytest.raises(ValueError, match="top is 0"):
        class_activation_maps(lite0, images, top=0)
    with pytest.raises(ValueError, match="no class was given"):
        class_activation_maps(lite0, images, classes=[])


def test_network_is_left_as_it_was(lite0, global_rng_untouched):
    hooks = [len(module._forward_hooks) for module in lite0.network.modules()]
    with global_rng_untouched():
        class_activation_maps(lite0, noise(1, 3, 64, 64))
    assert [len(module._forward_hooks) for module in lite0.network.modules()] == hooks
