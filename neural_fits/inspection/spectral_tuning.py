"""Which spatial frequencies and orientations move a site, a class or a unit: perturbation analysis of images.

In: a network, a target and images. Out: a `SpectralTuning`, one number for each band of frequency and orientation.
The formulae are in `perturbation`; signals (channel x time) have `signal_perturbation`, pictures `spectral_pictures`.
Source of the method, there for EEG: Schirrmeister et al., Human Brain Mapping 2017; bands of images are our own step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from neural_fits.inspection._images import left_as_found, width_deg
from neural_fits.inspection._noise import noise_size, require_at_least_one
from neural_fits.inspection._spectral_bands import Bands, make_bands, rendered
from neural_fits.inspection._spectral_images import checked_images
from neural_fits.inspection.perturbation import IterationMean, trial_correlation
from neural_fits.inspection.targets import Network, Target, site_indices, target_function, target_name
from neural_fits.parallel import side_by_side
from neural_fits.site_model import Ensemble, SiteModel
from stimuli import StimulusSet

#: sd of the RMS contrast added, sd of the share by which amplitudes change, half the range of the shift in radians
SCALES = {"additive": 0.005, "multiplicative": 0.02, "phase": math.pi}


@dataclass(frozen=True)
class TuningConfig:
    """How images are perturbed.

    Parameters
    ----------
    kind : {"additive", "multiplicative", "phase"}
        What is perturbed. Additive gives all bands the same contrast, as gratings do; multiplicative weighs them by
        what the images hold.
    scale : float, optional
        Size of the noise: RMS contrast (default 0.005), share of the amplitude (0.02), or radians (pi).
    iterations : int
        Times that all images are perturbed.
    octaves : float
        Width of the bands of spatial frequency, counted down from the Nyquist frequency to one cycle an image.
    orientations : int
        Number of bands of orientation; the first is centered on 0.
    edges_cpd : sequence of float, optional
        Edges of the bands of spatial frequency in place of `octaves`.
    gradient : bool
        Whether the gradient is computed too: one backward pass a target and batch, most of the time with many sites.
    batch_size : int
        Images a pass.
    seed : int
        Seed of the noise.

    Raises
    ------
    ValueError
        For an unknown kind, or a number outside its range.

    Examples
    --------
    >>> TuningConfig("phase", iterations=5).size
    3.141592653589793
    """

    kind: str = "additive"
    scale: float | None = None
    iterations: int = 20
    octaves: float = 0.5
    orientations: int = 8
    edges_cpd: Sequence[float] | None = None
    gradient: bool = False
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        noise_size(self.kind, self.scale, SCALES)
        require_at_least_one(iterations=self.iterations, orientations=self.orientations, batch_size=self.batch_size)
        if not self.octaves > 0:
            raise ValueError(f"octaves is {self.octaves}; give a positive width of the bands")

    @property
    def size(self) -> float:
        """Size of the noise, the default where none was given."""
        return noise_size(self.kind, self.scale, SCALES)


@dataclass(frozen=True, eq=False)
class SpectralTuning:
    """What noise on each band of images did to a target.

    Parameters
    ----------
    name : str
        The target.
    kind : str
        ``"additive"``, ``"multiplicative"`` or ``"phase"``.
    edges_cpd : ndarray, (frequency + 1,)
        Edges of the bands of spatial frequency, cycles per degree.
    orientation_deg : ndarray, (orientation,)
        Middle of the bands of orientation: direction of modulation, counterclockwise from the x axis, as in
        `stimuli.gratings` (0 is a vertical grating).
    correlation : ndarray, (frequency, orientation)
        Correlation over images of the noise with the change of the response, mean over iterations. Amplitudes: positive
        where more contrast of the band raises the response, negative where it suppresses it. Phase: of ``|shift|`` with
        ``|change|``; positive where the response depends on the band's phase. NaN where no bin of the images lies.
    standard_error : ndarray, (frequency, orientation)
        Standard error of that mean over iterations.
    gradient : ndarray, (frequency, orientation)
        Mean over images of the change of response per unit of RMS contrast added to the band (additive), per doubling
        of its amplitude by the slope (multiplicative), or of ``|dy / dphase|`` per radian (phase). NaN unless it was
        asked for.
    scale : float
        Size of the noise.
    n_images, n_iterations : int
        How many were used.
    """

    name: str
    kind: str
    edges_cpd: NDArray[np.float64]
    orientation_deg: NDArray[np.float64]
    correlation: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    gradient: NDArray[np.float64]
    scale: float
    n_images: int
    n_iterations: int

    @property
    def frequency_cpd(self) -> NDArray[np.float64]:
        """Middle of each band of spatial frequency, the geometric mean of its edges, in cycles per degree."""
        return np.sqrt(self.edges_cpd[1:] * self.edges_cpd[:-1])

    def preferred(self, sign: int = 1) -> tuple[float, float]:
        """Return the frequency and orientation that raise the response most, or with ``sign=-1`` lower it most.

        The largest band and its neighbors are averaged with their values as weights, frequencies as logarithms and
        orientations on the circle of 180 degrees, so the answer is finer than the bands.

        Parameters
        ----------
        sign : {1, -1}
            Whether to look for the highest or the lowest value.

        Returns
        -------
        frequency_cpd : float
            Spatial frequency in cycles per degree.
        orientation_deg : float
            Direction of modulation in degrees, from 0 to 180.

        Raises
        ------
        ValueError
            When no band has a value of that sign.
        """
        value = np.nan_to_num(sign * self.correlation).clip(min=0)
        if not value.any():
            raise ValueError(f"no band {'raises' if sign > 0 else 'lowers'} the response of {self.name!r}")
        row, column = divmod(int(value.argmax()), value.shape[1])
        rows = np.arange(max(0, row - 1), min(len(value), row + 2))
        turns = len(self.orientation_deg)
        columns = (column + np.array([-1, 0, 1])) % turns if turns > 2 else np.arange(turns)
        weight = value[np.ix_(rows, columns)]
        octave = (weight.sum(1) @ np.log2(self.frequency_cpd[rows])) / weight.sum()
        circle = weight.sum(0) @ np.exp(2j * np.radians(self.orientation_deg[columns]))
        return float(2.0**octave), float(np.degrees(np.angle(circle)) / 2 % 180)

    def table(self) -> pd.DataFrame:
        """Return all bands as a table.

        Returns
        -------
        DataFrame
            One row a band: ``low_cpd``, ``high_cpd``, ``orientation_deg``, ``correlation``, ``standard_error``,
            ``gradient``.
        """
        rows, columns = np.indices(self.correlation.shape).reshape(2, -1)
        values = {key: getattr(self, key).ravel() for key in ("correlation", "standard_error", "gradient")}
        low, high = self.edges_cpd[rows], self.edges_cpd[rows + 1]
        return pd.DataFrame(
            {"low_cpd": low, "high_cpd": high, "orientation_deg": self.orientation_deg[columns], **values}
        )


def spectral_tuning(
    network: Network,
    target: Target,
    images: Tensor | StimulusSet,
    config: TuningConfig | None = None,
    *,
    size_deg: float | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> SpectralTuning:
    """Return which spatial frequencies and orientations move a target on these images.

    Each image's Fourier amplitudes are disturbed band by band at unchanged phase, ``A' = max(0, A + a e)``, one draw
    e ~ N(0, 1) for each band and image, with a such that e = 1 adds a pattern of RMS contrast `scale` to the band; or
    ``A' = A (1 + scale e)``. The value of a band is ``corr over images(e, y' - y)``, mean over iterations. With
    ``kind="phase"`` the phases of a band are turned by one shift s ~ U(-scale, scale), and the value is
    ``corr over images(|s|, |y' - y|)``. The gradient needs no noise; ``TuningConfig(gradient=True)`` adds it.

    Images may leave [0, 1] by about the contrast added; they are not clipped, which would disturb other bands.

    Parameters
    ----------
    network, target : network and target
        As for `target_function`: a model and a site, a classifier and a class, an extractor and a channel or unit.
    images : Tensor, (image, channel, height, width), or StimulusSet
        At least three images with values in [0, 1]: the tuning is that on such images. Natural ones are a good choice.
    config : TuningConfig, optional
        Kind and size of the noise, bands, iterations, seed.
    size_deg : float, optional
        Width of the images in degrees of visual angle; a model of sites and a `StimulusSet` know it.
    progress : callable, optional
        Called with the iterations done and their number.

    Returns
    -------
    SpectralTuning
        Correlation of each band, and its gradient where asked.

    Raises
    ------
    ValueError
        For an unknown target, images of another shape or size, bands that make no sense, or an unknown size in degrees.

    Examples
    --------
    >>> from stimuli import natural_photos
    >>> from neural_fits.features import FeatureExtractor
    >>> extractor = FeatureExtractor("efficientnet-lite0", "blocks.0")
    >>> config = TuningConfig(iterations=2, octaves=1.0)
    >>> tuning = spectral_tuning(extractor, 3, natural_photos(8, size_px=32), config)
    >>> tuning.correlation.shape, tuning.edges_cpd.tolist()
    ((4, 8), [0.125, 0.25, 0.5, 1.0, 2.0])
    """
    with left_as_found(network):
        function = target_function(network, target)
        names = (target_name(network, target),)
        (tuning,) = _tunings(lambda batch: function(batch)[:, None], network, names, images, config, size_deg, progress)
    return tuning


def site_tunings(
    model: SiteModel | Ensemble,
    images: Tensor | StimulusSet,
    sites: str | Sequence[str] | None = None,
    config: TuningConfig | None = None,
    *,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, SpectralTuning]:
    """Return the tuning of several sites, from the same perturbed images and passes through the network.

    Each is what `spectral_tuning` gives for that site and seed.

    Parameters
    ----------
    model : SiteModel or Ensemble
        The model.
    images : Tensor or StimulusSet
        As for `spectral_tuning`.
    sites : str or sequence of str, optional
        Ids of the sites; all by default.
    config : TuningConfig, optional
        As for `spectral_tuning`; with its gradient there is one backward pass a site and batch.
    progress : callable, optional
        Called with the iterations done and their number.

    Returns
    -------
    dict of str to SpectralTuning
        The tuning of each site by its id.

    Raises
    ------
    ValueError
        As `spectral_tuning`, or when no site is asked.
    """
    index = site_indices(model, sites)
    chosen = [model.site_ids[k] for k in index]
    found = _tunings(lambda batch: model(batch)[:, index], model, chosen, images, config, None, progress)
    return dict(zip(chosen, found, strict=True))


def _tunings(
    respond: Callable[[Tensor], Tensor],
    network: object,
    names: Sequence[str],
    images: Tensor | StimulusSet,
    config: TuningConfig | None,
    size_deg: float | None,
    progress: Callable[[int, int], object] | None,
) -> list[SpectralTuning]:
    """Return the tuning of each output of a function images -> (image, unit)."""
    config = config or TuningConfig()
    given = checked_images(images, network)
    size_px, wide = (given.shape[-2], given.shape[-1]), width_deg(network, images, size_deg)
    bands = make_bands(size_px, wide, config.octaves, config.orientations, config.edges_cpd).to(given)
    starts = range(0, len(given), config.batch_size)

    def batches(function: Callable[[Tensor], Tensor], noise: Tensor | None) -> tuple[Tensor, Tensor]:
        @torch.no_grad()
        def call(start: int) -> tuple[Tensor, Tensor]:
            stop = start + config.batch_size
            batch = given[start:stop]
            if noise is None:
                return function(batch), batch.new_zeros(len(batch), 0)
            disturbed, acted = rendered(batch, bands, noise[start:stop], config.kind)
            return function(disturbed), acted

        responses, acted = zip(*side_by_side(call, starts, given.device), strict=True)
        return torch.cat(responses), torch.cat(acted)

    original, _ = batches(respond, None)
    rng = np.random.default_rng(config.seed)
    mean = IterationMean()
    for done in range(config.iterations):
        shape = len(given), len(bands.bins)
        drawn = rng.uniform(-1, 1, shape) if config.kind == "phase" else rng.normal(0.0, 1.0, shape)
        responses, acted = batches(respond, torch.from_numpy(config.size * drawn).to(given))
        change = responses - original
        acted[:, bands.bins == 0] = 0.0  # constant, so its correlation is not defined
        mean.add(trial_correlation(acted, change.abs() if config.kind == "phase" else change))
        if progress is not None:
            progress(done + 1, config.iterations)
    value, error = mean.mean(), mean.standard_error()
    gradient = _gradients(respond, given, bands, config) if config.gradient else np.full_like(value, math.nan)
    return [
        SpectralTuning(
            name,
            config.kind,
            bands.edges_cpd,
            bands.orientation_deg,
            correlation=value[:, k].reshape(bands.shape),
            standard_error=error[:, k].reshape(bands.shape),
            gradient=gradient[:, k].reshape(bands.shape),
            scale=config.size,
            n_images=len(given),
            n_iterations=config.iterations,
        )
        for k, name in enumerate(names)
    ]


@torch.enable_grad()
def _gradients(
    respond: Callable[[Tensor], Tensor], images: Tensor, bands: Bands, config: TuningConfig
) -> NDArray[np.float64]:
    """Return the mean over images of dy/dnoise at no noise, (band, unit)."""
    total = IterationMean()
    for start in range(0, len(images), config.batch_size):
        batch = images[start : start + config.batch_size]
        noise = batch.new_zeros(len(batch), len(bands.bins)).requires_grad_()
        outputs = respond(rendered(batch, bands, noise, config.kind)[0])
        parts = [torch.autograd.grad(outputs[:, k].sum(), noise, retain_graph=True)[0] for k in range(outputs.shape[1])]
        slopes = torch.stack(parts, -1)
        slopes[:, bands.bins == 0] = math.nan
        for image in slopes.abs() if config.kind == "phase" else slopes:
            total.add(image)
    return total.mean()
