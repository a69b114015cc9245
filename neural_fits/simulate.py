"""A brain to try everything on: sites of an independent network, seen only through noisy trials.

In: images. Out: `SiteRecordings` with trial noise. The driver never sees the network or its weights; the noiseless
truth is there for evaluation only. Used by ``npc demo``, tests and benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from neural_fits.backbones import Backbone
from neural_fits.features import FeatureExtractor, for_image_batches
from neural_fits.parallel import side_by_side
from neural_fits.recordings import SiteRecordings
from stimuli import StimulusSet
from stimuli.hints import did_you_mean

#: RMS contrast, in units of [0, 1], that halves a response; natural photographs have about 0.2
_HALF_CONTRAST = 0.05
#: rate, as a fraction of the peak, of an excitation h; at the best of a thousand natural images h is 3 to 6
_TUNING: dict[str, Callable[[Tensor], Tensor]] = {
    "saturating": lambda h: h / (4 + h),
    "linear": lambda h: h / 10,
    "accelerating": lambda h: h**2 / (16 + h**2),
}
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class _Sites:
    """Private parameters of the simulated sites."""

    weight: Tensor  # (site, channel, height, width)
    center_x: np.ndarray  # (site,), fraction of the side
    center_y: np.ndarray
    sigma: np.ndarray


class SimulatedBrain(nn.Module):
    """V4-like sites on a network that no driver uses.

    Each site pools a few random channels in a Gaussian receptive field; its standardized drive z goes through a
    rectifying and saturating nonlinearity and is scaled by the RMS contrast c of the luminance inside the field,
    ``h = log(1 + exp(1.5 z))``, ``rate = peak * h / (4 + h) * c^2 / (c^2 + 0.05^2)``, or another `tuning`: networks
    with batch normalization answer to images of 2 % contrast as to any other, neurons do not. A trial is ``rate +
    noise`` with variance proportional to the rate, so that the reliability of the mean of 8 repeats is the one asked
    for. Sparseness, ratio of best to mean response and reliability are then close to those of V4 sites.

    Parameters
    ----------
    reference : StimulusSet
        Natural images that set the scale of each site's drive; at least 2.
    n_sites : int
        Number of sites.
    seed : int
        Seed of receptive fields, weights, peak rates and noise levels.
    backbone : str, nn.Module or Backbone
        The independent network.
    layer : str
        Its layer.
    tuning : {"saturating", "linear", "accelerating"}
        How the rate grows with excitation: ``h / (4 + h)``, ``h / 10`` or ``h^2 / (16 + h^2)`` of the peak.
    reliability : tuple of float
        Reliabilities (Spearman-Brown, 8 repeats) are drawn uniformly from this range.

    Raises
    ------
    ValueError
        For too few sites or images, an unknown tuning, or reliabilities outside (0, 1].

    Examples
    --------
    >>> from stimuli import natural_photos
    >>> natural = natural_photos(20, size_px=64)
    >>> brain = SimulatedBrain(natural, n_sites=2, seed=0)
    >>> brain.record(natural, n_repeats=3, seed=1).shape
    (20, 3, 2)
    """

    def __init__(
        self,
        reference: StimulusSet,
        *,
        n_sites: int = 32,
        seed: int = 0,
        backbone: str | nn.Module | Backbone = "efficientnet-lite2",
        layer: str = "blocks.4",
        tuning: str = "saturating",
        reliability: tuple[float, float] = (0.6, 0.9),
    ) -> None:
        super().__init__()
        if n_sites < 1 or len(reference) < 2:
            raise ValueError(f"{n_sites} site(s) and {len(reference)} reference image(s): expected 1 and 2 at least")
        if not 0 < reliability[0] <= reliability[1] <= 1:
            raise ValueError(f"reliability is {reliability}; expected (lowest, highest), above 0 and at most 1")
        if tuning not in _TUNING:
            raise ValueError(f"unknown tuning {tuning!r}; {did_you_mean(tuning, _TUNING)}known: {', '.join(_TUNING)}")
        rng = np.random.default_rng(seed)
        self._tuning = _TUNING[tuning]
        self.extractor = FeatureExtractor(backbone, layer)
        self.site_ids = [f"site{k:02d}" for k in range(n_sites)]
        features = self.extractor.extract(reference)
        self._sites = _draw_sites(features, n_sites, rng)
        self._size_px = tuple(reference.size_px)
        self._fields = _fields(self._sites, reference.size_px)
        # On one thread, so that sums do not depend on the number of cores.
        (drive,) = side_by_side(lambda part: part.flatten(1) @ self._sites.weight.flatten(1).T, [features], _CPU)
        self._drive_mean, self._drive_std = (torch.from_numpy(f(drive.numpy(), axis=0)) for f in (np.mean, np.std))
        self._peak = torch.from_numpy(rng.uniform(20.0, 60.0, n_sites)).float()
        contrasts = for_image_batches(lambda _, images: self._contrast(images), reference, 32, _CPU)
        rates = self._rate(drive, torch.cat(contrasts))
        asked = torch.from_numpy(rng.uniform(*reliability, n_sites)).float()
        # variance of one trial at the mean rate, from reliability = signal / (signal + trial / 8)
        self._trial_variance = 8 * torch.from_numpy(rates.numpy().var(0)) * (1 - asked) / asked
        self._mean_rate = torch.from_numpy(rates.numpy().mean(0))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the noiseless rates: the truth, for evaluation only.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Values in [0, 1], of the size of the reference.

        Returns
        -------
        Tensor, (image, site)
            Rates in spikes/s.

        Raises
        ------
        ValueError
            For images of another size.
        """
        if tuple(images.shape[-2:]) != self._size_px:
            raise ValueError(
                f"images are {images.shape[-2]} x {images.shape[-1]} px, the reference of this brain was "
                f"{self._size_px[0]} x {self._size_px[1]} px; resize them"
            )
        drive = self.extractor(images).flatten(1) @ self._sites.weight.flatten(1).T
        return self._rate(drive, self._contrast(images))

    def truth(self, stimuli: StimulusSet) -> np.ndarray:
        """Return the noiseless rates of a stimulus set: for evaluation only.

        Parameters
        ----------
        stimuli : StimulusSet
            The images.

        Returns
        -------
        ndarray, (stimulus, site)
            Rates in spikes/s.
        """
        return np.concatenate(for_image_batches(lambda _, images: self(images).numpy(), stimuli, 32, _CPU))

    def record(self, stimuli: StimulusSet, *, n_repeats: int = 8, seed: int = 0) -> SiteRecordings:
        """Show the images and return noisy trials.

        Parameters
        ----------
        stimuli : StimulusSet
            The images.
        n_repeats : int
            Trials of each image.
        seed : int
            Seed of the trial noise.

        Returns
        -------
        SiteRecordings
            Responses (stimulus, repeat, site) in spikes/s.
        """
        rates = self.truth(stimuli)
        rng = np.random.default_rng(seed)
        noise = rng.standard_normal((len(stimuli), n_repeats, len(self.site_ids)))
        scale = np.sqrt(self._trial_variance.numpy() * rates / self._mean_rate.numpy())
        sites = pd.DataFrame(
            {
                "animal": "simulated",
                "rf_center_x": self._sites.center_x.round(3),
                "rf_center_y": self._sites.center_y.round(3),
                "rf_sigma": self._sites.sigma.round(3),
            },
            index=pd.Index(self.site_ids, name="site_id"),
        )
        responses = (rates[:, None] + scale[:, None] * noise).astype(np.float32)
        return SiteRecordings(responses, tuple(stimuli.stimulus_ids), sites, (70.0, 170.0), "spikes/s")

    def _rate(self, drive: Tensor, contrast: Tensor) -> Tensor:
        excitation = functional.softplus(1.5 * (drive - self._drive_mean) / self._drive_std)
        gain = contrast**2 / (contrast**2 + _HALF_CONTRAST**2)
        return self._peak * self._tuning(excitation) * gain

    def _contrast(self, images: Tensor) -> Tensor:
        """Return the RMS contrast of the luminance inside each receptive field, (image, site)."""
        luminance = images.mean(1).flatten(1)
        mean = luminance @ self._fields.T
        return ((luminance**2) @ self._fields.T - mean**2).clamp(min=0).sqrt()


