"""Targets and gradients: one number an image from any network, and its slopes against finite differences."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

from neural_fits.backbones import Backbone, load_backbone
from neural_fits.features import FeatureExtractor
from neural_fits.inspection.saliency import integrated_gradients, saliency, smooth_grad, target_gradients
from neural_fits.inspection.targets import class_scores, names_of, target_function, target_name
from neural_fits.readout import LinearReadout
from neural_fits.site_model import Ensemble, SiteInfo, SiteModel


def random_images(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def model_on(network, layer, size_px=(32, 48), channels=3, sites=("a", "b"), seed=0):
    """A site model with random weights on a network's layer."""
    extractor = FeatureExtractor(network, layer)
    shape = extractor(torch.zeros(1, 3, *size_px)).shape[1:]
    random = torch.Generator().manual_seed(seed)
    readout = LinearReadout(
        torch.randn(len(sites), *shape, generator=random), torch.randn(len(sites), generator=random)
    )
    info = SiteInfo(tuple(sites), (0.0,) * len(sites), (1.0,) * len(sites), size_px, 6.0, "spikes/s", channels)
    return SiteModel(extractor, readout, info)


def smooth_network(channels=3):
    """A small network without kinks, so that finite differences are exact to second order."""
    with torch.random.fork_rng(devices=[]):
        network = nn.Sequential(
            nn.Conv2d(channels, 4, 5, stride=2),
            nn.Tanh(),
            nn.Conv2d(4, 5, 3),
            nn.Softplus(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(5, 3),
        )
    random = torch.Generator().manual_seed(3)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random) / parameter[0].numel() ** 0.5
    return network


@pytest.fixture(scope="module")
def every_network(lite0):
    """Backbones of several kinds with random weights; no downloads."""
    names = ("torchvision:resnet18", "torchvision:densenet121", "torchvision:swin_t", "timm:vit_tiny_patch16_224")
    with torch.random.fork_rng(devices=[]):
        return [lite0, *(load_backbone(name, pretrained=False) for name in names)]


def test_a_site_is_the_models_own_column_and_an_ensembles_too():
    network = smooth_network()
    one, two = model_on(network, "3"), model_on(network, "1", seed=1)
    images = random_images(3, 3, 32, 48)
    for model in (one, Ensemble([one, two])):
        assert torch.equal(target_function(model, "b")(images), model(images)[:, 1])
        assert names_of(model) == ("a", "b")
        assert target_name(model, "b") == "b"
        with pytest.raises(ValueError, match="no site 'aa'; did you mean 'a'"):
            target_function(model, "aa")
        with pytest.raises(TypeError, match="by its id, 0 came"):
            target_function(model, 0)


def test_a_class_is_the_networks_own_score(lite0, photos):
    images = torch.from_numpy(photos.images([0, 1]))
    given = (images - 127 / 255) / (128 / 255)
    scores = lite0.network(given)
    assert torch.allclose(target_function(lite0, "tabby")(images), scores[:, 281])
    assert torch.allclose(target_function("efficientnet-lite0", 281)(images), scores[:, 281])
    assert torch.allclose(target_function(lite0, "n02123045")(images), scores[:, 281])
    assert names_of(lite0)[281] == "tabby, tabby cat"
    for wrong, said in (("tabbi", "did you mean 'tabby'"), ("crane", "give one of the indices 134, 517")):
        with pytest.raises(ValueError, match=said):
            target_function(lite0, wrong)
    with pytest.raises(ValueError, match="classes 0 to 999, 1000 came"):
        target_function(lite0, 1000)(images)
    with pytest.raises(TypeError, match=r"an index or a name; 1\.5 came"):
        target_function(lite0, 1.5)


def test_a_layer_is_asked_by_channel_or_unit():
    extractor = FeatureExtractor(smooth_network(), "1")
    images = random_images(2, 3, 20, 30)
    maps = extractor(images)
    assert torch.equal(target_function(extractor, 2)(images), maps[:, 2].mean((1, 2)))
    assert torch.equal(target_function(extractor, (2, 1, 5))(images), maps[:, 2, 1, 5])
    assert target_name(extractor, (2, 1, 5)) == "1, channel 2 at 1, 5"
    for wrong in (4, (0, 0, 40), -1):
        with pytest.raises(ValueError, match="4 channels of 8 x 13 positions"):
            target_function(extractor, wrong)(images)
    with pytest.raises(ValueError, match=r"a channel or \(channel, row, column\); \(1, 2\) came"):
        target_function(extractor, (1, 2))


