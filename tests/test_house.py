"""The house itself: what the packages export, and what importing them costs."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from numpydoc.validate import validate

PACKAGES = ("stimuli", "neural_fits", "synth")
SUBPACKAGES = ("neural_fits.inspection", "neural_fits.networks")


@pytest.mark.parametrize("name", PACKAGES + SUBPACKAGES)
def test_every_exported_name_exists_and_is_documented(name):
    package = importlib.import_module(name)
    assert package.__all__ == sorted(package.__all__)
    assert len(package.__all__) <= 20
    for member in package.__all__:
        assert getattr(package, member).__doc__, f"{name}.{member} has no docstring"


@pytest.mark.parametrize("name", PACKAGES + SUBPACKAGES)
def test_import_is_lazy(name):
    script = f"import {name}, sys; sys.exit(len({{'torch', 'pandas', 'timm', 'matplotlib'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_globals_of_random_generators_are_never_seeded():
    for package in PACKAGES:
        folder = Path(importlib.import_module(package).__file__).parent
        for file in folder.rglob("*.py"):
            text = file.read_text()
            assert "manual_seed(" not in text.replace("Generator().manual_seed(", ""), file
            assert "np.random.seed" not in text, file


#: sections present, parameters and returns described, summaries in the imperative; RT04 dislikes "x (to the right)"
DOCSTRING_CHECKS = {
    *("GL01", "GL02", "GL03", "GL05", "GL06", "GL07", "SS01", "SS02", "SS03", "SS04", "SS05"),
    *("PR01", "PR02", "PR03", "PR05", "PR10", "RT01", "RT03", "RT05"),
}


def public_members():
    for package in PACKAGES:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            private = any(part.startswith("_") for part in module.name.split("."))
            if private or module.name.startswith(("synth.cli", "synth.commands")):
                continue  # the text of a command is its --help
            for name, member in vars(importlib.import_module(module.name)).items():
                if name.startswith("_") or getattr(member, "__module__", None) != module.name:
                    continue
                if inspect.isfunction(member) or (inspect.isclass(member) and not getattr(member, "_is_protocol", 0)):
                    yield f"{module.name}.{name}"
                    kinds = (property, classmethod, staticmethod)
                    for key, value in vars(member).items() if inspect.isclass(member) else ():
                        if not key.startswith("_") and (inspect.isfunction(value) or isinstance(value, kinds)):
                            yield f"{module.name}.{name}.{key}"


def test_docstrings_are_complete():
    members = list(public_members())
    assert len(members) > 200
    wrong = {name: [e for e in validate(name)["errors"] if e[0] in DOCSTRING_CHECKS] for name in members}
    assert {name: errors for name, errors in wrong.items() if errors} == {}


ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{each.name}" for each in (ROOT / "docs").glob("*.md"))])
def test_links_of_the_documents_lead_somewhere(page):
    file = ROOT / page
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", file.read_text())
    missing = [link for link in links if not link.startswith("http") and not (file.parent / link).exists()]
    assert not missing
