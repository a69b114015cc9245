from __future__ import annotations

import dataclasses
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from neural_fits.recordings import SiteRecordings
from neural_fits.reliability import random_halves


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


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"responses": np.zeros((2, 3, 2, 5))}, ValueError, r"time-resolved.*not supported yet"),
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
