"""Weights of pixels against loops, deformation against scipy, and a U-Net that learns objects on a small task."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage

from neural_fits.networks.cutout_segmentation import HELD_OUT_PHOTOGRAPHS, crowded_scenes, cutout_task
from neural_fits.networks.elastic import elastic, flipped
from neural_fits.networks.overlap_tile import untiled
from neural_fits.networks.segmentation import (
    Segmentation,
    SegmentationConfig,
    balanced,
    fit_segmentation,
    separated,
    weight_map,
    weighted_cross_entropy,
)
from neural_fits.networks.segmentation_scores import matched_objects, mean_iou
from neural_fits.networks.unet import UNet
from stimuli import natural_photos
from stimuli.cutouts import sample_cutouts


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


OBJECTS = np.zeros((14, 17), np.int64)
OBJECTS[2:6, 2:7] = 3
OBJECTS[2:9, 9:13] = 1
OBJECTS[11:, :4] = 7


def test_weights_are_those_of_the_formula_in_loops():
    ours = weight_map(OBJECTS, class_weights=(0.6, 2.5))
    places = {name: np.argwhere(np.equal(OBJECTS, name)) for name in (1, 3, 7)}
    for y, x in np.ndindex(OBJECTS.shape):
        expected = 2.5 if OBJECTS[y, x] else 0.6
        if not OBJECTS[y, x]:
            d1, d2, _ = sorted(np.sqrt(((each - (y, x)) ** 2).sum(1)).min() for each in places.values())
            expected += 10 * np.exp(-((d1 + d2) ** 2) / (2 * 5**2))
        assert ours[y, x] == pytest.approx(expected, rel=1e-5)
    narrow = weight_map(OBJECTS, class_weights=(0.0, 0.0), border_weight=2.0, border_sigma_px=1.0)
    assert narrow.max() == pytest.approx(2 * np.exp(-((1 + 2) ** 2) / 2), rel=1e-5)
    single = weight_map(np.where(OBJECTS == 3, 3, 0), class_weights=(1.0, 1.0))
    assert (single == 1).all()


def test_classes_weigh_the_same_by_default():
    weights = weight_map(OBJECTS, border_weight=0.0)
    assert weights[OBJECTS > 0].sum() == pytest.approx(weights[OBJECTS == 0].sum(), rel=1e-5)
    assert weights.mean() == pytest.approx(1, rel=1e-5)
    assert balanced(np.zeros((1, 3, 3))) == (1.0, 1.0)


def test_touching_objects_are_separated_by_a_line_and_nothing_else_changes():
    touching = np.zeros((12, 12), np.int64)
    touching[2:10, 1:6], touching[2:10, 6:11] = 4, 9
    for gap in (1, 2):
        apart = separated(touching, gap)
        expected = touching.copy()
        expected[:, 6 - gap : 6 + gap] = 0
        np.testing.assert_array_equal(apart, expected)
        assert ndimage.label(apart)[1] == 2
    np.testing.assert_array_equal(separated(OBJECTS), OBJECTS)
    corner = np.array([[1, 0], [0, 2]])
    assert not separated(corner).any()


def test_loss_is_the_weighted_cross_entropy_in_float64():
    random = np.random.default_rng(0)
    scores, weights = random.normal(size=(2, 3, 4, 5)), random.uniform(size=(2, 4, 5))
    classes, total = random.integers(3, size=(2, 4, 5)), 0.0
    for n, y, x in np.ndindex(2, 4, 5):
        chances = np.exp(scores[n, :, y, x]) / np.exp(scores[n, :, y, x]).sum()
        total -= weights[n, y, x] * np.log(chances[classes[n, y, x]])
    ours = weighted_cross_entropy(*(torch.from_numpy(each) for each in (scores, classes, weights)))
    assert ours.item() == pytest.approx(total / 40, rel=1e-12)


def test_deformation_is_that_of_scipy():
    images = torch.from_numpy(ndimage.gaussian_filter(np.random.default_rng(0).uniform(size=(1, 2, 40, 50)), 2))
    objects = (images[:, 0] > images.mean()).to(torch.int64) * 6
    deformed, moved = elastic(images.float(), objects, 3.0, generator(5))
    coarse = 3.0 * torch.randn((1, 2, 3, 3), generator=generator(5))
    grid = torch.nn.functional.interpolate(coarse, (40, 50), mode="bicubic", align_corners=True)[0].numpy()
    assert grid[0, [0, 20, 39]][:, [0, 49]].shape == (3, 2)
    np.testing.assert_allclose(grid[0, 0, 0], coarse[0, 0, 0, 0], atol=1e-5)  # the corners of the grid are the image's
    rows, columns = np.mgrid[:40, :50]
    place = [rows + grid[1], columns + grid[0]]
    for channel in range(2):
        theirs = ndimage.map_coordinates(images[0, channel].numpy(), place, order=1, mode="reflect")
        np.testing.assert_allclose(deformed[0, channel].numpy(), theirs, atol=2e-5)
    theirs = ndimage.map_coordinates(objects[0].numpy(), place, order=0, mode="reflect")
    assert (moved[0].numpy() == theirs).mean() > 0.999  # halves may be rounded either way
    assert (deformed - images).abs().max() > 0.02


def test_images_are_mirrored_with_their_objects_each_way_as_often():
    images = torch.rand((200, 1, 3, 4), generator=generator())
    turned, moved = flipped(images, (1000 * images[:, 0]).long(), generator(1))
    assert torch.equal(moved, (1000 * turned[:, 0]).long())
    ways = [images, images.flip(-1), images.flip(-2), images.flip(-1, -2)]
    counts = [int((turned == way).all(-1).all(-1).sum()) for way in ways]
    assert sum(counts) == 200
    assert min(counts) > 30


def test_scenes_know_their_objects_and_hold_out_objects_and_photographs():
    train, test = cutout_task(12, 6, size_px=64, held_out_objects=("ball", "mug", "ring"))
    assert {name for each in test.cutouts for name in each} == {"ball", "mug", "ring"}
    assert not {name for each in train.cutouts for name in each} & {"ball", "mug", "ring"}
    assert set(test.photographs) <= set(HELD_OUT_PHOTOGRAPHS)
    assert not set(train.photographs) & set(HELD_OUT_PHOTOGRAPHS)
    assert train.images.shape == (12, 1, 64, 64)
    assert 0.05 < (train.objects > 0).mean() < 0.5
    shown = [len(np.unique(each)) - 1 for each in train.objects]
    assert min(shown) >= 2
    assert np.mean([a == len(b) for a, b in zip(shown, train.cutouts, strict=True)]) > 0.9


def test_a_scene_is_its_photograph_where_no_object_is():
    photos = natural_photos(1, 64, channels=1)
    made = crowded_scenes(3, sample_cutouts(["cube", "mug"]), photos)
    again = crowded_scenes(4, sample_cutouts(["cube", "mug"]), photos)
    assert torch.equal(made.images, again.images[:3])
    background = torch.from_numpy(photos.images())[0]
    for image, objects in zip(made.images, made.objects, strict=True):
        far = ndimage.distance_transform_edt(objects == 0) > 2.5  # edges are soft
        assert torch.equal(image[:, far], background[:, far])
        inside = ndimage.distance_transform_edt(objects > 0) > 1.5
        assert (image - background)[:, inside].abs().mean() > 0.05
    with pytest.raises(ValueError, match="at least 1 scene, 2 objects and 1 cut-out"):
        crowded_scenes(3, [], photos)


def test_scores_by_hand():
    found, true = np.zeros((2, 4, 6), np.int64), np.zeros((2, 4, 6), np.int64)
    true[0, :2, :3], true[0, 2:, 3:] = 1, 2
    found[0, :2, :3], found[0, 3:, 3:] = 5, 6  # one whole, one of half the size
    assert mean_iou(found > 0, true > 0) == pytest.approx(((6 + 3) / 12 + 1) / 2)
    scores = matched_objects(found, true)
    assert (scores.hits, scores.found, scores.true) == (1, 2, 2)
    assert scores.f1 == pytest.approx(0.5)
    merged = matched_objects((true > 0).astype(np.int64), true)
    assert (merged.hits, merged.found) == (0, 1)
    with pytest.raises(ValueError, match="give maps of the same shape"):
        mean_iou(found[0], true)


def discs(n, size=32, seed=0):
    """Return bright discs on noise, pairs of which nearly touch."""
    random, rows = np.random.default_rng(seed), np.mgrid[:size, :size]
    images, maps = 0.3 + 0.1 * random.normal(size=(n, 1, size, size)), np.zeros((n, size, size), np.int64)
    for k in range(n):
        y, x = random.uniform(8, size - 8), random.uniform(6, size - 18)
        for number, column in enumerate((x, x + 11), start=1):
            inside = np.hypot(rows[0] - y, rows[1] - column) < 5.5
            maps[k][inside] = number
            images[k, 0][inside] += 0.4
    return torch.from_numpy(images.clip(0, 1)).float(), maps


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_a_network_learns_discs_and_keeps_them_apart(padding):
    images, maps = discs(24)
    test, true = discs(12, seed=1)
    network = UNet(depth=2, width=6, padding=padding, norm="batch")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    numpy_state, state = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # noqa: NPY002
    calls = []
    config = SegmentationConfig(steps=90, batch=8, learning_rate=1e-2, elastic_px=0.5, border_sigma_px=5.0)
    learned = fit_segmentation(network, images, maps, config, lambda *given: calls.append(given))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert [call[0] for call in calls] == learned.loss["step"].tolist() == list(range(1, 91))
    assert mean_iou(learned.probability(test).numpy() > 0.5, true > 0) > 0.75
    assert matched_objects(learned.objects(test), true).f1 > 0.8
    np.testing.assert_array_equal(learned.objects(test, tile_px=16), learned.objects(test))
    short = SegmentationConfig(steps=3)
    first, again = (fit_segmentation(network, images, maps, short).network.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = fit_segmentation(network, images, maps, SegmentationConfig(steps=3, seed=1)).network.state_dict()
    assert not torch.equal(other["head.weight"], first["head.weight"])


def test_the_first_loss_is_that_of_deformed_and_mirrored_images():
    images, maps = discs(6)
    network = UNet(depth=1, width=3, padding="same", norm="instance")
    for elastic_px in (0.0, 4.0):
        for mirror in (False, True):
            config = SegmentationConfig(steps=1, batch=6, elastic_px=elastic_px, mirror=mirror, seed=3)
            drawn = generator(3)
            order = torch.randperm(6, generator=drawn)
            shown, marked = images[order], torch.from_numpy(maps)[order]
            if elastic_px:
                shown, marked = elastic(shown, marked, elastic_px, drawn)
            if mirror:
                shown, marked = flipped(shown, marked, drawn)
            marks = np.stack([separated(each) for each in marked.numpy()])
            given = {"class_weights": balanced(maps), "border_sigma_px": config.border_sigma_px}
            weights = torch.from_numpy(np.stack([weight_map(each, **given) for each in marks]))
            with torch.no_grad():
                loss = weighted_cross_entropy(network(shown), torch.from_numpy(marks > 0).long(), weights)
            learned = fit_segmentation(network, images, maps, config)
            assert learned.loss["loss"].tolist() == [pytest.approx(loss.item(), rel=1e-6)]


def test_what_normalizes_by_the_whole_image_is_not_tiled_and_no_image_gives_none():
    images, maps = discs(2)
    config = SegmentationConfig(steps=1)
    learned = fit_segmentation(UNet(depth=1, width=2, padding="same", norm="instance"), images, maps, config)
    whole = torch.cat([untiled(learned.network, each[None]) for each in images]).softmax(1)[:, 1]
    plain = dataclasses.replace(learned, config=SegmentationConfig(mirror=False))
    assert torch.equal(plain.probability(images, tile_px=8), whole)
    turned = [plain.probability(images.flip(axes)).flip(axes) for axes in ((-1,), (-2,), (-1, -2))]
    assert torch.allclose(learned.probability(images), (whole + sum(turned)) / 4, atol=1e-6)
    assert learned.probability(images[:0]).shape == learned.objects(images[:0]).shape == (0, 32, 32)
    assert learned.objects(images[:0]).dtype == np.int64


def test_lines_between_touching_objects_are_part_of_the_mask():
    image = torch.full((1, 1, 16, 16), 0.9)
    image[..., 7:9], image[..., :3], image[..., 13:] = 0.1, 0.1, 0.1  # a dark line of 2 px within one bright field

    class Bright(UNet):
        def forward(self, images):
            return torch.cat([0.5 - images, images - 0.5], 1) * 20

    learned = Segmentation(Bright(depth=1, width=1, padding="same").eval(), pd.DataFrame(), SegmentationConfig())
    assert learned.objects(image).max() == 2
    assert learned.mask(image)[0].all(0).tolist() == [3 <= column < 13 for column in range(16)]


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_maps_of_objects_are_arrays_or_tensors_and_of_a_mask_each_connected_region_is_one(kind):
    images, maps = discs(2)
    config, network = SegmentationConfig(steps=1, mirror=False), UNet(depth=1, width=2, padding="same")
    whole = [fit_segmentation(network, images, given, config).loss["loss"][0] for given in (maps, kind(maps))]
    assert whole[0] == whole[1]
    apart = np.stack([separated(each) for each in maps])  # discs that touch are one region
    masks = [fit_segmentation(network, images, given, config).loss["loss"][0] for given in (apart, kind(apart > 0))]
    assert masks[0] == masks[1]
    with pytest.raises(ValueError, match=r"hold float32; give whole numbers"):
        fit_segmentation(network, images, kind(maps.astype(np.float32)), config)


def test_a_network_of_one_channel_takes_the_mean_over_colors():
    images, maps = discs(2)
    colors = torch.cat([images - 0.1, images, images + 0.1], 1)
    config, network = SegmentationConfig(steps=1, mirror=False, elastic_px=0.0), UNet(depth=1, width=2, padding="same")
    gray, colored = (fit_segmentation(network, each, maps, config) for each in (images, colors))
    assert colored.loss["loss"][0] == pytest.approx(gray.loss["loss"][0], rel=1e-5)
    assert repr(colored) == "Segmentation(UNet(in_channels=1, depth=1, width=2), 1 steps)"


def test_wrong_input_is_refused():
    images, maps = discs(2)
    network = UNet(depth=1, width=1)
    with pytest.raises(ValueError, match=r"give one map \(height, width\) for each image"):
        fit_segmentation(network, images, maps[:1])
    with pytest.raises(ValueError, match="the network has 3 classes"):
        fit_segmentation(UNet(classes=3, depth=1, width=1), images, maps)
    with pytest.raises(ValueError, match="are 0 everywhere"):
        fit_segmentation(network, images, 0 * maps)
    with pytest.raises(ValueError, match="steps and batch must be at least 1"):
        SegmentationConfig(steps=0)
    with pytest.raises(ValueError, match="must not be negative"):
        SegmentationConfig(elastic_px=-1.0)
