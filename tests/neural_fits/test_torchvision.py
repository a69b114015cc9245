from __future__ import annotations

import os
import subprocess
import sys
import textwrap

from neural_fits._torchvision import _keep_alive, import_torchvision


def test_working_torchvision_keeps_its_own_operators():
    import_torchvision()
    import torch
    import torchvision

    # a plain wheel runs nms; had we declared it empty, no backend would answer
    if not _keep_alive:
        boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.9]])
        assert torchvision.ops.nms(boxes, torch.tensor([0.5, 0.9]), 0.5).tolist() == [1]


PROGRAM = """
import torch
from neural_fits._torchvision import import_torchvision
try:
    import_torchvision()
    import_torchvision()
    import torchvision
    print(torchvision.ready)
except RuntimeError as error:
    print(error)
print(hasattr(torch.ops.torchvision, "nms"))
"""


def run_with_torchvision(tmp_path, source):
    """Run the program with a torchvision of our own, and return its lines."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(textwrap.dedent(source))
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_missing_operators_are_declared_once(tmp_path):
    # what torchvision does while it is imported: it needs the operators' schemas
    lines = run_with_torchvision(
        tmp_path,
        """
        import torch
        try:
            torch.ops.torchvision.nms, torch.ops.torchvision.qnms
        except AttributeError as error:
            raise RuntimeError("operator torchvision::nms does not exist") from error
        ready = "ready"
        """,
    )
    assert lines == ["ready", "True"]


def test_other_errors_of_torchvision_are_not_hidden(tmp_path):
    lines = run_with_torchvision(tmp_path, "raise RuntimeError('needs a newer torch')")
    assert lines == ["needs a newer torch", "False"]


def test_operators_are_not_declared_where_they_are_not_missing(tmp_path):
    assert run_with_torchvision(tmp_path, "ready = 'ready'") == ["ready", "False"]
