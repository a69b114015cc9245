"""StimulusSet: images that are read when needed, their table, screen and provenance."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from stimuli import _set_io, _table
from stimuli._checks import as_codes, name_stimuli
from stimuli._index import Index, positions
from stimuli._reading import ReadableImages
from stimuli.display import Display
from stimuli.provenance import provenance_record


class StimulusSet(ReadableImages):
    """
    Images of one size with one row of a table each, a size on screen and a record of where they come from.

    Make one with `from_arrays`, `load` or `natural_photos`; the constructor takes parts that are already checked. A set
    never changes: `select`, `concat` and `with_columns` give new sets that share the images.

    Parameters
    ----------
    items : sequence of path or array of uint8, shape (c, h, w)
        One PNG file or one image in memory per stimulus.
    table : DataFrame
        One row per stimulus, with the columns stimulus_id and filename.
    shape : tuple of int
        Channels, height and width.
    size_deg : float
        Width of the images on the screen in degrees of visual angle.
    display : Display, optional
        The screen that the set is made for.
    provenance : mapping, optional
        JSON-able record of the origin.
    name : str
        Name of the set.

    Examples
    --------
    >>> import numpy as np
    >>> gray = StimulusSet.from_arrays(np.full((1, 1, 4, 4), 0.5), {"family": ["uniform"]}, size_deg=2.0)
    >>> gray.shape, gray.size_px, int(gray.codes().max())
    ((1, 4, 4), (4, 4), 128)
    """

    @classmethod
    def from_arrays(
        cls,
        images: ArrayLike,
        table: pd.DataFrame | Mapping[str, Any] | None = None,
        *,
        size_deg: float = 8.0,
        display: Display | None = None,
        provenance: Mapping[str, Any] | None = None,
        name: str = "stimuli",
    ) -> StimulusSet:
        """
        Make a set from images in memory.

        Parameters
        ----------
        images : array, shape (n, c, h, w)
            Floating point in [0, 1], rounded to 8 bits by `quantize`, or uint8 codes; c is 1 or 3.
        table : DataFrame or mapping of columns, optional
            One row per image. Without the column stimulus_id the id is a hash of the content; without the column
            filename it is ``images/<stimulus_id>.png``.
        size_deg : float
            Width of the images on the screen in degrees of visual angle.
        display : Display, optional
            The screen that the set is made for.
        provenance : mapping, optional
            JSON-able record of the origin; without it the versions of the software are recorded.
        name : str
            Name of the set.

        Returns
        -------
        StimulusSet
            The set, held in memory.

        Raises
        ------
        TypeError
            If the images are neither floating point nor uint8, or an id is not text.
        ValueError
            If shape, range, table, ids or file names are not as described, or two images are identical and no ids are
            given.

        Examples
        --------
        >>> import numpy as np
        >>> noise = np.random.default_rng(0).random((2, 3, 8, 8))
        >>> StimulusSet.from_arrays(noise, {"stimulus_id": ["a", "b"]}).stimulus_ids
        ['a', 'b']
        """
        codes = as_codes(images)
        frame = name_stimuli(_table.tidy_table(table, len(codes)), codes)
        return cls(
            list(codes),
            frame,
            shape=(codes.shape[1], codes.shape[2], codes.shape[3]),
            size_deg=size_deg,
            display=display,
            provenance=provenance_record() if provenance is None else provenance,
            name=name,
        )

    def select(self, index: Index) -> StimulusSet:
        """
        Take some of the stimuli, in the order asked.

        Parameters
        ----------
        index : slice, list of int, list of str or boolean mask
            Positions or ids, or one boolean per stimulus.

        Returns
        -------
        StimulusSet
            The chosen stimuli with their rows of the table.

        Raises
        ------
        ValueError
            If an id or position is not in the set, is asked twice, or nothing is chosen.

        Examples
        --------
        >>> import numpy as np
        >>> noise = np.random.default_rng(0).random((3, 1, 4, 4))
        >>> three = StimulusSet.from_arrays(noise, {"stimulus_id": ["a", "b", "c"]})
        >>> three.select(["c", "a"]).stimulus_ids
        ['c', 'a']
        """
        chosen = positions(index, self._position, self._name)
        if not chosen:
            raise ValueError(
                f"The selection takes none of the {len(self)} stimuli of {self._name!r}: choose at least one."
            )
        if len(set(chosen)) != len(chosen):
            raise ValueError("The selection takes a stimulus twice: ids must stay unique, so ask for each once.")
        table = self._table.iloc[chosen].reset_index(drop=True)
        return self._replace(items=[self._items[i] for i in chosen], table=table)

    @staticmethod
    def concat(sets: Sequence[StimulusSet], *, name: str | None = None) -> StimulusSet:
        """
        Join sets of the same shape, size and screen.

        Parameters
        ----------
        sets : sequence of StimulusSet
            The sets in order; a column that a set lacks is missing there, and whole numbers stay whole numbers.
        name : str, optional
            Name of the result; by default the names joined by ``+``.

        Returns
        -------
        StimulusSet
            All stimuli; its provenance holds those of the parts.

        Raises
        ------
        ValueError
            If nothing is given, an id or file name occurs twice, or shape, size_deg or display differ.

        Examples
        --------
        >>> import numpy as np
        >>> black = StimulusSet.from_arrays(np.zeros((1, 1, 4, 4)), name="black")
        >>> white = StimulusSet.from_arrays(np.ones((1, 1, 4, 4)), name="white")
        >>> len(StimulusSet.concat([black, white]))
        2
        """
        parts = list(sets)
        if not parts:
            raise ValueError("StimulusSet.concat got no sets: give at least one.")
        display = next((part.display for part in parts if part.display is not None), None)
        for part in parts:
            if part.shape != parts[0].shape or part.size_deg != parts[0].size_deg:
                raise ValueError(
                    f"{part.name!r} has (channels, height, width) {part.shape} at {part.size_deg} deg where "
                    f"{parts[0].name!r} has {parts[0].shape} at {parts[0].size_deg} deg: make them alike first."
                )
            if part.display is not None and part.display != display:
                raise ValueError(f"{part.name!r} is made for another display than the sets before it.")
        joined = pd.concat([part._table.astype(object) for part in parts], ignore_index=True)
        _table.check_ids(list(joined["stimulus_id"]))
        _table.check_filenames(list(joined["filename"]))
        records = [{"name": p.name, "count": len(p), "provenance": p.provenance} for p in parts]
        same = all(p._provenance == parts[0]._provenance for p in parts)
        return StimulusSet(
            [item for part in parts for item in part._items],
            _table.tidy_table(joined, len(joined)),
            shape=parts[0].shape,
            size_deg=parts[0].size_deg,
            display=display,
            provenance=parts[0].provenance if same else {"parts": records},
            name="+".join(dict.fromkeys(p.name for p in parts)) if name is None else name,
        )

    def with_columns(self, **columns: Any) -> StimulusSet:
        """
        Add or replace free columns of the table.

        Parameters
        ----------
        **columns : sequence or scalar
            New columns with one value per stimulus, or one value for all.

        Returns
        -------
        StimulusSet
            The same stimuli with the new table.

        Raises
        ------
        ValueError
            If a column is stimulus_id or filename or has the wrong length.

        Examples
        --------
        >>> import numpy as np
        >>> gray = StimulusSet.from_arrays(np.full((1, 1, 4, 4), 0.5))
        >>> gray.with_columns(family="uniform").table["family"].tolist()
        ['uniform']
        """
        new = self._table.copy()
        for name, given in columns.items():
            if name in (*_table.RESERVED, _table.WRITTEN):
                raise ValueError(f"The column {name!r} belongs to the set itself: choose another name.")
            alone = given is None or np.ndim(given) == 0
            values = [given] * len(self) if alone else list(given)
            if len(values) != len(self):
                raise ValueError(f"Column {name!r} has {len(values)} values for {len(self)} stimuli: give one each.")
            new[name] = _table.tidy_column(name, pd.Series(values, dtype=object))
        return self._replace(table=new)

    def on_screen(self, display: Display | None = None, *, size_deg: float | None = None) -> StimulusSet:
        """
        Show the same images on another screen or at another size.

        Parameters
        ----------
        display : Display, optional
            The screen; by default the one that the set has.
        size_deg : float, optional
            Width of the images on the screen in degrees; by default as it is.

        Returns
        -------
        StimulusSet
            The same stimuli and table.

        Examples
        --------
        >>> import numpy as np
        >>> StimulusSet.from_arrays(np.full((1, 1, 4, 4), 0.5)).on_screen(Display(), size_deg=2.0).size_deg
        2.0
        """
        return self._replace(display=display, size_deg=size_deg)

    def save(
        self, folder: str | os.PathLike[str], overwrite: bool = False, beside: Mapping[str, str] | None = None
    ) -> StimulusSet:
        """
        Write the set to a folder: ``images/*.png``, ``stimuli.csv`` and ``set.json``.

        The folder appears whole or not at all. The PNGs are 8-bit gray or RGB without gamma or colour profile, and the
        same images always give the same bytes.

        Parameters
        ----------
        folder : path
            The folder to make.
        overwrite : bool
            Replace an existing stimulus set; no other folder, and none with other files in it, is ever replaced.
        beside : mapping of str to str, optional
            Text files that belong to the set and are replaced with it, by their names.

        Returns
        -------
        StimulusSet
            The same set, now read from the folder.

        Raises
        ------
        FileExistsError
            If the folder holds something that may not be replaced.
        OSError
            If the location cannot be written.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as place:
        ...     saved = StimulusSet.from_arrays(np.zeros((1, 1, 4, 4))).save(f"{place}/black")
        ...     len(StimulusSet.load(f"{place}/black"))
        1
        """
        manifest = {
            "name": self._name,
            "count": len(self),
            "channels": self._shape[0],
            "height": self._shape[1],
            "width": self._shape[2],
            "size_deg": self._size_deg,
            "display": None if self._display is None else self._display.to_dict(),
            "provenance": self._provenance,
        }
        images = (self._read(i) for i in range(len(self)))
        place = _set_io.write(folder, images, self._table, manifest, overwrite, beside or {})
        return self._replace(items=[place / filename for filename in self._table["filename"]])

    @classmethod
    def load(cls, folder: str | os.PathLike[str], verify: bool = True) -> StimulusSet:
        """
        Open a saved set; images are read when they are asked for.

        Parameters
        ----------
        folder : path
            The folder of the set.
        verify : bool
            Check size, mode and hash of every image now; without it only that the files exist inside the folder.

        Returns
        -------
        StimulusSet
            The set, read from the folder.

        Raises
        ------
        FileNotFoundError
            If there is no such folder, or no set in it.
        ValueError
            If the set is of a newer format, or was changed or damaged after it was saved.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as place:
        ...     _ = StimulusSet.from_arrays(np.zeros((1, 1, 4, 4)), name="black").save(f"{place}/black")
        ...     StimulusSet.load(f"{place}/black").name
        'black'
        """
        contents = _set_io.read(folder, verify)
        stored = contents.manifest
        try:
            display = None if stored["display"] is None else Display.from_dict(stored["display"])
            return cls(
                contents.paths,
                contents.table,
                shape=(stored["channels"], stored["height"], stored["width"]),
                size_deg=stored["size_deg"],
                display=display,
                provenance=stored["provenance"],
                name=stored["name"],
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{Path(folder) / 'set.json'} cannot be used: {error}") from error

    def _replace(
        self,
        *,
        items: Sequence[Any] | None = None,
        table: pd.DataFrame | None = None,
        display: Display | None = None,
        size_deg: float | None = None,
    ) -> StimulusSet:
        return StimulusSet(
            self._items if items is None else items,
            self._table if table is None else table,
            shape=self._shape,
            size_deg=self._size_deg if size_deg is None else size_deg,
            display=self._display if display is None else display,
            provenance=self._provenance,
            name=self._name,
        )
