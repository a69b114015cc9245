"""Classes of a user's pictures: tuning finds what a linear probe cannot, and held-out images stay unseen."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from neural_fits.backbones import Backbone, load_backbone
from neural_fits.networks import fine_tuning
from neural_fits.networks.class_labels import class_index, split_groups
from neural_fits.networks.classifier import Classifier
from neural_fits.networks.fine_tuning import ClassTuning, _view, fine_tune
from stimuli import StimulusSet, natural_photos
from stimuli.class_folder import images_by_class


class Filters(nn.Module):
    """A frozen filter bank, then a layer of rectified mixtures."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.low = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.Tanh())
        self.high = nn.Sequential(nn.Conv2d(8, 6, 1), nn.ReLU())
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=generator) * 0.4

    def forward(self, x):
        return self.high(self.low(x))


@pytest.fixture(scope="module")
def stripes():
    """Two classes told apart by a rectified feature above the cut; four images of each of 24 photographs."""
    photos = natural_photos(160, size_px=32)
    low = Filters().low(torch.from_numpy(photos.images(slice(None)))).detach()
    mixture = torch.randn(8, generator=torch.Generator().manual_seed(4))
    drive = torch.einsum("nchw,c->nhw", low - low.mean((0, 2, 3), keepdim=True), mixture).clamp(min=0).mean((1, 2))
    labels = ["strong" if value > drive.median() else "weak" for value in drive]
    groups = [f"g{k % 40}" for k in range(160)]
    return photos.with_columns(label=labels, photograph=groups)


class Classes(nn.Module):
    def __init__(self):
        super().__init__()
        self.features, self.head = Filters(), nn.Linear(6, 5)

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
    config = ClassTuning(epochs=1, views=2, learning_rate=1e-3)
    found = fine_tune("efficientnet-lite0", stripes.select(slice(0, 80)), config=config, input_px=48)
    loaded = Classifier.load(found.save(tmp_path / "net"))
    pd.testing.assert_frame_equal(loaded.predict(stripes), found.predict(stripes))
    pd.testing.assert_frame_equal(loaded.confusion, found.confusion, check_names=False)
    assert loaded.class_names == found.class_names
    assert loaded.provenance == found.provenance
    backbone = load_backbone(f"saved:{tmp_path / 'net'}")
    assert backbone.name == found.backbone.name
    assert backbone.network(torch.zeros(1, 3, 64, 64)).shape == (1, 2)
    assert "of held-out images right" in repr(found)
    assert loaded.extractor.input_px == found.extractor.input_px == 48
    assert found.provenance["config"]["freeze"] == "blocks.5"
    path = tmp_path / "net" / "network.json"
    written = path.read_text()
    for change in (
        {"input_px": "x"},
        {"input_px": -5},
        {"tables": {"confusion": {"data": [[1], [2], [3]], "index": [0, 1], "columns": [0]}}},
    ):
        manifest = json.loads(written)
        manifest["record"].update(change)
        path.write_text(json.dumps(manifest))
        with pytest.raises(ValueError, match="or their record was damaged"):
            Classifier.load(tmp_path / "net")


def test_groups_stay_on_one_side_and_every_class_keeps_some():
    truth = np.repeat([0, 1, 2], 20)
    groups = np.array([f"c{c} g{k % 4}" for c in range(3) for k in range(20)])
    rest, held = split_groups(truth, groups, 0.25, 3, ["a", "b", "c"])
    assert sorted([*rest, *held]) == list(range(60))
    assert np.bincount(truth[held]).tolist() == [5, 5, 5]
    assert not set(groups[held]) & set(groups[rest])
    with pytest.raises(ValueError, match=r"class 'b' has 20 image\(s\) in 1 group\(s\).*at least three groups"):
        split_groups(truth, np.where(truth == 1, "one", groups), 0.25, 0, ["a", "b", "c"])


def fixed_split(monkeypatch, groups):
    """The same images are held out, and say when to stop, whatever their labels."""
    names = sorted(set(groups))
    held, stop = set(names[:10]), set(names[10:18])

    def split(_truth, some, _share, seed, _names, leave=1):
        out = np.isin(some, list(held if leave == 2 else stop))
        assert seed == CLASSES.seed + (leave != 2)
        return np.flatnonzero(~out), np.flatnonzero(out)

    monkeypatch.setattr(fine_tuning, "split_groups", split)
    return held, stop


