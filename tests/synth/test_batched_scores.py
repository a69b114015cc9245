"""A batch of mixed objectives: the same bits as each image alone, whatever its place and its neighbors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from synth._batched_scores import BatchedScores
from synth._score_formulas import tree_sum
from synth.image_objectives import Custom, Diversity, LayerUnit, MinimalContrast
from synth.objectives import Objective, OneHot, SiteScale, Stretch, Weighted
from synth.site_objectives import Contrast, Pattern, Suppress

SITES = tuple(f"s{k}" for k in range(70))
UNIT = LayerUnit("conv2", 3, position=(1, 1))


@dataclass(frozen=True)
class Squared(Stretch):
    """A user's class: it defines a score alone, on top of a built-in one."""

    def score(self, responses: Tensor, scale: SiteScale, images: Tensor | None = None) -> Tensor:
        return super().score(responses, scale, images) ** 2


@dataclass(eq=False)
class Spread(Objective):
    """A user's coupled objective: how far the images of the group are apart."""

    __hash__ = None

    @property
    def coupled(self) -> bool:
        return True

    def score(self, responses: Tensor, scale: SiteScale, images: Tensor | None = None) -> Tensor:
        return (responses[:, 0] - responses[:, 0].mean()) ** 2


def bright(responses: Tensor, images: Tensor) -> Tensor:
    return images.mean((1, 2, 3)) * responses[:, 1]


ALONE = [
    Stretch("s3"),
    Stretch("s69"),
    Suppress("s0"),
    OneHot("s1"),
    OneHot("s2", temperature=0.3, form="softmax"),
    OneHot("s2", form="paper"),
    OneHot("s5", population=("s9", "s5", "s33")),
    OneHot("s9", population=("s9", "s5"), temperature=2.0),
    Contrast("s4", against=("s1", "s8", "s60")),
    Contrast("s4", against=tuple(site for site in SITES if site != "s4")),
    Pattern({site: 0.1 * k for k, site in enumerate(SITES[::3])}),
    Pattern({"s0": 1.0}, form="recording"),
    MinimalContrast("s6", level=0.5),
    2 * MinimalContrast("s6", level=-0.5) + MinimalContrast("s7", level=0, weight=3),
    UNIT,
    UNIT - 0.5 * Stretch("s3"),
    2 * Stretch("s3") - 0.1 * OneHot("s3") + OneHot("s3", ("s3", "s4")) - 1.5 * Suppress("s3") + 3 * Stretch("s3"),
    Weighted(tuple((0.01 * k - 0.3, Stretch(site)) for k, site in enumerate(SITES))),
    Squared("s8"),
    3 * Squared("s8") - Stretch("s8"),
    Custom(bright),
    Custom(bright) + MinimalContrast("s1", 1.0) - Squared("s2"),
]
COUPLED = [
    Diversity(Stretch("s1"), weight=2.0),
    Diversity(MinimalContrast("s2", 1.0) + OneHot("s1"), weight=0.5) + 0.1 * Stretch("s2"),
    Spread(),
    Spread() - Diversity(Squared("s1")),
]


def scale_of(dtype=torch.float32):
    generator = torch.Generator().manual_seed(5)
    mean, std = (torch.randn(70, generator=generator), 0.5 + torch.rand(70, generator=generator))
    return SiteScale(SITES, mean.to(dtype), std.to(dtype)).with_units([UNIT])


def inputs(count, dtype=torch.float32, seed=0, side=12):
    generator = torch.Generator().manual_seed(seed)
    responses = 3 * torch.randn(count, 71, generator=generator, dtype=torch.float64)
    images = torch.rand(count, 3, side, side, generator=generator, dtype=torch.float64)
    return responses.to(dtype), images.to(dtype)


def climb(scores, responses, images):
    """Return the scores and the gradients of their sum."""
    responses, images = responses.clone().requires_grad_(), images.clone().requires_grad_()
    score = scores(responses, images)
    gradients = torch.autograd.grad(score.sum(), [responses, images], allow_unused=True)
    return [
        score.detach(),
        *(torch.zeros_like(at) if one is None else one for one, at in zip(gradients, (responses, images), strict=True)),
    ]


def one_by_one(objectives, groups, scale, responses, images):
    """Independent of the batch: ``score`` of each image or group of images."""
    parts = [torch.zeros(len(responses), dtype=responses.dtype), torch.zeros_like(responses), torch.zeros_like(images)]
    for number, objective in enumerate(objectives):
        if objective is not None:
            mates = [number]
            if objective.coupled:
                mates = [k for k, group in enumerate(groups) if group == groups[number] and objectives[k] is objective]
            alone = climb(lambda r, i, o=objective: o.score(r, scale, i), responses[mates], images[mates])
            for part, rows in zip(parts, alone, strict=True):
                part[number] = rows[mates.index(number)]
    return parts


