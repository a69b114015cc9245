"""Transfer learning: the part above a cut is the network itself, and tuning finds what was planted above the cut."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from neural_fits.backbones import Backbone, load_backbone
from neural_fits.features import FeatureExtractor
from neural_fits.fit import fit_sites
from neural_fits.networks.class_labels import class_index, split_groups
from neural_fits.networks.classifier import Classifier
from neural_fits.networks.fine_tuning import ClassTuning, fine_tune, last_linear
from neural_fits.networks.site_fine_tuning import SiteTuning, _loss, compare_fine_tuning, fine_tune_sites
from neural_fits.networks.tuned_part import TunedPart
from neural_fits.networks.tuning import Tuning, descend
from neural_fits.site_model import Ensemble, load_model
from stimuli import StimulusSet, natural_photos
from stimuli.class_folder import images_by_class

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


def test_losses_ignore_missing_responses_and_agree_with_numpy():
    predicted, targets = torch.tensor([[2.0, 1.0], [3.0, -4.0]]), torch.tensor([[1.0, 0.0], [5.0, 7.0]])
    known = torch.tensor([[True, False], [True, True]])
    mean, spread = torch.tensor([2.0, 4.0]), torch.tensor([0.5, 2.0])
    wanted = ((1 / 0.5) ** 2 + (2 / 0.5) ** 2 + (11 / 2) ** 2) / 3
    assert _loss("gaussian", predicted, targets, known, mean, spread).item() == pytest.approx(wanted)
    p, y, m, s = (each.double().numpy() for each in (predicted, targets, mean, spread))
    rate = 0.1 * m * np.logaddexp(0, p / (0.1 * m)) + 1e-6 * m
    likelihood = 2 * m / s**2 * (rate - y * np.log(rate))
    found = _loss("poisson", predicted, targets, known, mean, spread).item()
    assert found == pytest.approx(likelihood[known.numpy()].mean(), rel=1e-5)


class Planted(nn.Module):
    """A frozen filter bank, then a layer whose rectification hides from a linear readout what the sites read."""

    def __init__(self, seed, strength=1.0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.low = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.Tanh())
        self.high = nn.Sequential(nn.Conv2d(8, 6, 1), nn.ReLU())
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=generator) * 0.4
        self.high[0].weight.data *= strength

    def forward(self, x):
        return self.high(self.low(x))


@pytest.fixture(scope="module")
def planted(as_recordings):
    """Sites read features rectified at their mean; the network's own thresholds are so low that it is nearly linear."""
    photos = natural_photos(240, size_px=32)
    network = Planted(0)
    low = network.low(torch.from_numpy(photos.images(slice(None)))).detach()
    filters = network.high[0].weight.data[:, :, 0, 0]
    drive = torch.einsum("nchw,fc->nfhw", low - low.mean((0, 2, 3), keepdim=True), filters)
    network.high[0].bias.data = drive.std((0, 2, 3)) - filters @ low.mean((0, 2, 3))
    mixtures = torch.randn(6, 3, generator=torch.Generator().manual_seed(9)).abs()
    rates = (drive.clamp(min=0).mean((2, 3)) @ mixtures).numpy()
    rates = rates / rates.std(0)
    noise = np.random.default_rng(0).normal(size=(240, 4, 3)) * 0.2
    trials = (rates[:, None] + noise).clip(min=0)
    trials[:20, :, 1] = np.nan
    recorded = as_recordings(trials, photos)
    model = fit_sites(photos, recorded, backbone=Backbone("module:Planted", network), layer="high", folds=3)
    return photos, recorded, model


PLANTED = {"freeze": "low", "learning_rate": 0.003, "head_rate": 0.0, "pull": 0.0, "epochs": 15, "patience": 4}


@pytest.mark.parametrize("loss", ["gaussian", "poisson"])
def test_tuning_finds_features_that_were_planted_above_the_cut(planted, loss):
    photos, recorded, model = planted
    found = compare_fine_tuning(model, photos, recorded, SiteTuning(**PLANTED, loss=loss), folds=3)
    scores = found.model.scores
    better = scores["r"] > scores["frozen_r"]
    assert better.all() if loss == "gaussian" else better.sum() >= 2
    np.testing.assert_allclose(scores["frozen_r"], model.scores["r"], atol=1e-5)  # the same folds, the same readouts
    assert list(scores)[:4] == list(model.scores)[:4]
    network = found.model.extractor.network
    assert torch.equal(network.low[0].weight, model.extractor.network.low[0].weight)
    assert not torch.equal(network.high[0].weight, model.extractor.network.high[0].weight)
    assert found.model.extractor.backbone.name.startswith("module:Planted tuned@")
    assert not any(weight.requires_grad for weight in found.model.parameters())
    assert np.isfinite(found.held_out).all()
    assert found.model.provenance["config"]["fine_tuning"]["loss"] == loss


