"""`fold`: same outputs and gradients as the plain network, and an original that nobody touched."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from neural_fits.backbones import Backbone, load_backbone
from neural_fits.ensembles import Ensemble
from neural_fits.features import FeatureExtractor
from neural_fits.readout import LinearReadout
from neural_fits.site_model import SiteInfo, SiteModel
from synth._fused import FusedConv, PassedNorm
from synth.folding import fold

SIZE = (64, 64)


def _randomized(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 2.0),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
            ):
                tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))
    return network


def _random(name: str) -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = load_backbone(name, pretrained=False)
    _randomized(backbone.network)
    return backbone


def _images(size: tuple[int, int] = SIZE, number: int = 3) -> Tensor:
    return torch.rand(number, 3, *size, generator=torch.Generator().manual_seed(2))


def _with_gradient(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    images = images.clone().requires_grad_()
    output = model(images)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(3))
    return output.detach(), torch.autograd.grad((output * weights).sum(), images)[0]


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


def _assert_same(plain: nn.Module, folded: nn.Module, images: Tensor, tolerance: float = 1e-4) -> None:
    expected, found = _with_gradient(plain, images), _with_gradient(folded, images)
    assert _difference(found[0], expected[0]) < 1e-5
    # a unit at the very edge of a rectifier may fall to the other side by rounding
    assert _difference(found[1], expected[1]) < tolerance


def _count(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(type(module) is kind for module in model.modules())


@pytest.mark.parametrize(
    ("name", "layers", "size"),
    [
        ("torchvision:resnet18", ["layer2"], (64, 64)),
        ("torchvision:resnet18", ["layer1.0.conv1", "layer1.0.bn2", "layer2.0.relu", "maxpool"], (47, 50)),
        ("efficientnet-lite0", ["blocks.2", "blocks.3", "blocks.4"], (64, 64)),
        ("efficientnet-lite0", ["blocks.1.0.conv_pw", "blocks.1.0.bn2", "blocks.2.0.bn1.act"], (47, 50)),
        ("torchvision:mobilenet_v3_small", ["features.6"], (64, 64)),
        ("torchvision:densenet121", ["features.transition1"], (48, 48)),
        ("torchvision:alexnet", ["features.7"], (64, 64)),
    ],
)
def test_outputs_and_gradients_equal_the_plain_networks(name: str, layers: list[str], size: tuple[int, int]) -> None:
    backbone = load_backbone(name) if name.startswith("efficientnet") else _random(name)
    extractor = FeatureExtractor(backbone, layers)
    folded = fold(extractor, size)
    assert _count(folded, FusedConv) > 0
    # Random images in float32 put a few units at the edge of a rectifier; each changes the gradient a little.
    _assert_same(extractor, folded, _images(size), tolerance=5e-3)
    assert not any(parameter.requires_grad for parameter in folded.parameters())


class _Smooth(nn.Module):
    """Every kind of convolution that has a gradient of its own; no unit is near the edge of its rectifier."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 7, 2, 3)
        self.pointwise = nn.Conv2d(16, 24, 1)
        self.depthwise = nn.Conv2d(24, 24, 5, 1, 2, groups=24)
        self.strided = nn.Conv2d(24, 24, 3, 2, 1, groups=24)
        self.dilated = nn.Conv2d(24, 8, 3, 1, 2, dilation=2)
        self.act = nn.ReLU6(inplace=True)
        for conv in (self.stem, self.pointwise, self.depthwise, self.strided):
            conv.weight.data *= 0.1
            conv.bias.data.uniform_(0.5, 1.0)
            conv.bias.data[::2] += bias  # beyond the rectifier's edge: gradient exactly 0

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.stem, self.pointwise, self.depthwise, self.strided):
            x = self.act(conv(x))
        return self.dilated(x)


@pytest.mark.parametrize("bias", [0.0, 20.0, -20.0])
def test_gradient_is_exact_where_no_unit_is_at_an_edge(bias: float) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = _Smooth(bias)
    folded = fold(network, SIZE)
    assert _count(folded, FusedConv) == 5
    _assert_same(network, folded, _images(), tolerance=1e-5)


def test_batch_norms_are_gone_and_their_statistics_are_in_the_weights() -> None:
    extractor = FeatureExtractor(_random("torchvision:resnet18"), "layer2")
    folded = fold(extractor, SIZE)
    assert _count(folded.network.layer1, nn.BatchNorm2d) == 0
    assert _count(folded.network.layer1, PassedNorm) == 4
    norm, conv = extractor.network.bn1, extractor.network.conv1
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(folded.network.conv1.weight.data, conv.weight.data * gain[:, None, None, None])


def test_a_network_without_batch_norm_or_convolution_in_reach_works() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = load_backbone("timm:vit_tiny_patch16_224", pretrained=False)
    extractor = FeatureExtractor(network, "blocks.0")
    _assert_same(extractor, fold(extractor), _images((224, 224), 1))


def test_the_original_is_left_as_it_is() -> None:
    extractor = FeatureExtractor("efficientnet-lite0", ["blocks.1", "blocks.2"])
    state = {key: value.clone() for key, value in extractor.network.state_dict().items()}
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in extractor.modules()]
    modules = list(extractor.modules())
    before = _with_gradient(extractor, _images())
    fold(extractor, SIZE)
    fold(extractor, SIZE, torch.bfloat16)
    assert all(one is other for one, other in zip(modules, extractor.modules(), strict=True))
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in extractor.modules()]
    assert all(torch.equal(value, state[key]) for key, value in extractor.network.state_dict().items())
    assert all(torch.equal(*pair) for pair in zip(before, _with_gradient(extractor, _images()), strict=True))


