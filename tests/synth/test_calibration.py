"""Calibrated forecasts against planted truth: curves, intervals, what is kept of an image, and files."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import lsq_linear
from scipy.special import softmax
from scipy.stats import t as student

from neural_fits.recordings import SiteRecordings
from stimuli import StimulusSet
from synth._calibration_form import FORMS, Rows, _left_out, effective_count, features, site_effects
from synth._calibration_rows import coded, usable_rows
from synth.calibration import Calibration, _interval, calibration_table, fit_calibration
from synth.objectives import OneHot, SiteScale, Stretch
from synth.site_objectives import Contrast, Pattern, Suppress

SITES = tuple(f"s{k}" for k in range(8))
SCALE = SiteScale(SITES, torch.zeros(8), torch.ones(8))


def planted(seed, targets=24, images=2, slope=1.2, between=0.3, within=0.4, shared=0.0, shift=None):
    """Return a table: a target achieves ``slope r v + 0.5``, other sites 0.8 v, with errors of known size."""
    rng = np.random.default_rng(seed)
    accuracy, rows = np.random.default_rng(99).uniform(0.3, 0.9, len(SITES)), []
    for target in range(targets):
        site, offset = target % len(SITES), rng.normal(0, between)
        for image in range(images):
            driver = rng.normal(0.3, 0.5, len(SITES))
            driver[site] = rng.normal(7, 1.5)
            validator = 0.6 * driver + rng.normal(0, 0.5, len(SITES))
            achieved = 0.8 * validator + rng.normal(0, shared) + rng.normal(0, 0.4, len(SITES))
            achieved[site] = slope * accuracy[site] * validator[site] + 0.5 + offset + rng.normal(0, within)
            achieved += 0 if shift is None else shift
            for k, name in enumerate(SITES):
                values = (driver[k], validator[k], achieved[k], accuracy[k])
                rows.append((name, f"i{target}_{image}", k == site, *values, f"t{target}"))
    return pd.DataFrame(
        rows, columns=["site", "image", "target", "driver_z", "validator_z", "achieved_z", "r", "group"]
    )


def arrays(table):
    """Return the target of each image, driver, validator and achieved levels (image, site)."""
    wide = {name: table.pivot(index="image", columns="site", values=name)[list(SITES)] for name in table.columns[3:6]}
    targets = table[table["target"]].set_index("image")["site"]
    return targets.loc[wide["driver_z"].index].tolist(), *(values.to_numpy() for values in wide.values())


def inside(forecast, achieved):
    return ((forecast["forecast_low"] <= achieved) & (achieved <= forecast["forecast_high"])).mean()


def test_planted_curve_is_found_and_forecasts_are_right_on_new_targets():
    calibration = fit_calibration(planted(0, targets=64))
    assert calibration.target.form == "validator by accuracy"
    assert calibration.target.weights[3] == pytest.approx(1.2, abs=0.25)
    assert calibration.other.weights[1] == pytest.approx(0.8, abs=0.05)
    new = planted(1, targets=64)
    targets, driver, validator, achieved = arrays(new)
    calibration = calibration.for_sites(new.groupby("site")["r"].first())
    forecast = calibration.forecast([Stretch(site) for site in targets], driver, validator, SCALE)["forecast"]
    reached = achieved[np.arange(len(targets)), [SITES.index(site) for site in targets]]
    assert np.median(forecast / reached) == pytest.approx(1, abs=0.05)
    assert np.abs(forecast - reached).mean() < 0.25 * np.abs(driver.max(axis=1) - reached).mean()


@pytest.mark.parametrize(("images", "seeds"), [(1, 10), (3, 5)])
def test_intervals_hold_new_targets_at_their_nominal_rate(images, seeds):
    held: dict[tuple[str, float], list[float]] = {}
    for seed in range(seeds):
        table, new = (planted(s, targets=40, images=images, between=0.5) for s in (seed, 100 + seed))
        calibration = fit_calibration(table).for_sites(new.groupby("site")["r"].first())
        targets, driver, validator, achieved = arrays(new)
        own = np.arange(len(targets)), [SITES.index(site) for site in targets]
        stretch, one_hot = [Stretch(site) for site in targets], [OneHot(site, form="softmax") for site in targets]
        for asked, reached in ((stretch, achieved[own]), (one_hot, softmax(achieved, axis=1)[own])):
            for level in (0.8, 0.95):
                made = calibration.forecast(asked, driver, validator, SCALE, level=level)
                held.setdefault((asked[0].family, level), []).append(inside(made, reached))
    for (_, level), rates in held.items():
        assert np.mean(rates) == pytest.approx(level, abs=0.05)


def test_few_targets_give_wide_intervals_and_not_none():
    """With 6 targets no error is as rare as 1 in 100: Student's t with 5 degrees of freedom says how far to go."""
    calibration = fit_calibration(planted(3, targets=6, images=1))
    targets, driver, validator, _ = arrays(planted(4, targets=6, images=1))
    made = calibration.forecast([Stretch(site) for site in targets], driver, validator, SCALE, level=0.98)
    weight, error, _ = np.array(calibration.errors).T
    reach = student.ppf(0.99, 5) * np.sqrt(np.average(error**2, weights=weight) * 7 / 6)
    assert reach > np.abs(error).max()
    own = np.arange(6), [SITES.index(site) for site in targets]
    level = calibration.target.level(driver[own], validator[own], np.full(6, calibration.median_accuracy))
    for end, sign in (("forecast_low", -1), ("forecast_high", 1)):
        np.testing.assert_allclose(made[end], level + sign * reach * calibration.target.spread(level), rtol=1e-6)


