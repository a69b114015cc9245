"""Train the dynamics and the readout of one recurrent model on some stimuli, with early stopping on held-out groups."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neural_fits.folds import Fold, group_folds
from neural_fits.networks._recurrent_reading import read_bins
from neural_fits.networks.recurrent import ModularRNN
from neural_fits.networks.timeline import Timeline
from neural_fits.readout import LinearReadout

if TYPE_CHECKING:
    from neural_fits.networks.recurrent_fit import RecurrentConfig

#: parts of the training groups that are held out in turn to say when to stop
_CHECK_PARTS = 3
#: largest norm of a gradient: now and then recurrent weights meet a cliff
_MOST_GRADIENT = 1.0


@dataclass(frozen=True, eq=False)
class Trained:
    """Inputs, network and readout, and the passes that were best."""

    components: LinearReadout
    network: ModularRNN
    readout: LinearReadout
    timeline: Timeline
    epochs: int

    @torch.no_grad()
    def predict(self, features: Tensor) -> NDArray[np.float32]:
        """Return responses (image, site, bin) before the scale of the bins."""
        rates = self.network(self.components(features), self.timeline)
        pooling = self.timeline.pooling().to(rates)
        return read_bins(rates, pooling, self.readout.weight, self.readout.bias).transpose(1, 2).cpu().numpy()


class _Sites(nn.Module):
    """The network with a readout of standardized responses, as it is trained."""

    def __init__(self, network: ModularRNN, readable: Tensor, timeline: Timeline) -> None:
        super().__init__()
        self.network, self.timeline = network, timeline
        self.weight = nn.Parameter(torch.zeros(readable.shape))  # no image differs before something is learned
        self.bias = nn.Parameter(torch.zeros(len(readable)))
        self.readable: Tensor
        self.pooling: Tensor
        self.register_buffer("readable", readable)
        self.register_buffer("pooling", timeline.pooling())

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return standardized responses (image, bin, site) and all rates."""
        rates = self.network(inputs, self.timeline)
        return read_bins(rates, self.pooling, self.weight * self.readable, self.bias), rates

    def squared_weights(self) -> Tensor:
        """Return the sum of all squared weights that exist."""
        network = self.network
        parts = (network.weights(), network.inputs, network.hold, self.weight * self.readable)
        return torch.stack([part.square().sum() for part in parts]).sum()


@dataclass(frozen=True, eq=False)
class Training:
    """What is trained, and how: standardized responses, which units each site may read, wiring and time."""

    features: Tensor
    inputs_of: Callable[[NDArray[np.int_]], LinearReadout]  # from features to inputs, fitted on some images
    responses: NDArray[np.float64]  # (image, site, bin), NaN where not recorded
    repeats: NDArray[np.int_]
    groups: NDArray[np.generic]
    readable: Tensor  # (site, unit)
    timeline: Timeline
    config: RecurrentConfig

    def run(self, rows: NDArray[np.int_], epochs: int | None = None) -> Trained:
        """Train on some images, for as many passes as groups of them that are held out in turn find best."""
        epochs = epochs or self._best_epochs(rows)
        components = self.inputs_of(rows)
        course = self._course(components, rows, rows)
        for _ in range(epochs):
            course.step()
        return Trained(components, *course.parts(), self.timeline, epochs)

    def _best_epochs(self, rows: NDArray[np.int_]) -> int:
        courses = []
        for learn, held in stopping_folds(self.groups, rows, self.config.seed):
            components = self.inputs_of(learn)  # the inputs of those held out must not know their responses
            courses.append((self._course(components, rows, learn), *self._part(components, rows, held)))
        best, best_epoch = math.inf, 1
        for epoch in range(1, self.config.max_epochs + 1):
            error = 0.0
            for course, inputs, wanted in courses:  # in step, so that one number of passes is judged by all groups
                course.step()
                error += course.error(inputs, wanted)
            if error < best:
                best, best_epoch = error, epoch
            elif epoch - best_epoch >= self.config.patience:
                break
        return best_epoch

    def _part(
        self, components: LinearReadout, known: NDArray[np.int_], rows: NDArray[np.int_]
    ) -> tuple[Tensor, _Scaled]:
        """Return inputs and responses of some images, on the scale of those that are known."""
        at = torch.from_numpy(rows).to(self.features.device)
        scaled = _Scaled.of(self.responses, self.repeats, known, self.features.device)
        return components(self.features[at]), scaled.part(at)

    def _course(self, components: LinearReadout, known: NDArray[np.int_], rows: NDArray[np.int_]) -> _Course:
        network = ModularRNN(self.config.wiring(), len(components.bias), self.config.tau_ms)
        sites = _Sites(network, self.readable, self.timeline).to(self.features.device)
        return _Course(sites, *self._part(components, known, rows), self.config)


