"""Lucent's parts do in our loop what they do in lucent, image by image, and ours do in lucent what they do here."""

from __future__ import annotations

import functools
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from neural_fits.features import FeatureExtractor
from neural_fits.readout import LinearReadout
from neural_fits.site_model import Ensemble, SiteInfo, SiteModel
from synth.image_params import Fourier
from synth.lucent_bridge import (
    from_lucent_param,
    from_lucent_transforms,
    render_options,
    to_lucent,
    without_hooks,
)
from synth.objectives import OneHot, SiteScale, Stretch
from synth.random_streams import Streams

pytest.importorskip("lucent", reason="the bridge needs torch-lucent: pip install '.[lucent]'")

from lucent.optvis import param, render, transform
from lucent.optvis.param import color, spatial


def drawn(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def streams(*keys, step=0):
    return Streams(torch.tensor(keys), torch.full((len(keys),), step))


def state_of_generators():
    return random.getstate(), repr(np.random.get_state()), torch.random.get_rng_state().tolist()  # noqa: NPY002


# params


@pytest.mark.parametrize("decorrelate", [True, False])
@pytest.mark.parametrize("fft", [True, False])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (15, 20), (12, 17)])
def test_params_render_the_images_they_start_from(height, width, fft, decorrelate):
    images = 0.01 + 0.98 * drawn(2, 3, height, width)
    make = from_lucent_param(functools.partial(param.image, width, height, fft=fft, decorrelate=decorrelate))
    made = make(images)
    torch.testing.assert_close(made().detach(), images, atol=2e-5, rtol=0)
    assert len(made.latent) == 2
    assert [each is made.latent for each in made.parameters()] == [True]


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (1, 3, 9, 13)])
def test_raw_params_render_the_images_they_are_put_to(shape):
    for made_by in (spatial.pixel_image, spatial.fft_image):
        images = drawn(*shape)
        made = from_lucent_param(lambda batch, f=made_by: f((batch, *shape[1:])), name="raw")(images)
        torch.testing.assert_close(made().detach(), images, atol=1e-5, rtol=0)
        made.latent.data += 10
        made.project_(images)
        torch.testing.assert_close(made().detach(), images, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (15, 20), (12, 17)])
