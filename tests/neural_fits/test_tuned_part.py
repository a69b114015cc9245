"""The part above a cut is the network itself, its head is found, and one descent trains it gently."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from neural_fits.backbones import load_backbone
from neural_fits.features import FeatureExtractor
from neural_fits.networks.fine_tuning import _last_block, last_linear
from neural_fits.networks.tuned_part import TunedPart, default_freeze
from neural_fits.networks.tuning import Tuning, descend

CUTS = [
    ("efficientnet-lite0", ("blocks.2", "blocks.3", "blocks.4"), "blocks.3"),
    ("efficientnet-lite0", ("blocks.4", "blocks.2.1.bn1"), "blocks.3"),
    ("torchvision:resnet18", "layer4.1", "layer4.0"),
    ("torchvision:densenet121", "features.norm5", "features.transition3"),
    ("torchvision:vgg11", "features.18", "features.8"),  # an in-place ReLU follows the cut
    ("timm:vit_tiny_patch16_224", "blocks.11", "blocks.9"),
    ("torchvision:swin_t", "features.7", "features.5"),
]


@pytest.mark.parametrize(("name", "layer", "freeze"), CUTS)
def test_the_part_above_a_cut_is_the_whole_network(name, layer, freeze):
    with torch.random.fork_rng(devices=[]):
        backbone = load_backbone(name, pretrained=False)
    extractor = FeatureExtractor(backbone, layer)
    part = TunedPart(extractor, freeze, (1, 64, 48))
    images = torch.rand(3, 1, 64, 48, generator=torch.Generator().manual_seed(2))
    wanted = extractor(images)
    for _ in range(2):
        torch.testing.assert_close(part(part.below(images)), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    torch.testing.assert_close(part.extractor(images), extractor(images))  # nothing stays replaced
    names = [weight for stage in part.stages() for weight, _ in stage]
    assert names
    order = [key for key, _ in backbone.network.named_parameters()]
    cut = max(k for k, key in enumerate(order) if key.startswith(f"{freeze}."))
    assert all(order.index(weight) > cut for weight in names)


def test_stages_go_down_from_the_top_and_leave_the_original_alone(lite0):
    extractor = FeatureExtractor(lite0, "blocks.4")
    part = TunedPart(extractor, "blocks.1", (3, 64, 64))
    assert [stage[0][0].split(".conv")[0] for stage in part.stages()] == ["blocks.4.0", "blocks.3.0", "blocks.2.0"]
    groups = Tuning(learning_rate=0.08, decay=0.5, head_rate=0.5).rates(part.stages(), [nn.Parameter(torch.ones(1))])
    assert [group["lr"] for group in groups] == [0.5, 0.08, 0.04, 0.02]
    before = lite0.network.blocks[4][0].conv_pw.weight.clone()
    with torch.no_grad():
        part.stages()[0][0][1].add_(1)
    assert torch.equal(lite0.network.blocks[4][0].conv_pw.weight, before)


@pytest.mark.parametrize(
    ("layer", "freeze", "sentence"),
    [
        ("blocks.4", "blocks.5", "no layer that is read .blocks.4. comes after 'blocks.5'"),
        ("blocks.4", "blocks.x", "no layer 'blocks.x' to freeze up to; did you mean 'blocks."),
        ("blocks.4", "blocks.3.1.conv_pw", "skip connection"),
    ],
)
def test_a_cut_that_does_not_work_gets_one_sentence(lite0, layer, freeze, sentence):
    with pytest.raises(ValueError, match=sentence):
        TunedPart(FeatureExtractor(lite0, layer), freeze, (3, 64, 64))


def test_descent_follows_adam_pulls_back_and_keeps_the_best_epoch():
    """An independent float64 loop of Adam with a pull to the start gives the same weights."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(12, 3)), generator.normal(size=12)
    config = Tuning(epochs=3, batch_size=4, pull=0.1, seed=5)
    weight = nn.Parameter(torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64))
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    descend(
        [{"params": [weight], "lr": 0.05}],
        lambda rows, _: (inputs[rows] @ weight - targets[rows]).square().mean(),
        np.arange(12),
        config,
    )
    w = start = np.array([1.0, -1.0, 0.5])
    m = v = np.zeros(3)
    order, t = np.random.default_rng(5), 0
    for _ in range(3):
        for rows in np.array_split(order.permutation(np.arange(12)), 3):
            t += 1
            gradient = 2 * x[rows].T @ (x[rows] @ w - y[rows]) / len(rows)
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            w = w - 0.05 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            w = w + 0.1 * (start - w)
    np.testing.assert_allclose(weight.numpy(force=True), w, rtol=1e-9)

    seen = iter([3.0, 2.0, 1.0, 5.0, 6.0])
    drift = nn.Parameter(torch.zeros(1))
    table = descend(
        [{"params": [drift], "lr": 0.5}],
        lambda *_: drift.sum(),
        np.arange(4),
        Tuning(patience=2, pull=0.0),
        lambda: next(seen),
    )
    assert table["epoch"].tolist() == [0, 1, 2, 3, 4]
    assert table["kept"].tolist() == [False, False, True, False, False]
    assert drift.item() == pytest.approx(-1.0, abs=1e-3)  # two epochs of one step


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("torchvision:resnet18", "fc"),
        ("torchvision:vgg11", "classifier.6"),
        ("torchvision:mobilenet_v3_small", "classifier.3"),
        ("torchvision:squeezenet1_1", "classifier.1"),
        ("timm:vit_tiny_patch16_224", "head"),
        ("torchvision:swin_t", "head"),
    ],
)
def test_the_head_is_found(name, head):
    with torch.random.fork_rng(devices=[]):
        assert last_linear(load_backbone(name, pretrained=False), (1, 64, 64)) == head


class TwoHeads(nn.Module):
    """As a distilled transformer: the scores are the mean of two linear layers."""

    def __init__(self):
        super().__init__()
        self.head, self.head_dist = nn.Linear(3, 4), nn.Linear(3, 4)

    def forward(self, x):
        x = x.mean((2, 3))
        return (self.head(x) + self.head_dist(x)) / 2


def test_scores_of_two_heads_get_one_sentence():
    with torch.random.fork_rng(devices=[]):
        backbone = load_backbone(TwoHeads())
    with pytest.raises(ValueError, match=r"come from other layers beside 'head_dist'.*head="):
        last_linear(backbone, (3, 8, 8))
    with pytest.raises(ValueError, match="no linear layer to replace; name a layer with head="):
        last_linear(load_backbone(nn.Sequential(nn.Conv2d(3, 4, 3))), (3, 8, 8))


@pytest.mark.parametrize(
    ("name", "head", "freeze"),
    [
        ("efficientnet-lite0", "classifier", "blocks.5"),
        ("torchvision:resnet18", "fc", "layer4.0"),
        ("torchvision:vgg11", "classifier.6", "features.19"),
        ("timm:vit_tiny_patch16_224", "head", "blocks.10"),
    ],
)
def test_one_rule_says_where_to_cut(name, head, freeze):
    with torch.random.fork_rng(devices=[]):
        backbone = load_backbone(name, pretrained=False)
    assert default_freeze(backbone, _last_block(backbone, head)) == freeze


def test_without_steps_nothing_is_trained():
    weight = nn.Parameter(torch.ones(1))
    groups = Tuning(learning_rate=0.0, head_rate=0.0).rates([[("w", weight)]], [weight])
    table = descend(groups, lambda *_: weight.sum(), np.arange(4), Tuning(), lambda: 2.0)
    assert table["epoch"].tolist() == [0]
    assert table["kept"].tolist() == [True]
    assert weight.item() == 1
