"""A planted receptive field is found where it was planted, and the theoretical field is that of the arithmetic."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from neural_fits.backbones import load_backbone
from neural_fits.features import FeatureExtractor, feature_positions
from neural_fits.inspection.receptive_fields import GradientFields, gradient_fields, layer_support
from neural_fits.readout import LinearReadout
from neural_fits.site_model import Ensemble, SiteInfo, SiteModel
from stimuli import natural_photos

LAYERS = {
    "efficientnet-lite0": "blocks.2",
    "torchvision:resnet18": "layer2",
    "torchvision:vgg11": "features.10",
    "torchvision:densenet121": "features.denseblock2",
    "torchvision:mobilenet_v3_small": "features.6",
    "torchvision:convnext_tiny": "features.3",
    "torchvision:swin_t": "features.3",
    "timm:vit_tiny_patch16_224": "blocks.3",
}


@cache
def untrained(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # or the field would depend on the tests before
        return load_backbone(name, pretrained=name.startswith("efficientnet"))


def planted(network, layer, places, size_px, channels=3, seed=0, size_deg=6.0):
    """Sites that each read one position of the map with random weights, and where these positions are."""
    extractor = FeatureExtractor(network, layer)
    shape = extractor(torch.zeros(1, 3, *size_px)).shape[1:]
    random = torch.Generator().manual_seed(seed)
    weight = torch.zeros(len(places), *shape)
    centers = []
    positions = feature_positions(extractor, size_px, size_deg)
    for site, (down, across) in enumerate(places):
        row, column = int(down * (shape[1] - 1)), int(across * (shape[2] - 1))
        weight[site, :, row, column] = torch.randn(shape[0], generator=random)
        centers.append(positions[row, column])
    names = tuple(f"s{k}" for k in range(len(places)))
    ones = (1.0,) * len(places)
    info = SiteInfo(names, ones, ones, size_px, size_deg, "spikes", channels)
    model = SiteModel(extractor, LinearReadout(weight, torch.zeros(len(places))), info)
    return model, np.array(centers), size_deg / shape[2]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_planted_field_is_found_within_one_feature_cell(name, channels):
    backbone = untrained(name)
    images = torch.from_numpy(natural_photos(6, 96, channels=channels).images())
    # not square, for networks that take it
    images = images if backbone.fixed_size or "swin" in name else images[:, :, 16:80]
    places = ((0.25, 0.3), (0.8, 0.55), (0.5, 0.75))
    model, centers, cell = planted(backbone, LAYERS[name], places, tuple(images.shape[-2:]), channels)
    table = gradient_fields(model, model.site_ids, images).table()
    found = table[["rf_x_deg", "rf_y_deg"]].to_numpy()
    assert np.abs(found - centers).max() < cell, (found - centers) / cell
    assert (table["rf_sd_deg"] < 2.5 * cell).all()


def test_two_members_share_a_field_and_other_targets_have_one(lite0):
    images = torch.from_numpy(natural_photos(6, 64).images())
    first, centers, cell = planted(lite0, "blocks.2", ((0.3, 0.3),), (64, 64))
    second, _, _ = planted(lite0, "blocks.3", ((0.3, 0.3),), (64, 64), seed=1)
    fields = gradient_fields(Ensemble([first, second]), ["s0"], images)
    assert np.abs(fields.table()[["rf_x_deg", "rf_y_deg"]].to_numpy() - centers).max() < 2 * cell
    extractor = FeatureExtractor(lite0, "blocks.2")
    units = gradient_fields(extractor, [(0, 2, 2), 0], images, size_deg=8.0)
    table = units.table()
    assert table.index.tolist() == ["blocks.2, channel 0 at 2, 2", "blocks.2, channel 0"]
    assert table["rf_x_deg"].iloc[0] == pytest.approx(-1.5, abs=1.0)
    assert table["rf_sd_deg"].iloc[1] > 1.5 * table["rf_sd_deg"].iloc[0]
    with pytest.raises(ValueError, match="give size_deg"):
        gradient_fields(extractor, [0], images)
    with pytest.raises(ValueError, match="at least one image"):
        gradient_fields(first, ["s0"], images[:0])


def test_one_target_needs_no_list_and_the_table_counts_images(lite0):
    photos = natural_photos(3, 64).on_screen(size_deg=6.0)
    images = torch.from_numpy(photos.images())
    model, *_ = planted(lite0, "blocks.2", ((0.3, 0.3), (0.8, 0.8)), (64, 64))
    listed = gradient_fields(model, ["s1"], images)
    alone = gradient_fields(model, "s1", images)
    assert alone.names == listed.names == ("s1",)
    np.testing.assert_array_equal(alone.maps, listed.maps)
    assert gradient_fields(model, None, images).names == ("s0", "s1")
    assert alone.table()["n_images"].tolist() == [3]
    unit = gradient_fields(FeatureExtractor(lite0, "blocks.2"), 0, photos)  # the set knows its width
    assert (unit.names, unit.size_deg) == (("blocks.2, channel 0",), 6.0)
    for network, none in ((model, []), (lite0, []), (lite0, None)):
        with pytest.raises(ValueError, match=r"no (site|target) was given"):
            gradient_fields(network, none, images, size_deg=6.0)
    with pytest.raises(ValueError, match=r"size_deg is 4, but the model .* 6 deg"):
        gradient_fields(model, "s1", images, size_deg=4.0)


def test_the_map_is_the_mean_energy_of_the_gradient():
    weights = torch.tensor([[1.0, -2.0], [0.0, 3.0]])
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 1))
    network[1].weight.data = weights.flatten().repeat(3)[None]
    fields = gradient_fields(network, [0], torch.rand(3, 3, 2, 2), size_deg=2.0)
    np.testing.assert_allclose(fields.maps[0], weights.square() / 14, rtol=1e-6)
    assert fields.table().loc["class 0"].tolist() == [0.5, -0.5, 0.0, 3.0]  # the one pixel above half of the maximum


def test_a_silent_site_has_no_center():
    silent = GradientFields(("a",), np.zeros((1, 4, 4)), 4.0).table()
    assert silent.isna().all().all()


@pytest.mark.parametrize(
    ("name", "layer", "side", "center"),
    [("alexnet", "features.3", 51, 79.5), ("resnet18", "layer2", 99, 64.5), ("vgg11", "features.10", 30, 68)],
)
def test_support_is_the_theoretical_field(name, layer, side, center):
    """Sides as ``r = 1 + sum_l (k_l - 1) prod_(i < l) s_i`` gives them for kernels k and strides s."""
    extractor = FeatureExtractor(untrained(f"torchvision:{name}"), layer)
    found = layer_support(extractor, (128, 160))
    assert found.size_px == (side, side)
    assert (found.box[0] + found.box[2]) / 2 == pytest.approx(center, abs=16)
    corner = layer_support(extractor, (128, 160), position=(0, 0))
    assert corner.box[:2] == (0, 0)
    assert corner.size_px[0] < side


def test_support_of_attention_is_the_whole_image_and_a_wrong_place_is_named():
    extractor = FeatureExtractor(untrained("timm:vit_tiny_patch16_224"), "blocks.0")
    assert layer_support(extractor, (96, 96), samples=1).box == (0, 0, 96, 96)
    with pytest.raises(ValueError, match="14 rows and 14 columns"):
        layer_support(extractor, (96, 96), position=(14, 0))
    with pytest.raises(ValueError, match=r"position is \(0,\), .* give \(row, column\)"):
        layer_support(extractor, (96, 96), position=(0,))
