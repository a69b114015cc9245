"""The Fourier plane of images, cut into bands of frequency and orientation, and images disturbed band by band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neural_fits.inspection.grating_tuning import band_edges
from neural_fits.inspection.perturbation import perturb_amplitude, with_amplitude

# Frequencies that lie on an edge, such as one cycle an image, belong to the band above it, whatever their last digit.
_EDGE = 1e-9


@dataclass(frozen=True, eq=False)
class Bands:
    """Which band each bin of a full Fourier plane (height, width) belongs to.

    `band` is -1 where a bin belongs to none: the mean, the Nyquist row and column, whose bins have no phase or no
    single orientation, and all frequencies beyond the edges. `side` is +1 in one half of the plane and -1 in the other,
    so that shifts of phase keep an image real. `step` is the amplitude that gives a band a contrast (RMS) of 1.
    """

    edges_cpd: NDArray[np.float64]
    orientation_deg: NDArray[np.float64]
    band: Tensor
    side: Tensor
    step: Tensor
    bins: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.edges_cpd) - 1, len(self.orientation_deg)

    def spread(self, values: Tensor) -> Tensor:
        """Return values (image, band) as a plane (image, 1, height, width), 0 where no band is."""
        padded = torch.cat([values, values.new_zeros(len(values), 1)], 1)
        return padded[:, self.band.flatten()].unflatten(1, self.band.shape)[:, None]

    def pooled(self, plane: Tensor) -> Tensor:
        """Return the mean over channels and the bins of a band, (image, channel, height, width) -> (image, band)."""
        flat = plane.mean(1).flatten(1)
        total = flat.new_zeros(len(flat), len(self.bins) + 1)
        total.index_add_(1, self.band.flatten() % (len(self.bins) + 1), flat)
        return total[:, :-1] / self.bins.clamp(min=1)

    def to(self, like: Tensor) -> Bands:
        side, step = self.side.to(like), self.step.to(like)
        band, bins = self.band.to(like.device), self.bins.to(like)
        return Bands(self.edges_cpd, self.orientation_deg, band, side, step, bins)


def make_bands(
    size_px: tuple[int, int], size_deg: float, octaves: float, orientations: int, edges_cpd: Sequence[float] | None
) -> Bands:
    """Cut the plane of images of that size, `size_deg` wide, with square pixels."""
    if not octaves > 0 or orientations < 1:
        raise ValueError(
            f"octaves is {octaves} and orientations {orientations}; give a positive width of the bands, and at least "
            "one orientation"
        )
    height, width = size_px
    x_cpd = np.fft.fftfreq(width, size_deg / width)[None]
    y_cpd = -np.fft.fftfreq(height, size_deg / width)[:, None]  # rows run downward, degrees upward
    nyquist = width / size_deg / 2
    if edges_cpd is None:
        edges = band_edges(size_px, size_deg, octaves)
    else:
        edges = np.asarray(edges_cpd, dtype=np.float64)
        if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all() or edges[0] <= 0:
            raise ValueError(f"edges_cpd is {edges_cpd}; give at least two rising positive frequencies")
    frequency = np.hypot(x_cpd, y_cpd)
    ring = np.searchsorted(edges * (1 - _EDGE), frequency, side="right") - 1
    side = np.where((y_cpd > 0) | ((y_cpd == 0) & (x_cpd > 0)), 1.0, -1.0)
    angle = np.degrees(np.arctan2(y_cpd * side, x_cpd * side))  # of one half: a bin and its mirror fall in one band
    # Halves go up: rounding to even would give both diagonals to the first of two bands.
    wedge = np.floor(angle * orientations / 180 + 0.5 + _EDGE).astype(int) % orientations
    real = (np.abs(np.abs(x_cpd) - nyquist) < _EDGE) | (np.abs(np.abs(y_cpd) - nyquist) < _EDGE)
    outside = real | (ring < 0) | (ring >= len(edges) - 1) | (frequency == 0)
    band = np.where(outside, -1, ring * orientations + wedge)
    bins = np.bincount(band[band >= 0], minlength=(len(edges) - 1) * orientations)
    if not bins.any():
        raise ValueError(
            f"no frequency of images of {height} x {width} px and {size_deg:g} deg width lies in the bands from "
            f"{edges[0]:g} to {edges[-1]:g} cycles per degree; give other edges_cpd"
        )
    # Parseval: n bins of amplitude a are a pattern of RMS contrast a sqrt(n) / pixels.
    step = np.where(band >= 0, height * width / np.sqrt(np.maximum(bins, 1))[band], 0.0)
    return Bands(
        edges,
        np.arange(orientations) * 180.0 / orientations,
        torch.from_numpy(band),
        torch.from_numpy(side),
        torch.from_numpy(step),
        torch.from_numpy(bins),
    )


def rendered(images: Tensor, bands: Bands, noise: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Return the images with noise (image, band) on their bands, differentiable in it, and the noise as it acted.

    Noise is the RMS contrast added (additive), the share by which amplitudes change (multiplicative), or the shift of
    phase in radians.
    """
    spectrum = torch.fft.fft2(images)
    if kind == "phase":
        shift = bands.spread(noise) * bands.side
        return torch.fft.ifft2(spectrum * torch.exp(1j * shift)).real, noise.abs()
    amplitude = spectrum.abs()
    if kind == "additive":
        changed, applied = perturb_amplitude(amplitude, bands.spread(noise) * bands.step, kind)
        acted = bands.pooled(applied / torch.where(bands.band < 0, 1.0, bands.step))
    else:
        changed, factor = perturb_amplitude(amplitude, 1 + bands.spread(noise), kind)
        acted = bands.pooled(factor - 1)
    return torch.fft.ifft2(with_amplitude(spectrum, changed)).real, acted
