from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from neural_fits.recordings import SiteRecordings
from neural_fits.reliability import split_half_reliability
from neural_fits.scores import (
    cc_norm,
    explained_variance,
    explained_variance_2019,
    fev,
    feve,
    oracle_correlation,
    r2_er,
    site_scores,
)

OPTIONAL = ("cc_norm", "fev", "feve", "r2_er", "oracle_jackknife", "oracle_conservative")


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


# ---- the other corrections


def rates_and_predictions(n_sites, n_stimuli=640, seed=0):
    """Noiseless rates, imperfect predictions of them in the same unit, and r^2 and FEVE of these without noise."""
    rng = np.random.default_rng(seed)
    drive, other = rng.normal(size=(2, n_stimuli, n_sites))
    rate = np.exp(0.5 * drive + rng.uniform(0.5, 2.0, n_sites))
    share = rng.uniform(0.5, 0.95, n_sites)
    predicted = rate.mean(axis=0) * (1.0 + 0.5 * (share * drive + np.sqrt(1 - share**2) * other))
    r2 = np.array([stats.pearsonr(predicted[:, s], rate[:, s]).statistic ** 2 for s in range(n_sites)])
    return rate, predicted, r2, 1.0 - np.mean((predicted - rate) ** 2, axis=0) / rate.var(axis=0)


def unbiased_scores(predicted, recorded):
    scores = site_scores(predicted, recorded, n_splits=20, metrics=("cc_norm", "r2_er", "feve"))
    return {
        "explained_variance": scores["explained_variance"],
        "cc_norm": scores["cc_norm"] ** 2,
        "r2_er": scores["r2_er"],
        "feve": scores["feve"],
    }


# Errors of single sites have an sd of about .10 at 2 repeats and .03 at 10 (FEVE .2 and .06), so medians over 100 sites
# have a standard error of .013 and .004 (.025 and .008); tolerances are about three of these.
@pytest.mark.parametrize(("n_repeats", "tolerance"), [(2, 0.04), (10, 0.012)])
def test_four_corrections_recover_the_truth(n_repeats, tolerance):
    rate, predicted, r2, true_feve = rates_and_predictions(100)
    trials = np.random.default_rng(1).poisson(rate[:, None], size=(640, n_repeats, 100)).astype(np.float32)
    recorded = recordings_of(trials)
    for name, values in unbiased_scores(predicted, recorded).items():
        true, slack = (true_feve, 2.0) if name == "feve" else (r2, 1.0)
        assert abs(np.median(values - true)) < slack * tolerance, name
    assert np.median(site_scores(predicted, recorded, n_splits=1)["r"] ** 2 - r2) < -2 * tolerance


def test_four_corrections_recover_the_truth_under_ragged_repeats():
    rate, predicted, r2, true_feve = rates_and_predictions(100, seed=3)
    rng = np.random.default_rng(4)
    trials = rng.poisson(rate[:, None], size=(640, 12, 100)).astype(np.float32)
    order = rng.random(trials.shape).argsort(axis=1)
    trials[order >= rng.choice([2, 4, 12], size=(640, 1, 100))] = np.nan
    for name, values in unbiased_scores(predicted, recordings_of(trials)).items():
        true, slack = (true_feve, 2.0) if name == "feve" else (r2, 1.0)
        assert abs(np.median(values - true)) < slack * 0.02, name


def test_signal_power_is_unbiased_whichever_stimuli_have_few_repeats():
    # The noisiest stimuli are shown least: one noise variance for all would leave half of theirs in the signal.
    rng = np.random.default_rng(5)
    signal = rng.normal(size=(600, 1, 60))
    signal = (signal - signal.mean(axis=0)) / signal.std(axis=0, ddof=1)
    spread, few = np.where(np.arange(600) < 300, 1.0, 3.0), np.arange(600) >= 300
    trials = signal + spread[:, None, None] * rng.normal(size=(600, 10, 60))
    trials[few, 2:] = np.nan
    assert abs(fev(recordings_of(trials)).mean() - 1 / (1 + 5)) < 0.015
    one_for_all = np.nanmean(trials, axis=1).var(axis=0, ddof=1).mean() - 5 * (0.1 + 0.5) / 2
    assert one_for_all / (one_for_all + 5) > 0.24


