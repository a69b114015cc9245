from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from neural_fits.backbones import Backbone
from neural_fits.features import FeatureExtractor
from neural_fits.readout import LinearReadout
from neural_fits.site_maps import GRID, field_table, receptive_fields, site_table, sites_png
from neural_fits.site_model import Ensemble, SiteInfo, SiteModel


def looking_at(*positions, sites=None):
    """A model whose sites each read one position (row, column) of an 8 x 8 map over an image of 8 degrees."""
    ids = tuple(sites or (f"s{k}" for k in range(len(positions))))
    network = nn.Sequential(nn.AvgPool2d(4))
    weight = torch.zeros(len(positions), 3, 8, 8)
    for site, (row, column) in enumerate(positions):
        weight[site, :, row, column] = torch.tensor([1.0, -2.0, 0.5])
    n = len(ids)
    scores = pd.DataFrame(
        {
            "r": np.linspace(0.2, 0.8, n),
            "reliability": np.full(n, 0.8),
            "explained_variance": np.linspace(0.1, 0.7, n),
            "n_stimuli": np.full(n, 50),
            "explained_variance_low": np.linspace(0.0, 0.6, n),
            "explained_variance_high": np.linspace(0.2, 0.8, n),
        },
        index=pd.Index(ids, name="site_id"),
    )
    info = SiteInfo(ids, (1.0,) * n, (1.0,) * n, (32, 32), 8.0, "spikes")
    extractor = FeatureExtractor(Backbone("module:Pool", network, input_px=32), "0")
    return SiteModel(extractor, LinearReadout(weight, torch.zeros(n)), info, scores)


def test_a_map_lies_where_the_readout_looks():
    model = looking_at((1, 6), (6, 1))
    maps = receptive_fields(model)
    assert maps.shape == (2, GRID, GRID)
    np.testing.assert_allclose(maps.sum((1, 2)), 1)
    row, column = np.unravel_index(maps[0].argmax(), (GRID, GRID))
    assert (row // 3, column // 3) == (1, 6)
    table = site_table(model)
    # position k of eight, each one degree wide: centers -3.5 ... 3.5, y upward
    np.testing.assert_allclose(table["rf_x_deg"], [2.5, -2.5], atol=1e-6)
    np.testing.assert_allclose(table["rf_y_deg"], [2.5, -2.5], atol=1e-6)
    assert table["rf_sd_deg"].between(0.3, 0.6).all()
    assert list(table)[:4] == ["r", "reliability", "explained_variance", "n_stimuli"]


@pytest.mark.parametrize("floor", [0, 0.02, 0.1])
@pytest.mark.parametrize("cells", [(24, 24), (96, 64)])
def test_faint_weights_far_away_move_neither_center_nor_width(floor, cells):
    """A Gaussian field at the side, on a floor that over the whole map would pull the center to the middle."""
    x, y = ((np.arange(n) + 0.5) / n - 0.5 for n in reversed(cells))
    planted = [
        np.exp(-((x - 2 / 8) ** 2 + (y[:, None] - at) ** 2) * 64 / 2 / sd**2) for at, sd in ((1 / 8, 1), (0, 0.7))
    ]
    table = field_table(np.stack(planted) + floor, 8.0, 8.0)
    np.testing.assert_allclose(table[["rf_x_deg", "rf_y_deg"]], [[2, -1], [2, 0]], atol=0.1)
    np.testing.assert_allclose(table["rf_sd_deg"], [1, 0.7], rtol=0.12 + floor)
    noisy = planted[0] * np.random.default_rng(0).exponential(size=cells)  # as the energy of gradients
    np.testing.assert_allclose(field_table(noisy[None], 8.0, 8.0)[["rf_x_deg", "rf_y_deg"]], [[2, -1]], atol=0.5)


def test_an_even_map_has_no_center():
    assert field_table(np.stack([np.ones((24, 24)), np.zeros((24, 24))]), 8.0, 8.0).isna().all().all()
    whole = looking_at((0, 0))
    whole.readout.weight = torch.ones(1, 3, 1, 1)
    assert site_table(whole).filter(like="rf_").isna().all().all()


def test_members_count_alike_whatever_their_weights():
    near, far = looking_at((0, 0)), looking_at((0, 7))
    far.readout.weight.mul_(100)
    np.testing.assert_allclose(
        receptive_fields(Ensemble([near, far])), (receptive_fields(near) + receptive_fields(far)) / 2
    )


def test_a_site_without_weights_has_no_map():
    model = looking_at((0, 0), (3, 3))
    model.readout.weight[1] = 0
    assert (receptive_fields(model)[1] == 0).all()


@pytest.mark.parametrize("count", [1, 11, 45])
def test_the_picture_opens_for_any_number_of_sites(count):
    picture = Image.open(io.BytesIO(sites_png(looking_at(*[(k % 8, 3) for k in range(count)]))))
    assert picture.width > 800
    assert len(np.unique(np.asarray(picture.convert("L")))) > 50


def test_unscored_sites_are_drawn_too():
    model = looking_at((1, 1), (2, 2))
    model.scores[["reliability", "explained_variance", "explained_variance_low", "explained_variance_high"]] = np.nan
    assert sites_png(model).startswith(b"\x89PNG")
