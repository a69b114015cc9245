"""A small experiment whose answer is known, for the tests of control.

Sites a, b and c; natural images with a best response of 12 at each, and four synthesized ones.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import nn

from neural_fits.backbones import Backbone
from neural_fits.features import FeatureExtractor
from neural_fits.readout import LinearReadout
from neural_fits.recordings import SiteRecordings
from neural_fits.site_model import SiteInfo, SiteModel
from stimuli import StimulusSet
from synth.control import evaluate_control
from synth.objectives import OneHot, Stretch

SITES = ("a", "b", "c")
N = 12  # natural images
MADE = 4


def gray_set(levels, ids, **columns):
    """Return uniform images of the given 8-bit codes."""
    codes = np.array(levels, np.uint8)[:, None, None, None] * np.ones((1, 1, 8, 8), np.uint8)
    return StimulusSet.from_arrays(codes, {"stimulus_id": list(ids), **columns})


def luminance_model(gains, sites=SITES, means=None, stds=None):
    """Return a model whose sites respond with a gain times the mean luminance."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1))
    weight = torch.tensor(gains).view(-1, 1, 1, 1) * torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    info = SiteInfo(sites, means or (0.0,) * len(sites), stds or (1.0,) * len(sites), (8, 8), 8.0, "spikes")
    extractor = FeatureExtractor(Backbone("module:Mean", network, input_px=8), "0")
    return SiteModel(extractor, LinearReadout(weight, torch.zeros(len(sites))), info)


def record(means, ids, repeats=4, sites=SITES):
    """Return noiseless recordings."""
    trials = np.repeat(np.asarray(means, dtype=float)[:, None, :], repeats, axis=1)
    return SiteRecordings(trials, tuple(ids), pd.DataFrame(index=pd.Index(sites, name="site_id")), unit="spikes")


NATURAL_IDS = tuple(f"n{k}" for k in range(N))
MADE_IDS = tuple(f"m{k}" for k in range(MADE))
REFERENCE = gray_set(range(50, 50 + N), NATURAL_IDS)
RNG = np.random.default_rng(0)
NATURAL = np.stack([RNG.permutation(N) + 1.0 for _ in SITES], axis=1)  # best natural response 12 at every site
ACHIEVED = np.array([[18.0, 2.0, 5.0], [15.0, 1.0, 9.0], [3.0, 9.0, 1.0], [2.0, 30.0, 2.0]])
LEVELS = (100, 140, 180, 220)


def made_set(objectives):
    return gray_set(
        LEVELS,
        MADE_IDS,
        objective=[repr(objective) for objective in objectives],
        target_site=[objective.target for objective in objectives],
    )


def evaluate(objectives, achieved=ACHIEVED, natural=NATURAL, **options):
    recordings = record(np.concatenate([natural, achieved]), NATURAL_IDS + MADE_IDS)
    arguments = {
        "reference": REFERENCE,
        "recordings": recordings,
        "drivers": [luminance_model([30.0, 20.0, 10.0])],
        "validators": [luminance_model([15.0, 40.0, 10.0])],
        **options,
    }
    return evaluate_control(made_set(objectives), **arguments)


STRETCH = [Stretch("a"), Stretch("a"), Stretch("b"), Stretch("b")]
ONE_HOT = [OneHot("a"), OneHot("a"), OneHot("b"), OneHot("b")]


def softmax_at(z, column):
    power = np.exp(z)
    return power[:, column] / power.sum(1)


def noisy(rng, means, repeats, sd):
    return means[:, None, :] + rng.normal(0, sd, (len(means), repeats, means.shape[1]))
