"""Rules by which latents climb: each image has its own state, so images in one batch stay independent.

In: latents (image, ...) and their gradients. Out: the latents, changed in place.
Called by `engine` at every step.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.optim.adam import adam

State = dict[str, Tensor]


class Optimizer(Protocol):
    """A rule of ascent."""

    def start(self, latent: Tensor) -> State:
        """Return the state of images that have taken no step.

        Parameters
        ----------
        latent : Tensor, (image, ...)
            Latents.

        Returns
        -------
        dict of Tensor, (image, ...)
            All zero; empty for rules without memory.
        """

    def ascend_(self, latent: Tensor, gradient: Tensor, state: State, step_size: float) -> None:
        """Move the latents up, in place.

        Parameters
        ----------
        latent, gradient : Tensor, (image, ...)
            Latents and the gradients of their scores.
        state : dict of Tensor
            Changed in place.
        step_size : float
            Step in units of the latent.
        """


class Adam:
    """``x + step * m / (sqrt(v) + 1e-8)``, m and v the unbiased running means of g (decay .9) and g^2 (.999), by torch.

    References
    ----------
    Kingma & Ba, Adam, ICLR 2015.
    """

    def start(self, latent: Tensor) -> State:
        """Return moments and counts of zero.

        Parameters
        ----------
        latent : Tensor, (image, ...)
            Latents.

        Returns
        -------
        dict of Tensor, (image, ...)
            ``first`` and ``second`` moment and ``count`` of steps.
        """
        count = torch.zeros(len(latent), device=latent.device)
        return {"first": torch.zeros_like(latent), "second": torch.zeros_like(latent), "count": count}

    def ascend_(self, latent: Tensor, gradient: Tensor, state: State, step_size: float) -> None:
        """Move the latents up, in place.

        Parameters
        ----------
        latent, gradient : Tensor, (image, ...)
            Latents and the gradients of their scores.
        state : dict of Tensor
            Changed in place.
        step_size : float
            Step in units of the latent.
        """
        gradient = gradient.contiguous()  # the fused kernel takes memory as it lies
        parts = (latent, gradient, *(state[name] for name in ("first", "second")))
        params, gradients, first, second = ([*part.detach().unbind(0)] for part in parts)
        adam(
            params,
            gradients,
            first,
            second,
            [],
            [*state["count"].unbind(0)],  # each image counts its own steps
            fused=True,  # one pass over memory instead of eight
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=step_size,
            weight_decay=0.0,
            eps=1e-8,
            maximize=True,
        )


class _Normalized:
    """Rules without memory: ``x + step * f(g)``."""

    def start(self, latent: Tensor) -> State:
        """Return no state.

        Parameters
        ----------
        latent : Tensor, (image, ...)
            Latents.

        Returns
        -------
        dict
            Empty.
        """
        del latent
        return {}

    def direction(self, gradient: Tensor) -> Tensor:
        """Return the direction of the step.

        Parameters
        ----------
        gradient : Tensor, (image, ...)
            Gradients.

        Returns
        -------
        Tensor, (image, ...)
            Directions.
        """
        raise NotImplementedError

    def ascend_(self, latent: Tensor, gradient: Tensor, state: State, step_size: float) -> None:
        """Move the latents up, in place.

        Parameters
        ----------
        latent, gradient : Tensor, (image, ...)
            Latents and the gradients of their scores.
        state : dict of Tensor
            Empty.
        step_size : float
            Step in units of the latent.
        """
        del state
        latent.add_(self.direction(gradient), alpha=step_size)


class Sign(_Normalized):
    """The sign of the gradient: every element moves by exactly one step."""

    def direction(self, gradient: Tensor) -> Tensor:
        """Return ``sign(g)``.

        Parameters
        ----------
        gradient : Tensor, (image, ...)
            Gradients.

        Returns
        -------
        Tensor, (image, ...)
            -1, 0 or 1.
        """
        return gradient.sign()


class GradientStd(_Normalized):
    """The rule of 2019: ``g / (std(g) + 1e-8)``, the standard deviation over an image, its mean not removed.

    References
    ----------
    Bashivan, Kar & DiCarlo, Science 2019, released code.
    """

    def direction(self, gradient: Tensor) -> Tensor:
        """Return the gradient over its standard deviation.

        Parameters
        ----------
        gradient : Tensor, (image, ...)
            Gradients.

        Returns
        -------
        Tensor, (image, ...)
            Directions.
        """
        return gradient / (gradient.std(tuple(range(1, gradient.ndim)), keepdim=True, unbiased=False) + 1e-8)


class GradientNorm(_Normalized):
    """The gradient over its length: ``g / (||g||_2 + 1e-12)``, so that one step has length `step_size`."""

    def direction(self, gradient: Tensor) -> Tensor:
        """Return the gradient over its Euclidean norm.

        Parameters
        ----------
        gradient : Tensor, (image, ...)
            Gradients.

        Returns
        -------
        Tensor, (image, ...)
            Directions of length 1.
        """
        return gradient / (gradient.square().sum(tuple(range(1, gradient.ndim)), keepdim=True).sqrt() + 1e-12)


OPTIMIZERS: dict[str, Optimizer] = {
    "adam": Adam(),
    "sign": Sign(),
    "gradient_std": GradientStd(),
    "gradient_norm": GradientNorm(),
}
