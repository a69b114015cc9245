"""Natural baselines against a loop written out, and against noise whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from neural_fits.recordings import SiteRecordings
from synth.baselines import cross_validated, family_baselines, natural_baselines
from synth.objectives import OneHot, SiteScale, Stretch
from synth.site_objectives import Pattern, Suppress

SITES = ("a", "b", "c")
SCALE = SiteScale(SITES, torch.zeros(3), torch.ones(3))


def record(trials):
    ids = tuple(f"n{k}" for k in range(len(trials)))
    return SiteRecordings(trials, ids, pd.DataFrame(index=pd.Index(SITES, name="site_id")))


def noisy(count, repeats=6, sd=2.0, seed=0, spread=1.5):
    rng = np.random.default_rng(seed)
    truth = rng.normal(10, spread, (count, 3))
    return record(truth[:, None] + rng.normal(0, sd, (count, repeats, 3)))


@pytest.mark.parametrize("count", [3, 30, 250])
def test_baselines_are_chosen_on_one_half_and_measured_on_the_other(count):
    natural = noisy(count)
    best, best5, p99 = [], [], []
    for split in range(20):
        halves = natural.halves(7 + split)
        for choose, measure in (halves, halves[::-1]):
            ranked = sorted(range(count), key=lambda k: -choose[k, 1])
            best.append(measure[ranked[0], 1])
            best5.append(np.mean([measure[k, 1] for k in ranked[:5]]))
            ascending = [measure[k, 1] for k in reversed(ranked)]
            place = 0.99 * (count - 1)
            low = int(place)
            p99.append(ascending[low] + (place - low) * (ascending[min(low + 1, count - 1)] - ascending[low]))
    found = natural_baselines(natural, [Stretch("b")], SCALE, 7)[Stretch("b")]
    assert found.best == pytest.approx(np.mean(best))
    assert found.best5 == pytest.approx(np.mean(best5))
    assert found.p99 == pytest.approx(np.mean(p99))
    assert found.upper == pytest.approx(natural.mean()[:, 1].max())
    np.testing.assert_allclose(found.scores, natural.mean()[:, 1], rtol=1e-5)
    sem = natural.responses[:, :, 1].std(axis=1, ddof=1) / np.sqrt(6)
    assert np.sqrt(found.variance).mean() == pytest.approx(sem.mean(), rel=0.1)


def test_pure_noise_has_no_best_images():
    found = natural_baselines(noisy(300, spread=0.0), [Stretch("a")], SCALE, 0)[Stretch("a")]
    assert found.upper > 11.5
    for value in (found.best, found.best5, found.p99):
        assert value == pytest.approx(10, abs=0.6)


def test_other_objectives_choose_by_their_own_score():
    natural = noisy(40, sd=1e-3)
    low, wanted = Suppress("a"), Pattern({"a": 12.0, "b": 8.0})
    found = natural_baselines(natural, [low, wanted, low], SCALE, 0)
    assert list(found) == [low, wanted]
    means = natural.mean()
    assert found[low].image == means[:, 0].argmin()
    assert found[low].best == pytest.approx(-means[:, 0].min(), abs=0.01)
    distance = ((means[:, :2] - [12.0, 8.0]) ** 2).mean(axis=1)
    assert found[wanted].image == distance.argmin()
    assert found[wanted].best == pytest.approx(-distance.min(), abs=0.02)


def test_images_with_one_repeat_are_left_out():
    natural = noisy(20, sd=1e-3)
    trials = natural.responses.copy()
    first = natural.mean()[:, 0].argmax()
    trials[first, 1:, 0] = np.nan
    found = natural_baselines(record(trials), [Stretch("a"), Stretch("b")], SCALE, 0)
    assert found[Stretch("a")].best == pytest.approx(np.sort(natural.mean()[:, 0])[-2], abs=0.01)
    assert np.isnan(found[Stretch("a")].scores[first])
    assert np.isfinite(found[Stretch("b")].scores).all()


def test_one_repeat_is_refused():
    with pytest.raises(ValueError, match="record more repeats"):
        natural_baselines(noisy(5, repeats=1), [OneHot("a")], SCALE, 0)


def test_families_have_the_baselines_of_their_images_alone():
    natural = noisy(60)
    families = ["photo"] * 35 + ["grating"] * 22 + ["once"] * 3
    trials = natural.responses.copy()
    trials[57:, 1:] = np.nan
    natural = record(trials)
    baselines = natural_baselines(natural, [Stretch("c"), Suppress("a")], SCALE, 3)
    table = family_baselines({repr(key): (key, value) for key, value in baselines.items()}, families)
    assert len(table) == 6
    for (name, family), row in table.set_index(["objective", "reference_family"]).iterrows():
        objective = {"Stretch('c')": Stretch("c"), "Suppress('a')": Suppress("a")}[name]
        assert row["target_site"] == objective.target
        rows = [k for k, other in enumerate(families) if other == family]
        expected = cross_validated(baselines[objective].halves[:, rows])
        np.testing.assert_array_equal(row[["best", "best5", "p99"]].astype(float), expected)
        assert row["n"] == {"photo": 35, "grating": 22, "once": 0}[family]
        assert np.isnan(row["best"]) == (family == "once")
        if family == "grating" and name == "Stretch('c')":
            assert row["best"] < natural.mean()[35:57, 2].max()