def test_targets_count_equally_and_natural_images_as_much_as_all_made_ones():
    table = planted(0, targets=6)
    natural = table[table["image"] == "i3_0"].assign(image="n0", group="n0", target=False)
    table = pd.concat([table[(table["group"] != "t2") | (table["image"] == "i2_0")], natural], ignore_index=True)
    rows = coded(usable_rows(table), list(SITES))
    total = pd.Series(rows.weight).groupby([table["target"], table["group"]]).sum()
    np.testing.assert_allclose(total[True], 1 / 6)
    np.testing.assert_allclose(total[False].drop("n0"), 1 / 6)
    assert total[False]["n0"] == pytest.approx(1)


@pytest.mark.parametrize("shared", [0.0, 0.8])
def test_errors_of_one_image_stay_together(shared):
    """Other sites' errors are .4 of their own and some that the image shares: draws are as alike as that."""
    calibration = fit_calibration(planted(5, targets=100, shared=shared))
    weight, (_, other) = calibration._draws(6, np.random.default_rng(0))
    assert weight.sum() == pytest.approx(1)
    alike = np.corrcoef(other.T)[np.triu_indices(6, 1)]
    np.testing.assert_allclose(alike, shared**2 / (shared**2 + 0.4**2), atol=0.15)


def test_target_and_other_sites_err_together_where_they_did():
    """What all sites of an image share cancels in a contrast, whichever column the target has."""
    table = planted(5, targets=100, between=0.0)
    errors = pd.Series(np.random.default_rng(0).normal(0, 2.0, 200), index=table["image"].unique())
    table["achieved_z"] += errors.loc[table["image"]].to_numpy()
    calibration = fit_calibration(table)
    targets, driver, validator, _ = arrays(planted(6, targets=8, images=1))
    assert len(set(targets)) == 8
    alone = calibration.forecast([Stretch(site) for site in targets], driver, validator, SCALE)
    others = [tuple(other for other in SITES if other != site) for site in targets]
    asked = [Contrast(site, against) for site, against in zip(targets, others, strict=True)]
    against = calibration.forecast(asked, driver, validator, SCALE)
    width = [(made["forecast_high"] - made["forecast_low"]) for made in (alone, against)]
    assert (width[1] < 0.5 * width[0]).all()


def test_other_objectives_are_forecast_through_their_own_score():
    calibration = fit_calibration(planted(7, targets=40))
    targets, driver, validator, _ = arrays(planted(8, targets=8, images=1))
    scale = SiteScale(SITES, torch.full((8,), 10.0), torch.full((8,), 2.0))
    unit = [10 + 2 * part for part in (driver, validator)]
    up, down = (calibration.forecast([kind(s) for s in targets], *unit, scale) for kind in (Stretch, Suppress))
    np.testing.assert_allclose(up["forecast"], -down["forecast"])
    np.testing.assert_allclose(up["forecast_low"], -down["forecast_high"])
    z = calibration.forecast([Stretch(s) for s in targets], driver, validator, SCALE)
    np.testing.assert_allclose(up, 10 + 2 * z, rtol=1e-5)
    twice = calibration.forecast([2.0 * Stretch(s) + Stretch(s) for s in targets], *unit, scale)
    np.testing.assert_allclose(twice, 3 * up, rtol=1e-5)
    pattern = calibration.forecast([Pattern({SITES[0]: 2.0, SITES[1]: -1.0})] * 8, *unit, scale)
    assert (pattern["forecast_high"] <= 0).all()
    assert (pattern["forecast_low"] < pattern["forecast"]).all()


