"""What every exporter gets: the set on disk, the order in which it is shown, and the screen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from stimuli.display import Display
from stimuli.sequence import PresentationOrder
from stimuli.stimulus_set import StimulusSet


@dataclass(frozen=True)
class Bundle:
    """
    A set that is being exported.

    A rig's module has ``write(bundle: Bundle) -> None``, which writes into ``bundle.folder / "<rig>"``, and the text
    ``START``, which says in README_RIG.txt how to start there.

    Parameters
    ----------
    stimuli : StimulusSet
        The set as it is saved in `folder`, with its gray control.
    order : PresentationOrder
        The order in which it is shown; every id and file name is one of `stimuli`.
    display : Display
        The screen.
    folder : Path
        The folder that is being built, and renamed when it is complete: write no absolute path into a file.
    name : str
        Name of the set.
    blank_id : str
        The id of the gray control.
    predictions : mapping of str to DataFrame
        Predicted responses by name of the model, indexed by stimulus_id, one column a site; may be empty.
    position_deg : tuple of float
        Middle of the images on the screen, x to the right and y up from the fixation point, in degrees.

    Examples
    --------
    >>> import numpy as np
    >>> from stimuli.sequence import SequenceConfig, presentation_order
    >>> gray = StimulusSet.from_arrays(np.full((1, 1, 4, 4), 0.5), {"stimulus_id": ["gray"]})
    >>> order = presentation_order(["a", "gray"], SequenceConfig(repeats=1))
    >>> Bundle(gray, order, Display(), Path("out"), "plain", "gray").blank_id
    'gray'
    """

    stimuli: StimulusSet
    order: PresentationOrder
    display: Display
    folder: Path
    name: str
    blank_id: str
    predictions: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    position_deg: tuple[float, float] = (0.0, 0.0)

    @property
    def exact(self) -> bool:
        """Whether the images have the pixels that their degrees need on this screen: no rig need resample them."""
        return self.display.resampling(self.stimuli.size_px, self.stimuli.size_deg) is None
