"""Capsule networks against an implementation with explicit loops in float64, and what they do on digits."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.nn import functional

from neural_fits import SimulatedBrain, fit_sites
from neural_fits.backbones import load_backbone
from neural_fits.features import FeatureExtractor
from neural_fits.networks import capsule_backbone as shipped
from neural_fits.networks.capsule_layers import CapsuleLayer, CapsuleLengths, PrimaryCapsules, dynamic_routing, squash
from neural_fits.networks.capsule_pose import POSE_STEPS, pose_perturbation
from neural_fits.networks.capsule_training import CapsuleTraining, accuracy, margin_loss, train_capsules
from neural_fits.networks.capsules import CapsuleNetwork
from neural_fits.networks.digits import digits
from neural_fits.networks.saved import save_backbone
from neural_fits.site_model import load_model
from stimuli import natural_photos
from synth import LayerUnit, Stretch, SynthesisConfig, synthesize


def squash_by_loops(s):
    length = np.sqrt(sum(float(x) ** 2 for x in s))
    return np.array([0.0 if length == 0 else length**2 / (1 + length**2) * float(x) / length for x in s])


def routing_by_loops(u, iterations):
    """The paper's procedure, line by line, for one image: u (upper, lower, dim)."""
    uppers, lowers, dims = u.shape
    b = np.zeros((lowers, uppers))
    for _ in range(iterations):
        c = np.empty_like(b)
        for i in range(lowers):
            powers = [np.exp(b[i, j]) for j in range(uppers)]
            for j in range(uppers):
                c[i, j] = powers[j] / sum(powers)
        v = np.zeros((uppers, dims))
        for j in range(uppers):
            s = np.zeros(dims)
            for i in range(lowers):
                for d in range(dims):
                    s[d] += c[i, j] * u[j, i, d]
            v[j] = squash_by_loops(s)
        for i in range(lowers):
            for j in range(uppers):
                for d in range(dims):
                    b[i, j] += u[j, i, d] * v[j, d]
    return v, c


@pytest.fixture(scope="module")
def parts():
    return digits()


@pytest.fixture(scope="module")
def capsnet():
    return load_backbone("capsnet-digits")


@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
def test_routing_is_that_of_the_loops(iterations):
    u = np.random.default_rng(iterations).normal(0, 0.8, (3, 4, 7, 5))
    capsules, coupling = dynamic_routing(torch.from_numpy(u), iterations)
    for k in range(3):
        v, c = routing_by_loops(u[k], iterations)
        np.testing.assert_allclose(capsules[k].numpy(), v, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(coupling[k].numpy().T, c, rtol=1e-12)
    single = dynamic_routing(torch.from_numpy(u).float(), iterations)[0]
    np.testing.assert_allclose(single.numpy(), capsules.numpy(), atol=1e-6)


def test_lower_capsules_that_agree_are_routed_together():
    u = torch.from_numpy(np.random.default_rng(0).normal(0, 1, (1, 5, 12, 8)))
    u[0, 2] = 1.0  # all lower capsules predict the same vector for upper capsule 2
    capsules, coupling = dynamic_routing(u)
    lengths = capsules[0].norm(dim=-1)
    assert lengths.argmax() == 2
    shares = coupling[0].mean(1)
    assert shares[2] > 0.5 > 4 * shares[[0, 1, 3, 4]].max()
    torch.testing.assert_close(dynamic_routing(u, 1)[1], torch.full_like(coupling, 0.2))
    torch.testing.assert_close(coupling.sum(1), torch.ones(1, 12, dtype=torch.float64))


def test_gradients_pass_through_every_iteration():
    u = torch.from_numpy(np.random.default_rng(1).normal(0, 1, (2, 3, 4, 3))).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: dynamic_routing(x, 3)[0], (u,))


