"""Maps of what each position adds to a site's response: they sum to the response."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from inspection_models import model_of, noise
from torch import nn

from neural_fits import inspection
from neural_fits.backbones import Backbone, load_backbone
from neural_fits.features import FeatureExtractor
from neural_fits.fit import fit_sites
from neural_fits.inspection._grids import on_grid
from neural_fits.inspection.site_activation import site_activation_maps, site_offsets
from neural_fits.site_model import Ensemble


def error(model, images, maps):
    responses = model(images)
    return float((maps.sum((2, 3)) + site_offsets(model) - responses).abs().max() / responses.abs().max())


CASES = {
    "embedded": ("efficientnet-lite0", "blocks.2", (64, 96), 3),
    "gray, several layers": ("efficientnet-lite0", ("blocks.1", "blocks.3"), (64, 64), 1),
    "residual": ("torchvision:resnet18", "layer2", (32, 48), 3),
    "tokens": ("timm:vit_tiny_patch16_224", "blocks.1", (48, 48), 3),
    "channels last": ("torchvision:swin_t", "features.1", (32, 48), 1),
    "convnext": ("torchvision:convnext_tiny", "features.3", (64, 48), 3),
}


@pytest.mark.parametrize("case", list(CASES))
def test_sum_and_offset_are_the_predicted_response(case):
    name, layer, size, channels = CASES[case]
    extractor = FeatureExtractor(load_backbone(name, pretrained=False), layer)
    model = model_of(extractor, size, channels=channels)
    images = noise(3, channels, *size)
    maps = site_activation_maps(model, images)
    assert maps.shape[:2] == (3, 3)
    assert maps.shape[2:] == model.readout.weight.shape[2:]
    assert error(model, images, maps) < 1e-5


@pytest.mark.parametrize("readout", ["ridge", "factorized", "local"])
def test_every_kind_of_readout(readout, photos, brain, lite0):
    kept = photos.select(np.arange(60))
    recorded = brain.record(kept, n_repeats=4)
    model = fit_sites(kept, recorded, backbone=lite0, layer="blocks.3", readout=readout, folds=2)
    images = torch.from_numpy(kept.images(range(5)))
    assert error(model, images, site_activation_maps(model, images)) < 1e-5


def test_map_is_the_readout_times_the_features(lite0):
    model = model_of(FeatureExtractor(lite0, "blocks.2"), (64, 64))
    images = noise(2, 3, 64, 64)
    features, weight = model.extractor(images).double().numpy(), model.readout.weight.double().numpy()
    expected = np.stack([[(features[n] * weight[s]).sum(0) for s in (2, 0)] for n in range(2)])
    np.testing.assert_allclose(site_activation_maps(model, images, ["c", "a"]), expected, rtol=1e-3, atol=1e-3)
    assert inspection.site_offsets is site_offsets  # part of the interface
    torch.testing.assert_close(site_offsets(model, ["c", "a"]), model.readout.bias[[2, 0]])


def test_planted_position_is_where_the_map_is(lite0):
    model = model_of(FeatureExtractor(lite0, "blocks.2"), (64, 96), sites=1)
    model.readout.weight[:] = 0
    model.readout.weight[0, :, 5, 9] = 1
    maps = site_activation_maps(model, noise(2, 3, 64, 96), "a")
    rest = maps.clone()
    rest[:, :, 5, 9] = 0
    assert not rest.any()
    assert (maps[:, 0, 5, 9] != 0).all()


def test_ensemble_of_members_of_different_grids(lite0):
    extractors = [FeatureExtractor(lite0, layer) for layer in ("blocks.2", "blocks.4")]
    other = FeatureExtractor(lite0, "blocks.3", input_px=96)  # 6 x 6, no multiple of the others
    members = [model_of(each, (64, 96), seed=k) for k, each in enumerate([*extractors, other])]
    ensemble, images = Ensemble(members), noise(2, 3, 64, 96)
    maps = site_activation_maps(ensemble, images)
    assert maps.shape == (2, 3, 8, 12)
    assert error(ensemble, images, maps) < 1e-5
    mean = sum(on_grid(site_activation_maps(member, images), (8, 12)) for member in members) / 3
    torch.testing.assert_close(maps, mean)


@pytest.mark.parametrize(("old", "new"), [((2, 3), (4, 9)), ((6, 6), (8, 12)), ((5, 7), (3, 4)), ((1, 1), (3, 3))])
def test_another_grid_keeps_the_sum_and_the_place(old, new):
    maps = noise(2, *old).double() - 0.5
    moved = on_grid(maps, new)
    torch.testing.assert_close(moved.sum((1, 2)), maps.sum((1, 2)))
    # independently: repeat every cell so often that both grids divide the fine one, then add up blocks
    fine = maps.repeat_interleave(new[0], 1).repeat_interleave(new[1], 2) / (new[0] * new[1])
    blocks = fine.reshape(2, new[0], old[0], new[1], old[1]).sum((2, 4))
    torch.testing.assert_close(moved, blocks)


def test_layer_without_space_names_the_alternative():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1))
    model = model_of(FeatureExtractor(Backbone("module:pooled", network), "1"), (16, 16))
    with pytest.raises(ValueError, match=r"has no space .* use saliency"):
        site_activation_maps(model, noise(1, 3, 16, 16))


def test_wrong_sites_and_sizes_are_named(lite0):
    model = model_of(FeatureExtractor(lite0, "blocks.2"), (64, 64))
    with pytest.raises(ValueError, match="no site 'z'"):
        site_activation_maps(model, noise(1, 3, 64, 64), ["a", "z"])
    with pytest.raises(ValueError, match="no site was given"):
        site_activation_maps(model, noise(1, 3, 64, 64), [])
    with pytest.raises(TypeError, match=r"by its id, 3 came"):
        site_activation_maps(model, noise(1, 3, 64, 64), 3)
    for wrong in ("efficientnet-lite0", nn.Conv2d(3, 2, 3)):
        with pytest.raises(TypeError, match="expected a SiteModel or Ensemble"):
            site_activation_maps(wrong, noise(1, 3, 64, 64))
    with pytest.raises(ValueError, match="images are 32 x 32 px"):
        site_activation_maps(model, noise(1, 3, 32, 32))
