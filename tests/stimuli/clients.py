"""Real programs that read what we write: where they are, and how to run them.

Those of the extra ``dev`` lie beside the interpreter; PsychoPy and Brain-Score are installed by .ci/clients FOLDER,
and the environment variable NPC_CLIENTS names that folder. A client that is not there skips its tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def client_folder(name):
    """Return the folder of a client that .ci/clients installs; where it was installed, none may be missing."""
    root = os.environ.get("NPC_CLIENTS")
    if not root:
        pytest.skip(f"{name} is not installed: run .ci/clients FOLDER and set NPC_CLIENTS=FOLDER")
    folder = Path(root) / name
    assert folder.is_dir(), f"NPC_CLIENTS has no {name}: run .ci/clients {root}"
    return folder


def tool(name):
    """Return a command of the extra dev."""
    path = Path(sys.executable).with_name(name)
    if not path.is_file():
        pytest.skip(f"{name} is not installed: python -m pip install -e '.[dev]'")
    return path


def run(command, home, **environment):
    """Run a client in a process of its own and return what it printed."""
    settings = {**os.environ, "HOME": str(home), "PYTHONWARNINGS": "ignore", **environment}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=settings, check=False)
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def psychopy(script, home, *arguments):
    """Run a script with PsychoPy and return the JSON value of the last line that it prints."""
    folder = client_folder("psychopy")
    printed = run([sys.executable, "-c", script, *arguments], home, PYTHONPATH=str(folder))
    return json.loads(printed.splitlines()[-1])


def brainscore(script, home, *arguments):
    """Run a script with Brain-Score and return the JSON value of the last line that it prints."""
    python = client_folder("brainscore") / "bin" / "python"
    return json.loads(run([python, "-c", script, *arguments], home).splitlines()[-1])


def bids_errors(dataset, home):
    """Return the errors of the BIDS validator as (code, file)."""
    settings = {**os.environ, "HOME": str(home)}
    command = [str(tool("bids-validator-deno")), "--json", str(dataset)]
    done = subprocess.run(command, capture_output=True, text=True, env=settings, check=False)
    found = json.loads(done.stdout)["issues"]["issues"]
    errors = [(issue["code"], issue.get("location")) for issue in found if issue["severity"] == "error"]
    assert (done.returncode == 0) == (not errors), done.stderr
    return errors


def nwb_findings(file, home):
    """Return the findings of nwbinspector that are CRITICAL or ERROR, by the name of the check."""
    report = Path(home) / "inspected.json"
    command = [tool("nwbinspector"), file, "--json-file-path", report, "--overwrite"]
    run(command, home)
    messages = json.loads(report.read_text())["messages"]
    assert messages, "nwbinspector always has a suggestion, so it has not looked at the file"
    return {m["check_function_name"] for m in messages if m["importance"] in ("CRITICAL", "ERROR")}
