"""Every Example in the docstrings of the package runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import synth

MODULES = sorted(f"synth.{module.name}" for module in pkgutil.iter_modules(synth.__path__))
WITH_EXAMPLES = {
    *("aperture", "constraints", "driver", "engine", "execution", "folding", "image_objectives", "image_params"),
    *("lucent_bridge", "lucent_views", "natural_statistics", "objectives", "preconditioning", "random_streams"),
    *("closed_loop", "loop_state", "session_plan", "site_overlap", "baselines", "calibration", "judges"),
    *("recipes", "run_folder", "site_objectives", "site_scale", "starts", "store", "synthesize", "transforms"),
}


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
    assert result.attempted > 0 or name.removeprefix("synth.") not in WITH_EXAMPLES
