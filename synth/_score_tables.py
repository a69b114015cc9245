"""Weighted sums of terms as tables, so that a few operations score every image of a batch.

In: the `Term`s of each slot's objective, responses. Out: scores (slot, image). Built and called by `_batched_scores`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synth._score_formulas import SITE_FORMULAS, tree_sum

if TYPE_CHECKING:
    from synth.objectives import Objective, SiteScale


@dataclass(frozen=True, eq=False)
class Term:
    """One summand of an objective.

    Parameters
    ----------
    kind : str
        A name of `SITE_FORMULAS`; ``"rms"`` or ``"similarity"``, of images; or ``"own"``, an objective that scores
        itself.
    columns : sequence of int
        Columns of the responses that the formula takes, in its order.
    normalized : bool
        Whether the formula takes z instead of responses in the recording's unit.
    first, second : float or sequence of float
        The numbers that the formula takes beside each column.
    objective : Objective, optional
        Of a term that scores itself.
    """

    kind: str
    columns: Sequence[int] | NDArray[np.int64] = ()
    normalized: bool = False
    first: float | Sequence[float] = 1.0
    second: float | Sequence[float] = 1.0
    objective: Objective | None = None


Terms = Sequence[tuple[float, Term]]


class _Pick(torch.autograd.Function):
    """Rows of a table; the gradient of a row picked twice is summed in a fixed order, which a GPU's scatter is not."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return torch.cat([source, source.new_zeros(1, source.shape[1])]).index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        (inverse,) = ctx.saved_tensors
        padded = torch.cat([gradient, gradient.new_zeros(1, gradient.shape[1])])
        return tree_sum(padded.index_select(0, inverse.flatten()).view(*inverse.shape, gradient.shape[1])), None, None


class _Index(NamedTuple):
    """Rows taken (pick,), and for every row of the source the picks that took it (row, place)."""

    taken: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, index: NDArray[np.int64], rows: int, device: torch.device) -> _Index:
        """Build both; the number ``rows`` stands for a row of zeros."""
        used = np.flatnonzero(index < rows)
        picks = used[np.argsort(index[used], kind="stable")]
        source = index[picks]
        place = np.arange(len(source)) - np.searchsorted(source, source)
        inverse = np.full((rows, int(place.max(initial=0)) + 1), len(index))
        inverse[source, place] = picks
        return cls(torch.from_numpy(index).to(device), torch.from_numpy(inverse).to(device))

    def __call__(self, source: Tensor) -> Tensor:
        picked: Tensor = _Pick.apply(source, self.taken, self.inverse)
        return picked


class _Numbers(NamedTuple):
    """The constants of all terms in one precision."""

    mean: Tensor  # of every response picked, (pick, 1)
    std: Tensor
    first: list[Tensor]  # of every table, (term, site, 1)
    second: list[Tensor]
    weights: Tensor  # (slot, term, 1)


