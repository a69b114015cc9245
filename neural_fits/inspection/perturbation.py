"""Formulae that perturbation analysis of signals and of images share: noise on a spectrum, correlation over inputs.

An input is taken apart into amplitudes and phases, one of them is disturbed by noise, and what the noise did to a unit
is correlated with the noise over many inputs. `signal_perturbation` does it for channels x time, `spectral_tuning` for
images. Source: Schirrmeister et al., Human Brain Mapping 2017, section A.5.2; Hartmann, Schirrmeister and Ball, 2018.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# A map whose spread is below this share of its size is constant but for rounding.
_CONSTANT = 1e-6


def perturb_amplitude(amplitude: Tensor, noise: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Disturb amplitudes, which stay at or above 0, and return the noise that this left.

    ``A' = max(0, A + e)`` with the noise recomputed as ``A' - A`` (additive); ``A' = A max(0, e)`` (multiplicative).

    Parameters
    ----------
    amplitude : Tensor
        Amplitudes A.
    noise : Tensor
        Draws e that broadcast to them: about 0 (additive), or factors about 1 (multiplicative).
    kind : {"additive", "multiplicative"}
        What the noise does.

    Returns
    -------
    perturbed : Tensor
        Amplitudes A'.
    applied : Tensor
        The noise as it acted.

    Examples
    --------
    >>> perturbed, applied = perturb_amplitude(torch.tensor([1.0, 1.0]), torch.tensor([0.5, -3.0]), "additive")
    >>> perturbed.tolist(), applied.tolist()
    ([1.5, 0.0], [0.5, -1.0])
    """
    if kind == "additive":
        perturbed = (amplitude + noise).clamp(min=0)
        return perturbed, perturbed - amplitude
    factor = noise.clamp(min=0)
    return amplitude * factor, factor


def with_amplitude(spectrum: Tensor, amplitude: Tensor) -> Tensor:
    """Return a spectrum of other amplitudes at unchanged phase, ``A' exp(i phi)``; phase 0 where there was nothing.

    Parameters
    ----------
    spectrum : Tensor
        Complex spectrum, whose phases are kept.
    amplitude : Tensor
        Amplitudes A' of the same shape.

    Returns
    -------
    Tensor
        Complex spectrum, differentiable in the amplitudes.

    Examples
    --------
    >>> with_amplitude(torch.tensor([3j, 0j, -2 + 0j]), torch.tensor([1.0, 1.0, 4.0])).tolist()
    [1j, (1+0j), (-4+0j)]
    """
    # Scaling keeps bins that must be real (mean, Nyquist) real, which cosine and sine of an angle do not.
    return torch.sgn(spectrum) * amplitude + torch.where(spectrum == 0, amplitude, 0.0)


def time_mean(activations: Tensor) -> Tensor:
    """Return the mean over time of each unit; its change is what noise on amplitudes is correlated with.

    Parameters
    ----------
    activations : Tensor, (trial, unit, ...)
        Activations; all axes after the unit are averaged.

    Returns
    -------
    Tensor, (trial, unit)
        Means, float64, in the unit of the activations.

    Examples
    --------
    >>> time_mean(torch.tensor([[[1.0, 2.0]]])).tolist()
    [[1.5]]
    """
    # Changes are small beside the means, so their difference is taken of float64.
    flat = activations.flatten(2) if activations.ndim > 2 else activations[..., None]
    return flat.mean(2, dtype=torch.float64)


