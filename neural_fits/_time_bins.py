"""Time bins of recordings: what is accepted, and how the bins of a counting window become one response."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from neural_fits.recordings import SiteRecordings

Bins = tuple[tuple[float, float], ...]

_SAME_MS = 1e-6  # edges that went through files and float arithmetic still meet


def as_time_bins(bins: object, responses: NDArray[Any], window_ms: tuple[float, float] | None) -> Bins | None:
    """Return the bins that go with the responses, None for responses without a time axis."""
    if responses.ndim == 3:
        if bins is not None:
            raise ValueError(
                f"time_bins_ms came with responses of shape {responses.shape}, which have no time axis; give responses "
                "(stimulus, repeat, site, time), or leave time_bins_ms out and name the counting window in window_ms."
            )
        return None
    if bins is None:
        raise ValueError(
            f"responses have four axes {responses.shape}, read as (stimulus, repeat, site, time), but no time_bins_ms; "
            f"give the (start, end) in ms of the {responses.shape[3]} time bins."
        )
    if window_ms is not None:
        raise ValueError(
            f"window_ms is {window_ms} beside responses with a time axis {responses.shape}; leave window_ms out, the "
            "bins say when, and choose a window later with recordings.in_window(start_ms, end_ms)."
        )
    listed = _pairs(bins)
    if len(listed) != responses.shape[3]:
        raise ValueError(
            f"there are {len(listed)} time_bins_ms, but responses have shape {responses.shape}, read as (stimulus, "
            f"repeat, site, time); give one (start, end) for each of the {responses.shape[3]} bins."
        )
    late = next((k for k in range(1, len(listed)) if not listed[k - 1][0] < listed[k][0]), None)
    if late is not None:
        raise ValueError(
            f"time_bins_ms must start later and later, but bin {late} {_text(*listed[late])} follows "
            f"{_text(*listed[late - 1])}; sort the bins and the last axis of responses together."
        )
    return listed


def _pairs(bins: object) -> Bins:
    given: list[Any] = list(bins) if isinstance(bins, Iterable) and not isinstance(bins, str) else [bins]
    pairs = []
    for k, pair in enumerate(given):
        try:
            start, end = (float(t) for t in pair)
        except (TypeError, ValueError):
            start = end = math.nan
        if not (math.isfinite(start) and math.isfinite(end) and start < end):
            raise ValueError(f"time_bins_ms[{k}] is {pair!r}; give (start, end) in ms with start < end for every bin.")
        pairs.append((start, end))
    return tuple(pairs)


def combine_bins(
    responses: NDArray[np.float32], bins: Bins, start_ms: float, end_ms: float, combine: str
) -> NDArray[np.float32]:
    """Return the sum or the duration-weighted mean of the bins of a window, NaN where one of them is."""
    if combine not in ("sum", "mean"):
        raise ValueError(f"combine is {combine!r}; give 'sum' (counts) or 'mean' (rates, continuous signals).")
    chosen = _in_window(bins, start_ms, end_ms)
    lengths = np.diff(np.array(bins[chosen]), axis=1)[:, 0]
    weights = np.ones(len(lengths)) if combine == "sum" else lengths / lengths.sum()
    return np.asarray(responses[..., chosen] @ weights, dtype=np.float32)


def _in_window(bins: Bins, start_ms: float, end_ms: float) -> slice:
    """Return which bins make up a window, refusing bins across an edge, gaps and overlaps."""
    exact = [k for k, b in enumerate(bins) if max(abs(b[0] - start_ms), abs(b[1] - end_ms)) <= _SAME_MS]
    if exact:  # bins may overlap (a sliding window); one of them is then a window of its own
        return slice(exact[0], exact[0] + 1)
    around = [b for b in bins if b[0] < end_ms - _SAME_MS and b[1] > start_ms + _SAME_MS]
    whole = _text(start_ms, end_ms)
    across = [b for b in around if b[0] < start_ms - _SAME_MS or b[1] > end_ms + _SAME_MS]
    if across:
        raise ValueError(
            f"the window {whole} cuts the time bin{'s' if len(across) > 1 else ''} "
            f"{', '.join(_text(*b) for b in across[:4])}; put its edges on edges of bins ({_edges(bins)})."
        )
    if not around:
        raise ValueError(
            f"no time bin lies inside the window {whole}; the {len(bins)} bins have the edges {_edges(bins)}."
        )
    starts = [start_ms, *(b[1] for b in around)]
    ends = [*(b[0] for b in around), end_ms]
    apart = next(((a, b) for a, b in zip(starts, ends, strict=True) if abs(a - b) > _SAME_MS), None)
    if apart is not None:
        problem = (
            f"nothing was recorded in {_text(*apart)}" if apart[0] < apart[1] else f"bins overlap at {apart[1]:g} ms"
        )
        raise ValueError(
            f"the bins inside the window {whole} do not fill it exactly once ({problem}); choose a window that bins "
            f"tile ({_edges(bins)})."
        )
    first = bins.index(around[0])
    return slice(first, first + len(around))


def time_text(bins: Bins) -> str:
    """Say in a few words what the bins cover."""
    return f"{len(bins)} time bins, {bins[0][0]:g}-{bins[-1][1]:g} ms" if bins else "0 time bins"


def refuse_time_resolved(recordings: SiteRecordings, what: str) -> None:
    """Refuse recordings with a time axis where one response per trial is needed."""
    if recordings.time_bins_ms is not None:
        raise ValueError(
            f"the recordings are time-resolved ({time_text(recordings.time_bins_ms)}), but {what} needs one response "
            "per trial; choose a counting window first with recordings.in_window(start_ms, end_ms, combine='sum')."
        )


def _text(start: float, end: float) -> str:
    return f"{start:g}-{end:g} ms"


def _edges(bins: Bins, most: int = 12) -> str:
    edges = np.unique(np.array(bins, dtype=float)).tolist()
    if len(edges) <= most:
        return ", ".join(f"{e:g}" for e in edges) + " ms"
    return f"{', '.join(f'{e:g}' for e in edges[: most - 2])}, ..., {edges[-1]:g} ms"
