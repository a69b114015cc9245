"""Gaussian readout: a site sees through one Gaussian window, learned together with its channel weights.

In: features and responses. Out: a `LinearReadout` whose weight is ``window x channels`` for every site. Used by
`fit_sites(readout="gaussian")`, as the baseline of networks trained on neurons.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neural_fits._descent import descend, standardize
from neural_fits.readout import LinearReadout

#: weight of the channels' squared norm in the loss, chosen by held-out stimuli of simulated sites among 0.03 to 10
RIDGE = 0.1
#: sigma of every window at the start, as a fraction of the image's side; the start is the image's middle
FIRST_SIGMA = 0.25


def windows(center: Tensor, sigma: Tensor, height: int, width: int) -> Tensor:
    """Return isotropic Gaussian windows, each with sum 1.

    ``exp(-((row - y)^2 + (column - x)^2) / (2 sigma^2))``, normalized over positions.

    Parameters
    ----------
    center : Tensor, (site, 2)
        Row and column of the centers, as fractions of the sides.
    sigma : Tensor, (site,)
        Widths, as fractions of the sides.
    height, width : int
        Size of the feature map.

    Returns
    -------
    Tensor, (site, height, width)
        Windows.

    Examples
    --------
    >>> windows(torch.tensor([[0.5, 0.5]]), torch.tensor([1e3]), 2, 2)
    tensor([[[0.2500, 0.2500],
             [0.2500, 0.2500]]])
    """
    profiles = []
    for axis, size in enumerate((height, width)):
        places = (torch.arange(size, device=center.device) + 0.5) / size
        # a softmax, so that a window narrower than the grid still has sum 1
        profiles.append((-((places - center[:, axis, None]) ** 2) / (2 * sigma[:, None] ** 2)).softmax(1))
    return profiles[0][:, :, None] * profiles[1][:, None]


def fit_gaussian(features: Tensor, responses: Tensor, seed: int = 0) -> LinearReadout:
    """Fit windows and channel weights on complete responses by Adam.

    ``yhat_n = sum_c d_cn sum_xy G_n(x, y) F_xyc + b_n`` under ``||Yhat - Y||_2 / sqrt(N) + ld mean_n ||d_n||^2``.
    The readout of Lurz et al. draws one position a stimulus from the Gaussian while it learns, reads the mean position
    afterwards, and minimizes a Poisson loss with an absolute-value penalty. Here the window weighs all positions, as
    their expectation would, so that nothing is drawn and fitting and predicting are the same map.

    Parameters
    ----------
    features : Tensor, (stimulus, channel, height, width)
        Features.
    responses : Tensor, (stimulus, site)
        Complete responses.
    seed : int
        Seed of the order of batches.

    Returns
    -------
    LinearReadout
        The fitted readout; its weight is an outer product for every site.

    References
    ----------
    Lurz et al., ICLR 2021.

    Examples
    --------
    >>> x = torch.randn(100, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> y = x[:, :1, 1:3, 1:3].mean((2, 3))
    >>> bool(torch.corrcoef(torch.cat([fit_gaussian(x, y)(x), y], 1).T)[0, 1] > 0.9)
    True
    """
    count, channel_count, height, width = features.shape
    sites = responses.shape[1]
    data = standardize(features, responses)
    center = features.new_full((sites, 2), 0.5)
    log_sigma = features.new_full((sites,), FIRST_SIGMA).log()
    channels = features.new_zeros(sites, channel_count)
    bias = features.new_zeros(sites)

    def loss(batch: Tensor) -> Tensor:
        mask = windows(center, log_sigma.exp(), height, width)
        predicted = data.predicted(batch, mask, channels, bias)
        error = (predicted - data.targets[batch]).norm() / sites**0.5
        return error + RIDGE * channels.square().sum(1).mean()

    descend(loss, (center, log_sigma, channels, bias), count, torch.Generator().manual_seed(seed))
    return data.readout(windows(center, log_sigma.exp(), height, width), channels, bias)
