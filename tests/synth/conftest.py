"""Tiny networks whose answers can be written down."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from command_line import make_lab
from torch import nn

from neural_fits.backbones import Backbone
from neural_fits.features import FeatureExtractor
from neural_fits.readout import LinearReadout
from neural_fits.site_model import SiteInfo, SiteModel


@pytest.fixture
def tiny_model() -> Callable[..., SiteModel]:
    """Make a site model on a two-layer convolutional network with random weights."""

    def make(sites=("a", "b", "c"), size_px=(32, 32), seed=0, size_deg=6.5):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = nn.Sequential(
                nn.Conv2d(3, 4, 5, stride=2), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 6, 1)
            )
            extractor = FeatureExtractor(Backbone("module:Tiny", network, (0.5,) * 3, (0.25,) * 3, size_px[0]), "3")
            shape = extractor(torch.zeros(1, 3, *size_px)).shape[1:]
            readout = LinearReadout(torch.randn(len(sites), *shape), torch.randn(len(sites)))
        spread = tuple(0.5 + 0.25 * k for k in range(len(sites)))
        info = SiteInfo(tuple(sites), (0.1,) * len(sites), spread, tuple(size_px), size_deg, "spikes")
        return SiteModel(extractor, readout, info)

    return make


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A lab's folder: natural set, recordings, and a fitted driver and validator; and the brain."""
    return make_lab(tmp_path_factory.mktemp("lab"))
