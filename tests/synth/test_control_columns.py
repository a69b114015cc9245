"""Intervals, significance, further baselines and objectives of control, on recordings whose answer is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from control_truth import (
    ACHIEVED,
    LEVELS,
    MADE,
    MADE_IDS,
    NATURAL,
    NATURAL_IDS,
    REFERENCE,
    SITES,
    STRETCH,
    N,
    evaluate,
    gray_set,
    luminance_model,
    noisy,
    record,
)

from neural_fits.recordings import SiteRecordings
from synth._control_tables import ends
from synth.control import evaluate_control
from synth.image_objectives import Custom, Diversity, LayerUnit, MinimalContrast
from synth.objectives import OneHot, SiteScale, Stretch
from synth.report import render_report
from synth.site_objectives import Contrast, Pattern, Suppress

IMAGE_OBJECTIVES = [
    LayerUnit("conv1", 3),
    Diversity(Stretch("a")),
    MinimalContrast("a", level=2.0),
    Custom("my_lab.objectives:warm"),
    Stretch("a") + LayerUnit("conv1", 3),
]


@pytest.mark.parametrize("objective", IMAGE_OBJECTIVES, ids=repr)
def test_objectives_that_measure_images_are_refused_in_one_sentence(objective):
    with pytest.raises(
        ValueError, match=r"^3 of the 4 images were made for what responses .*judge a set made for"
    ) as error:
        evaluate([Stretch("a"), objective, objective, objective])
    assert repr(objective) in str(error.value)


OTHERS = [
    Suppress("a"),
    Contrast("a", against=("b", "c")),
    Pattern({"a": 1.0, "c": -1.0}),
    Stretch("a") - 0.5 * Stretch("b"),
]


def test_every_other_objective_of_sites_is_scored_by_itself():
    report = evaluate(OTHERS)
    mean, std = NATURAL.mean(0), NATURAL.std(0)
    z, z_made = (NATURAL - mean) / std, (ACHIEVED - mean) / std

    def scores(raw, z):
        return np.stack(
            [
                -raw[:, 0],
                z[:, 0] - z[:, 1:].mean(1),
                -((z[:, 0] - 1) ** 2 + (z[:, 2] + 1) ** 2) / 2,
                raw[:, 0] - 0.5 * raw[:, 1],
            ]
        )

    natural, made = scores(NATURAL, z), np.diag(scores(ACHIEVED, z_made))
    targets = report.targets
    assert targets["family"].tolist() == ["suppress", "contrast", "pattern", "composed"]
    np.testing.assert_allclose(targets["achieved"], made, rtol=1e-5)
    np.testing.assert_allclose(targets["best_natural"], natural.max(1), rtol=1e-5)
    np.testing.assert_allclose(targets["gain"], made - natural.max(1), rtol=1e-5)
    for text, values in zip(targets["objective"], natural, strict=True):
        assert report.best_natural_ids[text] == NATURAL_IDS[int(values.argmax())]
    block = report.summary["other"]
    assert block["targets"] == 4
    assert block["fraction_improved"] == (made > natural.max(1)).mean()
    assert block["median_improvement"] == pytest.approx(np.median(made - natural.max(1)), abs=1e-4)
    assert block["forecast_minus_achieved_driver"] == pytest.approx(
        (targets["forecast_driver"] - targets["achieved"]).median(), abs=1e-4
    )
    assert report.summary["stretch"]["targets"] == 0
    assert "other" not in evaluate(STRETCH).summary


@pytest.mark.parametrize("names", [[None] * 4, [None, None, "b", "b"]])
def test_targets_without_a_name_stay_in_the_tables(names):
    asked = [Pattern({"a": 1.0, "c": -1.0})] * 2 + [Stretch("b") if name else Suppress("b") for name in names[2:]]
    made = gray_set(LEVELS, MADE_IDS, objective=[repr(each) for each in asked], target_site=names)
    recordings = record(np.concatenate([NATURAL, ACHIEVED]), NATURAL_IDS + MADE_IDS)
    drivers = [luminance_model([30.0, 20.0, 10.0])]
    report = evaluate_control(made, reference=REFERENCE, recordings=recordings, drivers=drivers)
    assert report.targets["objective"].tolist() == [repr(asked[0]), repr(asked[2])]
    assert report.targets["target_site"].tolist() == ["", names[3] or ""]
    assert report.targets["p_value"].notna().all()


def test_one_hot_inside_a_sum_is_over_the_sites_of_the_driver():
    extra = np.random.default_rng(1).normal(5, 1, (N + MADE, 1))
    trials = np.concatenate([np.concatenate([NATURAL, ACHIEVED]), extra], axis=1)
    recordings = record(trials, NATURAL_IDS + MADE_IDS, sites=(*SITES, "more"))
    objectives = [2 * OneHot("a") + Stretch("b")] * 4
    pd.testing.assert_frame_equal(evaluate(objectives, recordings=recordings).images, evaluate(objectives).images)


def noisy_recordings(seed=0, repeats=8, sd=1.0, achieved=ACHIEVED):
    rng = np.random.default_rng(seed)
    trials = noisy(rng, np.concatenate([NATURAL, achieved]), repeats, sd)
    sites = pd.DataFrame(index=pd.Index(SITES, name="site_id"))
    return SiteRecordings(trials, NATURAL_IDS + MADE_IDS, sites, unit="spikes")


def test_intervals_of_images_are_those_of_a_mean_of_repeats():
    recordings = noisy_recordings()
    images = evaluate(STRETCH, recordings=recordings).images
    trials = recordings.responses[N:][np.arange(MADE), :, [0, 0, 1, 1]]
    half_width = 1.96 * trials.std(axis=1, ddof=1) / np.sqrt(8)
    np.testing.assert_allclose(images["achieved"], trials.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(images["achieved"] - images["achieved_low"], half_width, rtol=0.3)
    np.testing.assert_allclose(images["achieved_high"] - images["achieved"], half_width, rtol=0.3)


def test_intervals_of_targets_hold_the_spread_of_images():
    targets = evaluate(STRETCH, recordings=noisy_recordings(sd=0.01)).targets.set_index("target_site")
    # site b: images at 9 and 30; two drawn with replacement are mostly one of each, sometimes twice the same
    assert targets.loc["b", "achieved_low"] == pytest.approx(9, abs=1)
    assert targets.loc["b", "achieved_high"] == pytest.approx(30, abs=1)
    assert targets.loc["b", "gain_low"] == pytest.approx(9 / 12 - 1, abs=0.1)
    assert targets.loc["b", "gain_high"] == pytest.approx(30 / 12 - 1, abs=0.1)
    again = evaluate(STRETCH, recordings=noisy_recordings(sd=0.01)).targets
    pd.testing.assert_frame_equal(again.set_index("target_site"), targets)


def test_gain_interval_holds_the_noise_of_the_baseline_too():
    calm = np.tile([20.0, 20.0, 20.0], (MADE, 1))
    rng = np.random.default_rng(0)
    trials = np.concatenate([noisy(rng, NATURAL, 8, 3.0), np.repeat(calm[:, None], 8, axis=1)])
    recordings = SiteRecordings(trials, NATURAL_IDS + MADE_IDS, pd.DataFrame(index=pd.Index(SITES, name="site_id")))
    row = evaluate(STRETCH, recordings=recordings).targets.iloc[0]
    assert row["achieved_low"] == row["achieved_high"] == 20
    # over many such experiments the baseline has a standard deviation of 1.1 (a simulation of 500)
    low, high = (20 / (row["best_natural"] + side * 1.96 * 1.1) - 1 for side in (1, -1))
    assert row["gain_low"] == pytest.approx(low, abs=0.15)
    assert row["gain_high"] == pytest.approx(high, abs=0.4)


def test_an_image_shown_once_has_no_interval_and_its_target_no_p_value():
    trials = noisy_recordings().responses.copy()
    trials[N:, 1:] = np.nan
    one = record(NATURAL, NATURAL_IDS, repeats=8)
    recordings = dataclasses.replace(one, responses=trials, stimulus_ids=NATURAL_IDS + MADE_IDS)
    objectives = [Stretch("a"), Stretch("b"), Stretch("c"), Stretch("c")]
    report = evaluate(objectives, recordings=recordings)
    assert report.images["achieved"].notna().all()
    assert report.images[["achieved_low", "achieved_high"]].isna().all(axis=None)
    assert report.targets["p_value"].isna().tolist() == [True, True, False]  # two images have a spread
    assert report.summary["stretch"]["significant"] == 0


def test_one_hot_intervals_stay_probabilities():
    high = np.tile([30.0, 1.0, 1.0], (MADE, 1))
    report = evaluate([OneHot("a")] * 4, recordings=noisy_recordings(sd=4.0, achieved=high))
    assert (report.images["achieved_high"] <= 1).all()
    assert (report.targets["achieved_high"] <= 1).all()
    assert (report.images["achieved_low"] < report.images["achieved"]).all()
    wide = np.array([-2.0, 3.0])
    assert ends("ohp", wide, 0.5) == (0.0, 1.0)
    assert min(ends("stretch", wide, 0.5)) < -1


def many_sites(gain, seed):
    """40 stretch targets whose images have the best natural image's rate times a gain, Poisson trials."""
    rng = np.random.default_rng(seed)
    sites = tuple(f"s{k:02}" for k in range(40))
    natural = np.exp(rng.normal(0, 0.5, (100, 40))) * 10
    rates = np.concatenate([natural, np.repeat(gain * natural.max(0)[None], 80, axis=0)])
    ids = tuple(f"n{k}" for k in range(100)), tuple(f"m{k}" for k in range(80))
    trials = rng.poisson(rates[:, None], (180, 10, 40)).astype(float)
    recordings = SiteRecordings(trials, ids[0] + ids[1], pd.DataFrame(index=pd.Index(sites, name="site_id")))
    names = [site for site in sites for _ in range(2)]
    made = gray_set(range(80), ids[1], objective=[f"Stretch({site!r})" for site in names], target_site=names)
    return evaluate_control(
        made,
        reference=gray_set(range(100), ids[0]),
        recordings=recordings,
        drivers=[luminance_model([1.0] * 40, sites=sites)],
    )


