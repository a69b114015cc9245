from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import StandardScaler

from neural_fits.preprocessing import (
    join_sessions,
    normalize_sessions,
    reject_outliers,
    select_reliable,
    z_score,
)
from neural_fits.recordings import SiteRecordings
from neural_fits.reliability import split_half_reliability


def recordings_of(trials, ids=None, site_ids=None, **kwargs):
    names = site_ids or [f"s{s}" for s in range(np.shape(trials)[2])]
    sites = pd.DataFrame({"region": "V4"}, index=pd.Index(names, name="site_id"))
    return SiteRecordings(trials, tuple(ids or [f"i{i}" for i in range(len(trials))]), sites, **kwargs)


def days(seed=0, noise=0.0):
    """Two sessions that share images n0, n1, n2; the second has gain and offset of its own at every site."""
    rng = np.random.default_rng(seed)
    true = {name: rng.normal(10.0, 3.0, 4) for name in ("n0", "n1", "n2", "x", "y", "z")}
    gain, offset = rng.uniform(0.5, 2.0, 4), rng.normal(size=4)
    sessions = []
    for ids, repeats, (a, b) in (
        (("n0", "x", "n1", "n2", "y"), 3, (1.0, 0.0)),
        (("n2", "n0", "n1", "z"), 2, (gain, offset)),
    ):
        trials = np.stack([np.tile(a * true[name] + b, (repeats, 1)) for name in ids])
        sessions.append(recordings_of(trials + noise * rng.normal(size=trials.shape), ids))
    return sessions, true, gain, offset


# ---- sessions


def test_normalizers_agree_after_normalizing_and_the_rest_follows():
    sessions, true, gain, offset = days()
    first, second = normalize_sessions(sessions, ["n0", "n1", "n2"])
    images = np.stack([true[name] for name in ("n0", "n1", "n2")])
    spread = np.sqrt((images.std(axis=0) ** 2 + (gain * images.std(axis=0)) ** 2) / 2)
    center = (images.mean(axis=0) + gain * images.mean(axis=0) + offset) / 2
    for session in (first, second):
        mean = session.select_stimuli(["n0", "n1", "n2"]).mean()
        np.testing.assert_allclose(mean.mean(axis=0), center, rtol=1e-5)
        np.testing.assert_allclose(mean.std(axis=0), spread, rtol=1e-4)
    expected = (true["z"] - images.mean(axis=0)) / images.std(axis=0) * spread + center
    np.testing.assert_allclose(second.select_stimuli(["z"]).mean()[0], expected, rtol=1e-4)
    assert second.unit == sessions[1].unit
    step = {"step": "normalize_sessions", "normalizers": ["n0", "n1", "n2"], "sessions": 2}
    assert first.meta == second.meta == {"preprocessing": [step]}
    assert sessions[0].meta == {}


def test_sessions_that_are_alike_already_stay_as_they_are():
    sessions, *_ = days()
    same = [sessions[0], sessions[0]]
    for session in normalize_sessions(same, ["n0", "n1", "n2"]):
        np.testing.assert_allclose(session.responses, sessions[0].responses, rtol=1e-5)


def test_joined_sessions_stand_side_by_side_over_the_union_of_stimuli():
    sessions, *_ = days(noise=1.0)
    turned = sessions[1].select_sites(["s3", "s1", "s0", "s2"])
    joined = join_sessions([sessions[0], turned])
    assert joined.stimulus_ids == ("n0", "x", "n1", "n2", "y", "z")
    assert joined.shape == (6, 5, 4)
    np.testing.assert_array_equal(joined.n_repeats[:, 0], [5, 3, 5, 5, 3, 2])
    back = joined.select_stimuli(sessions[1].stimulus_ids)
    np.testing.assert_array_equal(back.responses[:, 3:], sessions[1].responses)
    np.testing.assert_array_equal(joined.select_stimuli(["x", "y"]).responses[:, :3], sessions[0].responses[[1, 4]])
    assert joined.meta["preprocessing"] == [{"step": "join_sessions", "repeats_per_session": [3, 2]}]
    assert joined.meta["sessions"] == [{}, {}]
    assert joined.sites["region"].tolist() == ["V4"] * 4


