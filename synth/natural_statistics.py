"""What photographs have in common: how their colors vary together, and how strong each spatial frequency is.

In: a `StimulusSet`, read image by image. Out: `NaturalStatistics`, which the parametrizations in `image_params` take.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stimuli import StimulusSet

_LEAST_COLOR = 1e-3  # gray photographs in color files have no variance in the other directions

# Square root of the covariance of RGB over the 640 crops of `stimuli.natural_photos`, columns ordered by variance,
# scaled so that the longest column is 1: the directions in which natural colors really vary.
# tests/synth/test_image_params.py computes it again.
NATURAL_COLOR = (
    (0.6128, 0.2626, 0.0210),
    (0.5724, -0.0702, -0.0660),
    (0.5449, -0.2216, 0.0458),
)


@dataclass(frozen=True, eq=False, repr=False)
class NaturalStatistics:
    """Colors and amplitude spectrum of a set of images; equal when their numbers are.

    Parameters
    ----------
    color : array, (channel, channel)
        Square root of the covariance of the channels over all pixels: columns are its axes times the standard
        deviation along them, ordered by it and scaled so that the longest is 1. For gray images ``[[1.0]]``.
    amplitude : array, (height, width // 2 + 1)
        Mean magnitude of the orthonormal real Fourier transform of luminance, the mean of the channels, each image
        less its mean; the first entry is the standard deviation of those means times ``sqrt(height * width)``.
    width : int
        Width of the images in pixels, which the spectrum leaves open by one.

    Raises
    ------
    ValueError
        For arrays of another shape, or numbers that are negative or not finite in the spectrum.

    Examples
    --------
    >>> color, amplitude = np.ones((1, 1), np.float32), np.ones((4, 3), np.float32)
    >>> flat = NaturalStatistics(color, amplitude, width=4)
    >>> flat.size_px, flat == NaturalStatistics(color, amplitude, width=4)
    ((4, 4), True)
    """

    color: NDArray[np.float32]
    amplitude: NDArray[np.float32]
    width: int

    def __post_init__(self) -> None:
        for name in ("color", "amplitude"):
            array = np.array(getattr(self, name), dtype=np.float32)
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if self.color.shape not in ((1, 1), (3, 3)) or not np.isfinite(self.color).all():
            raise ValueError(f"color has shape {self.color.shape}; expected finite numbers of shape (1, 1) or (3, 3)")
        if self.amplitude.ndim != 2 or self.amplitude.shape[1] != self.width // 2 + 1:
            raise ValueError(
                f"amplitude has shape {self.amplitude.shape}; expected (height, {self.width // 2 + 1}), the shape of "
                f"rfft2 of images {self.width} pixels wide"
            )
        if not (np.isfinite(self.amplitude).all() and (self.amplitude >= 0).all()):
            raise ValueError("amplitude holds negative, missing or infinite numbers; expected magnitudes")

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.amplitude.shape[0], self.width

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the numbers."""
        content = hashlib.sha256(repr((self.color.shape, self.amplitude.shape, self.width)).encode())
        for array in (self.color, self.amplitude):
            content.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
        return content.hexdigest()

    def __repr__(self) -> str:
        height, width = self.size_px
        return f"NaturalStatistics({len(self.color)}x{height}x{width}, sha256={self.digest[:16]!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NaturalStatistics) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


def natural_statistics(stimuli: StimulusSet) -> NaturalStatistics:
    """Measure colors and amplitude spectrum of photographs; images are read one at a time.

    Parameters
    ----------
    stimuli : StimulusSet
        Photographs, of the size of the images to be made.

    Returns
    -------
    NaturalStatistics
        What `Fourier` and `PhaseOnly` take.

    Raises
    ------
    ValueError
        When all images are uniform.

    Examples
    --------
    >>> from stimuli import natural_photos
    >>> natural_statistics(natural_photos(4, size_px=16)).color.shape
    (3, 3)
    """
    channels, height, width = stimuli.shape
    total, products = np.zeros(channels), np.zeros((channels, channels))
    amplitude, means = np.zeros((height, width // 2 + 1)), []
    for index in range(len(stimuli)):
        pixels = stimuli.images([index])[0].astype(np.float64) - 0.5
        flat = pixels.reshape(channels, -1)
        total += flat.sum(1)
        products += flat @ flat.T
        luminance = pixels.mean(0)
        means.append(luminance.mean())
        amplitude += np.abs(np.fft.rfft2(luminance, norm="ortho"))
    amplitude /= len(stimuli)
    amplitude[0, 0] = np.std(means) * np.sqrt(height * width)
    if not amplitude.ravel()[1:].max(initial=0) > 1e-9:
        raise ValueError(
            f"the {len(stimuli)} images of {stimuli.name!r} are uniform and have no spectrum; give photographs"
        )
    count = len(stimuli) * height * width
    variance, axes = np.linalg.eigh(products / count - np.outer(total, total) / count**2)
    root = (axes * np.sqrt(np.maximum(variance, variance.max() * _LEAST_COLOR**2)))[:, ::-1]
    root *= np.where(root[0] < 0, -1, 1)
    root /= np.linalg.norm(root, axis=0).max()
    return NaturalStatistics(root.astype(np.float32), amplitude.astype(np.float32), width)
