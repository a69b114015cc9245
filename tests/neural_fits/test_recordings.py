from __future__ import annotations

import dataclasses
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from neural_fits.recordings import SiteRecordings
from neural_fits.reliability import random_halves, split_half_reliability
from neural_fits.scores import site_scores


def site_table(n_sites, **columns):
    return pd.DataFrame(columns, index=pd.Index([f"site{s}" for s in range(n_sites)], name="site_id"))


def example(ids=("a", "b", "c", "d"), n_repeats=3, n_sites=2, seed=0, **kwargs):
    responses = np.random.default_rng(seed).normal(size=(len(ids), n_repeats, n_sites)).astype(np.float32)
    return SiteRecordings(responses, tuple(ids), site_table(n_sites), **kwargs)


# ---- what it holds


def test_fields_are_kept_and_normalized():
    table = site_table(2, region=["V4", "IT"])
    recorded = SiteRecordings(
        np.ones((3, 2, 2), dtype=np.int64), ["a", "b", "c"], table, (70, 170), meta={"day": (1, 2)}
    )
    assert recorded.responses.dtype == np.float32
    assert recorded.shape == (3, 2, 2)
    assert recorded.n_stimuli == 3
    assert recorded.stimulus_ids == ("a", "b", "c")
    assert recorded.site_ids == ["site0", "site1"]
    assert recorded.window_ms == (70.0, 170.0)
    assert recorded.unit == "spikes/window"
    assert recorded.meta == {"day": [1, 2]}
    assert repr(recorded) == "SiteRecordings(3 stimuli x up to 2 repeats x 2 sites, 70-170 ms, spikes/window)"


def test_the_site_table_is_a_copy_and_the_fields_cannot_be_replaced():
    table = site_table(2, region=["V4", "IT"])
    recorded = SiteRecordings(np.ones((1, 1, 2)), ("a",), table)
    table.loc["site0", "region"] = "V1"
    assert recorded.sites.loc["site0", "region"] == "V4"
    with pytest.raises(dataclasses.FrozenInstanceError):
        recorded.unit = "Hz"


def test_a_site_id_column_becomes_the_index():
    table = pd.DataFrame({"site_id": ["x", "y"], "region": ["V4", "V4"]})
    assert SiteRecordings(np.ones((1, 1, 2)), ("a",), table).site_ids == ["x", "y"]


GOOD = {"responses": np.zeros((2, 3, 2)), "stimulus_ids": ("a", "b"), "sites": site_table(2)}

