"""Every Example in the docstrings of the package runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import synth

MODULES = sorted(f"synth.{module.name}" for module in pkgutil.iter_modules(synth.__path__))
WITH_EXAMPLES = {"constraints", "image_params", "objectives", "recipes", "synthesize", "transforms"}


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
    assert result.attempted > 0 or name.removeprefix("synth.") not in WITH_EXAMPLES
