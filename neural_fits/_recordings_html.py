"""What a notebook shows of recordings: counts, reliability and the first sites."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import numpy as np

from neural_fits.reliability import split_half_reliability

if TYPE_CHECKING:
    from neural_fits.recordings import SiteRecordings


def recordings_html(recordings: SiteRecordings) -> str:
    """Return a few lines of HTML, with every text that came from a file escaped."""
    counts = recordings.n_repeats
    repeats = f"{counts.min()} to {counts.max()} repeats per stimulus and site" if counts.size else "no trials"
    head = recordings.sites.head(8).to_html(escape=True, border=0)
    title = html.escape(repr(recordings))
    return f"<div><p><b>{title}</b><br>{repeats}<br>{_reliability(recordings)}</p>{head}</div>"


def _reliability(recordings: SiteRecordings) -> str:
    if recordings.time_bins_ms is not None:
        return "split-half reliability: choose a window with in_window(start_ms, end_ms) first"
    reliability = split_half_reliability(recordings, n_splits=10)
    known = reliability[np.isfinite(reliability)]
    if not len(known):
        return "split-half reliability: unknown (too few repeats)"
    return (
        f"split-half reliability: median {np.median(known):.2f}, range {known.min():.2f} to {known.max():.2f} "
        f"({len(known)} of {len(reliability)} sites)"
    )
