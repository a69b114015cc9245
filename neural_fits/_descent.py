"""What readouts learned by gradient descent share: standardized data, one Adam loop, and the way back to units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neural_fits.readout import LinearReadout

LEARNING_RATE, BATCH, EPOCHS, DECAY_EPOCHS = 0.03, 50, 40, 15
#: a feature or response that varies less than this, beside its largest or its mean, is constant
_CONSTANT = 1e-6


@dataclass(frozen=True)
class Standardized:
    """Features and responses on a scale where one learning rate and one set of penalties fit every network.

    Parameters
    ----------
    inputs : Tensor, (stimulus, channel, height, width)
        Features, each channel with mean 0 and standard deviation 1; those of a channel that never varied are 0.
    targets : Tensor, (stimulus, site)
        Responses with mean 0 and standard deviation 1.
    input_mean, input_std : Tensor, (channel,)
        Of the features; the deviation of a channel that never varied is infinite.
    target_mean, target_std : Tensor, (site,)
        Of the responses.
    """

    inputs: Tensor
    targets: Tensor
    input_mean: Tensor
    input_std: Tensor
    target_mean: Tensor
    target_std: Tensor

    def predicted(self, batch: Tensor, mask: Tensor, channels: Tensor, bias: Tensor) -> Tensor:
        """Return standardized predictions for some stimuli.

        Parameters
        ----------
        batch : Tensor of int
            Stimuli.
        mask, channels, bias : Tensor
            As for `readout`.

        Returns
        -------
        Tensor, (stimulus, site)
            Predictions.
        """
        pooled = torch.einsum("nchw,shw->nsc", self.inputs[batch], mask)
        return (pooled * channels).sum(2) + bias

    def readout(self, mask: Tensor, channels: Tensor, bias: Tensor) -> LinearReadout:
        """Return the readout in the original units.

        Parameters
        ----------
        mask : Tensor, (site, height, width)
            Spatial weights.
        channels : Tensor, (site, channel)
            Channel weights of standardized features.
        bias : Tensor, (site,)
            Offsets of standardized responses.

        Returns
        -------
        LinearReadout
            Its weight is ``mask x channels``.
        """
        scale = self.target_std[:, None, None, None]
        weight = (channels[:, :, None, None] * mask[:, None] / self.input_std[:, None, None] * scale).detach()
        offset = (bias * self.target_std + self.target_mean) - (weight.sum((2, 3)) * self.input_mean).sum(1)
        return LinearReadout(weight, offset.detach())


def standardize(features: Tensor, responses: Tensor) -> Standardized:
    """Standardize channels and sites.

    Parameters
    ----------
    features : Tensor, (stimulus, channel, height, width)
        Features.
    responses : Tensor, (stimulus, site)
        Complete responses.

    Returns
    -------
    Standardized
        The data and what leads back.
    """
    mean, std = features.mean((0, 2, 3)), features.std((0, 2, 3))
    # A deviation of rounding size is none: such a channel gets no weight.
    std = torch.where(std > _CONSTANT * torch.maximum(std.amax(), mean.abs()), std, torch.inf)
    target_mean, target_std = responses.mean(0), responses.std(0)
    least = (_CONSTANT * target_mean.abs()).clamp(min=torch.finfo(responses.dtype).tiny)
    target_std = torch.maximum(target_std, least)
    inputs = (features - mean[:, None, None]) / std[:, None, None]
    return Standardized(inputs, (responses - target_mean) / target_std, mean, std, target_mean, target_std)


def descend(
    loss: Callable[[Tensor], Tensor], learned: Sequence[Tensor], count: int, generator: torch.Generator
) -> None:
    """Change tensors in place by Adam on batches of stimuli, the learning rate falling in steps.

    Parameters
    ----------
    loss : callable
        Returns the loss of a batch, given the indices of its stimuli.
    learned : sequence of Tensor
        What is learned.
    count : int
        Number of stimuli.
    generator : torch.Generator
        Draws the order of stimuli.
    """
    for tensor in learned:
        tensor.requires_grad_(True)
    optimizer = torch.optim.Adam(learned, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, DECAY_EPOCHS, gamma=0.1)
    with torch.enable_grad():
        for _ in range(EPOCHS):
            order = torch.randperm(count, generator=generator).to(learned[0].device)
            for batch in order.split(BATCH):
                optimizer.zero_grad(set_to_none=True)
                loss(batch).backward()
                optimizer.step()
            schedule.step()
    for tensor in learned:
        tensor.requires_grad_(False)
