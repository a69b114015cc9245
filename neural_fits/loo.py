"""Ridge regression with the penalty of every site chosen by closed-form leave-one-out.

In: centered features, one set or many at once, and centered responses. Out: weights, penalties and errors. The one
implementation for all readouts that are ridge inside: `ridge`, `local`, `alternating`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

#: penalties tried, relative to the mean squared norm of a stimulus's centered features
RELATIVE_ALPHAS = tuple(10.0 ** (k / 2) for k in range(-8, 7))
#: ``best`` takes the penalty of the smallest error, ``one_se`` the largest within one standard error of that error
PenaltyRule = Literal["best", "one_se"]


@dataclass(frozen=True)
class LeaveOneOut:
    """Choice of penalties.

    Parameters
    ----------
    alpha : Tensor, (..., site)
        Chosen penalties.
    error : Tensor, (..., site)
        Mean squared leave-one-out error at the chosen penalty.
    rotated : Tensor, (..., basis, site)
        Responses in the basis; coefficients on it are ``rotated / (values + alpha)`` times ``values`` for predictions.
    """

    alpha: Tensor
    error: Tensor
    rotated: Tensor


def check_rule(rule: str) -> None:
    """Refuse a penalty rule that does not exist.

    Parameters
    ----------
    rule : str
        What was asked for.

    Raises
    ------
    ValueError
        When it is not a `PenaltyRule`.
    """
    if rule not in get_args(PenaltyRule):
        raise ValueError(f"penalty rule {rule!r} is unknown; give {' or '.join(map(repr, get_args(PenaltyRule)))}")


def leave_one_out(
    basis: Tensor, values: Tensor, centered: Tensor, alphas: Tensor | Sequence[float], rule: PenaltyRule = "best"
) -> LeaveOneOut:
    """Choose a penalty per site, for one set of features or for many at once.

    With centered features ``X = U diag(sqrt(l)) V^T`` and centered responses y, for each penalty a:
    ``yhat = U diag(l / (l + a)) U^T y``, leverage ``h_i = 1/n + sum_j U_ij^2 l_j / (l_j + a)``, leave-one-out residual
    ``(y_i - yhat_i) / (1 - h_i)``. The rule ``one_se`` is for control: among penalties that predict equally well the
    largest keeps readouts away from feature directions that natural images hardly vary.

    Parameters
    ----------
    basis : Tensor, (..., stimulus, basis)
        U, orthonormal columns.
    values : Tensor, (..., basis)
        Eigenvalues l, not negative.
    centered : Tensor, (stimulus, site) or (..., stimulus, site)
        Responses less their mean, the same for all sets of features or one for each.
    alphas : Tensor, (alpha, ...), or sequence of float
        Penalties tried, ascending; a tensor may differ between the sets of features.
    rule : {"best", "one_se"}
        Which penalty is taken.

    Returns
    -------
    LeaveOneOut
        Penalties, their errors, rotated responses.

    Examples
    --------
    >>> basis = torch.tensor([[0.5, 0.5], [0.5, -0.5], [-0.5, 0.5], [-0.5, -0.5]], dtype=torch.float64)
    >>> y = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], dtype=torch.float64)
    >>> leave_one_out(basis, torch.ones(2, dtype=torch.float64), y, [0.1, 10.0]).alpha
    tensor([0.1000], dtype=torch.float64)
    """
    check_rule(rule)
    count = centered.shape[-2]
    if not isinstance(alphas, Tensor):
        alphas = torch.tensor(list(alphas), dtype=values.dtype, device=values.device)
    alphas = alphas.reshape(len(alphas), *([1] * (values.ndim - alphas.ndim)), *alphas.shape[1:])
    alphas = alphas.expand(len(alphas), *values.shape[:-1])
    rotated = basis.transpose(-1, -2) @ centered
    shrink = values[..., None] / (values[..., None] + alphas.movedim(0, -1)[..., None, :])  # (..., basis, alpha)
    keep = (1 - 1 / count - basis**2 @ shrink).clamp(min=1e-9)  # (..., stimulus, alpha)
    errors, spreads = [], []
    for k in range(len(alphas)):
        fitted = basis @ (shrink[..., k, None] * rotated)
        residual = torch.sub(centered, fitted, out=fitted).div_(keep[..., k, None]).square_()
        errors.append(residual.mean(-2))
        if rule == "one_se":
            spreads.append(residual.std(-2) / count**0.5)
    error = torch.stack(errors)
    smallest, chosen = error.min(0)
    if rule == "one_se":
        bound = smallest + torch.gather(torch.stack(spreads), 0, chosen[None])[0]
        order = torch.arange(len(alphas), device=error.device).reshape(-1, *([1] * (error.ndim - 1)))
        chosen = torch.where(error <= bound, order, -1).amax(0)
    alpha = torch.gather(alphas[..., None].expand(error.shape), 0, chosen[None])[0]
    return LeaveOneOut(alpha, torch.gather(error, 0, chosen[None])[0], rotated)


def thin_svd(inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the thin singular value decomposition ``X = U diag(sqrt(l)) V^T`` by the smaller of its Gram matrices.

    Parameters
    ----------
    inputs : Tensor, (..., stimulus, feature)
        Matrices.

    Returns
    -------
    basis : Tensor, (..., stimulus, k)
        U, with k the smaller of stimuli and features.
    values : Tensor, (..., k)
        Eigenvalues l, ascending, at least the rounding error of the largest.
    directions : Tensor, (..., feature, k)
        V.
    """
    tall = inputs.shape[-1] <= inputs.shape[-2]
    turned = inputs.transpose(-1, -2)
    values, vectors = torch.linalg.eigh(turned @ inputs if tall else inputs @ turned)
    # Of the smaller ones a Gram matrix in this precision knows nothing.
    tiny = max(inputs.shape[-2:]) * torch.finfo(values.dtype).eps
    values = values.clamp(min=tiny * values.amax(-1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny / tiny))
    other = (inputs if tall else turned) @ vectors / values.sqrt()[..., None, :]
    return (other, values, vectors) if tall else (vectors, values, other)


