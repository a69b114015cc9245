"""Training of a capsule network: margin loss on the lengths, and reconstruction of the image from the true capsule.

In: images (image, 1 or 3, height, width) in [0, 1] with labels. Out: `TrainedCapsules`. Constants as in Sabour,
Frosst & Hinton (2017), who shift the pictures by up to 2 of 28 px as the only augmentation.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from neural_fits.networks.capsules import CapsuleNetwork

_MARGIN_PRESENT, _MARGIN_ABSENT = 0.9, 0.1
#: how far images may lie outside [0, 1]: resizing overshoots a little
_SLACK = 0.01


@dataclass(frozen=True)
class CapsuleTraining:
    """How a capsule network is trained.

    Parameters
    ----------
    epochs : int
        Passes over the images.
    batch_size : int
        Images a step.
    learning_rate : float
        Step size of Adam in the first epoch.
    decay : float
        Factor on the step size after each epoch.
    reconstruction_weight : float
        Weight of the sum of squared errors over pixels beside the margin loss.
    shift_px : int
        Each picture is moved by up to so many pixels, up or down and left or right, at every pass; zeros come in.
    seed : int
        Seed of first weights, order and shifts.

    Raises
    ------
    ValueError
        For a number outside its range.

    Examples
    --------
    >>> CapsuleTraining(epochs=5).reconstruction_weight
    0.0005
    """

    epochs: int = 40
    batch_size: int = 64
    learning_rate: float = 2e-3
    decay: float = 0.95
    reconstruction_weight: float = 0.0005
    shift_px: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size) < 1 or min(self.reconstruction_weight, self.shift_px) < 0:
            raise ValueError(f"{self!r} is out of range; epochs and batch_size are 1 or more, nothing is negative")
        if not self.learning_rate > 0 or not 0 < self.decay <= 1:
            raise ValueError(f"{self!r} is out of range; learning_rate is above 0 and decay above 0 and at most 1")


@dataclass(frozen=True, repr=False)
class TrainedCapsules:
    """A trained network and the course of its training.

    Parameters
    ----------
    network : CapsuleNetwork
        In evaluation mode, weights frozen.
    history : DataFrame
        One row an epoch: ``margin_loss``, ``reconstruction_sse`` (a picture) and ``accuracy``, all on the shifted
        training pictures while the weights moved.
    """

    network: CapsuleNetwork
    history: pd.DataFrame

    def __repr__(self) -> str:
        right = f"{self.history['accuracy'].iloc[-1]:.1%} of the training pictures right"
        return f"TrainedCapsules({self.network.classes} classes, {len(self.history)} epochs, {right} in the last)"


def margin_loss(lengths: Tensor, labels: Tensor) -> Tensor:
    """Return the margin loss of each picture, summed over classes.

    ``L = sum_k T_k max(0, 0.9 - |v_k|)^2 + 0.5 (1 - T_k) max(0, |v_k| - 0.1)^2``

    Parameters
    ----------
    lengths : Tensor, (image, class)
        Lengths of the capsules, ``|v_k|``.
    labels : Tensor, (image,)
        Index of the class that is there, ``T_k = 1``.

    Returns
    -------
    Tensor, (image,)
        The loss.

    Examples
    --------
    >>> margin_loss(torch.tensor([[0.9, 0.3]]), torch.tensor([0]))
    tensor([0.0200])
    """
    present = functional.one_hot(labels.long(), lengths.shape[1]).to(lengths.dtype)
    missing = (_MARGIN_PRESENT - lengths).clamp(min=0).square()
    excess = (lengths - _MARGIN_ABSENT).clamp(min=0).square()
    return (present * missing + 0.5 * (1 - present) * excess).sum(1)


def train_capsules(
    images: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    training: CapsuleTraining | None = None,
    network: CapsuleNetwork | None = None,
    progress: Callable[[str], None] | None = None,
) -> TrainedCapsules:
    """Train a capsule network to tell classes of images apart and to draw them again.

    Minimizes ``margin_loss + 0.0005 SSE``; the decoder reads the capsule of the true class. The same seed gives the
    same network, on the same machine with the same number of threads.

    Parameters
    ----------
    images : Tensor or array, (image, 1 or 3, height, width)
        Square pictures, values in [0, 1]; color is turned to gray for the reconstruction.
    labels : Tensor or array, (image,)
        Index of each picture's class, from 0.
    training : CapsuleTraining, optional
        How to train; the default takes less than a minute on the digits.
    network : CapsuleNetwork, optional
        Where to start, for another architecture or to train on; it is not changed, and the work is done where it is.
        By default the network sized for digits, with the size and number of classes of the pictures, where they are.
    progress : callable, optional
        Called with one line of text after each epoch.

    Returns
    -------
    TrainedCapsules
        The network and its history.

    Raises
    ------
    ValueError
        When images and labels do not match each other or the network, or images are not finite or leave [0, 1].

    Examples
    --------
    >>> from neural_fits.networks.digits import digits
    >>> parts = digits()
    >>> trained = train_capsules(parts.images[:128], parts.labels[:128], CapsuleTraining(epochs=1))
    >>> list(trained.history)
    ['margin_loss', 'reconstruction_sse', 'accuracy']
    """
    training = training or CapsuleTraining()
    images, labels = _checked(images, labels, network)
    if training.shift_px >= images.shape[-1]:
        raise ValueError(
            f"shift_px is {training.shift_px} for images of {images.shape[-1]} px, which would leave empty ones; give "
            "less, for example a tenth of the images"
        )
    if network is None:
        network = CapsuleNetwork(images.shape[-1], classes=int(labels.max()) + 1, seed=training.seed).to(images.device)
    network = copy.deepcopy(network).requires_grad_(True).train()
    generator = torch.Generator().manual_seed(training.seed)
    optimizer = torch.optim.Adam(network.parameters(), training.learning_rate)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, training.decay)
    rows = []
    for epoch in range(training.epochs):
        totals = images.new_zeros(3)
        for index in torch.randperm(len(images), generator=generator).split(training.batch_size):
            pictures, truth = network.gray(_shifted(images[index], training.shift_px, generator)), labels[index]
            capsules = network.capsules(pictures)
            lengths = torch.linalg.vector_norm(capsules, dim=-1)
            margin = margin_loss(lengths, truth)
            errors = (network.decode(capsules, truth) - pictures).square().flatten(1).sum(1)
            optimizer.zero_grad()
            (margin + training.reconstruction_weight * errors).mean().backward()
            optimizer.step()
            right = (lengths.argmax(1) == truth).float()
            totals += torch.stack([margin.sum(), errors.sum(), right.sum()]).detach()
        schedule.step()
        rows.append((totals / len(images)).tolist())
        if progress is not None:
            margin_now, _, right_now = rows[-1]
            progress(f"epoch {epoch + 1} of {training.epochs}: margin loss {margin_now:.4f}, right {right_now:.1%}")
    history = pd.DataFrame(rows, columns=["margin_loss", "reconstruction_sse", "accuracy"])
    history.index = pd.RangeIndex(1, len(rows) + 1, name="epoch")
    return TrainedCapsules(network.eval().requires_grad_(False), history)


@torch.no_grad()
def accuracy(
    network: CapsuleNetwork, images: ArrayLike | Tensor, labels: ArrayLike | Tensor, batch_size: int = 256
) -> float:
    """Return the share of images whose longest capsule is the one of their class.

    Parameters
    ----------
    network : CapsuleNetwork
        The network.
    images : Tensor or array, (image, 1 or 3, height, width)
        Pictures of the network's size, values in [0, 1].
    labels : Tensor or array, (image,)
        Their classes.
    batch_size : int
        Images a pass.

    Returns
    -------
    float
        Between 0 and 1.

    Examples
    --------
    >>> accuracy(CapsuleNetwork(classes=1), torch.zeros(3, 1, 16, 16), torch.zeros(3, dtype=torch.long))
    1.0
    """
    images, labels = _checked(images, labels, network)
    found = torch.cat([network(part).argmax(1) for part in images.split(batch_size)])
    return float((found == labels).float().mean())


def _checked(
    images: ArrayLike | Tensor, labels: ArrayLike | Tensor, network: CapsuleNetwork | None
) -> tuple[Tensor, Tensor]:
    """Return images and labels as tensors, where the network is, if they fit each other and it."""
    given, truth = (
        each.detach() if isinstance(each, Tensor) else torch.from_numpy(np.array(each)) for each in (images, labels)
    )
    if given.ndim != 4 or truth.shape != given.shape[:1] or not len(given):
        raise ValueError(
            f"images have shape {tuple(given.shape)} and labels {tuple(truth.shape)}; expected (image, channel, "
            "height, width) and one label an image"
        )
    if truth.is_floating_point() or int(truth.min()) < 0:
        raise ValueError("labels must be whole numbers from 0; number the classes, for example by numpy.unique")
    if network is not None and int(truth.max()) >= network.classes:
        raise ValueError(f"a label is {int(truth.max())}, the network has classes 0 to {network.classes - 1}")
    if given.shape[-2] != given.shape[-1]:
        raise ValueError(f"images are {given.shape[-2]} x {given.shape[-1]} px; this network takes square ones")
    low, high = float(given.min()), float(given.max())
    if not -_SLACK <= low <= high <= 1 + _SLACK:  # NaN is in no order
        raise ValueError(
            f"images have values from {low:.4g} to {high:.4g}; expected finite ones in [0, 1], as 8-bit images / 255"
        )
    like = given.float() if network is None else network.luma
    return given.to(like), truth.to(like.device, torch.long)


def _shifted(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Move every image by its own whole number of pixels; zeros come in."""
    if not most:
        return images
    count, _, height, width = images.shape
    offset = torch.randint(0, 2 * most + 1, (2, count), generator=generator)
    rows, columns = offset[0, :, None] + torch.arange(height), offset[1, :, None] + torch.arange(width)
    padded = functional.pad(images, (most,) * 4)
    return padded[torch.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)
