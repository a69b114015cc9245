"""Sessions become one recording: normalized by images shown in all of them, sites matched by id, repeats side by side.

In: one `SiteRecordings` per session (`SiteRecordings.load`). Out: one for `fit_sites`, with what was done in its meta.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neural_fits._recording_checks import as_ids, changed, closest, examples, match_measurement
from neural_fits._time_bins import refuse_time_resolved
from neural_fits.recordings import SiteRecordings

__all__ = ["join_sessions", "normalize_sessions"]

_FLAT = 1e-6  # spread relative to the responses below which only float32 rounding is left


def join_sessions(sessions: Sequence[SiteRecordings], normalizers: Sequence[str] | None = None) -> SiteRecordings:
    """Put sessions together: their repeats side by side, over the union of their stimuli and of their sites.

    Parameters
    ----------
    sessions : sequence of SiteRecordings
        One per session, in one unit and window. Sites are matched by their ids alone: what has one id in two
        sessions is taken as one site.
    normalizers : sequence of str, optional
        Ids of stimuli shown in every session; the sessions are then normalized by them first, see
        `normalize_sessions`.

    Returns
    -------
    SiteRecordings
        Stimuli and sites in order of first appearance, each row of the site table from the first session that has the
        site. The repeat axis holds one block per session, NaN where a stimulus was not shown in it or it lacks the
        site; ``meta["sessions"]`` has the meta of every session.

    Raises
    ------
    ValueError
        If there is no session, unit or window differ, or normalizing is not possible.

    Examples
    --------
    >>> import pandas as pd
    >>> sites = pd.DataFrame(index=pd.Index(["s0"], name="site_id"))
    >>> monday = SiteRecordings(np.array([[[1.0]], [[3.0]]]), ("a", "b"), sites)
    >>> tuesday = SiteRecordings(np.array([[[6.0]], [[2.0]]]), ("b", "a"), sites)
    >>> join_sessions([monday, tuesday]).responses[:, :, 0].tolist()
    [[1.0, 2.0], [3.0, 6.0]]
    >>> join_sessions([monday, tuesday], normalizers=["a", "b"]).mean().ravel().round(2)
    array([1.42, 4.58], dtype=float32)
    """
    first, *others = _over_all_sites(sessions)
    if normalizers is not None:
        first, *others = normalize_sessions([first, *others], normalizers)
    ids = tuple(dict.fromkeys(name for session in (first, *others) for name in session.stimulus_ids))
    row = {name: i for i, name in enumerate(ids)}
    n_repeats = [session.shape[1] for session in (first, *others)]
    ends = np.cumsum(n_repeats)
    responses = np.full((len(ids), int(ends[-1]), *first.shape[2:]), np.nan, dtype=np.float32)
    for session, end, count in zip((first, *others), ends, n_repeats, strict=True):
        responses[[row[name] for name in session.stimulus_ids], end - count : end] = session.responses
    step = {"step": "join_sessions", "repeats_per_session": n_repeats}
    meta = {"sessions": [session.meta for session in (first, *others)], "preprocessing": [step]}
    return dataclasses.replace(first, responses=responses, stimulus_ids=ids, meta=meta)


def normalize_sessions(sessions: Sequence[SiteRecordings], normalizers: Sequence[str]) -> list[SiteRecordings]:
    """Scale the responses of every session so that the normalizer images agree across sessions, site by site.

    ``y' = (y - m_d) / s_d * S + M``, with m_d and s_d the mean and sd (ddof 0) over normalizer images of session d's
    mean responses, ``M = mean_d m_d`` and ``S = sqrt(mean_d s_d^2)``: the unit stays.

    Parameters
    ----------
    sessions : sequence of SiteRecordings
        One per session, in one unit and window. Sites are matched by their ids alone.
    normalizers : sequence of str
        Ids of at least two stimuli shown in every session.

    Returns
    -------
    list of SiteRecordings
        The sessions in the order given, each over the sites of all in order of first appearance.

    Raises
    ------
    ValueError
        If a normalizer is missing in a session, a site answers equally to all of them, unit or window differ, or the
        recordings are time-resolved.

    Notes
    -----
    The means over d go over the sessions that have the site: one with a single session stays as it is. A site uses the
    normalizers it was recorded with in all of its sessions; in a session that lacks it, it is NaN. The sd of mean
    responses holds their noise, so show normalizers equally often in every session: a session with fewer repeats of
    them would be scaled down.

    Examples
    --------
    >>> import pandas as pd
    >>> sites = pd.DataFrame(index=pd.Index(["s0"], name="site_id"))
    >>> days = [SiteRecordings(np.array([[[0.0]], [[2.0]]]) + k, ("a", "b"), sites) for k in (0, 10)]
    >>> [day.mean().ravel().tolist() for day in normalize_sessions(days, ["a", "b"])]
    [[5.0, 7.0], [5.0, 7.0]]
    """
    alike = _over_all_sites(sessions)
    refuse_time_resolved(alike[0], "normalizing")
    ids = as_ids(normalizers, "normalizers")
    if len(ids) < 2:
        raise ValueError(f"there are {len(ids)} normalizers; give at least 2 stimuli that every session has shown.")
    for number, session in enumerate(alike, start=1):
        known = set(session.stimulus_ids)
        absent = [name for name in ids if name not in known]
        if absent:
            raise ValueError(
                f"session {number} of {len(alike)} lacks {len(absent)} of the {len(ids)} normalizers "
                f"({examples(absent)}{closest(absent[0], session.stimulus_ids)}); give stimuli shown in every session."
            )
    means = np.stack([session.select_stimuli(ids).mean().astype(np.float64) for session in alike])
    recorded = np.stack([session.n_repeats.any(axis=0) for session in alike])  # (session, site)
    shown = np.isfinite(means) | ~recorded[:, None, :]
    common = np.logical_and.reduce(shown, axis=0)  # (normalizer, site)
    _enough_normalizers(common, shown, ids, alike)
    means = np.where(common, means, np.nan)
    center = _over_used(means, recorded)
    spread = np.sqrt(_over_used(np.square(means - center[:, None, :]), recorded))
    largest = np.nanmax(np.abs(np.where(recorded[:, None, :], means, 0.0)), axis=1, initial=0.0)
    flat = recorded & (spread <= _FLAT * largest)
    if flat.any():
        day, site = np.argwhere(flat)[0]
        raise ValueError(
            f"{int(flat.any(axis=0).sum())} sites answer equally to all normalizers in a session, the first "
            f"{alike[0].site_ids[site]!r} in session {day + 1}; leave them out with select_sites, or choose "
            "normalizers that drive them."
        )
    sessions_of_site = np.maximum(recorded.sum(axis=0), 1)
    target_center = np.where(recorded, center, 0.0).sum(axis=0) / sessions_of_site
    target_spread = np.sqrt(np.where(recorded, spread**2, 0.0).sum(axis=0) / sessions_of_site)
    done = []
    for session, own_center, own_spread in zip(alike, center, spread, strict=True):
        scaled = (session.responses - own_center) / np.where(own_spread > 0, own_spread, 1.0)
        step = {"step": "normalize_sessions", "normalizers": list(ids), "sessions": len(alike)}
        done.append(changed(session, step, responses=scaled * target_spread + target_center))
    return done


def _over_all_sites(sessions: Sequence[SiteRecordings]) -> list[SiteRecordings]:
    """Return every session over the sites of all in order of first appearance, NaN where it lacks one."""
    if isinstance(sessions, SiteRecordings) or not len(sessions):
        raise ValueError("no list of sessions came; give one SiteRecordings per session, such as [monday, tuesday].")
    ids = list(dict.fromkeys(name for session in sessions for name in session.site_ids))
    column = {name: k for k, name in enumerate(ids)}
    spread_out = []
    for session in sessions:
        n_stimuli, n_repeats, _, *bins = session.shape
        responses = np.full((n_stimuli, n_repeats, len(ids), *bins), np.nan, dtype=np.float32)
        responses[:, :, [column[name] for name in session.site_ids]] = session.responses
        sites = _site_table([session, *sessions]).loc[ids]
        spread_out.append(dataclasses.replace(session, responses=responses, sites=sites))
        match_measurement(spread_out[0], spread_out[-1])
    return spread_out


def _site_table(sessions: Sequence[SiteRecordings]) -> pd.DataFrame:
    """Return one row per site of all sessions, from the first that has it."""
    known: set[str] = set()
    parts: list[pd.DataFrame] = []
    for session in sessions:
        new = [name for name in session.site_ids if name not in known]
        known.update(new)
        if new or not parts:
            parts.append(session.sites.loc[new])
    if all(part.dtypes.equals(parts[0].dtypes) for part in parts):
        return pd.concat(parts)
    # pandas warns of columns that are empty in one part unless all are of one type.
    return pd.concat([part.astype(object) for part in parts]).infer_objects()


def _enough_normalizers(
    common: NDArray[np.bool_], shown: NDArray[np.bool_], ids: Sequence[str], sessions: Sequence[SiteRecordings]
) -> None:
    few = np.flatnonzero(common.sum(axis=0) < 2)
    if len(few):
        day, row = np.argwhere(~shown[:, :, few[0]])[0]
        raise ValueError(
            f"{len(few)} sites have fewer than 2 normalizers in all of their sessions: site "
            f"{sessions[0].site_ids[few[0]]!r} has no response to {ids[row]!r} in session {day + 1}, for instance; "
            "leave these sites out with select_sites, or give other normalizers."
        )


def _over_used(values: NDArray[np.float64], recorded: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean over normalizers of (session, normalizer, site), NaN left out; NaN where the site was not recorded."""
    finite = np.isfinite(values)
    mean = np.where(finite, values, 0.0).sum(axis=1) / np.maximum(finite.sum(axis=1), 1)
    return np.where(recorded, mean, np.nan)