TIMED = {"responses": np.zeros((2, 3, 2, 2)), "time_bins_ms": ((0, 10), (10, 20))}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"responses": np.zeros((2, 3, 2, 5))}, ValueError, r"four axes \(2, 3, 2, 5\).*no time_bins_ms.*the 5 time"),
        ({"responses": np.zeros((2,) * 5)}, ValueError, r"\(2, 2, 2, 2, 2\).*\(stimulus, repeat, site, time\)"),
        ({"time_bins_ms": ((0, 10),)}, ValueError, r"\(2, 3, 2\), which have no time axis"),
        (TIMED | {"window_ms": (0, 20)}, ValueError, r"window_ms is \(0.0, 20.0\).*leave window_ms out"),
        (TIMED | {"time_bins_ms": ((0, 10),)}, ValueError, r"1 time_bins_ms.*each of the 2 bins"),
        (TIMED | {"time_bins_ms": ((10, 20), (0, 10))}, ValueError, r"bin 1 0-10 ms follows 10-20 ms"),
        (TIMED | {"time_bins_ms": ((0, 10), (20, 10))}, ValueError, r"time_bins_ms\[1\] is \(20, 10\)"),
        (TIMED | {"time_bins_ms": (0, 10)}, ValueError, r"time_bins_ms\[0\] is 0; give \(start, end\)"),
        (TIMED | {"stimulus_ids": ("a", "b", "c")}, ValueError, r"\(stimulus, repeat, site, time\).*3 stimulus ids"),
        ({"responses": np.zeros((2, 2))}, ValueError, r"\(2, 2\).*responses\[:, None, :\]"),
        ({"responses": np.zeros((3, 2, 2))}, ValueError, r"\(3, 2, 2\).*2 stimulus ids and 2 sites"),
        ({"responses": np.zeros((2, 3, 4))}, ValueError, "transpose"),
        ({"responses": np.zeros((2, 3, 2), dtype=complex)}, TypeError, "real numbers"),
        ({"responses": [[["x", "y"]], [["x", "y"]]]}, TypeError, "real numbers"),
        ({"stimulus_ids": ("a", "a")}, ValueError, r"unique.*'a'"),
        ({"stimulus_ids": (1, 2)}, TypeError, r"str\(1\)"),
        ({"stimulus_ids": "ab"}, TypeError, "list of ids"),
        ({"sites": ["s0", "s1"]}, TypeError, "DataFrame"),
        ({"sites": pd.DataFrame(index=[0, 1])}, TypeError, "text id"),
        ({"sites": pd.DataFrame(index=["s", "s"])}, ValueError, "unique"),
        ({"sites": site_table(2, repetition=[1, 2])}, ValueError, "'repetition'.*rename"),
        ({"window_ms": (170, 70)}, ValueError, "start < end"),
        ({"window_ms": 70}, ValueError, "start < end"),
        ({"window_ms": (70, np.nan)}, ValueError, "start < end"),
        ({"unit": 3}, TypeError, "unit"),
        ({"meta": {"x": np.zeros(2)}}, TypeError, "JSON"),
        ({"meta": ["x"]}, TypeError, "dict"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(change, error, message):
    with pytest.raises(error, match=message) as caught:
        SiteRecordings(**(GOOD | change))
    assert "\n" not in str(caught.value)


# ---- summaries


def test_mean_and_counts_leave_out_what_was_not_shown():
    nan = np.nan
    trials = np.array([[[1.0, nan], [3.0, nan]], [[5.0, 2.0], [nan, 4.0]]])
    recorded = SiteRecordings(trials, ("a", "b"), site_table(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean = recorded.mean()
    np.testing.assert_array_equal(mean, np.array([[2.0, nan], [5.0, 3.0]], dtype=np.float32))
    assert mean.dtype == np.float32
    np.testing.assert_array_equal(recorded.n_repeats, [[2, 0], [1, 2]])


def test_mean_agrees_with_numpy():
    recorded = example(n_repeats=7)
    np.testing.assert_allclose(recorded.mean(), np.mean(recorded.responses, axis=1), rtol=1e-5)


def test_halves_follow_the_seed():
    recorded = example(n_repeats=6)
    expected = random_halves(recorded.responses, np.random.default_rng(3))
    np.testing.assert_allclose(recorded.halves(3), expected, rtol=1e-6)
    assert not np.array_equal(recorded.halves(3), recorded.halves(4))
    np.testing.assert_allclose(np.mean(recorded.halves(3), axis=0), recorded.mean(), rtol=1e-4, atol=1e-6)


# ---- choosing and joining


def test_select_sites_takes_rows_of_the_table_along():
    table = site_table(3, region=["V1", "V4", "IT"])
    recorded = SiteRecordings(np.arange(6.0).reshape(2, 1, 3), ("a", "b"), table)
    chosen = recorded.select_sites(["site2", "site0"])
    np.testing.assert_array_equal(chosen.responses[:, 0], [[2, 0], [5, 3]])
    assert chosen.sites["region"].tolist() == ["IT", "V1"]
    assert chosen.stimulus_ids == ("a", "b")


def test_a_misspelt_name_is_answered_with_the_closest():
    recorded = example(ids=("face_01", "face_02"))
    with pytest.raises(ValueError, match=r"1 of the 2 site ids.*'siet1'; closest to 'siet1' is 'site1'"):
        recorded.select_sites(["site0", "siet1"])
    with pytest.raises(ValueError, match="'fase_02'; closest to 'fase_02' is 'face_02'"):
        recorded.select_stimuli(["fase_02"])
    with pytest.raises(ValueError, match="unique"):
        recorded.select_sites(["site0", "site0"])


def test_align_reorders_to_a_set_or_a_list():
    recorded = example()
    order = ["c", "a", "d", "b"]
    for stimuli in (order, SimpleNamespace(stimulus_ids=order)):
        aligned = recorded.align(stimuli)
        assert aligned.stimulus_ids == tuple(order)
        np.testing.assert_array_equal(aligned.responses, recorded.responses[[2, 0, 3, 1]])


def test_align_refuses_surplus_unless_told_to_drop_it():
    recorded = example()
    with pytest.raises(ValueError, match=r"2 of the 4 recorded stimuli.*'b', 'd'.*extra='drop'"):
        recorded.align(["c", "a"])
    np.testing.assert_array_equal(recorded.align(["c", "a"], extra="drop").responses, recorded.responses[[2, 0]])
    with pytest.raises(ValueError, match="extra is 'ignore'"):
        recorded.align(["c", "a"], extra="ignore")


def test_align_never_goes_on_without_a_recording():
    recorded = example(ids=("img1", "img2"))
    for extra in ("error", "drop"):
        with pytest.raises(
            ValueError, match=r"4 of the 5 stimuli have no recording \('imgg1', 'x', 'y', \.\.\.; .*'img1'"
        ):
            recorded.align(["img2", "imgg1", "x", "y", "z"], extra=extra)


def test_align_reports_both_sides_at_once():
    with pytest.raises(ValueError, match=r"1 of the 2 stimuli have no recording.*and 3 of the 4 recorded"):
        example().align(["a", "q"])


def test_concat_stimuli_pads_repeats_and_matches_sites_by_name():
    first = example(ids=("a", "b"), n_repeats=2)
    second = example(ids=("c",), n_repeats=4, seed=1)
    joined = first.concat_stimuli(second.select_sites(["site1", "site0"]))
    assert joined.stimulus_ids == ("a", "b", "c")
    assert joined.site_ids == first.site_ids
    np.testing.assert_array_equal(joined.responses[:2, :2], first.responses)
    assert np.isnan(joined.responses[:2, 2:]).all()
    np.testing.assert_array_equal(joined.responses[2:], second.responses)
    np.testing.assert_array_equal(joined.mean()[:2], first.mean())


def test_concat_stimuli_keeps_both_stories():
    first, second = example(ids=("a",), meta={"day": 1}), example(ids=("b",), meta={"day": 2})
    assert first.concat_stimuli(second).meta == {"parts": [{"day": 1}, {"day": 2}]}
    assert first.concat_stimuli(example(ids=("b",), meta={"day": 1})).meta == {"day": 1}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (example(ids=("a", "z")), "1 stimuli are in both.*'a'"),
        (example(ids=("z",), n_sites=3), "2 and 3 sites and differ in 1.*'site2'"),
        (example(ids=("z",), n_sites=1), "2 and 1 sites and differ in 1.*'site1'"),
        (example(ids=("z",), unit="Hz"), "unit is 'spikes/window' here and 'Hz'"),
        (example(ids=("z",), window_ms=(70, 170)), "window_ms is None here"),
    ],
)
def test_concat_stimuli_refuses_what_was_not_measured_alike(other, message):
    with pytest.raises(ValueError, match=message):
        example().concat_stimuli(other)


def test_check_usable_passes_ragged_recordings():
    recorded = example()
    recorded.responses[0] = np.nan
    assert recorded.check_usable() is None


def test_check_usable_names_silent_sites_and_infinite_responses():
    responses = np.ones((2, 2, 8), dtype=np.float32)
    responses[:, :, 1:7] = np.nan
    silent = SiteRecordings(responses, ("a", "b"), site_table(8))
    with pytest.raises(ValueError, match=r"6 of the 8 sites.*'site5', \.\.\.\); .*select_sites\(\[\.\.\.\]\)"):
        silent.check_usable()
    responses[1, 0, 7] = np.inf
    with pytest.raises(ValueError, match=r"1 responses are infinite.*'b', repeat 0, site 'site7'"):
        SiteRecordings(responses, ("a", "b"), site_table(8)).check_usable()
    with pytest.raises(ValueError, match="empty"):
        SiteRecordings(np.zeros((0, 2, 8)), (), site_table(8)).check_usable()


def test_a_response_too_large_for_float32_is_found():
    recorded = SiteRecordings(np.array([[[1e300]]]), ("a",), site_table(1))
    with pytest.raises(ValueError, match="infinite"):
        recorded.check_usable()


# ---- notebooks


def test_html_shows_reliability_and_escapes_what_came_from_files():
    trials = np.repeat(np.arange(5.0)[:, None, None], 2, axis=1)
    table = site_table(1, region=["<script>alert(1)</script>"])
    page = SiteRecordings(trials, tuple("abcde"), table, unit="<b>Hz</b>")._repr_html_()
    assert "median 1.00" in page
    assert "<script>" not in page
    assert "<b>Hz" not in page
    assert "&lt;script&gt;" in page


def test_html_without_repeats():
    assert "too few repeats" in example(n_repeats=1)._repr_html_()
    assert "no trials" in SiteRecordings(np.zeros((0, 0, 2)), (), site_table(2))._repr_html_()


# ---- time-resolved


BINS = ((0.0, 50.0), (50.0, 70.0), (70.0, 100.0), (100.0, 170.0))


def timed(ids=("a", "b", "c", "d"), n_repeats=3, n_sites=2, seed=0, **kwargs):
    shape = (len(ids), n_repeats, n_sites, len(BINS))
    responses = np.random.default_rng(seed).poisson(4.0, shape).astype(np.float32)
    return SiteRecordings(responses, tuple(ids), site_table(n_sites), time_bins_ms=BINS, **kwargs)


def test_time_bins_are_kept_as_numbers_and_shown():
    recorded = SiteRecordings(np.zeros((1, 2, 2, 2)), ("a",), site_table(2), time_bins_ms=[[0, 10], np.array([10, 30])])
    assert recorded.time_bins_ms == ((0.0, 10.0), (10.0, 30.0))
    assert recorded.window_ms is None
    text = "SiteRecordings(1 stimuli x up to 2 repeats x 2 sites x 2 time bins, 0-30 ms, spikes/window)"
    assert repr(recorded) == text
    page = recorded._repr_html_()
    assert text in page
    assert "in_window" in page
    sliding = SiteRecordings(np.zeros((1, 1, 1, 2)), ("a",), site_table(1), time_bins_ms=((0, 20), (10, 30)))
    assert sliding.shape == (1, 1, 1, 2)


def test_every_method_treats_each_time_bin_as_it_treats_a_window():
    recorded = timed(n_repeats=5)
    recorded.responses[1, 2:, 0] = np.nan
    recorded.responses[2, :, 1, 3] = np.nan
    for k, (start, end) in enumerate(BINS):
        one = SiteRecordings(recorded.responses[..., k], recorded.stimulus_ids, recorded.sites)
        np.testing.assert_array_equal(recorded.mean()[..., k], one.mean())
        np.testing.assert_array_equal(recorded.n_repeats[..., k], one.n_repeats)
        np.testing.assert_array_equal(np.stack(recorded.halves(5))[..., k], np.stack(one.halves(5)))
        np.testing.assert_array_equal(recorded.in_window(start, end).responses, one.responses)


def test_time_resolved_recordings_are_chosen_aligned_and_joined():
    recorded = timed()
    order = ["c", "a", "d", "b"]
    aligned = recorded.align(order)
    np.testing.assert_array_equal(aligned.responses, recorded.responses[[2, 0, 3, 1]])
    assert aligned.time_bins_ms == BINS
    np.testing.assert_array_equal(recorded.select_sites(["site1"]).responses, recorded.responses[:, :, [1]])
    joined = recorded.concat_stimuli(timed(ids=("z",), n_repeats=4, seed=1))
    assert joined.shape == (5, 4, 2, 4)
    assert np.isnan(joined.responses[:4, 3]).all()
    with pytest.raises(ValueError, match=r"time_bins_ms is .* here and None in the other"):
        recorded.concat_stimuli(example(ids=("z",)))


def test_a_window_sums_counts_and_averages_rates_by_duration():
    recorded = timed(unit="spikes/bin", meta={"day": 3})
    recorded.responses[0, 0, 0, 2] = np.nan
    recorded.responses[0, 1, 0, 0] = np.nan  # outside the window
    counts = recorded.in_window(50, 170)
    assert counts.shape == (4, 3, 2)
    assert (counts.window_ms, counts.time_bins_ms, counts.unit) == ((50.0, 170.0), None, "spikes/window")
    assert counts.meta == {"day": 3}
    np.testing.assert_array_equal(counts.responses, recorded.responses[..., 1:].sum(axis=3))
    assert np.isnan(counts.responses[0, 0, 0])
    assert np.isfinite(counts.responses[0, 1, 0])
    rates = recorded.in_window(70, 170, combine="mean")
    assert rates.unit == "spikes/bin"
    weighted = np.average(recorded.responses[..., 2:].astype(float), axis=3, weights=[30, 70])
    np.testing.assert_allclose(rates.responses, weighted, rtol=1e-6)
    counts.check_usable()


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ((60, 100), r"60-100 ms cuts the time bin 50-70 ms; .*\(0, 50, 70, 100, 170 ms\)"),
        ((10, 160), r"cuts the time bins 0-50 ms, 100-170 ms"),
        ((55, 65), r"cuts the time bin 50-70 ms"),
        ((-20, 50), r"do not fill it exactly once \(nothing was recorded in -20-0 ms\)"),
        ((100, 200), r"nothing was recorded in 170-200 ms"),
        ((300, 400), r"no time bin lies inside the window 300-400 ms"),
        ((170, 70), "start < end"),
    ],
)
def test_a_window_that_bins_do_not_tile_is_refused(window, message):
    with pytest.raises(ValueError, match=message):
        timed().in_window(*window)


