"""Partial least squares with 25 components, all sites together: the baseline of Brain-Score and of much of the field.

In: features and responses. Out: a `LinearReadout`. On the scores that `principal_scores` makes once for all folds it is
the same fit as on the features themselves, and some hundred times faster. Used by `fit_sites(readout="pls")`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neural_fits.readout import LinearReadout
from neural_fits.ridge import principal_scores

#: components of the baseline that the field reports
COMPONENTS = 25
#: when the covariance left is this small beside the first, it is rounding: there is nothing more to explain
_NOTHING_LEFT = 1e-10
#: a feature that varies less than this beside its mean is constant, and what varies is rounding
_ROUNDING = 1e-12


def fit_pls(features: Tensor, responses: Tensor, components: int = COMPONENTS) -> LinearReadout:
    """Fit partial least squares on complete responses.

    For each component w is the first left singular vector of ``X^T Y``, ``t = X w``, ``p = X^T t / t^T t`` and
    ``q = Y^T t / t^T t``; then ``t p^T`` is taken from X, and with it the part of Y that t explains from ``X^T Y``.
    Weights are ``W (P^T W)^-1 Q^T``. The same as scikit-learn's ``PLSRegression(components, scale=False)``, whose power
    iteration stops at a tolerance where here the singular vector is exact. Nothing is scaled: sites that vary more
    weigh more.

    Parameters
    ----------
    features : Tensor, (stimulus, channel, height, width)
        Features.
    responses : Tensor, (stimulus, site)
        Complete responses.
    components : int
        Number of components; fewer are used when stimuli less one, features, or directions that covary run out.

    Returns
    -------
    LinearReadout
        The fitted readout.

    Raises
    ------
    ValueError
        When `components` is not positive.

    References
    ----------
    Schrimpf et al., bioRxiv 407007 (Brain-Score).

    Examples
    --------
    >>> x = torch.randn(60, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    >>> y = x.mean((1, 2, 3))[:, None]
    >>> bool((fit_pls(x, y)(x) - y).abs().max() < 1e-4)
    True
    """
    if components < 1:
        raise ValueError(f"components is {components}; give 1 or more")
    count, *shape = features.shape
    if features[0].numel() > count:
        compressed = principal_scores(features)
        return compressed.expand(fit_pls(compressed.features, responses, components))
    inputs, targets = features.flatten(1).double(), responses.double()
    center, mean = inputs.mean(0), targets.mean(0)
    inputs = inputs - center
    inputs[:, inputs.abs().amax(0) <= _ROUNDING * center.abs()] = 0  # no penalty would keep it from being fitted
    weight = _coefficients(inputs, targets - mean, min(components, *inputs.shape))
    return LinearReadout(weight.T.reshape(targets.shape[1], *shape).to(features), (mean - center @ weight).to(features))


def _coefficients(inputs: Tensor, targets: Tensor, components: int) -> Tensor:
    """Return weights (feature, site) of centered features (stimulus, feature) and responses (stimulus, site)."""
    directions, loadings = inputs.new_zeros(2, inputs.shape[1], components)
    site_loadings = targets.new_zeros(targets.shape[1], components)
    found, enough = 0, _NOTHING_LEFT * (inputs.T @ targets).norm()
    while found < components:
        left, singular, _ = torch.linalg.svd(inputs.T @ targets, full_matrices=False)
        if singular[0] <= enough:
            break
        scores = inputs @ left[:, 0]
        directions[:, found] = left[:, 0]
        loadings[:, found] = inputs.T @ scores / (scores @ scores)
        site_loadings[:, found] = targets.T @ scores / (scores @ scores)
        inputs = inputs - torch.outer(scores, loadings[:, found])
        found += 1
    directions, loadings, site_loadings = directions[:, :found], loadings[:, :found], site_loadings[:, :found]
    return directions @ torch.linalg.solve(loadings.T @ directions, site_loadings.T)
