"""A driver that knows nothing achieves nothing: the whole line from trials to control, with responses permuted."""

from __future__ import annotations

import numpy as np
import pytest

from neural_fits import SimulatedBrain, SiteRecordings, fit_sites
from stimuli import natural_photos
from synth import Stretch, evaluate_control, recipe, synthesize


@pytest.fixture(scope="module")
def animal():
    natural = natural_photos(240, size_px=64, seed=3)
    brain = SimulatedBrain(natural, n_sites=8, seed=3)
    return natural, brain, brain.record(natural, n_repeats=8, seed=3)


def control(animal, shuffled):
    """Return how far images drive their own site beyond those made for other sites, in sd, and the mean gain."""
    natural, brain, recorded = animal
    responses = recorded.responses
    if shuffled:
        responses = responses[np.random.default_rng(0).permutation(len(natural))]
    told = SiteRecordings(responses, recorded.stimulus_ids, recorded.sites, recorded.window_ms, recorded.unit)
    driver = fit_sites(natural, told, backbone="efficientnet-lite0", layer="blocks.3", penalty="one_se", folds=3)
    # from noise: the best photograph of a shuffled driver is still a photograph
    quick = recipe("robust", start="pink", steps=40, step_size=0.1)
    made = synthesize(driver, [Stretch(site) for site in driver.site_ids], seeds=2, recipe=quick, slots=8).stimuli
    mean, sd = recorded.mean().mean(0), recorded.mean().std(0)
    scaled = (brain.truth(made) - mean) / sd
    own = made.table["target_site"].to_numpy()[:, None] == np.array(driver.site_ids)[None]
    others = (scaled * ~own).sum(0) / (~own).sum(0)
    reach = ((scaled * own).sum(0) / own.sum(0) - others).mean()
    report = evaluate_control(
        made,
        reference=natural,
        recordings=recorded.concat_stimuli(brain.record(made, n_repeats=8, seed=4)),
        drivers=[driver],
    )
    return reach, report.summary["stretch"]


def test_a_shuffled_driver_is_at_chance_and_the_true_one_is_not(animal):
    reach, stretch = control(animal, shuffled=True)
    known_reach, known = control(animal, shuffled=False)
    assert abs(reach) < 0.5  # its images drive their site as images made for any other site do
    assert stretch["fraction_beyond_best_natural"] <= 0.25
    assert stretch["significant"] == 0
    assert stretch["median_gain"] < -0.3
    assert known_reach > 1.5
    assert known["fraction_beyond_best_natural"] >= 0.5
    assert known["median_gain"] > stretch["median_gain"] + 0.4
