"""How stimuli are ordered and timed: the configuration behind a presentation order."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

_WHOLE = {"repeats": 1, "images_per_trial": 1, "blanks_per_block": 0, "normalizers_per_block": 0, "seed": 0}
_TIMES = ("duration_ms", "gap_ms", "lead_in_ms", "inter_trial_ms")
LONGEST_MS = 3_600_000  # an hour: nothing but a mistake is longer
REFRESH_HZ = (1, 10_000)  # far beyond all screens on both sides


@dataclass(frozen=True)
class SequenceConfig:
    """
    How stimuli are ordered and timed: rapid serial presentation in short trials.

    Parameters
    ----------
    repeats : int
        Number of blocks; every stimulus is shown once in each.
    images_per_trial : int
        Images shown during one fixation; the last trial may be shorter.
    duration_ms, gap_ms : float
        How long an image is on, and how long the gray after it.
    lead_in_ms : float
        From the start of a trial (fixation) to its first image.
    inter_trial_ms : float
        From the end of the last gap of a trial to the start of the next trial.
    blanks_per_block : int
        How often the gray control is shown in a block, instead of once; 0 leaves it out.
    normalizers : tuple of str
        Stimuli of the set that are shown more often, to follow drift during a day and between days.
    normalizers_per_block : int
        Further presentations of each normalizer in a block, beside the one that every stimulus has.
    seed : int
        Seed of the order.
    animal, day : str
        Names that give each animal and day an order of its own with the same seed.

    Raises
    ------
    TypeError
        If a value is of another kind.
    ValueError
        If a number is out of range or a normalizer is named twice.

    Examples
    --------
    >>> SequenceConfig(repeats=20, animal="m1", day="2026-11-23").images_per_trial
    6
    """

    repeats: int = 10
    images_per_trial: int = 6
    duration_ms: float = 100.0
    gap_ms: float = 100.0
    lead_in_ms: float = 160.0
    inter_trial_ms: float = 500.0
    blanks_per_block: int = 1
    normalizers: tuple[str, ...] = ()
    normalizers_per_block: int = 1
    seed: int = 0
    animal: str = ""
    day: str = ""

    def __post_init__(self) -> None:
        """Check every value."""
        for name, least in _WHOLE.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise TypeError(f"SequenceConfig.{name} is {value!r}: give a whole number.")
            if value < least:
                raise ValueError(f"SequenceConfig.{name} is {value}: give at least {least}.")
            object.__setattr__(self, name, int(value))
        for name in _TIMES:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
                raise TypeError(f"SequenceConfig.{name} is {value!r}: give a time in ms.")
            if not math.isfinite(value) or value < 0 or (name == "duration_ms" and value == 0):
                raise ValueError(f"SequenceConfig.{name} is {value!r}: give a positive time in ms (0 but for images).")
            if value > LONGEST_MS:
                raise ValueError(f"SequenceConfig.{name} is {value:g} ms: give at most {LONGEST_MS:,}, an hour.")
            object.__setattr__(self, name, float(value))
        for name in ("animal", "day"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"SequenceConfig.{name} is {getattr(self, name)!r}: give text.")
            if not getattr(self, name).isprintable():
                raise ValueError(f"SequenceConfig.{name} is {getattr(self, name)!r}: give one line of printable text.")
        given = self.normalizers
        if not isinstance(given, (tuple, list)) or not all(isinstance(name, str) for name in given):
            raise TypeError(f"SequenceConfig.normalizers is {given!r}: give a tuple of stimulus ids.")
        object.__setattr__(self, "normalizers", tuple(given))
        if len(set(self.normalizers)) != len(self.normalizers):
            raise ValueError(f"SequenceConfig.normalizers is {self.normalizers}: name each stimulus once.")

    def on_frames(self, refresh_hz: float | None) -> SequenceConfig:
        """
        Round all times to whole frames, an image to at least one.

        Parameters
        ----------
        refresh_hz : float, optional
            Refresh rate of the screen; None leaves the times as they are.

        Returns
        -------
        SequenceConfig
            The times that the screen can show.

        Raises
        ------
        ValueError
            If the rate is not a number of frames per second from 1 to 10,000.

        Examples
        --------
        >>> SequenceConfig(duration_ms=90).on_frames(60).duration_ms
        83.333333
        """
        if refresh_hz is None:
            return self
        low, high = REFRESH_HZ
        number = isinstance(refresh_hz, (int, float, np.number)) and not isinstance(refresh_hz, bool)
        if not number or not low <= refresh_hz <= high:
            raise ValueError(f"refresh_hz is {refresh_hz!r}: give frames per second from {low} to {high:,}.")
        frames = {name: round(getattr(self, name) * refresh_hz / 1000) for name in _TIMES}
        frames["duration_ms"] = max(1, frames["duration_ms"])
        return dataclasses.replace(self, **{name: round(n * 1000 / refresh_hz, 6) for name, n in frames.items()})