def test_same_latent_same_image_as_our_fourier(height, width):
    start = torch.full((2, 3, height, width), 0.5)
    theirs = from_lucent_param(functools.partial(param.image, width, height))(start)
    ours = Fourier(start, color=torch.from_numpy(color.color_correlation_normalized))
    latent = torch.randn(theirs.latent.shape, generator=torch.Generator().manual_seed(1))
    theirs.latent.data.copy_(latent)
    ours.latent.data.copy_(latent[..., : width // 2 + 1, :].reshape(ours.latent.shape))
    assert theirs().std() > 0.1
    torch.testing.assert_close(ours(), theirs(), atol=1e-5, rtol=0)


def test_one_slot_is_refilled_and_the_gradient_is_its_own():
    made = from_lucent_param(functools.partial(param.image, 8))(drawn(3, 3, 8, 8))
    before = made().detach()
    new = 0.01 + 0.98 * drawn(1, 3, 8, 8, seed=5)
    with torch.no_grad():
        made.latent[1] = made.encode(new)[0]
    torch.testing.assert_close(made()[1:2], new, atol=2e-5, rtol=0)
    torch.testing.assert_close(made()[[0, 2]], before[[0, 2]], atol=0, rtol=0)
    (gradient,) = torch.autograd.grad(made()[1].sum(), made.latent)
    assert gradient[1].abs().sum() > 0
    assert gradient[[0, 2]].abs().sum() == 0


def test_start_of_a_param_leaves_the_generators_alone():
    before = state_of_generators()
    from_lucent_param(functools.partial(param.image, 8))(drawn(1, 3, 8, 8))
    assert state_of_generators() == before


def test_params_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="one tensor with the image axis first"):
        from_lucent_param(lambda batch: param.cppn(8), name="cppn")(drawn(2, 3, 8, 8))
    with pytest.raises(ValueError, match=r"renders \(1, 3, 8, 8\)"):
        from_lucent_param(functools.partial(param.image, 8))(drawn(1, 3, 9, 9))
    tensor = torch.zeros(2, 3, 8, 8, requires_grad=True)
    with pytest.raises(ValueError, match="give encode="):
        from_lucent_param(lambda batch: ([tensor], lambda: tensor.sigmoid()), name="own")(drawn(2, 3, 8, 8))
    with pytest.raises(ValueError, match="name="):
        from_lucent_param(lambda batch: param.image(8, batch=batch))


# transforms


@pytest.mark.parametrize("fit", ["crop", "resize"])
def test_each_image_has_its_own_draw_whatever_its_place(fit):
    wrapped = from_lucent_transforms(transform.standard_transforms, fit=fit)
    image = drawn(1, 3, 24, 20)
    before = state_of_generators()
    views = wrapped(image.expand(3, -1, -1, -1), streams(7, 8, 7))
    assert state_of_generators() == before
    assert views.shape == (3, 3, 24, 20)
    assert torch.equal(views[0], views[2])
    assert not torch.equal(views[0], views[1])
    assert torch.equal(wrapped(image, streams(8)), views[1:2])
    assert not torch.equal(wrapped(image, streams(8, step=1)), views[1:2])


def test_transforms_do_to_an_image_what_lucent_does():
    shifts = {
        tuple(int(at) for at in from_lucent_transforms([transform.jitter(3)])(point, streams(key))[0, 0].nonzero()[0])
        for key in range(60)
        for point in [torch.zeros(1, 1, 8, 8).index_put((torch.tensor(0),) * 4, torch.tensor(1.0))]
    }
    assert shifts == {(row, column) for row in range(3) for column in range(3)}


def test_a_pad_is_cropped_away_again_and_resized_by_lucents_rule():
    image = drawn(1, 3, 10, 12)
    pad = transform.pad(3, mode="constant", constant_value=0.5)
    assert torch.equal(from_lucent_transforms([pad])(image, streams(1)), image)
    expected = nn.Upsample(size=(10, 12), mode="bilinear", align_corners=True)(pad(image))
    assert torch.equal(from_lucent_transforms([pad], fit="resize")(image, streams(1)), expected)


def test_gradients_pass_the_transforms():
    image = drawn(1, 3, 16, 16).requires_grad_()
    from_lucent_transforms(transform.standard_transforms)(image, streams(3)).square().sum().backward()
    assert (image.grad != 0).float().mean() > 0.5


def test_torch_and_python_draws_are_of_the_stream_too():
    draws = (lambda: torch.rand(1), random.random, np.random.rand)
    noisy = from_lucent_transforms([lambda x, draw=draw: x + draw() for draw in draws], name="noisy")
    image = torch.ones(1, 1, 2, 2)
    torch.manual_seed(0)
    first = noisy(image, streams(1))
    torch.manual_seed(1)
    assert torch.equal(noisy(image, streams(1)), first)
    assert not torch.equal(noisy(image, streams(2)), first)


def test_names_tell_transforms_apart_in_every_process():
    standard = from_lucent_transforms(transform.standard_transforms)
    assert "jitter(d=8), random_scale(scales=[0.9, " in repr(standard)
    assert standard == from_lucent_transforms(list(transform.standard_transforms))
    assert repr(from_lucent_transforms([transform.jitter(4)])) != repr(from_lucent_transforms([transform.jitter(5)]))
    with pytest.raises(ValueError, match="name="):
        from_lucent_transforms([lambda x: x])
    with pytest.raises(ValueError, match="did you mean 'crop'"):
        from_lucent_transforms([], fit="cropp")


# ours inside render_vis


@pytest.mark.parametrize("objective", [Stretch("b"), OneHot("a", temperature=2.0), Stretch("a") - 0.5 * Stretch("c")])
def test_our_objectives_have_the_same_value_in_lucent(tiny_model, objective):
    model = tiny_model()
    ensemble = Ensemble([model, tiny_model(seed=1)])
    images = drawn(3, 3, 32, 32).requires_grad_()
    for driver in (model, ensemble):
        expected = objective.score(driver(images), SiteScale.of(driver))
        with without_hooks(driver):
            layers = render.hook_model(driver, lambda: images)
            driver(images)
            whole, second = (to_lucent(objective, driver, batch=batch)(layers) for batch in (None, 1))
        torch.testing.assert_close(whole, -expected.sum())
        torch.testing.assert_close(second, -expected[1])
        (gradient,) = torch.autograd.grad(whole, images)
        (ours,) = torch.autograd.grad(-expected.sum(), images)
        torch.testing.assert_close(gradient, ours)
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("transforms", [[], None])
def test_render_vis_climbs_for_our_model(transforms):
    extractor = FeatureExtractor("efficientnet-lite0", "blocks.2")
    weight = torch.zeros(2, 40, 8, 8)
    weight[0, 5] = weight[1, 9] = 1 / 64
    model = SiteModel(
        extractor,
        LinearReadout(weight, torch.zeros(2)),
        SiteInfo(("a", "b"), (0.0,) * 2, (1.0,) * 2, (64, 64), 8.0, "Hz"),
    )
    hooks = [len(module._forward_hooks) for module in model.modules()]
    with without_hooks(model), torch.random.fork_rng():
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        options = render_options(model) | {"transforms": transforms}
        first, last = render.render_vis(model, to_lucent(Stretch("a"), model), thresholds=(1, 12), **options)
    assert first.shape == (1, 64, 64, 3)
    before, after = (model(torch.from_numpy(image).permute(0, 3, 1, 2))[0, 0] for image in (first, last))
    assert after > before + 1
    assert [len(module._forward_hooks) for module in model.modules()] == hooks


def test_different_targets_in_one_batch_of_render_vis(tiny_model):
    model = tiny_model(sites=("a", "b"))
    both = to_lucent(Stretch("a"), model, batch=0) + to_lucent(Stretch("b"), model, batch=1)
    with without_hooks(model), torch.random.fork_rng():
        torch.manual_seed(0)
        options = render_options(model) | {"param_f": lambda: param.image(32, batch=2), "transforms": []}
        first, last = render.render_vis(model, both, thresholds=(1, 12), **options)
    before, after = (model(torch.from_numpy(images).permute(0, 3, 1, 2)).diagonal() for images in (first, last))
    assert (after > before + 0.1).all()


def test_a_misspelt_site_shows_before_lucent_runs(tiny_model):
    with pytest.raises(ValueError, match="there is no site 'A'"):
        to_lucent(Stretch("A"), tiny_model())


def test_without_hooks_keeps_what_was_there():
    network = nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.Sequential(nn.ReLU()))
    network[0].register_forward_hook(lambda *_: None)
    with without_hooks(network):
        render.hook_model(network, lambda: None)
    assert [len(module._forward_hooks) for module in network.modules()] == [0, 1, 0, 0, 0]


def test_synth_does_not_need_lucent():
    script = (
        "import sys; sys.modules['lucent'] = None\n"
        "import synth.lucent_bridge as bridge\n"
        "import torch\n"
        "try: bridge.from_lucent_objective('0:1', torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1)), size_px=8)\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "neural-population-control[lucent]" in done.stdout
