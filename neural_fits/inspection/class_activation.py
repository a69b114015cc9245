"""Class activation maps of classifiers that average their last feature map: where in the image each class is seen.

In: a classifier and images, or any (trial, channel, height, width) that a plain module takes, such as spectrograms.
Out: a `ClassActivation`. Classifiers without global average pooling: `grad_cam`. Sites: `site_activation_maps`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from neural_fits.backbones import Backbone, load_backbone
from neural_fits.inspection._global_pooling import read_pooled_map
from neural_fits.inspection._images import images_for, left_as_found
from neural_fits.inspection.targets import class_index, names_of
from stimuli import StimulusSet


@dataclass(frozen=True)
class ClassActivation:
    """Class activation maps; ``maps.mean((2, 3)) + bias`` are the class scores.

    Parameters
    ----------
    maps : Tensor, (image, class, height, width)
        Evidence for each class at each position of the last feature map, in units of the class score.
    scores : Tensor, (image, class)
        Class scores before the softmax.
    bias : Tensor, (image, class)
        The part of the score that no position gives.
    class_index : Tensor, (image, class)
        Index of the class among the network's outputs, int64.
    names : tuple of tuple of str
        Name of every class for every image; ``"class 3"`` where it has none.
    """

    maps: Tensor
    scores: Tensor
    bias: Tensor
    class_index: Tensor
    names: tuple[tuple[str, ...], ...]

    def __repr__(self) -> str:
        images, classes, height, width = self.maps.shape
        return f"ClassActivation({images} images, {classes} classes, maps of {height} x {width})"


def class_activation_maps(
    backbone: str | nn.Module | Backbone,
    images: Tensor | StimulusSet,
    classes: int | str | Sequence[int | str] | None = None,
    top: int = 5,
) -> ClassActivation:
    """Return where in the image each class is seen: ``M_c(x, y) = sum_k w_k^c f_k(x, y)``.

    ``f`` is the last feature map and ``w`` the linear layer behind its mean over positions, so that the score is the
    mean of the map and the class's offset, exactly: ``S_c = mean(M_c) + b_c``. Which map and layer these are is found
    by running the network once and comparing numbers, whatever its attributes are called; a network that rectifies the
    map before pooling (DenseNet) or pools a map of classes (SqueezeNet) counts too. The sum is checked on your images.

    Parameters
    ----------
    backbone : str, nn.Module or Backbone
        A classifier, as for `load_backbone`. A plain module gets images of other than three channels as they are.
    images : Tensor or StimulusSet, (image, channel, height, width)
        Values in [0, 1] for networks of images.
    classes : int, str, or sequence of them, optional
        Index or name of the classes wanted. By default those of the highest scores, image by image.
    top : int
        How many of them.

    Returns
    -------
    ClassActivation
        Maps, scores, offsets, indices and names; images stay in their order.

    Raises
    ------
    ValueError
        For a network without global average pooling straight before one linear layer (use `grad_cam`), an unknown
        class, or images of other axes, not finite or out of range.
    TypeError
        When the network is a model of sites (use `site_activation_maps`), the images are no floating numbers, or a
        class is neither an index nor a name.

    Notes
    -----
    Source: Zhou, Khosla, Lapedriza, Oliva & Torralba 2016, Learning deep features for discriminative localization.

    Examples
    --------
    >>> found = class_activation_maps("efficientnet-lite0", torch.rand(2, 3, 96, 96), classes="tabby")
    >>> found
    ClassActivation(2 images, 1 classes, maps of 3 x 3)
    >>> torch.allclose(found.maps.mean((2, 3)) + found.bias, found.scores, atol=1e-4)
    True
    """
    if hasattr(backbone, "site_ids"):
        raise TypeError(
            f"a {type(backbone).__name__} has sites, not classes; use site_activation_maps(model, images, sites)"
        )
    with left_as_found(backbone):
        network = load_backbone(backbone)
        read = read_pooled_map(network, images_for(backbone, images))
    total = read.scores.shape[1]
    if classes is None:
        if not 1 <= top <= total:
            raise ValueError(f"top is {top}; {network.name!r} has {total} classes, give 1 to {total}")
        index = read.scores.topk(top, dim=1).indices
    else:
        wanted = list(np.atleast_1d(np.asarray(classes, dtype=object)))
        if not wanted:
            raise ValueError("no class was given; name at least one, or leave classes out for the highest scores")
        numbers = [class_index(network, each) for each in wanted]
        wrong = [each for each in numbers if not 0 <= each < total]
        if wrong:
            raise ValueError(f"{network.name!r} has classes 0 to {total - 1}, {wrong[0]} came; choose one of them")
        index = torch.tensor(numbers, device=read.scores.device).expand(len(images), -1)
    maps = torch.einsum("nckl,nac->nakl", read.maps, read.weight[index])
    known = names_of(network)
    names = tuple(
        tuple(known[k].split(",")[0] if k < len(known) else f"class {k}" for k in row) for row in index.tolist()
    )
    return ClassActivation(maps, read.scores.gather(1, index), read.bias[index], index, names)
