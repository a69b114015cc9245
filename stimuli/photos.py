"""Natural images: crops of the real photographs inside installed packages, or of a user's own folder."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from stimuli import _crops
from stimuli.provenance import provenance_record, sha256_file
from stimuli.stimulus_set import StimulusSet

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Photograph:
    """
    A photograph that ships inside an installed package.

    Parameters
    ----------
    name : str
        Name used in the column photograph.
    package : str
        The import package that holds it.
    file : str
        Path of the file inside the package.
    origin : str
        Author or source and licence, as its package states them.

    Examples
    --------
    >>> EMBEDDED_PHOTOGRAPHS[0].name
    'astronaut'
    """

    name: str
    package: str
    file: str
    origin: str


# Only photographs of scenes, objects and surfaces. Left out of the same folders: text, drawings, test patterns, medical
# and microscope images, the motion-blurred clock (no detail) and motorcycle_right (the same scene as motorcycle_left).
EMBEDDED_PHOTOGRAPHS: tuple[Photograph, ...] = (
    Photograph("astronaut", "skimage", "data/astronaut.png", "NASA Great Images; public domain"),
    Photograph("brick", "skimage", "data/brick.png", "CC0Textures, Bricks25; CC0"),
    Photograph("camera", "skimage", "data/camera.png", "Lav Varshney; CC0"),
    Photograph("chelsea", "skimage", "data/chelsea.png", "Stefan van der Walt; CC0"),
    Photograph("coffee", "skimage", "data/coffee.png", "Rachel Michetti; CC0"),
    Photograph("coins", "skimage", "data/coins.png", "Brooklyn Museum; no known copyright restrictions"),
    Photograph("grass", "skimage", "data/grass.png", "scikit-image, see skimage.data.grass; CC0"),
    Photograph("gravel", "skimage", "data/gravel.png", "CC0Textures, Gravel04; CC0"),
    Photograph("hubble_deep_field", "skimage", "data/hubble_deep_field.jpg", "NASA, hubblesite.org; public domain"),
    Photograph("moon", "skimage", "data/moon.png", "scikit-image, see skimage.data.moon; source not stated"),
    Photograph("motorcycle", "skimage", "data/motorcycle_left.png", "Middlebury Stereo 2014; terms not stated"),
    Photograph("rocket", "skimage", "data/rocket.jpg", "SpaceX Photos; public domain"),
    Photograph("china", "sklearn", "datasets/images/china.jpg", "danielbuechele, flickr 6061409035; CC BY 2.0"),
    Photograph("flower", "sklearn", "datasets/images/flower.jpg", "vultilion, flickr 6056698931; CC BY 2.0"),
)


def natural_photos(n: int = 640, size_px: int = 128, *, channels: int = 3, seed: int = 0) -> StimulusSet:
    """
    Cut square crops at many scales from the photographs inside scikit-image and scikit-learn.

    Window sides are log-uniform from ``max(0.75 * size_px, 64)`` px to the short side of the photograph, at random
    places, half of them mirrored, resampled by an antialiased Lanczos filter. Nearly uniform crops (RMS contrast below
    0.05) and exact copies are rejected. Photographs contribute in proportion to the square root of their area, none
    less than half an equal share. Split such sets by the column photograph: crops of one photograph are related.

    Parameters
    ----------
    n : int
        Number of crops.
    size_px : int
        Height and width of the crops in pixels, at most 400 for these photographs.
    channels : int
        3 for RGB (gray photographs repeated), 1 for the luma (ITU-R BT.601).
    seed : int
        Seed of the drawing; the same seed gives the same images.

    Returns
    -------
    StimulusSet
        n images with the columns photograph, family, crop_x_px, crop_y_px, crop_side_px and mirrored.

    Raises
    ------
    FileNotFoundError
        If a photograph is missing from its package.
    ValueError
        If a number is out of range or so many distinct crops cannot be drawn.

    Examples
    --------
    >>> photos = natural_photos(8, 64, seed=1)
    >>> len(photos), photos.shape
    (8, (3, 64, 64))
    """
    found = [(photo.name, _locate(photo)) for photo in EMBEDDED_PHOTOGRAPHS]
    origins = {photo.name: photo.origin for photo in EMBEDDED_PHOTOGRAPHS}
    return _crop_set(found, n, size_px, channels, seed, "natural photographs", origins)


def photos_from_folder(
    folder: str | os.PathLike[str], n: int = 640, size_px: int = 128, *, channels: int = 3, seed: int = 0
) -> StimulusSet:
    """
    Cut the crops of `natural_photos` from the images of a folder.

    Parameters
    ----------
    folder : path
        Folder with bmp, jpg, png, tif or webp images; sub-folders are not searched. Images are turned upright by their
        EXIF orientation, transparency is shown on gray, and the file name is the column photograph.
    n : int
        Number of crops.
    size_px : int
        Height and width of the crops in pixels.
    channels : int
        3 for RGB, 1 for the luma (ITU-R BT.601).
    seed : int
        Seed of the drawing; the same seed and files give the same images.

    Returns
    -------
    StimulusSet
        n images with the columns photograph, family, crop_x_px, crop_y_px, crop_side_px and mirrored.

    Raises
    ------
    FileNotFoundError
        If there is no such folder or no image in it.
    ValueError
        If an image cannot be read or is too small, a number is out of range, or so many distinct crops cannot be drawn.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as place:
    ...     Image.radial_gradient("L").save(f"{place}/disc.png")
    ...     photos = photos_from_folder(place, n=2, size_px=64)
    >>> photos.table["photograph"].tolist()
    ['disc.png', 'disc.png']
    """
    found = [(path.name, path) for path in image_files(folder)]
    return _crop_set(found, n, size_px, channels, seed, Path(folder).resolve().name, None)


def image_files(folder: str | os.PathLike[str]) -> list[Path]:
    """
    List the images of a folder by their endings, in the order of their names.

    Parameters
    ----------
    folder : path
        Folder with bmp, jpg, png, tif or webp images; sub-folders and hidden files are passed over.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    FileNotFoundError
        If there is no such folder or no image in it.
    """
    place = Path(folder)
    if not place.is_dir():
        raise FileNotFoundError(f"There is no folder {place}: give a folder of images.")
    paths = sorted(p for p in place.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES)
    found = [path for path in paths if not path.name.startswith(".")]
    if not found:
        raise FileNotFoundError(f"{place} holds no image: put {', '.join(SUFFIXES)} files into it.")
    return found


def _crop_set(
    found: list[tuple[str, Path]],
    n: int,
    size_px: int,
    channels: int,
    seed: int,
    name: str,
    origins: dict[str, str] | None,
) -> StimulusSet:
    codes, columns = _crops.draw(found, n, size_px, channels, seed)
    config: dict[str, object] = {"n": n, "size_px": size_px, "channels": channels}
    if origins is not None:
        config["origins"] = origins
    record = provenance_record(seed=seed, config=config, inputs={key: sha256_file(path) for key, path in found})
    return StimulusSet.from_arrays(codes, columns, provenance=record, name=name)


def _locate(photo: Photograph) -> Path:
    # find_spec of a top-level package runs none of its code; importing skimage or sklearn takes seconds.
    spec = importlib.util.find_spec(photo.package)
    for place in (spec.submodule_search_locations or []) if spec else []:
        path = Path(place) / photo.file
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"The photograph {photo.name} ({photo.package}/{photo.file}) is not installed: reinstall scikit-image and "
        "scikit-learn, or use photos_from_folder."
    )
