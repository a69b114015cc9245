"""From any number to the range of an image, and back."""

from __future__ import annotations

import torch
from torch import Tensor


def sigmoid(values: Tensor) -> Tensor:
    """Return the sigmoid; that of torch rounds differently at the end of a batch, where an image may stand or not.

    Parameters
    ----------
    values : Tensor
        Any numbers.

    Returns
    -------
    Tensor
        From 0 to 1.
    """
    return 0.5 * torch.tanh(0.5 * values) + 0.5


def logit(images: Tensor) -> Tensor:
    """Return the inverse of the sigmoid.

    Parameters
    ----------
    images : Tensor
        In [0, 1]; clipped to [0.004, 0.996].

    Returns
    -------
    Tensor
        From -5.5 to 5.5.
    """
    images = images.clamp(0.004, 0.996)
    return (images / (1 - images)).log()
