from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from neural_fits.recordings import SiteRecordings
from neural_fits.scores import bootstrap_interval, population_interval, score_intervals, site_scores

METRICS = ("r", "explained_variance", "cc_norm", "r2_er", "feve")


def recordings_of(trials):
    sites = pd.DataFrame(index=pd.Index([f"s{s}" for s in range(trials.shape[2])], name="site_id"))
    return SiteRecordings(trials, tuple(f"i{i}" for i in range(len(trials))), sites)


def experiments(n, n_stimuli=100, n_repeats=6, seed=0):
    """Independent data sets as sites: normal signal and noise, and what is true of all images, not only of these."""
    rng = np.random.default_rng(seed)
    signal, other = rng.normal(size=(2, n_stimuli, n))
    trials = signal[:, None] + 1.5 * rng.normal(size=(n_stimuli, n_repeats, n))
    predicted = 0.7 * signal + 0.5 * other
    r2 = 0.49 / 0.74
    true = {
        "r": np.sqrt(r2 / (1 + 1.5**2 / n_repeats)),
        "explained_variance": r2,
        "cc_norm": np.sqrt(r2),
        "r2_er": r2,
        "feve": 1 - (0.3**2 + 0.5**2),
        "reliability": 1 / (1 + 1.5**2 / n_repeats),
        "fev": 1 / (1 + 1.5**2),
    }
    return predicted, trials.astype(np.float32), true


@pytest.mark.parametrize("ragged", [False, True])
def test_intervals_cover_the_planted_truth_as_often_as_they_say(ragged):
    # 150 data sets: the share covered has a standard error of .018.
    predicted, trials, true = experiments(150, seed=1)
    if ragged:
        keep = np.random.default_rng(2).integers(2, 7, size=(100, 1, 150))
        trials[np.arange(6)[:, None] >= keep] = np.nan
    for metric, value in true.items():
        if ragged and metric in ("r", "reliability"):
            continue  # these depend on the number of repeats
        found = score_intervals(predicted, recordings_of(trials), metric, n=300, n_splits=10)
        covered = ((found["low"] <= value) & (value <= found["high"])).mean()
        assert 0.88 < covered < 0.99, metric


def correlation(p, y, noise, axis):
    p, y = p - p.mean(axis=axis, keepdims=True), y - y.mean(axis=axis, keepdims=True)
    return (p * y).sum(axis=axis) / np.sqrt((p**2).sum(axis=axis) * (y**2).sum(axis=axis))


def squared_without_noise(p, y, noise, axis):
    p, y = p - p.mean(axis=axis, keepdims=True), y - y.mean(axis=axis, keepdims=True)
    pp, noise, m = (p**2).sum(axis=axis), noise.mean(axis=axis), p.shape[axis]
    return ((p * y).sum(axis=axis) ** 2 - noise * pp) / (pp * (y**2).sum(axis=axis) - (m - 1) * noise * pp)


# r of a site that few images drive is skewed, r2_er of a prediction that explains little is biased.
@pytest.mark.parametrize(
    ("metric", "statistic", "error"), [("r", correlation, 0.3), ("r2_er", squared_without_noise, 1)]
)
def test_ends_are_those_of_bca_in_scipy(metric, statistic, error):
    rng = np.random.default_rng(2)
    signal = rng.gamma(0.5, size=(30, 1))
    trials = (signal[:, None] + 0.5 * rng.normal(size=(30, 2, 1))).astype(np.float32)
    predicted = signal + error * rng.normal(size=signal.shape)
    data = (predicted[:, 0], trials.mean(axis=1)[:, 0], trials.var(axis=1, ddof=1)[:, 0] / 2)
    options = {"paired": True, "vectorized": True, "n_resamples": 20000, "rng": np.random.default_rng(0)}
    ends = {
        method: stats.bootstrap(data, statistic, method=method, **options).confidence_interval
        for method in ("BCa", "percentile")
    }
    found = score_intervals(predicted, recordings_of(trials), metric, n=20000).loc["s0"]
    np.testing.assert_allclose([found["low"], found["high"]], ends["BCa"], atol=0.015)
    assert np.abs(np.subtract(ends["BCa"], ends["percentile"])).max() > 0.03


def test_intervals_of_other_levels_are_as_wide_as_they_should_be():
    predicted, trials, true = experiments(150, seed=3)
    found = score_intervals(predicted, recordings_of(trials), "cc_norm", n=300, level=0.7)
    assert 0.6 < ((found["low"] <= true["cc_norm"]) & (true["cc_norm"] <= found["high"])).mean() < 0.8


