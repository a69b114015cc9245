"""The parts of a capsule network (Sabour, Frosst & Hinton 2017): squashing, routing, and layers made of them.

In: vectors, or maps (image, channel, height, width). Out: capsules, vectors of length below 1. Put together
by `capsules`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

#: spread of the first transformation matrices; the prediction vectors then have about the length of the capsules
_FIRST_WEIGHTS = 0.3


def squash(vectors: Tensor, dim: int = -1) -> Tensor:
    """Shrink vectors to lengths below 1 and keep their directions.

    ``v = |s|^2 / (1 + |s|^2) s / |s|``, computed as ``s |s| / (1 + |s|^2)``, whose gradient at 0 is 0 as it should be.

    Parameters
    ----------
    vectors : Tensor
        Vectors of any length, along one axis.
    dim : int
        That axis.

    Returns
    -------
    Tensor
        Vectors of length ``|s|^2 / (1 + |s|^2)``, of the same shape.

    Examples
    --------
    >>> round(squash(torch.tensor([3.0, 4.0])).norm().item(), 4)  # 25 / 26
    0.9615
    >>> squash(torch.zeros(2))
    tensor([0., 0.])
    """
    wide = vectors.to(torch.promote_types(vectors.dtype, torch.float32))  # squares overflow in half precision
    length = torch.linalg.vector_norm(wide, dim=dim, keepdim=True)
    return (wide * (length / (1 + length.square()))).to(vectors.dtype)


def dynamic_routing(predictions: Tensor, iterations: int = 3) -> tuple[Tensor, Tensor]:
    """Return the capsules of a layer from what every capsule below predicts for them: routing by agreement.

    ``b_ij = 0``, then r times: ``c_i = softmax_j(b_i)``, ``s_j = sum_i c_ij u_j|i``, ``v_j = squash(s_j)``,
    ``b_ij += u_j|i . v_j``. Gradients pass through all iterations, as in the first author's program
    (github.com/Sarasra/models, research/capsules/models/layers/layers.py: its loop stops none).

    Parameters
    ----------
    predictions : Tensor, (image, upper, lower, dim)
        ``u_j|i``: what lower capsule i predicts for upper capsule j.
    iterations : int
        Rounds of routing, r; 1 means equal shares.

    Returns
    -------
    capsules : Tensor, (image, upper, dim)
        ``v_j``.
    coupling : Tensor, (image, upper, lower)
        ``c_ij`` of the last round; sums to 1 over the upper capsules.

    Raises
    ------
    ValueError
        For predictions of another number of axes, or no iteration.

    Examples
    --------
    >>> capsules, coupling = dynamic_routing(torch.ones(1, 2, 3, 4))
    >>> capsules.shape, coupling[0, 0].tolist()
    (torch.Size([1, 2, 4]), [0.5, 0.5, 0.5])
    """
    if predictions.ndim != 4:
        raise ValueError(
            f"predictions have shape {tuple(predictions.shape)}; expected four axes (image, upper, lower, dim)"
        )
    if iterations < 1:
        raise ValueError(f"{iterations} iterations of routing; give at least 1 (the paper uses 3)")
    logits = predictions.new_zeros(predictions.shape[:3])
    for iteration in range(iterations):
        coupling = logits.softmax(1)
        capsules = squash(torch.matmul(coupling[:, :, None], predictions)[:, :, 0])
        if iteration + 1 < iterations:  # the agreement with the last capsules would not be read
            logits = logits + torch.matmul(predictions, capsules[..., None])[..., 0]
    return capsules, coupling


class PrimaryCapsules(nn.Module):
    """Capsules of a convolution: every position of its map holds one capsule of each type.

    Parameters
    ----------
    channels : int
        Channels of the map below.
    types : int
        Types of capsules.
    dim : int
        Units a capsule.
    kernel, stride : int
        Side and step of the convolution in positions; nothing is padded.
    generator : torch.Generator, optional
        Where the first weights come from; by default the same each time.

    Examples
    --------
    >>> PrimaryCapsules(4, types=2, dim=8, kernel=5, stride=2)(torch.zeros(1, 4, 12, 12)).shape
    torch.Size([1, 16, 4, 4])
    """

    def __init__(
        self,
        channels: int,
        types: int,
        dim: int,
        kernel: int,
        stride: int = 2,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.convolution = drawn(skip_init(nn.Conv2d, channels, types * dim, kernel, stride=stride), generator)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the capsules as a map.

        Parameters
        ----------
        maps : Tensor, (image, channel, height, width)
            Activations of the layer below.

        Returns
        -------
        Tensor, (image, types x dim, height, width)
            Squashed vectors; the units of a capsule follow each other.
        """
        return squash(self.convolution(maps).unflatten(1, (-1, self.dim)), dim=2).flatten(1, 2)

    def vectors(self, maps: Tensor) -> Tensor:
        """Return the capsules of a map as one list.

        Parameters
        ----------
        maps : Tensor, (image, types x dim, height, width)
            What `forward` returned.

        Returns
        -------
        Tensor, (image, types x height x width, dim)
            The same numbers.
        """
        return maps.unflatten(1, (-1, self.dim)).permute(0, 1, 3, 4, 2).flatten(1, 3)


