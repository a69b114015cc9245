"""Train a U-Net to tell objects from their surroundings and from each other, and score it.

In: images and maps of objects (0 is the background). Out: a trained network and the course of its loss.
The loss is the weighted cross-entropy of 2015, training images are deformed elastically.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from neural_fits.networks.elastic import elastic, flipped
from neural_fits.networks.overlap_tile import overlap_tile, untiled
from neural_fits.networks.unet import UNet

#: called with steps done, steps in all, and the loss
Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class SegmentationConfig:
    """How a segmentation is learned.

    Adam with a learning rate that falls to zero along a cosine takes the place of the stochastic gradient descent of
    2015 (momentum 0.99), which needs thousands of steps.

    Parameters
    ----------
    steps : int
        Gradient steps.
    batch : int
        Images a step.
    learning_rate : float
        At the first step.
    border_weight, border_sigma_px : float
        Height and width of the extra weight between objects, see `weight_map`; a weight of 0 leaves it out. The width
        of 2015 is 5, on tiles of 572 pixels; the default suits images of 64 to 128.
    elastic_px : float
        Size of the random deformations, see `elastic`; 0 leaves them out. 10 is that of 2015, on tiles of 572 pixels.
    mirror : bool
        Mirror half of the images left to right, and half upside down.
    seed : int
        Of order, deformations and mirroring.

    Raises
    ------
    ValueError
        For a number out of range.

    Examples
    --------
    >>> SegmentationConfig(steps=10).batch
    4
    """

    steps: int = 3000
    batch: int = 4
    learning_rate: float = 4e-3
    border_weight: float = 10.0
    border_sigma_px: float = 2.0
    elastic_px: float = 3.0
    mirror: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or not self.learning_rate > 0 or not self.border_sigma_px > 0:
            raise ValueError("steps and batch must be at least 1, learning_rate and border_sigma_px above 0")
        if not (self.border_weight >= 0 and self.elastic_px >= 0):
            raise ValueError("border_weight and elastic_px must not be negative")


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """A trained network and how it was trained.

    Parameters
    ----------
    network : UNet
        In evaluation mode; class 1 is an object.
    loss : DataFrame
        Columns step and loss.
    config : SegmentationConfig
        The configuration.
    """

    network: UNet
    loss: pd.DataFrame
    config: SegmentationConfig

    def __repr__(self) -> str:
        form = self.network.config
        size = f"in_channels={form['in_channels']}, depth={form['depth']}, width={form['width']}"
        return f"Segmentation(UNet({size}), {len(self.loss)} steps)"

    @torch.no_grad()
    def probability(self, images: Tensor, *, tile_px: int = 388) -> Tensor:
        """Return how likely each pixel is part of an object.

        A network that was trained on mirrored images sees each image in all four mirrored views, which are averaged, as
        the paper averages over turned ones.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Images of any size.
        tile_px : int
            Tile of `overlap_tile`; a network that normalizes by the whole image sees it whole.

        Returns
        -------
        Tensor, (image, height, width)
            From 0 to 1.
        """
        whole = self.network.norm == "instance"
        views: list[tuple[int, ...]] = [(), (-1,), (-2,), (-1, -2)] if self.config.mirror else [()]
        chances = images.new_zeros(len(images), *images.shape[-2:])
        for chance, image in zip(chances, images[:, None], strict=True):
            for axes in views:
                shown = image.flip(axes)
                scores = untiled(self.network, shown) if whole else overlap_tile(self.network, shown, tile_px=tile_px)
                chance += scores.softmax(1)[0, 1].flip(axes) / len(views)
        return chances

    def mask(self, images: Tensor, *, tile_px: int = 388) -> NDArray[np.bool_]:
        """Return which pixels are part of an object; the lines that keep touching objects apart are filled.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Images of any size.
        tile_px : int
            Tile of `overlap_tile`.

        Returns
        -------
        ndarray of bool, (image, height, width)
            Where an object is more likely than not, or up to 2 pixels lie between such places.
        """
        found = (self.probability(images, tile_px=tile_px) > 0.5).cpu().numpy()
        framed = np.pad(found, ((0, 0), (2, 2), (2, 2)), mode="edge")
        closed = ndimage.binary_closing(framed, np.ones((1, 3, 3)))
        return closed[:, 2:-2, 2:-2]

    def objects(self, images: Tensor, *, tile_px: int = 388) -> NDArray[np.int64]:
        """Return the single objects: the connected regions that are more likely object than background.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Images of any size.
        tile_px : int
            Tile of `overlap_tile`.

        Returns
        -------
        ndarray of int, (image, height, width)
            0 is the background, objects count from 1.
        """
        return _numbered(self.probability(images, tile_px=tile_px) > 0.5)


def separated(objects: NDArray[np.int64], gap_px: int = 1) -> NDArray[np.int64]:
    """Draw a line of background between objects that touch, so that connected regions are single objects.

    Parameters
    ----------
    objects : ndarray of int, (height, width)
        0 is the background, every other number an object.
    gap_px : int
        Pixels that each of two touching objects loses; the line is twice as wide.

    Returns
    -------
    ndarray of int, (height, width)
        Pixels with another object within `gap_px` are 0.

    Examples
    --------
    >>> separated(np.array([[0, 1, 1, 1, 2, 2, 2]])).tolist()
    [[0, 1, 1, 0, 0, 2, 2]]
    """
    size = 2 * gap_px + 1
    far = np.where(objects == 0, objects.max() + 1, objects)
    least, most = ndimage.minimum_filter(far, size), ndimage.maximum_filter(objects, size)
    return np.where(least < most, 0, objects)


def weight_map(
    objects: NDArray[np.int64],
    *,
    class_weights: tuple[float, float] | None = None,
    border_weight: float = 10.0,
    border_sigma_px: float = 5.0,
) -> NDArray[np.float32]:
    """Return the weight of each pixel, ``w(x) = w_c(x) + 10 exp(-(d1 + d2)^2 / (2 * 5^2))``.

    d1 and d2 are the distances to the nearest and the second nearest object. The second term is for the background
    between objects only, as the paper's figure shows it and implementations have it: inside an object it would
    punish what lies near the next one. It is 0 where there are fewer than two objects.

    Parameters
    ----------
    objects : ndarray of int, (height, width)
        0 is the background, every other number an object; see `separated`.
    class_weights : tuple of float, optional
        w_c of background and objects; by default such that both classes weigh as much and the mean is 1.
    border_weight, border_sigma_px : float
        The 10 and the 5 of the formula.

    Returns
    -------
    ndarray of float32, (height, width)
        Weights.

    References
    ----------
    Ronneberger, Fischer & Brox, U-Net: convolutional networks for biomedical image segmentation, MICCAI 2015; formula
    and constants checked against notes on the paper and published implementations.

    Examples
    --------
    >>> (100 * weight_map(np.array([[1, 0, 2, 0, 0, 0]]), class_weights=(1.0, 1.0))).astype(int).tolist()
    [[100, 1023, 100, 826, 586, 378]]
    """
    if class_weights is None:
        class_weights = balanced(objects[None])
    weights = np.where(objects > 0, class_weights[1], class_weights[0]).astype(np.float64)
    names = np.unique(objects[objects > 0])
    if len(names) > 1 and border_weight > 0:
        nearest = np.full((2, *objects.shape), np.inf)
        for name in names:
            distance = ndimage.distance_transform_edt(objects != name)
            nearest = np.sort(np.concatenate([nearest, distance[None]]), axis=0)[:2]
        extra = border_weight * np.exp(-((nearest.sum(0) / border_sigma_px) ** 2) / 2)
        weights += np.where(objects == 0, extra, 0.0)
    return weights.astype(np.float32)


def balanced(objects: NDArray[np.int64]) -> tuple[float, float]:
    """Return weights by which background and objects count as much, with mean 1.

    Parameters
    ----------
    objects : ndarray of int, (image, height, width)
        0 is the background.

    Returns
    -------
    tuple of float
        Weight of the background and of objects; 1 and 1 where one of them is missing.

    Examples
    --------
    >>> balanced(np.array([[[0, 0, 0, 5]]]))
    (0.6666666666666666, 2.0)
    """
    share = float((objects > 0).mean())
    return (1.0, 1.0) if share in (0.0, 1.0) else (0.5 / (1 - share), 0.5 / share)


def weighted_cross_entropy(scores: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
    """Return ``-mean_x w(x) log p_class(x)(x)``, with p the softmax of the scores.

    Parameters
    ----------
    scores : Tensor, (image, class, height, width)
        Scores before the softmax.
    classes : Tensor of int, (image, height, width)
        True class of each pixel.
    weights : Tensor, (image, height, width)
        Weight of each pixel.

    Returns
    -------
    Tensor, ()
        The loss; that of 2015 is the sum over pixels.

    Examples
    --------
    >>> scores, classes = torch.zeros(1, 2, 3, 3), torch.ones(1, 3, 3, dtype=torch.int64)
    >>> round(weighted_cross_entropy(scores, classes, torch.full((1, 3, 3), 2.0)).item(), 4)
    1.3863
    """
    return (weights * functional.cross_entropy(scores, classes, reduction="none")).mean()


def fit_segmentation(
    network: UNet,
    images: Tensor,
    objects: ArrayLike | Tensor,
    config: SegmentationConfig | None = None,
    progress: Progress | None = None,
) -> Segmentation:
    """Train a U-Net to find objects, and to leave background between them.

    Parameters
    ----------
    network : UNet
        Of two classes; a copy is trained.
    images : Tensor, (image, channel, height, width)
        Images in [0, 1]. A network of one channel takes the mean over colors, one of more repeats a single channel.
    objects : Tensor or array of int or bool, (image, height, width)
        0 is the background, every other number an object; the objects of a map of bools are its connected regions.
    config : SegmentationConfig, optional
        How to train.
    progress : callable, optional
        Called after each step with steps done, steps in all, and the loss.

    Returns
    -------
    Segmentation
        The trained network.

    Raises
    ------
    ValueError
        When images and objects do not fit together, hold no object or no whole numbers, or the network has other than
        two classes.
    """
    config = config or SegmentationConfig()
    objects = _numbered(objects)
    if objects.shape != (len(images), *images.shape[-2:]):
        raise ValueError(
            f"images of shape {tuple(images.shape)} come with maps of objects of shape {objects.shape}; give one map "
            "(height, width) for each image"
        )
    if network.classes != 2:
        raise ValueError(f"the network has {network.classes} classes; build UNet(classes=2): background and object")
    if not objects.any():
        raise ValueError("the maps of objects are 0 everywhere; mark objects by numbers above 0")
    generator = torch.Generator().manual_seed(config.seed)
    network = copy.deepcopy(network).to(memory_format=torch.channels_last).train().requires_grad_(True)
    device = next(network.parameters()).device
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    class_weights, losses = balanced(objects), []
    numbered = torch.from_numpy(objects)
    chosen = _batches(len(images), config.batch, generator)
    for step in range(config.steps):
        batch = next(chosen)
        shown, marked = images[batch], numbered[batch]
        if config.elastic_px:
            shown, marked = elastic(shown, marked, config.elastic_px, generator)
        if config.mirror:
            shown, marked = flipped(shown, marked, generator)
        maps = [separated(each) for each in marked.numpy()]
        weights = [
            weight_map(
                each,
                class_weights=class_weights,
                border_weight=config.border_weight,
                border_sigma_px=config.border_sigma_px,
            )
            for each in maps
        ]
        classes = torch.from_numpy(np.stack(maps) > 0).to(torch.int64).to(device)
        with torch.enable_grad():
            optimizer.zero_grad(set_to_none=True)
            scores = untiled(network, shown.to(device))
            loss = weighted_cross_entropy(scores, classes, torch.from_numpy(np.stack(weights)).to(device))
            loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if progress is not None:
            progress(step + 1, config.steps, losses[-1])
    table = pd.DataFrame({"step": np.arange(1, config.steps + 1), "loss": losses})
    return Segmentation(network.eval().requires_grad_(False), table, config)


def _numbered(objects: ArrayLike | Tensor) -> NDArray[np.int64]:
    """Return maps of objects as an array of whole numbers; connected regions of a mask get a number each."""
    maps = objects.detach().cpu().numpy() if isinstance(objects, Tensor) else np.asarray(objects)
    if maps.dtype == bool:
        return np.array([ndimage.label(mask)[0] for mask in maps], np.int64).reshape(maps.shape)
    if maps.dtype.kind not in "iu":
        raise ValueError(f"the maps of objects hold {maps.dtype}; give whole numbers, 0 where the background is")
    return maps.astype(np.int64)


def _batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield indices of images, all of them once in a random order before any comes again."""
    waiting = torch.empty(0, dtype=torch.int64)
    while True:
        while len(waiting) < size:
            waiting = torch.cat([waiting, torch.randperm(count, generator=generator)])
        yield waiting[:size]
        waiting = waiting[size:]