def textbook(predicted, trials):
    """Each formula as published, for one site with n repeats of m stimuli."""
    m, n = trials.shape
    mean, total, per_repeat = trials.mean(axis=1), trials.sum(axis=1), trials.var(axis=0, ddof=1)
    power = (total.var(ddof=1) - per_repeat.sum()) / (n * (n - 1))
    noise = trials.var(axis=1, ddof=1).mean()
    every, guess = trials.var(), np.repeat(predicted, n).reshape(m, n)
    p, y = predicted - predicted.mean(), mean - mean.mean()
    others = (trials.sum(axis=1, keepdims=True) - trials) / (n - 1)
    return {
        "cc_norm": np.cov(predicted, mean)[0, 1] / np.sqrt(predicted.var(ddof=1) * power),
        "fev": (every - noise) / every,
        "feve": 1 - (np.mean((trials - guess) ** 2) - noise) / (every - noise),
        "r2_er": ((p @ y) ** 2 - noise / n * (p @ p)) / ((p @ p) * (y @ y) - (m - 1) * noise / n * (p @ p)),
        "oracle_jackknife": stats.pearsonr(trials.ravel(), others.ravel()).statistic,
        "oracle_conservative": mean.var(ddof=1) / np.sqrt(mean.var(ddof=1) * (mean.var(ddof=1) + noise)),
    }


def test_scores_agree_with_the_published_formulae_where_repeats_are_equal():
    rate, predicted, *_ = rates_and_predictions(4, n_stimuli=400, seed=6)
    trials = np.random.default_rng(7).poisson(rate[:, None], size=(400, 6, 4)).astype(np.float32)
    trials += 50.0  # an offset must not matter
    predicted += 50.0
    scores = site_scores(predicted, recordings_of(trials), n_splits=1, metrics=OPTIONAL)
    for s in range(4):
        expected = textbook(predicted[:, s], trials[:, :, s].astype(np.float64))
        for name in ("r2_er", "oracle_jackknife", "oracle_conservative"):
            assert scores[name].iloc[s] == pytest.approx(expected[name], rel=1e-6), name
        for name in ("cc_norm", "fev", "feve"):  # these differ in ddof by 1 / 400
            assert scores[name].iloc[s] == pytest.approx(expected[name], abs=4e-3), name


def test_oracle_jackknife_agrees_with_a_loop_under_ragged_repeats():
    rng = np.random.default_rng(8)
    trials = rng.normal(size=(30, 1, 1)) + rng.normal(size=(30, 5, 1))
    trials[rng.random(trials.shape) < 0.3] = np.nan
    pairs = []
    for row in trials[:, :, 0]:
        there = row[np.isfinite(row)]
        pairs += [(there[k], np.delete(there, k).mean()) for k in range(len(there)) if len(there) > 1]
    expected = stats.pearsonr(*np.array(pairs).T).statistic
    np.testing.assert_allclose(oracle_correlation(recordings_of(trials)), expected, rtol=1e-5)


def test_oracle_correlations_bracket_the_correlation_of_the_noiseless_rate_with_single_trials():
    rng = np.random.default_rng(9)
    trials = rng.normal(size=(600, 1, 40)) + 2.0 * rng.normal(size=(600, 4, 40))
    recorded, true = recordings_of(trials), np.sqrt(1.0 / 5.0)
    low, high = (np.median(oracle_correlation(recorded, m)) for m in ("jackknife", "conservative"))
    assert low < true - 0.05 < true + 0.05 < high
    with pytest.raises(ValueError, match="method is 'jacknife'; give 'jackknife' or 'conservative'"):
        oracle_correlation(recorded, "jacknife")


def test_the_correction_of_2019_divides_by_the_reliability_of_the_model_as_well():
    rate, predicted, r2, _ = rates_and_predictions(60, seed=10)
    rng = np.random.default_rng(11)
    trials = rng.poisson(rate[:, None], size=(640, 4, 60)).astype(np.float32)
    # Two models, each off by noise of its own; their mean is the model that is judged.
    halves = [predicted + predicted.std(axis=0) * 0.6 * rng.normal(size=predicted.shape) for _ in range(2)]
    recorded, whole = recordings_of(trials), np.mean(halves, axis=0)
    value = explained_variance_2019(whole, recorded, halves)
    scores = site_scores(whole, recorded, metrics=["explained_variance_2019"], half_predictions=halves)
    np.testing.assert_array_equal(scores["explained_variance_2019"], value)
    half = np.array([stats.pearsonr(halves[0][:, s], halves[1][:, s]).statistic for s in range(60)])
    np.testing.assert_allclose(value, scores["explained_variance"] * (1 + half) / (2 * half), rtol=1e-6)
    assert abs(np.median(value - r2)) < 0.03  # what the model would explain without its own noise
    assert np.median(scores["explained_variance"] - r2) < -0.05
    opposed = explained_variance_2019(whole, recorded, (halves[0], -halves[0]))
    assert np.isnan(opposed).all()
    with pytest.raises(ValueError, match=r"explained_variance_2019 needs half_predictions=\(first, second\)"):
        site_scores(whole, recorded, metrics=["explained_variance_2019"])
    with pytest.raises(ValueError, match=r"a half of half_predictions has shape \(640, 59\)"):
        explained_variance_2019(whole, recorded, (halves[0], halves[1][:, :59]))