def test_squash_has_the_length_of_the_formula_and_a_finite_gradient_at_zero():
    vectors = np.random.default_rng(2).normal(0, 3, (20, 6))
    np.testing.assert_allclose(
        squash(torch.from_numpy(vectors)).numpy(), [squash_by_loops(v) for v in vectors], rtol=1e-12
    )
    zero = torch.zeros(2, 6, dtype=torch.float64, requires_grad=True)
    squash(zero).sum().backward()
    assert (zero.grad == 0).all()
    assert squash(torch.full((1, 4), 1e9)).norm() <= 1
    for half in (torch.float16, torch.bfloat16):
        assert squash(torch.tensor([300.0, 0.0], dtype=half)).tolist() == [1.0, 0.0]  # 300^2 is beyond half precision
    torch.testing.assert_close(
        squash(torch.from_numpy(vectors).T, dim=0).T.contiguous(), squash(torch.from_numpy(vectors))
    )


def test_margin_loss_is_that_of_the_loops():
    rng = np.random.default_rng(3)
    lengths, labels = rng.uniform(0, 1, (12, 10)), rng.integers(0, 10, 12)
    expected = []
    for row, label in zip(lengths, labels, strict=True):
        total = 0.0
        for k, length in enumerate(row):
            total += max(0.0, 0.9 - length) ** 2 if k == label else 0.5 * max(0.0, length - 0.1) ** 2
        expected.append(total)
    found = margin_loss(torch.from_numpy(lengths), torch.from_numpy(labels))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    assert margin_loss(torch.tensor([[0.95, 0.05]]), torch.tensor([0])).item() == 0


def test_capsule_layer_multiplies_every_pair_by_its_own_matrix():
    layer = CapsuleLayer(6, 4, 3, 5).double()
    u = np.random.default_rng(4).normal(size=(2, 6, 4))
    weight = layer.weight.detach().numpy().reshape(6, 4, 3, 5)
    expected = np.array([[[u[n, i] @ weight[i, :, j] for i in range(6)] for j in range(3)] for n in range(2)])
    np.testing.assert_allclose(layer.predictions(torch.from_numpy(u)).detach().numpy(), expected, rtol=1e-12)
    routed = np.array([routing_by_loops(each, 3)[0].ravel() for each in expected])
    np.testing.assert_allclose(layer(torch.from_numpy(u)).detach().numpy(), routed, rtol=1e-10)
    lengths = CapsuleLengths(5)(torch.from_numpy(routed))
    np.testing.assert_allclose(lengths.numpy(), np.linalg.norm(routed.reshape(2, 3, 5), axis=2), rtol=1e-12)


def test_primary_capsules_are_squashed_each_at_its_place():
    layer = PrimaryCapsules(3, types=2, dim=4, kernel=3)
    maps = torch.from_numpy(np.random.default_rng(5).normal(size=(2, 3, 9, 11))).float()
    found = layer(maps).detach()
    plain = layer.convolution(maps).detach()
    assert found.shape == (2, 8, 4, 5)
    expected = squash_by_loops(plain[1, 4:8, 2, 3].numpy())
    np.testing.assert_allclose(found[1, 4:8, 2, 3].numpy(), expected, atol=1e-6)
    assert torch.equal(layer.vectors(found)[1, 1 * 20 + 2 * 5 + 3], found[1, 4:8, 2, 3])


def test_the_published_network_has_its_published_size():
    network = CapsuleNetwork(28, channels=256, kernel=9, primary_types=32, decoder=(512, 1024))
    count = sum(parameter.numel() for parameter in network.parameters())
    decoder = sum(parameter.numel() for parameter in network.decoder.parameters())
    assert (round(count / 1e6, 1), round((count - decoder) / 1e6, 1)) == (8.2, 6.8)
    assert network.digit_capsules.weight.shape == (32 * 6 * 6, 8, 10 * 16)
    assert network(torch.rand(1, 1, 28, 28)).shape == (1, 10)


def test_decoder_reads_one_capsule_only():
    network = CapsuleNetwork(seed=1)
    capsules = network.capsules(torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))).detach()
    capsules[:, 7] *= 0.99 / capsules[:, 7].norm(dim=-1, keepdim=True)
    others = capsules * 0.5
    others[:, 7] = capsules[:, 7]
    assert torch.equal(network.decode(capsules), network.decode(others, torch.full((3,), 7)))
    assert not torch.equal(network.decode(capsules), network.decode(capsules, torch.full((3,), 6)))