class Tables:
    """The terms of some slots, as one table for each kind of term and width.

    Responses come as a long column, slot after slot. ``extra`` maps (slot, number of the term) of every term that is no
    function of sites to its row among the ``n_extra`` scores that the caller computes.
    """

    def __init__(
        self, terms: Sequence[Terms], extra: Mapping[tuple[int, int], int], n_extra: int, scale: SiteScale
    ) -> None:
        self._device, sites = scale.mean.device, len(scale.site_ids)
        tables: dict[tuple[str, int], list[tuple[int, int, Term]]] = {}
        for slot, of_slot in enumerate(terms):
            for k, (_, term) in enumerate(of_slot):
                if (slot, k) not in extra:
                    width = 1 << (len(term.columns) - 1).bit_length()
                    tables.setdefault((term.kind, width), []).append((slot, k, term))
        # Sorted: the terms of a slot keep their order among themselves whatever tables other slots bring along, and
        # with it the order in which gradients are added.
        keys = sorted(tables)
        self._shapes = [(kind, len(tables[kind, width]), width) for kind, width in keys]
        mean, std = (values.detach().cpu().double().numpy() for values in (scale.mean, scale.std))
        filled = [_fill(tables[key], key[1], sites, len(terms) * sites, mean, std) for key in keys]
        picks = np.concatenate([np.zeros(0, np.int64), *(table[0].ravel() for table in filled)])
        self._picks = _Index.of(picks, len(terms) * sites, self._device)

        rows = [(slot, k) for key in keys for slot, k, _ in tables[key]]
        place = {term: row for row, term in enumerate(rows)} | {term: len(rows) + row for term, row in extra.items()}
        total = len(rows) + n_extra
        self._longest = max([1, *map(len, terms)])
        gather, weights = np.full((len(terms), self._longest), total), np.zeros((len(terms), self._longest, 1))
        for (slot, k), row in place.items():
            gather[slot, k], weights[slot, k] = row, terms[slot][k][0]
        self._gather = _Index.of(gather.ravel(), total, self._device)

        means, stds = (
            np.concatenate([np.zeros((0, 1)), *(table[k].reshape(-1, 1) for table in filled)]) for k in (1, 2)
        )
        firsts, seconds = ([torch.from_numpy(table[k]) for table in filled] for k in (3, 4))
        self._exact = _Numbers(
            torch.from_numpy(means), torch.from_numpy(stds), firsts, seconds, torch.from_numpy(weights)
        )
        self._cast: dict[torch.dtype, _Numbers] = {}
        self._numbers(torch.promote_types(scale.mean.dtype, torch.float32))

    def _numbers(self, dtype: torch.dtype) -> _Numbers:
        if dtype not in self._cast:
            with torch.inference_mode(False):  # a first reading in inference mode must leave tensors that train
                mean, std, first, second, weights = self._exact
                first, second = ([part.to(self._device, dtype) for part in parts] for parts in (first, second))
                mean, std, weights = (part.to(self._device, dtype) for part in (mean, std, weights))
                self._cast[dtype] = _Numbers(mean, std, first, second, weights)
        return self._cast[dtype]

    def __call__(self, responses: Tensor, extra: Sequence[Tensor]) -> Tensor:
        """Return scores (slot, image) of responses (slot * site, image) and of the other terms (row, image)."""
        numbers = self._numbers(responses.dtype)
        scores = [responses[:0]]  # also where nothing asks for responses, their gradient exists
        if self._shapes:
            z = (self._picks(responses) - numbers.mean) / numbers.std
            parts = z.split([terms * width for _, terms, width in self._shapes])
            tables = zip(self._shapes, parts, numbers.first, numbers.second, strict=True)
            for (kind, terms, width), part, first, second in tables:
                scores.append(SITE_FORMULAS[kind](part.view(terms, width, -1), first, second))
        together = torch.cat([*scores, *(part.to(responses.dtype) for part in extra)])
        return tree_sum(self._gather(together).view(-1, self._longest, responses.shape[1]) * numbers.weights)


def _fill(
    rows: list[tuple[int, int, Term]], width: int, sites: int, nothing: int, mean: NDArray[Any], std: NDArray[Any]
) -> tuple[NDArray[Any], ...]:
    """Return columns (term, site), means, deviations and the two numbers (term, site, 1) of the terms of a table."""
    columns = np.full((len(rows), width), nothing)
    means, stds, firsts, seconds = (np.full((len(rows), width, 1), value) for value in (0.0, 1.0, 0.0, 1.0))
    for row, (slot, _, term) in enumerate(rows):
        own, count = np.asarray(term.columns), len(term.columns)
        columns[row, :count] = slot * sites + own
        firsts[row, :count, 0], seconds[row, :count, 0] = term.first, term.second
        if term.normalized:
            means[row, :count, 0], stds[row, :count, 0] = mean[own], std[own]
    return columns, means, stds, firsts, seconds
