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
WITHOUT_EXAMPLES = {"inspection.spectral_pictures", "networks.recurrent_files"}  # they draw, and read files


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
    short = name.removeprefix("neural_fits.")
    looks_inside = short.startswith(("inspection.", "networks.")) and "._" not in short
    if short in WITH_EXAMPLES or (looks_inside and short not in WITHOUT_EXAMPLES):
        assert result.attempted > 0