def test_labels_of_held_out_images_change_nothing_but_their_table(stripes, monkeypatch):
    groups, labels = stripes.table["photograph"].to_numpy(), stripes.table["label"].to_numpy()
    held, stop = fixed_split(monkeypatch, groups)
    turned = np.where(np.isin(groups, list(held)) ^ (labels == "weak"), "weak", "strong")
    trained, real = [], fine_tuning.descend
    monkeypatch.setattr(
        fine_tuning, "descend", lambda g, loss, rows, *rest: trained.append(rows) or real(g, loss, rows, *rest)
    )
    config = replace(CLASSES, epochs=3)
    with torch.random.fork_rng(devices=[]):
        network = Classes()
    one, two = (fine_tune(network, stripes, list(each), config) for each in (labels, turned))
    assert one.backbone.name == two.backbone.name  # the hash of all weights
    pd.testing.assert_frame_equal(one.tables["training"], two.tables["training"])
    assert one.accuracy == pytest.approx(1 - two.accuracy)
    np.testing.assert_array_equal(trained[0], np.flatnonzero(~np.isin(groups, [*held, *stop])))
    single = fine_tune(network, stripes, config=replace(config, views=1))
    losses = (each.tables["training"]["training_loss"].iloc[1] for each in (one, single))
    assert len(set(losses)) == 2  # the second view is used
    assert network.training
    assert all(weight.requires_grad for weight in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_the_probe_is_the_best_of_its_penalties_and_stays_without_steps(stripes):
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    config = replace(CLASSES, learning_rate=0.0, head_rate=0.0)
    with torch.random.fork_rng(devices=[]):
        network = Classes()
    found = fine_tune(network, stripes, config=config)
    pd.testing.assert_frame_equal(found.confusion, found.tables["probe_confusion"])
    assert found.tables["training"]["epoch"].tolist() == [0]
    names, truth = class_index(stripes, "label")
    groups = stripes.table["photograph"].to_numpy()
    rest, _ = split_groups(truth, groups, config.test_share, config.seed, names, leave=2)
    inner, stop = split_groups(truth[rest], groups[rest], config.stop_share, config.seed + 1, names)
    with torch.no_grad():
        inputs = network.eval().features(torch.from_numpy(stripes.images(slice(None)))).mean((2, 3)).double().numpy()
    inputs = (inputs - inputs[rest[inner]].mean(0)) / inputs[rest[inner]].std(0)
    losses = []
    for penalty in fine_tuning._PROBE_C:
        fitted = LogisticRegression(C=penalty, max_iter=2000).fit(inputs[rest[inner]], truth[rest[inner]])
        losses.append(log_loss(truth[rest[stop]], fitted.predict_proba(inputs[rest[stop]])))
    assert max(losses) > 1.02 * min(losses)
    assert found.tables["training"]["held_out_loss"].item() == pytest.approx(min(losses), rel=0.01)


@pytest.mark.parametrize("mirror", [True, False])
def test_views_are_crops_mirrored_from_left_to_right(mirror):
    config = ClassTuning(mirror=mirror, seed=4)
    across = np.broadcast_to(np.linspace(0, 1, 40), (1, 1, 40, 40)).astype(np.float32)
    down = across.transpose(0, 1, 3, 2)
    assert _view(0, config) is None
    for k in range(1, 5):
        x, y = (_view(k, config)(torch.from_numpy(each.copy())).numpy()[0, 0] for each in (across, down))
        turned = mirror and k % 2 == 1
        steps = np.diff(x[20, 5:-5]) * 39
        assert 0.84 < np.abs(steps.mean()) <= 1.001
        assert (steps < 0).all() if turned else (steps > 0).all()
        assert (np.diff(y[5:-5, 20]) > 0).all()
        if mirror and k == 1:
            np.testing.assert_array_equal(x, across[0, 0, :, ::-1])
        else:
            assert np.abs(steps.mean()) < 0.99


def test_a_split_is_found_where_there_is_one():
    """Images of several classes share photographs; every small case is compared with all choices there are."""
    draw = np.random.default_rng(0)
    possible = 0
    for seed in range(60):
        groups = np.array([f"g{k}" for k in draw.integers(5, size=14)])
        truth = np.concatenate([[0, 1, 2], draw.integers(3, size=11)])
        names, place = np.unique(groups, return_inverse=True)
        table = np.zeros((len(names), 3), dtype=bool)
        table[place, truth] = True
        choices = [np.array(each, dtype=bool) for each in itertools.product((0, 1), repeat=len(names))]
        exists = any(table[each].any(0).all() and table[~each].any(0).all() for each in choices)
        possible += exists
        try:
            rest, held = split_groups(truth, groups, 0.25, seed, ["a", "b", "c"])
        except ValueError:
            assert not exists
        else:
            assert set(truth[rest]) == set(truth[held]) == {0, 1, 2}
            assert not set(groups[rest]) & set(groups[held])
    assert possible > 20


def test_labels_that_do_not_work_get_one_sentence(stripes):
    for labels, sentence in (
        (["a"] * 160, "all images are of one class, 'a'; give at least two"),
        (["a", "b"], "2 labels were given for 160 images"),
        ("labelq", "no column 'labelq' of labels; did you mean 'label'"),
        (["a", "label"] * 80, "a class is called 'label'"),
        (["a", None] * 80, r"80 image\(s\) have no label"),
    ):
        with pytest.raises(ValueError, match=sentence):
            class_index(stripes, labels)
    with pytest.raises(ValueError, match=r"no default layer to freeze up to; name one with freeze="):
        fine_tune(Classes(), stripes)


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
