"""Capsule network of Sabour, Frosst & Hinton (2017): a vector a class, whose length says whether and direction how.

In: images (image, channel, height, width) in [0, 1]. Out: the length of one capsule a class. Made of `capsule_layers`,
trained by `capsule_training`, varied by `capsule_pose`, a backbone by `capsule_backbone`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from neural_fits.networks.capsule_layers import CapsuleLayer, CapsuleLengths, PrimaryCapsules, drawn

#: ITU-R BT.601, as pillow's conversion to gray
_LUMA = (0.299, 0.587, 0.114)


class CapsuleNetwork(nn.Module):
    """Capsule network with its decoder: convolution, primary capsules, one capsule a class, and back to the image.

    The default is sized for scikit-learn's digits, enlarged to 16 px. The network of the paper is ``CapsuleNetwork(28,
    channels=256, kernel=9, primary_types=32, decoder=(512, 1024))``. Layers to read: ``"convolution"``, ``"primary"``
    (maps), ``"digit_capsules"`` and ``"lengths"`` (without space). Color images are turned to gray.

    Parameters
    ----------
    input_px : int
        Side of the images in pixels; other sizes do not enter.
    classes : int
        Number of classes.
    channels : int
        Filters of the first convolution.
    kernel : int
        Side of both convolutions in positions.
    primary_types, primary_dim : int
        Types of primary capsules, units of each.
    class_dim : int
        Units of the capsule of a class.
    routing : int
        Rounds of routing.
    decoder : sequence of int
        Units of the hidden layers of the decoder.
    seed : int
        Seed of the first weights.

    Raises
    ------
    ValueError
        For a number below 1, or when the convolutions leave no position.

    Examples
    --------
    >>> CapsuleNetwork(seed=1)(torch.zeros(2, 1, 16, 16)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        input_px: int = 16,
        classes: int = 10,
        channels: int = 64,
        kernel: int = 5,
        primary_types: int = 8,
        primary_dim: int = 8,
        class_dim: int = 16,
        routing: int = 3,
        decoder: Sequence[int] = (128, 256),
        seed: int = 0,
    ) -> None:
        super().__init__()
        #: how to build it again, without the weights
        self.config: dict[str, Any] = {
            "input_px": input_px,
            "classes": classes,
            "channels": channels,
            "kernel": kernel,
            "primary_types": primary_types,
            "primary_dim": primary_dim,
            "class_dim": class_dim,
            "routing": routing,
            "decoder": list(decoder),
        }
        for name, value in self.config.items():
            if min(value if name == "decoder" else [value], default=1) < 1:
                raise ValueError(f"{name} is {value} in a capsule network; give 1 or more")
        side = (input_px - 2 * (kernel - 1) - 1) // 2 + 1
        if side < 1:
            raise ValueError(
                f"two convolutions of {kernel} px leave nothing of images of {input_px} px; choose a smaller kernel"
            )
        self.input_px, self.classes, self.class_dim = input_px, classes, class_dim
        self.luma: Tensor
        self.register_buffer("luma", torch.tensor(_LUMA).view(1, 3, 1, 1), persistent=False)
        generator = torch.Generator().manual_seed(seed)
        self.convolution = nn.Sequential(drawn(skip_init(nn.Conv2d, 1, channels, kernel), generator), nn.ReLU())
        self.primary = PrimaryCapsules(channels, primary_types, primary_dim, kernel, generator=generator)
        self.digit_capsules = CapsuleLayer(primary_types * side**2, primary_dim, classes, class_dim, routing, generator)
        self.lengths = CapsuleLengths(class_dim)
        widths = [classes * class_dim, *decoder, input_px**2]
        layers = [drawn(skip_init(nn.Linear, *pair), generator) for pair in pairwise(widths)]
        hidden = [part for layer in layers[:-1] for part in (layer, nn.ReLU())]
        self.decoder = nn.Sequential(*hidden, layers[-1], nn.Sigmoid())

    def forward(self, images: Tensor) -> Tensor:
        """Return the length of the capsule of every class, the score of the class.

        Parameters
        ----------
        images : Tensor, (image, 1 or 3, input_px, input_px)
            Values in [0, 1].

        Returns
        -------
        Tensor, (image, class)
            Lengths in [0, 1).

        Raises
        ------
        ValueError
            For images of another shape.
        """
        return self.lengths(self._flat(images))

    def capsules(self, images: Tensor) -> Tensor:
        """Return the capsules of the classes.

        Parameters
        ----------
        images : Tensor, (image, 1 or 3, input_px, input_px)
            Values in [0, 1].

        Returns
        -------
        Tensor, (image, class, class_dim)
            One vector a class.
        """
        return self._flat(images).unflatten(1, (self.classes, self.class_dim))

    def decode(self, capsules: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the images that capsules stand for; only the capsule of one class is read, the others are masked.

        Parameters
        ----------
        capsules : Tensor, (image, class, class_dim)
            What `capsules` returned, or a change of it.
        classes : Tensor, (image,), optional
            Index of the class to read; by default the one with the longest capsule.

        Returns
        -------
        Tensor, (image, 1, input_px, input_px)
            Values in (0, 1).
        """
        chosen = torch.linalg.vector_norm(capsules, dim=-1).argmax(1) if classes is None else classes
        mask = nn.functional.one_hot(chosen, self.classes).to(capsules.dtype)
        pixels = self.decoder((capsules * mask[..., None]).flatten(1))
        return pixels.unflatten(1, (1, self.input_px, self.input_px))

    def gray(self, images: Tensor) -> Tensor:
        """Return what the network sees of images: color as luma (ITU-R BT.601), gray as it is.

        Parameters
        ----------
        images : Tensor, (image, 1 or 3, input_px, input_px)
            Values in [0, 1].

        Returns
        -------
        Tensor, (image, 1, input_px, input_px)
            Gray images.

        Raises
        ------
        ValueError
            For images of another shape.
        """
        wanted = (self.input_px, self.input_px)
        if images.ndim != 4 or images.shape[1] not in (1, 3) or images.shape[2:] != wanted:
            raise ValueError(
                f"images have shape {tuple(images.shape)}; this capsule network takes (image, 1 or 3, {self.input_px}, "
                f"{self.input_px}); resize them"
            )
        return images if images.shape[1] == 1 else (images * self.luma).sum(1, keepdim=True)

    def _flat(self, images: Tensor) -> Tensor:
        primary = self.primary(self.convolution(self.gray(images)))
        return self.digit_capsules(self.primary.vectors(primary))
