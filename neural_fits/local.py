"""Local readout: a site sees the image through a receptive-field window and weighs channels, not places.

In: features and responses. Out: a `LinearReadout`. Features are pooled by Gaussian windows; channels are fitted by
ridge in each window; a site averages its best windows. Used by `fit_sites(readout="local")`, the default.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neural_fits.readout import LinearReadout

#: sigma of the Gaussian windows, as a fraction of the image's side
WINDOW_SIGMAS = (0.08, 0.14, 0.22)
#: window centers on each axis, from the first to the last fraction of the side
WINDOW_GRID, WINDOW_SPAN = 7, (0.1, 0.9)
#: windows averaged for each site
BEST_WINDOWS = 8
#: penalties tried, relative to the mean eigenvalue of the covariance of the pooled channels
RELATIVE_ALPHAS = tuple(10.0 ** (k / 2) for k in range(-6, 7))


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
    centers = torch.linspace(*WINDOW_SPAN, WINDOW_GRID)
    rows = ((torch.arange(height) + 0.5) / height)[:, None, None]
    columns = ((torch.arange(width) + 0.5) / width)[:, None, None]
    windows = []
    for sigma in WINDOW_SIGMAS:
        down = torch.exp(-((rows - centers) ** 2) / (2 * sigma**2))
        across = torch.exp(-((columns - centers) ** 2) / (2 * sigma**2))
        windows.append(torch.einsum("hay,wbx->yxhw", down, across).flatten(0, 1))
    family = torch.cat(windows)
    return family / family.sum((1, 2), keepdim=True)


def fit_local(features: Tensor, responses: Tensor) -> LinearReadout:
    """Fit a local readout on complete responses.

    In window m, with pooled channels ``P_m = sum_xy window_m(x, y) F(x, y)``, ridge by closed-form leave-one-out gives
    channel weights ``d_m`` and an error per site; the readout is ``mean over the best windows of window_m * d_m``.

    Parameters
    ----------
    features : Tensor, (stimulus, channel, height, width)
        Features.
    responses : Tensor, (stimulus, site)
        Complete responses.

    Returns
    -------
    LinearReadout
        The fitted readout.

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
    count, channels, height, width = features.shape
    windows = gaussian_windows(height, width).to(features)
    # (window, stimulus, channel): every window is one row of a small matrix product over positions
    pooled = torch.einsum("ncp,mp->mnc", features.flatten(2), windows.flatten(1))
    center = pooled.mean(1, keepdim=True)
    pooled = pooled - center
    mean = responses.mean(0)
    centered = responses - mean
    values, axes = torch.linalg.eigh(pooled.transpose(1, 2) @ pooled)
    values = values.clamp(min=1e-6 * values.amax(1, keepdim=True).clamp(min=1e-12))
    scores = pooled @ axes / values.sqrt()[:, None]  # orthonormal columns, (window, stimulus, channel)
    rotated = scores.transpose(1, 2) @ centered  # (window, channel, site)
    squared = scores**2
    alphas = torch.tensor(RELATIVE_ALPHAS).to(values) * values.mean(1, keepdim=True)  # (window, alpha)
    errors = []
    for alpha in alphas.T:
        shrink = values / (values + alpha[:, None])
        leverage = 1 / count + (squared @ shrink[..., None])[..., 0]
        residual = centered - scores @ (shrink[..., None] * rotated)
        errors.append(((residual / (1 - leverage)[..., None].clamp(min=1e-6)) ** 2).mean(1))
    error, chosen = torch.stack(errors).min(0)  # (window, site)
    best = error.argsort(0)[:BEST_WINDOWS]  # (rank, site)
    weight = torch.zeros(responses.shape[1], channels, height, width, device=features.device)
    bias = mean.clone()
    sites = torch.arange(responses.shape[1], device=features.device)
    for window in best:  # one window per site
        alpha = alphas[window, chosen[window, sites]]
        spectrum = values[window].sqrt() / (values[window] + alpha[:, None]) * rotated[window, :, sites]
        channel = torch.einsum("sck,sk->sc", axes[window], spectrum) / len(best)
        weight += channel[:, :, None, None] * windows[window][:, None]
        bias -= (channel * center[window, 0]).sum(1)
    return LinearReadout(weight, bias)
