"""What is asked of an image: functions from predicted site responses to one score per image, to be maximized.

In: responses (image, site) of a `SiteModel`, and the images. Out: score (image,). Objectives add, subtract and scale;
their ``repr`` is valid Python and names the job in every file. Here: their algebra and the two of 2019; others are in
`site_objectives` and `image_objectives`. Called by `synthesize` and, on recorded responses, by `evaluate_control`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from synth._batched_scores import score_images
from synth._score_tables import Term, Terms
from synth.site_scale import SiteScale as SiteScale

if TYPE_CHECKING:
    from synth.image_objectives import LayerUnit


class Objective:
    """A score per image to maximize; compose with ``+``, ``-`` and ``*``.

    A subclass of yours defines ``score`` alone, and ``coupled`` where images of one objective are scored together.

    Examples
    --------
    >>> Stretch("a") - 0.5 * Stretch("b")
    Stretch('a') + -0.5 * Stretch('b')
    """

    @property
    def family(self) -> str:
        """Word for the kind of objective in tables and file names, for example stretch or ohp (one-hot population)."""
        return "composed"

    @property
    def target(self) -> str:
        """Name of the site the objective drives, or an empty string."""
        return ""

    @property
    def units(self) -> tuple[LayerUnit, ...]:
        """Layer units whose activations it needs as further columns of the responses, each once."""
        return ()

    @property
    def coupled(self) -> bool:
        """Whether all images (seeds) of the objective must be scored together."""
        return False

    def score(self, responses: Tensor, scale: SiteScale, images: Tensor | None = None) -> Tensor:
        """Return the score of each image.

        Parameters
        ----------
        responses : Tensor, (image, site)
            Responses in the recording's unit.
        scale : SiteScale
            Names of the sites and their natural mean and standard deviation.
        images : Tensor, (image, channel, height, width), optional
            The images, in [0, 1]; needed by objectives that measure them.

        Returns
        -------
        Tensor, (image,)
            Scores; larger is better.

        Raises
        ------
        ValueError
            When a site has no column, shapes do not fit, or images are needed and none came.
        """
        return score_images(self._terms(scale), responses, scale, images)

    def flat_terms(self, scale: SiteScale) -> Terms:
        """Return the weighted terms of which the score is the sum; an objective that scores itself is one term.

        Parameters
        ----------
        scale : SiteScale
            Names of the columns of the responses.

        Returns
        -------
        sequence of (float, Term)
            Weights and terms.
        """
        if type(self).score is not Objective.score:
            return ((1.0, Term("own", objective=self)),)
        return self._terms(scale)

    def _terms(self, scale: SiteScale) -> Terms:
        raise NotImplementedError(f"{type(self).__name__} has no score; define score(responses, scale, images=None)")

    def __add__(self, other: Objective) -> Objective:
        return Weighted(((1.0, self), (1.0, other)))

    def __sub__(self, other: Objective) -> Objective:
        return Weighted(((1.0, self), (-1.0, other)))

    def __mul__(self, weight: float) -> Objective:
        return Weighted(((float(weight), self),))

    __rmul__ = __mul__


@dataclass(frozen=True, repr=False)
class Weighted(Objective):
    """A weighted sum of objectives: ``sum_k w_k * score_k``.

    Sums of sums are written out, so that equal sums have equal terms.

    Parameters
    ----------
    terms : tuple of (float, Objective)
        Weights and objectives.

    Raises
    ------
    TypeError
        When a term is not an objective.
    ValueError
        When there is no term, or a weight is not finite.

    Examples
    --------
    >>> Weighted(((2.0, Stretch("a")),))
    2.0 * Stretch('a')
    """

    terms: tuple[tuple[float, Objective], ...]

    def __post_init__(self) -> None:
        flat: list[tuple[float, Objective]] = []
        for weight, term in self.terms:
            if not isinstance(term, Objective):
                raise TypeError(f"{term!r} is not an objective; add and subtract objectives, multiply them by numbers")
            parts = term.terms if isinstance(term, Weighted) else ((1.0, term),)
            flat += [(float(weight) * inner, part) for inner, part in parts]
        if not flat or not all(math.isfinite(weight) for weight, _ in flat):
            raise ValueError(f"weights are {[weight for weight, _ in flat]}; expected one finite number or more")
        object.__setattr__(self, "terms", tuple(flat))

    @property
    def target(self) -> str:
        """Target of the first term."""
        return self.terms[0][1].target

    @property
    def units(self) -> tuple[LayerUnit, ...]:
        """Layer units of all terms, each once."""
        return tuple(dict.fromkeys(unit for _, term in self.terms for unit in term.units))

    @property
    def coupled(self) -> bool:
        """Whether a term is."""
        return any(term.coupled for _, term in self.terms)

    def _terms(self, scale: SiteScale) -> Terms:
        return [(weight * inner, part) for weight, term in self.terms for inner, part in term.flat_terms(scale)]

    def __repr__(self) -> str:
        alone = len(self.terms) == 1  # "1.0 * Stretch('a')" is a sum, "Stretch('a')" is not
        return " + ".join(
            repr(term) if weight == 1 and not alone else f"{weight!r} * {term!r}" for weight, term in self.terms
        )


def site_name(site: str) -> str:
    """Return the name of a site as plain text, or say what is wrong with it.

    Parameters
    ----------
    site : str
        The name; numpy's strings, which have another repr, become Python's.

    Returns
    -------
    str
        The name.

    Raises
    ------
    TypeError
        When it is not text.
    """
    if not isinstance(site, str):
        raise TypeError(f"site is {site!r}; expected the name of a site as text")
    return str(site)


@dataclass(frozen=True, repr=False)
class Stretch(Objective):
    """Drive one site as high as possible: ``S = y_target``.

    Parameters
    ----------
    site : str
        Name of the target site.

    References
    ----------
    Bashivan, Kar & DiCarlo, Science 2019: the *stretch* setting.

    Examples
    --------
    >>> import torch
    >>> scale = SiteScale(("a", "b"), torch.zeros(2), torch.ones(2))
    >>> Stretch("b").score(torch.tensor([[1.0, 3.0]]), scale)
    tensor([3.])
    """

    site: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "site", site_name(self.site))

    @property
    def family(self) -> str:
        """The word 'stretch'."""
        return "stretch"

    @property
    def target(self) -> str:
        """Name of the target site."""
        return self.site

    def _terms(self, scale: SiteScale) -> Terms:
        return ((1.0, Term("linear", [scale.index(self.site)])),)

    def __repr__(self) -> str:
        return f"Stretch({self.site!r})"


@dataclass(frozen=True, repr=False)
class OneHot(Objective):
    """Drive one site up and the others down: ``S = softmax_target(z / T)`` over a population.

    ``z = (y - mean) / std`` are responses normalized over natural images. In the logarithmic form,
    ``log softmax_target``, the gradient does not vanish where the target is far behind or far ahead.

    Parameters
    ----------
    site : str
        Name of the target site.
    population : tuple of str, optional
        The sites compared, the target among them; all sites by default.
    temperature : float
        T; smaller asks for a sharper contrast.
    form : str
        ``"log"`` (default), ``"softmax"``, or ``"paper"``: softmax on responses in the recording's unit, T = 1, as in
        the code of 2019.

    Raises
    ------
    ValueError
        For a target outside its population, a temperature that is not positive, or an unknown form.

    References
    ----------
    Bashivan, Kar & DiCarlo, Science 2019: the *one-hot population* setting.

    Examples
    --------
    >>> import torch
    >>> scale = SiteScale(("a", "b"), torch.zeros(2), torch.ones(2))
    >>> OneHot("b", form="softmax").score(torch.tensor([[1.0, 1.0]]), scale)
    tensor([0.5000])
    """

    site: str
    population: tuple[str, ...] | None = None
    temperature: float = 1.0
    form: str = "log"

    def __post_init__(self) -> None:
        object.__setattr__(self, "site", site_name(self.site))
        object.__setattr__(self, "temperature", float(self.temperature))
        if self.population is not None:
            if isinstance(self.population, str):
                raise TypeError(f"population is {self.population!r}; expected several names, for example ('a', 'b')")
            object.__setattr__(self, "population", tuple(map(site_name, self.population)))
            if self.site not in self.population:
                raise ValueError(f"target {self.site!r} is not in its population of {len(self.population)}; add it")
            if len(self.population) < 2:
                raise ValueError(f"the population of target {self.site!r} is that site alone; name at least one other")
            if len(set(self.population)) != len(self.population):
                raise ValueError(f"the population of target {self.site!r} names a site twice; name each once")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}; expected a finite number above 0")
        if self.form not in ("log", "softmax", "paper"):
            raise ValueError(f"form is {self.form!r}; expected 'log', 'softmax' or 'paper'")

    @property
    def family(self) -> str:
        """The word 'ohp'."""
        return "ohp"

    @property
    def target(self) -> str:
        """Name of the target site."""
        return self.site

    def _terms(self, scale: SiteScale) -> Terms:
        target, columns = scale.index(self.site), scale.indices(self.population)
        if len(columns) < 2:
            raise ValueError(f"there is no site beside {self.site!r}; {self!r} needs others to compare it with")
        columns = [target, *(column for column in columns if column != target)]
        others = [0.0] + [1.0] * (len(columns) - 1)
        if self.form == "paper":
            return ((1.0, Term("softmax", columns, False, others)),)
        kind = "log_softmax" if self.form == "log" else "softmax"
        return ((1.0, Term(kind, columns, True, others, self.temperature)),)

    def __repr__(self) -> str:
        parts = [repr(self.site)]
        if self.population is not None:
            parts.append(f"population={self.population!r}")
        if self.temperature != 1.0:
            parts.append(f"temperature={self.temperature!r}")
        if self.form != "log":
            parts.append(f"form={self.form!r}")
        return f"OneHot({', '.join(parts)})"


def parse_objective(text: str) -> Objective:
    """Return the objective whose ``repr`` is the text; nothing else in it is ever run.

    Parameters
    ----------
    text : str
        For example ``"OneHot('a', population=('a', 'b'))"``.

    Returns
    -------
    Objective
        The objective.

    Raises
    ------
    ValueError
        When the text is not the ``repr`` of an objective.

    Examples
    --------
    >>> parse_objective("Stretch('a') + -0.5 * Stretch('b')")
    Stretch('a') + -0.5 * Stretch('b')
    """
    from synth._parse_objective import build  # it needs all objectives, and they need this file

    return build(text)
