"""SiteRecordings: recorded trials (stimulus, repeat, site[, time]), the table of sites, and what they mean.

Comes from files (`recordings_io`) or arrays; goes to `fit_sites`, `scores` and `evaluate_control`.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neural_fits._recording_checks import (
    as_ids,
    as_json,
    as_site_table,
    as_trials,
    as_window,
    match_measurement,
    match_shape,
    pad_repeats,
    positions,
    refuse_shared,
    refuse_unusable,
)
from neural_fits._time_bins import as_time_bins, combine_bins, time_text
from neural_fits.halves import random_halves
from neural_fits.recordings_io._numbered import match_named

__all__ = ["SiteRecordings"]


class HasStimulusIds(Protocol):
    """Anything that lists its stimuli, such as a StimulusSet."""

    @property
    def stimulus_ids(self) -> Sequence[str]:
        """Ids in order."""


@dataclass(frozen=True, eq=False, repr=False)
class SiteRecordings:
    """Recorded responses of sites to stimuli, trial by trial.

    Parameters
    ----------
    responses : ndarray
        Shape (stimulus, repeat, site) or (stimulus, repeat, site, time), kept as float32; NaN = not shown or rejected.
    stimulus_ids : sequence of str
        One unique id per stimulus.
    sites : pandas.DataFrame
        One row per site, indexed by the unique ``site_id`` (str); free columns such as animal, session, region.
    window_ms : tuple of float, optional
        Start and end of the counting window after stimulus onset, in ms; None if unknown or time-resolved.
    unit : str
        Unit of the responses.
    meta : dict
        Anything JSON can hold: where the data came from, how it was processed.
    time_bins_ms : sequence of (float, float), optional
        Start and end of every time bin after stimulus onset, in ms, by increasing start; they may overlap. Needed
        exactly when the responses have a time axis; `in_window` turns such recordings into one response per trial.

    Raises
    ------
    ValueError
        If shapes and ids do not fit together, or an id occurs twice.
    TypeError
        If responses are not real numbers, ids are not text or `meta` cannot be written as JSON.

    Examples
    --------
    >>> sites = pd.DataFrame({"region": ["V4", "V4"]}, index=pd.Index(["s0", "s1"], name="site_id"))
    >>> SiteRecordings(np.zeros((3, 4, 2)), ("a", "b", "c"), sites, window_ms=(70, 170))
    SiteRecordings(3 stimuli x up to 4 repeats x 2 sites, 70-170 ms, spikes/window)
    >>> SiteRecordings(np.zeros((3, 4, 2, 2)), ("a", "b", "c"), sites, time_bins_ms=((50, 100), (100, 150)))
    SiteRecordings(3 stimuli x up to 4 repeats x 2 sites x 2 time bins, 50-150 ms, spikes/window)
    """

    responses: NDArray[np.float32]
    stimulus_ids: tuple[str, ...]
    sites: pd.DataFrame
    window_ms: tuple[float, float] | None = None
    unit: str = "spikes/window"
    meta: dict[str, Any] = field(default_factory=dict)
    time_bins_ms: tuple[tuple[float, float], ...] | None = None

    def __post_init__(self) -> None:
        responses = as_trials(self.responses)
        ids = as_ids(self.stimulus_ids, "stimulus_ids")
        sites = as_site_table(self.sites)
        match_shape(responses, ids, sites)
        if not isinstance(self.unit, str):
            raise TypeError(f"unit is a {type(self.unit).__name__}; give text such as 'spikes/window'.")
        set_field = object.__setattr__  # the dataclass is frozen for everyone else
        window = as_window(self.window_ms)
        set_field(self, "time_bins_ms", as_time_bins(self.time_bins_ms, responses, window))
        set_field(self, "responses", responses)
        set_field(self, "stimulus_ids", ids)
        set_field(self, "sites", sites)
        set_field(self, "window_ms", window)
        set_field(self, "meta", as_json(self.meta))

    @property
    def site_ids(self) -> list[str]:
        """Ids of the sites, in order."""
        return [str(s) for s in self.sites.index]

    @property
    def n_stimuli(self) -> int:
        """Number of stimuli."""
        return len(self.stimulus_ids)

    @property
    def n_repeats(self) -> NDArray[np.int_]:
        """Number of recorded repeats, shape (stimulus, site[, time])."""
        return (~np.isnan(self.responses)).sum(axis=1)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the responses, (stimulus, repeat, site[, time])."""
        return self.responses.shape

    def mean(self) -> NDArray[np.float32]:
        """Average over the recorded repeats.

        Returns
        -------
        ndarray
            Shape (stimulus, site[, time]), in `unit`; NaN where a stimulus was never recorded at that site.
        """
        count = self.n_repeats
        total = np.nansum(self.responses, axis=1, dtype=np.float64)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)

    def halves(self, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Average two random halves of the repeats of every stimulus.

        Parameters
        ----------
        seed : int
            Seed of the split.

        Returns
        -------
        first : ndarray
            Mean of one half, shape (stimulus, site[, time]); NaN where fewer than two repeats were recorded.
        second : ndarray
            Mean of the other half, with the same NaN.

        Notes
        -----
        Sites recorded on the same trials are split alike, and so are all time bins; an odd repeat goes to a random
        side.
        """
        n_stimuli, n_repeats = self.shape[:2]
        columns = self.responses.reshape(n_stimuli, n_repeats, math.prod(self.shape[2:]))
        shape = (n_stimuli, *self.shape[2:])
        first, second = random_halves(columns, np.random.default_rng(seed))
        return first.astype(np.float32).reshape(shape), second.astype(np.float32).reshape(shape)

    def in_window(self, start_ms: float, end_ms: float, combine: Literal["sum", "mean"] = "sum") -> SiteRecordings:
        """Combine the time bins of a counting window into one response per trial.

        Parameters
        ----------
        start_ms : float
            Start of the window after stimulus onset, in ms; an edge of a bin.
        end_ms : float
            End of the window, in ms; an edge of a bin.
        combine : {"sum", "mean"}
            ``"sum"`` for counts, ``"mean"`` (weighted by the length of the bins) for rates and continuous signals.

        Returns
        -------
        SiteRecordings
            Responses (stimulus, repeat, site) with `window_ms` set; NaN where a trial lacks a bin of the window. The
            unit stays, except that the sum of ``"spikes/bin"`` is in ``"spikes/window"``.

        Raises
        ------
        ValueError
            If the recordings have no time axis, or the bins do not tile the window: one of them straddles an edge,
            some overlap, or part of the window was not recorded.

        Examples
        --------
        >>> sites = pd.DataFrame(index=pd.Index(["s0"], name="site_id"))
        >>> bins = ((0, 50), (50, 100), (100, 150))
        >>> recorded = SiteRecordings(np.array([[[[1.0, 2.0, 4.0]]]]), ("a",), sites, time_bins_ms=bins)
        >>> recorded.in_window(50, 150).responses.ravel().tolist()
        [6.0]
        """
        if self.time_bins_ms is None:
            raise ValueError(f"{self!r} has no time axis, so no window can be chosen; use it as it is.")
        window = as_window((start_ms, end_ms))
        responses = combine_bins(self.responses, self.time_bins_ms, start_ms, end_ms, combine)
        unit = "spikes/window" if combine == "sum" and self.unit == "spikes/bin" else self.unit
        return dataclasses.replace(self, responses=responses, window_ms=window, unit=unit, time_bins_ms=None)

    def select_sites(self, ids: Sequence[str]) -> SiteRecordings:
        """Keep some sites, in the order given.

        Parameters
        ----------
        ids : sequence of str
            Site ids.

        Returns
        -------
        SiteRecordings
            Recordings of these sites.

        Raises
        ------
        ValueError
            If a site is unknown (the closest known id is named) or given twice.
        """
        rows = positions(as_ids(ids, "site ids"), self.site_ids, "site")
        return dataclasses.replace(self, responses=self.responses[:, :, rows], sites=self.sites.iloc[rows])

    def select_stimuli(self, ids: Sequence[str]) -> SiteRecordings:
        """Keep some stimuli, in the order given.

        Parameters
        ----------
        ids : sequence of str
            Stimulus ids.

        Returns
        -------
        SiteRecordings
            Recordings of these stimuli.

        Raises
        ------
        ValueError
            If a stimulus is unknown (the closest known id is named) or given twice.
        """
        wanted = as_ids(ids, "stimulus ids")
        rows = positions(wanted, self.stimulus_ids, "stimulus")
        return dataclasses.replace(self, responses=self.responses[rows], stimulus_ids=wanted)

    def align(
        self, stimuli: HasStimulusIds | Sequence[str], extra: Literal["error", "drop"] = "error"
    ) -> SiteRecordings:
        """Put the recordings in the order of a stimulus set.

        Parameters
        ----------
        stimuli : StimulusSet or sequence of str
            The stimuli, or their ids; all of them must be in the recordings.
        extra : {"error", "drop"}
            What to do with recorded stimuli that are not among `stimuli`.

        Returns
        -------
        SiteRecordings
            Recordings with ``stimulus_ids`` equal to those of `stimuli`.

        Raises
        ------
        ValueError
            If ids are missing on either side; the sentence counts them and names up to three.

        Examples
        --------
        >>> sites = pd.DataFrame(index=pd.Index(["s0"], name="site_id"))
        >>> recorded = SiteRecordings(np.array([[[1.0]], [[2.0]]]), ("a", "b"), sites)
        >>> recorded.align(["b", "a"]).responses.ravel().tolist()
        [2.0, 1.0]
        """
        if extra not in ("error", "drop"):
            raise ValueError(f"extra is {extra!r}; give 'error' or 'drop'.")
        wanted = as_ids(getattr(stimuli, "stimulus_ids", stimuli), "stimulus ids")
        match_named(self, wanted, surplus_allowed=extra == "drop")
        return self.select_stimuli(wanted)

    def concat_stimuli(self, other: SiteRecordings) -> SiteRecordings:
        """Append the stimuli of another recording of the same sites.

        Parameters
        ----------
        other : SiteRecordings
            Recordings of other stimuli at the same sites, in any order; the shorter repeat axis is padded with NaN.

        Returns
        -------
        SiteRecordings
            This one's stimuli followed by the other's, with this one's site table; differing `meta` become
            ``{"parts": [this, other]}``.

        Raises
        ------
        ValueError
            If sites, unit, window or time bins differ, or a stimulus is in both.
        """
        match_measurement(self, other)
        refuse_shared(self.stimulus_ids, other.stimulus_ids)
        n_repeats = max(self.shape[1], other.shape[1])
        parts = [pad_repeats(r.responses, n_repeats) for r in (self, other.select_sites(self.site_ids))]
        return dataclasses.replace(
            self,
            responses=np.concatenate(parts),
            stimulus_ids=self.stimulus_ids + other.stimulus_ids,
            meta=self.meta if self.meta == other.meta else {"parts": [self.meta, other.meta]},
        )

    def check_usable(self) -> None:
        """Refuse recordings that no model can be fitted to.

        Raises
        ------
        ValueError
            If the recordings are time-resolved (choose a window with `in_window` first), there is nothing recorded, a
            response is infinite, or a site has no response at all.
        """
        refuse_unusable(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the recordings to a file, whole or not at all.

        Parameters
        ----------
        path : path-like
            ``.nc`` (netCDF with Brain-Score's names; exact), ``.nwb``, ``.h5``, ``.npz``, or one row per trial as
            ``.csv`` or ``.parquet``.

        Raises
        ------
        ValueError
            If the suffix is not one of these, or the format cannot hold a name in the recordings.
        """
        from neural_fits import recordings_io

        recordings_io.write(self, path)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        axes: str | None = None,
        window_ms: tuple[float, float] | None = None,
        dataset: str | None = None,
    ) -> SiteRecordings:
        """Read recordings from a file.

        Formats: NWB (``.nwb``), netCDF (``.nc``), the 2019 ``npc_v4_data.h5``, TVSD's ``.mat``, plain HDF5, ``.npz``
        or ``.npy`` arrays with declared axes, ``.csv`` and ``.parquet`` with one row per trial.

        Parameters
        ----------
        path : path-like
            File to read; its suffix and content say which format it is.
        axes : str, optional
            What the axes of a plain array are, for instance ``"repeat stimulus site"``.
        window_ms : tuple of float, optional
            Counting window after stimulus onset in ms: spikes are counted in it, time-resolved responses are combined
            over it, and it is noted where the file does not say.
        dataset : str, optional
            Which of several arrays, tables or sessions in the file to read.

        Returns
        -------
        SiteRecordings
            The recordings.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ImportError
            If the format needs a package that is not installed.
        ValueError
            If the suffix is unknown, the file is not what it says, or it needs an option that was not given.
        """
        from neural_fits import recordings_io

        return recordings_io.read(path, axes=axes, window_ms=window_ms, dataset=dataset)

    def __repr__(self) -> str:
        n_stimuli, n_repeats, n_sites = self.shape[:3]
        when = "window unknown" if self.window_ms is None else "{:g}-{:g} ms".format(*self.window_ms)
        when = f", {when}" if self.time_bins_ms is None else f" x {time_text(self.time_bins_ms)}"
        return f"SiteRecordings({n_stimuli} stimuli x up to {n_repeats} repeats x {n_sites} sites{when}, {self.unit})"

    def _repr_html_(self) -> str:
        from neural_fits._recordings_html import recordings_html

        return recordings_html(self)
