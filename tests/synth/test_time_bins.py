"""Images for a chosen time bin: a planted site wants light on the left early and on the right late."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from neural_fits.backbones import Backbone
from neural_fits.features import FeatureExtractor
from neural_fits.networks.recurrent import ModularRNN, Wiring
from neural_fits.networks.recurrent_sites import RecurrentSites
from neural_fits.networks.timeline import Timeline
from neural_fits.readout import LinearReadout
from neural_fits.site_model import SiteInfo, SiteModel
from synth import OneHot, Stretch, recipe, synthesize

EARLY, LATE = (0.0, 20.0), (160.0, 200.0)


@pytest.fixture(scope="module")
def planted():
    """Left drives the site at once and inhibits it later; right inhibits it a little at once and drives it later."""
    network = nn.Sequential(nn.AvgPool2d(4))
    extractor = FeatureExtractor(Backbone("module:Pool", network, input_px=16), "0")
    weight = torch.zeros(2, 3, 4, 4)
    weight[0, :, :, :2], weight[0, :, :, 2:] = 1 / 6, -1 / 6  # light on the left less light on the right
    weight[1] = -weight[0]
    size = {"size_px": (16, 16), "size_deg": 4.0}
    inputs = SiteModel(
        extractor,
        LinearReadout(weight, torch.zeros(2)),
        SiteInfo(("left", "right"), (0.5,) * 2, (0.1,) * 2, **size, unit="1"),
    )
    dynamics = ModularRNN(Wiring(("near", "far"), units=2, link_density=1.0, feedback=False), 2, tau_ms=20)
    for parameter in dynamics.parameters():
        parameter.data.zero_()
    dynamics.inputs.data = torch.eye(2)
    dynamics.recurrent.data[2:, :2] = 2 * torch.eye(2)  # far copies near, later
    read = torch.tensor([[3.0, -3.0, -6.0, 6.0], [0.0, 1.0, 0.0, 0.0]])[:, :, None, None]
    bins = (EARLY, (20.0, 160.0), LATE)
    info = SiteInfo(("site", "other"), (0.5,) * 2, (0.2,) * 2, **size, unit="spikes/s")
    statistics = torch.full((2, 3), 0.3), torch.full((2, 3), 0.2)
    return RecurrentSites(
        inputs, dynamics, LinearReadout(read, torch.zeros(2)), Timeline(bins, step_ms=5), info, *statistics
    )


def test_an_image_for_an_early_bin_wins_early_and_one_for_a_late_bin_late(planted):
    made = {}
    for label, window in (("early", EARLY), ("late", LATE)):
        chosen = recipe("robust", start="uniform", steps=60)
        made[label] = synthesize(planted.at(window), Stretch("site"), seeds=1, recipe=chosen).stimuli
    early, late = (planted.predict(made[label])[:, 0] for label in ("early", "late"))
    assert early[:, 0].min() > late[:, 0].max()
    assert late[:, 2].min() > early[:, 2].max() + 0.2
    left = [made[label].images()[..., :8].mean() - made[label].images()[..., 8:].mean() for label in ("early", "late")]
    assert left[0] > 0.05
    assert left[1] < -0.05
    # the response that the synthesis forecasts is that of the whole model, on the saved 8-bit image
    np.testing.assert_allclose(made["late"].table["forecast_response"], late[:, 2], atol=1e-4)


def test_sites_of_several_bins_are_sites_like_any_other(planted):
    model = planted.at([EARLY, LATE])
    assert model.site_ids == ("site@0-20ms", "other@0-20ms", "site@160-200ms", "other@160-200ms")
    only_late = OneHot("site@160-200ms")
    made = synthesize(model, only_late, seeds=1, recipe=recipe("robust", steps=10))
    assert made.stimuli.table["target_site"].tolist() == ["site@160-200ms"]
    np.testing.assert_allclose(model.predict(made.stimuli)[:, 2], planted.predict(made.stimuli)[:, 0, 2], atol=1e-5)