def test_joining_with_normalizers_removes_the_difference_between_days():
    sessions, *_ = days()
    joined = join_sessions(sessions, normalizers=["n0", "n1", "n2"])
    shared = joined.select_stimuli(["n0", "n1", "n2"]).responses
    assert np.ptp(shared, axis=1).max() < 1e-4
    assert np.ptp(join_sessions(sessions).select_stimuli(["n0", "n1", "n2"]).responses, axis=1).max() > 0.5
    assert [m["preprocessing"][0]["step"] for m in joined.meta["sessions"]] == ["normalize_sessions"] * 2


def test_a_site_missing_in_a_session_stays_missing_and_leaves_the_others_alone():
    sessions, *_ = days()
    expected = normalize_sessions(sessions, ["n0", "n1", "n2"])
    sessions[1].responses[:, :, 2] = np.nan
    sessions[0].responses[0, :, 3] = np.nan  # n0 at one site: that site uses the other two
    found = normalize_sessions(sessions, ["n0", "n1", "n2"])
    assert np.isnan(found[1].responses[:, :, 2]).all()
    np.testing.assert_allclose(found[0].responses[:, :, 2], sessions[0].responses[:, :, 2], rtol=1e-5)
    np.testing.assert_array_equal(found[1].responses[:, :, :2], expected[1].responses[:, :, :2])
    for name in ("n1", "n2"):
        values = [session.select_stimuli([name]).mean()[0, 3] for session in found]
        assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_sessions_may_have_different_sites_and_join_over_the_union():
    trials = np.random.default_rng(0).normal(size=(2, 2, 3)).astype(np.float32)
    monday, tuesday, friday = (
        dataclasses.replace(recordings_of(trials + k, "ab", names), sites=pd.DataFrame(columns, pd.Index(names)))
        for k, (names, columns) in enumerate(
            (
                (["s2", "s0", "s5"], {"region": ["V4", "V4", "IT"], "depth": [1, 2, 3]}),
                (["s7", "s5", "s0"], {"region": ["V1", "V2", "V3"], "laser": [None, None, None]}),
                (["s0", "s2", "s5"], {"region": ["x", "y", "z"], "depth": [7, 8, 9]}),
            )
        )
    )
    joined = join_sessions([monday, tuesday, friday])
    assert joined.site_ids == ["s2", "s0", "s5", "s7"]
    assert joined.shape == (2, 6, 4)
    np.testing.assert_array_equal(joined.responses[:, :2, :3], monday.responses)
    np.testing.assert_array_equal(joined.responses[:, 2:4, [3, 2, 1]], tuesday.responses)
    np.testing.assert_array_equal(joined.responses[:, 4:, [1, 0, 2]], friday.responses)
    assert np.isnan(joined.responses[:, 2:4, 0]).all()  # s2 on Tuesday
    assert np.isnan(joined.responses[:, [0, 1, 4, 5], 3]).all()  # s7 on Monday and Friday
    assert joined.sites["region"].tolist() == ["V4", "V4", "IT", "V1"]  # of the first session with the site
    np.testing.assert_array_equal(joined.sites["depth"], [1, 2, 3, np.nan])
    alike = join_sessions([monday, friday])
    pd.testing.assert_frame_equal(alike.sites, monday.sites)
    apart = join_sessions([monday.select_sites(["s2"]), tuesday.select_sites(["s7"])])  # no site in common
    np.testing.assert_array_equal(apart.n_repeats, [[2, 2], [2, 2]])


def test_a_site_is_normalized_over_the_sessions_that_have_it():
    sessions, *_ = days(noise=0.1)
    ids = ["n0", "n1", "n2"]
    pair = normalize_sessions(sessions, ids)
    fewer = [sessions[0], sessions[1].select_sites(["s3", "s0"]), sessions[0].select_sites(["s1"])]
    joined = join_sessions(fewer, normalizers=ids)
    assert joined.site_ids == ["s0", "s1", "s2", "s3"]
    first, second = joined.select_stimuli(sessions[0].stimulus_ids), joined.select_stimuli(sessions[1].stimulus_ids)
    np.testing.assert_allclose(first.responses[:, :3, [0, 3]], pair[0].responses[:, :, [0, 3]], rtol=1e-5)
    np.testing.assert_allclose(second.responses[:, 3:5, [0, 3]], pair[1].responses[:, :, [0, 3]], rtol=1e-5)
    np.testing.assert_allclose(first.responses[:, :3, [1, 2]], sessions[0].responses[:, :, [1, 2]], rtol=1e-5)
    assert np.isnan(joined.responses[:, 3:5, [1, 2]]).all()
    assert np.isnan(joined.responses[:, 5:, [0, 2, 3]]).all()
    found = normalize_sessions(fewer, ids)
    assert [session.site_ids for session in found] == [joined.site_ids] * 3


