"""Images as what a small random U-Net draws: only its weights climb.

In: start images. Out: images in [0, 1], each rendered by a network of its own from fixed noise. The structure of the
network, local and alike everywhere at several scales, stands in for the statistics of photographs.
Used by the loop in `engine` as ``param="deep_prior"``.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor, nn

from neural_fits.networks.unet import UNet, initial_std
from synth._logit import logit, sigmoid
from synth.natural_statistics import NATURAL_COLOR, NaturalStatistics
from synth.preconditioning import radial_frequency

_NOISE_CHANNELS, _DEPTH, _WIDTH = 8, 3, 8
#: weights are held in units of so many of their initial standard deviations, such that the usual step_size of
#: SynthesisConfig, 0.05, suits this parametrization too
_STEP = 1.0
_OFFSET_STEP = 0.2  # the same for offsets and factors of normalizations
_GAIN = 0.5  # of what a network draws, before the sigmoid


class DeepPrior(nn.Module):
    """A random network draws the change of the start: ``image = sigmoid(net(latent, noise) + rest)``.

    The latent of an image holds the weights of its own `UNet` (8 to 64 channels, 3 poolings, same padding) and the
    rest, ``logit(start) - net(first weights, noise)``, which has no gradient and never moves: so a start is rendered
    exactly (but for clipping to [0.004, 0.996]), and all that is added to it is drawn by the network. From a gray or
    faint start the image is drawn wholly. The noise is the same for all images; the first weights are drawn by a
    seed made of the bytes of the start, so an image depends on its own job alone. Weights are held in units of their
    initial standard deviation, for which the step size that suits ``"fourier"`` is right, and draw in natural colors.

    Images are rendered one by one: that costs a CPU nothing, and rounding does not depend on how many there are. One
    render with its gradient takes 90 ms of a core for a color image of 224 pixels, ``"fourier"`` 2 ms; whole steps
    with EfficientNet-Lite0 take two to five times as long. From a photograph the first ten or twenty steps may score
    below the start. The rest is part of the latent and of both moments of Adam though it never moves: 150,528 of
    264,019 numbers at 224 pixels.

    Parameters
    ----------
    images : Tensor, (image, channel, height, width)
        Start images; clipped to [0.004, 0.996].
    statistics : NaturalStatistics, optional
        Colors of your own photographs, in which the network draws; by default `NATURAL_COLOR`.

    Raises
    ------
    ValueError
        When the statistics are of gray images and these have color, or neither side has 3 pixels.

    References
    ----------
    Ulyanov, Vedaldi & Lempitsky, Deep image prior, CVPR 2018. Theirs draws the whole image, from white noise and from
    a start that cannot be chosen, with narrower links (details recalled).

    Examples
    --------
    >>> start = torch.full((1, 3, 16, 16), 0.25)
    >>> torch.allclose(DeepPrior(start)(), start, atol=1e-5)
    True
    """

    color: Tensor
    noise: Tensor

    #: whether every latent renders to an image in [0, 1]; others are projected after each step
    bounded = True

    def __init__(self, images: Tensor, statistics: NaturalStatistics | None = None) -> None:
        super().__init__()
        self.shape = tuple(images.shape[1:])
        if max(self.shape[1:]) < 3:
            raise ValueError(
                f"images of {self.shape[1]} x {self.shape[2]} pixels are too small for a network to draw; give at "
                "least 3 pixels on one side, or choose another param, such as 'pixels'"
            )
        depth = max(1, min(_DEPTH, int(math.log2(min(self.shape[1:]))) - 2))
        network = UNet(
            *(_NOISE_CHANNELS, self.shape[0]), depth=depth, width=_WIDTH, padding="same", norm="instance", up="bilinear"
        )
        self._network = (network.requires_grad_(False),)  # in a tuple: its own weights are never used
        self._names = [name for name, _ in network.named_parameters()]
        self._shapes = [weight.shape for _, weight in network.named_parameters()]
        self._units = [_unit(weight) for weight in network.parameters()]
        self._first = [None if w.ndim == 4 else float(w.flatten()[0]) for w in network.parameters()]
        self._lengths = [*(shape.numel() for shape in self._shapes), math.prod(self.shape)]
        if statistics is not None and self.shape[0] == 3 and len(statistics.color) == 1:
            raise ValueError("the natural statistics are of gray images, the images to be made have 3 channels")
        color = torch.tensor(NATURAL_COLOR if statistics is None else statistics.color) if self.shape[0] == 3 else None
        self.register_buffer("color", torch.ones(1, 1) if color is None else color)
        self.register_buffer("noise", _pink_noise(self.shape[1:])[None])
        self.to(images.device)
        self.latent = nn.Parameter(self.encode(images))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return the latents of images: first weights, drawn by a seed made of each image, and the rest.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Images; clipped to [0.004, 0.996].

        Returns
        -------
        Tensor, (image, number)
            Weights in the order of the network, and the rest.
        """
        latents = images.new_zeros(len(images), sum(self._lengths))
        for latent, image in zip(latents, images, strict=True):
            code = hashlib.sha256(image.detach().cpu().contiguous().numpy().tobytes()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(code[:7], "big"))
            *weights, rest = latent.split(self._lengths)
            for weight, shape, first, unit in zip(weights, self._shapes, self._first, self._units, strict=True):
                drawn = torch.randn(shape.numel(), generator=generator) / _STEP
                weight[:] = drawn.to(images.device) if first is None else first / unit
            rest[:] = (logit(image) - self._drawn(weights)).flatten()
        return latents

    def forward(self) -> Tensor:
        """Render the images.

        Returns
        -------
        Tensor, (image, channel, height, width)
            Images in [0, 1].
        """
        images = []
        for latent in self.latent.unbind(0):
            *weights, rest = latent.split(self._lengths)
            images.append(sigmoid(self._drawn(weights) + rest.detach().view(self.shape)))
        return torch.stack(images)

    def _drawn(self, weights: list[Tensor]) -> Tensor:
        """Return what the network of these weights draws, (channel, height, width)."""
        (network,) = self._network
        named = {
            name: weight.view(shape) * unit
            for name, weight, shape, unit in zip(self._names, weights, self._shapes, self._units, strict=True)
        }
        drawn: Tensor = torch.func.functional_call(network, named, (self.noise,))
        return (_GAIN * self.color @ drawn[0].flatten(1)).view(self.shape)


def _pink_noise(size: tuple[int, ...]) -> Tensor:
    """Return noise of amplitude 1 / frequency, as in photographs: from white noise the network draws white noise."""
    white = torch.randn((_NOISE_CHANNELS, *size), generator=torch.Generator().manual_seed(0))
    spectrum = torch.fft.rfft2(white) / radial_frequency(*size)
    spectrum[..., 0, 0] = 0
    noise = torch.fft.irfft2(spectrum, s=size)
    return 0.5 + 0.25 * noise / noise.std((1, 2), keepdim=True)


def _unit(weight: Tensor) -> float:
    return _STEP * initial_std(weight) if weight.ndim == 4 else _OFFSET_STEP
