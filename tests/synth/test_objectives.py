"""Objectives against numpy, their algebra, and that only their own repr is ever read back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from synth.image_objectives import Custom, Diversity, LayerUnit, MinimalContrast
from synth.objectives import Objective, OneHot, SiteScale, Stretch, Weighted, parse_objective
from synth.site_objectives import Contrast, Pattern, Suppress

SITES = ("a", "b", "c", "d")
MEAN, STD = np.array([1.0, -2.0, 0.5, 3.0]), np.array([0.5, 2.0, 1.0, 4.0])


@pytest.fixture
def scale():
    return SiteScale(SITES, torch.from_numpy(MEAN), torch.from_numpy(STD))


@pytest.fixture
def responses():
    return np.random.default_rng(0).normal(0, 3, (7, 4))


def score(objective, responses, scale):
    return objective.score(torch.from_numpy(responses), scale).numpy()


def softmax(logits):
    power = np.exp(logits - logits.max(1, keepdims=True))
    return power / power.sum(1, keepdims=True)


def test_stretch_is_the_response_of_its_site(responses, scale):
    np.testing.assert_array_equal(score(Stretch("c"), responses, scale), responses[:, 2])


def test_one_hot_forms_are_those_of_numpy(responses, scale):
    z = (responses - MEAN) / STD
    np.testing.assert_allclose(score(OneHot("b", form="softmax"), responses, scale), softmax(z)[:, 1], rtol=1e-12)
    np.testing.assert_allclose(score(OneHot("b"), responses, scale), np.log(softmax(z)[:, 1]), rtol=1e-12)
    np.testing.assert_allclose(score(OneHot("b", form="paper"), responses, scale), softmax(responses)[:, 1], rtol=1e-12)


def test_temperature_divides_normalized_responses_but_not_the_paper_form(responses, scale):
    z = (responses - MEAN) / STD
    sharp = OneHot("d", temperature=0.25, form="softmax")
    np.testing.assert_allclose(score(sharp, responses, scale), softmax(z / 0.25)[:, 3], rtol=1e-12)
    paper = OneHot("d", temperature=0.25, form="paper")
    np.testing.assert_allclose(score(paper, responses, scale), softmax(responses)[:, 3], rtol=1e-12)


def test_population_is_a_softmax_over_those_sites_in_any_order(responses, scale):
    z = ((responses - MEAN) / STD)[:, [3, 0, 2]]
    for population, column in ((("d", "a", "c"), 1), (("a", "c", "d"), 1)):
        got = score(OneHot("a", population, form="softmax"), responses, scale)
        np.testing.assert_allclose(got, softmax(z)[:, column], rtol=1e-12)
    # the site left out does not count
    changed = responses.copy()
    changed[:, 1] += 100
    np.testing.assert_array_equal(
        score(OneHot("a", ("d", "a", "c")), changed, scale), score(OneHot("a", ("d", "a", "c")), responses, scale)
    )


def test_log_form_keeps_a_gradient_where_softmax_has_none(scale):
    far = torch.tensor([[1.0, -2.0, 500.0, 3.0]], dtype=torch.float64, requires_grad=True)
    (log,) = torch.autograd.grad(OneHot("a").score(far, scale).sum(), far)
    (plain,) = torch.autograd.grad(OneHot("a", form="softmax").score(far, scale).sum(), far)
    assert log[0, 0].item() == pytest.approx(1 / STD[0])
    assert plain.abs().max() < 1e-100


def test_algebra_is_linear(responses, scale):
    a, b = responses[:, 0], responses[:, 1]
    combined = 2 * (Stretch("a") - 0.5 * Stretch("b")) + Stretch("a") * 3
    np.testing.assert_allclose(score(combined, responses, scale), 5 * a - b, rtol=1e-12)
    assert combined.target == "a"
    assert Stretch("b").target == OneHot("b").target == "b"
    assert Objective().target == ""


def test_sums_are_written_out():
    a, b, c = Stretch("a"), Stretch("b"), OneHot("c")
    assert (a + b) + c == a + (b + c) == Weighted(((1, a), (1, b), (1, c)))
    assert repr(2 * (a + b) - c) == "2.0 * Stretch('a') + 2.0 * Stretch('b') + -1.0 * OneHot('c')"
    assert repr(1 * a) == "1.0 * Stretch('a')"
    assert 1 * a != a


@pytest.mark.parametrize("terms", [(), ((math.inf, Stretch("a")),), ((math.nan, Stretch("a")),)])
def test_sum_needs_finite_weights(terms):
    with pytest.raises(ValueError, match="weights are"):
        Weighted(terms)


def test_sum_takes_only_objectives():
    with pytest.raises(TypeError, match="3 is not an objective"):
        Stretch("a") + 3


names = st.text(min_size=1, max_size=12) | st.sampled_from(["it's", 'say "x"', "a b", "a\\'b", "été", "\n", "\ud800"])
idents = st.from_regex(r"[a-z_]{1,6}(\.[a-z_]{1,6}){0,2}", fullmatch=True)
finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
stretches = st.builds(Stretch, names)
one_hots = st.builds(
    lambda sites, whole, temperature, form: OneHot(sites[0], None if whole else tuple(sites), temperature, form),
    st.lists(names, min_size=2, max_size=5, unique=True),
    st.booleans(),
    st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    st.sampled_from(["log", "softmax", "paper"]),
)
several = st.lists(names, min_size=2, max_size=5, unique=True)
weights = st.floats(0, 1e3)
leaves = (
    stretches
    | one_hots
    | st.builds(Suppress, names)
    | several.map(lambda sites: Contrast(sites[0], sites[1:]))
    | st.builds(
        Pattern, st.dictionaries(names, finite, min_size=1, max_size=4), form=st.sampled_from(["z", "recording"])
    )
    | st.lists(st.tuples(finite, st.floats(0.1, 10)), min_size=1, max_size=4).map(
        lambda rows: Pattern([(f"s{k}", value) for k, (value, _) in enumerate(rows)], [weight for _, weight in rows])
    )
    | st.builds(
        LayerUnit,
        names,
        st.integers(0, 4096),
        st.none() | st.tuples(st.integers(0, 99), st.integers(0, 99)),
        st.just("") | names,
    )
    | st.builds(MinimalContrast, names, finite, weights)
    | st.builds(lambda module, inside, name: Custom(f"{module}:{inside}", name), idents, idents, st.none() | names)
)
objectives = st.recursive(
    leaves,
    lambda inner: (
        st.builds(lambda x, y: x + y, inner, inner)
        | st.builds(lambda x, y: x - y, inner, inner)
        | st.builds(lambda x, w: w * x, inner, st.floats(-1e3, 1e3))
        | st.builds(Diversity, inner, weights)
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(objectives)
@example(OneHot("a", ("a", "b")))
@example(Stretch(np.str_("a")) + np.float64(0.1) * OneHot("b", temperature=np.float64(0.3)))
@example(1.0 * Stretch("a"))
@example(Diversity(Diversity(2 * Stretch("a") - Suppress("b"), weight=np.float32(0.5)), weight=0) + Stretch("c"))
@example(LayerUnit(np.str_("conv"), np.int64(3), position=np.array([1, 2])))
@example(Pattern({np.str_("a"): np.float32(0.1), "b": -0.0}, weights=np.array([1.0, 2.0])))
@example(MinimalContrast("a", np.float64(1.5), weight=2) * -3)
@example(Custom(math.fsum) + Custom(math.fsum, name="a b"))
@example(-0.0 * Stretch("a") + -2 * (Stretch("'") - OneHot('"')))
def test_repr_reads_back_as_the_same_objective(objective):
    back = parse_objective(repr(objective))
    assert back == objective
    assert repr(back) == repr(objective)
    assert type(back) is type(objective)
    assert hash(back) == hash(objective)
    assert (back.family, back.target) == (objective.family, objective.target)
    assert (back.units, back.coupled) == (objective.units, objective.coupled)


def test_sum_over_a_thousand_sites_reads_back():
    whole = Weighted(tuple((1.0 + k, Stretch(f"site{k}")) for k in range(1000)))
    assert parse_objective(repr(whole)) == whole


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').mkdir('ran')",
        "Stretch(__import__('os').mkdir('ran'))",
        "OneHot('a', temperature=__import__('os').mkdir('ran'))",
        "[Stretch('a') for _ in [__import__('os').mkdir('ran')]]",
        "Stretch('a') + __import__('os').mkdir('ran')",
        "Weighted(((1.0, Stretch('a')),))",
        "synth.Stretch('a')",
        "Stretch",
        "Stretch()",
        "Stretch('a', 'b')",
        "Stretch(site=3)",
        "Stretch(*['a'])",
        "Stretch(**{'site': 'a'})",
        "OneHot('a', wrong=1)",
        "OneHot('a', 'abc')",
        "OneHot('a', ('b',))",
        "OneHot('a', temperature=-1)",
        "OneHot('a', temperature=1e999)",
        "OneHot('a', form='hot')",
        "'2' * Stretch('a')",
        "True * Stretch('a')",
        "2j * Stretch('a')",
        "1e999 * Stretch('a')",
        "1" + "0" * 400 + " * Stretch('a')",
        "Stretch('a') ** 2",
        "3",
        "",
        "  Stretch('a')",
        "Stretch('a'); 1",
        "Stretch('a')\x00",
        "Stretch('a'",
        "(" * 10_000 + "Stretch('a')" + ")" * 10_000,
        "2 * " * 50_000 + "Stretch('a')",
        "-" * 100_000 + "1 * Stretch('a')",
        "Stretch('a' " + "'b' " * 10_000,
        "Diversity(__import__('os').mkdir('ran'))",
        "Diversity(Stretch('a'), __import__('os').mkdir('ran'))",
        "Diversity('a')",
        "Diversity(objective='a')",
        "Diversity()",
        "Diversity(" * 50_000 + "Stretch('a')" + ")" * 50_000,
        "Diversity(" * 900 + "Stretch('a')" + ")" * 900,
        "Custom(__import__('os').mkdir('ran'))",
        "Custom(lambda r, i: r)",
        "Custom(print)",
        "Custom('os.mkdir')",
        "Custom('os:mkdir')('ran')",
        "Custom('os:mkdir').score('ran')",
        "Pattern({'a': __import__('os').mkdir('ran')})",
        "Pattern({[]: 1})",
        "Pattern({'a': {}})",
        "Pattern(3)",
        "Pattern((3, 4))",
        "Pattern((('a', 1e999),))",
        "Pattern({'a': 1" + "0" * 400 + "})",
        "Pattern({'a': 1}, weights=3)",
        "LayerUnit('a', -1)",
        "LayerUnit('a', 1, position=3)",
        "LayerUnit('a', 1, backbone=3)",
        "MinimalContrast('a')",
        "MinimalContrast('a', 1j)",
        "Contrast('a', 3)",
        "Contrast('a', ('a',))",
        "Suppress('a', 'b')",
        "Objective()",
    ],
)
def test_parsing_refuses_everything_else_in_one_sentence(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"is not an objective.*; expected for example") as caught:
        parse_objective(text)
    assert list(tmp_path.iterdir()) == []  # nothing ran
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_parsing_refuses_what_is_not_text():
    with pytest.raises(ValueError, match="nan is not an objective"):
        parse_objective(float("nan"))


def test_misspelt_site_gets_a_suggestion():
    scale = SiteScale(("V4_001", "V4_002", "IT_7"), torch.zeros(3), torch.ones(3))
    with pytest.raises(ValueError, match=r"no site 'IT7' among the 3; did you mean 'IT_7'\?"):
        Stretch("IT7").score(torch.zeros(1, 3), scale)
    with pytest.raises(ValueError, match="no site 'zzz' among the 3; the first are V4_001, V4_002, IT_7"):
        OneHot("IT_7", ("IT_7", "zzz")).score(torch.zeros(1, 3), scale)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"population": ("b", "c")}, ValueError, "target 'a' is not in its population of 2"),
        ({"population": ("a", "b", "b")}, ValueError, "names a site twice"),
        ({"population": "abc"}, TypeError, "population is 'abc'"),
        ({"population": ("a", 3)}, TypeError, "site is 3"),
        ({"temperature": 0}, ValueError, "temperature is 0"),
        ({"temperature": math.nan}, ValueError, "temperature is nan"),
        ({"temperature": math.inf}, ValueError, "temperature is inf"),
        ({"form": "hard"}, ValueError, "form is 'hard'; expected 'log', 'softmax' or 'paper'"),
    ],
)
def test_one_hot_refuses(given, error, message):
    with pytest.raises(error, match=message):
        OneHot("a", **given)


def test_site_is_text():
    for kind in (Stretch, OneHot):
        with pytest.raises(TypeError, match="site is 3; expected the name of a site as text"):
            kind(3)


def test_population_may_be_a_list():
    assert OneHot("a", ["a", "b"]) == OneHot("a", ("a", "b"))
    assert hash(OneHot("a", ["a", "b"])) == hash(OneHot("a", ("a", "b")))


def test_log_form_is_exact_where_the_target_is_far_ahead():
    """A softmax in float32 is 1 there, and its logarithm 0 with no slope."""
    scale = SiteScale(("a", "b", "c"), torch.zeros(3), torch.ones(3))
    ahead = torch.tensor([[40.0, 0.0, 10.0]], requires_grad=True)
    score = OneHot("a").score(ahead, scale)
    (gradient,) = torch.autograd.grad(score.sum(), ahead)
    rivals = math.exp(-40) + math.exp(-30)
    assert score.item() == pytest.approx(-rivals, rel=1e-5)
    np.testing.assert_allclose(gradient[0], [rivals, -math.exp(-40), -math.exp(-30)], rtol=1e-5)


def test_one_hot_gradients_are_those_of_the_score(scale):
    at = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    for form in ("log", "softmax", "paper"):
        objective = OneHot("b", ("a", "b", "d"), 0.7, form)
        assert torch.autograd.gradcheck(lambda responses, o=objective: o.score(responses, scale), at)


def test_all_sites_are_not_the_layer_units(responses, scale):
    wide = scale.with_units([LayerUnit("conv", 0), LayerUnit("conv", 1)])
    more = np.concatenate([responses, np.full((7, 2), 100.0)], 1)
    np.testing.assert_array_equal(score(OneHot("b"), more, wide), score(OneHot("b"), responses, scale))
    assert wide.to("cpu").indices(None) == [0, 1, 2, 3]


def test_a_model_of_one_site_has_no_population():
    with pytest.raises(ValueError, match="there is no site beside 'a'"):
        OneHot("a").score(torch.zeros(1, 1), SiteScale(("a",), torch.zeros(1), torch.ones(1)))


def test_population_of_one_site_is_refused():
    with pytest.raises(ValueError, match="that site alone"):  # its softmax is 1 whatever the image
        OneHot("a", ("a",))
