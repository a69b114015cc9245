"""Layer units, diversity, minimal contrast and a user's function: against numpy, and by what climbing them does."""

from __future__ import annotations

import pickle
import posixpath
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from synth.image_objectives import Custom, Diversity, LayerUnit, MinimalContrast
from synth.objectives import Objective, SiteScale, Stretch, parse_objective

SCALE = SiteScale(("a", "b"), torch.tensor([1.0, 0.0]), torch.tensor([2.0, 1.0]))
EXACT = SiteScale(("a", "b"), torch.tensor([1.0, 0.0]).double(), torch.tensor([2.0, 1.0]).double())


def random_images(count, *shape, seed=0, dtype=torch.float64):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def mean_cosines(images, block):
    """Independent: loops over blocks and pairs."""
    height, width = images.shape[-2:]
    rows = []
    for image in images:
        pooled = [
            image[:, y : y + block, x : x + block].mean((1, 2))
            for y in range(0, height, block)
            for x in range(0, width, block)
        ]
        rows.append(np.concatenate(pooled) - np.mean(np.concatenate(pooled)))
    unit = [row / np.linalg.norm(row) for row in rows]
    pairs = [[np.dot(one, other) for j, other in enumerate(unit) if j != i] for i, one in enumerate(unit)]
    return np.array([np.mean(row) if row else 0.0 for row in pairs])


@pytest.mark.parametrize(
    ("shape", "block"), [((3, 32, 32), 2), ((1, 16, 20), 1), ((3, 33, 40), 3), ((1, 8, 8), 1), ((3, 50, 47), 3)]
)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_diversity_subtracts_the_mean_cosine_with_the_others(shape, block, count):
    images = random_images(count, *shape) ** 2
    responses = random_images(count, 2, seed=1)
    got = Diversity(Stretch("b"), weight=0.7).score(responses, EXACT, images)
    expected = responses[:, 1].numpy() - 0.7 * mean_cosines(images.numpy(), block)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-10)


def test_similarity_is_blind_to_luminance_and_contrast_and_sees_opposites():
    image = random_images(1, 3, 32, 32)
    responses = torch.zeros(2, 2, dtype=torch.float64)
    for other, cosine in ((0.2 + 0.3 * image, 1.0), (1 - image, -1.0), (torch.full_like(image, 0.5), 0.0)):
        score = Diversity(Stretch("b")).score(responses, EXACT, torch.cat([image, other]))
        np.testing.assert_allclose(score.numpy(), [-cosine, -cosine], atol=1e-9)


def test_diversity_of_one_image_is_its_objective():
    responses = torch.tensor([[3.0, 4.0]])
    images = torch.rand(1, 3, 8, 8).requires_grad_()
    score = Diversity(Stretch("a"), weight=100.0).score(responses, SCALE, images)
    assert score.item() == 3.0
    (gradient,) = torch.autograd.grad(score.sum(), images)
    assert not gradient.any()


def test_climbing_diversity_makes_images_differ():
    start = 0.5 + 0.1 * random_images(1, 1, 16, 16) + 0.01 * random_images(4, 1, 16, 16, seed=1)
    images, objective = start.clone(), Diversity(Stretch("b"))
    for _ in range(30):
        images.requires_grad_()
        score = objective.score(torch.zeros(4, 2, dtype=torch.float64), EXACT, images)
        (gradient,) = torch.autograd.grad(score.sum(), images)
        images = (images + 0.5 * gradient).detach().clamp(0, 1)
    assert mean_cosines(start.numpy(), 1).min() > 0.8
    assert mean_cosines(images.numpy(), 1).max() < 0


def test_minimal_contrast_is_shortfall_minus_contrast():
    images = random_images(5, 3, 9, 7)
    z = np.array([-4.0, 0.0, 1.9, 2.1, 50.0])
    responses = torch.from_numpy(np.stack([1 + 2 * z, 0 * z], 1))
    got = MinimalContrast("a", level=2.0, weight=0.5).score(responses, EXACT, images)
    expected = np.minimum(z - 2, 0) - 0.5 * images.numpy().std((1, 2, 3))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)


def test_once_the_level_is_reached_only_contrast_falls():
    images = random_images(2, 1, 6, 6).requires_grad_()
    responses = torch.tensor([[3.0, 0.0], [9.0, 0.0]], dtype=torch.float64, requires_grad=True)  # z of 1 and 4
    score = MinimalContrast("a", level=2.0).score(responses, EXACT, images)
    for_responses, for_images = torch.autograd.grad(score.sum(), [responses, images])
    np.testing.assert_array_equal(for_responses.numpy(), [[0.5, 0.0], [0.0, 0.0]])
    lower = (images + 0.1 * for_images).detach()
    assert (lower.std((1, 2, 3)) < images.detach().std((1, 2, 3))).all()
    np.testing.assert_allclose(lower.mean((1, 2, 3)), images.detach().mean((1, 2, 3)), rtol=1e-12)


