"""Every Example in the docstrings of the package runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import stimuli

MODULES = sorted(module.name for module in pkgutil.walk_packages(stimuli.__path__, "stimuli."))


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
    if name in ("stimuli.stimulus_set", "stimuli.display", "stimuli.files", "stimuli.photos"):
        assert result.attempted > 0
