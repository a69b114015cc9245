"""What stood on the screen of MWorks, and since when: the event of an update has the time predicted for its frame."""

from __future__ import annotations

import ast
import bisect
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from stimuli.event_logs.names import StimulusNames, is_nothing

_FAR_US = 1_000_000  # a drawn frame is shown within some ms, so a second means another clock


class Screen:
    """
    Changes of the image as the protocol logged them, and the times at which the screen showed them.

    The completion of MWorks' update_display means that the frame is drawn; the screen shows it at the next refresh.
    """

    def __init__(self) -> None:
        self._logged: list[tuple[float, str | None]] = []  # time of the event in us, image or None
        self._predicted: dict[int, float] = {}  # by the number of the change
        self._next: float | None = None
        self._updates: list[tuple[float, str | None]] = []

    def change(self, time_us: float, image: str | None) -> int:
        """Note that the protocol says what is on the screen now; return the number of the change."""
        if self._next is not None:
            self._predicted[len(self._logged)] = self._next
            self._next = None
        self._logged.append((time_us, image))
        return len(self._logged) - 1

    def predict(self, time_us: float, predicted_us: float, line: int, file: str) -> None:
        """Note the time that MWorks predicts for the change that is logged next."""
        self._next = None
        if not predicted_us > 0:  # what MWorks says while its display does not run
            return
        if abs(predicted_us - time_us) > _FAR_US:
            raise ValueError(
                f"{file!r} has in row {line} an output_time more than a second from the time of its event: export "
                "times as MWorks has them, or leave output_time out."
            )
        self._next = predicted_us

    def update(self, time_us: float, value: str, names: StimulusNames, file: str, line: int) -> None:
        """Note an update of the display by its list of stimuli; what tells of no image of the set is left out."""
        if not value.startswith("["):  # updates without a change may give a mere count
            return
        known, images = images_in(value, names, file, line)
        if known or not images:
            self._updates.append((time_us, known[0] if known else None))

    def times(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
        """Return onsets and durations in s of presentations with the numbers of their changes, "on" and "off"."""
        onset, duration = [], []
        for row in rows:
            on = self._shown(row["on"], -math.inf)
            off = math.nan if row["off"] is None else self._shown(row["off"], on)
            onset.append(on / 1e6)
            duration.append((off - on) / 1e6)
        return {"onset_s": onset, "duration_s": duration}

    def _shown(self, number: int, after: float) -> float:
        """Return the time of a change on the screen: as predicted, or of the first update since the change before."""
        time_us, image = self._logged[number]
        if number in self._predicted:
            return self._predicted[number]
        after = max(after, self._logged[number - 1][0] if number else -math.inf)
        before = self._logged[number + 1][0] if number + 1 < len(self._logged) else math.inf
        first = bisect.bisect_right(self._updates, after, key=lambda update: update[0])
        for k in range(first, len(self._updates)):
            shown, what = self._updates[k]
            if shown >= before:
                break
            if what == image:
                return shown
        return time_us


def images_in(value: str, names: StimulusNames, file: str, line: int) -> tuple[list[str], list[str]]:
    """Return the images of the set in a list of stimuli, by id, and the names of all images in it."""
    items = [item for item in read_list(value, file, line) if isinstance(item, dict)]
    images = [item for item in items if item.get("type") == "image" and item.get("action") != "erase"]
    given = [str(item.get("filename") or item.get("name") or "") for item in images]
    return [found for found in map(names.find, given) if found is not None], given


def read_list(value: str, file: str, line: int) -> list[Any]:
    """Read a list of dictionaries as JSON or Python writes it; nothing is evaluated."""
    if is_nothing(value):
        return []
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        try:
            parsed = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise ValueError(
                f"{file!r} has in row {line} a value that is neither JSON nor a Python literal: export the values of "
                "#stimDisplayUpdate and #announceStimulus as JSON."
            ) from None
    return parsed if isinstance(parsed, list) else [parsed]