def test_climbing_minimal_contrast_ends_at_the_level():
    direction = random_images(1, 1, 8, 8, seed=3)
    direction -= direction.mean()  # luminance is no contrast, and would reach any level for nothing
    image, objective = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64), MinimalContrast("b", level=1.5)
    for _ in range(400):
        image.requires_grad_()
        z = ((image - 0.5) * direction).sum((1, 2, 3))
        score = objective.score(torch.stack([z, z], 1), EXACT, image)
        (gradient,) = torch.autograd.grad(score.sum(), image)
        image = (image + 0.002 * gradient).detach()
    assert z.item() == pytest.approx(1.5, abs=0.05)
    least = 1.5 / direction.norm().item() / 8  # the least contrast that reaches it lies along the direction
    assert image.std(unbiased=False).item() == pytest.approx(least, rel=0.05)


@pytest.mark.parametrize(
    "objective", [Diversity(Stretch("a"), 0.5), MinimalContrast("a", 1.0), MinimalContrast("a", -9)]
)
def test_gradients_are_those_of_the_score(objective):
    images = random_images(3, 2, 18, 17).requires_grad_()
    responses = random_images(3, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *at: objective.score(at[0], EXACT, at[1]), (responses, images), fast_mode=True
    )


@pytest.mark.parametrize("objective", [Diversity(Stretch("a")), MinimalContrast("a", 1.0)])
def test_uniform_images_have_finite_gradients(objective):
    images = torch.full((2, 3, 8, 8), 0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(objective.score(torch.zeros(2, 2), SCALE, images).sum(), images)
    assert not gradient.any()


@pytest.mark.parametrize("objective", [Diversity(Stretch("a")), MinimalContrast("a", 1.0)])
def test_a_broken_image_is_not_hidden(objective):
    images = torch.rand(2, 3, 8, 8)
    images[0, 0, 0, 0] = torch.nan
    assert objective.score(torch.zeros(2, 2), SCALE, images)[0].isnan()


@pytest.mark.parametrize("objective", [Diversity(Stretch("a")), 2 * MinimalContrast("a", 1.0)])
def test_images_are_asked_for(objective):
    with pytest.raises(ValueError, match="no images came; the objective measures images: give 2"):
        objective.score(torch.zeros(2, 2), SCALE)
    with pytest.raises(ValueError, match=r"images have shape \(3, 1, 4, 4\)"):
        objective.score(torch.zeros(2, 2), SCALE, torch.zeros(3, 1, 4, 4))


def test_units_couple_and_name_what_they_need():
    channel, unit = LayerUnit("conv2", 3), LayerUnit("conv2", 3, position=[1, np.int64(2)], backbone="alexnet")
    both = Diversity(channel + 2 * unit - channel) + Stretch("a")
    assert both.units == (channel, unit)
    assert both.coupled
    assert not (channel + unit).coupled
    assert Stretch("a").units == ()
    assert (channel.column, unit.column) == ("conv2[3]", "alexnet/conv2[3, 1, 2]")
    assert [one.family for one in (channel, Diversity(channel), MinimalContrast("a", 1), both)] == [
        "unit",
        "diverse",
        "minimal",
        "composed",
    ]
    assert [one.target for one in (channel, Diversity(Stretch("b")), MinimalContrast("a", 1))] == ["", "b", "a"]


def test_a_unit_is_read_from_its_layer_and_scored_from_its_column():
    features = random_images(4, 6, 5, 3)
    channel, unit = LayerUnit("conv2", 3), LayerUnit("conv2", 5, position=(4, 2))
    np.testing.assert_allclose(channel.read(features).numpy(), features[:, 3].numpy().mean((1, 2)), rtol=1e-12)
    np.testing.assert_array_equal(unit.read(features).numpy(), features[:, 5, 4, 2].numpy())
    scale = EXACT.with_units([channel, unit])
    assert scale.site_ids == ("a", "b", "conv2[3]", "conv2[5, 4, 2]")
    np.testing.assert_array_equal(scale.mean, [1, 0, 0, 0])
    np.testing.assert_array_equal(scale.std, [2, 1, 1, 1])
    responses = torch.cat([torch.zeros(4, 2), channel.read(features)[:, None], unit.read(features)[:, None]], 1)
    np.testing.assert_array_equal((unit - 2 * channel).score(responses, scale), responses[:, 3] - 2 * responses[:, 2])
    with pytest.raises(ValueError, match="no column for LayerUnit"):
        channel.score(torch.zeros(1, 2), SCALE)
    for wrong in (LayerUnit("conv2", 6), LayerUnit("conv2", 0, (5, 0)), LayerUnit("conv2", 0, (0, 3))):
        with pytest.raises(ValueError, match="is not in it"):
            wrong.read(features)


def contrast_of(responses: Tensor, images: Tensor | None) -> Tensor:
    assert images is not None
    return images.flatten(1).std(1) + responses[:, 0]


def test_custom_scores_with_the_function():
    images, responses = torch.rand(3, 1, 4, 4), torch.rand(3, 2)
    expected = contrast_of(responses, images)
    custom = Custom(contrast_of)
    assert torch.equal(custom.score(responses, SCALE, images), expected)
    combined = 2 * custom - Stretch("b")
    torch.testing.assert_close(combined.score(responses, SCALE, images), 2 * expected - responses[:, 1])
    assert (custom.family, custom.target, custom.name) == ("custom", "", "contrast_of")


def test_a_function_that_can_be_imported_reads_back_as_an_equal_objective():
    custom = Custom(posixpath.join, name="joined")
    assert repr(custom) == "Custom('posixpath:join', name='joined')"
    back = parse_objective(repr(custom))
    assert back == custom
    assert hash(back) == hash(custom)
    assert repr(back) == repr(custom)
    assert back != Custom(posixpath.join)
    assert pickle.loads(pickle.dumps(custom)) == custom
    assert pickle.loads(pickle.dumps(custom)).function is posixpath.join


def test_functions_that_cannot_be_imported_are_equal_to_themselves_only():
    def make():
        return lambda responses, images: responses[:, 0]

    one, two = make(), make()
    assert Custom(one) == Custom(one)
    assert Custom(one) != Custom(two)
    assert Custom(one) != Custom(one, name="other")
    assert Custom(one) != parse_objective(repr(Custom(one)))
    assert torch.equal(Custom(two).score(torch.ones(1, 2), SCALE), torch.ones(1))


def test_reading_a_function_imports_and_runs_nothing(tmp_path, monkeypatch):
    (tmp_path / "planted_module.py").write_text(
        "from pathlib import Path\nPath('ran').touch()\ndef f(r, i): return r[:, 0]"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    back = 2 * parse_objective("Custom('planted_module:f')")
    for unable in (back, Diversity(back)):
        with pytest.raises(ValueError, match=r"was read from text and cannot score; give the function itself"):
            unable.score(torch.zeros(1, 2), SCALE, torch.zeros(1, 1, 4, 4))
    assert not (tmp_path / "ran").exists()
    assert "planted_module" not in sys.modules


def test_a_function_that_is_loaded_is_not_called_from_text():
    with pytest.raises(ValueError, match="cannot score"):
        parse_objective("Custom('os:getcwd')").score(torch.zeros(1, 2), SCALE)


@pytest.mark.parametrize(
    ("result", "got"),
    [(lambda r, i: r, r"shape \(3, 2\)"), (lambda r, i: 1.0, "a float"), (lambda r, i: r.sum(), "shape")],
)
def test_a_function_must_give_one_score_per_image(result, got):
    with pytest.raises(ValueError, match=f"returned {got}.* for 3 images; return one score per image"):
        Custom(result).score(torch.zeros(3, 2), SCALE)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Diversity("Stretch('a')"), TypeError, "is not an objective"),
        (lambda: Diversity(Stretch("a"), weight=-1), ValueError, "weight is -1; expected a number from 0"),
        (lambda: Diversity(Stretch("a"), weight=float("nan")), ValueError, "weight is nan"),
        (lambda: MinimalContrast("a", level=float("inf")), ValueError, "level is inf; expected a finite number"),
        (lambda: MinimalContrast("a", level=None), TypeError, "level is None; expected a number"),
        (lambda: LayerUnit("", 0), ValueError, "layer is empty"),
        (lambda: LayerUnit(3, 0), TypeError, "layer is 3; expected a name as text"),
        (lambda: LayerUnit("x", -1), ValueError, "channel is -1; expected whole numbers from 0"),
        (lambda: LayerUnit("x", True), ValueError, "channel is True"),
        (lambda: LayerUnit("x", 1.5), ValueError, "channel is 1.5"),
        (lambda: LayerUnit("x", 1, position=(1,)), ValueError, "expected a row and a column"),
        (lambda: LayerUnit("x", 1, position=(1, -2)), ValueError, "position is -2"),
        (lambda: Custom(3), TypeError, "function is 3; expected a function"),
        (lambda: Custom("os.getcwd"), ValueError, "expected text like 'package.module:function'"),
        (lambda: Custom("a:b:c"), ValueError, "expected text like"),
        (lambda: Custom("a:b", name=3), TypeError, "name is 3; expected text"),
    ],
)
def test_what_makes_no_sense_is_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_an_objective_without_a_score_says_so():
    class Nothing(Objective):
        pass

    with pytest.raises(NotImplementedError, match="Nothing has no score; define score"):
        Nothing().score(torch.zeros(1, 2), SCALE)