def test_first_weights_depend_on_the_seed_only(global_rng_untouched):
    with global_rng_untouched():
        one, again, other = (CapsuleNetwork(seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not any(torch.equal(one[key], other[key]) for key in one)
    assert len({value.flatten()[0].item() for value in one.values()}) == len(one)  # each layer has draws of its own
    assert torch.equal(PrimaryCapsules(3, 2, 4, 3).convolution.bias, PrimaryCapsules(3, 2, 4, 3).convolution.bias)
    assert torch.equal(CapsuleLayer(2, 3, 4, 5).weight, CapsuleLayer(2, 3, 4, 5).weight)


def test_training_learns_digits_and_follows_its_seed(parts, global_rng_untouched):
    quick = CapsuleTraining(epochs=5, seed=3)
    said = []
    with global_rng_untouched():
        trained = train_capsules(parts.images[:600], parts.labels[:600], quick, progress=said.append)
    right = accuracy(trained.network, parts.held_out_images, parts.held_out_labels)
    assert right > 0.85
    assert list(trained.history.index) == [1, 2, 3, 4, 5]
    said_right = f"{trained.history['accuracy'][5]:.1%} of the training pictures right"
    assert repr(trained) == f"TrainedCapsules(10 classes, 5 epochs, {said_right} in the last)"
    assert trained.history["margin_loss"].iloc[-1] < 0.5 * trained.history["margin_loss"].iloc[0]
    assert trained.history["reconstruction_sse"].iloc[-1] < 0.8 * trained.history["reconstruction_sse"].iloc[0]
    assert len(said) == 5
    assert "epoch 5 of 5" in said[-1]
    short = CapsuleTraining(epochs=1, seed=3)
    few = parts.images[:96], parts.labels[:96]
    start = CapsuleNetwork(seed=9)
    before = {key: value.clone() for key, value in start.state_dict().items()}
    one, again = (train_capsules(*few, short, start).network.state_dict() for _ in range(2))
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert all(torch.equal(before[key], value) for key, value in start.state_dict().items())
    assert not torch.equal(one["digit_capsules.weight"], before["digit_capsules.weight"])
    reseeded = train_capsules(*few, CapsuleTraining(epochs=1, seed=4), start).network.state_dict()
    assert not torch.equal(one["digit_capsules.weight"], reseeded["digit_capsules.weight"])


def test_losses_are_those_of_the_true_class(parts):
    few = parts.images[:64], parts.labels[:64]
    start = CapsuleNetwork(seed=2)
    assert accuracy(start, *few) < 0.5  # the longest capsule is another one
    with torch.no_grad():
        start.decoder[0].weight.mul_(100)  # so that each capsule draws something else
        capsules = start.capsules(few[0])
        errors = (start.decode(capsules, few[1]) - few[0]).square().sum((1, 2, 3)).mean()
        margin = margin_loss(capsules.norm(dim=-1), few[1]).mean()
    first = train_capsules(*few, CapsuleTraining(epochs=1, shift_px=0), start).history.loc[1]
    assert first["reconstruction_sse"] == pytest.approx(errors.item(), rel=1e-5)
    assert first["margin_loss"] == pytest.approx(margin.item(), rel=1e-5)


def test_step_size_decays_after_each_epoch(parts):
    few, start = (parts.images[:64], parts.labels[:64]), CapsuleNetwork()
    one, two = (
        train_capsules(*few, CapsuleTraining(epochs=epochs, decay=1e-9, shift_px=0), start).network.state_dict()
        for epochs in (1, 2)
    )
    torch.testing.assert_close(two["digit_capsules.weight"], one["digit_capsules.weight"], atol=1e-7, rtol=0)


def test_any_whole_labels_and_arrays_train_alike(parts):
    few, short = (parts.images[:40], parts.labels[:40]), CapsuleTraining(epochs=1)
    wanted = train_capsules(*few, short).network.state_dict()
    for images, labels in ((few[0], few[1].int()), (few[0].double(), few[1].byte()), (few[0].numpy(), few[1].numpy())):
        found = train_capsules(images, labels, short).network
        assert all(torch.equal(wanted[key], value) for key, value in found.state_dict().items())
        assert accuracy(found, images, labels) == accuracy(found, *few)
    assert margin_loss(torch.tensor([[0.95, 0.05]]), torch.tensor([0], dtype=torch.int32)).item() == 0


def test_training_is_where_the_network_is(parts):
    # On the meta device nothing has a value: all steps run there, and only the history at the end cannot be read.
    with pytest.raises(NotImplementedError, match="meta"):
        train_capsules(parts.images[:8], parts.labels[:8], CapsuleTraining(epochs=1), CapsuleNetwork().to("meta"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; none was found")
def test_training_on_a_gpu(parts):
    few = parts.images[:64], parts.labels[:64]
    found = train_capsules(*few, CapsuleTraining(epochs=1), CapsuleNetwork().cuda())
    assert found.network.luma.is_cuda
    alone = train_capsules(*few, CapsuleTraining(epochs=1), CapsuleNetwork())
    np.testing.assert_allclose(found.history, alone.history, rtol=1e-2)
    assert 0 <= accuracy(found.network, *few) <= 1
    assert pose_perturbation(found.network, few[0][:1].cuda(), torch.tensor([3])).is_cuda


def test_reconstruction_moves_the_decoder_only_when_it_is_asked_for(parts):
    few = parts.images[:64], parts.labels[:64]
    start = CapsuleNetwork()
    for weight, moves in ((0.0, False), (0.0005, True)):
        training = CapsuleTraining(epochs=1, reconstruction_weight=weight, shift_px=0)
        made = train_capsules(*few, training, start).network
        assert torch.equal(made.decoder[0].weight, start.decoder[0].weight) is not moves


def test_pictures_are_shifted_by_whole_pixels_and_filled_with_zeros():
    from neural_fits.networks.capsule_training import _shifted

    images = torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(1)) + 0.5
    moved = _shifted(images, 2, torch.Generator().manual_seed(0))
    seen = set()
    for image, other in zip(images[:, 0], moved[:, 0], strict=True):
        padded = functional.pad(image, (2,) * 4)
        found = [(r, c) for r in range(5) for c in range(5) if torch.equal(padded[r : r + 6, c : c + 6], other)]
        assert len(found) == 1
        seen.update(found)
    assert len(seen) > 12


def test_splits_share_no_picture_and_keep_their_promise(parts):
    assert len(parts.images) + len(parts.held_out_images) == 1797
    assert torch.bincount(parts.held_out_labels).tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]
    both = {picture.numpy().tobytes() for picture in parts.images}
    assert not both & {picture.numpy().tobytes() for picture in parts.held_out_images}
    ordered, small = digits("order"), digits(size_px=8)
    from sklearn.datasets import load_digits

    raw = load_digits()
    assert ordered.held_out_labels.tolist() == raw.target[-360:].tolist()
    assert small.images.shape[-2:] == (8, 8)
    everything = sorted(torch.cat([small.images, small.held_out_images]).flatten(1).sum(1).tolist())
    np.testing.assert_allclose(everything, sorted(raw.images.sum((1, 2)) / 16), rtol=1e-6)


def test_installed_network_reads_97_percent_of_held_out_digits_and_draws_them(capsnet, parts):
    assert accuracy(capsnet.network, parts.held_out_images, parts.held_out_labels) >= 0.97
    with torch.no_grad():
        drawn = capsnet.network.decode(capsnet.network.capsules(parts.held_out_images))
    left = (drawn - parts.held_out_images).square().mean()
    mean_of_class = torch.stack([parts.images[parts.labels == k].mean(0) for k in range(10)])[parts.held_out_labels]
    assert left < 0.7 * (mean_of_class - parts.held_out_images).square().mean()  # it draws this digit, not its class


def test_installed_network_was_made_as_its_file_says(monkeypatch, tmp_path, parts):
    from safetensors import safe_open

    facts = shipped.write_capsnet_digits(tmp_path / "made.safetensors", CapsuleTraining(epochs=1))
    with safe_open(tmp_path / "made.safetensors", "pt") as stored:
        assert stored.metadata() == facts
        assert all(stored.get_tensor(key).dtype == torch.float16 for key in stored.keys())  # noqa: SIM118
    file = shipped.importlib.resources.files("neural_fits.networks") / "weights" / "capsnet_digits.safetensors"
    with safe_open(file, "pt") as stored:
        said = stored.metadata()
    assert json.loads(said["training"]) == json.loads(json.dumps(shipped.asdict(shipped.DIGIT_TRAINING)))
    assert json.loads(said["config"]) == CapsuleNetwork().config
    network = shipped.load_capsnet_digits().network
    right = accuracy(network, parts.held_out_images, parts.held_out_labels)
    assert float(said["held_out_accuracy"]) == pytest.approx(right, abs=0.003)
    assert file.stat().st_size < 1.2e6
    monkeypatch.setattr(shipped, "_FILE", "absent.safetensors")
    with pytest.raises(ValueError, match="install this project again"):
        load_backbone("capsnet-digits")


def test_pose_changes_one_unit_at_a_time(capsnet, parts):
    network, images = capsnet.network, parts.held_out_images[:3]
    pictures = pose_perturbation(network, images)
    assert pictures.shape == (3, 16, 11, 16, 16)
    assert POSE_STEPS == (-0.25, -0.2, -0.15, -0.1, -0.05, 0.0, 0.05, 0.1, 0.15, 0.2, 0.25)
    capsules = network.capsules(images)
    chosen = network(images).argmax(1)
    torch.testing.assert_close(pictures[:, 4, 5], network.decode(capsules, chosen)[:, 0])
    changed = capsules.clone()
    changed[:, :, 6] -= 0.25
    torch.testing.assert_close(pictures[:, 6, 0], network.decode(changed, chosen)[:, 0])
    other = pose_perturbation(network, images, torch.tensor([0, 1, 2]), steps=[0.1])
    changed = capsules.clone()
    changed[:, :, 15] += 0.1
    torch.testing.assert_close(other[:, 15, 0], network.decode(changed, torch.tensor([0, 1, 2]))[:, 0])


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ("convolution", (64, 12, 12)),
        ("primary", (64, 4, 4)),
        ("digit_capsules", (160, 1, 1)),
        ("lengths", (10, 1, 1)),
        (("convolution", "primary"), (128, 4, 4)),
    ],
)
def test_layers_are_readable_by_name_whatever_the_image(capsnet, layer, shape):
    extractor = FeatureExtractor("capsnet-digits", layer)
    images = torch.rand(2, 1, 40, 64, generator=torch.Generator().manual_seed(2))
    gray, color = extractor(images), extractor(images.expand(-1, 3, -1, -1))
    assert gray.shape == (2, *shape)
    torch.testing.assert_close(gray, color)