def test_nothing_is_gained_where_there_is_nothing(planted, as_recordings):
    photos, _, model = planted
    noise = np.random.default_rng(3).normal(5, 1, size=(240, 4, 3)).clip(min=0)
    config = SiteTuning(**{**PLANTED, "epochs": 4, "patience": 1})
    scores = fine_tune_sites(model, photos, as_recordings(noise, photos), config, folds=3).scores
    assert scores["r"].abs().max() < 0.25


def test_the_same_seed_gives_the_same_model_and_no_global_generator_moves(planted, global_rng_untouched):
    photos, recorded, model = planted
    config = SiteTuning(**{**PLANTED, "epochs": 2})
    with global_rng_untouched():
        one, other = (fine_tune_sites(model, photos, recorded, config, folds=2) for _ in range(2))
    np.testing.assert_array_equal(one.predict(photos), other.predict(photos))
    assert one.extractor.backbone.name == other.extractor.backbone.name


def test_tuned_sites_of_published_networks_are_saved_whole(photos, brain, lite0, tmp_path):
    some = photos.select(slice(0, 60))
    recorded = brain.record(some, n_repeats=3, seed=0)
    model = fit_sites(some, recorded, backbone=lite0, layer="blocks.1", folds=2)
    config = SiteTuning(freeze="blocks.0", epochs=2, learning_rate=1e-3, stop_share=0.5)
    tuned = fine_tune_sites(Ensemble([model, model]), some, recorded, config, folds=2)
    assert len(tuned.members) == 2
    assert {"frozen_r", "frozen_explained_variance"} <= set(tuned.scores)
    loaded = load_model(tuned.save(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.predict(some), tuned.predict(some))
    assert fine_tune_sites(model, some, recorded, config, folds=2).extractor.layer == "blocks.1"


def test_sites_that_cannot_be_tuned_get_one_sentence(planted, as_recordings):
    photos, recorded, model = planted
    negative = as_recordings(np.random.default_rng(0).normal(size=(240, 3)), photos)
    with pytest.raises(ValueError, match=r"responses go down to -\d.*loss='gaussian'"):
        fine_tune_sites(model, photos, negative, SiteTuning(loss="poisson"))
    with pytest.raises(ValueError, match="no default layer to freeze up to; name one before 'high'"):
        fine_tune_sites(model, photos, recorded)
    with pytest.raises(ValueError, match="loss is 'poison'; expected 'gaussian' or 'poisson'"):
        SiteTuning(loss="poison")
    with pytest.raises(ValueError, match="deg wide"):
        fine_tune_sites(model, photos.on_screen(size_deg=3.0), recorded)
    for wrong in ({"learning_rate": -1.0}, {"epochs": 0}, {"stop_share": 0.9}, {"pull": 2.0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*; expected"):
            Tuning(**wrong)


@pytest.fixture(scope="module")
def stripes():
    """Two classes told apart by a rectified feature above the cut; four images of each of 24 photographs."""
    photos = natural_photos(160, size_px=32)
    low = Planted(1).low(torch.from_numpy(photos.images(slice(None)))).detach()
    mixture = torch.randn(8, generator=torch.Generator().manual_seed(4))
    drive = torch.einsum("nchw,c->nhw", low - low.mean((0, 2, 3), keepdim=True), mixture).clamp(min=0).mean((1, 2))
    labels = ["strong" if value > drive.median() else "weak" for value in drive]
    groups = [f"g{k % 40}" for k in range(160)]
    return photos.with_columns(label=labels, photograph=groups)


class Classes(nn.Module):
    def __init__(self):
        super().__init__()
        self.features, self.head = Planted(1), nn.Linear(6, 5)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


CLASSES = ClassTuning(
    freeze="features.low", learning_rate=0.002, head_rate=0.005, epochs=40, patience=10, pull=0.0, views=2
)


def test_classes_hidden_from_a_linear_probe_are_learned(stripes, tmp_path, global_rng_untouched):
    with torch.random.fork_rng(devices=[]):
        backbone = Backbone("module:Classes", Classes())
    lines = []
    with global_rng_untouched():
        found = fine_tune(backbone, stripes, config=CLASSES, progress=lines.append)
    assert found.class_names == ("strong", "weak")
    probe = found.tables["probe_confusion"]
    assert found.confusion.to_numpy().sum() == probe.to_numpy().sum() == len(found.provenance["held_out"])
    assert found.accuracy >= 0.85
    predicted = found.predict(stripes)
    held = found.provenance["held_out"]
    truth = stripes.table.set_index("stimulus_id")["label"]
    right = (predicted.loc[held, "label"] == truth[held]).mean()
    assert right == pytest.approx(found.accuracy)
    np.testing.assert_allclose(predicted[["strong", "weak"]].sum(axis=1), 1, rtol=1e-5)
    groups = stripes.table.set_index("stimulus_id")["photograph"]
    rest = [name for name in stripes.stimulus_ids if name not in set(held)]
    assert not set(groups[held]) & set(groups[rest])
    training = found.tables["training"]
    assert training["held_out_loss"].min() == training.loc[training["kept"], "held_out_loss"].item()
    assert training["held_out_loss"].iloc[0] > training["held_out_loss"].min()  # better than the probe it began from
    assert any("linear probe" in line for line in lines)
    with pytest.raises(ValueError, match="does not say how it is built"):
        found.save(tmp_path / "net")


def test_a_tuned_classifier_of_a_published_network_is_saved_whole(stripes, tmp_path):
    config = ClassTuning(freeze="blocks.6", epochs=1, views=2, learning_rate=1e-3)
    found = fine_tune("efficientnet-lite0", stripes.select(slice(0, 80)), config=config)
    loaded = Classifier.load(found.save(tmp_path / "net"))
    pd.testing.assert_frame_equal(loaded.predict(stripes), found.predict(stripes))
    pd.testing.assert_frame_equal(loaded.confusion, found.confusion, check_names=False)
    assert loaded.class_names == found.class_names
    assert loaded.provenance == found.provenance
    backbone = load_backbone(f"saved:{tmp_path / 'net'}")
    assert backbone.name == found.backbone.name
    assert backbone.network(torch.zeros(1, 3, 64, 64)).shape == (1, 2)
    assert "of held-out images right" in repr(found)


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


def test_groups_stay_on_one_side_and_every_class_keeps_some():
    truth = np.repeat([0, 1, 2], 20)
    groups = np.array([f"c{c} g{k % 4}" for c in range(3) for k in range(20)])
    rest, held = split_groups(truth, groups, 0.25, 3, ["a", "b", "c"])
    assert sorted([*rest, *held]) == list(range(60))
    assert np.bincount(truth[held]).tolist() == [5, 5, 5]
    assert not set(groups[held]) & set(groups[rest])
    with pytest.raises(ValueError, match=r"class 'b' has 20 image\(s\) in 1 group\(s\).*at least three groups"):
        split_groups(truth, np.where(truth == 1, "one", groups), 0.25, 0, ["a", "b", "c"])


def test_labels_that_do_not_work_get_one_sentence(stripes):
    for labels, sentence in (
        (["a"] * 160, "all images are of one class, 'a'; give at least two"),
        (["a", "b"], "2 labels were given for 160 images"),
        ("labelq", "no column 'labelq' of labels; did you mean 'label'"),
        (["a", None] * 80, r"80 image\(s\) have no label"),
    ):
        with pytest.raises(ValueError, match=sentence):
            class_index(stripes, labels)
    with pytest.raises(ValueError, match=r"no default layer to freeze up to; name one with ClassTuning"):
        fine_tune(Classes(), stripes)
    with pytest.raises(ValueError, match="no linear layer to replace; name a layer with head="):
        last_linear(load_backbone(nn.Sequential(nn.Conv2d(3, 4, 3))), (3, 8, 8))


def test_a_folder_of_classes_is_read_and_mistakes_get_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*none: give a folder with one"):
        images_by_class(tmp_path / "none")
    for name, shape in (("cat", (40, 60)), ("dog", (64, 64))):
        (tmp_path / name).mkdir()
        for k in range(2):
            code = np.zeros((*shape, 3), dtype=np.uint8)
            code[:, shape[1] // 4 : -(shape[1] // 4)] = 100 + k
            Image.fromarray(code).save(tmp_path / name / f"{k}.png")
    found = images_by_class(tmp_path, 32)
    assert isinstance(found, StimulusSet)
    assert found.shape == (3, 32, 32)
    assert found.table["label"].tolist() == ["cat", "cat", "dog", "dog"]
    assert found.table["photograph"].tolist() == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]
    assert found.codes([0])[0, 0, 16, 16] == 100
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty holds no image"):
        images_by_class(tmp_path)
    (tmp_path / "empty" / "x.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"x\.png cannot be read as an image"):
        images_by_class(tmp_path)
    (tmp_path / "lone" / "cat").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"has 1 sub-folder\(s\): make one for each class, at least two"):
        images_by_class(tmp_path / "lone")