def test_joining_keeps_time_bins_but_normalizing_asks_for_a_window():
    trials = np.random.default_rng(0).normal(size=(3, 2, 2, 2))
    session = recordings_of(trials, time_bins_ms=((0, 50), (50, 100)))
    joined = join_sessions([session, session])
    assert joined.shape == (3, 4, 2, 2)
    one = join_sessions([session, session.select_sites(["s1"])])
    np.testing.assert_array_equal(one.responses[:, 2:, 1], session.responses[:, :, 1])
    assert np.isnan(one.responses[:, 2:, 0]).all()
    np.testing.assert_array_equal(joined.responses[:, 2:], session.responses)
    with pytest.raises(ValueError, match="in_window"):
        join_sessions([session, session], normalizers=["i0", "i1"])


def test_sessions_that_cannot_be_joined_are_refused():
    sessions, *_ = days()
    ids = ["n0", "n1", "n2"]
    with pytest.raises(ValueError, match=r"session 2 of 2 lacks 1 of the 3 normalizers \('x'"):
        join_sessions(sessions, normalizers=["n0", "x", "n1"])
    with pytest.raises(ValueError, match=r"session 1 of 2 lacks 1 .*'n00'; closest to 'n00' is 'n0'"):
        join_sessions(sessions, normalizers=["n0", "n00"])
    with pytest.raises(ValueError, match="there are 1 normalizers; give at least 2"):
        join_sessions(sessions, normalizers=["n0"])
    with pytest.raises(ValueError, match="no list of sessions"):
        join_sessions([])
    with pytest.raises(ValueError, match="no list of sessions"):
        join_sessions(sessions[0])
    with pytest.raises(ValueError, match="unit is"):
        join_sessions([sessions[0], dataclasses.replace(sessions[1], unit="Hz")])
    silent = dataclasses.replace(sessions[1], responses=sessions[1].responses.copy())
    silent.responses[:, :, 1] = 0.1
    with pytest.raises(ValueError, match=r"1 sites answer equally to all normalizers.*'s1' in session 2"):
        join_sessions([sessions[0], silent], normalizers=ids)
    silent.responses[:2, :, 1] = np.nan
    with pytest.raises(ValueError, match=r"1 sites have fewer than 2 normalizers.*'s1' has no response to 'n[02]' in"):
        join_sessions([sessions[0], silent], normalizers=ids)


# ---- z-scores


def test_z_scores_are_those_of_the_means_and_can_be_turned_back():
    rng = np.random.default_rng(1)
    trials = rng.gamma(2.0, 5.0, size=(40, 4, 3)).astype(np.float32)
    trials[rng.random(trials.shape) < 0.2] = np.nan
    recorded = recordings_of(trials, unit="Hz", meta={"day": 1})
    scaled = z_score(recorded)
    np.testing.assert_allclose(scaled.mean(), StandardScaler().fit_transform(recorded.mean()), atol=2e-5)
    assert scaled.unit == "sd"
    step = scaled.meta["preprocessing"][-1]
    assert (step["step"], step["unit"], scaled.meta["day"]) == ("z_score", "Hz", 1)
    chosen = scaled.select_sites(["s2", "s0"])  # meta goes by name, so choosing sites does not mix them up
    spread, center = ([step[key][site] for site in chosen.site_ids] for key in ("sd", "mean"))
    np.testing.assert_allclose(chosen.mean() * spread + center, recorded.mean()[:, [2, 0]], rtol=1e-4)
    assert json.loads(json.dumps(scaled.meta)) == scaled.meta


def test_sites_without_spread_have_no_z_score():
    trials = np.random.default_rng(0).normal(size=(5, 2, 3))
    trials[:, :, 1] = 0.1
    trials[:, :, 2] = np.nan
    with pytest.raises(ValueError, match=r"2 sites answer equally to all stimuli or not at all \('s1', 's2'\)"):
        z_score(recordings_of(trials))


