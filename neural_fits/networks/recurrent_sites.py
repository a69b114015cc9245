"""Time-resolved sites on a recurrent network: images in, responses (image, site, time bin) out.

In: inputs from the features of an image, a `ModularRNN`, a linear readout of its rates. Out: an ``nn.Module`` that can
be lesioned, saved, and turned into a `SiteModel` of chosen time bins, for which images are then made as for any other.
Made by `fit_recurrent`.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neural_fits.backbones import Backbone
from neural_fits.features import FeatureExtractor, for_image_batches
from neural_fits.image_size import require_image_size
from neural_fits.networks._recurrent_reading import read_bins
from neural_fits.networks.recurrent import ModularRNN
from neural_fits.networks.timeline import Timeline, bin_name, bin_scale
from neural_fits.networks.unrolled import RATES, Unrolled
from neural_fits.readout import LinearReadout
from neural_fits.site_model import SiteInfo, SiteModel
from stimuli import StimulusSet


class RecurrentSites(nn.Module):
    """Predicted responses of sites over time: ``z(t) = W r(t) + c``, averaged in every time bin.

    Parameters
    ----------
    inputs : SiteModel
        From images to the inputs of the network, for example principal components of a layer.
    network : ModularRNN
        The dynamics.
    readout : LinearReadout
        Weights (site, unit, 1, 1) from rates to responses, in the recording's unit.
    timeline : Timeline
        Steps and time bins.
    info : SiteInfo
        Names and units of the sites, statistics over all stimuli and bins.
    natural_mean, natural_std : Tensor, (site, bin)
        Mean and standard deviation of the recorded mean responses over the stimuli, in each bin.
    scores : DataFrame, optional
        Cross-validated scores, one row for each site and bin.
    provenance : dict, optional
        How it was fitted.

    Raises
    ------
    ValueError
        When the parts do not fit each other.
    """

    def __init__(
        self,
        inputs: SiteModel,
        network: ModularRNN,
        readout: LinearReadout,
        timeline: Timeline,
        info: SiteInfo,
        natural_mean: Tensor,
        natural_std: Tensor,
        scores: pd.DataFrame | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        n_sites, n_bins = len(info.site_ids), len(timeline.bins_ms)
        if network.n_inputs != len(inputs.site_ids) or inputs.info.size_px != info.size_px:
            raise ValueError(
                f"the network takes {network.n_inputs} inputs from images of {info.size_px} px, {inputs!r} was given"
            )
        shape = (n_sites, network.wiring.n_units, 1, 1)
        if tuple(readout.weight.shape) != shape or {natural_mean.shape, natural_std.shape} != {(n_sites, n_bins)}:
            raise ValueError(
                f"the readout has shape {tuple(readout.weight.shape)}, expected {shape}; statistics have shape "
                f"{tuple(natural_mean.shape)}, expected {(n_sites, n_bins)}"
            )
        self.inputs, self.network, self.readout, self.timeline, self.info = inputs, network, readout, timeline, info
        self.scores, self.provenance = scores, provenance or {}
        self._pooling: Tensor
        self._scale: Tensor
        self.natural_mean: Tensor
        self.natural_std: Tensor
        for name, tensor in (("pooling", timeline.pooling()), ("scale", bin_scale(timeline, info.unit))):
            self.register_buffer(f"_{name}", tensor.to(natural_mean.device), persistent=False)
        self.register_buffer("natural_mean", natural_mean, persistent=False)
        self.register_buffer("natural_std", natural_std, persistent=False)
        self.eval().requires_grad_(False)

    @property
    def site_ids(self) -> tuple[str, ...]:
        """Names of the sites, in the order of the responses."""
        return self.info.site_ids

    @property
    def modules_in_order(self) -> tuple[str, ...]:
        """Names of the modules, in the order in which the input passes them."""
        return self.network.wiring.modules

    def forward(self, images: Tensor) -> Tensor:
        """Return the responses to images.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Values in [0, 1], of the size the model was fitted on.

        Returns
        -------
        Tensor, (image, site, bin)
            Responses in the recording's unit.
        """
        responses = read_bins(self.rates(images), self._pooling, self.readout.weight, self.readout.bias)
        return responses.transpose(1, 2) * self._scale

    def rates(self, images: Tensor) -> Tensor:
        """Return the rates of the units after every step of ``timeline.edges()``.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Values in [0, 1].

        Returns
        -------
        Tensor, (image, step, unit)
            Rates between 0 and 1; ``network.wiring.slice_of(module)`` says which units are a module's.
        """
        return self.network(self.inputs(images), self.timeline)

    def predict(self, stimuli: StimulusSet, batch_size: int = 32) -> NDArray[np.float32]:
        """Return the predicted responses to a stimulus set.

        Parameters
        ----------
        stimuli : StimulusSet
            Images of the size, in pixels and degrees, that the model was fitted on.
        batch_size : int
            Images a pass.

        Returns
        -------
        ndarray, (stimulus, site, bin)
            Responses in the recording's unit, float32.

        Raises
        ------
        ValueError
            For images of another size.
        """
        require_image_size(stimuli, self.info.size_px, self.info.size_deg)
        device = self._pooling.device
        return np.concatenate(
            for_image_batches(lambda _, images: self(images).cpu().numpy(), stimuli, batch_size, device)
        )

    def held_out_scores(self) -> pd.DataFrame:
        """Return the cross-validated scores.

        Returns
        -------
        DataFrame
            One row for each site and bin, see `fit_recurrent`.

        Raises
        ------
        ValueError
            When the model was never scored.
        """
        if self.scores is None:
            raise ValueError(f"{self!r} was never scored on held-out images; fit it by fit_recurrent")
        return self.scores

    def lesion(self, module: str, fraction: float = 1.0, seed: int = 0) -> RecurrentSites:
        """Return a copy in which units of a module are silent.

        The readout stays as it was: sites that read only silent units keep its offset at all times. It was fitted
        together with the rates and is no resting rate: it may be above their response before the image.

        Parameters
        ----------
        module : str
            Name of the module.
        fraction : float
            Share of its units that fall silent.
        seed : int
            Seed of which ones.

        Returns
        -------
        RecurrentSites
            The copy, without scores: they were those of the whole network.
        """
        return self._with(self.network.lesioned(module, fraction, seed), f"lesion of {fraction:g} of {module}")

    def cut(self, source: str, to: str) -> RecurrentSites:
        """Return a copy without the links from one module to another.

        Parameters
        ----------
        source : str
            Module whose rates are no longer heard.
        to : str
            Module that no longer hears them.

        Returns
        -------
        RecurrentSites
            The copy, without scores.
        """
        return self._with(self.network.cut(source, to), f"cut from {source} to {to}")

    def at(self, bins: int | tuple[float, float] | Sequence[int | tuple[float, float]]) -> SiteModel:
        """Return a model of the sites in chosen time bins, for which images can be made as for any other.

        Parameters
        ----------
        bins : int, (start, end) in ms, or a list of these
            Time bins. The sites of one bin keep their names; with several they are called as ``"site@70-100ms"``.

        Returns
        -------
        SiteModel
            Same predictions, sites of the first bin first. It is saved with the weights of the whole network.

        Raises
        ------
        ValueError
            For a bin that is not there.

        Examples
        --------
        >>> from neural_fits.networks.recurrent_fit import RecurrentConfig, fit_recurrent
        >>> from neural_fits.networks.simulated_dynamics import SimulatedDynamics
        >>> from stimuli import natural_photos
        >>> natural = natural_photos(40, size_px=32)
        >>> brain = SimulatedDynamics(natural, sites_per_region=2)
        >>> quick = RecurrentConfig(units=8, components=5, max_epochs=3, folds=2)
        >>> model = fit_recurrent(natural, brain.record(natural, n_repeats=2), quick, layer="blocks.1")
        >>> model.at([(50, 75), (150, 175)]).site_ids[0]
        'V1_0@50-75ms'
        """
        places = self.timeline.find(bins)
        parts = copy.deepcopy((self.inputs.extractor, self.inputs.readout, self.network))  # its own: they may change
        unrolled = Unrolled(*parts, self.timeline, places)
        backbone = Backbone(
            "recurrent sites", unrolled, input_px=self.info.size_px[0], built_from=unrolled.built_from()
        )
        weight, n_units = self.readout.weight.flatten(1), self.network.wiring.n_units
        spread = weight.new_zeros(len(places), len(weight), len(places) * n_units)
        for k, scale in enumerate(self._scale[places]):
            spread[k, :, k * n_units : (k + 1) * n_units] = scale * weight
        bias = torch.outer(self._scale[places], self.readout.bias).flatten()
        readout = LinearReadout(spread.flatten(0, 1)[:, :, None, None], bias)
        names = self.site_ids
        if len(places) > 1:
            labels = [bin_name(self.timeline.bins_ms[place]) for place in places]
            names = tuple(f"{site}@{label}" for label in labels for site in self.site_ids)
        mean, std = (each[:, places].T.flatten().tolist() for each in (self.natural_mean, self.natural_std))
        info = dataclasses.replace(self.info, site_ids=names, natural_mean=tuple(mean), natural_std=tuple(std))
        extractor = FeatureExtractor(backbone, RATES)
        record = {**self.provenance, "time_bins_ms": [self.timeline.bins_ms[place] for place in places]}
        return SiteModel(extractor.to(weight.device), readout, info, self._scores_at(places, names), record)

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Write the model to a folder, whole or not at all; the weights of published networks are not copied.

        Parameters
        ----------
        folder : str or Path
            Where to write.
        overwrite : bool
            Replace such a model that is already there.

        Returns
        -------
        Path
            The folder; `load_recurrent` reads it.

        Raises
        ------
        FileExistsError
            When something is there and `overwrite` is False, or it is not such a model.
        """
        from neural_fits.networks.recurrent_files import save_recurrent

        return save_recurrent(self, folder, overwrite)

    def _with(self, network: ModularRNN, change: str) -> RecurrentSites:
        record = {**self.provenance, "changes": [*self.provenance.get("changes", []), change]}
        inputs, readout, mean, std = copy.deepcopy((self.inputs, self.readout, self.natural_mean, self.natural_std))
        return RecurrentSites(inputs, network, readout, self.timeline, self.info, mean, std, provenance=record)

    def _scores_at(self, places: list[int], names: tuple[str, ...]) -> pd.DataFrame | None:
        if self.scores is None:
            return None
        starts = [self.timeline.bins_ms[place] for place in places]
        found = [self.scores[(self.scores["start_ms"] == a) & (self.scores["end_ms"] == b)] for a, b in starts]
        table = pd.concat(found).drop(columns=["start_ms", "end_ms"])
        return table.set_axis(pd.Index(names, name="site_id"), axis=0)

    def __repr__(self) -> str:
        chain, bins = " -> ".join(self.modules_in_order), self.timeline.bins_ms
        span = f"{len(bins)} bins in {bins[0][0]:g}-{bins[-1][1]:g} ms"
        return f"RecurrentSites({len(self.site_ids)} sites, {chain}, {span}, unit {self.info.unit!r})"

    def _repr_html_(self) -> str:
        import html

        head = f"<p><b>{html.escape(repr(self))}</b></p>"
        return head if self.scores is None else head + self.scores.head(8).round(3).to_html()