def test_copies_of_the_best_natural_image_are_not_significant_and_forty_percent_more_is():
    null, planted = many_sites(1.0, 0), many_sites(1.4, 1)
    assert (null.targets["p_every_image"] <= 0.05).mean() <= 0.15  # three standard errors of 40 above .05
    assert null.summary["stretch"]["significant_every_image"] <= 1
    assert null.targets["beyond"].mean() > 0.4  # by chance, and because the baseline is a lower bound
    summary = planted.summary["stretch"]
    assert summary["significant"] >= summary["significant_every_image"] >= 36
    assert summary["significant_fraction"] == summary["significant"] / 40
    assert summary["q"] == 0.05
    covers = (planted.targets["gain_low"] < 0.4) & (planted.targets["gain_high"] > 0.4)
    assert covers.mean() >= 0.85


def test_best_five_and_99th_percentile_are_lower_baselines():
    targets = evaluate(STRETCH, achieved=np.minimum(ACHIEVED, 11.0)).targets
    assert targets["best5_natural"].tolist() == pytest.approx([10, 10])  # 12, 11, 10, 9, 8
    assert targets["p99_natural"].tolist() == pytest.approx([11.89, 11.89])
    assert targets["achieved"].tolist() == pytest.approx([11, 10])
    assert targets["beyond"].tolist() == [False, False]
    assert targets["beyond_best5"].tolist() == [True, False]
    assert targets["beyond_p99"].tolist() == [False, False]
    assert targets["significant"].tolist() == [False, False]


