from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from neural_fits.recordings import SiteRecordings
from neural_fits.reliability import split_half_reliability
from neural_fits.scores import bootstrap_interval, explained_variance, site_scores


def recordings_of(trials):
    n_stimuli, _, n_sites = trials.shape
    sites = pd.DataFrame(index=pd.Index([f"s{s}" for s in range(n_sites)], name="site_id"))
    return SiteRecordings(trials, tuple(f"i{i}" for i in range(n_stimuli)), sites)


def spiking_sites(n_repeats, n_sites=100, n_stimuli=640, seed=0):
    """Poisson counts of known rates, a prediction of known quality, and its true r^2 against the noiseless rate."""
    rng = np.random.default_rng(seed)
    drive, other = rng.normal(size=(2, n_stimuli, n_sites))
    rate = np.exp(0.5 * drive + rng.uniform(0.5, 2.0, n_sites))
    share = rng.uniform(0.5, 0.95, n_sites)
    predicted = share * drive + np.sqrt(1 - share**2) * other
    true = np.array([stats.pearsonr(predicted[:, s], rate[:, s]).statistic ** 2 for s in range(n_sites)])
    trials = rng.poisson(rate[:, None, :], size=(n_stimuli, n_repeats, n_sites)).astype(np.float32)
    return predicted, trials, true


@pytest.mark.parametrize("n_repeats", [4, 10, 20])
def test_explained_variance_recovers_the_truth_that_raw_r_misses(n_repeats):
    predicted, trials, true = spiking_sites(n_repeats)
    scores = site_scores(predicted, recordings_of(trials), n_splits=10)
    bias = np.median(scores["explained_variance"] - true)
    raw_bias = np.median(scores["r"] ** 2 - true)
    assert abs(bias) < 0.02
    assert raw_bias < -0.01
    assert scores["n_stimuli"].eq(640).all()


def test_explained_variance_is_unbiased_under_ragged_repeats():
    predicted, trials, true = spiking_sites(10, seed=1)
    rng = np.random.default_rng(2)
    n_kept = rng.integers(1, 11, size=(640, 1))  # single repeats too: r and reliability must be of the same stimuli
    order = rng.random((640, 10)).argsort(axis=1)
    trials[order >= n_kept] = np.nan
    scores = site_scores(predicted, recordings_of(trials), n_splits=10)
    assert abs(np.median(scores["explained_variance"] - true)) < 0.02
    assert scores["n_stimuli"].eq((n_kept >= 2).sum()).all()


def test_site_scores_agree_with_their_parts():
    predicted, trials, _ = spiking_sites(6, n_sites=3, n_stimuli=80)
    predicted[:20, 1] = np.nan
    recorded = recordings_of(trials)
    scores = site_scores(predicted, recorded, n_splits=4, seed=7)
    mean = trials.mean(axis=1)
    assert list(scores.columns) == ["r", "reliability", "explained_variance", "n_stimuli"]
    assert list(scores.index) == ["s0", "s1", "s2"]
    assert scores["n_stimuli"].tolist() == [80, 60, 80]
    np.testing.assert_allclose(scores.loc["s0", "r"], stats.pearsonr(predicted[:, 0], mean[:, 0]).statistic, rtol=1e-5)
    np.testing.assert_allclose(scores.loc["s1", "r"], stats.pearsonr(predicted[20:, 1], mean[20:, 1])[0], rtol=1e-5)
    all_stimuli = split_half_reliability(recorded, n_splits=4, seed=7)
    np.testing.assert_allclose(scores["reliability"].iloc[[0, 2]], all_stimuli[[0, 2]])
    assert scores["reliability"].iloc[1] != all_stimuli[1]  # over the 60 predicted stimuli only
    np.testing.assert_allclose(scores["explained_variance"], scores["r"] ** 2 / scores["reliability"])


def test_single_repeats_give_a_raw_score_and_no_correction():
    predicted, trials, _ = spiking_sites(1, n_sites=2, n_stimuli=50)
    scores = site_scores(predicted, recordings_of(trials))
    assert scores["r"].notna().all()
    assert scores[["reliability", "explained_variance"]].isna().all(axis=None)
    assert scores["n_stimuli"].eq(50).all()


def test_missing_values_do_not_leak_between_sites():
    predicted, trials, _ = spiking_sites(4, n_sites=3, n_stimuli=60)
    clean = site_scores(predicted, recordings_of(trials), n_splits=3)
    trials[:, :, 1] = np.nan
    predicted[:, 2] = np.nan
    holed = site_scores(predicted, recordings_of(trials), n_splits=3)
    np.testing.assert_allclose(holed.loc["s0"], clean.loc["s0"])
    assert holed.loc[["s1", "s2"], ["r", "reliability", "explained_variance"]].isna().all(axis=None)
    assert holed["n_stimuli"].tolist() == [60, 0, 0]


def test_wrong_shape_names_what_was_expected():
    predicted, trials, _ = spiking_sites(2, n_sites=3, n_stimuli=10)
    with pytest.raises(ValueError, match=r"\(3, 10\).*10 stimuli and 3 sites"):
        site_scores(predicted.T, recordings_of(trials))


def test_explained_variance_by_hand():
    r = np.array([0.6, -0.6, 0.9, 0.5, 0.5, np.nan, 0.0])
    reliability = np.array([0.72, 0.72, 0.75, 0.0, -0.1, 0.5, 0.5])
    np.testing.assert_allclose(explained_variance(r, reliability), [0.5, 0.0, 1.08, np.nan, np.nan, np.nan, 0.0])


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
