"""What the optimizer moves: latents that render to images in [0, 1].

In: start images (image, channel, height, width). Out: an ``nn.Module`` whose ``latent`` is optimized and whose call
renders the images; ``encode`` turns other start images into latents, so that one image of a batch can be replaced.
Used by the loop in `engine`, and usable in any loop of your own with a torch optimizer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from synth._logit import logit, sigmoid
from synth.deep_prior import DeepPrior
from synth.natural_statistics import NATURAL_COLOR, NaturalStatistics
from synth.preconditioning import radial_frequency


class Pixels(nn.Module):
    """The image itself: ``image = latent``, kept in [0, 1] after every step.

    Parameters
    ----------
    images : Tensor, (image, channel, height, width)
        Start images in [0, 1].
    statistics : NaturalStatistics, optional
        Not used by pixels.

    Examples
    --------
    >>> Pixels(torch.full((1, 3, 4, 4), 0.5))().mean().item()
    0.5
    """

    #: whether every latent renders to an image in [0, 1]; others are projected after each step
    bounded = False

    def __init__(self, images: Tensor, statistics: NaturalStatistics | None = None) -> None:
        super().__init__()
        del statistics
        self.latent = nn.Parameter(self.encode(images))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return the latents of images.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Images in [0, 1].

        Returns
        -------
        Tensor, (image, channel, height, width)
            A copy.
        """
        return images.clone()

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
    """Decorrelated Fourier coefficients: ``image = sigmoid(C * irfft2(latent * A))``, with ``A = 1 / (4 f^decay)``.

    Dividing by spatial frequency and mixing colors as natural images do makes one optimizer step change an image as
    much in each natural direction, so coarse structure comes first. Every latent renders to an image in (0, 1).

    Parameters
    ----------
    images : Tensor, (image, channel, height, width)
        Start images; clipped to [0.004, 0.996] before they are inverted.
    statistics : NaturalStatistics, optional
        Colors C and spectrum A of your own photographs. A is scaled to the mean of the one above, so that step sizes
        keep their meaning; the mean of the image moves as fast as the lowest frequencies at least.
    decay : float
        Power of the amplitude fall-off without statistics; 1 is the natural one.
    color : Tensor, (3, 3), optional
        C, from decorrelated to RGB; by default that of the statistics, or `NATURAL_COLOR`. Gray images have none.

    Raises
    ------
    ValueError
        When the statistics are of images of another size, or of gray images where these have color.

    References
    ----------
    Olah, Mordvintsev & Schubert, Feature visualization, Distill 2017, for the parametrization and its constant 4.

    Examples
    --------
    >>> start = torch.full((1, 3, 8, 8), 0.25)
    >>> torch.allclose(Fourier(start)(), start, atol=1e-5)
    True
    """

    amplitude: Tensor
    color: Tensor
    unmix: Tensor

    #: whether every latent renders to an image in [0, 1]; others are projected after each step
    bounded = True

    def __init__(
        self,
        images: Tensor,
        statistics: NaturalStatistics | None = None,
        *,
        decay: float = 1.0,
        color: Tensor | None = None,
    ) -> None:
        super().__init__()
        height, width = images.shape[-2:]
        self.size = (height, width)
        amplitude = 1 / (4 * radial_frequency(height, width) ** decay)
        if statistics is not None:
            amplitude = _measured(statistics, images) * (amplitude.flatten()[1:].mean())
        self.register_buffer("amplitude", amplitude[..., None])
        _register_color(self, images, statistics, color)
        self.to(images.device)
        self.latent = nn.Parameter(self.encode(images))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return the latents of images.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Images; clipped to [0.004, 0.996].

        Returns
        -------
        Tensor, (image, channel, height, width // 2 + 1, 2)
            Real and imaginary parts.
        """
        plain = _mixed(self.unmix, logit(images))
        return torch.view_as_real(torch.fft.rfft2(plain, norm="ortho")) / self.amplitude

    def forward(self) -> Tensor:
        """Render the images.

        Returns
        -------
        Tensor, (image, channel, height, width)
            Images in [0, 1].
        """
        spectrum = torch.view_as_complex((self.latent * self.amplitude).contiguous())
        return sigmoid(_mixed(self.color, torch.fft.irfft2(spectrum, s=self.size, norm="ortho")))


class PhaseOnly(nn.Module):
    """Phases under a fixed magnitude spectrum: ``image = sigmoid(4 C irfft2(A exp(i latent)))``.

    A photograph keeps its structure when only its phases are kept, so an image that may move nothing else stays nearer
    to photographs. The sigmoid, of slope 1 around gray, brings every latent into (0, 1) and bends only strong
    contrasts; before it the spectrum is exactly A. The mean stays gray before it. Phases are in radians: steps of the
    order of 1 are usual. A uniform image has no phases, so start from noise or from a photograph.

    Parameters
    ----------
    images : Tensor, (image, channel, height, width)
        Start images, of which the phases are taken.
    statistics : NaturalStatistics, optional
        Colors C and spectrum A of your own photographs.
    decay : float
        Without statistics A falls as ``1 / f^decay``, and colors are `NATURAL_COLOR`.
    contrast : float
        Standard deviation of luminance before the sigmoid, without statistics.

    Raises
    ------
    ValueError
        When the statistics are of images of another size, or of gray images where these have color.

    References
    ----------
    Fel et al., Unlocking feature visualization for deeper networks with magnitude constrained optimization, NeurIPS
    2023.

    Examples
    --------
    >>> param = PhaseOnly(torch.rand((1, 3, 8, 8), generator=torch.Generator().manual_seed(0)))
    >>> torch.allclose(PhaseOnly(param().detach())(), param(), atol=1e-4)
    True
    """

    amplitude: Tensor
    color: Tensor
    unmix: Tensor

    #: whether every latent renders to an image in [0, 1]; others are projected after each step
    bounded = True

    def __init__(
        self,
        images: Tensor,
        statistics: NaturalStatistics | None = None,
        *,
        decay: float = 1.0,
        contrast: float = 0.16,
    ) -> None:
        super().__init__()
        height, width = images.shape[-2:]
        self.size = (height, width)
        if statistics is None:
            amplitude = radial_frequency(height, width) ** -decay
            amplitude[0, 0] = 0
            luminance = torch.fft.irfft2(torch.polar(amplitude, torch.zeros_like(amplitude)), s=self.size, norm="ortho")
            amplitude = amplitude * (contrast / luminance.std(correction=0))
        else:
            _check_statistics(statistics, images)
            amplitude = torch.tensor(statistics.amplitude)
            amplitude[0, 0] = 0
        _register_color(self, images, statistics, None)
        share = self.color.mean(0).norm()  # of the decorrelated channels, all of one amplitude, in luminance
        self.register_buffer("amplitude", amplitude / share)
        self.to(images.device)
        self.latent = nn.Parameter(self.encode(images))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return the phases of images; their magnitudes are lost.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Images; clipped to [0.004, 0.996].

        Returns
        -------
        Tensor, (image, channel, height, width // 2 + 1)
            Phases in radians.
        """
        plain = _mixed(self.unmix, logit(images))
        spectrum = torch.fft.rfft2(plain, norm="ortho")
        return torch.atan2(spectrum.imag, spectrum.real)

    def forward(self) -> Tensor:
        """Render the images.

        Returns
        -------
        Tensor, (image, channel, height, width)
            Images in [0, 1].
        """
        phase = self._of_a_real_image()
        spectrum = torch.complex(self.amplitude * phase.cos(), self.amplitude * phase.sin())  # not polar: see sigmoid
        plain = torch.fft.irfft2(spectrum, s=self.size, norm="ortho")
        return sigmoid(_mixed(4 * self.color, plain))

    def _of_a_real_image(self) -> Tensor:
        """Return the phases, odd in frequency where both signs are held: any others would change magnitudes."""
        middle = self.latent[..., 1 : (self.size[1] + 1) // 2]
        columns = [self._odd(self.latent[..., :1]), middle]
        if self.size[1] % 2 == 0:
            columns.append(self._odd(self.latent[..., -1:]))
        return torch.cat(columns, -1)

    @staticmethod
    def _odd(column: Tensor) -> Tensor:
        return (column - column.flip(-2).roll(1, -2)) / 2


def _mixed(color: Tensor, planes: Tensor) -> Tensor:
    if color.numel() == 1:
        return planes * color
    return torch.bmm(color.expand(len(planes), -1, -1), planes.flatten(2)).view(planes.shape)


def _check_statistics(statistics: NaturalStatistics, images: Tensor) -> None:
    if statistics.size_px != tuple(images.shape[-2:]):
        raise ValueError(
            f"the natural statistics are of images of {statistics.size_px} pixels (height, width), the images to be "
            f"made have {tuple(images.shape[-2:])}; measure them on photographs of that size"
        )
    if images.shape[1] == 3 and len(statistics.color) == 1:
        raise ValueError("the natural statistics are of gray images, the images to be made have 3 channels")


def _measured(statistics: NaturalStatistics, images: Tensor) -> Tensor:
    """Return the measured spectrum, of mean 1 without the first entry, with nothing so small that it could not move."""
    _check_statistics(statistics, images)
    amplitude = torch.tensor(statistics.amplitude)
    amplitude = (amplitude / amplitude.flatten()[1:].mean()).clamp(min=1e-3)
    neighbors = torch.stack([amplitude[1 % len(amplitude), 0], amplitude[0, 1 % amplitude.shape[1]]])
    amplitude[0, 0] = torch.maximum(amplitude[0, 0], neighbors.max())
    return amplitude


def _register_color(
    module: nn.Module, images: Tensor, statistics: NaturalStatistics | None, color: Tensor | None
) -> None:
    if images.shape[1] != 3:
        color = torch.ones(1, 1)
    elif color is None:
        color = torch.tensor(NATURAL_COLOR if statistics is None else statistics.color)
    module.register_buffer("color", color)
    module.register_buffer("unmix", color.inverse())


PARAMS: dict[str, type[Pixels] | type[Fourier] | type[PhaseOnly] | type[DeepPrior]] = {
    "pixels": Pixels,
    "fourier": Fourier,
    "phase": PhaseOnly,
    "deep_prior": DeepPrior,
}
