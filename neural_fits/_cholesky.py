"""Large symmetric matrices in place: products of which one half is computed, and blocked Cholesky solves.

The factorization of the library makes a second copy, and matrix products are where the time is well spent, so both are
done here tile by tile. Only `streaming` calls this.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_TILE = 1024


def add_product(total: Tensor, left: Tensor, right: Tensor, factor: float = 1.0) -> None:
    """Add the lower half of a symmetric ``factor * left @ right`` to a matrix; `mirror` it when the sum is complete."""
    for start in range(0, len(total), _TILE):
        stop = start + _TILE
        total[start:, start:stop].addmm_(left[start:], right[:, start:stop], alpha=factor)


def mirror(matrix: Tensor) -> Tensor:
    """Copy the lower half of a matrix onto the upper half."""
    for start in range(0, len(matrix), _TILE):
        stop = start + _TILE
        corner = matrix[start:stop, start:stop]
        corner.copy_(corner.tril() + corner.tril(-1).T)  # a product rounds its two halves differently
        matrix[start:stop, stop:] = matrix[stop:, start:stop].T
    return matrix


def solve_penalized(
    copy: Callable[[torch.dtype], Tensor], alpha: Tensor, targets: Tensor, tell: Callable[[str], None]
) -> Tensor:
    """Solve ``(A + alpha_s) x_s = t_s`` for every column s, with one factorization for each distinct alpha.

    `copy` returns A in a given precision as a new matrix, which is overwritten. Where rounding in single precision
    makes the matrix indefinite, the factorization is done again in double precision.
    """
    solution = torch.empty_like(targets)
    distinct = alpha.unique().tolist()
    for number, penalty in enumerate(distinct, 1):
        tell(f"factorization {number} of {len(distinct)}")
        sites = alpha == penalty
        solved = _solve(copy, penalty, targets[:, sites], targets.dtype)
        if solved is None:
            solved = _solve(copy, penalty, targets[:, sites], torch.float64)
        if solved is None:
            raise ValueError(
                f"the penalty {penalty:g} is lost in the rounding of the Gram matrix; give relative_alphas without the "
                "smallest"
            )
        solution[:, sites] = solved
    return solution


def _solve(copy: Callable[[torch.dtype], Tensor], penalty: float, targets: Tensor, dtype: torch.dtype) -> Tensor | None:
    matrix = copy(dtype)
    matrix.diagonal().add_(penalty)
    try:
        _factorize(matrix)
    except torch.linalg.LinAlgError:
        return None
    return _substitute(matrix, targets.to(dtype, copy=True)).to(targets.dtype)


def _factorize(matrix: Tensor) -> None:
    """Overwrite the lower half of a positive definite matrix with its Cholesky factor."""
    count = len(matrix)
    for start in range(0, count, _TILE):
        stop = min(start + _TILE, count)
        corner = torch.linalg.cholesky(matrix[start:stop, start:stop])
        matrix[start:stop, start:stop] = corner
        if stop < count:
            panel = torch.linalg.solve_triangular(corner.T, matrix[stop:, start:stop], upper=True, left=False)
            matrix[stop:, start:stop] = panel
            add_product(matrix[stop:, stop:], panel, panel.T, -1.0)


def _substitute(factor: Tensor, targets: Tensor) -> Tensor:
    """Overwrite targets with ``(L L^T)^-1 targets``."""
    starts = range(0, len(factor), _TILE)
    for start in starts:
        stop = start + _TILE
        some = targets[start:stop]
        some.addmm_(factor[start:stop, :start], targets[:start], alpha=-1)
        some.copy_(torch.linalg.solve_triangular(factor[start:stop, start:stop], some, upper=False))
    for start in reversed(starts):
        stop = start + _TILE
        some = targets[start:stop]
        some.addmm_(factor[stop:, start:stop].T, targets[stop:], alpha=-1)
        some.copy_(torch.linalg.solve_triangular(factor[start:stop, start:stop].T, some, upper=True))
    return targets
