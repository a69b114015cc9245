"""Open an NWB file with pynwb, whose warnings concern its makers and whose errors are many."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neural_fits.recordings_io._options import damaged


def require_pynwb() -> None:
    """Raise with a way out where pynwb is not installed."""
    try:
        import pynwb  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "NWB files need pynwb, which is not installed; python -m pip install 'neural-population-control[nwb]'."
        ) from error


@contextlib.contextmanager
def open_nwb(path: Path) -> Iterator[Any]:
    """Yield the NWBFile; what it holds is read from the disk as long as the block lasts."""
    require_pynwb()
    from pynwb import NWBHDF5IO

    with contextlib.ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            io = stack.enter_context(NWBHDF5IO(path=str(path), mode="r", load_namespaces=True))
            nwb = io.read()
        except Exception as error:  # hdmf lets through whatever its parts raise
            extension = re.search(r"'([\w-]+)' not a namespace", str(error))
            if extension:
                raise ValueError(
                    f"{path.name!r} uses the NWB extension {extension[1]!r} without carrying its specification; "
                    "install the Python package of that name, or export the file again with its specifications."
                ) from error
            raise damaged(path, "NWB") from error
        yield nwb


def plain_columns(table: Any) -> dict[str, Any]:
    """Return the columns of a dynamic table that hold one number or text per row."""
    from hdmf.common import DynamicTableRegion, VectorIndex

    ragged = {c.target.name for c in table.columns if isinstance(c, VectorIndex)}
    found = {}
    for column in table.columns:
        if isinstance(column, VectorIndex | DynamicTableRegion) or column.name in ragged:
            continue
        values = _values(column.data)
        if values is not None and len(values) == len(table):
            found[column.name] = values
    return found


def _values(data: Any) -> Any:
    import numpy as np

    array = np.asarray(data[:]) if len(data) else np.empty(0)
    if array.ndim != 1 or array.dtype.kind not in "biufSUO":
        return None
    if array.dtype.kind in "biuf":
        return array
    cells = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in array.tolist()]
    if not all(v is None or isinstance(v, str) for v in cells):
        return None
    return np.array(cells, dtype=object)
