"""Overlap against the closed form for Gaussian fields; patterns counted."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from neural_fits.readout import LinearReadout
from neural_fits.site_model import Ensemble, SiteModel
from synth.site_overlap import balanced_patterns, overlapping_population, readout_similarity, site_overlap

SIGMA = 0.08
CENTERS = ((0.4, 0.5), (0.5, 0.5), (0.6, 0.5), (0.4, 0.8))


@pytest.fixture
def gaussian_model(tiny_model):
    """Sites with Gaussian windows at known places, and channel weights of their own."""

    def make(centers=CENTERS, size=24, seed=0):
        like = tiny_model(sites=[f"s{k}" for k in range(len(centers))])
        grid = (np.arange(size) + 0.5) / size
        x, y = np.meshgrid(grid, grid)
        maps = [np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * SIGMA**2)) for cx, cy in centers]
        channels = np.random.default_rng(seed).standard_normal((len(centers), 6))
        weight = torch.from_numpy(channels[:, :, None, None] * np.array(maps)[:, None]).float()
        return SiteModel(like.extractor, LinearReadout(weight, torch.zeros(len(centers))), like.info), channels

    return make


def test_overlap_of_gaussian_fields_is_the_closed_form(gaussian_model):
    model, _ = gaussian_model()
    overlap = site_overlap(model)
    for i, (xi, yi) in enumerate(CENTERS):
        for j, (xj, yj) in enumerate(CENTERS):
            expected = math.exp(-((xi - xj) ** 2 + (yi - yj) ** 2) / (2 * SIGMA**2))
            assert overlap.iloc[i, j] == pytest.approx(expected, abs=2e-3)
    assert list(overlap.index) == list(overlap.columns) == list(model.site_ids)


def test_readout_similarity_sees_channels_beside_places(gaussian_model):
    model, channels = gaussian_model()
    unit = channels / np.linalg.norm(channels, axis=1, keepdims=True)
    place = math.exp(-(0.1**2) / (4 * SIGMA**2))  # amplitudes, not energies
    assert readout_similarity(model).iloc[0, 1] == pytest.approx(place * (unit[0] @ unit[1]), abs=2e-3)
    other, more = gaussian_model(seed=1)
    unit_more = more / np.linalg.norm(more, axis=1, keepdims=True)
    both = readout_similarity(Ensemble([model, other]))
    expected = place * (unit[0] @ unit[1] + unit_more[0] @ unit_more[1]) / 2
    assert both.iloc[0, 1] == pytest.approx(expected, abs=2e-3)


def test_a_site_without_weights_overlaps_with_nothing_known(gaussian_model):
    model, _ = gaussian_model()
    model.readout.weight[2] = 0
    overlap = site_overlap(model)
    assert overlap["s2"].isna().all()
    assert overlapping_population(model, "s0", 4)[-1] == "s2"


def test_population_is_the_nearest_sites(gaussian_model):
    model, _ = gaussian_model()
    assert overlapping_population(model, "s0", 3) == ("s0", "s1", "s2")
    assert overlapping_population(model, "s3", 2) == ("s3", "s0")
    with pytest.raises(ValueError, match="did you mean"):
        overlapping_population(model, "s00", 2)
    for size in (1, 5):
        with pytest.raises(ValueError, match=f"a population of {size}"):
            overlapping_population(model, "s0", size)


@pytest.mark.parametrize(("sites", "count"), [(6, 8), (5, 6), (4, 3), (3, 6), (2, 2)])
def test_patterns_are_balanced_over_sites_and_over_patterns(sites, count):
    names = [f"s{k}" for k in range(sites)]
    patterns = balanced_patterns(names, count, seed=3)
    up = np.array([[value == 2.0 for _, value in pattern.values] for pattern in patterns])
    assert len({repr(pattern) for pattern in patterns}) == count
    assert np.isin(up.sum(1), [sites // 2, -(-sites // 2)]).all()
    assert (abs(2 * up.sum(0) - count) <= count % 2).all()
    assert [name for name, _ in patterns[0].values] == names
    assert list(map(repr, patterns)) == list(map(repr, balanced_patterns(names, count, seed=3)))


def test_too_many_patterns_are_refused():
    with pytest.raises(ValueError, match=r"7 patterns of 4 sites were asked for; expected 1 to 6"):
        balanced_patterns(("a", "b", "c", "d"), 7)
    with pytest.raises(ValueError, match="expected up above down"):
        balanced_patterns(("a", "b"), 1, up=0.0, down=0.0)
