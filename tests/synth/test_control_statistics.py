"""Intervals and tests of control against planted truth and independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from synth.control_statistics import (
    baseline_replicates,
    beyond_baseline,
    beyond_every_image,
    discoveries,
    interval,
    pooled_variance,
    target_replicates,
    trial_deviations,
)


def test_deviations_have_the_covariance_of_a_mean_of_few_repeats():
    trials = np.random.default_rng(0).normal(size=(4, 3)) @ np.array([[2.0, 1, 0], [0, 1, 0], [0, 0, 1]])
    moved = trial_deviations(trials, 200_000, np.random.default_rng(1))
    np.testing.assert_allclose(np.cov(moved.T), np.cov(trials.T) / 4, atol=0.03)
    np.testing.assert_allclose(moved.mean(0), 0, atol=0.02)


def test_deviations_leave_missing_repeats_out():
    trials = np.array([[1.0, 5.0], [4.0, np.nan], [3.0, np.nan], [np.nan, np.nan]])
    moved = trial_deviations(trials, 100_000, np.random.default_rng(0))
    assert moved[:, 0].std() == pytest.approx(stats.sem([1.0, 4.0, 3.0]), rel=0.02)
    assert (moved[:, 1] == 0).all()


def test_images_of_a_target_are_resampled():
    images = np.array([1.0, 2.0, 6.0])[:, None] * np.ones((1, 50_000))
    values = target_replicates(images, np.random.default_rng(0))
    assert values.mean() == pytest.approx(3.0, abs=0.03)
    assert values.var() == pytest.approx(np.var([1.0, 2.0, 6.0]) / 3, rel=0.03)
    assert set(np.unique(values.round(6))) >= {1.0, 6.0}


def test_baseline_replicates_are_those_of_new_experiments():
    """The choosing and the measuring half of many simulated experiments, written out."""
    rng = np.random.default_rng(0)
    truth = np.array([10.0, 9.5, 9.0, 3.0])
    variance = np.array([0.2, 0.6, 0.4, 0.1])
    simulated = []
    for _ in range(4000):
        mean = truth + np.sqrt(variance) * rng.normal(size=4)
        directions = []
        for _ in range(4):
            difference = np.sqrt(variance) * rng.normal(size=4)
            first, second = mean + difference, mean - difference
            directions += [second[first.argmax()], first[second.argmax()]]
        simulated.append(np.mean(directions))
    found = baseline_replicates(np.append(truth, np.nan), np.append(variance, np.nan), 20_000, rng)
    assert found.mean() == pytest.approx(np.mean(simulated), abs=0.05)
    assert found.std() == pytest.approx(np.std(simulated), rel=0.05)
    assert found.mean() < 10.0 < found.mean() + found.std()


def test_interval_of_a_mean_covers_it_as_often_as_it_says():
    rng, covered = np.random.default_rng(3), []
    for _ in range(400):
        trials = rng.normal(5.0, 2.0, (10, 1))
        low, high = interval(trial_deviations(trials, 400, rng)[:, 0], trials.mean())
        assert low < trials.mean() < high
        covered.append(low < 5.0 < high)
    assert 0.90 < np.mean(covered) < 0.975  # Student's t would cover .95, the normal quantiles .92


def test_interval_is_around_the_estimate_wherever_the_replicates_lie():
    low, high = interval(np.random.default_rng(0).normal(50.0, 1.0, 100_000), 3.0)
    assert low == pytest.approx(3 - 1.96, abs=0.03)
    assert high == pytest.approx(3 + 1.96, abs=0.03)
    assert np.isnan(interval(np.array([1.0, np.nan]), 0.0)).all()


def test_variance_is_pooled_over_images_of_similar_score():
    rng = np.random.default_rng(0)
    scores, variance = rng.normal(size=40), rng.random(40)
    scores[7] = variance[7] = np.nan
    order = [k for k in np.argsort(scores) if k != 7]
    pooled = pooled_variance(scores, variance)
    for rank, k in enumerate(order):
        start = min(max(rank - 7, 0), len(order) - 15)
        assert pooled[k] == pytest.approx(variance[order[start : start + 15]].mean())
    assert np.isnan(pooled[7])


def test_p_value_is_the_largest_of_welchs_tests():
    rng = np.random.default_rng(0)
    scores, variances = rng.normal(5, 2, 30), rng.uniform(0.1, 3, 30)
    many = 10**7  # repeats, so that the natural variances are as good as known
    expected = max(
        stats.ttest_ind_from_stats(
            9.0, np.sqrt(0.7 * 6), 6, score, np.sqrt(variance * many), many, equal_var=False, alternative="greater"
        ).pvalue
        for score, variance in zip(scores, variances, strict=True)
    )
    with_gap, gap = np.append(scores, np.nan), np.append(variances, np.nan)
    assert beyond_every_image(9.0, 0.7, 5, with_gap, gap) == pytest.approx(expected, rel=1e-4)
    assert np.isnan(beyond_every_image(np.nan, 0.7, 5, scores, variances))
    assert np.isnan(beyond_every_image(9.0, 0.0, 0, scores, variances))


def test_without_noise_the_verdict_is_certain():
    nothing = np.zeros(2)
    assert beyond_every_image(3.1, 0.0, 5, np.array([1.0, 3.0]), nothing) == 0
    assert beyond_every_image(3.0, 0.0, 5, np.array([1.0, 3.0]), nothing) == 1


def test_false_discoveries_are_held_within_a_family():
    p = [0.001, 0.02, 0.03, 0.2, np.nan, 0.03, 0.9]
    family = ["a", "a", "a", "a", "a", "b", "b"]
    # a: thresholds .0125, .025, .0375, .05 for the ranks; b: .025, .05
    assert discoveries(p, family) == [True, True, True, False, False, False, False]
    assert discoveries([], []) == []
    assert discoveries([np.nan], ["a"]) == [False]


def natural_scores(kind, rng):
    truth = np.exp(rng.normal(0, 0.5, 200)) * 10
    if kind == "one image stands out":
        truth[3] = 2 * truth.max()
    return truth


@pytest.mark.parametrize("kind", ["crowded", "one image stands out"])
def test_copies_of_the_best_image_are_rarely_called_beyond_it_and_forty_percent_more_mostly(kind):
    rng, images, repeats, runs = np.random.default_rng(5), 5, 10, 600
    called = {1.0: 0, 1.4: 0}
    for _ in range(runs):
        truth = natural_scores(kind, rng)
        natural = truth + np.sqrt(truth / repeats) * rng.normal(size=200)
        variance = truth / repeats * rng.chisquare(repeats - 1, 200) / (repeats - 1)
        pooled = np.fmax(variance, pooled_variance(natural, variance))
        for gain in called:
            trials = rng.poisson(gain * truth.max(), (images, repeats))
            noise = trials.var(ddof=1) / trials.size
            p = beyond_every_image(trials.mean(), noise, images * (repeats - 1), natural, pooled)
            called[gain] += p <= 0.05
    assert called[1.0] / runs < 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)
    assert called[1.4] / runs > 0.9


def test_p_value_against_the_baseline_is_uniform_where_they_are_equal():
    rng = np.random.default_rng(0)
    made, natural = rng.normal(3.0, 1.0, (2000, 6)), rng.normal(3.0, 0.2, 2000)
    p = [
        beyond_baseline(one.mean() - best, one.var(ddof=1) / 6 + 0.04, 5)
        for one, best in zip(made, natural, strict=True)
    ]
    assert stats.kstest(p, "uniform").statistic < 0.04
    assert beyond_baseline(2.0, 0.0, 5) == 0.0
    assert beyond_baseline(0.0, 0.0, 5) == 1.0
