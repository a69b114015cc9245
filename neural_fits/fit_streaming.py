"""Ridge for more stimuli than a Gram matrix in double precision is worth: features stay on disk, folds share the Gram.

In: an extractor and a `FitTask`. Out: a readout and held-out predictions, as `cross_validate` gives them. Used by
`fit_sites(readout="ridge")` from `STREAM_FROM` stimuli on.
"""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from neural_fits.feature_cache import FeatureFile, cache_features
from neural_fits.features import FeatureExtractor
from neural_fits.fit_task import FitTask
from neural_fits.loo import PenaltyRule
from neural_fits.readout import LinearReadout
from neural_fits.streaming import column_blocks, fit_ridge_streaming, streaming_gram

#: stimuli from which `fit_sites` streams: below, one eigendecomposition of their Gram matrix is faster
STREAM_FROM = 8000
_ROWS = 512


def cross_validate_streaming(
    extractor: FeatureExtractor, task: FitTask, cache: str | Path | None, rule: PenaltyRule
) -> tuple[LinearReadout, NDArray[np.float32]]:
    """Fit ridge on everything and predict every fold, features read from disk in blocks.

    Parameters
    ----------
    extractor : FeatureExtractor
        The features.
    task : FitTask
        Responses and folds.
    cache : str or Path, optional
        Folder of the features; by default one that is removed at the end.
    rule : {"best", "one_se"}
        How the penalty is chosen.

    Returns
    -------
    readout : LinearReadout
        Fitted on all stimuli.
    predicted : ndarray, (stimulus, site)
        Held-out predictions.
    """
    predicted = np.full(task.responses.shape, np.nan, dtype=np.float32)
    with tempfile.TemporaryDirectory() if cache is None else nullcontext(cache) as folder:
        source = cache_features(extractor, task.stimuli, folder)
        kernel = None
        if int(np.prod(source.shape[1:])) > source.shape[0]:
            kernel = streaming_gram(block for _, block in column_blocks(source))
        for train, test in task.folds:
            known = np.full_like(task.responses, np.nan)
            known[train] = task.responses[train]
            readout = fit_ridge_streaming(source, known, rule=rule, seed=task.seed, kernel=kernel)
            predicted[test] = _predict(source, readout, test)
        readout = fit_ridge_streaming(source, task.responses, rule=rule, seed=task.seed, kernel=kernel)
    return readout.to(extractor.mean.device), predicted


def _predict(source: FeatureFile, readout: LinearReadout, chosen: NDArray[np.int_]) -> NDArray[np.float32]:
    """Predict stimuli given in ascending order, a batch of the file at a time."""
    parts = []
    for start in range(0, source.shape[0], _ROWS):
        inside = chosen[(chosen >= start) & (chosen < start + _ROWS)]
        if len(inside):
            rows = source.rows(start, min(start + _ROWS, source.shape[0]))
            parts.append(readout(rows[torch.from_numpy(inside - start)]))
    return torch.cat(parts).numpy()