def ridge_weights(
    inputs: Tensor, centered: Tensor, relative_alphas: Sequence[float] = RELATIVE_ALPHAS, rule: PenaltyRule = "best"
) -> tuple[Tensor, LeaveOneOut]:
    """Solve ridge regression of all sites, for one set of features or for many at once.

    ``w = V diag(sqrt(l) / (l + a)) U^T y``

    Parameters
    ----------
    inputs : Tensor, (..., stimulus, feature)
        Features less their mean.
    centered : Tensor, (stimulus, site) or (..., stimulus, site)
        Responses less their mean, the same for all sets of features or one for each.
    relative_alphas : sequence of float
        Penalties tried, ascending, relative to the mean squared norm of a stimulus's features, ``sum(l) / n``.
    rule : {"best", "one_se"}
        See `leave_one_out`.

    Returns
    -------
    weights : Tensor, (..., feature, site)
        Coefficients.
    loo : LeaveOneOut
        Penalties and errors.

    Examples
    --------
    >>> x = torch.randn(30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> x = x - x.mean(0)
    >>> bool((ridge_weights(x, x[:, :1])[0] - torch.eye(3, 1, dtype=torch.float64)).abs().max() < 0.01)
    True
    """
    basis, values, directions = thin_svd(inputs)
    relative = torch.tensor(list(relative_alphas)).to(values)
    alphas = relative.reshape(-1, *([1] * (values.ndim - 1))) * (values.sum(-1) / centered.shape[-2]).clamp(min=1e-12)
    loo = leave_one_out(basis, values, centered, alphas, rule)
    spectrum = values.sqrt()[..., None] / (values[..., None] + loo.alpha[..., None, :]) * loo.rotated
    return directions @ spectrum, loo
