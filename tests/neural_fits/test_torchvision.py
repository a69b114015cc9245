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


def run_with_torchvision(tmp_path, source):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(textwrap.dedent(source))
    program = (
        "from neural_fits._torchvision import import_torchvision\n"
        "import_torchvision()\nimport_torchvision()\nimport torchvision\nprint(torchvision.ready)"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    return subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )


def test_missing_operators_are_declared_once(tmp_path):
    # what torchvision/_meta_registrations.py does: it needs the operator's schema while it is imported
    done = run_with_torchvision(
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
    assert (done.returncode, done.stdout) == (0, "ready\n"), done.stderr


def test_other_errors_of_torchvision_are_not_hidden(tmp_path):
    done = run_with_torchvision(tmp_path, "raise RuntimeError('needs a newer torch')")
    assert done.returncode != 0
    assert "needs a newer torch" in done.stderr
