"""What SiteRecordings accepts, and the one sentence for everything else."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neural_fits._time_bins import refuse_time_resolved

if TYPE_CHECKING:
    from neural_fits.recordings import SiteRecordings

# Names that files use for something else than a property of a site.
RESERVED_COLUMNS = frozenset(
    {
        "image_id",
        "neuroid",
        "neuroid_id",
        "presentation",
        "repetition",
        "response",
        "response_unit",
        "responses",
        "site_id",
        "stimulus",
        "stimulus_id",
        "stimulus_order",
        "time_bin",
        "time_bin_end",
        "time_bin_start",
        "window_end_ms",
        "window_start_ms",
    }
)


def as_trials(responses: object) -> NDArray[np.float32]:
    """Return responses as float32 (stimulus, repeat, site[, time]), or say what they are instead."""
    try:
        with np.errstate(over="ignore"):  # what does not fit float32 becomes infinite, and check_usable names it
            array = np.asarray(responses)
            trials = array.astype(np.float32, copy=False) if array.dtype.kind in "biufO" else None
    except (TypeError, ValueError):
        trials = None
    if trials is None:
        raise TypeError("responses are not real numbers; give a float array (stimulus, repeat, site), NaN = not shown.")
    if trials.ndim not in (3, 4):
        hint = "; add a repeat axis with responses[:, None, :]" if trials.ndim == 2 else ""
        raise ValueError(
            f"responses have shape {trials.shape}, but (stimulus, repeat, site) or (stimulus, repeat, site, time) is "
            f"expected{hint}."
        )
    return trials


def as_ids(ids: object, what: str) -> tuple[str, ...]:
    """Return ids as a tuple of unique, non-empty text."""
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        raise TypeError(f"{what} came as {ids!r}; give a list of ids (text).")
    listed = tuple(ids)
    wrong = next((i for i in listed if not isinstance(i, str) or not i), None)
    if wrong is not None:
        raise TypeError(f"{what} hold {wrong!r}; every id must be text that is not empty, for instance str({wrong!r}).")
    if len(set(listed)) != len(listed):
        seen: set[str] = set()
        twice = [i for i in listed if i in seen or seen.add(i)]  # type: ignore[func-returns-value]
        raise ValueError(f"{what} must be unique, but {len(twice)} repeat an earlier one ({examples(twice)}).")
    return tuple(str(i) for i in listed)


def as_site_table(sites: object) -> pd.DataFrame:
    """Return a table indexed by unique text `site_id`, with columns that every file format can name."""
    if not isinstance(sites, pd.DataFrame):
        raise TypeError(
            f"sites came as a {type(sites).__name__}; give a DataFrame indexed by site_id, for instance "
            "pd.DataFrame(index=pd.Index(ids, name='site_id'))."
        )
    table = sites.set_index("site_id") if "site_id" in sites.columns else sites.copy()
    if any(not isinstance(i, str) for i in table.index):
        raise TypeError(
            f"the sites table is indexed by {table.index[0]!r} ...; give every site a text id, for instance "
            "sites.index = [f'site{i:03d}' for i in range(len(sites))]."
        )
    table.index = pd.Index(as_ids(table.index, "site ids"), name="site_id", dtype="str")
    for name in table.columns:
        if not isinstance(name, str):
            raise TypeError(f"the sites table has a column {name!r}; name columns with text.")
        if name in RESERVED_COLUMNS:
            raise ValueError(f"the sites table has a column {name!r}, a name that files use otherwise; rename it.")
    if not table.columns.is_unique:
        raise ValueError("the sites table has two columns of the same name; rename one.")
    return table


def as_window(window: object) -> tuple[float, float] | None:
    """Return (start, end) in ms with start < end, or None."""
    if window is None:
        return None
    try:
        start, end = (float(t) for t in window)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        start = end = math.nan
    if not (math.isfinite(start) and math.isfinite(end) and start < end):
        raise ValueError(f"window_ms is {window!r}; give (start, end) in ms with start < end, or None if unknown.")
    return start, end


def as_json(meta: object) -> dict[str, Any]:
    """Return a copy of `meta` as JSON would give it back."""
    if not isinstance(meta, Mapping):
        raise TypeError(f"meta is a {type(meta).__name__}; give a dict.")
    try:
        # Through JSON and back: what is kept is what a file would give back, and nobody else's to change.
        return dict(json.loads(json.dumps(dict(meta))))
    except (TypeError, ValueError) as error:
        raise TypeError(f"meta cannot be written as JSON ({error}); keep to numbers, text, lists and dicts.") from error


def match_shape(responses: NDArray[np.float32], ids: Sequence[str], sites: pd.DataFrame) -> None:
    """Refuse responses whose axes are not as long as there are stimuli and sites."""
    if responses.shape[0] != len(ids) or responses.shape[2] != len(sites):
        axes = "(stimulus, repeat, site)" if responses.ndim == 3 else "(stimulus, repeat, site, time)"
        raise ValueError(
            f"responses have shape {responses.shape}, read as {axes}, but there are {len(ids)} stimulus ids and "
            f"{len(sites)} sites; transpose the array or correct the ids."
        )


def pad_repeats(responses: NDArray[np.float32], n_repeats: int) -> NDArray[np.float32]:
    """Lengthen the repeat axis with trials that were not shown."""
    width = [(0, 0)] * responses.ndim
    width[1] = (0, n_repeats - responses.shape[1])
    return np.pad(responses, width, constant_values=np.nan)


def refuse_shared(mine: Sequence[str], theirs: Sequence[str]) -> None:
    """Refuse to append recordings of stimuli that are there already."""
    twice = sorted(set(mine) & set(theirs))
    if twice:
        raise ValueError(
            f"{len(twice)} stimuli are in both recordings ({examples(twice)}); drop them from one with select_stimuli, "
            "rename them if they are different images, or join_sessions if these are more repeats."
        )


def match_stimuli(recorded: Sequence[str], wanted: Sequence[str], surplus_allowed: bool) -> None:
    """Refuse a stimulus set that the recordings do not cover, or do not cover exactly."""
    known, asked = set(recorded), set(wanted)
    missing = [i for i in wanted if i not in known]
    surplus = [] if surplus_allowed else [i for i in recorded if i not in asked]
    problems = []
    if missing:
        problems.append(
            f"{len(missing)} of the {len(wanted)} stimuli have no recording ({examples(missing)}"
            f"{closest(missing[0], recorded)})"
        )
    if surplus:
        problems.append(
            f"{len(surplus)} of the {len(recorded)} recorded stimuli are not in the stimulus set "
            f"({examples(surplus)}{closest(surplus[0], wanted)}; extra='drop' leaves them out)"
        )
    if problems:
        raise ValueError(f"recordings and stimuli do not match: {', and '.join(problems)}.")


def match_measurement(mine: SiteRecordings, theirs: SiteRecordings) -> None:
    """Refuse two recordings of different sites, or measured differently."""
    here, there = mine.site_ids, theirs.site_ids
    odd = [s for s in there if s not in set(here)] or [s for s in here if s not in set(there)]
    if odd:
        raise ValueError(
            f"the two recordings have {len(here)} and {len(there)} sites and differ in {len(odd)} of them "
            f"({examples(odd)}); keep the common ones with select_sites first."
        )
    for name in ("unit", "window_ms", "time_bins_ms"):
        if getattr(mine, name) != getattr(theirs, name):
            raise ValueError(
                f"{name} is {getattr(mine, name)!r} here and {getattr(theirs, name)!r} in the other recordings; "
                "responses can only be joined if they were measured alike."
            )


def refuse_unusable(recordings: SiteRecordings) -> None:
    """Refuse recordings that are time-resolved, empty, infinite somewhere, or without responses at a site."""
    refuse_time_resolved(recordings, "a fit")
    if 0 in recordings.shape:
        raise ValueError(f"the recordings are empty: their shape (stimulus, repeat, site) is {recordings.shape}.")
    infinite = np.argwhere(np.isinf(recordings.responses))
    if len(infinite):
        i, k, s = infinite[0]
        raise ValueError(
            f"{len(infinite)} responses are infinite, the first for stimulus {recordings.stimulus_ids[i]!r}, repeat "
            f"{k}, site {recordings.site_ids[s]!r}; replace rejected trials by NaN."
        )
    silent = [s for s, n in zip(recordings.site_ids, recordings.n_repeats.sum(axis=0), strict=True) if n == 0]
    if silent:
        raise ValueError(
            f"{len(silent)} of the {len(recordings.site_ids)} sites have no response at all ({examples(silent, 5)}); "
            "keep the others with recordings.select_sites([...])."
        )


def changed(recordings: SiteRecordings, step: dict[str, Any], **fields: Any) -> SiteRecordings:
    """Return changed recordings whose meta tells of the step."""
    steps = [*recordings.meta.get("preprocessing", []), step]
    return dataclasses.replace(recordings, meta={**recordings.meta, "preprocessing": steps}, **fields)


def positions(wanted: Sequence[str], known: Sequence[str], what: str) -> list[int]:
    """Return where each wanted id stands among the known ones."""
    position = {name: i for i, name in enumerate(known)}
    unknown = [name for name in wanted if name not in position]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of the {len(wanted)} {what} ids are not among the {len(known)} recorded "
            f"({examples(unknown)}{closest(unknown[0], known)})."
        )
    return [position[name] for name in wanted]


def examples(names: Sequence[str], most: int = 3) -> str:
    """List the first few names for an error message."""
    return ", ".join(repr(n) for n in names[:most]) + (", ..." if len(names) > most else "")


def closest(name: str, known: Sequence[str]) -> str:
    """Return a clause naming the known name most like `name`, or nothing."""
    match = difflib.get_close_matches(name, known, n=1)
    return f"; closest to {name!r} is {match[0]!r}" if match else ""