class CapsuleLayer(nn.Module):
    """Capsules that read all capsules below: ``u_j|i = W_ij u_i``, then `dynamic_routing`.

    The paper writes no offset, so there is none; the first author's program adds one before squashing.

    Parameters
    ----------
    lower, lower_dim : int
        Number of capsules below, units of each.
    upper, upper_dim : int
        Number of capsules here, units of each.
    iterations : int
        Rounds of routing.
    generator : torch.Generator, optional
        Where the first weights come from; by default the same each time.

    Examples
    --------
    >>> CapsuleLayer(6, 8, 10, 16)(torch.zeros(2, 6, 8)).shape
    torch.Size([2, 160])
    """

    def __init__(
        self,
        lower: int,
        lower_dim: int,
        upper: int,
        upper_dim: int,
        iterations: int = 3,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.upper, self.upper_dim, self.iterations = upper, upper_dim, iterations
        weight = torch.empty(lower, lower_dim, upper * upper_dim)
        self.weight = nn.Parameter(weight.normal_(0, _FIRST_WEIGHTS, generator=generator or _same()))

    def predictions(self, capsules: Tensor) -> Tensor:
        """Return what every lower capsule predicts for every upper one.

        Parameters
        ----------
        capsules : Tensor, (image, lower, dim)
            The capsules below.

        Returns
        -------
        Tensor, (image, upper, lower, dim)
            ``W_ij u_i``.
        """
        votes = torch.bmm(capsules.transpose(0, 1), self.weight)
        return votes.unflatten(2, (self.upper, self.upper_dim)).permute(1, 2, 0, 3).contiguous()

    def forward(self, capsules: Tensor) -> Tensor:
        """Return the routed capsules, one after the other, so that a `FeatureExtractor` can read them.

        Parameters
        ----------
        capsules : Tensor, (image, lower, dim)
            The capsules below.

        Returns
        -------
        Tensor, (image, upper x dim)
            ``v_j``.
        """
        return dynamic_routing(self.predictions(capsules), self.iterations)[0].flatten(1)


class CapsuleLengths(nn.Module):
    """Lengths of capsules that stand one after the other.

    Parameters
    ----------
    dim : int
        Units a capsule.

    Examples
    --------
    >>> CapsuleLengths(2)(torch.tensor([[3.0, 4.0, 0.0, 1.0]]))
    tensor([[5., 1.]])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, capsules: Tensor) -> Tensor:
        """Return the lengths.

        Parameters
        ----------
        capsules : Tensor, (image, capsule x dim)
            Capsules.

        Returns
        -------
        Tensor, (image, capsule)
            Their Euclidean lengths; the gradient of the length 0 is 0.
        """
        return torch.linalg.vector_norm(capsules.unflatten(1, (-1, self.dim)), dim=-1)


@torch.no_grad()
def drawn(layer: nn.Conv2d | nn.Linear, generator: torch.Generator | None = None) -> nn.Conv2d | nn.Linear:
    """Return a convolution or linear layer after drawing its first weights, uniform as torch's own.

    Parameters
    ----------
    layer : nn.Conv2d or nn.Linear
        The layer; it is changed.
    generator : torch.Generator, optional
        Where the numbers come from; by default the same each time.

    Returns
    -------
    nn.Conv2d or nn.Linear
        The layer itself.

    Examples
    --------
    >>> bool(drawn(nn.Linear(4, 1)).weight.abs().max() <= 0.5)
    True
    """
    generator = generator or _same()
    bound = layer.weight[0].numel() ** -0.5
    for each in layer.parameters():
        each.uniform_(-bound, bound, generator=generator)
    return layer


def _same() -> torch.Generator:
    return torch.Generator().manual_seed(0)
