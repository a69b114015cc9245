"""Suppress, Contrast and Pattern against numpy, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from synth.objectives import SiteScale, Stretch, parse_objective
from synth.site_objectives import Contrast, Pattern, Suppress

SITES = ("a", "b", "c", "d", "e")
MEAN, STD = np.array([1.0, -2.0, 0.5, 3.0, 0.0]), np.array([0.5, 2.0, 1.0, 4.0, 0.1])


@pytest.fixture
def scale():
    return SiteScale(SITES, torch.from_numpy(MEAN), torch.from_numpy(STD))


@pytest.fixture
def responses():
    return np.random.default_rng(0).normal(0, 3, (7, 5))


def score(objective, responses, scale):
    return objective.score(torch.from_numpy(responses), scale).numpy()


def test_suppress_is_the_negative_of_stretch(responses, scale):
    np.testing.assert_array_equal(score(Suppress("c"), responses, scale), -responses[:, 2])


@pytest.mark.parametrize("against", [("e",), ("a", "e"), ("e", "a", "c", "d")])
def test_contrast_is_z_minus_the_mean_z_of_the_others(responses, scale, against):
    z = (responses - MEAN) / STD
    expected = z[:, 1] - z[:, [SITES.index(site) for site in against]].mean(1)
    np.testing.assert_allclose(score(Contrast("b", against), responses, scale), expected, rtol=1e-12)


def test_contrast_does_not_see_what_the_sites_have_in_common(scale):
    rows = torch.from_numpy(MEAN + STD * np.array([[0.0], [7.0]]))  # every site 7 deviations higher
    low, high = Contrast("b", ("a", "d")).score(rows, scale)
    assert low.item() == pytest.approx(high.item(), abs=1e-12)


@pytest.mark.parametrize("form", ["z", "recording"])
@pytest.mark.parametrize("weights", [None, (1.0, 0.0, 2.5)])
def test_pattern_is_a_weighted_mean_of_squares(responses, scale, form, weights):
    wanted = {"d": 1.5, "a": -0.5, "b": 0.0}
    columns = [SITES.index(site) for site in wanted]
    values = responses if form == "recording" else (responses - MEAN) / STD
    squares = (values[:, columns] - np.array(list(wanted.values()))) ** 2
    expected = -np.average(squares, axis=1, weights=weights)
    np.testing.assert_allclose(score(Pattern(wanted, weights, form), responses, scale), expected, rtol=1e-12)


def test_pattern_is_best_where_the_pattern_is_met(scale):
    wanted = Pattern({"a": 2.0, "e": -1.0})
    met = torch.from_numpy(MEAN + STD * np.array([2.0, 9.0, 9.0, 9.0, -1.0]))[None].requires_grad_()
    best = wanted.score(met, scale)
    (gradient,) = torch.autograd.grad(best.sum(), met)
    assert best.item() == pytest.approx(0, abs=1e-20)
    assert gradient.abs().max() < 1e-9


def test_pattern_takes_mappings_and_pairs():
    pairs = Pattern((("a", 1), ("b", -2)), weights=(3, 1))
    assert pairs == Pattern({"a": 1.0, "b": -2.0}, weights={"b": 1.0, "a": 3.0})
    assert hash(pairs) == hash(Pattern([("a", 1.0), ("b", np.float32(-2))], weights=np.array([3.0, 1.0])))
    assert pairs != Pattern({"a": 1.0, "b": -2.0})
    assert parse_objective("Pattern({'a': 1, 'b': -2}, weights={'a': 3, 'b': 1})") == pairs


def test_family_and_target():
    assert (Suppress("a").family, Suppress("a").target) == ("suppress", "a")
    assert (Contrast("a", ("b",)).family, Contrast("a", ("b",)).target) == ("contrast", "a")
    assert (Pattern({"a": 1}).family, Pattern({"a": 1}).target) == ("pattern", "")
    assert (Suppress("b") + Stretch("a")).target == "b"


@pytest.mark.parametrize("objective", [Suppress("b"), Contrast("b", ("a", "c")), Pattern({"b": 1, "c": 0}, (2, 1))])
def test_gradients_are_those_of_the_score(objective, scale):
    at = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda responses: objective.score(responses, scale), at)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Suppress(3), TypeError, "site is 3"),
        (lambda: Contrast("a", "bc"), TypeError, "against is 'bc'; expected several names"),
        (lambda: Contrast("a", ()), ValueError, "target 'a' is set against 0 sites"),
        (lambda: Contrast("a", ("a", "b")), ValueError, "and not the target"),
        (lambda: Contrast("a", ("b", "b")), ValueError, "name each other site once"),
        (lambda: Pattern({}), ValueError, "name at least one site"),
        (lambda: Pattern((("a", 1), ("a", 2))), ValueError, "each once"),
        (lambda: Pattern(("ab", "cd")), ValueError, "expected pairs of a site and a number"),
        (lambda: Pattern({"a": math.nan}), ValueError, "the value of 'a' is nan; expected a finite number"),
        (lambda: Pattern({"a": "1"}), TypeError, "the value of 'a' is '1'; expected a number"),
        (lambda: Pattern({"a": 1}, weights=(1, 2)), ValueError, "expected 1 numbers from 0"),
        (lambda: Pattern({"a": 1}, weights=(-1,)), ValueError, "numbers from 0"),
        (lambda: Pattern({"a": 1}, weights=(0,)), ValueError, "not all of them 0"),
        (lambda: Pattern({"a": 1}, weights={"b": 1}), ValueError, r"weights are given for \['b'\]"),
        (lambda: Pattern({"a": 1}, form="spikes"), ValueError, "form is 'spikes'; expected 'z' or 'recording'"),
    ],
)
def test_what_makes_no_sense_is_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_a_misspelt_site_is_named(scale):
    for objective in (Suppress("A"), Contrast("a", ("bb",)), Pattern({"f": 1.0})):
        with pytest.raises(ValueError, match="there is no site"):
            objective.score(torch.zeros(1, 5), scale)