def test_a_window_over_gaps_or_overlapping_bins_is_refused_but_one_bin_can_be_taken():
    for bins, message in (
        (((0, 10), (20, 30), (30, 40)), "nothing was recorded in 10-20 ms"),
        (((0, 20), (10, 30), (30, 40)), "bins overlap at 10 ms"),
    ):
        recorded = SiteRecordings(np.arange(3.0)[None, None, None], ("a",), site_table(1), time_bins_ms=bins)
        with pytest.raises(ValueError, match=message):
            recorded.in_window(0, 40)
        assert recorded.in_window(*bins[1]).responses.ravel().tolist() == [1.0]


def test_windows_meet_edges_that_went_through_arithmetic():
    bins = [(k * 0.1, (k + 1) * 0.1) for k in range(8)]
    recorded = SiteRecordings(np.ones((1, 1, 1, 8)), ("a",), site_table(1), time_bins_ms=bins)
    assert recorded.in_window(0.3, 0.7).responses.item() == 4.0


def test_a_window_cannot_be_chosen_twice_or_combined_otherwise():
    with pytest.raises(ValueError, match="no time axis"):
        timed().in_window(70, 170).in_window(70, 100)
    with pytest.raises(ValueError, match="combine is 'max'; give 'sum'"):
        timed().in_window(70, 170, combine="max")


def test_fits_and_scores_ask_for_a_window_first():
    recorded = timed()
    for refused in (
        recorded.check_usable,
        lambda: split_half_reliability(recorded),
        lambda: site_scores(np.zeros((4, 2)), recorded),
    ):
        with pytest.raises(ValueError, match=r"4 time bins, 0-170 ms.*recordings\.in_window\(start_ms, end_ms"):
            refused()


def test_load_passes_its_options_on(monkeypatch):
    from neural_fits import recordings_io

    def read(path, **options):
        return path, options

    monkeypatch.setattr(recordings_io, "read", read)
    options = {"axes": "repeat stimulus site", "window_ms": (70, 170), "dataset": "neural/x"}
    assert SiteRecordings.load("x.h5", **options) == ("x.h5", options)
    assert SiteRecordings.load("x.h5") == ("x.h5", dict.fromkeys(options))
