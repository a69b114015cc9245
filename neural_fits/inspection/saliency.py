"""Which pixels a number depends on: its gradient, the gradient averaged over noise, and integrated gradients.

In: a network, a target as in `targets`, images. Out: maps of the images' own size. captum, from the extra ``inspect``,
is imported when it is needed.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Iterator
from types import ModuleType

import torch
from torch import Tensor

from neural_fits.inspection._images import BATCH, images_for, left_as_found
from neural_fits.inspection.targets import Network, Target, TargetFunction, target_function
from stimuli import StimulusSet


def saliency(network: Network, target: Target, images: Tensor | StimulusSet) -> Tensor:
    """Return how strongly each pixel could change the target: ``M_ij = max_c |dS / dI_cij|``.

    Gradients say what a small change does at this image, not what the present pixels contribute; they are zero where
    the network is saturated. Unlike class activation maps they need no feature map with space.

    Source: Simonyan, Vedaldi & Zisserman 2013, section 3.1.

    Parameters
    ----------
    network, target : network and target
        As for `target_function`.
    images : Tensor or StimulusSet, (image, channel, height, width)
        Values in [0, 1].

    Returns
    -------
    Tensor, (image, height, width)
        Unit of the target per unit of pixel value (0 to 1), at least 0.

    Raises
    ------
    TypeError
        When the images are no floating numbers.
    ValueError
        When they have other axes, or values that are not finite or out of range.

    Examples
    --------
    >>> saliency("efficientnet-lite0", "tabby", torch.rand(1, 3, 64, 64)).shape
    torch.Size([1, 64, 64])
    """
    with left_as_found(network):
        function = target_function(network, target)
        return target_gradients(function, images_for(network, images)).abs().amax(1)


def target_gradients(function: TargetFunction, images: Tensor) -> Tensor:
    """Return the gradient of a target with respect to every image.

    Parameters
    ----------
    function : callable
        Images (image, channel, height, width) to (image,), as `target_function` returns it; each number may depend on
        its own image only.
    images : Tensor, (image, channel, height, width)
        Where the gradients are taken.

    Returns
    -------
    Tensor, (image, channel, height, width)
        Signed gradients.

    Examples
    --------
    >>> target_gradients(lambda images: images.square().sum((1, 2, 3)), torch.ones(1, 1, 1, 2)).tolist()
    [[[[2.0, 2.0]]]]
    """
    parts = []
    for part in images.split(BATCH):
        with torch.enable_grad():
            varied = part.detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(function(varied).sum(), varied)
        parts.append(gradient)
    return torch.cat(parts)


def smooth_grad(
    network: Network,
    target: Target,
    images: Tensor | StimulusSet,
    samples: int = 25,
    noise: float = 0.15,
    seed: int = 0,
) -> Tensor:
    """Return saliency with less speckle: ``M_ij = max_c |mean_n dS / dI_cij (I + e_n)|``, ``e ~ N(0, sigma^2)``.

    ``sigma = noise * (max I - min I)``. Noise takes images out of [0, 1] a little; nothing is clipped. Every image has
    the noise of the seed alone, whatever images stand beside it; on Apple's GPUs (mps) the noise is not seeded.

    Source: Smilkov, Thorat, Kim, Viegas & Wattenberg 2017; computed by captum's ``NoiseTunnel``.

    Parameters
    ----------
    network, target : network and target
        As for `target_function`.
    images : Tensor or StimulusSet, (image, channel, height, width)
        Values in [0, 1].
    samples : int
        Noisy copies of each image.
    noise : float
        Standard deviation of the noise as a part of the image's range.
    seed : int
        Seed of the noise.

    Returns
    -------
    Tensor, (image, height, width)
        Unit of the target per unit of pixel value, at least 0.

    Raises
    ------
    ValueError
        When samples or noise are not positive, or images are none (see `saliency`).
    ImportError
        When captum is not installed.

    Examples
    --------
    >>> smooth_grad("efficientnet-lite0", "tabby", torch.rand(1, 3, 32, 32), samples=2).shape
    torch.Size([1, 32, 32])
    """
    if samples < 1 or not noise > 0:
        raise ValueError(f"samples is {samples} and noise {noise}; expected at least 1 sample and noise above 0")
    attr = import_captum()
    parts = []
    with left_as_found(network):
        tunnel = attr.NoiseTunnel(attr.Saliency(target_function(network, target)))
        for image in images_for(network, images).split(1):
            stdev = noise * float(image.max() - image.min())
            with _seeded(seed, image.device), _quiet():
                mean = tunnel.attribute(
                    image.clone(),
                    nt_type="smoothgrad",
                    nt_samples=samples,
                    nt_samples_batch_size=min(samples, BATCH),
                    stdevs=stdev,
                    abs=False,
                )
            parts.append(mean.detach().abs().amax(1))
    return torch.cat(parts)


def integrated_gradients(
    network: Network, target: Target, images: Tensor | StimulusSet, baseline: float | Tensor = 0.5, steps: int = 64
) -> Tensor:
    """Return what each pixel adds on the way from a baseline: ``A = (I - I0) mean_a dS/dI(I0 + a (I - I0))``.

    Completeness: the sum over an image is ``S(I) - S(I0)``, up to the error of `steps` points on the way; networks with
    kinks may need more. The answer depends on the baseline: gray pixels of a gray baseline never count.

    Source: Sundararajan, Taly & Yan 2017; computed by captum's ``IntegratedGradients``.

    Parameters
    ----------
    network, target : network and target
        As for `target_function`.
    images : Tensor or StimulusSet, (image, channel, height, width)
        Values in [0, 1].
    baseline : float or Tensor
        Where the way begins: a gray level, or images that broadcast to `images`.
    steps : int
        Points on the way (Gauss-Legendre).

    Returns
    -------
    Tensor, (image, channel, height, width)
        Signed, in the unit of the target.

    Raises
    ------
    ValueError
        When the steps are not positive, the baseline has another shape, or images are none (see `saliency`).
    TypeError
        When the baseline is neither a number nor a tensor.
    ImportError
        When captum is not installed.

    Examples
    --------
    >>> integrated_gradients("efficientnet-lite0", "tabby", torch.rand(1, 3, 32, 32), steps=4).shape
    torch.Size([1, 3, 32, 32])
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; expected at least 1")
    attr = import_captum()
    parts = []
    with left_as_found(network), _quiet():
        method = attr.IntegratedGradients(target_function(network, target))
        given = images_for(network, images)
        origins = _origins(baseline, given)
        for image, origin in zip(given.split(1), origins.split(1), strict=True):
            found = method.attribute(image.clone(), baselines=origin, n_steps=steps, internal_batch_size=BATCH)
            parts.append(found.detach().to(given.dtype))
    return torch.cat(parts)