def map_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return the correlation over time of two maps of the same unit, ``r = mean_t(z_t z'_t)`` with z standardized.

    The products are divided by the number T of time points, so r lies in [-1, 1]; braindecode's function of the same
    purpose returns T r.

    Parameters
    ----------
    first, second : Tensor, (trial, unit, ...)
        Activations; all axes after the unit count as time.

    Returns
    -------
    Tensor, (trial, unit)
        Correlations, float64; NaN where a map is constant.

    Examples
    --------
    >>> ramp = torch.arange(8.0).view(1, 1, 8)
    >>> round(map_correlation(ramp, 2 * ramp + 1).item(), 6), round(map_correlation(ramp, -ramp).item(), 6)
    (1.0, -1.0)
    """
    standardized = []
    for each in (first, second):
        flat = each.detach().flatten(2).double()
        centered = flat - flat.mean(2, keepdim=True)
        spread = centered.square().mean(2, keepdim=True).sqrt()
        constant = spread <= _CONSTANT * flat.abs().amax(2, keepdim=True)
        standardized.append(torch.where(constant, math.nan, centered / spread))
    return (standardized[0] * standardized[1]).mean(2)


def trial_correlation(noise: Tensor, change: Tensor) -> Tensor:
    """Return the correlation over trials of every entry of the noise with the change of every unit.

    Parameters
    ----------
    noise : Tensor, (trial, ...)
        Noise as it acted.
    change : Tensor, (trial, unit)
        What became of the units; trials that are NaN for a unit are left out for it.

    Returns
    -------
    Tensor, (..., unit)
        Correlations in [-1, 1], float64; NaN where noise or change are constant.

    Examples
    --------
    >>> noise = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0]])
    >>> trial_correlation(noise, torch.tensor([[0.0], [-1.0], [-2.0]])).round(decimals=6).tolist()
    [[-1.0], [0.0]]
    """
    flat = noise.flatten(1).double()
    flat = flat - flat.mean(0)  # sums of squares of small numbers: nothing cancels below
    change = change.double()
    known = (~change.isnan()).double()
    count = known.sum(0)
    middle = change.nansum(0) / count
    moved = torch.nan_to_num(change - middle) * known
    mean, square = flat.T @ known / count, flat.square().T @ known / count
    variance, spread = square - mean.square(), moved.square().sum(0) / count
    still = (variance <= _CONSTANT**2 * square) | (spread <= 0)
    correlation = torch.where(still, math.nan, (flat.T @ moved / count) / (variance * spread).sqrt())
    return correlation.clamp(-1, 1).unflatten(0, noise.shape[1:])


class IterationMean:
    """Mean and standard error over iterations, of which only two sums are held.

    Entries that are NaN in an iteration do not count in it.

    Examples
    --------
    >>> mean = IterationMean()
    >>> mean.add(torch.tensor([1.0, float("nan")]))
    >>> mean.add(torch.tensor([3.0, 2.0]))
    >>> mean.mean().tolist(), mean.standard_error().tolist()
    ([2.0, 2.0], [1.0, nan])
    """

    def __init__(self) -> None:
        self._count: Tensor | float = 0.0
        self._mean: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0

    def add(self, values: Tensor) -> None:
        """Take one iteration in.

        Parameters
        ----------
        values : Tensor
            Values of one iteration, of the same shape each time.
        """
        values = values.detach().double()
        known = ~values.isnan()
        self._count = self._count + known
        off = torch.where(known, values - self._mean, 0.0)
        self._mean = self._mean + off / torch.clamp(self._count, min=1)
        self._squares = self._squares + off * torch.where(known, values - self._mean, 0.0)

    def mean(self) -> NDArray[np.float64]:
        """Return the mean over iterations.

        Returns
        -------
        ndarray
            The mean; NaN where no iteration had a value.
        """
        count, mean = torch.as_tensor(self._count), torch.as_tensor(self._mean)
        return torch.where(count > 0, mean, math.nan).cpu().numpy()

    def standard_error(self) -> NDArray[np.float64]:
        """Return the standard error of the mean over iterations.

        Returns
        -------
        ndarray
            The error; NaN with fewer than two values.
        """
        count, squares = torch.as_tensor(self._count), torch.as_tensor(self._squares)
        error = (squares / (count - 1).clamp(min=1) / count.clamp(min=1)).sqrt()
        return torch.where(count > 1, error, math.nan).cpu().numpy()
