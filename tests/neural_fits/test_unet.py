"""The U-Net of 2015: its published shapes, tiles that equal one pass, and its place among the backbones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from neural_fits.backbones import Backbone, load_backbone
from neural_fits.features import FeatureExtractor
from neural_fits.networks.overlap_tile import mirrored, overlap_tile, untiled
from neural_fits.networks.saved import save_backbone
from neural_fits.networks.unet import UNet


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def whole_numbers(network):
    """Give a network small whole weights, so that sums are exact in whatever order they are taken."""
    drawn = generator(7)
    for weight in network.parameters():
        weight.copy_(torch.randint(-1, 2, weight.shape, generator=drawn))
    return network


def test_published_shapes():
    network = UNet()
    convolutions = [each for each in network.modules() if isinstance(each, (nn.Conv2d, nn.ConvTranspose2d))]
    assert len(convolutions) == 23
    narrow, sides = UNet(width=1), {}
    for name, module in narrow.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: sides.update({name: tuple(out.shape[1:])}))
    assert narrow(torch.zeros(1, 1, 572, 572)).shape == (1, 2, 388, 388)
    assert [sides[f"encoder.{k}"][1] for k in range(5)] == [568, 280, 136, 64, 28]
    assert [sides[f"up.{k}"][1] for k in range(4)] == [56, 104, 200, 392]
    assert [sides[f"decoder.{k}"][1] for k in range(4)] == [52, 100, 196, 388]
    widths = [network.encoder[k][2].out_channels for k in range(5)] + [each[2].out_channels for each in network.decoder]
    assert widths == [64, 128, 256, 512, 1024, 512, 256, 128, 64]
    assert [each[0].in_channels for each in network.decoder] == [1024, 512, 256, 128]
    assert sum(weight.numel() for weight in network.parameters()) == 31_030_658


def test_initial_weights_have_variance_two_over_incoming_and_leave_the_global_generator_alone():
    state = torch.random.get_rng_state()
    network = UNet(depth=2, width=32, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert network.encoder[1][2].weight.var().item() == pytest.approx(2 / (9 * 64), rel=0.05)
    assert network.up[0].weight.var().item() == pytest.approx(2 / 128, rel=0.05)
    assert not any(value.any() for name, value in network.named_parameters() if name.endswith("bias"))
    again, other = UNet(depth=2, width=32, seed=3), UNet(depth=2, width=32, seed=4)
    assert torch.equal(again.head.weight, network.head.weight)
    assert not torch.equal(other.head.weight, network.head.weight)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_sizes_that_fit_are_those_that_work(depth):
    network = UNet(depth=depth, width=1)
    for side in range(1, 2 * network.margin_px + 4 * network.step_px):
        try:
            told = network.output_px(side)
        except ValueError as error:
            with pytest.raises(ValueError, match="do not fit a U-Net"):
                network(torch.zeros(1, 1, side, side))
            near = [int(word) for word in str(error).split("give ")[1].split(" pixels")[0].split(" or ")]
            assert [network.output_px(each) for each in near]
        else:
            assert network(torch.zeros(1, 1, side, side)).shape[-1] == told == network.fitting_px(told)
    assert network.fitting_px(network.fitting_px(50) + 1, up=False) == network.fitting_px(50)


@pytest.mark.parametrize("size", [(16, 16), (33, 50), (9, 7), (1, 5)])
def test_same_padding_takes_any_size(size):
    network = UNet(3, 4, depth=3, width=2, padding="same")
    assert network(torch.rand((2, 3, *size), generator=generator())).shape == (2, 4, *size)


def test_mirroring_is_that_of_numpy_however_far():
    image = np.arange(12).reshape(3, 4)
    ours = mirrored(torch.from_numpy(image), 5, 9, 7, 2)
    np.testing.assert_array_equal(ours.numpy(), np.pad(image, ((5, 9), (7, 2)), mode="reflect"))
    assert mirrored(torch.tensor([[3]]), 1, 1, 0, 2).tolist() == [[3, 3, 3]] * 3


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(("padding", "up"), [("valid", "transposed"), ("same", "transposed"), ("same", "bilinear")])
def test_tiles_are_exactly_one_pass(padding, up, depth):
    network = whole_numbers(UNet(depth=depth, width=3, padding=padding, up=up)).double()
    for size in ((70, 53), (41, 64), (9, 8)):
        images = torch.randint(0, 3, (2, 1, *size), generator=generator(1)).double()
        with torch.no_grad():
            expected = untiled(network, images)
        assert expected.shape == (2, 2, *size)
        assert len(expected.unique()) > 20
        for tile_px in (1, 20, 33, 200):
            assert torch.equal(overlap_tile(network, images, tile_px=tile_px), expected), (size, tile_px)


def test_tiles_of_an_ordinary_network_are_one_pass_up_to_rounding():
    network = UNet(depth=2, width=6, seed=1)
    images = torch.rand((1, 1, 90, 70), generator=generator())
    with torch.no_grad():
        torch.testing.assert_close(overlap_tile(network, images, tile_px=32), untiled(network, images))


def test_an_unpadded_pass_is_the_middle_of_the_mirrored_one():
    network = UNet(depth=2, width=3)
    images = torch.rand((1, 1, 76, 60), generator=generator())
    with torch.no_grad():
        inner = network(images)
        middle = untiled(network, images)[..., 20:-20, 20:-20]
    assert inner.shape == middle.shape == (1, 2, 36, 20)
    torch.testing.assert_close(inner, middle)


@pytest.mark.parametrize("size", [(5, 8), (1, 3)])
def test_bilinear_maps_grow_as_those_of_torch_but_repeatably_on_every_device(size):
    maps = torch.rand((2, 4, *size), generator=generator()).double().requires_grad_()
    grow = UNet(depth=1, width=2, padding="same", up="bilinear").up[0][0]
    grown = grow(maps)
    torch.testing.assert_close(grown, nn.functional.interpolate(maps, scale_factor=2, mode="bilinear"))
    weights = torch.rand(grown.shape, generator=generator(1)).double()
    ours = torch.autograd.grad((grown * weights).sum(), maps)
    theirs = torch.autograd.grad((nn.functional.interpolate(maps, None, 2, "bilinear") * weights).sum(), maps)
    torch.testing.assert_close(ours, theirs)
    found, waiting = set(), [grown.grad_fn]
    while waiting:
        node = waiting.pop()
        found.add(node.name())
        waiting += [before for before, _ in node.next_functions if before is not None]
    assert len(found) > 3
    assert not [name for name in found if "Upsample" in name or "Index" in name]  # they add atomically on a GPU


def test_gray_is_zero_inside_and_channels_are_brought_to_those_of_the_network():
    network = UNet(depth=1, width=2, padding="same")
    assert not network(torch.full((1, 1, 8, 8), 0.5)).any()
    color = torch.rand((1, 3, 8, 8), generator=generator())
    assert torch.equal(network(color), network(color.mean(1, keepdim=True)))
    colored = UNet(3, depth=1, width=2, padding="same")
    assert torch.equal(colored(color[:, :1]), colored(color[:, :1].expand(-1, 3, -1, -1)))
    for images in (torch.zeros(1, 2, 8, 8), color[0]):
        with pytest.raises(ValueError, match=r"give \(image, channel, height, width\) with 3 or 1 channels"):
            colored(images)


@pytest.mark.parametrize(
    "change",
    [{"depth": 0}, {"width": 1.5}, {"classes": True}, {"padding": "zero"}, {"norm": "layer"}, {"up": "bilinear"}],
)
def test_impossible_networks_are_refused(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} of a U-Net is"):
        UNet(**change)


def test_normalized_networks_and_tiles():
    images = torch.rand((1, 3, 40, 30), generator=generator())
    batch = UNet(3, depth=2, width=4, padding="same", norm="batch")
    before = {name: value.clone() for name, value in batch.state_dict().items()}
    with pytest.raises(ValueError, match="call its eval"):
        overlap_tile(batch, images)
    assert all(torch.equal(before[name], value) for name, value in batch.state_dict().items())
    batch.eval()
    with torch.no_grad():
        torch.testing.assert_close(overlap_tile(batch, images, tile_px=12), untiled(batch, images))
    drawing = UNet(3, depth=2, width=4, padding="same", norm="instance", up="bilinear")
    assert untiled(drawing, images).shape == (1, 2, 40, 30)
    with pytest.raises(ValueError, match="depends on the whole image"):
        overlap_tile(drawing, images)


def test_every_layer_is_read_as_a_backbone_and_survives_saving(tmp_path):
    network = UNet(3, 2, depth=2, width=4, padding="same", seed=5)
    backbone = Backbone(
        "unet:scenes", network, input_px=32, built_from={"architecture": "unet", "config": network.config}
    )
    images = torch.rand((2, 1, 36, 28), generator=generator())
    shapes = {"encoder.0": (4, 36, 28), "encoder.2": (16, 9, 7), "up.0": (8, 18, 14), "decoder.1": (4, 36, 28)}
    save_backbone(backbone, tmp_path / "net")
    again = load_backbone(f"saved:{tmp_path / 'net'}")
    for layer, shape in shapes.items():
        features = FeatureExtractor(backbone, layer)(images)
        assert features.shape == (2, *shape)
        assert torch.equal(FeatureExtractor(again, layer)(images), features)
