"""Noise with the amplitude spectrum of natural scenes, and images without their phases."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stimuli._checks import check_size_deg
from stimuli._contrast import rms_contrast
from stimuli._drawn import drawn_set
from stimuli.apertures import Aperture
from stimuli.appearance import quantize
from stimuli.competitors import copied_set
from stimuli.display import Display
from stimuli.provenance import provenance_record, sha256_bytes
from stimuli.ranges import checked_seed, whole
from stimuli.raster import GRAY, raster_px
from stimuli.stimulus_set import StimulusSet

Plane = NDArray[np.float64]


def noise_plane(shape: tuple[int, int], alpha: float, rng: np.random.Generator) -> Plane:
    """
    Give Gaussian noise whose amplitude falls as ``1 / f^alpha``, ``ifft2(fft2(white) / f^alpha)``.

    Parameters
    ----------
    shape : tuple of int
        Height and width.
    alpha : float
        Exponent: 0 is white, 1 like natural scenes.
    rng : Generator
        Source of the white noise.

    Returns
    -------
    array of float64, shape (h, w)
        Mean 0 and standard deviation 1; it continues over opposite edges.

    Examples
    --------
    >>> plane = noise_plane((16, 16), 1.0, np.random.default_rng(0))
    >>> bool(abs(plane.mean()) < 1e-12), round(float(plane.std()), 12)
    (True, 1.0)
    """
    spectrum = np.fft.rfft2(rng.standard_normal(shape))
    radius = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :])
    radius[0, 0] = 1.0
    spectrum /= radius**alpha
    spectrum[0, 0] = 0.0
    plane = np.fft.irfft2(spectrum, s=shape)
    return np.asarray(plane / plane.std())


def pink_noise(
    n: int,
    *,
    alpha: float = 1.0,
    rms: float = 0.15,
    size_deg: float = 8.0,
    size_px: int | None = None,
    display: Display | None = None,
    aperture: Aperture | None = None,
    channels: int = 1,
    seed: int = 0,
    name: str | None = None,
) -> StimulusSet:
    """
    Make images of 1/f^alpha noise about the background gray.

    Image k depends on the seed and k alone. Sets of one seed with different alpha are filtered from the same noise, so
    their images k resemble each other; give each a seed of its own where they must not. Values outside [0, 1] are
    clipped; at the default contrast they are rare.

    Parameters
    ----------
    n : int
        Number of images.
    alpha : float
        Exponent of the amplitude spectrum, from 0 (white) to 4; 1 is like natural scenes.
    rms : float
        Standard deviation of the image, whose values are in [0, 1], before the aperture and before clipping.
    size_deg : float
        Width of the square images in degrees.
    size_px : int, optional
        Width and height in pixels; by default ``round(size_deg * display.ppd)``, or 128 without a display.
    display : Display, optional
        The screen that the set is made for.
    aperture : Aperture, optional
        Fade the noise into the background outside this disk.
    channels : int
        1 for gray, 3 for RGB with equal channels.
    seed : int
        Seed of the noise.
    name : str, optional
        Name of the set.

    Returns
    -------
    StimulusSet
        n images with the columns family (pink_noise), alpha, number (k), seed, rms_contrast and clipped_fraction, the
        last two measured on the whole image.

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> noise = pink_noise(2, size_px=64, seed=1)
    >>> noise.shape, noise.table["family"].tolist()
    ((1, 64, 64), ['pink_noise', 'pink_noise'])
    """
    whole("n", n, 1)
    seed = checked_seed(seed)
    _within("alpha", alpha, 0.0, 4.0)
    _within("rms", rms, 0.004, 0.5)
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels!r}: give 1 (gray) or 3 (RGB).")
    width_deg = check_size_deg(size_deg)
    pixels = raster_px(width_deg, size_px, display)
    mask = 1.0 if aperture is None else aperture.mask((pixels, pixels), width_deg)
    images, rows = [], []
    for k in range(n):
        plane = noise_plane((pixels, pixels), alpha, np.random.default_rng([seed, k]))
        codes, clipped = quantize((GRAY + mask * rms * plane)[None, None])
        told = {"family": "pink_noise", "alpha": float(alpha), "number": k, "seed": seed}
        around = {} if aperture is None else aperture.columns()
        seen = {"rms_contrast": rms_contrast(codes[0]), "clipped_fraction": float(clipped[0])}
        rows.append(told | seen | around)
        images.append(np.repeat(codes[0], channels, axis=0))
    config = {"family": "pink_noise", "n": n, "alpha": alpha, "rms": rms, "size_deg": width_deg, "size_px": pixels}
    config |= {"channels": channels, "aperture": aperture}
    return drawn_set(
        images,
        rows,
        size_deg=width_deg,
        display=display,
        provenance=provenance_record(seed=seed, config=config),
        name="pink_noise" if name is None else name,
    )


def scrambled(image: Plane, fraction: float, rng: np.random.Generator) -> Plane:
    """
    Add the phases of white noise to those of an image, ``F' = F exp(i fraction phase(fft2(noise)))``.

    Real noise keeps the symmetry of the spectrum, so the result is real. The amplitudes are kept, and with them mean
    and standard deviation; the mean and the other entries that are their own conjugates keep their phases as well.

    Parameters
    ----------
    image : array of float64, shape (c, h, w)
        The image; all channels get the same noise, so that their relative phases stay.
    fraction : float
        0 keeps the image, 1 randomizes the phases wholly; between them every phase moves by up to that part of 180 deg.
    rng : Generator
        Source of the noise.

    Returns
    -------
    array of float64, shape (c, h, w)
        The scrambled image, not clipped.

    Examples
    --------
    >>> image = np.random.default_rng(0).random((1, 8, 8))
    >>> other = scrambled(image, 1.0, np.random.default_rng(1))
    >>> round(float(other.std() / image.std()), 12)
    1.0
    """
    height, width = image.shape[1:]
    phase = np.angle(np.fft.rfft2(rng.standard_normal((height, width))))
    own = np.ix_(*([0, side // 2] if side % 2 == 0 else [0] for side in (height, width)))
    phase[own] = 0.0
    return np.asarray(np.fft.irfft2(np.fft.rfft2(image) * np.exp(1j * fraction * phase), s=(height, width)))


def phase_scrambled(stimuli: StimulusSet, fraction: float = 1.0, *, seed: int = 0) -> StimulusSet:
    """
    Make a copy of every image with its amplitude spectrum and other phases.

    A copy depends on the seed and the id of its source alone. The spectrum is that of an image that wraps round, so
    opposite edges that differ leave horizontal and vertical streaks. The values of a copy spread more evenly than
    those of the source and may leave [0, 1], where they are clipped: see the column clipped_fraction. If it is large,
    lower the contrast of the sources (`stimuli.matching.match_appearance`) and scramble them again; lowering that of
    the copies does not bring back what was clipped.

    Parameters
    ----------
    stimuli : StimulusSet
        The sources; uniform ones, such as the gray control, are left out.
    fraction : float
        From 0 to 1: how far the phases are moved, see `scrambled`.
    seed : int
        Seed of the noise.

    Returns
    -------
    StimulusSet
        The copies with the columns family (phase_scrambled), source, fraction, seed, rms_contrast and
        clipped_fraction, and the photograph and target_site of the source.

    Raises
    ------
    ValueError
        If a number is out of range, every source is uniform, or two copies are the same picture.

    Examples
    --------
    >>> noise = pink_noise(2, size_px=64)
    >>> phase_scrambled(noise, 0.5).table["source"].tolist() == noise.stimulus_ids
    True
    """
    _within("fraction", fraction, 0.0, 1.0)
    seed = checked_seed(seed)

    def copies(source: str, image: Plane) -> Iterator[tuple[Plane, dict[str, Any]]]:
        rng = np.random.default_rng([seed, int(sha256_bytes(source.encode())[:12], 16)])
        yield scrambled(image, fraction, rng), {"fraction": float(fraction), "seed": seed}

    return copied_set(stimuli, "phase_scrambled", copies, {"fraction": fraction}, seed)


def _within(name: str, value: Any, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not math.isfinite(value):
        raise TypeError(f"{name} is {value!r}: give a number from {low:g} to {high:g}.")
    if not low <= value <= high:
        raise ValueError(f"{name} is {value!r}: give a number from {low:g} to {high:g}.")