def test_networks_of_other_channels_names_and_sizes():
    spectrograms = random_images(2, 1, 24, 40)
    network = smooth_network(channels=1)
    assert torch.equal(target_function(network, 1)(spectrograms), network(spectrograms)[:, 1])
    gray, color = random_images(2, 1, 24, 24), smooth_network()
    assert torch.allclose(target_function(color, 0)(gray), color(gray.expand(-1, 3, -1, -1))[:, 0])
    with pytest.raises(ValueError, match="no names known here, 'cat' came; give the index"):
        target_function(network, "cat")
    network.class_names = ("cat", "dog")
    assert target_name(network, "dog") == "dog"
    assert torch.equal(target_function(network, "dog")(spectrograms), network(spectrograms)[:, 1])
    with torch.random.fork_rng(devices=[]):
        rigid = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 22 * 22, 3))
    fixed = Backbone("module:fixed", rigid, input_px=24, fixed_size=True)
    assert class_scores(fixed, random_images(1, 3, 50, 40)).shape == (1, 3)
    with pytest.raises(ValueError, match="expected class scores"):
        target_function(nn.Conv2d(3, 2, 3), 0)(gray)


@pytest.mark.parametrize("channels", [1, 3])
def test_saliency_equals_finite_differences_for_sites_and_classes(channels):
    network = smooth_network().double()
    model = model_on(network.float(), "3", channels=channels).double()
    images = random_images(2, channels, 32, 48).double()
    for owner, target in ((model, "b"), (network.double(), 2)):
        function = target_function(owner, target)
        found = saliency(owner, target, images)
        assert found.shape == (2, 32, 48)
        for image, row, column in ((0, 10, 20), (1, 3, 41), (1, 31, 0)):
            slopes = []
            for channel in range(channels):
                step = torch.zeros_like(images)
                step[image, channel, row, column] = 1e-5
                slopes.append(float((function(images + step) - function(images - step))[image] / 2e-5))
            assert float(found[image, row, column]) == pytest.approx(max(map(abs, slopes)), rel=1e-6, abs=1e-9)
    assert float(found.max()) > 0


def test_saliency_of_any_network_is_finite_and_leaves_no_trace(every_network, global_rng_untouched):
    images = random_images(1, 1, 64, 80)
    with global_rng_untouched():
        for backbone in every_network:
            found = saliency(backbone, 1, images)
            assert found.shape == (1, 64, 80)
            assert bool(found.isfinite().all())
            assert float(found.max()) > 0, backbone.name
    assert not images.requires_grad


def test_smooth_grad_is_the_mean_gradient_over_seeded_noise(global_rng_untouched):
    model = model_on(smooth_network(), "3")
    images = random_images(2, 3, 32, 48) * torch.tensor([1.0, 0.5]).view(2, 1, 1, 1)
    with global_rng_untouched():
        found = smooth_grad(model, "a", images, samples=20, noise=0.2, seed=5)
    function = target_function(model, "a")
    random = torch.Generator().manual_seed(5)
    sigma = 0.2 * (images[1].max() - images[1].min())
    drawn = [torch.normal(0.0, float(sigma), (n, 3, 32, 48), generator=random) for n in (16, 4)]
    wanted = target_gradients(function, images[1:] + torch.cat(drawn)).mean(0).abs().amax(0)
    assert torch.allclose(found[1], wanted, rtol=1e-4, atol=1e-7)
    assert torch.equal(found[1:], smooth_grad(model, "a", images[1:], samples=20, noise=0.2, seed=5))
    assert not torch.allclose(found, smooth_grad(model, "a", images, samples=20, noise=0.2, seed=6))
    with pytest.raises(ValueError, match="at least 1 sample"):
        smooth_grad(model, "a", images, samples=0)


def test_integrated_gradients_are_complete(lite0, photos):
    images = torch.from_numpy(photos.images([3, 7]))
    for owner, target, steps, error in (
        (model_on(smooth_network(), "3", (64, 64)), "b", 64, 1e-3),
        (lite0, 281, 200, 0.03),
    ):
        function = target_function(owner, target)
        found = integrated_gradients(owner, target, images, steps=steps)
        change = function(images) - function(torch.full_like(images, 0.5))
        assert found.shape == images.shape
        assert torch.allclose(found.sum((1, 2, 3)), change, rtol=error, atol=error * float(change.abs().max()))
    assert float(integrated_gradients(lite0, 281, images, baseline=images, steps=4).abs().max()) == 0
    with pytest.raises(ValueError, match="at least 1"):
        integrated_gradients(lite0, 281, images, steps=0)
    with pytest.raises(ValueError, match=r"baseline has shape \(3, 8, 8\), images .* one image, or one for each"):
        integrated_gradients(lite0, 281, images, baseline=torch.zeros(3, 8, 8))
    with pytest.raises(TypeError, match="baseline is 'black'; give a gray level"):
        integrated_gradients(lite0, 281, images, baseline="black")
    for view in (saliency, smooth_grad, integrated_gradients):
        with pytest.raises(ValueError, match="at least one image"):
            view(lite0, 281, images[:0])


def test_without_captum_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ImportError, match=r"neural-population-control\[inspect\]"):
        smooth_grad(smooth_network(), 0, random_images(1, 3, 20, 20))


def test_a_saliency_of_many_images_is_that_of_each():
    network = smooth_network()
    images = random_images(20, 3, 16, 16)
    together = saliency(network, 1, images)
    alone = torch.cat([saliency(network, 1, image[None]) for image in images])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-7)
