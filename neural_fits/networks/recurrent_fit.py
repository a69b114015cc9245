"""Fit time-resolved sites: stimuli and time-resolved recordings in, scored `RecurrentSites` out.

Principal components of a layer drive a modular recurrent network whose rates are read out linearly; the dynamics and
the readout are trained together. Held-out scores stand beside those of a linear readout of the same layer fitted to
each time bin on its own, in the same folds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neural_fits.backbones import Backbone, load_backbone
from neural_fits.fit import _extractor, _layers, best_device
from neural_fits.fit_task import _check_enough, _check_trainable
from neural_fits.folds import Fold, group_folds, group_labels
from neural_fits.networks._recurrent_inputs import ReadoutInputs, local_option, principal_inputs
from neural_fits.networks._recurrent_scores import by_bin, recurrent_scores
from neural_fits.networks._recurrent_training import Training, stopping_folds
from neural_fits.networks.recurrent import Wiring
from neural_fits.networks.recurrent_sites import RecurrentSites
from neural_fits.networks.timeline import Timeline, bin_scale
from neural_fits.parallel import side_by_side
from neural_fits.readout import LinearReadout
from neural_fits.recordings import SiteRecordings
from neural_fits.site_model import SiteInfo, SiteModel
from stimuli import StimulusSet
from stimuli.hints import did_you_mean
from stimuli.provenance import provenance_record, sha256_bytes


@dataclass(frozen=True)
class RecurrentConfig:
    """How a recurrent model is made and trained.

    Parameters
    ----------
    modules : tuple of str
        Names of the modules, in the order in which the input passes them.
    units : int
        Units of each module (100 in the network of 2020).
    link_density : float
        Share of the possible links between neighboring modules that exist.
    feedback : bool
        Whether there are links backward in the chain as well.
    site_column : str, optional
        Column of ``recordings.sites`` that names the module that each site is read from; by default every site reads
        all modules.
    inputs : {"readout", "pca"}
        What enters the first module: principal components of what linear readouts of every site and bin predict, or
        of the layer itself, as in 2020.
    components : int
        How many of them.
    tau_ms : float
        Time constant of the units; 100 in the network of 2020, which moves muscles.
    step_ms : float
        Step of the integration.
    latency_ms : float
        When the image reaches the first module, after onset.
    duration_ms : float, optional
        How long the image is on; by default to the last bin.
    hold_ms : tuple of float, optional
        Start and end of a hold signal to all modules.
    weight_penalty : float
        Factor of the sum of all squared weights (of responses with variance 1).
    rate_penalty : float
        Factor of the mean squared rate.
    learning_rate : float
        Of Adam.
    max_epochs : int
        Most passes over all stimuli.
    patience : int
        Passes without a better check on held-out groups before training ends.
    folds : int
        Number of cross-validation folds.
    group : str
        Column of ``stimuli.table`` whose equal values stay on one side, as in `fit_sites`.
    seed : int
        Seed of folds, links and first weights.

    Raises
    ------
    ValueError
        For numbers that make no fit.
    """

    modules: tuple[str, ...] = ("V1", "V4", "IT")
    units: int = 50
    link_density: float = 0.1
    feedback: bool = True
    site_column: str | None = None
    inputs: Literal["readout", "pca"] = "readout"
    components: int = 20
    tau_ms: float = 25.0
    step_ms: float = 10.0
    latency_ms: float = 0.0
    duration_ms: float | None = None
    hold_ms: tuple[float, float] | None = None
    weight_penalty: float = 1e-3
    rate_penalty: float = 1e-2
    learning_rate: float = 5e-3
    max_epochs: int = 200
    patience: int = 15
    folds: int = 5
    group: str = "photograph"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.inputs not in ("readout", "pca"):
            raise ValueError(f"inputs is {self.inputs!r}; expected 'readout' or 'pca'")
        if self.components < 1 or self.max_epochs < 1 or self.patience < 1:
            raise ValueError(
                f"components, max_epochs and patience are {self.components}, {self.max_epochs} and {self.patience}; "
                "expected 1 or more of each"
            )
        if not (self.learning_rate > 0 and self.weight_penalty >= 0 and self.rate_penalty >= 0):
            raise ValueError(
                f"learning_rate is {self.learning_rate}, penalties are {self.weight_penalty} and {self.rate_penalty}; "
                "expected a rate above 0 and penalties of 0 or more"
            )

    def wiring(self) -> Wiring:
        """Return the modules and links.

        Returns
        -------
        Wiring
            Of this configuration.
        """
        return Wiring(self.modules, self.units, self.link_density, self.feedback, self.seed)

    def timeline(self, bins_ms: Sequence[tuple[float, float]]) -> Timeline:
        """Return the steps for some time bins.

        Parameters
        ----------
        bins_ms : sequence of (float, float)
            The bins.

        Returns
        -------
        Timeline
            Steps, input and hold signal.
        """
        return Timeline(tuple(bins_ms), self.step_ms, self.latency_ms, self.duration_ms, self.hold_ms)


def fit_recurrent(
    stimuli: StimulusSet,
    recordings: SiteRecordings,
    config: RecurrentConfig | None = None,
    *,
    backbone: str | nn.Module | Backbone = "efficientnet-lite0",
    layer: str | None = None,
    input_px: int | None = None,
    device: str | torch.device | None = None,
    cache: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> RecurrentSites:
    """Fit a modular recurrent network to time-resolved responses, and score it on held-out stimuli.

    The loss is the squared error of the mean responses (each site's scaled to variance 1, weighted by the number of
    its repeats, NaN left out), the mean course and the differences between images counting alike, plus penalties on
    squared weights and squared rates. In every fold thirds of the training groups, held out in turn, say after how many
    passes to stop; the model that is returned is trained on everything for as many passes as the median fold.

    Parameters
    ----------
    stimuli : StimulusSet
        The images shown.
    recordings : SiteRecordings
        Time-resolved responses to exactly these stimuli. Muscle-like outputs without noise are recordings with one
        repeat.
    config : RecurrentConfig, optional
        The network and its training.
    backbone : str, nn.Module or Backbone
        Network below the features.
    layer : str, optional
        Layer read, ``"blocks.3+blocks.4"`` for two; embedded networks have a default.
    input_px : int, optional
        Size to which the network's input is resized.
    device : str or torch.device, optional
        Where the work is done; the best there is by default.
    cache : str or Path, optional
        Folder in which features are kept.
    progress : callable, optional
        Called with one line of text as each part ends.

    Returns
    -------
    RecurrentSites
        The model. Its ``scores`` have one row for each site and bin: start_ms, end_ms, r, reliability,
        explained_variance, n_stimuli on held-out stimuli, and baseline_r and baseline_explained_variance of the linear
        readout of the bin; NaN in bins where a site never varies.

    Raises
    ------
    ValueError
        When the recordings have no time axis, ids do not match, a site names no module, or was recorded in a bin on
        fewer than four stimuli a fold or on too few groups of them.

    Examples
    --------
    >>> from neural_fits.networks.simulated_dynamics import SimulatedDynamics
    >>> from stimuli import natural_photos
    >>> natural = natural_photos(40, size_px=32)
    >>> recorded = SimulatedDynamics(natural, sites_per_region=1).record(natural, n_repeats=4)
    >>> quick = RecurrentConfig(units=8, components=5, max_epochs=3, folds=2, site_column="region")
    >>> fit_recurrent(natural, recorded, quick, layer="blocks.1")
    RecurrentSites(3 sites, V1 -> V4 -> IT, 8 bins in 0-200 ms, unit 'spikes/bin')
    """
    config = config or RecurrentConfig()
    timeline = config.timeline(_bins(recordings))
    recordings = recordings.align(stimuli)
    readable = _readable(recordings, config.wiring(), config.site_column)
    groups = group_labels(stimuli, config.group)
    pairs = group_folds(groups, config.folds, config.seed)
    _check_recorded(recordings, groups, pairs, config)
    place = best_device(device)
    network = load_backbone(backbone)
    (layer,) = _layers(layer, network)
    extractor = _extractor(network, layer, input_px).to(place)
    features = extractor.extract(stimuli, cache=cache)
    mean, counts = recordings.mean().astype(np.float64), recordings.n_repeats
    scale = bin_scale(timeline, recordings.unit).numpy()
    inputs_of = _inputs(features, mean, config)
    training = Training(features, inputs_of, mean / scale, counts, groups, readable, timeline, config)

    def fold(k: int) -> tuple[int, NDArray[np.float32]]:
        rows, test = pairs[k]
        trained = training.run(rows)
        if progress is not None:
            progress(f"fold {k + 1} of {len(pairs)}: {trained.epochs} passes")
        return trained.epochs, trained.predict(features[torch.from_numpy(test).to(place)]) * scale

    held_out = np.full(mean.shape, np.nan, dtype=np.float32)
    folds = side_by_side(fold, range(len(pairs)), place)
    for (_, test), (_, predicted) in zip(pairs, folds, strict=True):
        held_out[test] = predicted
    passes = max(1, int(np.median([epochs for epochs, _ in folds])))
    (everything,) = side_by_side(lambda rows: training.run(rows, passes), [np.arange(len(stimuli))], place)
    if progress is not None:
        progress("scoring beside linear readouts of every time bin")
    scores = recurrent_scores(held_out, recordings, features, pairs, groups, config.seed)
    names = tuple(f"component {k + 1}" for k in range(len(everything.components.bias)))
    shared = (stimuli.size_px, float(stimuli.size_deg))
    unit_info = SiteInfo(names, (0.0,) * len(names), (1.0,) * len(names), *shared, "z score", stimuli.shape[0])
    flat = mean.transpose(1, 0, 2).reshape(mean.shape[1], -1)
    info = SiteInfo(
        tuple(recordings.site_ids),
        tuple(np.nanmean(flat, 1).tolist()),
        tuple(np.nanstd(flat, 1).tolist()),
        *shared,
        recordings.unit,
        stimuli.shape[0],
    )
    record = provenance_record(seed=config.seed, config=config, inputs=_hashes(stimuli, recordings))
    return RecurrentSites(
        SiteModel(extractor, everything.components, unit_info),
        everything.network,
        everything.readout,
        timeline,
        info,
        torch.from_numpy(np.nanmean(mean, 0).astype(np.float32)).to(place),
        torch.from_numpy(np.nanstd(mean, 0).astype(np.float32)).to(place),
        scores,
        record,
    )


def _bins(recordings: SiteRecordings) -> tuple[tuple[float, float], ...]:
    if recordings.time_bins_ms is None:
        raise ValueError(
            f"{recordings!r} has no time axis; give time-resolved recordings (to try it, those of "
            "SimulatedDynamics(stimuli).record(stimuli)), or use fit_sites"
        )
    return recordings.time_bins_ms


def _check_recorded(
    recordings: SiteRecordings, groups: NDArray[np.generic], pairs: list[Fold], config: RecurrentConfig
) -> None:
    """Refuse sites that a fold, or a part of one that says when to stop, could not learn in some time bin."""
    flat = by_bin(recordings)
    flat.check_usable()
    inner = [part for train, _ in pairs for part in stopping_folds(groups, train, config.seed)]
    _check_enough(flat.mean(), flat.site_ids, config.folds)
    _check_trainable(flat.mean(), flat.site_ids, [*pairs, *inner])


def _readable(recordings: SiteRecordings, wiring: Wiring, column: str | None) -> Tensor:
    """Return which units each site may read, (site, unit)."""
    readable = torch.ones(len(recordings.site_ids), wiring.n_units)
    if column is None:
        return readable
    if column not in recordings.sites:
        hint = did_you_mean(column, [str(name) for name in recordings.sites])
        raise ValueError(
            f"the table of sites has no column {column!r}; {hint}it has: {', '.join(map(str, recordings.sites))}"
        )
    for k, module in enumerate(recordings.sites[column]):
        where = wiring.slice_of(str(module))
        readable[k] = 0
        readable[k, where] = 1
    return readable


def _inputs(
    features: Tensor, mean: NDArray[np.float64], config: RecurrentConfig
) -> Callable[[NDArray[np.int_]], LinearReadout]:
    """Return what fits the map from features to inputs on some stimuli, and on nothing of the others."""
    if config.inputs == "pca":
        return lambda rows: principal_inputs(features[torch.from_numpy(rows).to(features.device)], config.components)
    flat = mean.reshape(len(mean), -1).astype(np.float32)
    return ReadoutInputs(local_option(features), flat, config.components).of


def _hashes(stimuli: StimulusSet, recordings: SiteRecordings) -> dict[str, str]:
    return {
        "stimuli": sha256_bytes("\n".join(stimuli.stimulus_ids).encode()),
        "responses": sha256_bytes(np.ascontiguousarray(recordings.responses).tobytes()),
    }
