"""Readouts by name, their held-out predictions, and the choice among several inside the training folds.

In: features of one or several layers, responses, folds. Out: a fitted readout and predictions for stimuli that it never
saw. Used by `fit_sites` and the benchmarks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neural_fits.alternating import fit_alternating
from neural_fits.factorized import fit_factorized, fit_factorized_2019
from neural_fits.folds import Fold, group_folds
from neural_fits.gaussian import fit_gaussian
from neural_fits.local import fit_pooled, pool_windows
from neural_fits.loo import PenaltyRule
from neural_fits.parallel import side_by_side
from neural_fits.pls import fit_pls
from neural_fits.readout import Compressed, LinearReadout, ReadoutFamily, fit_complete
from neural_fits.reliability import pearson_r
from neural_fits.ridge import fit_ridge, principal_scores
from stimuli.hints import did_you_mean

READOUTS = {
    "local": ReadoutFamily(fit_pooled, pool_windows, penalized=True),
    "ridge": ReadoutFamily(fit_ridge, principal_scores, penalized=True),
    "alternating": ReadoutFamily(fit_alternating, penalized=True),
    "pls": ReadoutFamily(fit_pls, principal_scores),
    "factorized": ReadoutFamily(fit_factorized),
    "factorized_2019": ReadoutFamily(fit_factorized_2019),
    "gaussian": ReadoutFamily(fit_gaussian),
}
#: folds inside a training fold by which layer and readout are chosen
_INNER_FOLDS = 3


@dataclass(frozen=True)
class Option:
    """One way to read sites: compressed features of some layers, and a readout family.

    Parameters
    ----------
    name : str
        What it is called in tables.
    compressed : Compressed
        Features.
    family : ReadoutFamily
        How they are read.
    """

    name: str
    compressed: Compressed
    family: ReadoutFamily

    def fit(self, responses: NDArray[np.float32], train: NDArray[np.int_]) -> LinearReadout:
        """Fit on some stimuli; the readout reads compressed features.

        Parameters
        ----------
        responses : ndarray, (stimulus, site)
            Responses to all stimuli; NaN where a site was not recorded.
        train : ndarray of int
            Stimuli to fit on.

        Returns
        -------
        LinearReadout
            The fitted readout.
        """
        features = self.compressed.features
        rows = features if len(train) == len(features) else features[torch.from_numpy(train).to(features.device)]
        return fit_complete(self.family.solve, rows, responses[train])

    def predict(self, readout: LinearReadout, test: NDArray[np.int_]) -> NDArray[np.float32]:
        """Predict some stimuli.

        Parameters
        ----------
        readout : LinearReadout
            Made by `fit`.
        test : ndarray of int
            Stimuli.

        Returns
        -------
        ndarray, (stimulus, site)
            Predictions.
        """
        features = self.compressed.features
        return readout(features[torch.from_numpy(test).to(features.device)]).cpu().numpy()


def readout_family(name: str, penalty: PenaltyRule = "best") -> ReadoutFamily:
    """Return the family of that name with that penalty rule.

    Parameters
    ----------
    name : str
        A key of `READOUTS`, or several joined as in ``"local+alternating"``: the mean of these readouts, which is again
        one linear readout and costs no more to use.
    penalty : {"best", "one_se"}
        How a ridge penalty is chosen, see `leave_one_out`.

    Returns
    -------
    ReadoutFamily
        The family.

    Raises
    ------
    ValueError
        For an unknown name or rule, or a rule for a readout without a ridge penalty.
    """
    parts = []
    for each in name.split("+"):
        if each not in READOUTS:
            raise ValueError(f"unknown readout {each!r}; {did_you_mean(each, READOUTS)}known: {', '.join(READOUTS)}")
        parts.append(READOUTS[each].with_penalty(each, penalty))
    return parts[0] if len(parts) == 1 else ReadoutFamily(partial(_fit_mean, parts))


def _fit_mean(families: Sequence[ReadoutFamily], features: Tensor, responses: Tensor) -> LinearReadout:
    readouts = []
    for family in families:
        compressed = family.compress(features)
        readouts.append(compressed.expand(family.solve(compressed.features, responses)))
    weight = torch.stack([readout.weight for readout in readouts]).mean(0)
    return LinearReadout(weight, torch.stack([readout.bias for readout in readouts]).mean(0))


def cross_validate(
    options: Sequence[Option],
    responses: NDArray[np.float32],
    folds: Sequence[Fold],
    groups: NDArray[np.generic],
    seed: int = 0,
) -> tuple[Option, LinearReadout, NDArray[np.float32], dict[str, float]]:
    """Fit the best option on everything, and predict every fold by the option that its training stimuli choose.

    The choice is one for all sites, by the mean over sites of the held-out r in up to three folds of the training
    stimuli. Held-out stimuli never take part in it.

    Parameters
    ----------
    options : sequence of Option
        Ways to read the sites; a single one is simply fitted.
    responses : ndarray, (stimulus, site)
        Mean responses; NaN where a site was not recorded.
    folds : sequence of (train, test)
        Indices of the stimuli.
    groups : ndarray, (stimulus,)
        Stimuli with one label stay on one side of the inner folds as well.
    seed : int
        Seed of the inner folds.

    Returns
    -------
    chosen : Option
        The option fitted on everything.
    readout : LinearReadout
        Its readout of the original features.
    predicted : ndarray, (stimulus, site)
        Held-out predictions; NaN for stimuli in no fold.
    inner_r : dict
        Mean inner r of every option on all stimuli; empty for a single option.
    """
    device = options[0].compressed.features.device
    everything, nothing = np.arange(len(responses)), np.arange(0)
    outer: list[Fold] = [*folds, (everything, nothing)]
    predicted = np.full(responses.shape, np.nan, dtype=np.float32)
    inner = np.zeros((len(outer), len(options)))
    if len(options) > 1:
        parts = [_inner_folds(train, groups, seed) for train, _ in outer]
        tasks = [(fold, k, *part) for fold, inside in enumerate(parts) for part in inside for k in range(len(options))]

        def try_option(task: tuple[int, int, NDArray[np.int_], NDArray[np.int_]]) -> float:
            _, k, train, test = task
            guess = options[k].predict(options[k].fit(responses, train), test)
            return float(np.nan_to_num(pearson_r(guess, responses[test])).mean())

        for (fold, k, *_), r in zip(tasks, side_by_side(try_option, tasks, device), strict=True):
            inner[fold, k] += r / len(parts[fold])

    def fit(fold: int) -> LinearReadout:
        (train, test), option = outer[fold], options[inner[fold].argmax()]
        readout = option.fit(responses, train)
        if len(test):
            predicted[test] = option.predict(readout, test)
        return readout

    readout = side_by_side(fit, range(len(outer)), device)[-1]
    chosen = options[inner[-1].argmax()]
    table = {option.name: float(r) for option, r in zip(options, inner[-1], strict=True)} if len(options) > 1 else {}
    return chosen, chosen.compressed.expand(readout), predicted, table


def compress(family: ReadoutFamily, features: Tensor) -> Compressed:
    """Return features as a family wants them, computed on one thread.

    Parameters
    ----------
    family : ReadoutFamily
        The family.
    features : Tensor, (stimulus, channel, height, width)
        Features.

    Returns
    -------
    Compressed
        Its features.
    """
    ((compressed),) = side_by_side(family.compress, [features], features.device)
    return compressed


def _inner_folds(train: NDArray[np.int_], groups: NDArray[np.generic], seed: int) -> list[Fold]:
    count = min(_INNER_FOLDS, len(np.unique(groups[train])))
    if count < 2:
        raise ValueError(
            "a training fold holds one group of stimuli, within which nothing can be chosen; name one option"
        )
    return [(train[inner], train[held]) for inner, held in group_folds(groups[train], count, seed)]