def test_reference_families_have_baselines_of_their_own():
    reference = gray_set(range(50, 50 + N), NATURAL_IDS, family=["photo"] * 8 + ["grating"] * 4)
    table = evaluate(STRETCH, reference=reference).families.set_index(["target_site", "reference_family"])
    for site, column in (("a", 0), ("b", 1)):
        assert table.loc[(site, "photo"), "best"] == NATURAL[:8, column].max()
        assert table.loc[(site, "grating"), "best"] == NATURAL[8:, column].max()
        assert table.loc[(site, "grating"), "n"] == 4
        assert table.loc[(site, "photo"), "objective"] == f"Stretch({site!r})"
    alone = evaluate(STRETCH).families
    assert alone["reference_family"].tolist() == ["natural", "natural"]
    assert alone["best"].tolist() == [12, 12]


def based(objectives, bases, **options):
    made = gray_set(
        LEVELS, MADE_IDS, objective=[repr(each) for each in objectives], target_site=["a", "a", "b", "b"], base=bases
    )
    recordings = record(np.concatenate([NATURAL, ACHIEVED]), NATURAL_IDS + MADE_IDS)
    drivers = [luminance_model([30.0, 20.0, 10.0])]
    return evaluate_control(made, reference=REFERENCE, recordings=recordings, drivers=drivers, **options)


