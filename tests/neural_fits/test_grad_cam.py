"""Grad-CAM by captum against the formula written out, on classifiers, sites, single units and every order of axes."""

from __future__ import annotations

import builtins
import sys

import pytest
import torch
from inspection_models import model_of, noise
from torch import nn

from neural_fits.backbones import load_backbone
from neural_fits.features import FeatureExtractor
from neural_fits.inspection._grids import on_grid
from neural_fits.inspection.class_activation import class_activation_maps
from neural_fits.inspection.grad_cam import grad_cam
from neural_fits.inspection.targets import target_function
from neural_fits.site_model import Ensemble


def by_hand(function, images, module, to_map=lambda output: output):
    """Return the formula: maps weighed by the gradient's mean over positions, not rectified."""
    kept = []

    def keep(_module, _inputs, output):
        kept.append(output)
        return output.clone()  # what follows may change it in place

    handle = module.register_forward_hook(keep, prepend=True)
    score = function(images.clone().requires_grad_()).sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[0])
    weights = to_map(gradient).mean((2, 3), keepdim=True)
    return (weights * to_map(kept[0])).sum(1).detach()


def patches(output):
    return output[:, 1:].transpose(1, 2).unflatten(2, (14, 14))


#: network, layer named, layer expected by default, images, from its output to a map
CASES = {
    "torchvision:resnet18": ("layer3", "layer4", (2, 3, 64, 96), lambda output: output),
    "torchvision:vgg11": ("features.10", "avgpool", (1, 1, 32, 48), lambda output: output),
    "torchvision:densenet121": ("features.denseblock3", "features", (1, 3, 64, 96), lambda output: output),
    "torchvision:mobilenet_v3_small": ("features.8", "features", (2, 3, 64, 96), lambda output: output),
    "torchvision:convnext_tiny": ("features.5", "features", (1, 3, 64, 96), lambda output: output),
    "torchvision:swin_t": ("features.5", "norm", (1, 3, 64, 96), lambda output: output.permute(0, 3, 1, 2)),
    "timm:vit_tiny_patch16_224": ("blocks.6", "blocks.10", (1, 3, 64, 96), patches),
    "efficientnet-lite0": ("blocks.4", "bn2", (2, 1, 96, 64), lambda output: output),
}
WITHOUT_GLOBAL_POOLING = {
    *("torchvision:vgg11", "torchvision:mobilenet_v3_small", "torchvision:convnext_tiny", "timm:vit_tiny_patch16_224"),
}


@pytest.mark.parametrize("name", list(CASES))
def test_equals_the_formula_at_a_named_layer_and_by_default(name):
    named, last, shape, to_map = CASES[name]
    backbone, images = load_backbone(name, pretrained=False), noise(*shape)
    function = target_function(backbone, 7)
    if name in WITHOUT_GLOBAL_POOLING:
        with pytest.raises(ValueError, match=r"does not average a feature map .* use grad_cam") as error:
            class_activation_maps(backbone, images)
        assert str(error.value).count(". ") == 0  # one sentence
    for layer, asked in ((named, named), (last, None)):
        expected = by_hand(function, images, backbone.network.get_submodule(layer), to_map)
        found = grad_cam(backbone, 7, images, layer=asked, rectified=False)
        scale = float(expected.abs().max())
        assert scale > 0
        torch.testing.assert_close(found / scale, expected / scale, rtol=1e-4, atol=1e-4)


def test_is_the_class_activation_map_over_its_positions_where_there_is_one(lite0):
    images = noise(2, 3, 96, 128)
    maps = class_activation_maps(lite0, images, classes=281).maps[:, 0]
    found = grad_cam(lite0, "tabby", images, rectified=False)
    torch.testing.assert_close(found, maps / maps[0].numel(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grad_cam(lite0, "tabby", images), found.relu())


def test_site_by_its_own_layer_and_by_an_earlier_one(lite0):
    model, images = model_of(FeatureExtractor(lite0, "blocks.2"), (64, 96)), noise(2, 3, 64, 96)
    features = model.extractor(images)
    weights = model.readout.weight[1].mean((1, 2))  # a linear readout: the gradient is the weight
    expected = torch.einsum("nkhw,k->nhw", features, weights)
    torch.testing.assert_close(grad_cam(model, "b", images, rectified=False), expected, rtol=1e-4, atol=1e-4)
    earlier = by_hand(target_function(model, "b"), images, lite0.network.get_submodule("blocks.1"))
    found = grad_cam(model, "b", images, layer="blocks.1", rectified=False)
    torch.testing.assert_close(found, earlier, rtol=1e-4, atol=1e-4)


def test_site_of_several_layers_is_shown_at_the_deepest(lite0):
    model, images = model_of(FeatureExtractor(lite0, ["blocks.2", "blocks.1"]), (64, 64)), noise(1, 3, 64, 64)
    expected = by_hand(target_function(model, "a"), images, lite0.network.get_submodule("blocks.2"))
    torch.testing.assert_close(grad_cam(model, "a", images, rectified=False), expected, rtol=1e-4, atol=1e-4)


def test_ensemble_is_the_mean_of_its_members_on_the_finest_grid(lite0):
    members = [model_of(FeatureExtractor(lite0, f"blocks.{k}"), (64, 64), seed=k) for k in (1, 2)]
    images = noise(1, 3, 64, 64)
    parts = [grad_cam(member, "a", images, rectified=False) for member in members]
    mean = sum(on_grid(part, (16, 16)) for part in parts) / 2
    torch.testing.assert_close(grad_cam(Ensemble(members), "a", images), mean.relu())


def test_unit_of_a_layer(lite0):
    extractor, images = FeatureExtractor(lite0, "blocks.2"), noise(1, 3, 64, 64)
    found = grad_cam(extractor, (5, 2, 3), images)
    expected = (extractor(images)[:, 5] / 64).relu()  # the gradient is 1 at one of 64 positions of one channel
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_plain_module_with_in_place_successor():
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(3 * 8 * 8, 2)).eval()
    images = noise(2, 1, 10, 10)
    expected = by_hand(lambda each: network[2:](network[0](each).relu())[:, 1], images, network[0])
    found = grad_cam(network, 1, images, layer="0", rectified=False)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


