from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from neural_fits.features import FeatureExtractor
from neural_fits.readout import LinearReadout
from neural_fits.site_model import FORMAT_VERSION, Ensemble, SiteInfo, SiteModel, load_model
from stimuli import StimulusSet

IDS = ("007", "north", "south")
INFO = SiteInfo(IDS, (1.0, 2.0, 3.5), (0.1, 0.2, 1 / 3), (16, 16), 8.0, "spikes/s")


def scores():
    table = {"r": [0.5, 1 / 3, -0.1], "reliability": [np.nan] * 3, "n_stimuli": [10, 11, 12]}
    return pd.DataFrame(table, index=pd.Index(IDS, name="site_id"))


def own_network(seed=0):
    network = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.Tanh(), nn.Conv2d(6, 4, 3, stride=2), nn.Softplus())
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
    return network


def make_model(backbone, layer, info=INFO, seed=0):
    extractor = FeatureExtractor(backbone, layer)
    shape = extractor(torch.zeros(1, 3, *info.size_px)).shape[1:]
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(len(info.site_ids), *shape, generator=generator)
    bias = torch.randn(len(info.site_ids), generator=generator)
    return SiteModel(extractor, LinearReadout(weight, bias), info, scores(), {"seed": seed, "config": {"folds": 5}})


@pytest.fixture(scope="module")
def images():
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def own():
    return make_model(own_network(), "3")


@pytest.fixture(scope="module")
def named(lite0):
    return make_model(lite0, "blocks.1")


@pytest.fixture
def ensemble(named):
    members = Ensemble([named, make_model(own_network(), "1", seed=1)])
    members.scores = scores() * 2
    members.provenance = {"seed": 3}
    return members


BACKBONES = {"module:Sequential": own_network()}


def same_table(found, wanted):
    pd.testing.assert_frame_equal(found, wanted, check_exact=False, rtol=1e-14)


def test_prediction_is_readout_of_layer(own, images):
    hidden = nn.Sequential(*own_network())(images).flatten(1)
    wanted = hidden @ own.readout.weight.flatten(1).T + own.readout.bias
    torch.testing.assert_close(own(images), wanted)
    stimuli = StimulusSet.from_arrays(images.numpy())
    predicted = own.predict(stimuli, batch_size=2)
    np.testing.assert_allclose(predicted, own(torch.from_numpy(stimuli.images(slice(None)))), rtol=1e-5, atol=1e-5)
    assert own.site_ids == IDS


def test_images_of_another_size_are_refused_in_pixels_and_degrees(own, ensemble, images):
    stimuli = StimulusSet.from_arrays(images.numpy(), name="crops")
    for model in (own, ensemble):
        wanted = model.predict(stimuli)
        np.testing.assert_array_equal(model.predict(stimuli.on_screen(size_deg=8.05)), wanted)
        for size in (2.0, 7.9, 8.1):
            with pytest.raises(ValueError, match=f"'crops' are {size:g} deg wide, the model was fitted on images of 8"):
                model.predict(stimuli.on_screen(size_deg=size))
        with pytest.raises(ValueError, match="images are 20 x 16 px, the model was fitted on 16 x 16 px; resize them"):
            model.predict(StimulusSet.from_arrays(np.zeros((1, 3, 20, 16))))


def test_saved_model_predicts_the_same_bits(named, images, tmp_path):
    loaded = load_model(named.save(tmp_path / "model"))
    assert isinstance(loaded, SiteModel)
    assert torch.equal(loaded(images), named(images))
    assert loaded.info == named.info
    assert loaded.provenance == named.provenance
    same_table(loaded.scores, scores())
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.json", "weights.safetensors"]


def test_saved_ensemble_predicts_the_same_bits(ensemble, images, tmp_path):
    loaded = load_model(ensemble.save(tmp_path / "model"), BACKBONES)
    assert isinstance(loaded, Ensemble)
    assert torch.equal(loaded(images), ensemble(images))
    torch.testing.assert_close(loaded(images), (ensemble.members[0](images) + ensemble.members[1](images)) / 2)
    same_table(loaded.scores, scores() * 2)
    same_table(loaded.members[1].scores, scores())
    assert loaded.provenance == {"seed": 3}
    assert loaded.site_ids == IDS


