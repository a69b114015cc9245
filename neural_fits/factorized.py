"""The readout of the 2019 paper: where (a mask) times what (channel weights), learned by gradient descent.

In: features and responses. Out: a `LinearReadout` whose weight is ``mask x channels`` for every site. Used by
`fit_sites(readout="factorized")`, mainly as a second opinion and for comparison with the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from neural_fits._descent import descend, standardize
from neural_fits.readout import LinearReadout

# The penalties were chosen by held-out photographs on 32 simulated sites among (0.05 to 10) x (1 to 30) in the paper's
# scale of the loss, where both are 10; here that is 10 / sqrt(32).
SMOOTHNESS, RIDGE = 1.8, 1.8
#: ls and ld of the released class, for its loss without our division
RELEASED_2019 = (0.05, 0.1)
_LAPLACE = ((0.0, -1.0, 0.0), (-1.0, 4.0, -1.0), (0.0, -1.0, 0.0))


def factorized_loss(
    predicted: Tensor,
    responses: Tensor,
    mask: Tensor,
    channels: Tensor,
    smoothness: float = SMOOTHNESS,
    ridge: float = RIDGE,
) -> Tensor:
    """Return the loss of one batch.

    ``||Yhat - Y||_2 / sqrt(N) + ls (1/N) sum_n ||K * s_n||^2 + ld [mean_n ||s_n||^2 + mean_n ||d_n||^2]``: a Frobenius
    norm that is not squared, the Laplacian K with zero padding, and N sites. The paper's code lacks the division by
    ``sqrt(N)``: its penalties then weigh more the fewer the sites, and a single site is fitted by zero.

    Parameters
    ----------
    predicted, responses : Tensor, (stimulus, site)
        Of one batch.
    mask : Tensor, (site, height, width)
        Spatial masks s.
    channels : Tensor, (site, channel)
        Channel weights d.
    smoothness, ridge : float
        The penalties ls and ld.

    Returns
    -------
    Tensor
        The loss, one number.
    """
    kernel = torch.tensor(_LAPLACE, device=mask.device)[None, None]
    rough = functional.conv2d(mask[:, None], kernel, padding=1)
    error = (predicted - responses).norm() / predicted.shape[1] ** 0.5
    size = mask.square().sum((1, 2)).mean() + channels.square().sum(1).mean()
    return error + smoothness * rough.square().sum((1, 2, 3)).mean() + ridge * size


def fit_factorized(
    features: Tensor, responses: Tensor, seed: int = 0, smoothness: float = SMOOTHNESS, ridge: float = RIDGE
) -> LinearReadout:
    """Fit masks and channel weights on complete responses by Adam.

    ``yhat_n = sum_c d_cn sum_xy s_xyn F_xyc + b_n``.

    Parameters
    ----------
    features : Tensor, (stimulus, channel, height, width)
        Features.
    responses : Tensor, (stimulus, site)
        Complete responses.
    seed : int
        Seed of the first weights and of the order of batches.
    smoothness, ridge : float
        Penalties, see `factorized_loss`.

    Returns
    -------
    LinearReadout
        The fitted readout; its weight is an outer product for every site.

    References
    ----------
    Klindt et al., NeurIPS 2017; Bashivan, Kar & DiCarlo, Science 2019 and their public mapping code.

    Examples
    --------
    >>> x = torch.randn(100, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> y = x[:, :1, 1:3, 1:3].mean((2, 3))
    >>> bool(torch.corrcoef(torch.cat([fit_factorized(x, y)(x), y], 1).T)[0, 1] > 0.7)
    True
    """
    count, channel_count, height, width = features.shape
    sites = responses.shape[1]
    data = standardize(features, responses)
    generator = torch.Generator().manual_seed(seed)
    # N(0, 1), as in the authors' code, scaled so that the first predictions have the size of the responses.
    mask = torch.randn(sites, height, width, generator=generator).to(features) / (height * width)
    channels = torch.randn(sites, channel_count, generator=generator).to(features) / channel_count**0.5
    bias = torch.zeros(sites, device=features.device)

    def loss(batch: Tensor) -> Tensor:
        predicted = data.predicted(batch, mask, channels, bias)
        return factorized_loss(predicted, data.targets[batch], mask, channels, smoothness, ridge)

    descend(loss, (mask, channels, bias), count, generator)
    return data.readout(mask, channels, bias)


def fit_factorized_2019(features: Tensor, responses: Tensor, seed: int = 0) -> LinearReadout:
    """Fit as the released mapping class of 2019 does: its loss, with its default penalties ls = 0.05 and ld = 0.1.

    Its loss is `factorized_loss` times ``sqrt(N)`` with penalties divided by ``sqrt(N)``; a factor on the whole loss
    does not change the steps of Adam. Batches of 50 as there; 40 epochs and a falling learning rate as in `descend`.

    Parameters
    ----------
    features : Tensor, (stimulus, channel, height, width)
        Features.
    responses : Tensor, (stimulus, site)
        Complete responses.
    seed : int
        Seed of the first weights and of the order of batches.

    Returns
    -------
    LinearReadout
        The fitted readout.

    References
    ----------
    Bashivan, Kar & DiCarlo, Science 2019, public mapping code.
    """
    smoothness, ridge = (penalty / responses.shape[1] ** 0.5 for penalty in RELEASED_2019)
    return fit_factorized(features, responses, seed, smoothness, ridge)
