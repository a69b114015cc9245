"""What a rig has shown (an event log) and what was recorded then, presentation by presentation, to SiteRecordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from neural_fits._recording_checks import as_ids, as_site_table, as_window
from neural_fits.recordings import SiteRecordings
from neural_fits.spike_counts import count_in_windows
from stimuli.event_logs import EventLog

__all__ = ["line_up", "line_up_spikes"]


def line_up(
    log: EventLog,
    responses: ArrayLike,
    sites: pd.DataFrame | Sequence[str],
    *,
    window_ms: tuple[float, float] | None = None,
    time_bins_ms: Sequence[tuple[float, float]] | None = None,
    unit: str = "spikes/window",
    broken_left_out: bool = False,
) -> SiteRecordings:
    """Sort responses, one row per presentation, into (stimulus, repeat, site[, time]) by the log of the rig.

    Parameters
    ----------
    log : EventLog
        What was shown, from `stimuli.event_logs.read_event_log`.
    responses : array
        Shape (presentation, site) or (presentation, site, time), in the order of the log, with a row for every
        presentation, also the broken ones (see `broken_left_out`). NaN = rejected.
    sites : pandas.DataFrame or sequence of str
        Ids of the sites, or their table indexed by site_id.
    window_ms : tuple of float, optional
        Counting window after onset, in ms.
    time_bins_ms : sequence of (float, float), optional
        Time bins, needed exactly when the responses have a time axis.
    unit : str
        Unit of the responses.
    broken_left_out : bool
        Whether the responses have rows only for presentations that were shown whole.

    Returns
    -------
    SiteRecordings
        All stimuli of the set in its order, and then what else was shown (the gray control); NaN where a stimulus was
        not shown so often. Broken presentations are left out.

    Raises
    ------
    ValueError
        If the number of rows is not that of the presentations (with `broken_left_out`, of those shown whole), or the
        number of columns not that of the sites.
    TypeError
        If responses are not real numbers.

    Examples
    --------
    >>> from stimuli.event_logs.log import event_log
    >>> from stimuli.event_logs.names import StimulusNames
    >>> rows = {"stimulus": ["b", "a", "b"], "onset_s": [0.0, 0.2, 0.4], "shown": [True, False, True]}
    >>> log = event_log(rows, StimulusNames(["a", "b"]), format="psychopy", file="log.csv")
    >>> line_up(log, [[1.0], [2.0], [3.0]], ["s0"]).responses[:, :, 0].tolist()
    [[nan, nan], [1.0, 3.0]]
    >>> line_up(log, [[1.0], [3.0]], ["s0"], broken_left_out=True).responses[:, :, 0].tolist()
    [[nan, nan], [1.0, 3.0]]
    """
    table = sites if isinstance(sites, pd.DataFrame) else _table(sites)
    values = _as_rows(responses)
    shown = log.shown
    whole = int(shown.sum())
    if len(values) != (whole if broken_left_out else len(log)):
        remedy = (
            f"broken_left_out=True (--broken-left-out) wants {whole} rows; leave it out where each presentation has one"
            if broken_left_out
            else f"give {len(log)} rows in the order of the log, or say broken_left_out=True (--broken-left-out) where "
            "the rows of broken presentations are left out already"
        )
        raise ValueError(
            f"responses have {len(values)} rows, but {log.file!r} has {len(log)} presentations, {whole} of them shown "
            f"whole: {remedy}."
        )
    if not broken_left_out:
        values = values[shown]
    if values.shape[1] != len(table):
        raise ValueError(
            f"responses have shape {values.shape} where (presentation, site[, time]) with {len(table)} sites is "
            "expected: transpose the array or correct the sites."
        )
    seen = log.table[shown]
    order = list(dict.fromkeys([*log.stimulus_ids, *seen["stimulus_id"]]))
    position = {name: k for k, name in enumerate(order)}
    stimulus = seen["stimulus_id"].map(position).to_numpy(dtype=np.intp)
    repeat = seen["repeat"].to_numpy(dtype=np.intp)
    trials = np.full((len(order), int(repeat.max(initial=-1)) + 1, *values.shape[1:]), np.nan, dtype=np.float32)
    trials[stimulus, repeat] = values
    meta = {"event_log": log.file, "format": log.format, "presentations": len(log), "shown": whole}
    return SiteRecordings(
        trials,
        tuple(order),
        table,
        window_ms=window_ms,
        unit=unit,
        meta=meta,
        time_bins_ms=None if time_bins_ms is None else tuple(time_bins_ms),
    )


def line_up_spikes(
    log: EventLog,
    spike_times_s: Mapping[str, ArrayLike],
    window_ms: tuple[float, float],
    *,
    onsets_s: ArrayLike | None = None,
) -> SiteRecordings:
    """Count the spikes of every site in a window after each onset of the log.

    Parameters
    ----------
    log : EventLog
        What was shown.
    spike_times_s : mapping of str to array
        Spike times in s by site id, on the clock of the onsets.
    window_ms : tuple of float
        Start and end of the window after onset, in ms; a spike at its start counts, one at its end does not.
    onsets_s : array, optional
        Onsets on the clock of the spikes, one for each row of the log, such as those of a photodiode; by default those
        of the log.

    Returns
    -------
    SiteRecordings
        Counts in spikes/window.

    Raises
    ------
    ValueError
        If the window is not (start, end), an onset of a shown presentation is missing, or there is not one onset for
        each presentation.

    Examples
    --------
    >>> from stimuli.event_logs.log import event_log
    >>> from stimuli.event_logs.names import StimulusNames
    >>> log = event_log({"stimulus": ["a"], "onset_s": [2.0]}, StimulusNames(["a"]), format="bids", file="events.tsv")
    >>> line_up_spikes(log, {"s0": [2.08, 2.1, 2.2]}, (70, 170)).responses.ravel().tolist()
    [2.0]
    """
    window = as_window(window_ms)
    if window is None:
        raise ValueError("window_ms is None: give (start, end) in ms after onset, in which spikes are counted.")
    given = log.table["onset_s"] if onsets_s is None else onsets_s
    onsets = np.asarray(given, dtype=np.float64)
    if onsets.shape != (len(log),):
        raise ValueError(
            f"onsets_s has shape {onsets.shape}, but {log.file!r} has {len(log)} presentations: give one for each."
        )
    onsets = onsets[log.shown]
    if not np.isfinite(onsets).all():
        raise ValueError(f"{int((~np.isfinite(onsets)).sum())} presentations that were shown have no onset: add them.")
    columns = [count_in_windows(np.asarray(t, dtype=np.float64), onsets, window) for t in spike_times_s.values()]
    counts = np.stack(columns, axis=1) if columns else np.empty((len(onsets), 0))
    return line_up(log, counts, list(spike_times_s), window_ms=window, broken_left_out=True)


def _table(sites: Sequence[str]) -> pd.DataFrame:
    return as_site_table(pd.DataFrame(index=pd.Index(as_ids(sites, "sites"), name="site_id")))


def _as_rows(responses: ArrayLike) -> NDArray[np.float32]:
    array = np.asarray(responses)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"responses are of type {array.dtype}: give real numbers, NaN where a response was rejected.")
    if array.ndim not in (2, 3):
        raise ValueError(
            f"responses have shape {array.shape}: (presentation, site) or (presentation, site, time) is expected."
        )
    return array.astype(np.float32)
