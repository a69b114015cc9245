"""The house itself: what the packages export, and what importing them costs."""

import importlib
import subprocess
import sys

import pytest

PACKAGES = ("stimuli", "neural_fits", "synth")


@pytest.mark.parametrize("name", PACKAGES)
def test_every_exported_name_exists_and_is_documented(name):
    package = importlib.import_module(name)
    assert package.__all__ == sorted(package.__all__)
    assert len(package.__all__) <= 20
    for member in package.__all__:
        assert getattr(package, member).__doc__, f"{name}.{member} has no docstring"


@pytest.mark.parametrize("name", PACKAGES)
def test_import_is_lazy(name):
    script = f"import {name}, sys; sys.exit(len({{'torch', 'pandas', 'timm', 'matplotlib'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_globals_of_random_generators_are_never_seeded():
    from pathlib import Path

    for package in PACKAGES:
        folder = Path(importlib.import_module(package).__file__).parent
        for file in folder.rglob("*.py"):
            text = file.read_text()
            assert "manual_seed(" not in text.replace("Generator().manual_seed(", ""), file
            assert "np.random.seed" not in text, file
