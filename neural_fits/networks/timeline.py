"""When things happen in a time-resolved model: steps of the integration, time bins, input and hold signal.

Used by `ModularRNN` and all that reads it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: shares of a step below this are rounding
_TINY = 1e-9


@dataclass(frozen=True)
class Timeline:
    """Steps from image onset (or the first bin, if that is before) to the end of the last bin.

    Parameters
    ----------
    bins_ms : sequence of (float, float)
        Start and end of every time bin after image onset in ms; they may overlap and differ in length.
    step_ms : float
        Length of a step in ms.
    latency_ms : float
        When the input of the image arrives, after onset.
    duration_ms : float, optional
        How long it lasts; by default to the end.
    hold_ms : tuple of float, optional
        Start and end of a hold signal; by default there is none.

    Raises
    ------
    ValueError
        For no bins, an interval that ends before it starts or is not finite, a step that is not positive, or an input
        or hold signal that is on in no bin.

    Examples
    --------
    >>> timeline = Timeline(((0, 20), (20, 50)), step_ms=10, latency_ms=15)
    >>> timeline.gate().tolist()
    [0.0, 0.5, 1.0, 1.0, 1.0]
    >>> timeline.pooling()[:, 0].tolist()
    [0.5, 0.5, 0.0, 0.0, 0.0]
    """

    bins_ms: tuple[tuple[float, float], ...]
    step_ms: float = 10.0
    latency_ms: float = 0.0
    duration_ms: float | None = None
    hold_ms: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        bins = tuple((float(start), float(end)) for start, end in self.bins_ms)
        object.__setattr__(self, "bins_ms", bins)
        if self.hold_ms is not None:
            object.__setattr__(self, "hold_ms", tuple(self.hold_ms))
        if not bins or any(not start < end for start, end in bins):
            raise ValueError(f"time bins are {bins}; give (start, end) in ms with start < end for one bin or more")
        if not self.step_ms > 0 or (self.duration_ms is not None and not self.duration_ms > 0):
            raise ValueError(f"step_ms is {self.step_ms}, duration_ms is {self.duration_ms}; expected times above 0")
        times = (*sum(bins, ()), self.step_ms, self.latency_ms, self.duration_ms or 0.0, *(self.hold_ms or ()))
        if not np.isfinite(times).all():
            raise ValueError(f"{self} holds a time that is infinite or no number; give finite times in ms")
        first, last = min(0.0, *(start for start, _ in bins)), max(end for _, end in bins)
        for what, (start, end) in {"image": self._image(), "hold signal": self.hold_ms or self._image()}.items():
            if not (start < end and start < last and end > first):
                raise ValueError(
                    f"the {what} is on from {start:g} to {end:g} ms; expected a start before the end, and a part of it "
                    f"between {first:g} and {last:g} ms, where the time bins are"
                )

    def edges(self) -> NDArray[np.float64]:
        """Return the edges of the steps.

        Returns
        -------
        ndarray, (step + 1,)
            Times after onset in ms.
        """
        first = min(0.0, min(start for start, _ in self.bins_ms))
        count = math.ceil((max(end for _, end in self.bins_ms) - first) / self.step_ms - _TINY)
        return np.asarray(first + self.step_ms * np.arange(count + 1), dtype=np.float64)

    def gate(self) -> NDArray[np.float64]:
        """Return which share of each step the input of the image is on.

        Returns
        -------
        ndarray, (step,)
            Between 0 and 1.
        """
        return self._shares(*self._image())

    def hold(self) -> NDArray[np.float64]:
        """Return which share of each step the hold signal is on.

        Returns
        -------
        ndarray, (step,)
            Between 0 and 1.
        """
        return np.zeros(len(self.edges()) - 1) if self.hold_ms is None else self._shares(*self.hold_ms)

    def pooling(self) -> Tensor:
        """Return the weights of the steps in the mean over each bin.

        Returns
        -------
        Tensor, (step, bin)
            Each column has the sum 1.
        """
        shares = np.stack([self._shares(start, end) for start, end in self.bins_ms], 1)
        return torch.from_numpy((shares / shares.sum(0)).astype(np.float32))

    def find(self, bins: int | tuple[float, float] | Sequence[int | tuple[float, float]]) -> list[int]:
        """Return the places of some bins.

        Parameters
        ----------
        bins : int, (start, end) in ms, or a list of these
            One bin or several.

        Returns
        -------
        list of int
            Places.

        Raises
        ------
        ValueError
            For none, one twice, or a bin that is not there.
        """
        wanted: object = bins.tolist() if isinstance(bins, np.ndarray) else bins
        window = isinstance(wanted, tuple) and len(wanted) == 2 and not isinstance(wanted[0], (tuple, list))
        listed = list(wanted) if isinstance(wanted, (tuple, list, range)) and not window else [wanted]
        found = [self._place(each) for each in listed]
        if not found or len(set(found)) < len(found):
            raise ValueError(f"bins are {listed}; name one bin or more, each once")
        return found

    def _image(self) -> tuple[float, float]:
        lasts = math.inf if self.duration_ms is None else self.duration_ms
        return self.latency_ms, self.latency_ms + lasts

    def _place(self, wanted: object) -> int:
        if isinstance(wanted, (int, np.integer)):
            if -len(self.bins_ms) <= wanted < len(self.bins_ms):
                return int(wanted) % len(self.bins_ms)
        elif isinstance(wanted, (tuple, list)) and tuple(wanted) in self.bins_ms:
            return self.bins_ms.index(tuple(wanted))
        raise ValueError(
            f"there is no time bin {wanted!r}; give a place from 0 to {len(self.bins_ms) - 1}, or one of "
            f"{', '.join(bin_name(each) for each in self.bins_ms)} as (start, end)"
        )

    def _shares(self, start: float, end: float) -> NDArray[np.float64]:
        edges = self.edges()
        overlap = np.minimum(edges[1:], end) - np.maximum(edges[:-1], start)
        return np.asarray(np.clip(overlap / self.step_ms, 0, 1), dtype=np.float64)


def bin_name(window_ms: tuple[float, float]) -> str:
    """Return a time bin as text.

    Parameters
    ----------
    window_ms : tuple of float
        Start and end in ms.

    Returns
    -------
    str
        For example ``"70-100ms"``.

    Examples
    --------
    >>> bin_name((70.0, 100.0))
    '70-100ms'
    """
    return "{:g}-{:g}ms".format(*window_ms)


def bin_scale(timeline: Timeline, unit: str) -> Tensor:
    """Return by what responses in each bin grow with its length: counts do, rates and other signals do not.

    Parameters
    ----------
    timeline : Timeline
        The bins.
    unit : str
        Unit of the responses; ``"spikes/bin"`` and every other unit that ends in ``/bin`` is a count.

    Returns
    -------
    Tensor, (bin,)
        Length over mean length for counts, else 1.

    Examples
    --------
    >>> bin_scale(Timeline(((0, 20), (20, 80))), "spikes/bin").tolist()
    [0.5, 1.5]
    """
    lengths = torch.tensor([end - start for start, end in timeline.bins_ms])
    return lengths / lengths.mean() if unit.endswith("/bin") else torch.ones(len(lengths))
