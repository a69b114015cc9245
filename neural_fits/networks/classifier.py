"""A network that names classes: scores, predictions, what it got right on images it never saw; saved whole.

Made by `fine_tune`; its `Backbone` goes wherever a backbone goes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from neural_fits.backbones import Backbone
from neural_fits.features import FeatureExtractor, for_image_batches
from neural_fits.networks.saved import read_saved, require_side, save_backbone
from stimuli import StimulusSet


class Classifier(nn.Module):
    """Class scores of a network with classes of its own.

    Parameters
    ----------
    backbone : Backbone
        The network.
    head : str
        The layer whose outputs are the scores.
    class_names : tuple of str
        Names of the classes, in the order of the scores.
    input_px : int, optional
        Size to which images are resized; None takes them as they are.
    tables : dict of DataFrame, optional
        What `fine_tune` measured: ``confusion`` and ``probe_confusion`` (true class by named class, on images never
        seen) and ``training`` (one row an epoch).
    provenance : dict, optional
        How it was made.

    Raises
    ------
    ValueError
        When names and scores differ in number.

    Examples
    --------
    >>> from neural_fits.networks.architectures import build_network
    >>> built = {"base": "efficientnet-lite0", "head": "classifier", "classes": 2}
    >>> network = Classifier(Backbone("own", build_network(built), built_from=built), "classifier", ("cat", "dog"))
    >>> network(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 2])
    """

    def __init__(
        self,
        backbone: Backbone,
        head: str,
        class_names: tuple[str, ...],
        input_px: int | None = None,
        tables: dict[str, pd.DataFrame] | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.extractor = FeatureExtractor(backbone, head, input_px)
        self.backbone, self.head, self.class_names = backbone, head, tuple(class_names)
        self.tables, self.provenance = dict(tables or {}), provenance or {}
        last = backbone.network.get_submodule(head)
        outputs = getattr(last, "out_features", getattr(last, "out_channels", None))
        if outputs != len(self.class_names):
            raise ValueError(f"layer {head!r} has {outputs} outputs, {len(self.class_names)} class names were given")
        self.eval().requires_grad_(False)

    @property
    def confusion(self) -> pd.DataFrame:
        """Held-out images counted by true class (rows) and named class (columns)."""
        if "confusion" not in self.tables:
            raise ValueError("the classifier was never scored on held-out images; make it by fine_tune")
        return self.tables["confusion"]

    @property
    def accuracy(self) -> float:
        """Share of the held-out images that are named rightly."""
        return share_right(self.confusion)

    def forward(self, images: Tensor) -> Tensor:
        """Return class scores before the softmax.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Values in [0, 1], gray or color.

        Returns
        -------
        Tensor, (image, class)
            Scores.
        """
        return self.extractor(images).mean((2, 3))  # a convolutional head gives a map of scores

    def predict(self, stimuli: StimulusSet, batch_size: int = 32) -> pd.DataFrame:
        """Name the class of each image.

        Parameters
        ----------
        stimuli : StimulusSet
            The images.
        batch_size : int
            Images a pass.

        Returns
        -------
        DataFrame
            One row an image: ``label``, and the probability of each class under its name.
        """
        device = self.extractor.mean.device
        parts = for_image_batches(lambda _, images: self(images).softmax(1).cpu(), stimuli, batch_size, device)
        chances = torch.cat(parts).numpy()
        labels = np.array(self.class_names, dtype=object)[chances.argmax(1)]
        table = pd.DataFrame(chances, columns=list(self.class_names))
        table.insert(0, "label", labels, allow_duplicates=True)
        return table.set_index(pd.Index(stimuli.stimulus_ids, name="stimulus_id"))

    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Write the classifier to a folder, which ``load_backbone("saved:FOLDER")`` reads as well.

        Parameters
        ----------
        folder : str or Path
            Where to write.
        overwrite : bool
            Replace a saved network that is already there.

        Returns
        -------
        Path
            The folder.
        """
        record = {
            "head": self.head,
            "class_names": self.class_names,
            "input_px": self.extractor.input_px,
            "tables": {name: _to_json(table) for name, table in self.tables.items()},
            "provenance": self.provenance,
        }
        return save_backbone(self.backbone, folder, overwrite, record)

    @classmethod
    def load(cls, folder: str | Path) -> Classifier:
        """Read a classifier written by `save`.

        Parameters
        ----------
        folder : str or Path
            The folder.

        Returns
        -------
        Classifier
            The classifier, with the same scores.

        Raises
        ------
        FileNotFoundError
            When there is no saved network.
        ValueError
            When a file was changed, or the network is no classifier.
        """
        backbone, record = read_saved(folder)
        try:
            if record["input_px"] is not None:
                require_side(record["input_px"])
            tables = {name: _from_json(table) for name, table in record["tables"].items()}
            names, head = tuple(map(str, record["class_names"])), str(record["head"])
            return cls(backbone, head, names, record["input_px"], tables, dict(record["provenance"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"the network in {str(folder)!r} has no classes of its own, or their record was damaged; read it by "
                "load_backbone('saved:FOLDER')"
            ) from error

    def __repr__(self) -> str:
        score = f", {self.accuracy:.0%} of held-out images right" if "confusion" in self.tables else ""
        return f"Classifier({self.backbone.name}, {len(self.class_names)} classes{score})"


def share_right(confusion: pd.DataFrame) -> float:
    """Return the share of images on the diagonal of a confusion table.

    Parameters
    ----------
    confusion : DataFrame
        Images by true class and named class, in one order.

    Returns
    -------
    float
        From 0 to 1.

    Examples
    --------
    >>> share_right(pd.DataFrame([[3, 1], [0, 4]]))
    0.875
    """
    return float(np.trace(confusion.to_numpy()) / max(confusion.to_numpy().sum(), 1))


def _to_json(table: pd.DataFrame) -> dict[str, Any]:
    values = [[None if pd.isna(cell) else cell for cell in row] for row in table.astype(object).to_numpy().tolist()]
    return {"data": values, "index": list(table.index), "columns": list(table.columns)}


def _from_json(table: dict[str, Any]) -> pd.DataFrame:
    try:
        return pd.DataFrame(table["data"], index=table["index"], columns=table["columns"])
    except ValueError as error:
        raise TypeError(str(error)) from error
