"""One mask times channel weights for every site, by ridge regression of the one and the other in turn.

In: features and responses. Out: a `LinearReadout` whose weight is ``mask x channels`` for every site. Starts from the
windows of `local`; used by `fit_sites(readout="alternating")` where a readout must be strictly factorized.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neural_fits._descent import standardize
from neural_fits.local import RELATIVE_ALPHAS as CHANNEL_ALPHAS
from neural_fits.local import fit_windows, gaussian_windows, pool_windows, window_weights
from neural_fits.loo import RELATIVE_ALPHAS as MASK_ALPHAS
from neural_fits.loo import PenaltyRule, ridge_weights
from neural_fits.readout import LinearReadout

#: alternations at most; a site stops earlier when its error no longer falls
ALTERNATIONS = 3
#: length over which masks are smooth, as a fraction of the image's side
LENGTH_SCALE = 0.15
#: masks stay near their start: prior deviations are the start to this power, for a Gaussian 1.8 times as wide
LOCALITY = 0.3
#: directions of the prior with less than this share of the largest variance are left out
_LEAST_VARIANCE = 1e-3
#: sites solved at once: more need memory, fewer are slower
_SITES_AT_ONCE = 8


def smooth_basis(height: int, width: int) -> Tensor:
    """Return the root B of a covariance ``B B^T`` of masks that is smooth over positions.

    ``(B B^T)(p, q) = exp(-|p - q|^2 / (2 LENGTH_SCALE^2))``, positions in fractions of the sides.

    Parameters
    ----------
    height, width : int
        Size of the feature map.

    Returns
    -------
    Tensor, (height * width, basis)
        Directions of the covariance, each as long as its standard deviation.

    Examples
    --------
    >>> smooth_basis(1, 1)
    tensor([[1.]])
    """
    roots, variances = [], []
    for size in (height, width):
        places = (torch.arange(size, dtype=torch.float64) + 0.5) / size
        values, vectors = torch.linalg.eigh(torch.exp(-((places[:, None] - places) ** 2) / (2 * LENGTH_SCALE**2)))
        variances.append(values.clamp(min=0))
        roots.append(vectors * variances[-1].sqrt())
    variance = torch.outer(*variances).flatten()
    return torch.kron(*roots)[:, variance > _LEAST_VARIANCE * variance.max()].float()


def fit_alternating(features: Tensor, responses: Tensor, rule: PenaltyRule = "best") -> LinearReadout:
    """Fit masks and channel weights on complete responses by alternating ridge regression.

    The first mask s is the site's mean window, as `window_weights` weighs them. Channel weights d given the mask are
    ridge regression on ``sum_p s_p F_cp``; the mask given the channels is ridge regression on ``Z_p = sum_c d_c F_cp``
    under a Gaussian prior that is smooth and local: covariance ``e_p e_q exp(-|p - q|^2 / (2 l^2))``, with e the first
    mask to a power below 1. A site keeps the pair of the smallest leave-one-out error of its channel weights, so that
    by this measure it is never worse than its first mask.

    Parameters
    ----------
    features : Tensor, (stimulus, channel, height, width)
        Features.
    responses : Tensor, (stimulus, site)
        Complete responses.
    rule : {"best", "one_se"}
        How the penalty of the channel weights is chosen, see `leave_one_out`. That of the mask is always ``one_se``:
        the channels were fitted to the same responses, which makes the mask's own error look too small.

    Returns
    -------
    LinearReadout
        The fitted readout; its weight is an outer product for every site.

    Examples
    --------
    >>> x = torch.randn(100, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    >>> y = x[:, :1, 2:4, 2:4].mean((2, 3))
    >>> bool(torch.corrcoef(torch.cat([fit_alternating(x, y)(x), y], 1).T)[0, 1] > 0.9)
    True
    """
    data = standardize(features, responses)
    inputs, targets = data.inputs.flatten(2), data.targets
    first = _best_windows(data.inputs, targets, rule)
    basis = smooth_basis(*features.shape[2:]).to(inputs)
    local = (first / first.amax(1, keepdim=True)) ** LOCALITY
    mask = first.clone()
    channels, error = _fit_channels(inputs, targets, mask, rule)
    falling = torch.arange(len(mask), device=mask.device)
    for _ in range(ALTERNATIONS):
        new_mask = _fit_masks(inputs, targets[:, falling], channels[falling], local[falling], basis)
        new_channels, new_error = _fit_channels(inputs, targets[:, falling], new_mask, rule)
        better = new_error < error[falling]
        falling = falling[better]
        if not len(falling):
            break
        mask[falling], channels[falling], error[falling] = new_mask[better], new_channels[better], new_error[better]
    bias = -torch.einsum("cp,sp,sc->s", inputs.mean(0), mask, channels)
    return data.readout(mask.view(-1, *features.shape[2:]), channels, bias)


def _best_windows(inputs: Tensor, targets: Tensor, rule: PenaltyRule) -> Tensor:
    """Return the mean (site, position) of the windows as the local readout weighs them."""
    windows = gaussian_windows(*inputs.shape[2:]).to(inputs).flatten(1)
    _, error, _ = fit_windows(pool_windows(inputs).features, targets, rule)
    return window_weights(error, len(targets)).T @ windows


def _fit_channels(inputs: Tensor, targets: Tensor, mask: Tensor, rule: PenaltyRule) -> tuple[Tensor, Tensor]:
    """Return channel weights (site, channel) given masks (site, position), and their leave-one-out errors (site,)."""
    weights, errors = [], []
    for sites in torch.arange(len(mask), device=mask.device).split(_SITES_AT_ONCE):
        pooled = mask[sites] @ inputs.transpose(1, 2)  # (stimulus, site, channel)
        weight, error = _ridge_each(pooled.transpose(0, 1), targets[:, sites], CHANNEL_ALPHAS, rule)
        weights.append(weight)
        errors.append(error)
    return torch.cat(weights), torch.cat(errors)


def _fit_masks(inputs: Tensor, targets: Tensor, channels: Tensor, local: Tensor, basis: Tensor) -> Tensor:
    """Return masks (site, position) of absolute sum 1 given channel weights (site, channel)."""
    masks = []
    for sites in torch.arange(len(channels), device=channels.device).split(_SITES_AT_ONCE):
        prior = local[sites, :, None] * basis
        by_position = channels[sites] @ inputs  # (stimulus, site, position)
        weight, _ = _ridge_each(by_position.transpose(0, 1) @ prior, targets[:, sites], MASK_ALPHAS, "one_se")
        mask = torch.einsum("spb,sb->sp", prior, weight)
        # a factor could go to the mask or to the channels: this fixes it
        masks.append(mask / mask.abs().sum(1, keepdim=True).clamp(min=torch.finfo(mask.dtype).tiny))
    return torch.cat(masks)


def _ridge_each(inputs: Tensor, targets: Tensor, alphas: tuple[float, ...], rule: PenaltyRule) -> tuple[Tensor, Tensor]:
    """Solve every site (stimulus, site) on inputs of its own (site, stimulus, feature): weights and errors."""
    weight, loo = ridge_weights(inputs - inputs.mean(1, keepdim=True), targets.T[..., None], alphas, rule)
    return weight[..., 0], loo.error[..., 0]
