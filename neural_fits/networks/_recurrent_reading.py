"""How rates become responses: the mean over each time bin, then a linear readout."""

from __future__ import annotations

import torch
from torch import Tensor


def bin_means(rates: Tensor, pooling: Tensor) -> Tensor:
    """Return mean rates (image, bin, unit) of rates (image, step, unit) and weights of the steps (step, bin)."""
    return torch.einsum("isu,sb->ibu", rates, pooling)


def read_bins(rates: Tensor, pooling: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return responses (image, bin, site), read with weights (site, unit, ...) and offsets (site,)."""
    return bin_means(rates, pooling) @ weight.flatten(1).T + bias
