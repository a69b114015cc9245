"""Handwritten digits to train small networks on: the 1,797 pictures inside scikit-learn, split into two parts.

In: nothing but the installed package. Out: a `DigitSplit` of images (image, 1, height, width) in [0, 1] and labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stimuli.hints import did_you_mean

_SPLITS = ("stratified", "order")


@dataclass(frozen=True)
class DigitSplit:
    """Digits to train on, and digits held out.

    Parameters
    ----------
    images : Tensor, (image, 1, size_px, size_px)
        Values in [0, 1]; 1 is ink.
    labels : Tensor, (image,)
        The digit, 0 to 9.
    held_out_images : Tensor, (image, 1, size_px, size_px)
        Pictures that are not among `images`.
    held_out_labels : Tensor, (image,)
        Their digits.
    """

    images: Tensor
    labels: Tensor
    held_out_images: Tensor
    held_out_labels: Tensor


def digits(
    split: Literal["stratified", "order"] = "stratified", held_out: float = 0.2, seed: int = 0, size_px: int = 16
) -> DigitSplit:
    """Return scikit-learn's digits, enlarged and split.

    Parameters
    ----------
    split : {"stratified", "order"}
        ``"stratified"`` draws the held-out pictures at random, as many of each digit as there should be, which is what
        is usual; writers then stand on both sides. ``"order"`` holds the last pictures out: the file goes from
        writer to writer, so that most of their writers were never trained on, which is harder.
    held_out : float
        Share of the pictures that is held out.
    seed : int
        Seed of the random split.
    size_px : int
        Side of the pictures, enlarged (bilinear) from 8 px.

    Returns
    -------
    DigitSplit
        Both parts.

    Raises
    ------
    ValueError
        For an unknown split, a share outside (0, 1) or fewer than 8 px.

    Examples
    --------
    >>> parts = digits()
    >>> tuple(parts.images.shape), tuple(parts.held_out_images.shape)
    ((1437, 1, 16, 16), (360, 1, 16, 16))
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    if split not in _SPLITS:
        raise ValueError(f"unknown split {split!r}; {did_you_mean(str(split), _SPLITS)}known: {', '.join(_SPLITS)}")
    if not 0 < held_out < 1:
        raise ValueError(f"a share of {held_out} is to be held out; give one between 0 and 1")
    if size_px < 8:
        raise ValueError(f"the digits are to have {size_px} px; they are drawn on 8 px, so give 8 or more")
    data = load_digits()
    images = torch.from_numpy(data.images / 16).float()[:, None]
    if size_px != 8:
        images = functional.interpolate(images, (size_px, size_px), mode="bilinear", antialias=True).clamp(0, 1)
    labels = torch.from_numpy(data.target).long()
    index = np.arange(len(labels))
    choice = {"stratify": data.target, "random_state": seed} if split == "stratified" else {"shuffle": False}
    train, test = train_test_split(index, test_size=held_out, **choice)
    return DigitSplit(images[train], labels[train], images[test], labels[test])
