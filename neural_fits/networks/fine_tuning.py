"""A network that learns the classes of a user's pictures: new head, last blocks tuned gently, the rest as it was.

In: a backbone, a folder with one sub-folder a class (or a `StimulusSet` and labels). Out: a `Classifier`, scored on
groups of images that it never saw, beside a linear probe of the untouched network.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from neural_fits.backbones import Backbone, load_backbone
from neural_fits.features import FeatureExtractor
from neural_fits.fit import best_device
from neural_fits.folds import group_labels
from neural_fits.networks.architectures import with_weights
from neural_fits.networks.class_labels import class_index, confusion, split_groups
from neural_fits.networks.classifier import Classifier
from neural_fits.networks.tuned_part import Kept, TunedPart, default_freeze
from neural_fits.networks.tuning import Tuning, descend
from stimuli import StimulusSet
from stimuli.class_folder import images_by_class
from stimuli.provenance import provenance_record

#: penalties of the linear probe, as scikit-learn's C
_PROBE_C = (0.001, 0.01, 0.1, 1.0, 10.0)
#: smallest side of a cropped view
_SMALLEST_VIEW = 0.85


@dataclass(frozen=True)
class ClassTuning(Tuning):
    """`Tuning` of classes.

    Parameters
    ----------
    freeze, learning_rate, decay, head_rate, pull, epochs, patience, batch_size, stop_share, seed
        As for `Tuning`. A `learning_rate` of 0 trains the head alone, with a `head_rate` of 0 as well it stays the
        linear probe.
    test_share : float
        Share of the groups of each class that is never trained on, for the table of confusions.
    views : int
        Versions of each training image: as it is, mirrored, then crops of at least 85 % of its sides. All are computed
        once, below the frozen layer, and kept in memory; every epoch takes one of them for each image.
    mirror : bool
        Whether a mirrored image is still of its class; False for letters and digits.
    """

    learning_rate: float = 5e-5
    head_rate: float = 5e-5
    test_share: float = 0.25
    views: int = 4
    mirror: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.test_share <= 0.5:
            raise ValueError(f"test_share is {self.test_share!r}; expected a share above 0 and up to 0.5")
        if not isinstance(self.views, int) or self.views < 1:
            raise ValueError(f"views is {self.views!r}; expected a whole number of at least 1")


def fine_tune(
    backbone: str | nn.Module | Backbone,
    images: StimulusSet | str | os.PathLike[str],
    labels: str | Sequence[str] = "label",
    config: ClassTuning | None = None,
    *,
    head: str | None = None,
    group: str = "photograph",
    input_px: int | None = None,
    device: str | torch.device | None = None,
    progress: Callable[[str], None] | None = None,
) -> Classifier:
    """Teach a network the classes of labelled pictures.

    The head begins as the best linear classifier on the untouched network (the probe, a logistic regression), then it
    and the blocks after the frozen layer are tuned together. Batch normalization keeps its stored means and variances:
    those of small batches are noisy, depend on what else is in the batch, and would change the frozen part as well.

    Parameters
    ----------
    backbone : str, nn.Module or Backbone
        As for `load_backbone`; a copy is tuned.
    images : StimulusSet or path
        Pictures, or a folder with one sub-folder a class, read by `images_by_class` at the network's native size.
    labels : str or sequence of str
        A column of the set's table, or one label an image.
    config : ClassTuning, optional
        The settings.
    head : str, optional
        The layer to replace, whose outputs are then the scores; by default the last linear layer that runs.
    group : str
        Column whose equal values stay on one side when images are held out.
    input_px : int, optional
        Size to which images are resized; by default they enter as they are, but for networks of a fixed size.
    device : str or torch.device, optional
        Where to compute; the best there is by default.
    progress : callable, optional
        Called with one line of text as each part begins.

    Returns
    -------
    Classifier
        The tuned network with names of its classes, confusions on held-out images beside those of the probe, and the
        epochs of the training.

    Raises
    ------
    ValueError
        For one class only, a class without enough groups, labels that do not match, or a layer that is not there.
    FileNotFoundError
        When there is no such folder, or a class in it is empty.

    Examples
    --------
    >>> from stimuli import natural_photos
    >>> photos = natural_photos(48, size_px=64)
    >>> labels = ["bright" if image.mean() > 0.45 else "dark" for image in photos.images(slice(None))]
    >>> network = fine_tune("efficientnet-lite0", photos, labels, ClassTuning(epochs=1, views=1))
    >>> network.class_names, network.accuracy > 0.5
    (('bright', 'dark'), True)
    """
    config = config or ClassTuning()
    original = load_backbone(copy.deepcopy(backbone))
    stimuli = images if isinstance(images, StimulusSet) else images_by_class(images, original.input_px)
    names, truth = class_index(stimuli, labels)
    groups = group_labels(stimuli, group)
    rest, test = split_groups(truth, groups, config.test_share, config.seed, names, leave=2)
    inner, stop = split_groups(truth[rest], groups[rest], config.stop_share, config.seed + 1, names)
    train, stop = rest[inner], rest[stop]

    head = head or last_linear(original, stimuli.shape, input_px)
    extractor = FeatureExtractor(original, head, input_px)
    freeze = config.freeze or default_freeze(original, _last_block(original, head))
    part = TunedPart(extractor, freeze, stimuli.shape, best_device(device))
    say = progress or (lambda _: None)
    say(f"{len(train)} images of {len(names)} classes to train, {len(stop)} to stop, {len(test)} held out")
    views = [part.below_all(stimuli.select(train), _view(k, config)) for k in range(config.views)]
    seen = {"stop": part.below_all(stimuli.select(stop)), "test": part.below_all(stimuli.select(test))}

    weight, bias = _probe(part, head, views[0], seen["stop"], truth[train], truth[stop])
    _set_head(part.extractor.network.get_submodule(head), weight, bias)
    probe = confusion(truth[test], _scores(part, seen["test"]).argmax(1).cpu().numpy(), names)
    say(f"linear probe: {np.trace(probe.to_numpy()) / len(test):.1%} of the held-out images right")

    targets = torch.from_numpy(truth).to(weight.device)
    place = {int(row): k for k, row in enumerate(train)}
    choose = np.random.default_rng([config.seed, 1])
    chosen: dict[int, NDArray[np.int_]] = {}

    def loss(batch: NDArray[np.int_], epoch: int) -> Tensor:
        if epoch not in chosen:
            chosen[epoch] = choose.integers(len(views), size=len(train))
        rows = [place[int(row)] for row in batch]
        kept = tuple(torch.stack([views[chosen[epoch][row]][k][row] for row in rows]) for k in range(len(views[0])))
        return functional.cross_entropy(part(kept).mean((2, 3)), targets[torch.from_numpy(batch)])

    def held_out() -> float:
        return float(functional.cross_entropy(_scores(part, seen["stop"]), targets[torch.from_numpy(stop)]))

    stages = [[each for each in stage if not each[0].startswith(f"{head}.")] for stage in part.stages()]
    top = list(part.extractor.network.get_submodule(head).parameters())
    training = descend(config.rates([stage for stage in stages if stage], top), loss, train, config, held_out)
    say(f"tuned for {int(training.loc[training['kept'], 'epoch'].iloc[0])} epochs")
    table = confusion(truth[test], _scores(part, seen["test"]).argmax(1).cpu().numpy(), names)
    made = with_weights(original, part.extractor.network, "fine-tuned", head=head, classes=len(names))
    record = provenance_record(
        seed=config.seed, config=replace(config, freeze=part.freeze), inputs=_counts(names, truth)
    )
    record["held_out"] = [stimuli.stimulus_ids[k] for k in test]
    tables = {"confusion": table, "probe_confusion": probe, "training": training}
    return Classifier(made, head, names, extractor.input_px, tables, record)


def last_linear(backbone: Backbone, shape: tuple[int, int, int], input_px: int | None = None) -> str:
    """Return the linear layer that runs last, or the last 1 x 1 convolution of a network without one.

    Parameters
    ----------
    backbone : Backbone
        The network.
    shape : tuple of int
        Channels, height and width of the images.
    input_px : int, optional
        Size to which they are resized.

    Returns
    -------
    str
        Name of the layer.

    Raises
    ------
    ValueError
        When there is none, or the scores come from others as well.

    Examples
    --------
    >>> last_linear(load_backbone("efficientnet-lite0"), (3, 64, 64))
    'classifier'
    """
    found: dict[str, str] = {}
    handles = []
    reader = FeatureExtractor(backbone, backbone.layers()[0], input_px)
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)).to(reader.mean.device)
    inputs = reader.network_input(images).to(next(backbone.network.parameters()).device)
    for name, module in backbone.network.named_modules():
        convolution = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
        if isinstance(module, nn.Linear) or convolution:
            kind = "convolution" if convolution else "linear"
            handles.append(module.register_forward_hook(lambda *_, kind=kind, name=name: found.update({kind: name})))
    try:
        with torch.no_grad():
            backbone.network(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise ValueError(f"backbone {backbone.name!r} has no linear layer to replace; name a layer with head=")
    head = found.get("linear") or found["convolution"]
    silent = backbone.network.get_submodule(head).register_forward_hook(lambda *given: torch.zeros_like(given[2]))
    try:
        with torch.no_grad():
            scores = backbone.network(inputs)
    finally:
        silent.remove()
    if isinstance(scores, Tensor) and not torch.equal(scores[0], scores[1]):
        raise ValueError(
            f"the scores of backbone {backbone.name!r} come from other layers beside {head!r}, the last linear one; "
            "name the one whose outputs shall be the scores with head="
        )
    return head


def _last_block(backbone: Backbone, head: str) -> str | None:
    """Return the last layer of an outermost series, such as ``"blocks.6"``, but of the series that ends in the head."""
    own = f"{head.rpartition('.')[0]}." if "." in head else head
    blocks = [name for name in backbone.layers() if re.fullmatch(r"[^.]+\.\d+", name) and not name.startswith(own)]
    return blocks[-1] if blocks else None


def _view(k: int, config: ClassTuning) -> Callable[[Tensor], Tensor] | None:
    """Return the k-th way to change images; the same for all, so that it does not depend on the order of batches."""
    if k == 0:
        return None
    draw = np.random.default_rng([config.seed, 2, k])
    mirrored = config.mirror and k % 2 == 1
    share, x, y = draw.uniform(_SMALLEST_VIEW, 1), draw.random(), draw.random()
    share = 1.0 if config.mirror and k == 1 else share

    def change(images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        high, wide = max(1, round(share * height)), max(1, round(share * width))
        top, left = round(y * (height - high)), round(x * (width - wide))
        part = images[..., top : top + high, left : left + wide]
        if (high, wide) != (height, width):
            part = functional.interpolate(part, (height, width), mode="bilinear", antialias=True)
        return part.flip(-1) if mirrored else part

    return change


@torch.no_grad()
def _scores(part: TunedPart, kept: Kept) -> Tensor:
    rows = torch.arange(len(kept[0]), device=kept[0].device).split(64)
    return torch.cat([part(tuple(each[some] for each in kept)).mean((2, 3)) for some in rows])


def _probe(
    part: TunedPart,
    head: str,
    train: Kept,
    stop: Kept,
    labels: NDArray[np.int_],
    stop_labels: NDArray[np.int_],
) -> tuple[Tensor, Tensor]:
    """Return the head of the best logistic regression on what enters the head."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    inputs: list[Tensor] = []

    def keep(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        inputs.append(given[0].detach().flatten(2).mean(2) if given[0].ndim == 4 else given[0].detach())

    handle = part.extractor.network.get_submodule(head).register_forward_pre_hook(keep)
    both = []
    for kept in (train, stop):
        _scores(part, kept)
        both.append(torch.cat(inputs).double().cpu().numpy())
        inputs.clear()
    handle.remove()
    mean, spread = both[0].mean(0), np.maximum(both[0].std(0), 1e-6 + 1e-3 * both[0].std())
    fitted, apart = ((each - mean) / spread for each in both)
    models = [LogisticRegression(C=c, max_iter=2000).fit(fitted, labels) for c in _PROBE_C]
    every = np.unique(labels)
    best = min(models, key=lambda model: log_loss(stop_labels, model.predict_proba(apart), labels=every))
    weight, bias = best.coef_, best.intercept_
    if len(weight) == 1:  # two classes: scikit-learn keeps the difference of their scores
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / spread
    device = train[0].device
    return tuple(torch.from_numpy(each).float().to(device) for each in (weight, bias - weight @ mean))  # type: ignore[return-value]


def _set_head(layer: nn.Module, weight: Tensor, bias: Tensor) -> None:
    """Change the layer itself, so that those who watch it still do."""
    if isinstance(layer, nn.Conv2d):
        layer.out_channels = len(weight)
        layer.weight = nn.Parameter(weight[:, :, None, None])
    elif isinstance(layer, nn.Linear):
        layer.out_features = len(weight)
        layer.weight = nn.Parameter(weight)
    else:
        raise ValueError(f"the head is {type(layer).__name__}; expected a linear layer or a 1 x 1 convolution")
    layer.bias = nn.Parameter(bias)


def _counts(names: tuple[str, ...], truth: NDArray[np.int_]) -> dict[str, str]:
    counts = pd.Series(truth).value_counts()
    return {name: f"{int(counts.get(k, 0))} images" for k, name in enumerate(names)}


__all__ = ["ClassTuning", "fine_tune", "last_linear"]
