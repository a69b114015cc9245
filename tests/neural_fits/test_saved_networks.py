"""Networks with weights of their own: saved, found, carried inside models, never mistaken for the published ones."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from neural_fits.backbones import Backbone, load_backbone
from neural_fits.features import FeatureExtractor
from neural_fits.networks import architectures, saved
from neural_fits.networks.architectures import build_network, with_weights
from neural_fits.networks.saved import save_backbone
from neural_fits.readout import LinearReadout
from neural_fits.site_model import FORMAT_VERSION, Ensemble, SiteInfo, SiteModel, load_model
from stimuli.provenance import sha256_bytes


class Small(nn.Module):
    """A network of the registry; ``scale`` is a buffer that is not in its state."""

    def __init__(self, channels=4, scale=1.0):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
        self.head = nn.Linear(channels, 10)
        self.register_buffer("scale", torch.tensor(scale), persistent=False)

    def forward(self, x):
        return self.head(self.body(x * self.scale).mean((2, 3)))


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(architectures.ARCHITECTURES, "small", Small)


def small(seed=0, name="mine", **config):
    built = {"architecture": "small", "config": config}
    network = build_network(built)
    generator = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) * 0.3
    network.body[1].running_mean += 0.25
    return Backbone(name, network, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), 32, True, built_from=built)


@pytest.fixture
def images():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def site_model(backbone, layer="body", seed=0):
    extractor = FeatureExtractor(backbone, layer)
    shape = extractor(torch.zeros(1, 3, 32, 32)).shape[1:]
    weight = torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed))
    info = SiteInfo(("a", "b"), (1.0, 2.0), (1.0, 1.0), (32, 32), 8.0, "spikes")
    return SiteModel(extractor, LinearReadout(weight, torch.ones(2)), info)


def test_a_saved_network_comes_back_to_the_bit(registered, images, tmp_path, global_rng_untouched):
    backbone = small(channels=5, scale=2.0)
    folder = save_backbone(backbone, tmp_path / "net", record={"note": [1, 2]})
    with global_rng_untouched():
        loaded = load_backbone(f"saved:{folder}")
    assert torch.equal(loaded.network(images), backbone.network(images))
    for field in ("name", "mean", "std", "input_px", "fixed_size", "weights_sha256", "built_from"):
        assert getattr(loaded, field) == getattr(backbone, field), field
    assert not any(weight.requires_grad for weight in loaded.network.parameters())
    assert saved.read_saved(folder)[1] == {"note": [1, 2]}
    assert sorted(path.name for path in folder.iterdir()) == ["network.json", "weights.safetensors"]


def test_the_name_holds_the_hash_and_follows_the_weights(registered):
    one, other = small(0), small(1)
    assert re.fullmatch("mine@[0-9a-f]{12}", one.name)
    assert one.name != other.name
    again = Backbone(one.name, other.network, other.mean, other.std, 32, True, built_from=one.built_from)
    assert again.name == other.name
    changes = ({"mean": (0.1, 0.2, 0.4)}, {"std": (1.0, 0.6, 0.7)}, {"input_px": 33}, {"fixed_size": False})
    assert len({replace(one, **change).name for change in changes} | {one.name}) == 5
    with pytest.raises(
        ValueError, match=r"weights of its own, which no name finds; give the Backbone, or 'saved:FOLDER'"
    ):
        load_backbone(one.name)


def test_networks_made_from_published_ones_have_a_recipe_and_another_name(lite0):
    network = build_network({"base": "efficientnet-lite0", "head": "classifier", "classes": 3})
    made = with_weights(lite0, network, "fine-tuned", head="classifier", classes=3)
    assert made.name.startswith("efficientnet-lite0 fine-tuned@")
    assert made.built_from == {"base": "efficientnet-lite0", "head": "classifier", "classes": 3}
    assert (made.mean, made.std, made.input_px) == (lite0.mean, lite0.std, lite0.input_px)
    twice = with_weights(made, network, "fine-tuned", head="classifier", classes=3)
    assert twice.name == made.name
    own = with_weights(load_backbone(nn.Sequential(nn.Conv2d(3, 2, 1))), nn.Sequential(nn.Conv2d(3, 2, 1)), "tuned")
    assert own.built_from is None
    assert re.fullmatch("module:Sequential tuned@[0-9a-f]{12}", own.name)


@pytest.mark.parametrize(
    ("base", "head"),
    [
        ("torchvision:resnet18", "fc"),
        ("timm:vit_tiny_patch16_224", "head"),
        ("torchvision:squeezenet1_1", "classifier.1"),
    ],
)
def test_any_known_network_is_saved_with_another_head(base, head, tmp_path):
    built = {"base": base, "head": head, "classes": 2}
    backbone = Backbone("two", build_network(built), input_px=224, built_from=built)
    loaded = load_backbone(f"saved:{save_backbone(backbone, tmp_path / 'net')}")
    assert loaded.weights_sha256 == backbone.weights_sha256
    assert loaded.network(torch.zeros(1, 3, 224, 224)).shape == (1, 2)


def test_a_model_carries_the_weights_of_such_networks(registered, images, tmp_path):
    first, second = small(0), small(1)
    ensemble = Ensemble([site_model(first), site_model(second, "body.0"), site_model(first, "body.1", seed=3)])
    folder = ensemble.save(tmp_path / "model")
    loaded = load_model(folder)
    assert torch.equal(loaded(images), ensemble(images))
    assert json.loads((folder / "model.json").read_text())["format_version"] == FORMAT_VERSION
    keys = load_file(folder / "networks.safetensors")
    assert {key.split(".")[0] for key in keys} == {"0", "1"}  # the network of two members is there once
    ensemble.save(folder, overwrite=True)


def test_a_model_of_published_networks_is_written_as_before(lite0, tmp_path):
    folder = site_model(lite0, "blocks.1").save(tmp_path / "model")
    assert json.loads((folder / "model.json").read_text())["format_version"] == 1
    assert not (folder / "networks.safetensors").exists()


def change(path, edit):
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def other_tensors(folder):
    """What a forger would do: other weights, with the hash of the file made right again."""
    tensors = load_file(folder / "weights.safetensors")
    tensors["head.weight"] = tensors["head.weight"] + 1
    save_file(tensors, folder / "weights.safetensors")
    change(
        folder / "network.json",
        lambda m: m.update(file_sha256=sha256_bytes((folder / "weights.safetensors").read_bytes())),
    )


def not_tensors(folder):
    (folder / "weights.safetensors").write_bytes(b"\x80\x04not safetensors")
    change(folder / "network.json", lambda m: m.update(file_sha256=sha256_bytes(b"\x80\x04not safetensors")))


def manifest_edit(edit):
    return lambda folder: change(folder / "network.json", edit)


DAMAGE = {
    "no weights": (
        lambda f: (f / "weights.safetensors").unlink(),
        "missing or was changed since the network was saved",
    ),
    "another file": (lambda f: (f / "weights.safetensors").write_bytes(b"x"), "missing or was changed"),
    "a pickle": (not_tensors, "holds no tensors"),
    "forged weights": (other_tensors, "other weights than those that were loaded"),
    "no json": (lambda f: (f / "network.json").write_text("{"), "was damaged"),
    "no network": (manifest_edit(lambda m: m.pop("network")), "was damaged"),
    "newer": (manifest_edit(lambda m: m.update(format_version=9)), "has format 9, this version reads up to 1; update"),
    "other shapes": (
        manifest_edit(lambda m: m["network"]["built_from"]["config"].update(channels=7)),
        "do not fit what",
    ),
    "other class": (
        manifest_edit(lambda m: m["network"]["built_from"].update(architecture="os:system")),
        "unknown architecture 'os:system'",
    ),
    "misspelt class": (
        manifest_edit(lambda m: m["network"]["built_from"].update(architecture="smalll")),
        "did you mean 'small'",
    ),
    "other arguments": (
        manifest_edit(lambda m: m["network"]["built_from"]["config"].update(x=1)),
        "cannot be built from",
    ),
    "other mean": (
        manifest_edit(lambda m: m["network"].update(mean=[0.1, 0.2, 0.4])),
        "was changed since it was saved",
    ),
    "no mean": (manifest_edit(lambda m: m["network"].update(mean="abc")), "was damaged"),
    "no side": (manifest_edit(lambda m: m["network"].update(input_px=-5)), "was damaged"),
    "another format": (manifest_edit(lambda m: m.update(format="neural-population-control model")), "was damaged"),
    "a huge network": (
        manifest_edit(lambda m: m["network"]["built_from"]["config"].update(channels=2 * 10**9)),
        "larger than the weights saved with it",
    ),
    "a huge head": (
        manifest_edit(lambda m: m["network"]["built_from"].update(head="head", classes=10**11)),
        "larger than the weights saved with it",
    ),
    "fewer than no classes": (
        manifest_edit(lambda m: m["network"]["built_from"].update(head="head", classes=-1)),
        "cannot be built from",
    ),
    "folder as base": (
        manifest_edit(lambda m: m["network"].update(built_from={"base": "saved:../other"})),
        "cannot be built from base 'saved:../other'",
    ),
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_changed_files_get_one_sentence(registered, damage, tmp_path):
    folder = save_backbone(small(channels=4), tmp_path / "net")
    harm, sentence = DAMAGE[damage]
    harm(folder)
    with pytest.raises(ValueError, match=sentence) as caught:
        load_backbone(f"saved:{folder}")
    assert "\n" not in str(caught.value)


def test_networks_carried_by_a_model_are_checked_too(registered, tmp_path):
    folder = site_model(small()).save(tmp_path / "model")
    data = (folder / "networks.safetensors").read_bytes()
    (folder / "networks.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"networks.safetensors' is missing or was changed since the model was saved"):
        load_model(folder)
    (folder / "networks.safetensors").write_bytes(data)
    load_model(folder)
    change(folder / "model.json", lambda m: m["networks"].clear())
    with pytest.raises(ValueError, match="no name finds"):
        load_model(folder)


def test_what_cannot_be_loaded_again_is_not_saved(registered, tmp_path):
    with pytest.raises(ValueError, match=r"'module:Small' does not say how it is built.*ARCHITECTURES"):
        save_backbone(load_backbone(Small()), tmp_path / "net")
    wrong = Backbone("wrong", Small(4), built_from={"architecture": "small", "config": {"channels": 6}})
    with pytest.raises(
        ValueError, match=r"do not fit what built_from builds: 'body.0.bias' has shape \(4,\), expected \(6,\)"
    ):
        save_backbone(wrong, tmp_path / "net")
    moved = small()
    moved.network.head.weight += 1
    with pytest.raises(ValueError, match="were changed after it was made"):
        save_backbone(moved, tmp_path / "net")
    assert not (tmp_path / "net").exists()
    with pytest.raises(FileNotFoundError, match=r"no saved network in .*net.*save_backbone"):
        load_backbone(f"saved:{tmp_path / 'net'}")


def test_other_folders_are_never_replaced(registered, tmp_path):
    folder = save_backbone(small(), tmp_path / "net")
    with pytest.raises(FileExistsError, match="overwrite"):
        save_backbone(small(), folder)
    save_backbone(small(1), folder, overwrite=True)
    (folder / "diary.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="something else"):
        save_backbone(small(), folder, overwrite=True)
    assert (folder / "diary.txt").read_text() == "mine"


def test_members_of_the_same_weights_and_other_preprocessing_stay_apart(registered, images, tmp_path):
    one = small()
    two = replace(one, mean=(0.0, 0.0, 0.0), std=(0.1, 0.1, 0.1))
    ensemble = Ensemble([site_model(one), site_model(two)])
    loaded = load_model(ensemble.save(tmp_path / "model"))
    assert torch.equal(loaded(images), ensemble(images))
    same_name = [replace(each, name="module:Small", built_from=None) for each in (one, two)]
    with pytest.raises(ValueError, match=r"two networks are both called 'module:Small'"):
        Ensemble([site_model(each) for each in same_name]).save(tmp_path / "other")


def test_a_network_of_your_own_comes_back_with_its_preprocessing(images, tmp_path):
    own = Backbone("module:Small", Small(), (0.4, 0.5, 0.6), (0.2, 0.2, 0.2), 32)
    model = site_model(own)
    folder = model.save(tmp_path / "model")
    assert torch.equal(load_model(folder, {"module:Small": own.network})(images), model(images))
    assert torch.equal(load_model(folder, {"module:Small": own})(images), model(images))
    with pytest.raises(ValueError, match=r"'module:Small' expects images as .*'mean': \[0.0, .*was fitted with"):
        load_model(folder, {"module:Small": Backbone("module:Small", own.network)})
    change(folder / "model.json", lambda m: m["members"][0].pop("preprocessing"))  # as older versions wrote it
    assert torch.equal(load_model(folder, {"module:Small": own})(images), model(images))


class Switch(Small):
    """As torchvision's inception: an option that changes what is computed and is not among the weights."""

    def __init__(self, flipped=False):
        super().__init__()
        self.flipped = flipped

    def forward(self, x):
        return super().forward(x.flip(1) if self.flipped else x)


def test_a_network_that_comes_back_as_another_function_is_not_saved(monkeypatch, tmp_path):
    monkeypatch.setitem(architectures.ARCHITECTURES, "switch", Switch)
    wrong = Backbone("mine", Switch(True), input_px=32, built_from={"architecture": "switch"})
    with pytest.raises(ValueError, match=r"with the same weights, does something else \(layer 'body.0' differs\)"):
        save_backbone(wrong, tmp_path / "net")
    right = Backbone(
        "mine", Switch(True), input_px=32, built_from={"architecture": "switch", "config": {"flipped": True}}
    )
    load_backbone(f"saved:{save_backbone(right, tmp_path / 'net')}")


def test_published_layouts_of_torchvision_are_built_and_nothing_is_fetched(monkeypatch):
    google = build_network({"base": "torchvision:googlenet"})
    assert (google.transform_input, google.aux1) == (True, None)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: pytest.fail("a download"))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: pytest.fail("a download"))
    with torch.random.fork_rng(devices=[]):
        load_backbone("torchvision:lraspp_mobilenet_v3_large", pretrained=False)


def test_every_registered_class_can_be_imported():
    for made in architectures.ARCHITECTURES.values():
        assert callable(architectures._made(made))