def test_model_without_scores_comes_back_without(own, tmp_path):
    own.scores = None
    assert load_model(own.save(tmp_path / "model"), BACKBONES).scores is None


def test_size_of_the_networks_input_survives(tmp_path, lite0):
    extractor = FeatureExtractor(lite0, "blocks.1", input_px=32)
    shape = extractor(torch.zeros(1, 3, 16, 16)).shape[1:]
    model = SiteModel(extractor, LinearReadout(torch.ones(3, *shape), torch.zeros(3)), INFO)
    assert load_model(model.save(tmp_path / "model")).extractor.input_px == 32


def test_gradient_of_a_loop_on_images_climbs(own, images):
    """What captum, lucent or a user's own loop does: no weights move, the image does."""
    weights = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    image = images[:1].clone().requires_grad_(True)
    optimizer = torch.optim.SGD([image], lr=0.01)
    before = own(image)[0, 1].item()
    for _ in range(20):
        optimizer.zero_grad()
        (-own(image)[0, 1]).backward()
        optimizer.step()
    assert own(image)[0, 1].item() > before + 0.1
    assert all(torch.equal(tensor, weights[name]) for name, tensor in own.state_dict().items())
    assert all(parameter.grad is None for parameter in own.parameters())


def test_integrated_gradients_add_up(own, images):
    steps = torch.linspace(0, 1, 201)[:-1] + 0.0025
    path = (steps[:, None, None, None] * images[:1]).requires_grad_(True)
    own(path)[:, 2].sum().backward()
    attribution = (path.grad.mean(0) * images[0]).sum().item()
    change = (own(images[:1]) - own(torch.zeros_like(images[:1])))[0, 2].item()
    assert attribution == pytest.approx(change, rel=1e-3, abs=1e-3)


def test_gradient_equals_finite_differences(own, images):
    double = own.double()
    image = images[:1].double().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: double(x), image, fast_mode=True)


def test_training_mode_changes_nothing(ensemble, images):
    before = ensemble(images)
    ensemble.train()
    assert torch.equal(ensemble(images), before)


@pytest.mark.parametrize("size", [(16, 12), (32, 32)])
def test_images_of_another_size_are_refused(own, ensemble, size):
    for model in (own, ensemble):
        with pytest.raises(ValueError, match=f"{size[0]} x {size[1]} px, the model was fitted on 16 x 16 px"):
            model(torch.zeros(1, 3, *size))


def change_manifest(folder, change):
    path = folder / "model.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def flip_a_bit(folder):
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(data)


DAMAGE = {
    "a bit of the weights": (flip_a_bit, "weights.safetensors' is missing or was changed"),
    "no weights": (lambda f: (f / "weights.safetensors").unlink(), "weights.safetensors' is missing or was changed"),
    "half a manifest": (
        lambda f: (f / "model.json").write_text((f / "model.json").read_text()[:99]),
        "not a model manifest or was damaged",
    ),
    "another JSON": (lambda f: (f / "model.json").write_text("[1, 2]"), "not a model manifest or was damaged"),
    "not text": (lambda f: (f / "model.json").write_bytes(b"\xff\xfe\x00"), "not a model manifest or was damaged"),
    "no members": (lambda f: change_manifest(f, lambda m: m["members"].clear()), "damaged"),
    "no list of members": (lambda f: change_manifest(f, lambda m: m.pop("members")), "damaged"),
    "no hash": (lambda f: change_manifest(f, lambda m: m.pop("weights_sha256")), "missing or was changed"),
    "no info": (lambda f: change_manifest(f, lambda m: m["members"][0].pop("info")), "damaged"),
    "strange info": (lambda f: change_manifest(f, lambda m: m["members"][0]["info"].update(x=1)), "damaged"),
    "member as text": (lambda f: change_manifest(f, lambda m: m["members"].__setitem__(0, "x")), "damaged"),
    "one member too many": (lambda f: change_manifest(f, lambda m: m["members"].append(m["members"][0])), "damaged"),
    "fewer sites": (lambda f: change_manifest(f, lambda m: m["members"][0]["info"]["site_ids"].pop()), "2 site ids"),
    "newer": (
        lambda f: (f / "model.json").write_text(json.dumps({"format_version": FORMAT_VERSION + 1})),
        f"has format {FORMAT_VERSION + 1}, this version reads up to {FORMAT_VERSION}; update",
    ),
    "other layer": (lambda f: change_manifest(f, lambda m: m["members"][0].update(layer="blocks.x")), "no layer"),
    "other backbone": (
        lambda f: change_manifest(f, lambda m: m["members"][0].update(backbone="efficientnet-lite1")),
        "'efficientnet-lite1' has other weights than the model was fitted on",
    ),
    "unknown backbone": (
        lambda f: change_manifest(f, lambda m: m["members"][0].update(backbone="efficientnet-lite9")),
        "unknown backbone",
    ),
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_changed_files_get_one_sentence(named, tmp_path, damage):
    harm, sentence = DAMAGE[damage]
    folder = named.save(tmp_path / "model")
    harm(folder)
    with pytest.raises(ValueError, match=sentence) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [lambda f: None, lambda f: f.mkdir(), lambda f: f.write_text("no folder")])
