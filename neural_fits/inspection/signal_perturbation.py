"""Which frequencies of a signal move the units of a network: perturbation analysis of channels x time.

In: a network or any function of signals (trial, channel, time), and signals. Out: a `SignalPerturbation`, one number
for each channel, frequency and unit. The formulae are in `perturbation`; images have `spectral_tuning`.
Source: Schirrmeister et al., Human Brain Mapping 2017; Hartmann, Schirrmeister and Ball, 2018, arXiv 1711.07792.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from neural_fits.inspection._noise import noise_size, require_at_least_one
from neural_fits.inspection._signal_network import checked_signals, evaluating, names_or_numbers, reader
from neural_fits.inspection.perturbation import (
    IterationMean,
    map_correlation,
    perturb_amplitude,
    time_mean,
    trial_correlation,
    with_amplitude,
)

#: noise as published: sd of what is added, sd of the factor about 1, half the range of the shift in radians
SCALES = {"additive": 1.0, "multiplicative": 0.02, "phase": math.pi}


@dataclass(frozen=True, eq=False)
class SignalPerturbation:
    """What noise on each channel and frequency did to each unit.

    Parameters
    ----------
    kind : str
        ``"additive"``, ``"multiplicative"``, ``"phase"``, or ``"gradient"``.
    frequency_hz : ndarray, (frequency,)
        Frequencies of the Fourier bins.
    values : ndarray, (channel, frequency, unit)
        Amplitude kinds: correlation over trials of the noise with the change of the unit, mean over iterations;
        positive where more power raises the unit. Phase kind: correlation of ``|shift|`` with the likeness of the
        unit's course before and after, for all channels as one; negative where the unit depends on phase. NaN where
        not defined. Gradient: the mean over trials of dy/dA, in units of activation per unit of amplitude.
    standard_error : ndarray, (channel, frequency, unit)
        Standard error of the mean over iterations; over trials for a gradient.
    mean_change : ndarray, (unit,)
        Change of the units by the noise, mean over trials, time and iterations.
    decisions_kept : float
        Share of trials in which the same unit stays the largest; NaN for a single unit. It should stay near 1 where
        units are classes, else the noise is too strong for the signals.
    accuracy, accuracy_perturbed : float
        Share of trials in which the unit of the trial's label is the largest, without and with noise; NaN without
        labels.
    channels, units : tuple of str
        Names.
    n_trials, n_iterations : int
        How many were used.

    Examples
    --------
    >>> signals = np.random.default_rng(0).normal(size=(60, 1, 64)).astype("float32")
    >>> found = perturb_signals(lambda x: x.square().mean(2), signals, rate_hz=64, iterations=2)
    >>> found.values.shape, found.units
    ((1, 33, 1), ('unit 0',))
    """

    kind: str
    frequency_hz: NDArray[np.float64]
    values: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    mean_change: NDArray[np.float64]
    decisions_kept: float
    accuracy: float
    accuracy_perturbed: float
    channels: tuple[str, ...]
    units: tuple[str, ...]
    n_trials: int
    n_iterations: int

    def strongest(self, chosen_in: SignalPerturbation | None = None) -> pd.DataFrame:
        """Return for each unit the channel and frequency of its largest value, with the sign.

        The largest of many values is far from 0 even where all of them are noise. For a height without that bias, run
        the analysis twice with two seeds: one chooses the place, the other gives the value.

        Parameters
        ----------
        chosen_in : SignalPerturbation, optional
            Another result, of other noise, in which the places are looked for.

        Returns
        -------
        DataFrame
            One row a unit: ``channel``, ``frequency_hz``, ``value``, ``standard_error``. Units without any defined
            value are left out.

        Raises
        ------
        ValueError
            When the other result has other channels, frequencies or units.
        """
        where = self if chosen_in is None else chosen_in
        if where.values.shape != self.values.shape:
            raise ValueError(
                f"values have shape {self.values.shape}, those to choose in {where.values.shape}; give two results of "
                "the same channels, frequencies and units"
            )
        rows = {}
        for k, unit in enumerate(self.units):
            size = np.abs(where.values[:, :, k])
            if not np.isnan(size).all():
                at = np.unravel_index(np.nanargmax(size), size.shape)
                rows[unit] = {
                    "channel": self.channels[at[0]],
                    "frequency_hz": self.frequency_hz[at[1]],
                    "value": self.values[(*at, k)],
                    "standard_error": self.standard_error[(*at, k)],
                }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("unit")

    def in_band(self, low_hz: float, high_hz: float) -> NDArray[np.float64]:
        """Return the mean over the frequencies of a band, both ends included.

        Parameters
        ----------
        low_hz, high_hz : float
            The ends.

        Returns
        -------
        ndarray, (channel, unit)
            Means of the defined values.

        Raises
        ------
        ValueError
            When no frequency lies in the band.
        """
        chosen = (self.frequency_hz >= low_hz) & (self.frequency_hz <= high_hz)
        if not chosen.any():
            raise ValueError(
                f"no frequency lies between {low_hz:g} and {high_hz:g} Hz; they run from {self.frequency_hz[0]:g} to "
                f"{self.frequency_hz[-1]:g} Hz in steps of {self.frequency_hz[1] - self.frequency_hz[0]:g} Hz"
            )
        values = self.values[:, chosen]
        known = ~np.isnan(values)
        total, count = np.where(known, values, 0.0).sum(1), known.sum(1)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def perturb_signals(
    network: Callable[[Tensor], Tensor],
    signals: ArrayLike | Tensor,
    rate_hz: float,
    *,
    kind: str = "additive",
    scale: float | None = None,
    iterations: int = 400,
    layer: str | None = None,
    labels: Sequence[int] | None = None,
    channels: Sequence[str] | None = None,
    units: Sequence[str] | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> SignalPerturbation:
    """Perturb the spectra of signals and correlate the noise with what the units do.

    Amplitudes: ``A' = max(0, A + e)``, e ~ N(0, scale), or ``A' = A e``, e ~ N(1, scale), at unchanged phase; then
    ``corr over trials(e, mean over time(y' - y))``, mean over iterations. Phases: ``phi' = phi + s`` with s ~ U(-scale,
    scale) for each trial and frequency, the same for all channels; then ``corr over trials(|s|, r)`` with r the
    correlation over time of y and y'.
    The mean and the Nyquist frequency have no phase, so they are not shifted. All frequencies are perturbed at once.
    Memory does not grow with the iterations. Activations over time are held for one batch, and for phases those of all
    unperturbed signals.

    Parameters
    ----------
    network : callable
        Takes signals (trial, channel, time), gives activations (trial, unit) or (trial, unit, time); further axes count
        as time. An ``nn.Module`` runs in evaluation mode.
    signals : array or Tensor, (trial, channel, time)
        Signals; the noise of the additive kind is in the unit of their Fourier amplitudes, ``|sum_t x_t exp(-i w t)|``.
    rate_hz : float
        Samples per second.
    kind : {"additive", "multiplicative", "phase"}
        What is perturbed, and how.
    scale : float, optional
        Size of the noise; by default as published: 1, 0.02 and pi. The published 1 suits signals standardized to about
        1; `decisions_kept` of the result tells.
    iterations : int
        Times that all trials are perturbed.
    layer : str, optional
        Dotted name of the layer of an ``nn.Module`` whose output is meant, in place of the network's own output.
    labels : sequence of int, optional
        True class of each trial, for the accuracy with and without noise.
    channels, units : sequence of str, optional
        Names.
    batch_size : int
        Trials a pass.
    seed : int
        Seed of the noise.
    progress : callable, optional
        Called with the iterations done and their number.

    Returns
    -------
    SignalPerturbation
        Values (channel, frequency, unit); (1, frequency, unit) for phases.

    Raises
    ------
    ValueError
        For signals of another shape, fewer than three trials, an unknown kind or layer, or phases where the network has
        no time axis.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> signals = rng.normal(size=(100, 2, 64)).astype("float32")
    >>> t = torch.arange(64) / 64
    >>> wave = torch.exp(2j * math.pi * 8 * t)  # power at 8 Hz of the second channel lowers the unit
    >>> found = perturb_signals(lambda x: -(x[:, 1] * wave).mean(1).abs()[:, None], signals, 64, iterations=5)
    >>> found.strongest()[["channel", "frequency_hz"]].values.tolist(), bool(found.values[1, 8, 0] < 0)
    ([['channel 1', 8.0]], True)
    """
    size = noise_size(kind, scale, SCALES)
    require_at_least_one(iterations=iterations, batch_size=batch_size)
    given = checked_signals(signals, network)
    rng = np.random.default_rng(seed)
    with evaluating(network), torch.no_grad():
        read = reader(network, layer)
        # Only phases are compared over time; of all others the means are enough.
        held = [read(part) if kind == "phase" else time_mean(read(part)) for part in given.split(batch_size)]
        if kind == "phase" and held[0].ndim < 3:
            raise ValueError(
                f"phase perturbation compares the course of a unit over time, but the activations have shape "
                f"{(len(given), *held[0].shape[1:])}; name a layer that keeps time, or perturb amplitudes "
                "(kind='additive')"
            )
        before = torch.cat([time_mean(part) for part in held])
        unit_names = names_or_numbers(units, before.shape[1], "unit")
        spectrum = torch.fft.rfft(given, dim=2)
        values, moved, kept, correct = (IterationMean() for _ in range(4))
        for done in range(iterations):
            changed, noise = _perturbed(spectrum, kind, size, given.shape[2], rng)
            means, likeness = [], []
            for part, old in zip(changed.split(batch_size), held, strict=True):
                new = read(part)
                means.append(time_mean(new))
                if kind == "phase":
                    likeness.append(map_correlation(old, new))
                del new  # before the next batch is read
            after = torch.cat(means)
            values.add(trial_correlation(noise, torch.cat(likeness) if likeness else after - before))
            moved.add((after - before).mean(0))
            kept.add((after.argmax(1) == before.argmax(1)).double().mean())
            correct.add(_accuracy(after, labels))
            if progress is not None:
                progress(done + 1, iterations)
        return SignalPerturbation(
            kind,
            _frequencies(given.shape[2], rate_hz),
            values.mean(),
            values.standard_error(),
            moved.mean(),
            float(kept.mean()) if before.shape[1] > 1 else math.nan,
            float(_accuracy(before, labels)),
            float(correct.mean()),
            ("all",) if kind == "phase" else names_or_numbers(channels, given.shape[1], "channel"),
            unit_names,
            len(given),
            iterations,
        )


@torch.enable_grad()
def amplitude_gradient(
    network: Callable[[Tensor], Tensor],
    signals: ArrayLike | Tensor,
    rate_hz: float,
    *,
    layer: str | None = None,
    channels: Sequence[str] | None = None,
    units: Sequence[str] | None = None,
    batch_size: int = 64,
) -> SignalPerturbation:
    """Return the gradient of each unit with respect to the amplitudes, ``mean over trials dy/dA`` at unchanged phase.

    What `perturb_signals` finds with little noise, from one backward pass a unit and without sampling.

    Parameters
    ----------
    network : callable
        As for `perturb_signals`, differentiable.
    signals : array or Tensor, (trial, channel, time)
        Signals.
    rate_hz : float
        Samples per second.
    layer : str, optional
        As for `perturb_signals`.
    channels, units : sequence of str, optional
        Names.
    batch_size : int
        Trials a pass.

    Returns
    -------
    SignalPerturbation
        Gradients (channel, frequency, unit), kind ``"gradient"``.

    Raises
    ------
    ValueError
        As `perturb_signals`.

    Examples
    --------
    >>> signals = np.random.default_rng(0).normal(size=(9, 1, 8)).astype("float32")
    >>> found = amplitude_gradient(lambda x: x.mean(2), signals, 8.0)  # the mean moves with the bin at 0 Hz only
    >>> found.frequency_hz[np.abs(found.values[0, :, 0]) > 1e-6].tolist()
    [0.0]
    """
    require_at_least_one(batch_size=batch_size)
    given = checked_signals(signals, network)
    spectrum = torch.fft.rfft(given, dim=2)
    total = IterationMean()
    with evaluating(network):
        for start in range(0, len(given), batch_size):
            part = spectrum[start : start + batch_size]
            amplitude = part.abs().requires_grad_()
            rendered = torch.fft.irfft(with_amplitude(part, amplitude), given.shape[2], dim=2)
            reached = time_mean(reader(network, layer)(rendered))
            parts = [
                torch.autograd.grad(reached[:, k].sum(), amplitude, retain_graph=True)[0]
                for k in range(reached.shape[1])
            ]
            for trial in torch.stack(parts, -1):
                total.add(trial)
    count = reached.shape[1]
    return SignalPerturbation(
        "gradient",
        _frequencies(given.shape[2], rate_hz),
        total.mean(),
        total.standard_error(),
        np.zeros(count),
        *(math.nan, math.nan, math.nan),
        names_or_numbers(channels, given.shape[1], "channel"),
        names_or_numbers(units, count, "unit"),
        len(given),
        0,
    )


def _perturbed(
    spectrum: Tensor, kind: str, size: float, n_time: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return perturbed signals and the noise (trial, channel or 1, frequency) as it acted."""
    shape, amplitude = tuple(spectrum.shape), spectrum.abs()
    if kind == "phase":
        shift = rng.uniform(-size, size, (shape[0], 1, shape[2]))
        shift[:, :, _real_bins(n_time)] = 0.0
        noise = torch.from_numpy(shift).to(amplitude)
        changed, acted = spectrum * torch.exp(1j * noise), noise.abs()
    else:
        noise = torch.from_numpy(rng.normal(0.0 if kind == "additive" else 1.0, size, shape)).to(amplitude)
        perturbed, acted = perturb_amplitude(amplitude, noise, kind)
        changed = with_amplitude(spectrum, perturbed)
    return torch.fft.irfft(changed, n_time, dim=2), acted


def _frequencies(n_time: int, rate_hz: float) -> NDArray[np.float64]:
    if not rate_hz > 0:
        raise ValueError(f"rate_hz is {rate_hz}; give the samples per second, a positive number")
    return np.asarray(np.fft.rfftfreq(n_time, 1 / rate_hz), dtype=np.float64)


def _real_bins(n_time: int) -> list[int]:
    """Return the bins of a real signal's spectrum that are real: its mean, and with an even length the Nyquist."""
    return [0] if n_time % 2 else [0, n_time // 2]


def _accuracy(activations: Tensor, labels: Sequence[int] | None) -> Tensor:
    if labels is None:
        return torch.tensor(math.nan)
    if len(labels) != len(activations):
        raise ValueError(f"there are {len(labels)} labels for {len(activations)} trials; give one a trial")
    return (activations.argmax(1).cpu() == torch.as_tensor(np.asarray(labels))).double().mean()