def test_digits_as_they_come_are_read_as_in_training(capsnet, parts):
    small = digits(size_px=8)
    lengths = FeatureExtractor("capsnet-digits", "lengths")(small.held_out_images[:20])[:, :, 0, 0]
    torch.testing.assert_close(lengths, capsnet.network(parts.held_out_images[:20]), atol=1e-5, rtol=1e-4)


def test_color_enters_as_luma(capsnet):
    colors = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    gray = 0.299 * colors[:, :1] + 0.587 * colors[:, 1:2] + 0.114 * colors[:, 2:]
    torch.testing.assert_close(capsnet.network(colors), capsnet.network(gray))


def test_sites_are_fitted_on_it_saved_and_driven(tmp_path):
    natural = natural_photos(60, size_px=32)
    brain = SimulatedBrain(natural, n_sites=2, seed=0)
    recorded = brain.record(natural, n_repeats=3, seed=0)
    model = fit_sites(natural, recorded, backbone="capsnet-digits", layer="primary", readout="ridge", folds=3)
    assert model.scores["r"].notna().all()
    loaded = load_model(model.save(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.predict(natural), model.predict(natural))
    made = synthesize(model, [Stretch(model.site_ids[0])], seeds=1, recipe=SynthesisConfig(steps=12))
    assert made.stimuli.images().shape == (1, 3, 32, 32)
    assert model.predict(made.stimuli)[0, 0] > model.predict(natural)[:, 0].mean()


def test_a_unit_of_it_can_be_driven(capsnet):
    extractor = FeatureExtractor(capsnet, "lengths", input_px=16)
    made = synthesize(extractor, [LayerUnit("lengths", 3)], seeds=1, recipe=SynthesisConfig(steps=40, channels=1))
    lengths = extractor(torch.from_numpy(made.stimuli.images()))[0, :, 0, 0]
    assert lengths.argmax() == 3
    assert lengths[3] > 0.5


def test_a_network_of_your_own_is_kept_with_its_weights(tmp_path):
    network = CapsuleNetwork(12, classes=3, channels=8, kernel=3, primary_types=2, decoder=(5,), seed=4)
    backbone = shipped.capsule_backbone(network, "mine")
    folder = save_backbone(backbone, tmp_path / "net")
    again = load_backbone(f"saved:{folder}")
    assert again.name == backbone.name
    assert again.input_px == 12
    assert again.fixed_size
    images = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(5))
    assert torch.equal(again.network(images), network(images))


