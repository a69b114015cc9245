"""Local readout: a site sees the image through a receptive-field window and weighs channels, not places.

In: features and responses. Out: a `LinearReadout`. Features are pooled by Gaussian windows; channels, each on its own
scale, are fitted by ridge in each window; a site averages windows, weighed by their errors. Used by
`fit_sites(readout="local")`, the default, and as the start of `alternating`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neural_fits.loo import PenaltyRule, ridge_weights
from neural_fits.readout import Compressed, LinearReadout

#: sigma of the Gaussian windows as a fraction of the image's side, and centers on each axis, 1 to 1.4 sigma apart
WINDOWS = ((0.1, 6), (0.16, 5), (0.24, 4))
#: first and last center, as fractions of the side
WINDOW_SPAN = (0.15, 0.85)
#: how sharply windows are weighed by their errors, see `window_weights`: a twentieth of the stimuli
SHARPNESS = 1 / 20
#: penalties tried, relative to the mean squared norm of a stimulus's pooled channels
RELATIVE_ALPHAS = tuple(10.0 ** (k / 2) for k in range(-6, 4))
#: windows solved at once: more need memory, fewer are slower
_WINDOWS_AT_ONCE = 16


def gaussian_windows(height: int, width: int) -> Tensor:
    """Return the family of receptive-field windows tried, each with sum 1.

    Parameters
    ----------
    height, width : int
        Size of the feature map.

    Returns
    -------
    Tensor, (window, height, width)
        Gaussian windows at all centers and sizes.
    """
    rows = ((torch.arange(height) + 0.5) / height)[:, None, None]
    columns = ((torch.arange(width) + 0.5) / width)[:, None, None]
    windows = []
    for sigma, grid in WINDOWS:
        centers = torch.linspace(*WINDOW_SPAN, grid)
        down = torch.exp(-((rows - centers) ** 2) / (2 * sigma**2))
        across = torch.exp(-((columns - centers) ** 2) / (2 * sigma**2))
        windows.append(torch.einsum("hay,wbx->yxhw", down, across).flatten(0, 1))
    family = torch.cat(windows)
    return family / family.sum((1, 2), keepdim=True)


def pool_windows(features: Tensor) -> Compressed:
    """Pool features by all windows.

    ``P_m = sum_xy window_m(x, y) F(x, y)`` for every window m, each channel divided by its standard deviation.

    Parameters
    ----------
    features : Tensor, (stimulus, channel, height, width)
        Features.

    Returns
    -------
    Compressed
        Pooled features (stimulus, channel, window, 1) and the way back to positions.
    """
    windows = gaussian_windows(*features.shape[2:]).to(features)
    scale = features.std((0, 2, 3))
    scale = torch.where(scale > 1e-6 * scale.max(), scale, torch.inf)[:, None]  # a channel that never varied: weight 0

    def expand(readout: LinearReadout) -> LinearReadout:
        weight = torch.einsum("scm,mhw->schw", readout.weight[..., 0] / scale, windows)
        return LinearReadout(weight, readout.bias)

    return Compressed((features.flatten(2) @ windows.flatten(1).T).div_(scale)[..., None], expand)


def window_weights(error: Tensor, stimuli: int) -> Tensor:
    """Weigh windows by how well they predict.

    ``a_m = exp(-SHARPNESS n (e_m / e_best - 1))``, scaled to sum 1: the fewer stimuli n, the less an error e tells, and
    the more windows share the readout. Half of n in place of a twentieth would be their likelihood, which trusts the
    errors too much because windows overlap.

    Parameters
    ----------
    error : Tensor, (window, site)
        Mean squared leave-one-out error.
    stimuli : int
        Number of stimuli n.

    Returns
    -------
    Tensor, (window, site)
        Weights.
    """
    best = error.amin(0).clamp(min=torch.finfo(error.dtype).tiny)
    return torch.softmax(-SHARPNESS * stimuli * (error / best - 1), 0)


def fit_windows(pooled: Tensor, responses: Tensor, rule: PenaltyRule = "best") -> tuple[Tensor, Tensor, Tensor]:
    """Fit channel weights by ridge in every window for every site.

    Parameters
    ----------
    pooled : Tensor, (stimulus, channel, window, 1)
        Features as `pool_windows` gives them.
    responses : Tensor, (stimulus, site)
        Complete responses.
    rule : {"best", "one_se"}
        How the penalty is chosen, see `leave_one_out`.

    Returns
    -------
    weight : Tensor, (site, channel, window)
        Channel weights.
    error : Tensor, (window, site)
        Their mean squared leave-one-out errors.
    center : Tensor, (channel, window)
        Mean pooled features.
    """
    centered = responses - responses.mean(0)
    weights, errors, centers = [], [], []
    for some in pooled[..., 0].split(_WINDOWS_AT_ONCE, dim=2):
        part = some.permute(2, 0, 1).contiguous()
        centers.append(part.mean(1).T)
        part -= centers[-1].T[:, None]
        weight, loo = ridge_weights(part, centered, RELATIVE_ALPHAS, rule)
        errors.append(loo.error)
        weights.append(weight.permute(2, 1, 0))
    return torch.cat(weights, 2), torch.cat(errors), torch.cat(centers, 1)


def fit_pooled(pooled: Tensor, responses: Tensor, rule: PenaltyRule = "best") -> LinearReadout:
    """Fit every window and average them, each weighed by its error.

    In window m, ridge with a penalty per site by closed-form leave-one-out gives channel weights ``d_m`` and an error;
    the readout is ``a_m d_m`` in window m, with the weights of `window_weights`.

    Parameters
    ----------
    pooled : Tensor, (stimulus, channel, window, 1)
        Features as `pool_windows` gives them.
    responses : Tensor, (stimulus, site)
        Complete responses.
    rule : {"best", "one_se"}
        How the penalty is chosen, see `leave_one_out`.

    Returns
    -------
    LinearReadout
        Weights (site, channel, window, 1).
    """
    weight, error, center = fit_windows(pooled, responses, rule)
    weight = weight * window_weights(error, len(responses)).T[:, None]
    return LinearReadout(weight[..., None], responses.mean(0) - (weight * center).sum((1, 2)))


def fit_local(features: Tensor, responses: Tensor, rule: PenaltyRule = "best") -> LinearReadout:
    """Fit a local readout on complete responses.

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
        The fitted readout, ``sum_m a_m window_m d_m``, see `fit_pooled`.

    References
    ----------
    St-Yves & Naselaris, NeuroImage 2018 (feature-weighted receptive fields), here with a convex solution per window.

    Examples
    --------
    >>> x = torch.randn(60, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    >>> y = x[:, :1, 2:4, 2:4].mean((2, 3))
    >>> readout = fit_local(x, y)
    >>> bool(torch.corrcoef(torch.cat([readout(x), y], 1).T)[0, 1] > 0.7)
    True
    """
    compressed = pool_windows(features)
    return compressed.expand(fit_pooled(compressed.features, responses, rule))
