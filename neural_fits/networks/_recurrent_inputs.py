"""What enters a recurrent network: few linear functions of the features, chosen without or with the responses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neural_fits.cross_validation import READOUTS, Option, compress
from neural_fits.readout import LinearReadout
from neural_fits.ridge import principal_scores


def local_option(features: Tensor) -> Option:
    """Return the readout that stands for "frozen and linear", on features pooled once for all folds."""
    return Option("local", compress(READOUTS["local"], features), READOUTS["local"])


def varies(responses: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Say for each column whether there is something to learn in it."""
    return np.asarray(np.nanmax(responses, 0) > np.nanmin(responses, 0))


def principal_inputs(features: Tensor, count: int) -> LinearReadout:
    """Return the map from features to their first principal components, each of variance 1 over the stimuli."""
    compressed = principal_scores(features)
    scores = compressed.features.flatten(1)
    spread = scores.std(0, correction=0)
    count = min(count, int((spread > 1e-6 * spread.max()).sum()))
    weight = torch.diag(1 / spread.clamp(min=1e-30)).flip(0)[:count]  # the last score has the largest variance
    return compressed.expand(LinearReadout(weight[:, :, None, None], -(weight @ scores.mean(0))))


@dataclass(frozen=True)
class ReadoutInputs:
    """Principal components of what linear readouts of every site and bin predict of the stimuli they are fitted on.

    Parameters
    ----------
    option : Option
        The readout.
    responses : ndarray, (stimulus, column)
        Mean responses of every site in every bin.
    count : int
        Components.
    """

    option: Option
    responses: NDArray[np.float32]
    count: int

    def of(self, rows: NDArray[np.int_]) -> LinearReadout:
        """Return the map from features to inputs, fitted on some stimuli."""
        responses = self.responses[:, varies(self.responses[rows])]
        if not responses.shape[1]:
            raise ValueError("no site varies between images in any time bin, so nothing can be fitted")
        spread = np.nanstd(responses[rows].astype(np.float64), 0)
        scaled = np.asarray(responses / spread, dtype=np.float32)
        readout = self.option.fit(scaled, rows)
        known = self.option.predict(readout, rows)
        center = known.mean(0)
        _, strength, directions = np.linalg.svd(known - center, full_matrices=False)
        count = min(self.count, int((strength > 1e-5 * strength[0]).sum()))
        mix = directions[:count] * np.sqrt(len(rows)) / strength[0]  # the first component has variance 1
        mixing = torch.from_numpy(mix).to(readout.weight)
        weight = torch.einsum("kc,cdhw->kdhw", mixing, readout.weight)
        bias = mixing @ (readout.bias - torch.from_numpy(center).to(readout.bias))
        return self.option.compressed.expand(LinearReadout(weight, bias))
