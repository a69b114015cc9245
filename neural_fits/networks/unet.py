"""The U-Net: a contracting path for what is there, an expanding path for where, and links between them.

In: images of any number of channels. Out: a score for each class at each pixel.
Trained by `segmentation`, applied to large images by `overlap_tile`, the generator of `synth.deep_prior`, and a
backbone whose encoder and decoder a `FeatureExtractor` reads.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

PADDINGS = ("valid", "same")
#: what follows a 3 x 3 convolution
_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),
}
NORMS = ("none", *_NORMS)
#: how a map of so many channels grows to twice the side and half the channels
_UPS: dict[str, Callable[[int, int], nn.Module]] = {
    "transposed": lambda below, above: nn.utils.skip_init(nn.ConvTranspose2d, below, above, 2, stride=2),
    "bilinear": lambda below, above: nn.Sequential(_Doubled(), nn.utils.skip_init(nn.Conv2d, below, above, 1)),
}


class UNet(nn.Module):
    """A U-Net of any depth and width; with the defaults that of 2015, of 23 convolutional layers.

    Each level of ``encoder`` is two 3 x 3 convolutions with rectification, then 2 x 2 maximum pooling; channels double
    at every level. Each level of ``decoder`` takes the map below through a 2 x 2 up-convolution that halves the
    channels (``up``, a transposed convolution), joins the map of the encoder at its level, and applies two 3 x 3
    convolutions. ``head`` is a 1 x 1 convolution to the classes. ``encoder.DEPTH`` is the bottom; ``decoder.0`` is the
    level above it. The published network has dropout at the bottom; it is left out, because it draws from the
    global random generator. Images enter as ``4 (image - 0.5)``: gray is 0, as zero padding is, and the variance
    of photographs about 1.

    Parameters
    ----------
    in_channels : int
        Channels of the images. A network of one channel takes the mean over the channels of color images, others see
        gray images in each of their channels.
    classes : int
        Scores at each pixel.
    depth : int
        Number of poolings.
    width : int
        Channels of the first level.
    padding : str
        ``"valid"``: unpadded convolutions, the output is smaller than the input by `margin_px` on each side, and only
        some sizes fit (see `output_px`). ``"same"``: zero padding, the output is as large as the input, of any size.
    norm : str
        What follows each 3 x 3 convolution: ``"none"`` (2015), ``"batch"`` normalization, with which a network learns
        in tens of steps what takes hundreds without, or ``"instance"`` normalization.
    up : str
        How maps grow: ``"transposed"``, a transposed 2 x 2 convolution, or ``"bilinear"`` interpolation and a 1 x 1
        convolution, which leaves no checkerboard in images that a network draws (for same padding).
    seed : int
        Seed of the initial weights, Gaussian with variance 2 / (incoming weights of a unit), biases 0.

    Raises
    ------
    ValueError
        For a number below 1, an unknown padding, or, in the call, images of a size or channels that do not fit.

    References
    ----------
    Ronneberger, Fischer & Brox, U-Net: convolutional networks for biomedical image segmentation, MICCAI 2015. Checked
    against notes on the paper: valid convolutions, doubling and halving of channels, cropped links. Recalled: the
    variance of the initial weights.

    Examples
    --------
    >>> network = UNet(in_channels=1, classes=2, depth=2, width=4)
    >>> network(torch.zeros(1, 1, 60, 76)).shape
    torch.Size([1, 2, 20, 36])
    >>> UNet(in_channels=3, classes=2, depth=2, width=4, padding="same")(torch.zeros(1, 3, 33, 50)).shape
    torch.Size([1, 2, 33, 50])
    """

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 2,
        *,
        depth: int = 4,
        width: int = 64,
        padding: str = "valid",
        norm: str = "none",
        up: str = "transposed",
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("classes", classes), ("depth", depth), ("width", width)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} of a U-Net is {value!r}; give a whole number of at least 1")
        if padding not in PADDINGS:
            raise ValueError(f"padding of a U-Net is {padding!r}; give 'valid' (of 2015) or 'same'")
        if norm not in NORMS:
            raise ValueError(f"norm of a U-Net is {norm!r}; give 'none' (of 2015), 'batch' or 'instance'")
        if up not in ("transposed", "bilinear") or (up == "bilinear" and padding == "valid"):
            raise ValueError(f"up of a U-Net is {up!r}; give 'transposed', or 'bilinear' with padding='same'")
        self.in_channels, self.classes, self.depth = in_channels, classes, depth
        self.padding, self.norm = padding, norm
        self.config = {
            **{"in_channels": in_channels, "classes": classes, "depth": depth, "width": width},
            **{"padding": padding, "norm": norm, "up": up, "seed": seed},
        }
        channels = [width * 2**level for level in range(depth + 1)]
        around = 1 if padding == "same" else 0
        entering = [in_channels, *channels[:-1]]
        self.encoder = nn.ModuleList(
            _twice(before, after, around, norm) for before, after in zip(entering, channels, strict=True)
        )
        # A last odd row or column gets a place of its own, so that same padding takes any size.
        self.pool = nn.MaxPool2d(2, ceil_mode=padding == "same")
        steps = list(itertools.pairwise(reversed(channels)))
        self.up = nn.ModuleList(_UPS[up](below, above) for below, above in steps)
        self.decoder = nn.ModuleList(_twice(2 * above, above, around, norm) for _, above in steps)
        self.head = nn.utils.skip_init(nn.Conv2d, width, classes, 1)
        self._initialize(seed)

    @property
    def step_px(self) -> int:
        """Pixels between two places of the input that the network treats alike: 2 to the power of the depth."""
        return int(2**self.depth)

    @property
    def margin_px(self) -> int:
        """Pixels on each side of the input for which unpadded convolutions give no output; 0 with same padding."""
        return 0 if self.padding == "same" else 6 * (self.step_px - 1) + 2

    def output_px(self, input_px: int) -> int:
        """Return the side of the output.

        Parameters
        ----------
        input_px : int
            Height or width of the images in pixels.

        Returns
        -------
        int
            Height or width of the output.

        Raises
        ------
        ValueError
            When the size does not fit: every map that is pooled must have an even side.

        Examples
        --------
        >>> UNet(depth=4, width=1).output_px(572)
        388
        """
        output = input_px - 2 * self.margin_px
        if output < 1 or (self.padding == "valid" and (output - self.fitting_px(1)) % self.step_px):
            below, above = self.fitting_px(max(output, 1), up=False), self.fitting_px(max(output, 1))
            near = " or ".join(str(each + 2 * self.margin_px) for each in sorted({below, above}))
            raise ValueError(
                f"images of {input_px} pixels a side do not fit a U-Net of depth {self.depth} without padding; "
                f"give {near} pixels, use overlap_tile, or build the network with padding='same'"
            )
        return output

    def fitting_px(self, output_px: int, *, up: bool = True) -> int:
        """Return the side of the nearest output that the network can give.

        Parameters
        ----------
        output_px : int
            Wanted height or width of the output.
        up : bool
            Take the smallest side that is not smaller; else the largest that is not larger, but the smallest at least.

        Returns
        -------
        int
            A possible side of the output; the input is larger by ``2 * margin_px``.

        Examples
        --------
        >>> UNet(depth=4, width=1).fitting_px(300)
        308
        """
        if self.padding == "same":
            return output_px
        lost = 4 * (self.step_px - 1)  # of step_px times the side of the bottom
        least = lost // self.step_px + 1
        bottom = -(-(output_px + lost) // self.step_px) if up else (output_px + lost) // self.step_px
        return self.step_px * max(bottom, least) - lost

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores of all classes at all pixels.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Images.

        Returns
        -------
        Tensor, (image, class, height - 2 margin, width - 2 margin)
            Scores before the softmax.
        """
        if self.padding == "valid":
            for side in images.shape[-2:]:
                self.output_px(side)
        if images.ndim != 4 or (1 not in (self.in_channels, images.shape[1]) and images.shape[1] != self.in_channels):
            raise ValueError(
                f"images have shape {tuple(images.shape)}; give (image, channel, height, width) with "
                f"{self.in_channels} or 1 channels"
            )
        images = images.mean(1, keepdim=True) if self.in_channels == 1 else images.expand(-1, self.in_channels, -1, -1)
        maps = [self.encoder[0](4 * (images - 0.5))]
        for level in self.encoder[1:]:
            maps.append(level(self.pool(maps[-1])))
        below = maps.pop()
        for up, level in zip(self.up, self.decoder, strict=True):
            risen, link = up(below), maps.pop()
            if self.padding == "same":  # of a last odd row or column the map below knows two
                risen = risen[..., : link.shape[-2], : link.shape[-1]]
            else:
                top, left = ((a - b) // 2 for a, b in zip(link.shape[-2:], risen.shape[-2:], strict=True))
                link = link[..., top : top + risen.shape[-2], left : left + risen.shape[-1]]
            below = level(torch.cat([link, risen], 1))
        scores: Tensor = self.head(below)
        return scores

    @torch.no_grad()
    def _initialize(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if weight.ndim == 4:
                drawn = torch.randn(weight.shape, generator=generator)
                weight.copy_(drawn * initial_std(weight))
            else:  # offsets, and the factors of a normalization
                weight.fill_(float(name.endswith("weight")))


class _Doubled(nn.Module):
    """Bilinear interpolation to twice the side. The backward pass of torch's own sums in any order on a GPU."""

    def forward(self, maps: Tensor) -> Tensor:
        for axis in (2, 3):
            side = maps.shape[axis]
            before = torch.cat([maps.narrow(axis, 0, 1), maps.narrow(axis, 0, side - 1)], axis)
            after = torch.cat([maps.narrow(axis, 1, side - 1), maps.narrow(axis, side - 1, 1)], axis)
            pairs = [0.75 * maps + 0.25 * near for near in (before, after)]
            maps = torch.stack(pairs, axis + 1).flatten(axis, axis + 1)
        return maps


def initial_std(weight: Tensor) -> float:
    """Return the standard deviation of initial weights that keeps the size of activations, sqrt(2 / N).

    Parameters
    ----------
    weight : Tensor, (out, in, height, width)
        Weights of a convolution; those of an up-convolution, 2 x 2, are (in, out, 2, 2), and a unit receives one of
        them from each channel below.

    Returns
    -------
    float
        With N the incoming weights of one unit.

    Examples
    --------
    >>> round(initial_std(torch.zeros(128, 64, 3, 3)) ** 2 * 64 * 9, 6)
    2.0
    """
    incoming = weight.shape[0] if weight.shape[-1] == 2 else weight[0].numel()
    return math.sqrt(2 / incoming)


def _twice(before: int, after: int, around: int, norm: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        # a normalization takes out what the offset of the convolution adds
        layers.append(nn.utils.skip_init(nn.Conv2d, channels, after, 3, padding=around, bias=norm == "none"))
        if norm != "none":
            layers.append(_NORMS[norm](after))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)