def stopping_folds(groups: NDArray[np.generic], rows: NDArray[np.int_], seed: int) -> list[Fold]:
    """Return parts of the training stimuli `rows`, held out in turn to say when to stop."""
    parts = min(_CHECK_PARTS, len(np.unique(groups[rows])))
    if parts < 2:
        raise ValueError("a training fold holds one group of stimuli, so none can say when to stop; give more")
    return [(rows[learn], rows[held]) for learn, held in group_folds(groups[rows], parts, seed)]


class _Course:
    """One network on its way."""

    def __init__(self, sites: _Sites, inputs: Tensor, wanted: _Scaled, config: RecurrentConfig) -> None:
        self.sites, self.inputs, self.wanted, self.config = sites, inputs, wanted, config
        self.optimizer = torch.optim.Adam(sites.parameters(), config.learning_rate)

    def step(self) -> None:
        self.optimizer.zero_grad()
        predicted, rates = self.sites(self.inputs)
        penalty = self.config.weight_penalty * self.sites.squared_weights()
        penalty = penalty + self.config.rate_penalty * rates.square().mean()
        (self.wanted.error(predicted) + penalty).backward()
        nn.utils.clip_grad_norm_(self.sites.parameters(), _MOST_GRADIENT)
        self.optimizer.step()

    @torch.no_grad()
    def error(self, inputs: Tensor, wanted: _Scaled) -> float:
        return float(wanted.error(self.sites(inputs)[0]))

    def parts(self) -> tuple[ModularRNN, LinearReadout]:
        """Return the network, and the readout in the unit of the responses."""
        sites, scale = self.sites, self.wanted
        read = (sites.weight * sites.readable * scale.std[:, None]).detach()
        offset = (sites.bias * scale.std).detach() + scale.mean
        return sites.network.requires_grad_(False), LinearReadout(read[:, :, None, None], offset)


@dataclass(frozen=True, eq=False)
class _Scaled:
    """Responses of variance 1 at every site, and how much each of them counts, (image, bin, site)."""

    target: Tensor
    trust: Tensor
    balance: Tensor  # (site,), variance over all per variance between images
    mean: Tensor
    std: Tensor

    @classmethod
    def of(
        cls, responses: NDArray[np.float64], repeats: NDArray[np.int_], rows: NDArray[np.int_], device: torch.device
    ) -> _Scaled:
        known = responses[rows].transpose(1, 0, 2).reshape(responses.shape[1], -1)
        mean, std = np.nanmean(known, 1), np.nanstd(known, 1)
        std = np.where(std > 0, std, 1.0)
        scaled, finite = (responses - mean[:, None]) / std[:, None], np.isfinite(responses)
        between = _between(scaled[rows])
        target = np.where(finite, scaled, 0.0).transpose(0, 2, 1)
        trust = np.where(finite, repeats, 0).transpose(0, 2, 1)
        parts = (target, trust, 1 / np.maximum(between, 1e-3), mean, std)
        return cls(*(torch.from_numpy(np.ascontiguousarray(part)).float().to(device) for part in parts))

    def part(self, rows: Tensor) -> _Scaled:
        return replace(self, target=self.target[rows], trust=self.trust[rows])

    def error(self, predicted: Tensor) -> Tensor:
        """Return the error of the mean course plus that of the differences between images, each of variance 1."""
        count = self.trust.sum(0)
        wrong = predicted - self.target
        shift = (self.trust * wrong).sum(0) / count.clamp(min=1e-9)
        differing = self.trust * (wrong - shift).square() * self.balance
        return ((count * shift.square()).sum() + differing.sum()) / count.sum().clamp(min=1e-9)


def _between(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the variance between images in one bin, mean over bins, (site,)."""
    count = np.isfinite(scaled).sum(0)
    mean = np.nansum(scaled, 0) / np.maximum(count, 1)
    return (np.nansum(np.square(scaled - mean), 0) / np.maximum(count, 1)).mean(1)