def test_the_image_each_was_made_from_is_one_more_baseline():
    report = based(STRETCH, ["n3", "lost", "n5", "m0"])  # m0 was shown as well
    expected = [NATURAL[3, 0], np.nan, NATURAL[5, 1], ACHIEVED[0, 1]]
    np.testing.assert_allclose(report.images["base_achieved"], expected)
    gains = [18 / NATURAL[3, 0] - 1, (9 + 30) / (NATURAL[5, 1] + 2) - 1]  # only images whose base was recorded
    np.testing.assert_allclose(report.targets["gain_over_base"], gains)
    assert based(STRETCH, ["lost"] * 4).targets["gain_over_base"].isna().all()
    assert "base_achieved" not in evaluate(STRETCH).images
    assert "gain_over_base" not in evaluate(STRETCH).targets


def test_gain_over_a_base_is_a_difference_for_other_objectives():
    report = based([Suppress("a")] * 2 + [Suppress("b")] * 2, ["n3", "n3", "none", "none"])
    np.testing.assert_allclose(report.images["base_achieved"], [-NATURAL[3, 0]] * 2 + [np.nan] * 2)
    np.testing.assert_allclose(report.targets["gain_over_base"], [NATURAL[3, 0] - 16.5, np.nan])


class Doubles:
    """A calibration that forecasts half of the driver and keeps what it was given."""

    accuracy = {"a": 0.9}  # noqa: RUF012

    def for_sites(self, accuracy):
        assert accuracy == {"a": 0.9}  # models without scores change nothing
        return self

    def forecast(self, objectives, driver, validator, scale):
        self.given = (list(objectives), driver, validator, scale)
        column = [scale.index(objective.target) for objective in objectives]
        values = driver[np.arange(len(driver)), column] / 2
        return pd.DataFrame({"forecast": values, "forecast_low": values - 5, "forecast_high": values + 5})


