"""What MATLAB makes of arrays: reversed axes and cell strings in HDF5 (v7.3), and the format before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from neural_fits.recordings_io._columns import texts
from neural_fits.recordings_io._options import damaged


class Reversed:
    """A MATLAB array inside HDF5 with its axes in the order that MATLAB shows, read when it is asked for."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self.dataset = dataset
        self.dtype = dataset.dtype
        self.shape = tuple(reversed(dataset.shape))
        self.ndim = len(self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(np.asarray(self.dataset[()], dtype=dtype).T)


def is_old_format(path: Path) -> bool:
    """Whether a file is a MATLAB file of versions 5 to 7, which is not HDF5."""
    with path.open("rb") as file:
        return file.read(10) == b"MATLAB 5.0"


def read_old_format(path: Path) -> dict[str, Any]:
    """Read the arrays of a MATLAB file of versions 5 to 7."""
    from scipy.io import loadmat

    try:
        content = loadmat(path, chars_as_strings=True)
    except Exception as error:  # scipy raises whatever its parser stumbles over
        raise damaged(path, "a MATLAB file") from error
    arrays = {name: np.asarray(values) for name, values in content.items() if not name.startswith("__")}
    return {name: _plain_text(values) for name, values in arrays.items()}


def _plain_text(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype != object:
        return np.char.rstrip(values) if values.dtype.kind == "U" else values
    return np.array([_cell_text(np.ravel(cell)[0]) if np.size(cell) else "" for cell in values.ravel()], dtype=object)


def _cell_text(value: Any) -> str:
    """Return what one cell holds as text; NaN is MATLAB's word for nothing."""
    return "" if isinstance(value, np.floating) and np.isnan(value) else texts([value])[0]


def arrays(file: h5py.File) -> dict[str, Any]:
    """Return every array of an HDF5 file by its path; those of MATLAB with its axes and with cell strings as text."""
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or name.startswith("#"):
            return
        if h5py.check_ref_dtype(item.dtype) is not None:
            found[name] = np.array(cell_texts(item), dtype=object)
        elif item.attrs.get("MATLAB_class") == b"char":
            found[name] = np.array([char_text(row) for row in np.atleast_2d(item[()].T)], dtype=object)
        elif "MATLAB_class" in item.attrs:
            found[name] = Reversed(item)
        else:
            found[name] = item

    file.visititems(visit)
    return found


def cell_texts(cells: h5py.Dataset) -> list[str]:
    """Return a cell array of strings, which HDF5 holds as references to arrays of character codes."""
    return [char_text(cells.file[reference][()]) if reference else "" for reference in cells[()].ravel()]


def char_text(codes: Any) -> str:
    """Return the text of an array of character codes; MATLAB stores '' as two zeros of type uint64."""
    array = np.asarray(codes)
    if array.dtype.kind in "SO":
        value = array.ravel()[0] if array.size else b""
        return value.decode() if isinstance(value, bytes) else str(value)
    if array.dtype.kind == "f" and array.size:
        return _cell_text(array.ravel()[0])
    if array.dtype.kind not in "iu" or array.dtype.itemsize > 4:
        return "" if not array.any() else str(array.ravel()[0])
    return array.ravel().astype("<u2").tobytes().decode("utf-16-le").rstrip("\0 ")
