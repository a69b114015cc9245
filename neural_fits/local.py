"""Local readout: a site sees the image through a receptive-field window and weighs channels, not places.

In: features and responses. Out: a `LinearReadout`. Features are pooled by Gaussian windows; channels, each on its own
scale, are fitted by ridge in each window; a site averages its best windows. Used by `fit_sites(readout="local")`, the
default, and as the start of `alternating`.
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
#: windows averaged for each site
BEST_WINDOWS = 8
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


def fit_pooled(
    pooled: Tensor, responses: Tensor, rule: PenaltyRule = "best", windows: int = BEST_WINDOWS
) -> LinearReadout:
    """Fit channel weights by ridge in every window and average the best windows of every site.

    In window m, ridge with a penalty per site by closed-form leave-one-out gives channel weights ``d_m`` and an error;
    the readout is the mean of ``d_m`` over the windows of the smallest errors.

    Parameters
    ----------
    pooled : Tensor, (stimulus, channel, window, 1)
        Features as `pool_windows` gives them.
    responses : Tensor, (stimulus, site)
        Complete responses.
    rule : {"best", "one_se"}
        How the penalty is chosen, see `leave_one_out`.
    windows : int
        How many windows a site averages.

    Returns
    -------
    LinearReadout
        Weights (site, channel, window, 1), zero but in a site's best windows.
    """
    mean = responses.mean(0)
    errors, weights, centers = [], [], []
    for some in pooled[..., 0].split(_WINDOWS_AT_ONCE, dim=2):
        part = some.permute(2, 0, 1).contiguous()
        centers.append(part.mean(1))
        part -= centers[-1][:, None]
        weight, loo = ridge_weights(part, responses - mean, RELATIVE_ALPHAS, rule)
        errors.append(loo.error)
        weights.append(weight.permute(2, 1, 0))  # (site, channel, window)
    best = torch.cat(errors).argsort(0)[:windows].T  # (site, rank)
    chosen = torch.zeros(len(best), 1, pooled.shape[2]).to(pooled).scatter_(2, best[:, None], 1 / best.shape[1])
    weight = torch.cat(weights, 2) * chosen
    return LinearReadout(weight[..., None], mean - (weight * torch.cat(centers).T).sum((1, 2)))


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
        The fitted readout, ``mean over the best windows of window_m * d_m``.

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
