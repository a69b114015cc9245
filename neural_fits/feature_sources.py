"""Features that can be read in blocks, wherever they are: in memory, or computed from images when they are read.

In: a tensor, or an extractor and its images. Out: blocks of rows (stimuli) or of columns (features). A `FeatureFile` of
the cache is a source as it is. Read by `fit_ridge_streaming`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from neural_fits.features import FeatureExtractor, for_image_batches
from stimuli import StimulusSet


class FeatureSource(Protocol):
    """Features that can be read in blocks; `FeatureFile` is one, so are `TensorSource` and `ExtractorSource`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Stimuli, channels, height, width."""

    def rows(self, start: int, stop: int) -> Tensor:
        """Features of consecutive stimuli, (stop - start, channel, height, width)."""

    def columns(self, start: int, stop: int) -> Tensor:
        """Consecutive features of all stimuli, (stimulus, stop - start)."""


@dataclass(frozen=True)
class TensorSource:
    """Features that are in memory already.

    Parameters
    ----------
    features : Tensor, (stimulus, channel, height, width)
        Features.
    """

    features: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Stimuli, channels, height, width."""
        return tuple(self.features.shape)

    def rows(self, start: int, stop: int) -> Tensor:
        """Return the features of consecutive stimuli.

        Parameters
        ----------
        start, stop : int
            First stimulus, and the one after the last.

        Returns
        -------
        Tensor, (stop - start, channel, height, width)
            Features.
        """
        return self.features[start:stop]

    def columns(self, start: int, stop: int) -> Tensor:
        """Return consecutive features of all stimuli.

        Parameters
        ----------
        start, stop : int
            First feature, and the one after the last.

        Returns
        -------
        Tensor, (stimulus, stop - start)
            Features.
        """
        return self.features.flatten(1)[:, start:stop]


class ExtractorSource:
    """Features computed when they are read: by stimuli only, for fits with fewer features than stimuli.

    Parameters
    ----------
    extractor : FeatureExtractor
        The features.
    stimuli : StimulusSet
        The images.
    batch_size : int
        Images a pass.
    """

    def __init__(self, extractor: FeatureExtractor, stimuli: StimulusSet, batch_size: int = 32) -> None:
        self.extractor, self.stimuli, self.batch_size = extractor, stimuli, batch_size
        self._shape = (len(stimuli), *self.rows(0, 1).shape[1:])

    @property
    def shape(self) -> tuple[int, ...]:
        """Stimuli, channels, height, width."""
        return self._shape

    def rows(self, start: int, stop: int) -> Tensor:
        """Return the features of consecutive stimuli.

        Parameters
        ----------
        start, stop : int
            First stimulus, and the one after the last.

        Returns
        -------
        Tensor, (stop - start, channel, height, width)
            Features.
        """
        some, device = self.stimuli.select(slice(start, stop)), self.extractor.mean.device
        return torch.cat(for_image_batches(lambda _, images: self.extractor(images), some, self.batch_size, device))

    def columns(self, start: int, stop: int) -> Tensor:
        """Refuse: one feature of all stimuli costs as much as all features.

        Parameters
        ----------
        start, stop : int
            First feature, and the one after the last.

        Returns
        -------
        Tensor
            Never.

        Raises
        ------
        ValueError
            Always.
        """
        del start, stop
        raise ValueError(
            f"{self._shape[0]} stimuli are fewer than their {int(np.prod(self._shape[1:]))} features, so features are "
            "read by columns, which an extractor cannot give; pass cache_features(extractor, stimuli, folder) instead"
        )
