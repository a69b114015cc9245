"""Ridge regression of many sites on many features, solved on the stimulus-by-stimulus Gram matrix.

In: features and responses. Out: a `LinearReadout`, each site with the penalty of its smallest leave-one-out error. The
Gram matrix is computed once; folds are exact index operations on it. Used by `fit_sites(readout="ridge")`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neural_fits.parallel import side_by_side
from neural_fits.readout import LinearReadout

#: penalties tried, relative to the mean eigenvalue of the Gram matrix
RELATIVE_ALPHAS = tuple(10.0 ** (k / 2) for k in range(-8, 7))


@dataclass(frozen=True)
class DualRidge:
    """Ridge solution of several sites in the dual.

    Parameters
    ----------
    dual : Tensor, (stimulus, site)
        Coefficients: predictions are ``centered Gram row @ dual + mean response``.
    alpha : Tensor, (site,)
        Chosen penalties.
    loo_error : Tensor, (alpha, site)
        Mean squared leave-one-out error of every penalty.
    """

    dual: Tensor
    alpha: Tensor
    loo_error: Tensor


def gram(features: Tensor) -> Tensor:
    """Return the Gram matrix of features, centered over all stimuli.

    Parameters
    ----------
    features : Tensor, (stimulus, ...)
        Features; further axes are flattened.

    Returns
    -------
    Tensor, (stimulus, stimulus)
        ``(X - mean) (X - mean)^T``, float64.
    """
    flat = features.flatten(1)
    flat = flat - flat.mean(0)
    return (flat @ flat.T).double()


def center(kernel: Tensor, train: Tensor, test: Tensor | None = None) -> Tensor:
    """Return the block of a Gram matrix between test and training stimuli, centered by the training mean.

    Parameters
    ----------
    kernel : Tensor, (stimulus, stimulus)
        Gram matrix, whatever its centering.
    train, test : Tensor of int
        Stimuli; `test` is `train` by default.

    Returns
    -------
    Tensor, (test, train)
        Centered block.
    """
    inner = kernel[train][:, train]
    block = inner if test is None else kernel[test][:, train]
    return block - block.mean(1, keepdim=True) - inner.mean(0, keepdim=True) + inner.mean()


def solve_dual(kernel: Tensor, responses: Tensor, alphas: Sequence[float] | None = None) -> DualRidge:
    """Solve ridge regression for every site, the penalty chosen per site by closed-form leave-one-out.

    With the centered Gram matrix ``K = U diag(l) U^T`` and centered responses y, for each penalty a:
    ``yhat = U diag(l / (l + a)) U^T y``, leverage ``h_i = 1/n + sum_j U_ij^2 l_j / (l_j + a)``, leave-one-out residual
    ``(y_i - yhat_i) / (1 - h_i)``, dual coefficients ``U diag(1 / (l + a)) U^T y``.

    Parameters
    ----------
    kernel : Tensor, (stimulus, stimulus)
        Gram matrix centered over these stimuli.
    responses : Tensor, (stimulus, site)
        Complete responses.
    alphas : sequence of float, optional
        Penalties tried; by default `RELATIVE_ALPHAS` times the mean eigenvalue.

    Returns
    -------
    DualRidge
        Coefficients, penalties and errors, float64.

    Examples
    --------
    >>> x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> x = x - x.mean(0)
    >>> solution = solve_dual(x @ x.T, x[:, :1])
    >>> bool((x.T @ solution.dual)[0, 0] > 0.99)
    True
    """
    count = len(responses)
    responses = responses.double()  # a mean rounded to float32 would decide between small penalties
    centered = responses - responses.mean(0)
    values, vectors = torch.linalg.eigh(kernel.double())
    values = values.clamp(min=0)
    if alphas is None:
        alphas = [relative * max(values.mean().item(), 1e-12) for relative in RELATIVE_ALPHAS]
    rotated = vectors.T @ centered
    squared = vectors**2
    errors = []
    for alpha in alphas:
        shrink = values / (values + alpha)
        leverage = 1 / count + squared @ shrink
        residual = centered - vectors @ (shrink[:, None] * rotated)
        errors.append(((residual / (1 - leverage)[:, None].clamp(min=1e-9)) ** 2).mean(0))
    loo_error = torch.stack(errors)
    chosen = torch.tensor(list(alphas), dtype=torch.float64, device=kernel.device)[loo_error.argmin(0)]
    dual = vectors @ (rotated / (values[:, None] + chosen))
    return DualRidge(dual, chosen, loo_error)


def fit_ridge(features: Tensor, responses: Tensor, kernel: Tensor | None = None) -> LinearReadout:
    """Fit a ridge readout on complete responses.

    Parameters
    ----------
    features : Tensor, (stimulus, channel, height, width)
        Features.
    responses : Tensor, (stimulus, site)
        Complete responses.
    kernel : Tensor, optional
        Gram matrix of these features, when it is at hand.

    Returns
    -------
    LinearReadout
        The fitted readout.

    References
    ----------
    Hastie, Tibshirani & Friedman, Elements of Statistical Learning, sections 3.4 and 7.10 (leave-one-out).

    Examples
    --------
    >>> x = torch.randn(30, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    >>> y = x.mean((1, 2, 3))[:, None]
    >>> bool((fit_ridge(x, y)(x) - y).abs().max() < 0.1)
    True
    """
    kernel = gram(features) if kernel is None else kernel
    everything = torch.arange(len(features), device=features.device)
    dual = solve_dual(center(kernel, everything), responses).dual
    # Coefficients on centered features; the mean feature goes into the offset.
    dual = dual - dual.mean(0)
    weight = (dual.T.to(features.dtype) @ features.flatten(1)).view(-1, *features.shape[1:])
    bias = responses.mean(0) - weight.flatten(1) @ features.mean(0).flatten()
    return LinearReadout(weight, bias)


def cross_validate_ridge(
    kernel: Tensor, responses: np.ndarray, folds: Sequence[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Return held-out predictions of every fold from one Gram matrix.

    Parameters
    ----------
    kernel : Tensor, (stimulus, stimulus)
        Gram matrix of all stimuli.
    responses : ndarray, (stimulus, site)
        Responses; NaN where a site was not recorded.
    folds : sequence of (train, test)
        Indices of the stimuli.

    Returns
    -------
    ndarray, (stimulus, site)
        Predictions for stimuli of the test folds, NaN elsewhere.
    """
    predicted = np.full(responses.shape, np.nan, dtype=np.float32)

    def solve(fold: tuple[np.ndarray, np.ndarray]) -> None:
        train, test = fold
        patterns, member = np.unique(np.isfinite(responses[train]), axis=1, return_inverse=True)
        for pattern in range(patterns.shape[1]):
            rows, sites = train[patterns[:, pattern]], np.flatnonzero(member.ravel() == pattern)
            known = torch.from_numpy(responses[np.ix_(rows, sites)]).double().to(kernel.device)
            at, held = torch.from_numpy(rows).to(kernel.device), torch.from_numpy(test).to(kernel.device)
            solution = solve_dual(center(kernel, at), known)
            values = center(kernel, at, held) @ solution.dual + known.mean(0)
            predicted[np.ix_(test, sites)] = values.float().cpu().numpy()

    side_by_side(solve, folds, kernel.device)
    return predicted
