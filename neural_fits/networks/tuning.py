"""One gentle descent: steps that shrink downward, a pull back to the start, and an end when held-out loss says so.

In: weights in groups, a loss on some rows, perhaps a loss on held-out rows. Out: the weights at their best, and a table
of the epochs. Used by ``fine_tuning`` (classes) and ``site_fine_tuning``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neural_fits.networks.tuned_part import Stage


@dataclass(frozen=True)
class Tuning:
    """How far and how fast weights may leave where they began.

    Parameters
    ----------
    freeze : str, optional
        The last layer that stays as it is, for example ``"blocks.3"``. By default all but the last block read.
    learning_rate : float
        Adam's step for the top stage of the network; each stage below takes `decay` times the step of the one above.
    decay : float
        Ratio of the steps of neighboring stages.
    head_rate : float
        Adam's step for the head: the readout of sites, or the layer of class scores.
    pull : float
        Share of the way back to their first values that weights go in every step (L2-SP, decoupled from the gradient).
    epochs : int
        The most passes over the training images.
    patience : int
        Passes without a smaller held-out loss after which it ends.
    batch_size : int
        Images a step.
    stop_share : float
        Share of the training groups kept apart to say when to stop.
    seed : int
        Seed of splits and batches.

    Raises
    ------
    ValueError
        For numbers out of range.
    """

    freeze: str | None = None
    learning_rate: float = 1e-4
    decay: float = 0.5
    head_rate: float = 1e-3
    pull: float = 0.01
    epochs: int = 20
    patience: int = 4
    batch_size: int = 32
    stop_share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "head_rate", "decay", "pull"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected a number from 0 to 1")
        for name in ("epochs", "patience", "batch_size"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected a whole number of at least 1")
        if not 0 < self.stop_share <= 0.5:
            raise ValueError(f"stop_share is {self.stop_share!r}; expected a share above 0 and up to 0.5")

    def rates(self, stages: Sequence[Stage], head: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
        """Return groups of weights with their steps, as an optimizer takes them.

        Parameters
        ----------
        stages : sequence of list of (str, nn.Parameter)
            Stages of the network, from the top down.
        head : sequence of nn.Parameter
            Weights of the head.

        Returns
        -------
        list of dict
            ``params`` and ``lr``.

        Examples
        --------
        >>> stage = [("conv.weight", nn.Parameter(torch.zeros(1)))]
        >>> [group["lr"] for group in Tuning(learning_rate=0.01, decay=0.5).rates([stage, stage], [])]
        [0.01, 0.005]
        """
        groups: list[dict[str, Any]] = [{"params": list(head), "lr": self.head_rate}] if head else []
        for depth, stage in enumerate(stages):
            groups.append({"params": [weight for _, weight in stage], "lr": self.learning_rate * self.decay**depth})
        return [group for group in groups if group["lr"] > 0]


def descend(
    groups: list[dict[str, Any]],
    loss: Callable[[NDArray[np.int_], int], Tensor],
    rows: NDArray[np.int_],
    config: Tuning,
    held_out: Callable[[], float] | None = None,
    epochs: int | None = None,
) -> pd.DataFrame:
    """Train weights in place.

    Parameters
    ----------
    groups : list of dict
        Weights and steps, see `Tuning.rates`; without any nothing is trained.
    loss : callable
        Takes rows and the number of the epoch, returns their mean loss.
    rows : ndarray of int
        Training rows.
    config : Tuning
        The settings.
    held_out : callable, optional
        Returns the loss on rows kept apart. With it the weights of the best epoch are kept, which may be those of the
        start (epoch 0), and training ends after `Tuning.patience` epochs without a better one.
    epochs : int, optional
        Number of passes, in place of `Tuning.epochs`.

    Returns
    -------
    DataFrame
        One row an epoch: ``training_loss``, ``held_out_loss``, and whether it is the one kept.
    """
    if not groups:  # all steps are 0: what there is at the start stays
        epochs, groups = 0, [{"params": []}]
    weights = [weight for group in groups for weight in group["params"]]
    start = [weight.detach().clone() for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    optimizer = torch.optim.Adam(groups)
    order = np.random.default_rng(config.seed)
    best, best_loss, kept = start, held_out() if held_out else np.nan, 0
    table = [{"epoch": 0, "training_loss": np.nan, "held_out_loss": best_loss}]
    for epoch in range(1, (config.epochs if epochs is None else epochs) + 1):
        total = 0.0
        for batch in np.array_split(order.permutation(rows), max(1, round(len(rows) / config.batch_size))):
            optimizer.zero_grad()
            value = loss(batch, epoch)
            value.backward()
            optimizer.step()
            with torch.no_grad():
                for weight, first in zip(weights, start, strict=True):
                    weight.lerp_(first, config.pull)
            total += float(value.detach()) * len(batch) / len(rows)
        found = held_out() if held_out else np.nan
        table.append({"epoch": epoch, "training_loss": total, "held_out_loss": found})
        if held_out is None:
            kept = epoch
        elif found < best_loss:
            best, best_loss, kept = [weight.detach().clone() for weight in weights], found, epoch
        elif epoch - kept >= config.patience:
            break
    for weight, value in zip(weights, best, strict=True):
        weight.requires_grad_(False)
        if held_out is not None:
            weight.copy_(value)
    return pd.DataFrame(table).assign(kept=lambda frame: frame["epoch"] == kept)


__all__ = ["Tuning", "descend"]
