"""What is asked about: one number an image, such as a site's response, a class score or the activation of one unit.

In: a network and the name of the number. Out: a function images -> (image,), differentiable in the images.
Used by every other module of this folder.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from neural_fits.backbones import EMBEDDED, Backbone, load_backbone
from neural_fits.features import FeatureExtractor, resized
from neural_fits.site_model import Ensemble, SiteModel
from stimuli.hints import did_you_mean

#: what can be asked: models of sites, classifiers, layers
Network = SiteModel | Ensemble | FeatureExtractor | Backbone | nn.Module | str
#: a site's id, a class by index or name, a channel, or a unit (channel, row, column)
Target = str | int | Sequence[int]
#: images (image, channel, height, width) -> (image,)
TargetFunction = Callable[[Tensor], Tensor]


def target_function(network: Network, target: Target) -> TargetFunction:
    """Return the function from images to the one number that is asked about.

    Parameters
    ----------
    network : SiteModel, Ensemble, FeatureExtractor, Backbone, nn.Module or str
        What is looked into. Names and plain modules are read as by `load_backbone`, which freezes them and puts them in
        evaluation mode; networks of one fixed size have the images resized, others take them as they are.
    target : str, int or sequence of int
        Of a model: a site's id (response in the recording's unit). Of a classifier: a class by its index, or by name
        for networks of ImageNet's 1000 classes (score before the softmax). Of a `FeatureExtractor`: a channel (mean
        over its map), or ``(channel, row, column)`` for one unit.

    Returns
    -------
    callable
        Takes images (image, channel, height, width) in [0, 1], returns (image,).

    Raises
    ------
    ValueError
        When there is no such site, class, channel or unit; the closest name is suggested.
    TypeError
        When the target is of another kind than the network has.

    Examples
    --------
    >>> tabby = target_function("efficientnet-lite0", "tabby")
    >>> tabby(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2])
    >>> unit = target_function(FeatureExtractor("efficientnet-lite0", "blocks.2"), (3, 4, 4))
    >>> unit(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1])
    """
    if is_of_sites(network):
        return partial(_response, network, _site_index(network, target))
    if isinstance(network, FeatureExtractor):
        return partial(_activation, network, _unit(network, target))
    backbone = load_backbone(network)
    return partial(_class_score, backbone, class_index(backbone, target))


def is_of_sites(network: object) -> TypeGuard[nn.Module]:
    """Say whether a network is a model of sites.

    Parameters
    ----------
    network : object
        Anything that can be looked into.

    Returns
    -------
    bool
        Whether it names sites.
    """
    return isinstance(network, nn.Module) and hasattr(network, "site_ids")


def takes_any_range(backbone: Backbone) -> bool:
    """Say whether a network gets images as they are, without normalization.

    Parameters
    ----------
    backbone : Backbone
        The network.

    Returns
    -------
    bool
        Whether its mean is 0 and its standard deviation 1.
    """
    return not any(backbone.mean) and set(backbone.std) == {1.0}


def class_index(backbone: Backbone, target: Target) -> int:
    """Return the index of a class.

    Parameters
    ----------
    backbone : Backbone
        A classifier.
    target : str or int
        Index, or name, or WordNet id for networks of ImageNet's 1000 classes.

    Returns
    -------
    int
        Index of the class among the outputs.

    Raises
    ------
    ValueError
        When no class has that name, or several have.
    TypeError
        When the target is neither a name nor an index.

    Examples
    --------
    >>> class_index(load_backbone("efficientnet-lite0"), "Persian cat")
    283
    """
    if not isinstance(target, str):
        return _integer(target, f"a class of {backbone.name!r} is an index or a name")
    names = names_of(backbone)
    if not names:
        raise ValueError(
            f"the classes of backbone {backbone.name!r} have no names known here, {target!r} came; give the index"
        )
    words = _words(names)
    found = words.get(target.strip().lower(), ())
    if len(found) == 1:
        return found[0]
    if found:
        which = ", ".join(map(str, found))
        raise ValueError(f"{len(found)} classes are called {target!r}; give one of the indices {which}")
    raise ValueError(f"no class is called {target!r}; {_class_hint(target.lower(), names)}give a name or an index")


def names_of(network: Network) -> tuple[str, ...]:
    """Return the names of what can be asked of a network, in the order of its outputs.

    Parameters
    ----------
    network : SiteModel, Ensemble, FeatureExtractor, Backbone, nn.Module or str
        As for `target_function`.

    Returns
    -------
    tuple of str
        Ids of the sites; descriptions of ImageNet's 1000 classes for the networks of `load_backbone`; the network's own
        ``class_names`` where it has them; empty where nothing has a name.

    Examples
    --------
    >>> names_of("efficientnet-lite0")[281]
    'tabby, tabby cat'
    """
    if is_of_sites(network):
        return tuple(network.site_ids)  # type: ignore[arg-type]
    if isinstance(network, FeatureExtractor):
        return ()
    backbone = load_backbone(network)
    own = getattr(backbone.network, "class_names", None)
    if own is not None:
        return tuple(own)
    source = backbone.name.removeprefix("module:").partition(":")[0]
    outputs = [module for module in backbone.network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    last = getattr(outputs[-1], "out_features", getattr(outputs[-1], "out_channels", 0)) if outputs else 0
    return _imagenet() if (backbone.name in EMBEDDED or source in {"torchvision", "timm"}) and last == 1000 else ()


def site_indices(model: nn.Module, sites: str | Sequence[str] | None = None) -> list[int]:
    """Return the columns of sites in a model's responses.

    Parameters
    ----------
    model : SiteModel or Ensemble
        The model.
    sites : str or sequence of str, optional
        Ids of the sites wanted; all by default.

    Returns
    -------
    list of int
        Index of each site.

    Raises
    ------
    ValueError
        When there is no such site (the closest id is suggested), or none was given.
    TypeError
        When a site is asked by anything but its id.
    """
    if sites is None:
        return list(range(len(names_of(model))))
    wanted = [sites] if isinstance(sites, str) or not isinstance(sites, Iterable) else list(sites)
    if not wanted:
        raise ValueError("no site was given; name at least one, or leave sites out for all of them")
    return [_site_index(model, site) for site in wanted]


def target_name(network: Network, target: Target) -> str:
    """Return a short name of a target, for titles.

    Parameters
    ----------
    network, target : network and target
        As for `target_function`.

    Returns
    -------
    str
        The site, the first name of the class, or the unit in words.

    Examples
    --------
    >>> target_name("efficientnet-lite0", 281)
    'tabby'
    """
    if isinstance(network, FeatureExtractor):
        channel, *place = _unit(network, target)
        layer = "+".join(network.layers_read)
        return f"{layer}, channel {channel}" + (f" at {place[0]}, {place[1]}" if place else "")
    if is_of_sites(network):
        return names_of(network)[_site_index(network, target)]
    backbone = load_backbone(network)
    index, names = class_index(backbone, target), names_of(backbone)
    return names[index].split(",")[0] if 0 <= index < len(names) else f"class {index}"


def class_scores(backbone: Backbone, images: Tensor) -> Tensor:
    """Return all class scores of a classifier, before the softmax.

    Parameters
    ----------
    backbone : Backbone
        A classifier.
    images : Tensor, (image, channel, height, width)
        Values in [0, 1]; gray images are given to color networks three times.

    Returns
    -------
    Tensor, (image, class)
        Scores.

    Raises
    ------
    ValueError
        When the network yields anything else.
    """
    scores = backbone.network(network_input(backbone, images))
    if not isinstance(scores, Tensor) or scores.ndim != 2:
        got = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(
            f"{backbone.name!r} yields {got}, expected class scores (image, class); ask a layer by FeatureExtractor"
        )
    return scores


def network_input(backbone: Backbone, images: Tensor) -> Tensor:
    """Return images as the network itself takes them: its channels, its size where that is fixed, its normalization.

    Parameters
    ----------
    backbone : Backbone
        The network.
    images : Tensor, (image, channel, height, width)
        Values in [0, 1].

    Returns
    -------
    Tensor, (image, channel, height, width)
        ``(images - mean) / std``; unchanged for a plain module that takes other than three channels.

    Examples
    --------
    >>> network_input(load_backbone("efficientnet-lite0"), torch.zeros(1, 1, 8, 8)).shape
    torch.Size([1, 3, 8, 8])
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"images have shape {tuple(images.shape)} and type {images.dtype}; expected floating numbers (image, "
            "channel, height, width)"
        )
    images = resized(images, backbone.input_px if backbone.fixed_size else None)
    if takes_any_range(backbone) and _channels(backbone.network) != 3:
        return images
    if images.shape[1] not in (1, 3):
        raise ValueError(f"{backbone.name!r} takes images of 1 or 3 channels, {images.shape[1]} came")
    mean, std = (images.new_tensor(each).view(1, 3, 1, 1) for each in (backbone.mean, backbone.std))
    return ((images.expand(-1, 3, -1, -1) - mean) / std).contiguous(memory_format=torch.channels_last)


