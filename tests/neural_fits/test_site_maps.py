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
from neural_fits.site_maps import GRID, receptive_fields, site_table, sites_png
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