class _Shared(nn.Module):
    """A convolution with two norms, a norm with two convolutions, and a norm that is not its only listener."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.a, self.b, self.norm = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.c, self.last = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.d, self.final = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.one(self.conv(x)) + self.two(self.conv(1 - x)))
        x = torch.tanh(self.norm(self.a(x)) + self.norm(self.b(x)))
        inner = self.c(x)
        x = torch.tanh(self.last(inner) + inner)
        return self.final(self.d(x))


def test_what_is_used_twice_is_not_folded() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = _randomized(_Shared()).eval()
    folded = fold(network, (16, 16))
    _assert_same(network, folded, _images((16, 16)))
    assert [type(folded.get_submodule(name)) for name in ("one", "norm", "last", "final")] == [
        *[nn.BatchNorm2d] * 3,
        PassedNorm,
    ]


class _Hidden(nn.Module):
    """A function, which no hook sees, reads what stands before a rectifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm(self.conv(x))
        return self.act(inner) + functional.softplus(inner)


def test_an_activation_is_not_fused_where_its_input_is_needed() -> None:
    network = _randomized(_Hidden()).eval()
    folded = fold(network, (16, 16))
    assert type(folded.norm) is PassedNorm
    assert folded.conv.activation == ""
    _assert_same(network, folded, _images((16, 16)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_image_depends_on_neither_its_place_nor_its_neighbors(dtype: torch.dtype) -> None:
    folded = fold(FeatureExtractor("efficientnet-lite0", ["blocks.2", "blocks.3"]), (96, 96), dtype)
    images = _images((96, 96), 5)
    output, gradient = _each_gradient(folded, images)
    order = [3, 0, 4, 1, 2]
    moved_output, moved_gradient = _each_gradient(folded, images[order])
    assert torch.equal(moved_output, output[order])
    assert torch.equal(moved_gradient, gradient[order])
    images[1:] = 0.5
    assert torch.equal(_each_gradient(folded, images)[1][0], gradient[0])


def _each_gradient(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    images = images.clone().requires_grad_()
    output = model(images)
    return output.detach(), torch.autograd.grad(output.square().sum(), images)[0]


def test_threads_share_a_folded_model() -> None:
    folded = fold(FeatureExtractor("efficientnet-lite0", "blocks.2"), SIZE)
    batches = [_images(SIZE, n + 1) for n in range(4)]
    expected = [_with_gradient(folded, batch)[1] for batch in batches]
    found: dict[int, Tensor] = {}
    threads = [
        threading.Thread(target=lambda k=k: found.update({k: _with_gradient(folded, batches[k])[1]})) for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[k], expected[k]) for k in range(4))


def test_bfloat16_keeps_features_in_float32_and_close() -> None:
    extractor = FeatureExtractor(_random("torchvision:resnet18"), "layer1")
    folded = fold(extractor, SIZE, torch.bfloat16)
    expected, found = _with_gradient(extractor, _images()), _with_gradient(folded, _images())
    assert found[0].dtype == found[1].dtype == torch.float32
    assert _difference(found[0], expected[0]) < 0.02
    assert _difference(found[1], expected[1]) < 0.2  # units near the edge of a rectifier; 0.13 for the plain network
    assert folded.network.conv1.weight.dtype == torch.bfloat16


def test_site_models_and_ensembles_are_folded_whole() -> None:
    backbone = load_backbone("efficientnet-lite0")
    members = []
    for layer, channels in (("blocks.1", 24), ("blocks.2", 40)):
        extractor = FeatureExtractor(backbone, layer)
        side = 64 // (4 if layer == "blocks.1" else 8)
        weight = torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(0))
        info = SiteInfo(("a", "b"), (0.0, 0.0), (1.0, 1.0), SIZE, 8.0, "spikes")
        members.append(SiteModel(extractor, LinearReadout(weight, torch.ones(2)), info))
    folded = fold(Ensemble(members))
    _assert_same(Ensemble(members), folded, _images(), tolerance=5e-3)
    assert folded.site_ids == ("a", "b")
    assert folded.members[0].extractor.network is folded.members[1].extractor.network
    _assert_same(folded, copy.deepcopy(folded), _images())


def test_readings_without_gradient_agree() -> None:
    folded = fold(FeatureExtractor("efficientnet-lite0", "blocks.2"), SIZE)
    expected = _with_gradient(folded, _images())[0]
    with torch.no_grad():
        assert torch.equal(folded(_images()), expected)
    with torch.inference_mode():
        assert torch.equal(folded(_images()), expected)


def test_without_onednn_the_ordinary_operations_do_the_same() -> None:
    extractor = FeatureExtractor("efficientnet-lite0", ["blocks.2", "blocks.3"])
    plain, folded = copy.deepcopy(extractor).double(), fold(extractor, SIZE).double()  # as on a GPU
    _assert_same(plain, folded, _images((64, 47)).double(), tolerance=5e-3)


def test_another_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match=r"torch.float16; expected torch.float32"):
        fold(nn.Conv2d(3, 3, 1), dtype=torch.float16)
