"""Every Example in the docstrings of the package runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import neural_fits

MODULES = sorted(module.name for module in pkgutil.walk_packages(neural_fits.__path__, "neural_fits."))
WITH_EXAMPLES = {
    *("alternating", "backbones", "corrections", "ensembles", "factorized", "features", "fit", "folds", "gaussian"),
    *("intervals", "local", "loo", "pls", "preprocessing", "readout", "reliability", "ridge", "scores", "simulate"),
    "site_model",
}


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
    if name.removeprefix("neural_fits.") in WITH_EXAMPLES:
        assert result.attempted > 0
