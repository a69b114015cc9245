"""What every view does with images that are none, and with a plain module that a user goes on training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from inspection_models import model_of, noise
from torch import nn

from neural_fits.backbones import Backbone
from neural_fits.features import FeatureExtractor
from neural_fits.inspection.class_activation import class_activation_maps
from neural_fits.inspection.filter_cues import cue_combination_maps
from neural_fits.inspection.grad_cam import grad_cam
from neural_fits.inspection.receptive_fields import gradient_fields
from neural_fits.inspection.saliency import integrated_gradients, saliency, smooth_grad
from neural_fits.inspection.site_activation import site_activation_maps
from neural_fits.inspection.spectral_tuning import TuningConfig, site_tunings, spectral_tuning
from stimuli import StimulusSet

TUNING = TuningConfig(iterations=1, octaves=1.0, orientations=2)

#: of any classifier
VIEWS = {
    "class_activation_maps": lambda network, images: class_activation_maps(network, images, top=1).maps,
    "cue_combination_maps": lambda network, images: (
        cue_combination_maps(network, images, [1] * len(images), signed=True).maps
    ),
    "grad_cam": lambda network, images: grad_cam(network, 1, images),
    "saliency": lambda network, images: saliency(network, 1, images),
    "smooth_grad": lambda network, images: smooth_grad(network, 1, images, samples=2),
    "integrated_gradients": lambda network, images: integrated_gradients(network, 1, images, steps=4),
}


def classifier():
    with torch.random.fork_rng(devices=[]):
        network = nn.Sequential(
            *(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
        )
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        weight.data = torch.randn(weight.shape, generator=generator)
    return network


def model():
    extractor = FeatureExtractor(Backbone("module:normalized", classifier()[:3], mean=(0.5, 0.5, 0.5)), "0")
    return model_of(extractor, (12, 16))


def spoiled():
    images = noise(4, 3, 12, 16)
    images[2, 0, 3, 3] = torch.nan
    return images


WRONG = {
    "8-bit": ((noise(2, 3, 12, 16) * 255).to(torch.uint8), TypeError, r"torch\.uint8.*8-bit images / 255"),
    "8-bit array": (np.zeros((2, 3, 12, 16), np.uint8), TypeError, r"ndarray; expected a StimulusSet, or floating"),
    "channels last": (
        noise(2, 12, 16, 3),
        ValueError,
        r"\(2, 12, 16, 3\): channels last\? permute to \(image, channel",
    ),
    "one image": (noise(3, 12, 16), ValueError, r"shape \(3, 12, 16\); expected \(image, channel"),
    "none": (noise(0, 3, 12, 16), ValueError, "at least one image"),
    "not finite": (spoiled(), ValueError, "image 2 has values that are not finite"),
    "0 to 255": (noise(2, 3, 12, 16) * 255, ValueError, r"values from .* to 25\d.*; expected 0 to 1"),
}


@pytest.mark.parametrize("wrong", list(WRONG))
def test_what_is_no_image_is_named_by_every_view(wrong):
    images, kind, said = WRONG[wrong]
    normalized = Backbone("module:normalized", classifier(), mean=(0.5, 0.5, 0.5))
    for view in VIEWS.values():
        with pytest.raises(kind, match=said):
            view(normalized, images)
    fitted = model()
    for site_view in (site_activation_maps, lambda *given: saliency(given[0], "a", given[1])):
        with pytest.raises(kind, match=said):
            site_view(fitted, images)


#: a site's, in a network or in a model of sites
FORMS = {
    **VIEWS,
    "gradient_fields": lambda network, images: gradient_fields(network, [1], images, size_deg=8.0).maps,
    "spectral_tuning": lambda network, images: spectral_tuning(network, 1, images, TUNING, size_deg=8.0).correlation,
}
SITE_FORMS = {
    "site_activation_maps": site_activation_maps,
    "saliency": lambda model, images: saliency(model, "a", images),
    "smooth_grad": lambda model, images: smooth_grad(model, "a", images, samples=2),
    "integrated_gradients": lambda model, images: integrated_gradients(model, "a", images, steps=4),
    "grad_cam": lambda model, images: grad_cam(model, "a", images),
    "gradient_fields": lambda model, images: gradient_fields(model, "a", images).maps,
    "site_tunings": lambda model, images: site_tunings(model, images, "a", TUNING)["a"].correlation,
}


@pytest.mark.parametrize("view", [*FORMS, *(f"site: {each}" for each in SITE_FORMS)])
def test_a_stimulus_set_and_an_array_are_the_tensor_of_their_images(view):
    codes = np.random.default_rng(0).integers(0, 256, (4, 3, 12, 16), dtype=np.uint8)
    stimuli = StimulusSet.from_arrays(codes, size_deg=8.0)
    images = torch.from_numpy(stimuli.images())
    look, network = FORMS.get(view), classifier()
    if look is None:
        look, network = SITE_FORMS[view.removeprefix("site: ")], model()
        with pytest.raises(ValueError, match="4 deg wide, the model was fitted on images of 8 deg"):
            look(network, StimulusSet.from_arrays(codes, size_deg=4.0))
    wanted = look(network, images)
    for given in (stimuli, stimuli.images().astype(np.float64), stimuli.images()[:, :, :, ::-1].copy()[:, :, :, ::-1]):
        np.testing.assert_allclose(look(network, given), wanted, rtol=1e-5, atol=1e-6)


def test_a_plain_module_may_take_any_range():
    for name, view in VIEWS.items():
        assert view(classifier(), noise(2, 3, 12, 16) * 40 - 20).isfinite().all(), name


@pytest.mark.parametrize("view", list(VIEWS))
def test_a_plain_module_is_left_as_it_was(view):
    network = classifier().train()
    network[1].eval()
    network[0].bias.requires_grad_(False)
    before = [(w.requires_grad, w.data_ptr(), w.stride(), w.detach().clone()) for w in network.parameters()]
    buffers = [each.clone() for each in network.buffers()]
    VIEWS[view](network, noise(2, 3, 12, 16))
    assert [module.training for module in network.modules()] == [True, True, False, True, True, True, True]
    for weight, (wanted, place, stride, values) in zip(network.parameters(), before, strict=True):
        assert (weight.requires_grad, weight.data_ptr(), weight.stride()) == (wanted, place, stride)
        assert torch.equal(weight, values)
    assert all(torch.equal(a, b) for a, b in zip(network.buffers(), buffers, strict=True))


@pytest.mark.parametrize("view", list(VIEWS))
def test_images_of_another_precision_become_the_networks(view):
    images = noise(2, 3, 12, 16)
    torch.testing.assert_close(VIEWS[view](classifier(), images.double()), VIEWS[view](classifier(), images))
    single = VIEWS[view](classifier(), images.half())
    torch.testing.assert_close(single, VIEWS[view](classifier(), images.half().float()))
    assert VIEWS[view](classifier().double(), images).dtype == torch.float64


def test_images_go_through_the_network_in_batches():
    sizes = []
    network, fitted = classifier(), model()
    for each in (network, fitted.extractor.network):
        each[0].register_forward_pre_hook(lambda _module, inputs: sizes.append(len(inputs[0])))
    images = noise(40, 3, 12, 16)
    whole = class_activation_maps(network, images, classes=[0, 1])
    cue_combination_maps(network, images, [1] * 40, signed=True)
    sites = site_activation_maps(fitted, images)
    grad_cam(network, 1, images)
    assert max(sizes) == 16
    for k in (0, 15, 16, 39):
        alone = class_activation_maps(network, images[k : k + 1], classes=[0, 1])
        torch.testing.assert_close(whole.maps[k : k + 1], alone.maps)
        torch.testing.assert_close(sites[k : k + 1], site_activation_maps(fitted, images[k : k + 1]))
