"""Where images go as soon as they are made: memory, or what else looks like `Store`, as a `RunFolder` does."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from synth.jobs import Made, Unfinished


class Store(Protocol):
    """Where images go when they are made, and where the state of unfinished ones is kept."""

    def finished(self) -> set[int]:
        """Return the numbers of the jobs that are made.

        Returns
        -------
        set of int
            Numbers of jobs.
        """

    def add(self, number: int, made: Made) -> None:
        """Keep an image.

        Parameters
        ----------
        number : int
            Number of its job.
        made : Made
            The image.
        """

    def made(self, number: int) -> Made:
        """Return an image made.

        Parameters
        ----------
        number : int
            Number of its job.

        Returns
        -------
        Made
            The image and its trace.
        """

    def item(self, number: int) -> Path | np.ndarray:
        """Return what a stimulus set is made of.

        Parameters
        ----------
        number : int
            Number of the job.

        Returns
        -------
        Path or ndarray, (channel, height, width)
            The PNG, or the 8-bit codes.
        """

    def unfinished(self) -> dict[int, Unfinished]:
        """Return the state of the images that an earlier run left unfinished.

        Returns
        -------
        dict of int to Unfinished
            By the number of the job.
        """

    def checkpoint(self, worker: int, states: dict[int, Unfinished]) -> None:
        """Keep the state of unfinished images, in place of what the worker kept before.

        Parameters
        ----------
        worker : int
            Number of the worker.
        states : dict of int to Unfinished
            By the number of the job.
        """


class Memory:
    """A store that keeps the images in memory and no states.

    Examples
    --------
    >>> store = Memory()
    >>> store.add(0, Made(None, 0, []))
    >>> store.finished()
    {0}
    """

    def __init__(self) -> None:
        self._made: dict[int, Made] = {}

    def finished(self) -> set[int]:
        """Return the numbers of the jobs that are made.

        Returns
        -------
        set of int
            Numbers of jobs.
        """
        return set(self._made)

    def add(self, number: int, made: Made) -> None:
        """Keep an image.

        Parameters
        ----------
        number : int
            Number of its job.
        made : Made
            The image.
        """
        self._made[number] = made

    def made(self, number: int) -> Made:
        """Return an image made.

        Parameters
        ----------
        number : int
            Number of its job.

        Returns
        -------
        Made
            The image and its trace.
        """
        return self._made[number]

    def item(self, number: int) -> np.ndarray:
        """Return the codes of an image made.

        Parameters
        ----------
        number : int
            Number of its job.

        Returns
        -------
        ndarray, (channel, height, width)
            8-bit codes.
        """
        codes = self._made[number].codes
        assert codes is not None
        return codes

    def unfinished(self) -> dict[int, Unfinished]:
        """Return nothing.

        Returns
        -------
        dict
            Empty.
        """
        return {}

    def checkpoint(self, worker: int, states: dict[int, Unfinished]) -> None:
        """Do nothing.

        Parameters
        ----------
        worker : int
            Ignored.
        states : dict of int to Unfinished
            Ignored.
        """
