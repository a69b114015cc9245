"""Ridge regression of many sites on more stimuli and features than memory holds at once.

In: a source of features, read in blocks (a file of the cache, an extractor with its images, a tensor), and responses.
Out: the `LinearReadout` that `fit_ridge` would give. The stimulus-by-feature matrix is never held; the smaller of the
two squares (stimulus or feature) is, with one copy. For several thousand stimuli and more; below that, `fit_ridge`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neural_fits._cholesky import add_product, mirror, solve_penalized
from neural_fits.feature_sources import FeatureSource
from neural_fits.loo import RELATIVE_ALPHAS, PenaltyRule, leave_one_out, thin_svd
from neural_fits.parallel import side_by_side
from neural_fits.readout import LinearReadout
from neural_fits.ridge import center

Floats = NDArray[np.float64]
Index = NDArray[np.intp]
#: (stimuli, sites) of sites that were recorded on the same stimuli
Groups = list[tuple[Index, Index]]

#: numbers in one block of features: 128 MB
_BLOCK = 2**25
_ROWS_COPIED = 512
_FEWEST = 3


@dataclass(frozen=True)
class Moments:
    """Centered sums over stimuli.

    Parameters
    ----------
    mean_x : Tensor, (feature,)
        Mean features, float64.
    mean_y : Tensor, (site,)
        Mean responses, float64.
    xtx : Tensor, (feature, feature)
        ``(X - mean)^T (X - mean)``.
    xty : Tensor, (feature, site)
        ``(X - mean)^T (Y - mean)``.
    """

    mean_x: Tensor
    mean_y: Tensor
    xtx: Tensor
    xty: Tensor


def streaming_gram(blocks: Iterable[Tensor]) -> Tensor:
    """Return the Gram matrix of features that come in blocks of columns, centered over all stimuli.

    ``K = sum_b (X_b - mean) (X_b - mean)^T``; only one half is computed, the other is its mirror.

    Parameters
    ----------
    blocks : iterable of Tensor, (stimulus, some features)
        Blocks of features of all stimuli.

    Returns
    -------
    Tensor, (stimulus, stimulus)
        Centered Gram matrix, in the precision of the blocks.

    Examples
    --------
    >>> x = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    >>> whole = (x - x.mean(0)) @ (x - x.mean(0)).T
    >>> bool((streaming_gram(x.split(7, dim=1)) - whole).abs().max() < 1e-4)
    True
    """
    kernel: Tensor | None = None
    for block in blocks:
        if kernel is None:
            kernel = block.new_zeros(len(block), len(block))
        part = block - block.mean(0)
        add_product(kernel, part, part.T)
    if kernel is None:
        raise ValueError("there are no blocks of features; give at least one")
    return mirror(_finite(kernel))


def streaming_moments(batches: Iterable[tuple[Tensor, Tensor]]) -> Moments:
    """Return ``X^T X`` and ``X^T Y`` of features and responses that come in batches of stimuli, centered over all.

    The mean of the first batch is taken off at once, so that centering at the end, ``X^T X - n d d^T`` with the
    remaining mean d, subtracts little and loses no digits.

    Parameters
    ----------
    batches : iterable of pair of Tensor, (some stimuli, feature) and (some stimuli, site)
        Features and complete responses.

    Returns
    -------
    Moments
        Sums and means.

    Examples
    --------
    >>> x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)) + 100
    >>> moments = streaming_moments(zip(x.split(7), x.split(7)))
    >>> bool((moments.xtx - 29 * torch.cov(x.T)).abs().max() < 1e-3)
    True
    """
    first: tuple[Tensor, Tensor] | None = None
    count = 0
    for features, responses in batches:
        if first is None:
            first = features.mean(0), responses.mean(0)
            wide, sites = features.shape[1], responses.shape[1]
            xtx, xty = features.new_zeros(wide, wide), features.new_zeros(wide, sites)
            sum_x, sum_y = (features.new_zeros(k, dtype=torch.float64) for k in (wide, sites))
        x, y = features - first[0], responses - first[1]
        add_product(xtx, x.T, x)
        xty.addmm_(x.T, y)
        sum_x += x.sum(0, dtype=torch.float64)
        sum_y += y.sum(0, dtype=torch.float64)
        count += len(x)
    if first is None:
        raise ValueError("there are no batches of stimuli; give at least one")
    rest_x, rest_y = sum_x / count, sum_y / count
    column = rest_x.to(xtx.dtype)[:, None]
    _finite(xtx).addmm_(column, column.T, alpha=-count)
    xty.addmm_(column, rest_y.to(xtx.dtype)[None], alpha=-count)
    return Moments(first[0] + rest_x, first[1] + rest_y, mirror(xtx), xty)


def fit_ridge_streaming(
    source: FeatureSource,
    responses: NDArray[np.floating],
    *,
    rule: PenaltyRule = "best",
    relative_alphas: Sequence[float] = RELATIVE_ALPHAS,
    loo_stimuli: int = 4000,
    seed: int = 0,
    kernel: Tensor | None = None,
    progress: Callable[[str], None] | None = None,
) -> LinearReadout:
    """Fit a ridge readout on features read in blocks.

    With at most as many features as stimuli ``w = (X^T X + a)^-1 X^T y`` from one pass over stimuli, else
    ``w = X^T (X X^T + a)^-1 y`` from two passes over features; one Cholesky factorization for each distinct penalty.

    Each site's penalty is chosen by leave-one-out on a random subset of stimuli and used as it is, in absolute units,
    on all of them. Ridge is the posterior mean of ``y = x w + e`` under ``w ~ N(0, t^2)``, ``e ~ N(0, s^2)``; its best
    penalty is ``s^2 / t^2``, in which the number of stimuli does not occur.

    Sites that lack the same stimuli (NaN) are solved together. Each such group costs its own factorizations and, with
    fewer features than stimuli, its own pass.

    Parameters
    ----------
    source : FeatureSource
        Features: `cache_features` (a `FeatureFile`), `ExtractorSource` or `TensorSource`.
    responses : ndarray, (stimulus, site)
        Responses; NaN where a site was not recorded.
    rule : {"best", "one_se"}
        How the penalty is chosen, see `leave_one_out`.
    relative_alphas : sequence of float
        Penalties tried, ascending, relative to the mean squared norm of a stimulus's centered features.
    loo_stimuli : int
        Most stimuli used to choose penalties.
    seed : int
        Seed of the subset.
    kernel : Tensor, optional
        Gram matrix of these features from `streaming_gram`, when it is at hand: folds of a cross-validation, made by
        setting responses to NaN, share it. Used only with more features than stimuli.
    progress : callable, optional
        Called with one line of text as each stage begins.

    Returns
    -------
    LinearReadout
        The fitted readout.

    Raises
    ------
    ValueError
        When shapes do not agree, a site has fewer than three responses, or the source cannot be read as needed.

    References
    ----------
    Hastie, Tibshirani & Friedman, Elements of Statistical Learning, sections 3.4 and 7.10 (leave-one-out).

    Examples
    --------
    >>> from neural_fits.feature_sources import TensorSource
    >>> x = torch.randn(30, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    >>> y = x.mean((1, 2, 3))[:, None]
    >>> bool((fit_ridge_streaming(TensorSource(x), y.numpy())(x) - y).abs().max() < 0.1)
    True
    """
    count, *shape = source.shape
    wide = int(np.prod(shape))
    measured: Floats = np.asarray(responses, dtype=np.float64)
    groups = _same_stimuli(measured, count)
    tell = progress or (lambda _: None)
    plan = _Plan(rule, tuple(relative_alphas), loo_stimuli, seed, tell)
    if wide <= count:
        weight, bias = _fit_primal(source, measured, groups, plan)
    else:
        if kernel is None:
            tell(f"Gram matrix of {count} stimuli from {wide} features")
            kernel = streaming_gram(block for _, block in column_blocks(source))
        weight, bias = _fit_dual(source, measured, groups, plan, kernel)
    return LinearReadout(weight.view(-1, *shape), bias.to(weight))


@dataclass(frozen=True)
class _Plan:
    """How penalties are chosen, and whom to tell."""

    rule: PenaltyRule
    relative_alphas: tuple[float, ...]
    loo_stimuli: int
    seed: int
    tell: Callable[[str], None]

    def subset(self, rows: Index) -> Index:
        if len(rows) <= self.loo_stimuli:
            return rows
        return np.sort(np.random.default_rng(self.seed).choice(rows, self.loo_stimuli, replace=False))

    def penalties(self, decompose: Callable[[], tuple[Tensor, Tensor]], responses: Floats) -> Tensor:
        self.tell(f"penalties of {responses.shape[1]} sites from {len(responses)} stimuli")
        # On one thread: with several, a decomposition takes ten times as long when anything else runs.
        values, basis = side_by_side(lambda _: decompose(), [None], torch.device("cpu"))[0]
        known = torch.from_numpy(responses).to(values)
        scale = (values.sum().item() / len(known)) or 1.0  # features that never vary are left to the penalty
        alphas = [relative * scale for relative in self.relative_alphas]
        return leave_one_out(basis, values, known - known.mean(0), alphas, self.rule).alpha


def _fit_primal(source: FeatureSource, responses: Floats, groups: Groups, plan: _Plan) -> tuple[Tensor, Tensor]:
    weights, biases = zip(*(_primal(source, responses[:, sites], rows, plan) for rows, sites in groups), strict=True)
    order = torch.from_numpy(np.argsort(np.concatenate([sites for _, sites in groups]))).to(weights[0].device)
    return torch.cat(weights)[order], torch.cat(biases)[order]


def _primal(source: FeatureSource, responses: Floats, rows: Index, plan: _Plan) -> tuple[Tensor, Tensor]:
    plan.tell(f"sums over {len(rows)} stimuli of {int(np.prod(source.shape[1:]))} features")
    chosen = plan.subset(rows)
    picked: list[Tensor] = []
    moments = streaming_moments(_row_batches(source, responses, rows, chosen, picked))

    def decompose() -> tuple[Tensor, Tensor]:
        inputs = torch.cat(picked).double()
        picked.clear()
        basis, values, _ = thin_svd(inputs - inputs.mean(0))
        return values, basis

    def copy(dtype: torch.dtype) -> Tensor:
        return moments.xtx.to(dtype, copy=True)

    alpha = plan.penalties(decompose, responses[chosen])
    weight = solve_penalized(copy, alpha, moments.xty, plan.tell).T
    return weight, moments.mean_y - weight.double() @ moments.mean_x


def _dual(kernel: Tensor, responses: Floats, rows: Index, plan: _Plan) -> Tensor:
    """Return coefficients (stimulus, site) that sum to zero over the given stimuli; others have none."""
    chosen = plan.subset(rows)

    def decompose() -> tuple[Tensor, Tensor]:
        values, basis = torch.linalg.eigh(center(kernel, torch.from_numpy(chosen).to(kernel.device)).double())
        return values.clamp(min=0), basis

    alpha = plan.penalties(decompose, responses[chosen])
    at = torch.from_numpy(rows).to(kernel.device)
    known = torch.from_numpy(responses[rows]).to(kernel.device)
    target = (known - known.mean(0)).to(kernel.dtype)
    solved = solve_penalized(partial(_centered_copy, kernel, at), alpha, target, plan.tell)
    return kernel.new_zeros(len(kernel), responses.shape[1]).index_copy_(0, at, solved - solved.mean(0))


def _fit_dual(
    source: FeatureSource, responses: Floats, groups: Groups, plan: _Plan, kernel: Tensor
) -> tuple[Tensor, Tensor]:
    dual = kernel.new_empty(len(kernel), responses.shape[1])
    shares = kernel.new_zeros(len(groups), len(kernel))  # rows that average the stimuli of each group of sites
    bias = torch.from_numpy(np.nanmean(np.where(np.isfinite(responses), responses, np.nan), axis=0)).to(kernel.device)
    for group, (rows, sites) in enumerate(groups):
        dual[:, torch.from_numpy(sites).to(kernel.device)] = _dual(kernel, responses[:, sites], rows, plan)
        shares[group, torch.from_numpy(rows).to(kernel.device)] = 1 / len(rows)
    plan.tell(f"weights of {int(np.prod(source.shape[1:]))} features")
    weight = dual.new_empty(responses.shape[1], int(np.prod(source.shape[1:])))
    for start, block in column_blocks(source):
        mean = block.mean(0)
        part = block - mean  # each column of `dual` sums to zero: this changes nothing but the rounding
        some = torch.mm(dual.T, part, out=weight[:, start : start + block.shape[1]])
        centers = (shares @ part + mean).double()
        for group, (_, sites) in enumerate(groups):
            to = torch.from_numpy(sites).to(kernel.device)
            bias[to] -= some[to].double() @ centers[group]
    return weight, bias


def _centered_copy(kernel: Tensor, rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Return `center` of these stimuli, made in place so that one copy is all there is."""
    copy = torch.empty(len(rows), len(rows), dtype=dtype, device=kernel.device)
    for some, into in zip(rows.split(_ROWS_COPIED), copy.split(_ROWS_COPIED), strict=True):
        into.copy_(kernel[some][:, rows])
    mean = copy.mean(1)
    return copy.sub_(mean[:, None]).sub_(mean[None]).add_(mean.mean())


def _finite(square: Tensor) -> Tensor:
    if not torch.isfinite(square.diagonal()).all():
        raise ValueError("features hold NaN or infinite numbers; look at the images and the layer they come from")
    return square


def column_blocks(source: FeatureSource) -> Iterator[tuple[int, Tensor]]:
    """Read a source in blocks of features, each of a size that memory does not notice.

    Parameters
    ----------
    source : FeatureSource
        The features.

    Yields
    ------
    start : int
        Number of the first feature.
    block : Tensor, (stimulus, some features)
        The features of all stimuli.
    """
    count, *shape = source.shape
    wide, step = int(np.prod(shape)), max(1, _BLOCK // count)
    for start in range(0, wide, step):
        yield start, source.columns(start, min(start + step, wide))


def _row_batches(
    source: FeatureSource, responses: Floats, rows: Index, chosen: Index, picked: list[Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the given stimuli in batches; on the way put the features of the chosen ones aside."""
    count, *shape = source.shape
    step = max(1, _BLOCK // int(np.prod(shape)))
    for start in range(0, count, step):
        stop = min(start + step, count)
        here = rows[(rows >= start) & (rows < stop)]
        if len(here):
            block = source.rows(start, stop).flatten(1)
            picked.append(block[torch.from_numpy(np.flatnonzero(np.isin(np.arange(start, stop), chosen)))])
            used = block if len(here) == len(block) else block[torch.from_numpy(here - start)]
            yield used, torch.from_numpy(responses[here]).to(used)


def _same_stimuli(responses: Floats, count: int) -> Groups:
    """Group sites that were recorded on the same stimuli: (stimuli, sites) of every group."""
    if responses.ndim != 2 or len(responses) != count:
        raise ValueError(
            f"responses have shape {responses.shape}; expected (stimulus, site) with the {count} stimuli of the source"
        )
    finite = np.isfinite(responses)
    few = np.flatnonzero(finite.sum(0) < _FEWEST)
    if len(few):
        raise ValueError(
            f"site number {few[0]} has {finite[:, few[0]].sum()} responses, a fit needs {_FEWEST}; leave it out"
        )
    if finite.all():  # sorting a thousand sites by 22,000 stimuli takes seconds
        return [(np.arange(count), np.arange(responses.shape[1]))]
    patterns, member = np.unique(finite, axis=1, return_inverse=True)
    return [(np.flatnonzero(patterns[:, k]), np.flatnonzero(member.ravel() == k)) for k in range(patterns.shape[1])]