def test_the_score_beside_the_interval_is_that_of_site_scores():
    predicted, trials, _ = experiments(5)
    recorded = recordings_of(trials)
    table = site_scores(predicted, recorded, n_splits=20, seed=4, metrics=("cc_norm", "feve", "r2_er", "fev"))
    for metric in ("r", "reliability", "explained_variance", "cc_norm", "feve", "r2_er", "fev"):
        found = score_intervals(predicted, recorded, metric, n=50, seed=4)
        assert list(found.columns) == [metric, "low", "high"]
        assert list(found.index) == recorded.site_ids
        np.testing.assert_allclose(found[metric], table[metric], rtol=1e-7)
        assert ((found["low"] < found[metric]) & (found[metric] < found["high"])).all()


def test_resampling_puts_no_copies_of_a_trial_into_both_halves():
    # Sites of pure noise have reliability 0. Repeats drawn with replacement would lift it far above.
    trials = np.random.default_rng(5).normal(size=(80, 4, 150)).astype(np.float32)
    found = score_intervals(np.zeros((80, 150)), recordings_of(trials), "reliability", n=200, n_splits=10)
    covered = (found["low"] <= 0) & (found["high"] >= 0)
    assert 0.88 < covered.mean() < 0.99
    rng = np.random.default_rng(6)
    doubled = np.take_along_axis(trials, rng.integers(4, size=trials.shape), axis=1)
    naive = score_intervals(np.zeros((80, 150)), recordings_of(doubled), "reliability", n=200, n_splits=10)
    assert ((naive["low"] <= 0) & (naive["high"] >= 0)).mean() < 0.6


def shuffled(trials, seed=0):
    """The control: every stimulus gets the trials of another, so sites stay reliable and nothing predicts them."""
    return trials[np.random.default_rng(seed).permutation(len(trials))]


@pytest.mark.parametrize("metric", METRICS)
def test_shuffled_responses_score_zero(metric):
    predicted, trials, _ = experiments(150, seed=7)
    recorded = recordings_of(shuffled(trials))
    control = predicted
    if metric == "feve":  # a prediction of full size adds its own variance as error: shrink it to what it can claim
        control = trials.mean(axis=(0, 1)) + 0.05 * (predicted - predicted.mean(axis=0))
    found = score_intervals(control, recorded, metric, n=300, n_splits=10)
    covered = (found["low"] <= 0) & (found["high"] >= 0)
    assert covered.mean() > 0.88
    assert abs(found[metric].median()) < 0.02
    intact = score_intervals(predicted, recordings_of(trials), metric, n=300, n_splits=10)
    assert (intact["low"] > 0).mean() > 0.95


def test_shuffling_every_trial_leaves_no_signal_to_score():
    predicted, trials, _ = experiments(100, seed=8)
    rng = np.random.default_rng(9)
    flat = trials.reshape(600, 100)
    mixed = rng.permuted(flat, axis=0).reshape(trials.shape)
    oracle = score_intervals(predicted, recordings_of(mixed), "oracle_jackknife", n=200)
    assert ((oracle["low"] <= 0) & (oracle["high"] >= 0)).mean() > 0.5  # biased downward by 1 / stimuli at most
    assert oracle["oracle_jackknife"].median() < 0.02
    found = score_intervals(predicted, recordings_of(mixed), "cc_norm", n=200)
    assert found["low"].isna().mean() > 0.8  # too close to the noise to be given an interval
    assert (found["low"].isna() == found["high"].isna()).all()


def test_stimuli_of_one_group_are_resampled_together():
    predicted, trials, _ = experiments(60, n_stimuli=60)
    twice = recordings_of(np.concatenate([trials, trials]))
    both = np.concatenate([predicted, predicted])
    labels = [f"photo{k % 60}" for k in range(120)]

    def width(*args, **kwargs):
        found = score_intervals(*args, "r", n=400, **kwargs)
        return (found["high"] - found["low"]).median()

    once = width(predicted, recordings_of(trials))
    assert width(both, twice, groups=labels) == pytest.approx(once, rel=0.08)
    assert width(both, twice) == pytest.approx(once / np.sqrt(2), rel=0.08)


