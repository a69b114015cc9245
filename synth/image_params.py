"""What the optimizer moves: latents that render to images in [0, 1].

In: start images (image, channel, height, width). Out: an ``nn.Module`` whose ``latent`` is optimized and whose call
renders the images. Used by the loop in `engine`, and usable in any loop of your own with a torch optimizer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

# Square root of the covariance of RGB over the 640 crops of `stimuli.natural_photos`, columns ordered by variance,
# scaled so that the longest column is 1: the directions in which natural colors really vary.
# tests/synth/test_image_params.py computes it again.
NATURAL_COLOR = (
    (0.6128, 0.2626, 0.0210),
    (0.5724, -0.0702, -0.0660),
    (0.5449, -0.2216, 0.0458),
)


class Pixels(nn.Module):
    """The image itself: ``image = latent``, kept in [0, 1] after every step.

    Parameters
    ----------
    images : Tensor, (image, channel, height, width)
        Start images in [0, 1].

    Examples
    --------
    >>> Pixels(torch.full((1, 3, 4, 4), 0.5))().mean().item()
    0.5
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.latent = nn.Parameter(images.clone())

    def forward(self) -> Tensor:
        """Render the images.

        Returns
        -------
        Tensor, (image, channel, height, width)
            Images in [0, 1].
        """
        return self.latent

    @torch.no_grad()
    def project_(self, images: Tensor) -> None:
        """Move the latent to the images that satisfy the constraints.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            The constrained images in [0, 1].
        """
        self.latent.copy_(images)


class Fourier(nn.Module):
    """Decorrelated Fourier coefficients: ``image = sigmoid(C * irfft2(latent / f^decay) / 4)``.

    Dividing by spatial frequency and mixing colors as natural images do makes one optimizer step change an image as
    much in each natural direction, so coarse structure comes first.

    Parameters
    ----------
    images : Tensor, (image, channel, height, width)
        Start images; clipped to [0.004, 0.996] before they are inverted.
    decay : float
        Power of the amplitude fall-off; 1 is the natural one.
    color : Tensor, (3, 3), optional
        C, from decorrelated to RGB; `NATURAL_COLOR` by default. One-channel images have none.

    References
    ----------
    Olah, Mordvintsev & Schubert, Feature visualization, Distill 2017, for the parametrization and its constant 4.

    Examples
    --------
    >>> start = torch.full((1, 3, 8, 8), 0.25)
    >>> torch.allclose(Fourier(start)(), start, atol=1e-5)
    True
    """

    def __init__(self, images: Tensor, decay: float = 1.0, color: Tensor | None = None) -> None:
        super().__init__()
        height, width = images.shape[-2:]
        self.size = (height, width)
        rows = torch.fft.fftfreq(height)[:, None]
        columns = torch.fft.rfftfreq(width)[None, :]
        frequency = (rows**2 + columns**2).sqrt().clamp(min=1 / max(height, width))
        mix = torch.tensor(NATURAL_COLOR) if color is None else color
        self.amplitude: Tensor
        self.color: Tensor
        self.register_buffer("amplitude", (1 / (4 * frequency**decay))[..., None])
        self.register_buffer("color", mix if images.shape[1] == 3 else torch.ones(1, 1))
        self.to(images.device)
        logits = images.clamp(0.004, 0.996).logit()
        plain = torch.einsum("dc,nchw->ndhw", self.color.inverse(), logits)
        spectrum = torch.view_as_real(torch.fft.rfft2(plain, norm="ortho"))
        self.latent = nn.Parameter(spectrum / self.amplitude)

    def forward(self) -> Tensor:
        """Render the images.

        Returns
        -------
        Tensor, (image, channel, height, width)
            Images in [0, 1].
        """
        spectrum = torch.view_as_complex((self.latent * self.amplitude).contiguous())
        plain = torch.fft.irfft2(spectrum, s=self.size, norm="ortho")
        return torch.einsum("cd,ndhw->nchw", self.color, plain).sigmoid()

    def project_(self, images: Tensor) -> None:
        """Do nothing: every latent renders to an image in [0, 1].

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Ignored.
        """


PARAMS: dict[str, type[Pixels] | type[Fourier]] = {"pixels": Pixels, "fourier": Fourier}


def uniform_start(shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Return the start of 2019: uniform noise whose largest deviation from gray is half the range.

    ``x = u / (2 max |u|)`` in [-1, 1] with u uniform in [-1, 1]; the image is ``(x + 1) / 2``.

    Parameters
    ----------
    shape : tuple of int
        (channel, height, width).
    generator : torch.Generator
        Source of randomness, on the CPU.

    Returns
    -------
    Tensor, (channel, height, width)
        Image in [0.25, 0.75].
    """
    noise = torch.rand(shape, generator=generator) * 2 - 1
    return (noise / (2 * noise.abs().max()) + 1) / 2


def pink_start(shape: tuple[int, int, int], generator: torch.Generator, contrast: float = 0.02) -> Tensor:
    """Return faint noise with a 1/f spectrum around gray.

    Parameters
    ----------
    shape : tuple of int
        (channel, height, width).
    generator : torch.Generator
        Source of randomness, on the CPU.
    contrast : float
        Standard deviation of the pixels, in units of [0, 1].

    Returns
    -------
    Tensor, (channel, height, width)
        Image in [0, 1] with mean 0.5.
    """
    height, width = shape[-2:]
    spectrum = torch.fft.rfft2(torch.randn(shape, generator=generator))
    frequency = (torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.rfftfreq(width)[None, :] ** 2).sqrt()
    frequency[0, 0] = math.inf  # no mean
    noise = torch.fft.irfft2(spectrum / frequency, s=(height, width))
    return (0.5 + contrast * noise / noise.std()).clamp(0, 1)


STARTS = {"uniform": uniform_start, "pink": pink_start}
