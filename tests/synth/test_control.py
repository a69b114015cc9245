"""Achieved control on recordings whose answer is known."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pandas as pd
import pytest
from control_truth import (
    ACHIEVED,
    LEVELS,
    MADE,
    MADE_IDS,
    NATURAL,
    NATURAL_IDS,
    ONE_HOT,
    REFERENCE,
    SITES,
    STRETCH,
    N,
    evaluate,
    gray_set,
    luminance_model,
    noisy,
    record,
    softmax_at,
)

from neural_fits.recordings import SiteRecordings
from synth._recorded_scores import _mean_of_trials
from synth.control import evaluate_control
from synth.objectives import OneHot, Stretch


def test_stretch_numbers_are_those_planted():
    report = evaluate(STRETCH)
    targets = report.targets.set_index("target_site")
    assert targets["best_natural"].tolist() == pytest.approx([12, 12])
    assert targets["achieved"].tolist() == pytest.approx([16.5, 19.5])
    assert targets["gain"].tolist() == pytest.approx([16.5 / 12 - 1, 19.5 / 12 - 1])
    assert targets["beyond"].tolist() == [True, True]
    assert targets["images"].tolist() == [2, 2]
    summary = report.summary["stretch"]
    assert summary["targets"] == 2
    assert summary["natural_images"] == N
    assert summary["fraction_beyond_best_natural"] == 1
    assert summary["median_gain"] == pytest.approx(np.median([0.375, 0.625]), abs=1e-4)
    for text, column in (("Stretch('a')", 0), ("Stretch('b')", 1)):
        assert report.best_natural_ids[text] == NATURAL_IDS[int(NATURAL[:, column].argmax())]
    assert report.images["achieved"].tolist() == pytest.approx([18, 15, 9, 30])
    assert repr(report) == "ControlReport(4 images, 2 targets)"
    assert repr(report) in report._repr_html_()


def test_site_that_stays_below_its_best_natural_image_is_counted_as_such():
    report = evaluate(STRETCH, achieved=ACHIEVED * np.array([1.0, 0.5, 1.0]))
    assert report.targets["beyond"].tolist() == [True, False]
    assert report.summary["stretch"]["fraction_beyond_best_natural"] == 0.5
    assert report.targets["gain"].tolist() == pytest.approx([0.375, 9.75 / 12 - 1])


def test_one_hot_numbers_are_those_of_numpy():
    report = evaluate(ONE_HOT)
    mean, std = NATURAL.mean(0), NATURAL.std(0)
    z_natural, z_made = (NATURAL - mean) / std, (ACHIEVED - mean) / std
    best = [softmax_at(z_natural, site).max() for site in (0, 1)]
    achieved = [softmax_at(z_made, 0)[:2].mean(), softmax_at(z_made, 1)[2:].mean()]
    targets = report.targets
    assert targets["family"].tolist() == ["ohp", "ohp"]
    np.testing.assert_allclose(targets["best_natural"], best, rtol=1e-5)
    np.testing.assert_allclose(targets["achieved"], achieved, rtol=1e-5)
    improvement = np.array(achieved) / best - 1
    np.testing.assert_allclose(targets["gain"], improvement, rtol=1e-4)
    summary = report.summary["ohp"]
    assert summary["fraction_improved"] == (improvement > 0).mean()
    assert summary["median_improvement"] == pytest.approx(np.median(improvement), abs=1e-4)
    for text, site in (("OneHot('a')", 0), ("OneHot('b')", 1)):  # named as in the tables, whatever form was climbed
        assert report.best_natural_ids[text] == NATURAL_IDS[int(softmax_at(z_natural, site).argmax())]


def test_one_hot_over_part_of_the_sites_and_with_a_temperature():
    objective = OneHot("a", ("a", "c"), 2.0)
    report = evaluate([objective] * 4)
    z = ((ACHIEVED - NATURAL.mean(0)) / NATURAL.std(0))[:, [0, 2]] / 2
    np.testing.assert_allclose(report.images["achieved"], softmax_at(z, 0), rtol=1e-5)


def test_one_hot_is_over_the_sites_of_the_driver_where_more_were_recorded():
    extra = np.random.default_rng(1).normal(5, 1, (N + MADE, 1))
    trials = np.concatenate([np.concatenate([NATURAL, ACHIEVED]), extra], axis=1)
    recordings = record(trials, NATURAL_IDS + MADE_IDS, sites=(*SITES, "more"))
    pd.testing.assert_frame_equal(evaluate(ONE_HOT, recordings=recordings).images, evaluate(ONE_HOT).images)


def test_forecasts_are_those_of_driver_and_validator():
    drivers = [luminance_model([30.0, 20.0, 10.0]), luminance_model([10.0, 40.0, 0.0])]
    report = evaluate(STRETCH, drivers=drivers)
    luminance = np.array(LEVELS) / 255
    np.testing.assert_allclose(report.images["forecast_driver"], luminance * [20, 20, 30, 30], rtol=1e-5)
    np.testing.assert_allclose(report.images["forecast_validator"], luminance * [15, 15, 40, 40], rtol=1e-5)
    summary = report.summary["stretch"]
    for role, gains in (("driver", [20, 30]), ("validator", [15, 40])):
        ratios = [gains[0] * luminance[:2].mean() / 16.5, gains[1] * luminance[2:].mean() / 19.5]
        assert summary[f"forecast_over_achieved_{role}"] == pytest.approx(np.median(ratios), abs=1e-4)


def test_one_hot_forecast_is_on_the_scale_of_its_model():
    means, stds = (1.0, 2.0, 3.0), (2.0, 1.0, 0.5)
    report = evaluate(ONE_HOT, drivers=[luminance_model([30.0, 20.0, 10.0], means=means, stds=stds)])
    z = (np.array(LEVELS)[:, None] / 255 * np.array([30.0, 20.0, 10.0]) - means) / stds
    expected = [softmax_at(z, column)[k] for k, column in enumerate((0, 0, 1, 1))]
    np.testing.assert_allclose(report.images["forecast_driver"], expected, rtol=1e-4)


def test_without_validators_their_forecast_is_missing():
    report = evaluate(STRETCH, validators=[])
    assert report.images["forecast_validator"].isna().all()
    assert report.summary["stretch"]["forecast_over_achieved_validator"] is None
    assert report.summary["stretch"]["forecast_over_achieved_driver"] > 0


def test_before_the_experiment_there_are_forecasts_only(tmp_path):
    report = evaluate(STRETCH, recordings=record(NATURAL, NATURAL_IDS))
    assert report.images["achieved"].isna().all()
    assert report.targets["beyond"].isna().all()
    assert report.images["forecast_driver"].notna().all()
    assert report.targets["best_natural"].tolist() == pytest.approx([12, 12])
    summary = json.loads(report.to_json(tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert summary == report.summary
    empty = {key: value for key, value in summary["stretch"].items() if value is None}
    assert set(empty) >= {
        "fraction_beyond_best_natural",
        "median_gain",
        "forecast_over_achieved_driver",
        "forecast_over_achieved_validator",
    }


def test_summary_has_the_keys_of_the_contract_with_both_settings():
    report = evaluate([Stretch("a"), OneHot("a"), Stretch("b"), OneHot("b")])
    both = {"targets", "forecast_over_achieved_driver", "forecast_over_achieved_validator"}
    assert set(report.summary) == {"stretch", "ohp"}
    assert set(report.summary["stretch"]) >= both | {"fraction_beyond_best_natural", "median_gain"}
    assert set(report.summary["ohp"]) >= both | {"fraction_improved", "median_improvement"}
    assert report.summary["stretch"]["targets"] == report.summary["ohp"]["targets"] == 2
    none = evaluate(STRETCH).summary["ohp"]
    assert none["targets"] == 0
    assert none["median_improvement"] is None


def test_baseline_of_pure_noise_is_near_the_mean_and_not_near_the_maximum():
    rng, images, repeats = np.random.default_rng(4), 300, 8
    trials = noisy(rng, np.full((images + MADE, 3), 10.0), repeats, 2.0)
    ids = tuple(f"n{k}" for k in range(images))
    recordings = SiteRecordings(trials, ids + MADE_IDS, pd.DataFrame(index=pd.Index(SITES, name="site_id")))
    reference = gray_set(np.arange(images) % 200, ids)
    naive = trials[:images].mean(1).max(0)
    assert (naive > 11.5).all()
    stretch = evaluate(STRETCH, recordings=recordings, reference=reference).targets["best_natural"]
    # one half of the repeats has a standard error of 1; the mean over splits strays by much less than that
    np.testing.assert_allclose(stretch, 10.0, atol=0.7)
    one_hot = evaluate(ONE_HOT, recordings=recordings, reference=reference).targets["best_natural"]
    z = (trials[:images].mean(1) - trials[:images].mean((0, 1))) / trials[:images].mean(1).std(0)
    largest = softmax_at(z, 0).max()
    assert largest > 0.8
    np.testing.assert_allclose(one_hot, 1 / 3, atol=0.15)


@pytest.mark.parametrize("made_repeats", [6, 12])
def test_one_hot_is_measured_on_as_many_trials_as_its_baseline(made_repeats):
    rng = np.random.default_rng(2)
    trials = np.full((N + MADE, 12, 3), np.nan)
    trials[:N, :6] = noisy(rng, NATURAL, 6, 3.0)
    trials[N:, :made_repeats] = noisy(rng, np.tile([14.0, 3.0, 5.0], (MADE, 1)), made_repeats, 6.0)
    recordings = SiteRecordings(trials, NATURAL_IDS + MADE_IDS, pd.DataFrame(index=pd.Index(SITES, name="site_id")))
    achieved = evaluate([OneHot("a")] * 4, recordings=recordings, seed=5).images["achieved"]
    natural = trials[:N, :6].mean(1)

    def score(responses):
        return softmax_at((responses - natural.mean(0)) / natural.std(0), 0)

    # the baseline is measured on half of its 6 repeats, so this is the mean over all choices of 3 trials
    choices = np.array(
        [score(trials[N:, list(some)].mean(1)) for some in itertools.combinations(range(made_repeats), 3)]
    )
    standard_error = np.sqrt((choices.var(0) / 40).sum()) / MADE
    assert achieved.mean() == pytest.approx(choices.mean(), abs=4 * standard_error)
    everything = score(trials[N:, :made_repeats].mean(1)).mean()
    assert abs(everything - choices.mean()) > 4 * standard_error  # noise matters to a softmax


def test_noise_alone_does_not_make_one_hot_control():
    """Images as selective as the best natural one give no improvement, although both are measured with noise."""
    rng = np.random.default_rng(7)
    natural = rng.normal(10, 2, (N, 3))
    natural[0] = [18, 8, 8]
    means = np.concatenate([natural, np.tile(natural[0], (MADE, 1))])
    trials = noisy(rng, means, 40, 2.0)
    recordings = SiteRecordings(trials, NATURAL_IDS + MADE_IDS, pd.DataFrame(index=pd.Index(SITES, name="site_id")))
    (gain,) = evaluate([OneHot("a")] * 4, recordings=recordings).targets["gain"]
    assert gain == pytest.approx(0, abs=0.05)


def test_baseline_needs_two_repeats():
    recordings = record(np.concatenate([NATURAL, ACHIEVED]), NATURAL_IDS + MADE_IDS, repeats=1)
    for objectives in (STRETCH, ONE_HOT):
        with pytest.raises(ValueError, match=r"no natural image has two repeats at every site .*record more repeats"):
            evaluate(objectives, recordings=recordings)


def test_images_recorded_once_do_not_serve_as_baseline():
    recordings = record(np.concatenate([NATURAL, ACHIEVED]), NATURAL_IDS + MADE_IDS)
    trials = recordings.responses.copy()
    trials[NATURAL[:, 0].argmax(), 1:, 0] = np.nan  # the best image of site a was shown once
    report = evaluate(STRETCH, recordings=dataclasses.replace(recordings, responses=trials))
    assert report.targets["best_natural"].tolist() == pytest.approx([11, 12])


def test_baseline_that_is_not_positive_gives_no_gain_but_still_a_verdict():
    report = evaluate(STRETCH, natural=NATURAL - 20, achieved=ACHIEVED - [0, 40, 0])
    targets = report.targets
    assert targets["best_natural"].tolist() == pytest.approx([-8, -8])
    assert targets["gain"].isna().all()
    assert targets["beyond"].tolist() == [True, False]
    summary = report.summary["stretch"]
    assert summary["median_gain"] is None
    assert summary["median_gain_interval"] is None
    assert summary["fraction_beyond_best_natural"] == 0.5


def test_ids_that_do_not_match_are_refused():
    everything = record(np.concatenate([NATURAL, ACHIEVED]), NATURAL_IDS + MADE_IDS)
    with pytest.raises(ValueError, match=r"1 of the 12 stimuli have no recording \('n0'"):
        evaluate(STRETCH, recordings=everything.select_stimuli(NATURAL_IDS[1:] + MADE_IDS))
    with pytest.raises(ValueError, match=r"1 of the 4 stimuli have no recording \('m3'"):  # not silently a forecast
        evaluate(STRETCH, recordings=everything.select_stimuli(NATURAL_IDS + MADE_IDS[:3]))
    shuffled = everything.select_stimuli([*reversed(MADE_IDS), "n5", *(name for name in NATURAL_IDS if name != "n5")])
    pd.testing.assert_frame_equal(evaluate(STRETCH, recordings=shuffled).images, evaluate(STRETCH).images)


def test_sites_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"no site 'b' among the 2"):
        evaluate(
            STRETCH,
            recordings=record(np.concatenate([NATURAL, ACHIEVED]), NATURAL_IDS + MADE_IDS).select_sites(["a", "c"]),
        )
    silent = np.concatenate([NATURAL, ACHIEVED])
    silent[:, 2] = np.nan
    with pytest.raises(ValueError, match=r"1 of the 3 sites have no response at all \('c'\)"):
        evaluate(STRETCH, recordings=record(silent, NATURAL_IDS + MADE_IDS))
    with pytest.raises(ValueError, match="no site 'b' among the 2"):
        evaluate(STRETCH, validators=[luminance_model([1.0, 1.0], sites=("a", "c"))])


def test_site_that_never_varies_cannot_be_in_a_population():
    constant = NATURAL.copy()
    constant[:, 2] = 5.0
    with pytest.raises(ValueError, match="or one of these sites never varies"):
        evaluate(ONE_HOT, natural=constant)


def test_what_is_not_a_synthesized_set_is_refused():
    with pytest.raises(ValueError, match="no driver was given"):
        evaluate(STRETCH, drivers=[])
    recordings = record(np.concatenate([NATURAL, ACHIEVED]), NATURAL_IDS + MADE_IDS)
    rest = {"reference": REFERENCE, "recordings": recordings, "drivers": [luminance_model([1.0, 1.0, 1.0])]}
    with pytest.raises(ValueError, match="no column 'objective'"):
        evaluate_control(gray_set(LEVELS, MADE_IDS), **rest)
    wrong = gray_set(LEVELS, MADE_IDS, objective=["print(1)"] * 4, target_site=["a"] * 4)
    with pytest.raises(ValueError, match="is not an objective"):
        evaluate_control(wrong, **rest)


def test_baseline_is_bracketed_from_both_sides_under_noise():
    """The image shown again IS the best natural one: its truth lies between the two baselines."""
    rng = np.random.default_rng(1)
    count, repeats = 300, 8
    truth = rng.normal(10, 1, (count, len(SITES)))
    ids = tuple(f"n{k}" for k in range(count))
    reference = gray_set(np.arange(count) % 250, ids)
    best = truth.argmax(0)
    means = np.concatenate([truth, truth[best[:1]]])
    trials = np.repeat(means[:, None], repeats, axis=1) + rng.normal(0, 1.6, (count + 1, repeats, len(SITES)))
    recordings = SiteRecordings(trials, (*ids, "again"), pd.DataFrame(index=pd.Index(SITES, name="site_id")))
    again = gray_set([100], ["again"], objective=["Stretch('a')"], target_site=["a"])
    report = evaluate_control(
        again, reference=reference, recordings=recordings, drivers=[luminance_model([30.0, 20.0, 10.0])]
    )
    row = report.targets.iloc[0]
    assert row["best_natural"] < truth[:, 0].max() < row["best_natural_upper"]
    assert {"targets_measured", "fraction_beyond_best_natural_upper"} <= set(report.summary["stretch"])


def test_site_that_lacks_trials_takes_its_next_ones():
    responses = np.full((1, 6, 2), 5.0, np.float32)
    responses[0, :4, 1] = np.nan  # the second site was recorded on the last two repeats only
    means = _mean_of_trials(responses, 2, seed=0)
    np.testing.assert_array_equal(means, [[5.0, 5.0]])


def test_a_target_driven_to_nothing_counts_against_the_forecast():
    achieved = np.array([[-1.0, 2.0, 5.0], [-2.0, 1.0, 9.0], [3.0, 9.0, 1.0], [2.0, 30.0, 2.0]])
    objectives = [Stretch("a"), Stretch("a"), Stretch("b"), Stretch("b")]
    summary = evaluate(objectives, achieved).summary["stretch"]
    assert summary["forecast_over_achieved_driver"] is None  # the median of a number and infinity