def test_calibrated_forecasts_stand_beside_what_was_achieved():
    calibration = Doubles()
    drivers = [luminance_model([30.0, 20.0, 10.0]), luminance_model([40.0, 10.0], sites=("b", "a"))]
    validator = luminance_model([7.0, 5.0], sites=("c", "a"))
    sites = ("c", "a", "b", "more")
    means = np.concatenate([NATURAL, ACHIEVED])[:, [2, 0, 1, 1]]
    recordings = record(means, NATURAL_IDS + MADE_IDS, sites=sites)
    objectives = [Stretch("a")] * 4
    report = evaluate(
        objectives, recordings=recordings, drivers=drivers, validators=[validator], calibration=calibration
    )
    given, driver, judged, scale = calibration.given
    luminance = np.array(LEVELS)[:, None] / 255
    assert given == objectives
    assert isinstance(scale, SiteScale)
    assert scale.site_ids == SITES  # those of the driver, in its order, in the recording's unit
    np.testing.assert_allclose(scale.mean.numpy(), NATURAL.mean(0), rtol=1e-5)
    np.testing.assert_allclose(scale.std.numpy(), NATURAL.std(0), rtol=1e-5)
    np.testing.assert_allclose(driver, luminance * [20, 30, np.nan], rtol=1e-5)
    np.testing.assert_allclose(judged, luminance * [5, np.nan, 7], rtol=1e-5)
    forecast = luminance[:, 0] * 10
    np.testing.assert_allclose(report.images["forecast"], forecast, rtol=1e-5)
    targets, summary = report.targets.iloc[0], report.summary["stretch"]
    ends = targets[["forecast_low", "forecast_high"]].astype(float)
    np.testing.assert_allclose(ends, forecast.mean() + np.array([-5, 5]), rtol=1e-5)
    assert summary["forecast_over_achieved"] == pytest.approx(forecast.mean() / ACHIEVED[:, 0].mean(), abs=1e-4)
    assert summary["coverage"] == (np.abs(forecast - ACHIEVED[:, 0]) <= 5).mean()
    nothing = evaluate(STRETCH)
    assert nothing.images[["forecast", "forecast_low", "forecast_high"]].isna().all(axis=None)
    assert nothing.summary["stretch"]["forecast_over_achieved"] is nothing.summary["stretch"]["coverage"] is None


def test_without_validators_the_calibration_sees_missing_numbers():
    calibration = Doubles()
    evaluate(STRETCH, validators=[], calibration=calibration)
    assert np.isnan(calibration.given[2]).all()
    assert calibration.given[2].shape == calibration.given[1].shape


def test_images_whose_judges_disagree_are_flagged():
    """The driver promises 40 sd at site b where the validator sees none; at site a both agree."""
    validator = luminance_model([30.0, 0.0, 10.0])
    report = evaluate(STRETCH, drivers=[luminance_model([30.0, 200.0, 10.0])], validators=[validator])
    assert (report.images["flag"] != "").tolist() == [False, False, True, True]
    assert report.targets["flagged"].tolist() == [0, 2]
    assert report.summary["stretch"]["flagged_images"] == 2
    assert (evaluate(STRETCH, validators=[]).images["flag"] == "").all()


def test_the_report_carries_the_responses():
    report = evaluate(STRETCH)
    np.testing.assert_array_equal(report.natural_means, NATURAL.astype(np.float32))
    np.testing.assert_array_equal(report.achieved_means, ACHIEVED.astype(np.float32))
    assert report.site_ids == SITES
    assert report.unit == "spikes"
    assert evaluate(STRETCH, recordings=record(NATURAL, NATURAL_IDS)).achieved_means is None
    assert "Stretch" in render_report(report)


def test_models_predict_where_asked_and_return():
    driver = luminance_model([30.0, 20.0, 10.0])
    expected = evaluate(STRETCH, drivers=[driver]).images
    pd.testing.assert_frame_equal(evaluate(STRETCH, drivers=[driver], device="cpu").images, expected)
    assert next(driver.buffers()).device == torch.device("cpu")
    with pytest.raises(ValueError, match="'nowhere' is not available"):
        evaluate(STRETCH, device="nowhere")


def test_a_shuffled_driver_cannot_forecast_its_way_to_significance():
    """Images that a driver promises much for, but whose responses are those of random natural images."""
    rng = np.random.default_rng(0)
    achieved = NATURAL[rng.integers(0, N, MADE)]
    report = evaluate(STRETCH, recordings=noisy_recordings(achieved=achieved), drivers=[luminance_model([900.0] * 3)])
    assert report.summary["stretch"]["significant"] == 0
    assert report.summary["stretch"]["forecast_over_achieved_driver"] > 10