# ---- choosing sites


def test_selection_on_other_trials_does_not_flatter_noise():
    # 400 sites of pure noise: true reliability 0.
    trials = np.random.default_rng(2).normal(size=(60, 8, 400)).astype(np.float32)
    recorded = recordings_of(trials)
    found = select_reliable(recorded, minimum=0.2, seed=3, n_splits=10)
    assert 40 < len(found.site_ids) < 200
    kept = split_half_reliability(found.scoring, n_splits=10)
    error = 3 * np.std(kept) / np.sqrt(len(kept))
    assert abs(np.median(kept)) < 1.25 * error
    everything = split_half_reliability(recorded, n_splits=10)
    assert np.median(everything[everything >= 0.2]) > 0.2 > 1.25 * error
    same_trials = recorded.select_sites(found.site_ids)
    assert np.median(split_half_reliability(same_trials, n_splits=10)) > 1.25 * error


def test_chosen_sites_come_with_the_trials_that_did_not_choose_them():
    rng = np.random.default_rng(4)
    trials = rng.normal(size=(80, 1, 6)) * [2, 0, 2, 0, 2, 0] + rng.normal(size=(80, 7, 6))
    trials[rng.random(trials.shape) < 0.1] = np.nan
    recorded = recordings_of(trials, meta={"day": 1})
    found = select_reliable(recorded, minimum=0.6, seed=0)
    assert found.site_ids == ("s0", "s2", "s4")
    assert found.scoring.site_ids == ["s0", "s2", "s4"]
    assert repr(found) == "ReliableSites(3 of 6 sites)"
    whole, left = recorded.select_sites(found.site_ids), found.scoring
    kept = np.isfinite(left.responses)
    np.testing.assert_array_equal(left.responses[kept], whole.responses[kept])
    gone = whole.n_repeats - left.n_repeats
    assert np.abs(gone - left.n_repeats).max() <= 1
    assert found.reliability["chosen"].tolist() == [True, False] * 3
    step = {"step": "select_reliable", "minimum": 0.6, "seed": 0, "chosen": 3, "of": 6}
    assert left.meta == {"day": 1, "preprocessing": [step]}
    again = select_reliable(recorded, minimum=0.6, seed=0)
    np.testing.assert_array_equal(again.scoring.responses, left.responses)
    assert not np.array_equal(
        np.isnan(select_reliable(recorded, minimum=0.6, seed=1).scoring.responses), np.isnan(left.responses)
    )


def test_the_minimum_is_a_reliability_of_all_repeats_although_half_of_them_choose():
    rng = np.random.default_rng(10)
    trials = rng.normal(size=(300, 1, 40)) + 2.0 * rng.normal(size=(300, 8, 40))
    found = select_reliable(recordings_of(trials), minimum=0.1, seed=0, n_splits=10)
    assert abs(found.reliability["reliability"].mean() - 1 / (1 + 4 / 8)) < 0.03


def test_too_few_repeats_or_too_high_a_minimum_is_said():
    trials = np.random.default_rng(0).normal(size=(20, 2, 2))
    with pytest.raises(ValueError, match=r"no site has repeats enough \(the most is 2; a stimulus needs four"):
        select_reliable(recordings_of(trials), 0.3, seed=0)
    trials = np.random.default_rng(0).normal(size=(20, 8, 2))
    with pytest.raises(ValueError, match=r"none of the 2 sites reaches a reliability of 0\.95"):
        select_reliable(recordings_of(trials), 0.95, seed=0)
    with pytest.raises(ValueError, match="minimum is 30"):
        select_reliable(recordings_of(trials), 30, seed=0)


# ---- trials


@pytest.mark.parametrize("n_repeats", [3, 4, 10])
def test_spikes_of_a_poisson_site_are_kept(n_repeats):
    trials = np.random.default_rng(5).poisson(5.0, size=(500, n_repeats, 20))
    step = reject_outliers(recordings_of(trials)).meta["preprocessing"][-1]
    assert step["of"] == trials.size
    assert step["rejected"] < 1e-3 * trials.size
    assert (
        reject_outliers(recordings_of(trials), threshold=1.0).meta["preprocessing"][-1]["rejected"] > 0.05 * trials.size
    )


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_rare_spikes_are_not_outliers(rate):
    trials = np.random.default_rng(6).poisson(rate, size=(2000, 4, 10))
    assert reject_outliers(recordings_of(trials)).meta["preprocessing"][-1]["rejected"] < 1e-3 * trials.size