def test_mistakes_are_explained(parts):
    with pytest.raises(ValueError, match=r"did you mean 'capsnet-digits'"):
        load_backbone("capsnet-digit")
    with pytest.raises(ValueError, match=r"\(1, 1, 20, 20\).*takes \(image, 1 or 3, 16, 16\).*resize"):
        CapsuleNetwork()(torch.zeros(1, 1, 20, 20))
    with pytest.raises(ValueError, match="two convolutions of 9 px leave nothing of images of 16 px"):
        CapsuleNetwork(kernel=9)
    with pytest.raises(ValueError, match="four axes"):
        dynamic_routing(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match="at least 1"):
        dynamic_routing(torch.zeros(1, 2, 3, 4), 0)
    with pytest.raises(ValueError, match="one label an image"):
        train_capsules(parts.images[:3], parts.labels[:2])
    with pytest.raises(ValueError, match="whole numbers from 0"):
        accuracy(CapsuleNetwork(), parts.images[:2], torch.tensor([0.5, 1.0]))
    with pytest.raises(ValueError, match="a label is 9, the network has classes 0 to 2"):
        train_capsules(parts.images[:2], torch.tensor([9, 0]), network=CapsuleNetwork(classes=3))
    with pytest.raises(ValueError, match="16 x 12 px; this network takes square ones"):
        train_capsules(parts.images[:2, :, :, :12], parts.labels[:2])
    with pytest.raises(ValueError, match="out of range"):
        CapsuleTraining(epochs=0)
    with pytest.raises(ValueError, match="out of range"):
        CapsuleTraining(decay=1.5)
    for classes in ([12], [-1], [0, 1], [0.0]):
        with pytest.raises(ValueError, match="for 1 images; give one for each, from 0 to 9"):
            pose_perturbation(CapsuleNetwork(), parts.images[:1], torch.tensor(classes))
    for images in (parts.images[:2] * 255, parts.images[:2] * np.nan):
        for call in (train_capsules, lambda *given: accuracy(CapsuleNetwork(), *given)):
            with pytest.raises(ValueError, match=r"expected finite ones in \[0, 1\]"):
                call(images, parts.labels[:2])
    with pytest.raises(ValueError, match="shift_px is 40 for images of 16 px"):
        train_capsules(parts.images[:2], parts.labels[:2], CapsuleTraining(shift_px=40))
    for options, said in (({"classes": 0}, "classes is 0"), ({"decoder": (0,)}, r"decoder is \[0\]")):
        with pytest.raises(ValueError, match=f"{said} in a capsule network"):
            CapsuleNetwork(**options)
    with pytest.raises(ValueError, match="no step was given"):
        pose_perturbation(CapsuleNetwork(), parts.images[:1], steps=[])
    with pytest.raises(ValueError, match="did you mean 'order'"):
        digits("ordre")
    with pytest.raises(ValueError, match="between 0 and 1"):
        digits(held_out=1.0)
    with pytest.raises(ValueError, match="8 or more"):
        digits(size_px=4)
