"""Cue-combination class activation maps (ccCAM): every filter of a classifier counts by what its removal costs.

In: a classifier and labeled trials, images or spectrograms of one or more channels. Out: `CueMaps`, one map a trial.
Maps of several trials, subjects or networks are combined by `cue_combination`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from neural_fits.backbones import Backbone, load_backbone
from neural_fits.inspection._global_pooling import PooledMap, read_pooled_map
from neural_fits.inspection._images import images_for, left_as_found
from stimuli import StimulusSet

#: filters whose removal is computed at once
_FILTERS = 64


@dataclass(frozen=True)
class CueMaps:
    """Class maps in which every filter counts by what its removal costs.

    Parameters
    ----------
    maps : Tensor, (trial, height, width)
        Map of each trial for its own class, in the unit of the features.
    reliability : Tensor, (class, channel)
        The weight of each filter for each class, in nats per squared feature: an inverse variance up to a factor.
        Negative only where that was asked for.
    classes : tuple of int
        The classes among the labels, in the order of `reliability`.
    """

    maps: Tensor
    reliability: Tensor
    classes: tuple[int, ...]


def cue_combination_maps(
    backbone: str | nn.Module | Backbone, trials: Tensor | StimulusSet, labels: Sequence[int], signed: bool = False
) -> CueMaps:
    """Return class maps that weigh filters by their reliability: ``M = sum_k a_k f_k / sum_k |a_k|``.

    Each filter of the pooled feature map is a cue. Its reliability for class c (1 / variance in cue combination) is
    what its removal costs on the trials of the class, per its own energy on them:

    ``a_k = sum_n [L_n(f_k = 0) - L_n] / sum_n sum_xy f_nk(x, y)^2``, L the cross-entropy of the label.

    Trials on which a filter is nearly silent say little about it and count little. Unlike ``w_k^c`` of
    `class_activation_maps`, the reliability depends on the trials.

    Parameters
    ----------
    backbone : str, nn.Module or Backbone
        A classifier with global average pooling, as for `class_activation_maps`.
    trials : Tensor or StimulusSet, (trial, channel, height, width)
        Images in [0, 1], or what a plain module takes, such as spectrograms (trial, channel, frequency, time).
    labels : sequence of int
        The class of each trial.
    signed : bool
        Keep filters whose removal helps, with negative weights; by default their reliability is 0, since no variance
        is negative.

    Returns
    -------
    CueMaps
        Maps of the trials and reliabilities of the filters.

    Raises
    ------
    ValueError
        When labels do not match trials or classes, the network does not pool a map before one linear layer, no filter
        counts for a class, or trials are not finite or out of range.
    TypeError
        When the trials are no floating numbers.

    Notes
    -----
    Source: Ghosh, dal Maso, Roig, Mitsis & Boudrias 2018 (arXiv 1805.11704). Cost and energy are those of a public Lua
    program that writes ``ccGAP_errTensor.t7`` and ``CON_ccCAM.h5``; whose it is, and whether the paper has the same
    equations, we could not check. It sums the ratios of single trials, where one nearly silent trial outweighs all
    others, and divides signed weights by their sum, which can be near 0 or turn the map over; we do neither.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> cue_combination_maps(network, torch.rand(6, 1, 20, 30), [0, 0, 0, 1, 1, 1], signed=True).maps.shape
    torch.Size([6, 18, 28])
    """
    with left_as_found(backbone):
        network = load_backbone(backbone)
        read = read_pooled_map(network, images_for(backbone, trials))
    target = torch.as_tensor(np.asarray(labels), device=read.maps.device)
    count = read.scores.shape[1]
    if (
        target.shape != (len(trials),)
        or target.is_floating_point()
        or not bool(((target >= 0) & (target < count)).all())
    ):
        raise ValueError(
            f"labels have shape {tuple(target.shape)} and type {target.dtype}; expected one class of {network.name!r}, "
            f"0 to {count - 1}, for each of {len(trials)} trials"
        )
    cost = _removal_costs(read, target)
    energy = read.maps.square().sum((2, 3))
    classes, which = torch.unique(target, return_inverse=True)
    costs, energies = (torch.stack([each[which == k].sum(0) for k in range(len(classes))]) for each in (cost, energy))
    reliability = torch.where(energies > 0, costs / energies, 0)
    if not signed:
        reliability = reliability.clamp(min=0)
    total = reliability.abs().sum(1, keepdim=True)
    empty = (total == 0).flatten().nonzero().flatten().tolist()
    if empty:
        raise ValueError(
            f"no filter of {network.name!r} is needed for class {int(classes[empty[0]])} on these trials; train the "
            "network further, or use class_activation_maps"
        )
    maps = torch.einsum("nkhw,nk->nhw", read.maps, (reliability / total)[which])
    return CueMaps(maps, reliability, tuple(classes.tolist()))


def _removal_costs(read: PooledMap, target: Tensor) -> Tensor:
    """Return the rise of each trial's cross-entropy when one filter is silent: the score loses ``w_k mean(f_k)``."""
    strength = read.maps.mean((2, 3))
    scores = strength @ read.weight.T + read.bias
    chosen = scores.gather(1, target[:, None])
    before = scores.logsumexp(1, keepdim=True) - chosen
    parts = []
    for at in range(0, strength.shape[1], _FILTERS):
        lost = strength[:, at : at + _FILTERS, None] * read.weight.T[at : at + _FILTERS]  # (trial, channel, class)
        kept = chosen - lost.gather(2, target[:, None, None].expand(-1, lost.shape[1], 1))[..., 0]
        parts.append((scores[:, None] - lost).logsumexp(2) - kept - before)
    return torch.cat(parts, 1)
