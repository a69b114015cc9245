"""Tune the last blocks of a network together with the readout of recorded sites, beside the frozen readout.

In: a fitted `SiteModel` or `Ensemble`, its stimuli and recordings. Out: a model whose network is no longer the
published one, scored in the same folds as the frozen readout that it began from. Activations below the cut are computed
once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
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
from neural_fits.folds import Fold, group_folds
from neural_fits.image_size import require_image_size
from neural_fits.networks.architectures import with_weights
from neural_fits.networks.tuned_part import Kept, TunedPart, default_freeze
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


@dataclass(frozen=True, eq=False, repr=False)
class TunedSites:
    """A tuned model beside the frozen readout, in the same folds.

    Parameters
    ----------
    model : SiteModel or Ensemble
        Tuned on everything.
    stimulus_ids : tuple of str
        The stimuli that are the rows of `held_out` and `frozen`: those of the part that the model was fitted on.
    held_out, frozen : ndarray, (stimulus, site)
        Predictions of stimuli that the model did not see, tuned and not.
    training : DataFrame
        Epochs by fold (the last is the fit on everything): loss on the groups kept apart, and which epoch was kept.
    """

    model: SiteModel | Ensemble
    stimulus_ids: tuple[str, ...]
    held_out: NDArray[np.float32]
    frozen: NDArray[np.float32]
    training: pd.DataFrame

    @property
    def scores(self) -> pd.DataFrame:
        """Held-out ``r`` and ``explained_variance`` of each site, frozen (``frozen_...``) and tuned."""
        return self.model.held_out_scores()[["frozen_r", "r", "frozen_explained_variance", "explained_variance"]]

    @property
    def epochs(self) -> tuple[int, ...]:
        """Epochs for which each member of the model was tuned on everything; at 0 the frozen network was kept."""
        kept = self.training[self.training["kept"] & (self.training["fold"] == self.training["fold"].max())]
        return tuple(int(epoch) for epoch in kept["epoch"])

    def __repr__(self) -> str:
        before, after = self.scores[["frozen_r", "r"]].mean()
        how = ", ".join(f"tuned for {epochs} epochs" if epochs else "frozen network kept" for epochs in self.epochs)
        rows, sites = self.held_out.shape
        return (
            f"TunedSites({sites} sites, {rows} stimuli, mean held-out r {before:.3f} frozen, {after:.3f} tuned; {how})"
        )


def fine_tune_sites(
    model: SiteModel | Ensemble,
    stimuli: StimulusSet,
    recordings: SiteRecordings,
    config: SiteTuning | None = None,
    *,
    folds: int | None = None,
    device: str | torch.device | None = None,
    progress: Callable[[str], None] | None = None,
) -> TunedSites:
    """Tune the last blocks of a model's network with its readout, and predict every fold with and without tuning.

    In every fold the frozen readout is fitted on the training stimuli (the baseline). A share of the training groups is
    then kept apart: from a readout fitted on the others, tuning runs until the loss on those kept apart no longer
    falls; that many epochs are then run from the baseline on all training stimuli. No epoch at all may be best, and
    then the fold keeps the baseline. Sites, part of the stimuli (``split``), groups and folds are those that the model
    was fitted with: a tuned model has seen no photograph that the model had not.

    Parameters
    ----------
    model : SiteModel or Ensemble
        Made by `fit_sites`: says the network, the layers read, the family of the readout and the part of the stimuli.
        It stays as it is.
    stimuli : StimulusSet
        The images shown, all that `fit_sites` was given.
    recordings : SiteRecordings
        Responses to exactly these stimuli.
    config : SiteTuning, optional
        The settings.
    folds : int, optional
        Number of cross-validation folds, by default as many as scored the model.
    device : str or torch.device, optional
        Where to compute; the best there is by default.
    progress : callable, optional
        Called with one line of text as each fold is done.

    Returns
    -------
    TunedSites
        The model, held-out scores and predictions of both, and the epochs. The model's ``scores`` have, beside those of
        `fit_sites`, the columns ``frozen_r`` and ``frozen_explained_variance`` of the readout that it began from.

    Raises
    ------
    ValueError
        As `fit_sites`; when the members of an ensemble were fitted on different parts, or the model on a part of other
        photographs; when the model has images of another size, a site was shown too few groups, a layer cannot be
        frozen up to, or a Poisson loss meets negative responses.

    Examples
    --------
    >>> from stimuli import natural_photos
    >>> from neural_fits import SimulatedBrain, fit_sites
    >>> natural = natural_photos(60, size_px=64)
    >>> recorded = SimulatedBrain(natural, n_sites=2, seed=0).record(natural, n_repeats=4, seed=0)
    >>> model = fit_sites(natural, recorded, backbone="efficientnet-lite0", layer="blocks.2", folds=2)
    >>> tuned = fine_tune_sites(model, natural, recorded, SiteTuning(freeze="blocks.1", epochs=1))
    >>> list(tuned.scores)
    ['frozen_r', 'r', 'frozen_explained_variance', 'explained_variance']
    """
    config = config or SiteTuning()
    require_image_size(stimuli, model.info.size_px, model.info.size_deg)
    task = _same_task(model, stimuli, recordings, folds, config.seed)
    lowest = float(np.nanmin(task.responses))
    if config.loss == "poisson" and lowest < 0:
        raise ValueError(
            f"responses go down to {lowest:.3g}; a Poisson loss needs counts or rates: use loss='gaussian'"
        )
    models, tuned, frozen, tables = [], [], [], []
    for k, member in enumerate(model._members()):
        tuning = _Member(member, task, config, best_device(device))
        found = tuning.run(progress)
        how = to_jsonable(replace(config, freeze=tuning.part.freeze))
        settings = {**_settings(member), "folds": len(task.folds), "fine_tuning": how}
        scores = _beside(task.scored(found.held_out), task.scored(found.frozen))
        models.append(SiteModel(found.extractor, found.readout, task.info, scores, task.provenance(settings)))
        tuned.append(found.held_out)
        frozen.append(found.frozen)
        tables.append(found.training.assign(member=k))
    both = [np.mean(each, axis=0).astype(np.float32) for each in (tuned, frozen)]
    made = task.assembled(models, tuned, models[0].provenance["config"])
    made.scores = _beside(task.scored(both[0]), task.scored(both[1]))
    training = pd.concat(tables, ignore_index=True)
    return TunedSites(made, tuple(task.stimuli.stimulus_ids), both[0], both[1], training)


def _settings(member: SiteModel) -> dict[str, Any]:
    return member.provenance.get("config") or {}


def _same_task(
    model: SiteModel | Ensemble, stimuli: StimulusSet, recordings: SiteRecordings, folds: int | None, seed: int
) -> FitTask:
    """Return the task that the model was fitted on: the same part of the stimuli, sites, groups and folds."""
    names = ("split", "group", "min_reliability", "seed")
    members = model._members()
    first, *others = ({"seed": member.provenance.get("seed"), **_settings(member)} for member in members)
    for other, name in ((other, name) for other in others for name in names):
        if first.get(name) != other.get(name):
            raise ValueError(
                f"the members of the ensemble were fitted with {name}={first.get(name)!r} and {name}="
                f"{other.get(name)!r}; tune each of model.members by itself"
            )
    task = prepare(
        stimuli,
        recordings,
        split=first.get("split"),
        group=first.get("group", "photograph"),
        folds=folds or first.get("folds", 5),
        seed=seed if first["seed"] is None else first["seed"],
        min_reliability=first.get("min_reliability"),
    )
    for member in members:
        new = set(task.fitted_on["groups"]) - set(member.provenance.get("fitted_on", {}).get("groups", ()))
        if first.get("split") is not None and new:
            raise ValueError(
                f"the model was fitted on part {first['split']!r} of other stimuli, without {sorted(new)[0]!r}; give "
                "all stimuli that fit_sites was given, or the parts would mix"
            )
    return task


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
        self.original, self.task, self.config, self.device = member.extractor, task, config, device
        deepest = max(member.extractor.layers_read, key=member.extractor.layers().index)
        freeze = config.freeze or default_freeze(member.extractor.backbone, deepest)
        self.part = TunedPart(member.extractor, freeze, task.stimuli.shape, device)
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
        stopping = [self._kept_apart(train) for train, _ in outer]
        held_out = np.full(self.task.responses.shape, np.nan, dtype=np.float32)
        frozen = held_out.copy()

        def fold(k: int) -> tuple[TunedPart, LinearReadout, pd.DataFrame]:
            train, test = outer[k]
            part, readout, table = self._tune(train, *stopping[k])
            if len(test):
                held_out[test] = readout(self._features(part, test)).cpu().numpy()
                frozen[test] = self.option.predict(self.option.fit(self.task.responses, train), test)
            if progress is not None:
                name = f"fold {k + 1} of {len(outer) - 1}" if len(test) else "all stimuli"
                progress(f"{name}: {int(table.loc[table['kept'], 'epoch'].iloc[0])} epochs are best")
            return part, readout, table.assign(fold=k)

        results = side_by_side(fold, range(len(outer)), self.device)
        part, readout, _ = results[-1]
        backbone, extractor = with_weights(self.original.backbone, part.extractor.network, "tuned"), part.extractor
        if backbone.weights_sha256 != self.original.backbone.weights_sha256:
            extractor = FeatureExtractor(backbone, self.original.layer, self.original.input_px).to(self.device)
        return _Found(extractor, readout, held_out, frozen, pd.concat([each for *_, each in results]))

    def _kept_apart(self, train: NDArray[np.int_]) -> Fold:
        """Return training stimuli to fit on, enough for every site, and those that say when to stop."""
        groups = self.task.groups[train]
        count = min(max(2, round(1 / self.config.stop_share)), len(np.unique(groups)))
        for rows, apart in group_folds(groups, count, self.config.seed):
            known = np.isfinite(self.task.responses[train[rows]]).sum(0)
            if known.min() >= 2:
                return train[rows], train[apart]
        site = self.task.info.site_ids[int(known.argmin())]
        raise ValueError(
            f"site {site!r} was recorded on too few groups of stimuli for some to be kept apart, to say when to stop; "
            "drop it with recordings.select_sites([...])"
        )

    def _tune(
        self, train: NDArray[np.int_], fitted: NDArray[np.int_], kept_apart: NDArray[np.int_]
    ) -> tuple[TunedPart, LinearReadout, pd.DataFrame]:
        """Find the number of epochs on a part of the training stimuli, then tune on all of them."""
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
    settings = _settings(member)
    name = settings.get("readout", "local")
    if not isinstance(name, str):
        name = str(settings.get("chosen", "local")).rsplit(" ", 1)[-1]
    return readout_family(name, settings.get("penalty", "best"))


__all__ = ["SiteTuning", "TunedSites", "fine_tune_sites"]
