"""Judges against planted truth: scores, flags, and a selection that does not flatter its own forecast."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from neural_fits.backbones import Backbone
from neural_fits.features import FeatureExtractor
from neural_fits.readout import LinearReadout
from neural_fits.site_model import SiteInfo, SiteModel
from stimuli import StimulusSet
from synth import judges
from synth.calibration import fit_calibration
from synth.image_objectives import Diversity, LayerUnit, MinimalContrast
from synth.judges import disagreement_flags, judge_images, keep_best, mean_prediction, split_judges
from synth.objectives import OneHot, SiteScale, Stretch
from synth.recipes import SynthesisConfig
from synth.site_objectives import Contrast, Pattern, Suppress
from synth.synthesis import Synthesis

SITES = ("a", "b", "c")
SCALE = SiteScale(SITES, torch.zeros(3), torch.ones(3))


def luminance_model(gains, sites=SITES, mean=0.0, std=1.0):
    """Return a model whose sites respond with a gain times the mean luminance."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1))
    weight = torch.tensor(gains).view(-1, 1, 1, 1) * torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    info = SiteInfo(sites, (mean,) * len(sites), (std,) * len(sites), (8, 8), 8.0, "spikes")
    extractor = FeatureExtractor(Backbone("module:Mean", network, input_px=8), "0")
    return SiteModel(extractor, LinearReadout(weight, torch.zeros(len(sites))), info)


def gray_set(levels, objectives, **columns):
    codes = np.array(levels, np.uint8)[:, None, None, None] * np.ones((1, 1, 8, 8), np.uint8)
    table = {"stimulus_id": [f"m{k:04d}" for k in range(len(levels))], "objective": [repr(o) for o in objectives]}
    return StimulusSet.from_arrays(codes, {**table, "target_site": [o.target for o in objectives], **columns})


def test_every_judge_scores_every_image():
    images = gray_set([51, 255], [Stretch("b"), Pattern({"a": 1.0})])
    judged = judge_images(images, None, [luminance_model([1.0, 2.0, 3.0])], [luminance_model([2.0, 8.0, 0.0], std=2.0)])
    assert judged["stimulus_id"].tolist() == ["m0000", "m0001"]
    assert judged["driver_0_score"].tolist() == pytest.approx([0.4, 0.0], abs=1e-6)
    assert judged["validator_0_score"].tolist() == pytest.approx([1.6, 0.0], abs=1e-6)
    assert judged["driver_0_z"][0] == pytest.approx(0.4)
    assert judged["validator_0_z"][0] == pytest.approx(0.8)
    assert judged["z_mean"][0] == pytest.approx(0.6)
    assert judged["z_spread"][0] == pytest.approx(0.2)
    assert judged["score_mean"][0] == pytest.approx(1.0)
    assert judged["score_spread"][0] == pytest.approx(0.6)
    assert judged[["driver_0_z", "z_mean", "z_spread"]].iloc[1].isna().all()  # a pattern has no one target


def test_objectives_given_replace_those_of_the_table():
    images = gray_set([51, 255], [Stretch("b")] * 2)
    judged = judge_images(images, [Stretch("a"), Suppress("a")], [], [luminance_model([1.0, 2.0, 3.0])])
    assert judged["score_mean"].tolist() == pytest.approx([0.2, -1.0])
    assert judged["objective"].tolist() == ["Stretch('a')", "Suppress('a')"]


@pytest.mark.parametrize("objective", [LayerUnit("0", 1), Diversity(Stretch("a")), MinimalContrast("a", 1.0)])
def test_what_is_not_about_sites_is_refused(objective):
    for asked in (objective, objective + Stretch("a")):
        with pytest.raises(ValueError, match="responses cannot be scored by it"):
            judge_images(gray_set([1], [asked]), [asked], [luminance_model([1.0, 2.0, 3.0])], [])