def test_left_out_predictions_are_those_of_bounded_least_squares_on_the_other_groups():
    rng = np.random.default_rng(2)
    group = np.repeat(np.arange(6), 3)
    driver, validator, accuracy = rng.normal(5, 2, 18), rng.normal(4, 2, 18), rng.uniform(0.2, 0.9, 18)
    achieved = 0.5 * validator - 0.3 * driver + rng.normal(0, 0.5, 18)
    weight = rng.uniform(0.5, 1.5, 18)
    rows = Rows(driver, validator, accuracy, achieved, group, group, np.arange(18), weight)
    for form, columns in FORMS.items():
        if form == "isotonic":
            continue
        design = features(driver, validator, accuracy)[:, list(columns)] * np.sqrt(weight)[:, None]
        keep = group != 2
        low = [-np.inf if column == 0 else 0.0 for column in columns]
        found = lsq_linear(design[keep], (achieved * np.sqrt(weight))[keep], (low, np.inf), tol=1e-14).x
        expected = features(driver, validator, accuracy)[~keep][:, list(columns)] @ found
        np.testing.assert_allclose(_left_out(rows, form)[~keep], expected, atol=1e-5)


def test_bent_truth_is_met_by_the_isotonic_form_and_never_falls():
    table = planted(9, targets=60, between=0, within=0.1)
    made = table["target"]
    table.loc[made, "achieved_z"] = np.where(table.loc[made, "validator_z"] > 4, 3.0, 0.0)
    calibration = fit_calibration(table)
    assert calibration.target.form == "isotonic"
    at = np.linspace(0, 9, 50)
    level = calibration.target.level(at, at, at)
    assert (np.diff(level) >= 0).all()
    assert level[[0, -1]].tolist() == pytest.approx([0, 3])


def test_equal_errors_give_the_textbook_interval():
    """n draws of equal weight: the ends are at k / (n + 1), as for exchangeable numbers."""
    values = np.random.default_rng(0).normal(size=99)
    middle, low, high = _interval(values, np.full(99, 1 / 99), np.array([-9.0, 9.0]), 99, 0.9)
    ordered = np.sort(values)
    assert (low, middle, high) == pytest.approx((ordered[4], ordered[49], ordered[94]))
    assert _interval(values, np.full(99, 1 / 99), np.array([-9.0, 9.0]), 99, 0.99)[1:] == (-9.0, 9.0)


def test_effective_count_is_between_targets_and_images():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(50), 4)
    zero = np.zeros(200)
    rows = Rows(zero, zero, zero, zero, group, group, np.arange(200), zero)
    alike = rng.normal(size=50)[group]
    assert effective_count(alike, rows) == pytest.approx(50, abs=0.1)
    assert effective_count(rng.normal(size=200), rows) > 140
    half = effective_count(alike + rng.normal(size=200), rows)  # correlation .5: 200 / 2.5
    assert half == pytest.approx(80, rel=0.2)


def test_intervals_for_another_brain_are_as_wide_as_brains_differ():
    """Seven brains, each with its own shift: errors on left-out brains hold the images of an eighth."""
    shifts = np.random.default_rng(5).normal(0, 1.5, 30)
    held: dict[str, list[float]] = {"brain": [], "target": []}
    for first in (0, 8, 16):
        tables = []
        for k in range(first, first + 8):
            table = planted(k, targets=8, between=0.0, shift=shifts[k]).assign(brain=f"b{k}")
            tables.append(table.assign(image=f"b{k} " + table["image"], target_name=f"b{k} " + table["group"]))
        for group in held:
            known = pd.concat(tables[:7], ignore_index=True)
            known["site"] = known["brain"] + known["site"]
            known["group"] = known["brain" if group == "brain" else "target_name"]
            calibration = fit_calibration(known).for_sites(tables[7].groupby("site")["r"].first())
            targets, driver, validator, achieved = arrays(tables[7][list(planted(0, targets=1).columns)])
            reached = achieved[np.arange(len(targets)), [SITES.index(site) for site in targets]]
            made = calibration.forecast([Stretch(s) for s in targets], driver, validator, SCALE)
            held[group].append((made["forecast_high"] - made["forecast_low"]).mean())
            if group == "brain":
                assert inside(made, reached) > 0.9
                assert calibration.effective < 12
    assert np.mean(held["brain"]) > 1.1 * np.mean(held["target"])


