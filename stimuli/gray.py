"""The uniform gray control: a stimulus of code 128 that must be invisible against the background of a rig."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stimuli.stimulus_set import StimulusSet

GRAY_ID = "gray"
GRAY_CODE = 128
GRAY_FAMILY = "uniform_gray"


def _is_gray(codes: NDArray[np.uint8]) -> bool:
    return bool((codes == GRAY_CODE).all())


def _find(stimuli: StimulusSet) -> str | None:
    """Return the id of the first uniform gray image; the likely rows are looked at before all others are read."""
    table = stimuli.table
    likely = table["stimulus_id"] == GRAY_ID
    if "family" in table:
        likely |= table["family"] == GRAY_FAMILY
    order = [*np.flatnonzero(likely.to_numpy()), *np.flatnonzero(~likely.to_numpy())]
    for position in order:  # one by one: a set may be larger than memory
        if _is_gray(stimuli.codes([int(position)])):
            return str(table["stimulus_id"].iloc[position])
    return None


def gray_control_id(stimuli: StimulusSet) -> str:
    """
    Return the id of the uniform gray image of a set.

    Parameters
    ----------
    stimuli : StimulusSet
        A set with an image of which every pixel has the code 128.

    Returns
    -------
    str
        The id of the first such image.

    Raises
    ------
    ValueError
        If the set has none.

    Examples
    --------
    >>> gray_control_id(StimulusSet.from_arrays(np.full((1, 1, 4, 4), 0.5), {"stimulus_id": ["plain"]}))
    'plain'
    """
    found = _find(stimuli)
    if found is None:
        raise ValueError(f"{stimuli.name!r} has no uniform image of code {GRAY_CODE}: add one by with_gray_control.")
    return found


def with_gray_control(stimuli: StimulusSet) -> StimulusSet:
    """
    Append a uniform image of code 128, unless the set has one.

    On a rig that is set up rightly this image cannot be seen against the background. If it can be seen, the background
    is not the gray of the images, for instance because a color profile acts on one and not on the other.

    Parameters
    ----------
    stimuli : StimulusSet
        Any set; its images are read one by one.

    Returns
    -------
    StimulusSet
        The set with the stimulus ``gray`` of the family ``uniform_gray`` at its end, or the same set.

    Raises
    ------
    ValueError
        If another image has the id ``gray`` or its file name.

    Examples
    --------
    >>> black = StimulusSet.from_arrays(np.zeros((1, 1, 4, 4)), {"stimulus_id": ["black"]})
    >>> both = with_gray_control(black)
    >>> both.stimulus_ids, int(both.codes(["gray"]).min())
    (['black', 'gray'], 128)
    """
    if _find(stimuli) is not None:
        return stimuli
    table = stimuli.table
    for column, taken in (("stimulus_id", GRAY_ID), ("filename", f"images/{GRAY_ID}.png")):
        if (table[column] == taken).any():
            raise ValueError(
                f"{stimuli.name!r} has the {column} {taken!r} for an image that is not uniform {GRAY_CODE}: rename it, "
                "this name is kept for the gray control."
            )
    gray = StimulusSet.from_arrays(
        np.full((1, *stimuli.shape), GRAY_CODE, dtype=np.uint8),
        {"stimulus_id": [GRAY_ID], "family": [GRAY_FAMILY]},
        size_deg=stimuli.size_deg,
        provenance=stimuli.provenance,  # the same record, so that concat keeps it as it is
    )
    return StimulusSet.concat([stimuli, gray], name=stimuli.name)
