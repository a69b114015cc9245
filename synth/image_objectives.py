"""Objectives that see more than sites: units of a layer, the images themselves, and a user's own function.

In: responses (image, site) and images (image, channel, height, width). Out: score (image,). They compose with those of
`objectives`, whose ``parse_objective`` reads their ``repr``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from numbers import Integral

from torch import Tensor

from synth._score_formulas import tree_sum
from synth._score_tables import Term, Terms
from synth.objectives import Objective, SiteScale, site_name
from synth.site_objectives import number


@dataclass(frozen=True, repr=False)
class LayerUnit(Objective):
    """Drive a channel or a unit of a network's layer: ``S =`` its activation, over the map or at one position.

    Its activation is a further column of the responses, named by `column`, which the engine provides; mean and standard
    deviation of that column are taken as 0 and 1 (`SiteScale.with_units`).

    Parameters
    ----------
    layer : str
        Name of the layer in the network.
    channel : int
        The channel.
    position : tuple of int, optional
        Row and column in the layer's map; by default the mean over the map.
    backbone : str
        Name of the network in an ensemble; empty means the first.

    Raises
    ------
    ValueError
        When channel or position is negative.

    Examples
    --------
    >>> LayerUnit("layer2", 7).column, LayerUnit("layer2", 7, position=(3, 4), backbone="resnet18").column
    ('layer2[7]', 'resnet18/layer2[7, 3, 4]')
    """

    layer: str
    channel: int
    position: tuple[int, int] | None = None
    backbone: str = ""

    def __post_init__(self) -> None:
        for field in ("layer", "backbone"):
            if not isinstance(getattr(self, field), str):
                raise TypeError(f"{field} is {getattr(self, field)!r}; expected a name as text")
            object.__setattr__(self, field, str(getattr(self, field)))
        if not self.layer:
            raise ValueError("layer is empty; expected the name of a layer, for example 'layer2'")
        object.__setattr__(self, "channel", _place(self.channel, "channel"))
        if self.position is not None:
            if isinstance(self.position, str) or len(self.position) != 2:
                raise ValueError(f"position is {self.position!r}; expected a row and a column, for example (3, 4)")
            row, column = (_place(value, "position") for value in self.position)
            object.__setattr__(self, "position", (row, column))

    @property
    def family(self) -> str:
        """The word 'unit'."""
        return "unit"

    @property
    def column(self) -> str:
        """Name of its column in the responses."""
        place = ", ".join(map(str, (self.channel, *(self.position or ()))))
        return f"{self.backbone + '/' if self.backbone else ''}{self.layer}[{place}]"

    @property
    def units(self) -> tuple[LayerUnit, ...]:
        """The unit itself."""
        return (self,)

    def read(self, features: Tensor) -> Tensor:
        """Return its activation from the activations of its layer.

        Parameters
        ----------
        features : Tensor, (image, channel, height, width)
            Activations of the layer.

        Returns
        -------
        Tensor, (image,)
            The mean over the channel's map, or the activation at the position.

        Raises
        ------
        ValueError
            When the layer has no such channel or position.
        """
        place = (self.channel, *(self.position or ()))
        if features.ndim != 4 or any(at >= size for at, size in zip(place, features.shape[1:], strict=False)):
            raise ValueError(
                f"layer {self.layer!r} gives (image, channel, height, width) = {tuple(features.shape)}; {self!r} is "
                "not in it"
            )
        if self.position is not None:
            return features[:, self.channel, self.position[0], self.position[1]]
        units = features[:, self.channel].flatten(1)
        return tree_sum(units) / units.shape[1]

    def _terms(self, scale: SiteScale) -> Terms:
        if self.column not in scale.site_ids:
            raise ValueError(f"the responses have no column for {self!r}; add it with SiteScale.with_units")
        return ((1.0, Term("linear", [scale.index(self.column)])),)

    def __repr__(self) -> str:
        position = "" if self.position is None else f", position={self.position!r}"
        backbone = "" if not self.backbone else f", backbone={self.backbone!r}"
        return f"LayerUnit({self.layer!r}, {self.channel!r}{position}{backbone})"


@dataclass(frozen=True, repr=False)
class Diversity(Objective):
    """Drive what another objective drives, with images that differ: ``S = S_objective - weight * mean cos(x, x_j)``.

    The mean is over the other images j (seeds) of the same objective, and 0 where there is none. Images are compared
    after averaging over blocks of ``ceil(short side / 16)`` pixels and subtraction of each image's mean, so that
    luminance, contrast and fine texture do not count. Every image moves away from the others, and they from it.

    Parameters
    ----------
    objective : Objective
        What all images are to drive.
    weight : float
        Cost of a mean similarity of 1, in units of the objective's score; at least 0.

    Raises
    ------
    TypeError
        When the objective is none.
    ValueError
        When the weight is negative or not finite.

    Examples
    --------
    >>> import torch
    >>> scale = SiteScale(("a",), torch.zeros(1), torch.ones(1))
    >>> alike = torch.eye(16).expand(2, 1, 16, 16)
    >>> Diversity(3 * LayerUnit("conv1", 0), weight=0.5)
    Diversity(3.0 * LayerUnit('conv1', 0), weight=0.5)
    >>> from synth.objectives import Stretch
    >>> Diversity(Stretch("a")).score(torch.tensor([[2.0], [4.0]]), scale, alike)
    tensor([1.0000, 3.0000])
    """

    objective: Objective
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.objective, Objective):
            raise TypeError(f"{self.objective!r} is not an objective; expected for example Stretch('site00')")
        object.__setattr__(self, "weight", _at_least_zero(self.weight))

    @property
    def family(self) -> str:
        """The word 'diverse'."""
        return "diverse"

    @property
    def target(self) -> str:
        """Target of the objective."""
        return self.objective.target

    @property
    def units(self) -> tuple[LayerUnit, ...]:
        """Layer units of the objective."""
        return self.objective.units

    @property
    def coupled(self) -> bool:
        """True: images are compared with each other."""
        return True

    def _terms(self, scale: SiteScale) -> Terms:
        return [*self.objective.flat_terms(scale), (-self.weight, Term("similarity"))]

    def __repr__(self) -> str:
        return f"Diversity({self.objective!r}{_weight(self.weight)})"


@dataclass(frozen=True, repr=False)
class MinimalContrast(Objective):
    """Drive a site to a level with the least contrast: ``S = min(z_target - level, 0) - weight * RMS``.

    ``z = (y - mean) / std`` over natural images; RMS is the standard deviation over pixels and channels of the image in
    [0, 1]. Below the level the response grows; from there on contrast alone falls. The best image lies exactly at the
    level wherever one more unit of RMS contrast can buy more than ``weight`` units of z, and short of it elsewhere.

    Parameters
    ----------
    site : str
        Name of the target site.
    level : float
        The level, in standard deviations above the mean over natural images.
    weight : float
        Units of z that one unit of RMS contrast costs; at least 0.

    Raises
    ------
    ValueError
        When a number is not finite or the weight is negative.

    Examples
    --------
    >>> import torch
    >>> scale = SiteScale(("a",), torch.zeros(1), torch.ones(1))
    >>> images = torch.tensor([0.25, 0.75]).view(1, 1, 1, 2)
    >>> MinimalContrast("a", level=2.0).score(torch.tensor([[1.0]]), scale, images)
    tensor([-1.2500])
    """

    site: str
    level: float
    weight: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "site", site_name(self.site))
        object.__setattr__(self, "level", number(self.level, "level"))
        object.__setattr__(self, "weight", _at_least_zero(self.weight))

    @property
    def family(self) -> str:
        """The word 'minimal'."""
        return "minimal"

    @property
    def target(self) -> str:
        """Name of the target site."""
        return self.site

    def _terms(self, scale: SiteScale) -> Terms:
        reached = Term("shortfall", [scale.index(self.site)], True, second=self.level)
        return ((1.0, reached), (-self.weight, Term("rms")))

    def __repr__(self) -> str:
        return f"MinimalContrast({self.site!r}, level={self.level!r}{_weight(self.weight)})"


class Custom(Objective):
    """Maximize a function of yours: ``S = function(responses, images)``.

    The function takes responses (image, site) in the recording's unit and images (image, channel, height, width) in
    [0, 1], or None where only responses are known, and returns scores (image,) with gradients. It must score every
    image by itself. While an image climbs, both are those of its random views (turned, with noise); readings are of the
    image itself.

    A function that can be imported is written as ``package.module:function``, and the objective equals the one read
    back from that text; another (a lambda, a function inside a function) equals only itself. Text alone cannot score:
    nothing is imported because a file says so.

    Parameters
    ----------
    function : callable or str
        The function, or where it can be imported from.
    name : str, optional
        Word that names it; by default the function's own name.

    Raises
    ------
    TypeError
        When it is neither callable nor text.
    ValueError
        When the text is not like ``package.module:function``.

    Examples
    --------
    >>> import torch
    >>> bright = Custom(lambda responses, images: images.mean((1, 2, 3)), name="bright")
    >>> scale = SiteScale(("a",), torch.zeros(1), torch.ones(1))
    >>> bright.score(torch.zeros(1, 1), scale, torch.full((1, 3, 8, 8), 0.5))
    tensor([0.5000])
    >>> Custom("my_lab.objectives:warm")
    Custom('my_lab.objectives:warm')
    """

    def __init__(self, function: Callable[[Tensor, Tensor | None], Tensor] | str, name: str | None = None) -> None:
        if isinstance(function, str):
            module, colon, inside = function.partition(":")
            if not (module and colon and inside) or ":" in inside:
                raise ValueError(f"function is {function!r}; expected text like 'package.module:function'")
            self.function, self.path = None, str(function)
        elif callable(function):
            kind = function if hasattr(function, "__qualname__") else type(function)
            self.function, self.path = function, f"{kind.__module__}:{kind.__qualname__}"
        else:
            raise TypeError(f"function is {function!r}; expected a function of (responses, images), or where it is")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name is {name!r}; expected text")
        self.name = self._default_name if name is None else str(name)
        own = None if self.function is None or _loaded(self.path) is self.function else id(self.function)
        self._key = (self.path, self.name, own)

    @property
    def _default_name(self) -> str:
        return self.path.partition(":")[2].rpartition(".")[2]

    @property
    def family(self) -> str:
        """The word 'custom'."""
        return "custom"

    def score(self, responses: Tensor, scale: SiteScale, images: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Return what the function returns.

        Parameters
        ----------
        responses : Tensor, (image, site)
            Responses in the recording's unit.
        scale : SiteScale
            Not used.
        images : Tensor, (image, channel, height, width), optional
            The images.

        Returns
        -------
        Tensor, (image,)
            Scores.

        Raises
        ------
        ValueError
            When the objective was read from text and has no function, or the function returns another shape.
        """
        if self.function is None:
            raise ValueError(
                f"{self!r} was read from text and cannot score; give the function itself: Custom(function)"
            )
        score = self.function(responses, images)
        if not isinstance(score, Tensor) or score.shape != (len(responses),):
            got = f"shape {tuple(score.shape)}" if isinstance(score, Tensor) else f"a {type(score).__name__}"
            raise ValueError(f"{self!r} returned {got} for {len(responses)} images; return one score per image")
        return score

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, Custom) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    def __reduce__(self) -> tuple[type[Custom], tuple[object, str]]:
        return Custom, (self.function or self.path, self.name)

    def __repr__(self) -> str:
        name = "" if self.name == self._default_name else f", name={self.name!r}"
        return f"Custom({self.path!r}{name})"


def _loaded(path: str) -> object:
    """Return what a path names in a module that is loaded already; nothing is imported."""
    module, _, inside = path.partition(":")
    return reduce(lambda found, name: getattr(found, name, None), inside.split("."), sys.modules.get(module))


def _at_least_zero(weight: float) -> float:
    if number(weight, "weight") < 0:
        raise ValueError(f"weight is {weight!r}; expected a number from 0")
    return float(weight)


def _weight(weight: float) -> str:
    return "" if weight == 1 else f", weight={weight!r}"


def _place(value: int, what: str) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{what} is {value!r}; expected whole numbers from 0")
    return int(value)
