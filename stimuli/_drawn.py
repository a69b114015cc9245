"""A stimulus set from pictures that were just made, each with its row of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stimuli._checks import content_id, name_stimuli
from stimuli._table import tidy_table
from stimuli.display import Display
from stimuli.stimulus_set import StimulusSet


def drawn_set(
    images: Sequence[NDArray[np.uint8]],
    rows: Sequence[Mapping[str, Any]],
    *,
    size_deg: float,
    display: Display | None,
    provenance: Mapping[str, Any],
    name: str,
) -> StimulusSet:
    """Name every picture (c, h, w) by its family and a hash of its pixels, refuse twins, and hold them as a set."""
    ids = [f"{row['family']}_{content_id(codes)}" for codes, row in zip(images, rows, strict=True)]
    first: dict[str, int] = {}
    for i, stimulus in enumerate(ids):
        if first.setdefault(stimulus, i) != i:
            told = ", ".join(f"{key} {value}" for key, value in rows[i].items())
            raise ValueError(
                f"Images {first[stimulus]} and {i} of {len(ids)} are the same picture ({told}): leave one of them out."
            )
    for codes in images:
        codes.flags.writeable = False
    table = tidy_table(pd.DataFrame(list(rows)), len(rows))
    table.insert(0, "stimulus_id", pd.Series(ids, dtype=object))
    return StimulusSet(
        images,
        name_stimuli(table, np.empty(0, np.uint8)),
        shape=(images[0].shape[0], images[0].shape[1], images[0].shape[2]),
        size_deg=size_deg,
        display=display,
        provenance=provenance,
        name=name,
    )
