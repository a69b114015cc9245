"""What the units of a capsule stand for: change one unit at a time and draw what the capsule then says.

In: a `CapsuleNetwork` and images. Out: pictures (image, dimension, step, height, width), as in Sabour, Frosst & Hinton
(2017), figure 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neural_fits.networks.capsules import CapsuleNetwork

#: changes of a unit shown in the paper: -0.25 to 0.25 in steps of 0.05
POSE_STEPS = tuple(round(0.05 * k, 2) for k in range(-5, 6))


@torch.no_grad()
def pose_perturbation(
    network: CapsuleNetwork, images: Tensor, classes: Tensor | None = None, steps: Sequence[float] = POSE_STEPS
) -> Tensor:
    """Return reconstructions after a change of one unit of the capsule, for every unit and every change.

    Parameters
    ----------
    network : CapsuleNetwork
        A trained network.
    images : Tensor, (image, 1 or 3, height, width)
        Images of the network's size.
    classes : Tensor, (image,), optional
        Class whose capsule is changed and drawn; by default the one with the longest capsule, chosen before the change.
    steps : sequence of float
        What is added to the unit. Capsules are shorter than 1; with the default a unit moves by up to 0.25.

    Returns
    -------
    Tensor, (image, dimension, step, height, width)
        Pictures, values in (0, 1).

    Raises
    ------
    ValueError
        When no step is given, or the classes are not one of the network's for each image.

    Examples
    --------
    >>> pose_perturbation(CapsuleNetwork(), torch.zeros(2, 1, 16, 16)).shape
    torch.Size([2, 16, 11, 16, 16])
    """
    if not len(steps):
        raise ValueError("no step was given; give at least one change, for example (-0.25, 0, 0.25)")
    capsules = network.capsules(images)
    chosen = torch.linalg.vector_norm(capsules, dim=-1).argmax(1) if classes is None else classes.to(capsules.device)
    count, dims = len(images), network.class_dim
    if chosen.shape != (count,) or chosen.is_floating_point() or not all(0 <= k < network.classes for k in chosen):
        raise ValueError(
            f"classes are {chosen.tolist()} for {count} images; give one for each, from 0 to {network.classes - 1}"
        )
    change = torch.eye(dims)[:, None] * torch.tensor(steps, dtype=capsules.dtype)[:, None]  # (dimension, step, unit)
    changed = capsules[:, None, None] + change.to(capsules.device)[:, :, None]
    repeated = chosen.long().repeat_interleave(dims * len(steps))
    pictures = network.decode(changed.flatten(0, 2), repeated)
    return pictures.view(count, dims, len(steps), *pictures.shape[-2:])
