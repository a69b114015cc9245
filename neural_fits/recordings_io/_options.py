"""What a caller may say about a file beside its path, and what becomes of it."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from neural_fits._recording_checks import as_window
from neural_fits.recordings import SiteRecordings


@dataclass(frozen=True)
class ReadOptions:
    """The options of `read`, None where the caller left them out."""

    axes: str | None = None
    window_ms: tuple[float, float] | None = None
    dataset: str | None = None

    def __post_init__(self) -> None:
        for name in ("axes", "dataset"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                example = "'repeat stimulus site'" if name == "axes" else "'trials'"
                raise TypeError(f"{name} is a {type(value).__name__}; give text such as {example}.")
        object.__setattr__(self, "window_ms", as_window(self.window_ms))

    def refuse(self, names: Sequence[str], path: Path, why: str) -> None:
        """Raise when one of the named options is given to a file that has no use for it."""
        for name in names:
            if getattr(self, name) is not None:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} was given for {path.name!r}, but {why}; leave {name} out."
                )


#: what `read` passes when nothing is said
NO_OPTIONS = ReadOptions()


def choose(wanted: str | None, known: Sequence[str], path: Path, what: str) -> str:
    """Return the wanted one of the names in a file, or the only one; ask where it is open."""
    listed = ", ".join(map(repr, known[:12])) + (f", ... ({len(known)} in all)" if len(known) > 12 else "")
    if wanted is None:
        if len(known) == 1:
            return known[0]
        raise ValueError(f"{path.name!r} holds {len(known)} {what}: {listed}; say which with dataset={known[0]!r}.")
    if wanted not in known:
        near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"{path.name!r} has no dataset {wanted!r}; {hint}it holds {listed}.")
    return wanted


def adds_up(unit: str) -> bool:
    """Whether responses in this unit are summed over time (counts) and not averaged (rates, voltages)."""
    lower = unit.lower()
    return "spike" in lower and not any(rate in lower for rate in ("/s", "hz", "per s"))


def with_window(recordings: SiteRecordings, window_ms: tuple[float, float] | None, path: Path) -> SiteRecordings:
    """Apply a window to time-resolved recordings; to others, check it against theirs or state it."""
    if window_ms is None:
        return recordings
    if recordings.responses.ndim == 4:
        return recordings.in_window(*window_ms, combine="sum" if adds_up(recordings.unit) else "mean")
    if recordings.window_ms is None:
        return dataclasses.replace(recordings, window_ms=window_ms)
    if recordings.window_ms != window_ms:
        raise ValueError(
            f"window_ms={window_ms} was given for {path.name!r}, whose responses were already taken in "
            f"{recordings.window_ms} ms; leave window_ms out, or export the responses of the other window."
        )
    return recordings


def damaged(path: Path, kind: str) -> ValueError:
    """Return the error for a file that its format's library cannot open."""
    return ValueError(
        f"{path.name!r} cannot be read as {kind}: it is damaged, cut short or of another format; copy or "
        "export it again."
    )


def numbered(prefix: str, count: int, digits: int = 4) -> list[str]:
    """Name things that a file leaves nameless: prefix_0001, prefix_0002, ..."""
    width = max(digits, len(str(count)))
    return [f"{prefix}_{i + 1:0{width}d}" for i in range(count)]


def first_in(names: Iterable[str], known: Iterable[str]) -> str | None:
    """Return the first of some names that is among the known ones."""
    there = set(known)
    return next((name for name in names if name in there), None)
