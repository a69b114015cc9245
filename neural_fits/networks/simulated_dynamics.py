"""A brain whose responses unfold in time: three regions, each later and longer than the one before it.

In: images. Out: time-resolved `SiteRecordings` with spike counts. The truth is there for evaluation only. Used by the
tests and the example of time-resolved sites.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neural_fits.backbones import Backbone, load_backbone
from neural_fits.recordings import SiteRecordings
from neural_fits.simulate import SimulatedBrain
from stimuli import StimulusSet

#: region: latency, time constant of the early part's rise, and that of its decay and of the late part's rise, in ms
REGIONS = {"V1": (40.0, 8.0, 25.0), "V4": (60.0, 12.0, 40.0), "IT": (85.0, 16.0, 60.0)}
#: layers of the early and of the late drive
_EARLY, _LATE = "blocks.2", "blocks.4"
#: how much later than the early part the late one starts, in ms
_DELAY_MS = 50.0


class SimulatedDynamics:
    """Sites that answer to one thing early and to another late.

    ``rate(t) = 2 + A(image) e(t - latency) + B(image) l(t - latency - 50 ms)`` in spikes/s: A and B are the rates of
    two sites of `SimulatedBrain` on a shallow and on a deep layer; ``e(s) = 2 (1 - exp(-s / rise)) exp(-s / decay)``
    rises and decays, ``l(s) = 1 - exp(-s / decay)`` rises and stays, and both are 0 before s = 0. Latencies grow from
    V1 to IT. A trial is a Poisson count in each time bin.

    Parameters
    ----------
    reference : StimulusSet
        Natural images that set the scale of each site.
    sites_per_region : int
        Sites in each of V1, V4 and IT.
    seed : int
        Seed of the sites.
    bins_ms : sequence of (float, float), optional
        Time bins; eight of 25 ms by default.
    backbone : str or Backbone
        The network below.

    Raises
    ------
    ValueError
        For fewer than one site.

    Examples
    --------
    >>> from stimuli import natural_photos
    >>> natural = natural_photos(20, size_px=32)
    >>> SimulatedDynamics(natural, sites_per_region=1).record(natural, n_repeats=2)
    SiteRecordings(20 stimuli x up to 2 repeats x 3 sites x 8 time bins, 0-200 ms, spikes/bin)
    """

    def __init__(
        self,
        reference: StimulusSet,
        *,
        sites_per_region: int = 4,
        seed: int = 0,
        bins_ms: tuple[tuple[float, float], ...] | None = None,
        backbone: str | Backbone = "efficientnet-lite2",
    ) -> None:
        if sites_per_region < 1:
            raise ValueError(f"sites_per_region is {sites_per_region}; expected 1 or more")
        n_sites, network = sites_per_region * len(REGIONS), load_backbone(backbone)
        self.early = SimulatedBrain(reference, n_sites=n_sites, seed=seed, backbone=network, layer=_EARLY)
        self.late = SimulatedBrain(reference, n_sites=n_sites, seed=seed + 1, backbone=network, layer=_LATE)
        self.regions = [region for region in REGIONS for _ in range(sites_per_region)]
        self.site_ids = [f"{region}_{k % sites_per_region}" for k, region in enumerate(self.regions)]
        self.bins_ms = bins_ms or tuple((25.0 * k, 25.0 * (k + 1)) for k in range(8))

    def courses(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the time courses, averaged in every bin.

        Returns
        -------
        early : ndarray, (site, bin)
            Of the early drive, about 1 at its peak.
        late : ndarray, (site, bin)
            Of the late drive, below 1.
        """
        early, late = [], []
        for region in self.regions:
            latency, rise, decay = REGIONS[region]
            fine = [np.linspace(start, end, 50, endpoint=False) + (end - start) / 100 for start, end in self.bins_ms]
            since = np.maximum(np.stack(fine) - latency, 0)
            early.append(((1 - np.exp(-since / rise)) * np.exp(-since / decay)).mean(1))
            late.append((1 - np.exp(-np.maximum(since - _DELAY_MS, 0) / decay)).mean(1))
        return 2 * np.array(early), np.array(late)

    def truth(self, stimuli: StimulusSet) -> NDArray[np.float64]:
        """Return the noiseless responses: for evaluation only.

        Parameters
        ----------
        stimuli : StimulusSet
            The images.

        Returns
        -------
        ndarray, (stimulus, site, bin)
            Expected spikes in each bin.
        """
        early, late = self.courses()
        seconds = np.array([end - start for start, end in self.bins_ms]) / 1000
        first, second = self.early.truth(stimuli), self.late.truth(stimuli)
        return (2.0 + first[:, :, None] * early + second[:, :, None] * late) * seconds

    def record(self, stimuli: StimulusSet, *, n_repeats: int = 8, seed: int = 0) -> SiteRecordings:
        """Show the images and return noisy trials.

        Parameters
        ----------
        stimuli : StimulusSet
            The images.
        n_repeats : int
            Trials of each image.
        seed : int
            Seed of the counts.

        Returns
        -------
        SiteRecordings
            Spikes in each bin, (stimulus, repeat, site, bin); the table of sites has the column ``region``.
        """
        rates = self.truth(stimuli)
        shape = (len(rates), n_repeats, *rates.shape[1:])
        counts = np.random.default_rng(seed).poisson(np.broadcast_to(rates[:, None], shape))
        sites = pd.DataFrame({"region": self.regions}, index=pd.Index(self.site_ids, name="site_id"))
        ids = tuple(stimuli.stimulus_ids)
        return SiteRecordings(counts.astype(np.float32), ids, sites, unit="spikes/bin", time_bins_ms=self.bins_ms)