class Turned(nn.Module):
    """A convolution, its map with channels last, and a linear way to scores that takes maps of any size."""

    def __init__(self, channels):
        super().__init__()
        self.conv, self.turn = nn.Conv2d(3, channels, 3, padding=1), nn.Tanh()
        self.out = nn.Linear(channels, 2)

    def forward(self, images):
        return self.out(self.turn(self.conv(images).permute(0, 2, 3, 1)).square().mean((1, 2)))


@pytest.mark.parametrize("size", [(8, 8), (8, 16)])
def test_channels_last_with_all_axes_alike(size):
    with torch.random.fork_rng(devices=[]):
        network = Turned(8).eval()
    images, function = noise(2, 3, *size), target_function(network, 1)
    for layer, to_map in (("turn", lambda output: output.permute(0, 3, 1, 2)), ("conv", lambda output: output)):
        expected = by_hand(function, images, network.get_submodule(layer), to_map)
        torch.testing.assert_close(grad_cam(network, 1, images, layer=layer, rectified=False), expected)
    extracted = FeatureExtractor(network, "turn")(images)
    assert torch.equal(extracted, network.turn(FeatureExtractor(network, "conv")(images)))


@pytest.mark.parametrize("layer", ["0", "1", None])
@pytest.mark.parametrize("channels", [5, 16, 17])
def test_time_frequency_map_with_one_axis_left(channels, layer):
    """Its shape (channel, 20, 1) on spectrograms of 40 x 48 could pass for 20 positions across and one channel."""
    with torch.random.fork_rng(devices=[]):
        network = nn.Sequential(
            *(nn.Conv2d(1, channels, (2, 48), stride=(2, 1)), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            nn.Linear(channels, 2),
        ).eval()
    trials = noise(2, 1, 40, 48)
    expected = by_hand(target_function(network, 1), trials, network[1 if layer is None else int(layer)])
    found = grad_cam(network, 1, trials, layer=layer, rectified=False)
    assert found.shape == (2, 20, 1)
    torch.testing.assert_close(found, expected)


def test_networks_of_one_size_with_axes_alike():
    """They refuse an image twice as wide, but not before the layer has run."""
    with torch.random.fork_rng(devices=[]):
        network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 2)).eval()
    images = noise(2, 3, 8, 8)
    expected = by_hand(target_function(network, 1), images, network[1])
    torch.testing.assert_close(grad_cam(network, 1, images, rectified=False), expected)


def test_an_assertion_of_the_network_itself_is_not_hidden():
    class Strict(nn.Conv2d):
        def forward(self, images):
            assert images.amax() < 1, "too bright"
            return super().forward(images)

    with torch.random.fork_rng(devices=[]):
        network = nn.Sequential(Strict(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    images = noise(20, 3, 9, 9) * 0.9
    images[17] = 2  # not the image on which the layer is looked for
    with pytest.raises(AssertionError, match="too bright"):
        grad_cam(network, 1, images, layer="0")


def test_what_does_not_fit_is_named(lite0):
    images = noise(1, 3, 64, 64)
    with pytest.raises(ValueError, match=r"no layer 'blocks.9'; did you mean"):
        grad_cam(lite0, 1, images, layer="blocks.9")
    with pytest.raises(ValueError, match="no layer 3"):
        grad_cam(lite0, 1, images, layer=3)
    with pytest.raises(ValueError, match=r"no map of more than one position.* use saliency"):
        grad_cam(lite0, 1, images, layer="global_pool")
    model = model_of(FeatureExtractor(lite0, "blocks.2"), (64, 64))
    with pytest.raises(ValueError, match="never run"):
        grad_cam(model, "a", images, layer="blocks.5")
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).eval()
    with pytest.raises(ValueError, match="use saliency"):
        grad_cam(flat, 1, noise(1, 3, 8, 8))


def test_missing_library_is_named(lite0, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name.startswith("captum"):
            raise ImportError(name)
        return real(name, *rest, **more)

    for name in [each for each in sys.modules if each.startswith("captum")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"neural-population-control\[inspect\]"):
        grad_cam(lite0, 1, noise(1, 3, 64, 64))


def test_network_and_generators_are_left_as_they_were(lite0, global_rng_untouched):
    images = noise(1, 3, 64, 64)
    hooks = [len(module._forward_hooks) for module in lite0.network.modules()]
    with global_rng_untouched(), torch.no_grad():
        found = grad_cam(lite0, 1, images)
    assert not found.requires_grad
    assert not images.requires_grad
    assert [len(module._forward_hooks) for module in lite0.network.modules()] == hooks