def mixture(seed=0):
    """Every kind twice or more, groups of 1, 2 and 3, empty slots, in random order."""
    rng = np.random.default_rng(seed)
    pairs = [(objective, -1) for objective in ALONE * 2] + [(None, 7)] * 5
    for group, objective in enumerate(COUPLED):
        pairs += [(objective, group)] * (group % 3 + 1)
    pairs += [(COUPLED[0], 20)] * 3 + [(COUPLED[0], 21)] + [(COUPLED[1], 22)] * 2
    order = rng.permutation(len(pairs))
    return [pairs[k][0] for k in order], [pairs[k][1] for k in order]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(3))
def test_a_batch_has_the_bits_of_its_images_alone(dtype, seed):
    objectives, groups = mixture(seed)
    responses, images = inputs(len(objectives), dtype, seed)
    got = climb(BatchedScores(objectives, groups, scale_of(dtype)), responses, images)
    for one, alone in zip(got, one_by_one(objectives, groups, scale_of(dtype), responses, images), strict=True):
        assert one.dtype == dtype
        assert torch.equal(one, alone)


def test_place_and_neighbors_do_not_matter():
    objectives, groups = mixture()
    responses, images = inputs(len(objectives))
    scale = scale_of()
    whole = climb(BatchedScores(objectives, groups, scale), responses, images)
    rng = np.random.default_rng(1)
    for _ in range(6):
        left = set(rng.choice([None, *groups], 3)) | {-1 if rng.random() < 0.5 else 0}
        stay = [k for k in range(len(objectives)) if groups[k] not in left or (groups[k] == -1 and rng.random() < 0.4)]
        moved = sorted(stay, key=lambda k: (groups[k] if groups[k] >= 0 else rng.integers(30), k))  # groups keep order
        part = climb(
            BatchedScores([objectives[k] for k in moved], [groups[k] for k in moved], scale),
            responses[moved],
            images[moved],
        )
        for one, everything in zip(part, whole, strict=True):
            assert torch.equal(one, everything[moved])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_place_in_a_vector_of_the_processor_gives_the_same_bits(dtype):
    objectives = [OneHot("s1", form=form) for form in ("log", "softmax", "paper") for _ in range(67)]
    scale = scale_of(dtype)
    responses, images = inputs(201, dtype, side=1)
    got = climb(BatchedScores(objectives, range(201), scale), responses, images)
    for one, alone in zip(got, one_by_one(objectives, range(201), scale, responses, images), strict=True):
        assert torch.equal(one, alone)


def test_further_columns_do_not_matter():
    objectives, groups = mixture()
    responses, images = inputs(len(objectives))
    wide = scale_of().with_units([LayerUnit("conv9", k) for k in range(200)])
    more = torch.cat([responses, torch.full((len(responses), 200), torch.nan)], 1)
    narrow = climb(BatchedScores(objectives, groups, scale_of()), responses, images)
    got = climb(BatchedScores(objectives, groups, wide), more, images)
    assert torch.equal(got[0], narrow[0])
    assert torch.equal(got[1][:, :71], narrow[1])
    assert not got[1][:, 71:].any()


def test_missing_numbers_stay_in_their_slot():
    objectives, groups = mixture()
    responses, images = inputs(len(objectives))
    clean = climb(BatchedScores(objectives, groups, scale_of()), responses, images)
    broken = [
        k
        for k, (objective, group) in enumerate(zip(objectives, groups, strict=True))
        if (group == -1 and k % 3 == 0) or objective is None
    ]
    responses[broken], images[broken] = torch.nan, torch.nan
    got = climb(BatchedScores(objectives, groups, scale_of()), responses, images)
    others = [k for k in range(len(objectives)) if k not in broken]
    for one, before in zip(got, clean, strict=True):
        assert torch.equal(one[others], before[others])
    for k in broken:
        if objectives[k] is None:
            assert got[0][k] == 0
            assert not got[1][k].any()
            assert not got[2][k].any()
        else:
            assert got[0][k].isnan()


def test_a_site_that_is_not_asked_for_may_be_missing():
    scale = scale_of()
    responses, _ = inputs(3)
    responses[:, 10:] = torch.nan
    objectives = [Stretch("s3"), OneHot("s5", ("s9", "s5")), Contrast("s1", ("s2", "s4", "s8"))]
    scores, gradient, _ = climb(BatchedScores(objectives, [0, 1, 2], scale), responses, torch.rand(3, 1, 2, 2))
    assert scores.isfinite().all()
    assert gradient.isfinite().all()


