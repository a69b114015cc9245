"""Ridge regression of many sites on many features.

In: features and responses. Out: a `LinearReadout`, each site with the penalty of its smallest leave-one-out error. The
Gram matrix is computed once for all folds: `principal_scores` turns features into at most as many coordinates as there
are stimuli, in which every rotation-invariant fit is the same. Used by `fit_sites` and `pls`; `streaming` for more
stimuli than memory holds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neural_fits.loo import RELATIVE_ALPHAS, PenaltyRule, ridge_weights
from neural_fits.readout import Compressed, LinearReadout

#: features read at once while the Gram matrix grows: no centered copy of all of them, and sums in double precision
_COLUMNS_AT_ONCE = 1024


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
    kernel = torch.zeros(len(flat), len(flat), dtype=torch.float64, device=flat.device)
    for columns in flat.split(_COLUMNS_AT_ONCE, dim=1):
        part = columns - columns.mean(0)
        kernel += part @ part.T
    return kernel


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


def fit_ridge(features: Tensor, responses: Tensor, rule: PenaltyRule = "best") -> LinearReadout:
    """Fit a ridge readout on complete responses.

    Parameters
    ----------
    features : Tensor, (stimulus, channel, height, width)
        Features.
    responses : Tensor, (stimulus, site)
        Complete responses.
    rule : {"best", "one_se"}
        How the penalty is chosen, see `leave_one_out`.

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
    count, *shape = features.shape
    if features[0].numel() > count:
        compressed = principal_scores(features)
        return compressed.expand(fit_ridge(compressed.features, responses, rule))
    inputs = features.flatten(1).double()
    center, mean = inputs.mean(0), responses.double().mean(0)
    weight = ridge_weights(inputs - center, responses.double() - mean, RELATIVE_ALPHAS, rule)[0]
    return LinearReadout(weight.T.reshape(-1, *shape).to(features), (mean - center @ weight).to(features))


def principal_scores(features: Tensor) -> Compressed:
    """Rotate features to at most as many coordinates as there are stimuli, keeping all products between stimuli.

    With centered features ``X = U diag(s) V^T`` the scores are ``U diag(s)``: ridge and partial least squares fitted on
    them, on all stimuli or on any fold, predict the same as on X. A readout w of the scores is the readout ``V w`` of
    the features.

    Parameters
    ----------
    features : Tensor, (stimulus, channel, height, width)
        Features.

    Returns
    -------
    Compressed
        Scores (stimulus, k, 1, 1) and the way back.

    Examples
    --------
    >>> x = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> scores = principal_scores(x).features.flatten(1)
    >>> flat = (x - x.mean(0)).flatten(1)
    >>> bool(((scores @ scores.T) - flat @ flat.T).abs().max() < 1e-4)
    True
    """
    values, vectors = torch.linalg.eigh(gram(features))
    kept = values > torch.finfo(features.dtype).eps * values.max()
    if not kept.any():  # features that never vary keep one coordinate, which is zero
        return Compressed(features.new_zeros(len(features), 1, 1, 1), lambda readout: _constant(readout, features))
    root, basis = values[kept].sqrt(), vectors[:, kept]

    def expand(readout: LinearReadout) -> LinearReadout:
        # X^T U / s = V; U is orthogonal to the constant, so X need not be centered
        dual = ((basis / root) @ readout.weight.flatten(1).T.double()).to(features.dtype)
        dual = dual - dual.mean(0)
        weight = (dual.T @ features.flatten(1)).view(-1, *features.shape[1:])
        return LinearReadout(weight, readout.bias - weight.flatten(1) @ features.mean(0).flatten())

    return Compressed((basis * root).to(features.dtype)[:, :, None, None], expand)


def _constant(readout: LinearReadout, features: Tensor) -> LinearReadout:
    return LinearReadout(features.new_zeros(len(readout.bias), *features.shape[1:]), readout.bias)