def test_without_noise_every_correction_is_the_plain_score():
    rate, predicted, r2, true_feve = rates_and_predictions(5, n_stimuli=50)
    recorded = recordings_of(np.repeat(rate[:, None], 3, axis=1))
    np.testing.assert_allclose(cc_norm(predicted, recorded) ** 2, r2, rtol=1e-5)
    np.testing.assert_allclose(r2_er(predicted, recorded), r2, rtol=1e-5)
    np.testing.assert_allclose(feve(predicted, recorded), true_feve, rtol=1e-5)
    np.testing.assert_allclose(fev(recorded), 1.0)
    np.testing.assert_allclose(cc_norm(-predicted, recorded), -np.sqrt(r2), rtol=1e-5)


def test_sites_without_signal_get_no_number_rather_than_a_wild_one():
    rng = np.random.default_rng(12)
    trials = rng.normal(size=(40, 3, 300)).astype(np.float32)
    trials[:, :, 0] = 2.5  # silent
    trials[:, :, 1] = np.nan
    trials[:, 1:, 2] = np.nan  # one repeat
    trials[2:, :, 3] = np.nan  # two stimuli
    names = ("cc_norm", "fev", "feve", "r2_er")
    scores = site_scores(rng.normal(size=(40, 300)), recordings_of(trials), n_splits=5, metrics=OPTIONAL)
    assert np.isfinite(scores[list(OPTIONAL)]).to_numpy()[4:].any()
    assert not np.isinf(scores.to_numpy(dtype=float)).any()
    assert scores.iloc[:4][[*OPTIONAL, "explained_variance"]].isna().all(axis=None)
    power = trials.mean(axis=1).var(axis=0, ddof=1) - trials.var(axis=1, ddof=1).mean(axis=0) / 3
    assert 50 < (power[4:] <= 0).sum() < 250
    for name in names:
        np.testing.assert_array_equal(scores[name].isna()[4:], power[4:] <= 0)
    np.testing.assert_array_equal(scores["explained_variance"].isna()[4:], ~(scores["reliability"][4:] > 0))


def test_constant_predictions_correlate_with_nothing_and_explain_nothing():
    rate, *_ = rates_and_predictions(3, n_stimuli=60)
    trials = np.random.default_rng(0).poisson(rate[:, None], size=(60, 5, 3)).astype(np.float32)
    recorded = recordings_of(trials)
    flat = np.tile(trials.mean(axis=(0, 1)).astype(np.float64), (60, 1))
    assert np.isnan(cc_norm(flat, recorded)).all()
    assert np.isnan(r2_er(flat, recorded)).all()
    np.testing.assert_allclose(feve(flat, recorded), 0.0, atol=0.02)


def test_further_columns_do_not_leak_between_sites_nor_change_the_first_four():
    predicted, trials, _ = spiking_sites(4, n_sites=3, n_stimuli=60)
    clean = site_scores(predicted, recordings_of(trials), n_splits=3, metrics=OPTIONAL)
    pd.testing.assert_frame_equal(clean.iloc[:, :4], site_scores(predicted, recordings_of(trials), n_splits=3))
    assert list(clean.columns[4:]) == list(OPTIONAL)
    trials[:, :, 1] = np.nan
    predicted[:, 2] = np.nan
    holed = site_scores(predicted, recordings_of(trials), n_splits=3, metrics=OPTIONAL)
    np.testing.assert_allclose(holed.loc["s0"].astype(float), clean.loc["s0"].astype(float))
    assert holed.loc[["s1", "s2"], list(OPTIONAL)].isna().all(axis=None)


def test_scores_are_over_the_stimuli_that_have_a_prediction_and_two_repeats():
    predicted, trials, _ = spiking_sites(5, n_sites=2, n_stimuli=80)
    expected = site_scores(predicted[:50], recordings_of(trials[:50]), metrics=OPTIONAL)
    predicted[50:65] = np.nan
    trials[65:, 1:] = np.nan
    wild = site_scores(predicted, recordings_of(trials), metrics=OPTIONAL)
    np.testing.assert_allclose(wild[list(OPTIONAL)], expected[list(OPTIONAL)], rtol=1e-6)


def test_an_unknown_metric_is_answered_with_the_closest():
    predicted, trials, _ = spiking_sites(2, n_sites=2, n_stimuli=10)
    with pytest.raises(ValueError, match=r"unknown metric 'cc_nrom'; did you mean 'cc_norm'\? known: .*r2_er"):
        site_scores(predicted, recordings_of(trials), metrics=["cc_nrom"])