def _origins(baseline: float | Tensor, images: Tensor) -> Tensor:
    if isinstance(baseline, bool) or not isinstance(baseline, int | float | Tensor):
        raise TypeError(f"baseline is {baseline!r}; give a gray level from 0 to 1, or images as a tensor")
    origins = torch.as_tensor(baseline, dtype=images.dtype, device=images.device)
    try:
        return origins.expand_as(images)
    except RuntimeError:
        raise ValueError(
            f"baseline has shape {tuple(origins.shape)}, images {tuple(images.shape)}; give one gray level, one image, "
            "or one for each"
        ) from None


def import_captum() -> ModuleType:
    """Return ``captum.attr``, the library behind the methods that are not ours.

    Returns
    -------
    module
        The library's attribution methods.

    Raises
    ------
    ImportError
        When it is not installed.
    """
    try:
        return importlib.import_module("captum.attr")
    except ImportError as error:
        raise ImportError(
            "this view needs captum, which is not installed; run: python -m pip install "
            "'neural-population-control[inspect]'"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep captum from saying that it switches gradients on for images, which is what it is called for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Input Tensor .* did not already require gradients", UserWarning)
        yield


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Let captum, which knows only torch's global generators, draw from a seed; they are afterwards as before."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.random.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        if cuda:
            torch.cuda.set_rng_state(torch.tensor([seed, 0]).view(torch.uint8), device)
        yield
