"""Reading what was saved: a manifest in JSON that states its format, and tensors that must be the ones it names.

In: paths. Out: a dict, tensors by name; or one sentence. Used by all that is saved as JSON beside tensors.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from stimuli.provenance import sha256_bytes


def read_manifest(
    path: Path, what: str, newest: int, absent: str, damaged: str, form: str | None = None
) -> dict[str, Any]:
    """Read a manifest that this version understands.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        What was saved, for the error about a newer format.
    newest : int
        The highest ``format_version`` that is understood.
    absent, damaged : str
        What to say when there is no file, and when it is no such manifest.
    form : str, optional
        What ``format`` must be.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    FileNotFoundError
        When there is no file.
    ValueError
        When it is damaged, of another kind, or of a newer format.
    """
    if not path.is_file():
        raise FileNotFoundError(absent)
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        version = int(manifest["format_version"])
        if form is not None and manifest["format"] != form:
            raise ValueError(f"its format is {manifest['format']!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(damaged) from error
    if version > newest:
        raise ValueError(
            f"the {what} in {str(path.parent)!r} has format {version}, this version reads up to {newest}; update"
        )
    return manifest


def read_tensors(path: Path, sha256: object, what: str) -> dict[str, Tensor]:
    """Read a file of tensors that must still be the one that was written.

    Parameters
    ----------
    path : Path
        A safetensors file.
    sha256 : object
        The hash of the file that a manifest states.
    what : str
        What was saved, for the error.

    Returns
    -------
    dict of Tensor
        Tensors by name.

    Raises
    ------
    ValueError
        When the file is missing, was changed, or holds something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = path.read_bytes() if path.is_file() else b""
    if not data or sha256_bytes(data) != sha256:
        raise ValueError(f"{str(path)!r} is missing or was changed since the {what} was saved; make it again")
    try:
        return load(data)
    except SafetensorError as error:
        raise ValueError(f"{str(path)!r} holds no tensors ({error}); make it again") from error
