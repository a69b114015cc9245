"""The linear readout that every solver exports: one weight per site and feature, and an offset.

In: features (image, channel, height, width). Out: responses (image, site) in the recording's unit. `ridge`, `local` and
`factorized` make it; `SiteModel` holds it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neural_fits.loo import PenaltyRule, check_rule


class LinearReadout(nn.Module):
    """Linear map from a feature map to sites: ``y = W x + b``.

    Parameters
    ----------
    weight : Tensor, (site, channel, height, width)
        Weights.
    bias : Tensor, (site,)
        Offsets, in the unit of the responses.

    Examples
    --------
    >>> readout = LinearReadout(torch.ones(2, 3, 1, 1), torch.zeros(2))
    >>> readout(torch.ones(1, 3, 1, 1))
    tensor([[3., 3.]])
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return the responses.

        Parameters
        ----------
        features : Tensor, (image, channel, height, width)
            Activations of the layer the readout was fitted on.

        Returns
        -------
        Tensor, (image, site)
            Responses in the recording's unit.

        Raises
        ------
        ValueError
            When the feature map has another shape than the one fitted.
        """
        if features.shape[1:] != self.weight.shape[1:]:
            raise ValueError(
                f"features have shape {tuple(features.shape[1:])} per image, the readout was fitted on "
                f"{tuple(self.weight.shape[1:])}; give images of the size it was fitted on"
            )
        return torch.addmm(self.bias, features.flatten(1), self.weight.flatten(1).T)


#: fits complete responses: (features (n, c, h, w), responses (n, site)[, rule]) -> readout
Solver = Callable[..., LinearReadout]


@dataclass(frozen=True)
class Compressed:
    """Features in fewer coordinates, in which a fit is the same as on the features themselves.

    Parameters
    ----------
    features : Tensor, (stimulus, channel, height, width)
        The smaller features.
    expand : callable
        Turns a readout of the smaller features into the readout of the original ones.
    """

    features: Tensor
    expand: Callable[[LinearReadout], LinearReadout]


def uncompressed(features: Tensor) -> Compressed:
    """Return features as they are, for solvers that need every position.

    Parameters
    ----------
    features : Tensor, (stimulus, channel, height, width)
        Features.

    Returns
    -------
    Compressed
        The same features.
    """
    return Compressed(features, lambda readout: readout)


@dataclass(frozen=True)
class ReadoutFamily:
    """A way to fit readouts: what is done once for all folds, and what in every fold.

    Parameters
    ----------
    solve : Solver
        Fits complete responses on compressed features.
    compress : callable
        Makes features smaller without any response, so that it may see all stimuli.
    penalized : bool
        Whether `solve` takes ``rule``, how its ridge penalty is chosen.
    """

    solve: Solver
    compress: Callable[[Tensor], Compressed] = uncompressed
    penalized: bool = False

    def with_penalty(self, name: str, rule: PenaltyRule) -> ReadoutFamily:
        """Return the family with another penalty rule.

        Parameters
        ----------
        name : str
            What the family is called, for the error.
        rule : {"best", "one_se"}
            How the penalty is chosen.

        Returns
        -------
        ReadoutFamily
            The family.

        Raises
        ------
        ValueError
            For an unknown rule, or another than ``"best"`` where there is no ridge penalty.
        """
        check_rule(rule)
        if rule == "best":
            return self
        if not self.penalized:
            raise ValueError(f"readout {name!r} has no ridge penalty to choose by {rule!r}; leave the rule out")
        return replace(self, solve=partial(self.solve, rule=rule))


def fit_complete(solver: Solver, features: Tensor, responses: NDArray[np.floating]) -> LinearReadout:
    """Fit sites that may each lack some stimuli, solving sites with the same stimuli together.

    Parameters
    ----------
    solver : callable
        Fits complete responses.
    features : Tensor, (stimulus, channel, height, width)
        Features.
    responses : ndarray, (stimulus, site)
        Responses; NaN where a site was not recorded.

    Returns
    -------
    LinearReadout
        Readout of all sites, in their order.
    """
    finite = np.isfinite(responses)
    weight = torch.empty((responses.shape[1], *features.shape[1:]), device=features.device)
    bias = torch.empty(responses.shape[1], device=features.device)
    patterns, member = np.unique(finite, axis=1, return_inverse=True)
    for pattern in range(patterns.shape[1]):
        rows, sites = np.flatnonzero(patterns[:, pattern]), np.flatnonzero(member.ravel() == pattern)
        known = torch.from_numpy(np.ascontiguousarray(responses[np.ix_(rows, sites)], dtype=np.float32))
        chosen = features if len(rows) == len(features) else features[torch.from_numpy(rows).to(features.device)]
        readout = solver(chosen, known.to(features.device))
        index = torch.from_numpy(sites).to(features.device)
        weight[index], bias[index] = readout.weight, readout.bias
    return LinearReadout(weight, bias)
