"""A new set whose images are made from those of another, one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stimuli.provenance import provenance_record
from stimuli.stimulus_set import StimulusSet


def derive(
    stimuli: StimulusSet,
    code: Callable[[int], NDArray[np.uint8]],
    config: Mapping[str, Any],
    *,
    columns: Callable[[], Mapping[str, Any]] = dict,
    channels: int | None = None,
    seed: int | None = None,
) -> StimulusSet:
    """
    Make a set with the ids, file names, size and screen of another.

    Parameters
    ----------
    stimuli : StimulusSet
        The set that the images come from.
    code : callable
        Takes a position and gives the codes of the new image, shape (c, h, w).
    config : mapping
        What was done; recorded beside the provenance of the old set.
    columns : callable
        Gives new columns of the table; called when every image is made.
    channels : int, optional
        Channels of the new images, when they differ.
    seed : int, optional
        Seed, where there is one.

    Returns
    -------
    StimulusSet
        The new set, held in memory as 8-bit codes.
    """
    items = []
    for position in range(len(stimuli)):  # one by one: floats of a whole set would be large
        image = code(position)
        image.flags.writeable = False
        items.append(image)
    made = StimulusSet(
        items,
        stimuli.table,
        shape=(channels or stimuli.shape[0], *stimuli.size_px),
        size_deg=stimuli.size_deg,
        display=stimuli.display,
        provenance=provenance_record(seed=seed, config=dict(config)) | {"of": stimuli.provenance},
        name=stimuli.name,
    )
    return made.with_columns(**columns())