def test_an_empty_batch_scores_zero_and_can_be_climbed():
    responses, images = inputs(4)
    scores, gradient, _ = climb(BatchedScores([None] * 4, [0] * 4, scale_of()), responses.fill_(torch.nan), images)
    assert not scores.any()
    assert not gradient.any()


class Count(TorchDispatchMode):
    """Operations that reach the device, and those that read from it."""

    def __init__(self):
        super().__init__()
        self.operations, self.reads = 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        if not any(
            word in name
            for word in ("view", "split", "slice", "select.int", "squeeze", "expand", "detach", "t.default")
        ):
            self.operations += 1
        if any(word in name for word in ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "_to_copy")):
            self.reads.append(name)
        return func(*args, **(kwargs or {}))


def count(objectives, images=None):
    scores = BatchedScores(objectives, list(range(len(objectives))), scale_of())
    responses = inputs(len(objectives))[0].requires_grad_()
    with Count() as counted:
        torch.autograd.grad(scores(responses, images).sum(), responses)
    return counted


def test_256_slots_cost_a_few_dozen_operations_and_no_wait():
    rng = np.random.default_rng(0)
    many: list[Objective] = []
    for k in range(256):
        population = tuple(rng.choice(SITES, 17 + k % 16, replace=False))
        one_hot = OneHot(population[0], population, temperature=0.1 + k, form=("log", "softmax")[k % 2])
        many.append((one_hot, Stretch(population[1]), Contrast(population[0], population[1:9]))[k % 3])
    images = torch.rand(256, 3, 8, 8)
    many[::7] = [MinimalContrast("s1", 0.1 * k) for k in range(len(many[::7]))]
    many[::5] = [one - 0.5 * Stretch("s3") for one in many[::5]]
    counted = count(many, images)
    assert counted.operations < 130
    assert counted.reads == []
    assert counted.operations == count(many * 2, torch.cat([images] * 2)).operations


def test_the_sum_of_a_score_is_the_same_number_however_long_the_padding():
    for width in (1, 2, 3, 7, 8, 100):
        values = torch.randn(5, width, 2, generator=torch.Generator().manual_seed(width))
        longer = torch.cat([values, torch.zeros(5, 300, 2)], 1)
        assert torch.equal(tree_sum(values), tree_sum(longer))
        assert torch.equal(tree_sum(values)[3:], tree_sum(values[3:]))
        torch.testing.assert_close(tree_sum(values.double()), values.double().sum(1))
    assert torch.autograd.gradcheck(tree_sum, torch.randn(2, 5, 2, dtype=torch.float64, requires_grad=True))


def test_gradients_are_those_of_the_scores():
    objectives, groups = mixture()
    responses, images = inputs(len(objectives), torch.float64, side=3)
    scores = BatchedScores(objectives, groups, scale_of(torch.float64))
    at = responses[:, :12].clone().requires_grad_()  # the sites that are asked for most
    rest = responses[:, 12:]
    seen = images.requires_grad_()
    function = lambda r, i: scores(torch.cat([r, rest], 1), i)  # noqa: E731
    assert torch.autograd.gradcheck(function, (at, seen), fast_mode=True)


def test_precision_of_the_responses_is_kept_or_raised():
    objectives, scale = [OneHot("s1", temperature=0.1), Pattern({"s2": 0.1})], scale_of()
    responses, _ = inputs(2, torch.float64)
    scores = BatchedScores(objectives, [0, 1], scale)
    with torch.inference_mode():
        exact = scores(responses)
    z = (responses - scale.mean.double()) / scale.std.double()
    expected = [torch.log_softmax(z[0, :70] / 0.1, 0)[1].item(), -((z[1, 2].item() - 0.1) ** 2)]
    assert exact.tolist() == pytest.approx(expected, rel=1e-12)
    (gradient,) = torch.autograd.grad(scores(responses.requires_grad_()).sum(), responses)  # after inference mode
    assert gradient.dtype == torch.float64
    assert scores(responses.bfloat16()).dtype == torch.float32


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="there are 2 objectives and 1 groups"):
        BatchedScores([Stretch("s1"), None], [0], scale_of())
    with pytest.raises(ValueError, match="there is no site 's70'"):
        BatchedScores([Stretch("s70")], [0], scale_of())
    scores = BatchedScores([MinimalContrast("s1", 1.0)], [0], scale_of())
    with pytest.raises(ValueError, match=r"responses have shape \(2, 71\); expected \(1, 71\)"):
        scores(torch.zeros(2, 71), torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="no images came"):
        scores(torch.zeros(1, 71))

    class Total(Objective):
        def score(self, responses, scale, images=None):
            return responses.sum()

    with pytest.raises(ValueError, match=r"a tensor of shape \(\) for 1 images; expected one score per image"):
        (2 * Total()).score(torch.zeros(1, 71), scale_of())