def test_missing_judges_objectives_and_sites_are_named():
    images = gray_set([1], [Stretch("a")])
    model = luminance_model([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="no judge was given"):
        judge_images(images, None, [], [])
    with pytest.raises(ValueError, match="2 objectives for 1 images"):
        judge_images(images, [Stretch("a")] * 2, [model], [])
    bare = StimulusSet.from_arrays(np.zeros((1, 1, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="no column 'objective'"):
        judge_images(bare, None, [model], [])
    with pytest.raises(ValueError, match="no site 'd' among the 3"):
        judge_images(images, [Stretch("d")], [model], [])


def test_mean_prediction_orders_sites_and_is_missing_without_models():
    images = gray_set([255], [Stretch("a")])
    models = [luminance_model([1.0, 2.0, 3.0]), luminance_model([5.0, 7.0], ("c", "a"))]
    np.testing.assert_allclose(mean_prediction(models, images, ["c", "a"], "cpu"), [[4.0, 4.0]], rtol=1e-6)
    assert np.isnan(mean_prediction([], images, ["a"])).all()
    with pytest.raises(ValueError, match="no site 'b'"):
        mean_prediction(models, images, ["b"])


@pytest.mark.parametrize(
    ("objective", "driver", "validator", "flag"),
    [
        (Stretch("a"), [6.1, 0, 0], [1.2, 0, 0], "judges disagree on a: driver +6.1 sd, validator +1.2 sd"),
        (Stretch("a"), [6.1, 0, 0], [4.0, 0, 0], ""),  # promises somewhat too much, as drivers do
        (Stretch("a"), [1.5, 0, 0], [0.2, 0, 0], ""),  # natural images differ as much
        (Stretch("a"), [1.2, 0, 0], [-0.9, 0, 0], "judges disagree on a: driver +1.2 sd, validator -0.9 sd"),
        (Suppress("b"), [0, -4.0, 0], [0, 0.1, 0], "judges disagree on b: driver -4.0 sd, validator +0.1 sd"),
        (Stretch("a"), [6.1, 0, 0], [np.nan] * 3, ""),
        (
            Pattern({"a": 1.0, "b": 3.0}),
            [1, 3, 0],
            [1, 0, 0],
            "judges disagree on b: driver +3.0 sd, validator +0.0 sd",
        ),
        (OneHot("a"), [5, 0, 0], [3, 0, 1], ""),
        (OneHot("a"), [5, 0, 0], [3, 0, 5], "judges disagree on selectivity: validator c +5.0 sd, a +3.0 sd"),
        (OneHot("a", ("a", "b")), [5, 0, 0], [3, 0, 5], ""),  # c is not in the population
        (Contrast("a", ("c",)), [5, 0, 0], [3, 0, 5], "judges disagree on selectivity: validator c +5.0 sd, a +3.0 sd"),
        (OneHot("a"), [5, 0, 6], [3, 0, 5], ""),  # the driver knows
        (Stretch("a") - Stretch("b"), [5, -4, 0], [4, 3, 0], "judges disagree on b: driver -4.0 sd, validator +3.0 sd"),
    ],
)
def test_flags(objective, driver, validator, flag):
    mean, std = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 1.0, 0.5])
    rows = [np.array([values]) * std.numpy() + mean.numpy() for values in (driver, validator)]
    assert disagreement_flags(*rows, SiteScale(SITES, mean, std), [objective]) == [flag]


def test_flags_need_a_row_an_image():
    with pytest.raises(ValueError, match=r"validator has shape \(2, 3\); expected \(1, 3\)"):
        disagreement_flags(np.zeros((1, 3)), np.zeros((2, 3)), SCALE, [Stretch("a")])


def test_judges_are_split_in_two_halves_by_seed():
    for count in (2, 3, 5):
        selectors, forecasters = split_judges(count, 1)
        assert sorted(selectors + forecasters) == list(range(count))
        assert len(selectors) - len(forecasters) in (0, 1)
    assert split_judges(1) == ((0,), (0,))
    assert len({split_judges(4, seed) for seed in range(20)}) > 1
    with pytest.raises(ValueError, match="no validator was given"):
        split_judges(0)


OBJECTIVES, CANDIDATES = 300, 4


@pytest.fixture
def planted(monkeypatch):
    """Return candidates whose truth is known, and judges that see it with errors of sd 1 around a truth of sd 1."""
    rng = np.random.default_rng(0)
    count = OBJECTIVES * CANDIDATES
    sites = tuple(f"s{k}" for k in range(OBJECTIVES))
    asked = [Stretch(site) for site in sites for _ in range(CANDIDATES)]
    truth = np.repeat(rng.normal(10, 5, OBJECTIVES), CANDIDATES) + rng.normal(0, 1, count)
    seen = [truth + rng.normal(0, 1, count) for _ in range(4)]  # the last is the driver
    names = [f"m{k:04d}" for k in range(count)]
    images = gray_set(np.arange(count) % 256, asked, base=[""] * count)
    trace = pd.DataFrame({"stimulus_id": np.repeat(names, 2), "step": [0, 1] * count})
    trace["score"] = np.stack([rng.normal(-50, 20, count), seen[-1]], axis=1).ravel()  # a start, then better
    models = [luminance_model([1.0] * OBJECTIVES, sites) for _ in range(3)]
    column = np.repeat(np.arange(OBJECTIVES), CANDIDATES)

    def predict(model, stimuli, device):
        responses = np.zeros((count, OBJECTIVES))
        responses[np.arange(count), column] = seen[models.index(model)]
        return responses

    monkeypatch.setattr(judges, "predict_on", predict)
    return Synthesis(images, trace, SynthesisConfig(steps=1)), models, dict(zip(names, truth, strict=True)), seen


@pytest.mark.parametrize("count", [1, 2, 3])
def test_selection_gains_and_its_forecast_is_not_flattered(planted, count):
    made, models, truth, _ = planted
    kept = keep_best(made, models[:count], 1, seed=3)
    table = kept.stimuli.table
    assert table["objective"].is_unique
    assert len(table) == OBJECTIVES
    achieved = np.array([truth[name] for name in table["stimulus_id"]])
    average = np.mean(list(truth.values()))
    assert achieved.mean() - average > 0.6  # the best of 4 by a judge of reliability .5: 1.03 * sqrt(.5) = .73
    error = (table["judge_forecast"] - achieved).mean()
    assert error == pytest.approx(0, abs=0.15)  # standard error .06 to .1
    if count < 3:
        assert (table["judge_score"] - achieved).mean() > 0.55  # what the selecting judge would have promised
    assert (table["candidates"] == CANDIDATES).all()
    selectors, _ = split_judges(count, 3)
    assert (table["selected_by"] == ",".join(map(str, selectors))).all()


def test_a_calibration_says_how_much_of_a_preference_is_real(planted):
    made, models, truth, seen = planted
    rows = pd.DataFrame({"image": made.stimuli.stimulus_ids, "site": made.stimuli.table["target_site"], "target": True})
    rows = rows.assign(
        driver_z=seen[3], validator_z=seen[0], achieved_z=list(truth.values()), r=0.5, group=rows["site"]
    )
    calibration = fit_calibration(rows)
    assert calibration.within_slope == pytest.approx(0.5, abs=0.06)
    table = keep_best(made, models[:1], 1, calibration=calibration).stimuli.table
    achieved = np.array([truth[name] for name in table["stimulus_id"]])
    assert (table["judge_forecast"] - achieved).mean() == pytest.approx(0, abs=0.15)
    doubtful = dataclasses.replace(calibration, within_slope=0.0)  # nothing of it is real: the mean of the candidates
    table = keep_best(made, models[:1], 1, calibration=doubtful).stimuli.table
    means = np.asarray(seen[0]).reshape(-1, CANDIDATES).mean(1)
    np.testing.assert_allclose(table["judge_forecast"], means)


def test_the_best_are_kept_in_their_order_with_their_traces():
    asked = [Stretch("a")] * 4 + [Suppress("b")] * 3
    made = Synthesis(
        gray_set([10, 40, 20, 30, 10, 5, 20], asked),
        pd.DataFrame({"stimulus_id": [f"m{k:04d}" for k in range(7)], "step": 0, "score": 0.0}),
        SynthesisConfig(steps=1),
    )
    kept = keep_best(made, [luminance_model([1.0, 2.0, 3.0])], 2)
    assert kept.stimuli.stimulus_ids == ["m0001", "m0003", "m0004", "m0005"]
    assert kept.trace["stimulus_id"].tolist() == kept.stimuli.stimulus_ids
    assert kept.stimuli.table["candidates"].tolist() == [4, 4, 3, 3]
    everything = keep_best(made, [luminance_model([1.0, 2.0, 3.0])], 3)
    assert len(everything.stimuli) == 6
    with pytest.raises(ValueError, match="keep is 4; expected a number from 1 to the 3 images"):
        keep_best(made, [luminance_model([1.0, 2.0, 3.0])], 4)
    with pytest.raises(ValueError, match="no validator was given"):
        keep_best(made, [], 1)


def test_each_base_image_keeps_its_own():
    made = Synthesis(
        gray_set([10, 40, 20, 30], [Stretch("a")] * 4, base=["x", "x", "y", "y"]),
        pd.DataFrame({"stimulus_id": [], "step": [], "score": []}),
        SynthesisConfig(steps=1, start="base"),
    )
    kept = keep_best(made, [luminance_model([1.0, 2.0, 3.0])], 1)
    assert kept.stimuli.stimulus_ids == ["m0001", "m0003"]
    started = dataclasses.replace(made, config=SynthesisConfig(steps=1, start="natural"))  # starts compete
    assert keep_best(started, [luminance_model([1.0, 2.0, 3.0])], 1).stimuli.stimulus_ids == ["m0001"]


def test_share_of_a_preference_is_told_by_the_reading_that_was_kept():
    asked, levels = [Stretch("a")] * 4, [51, 102, 153, 255]
    ids = [f"m{k:04d}" for k in range(4)]
    trace = pd.DataFrame({"stimulus_id": np.repeat(ids, 2), "step": [0, 10] * 4})
    trace["score"] = [
        5.0,
        0.2,
        0.1,
        0.4,
        0.1,
        0.6,
        0.1,
        1.0,
    ]  # the first image was better before, and was not kept then
    made = Synthesis(gray_set(levels, asked), trace, SynthesisConfig(steps=10, keep="last"))
    forecast = keep_best(made, [luminance_model([1.0, 2.0, 3.0])], 1).stimuli.table["judge_forecast"]
    assert forecast.tolist() == pytest.approx([1.0], abs=1e-5)  # driver and judge agree: all of it is real
    best = dataclasses.replace(made, config=SynthesisConfig(steps=10))
    assert keep_best(best, [luminance_model([1.0, 2.0, 3.0])], 1).stimuli.table["judge_forecast"][0] < 0.9
