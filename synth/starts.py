"""First images: noise, gray, or an image to change. Each depends on its own generator alone. Used by `engine`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stimuli.hints import did_you_mean

#: names of `start_image`
STARTS = ("uniform", "pink", "gray", "base")
_FAINT = 0.02
_STRONGEST = 0.2


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

    Examples
    --------
    >>> uniform_start((1, 8, 8), torch.Generator().manual_seed(0)).shape
    torch.Size([1, 8, 8])
    """
    noise = torch.rand(shape, generator=generator) * 2 - 1
    return (noise / (2 * noise.abs().max()) + 1) / 2


def pink_start(shape: tuple[int, int, int], generator: torch.Generator, contrast: float = _FAINT) -> Tensor:
    """Return noise with a 1/f spectrum around gray.

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

    Examples
    --------
    >>> round(pink_start((3, 16, 16), torch.Generator().manual_seed(0), contrast=0.1).std().item(), 3)
    0.1
    """
    height, width = shape[-2:]
    spectrum = torch.fft.rfft2(torch.randn(shape, generator=generator))
    frequency = (torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.rfftfreq(width)[None, :] ** 2).sqrt()
    frequency[0, 0] = math.inf  # no mean
    noise = torch.fft.irfft2(spectrum / frequency, s=(height, width))
    return (0.5 + contrast * noise / noise.std()).clamp(0, 1)


def start_image(
    name: str,
    shape: tuple[int, int, int],
    generator: torch.Generator,
    attempt: int = 0,
    base: Tensor | None = None,
) -> Tensor:
    """Return the first image of a job.

    Where the gradient was zero, the next attempt starts with more contrast: the faint noise of ``"pink"``, or noise
    added to ``"gray"`` and ``"base"``, is four times as strong at every attempt, up to a standard deviation of 0.2.
    ``"uniform"`` noise is drawn anew.

    Parameters
    ----------
    name : str
        ``"uniform"``, ``"pink"``, ``"gray"`` or ``"base"``.
    shape : tuple of int
        (channel, height, width).
    generator : torch.Generator
        Source of randomness, on the CPU.
    attempt : int
        How many starts had no gradient before.
    base : Tensor, (channel, height, width), optional
        Image in [0, 1] that ``"base"`` starts from.

    Returns
    -------
    Tensor, (channel, height, width)
        Image in [0, 1].

    Raises
    ------
    ValueError
        For an unknown name, or ``"base"`` without an image of the shape asked for.

    Examples
    --------
    >>> start_image("gray", (1, 2, 2), torch.Generator()).flatten().tolist()
    [0.5, 0.5, 0.5, 0.5]
    """
    if name not in STARTS:
        raise ValueError(f"unknown start {name!r}; {did_you_mean(name, STARTS)}known: {', '.join(STARTS)}")
    if name == "uniform":
        return uniform_start(shape, generator)
    if name == "pink":
        return pink_start(shape, generator, min(_FAINT * 4**attempt, _STRONGEST))
    if name == "gray":
        image = torch.full(shape, 0.5)
    elif base is None or tuple(base.shape) != tuple(shape):
        got = "no base image" if base is None else f"a base image of shape {tuple(base.shape)}"
        raise ValueError(f"start 'base' got {got}; give one of shape {tuple(shape)} with values in [0, 1]")
    else:
        image = base.to(torch.float32).clamp(0, 1)
    if attempt:
        image = (image + pink_start(shape, generator, min(_FAINT * 4 ** (attempt - 1), _STRONGEST)) - 0.5).clamp(0, 1)
    return image
