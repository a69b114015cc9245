"""Small models with known readouts, and images of noise, for the tests of looking inside."""

from __future__ import annotations

import torch

from neural_fits.readout import LinearReadout
from neural_fits.site_model import SiteInfo, SiteModel


def noise(*shape, seed=1):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def model_of(extractor, size_px, sites=3, seed=0, channels=3):
    """Return a model of sites "a", "b", ... with random weights on every position and channel."""
    generator = torch.Generator().manual_seed(seed)
    shape = extractor(torch.zeros(1, channels, *size_px)).shape[1:]
    readout = LinearReadout(torch.randn(sites, *shape, generator=generator), torch.randn(sites, generator=generator))
    info = SiteInfo(tuple("abcdefg"[:sites]), (0.0,) * sites, (1.0,) * sites, size_px, 8.0, "spikes", channels)
    return SiteModel(extractor, readout, info)
