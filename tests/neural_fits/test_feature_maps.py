"""Axes of a layer's output, told by what the network computes where: a bright corner must show up in that corner."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from neural_fits._feature_maps import as_map
from neural_fits.features import FeatureExtractor


class ChannelsLast(nn.Module):
    """A convolution whose output is (image, height, width, channel), as in Swin."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 4, stride=4)
        self.turn = nn.Identity()

    def forward(self, images):
        return self.turn(self.conv(images).permute(0, 2, 3, 1))


@pytest.mark.parametrize("size", [(32, 32), (32, 64), (64, 32), (48, 64), (64, 64)])
@pytest.mark.parametrize("channels", [5, 8, 16])
def test_channels_last_equals_channels_first(size, channels):
    network = ChannelsLast(channels)
    first, last = FeatureExtractor(network, "conv"), FeatureExtractor(network, "turn")
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first(images), last(images))  # with channels = height = width too


def test_tokens_stand_on_the_grid_of_images_that_are_not_square():
    network = timm.create_model("vit_tiny_patch16_224", pretrained=False, dynamic_img_size=True)
    extractor = FeatureExtractor(network, "patch_embed")
    images = torch.zeros(1, 3, 96, 160)
    images[..., :16, 144:] = 1.0  # the upper right patch
    dark = extractor(torch.zeros_like(images))
    changed = (extractor(images) - dark).abs().sum(1)[0]
    assert changed.shape == (6, 10)
    assert changed.argmax() == 9
    assert (changed > 0).sum() == 1


def test_tokens_that_form_no_grid_are_refused():
    with pytest.raises(ValueError, match="50 tokens, which form no grid over images of 64 x 200 px"):
        as_map(torch.zeros(1, 50, 4), "blocks.1", (64, 200))


def test_layers_with_channels_first_by_definition_are_never_turned():
    collapsed = torch.zeros(1, 16, 20, 1)  # of 40 x 48: as 16 x 20 positions it would fit better
    for module in (nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.AvgPool2d(2)):
        assert as_map(collapsed, "it", (40, 48), module).shape == (1, 16, 20, 1)
        assert as_map(torch.zeros(1, 8, 8, 8), "it", (8, 8), module).shape == (1, 8, 8, 8)
    assert as_map(collapsed, "it", (40, 48)).shape == (1, 1, 16, 20)