def _draw_sites(features: Tensor, n_sites: int, rng: np.random.Generator) -> _Sites:
    channels, height, width = features.shape[1:]
    std = features.std((0, 2, 3)).numpy()
    std[std < 1e-6] = np.inf  # a channel silent on the reference would drown the others on other images
    center_x, center_y = rng.uniform(0.3, 0.7, (2, n_sites))
    sigma = rng.uniform(0.06, 0.14, n_sites)
    weight = np.zeros((n_sites, channels, height, width), dtype=np.float32)
    sites = _Sites(torch.from_numpy(weight), center_x, center_y, sigma)
    fields = _fields(sites, (height, width)).view(n_sites, height, width).numpy()
    for k in range(n_sites):
        chosen = rng.choice(channels, min(int(rng.integers(10, 41)), channels), replace=False)
        strength = rng.standard_normal(len(chosen)) / std[chosen]
        weight[k, chosen] = strength[:, None, None] * fields[k]
    return sites


def _fields(sites: _Sites, size: tuple[int, int]) -> Tensor:
    """Return the receptive fields on a grid of that size, (site, row * column), each with sum 1."""
    rows, columns = ((np.arange(count) + 0.5) / count for count in size)
    distance = (rows[None, :, None] - sites.center_y[:, None, None]) ** 2
    distance = distance + (columns[None, None, :] - sites.center_x[:, None, None]) ** 2
    fields = np.exp(-distance / (2 * sites.sigma[:, None, None] ** 2)).reshape(len(sites.sigma), -1)
    return torch.from_numpy((fields / fields.sum(1, keepdims=True)).astype(np.float32))
