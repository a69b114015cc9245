"""Import torchvision even where a CPU build of torch meets a CUDA build of torchvision.

On Linux a registry may pair a CPU-only torch with a torchvision whose compiled operators link to CUDA. Its import then
stops with "operator torchvision::nms does not exist", and timm with it. None of our networks uses those operators, so
declaring two of them empty is enough. With a working torchvision they must never be declared: the process would abort.
"""

from __future__ import annotations

import sys

_keep_alive: list[object] = []


def import_torchvision() -> None:
    """Import torchvision, declaring its missing operators when, and only when, the plain import fails."""
    import torch

    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [module for module in sys.modules if module.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _keep_alive.append(library)
        import torchvision  # noqa: F401