def test_a_place_without_a_model_gets_one_sentence(tmp_path, make):
    make(tmp_path / "there")
    with pytest.raises(FileNotFoundError, match=r"no model in .*there"):
        load_model(tmp_path / "there")


def test_own_networks_must_be_given_and_be_the_same(own, tmp_path):
    folder = own.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"network of your own; load_model\(folder, backbones=.*module:Sequential"):
        load_model(folder)
    with pytest.raises(ValueError, match="other weights"):
        load_model(folder, {"module:Sequential": own_network(seed=1)})


def test_nothing_half_written_is_left(own, tmp_path, monkeypatch):
    def no_space(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_text", no_space)
        with pytest.raises(OSError, match="No space left"):
            own.save(tmp_path / "deep" / "model")
    assert list(tmp_path.iterdir()) == []
    folder = own.save(tmp_path / "model")
    old = {path.name: path.read_bytes() for path in folder.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_text", no_space)
        with pytest.raises(OSError, match="No space left"):
            make_model(own_network(), "1", seed=9).save(folder, overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == old
    assert list(tmp_path.iterdir()) == [folder]


def test_models_are_replaced_only_when_asked_and_other_folders_never(own, tmp_path, images):
    folder = own.save(tmp_path / "model")
    other = make_model(own_network(), "3", seed=9)
    with pytest.raises(FileExistsError, match="overwrite"):
        other.save(folder)
    assert torch.equal(load_model(folder, BACKBONES)(images), own(images))
    other.save(folder, overwrite=True)
    assert torch.equal(load_model(folder, BACKBONES)(images), other(images))
    (tmp_path / "diary").mkdir()
    (tmp_path / "diary" / "day1.txt").write_text("dear diary")
    with pytest.raises(FileExistsError):
        other.save(tmp_path / "diary", overwrite=True)
    assert (tmp_path / "diary" / "day1.txt").read_text() == "dear diary"


def test_parts_that_do_not_fit_are_refused(own):
    with pytest.raises(ValueError, match="3 site ids, 2 means and 3 standard deviations"):
        SiteInfo(IDS, (1.0, 2.0), (1.0,) * 3, (16, 16), 8.0, "spikes")
    with pytest.raises(ValueError, match="2 sites, 3 ids"):
        SiteModel(own.extractor, LinearReadout(torch.zeros(2, 4, 3, 3), torch.zeros(2)), INFO)
    with pytest.raises(ValueError, match="at least one member"):
        Ensemble([])
    for changed in (
        SiteInfo(("a", "b", "c"), *((1.0,) * 3,) * 2, (16, 16), 8.0, "spikes/s"),
        SiteInfo(IDS, *((1.0,) * 3,) * 2, (20, 20), 8.0, "spikes/s"),
        SiteInfo(IDS, *((1.0,) * 3,) * 2, (16, 16), 8.0, "mV"),
    ):
        with pytest.raises(ValueError, match="different sites, units, or images of another size"):
            Ensemble([own, make_model(own_network(), "3", changed)])


def test_html_is_escaped(own):
    assert "3 sites" in own._repr_html_()
    hostile = SiteInfo(IDS, *((1.0,) * 3,) * 2, (16, 16), 8.0, "<script>")
    assert "<script>" not in make_model(own_network(), "3", hostile)._repr_html_()
