"""Tune the last blocks of a network together with the readout of recorded sites, beside the frozen readout.

In: a fitted `SiteModel` or `Ensemble`, its stimuli and recordings. Out: a model whose network is no longer the
published one, scored in the same folds as the frozen readout that it began from. Activations below the cut are computed
once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from neural_fits.cross_validation import Option, compress, readout_family
from neural_fits.features import FeatureExtractor
from neural_fits.fit import best_device
from neural_fits.fit_task import FitTask, prepare
from neural_fits.folds import group_folds
from neural_fits.image_size import require_image_size
from neural_fits.networks.architectures import with_weights
from neural_fits.networks.tuned_part import Kept, TunedPart
from neural_fits.networks.tuning import Tuning, descend
from neural_fits.parallel import side_by_side
from neural_fits.readout import LinearReadout
from neural_fits.recordings import SiteRecordings
from neural_fits.site_model import Ensemble, SiteModel
from stimuli import StimulusSet
from stimuli.provenance import to_jsonable

#: part of a site's mean rate over which the rate of the Poisson loss bends to stay positive
_BEND = 0.1


@dataclass(frozen=True)
class SiteTuning(Tuning):
    """`Tuning` of sites.

    Parameters
    ----------
    freeze, learning_rate, decay, head_rate, pull, epochs, patience, batch_size, stop_share, seed
        As for `Tuning`. Steps of the readout (`head_rate`) are in units of the root mean square of each site's weights.
    loss : {"gaussian", "poisson"}
        Squared error in units of each site's variance; or the Poisson likelihood of the rate
        ``r = s softplus(y / s)``, with s a tenth of the site's mean, of the response y. The rate exists in the loss
        only: the model still predicts the linear response y, which is r except near 0 and below.
    """

    learning_rate: float = 1e-3
    head_rate: float = 3e-3
    epochs: int = 12
    patience: int = 3
    loss: Literal["gaussian", "poisson"] = "gaussian"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in ("gaussian", "poisson"):
            raise ValueError(f"loss is {self.loss!r}; expected 'gaussian' or 'poisson'")


@dataclass(frozen=True, eq=False)
class TunedSites:
    """A tuned model beside the frozen readout, in the same folds.

    Parameters
    ----------
    model : SiteModel or Ensemble
        Tuned on everything.
    held_out, frozen : ndarray, (stimulus, site)
        Predictions of stimuli that the model did not see, tuned and not.
    training : DataFrame
        Epochs by fold (the last is the fit on everything): loss on the groups kept apart, and which epoch was kept.
    """

    model: SiteModel | Ensemble
    held_out: NDArray[np.float32]
    frozen: NDArray[np.float32]
    training: pd.DataFrame


def fine_tune_sites(
    model: SiteModel | Ensemble,
    stimuli: StimulusSet,
    recordings: SiteRecordings,
    config: SiteTuning | None = None,
    *,
    group: str = "photograph",
    folds: int = 5,
    device: str | torch.device | None = None,
    progress: Callable[[str], None] | None = None,
) -> SiteModel | Ensemble:
    """Tune the last blocks of a model's network with its readout.

    As `compare_fine_tuning`, of which this is the model.

    Parameters
    ----------
    model : SiteModel or Ensemble
        Made by `fit_sites`: says the network, the layers read and the family of the readout.
    stimuli : StimulusSet
        The images shown.
    recordings : SiteRecordings
        Responses to exactly these stimuli.
    config : SiteTuning, optional
        The settings.
    group : str
        As for `fit_sites`: stimuli of one photograph stay on one side, also when deciding when to stop.
    folds : int
        Number of cross-validation folds.
    device : str or torch.device, optional
        Where to compute; the best there is by default.
    progress : callable, optional
        Called with one line of text as each fold is done.

    Returns
    -------
    SiteModel or Ensemble
        The model. Its ``scores`` have, beside those of `fit_sites`, the columns ``frozen_r`` and
        ``frozen_explained_variance`` of the readout that it began from.

    Raises
    ------
    ValueError
        As `fit_sites`; when the model has images of another size, a layer cannot be frozen up to, or a Poisson loss
        meets negative responses.

    Examples
    --------
    >>> from stimuli import natural_photos
    >>> from neural_fits import SimulatedBrain, fit_sites
    >>> natural = natural_photos(60, size_px=64)
    >>> recorded = SimulatedBrain(natural, n_sites=2, seed=0).record(natural, n_repeats=4, seed=0)
    >>> model = fit_sites(natural, recorded, backbone="efficientnet-lite0", layer="blocks.2", folds=2)
    >>> tuned = fine_tune_sites(model, natural, recorded, SiteTuning(freeze="blocks.1", epochs=1), folds=2)
    >>> list(tuned.scores)[-2:]
    ['frozen_r', 'frozen_explained_variance']
    """
    return compare_fine_tuning(
        model, stimuli, recordings, config, group=group, folds=folds, device=device, progress=progress
    ).model


def compare_fine_tuning(
    model: SiteModel | Ensemble,
    stimuli: StimulusSet,
    recordings: SiteRecordings,
    config: SiteTuning | None = None,
    *,
    group: str = "photograph",
    folds: int = 5,
    device: str | torch.device | None = None,
    progress: Callable[[str], None] | None = None,
) -> TunedSites:
    """Tune a model, and predict every fold with and without tuning.

    In every fold the frozen readout is fitted on the training stimuli (the baseline). A share of the training groups is
    then kept apart: from a readout fitted on the others, tuning runs until the loss on those kept apart no longer
    falls; that many epochs are then run from the baseline on all training stimuli. No epoch at all may be best, and
    then the fold keeps the baseline.

    Parameters
    ----------
    model : SiteModel or Ensemble
        Made by `fit_sites`.
    stimuli : StimulusSet
        The images shown.
    recordings : SiteRecordings
        Responses to exactly these stimuli.
    config : SiteTuning, optional
        The settings.
    group : str
        As for `fit_sites`.
    folds : int
        Number of cross-validation folds.
    device : str or torch.device, optional
        Where to compute; the best there is by default.
    progress : callable, optional
        Called with one line of text as each fold is done.

    Returns
    -------
    TunedSites
        The model, held-out predictions of both, and the epochs.

    Raises
    ------
    ValueError
        As `fine_tune_sites`.
    """
    config = config or SiteTuning()
    require_image_size(stimuli, model.info.size_px, model.info.size_deg)
    task = prepare(stimuli, recordings, split=None, group=group, folds=folds, seed=config.seed)
    lowest = float(np.nanmin(task.responses))
    if config.loss == "poisson" and lowest < 0:
        raise ValueError(
            f"responses go down to {lowest:.3g}; a Poisson loss needs counts or rates: use loss='gaussian'"
        )
    models, tuned, frozen, tables = [], [], [], []
    for k, member in enumerate(model._members()):
        found = _Member(member, task, config, best_device(device)).run(progress)
        settings = {"fine_tuning": to_jsonable(config), "from": member.provenance.get("config"), "folds": folds}
        scores = _beside(task.scored(found.held_out), task.scored(found.frozen))
        models.append(SiteModel(found.extractor, found.readout, task.info, scores, task.provenance(settings)))
        tuned.append(found.held_out)
        frozen.append(found.frozen)
        tables.append(found.training.assign(member=k))
    both = [np.mean(each, axis=0).astype(np.float32) for each in (tuned, frozen)]
    made = models[0] if len(models) == 1 else task.assembled(models, tuned, models[0].provenance["config"])
    made.scores = _beside(task.scored(both[0]), task.scored(both[1]))
    return TunedSites(made, both[0], both[1], pd.concat(tables, ignore_index=True))


def _beside(scores: pd.DataFrame, frozen: pd.DataFrame) -> pd.DataFrame:
    return scores.assign(frozen_r=frozen["r"], frozen_explained_variance=frozen["explained_variance"])


@dataclass(frozen=True, eq=False)
class _Found:
    extractor: FeatureExtractor
    readout: LinearReadout
    held_out: NDArray[np.float32]
    frozen: NDArray[np.float32]
    training: pd.DataFrame


class _Readout(nn.Module):
    """A linear readout that moves from where it began in units of its own weights."""

    def __init__(self, start: LinearReadout, scale: Tensor, spread: Tensor) -> None:
        super().__init__()
        typical = (start.weight * scale[:, None, None]).square().mean((1, 2, 3), keepdim=True).sqrt()
        self.weight, self.bias, self.spread = start.weight, start.bias, spread
        self.unit = typical / scale[:, None, None]
        self.change = nn.Parameter(torch.zeros_like(start.weight))
        self.shift = nn.Parameter(torch.zeros_like(start.bias))

    def plain(self) -> LinearReadout:
        return LinearReadout(self.weight + self.unit * self.change, self.bias + self.spread * self.shift)


class _Member:
    """All folds of one network."""

    def __init__(self, member: SiteModel, task: FitTask, config: SiteTuning, device: torch.device) -> None:
        self.original, self.task, self.config, self.device = member.extractor.to(device), task, config, device
        self.part = TunedPart(self.original, config.freeze or _default_freeze(member), task.stimuli.shape)
        self.kept = self.part.below_all(task.stimuli)
        self.features = self._features(self.part, np.arange(len(task.stimuli)))
        family = _family(member)
        self.option = Option("frozen", compress(family, self.features), family)
        self.scale = self.features.square().mean((0, 2, 3)).sqrt().clamp(min=1e-6)
        responses = torch.from_numpy(task.responses).to(device)
        self.known = responses.isfinite()
        self.targets = responses.nan_to_num(0.0)

    def run(self, progress: Callable[[str], None] | None) -> _Found:
        everything = np.arange(len(self.task.stimuli))
        outer = [*self.task.folds, (everything, np.arange(0))]
        held_out = np.full(self.task.responses.shape, np.nan, dtype=np.float32)
        frozen = held_out.copy()

        def fold(k: int) -> tuple[TunedPart, LinearReadout, pd.DataFrame]:
            train, test = outer[k]
            part, readout, table = self._tune(train)
            if len(test):
                held_out[test] = readout(self._features(part, test)).cpu().numpy()
                frozen[test] = self.option.predict(self.option.fit(self.task.responses, train), test)
            if progress is not None:
                name = f"fold {k + 1} of {len(outer) - 1}" if len(test) else "all stimuli"
                progress(f"{name}: {int(table.loc[table['kept'], 'epoch'].iloc[0])} epochs are best")
            return part, readout, table.assign(fold=k)

        results = side_by_side(fold, range(len(outer)), self.device)
        part, readout, table = results[-1]
        extractor = self.original
        if int(table.loc[table["kept"], "epoch"].iloc[0]):
            backbone = with_weights(self.original.backbone, part.extractor.network, "tuned")
            extractor = FeatureExtractor(backbone, self.original.layer, self.original.input_px).to(self.device)
        return _Found(extractor, readout, held_out, frozen, pd.concat([each for *_, each in results]))

    def _tune(self, train: NDArray[np.int_]) -> tuple[TunedPart, LinearReadout, pd.DataFrame]:
        """Find the number of epochs on a part of the training stimuli, then tune on all of them."""
        config = self.config
        inner = group_folds(self.task.groups[train], max(2, round(1 / config.stop_share)), config.seed)
        fitted, kept_apart = (train[rows] for rows in inner[0])
        *_, table = self._descended(fitted, kept_apart)
        epochs = int(table.loc[table["kept"], "epoch"].iloc[0])
        part, readout, _ = self._descended(train, None, epochs)
        return part, readout, table

    def _descended(
        self, rows: NDArray[np.int_], kept_apart: NDArray[np.int_] | None, epochs: int | None = None
    ) -> tuple[TunedPart, LinearReadout, pd.DataFrame]:
        part = copy.deepcopy(self.part)
        start = self.option.compressed.expand(self.option.fit(self.task.responses, rows))
        mean, spread = self._statistics(rows)
        readout = _Readout(start, self.scale, spread)

        def loss_of(predicted: Tensor, batch: NDArray[np.int_]) -> Tensor:
            index = torch.from_numpy(batch).to(self.device)
            return _loss(self.config.loss, predicted, self.targets[index], self.known[index], mean, spread)

        def training_loss(batch: NDArray[np.int_], _epoch: int) -> Tensor:
            return loss_of(readout.plain()(part(self._rows(batch))), batch)

        def held_out_loss() -> float:
            apart = np.asarray(kept_apart)
            with torch.no_grad():
                return float(loss_of(readout.plain()(self._features(part, apart)), apart))

        groups = self.config.rates(part.stages(), list(readout.parameters()))
        table = descend(
            groups, training_loss, rows, self.config, held_out_loss if kept_apart is not None else None, epochs
        )
        with torch.no_grad():
            plain = readout.plain()
        return part, LinearReadout(plain.weight.detach(), plain.bias.detach()), table

    def _rows(self, rows: NDArray[np.int_]) -> Kept:
        index = torch.from_numpy(rows).to(self.device)
        return tuple(each[index] for each in self.kept)

    @torch.no_grad()
    def _features(self, part: TunedPart, rows: NDArray[np.int_]) -> Tensor:
        return torch.cat([part(self._rows(some)) for some in np.array_split(rows, max(1, len(rows) // 64))])

    def _statistics(self, rows: NDArray[np.int_]) -> tuple[Tensor, Tensor]:
        some = self.task.responses[rows].astype(np.float64)
        mean, spread = np.nanmean(some, axis=0), np.nanstd(some, axis=0)
        lowest = max(float(spread.max()), 1e-12) * 1e-3  # a site that happens to be constant here must not explode
        return (torch.from_numpy(each).float().to(self.device) for each in (mean, np.maximum(spread, lowest)))  # type: ignore[return-value]


def _loss(kind: str, predicted: Tensor, targets: Tensor, known: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    """Return the mean loss over known responses; both kinds have the same curvature at a site's mean."""
    if kind == "gaussian":
        each = ((predicted - targets) / spread).square()
    else:
        bend = _BEND * mean.clamp(min=1e-6)
        rate = bend * functional.softplus(predicted / bend) + 1e-6 * mean.clamp(min=1e-6)
        each = 2 * mean / spread.square() * (rate - targets * rate.log())
    return (each * known).sum() / known.sum().clamp(min=1)


def _family(member: SiteModel) -> Any:
    settings: dict[str, Any] = member.provenance.get("config") or {}
    name = settings.get("readout", "local")
    if not isinstance(name, str):
        name = str(settings.get("chosen", "local")).rsplit(" ", 1)[-1]
    return readout_family(name, settings.get("penalty", "best"))


def _default_freeze(member: SiteModel) -> str:
    read = member.extractor.layers_read
    deepest = max(read, key=member.extractor.layers().index)
    head, _, last = deepest.rpartition(".")
    before = f"{head}.{int(last) - 1}" if last.isdigit() else ""
    if before not in member.extractor.layers():
        raise ValueError(
            f"backbone {member.extractor.backbone.name!r} has no default layer to freeze up to; name one before "
            f"{deepest!r} with SiteTuning(freeze=...)"
        )
    return before


__all__ = ["SiteTuning", "TunedSites", "compare_fine_tuning", "fine_tune_sites"]
