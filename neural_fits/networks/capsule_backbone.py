"""Capsule networks as backbones: the one that is installed with this project, and those that you train.

In: the file ``weights/capsnet_digits.safetensors``, or a trained `CapsuleNetwork`. Out: a `Backbone`. The file was made
by ``python -m neural_fits.networks.capsule_backbone``.
"""

from __future__ import annotations

import importlib.resources
import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from neural_fits.backbones import Backbone
from neural_fits.networks.capsule_training import CapsuleTraining, accuracy, train_capsules
from neural_fits.networks.capsules import CapsuleNetwork
from neural_fits.networks.digits import digits
from stimuli.files import atomic_write

#: how the installed network was trained: with the paper's weight of the reconstruction, so few steps on so few pixels
#: left it drawing little more than the mean picture of each digit
DIGIT_TRAINING = CapsuleTraining(learning_rate=4e-3, reconstruction_weight=0.02)
_FILE = "capsnet_digits.safetensors"


def capsule_backbone(network: CapsuleNetwork, name: str = "capsules") -> Backbone:
    """Return a trained capsule network as a backbone, which `save_backbone` and every model that reads it can keep.

    Parameters
    ----------
    network : CapsuleNetwork
        The network; it is frozen.
    name : str
        What to call it; the first digits of its hash follow.

    Returns
    -------
    Backbone
        Images enter in [0, 1], resized to the network's size.

    Examples
    --------
    >>> capsule_backbone(CapsuleNetwork(seed=3), "mine").name.startswith("mine@")
    True
    """
    built_from = {"architecture": "capsules", "config": network.config}
    return Backbone(name, network, input_px=network.input_px, fixed_size=True, built_from=built_from)


def load_capsnet_digits() -> Backbone:
    """Return the capsule network that is installed with this project: ``load_backbone("capsnet-digits")``.

    Trained on the training part of ``digits()``; its held-out part was never used.

    Returns
    -------
    Backbone
        The network; images of any size are resized to 16 px, color is turned to gray.

    Raises
    ------
    ValueError
        When its file is missing.

    Examples
    --------
    >>> parts = digits()
    >>> network = load_capsnet_digits().network
    >>> accuracy(network, parts.held_out_images, parts.held_out_labels) >= 0.97
    True
    """
    from safetensors import safe_open

    file = importlib.resources.files("neural_fits.networks") / "weights" / _FILE
    if not file.is_file():
        raise ValueError(f"the weights of backbone 'capsnet-digits' ({_FILE}) are missing; install this project again")
    with importlib.resources.as_file(file) as path, safe_open(path, "pt") as stored:
        config = json.loads(stored.metadata()["config"])
        tensors: dict[str, Tensor] = {key: stored.get_tensor(key).float() for key in stored.keys()}  # noqa: SIM118
    network = CapsuleNetwork(**config)
    network.load_state_dict(tensors)
    return Backbone("capsnet-digits", network, input_px=network.input_px, fixed_size=True)


def write_capsnet_digits(path: Path, training: CapsuleTraining | None = None) -> dict[str, str]:
    """Train the network on the training part of the digits and write its weights, rounded to half precision.

    Parameters
    ----------
    path : Path
        The file to write.
    training : CapsuleTraining, optional
        How to train; `DIGIT_TRAINING` by default.

    Returns
    -------
    dict
        What is written beside the weights: architecture, training, data, and the accuracy on the held-out part.
    """
    from safetensors.torch import save

    parts, training = digits(), training or DIGIT_TRAINING
    network = train_capsules(parts.images, parts.labels, training, progress=print).network
    halves = {key: tensor.half() for key, tensor in network.state_dict().items()}
    network.load_state_dict({key: tensor.float() for key, tensor in halves.items()})
    facts = {
        "config": json.dumps(network.config),
        "training": json.dumps(asdict(training)),
        "data": "sklearn.datasets.load_digits, the training part of neural_fits.networks.digits.digits()",
        "held_out_accuracy": f"{accuracy(network, parts.held_out_images, parts.held_out_labels):.4f}",
        "torch": torch.__version__,
    }
    atomic_write(path, save(halves, facts))
    return facts


if __name__ == "__main__":
    print(write_capsnet_digits(Path(__file__).parent / "weights" / _FILE))  # noqa: T201