def _channels(network: nn.Module) -> int | None:
    first = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    return None if first is None else first.in_channels


def _response(model: nn.Module, index: int, images: Tensor) -> Tensor:
    responses: Tensor = model(images)
    if responses.ndim != 2:
        raise ValueError(
            f"{type(model).__name__} yields shape {tuple(responses.shape)}, expected (image, site); choose time bins "
            "of a time-resolved model by its method at"
        )
    return responses[:, index]


def _class_score(backbone: Backbone, index: int, images: Tensor) -> Tensor:
    scores = class_scores(backbone, images)
    if not 0 <= index < scores.shape[1]:
        raise ValueError(f"{backbone.name!r} has classes 0 to {scores.shape[1] - 1}, {index} came; choose one of them")
    return scores[:, index]


def _activation(extractor: FeatureExtractor, unit: tuple[int, ...], images: Tensor) -> Tensor:
    maps = extractor(images)
    if any(not 0 <= at < size for at, size in zip(unit, maps.shape[1:], strict=False)):
        channels, rows, columns = maps.shape[1:]
        raise ValueError(
            f"layer {'+'.join(extractor.layers_read)!r} has {channels} channels of {rows} x {columns} positions, "
            f"{unit if len(unit) == 3 else unit[0]} came; count from 0"
        )
    return maps[:, unit[0]].mean((1, 2)) if len(unit) == 1 else maps[:, unit[0], unit[1], unit[2]]


