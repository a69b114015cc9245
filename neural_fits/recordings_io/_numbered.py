"""Stimuli that a file leaves nameless: what is noted of their numbers, and why they match no stimulus set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from neural_fits._recording_checks import match_stimuli

if TYPE_CHECKING:
    from neural_fits.recordings import SiteRecordings

#: what meta["stimulus_ids"] says of stimuli numbered in reading
NUMBERED = "numbered by their order; the file names none"


def match_named(recordings: SiteRecordings, wanted: Sequence[str], surplus_allowed: bool) -> None:
    """Refuse a stimulus set that the recordings do not cover; say so where their ids are only numbers of ours."""
    try:
        match_stimuli(recordings.stimulus_ids, wanted, surplus_allowed)
    except ValueError as error:
        # Whoever has renamed the stimuli since needs no such advice.
        ours = all(re.fullmatch(r"stimulus_\d{4,}", name) for name in recordings.stimulus_ids)
        if not ours or recordings.meta.get("stimulus_ids") != NUMBERED:
            raise
        raise ValueError(
            f"{str(error).removesuffix('.')}; the file of recordings names no stimuli, so they were numbered; put an "
            "array stimulus_ids into it."
        ) from None