def test_a_site_that_most_images_leave_silent_keeps_its_responses():
    rng = np.random.default_rng(12)
    spread = np.where(np.arange(100) < 60, 0.01, 1.0)[:, None, None]
    recorded = recordings_of(spread * (3.0 + rng.normal(size=(100, 5, 4))))
    assert reject_outliers(recorded).meta["preprocessing"][-1]["rejected"] == 0


def test_planted_outliers_go_and_nothing_else():
    rng = np.random.default_rng(7)
    trials = (rng.normal(size=(100, 1, 5)) * 3 + rng.normal(size=(100, 6, 5))).astype(np.float32)
    trials[rng.random(trials.shape) < 0.1] = np.nan
    spoiled = trials.copy()
    where = np.zeros(trials.shape, dtype=bool)
    where[np.arange(0, 100, 7), rng.integers(6, size=15), rng.integers(5, size=15)] = True
    spoiled[where] += 40.0
    clean = reject_outliers(recordings_of(spoiled, meta={"day": 1}))
    planted = where & np.isfinite(trials)
    planted &= (np.isfinite(trials).sum(axis=1) >= 3)[:, None]
    np.testing.assert_array_equal(np.isnan(clean.responses), np.isnan(spoiled) | planted)
    step = clean.meta["preprocessing"][-1]
    assert (clean.meta["day"], step["rejected"], step["threshold"]) == (1, planted.sum(), 8.0)
    assert step["by_site"] == {f"s{s}": int(k) for s, k in enumerate(planted.sum(axis=(0, 1))) if k}


def test_a_stimulus_never_loses_all_of_its_repeats():
    trials = np.random.default_rng(8).normal(size=(50, 4, 1))
    trials[0, :, 0] = [-1000.0, -1000.0, 1000.0, 1000.0]  # nobody can say which are wrong
    trials[1, :2, 0], trials[1, 2:, 0] = [-1000.0, 1000.0], np.nan
    trials[2, :, 0] = [0.0, 0.0, 1000.0, 1000.0]
    clean = reject_outliers(recordings_of(trials))
    np.testing.assert_array_equal(clean.n_repeats[:3, 0], [4, 2, 4])
    assert clean.meta["preprocessing"][-1] == {
        "step": "reject_outliers",
        "threshold": 8.0,
        "rejected": 0,
        "of": 198,
        "by_site": {},
    }


def test_pairs_of_repeats_do_not_set_the_scale():
    trials = np.zeros((420, 6, 1))
    trials[:400, 2:] = np.nan
    trials[400:] = np.random.default_rng(11).normal(size=(20, 6, 1))
    assert reject_outliers(recordings_of(trials)).meta["preprocessing"][-1]["rejected"] == 0


def test_rejection_runs_on_empty_and_single_trials_and_refuses_nonsense():
    single = recordings_of(np.random.default_rng(0).normal(size=(4, 1, 2)))
    np.testing.assert_array_equal(reject_outliers(single).responses, single.responses)
    with pytest.raises(ValueError, match="threshold is 0"):
        reject_outliers(single, threshold=0)


def test_steps_are_told_in_order():
    rng = np.random.default_rng(9)
    trials = rng.normal(size=(60, 1, 4)) * 3 + rng.normal(size=(60, 8, 4))
    done = z_score(select_reliable(reject_outliers(recordings_of(trials)), 0.3, seed=0).scoring)
    assert [step["step"] for step in done.meta["preprocessing"]] == ["reject_outliers", "select_reliable", "z_score"]


@pytest.mark.parametrize("step", [z_score, reject_outliers, lambda r: select_reliable(r, 0.3, seed=0)])
def test_time_resolved_recordings_need_a_window_first(step):
    timed = recordings_of(np.zeros((3, 4, 2, 1)), time_bins_ms=((0, 50),))
    with pytest.raises(ValueError, match="in_window"):
        step(timed)