def _site_index(model: nn.Module, target: Target) -> int:
    sites = names_of(model)
    if not isinstance(target, str):
        raise TypeError(f"a site is asked by its id, {target!r} came; choose one of {', '.join(sites[:5])}, ...")
    if target not in sites:
        few = f"the {len(sites)} sites are {', '.join(sites[:5])}{', ...' if len(sites) > 5 else ''}"
        raise ValueError(f"the model has no site {target!r}; {did_you_mean(target, sites)}{few}")
    return sites.index(target)


def _unit(extractor: FeatureExtractor, target: Target) -> tuple[int, ...]:
    expected = f"of layer {'+'.join(extractor.layers_read)!r} ask a channel or (channel, row, column)"
    if isinstance(target, Sequence) and not isinstance(target, str):
        if len(target) != 3:
            raise ValueError(f"{expected}; {tuple(target)} came")
        return tuple(_integer(each, expected) for each in target)
    return (_integer(target, expected),)


def _integer(value: Any, expected: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{expected}; {value!r} came") from None


def _class_hint(target: str, names: tuple[str, ...]) -> str:
    """Return names that hold the word, else the closest one; a name with a number is no misspelt word."""
    whole = re.compile(rf"\b{re.escape(target.strip())}\b", re.IGNORECASE)
    holding = [next(filter(whole.search, name.split(", "))) for name in names if target.strip() and whole.search(name)]
    if holding:
        return f"classes with that word: {', '.join(holding[:5])}{', ...' if len(holding) > 5 else ''}; "
    numbered = any(letter.isdigit() for letter in target)
    alike = [word for word in _words(names) if any(letter.isdigit() for letter in word) == numbered]
    return did_you_mean(target, alike) or ("sites are asked of a SiteModel; " if numbered else "")


@cache
def _imagenet() -> tuple[str, ...]:
    from neural_fits._torchvision import import_torchvision

    import_torchvision()
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return tuple(info.index_to_description(k) for k in range(info.num_classes()))


@cache
def _words(names: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Return the classes of every name in full, of every single name, and of ImageNet's WordNet ids."""
    found: dict[str, tuple[int, ...]] = {}
    for k, name in enumerate(names):
        for word in {name.lower(), *name.lower().split(", ")}:
            found[word] = (*found.get(word, ()), k)
    if names == _imagenet():
        from timm.data import ImageNetInfo

        info = ImageNetInfo()
        found |= {info.index_to_label_name(k): (k,) for k in range(len(names))}
    return found
