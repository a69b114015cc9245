"""One image to make, and one image made: what passes between `synthesize`, `engine` and `run_folder`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synth.objectives import Objective


@dataclass(frozen=True)
class Job:
    """One image to make.

    Parameters
    ----------
    objective : Objective
        What is asked.
    seed : int
        Seed of its random stream.
    base : str
        Name of the base image it changes; empty for none.
    """

    objective: Objective
    seed: int
    base: str = ""

    def key(self, purpose: str) -> int:
        """Return the key of a random stream: a function of objective, seed and base image alone.

        Parameters
        ----------
        purpose : str
            What the stream is for.

        Returns
        -------
        int
            Signed 64-bit number.
        """
        text = f"{self.objective!r} {self.seed} {self.base!r} {purpose}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)


@dataclass(frozen=True, eq=False)
class Made:
    """One image made.

    Parameters
    ----------
    codes : ndarray, (channel, height, width), optional
        8-bit image; None when there is none, because numbers broke at the first reading.
    step : int
        Step after which it stood, counted from 1; 0 is the start.
    trace : list of (int, float)
        Step and score on the plain, constrained, 8-bit image, as the driver sees it.
    ended : str
        ``"steps"`` when the budget was spent, ``"patience"``, ``"no gradient"`` or ``"not finite"``.
    restarts : int
        How often another start was taken, because the gradient was zero.
    """

    codes: np.ndarray | None
    step: int
    trace: list[tuple[int, float]]
    ended: str = "steps"
    restarts: int = 0


@dataclass(frozen=True, eq=False)
class Unfinished:
    """All that is needed to go on with an image.

    Parameters
    ----------
    tensors : dict of Tensor
        Latent, optimizer state and best image so far, on the CPU.
    numbers : dict
        Step, best score and trace: what JSON holds.
    """

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]


def start_generator(job: Job, attempt: int) -> torch.Generator:
    """Return the generator of a start image.

    Parameters
    ----------
    job : Job
        The image to make.
    attempt : int
        0, or how many starts had no gradient before.

    Returns
    -------
    torch.Generator
        On the CPU.
    """
    return torch.Generator().manual_seed(job.key(f"start {attempt}") & 0x7FFFFFFFFFFFFFFF)
