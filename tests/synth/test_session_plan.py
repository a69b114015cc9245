"""Plans against budgets counted by hand, and choices against planted scores and receptive fields."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from neural_fits.readout import LinearReadout
from neural_fits.recordings import SiteRecordings
from neural_fits.site_model import SiteModel
from synth.objectives import OneHot, Stretch, parse_objective
from synth.session_plan import plan_session, reference_choice
from synth.site_objectives import Pattern

PLACES = (0.2, 0.22, 0.5, 0.8, 0.82)
EXPLAINED = (0.6, 0.58, 0.5, 0.4, 0.05)


@pytest.fixture
def model(tiny_model):
    """Five sites: a and b look at one place with the same weights, d and e nearly so; e is hardly explained."""
    like = tiny_model(sites=tuple("abcde"))
    grid = (np.arange(24) + 0.5) / 24
    x, y = np.meshgrid(grid, grid)
    maps = [np.exp(-((x - place) ** 2 + (y - 0.5) ** 2) / (2 * 0.08**2)) for place in PLACES]
    weight = torch.from_numpy(np.array(maps)[:, None].repeat(6, 1)).float()
    scores = pd.DataFrame(
        {"r": 0.5, "reliability": [0.8, 0.8, 0.8, 0.8, 0.9], "explained_variance": EXPLAINED, "n_stimuli": 100},
        index=pd.Index(list("abcde"), name="site_id"),
    )
    return SiteModel(like.extractor, LinearReadout(weight, torch.zeros(5)), like.info, scores)


def targets(plan):
    return [str(name) for name in plan.table.index]


def test_spread_puts_different_places_before_a_second_site_of_one_place(model):
    assert targets(plan_session(model, 1e6, spread=0.0)) == ["a", "b", "c", "d"]  # e is explained too little
    assert targets(plan_session(model, 1e6, spread=0.5)) == ["a", "c", "d", "b"]
    table = plan_session(model, 1e6, spread=0.5).table
    assert table["similarity"]["a"] == 0.0
    assert table["similarity"]["b"] > 0.9
    assert table["rf_x_deg"].is_monotonic_increasing is False
    assert table["rf_x_deg"]["a"] == pytest.approx((0.2 - 0.5) * model.info.size_deg, abs=0.05 * model.info.size_deg)


def test_the_most_targets_that_fit_are_taken(model):
    # 3 targets, each stretched and one-hot, 2 images, and 5 natural ones: 17 images x 10 repeats x 0.25 s
    options = {"repeats": 10, "images": 2, "stimulus_s": 0.1, "gap_s": 0.15, "reference_images": 5}
    plan = plan_session(model, 42.5, **options)
    assert len(plan.table) == 3
    assert (plan.images, plan.presentations) == (12, 170)
    assert plan.seconds == pytest.approx(42.5)
    assert [type(objective) for objective in plan.objectives] == [Stretch] * 3 + [OneHot] * 3
    assert plan.objectives[3].population == ("a", "c", "d")
    assert len(plan_session(model, 42.4, **options).table) == 2
    assert plan_session(model, 42.5, targets=2, **options).presentations == 130
    one = plan_session(model, 17.5, **options)  # 2 images of one target, which has no population
    assert (one.presentations, one.objectives) == (70, (Stretch("a"),))


def test_a_budget_that_is_too_small_names_the_smallest_that_would_do(model):
    options = {"repeats": 10, "images": 2, "stimulus_s": 0.1, "gap_s": 0.15, "reference_images": 5}
    with pytest.raises(ValueError, match=r"17\.4 s are too short: .* takes 17\.5 s"):
        plan_session(model, 17.4, **options)
    assert plan_session(model, 17.5, **options).seconds <= 17.5


def test_candidates_of_one_target_stay_together(model):
    candidates = [Stretch("a"), OneHot("a", ("a", "c")), Stretch("d"), Pattern({"a": 2.0, "e": 0.0})]
    plan = plan_session(model, 1e6, candidates=candidates, spread=0.0)
    assert targets(plan) == ["a", "d", "Pattern((('a', 2.0), ('e', 0.0)))"]
    assert plan.table["objectives"].tolist() == [2, 1, 1]
    assert plan.table["explained_variance"].tolist() == pytest.approx([0.6, 0.4, (0.6 + 0.05) / 2])
    assert list(plan.objectives) == candidates
    # 4 images of the first, 2 more of the second
    fitting = plan_session(
        model, 5.9, candidates=candidates, spread=0.0, repeats=1, stimulus_s=1, gap_s=0, reference_images=0
    )
    assert fitting.objectives == tuple(candidates[:2])


def test_what_cannot_be_planned_is_refused(model):
    with pytest.raises(ValueError, match=r"the best has 0\.6"):
        plan_session(model, 100, min_explained_variance=0.7)
    with pytest.raises(ValueError, match="no candidate was given"):
        plan_session(model, 100, candidates=[])
    with pytest.raises(TypeError, match="expected for example Stretch"):
        plan_session(model, 100, candidates=["a"])
    with pytest.raises(ValueError, match="images is 0"):
        plan_session(model, 100, images=0)
    for wrong in ({"stimulus_s": 0}, {"spread": 2}, {"reference_images": -1}, {"gap_s": -0.1}):
        with pytest.raises(ValueError, match="expected positive times"):
            plan_session(model, 100, **wrong)
    with pytest.raises(ValueError, match="did you mean"):
        plan_session(model, 100, candidates=[Stretch("aa")])


def test_reference_images_span_the_range_of_every_site():
    rng = np.random.default_rng(0)
    means = rng.standard_normal((50, 2))
    means[7, 1] = np.nan
    names = [f"n{k}" for k in range(50)]
    sites = pd.DataFrame(index=pd.Index(["a", "b"], name="site_id"))
    recorded = SiteRecordings(means[:, None].repeat(2, 1), tuple(names), sites)
    chosen = reference_choice(recorded, ["a", "b"], 10)
    assert len(set(chosen)) == 10
    rows = [names.index(name) for name in chosen]
    assert rows == sorted(rows)
    for column in means.T:
        assert {int(np.nanargmax(column)), int(np.nanargmin(column))} <= set(rows)
        level = [(column < column[row]).mean() for row in rows if np.isfinite(column[row])]
        assert np.histogram(level, bins=3, range=(0, 1))[0].min() >= 1
    assert reference_choice(recorded, ["a"], 50) == tuple(names)
    assert reference_choice(recorded, ["a"], 0) == ()
    with pytest.raises(ValueError, match="51 images were asked for"):
        reference_choice(recorded, ["a"], 51)


def test_a_plan_is_written_and_shown(model, tmp_path):
    recorded = SiteRecordings(
        np.random.default_rng(0).random((30, 2, 5)),
        tuple(f"n{k}" for k in range(30)),
        pd.DataFrame(index=pd.Index(list("abcde"), name="site_id")),
    )
    plan = plan_session(model, 600, recordings=recorded, reference_images=8, seed=3)
    told = json.loads(plan.to_json(tmp_path / "plan.json").read_text())
    assert tuple(map(parse_objective, told["objectives"])) == plan.objectives
    assert told["seeds"] == [3, 4]
    assert told["reference_ids"] == list(plan.reference_ids)
    assert len(plan.reference_ids) == 8
    assert told["seconds"] == pytest.approx((8 * 2 + 8) * 24 * 0.2)
    assert "<table" in plan._repr_html_()
    assert "8 objectives of 4 targets" in repr(plan)
    asked = plan_session(model, 6000, recordings=recorded, reference_images=100)  # all that there are
    assert asked.reference_images == len(asked.reference_ids) == 30