def test_known_sites_are_shifted_by_what_is_known_of_them():
    shift = np.random.default_rng(1).normal(0, 1.0, len(SITES))
    options = {"between": 0.0, "within": 0.3, "shift": shift}
    first, second = (planted(seed, targets=24, images=3, **options) for seed in (1, 2))
    targets, driver, validator, achieved = arrays(second)
    reached = achieved[np.arange(len(targets)), [SITES.index(site) for site in targets]]
    objectives, error, width = [Stretch(site) for site in targets], {}, {}
    for own in (False, True):
        calibration = fit_calibration(first, own_sites=own).for_sites(second.groupby("site")["r"].first())
        made = calibration.forecast(objectives, driver, validator, SCALE, level=0.8)
        error[own] = np.abs(made["forecast"] - reached).mean()
        width[own] = (made["forecast_high"] - made["forecast_low"]).mean()
    assert error[True] < 0.6 * error[False]
    assert width[True] < 0.8 * width[False]
    assert inside(made, reached) > 0.65


def test_shift_of_a_site_is_shrunk_by_how_little_is_known():
    rng = np.random.default_rng(3)
    site = np.concatenate([np.repeat(np.arange(20), 8), [20]])  # the last site has one residual
    truth = rng.normal(0, 1, 21)
    residual = truth[site] + rng.normal(0, 1, len(site))
    residual[-1] = 3.0
    zero = np.zeros(len(site))
    effects = site_effects(residual, Rows(zero, zero, zero, zero, site, site, site, zero), [f"x{k}" for k in range(21)])
    means = np.array([residual[site == k].mean() for k in range(20)])
    shifts = np.array([effects[f"x{k}"][0] for k in range(20)])
    np.testing.assert_allclose(shifts / means, 8 / 9, atol=0.06)  # 1 / (1 + 1 / 8)
    assert effects["x20"][0] == pytest.approx(1.5, abs=0.5)
    assert effects["x0"][1] < effects["x20"][1] < 1
    noise = rng.normal(size=len(site))
    none = site_effects(noise, Rows(zero, zero, zero, zero, site, site, site, zero), [f"x{k}" for k in range(21)])
    assert all(abs(shift) < 0.3 for shift, _ in none.values())


def test_natural_images_inform_the_curve_of_other_sites_only():
    table = planted(11)
    rng = np.random.default_rng(0)
    z = rng.normal(0, 1, 400)
    natural = pd.DataFrame({"site": "s0", "image": [f"n{k}" for k in range(400)], "target": False, "driver_z": z})
    natural = natural.assign(validator_z=z, achieved_z=0.8 * z, r=0.6, group=natural["image"])
    alone, both = fit_calibration(table), fit_calibration(pd.concat([table, natural], ignore_index=True))
    assert both.target == alone.target
    assert [row[:2] for row in both.errors] == [row[:2] for row in alone.errors]
    assert both.other != alone.other


def test_text_round_trip_forecasts_the_same():
    calibration = fit_calibration(planted(12), own_sites=True)
    text = calibration.to_json()
    assert json.loads(text, parse_constant=pytest.fail)["provenance"]["config"]["own_sites"] is True
    again = Calibration.from_json(text)
    assert again == calibration
    targets, driver, validator, _ = arrays(planted(13, targets=4))
    asked = ([OneHot(site) for site in targets], driver, validator, SCALE)
    pd.testing.assert_frame_equal(again.forecast(*asked), calibration.forecast(*asked))
    with pytest.raises(AssertionError):
        pd.testing.assert_frame_equal(again.forecast(*asked, seed=1), calibration.forecast(*asked))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "npc calibration"}', '{"format": "npc calibration", "format_version": 1}']
)
def test_damaged_text_is_refused(text):
    with pytest.raises(ValueError, match="not a calibration or was damaged"):
        Calibration.from_json(text)
    with pytest.raises(ValueError, match="has format 9"):
        Calibration.from_json(
            fit_calibration(planted(1)).to_json().replace('"format_version": 1', '"format_version": 9')
        )


def test_without_validators_the_driver_alone_is_calibrated():
    table = planted(14).assign(validator_z=np.nan)
    calibration = fit_calibration(table)
    assert not calibration.target.needs_validator
    targets, driver, validator, _ = arrays(planted(15, targets=4))
    made = calibration.forecast([Stretch(s) for s in targets], driver, np.full_like(driver, np.nan), SCALE)
    assert made.notna().all(axis=None)
    with pytest.raises(ValueError, match="needs a validator's predictions and none came"):
        fit_calibration(planted(14)).forecast([Stretch("s0")], driver[:1], validator[:1] * np.nan, SCALE)


