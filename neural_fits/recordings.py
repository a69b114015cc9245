"""SiteRecordings: recorded trials (stimulus, repeat, site), the table of sites, and what they mean.

Comes from files (`recordings_io`) or arrays; goes to `fit_sites`, `scores` and `evaluate_control`.
"""

from __future__ import annotations

import dataclasses
import html
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
    closest,
    examples,
    positions,
)
from neural_fits.reliability import random_halves, split_half_reliability

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
        Shape (stimulus, repeat, site), kept as float32; NaN = not shown or rejected.
    stimulus_ids : sequence of str
        One unique id per stimulus.
    sites : pandas.DataFrame
        One row per site, indexed by the unique ``site_id`` (str); free columns such as animal, session, region.
    window_ms : tuple of float, optional
        Start and end of the counting window after stimulus onset, in ms; None if unknown.
    unit : str
        Unit of the responses.
    meta : dict
        Anything JSON can hold: where the data came from, how it was processed.

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
    """

    responses: NDArray[np.float32]
    stimulus_ids: tuple[str, ...]
    sites: pd.DataFrame
    window_ms: tuple[float, float] | None = None
    unit: str = "spikes/window"
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        responses = as_trials(self.responses)
        ids = as_ids(self.stimulus_ids, "stimulus_ids")
        sites = as_site_table(self.sites)
        if responses.shape[0] != len(ids) or responses.shape[2] != len(sites):
            raise ValueError(
                f"responses have shape {responses.shape}, read as (stimulus, repeat, site), but there are {len(ids)} "
                f"stimulus ids and {len(sites)} sites; transpose the array or correct the ids."
            )
        if not isinstance(self.unit, str):
            raise TypeError(f"unit is a {type(self.unit).__name__}; give text such as 'spikes/window'.")
        set_field = object.__setattr__  # the dataclass is frozen for everyone else
        set_field(self, "responses", responses)
        set_field(self, "stimulus_ids", ids)
        set_field(self, "sites", sites)
        set_field(self, "window_ms", as_window(self.window_ms))
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
        """Number of recorded repeats, shape (stimulus, site)."""
        return (~np.isnan(self.responses)).sum(axis=1)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the responses, (stimulus, repeat, site)."""
        return self.responses.shape

    def mean(self) -> NDArray[np.float32]:
        """Average over the recorded repeats.

        Returns
        -------
        ndarray
            Shape (stimulus, site), in `unit`; NaN where a stimulus was never recorded at that site.
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
            Mean of one half, shape (stimulus, site); NaN where fewer than two repeats were recorded.
        second : ndarray
            Mean of the other half, with the same NaN.

        Notes
        -----
        Sites recorded on the same trials are split alike; an odd repeat goes to a random side.
        """
        first, second = random_halves(self.responses, np.random.default_rng(seed))
        return first.astype(np.float32), second.astype(np.float32)

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
        known, asked = set(self.stimulus_ids), set(wanted)
        missing = [i for i in wanted if i not in known]
        surplus = [i for i in self.stimulus_ids if i not in asked] if extra == "error" else []
        problems = []
        if missing:
            problems.append(
                f"{len(missing)} of the {len(wanted)} stimuli have no recording ({examples(missing)}"
                f"{closest(missing[0], self.stimulus_ids)})"
            )
        if surplus:
            problems.append(
                f"{len(surplus)} of the {self.n_stimuli} recorded stimuli are not in the stimulus set "
                f"({examples(surplus)}{closest(surplus[0], wanted)}; extra='drop' leaves them out)"
            )
        if problems:
            raise ValueError(f"recordings and stimuli do not match: {', and '.join(problems)}.")
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
            If sites, unit or window differ, or a stimulus is in both.
        """
        mine, theirs = self.site_ids, other.site_ids
        odd = [s for s in theirs if s not in set(mine)] or [s for s in mine if s not in set(theirs)]
        if odd:
            raise ValueError(
                f"the two recordings have {len(mine)} and {len(theirs)} sites and differ in {len(odd)} of them "
                f"({examples(odd)}); keep the common ones with select_sites first."
            )
        for name in ("unit", "window_ms"):
            if getattr(self, name) != getattr(other, name):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r} here and {getattr(other, name)!r} in the other recordings; "
                    "responses can only be joined if they were measured alike."
                )
        twice = sorted(set(self.stimulus_ids) & set(other.stimulus_ids))
        if twice:
            raise ValueError(
                f"{len(twice)} stimuli are in both recordings ({examples(twice)}); drop them from one with "
                "select_stimuli, or rename them if they are different images."
            )
        n_repeats = max(self.shape[1], other.shape[1])
        parts = [_pad_repeats(r.responses, n_repeats) for r in (self, other.select_sites(mine))]
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
            If there is nothing recorded, a response is infinite, or a site has no response at all.
        """
        if 0 in self.shape:
            raise ValueError(f"the recordings are empty: their shape (stimulus, repeat, site) is {self.shape}.")
        infinite = np.argwhere(np.isinf(self.responses))
        if len(infinite):
            i, k, s = infinite[0]
            raise ValueError(
                f"{len(infinite)} responses are infinite, the first for stimulus {self.stimulus_ids[i]!r}, repeat {k}, "
                f"site {self.site_ids[s]!r}; replace rejected trials by NaN."
            )
        silent = [s for s, n in zip(self.site_ids, self.n_repeats.sum(axis=0), strict=True) if n == 0]
        if silent:
            raise ValueError(
                f"{len(silent)} of the {len(self.site_ids)} sites have no response at all ({examples(silent, 5)}); "
                "keep the others with recordings.select_sites([...])."
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the recordings to a file, whole or not at all.

        Parameters
        ----------
        path : path-like
            ``.nc`` (netCDF with Brain-Score's names; exact) or ``.csv`` (one row per trial; without `meta`).

        Raises
        ------
        ValueError
            If the suffix is not one of these, or the format cannot hold a name in the recordings.
        """
        from neural_fits import recordings_io

        recordings_io.write(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SiteRecordings:
        """Read recordings from a file.

        Parameters
        ----------
        path : path-like
            ``.nc`` or ``.csv``.

        Returns
        -------
        SiteRecordings
            The recordings.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the suffix is unknown or the file is not what it says.
        """
        from neural_fits import recordings_io

        return recordings_io.read(path)

    def __repr__(self) -> str:
        window = "window unknown" if self.window_ms is None else "{:g}-{:g} ms".format(*self.window_ms)
        n_stimuli, n_repeats, n_sites = self.shape
        return (
            f"SiteRecordings({n_stimuli} stimuli x up to {n_repeats} repeats x {n_sites} sites, {window}, {self.unit})"
        )

    def _repr_html_(self) -> str:
        reliability = split_half_reliability(self, n_splits=10)
        known = reliability[np.isfinite(reliability)]
        counts = self.n_repeats
        summary = (
            f"split-half reliability: median {np.median(known):.2f}, range {known.min():.2f} to {known.max():.2f} "
            f"({len(known)} of {len(reliability)} sites)"
            if len(known)
            else "split-half reliability: unknown (too few repeats)"
        )
        repeats = f"{counts.min()} to {counts.max()} repeats per stimulus and site" if counts.size else "no trials"
        head = self.sites.head(8).to_html(escape=True, border=0)
        return f"<div><p><b>{html.escape(repr(self))}</b><br>{repeats}<br>{summary}</p>{head}</div>"


def _pad_repeats(responses: NDArray[np.float32], n_repeats: int) -> NDArray[np.float32]:
    return np.pad(responses, ((0, 0), (0, n_repeats - responses.shape[1]), (0, 0)), constant_values=np.nan)
