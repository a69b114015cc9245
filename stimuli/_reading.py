"""What a stimulus set holds, and how its images are read."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stimuli import _html, png
from stimuli._checks import check_size_deg
from stimuli._index import Index, positions
from stimuli.appearance import to_float
from stimuli.display import Display
from stimuli.provenance import to_jsonable


class ReadableImages:
    """Images in memory or in PNG files, their table and what is known about them; see `StimulusSet`."""

    def __init__(
        self,
        items: Sequence[Path | NDArray[np.uint8]],
        table: pd.DataFrame,
        *,
        shape: tuple[int, int, int],
        size_deg: float,
        display: Display | None = None,
        provenance: Mapping[str, Any] | None = None,
        name: str = "stimuli",
    ) -> None:
        if display is not None and not isinstance(display, Display):
            raise TypeError(f"display is {display!r}: give a Display or None.")
        if not isinstance(name, str):
            raise TypeError(f"name is {name!r}: give the name of the set as text.")
        self._items = list(items)
        self._table = table
        self._shape = shape
        self._size_deg = check_size_deg(size_deg)
        self._display = display
        self._provenance: dict[str, Any] = to_jsonable(dict(provenance or {}), "provenance")
        self._name = name
        self._position = {stimulus: i for i, stimulus in enumerate(table["stimulus_id"])}

    @property
    def table(self) -> pd.DataFrame:
        """Copy of the table: stimulus_id, filename and the free columns, one row per image."""
        return self._table.copy()

    @property
    def stimulus_ids(self) -> list[str]:
        """The ids in order."""
        return list(self._table["stimulus_id"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        return self._shape

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width of every image in pixels."""
        return self._shape[1:]

    @property
    def size_deg(self) -> float:
        """Width of the images on the screen in degrees of visual angle."""
        return self._size_deg

    @property
    def display(self) -> Display | None:
        """The screen that the set is made for, or None."""
        return self._display

    @property
    def provenance(self) -> dict[str, Any]:
        """Copy of the record of where the set comes from."""
        return copy.deepcopy(self._provenance)

    @property
    def name(self) -> str:
        """Name of the set."""
        return self._name

    def __len__(self) -> int:
        return len(self._items)

    def codes(self, index: Index = None) -> NDArray[np.uint8]:
        """
        Read images as 8-bit codes.

        Parameters
        ----------
        index : None, slice, list of int, list of str or boolean mask
            Positions or ids of the images to read; None reads all.

        Returns
        -------
        array of uint8, shape (n, c, h, w)
            A new array of pixel codes.

        Raises
        ------
        ValueError
            If an id or position is not in the set, or a file is missing, damaged or of another size.

        Examples
        --------
        >>> import numpy as np
        >>> from stimuli import StimulusSet
        >>> StimulusSet.from_arrays(np.zeros((1, 1, 4, 4))).codes([0]).shape
        (1, 1, 4, 4)
        """
        chosen = positions(index, self._position, self._name)
        out = np.empty((len(chosen), *self._shape), dtype=np.uint8)
        for row, position in enumerate(chosen):
            out[row] = self._read(position)
        return out

    def images(self, index: Index = None) -> NDArray[np.float32]:
        """
        Read images as floating point in [0, 1], ``x = code / 255``.

        Parameters
        ----------
        index : None, slice, list of int, list of str or boolean mask
            Positions or ids of the images to read; None reads all.

        Returns
        -------
        array of float32, shape (n, c, h, w)
            A new array of images.

        Raises
        ------
        ValueError
            If an id or position is not in the set, or a file is missing, damaged or of another size.

        Examples
        --------
        >>> import numpy as np
        >>> from stimuli import StimulusSet
        >>> float(StimulusSet.from_arrays(np.ones((1, 1, 4, 4))).images().min())
        1.0
        """
        return to_float(self.codes(index))

    def __repr__(self) -> str:
        channels, height, width = self._shape
        return (
            f"StimulusSet({self._name!r}: {len(self)} stimuli, {channels} x {height} x {width} px, "
            f"{self._size_deg:g} deg, columns {', '.join(self._table.columns)})"
        )

    def _repr_html_(self) -> str:
        count = min(len(self), _html.THUMBNAILS)
        codes = [self._read(i) for i in range(count)]
        return _html.render(repr(self), self.stimulus_ids[:count], codes, self._table.head(5), len(self) - count)

    def _read(self, position: int) -> NDArray[np.uint8]:
        item = self._items[position]
        return png.read(item, self._shape) if isinstance(item, Path) else item