def test_intervals_follow_the_seed_and_not_the_other_sites():
    predicted, trials, _ = experiments(4)
    first, again, other = (score_intervals(predicted, recordings_of(trials), n=50, seed=s) for s in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert (first["low"] != other["low"]).all()
    alone = score_intervals(predicted[:, :1], recordings_of(trials[:, :, :1]), n=50, seed=1)
    np.testing.assert_allclose(alone.loc["s0"], first.loc["s0"], rtol=1e-9)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"metric": "cc_nrom"}, "did you mean 'cc_norm'"),
        ({"metric": "explained_variance_2019"}, "needs half_predictions"),
        ({"level": 95}, "level is 95"),
        ({"n": 0}, "n is 0"),
        ({"n_splits": 0}, "n_splits is 0"),
        ({"groups": ["a"]}, "groups has 1 labels but there are 100 stimuli"),
    ],
)
def test_intervals_refuse_nonsense(kwargs, message):
    predicted, trials, _ = experiments(2)
    with pytest.raises(ValueError, match=message):
        score_intervals(predicted, recordings_of(trials), **kwargs)


def test_recordings_without_stimuli_or_sites_have_no_interval():
    nothing = recordings_of(np.zeros((0, 2, 3)))
    found = score_intervals(np.zeros((0, 3)), nothing, n=5)
    assert found.isna().all(axis=None)
    assert score_intervals(np.zeros((4, 0)), recordings_of(np.zeros((4, 2, 0))), n=5).empty
    one = recordings_of(np.ones((1, 2, 3)))
    assert score_intervals(np.zeros((1, 3)), one, n=5).isna().all(axis=None)


# ---- over sites


def test_population_interval_is_stratified_by_animal():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0.0, 1.0, 300), rng.normal(10.0, 1.0, 100)])
    animals = ["m"] * 300 + ["n"] * 100
    low, high = population_interval(values, animals, seed=1, statistic=np.mean, level=0.9)
    # Of means within animals, weighted by their sites; how many sites come from which animal is not in doubt.
    spread = np.sqrt(300 * values[:300].var() + 100 * values[300:].var()) / 400
    expected = values.mean() + stats.norm.ppf(0.95) * spread * np.array([-1, 1])
    np.testing.assert_allclose([low, high], expected, atol=0.02)
    plain = bootstrap_interval(values, seed=1, statistic=np.mean, level=0.9)
    assert plain[1] - plain[0] > 3 * (high - low)


def test_population_interval_leaves_out_what_is_not_finite():
    values, animals = [0.0, 1.0, np.nan, 2.0, 3.0, np.inf], list("mmmnnn")
    assert population_interval(values, animals, 0) == population_interval([0.0, 1.0, 2.0, 3.0], list("mmnn"), 0)
    assert np.isnan(population_interval([np.nan], ["m"], seed=0)).all()
    with pytest.raises(ValueError, match="3 values but 2 animals"):
        population_interval([1.0, 2.0, 3.0], ["m", "n"], seed=0)
    with pytest.raises(ValueError, match="level is 0"):
        population_interval([1.0], ["m"], seed=0, level=0)


def test_bootstrap_interval_of_the_mean_is_the_textbook_one():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    low, high = bootstrap_interval(values, seed=1, statistic=np.mean, level=0.9)
    half_width = stats.norm.ppf(0.95) * values.std() / np.sqrt(400)
    np.testing.assert_allclose([low, high], values.mean() + half_width * np.array([-1, 1]), atol=0.03)


def test_bootstrap_interval_covers_the_median_as_often_as_it_says():
    rng = np.random.default_rng(2)
    hits = 0
    for k in range(200):
        low, high = bootstrap_interval(rng.normal(size=41), seed=k, n=300, level=0.8)
        hits += low <= 0.0 <= high
    assert 0.70 < hits / 200 < 0.90


def test_bootstrap_interval_leaves_out_what_is_not_finite_and_repeats_itself():
    values = np.arange(20.0)
    holed = np.concatenate([values, [np.nan, np.inf]])
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(holed, seed=3)
    assert bootstrap_interval(values, 3, statistic=np.mean) != bootstrap_interval(values, 4, statistic=np.mean)
    assert np.isnan(bootstrap_interval([np.nan], seed=0)).all()


@pytest.mark.parametrize("kwargs", [{"level": 0.0}, {"level": 95}, {"n": 0}])
def test_bootstrap_interval_refuses_nonsense(kwargs):
    with pytest.raises(ValueError, match="give"):
        bootstrap_interval([1.0, 2.0], seed=0, **kwargs)
