"""What the tests of images -> responses share: a few natural images, one network, one simulated brain."""

from __future__ import annotations

import contextlib

import numpy as np
import pandas as pd
import pytest
import torch

from neural_fits.backbones import load_backbone
from neural_fits.features import FeatureExtractor
from neural_fits.recordings import SiteRecordings
from neural_fits.simulate import SimulatedBrain
from stimuli import natural_photos


@pytest.fixture(scope="session")
def lite0():
    return load_backbone("efficientnet-lite0")


@pytest.fixture(scope="session")
def photos():
    return natural_photos(160, size_px=64)


@pytest.fixture(scope="session")
def photo_features(photos, lite0):
    return FeatureExtractor(lite0, "blocks.2").extract(photos)


@pytest.fixture(scope="session")
def brain(photos):
    return SimulatedBrain(photos, n_sites=6, seed=0)


@pytest.fixture(scope="session")
def as_recordings():
    """Trials or means (stimulus[, repeat], site) of a stimulus set -> SiteRecordings."""

    def make(responses, stimuli):
        trials = np.asarray(responses, dtype=np.float32)
        trials = trials[:, None] if trials.ndim == 2 else trials
        sites = pd.DataFrame(index=pd.Index([f"s{k}" for k in range(trials.shape[2])], name="site_id"))
        return SiteRecordings(trials, tuple(stimuli.stimulus_ids), sites)

    return make


@pytest.fixture
def global_rng_untouched():
    """A context in which neither numpy's nor torch's global generator may move."""

    @contextlib.contextmanager
    def guard():
        numpy_state, torch_state = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # noqa: NPY002
        yield
        assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
        assert torch.equal(torch.random.get_rng_state(), torch_state)

    return guard
