"""Is this machine fit for use? Versions, device, embedded weights, owners of our import names, free disk.

Called by ``npc doctor``.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

OURS = "neural-population-control"
_NEEDED_GB = 2.0


def examine(folder: str | Path = ".") -> dict[str, Any]:
    """Return what was found, each check with a verdict.

    Parameters
    ----------
    folder : str or Path
        Where results would be written.

    Returns
    -------
    dict
        ``ok``, and ``checks``: a list of ``{"what", "found", "ok"}``.

    Examples
    --------
    >>> {check["what"] for check in examine()["checks"]} >= {"python", "device", "free disk"}
    True
    """
    checks = [_check("python", platform.python_version(), sys.version_info >= (3, 11))]
    for package in (OURS, "torch", "torchvision", "timm", "numpy", "pandas"):
        version = _version(package)
        # Run from a checkout, our own distribution need not be installed.
        checks.append(_check(package, version or "not installed", version is not None or package == OURS))
    checks += [_device(), *_weights(), *_owners(importlib.metadata.packages_distributions())]
    free = shutil.disk_usage(folder).free / 1e9
    checks.append(_check("free disk", f"{free:.0f} GB where results are written", free > _NEEDED_GB))
    return {"ok": all(check["ok"] for check in checks), "checks": checks}


def _check(what: str, found: str, ok: bool) -> dict[str, Any]:
    return {"what": what, "found": found, "ok": bool(ok)}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device() -> dict[str, Any]:
    try:
        import torch

        from neural_fits.fit import best_device

        place = best_device(None)
        name = torch.cuda.get_device_name(place) if place.type == "cuda" else f"{torch.get_num_threads()} threads"
        return _check("device", f"{place} ({name})", True)
    except (ImportError, RuntimeError) as error:
        return _check("device", f"torch does not work: {error}", False)


def _weights() -> list[dict[str, Any]]:
    from neural_fits.backbones import EMBEDDED, load_backbone

    checks = []
    for name in EMBEDDED:
        try:
            found, ok = f"weights {load_backbone(name).weights_sha256[:12]}", True
        except ValueError as error:
            found, ok = str(error), False
        checks.append(_check(name, found, ok))
    return checks


def _owners(distributions: dict[str, list[str]] | Any) -> list[dict[str, Any]]:
    """Check that no other distribution installs a package under one of our names."""
    checks = []
    for name in ("stimuli", "neural_fits", "synth"):
        others = sorted(set(distributions.get(name, [])) - {OURS})
        found = (
            "ours"
            if not others
            else f"also installed by {', '.join(others)}; uninstall it, it would be imported instead"
        )
        checks.append(_check(f"import {name}", found, not others))
    return checks
