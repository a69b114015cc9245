"""Images from the files that recordings come in, under the ids that the recordings use."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from neural_fits.recordings_io import npc_v4
from neural_fits.recordings_io._options import choose, damaged, numbered
from stimuli import StimulusSet, provenance_record
from stimuli.nwb_files import image_sources, open_nwb, plain_columns
from stimuli.provenance import sha256_file

__all__ = ["load_stimuli"]

_GRAY = 128


def load_stimuli(
    path: str | os.PathLike[str], dataset: str | None = None, size_deg: float | None = None
) -> StimulusSet:
    """Read the images inside a file of recordings, with the stimulus ids that reading its recordings gives.

    Parameters
    ----------
    path : path-like
        An NWB file with Images or ImageSeries, or ``npc_v4_data.h5``.
    dataset : str, optional
        Which images, where the file holds several sets.
    size_deg : float, optional
        Width of the images on the screen in degrees of visual angle. Needed where the file does not say; NWB trials
        may, in a column `stimulus_size_degrees`.

    Returns
    -------
    StimulusSet
        The images in the order of the file. Transparency is shown on gray; gray images among colored ones become RGB.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If the file is NWB and pynwb is not installed.
    ValueError
        If the file holds no images, several sets of them, images of different sizes, or does not say how large they
        were shown.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     with h5py.File(f"{place}/npc_v4_data.h5", "w") as file:
    ...         file["images/naturalistic"] = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    ...         file["neural/naturalistic/monkey_m/ohp/session_1"] = np.zeros((5, 2, 1))
    ...     load_stimuli(f"{place}/npc_v4_data.h5", size_deg=8.0).stimulus_ids
    ['naturalistic_0001', 'naturalistic_0002']
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file at {str(file)!r}; check the path.")
    if file.suffix.lower() == ".nwb":
        arrays, ids, name, known_deg = _from_nwb(file, dataset)
    elif file.suffix.lower() in (".h5", ".hdf5", ".mat"):
        arrays, ids, name, known_deg = _from_npc_v4(file, dataset)
    else:
        raise ValueError(f"{file.name!r} ends in {file.suffix!r}; images are read from .nwb files and npc_v4_data.h5.")
    if size_deg is None and known_deg is None:
        raise ValueError(
            f"{file.name!r} does not say how large its images were on the screen; give their width in degrees of "
            "visual angle, for instance size_deg=8.0."
        )
    return StimulusSet.from_arrays(
        _codes(arrays, ids, file),
        {"stimulus_id": ids},
        size_deg=float(known_deg if size_deg is None else size_deg),  # type: ignore[arg-type]  # one of them is known
        provenance=provenance_record(inputs={file.name: sha256_file(file)}),
        name=name,
    )


def _from_nwb(path: Path, dataset: str | None) -> tuple[list[NDArray[Any]], list[str], str, float | None]:
    with open_nwb(path) as nwb:
        sources = image_sources(nwb)
        if not sources:
            raise ValueError(
                f"{path.name!r} holds no images (Images or ImageSeries with pixels); read them from a folder instead."
            )
        name = choose(dataset, list(sources), path, "sets of images")
        source = sources[name]
        if hasattr(source.container, "images"):
            arrays = [np.asarray(source.container.images[i].data[:]) for i in source.ids]
        else:
            arrays = list(np.asarray(source.container.data[:]))
        return arrays, list(source.ids), name, _shown_deg(nwb)


def _shown_deg(nwb: Any) -> float | None:
    columns = {} if nwb.trials is None else plain_columns(nwb.trials)
    sizes = np.unique(np.asarray(columns.get("stimulus_size_degrees", []), dtype=float))
    return float(sizes[0]) if len(sizes) == 1 and np.isfinite(sizes[0]) else None


def _from_npc_v4(path: Path, dataset: str | None) -> tuple[list[NDArray[Any]], list[str], str, float | None]:
    try:
        with h5py.File(path, "r") as file:
            if "images" not in file or not npc_v4.recognizes(file):
                raise ValueError(
                    f"{path.name!r} is not laid out as npc_v4_data.h5 (groups images and neural), so its images "
                    "cannot be told; read them from a folder instead."
                )
            kind = choose(dataset, sorted(file["images"]), path, "sets of images")
            arrays: list[NDArray[Any]] = []
            ids: list[str] = []
            for where, data in npc_v4.image_arrays(file, kind):
                ids += numbered(npc_v4.image_prefix(kind, where), len(data))
                arrays += list(data[()])
            return arrays, ids, kind, None
    except (OSError, KeyError, RuntimeError) as error:
        raise damaged(path, "HDF5") from error


def _codes(arrays: list[NDArray[Any]], ids: Iterable[str], path: Path) -> NDArray[Any]:
    """Return images (n, c, h, w) as 8-bit codes, or as floating point in [0, 1]."""
    shapes = {name: a.shape[:2] for name, a in zip(ids, arrays, strict=True)}
    first = next(iter(shapes), None)
    odd = next((name for name, shape in shapes.items() if shape != shapes[first]), None) if first else None
    if first is None or odd is not None:
        detail = f"{first!r} has {shapes[first]}, {odd!r} has {shapes[odd]}" if first and odd else "there are none"
        raise ValueError(
            f"the images of {path.name!r} differ in height and width ({detail}); bring them to one size first."
        )
    channels = max((a.shape[2] if a.ndim == 3 else 1) for a in arrays)
    fraction = all(a.dtype.kind == "f" and a.max(initial=0.0) <= 1.0 for a in arrays)  # else codes, whatever their type
    images = np.stack([_colored(a, 3 if channels > 1 else 1, 1.0 if fraction else 255.0) for a in arrays])
    if not images.min(initial=0.0) >= 0 or images.max(initial=0.0) > 255:
        raise ValueError(
            f"the images of {path.name!r} hold values from {images.min():g} to {images.max():g}; 0 to 1 or 0 to 255 is "
            "expected."
        )
    stacked = images.transpose(0, 3, 1, 2)
    return stacked if fraction else np.rint(stacked).astype(np.uint8)


def _colored(image: NDArray[Any], channels: int, white: float) -> NDArray[np.float32]:
    pixels = (image[..., None] if image.ndim == 2 else image).astype(np.float32)
    if pixels.shape[2] in (2, 4):  # the last channel is opacity
        alpha = pixels[..., -1:] / white
        pixels = alpha * pixels[..., :-1] + (1 - alpha) * np.float32(_GRAY / 255 * white)
    return np.repeat(pixels, channels, axis=2) if pixels.shape[2] < channels else pixels
