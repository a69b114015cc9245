"""Pictures sorted into sub-folders, one a class, as a stimulus set with the column label."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stimuli import _crops
from stimuli.photos import image_files
from stimuli.provenance import provenance_record, sha256_file
from stimuli.stimulus_set import StimulusSet


def images_by_class(folder: str | os.PathLike[str], size_px: int = 224, *, size_deg: float = 8.0) -> StimulusSet:
    """
    Read one sub-folder a class, the convention of torchvision's ``ImageFolder``.

    Pictures of any size are turned upright, cut to the largest central square and resized (Lanczos).

    Parameters
    ----------
    folder : path
        Folder whose sub-folders hold bmp, jpg, png, tif or webp images; their names are the classes. Hidden ones are
        passed over.
    size_px : int
        Height and width of the images.
    size_deg : float
        Their width on the screen in degrees of visual angle.

    Returns
    -------
    StimulusSet
        RGB images with the columns label, file and photograph (the file: each is a group of its own), in the order of
        classes and names.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or a class holds no image.
    ValueError
        If there are fewer than two classes, or an image cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     for k, name in enumerate(("cat", "dog")):
    ...         (Path(place) / name).mkdir()
    ...         Image.radial_gradient("L").rotate(90 * k).save(f"{place}/{name}/1.png")
    ...     images_by_class(place, 64).table["label"].tolist()
    ['cat', 'dog']
    """
    place = Path(folder)
    if not place.is_dir():
        raise FileNotFoundError(f"There is no folder {place}: give a folder with one sub-folder a class.")
    classes = sorted(each for each in place.iterdir() if each.is_dir() and not each.name.startswith("."))
    if len(classes) < 2:
        raise ValueError(f"{place} has {len(classes)} sub-folder(s): make one for each class, at least two.")
    files = [(each.name, path) for each in classes for path in image_files(each)]
    names = [f"{label}/{path.name}" for label, path in files]
    return StimulusSet.from_arrays(
        np.stack([_square(path, size_px) for _, path in files]),
        {
            "stimulus_id": [f"image_{k:05d}" for k in range(len(files))],
            "label": [label for label, _ in files],
            "file": names,
            "photograph": names,
        },
        size_deg=size_deg,
        provenance=provenance_record(
            inputs={name: sha256_file(path) for name, (_, path) in zip(names, files, strict=True)}
        ),
        name=place.resolve().name,
    )


def _square(path: Path, size_px: int) -> NDArray[np.uint8]:
    image = _crops.open_photo(path, "RGB")
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size_px, size_px), Image.Resampling.LANCZOS, box=box)).transpose(2, 0, 1)
