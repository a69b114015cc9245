"""A new set whose images are made from those of another, one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stimuli._contrast import rms_contrast
from stimuli.provenance import provenance_record
from stimuli.stimulus_set import StimulusSet

CLIPPED, CLIPPED_BEFORE = "clipped_fraction", "clipped_fraction_before"
_MEASURED: dict[str, Callable[[NDArray[np.uint8]], float]] = {
    "rms_contrast": rms_contrast,
    "mean_luminance": lambda codes: float(codes.mean() / 255.0),
}


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

    What the table of the other set says of its pixels is made true of the new ones: rms_contrast and mean_luminance are
    measured again, of the whole image. Where the new image is clipped anew, the clipped_fraction of the old one, whose
    damage stays, goes to clipped_fraction_before; the larger of the two where the table has that already.

    Parameters
    ----------
    stimuli : StimulusSet
        The set that the images come from.
    code : callable
        Takes a position and gives the codes of the new image, shape (c, h, w).
    config : mapping
        What was done; recorded beside the provenance of the old set.
    columns : callable
        Gives new columns of the table, which come before those measured here; called when every image is made.
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
    new = dict(columns())
    table = stimuli.table
    for name, measure in _MEASURED.items():
        if name in table and name not in new:
            new[name] = [measure(image) for image in items]
    if CLIPPED in table and CLIPPED in new:
        earlier = [table[name] for name in (CLIPPED, CLIPPED_BEFORE) if name in table]
        new[CLIPPED_BEFORE] = pd.concat(earlier, axis=1).max(axis=1).to_numpy()
    return made.with_columns(**new)
