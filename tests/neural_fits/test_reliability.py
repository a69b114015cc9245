from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from neural_fits.recordings import SiteRecordings
from neural_fits.reliability import (
    half_correlation,
    pearson_r,
    random_halves,
    spearman_brown,
    split_half_reliability,
)


def recordings_of(trials):
    n_stimuli, _, n_sites = trials.shape
    sites = pd.DataFrame(index=pd.Index([f"s{s}" for s in range(n_sites)], name="site_id"))
    return SiteRecordings(trials, tuple(f"i{i}" for i in range(n_stimuli)), sites)


def planted(n_stimuli, n_repeats, n_sites, noise_variance, seed=0):
    """Trials whose signal has variance exactly 1, so that the reliability is known."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(n_stimuli, 1, n_sites))
    signal = (signal - signal.mean(0)) / signal.std(0)
    return signal + np.sqrt(noise_variance) * rng.normal(size=(n_stimuli, n_repeats, n_sites))


# ---- Pearson


def test_pearson_agrees_with_scipy_on_the_pairs_that_are_finite():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 40, 6)) * np.array([1, 1e-6, 1e6, 1, 1, 1]) + np.array([0, 0, 1e3, 0, 0, 0])
    x[rng.random(x.shape) < 0.2] = np.nan
    y[rng.random(y.shape) < 0.2] = np.nan
    expected = []
    for s in range(6):
        both = np.isfinite(x[:, s]) & np.isfinite(y[:, s])
        expected.append(stats.pearsonr(x[both, s], y[both, s]).statistic)
    np.testing.assert_allclose(pearson_r(x, y), expected, rtol=1e-7)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_pearson_neither_overflows_nor_vanishes(scale):
    x = np.random.default_rng(1).normal(size=(30, 2))
    np.testing.assert_allclose(pearson_r(x * scale, x[:, ::-1]), pearson_r(x, x[:, ::-1]), rtol=1e-9)


def test_pearson_is_nan_where_it_is_not_defined():
    varied = np.array([0.0, 1.0, 2.0, 4.0])
    constant = np.full(4, np.float32(0.1), dtype=np.float64)
    two_left = np.array([0.0, 1.0, np.nan, np.nan])
    three_left = np.array([0.0, 1.0, 2.0, np.nan])
    nothing = np.full(4, np.nan)
    r = pearson_r(np.stack([varied] * 5, 1), np.stack([varied, constant, two_left, nothing, three_left], 1))
    np.testing.assert_array_equal(np.isnan(r), [False, True, True, True, False])
    np.testing.assert_allclose(r[[0, 4]], 1.0)


def test_pearson_calls_rounding_residue_constant():
    trials = np.full((20, 5), 0.1)
    half = np.stack([trials[i, : 2 + i % 2].sum() / (2 + i % 2) for i in range(20)])
    assert np.isnan(pearson_r(half[:, None], np.arange(20.0)[:, None])[0])


def test_pearson_names_both_shapes():
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(3, 4\)"):
        pearson_r(np.zeros((3, 2)), np.zeros((3, 4)))


# ---- halves


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**20), loss=st.sampled_from([0.0, 0.3, 0.7]))
def test_halves_are_disjoint_complete_and_as_equal_as_can_be(seed, loss):
    # Repeat k answers 2^k, so the bits of a half's sum tell which repeats went into it.
    rng = np.random.default_rng(seed)
    trials = np.broadcast_to(2.0 ** np.arange(7)[None, :, None], (6, 7, 4)).copy()
    trials[rng.random(trials.shape) < loss] = np.nan
    first, second = random_halves(trials, np.random.default_rng(seed))
    for i, s in np.ndindex(6, 4):
        there = trials[i, :, s][np.isfinite(trials[i, :, s])]
        n = len(there)
        if n < 2:
            assert np.isnan(first[i, s])
            assert np.isnan(second[i, s])
            continue
        fits = []
        for n_first in {n // 2, n - n // 2}:
            a, b = round(first[i, s] * n_first), round(second[i, s] * (n - n_first))
            exact = np.isclose(a, first[i, s] * n_first) and np.isclose(b, second[i, s] * (n - n_first))
            sizes = a.bit_count() == n_first and b.bit_count() == n - n_first
            fits.append(exact and sizes and a & b == 0 and a | b == int(there.sum()))
        assert any(fits)


def test_every_repeat_and_the_odd_one_out_fall_on_either_side_equally_often():
    trials = np.broadcast_to(2.0 ** np.arange(3)[None, :, None], (2000, 3, 1))
    first, second = random_halves(trials, np.random.default_rng(0))
    single_first = np.isin(first[:, 0], [1.0, 2.0, 4.0])
    single_second = np.isin(second[:, 0], [1.0, 2.0, 4.0])
    assert (single_first ^ single_second).all()
    assert abs(single_first.mean() - 0.5) < 0.05
    alone = np.where(single_first, first[:, 0], second[:, 0])
    for value in (1.0, 2.0, 4.0):
        assert abs((alone == value).mean() - 1 / 3) < 0.05


def test_halves_of_a_site_do_not_depend_on_the_other_sites():
    rng = np.random.default_rng(3)
    trials = rng.normal(size=(30, 8, 5))
    trials[rng.random(trials.shape) < 0.3] = np.nan
    trials[:, :, 4] = trials[:, :, 1]
    all_sites = np.stack(random_halves(trials, np.random.default_rng(9)))
    some = np.stack(random_halves(trials[:, :, [1, 3]], np.random.default_rng(9)))
    np.testing.assert_allclose(all_sites[:, :, [1, 3]], some, rtol=1e-12)
    np.testing.assert_array_equal(all_sites[:, :, 1], all_sites[:, :, 4])


# ---- reliability


@pytest.mark.parametrize(("n_repeats", "noise_variance"), [(2, 1.0), (6, 4.0), (10, 2.0), (20, 10.0)])
def test_reliability_is_the_planted_share_of_signal(n_repeats, noise_variance):
    n_stimuli = 640
    recorded = recordings_of(planted(n_stimuli, n_repeats, 40, noise_variance))
    true = 1.0 / (1.0 + noise_variance / n_repeats)
    half = 1.0 / (1.0 + noise_variance / (n_repeats / 2))
    # Delta method: sd(r) = (1 - r^2)/sqrt(m), d rel/dr = 2/(1 + r)^2, for a single split.
    sd = 2 / (1 + half) ** 2 * (1 - half**2) / np.sqrt(n_stimuli)
    estimate = split_half_reliability(recorded, n_splits=20)
    assert np.abs(estimate - true).max() < 4.5 * sd
    assert abs(np.mean(estimate) - true) < 4 * sd / np.sqrt(40)
    np.testing.assert_allclose(half_correlation(recorded, n_splits=20).mean(), half, atol=3 * sd / np.sqrt(40) * 2)


def test_reliability_stays_unbiased_when_repeats_are_ragged_and_differ_by_site():
    rng = np.random.default_rng(5)
    n_stimuli, n_repeats, n_sites, noise = 600, 12, 40, 3.0
    trials = planted(n_stimuli, n_repeats, n_sites, noise, seed=6)
    n_kept = rng.choice([4, 6, 8, 12], size=(n_stimuli, n_sites))
    order = rng.random(trials.shape).argsort(axis=1)
    trials[order >= n_kept[:, None, :]] = np.nan
    true = 1.0 / (1.0 + noise * (1.0 / n_kept).mean(axis=0))
    error = split_half_reliability(recordings_of(trials), n_splits=10) - true
    assert abs(error.mean()) < 0.005


def test_spearman_brown_comes_after_averaging():
    trials = planted(25, 5, 3, 6.0, seed=2)
    rng = np.random.default_rng(11)
    per_split = np.empty((7, 3))
    for k in range(7):
        a, b = random_halves(trials.astype(np.float32), rng)
        per_split[k] = [stats.pearsonr(a[:, s], b[:, s]).statistic for s in range(3)]
    r = per_split.mean(axis=0)
    recorded = recordings_of(trials)
    np.testing.assert_allclose(half_correlation(recorded, n_splits=7, seed=11), r, rtol=1e-6)
    np.testing.assert_allclose(split_half_reliability(recorded, n_splits=7, seed=11), 2 * r / (1 + r), rtol=1e-6)
    before = (2 * per_split / (1 + per_split)).mean(axis=0)
    assert np.abs(before - 2 * r / (1 + r)).min() > 1e-4


def test_spearman_brown_at_its_edges():
    np.testing.assert_allclose(spearman_brown([-1.0, -0.5, 0.0, 1 / 3, 1.0]), [np.nan, -2.0, 0.0, 0.5, 1.0])


def test_order_of_repeats_does_not_matter():
    trials = planted(60, 2, 3, 1.0)
    swapped = trials.copy()
    swapped[::2] = swapped[::2, ::-1]
    kwargs = {"n_splits": 300, "seed": 0}
    a, b = (split_half_reliability(recordings_of(t), **kwargs) for t in (trials, swapped))
    np.testing.assert_allclose(a, b, atol=0.01)


def test_same_seed_same_numbers_and_other_seed_others():
    recorded = recordings_of(planted(40, 5, 3, 2.0))
    first, again, other = (split_half_reliability(recorded, n_splits=3, seed=s) for s in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


def test_stimuli_without_two_repeats_do_not_count_and_sites_without_any_are_nan():
    trials = planted(50, 6, 3, 1.0)
    trials[:10, 1:, 0] = np.nan  # one repeat
    trials[:, 1:, 1] = np.nan  # one repeat everywhere
    trials[:, :, 2] = np.nan  # never recorded
    wild = trials.copy()
    wild[:10, 0, 0] = 1e6
    value = split_half_reliability(recordings_of(trials), n_splits=5)
    np.testing.assert_array_equal(np.isnan(value), [False, True, True])
    np.testing.assert_array_equal(value, split_half_reliability(recordings_of(wild), n_splits=5))


def test_at_least_one_split_is_asked_for():
    with pytest.raises(ValueError, match="n_splits is 0"):
        split_half_reliability(recordings_of(np.zeros((3, 2, 1))), n_splits=0)


def test_real_v4_session(v4_data):
    trials = np.load(v4_data / "responses_trials.npy").transpose(1, 2, 0)
    reliability = split_half_reliability(recordings_of(trials))
    assert reliability.shape == (50,)
    assert abs(np.median(reliability) - 0.76) < 0.02
    assert (reliability > 0.5).all()
