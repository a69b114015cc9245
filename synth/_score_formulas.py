"""The one implementation of every score, on many terms at once, from sums whose order never changes.

In: tables of normalized responses (term, site, image) or images. Out: scores. A sum taken by a library may be ordered
by the size of the whole batch; here it is a fixed tree of additions, so an image's score does not depend on the others.
Called by `_batched_scores` only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_POOLED_SIDE = 16


class _TreeSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.width = values.shape[1]
        while (width := values.shape[1]) > 1:
            half = 1 << ((width - 1).bit_length() - 1)  # as if zeros followed, up to a power of two
            if width == 2 * half:
                values = values[:, :half] + values[:, half:]
            else:
                total = values[:, :half].clone()
                total[:, : width - half] += values[:, half:]
                values = total
        return values.squeeze(1).clone() if ctx.width == 1 else values.squeeze(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        return gradient.unsqueeze(1).expand(-1, ctx.width, *gradient.shape[1:])


def tree_sum(values: Tensor) -> Tensor:
    """Return the sum over axis 1; zeros after the last value change nothing, nor does the length of other axes."""
    total: Tensor = _TreeSum.apply(values)
    return total


def _safe_root(squares: Tensor) -> Tensor:
    """Return square roots whose gradient at 0 is that of the square; NaN stays NaN."""
    positive = squares > 0
    return torch.where(positive, torch.where(positive, squares, 1).sqrt(), squares)


# Each formula takes z (term, site, image) and two columns of numbers (term, site, 1), and returns (term, image).
# Places beyond a term's last site hold z = 0 and the numbers 0 and 1.


def _linear(z: Tensor, factor: Tensor, _: Tensor) -> Tensor:
    return tree_sum(factor * z)


def _squares(z: Tensor, factor: Tensor, wanted: Tensor) -> Tensor:
    return -tree_sum(factor * (z - wanted) ** 2)


def _shortfall(z: Tensor, _: Tensor, level: Tensor) -> Tensor:
    return (z - level).clamp(max=0)[:, 0]


def _log_odds(z: Tensor, other: Tensor, temperature: Tensor) -> Tensor:
    """Return ``x_target - log sum_others exp(x)``; the target is the first site, others have ``other > 0``.

    Without the target in the sum, nothing is lost when it is far ahead.
    """
    x = z / temperature
    others = torch.where(other > 0, x, -math.inf)
    largest = others.detach().amax(1, keepdim=True).clamp(min=torch.finfo(x.dtype).min)
    return x[:, 0] - (tree_sum((others - largest).exp()).log() + largest[:, 0])


def _log_softmax(z: Tensor, other: Tensor, temperature: Tensor) -> Tensor:
    return functional.logsigmoid(_log_odds(z, other, temperature))


def _softmax(z: Tensor, other: Tensor, temperature: Tensor) -> Tensor:
    return _log_softmax(z, other, temperature).exp()  # torch.sigmoid itself differs with the place in a CPU's vectors


SITE_FORMULAS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "linear": _linear,
    "log_softmax": _log_softmax,
    "shortfall": _shortfall,
    "softmax": _softmax,
    "squares": _squares,
}


def rms_contrast(images: Tensor) -> Tensor:
    """Return ``sqrt(mean((x - mean(x))^2))`` over pixels and channels of each image; its gradient at 0 is 0."""
    values = images.flatten(1)
    around = values - (tree_sum(values.detach()) / values.shape[1])[:, None]  # the mean's own gradient cancels
    return _safe_root(tree_sum(around**2) / values.shape[1])


def mean_similarity(images: Tensor, members: Tensor) -> Tensor:
    """Return each image's mean cosine similarity with the others of its group, (group, place); 0 in a group of one.

    Measured on images averaged over blocks of ``ceil(short side / 16)`` pixels, minus their mean. A uniform image has
    similarity 0 with everything. ``members`` (group, place) holds the row of every image once, padded with
    ``len(images)``.
    """
    block = math.ceil(min(images.shape[-2:]) / _POOLED_SIDE)
    pooled = functional.avg_pool2d(images, block, ceil_mode=True, count_include_pad=False).flatten(1)
    around = pooled - (tree_sum(pooled) / pooled.shape[1])[:, None]
    length = _safe_root(tree_sum(around**2))[:, None]
    unit = around / torch.where(length == 0, 1, length)
    rows = torch.cat([unit, unit.new_zeros(1, unit.shape[1])]).index_select(0, members.flatten())
    rows = rows.view(*members.shape, -1)
    cosines = tree_sum((rows * (tree_sum(rows)[:, None] - rows)).flatten(0, 1)).view(members.shape)
    return cosines / ((members < len(images)).sum(1, keepdim=True) - 1).clamp(min=1)