def test_what_cannot_be_calibrated_is_refused_in_a_sentence():
    table = planted(16)
    with pytest.raises(ValueError, match=r"lacks the columns \['r'\]"):
        fit_calibration(table.drop(columns="r"))
    with pytest.raises(ValueError, match="2 target"):
        fit_calibration(table[table["group"].isin(["t0", "t1"])])
    with pytest.raises(ValueError, match="has two rows for site 's0'"):
        fit_calibration(pd.concat([table, table], ignore_index=True))
    calibration, one = fit_calibration(table[table["target"]]), np.zeros((1, 8))
    assert calibration.other is None
    assert calibration.forecast([Stretch("s1")], one, one, SCALE).notna().all(axis=None)
    with pytest.raises(ValueError, match="reads sites that its images were not made for"):
        calibration.forecast([OneHot("s1")], one, one, SCALE)
    with pytest.raises(ValueError, match=r"driver has shape \(1, 8\); expected \(2, 8\)"):
        calibration.forecast([Stretch("s1")] * 2, one, one, SCALE)
    with pytest.raises(ValueError, match="no site 'nobody'"):
        calibration.forecast([Stretch("nobody")], one, one, SCALE)
    with pytest.raises(ValueError, match="level is 95"):
        calibration.forecast([Stretch("s1")], one, one, SCALE, level=95)


def test_within_slope_is_that_among_images_of_one_target():
    table = planted(17, targets=40, images=6, between=3.0, within=0.0)
    made = table["target"]
    table.loc[made, "achieved_z"] += (
        0.4 * table.loc[made, "validator_z"] - 1.2 * (table["r"] * table["validator_z"])[made]
    )
    assert fit_calibration(table).within_slope == pytest.approx(0.4, abs=1e-9)
    assert fit_calibration(planted(17, images=1)).within_slope is None


def test_table_holds_predictions_and_responses_in_z(tiny_model):
    rng = np.random.default_rng(0)
    names = ["m0", "m1", "n0"]
    images = StimulusSet.from_arrays(
        rng.integers(0, 255, (3, 3, 32, 32), dtype=np.uint8),
        {"stimulus_id": names, "photograph": ["", "", "cat"]},
        size_deg=6.5,
    )
    driver, judge = tiny_model(), tiny_model(("c", "b", "a"), seed=1)
    driver.scores = pd.DataFrame({"r": [0.5, 0.6, 0.7]}, index=["a", "b", "c"])
    trials = rng.normal(3, 1, (3, 4, 2))
    recordings = SiteRecordings(trials, ("n0", "m0", "m1"), pd.DataFrame(index=pd.Index(["c", "a"], name="site_id")))
    scale = SiteScale(("a", "c"), torch.tensor([1.0, 2.0]), torch.tensor([0.5, 4.0]))
    table = calibration_table(
        images, [Stretch("c"), Pattern({"a": 1.0, "c": 0.0}), None], recordings, [driver, driver], [judge], scale
    )
    assert table["target"].tolist() == [False, True, True, True, False, False]
    assert table["group"].tolist() == ["c", "c", "a+c", "a+c", "photograph cat", "photograph cat"]
    assert table["r"].tolist() == [0.5, 0.7] * 3
    np.testing.assert_allclose(table["driver_z"][1::2], (driver.predict(images)[:, 2] - 2) / 4, rtol=1e-5)
    np.testing.assert_allclose(table["validator_z"][::2], (judge.predict(images)[:, 2] - 1) / 0.5, rtol=1e-5)
    np.testing.assert_allclose(table["achieved_z"][1::2], (trials[[1, 2, 0], :, 0].mean(1) - 2) / 4, rtol=1e-5)
    empty = calibration_table(images, [Stretch("c")] * 3, recordings, [tiny_model()], [], scale)
    assert empty[["validator_z", "r"]].isna().all(axis=None)
    with pytest.raises(ValueError, match="1 objectives for 3 images"):
        calibration_table(images, [None], recordings, [driver], [], scale)


def test_a_calibration_is_frozen_and_names_itself():
    calibration = fit_calibration(planted(18))
    assert repr(calibration) == "Calibration('validator by accuracy', 48 images of 24 targets)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        calibration.groups = 3
