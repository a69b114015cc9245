"""What is asked of an image: functions from predicted site responses to one score per image, to be maximized.

In: responses (image, site) of a `SiteModel`. Out: score (image,). Objectives add, subtract and scale; their ``repr`` is
valid Python and names the job in every file. Called by `synthesize` and, on recorded responses, by `evaluate_control`.
"""

from __future__ import annotations

import ast
import difflib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from neural_fits.site_model import Ensemble, SiteModel


@dataclass(frozen=True)
class SiteScale:
    """Names of the sites and the scale on which populations are compared.

    ``z = (response - mean) / std``, mean and standard deviation taken over natural images.

    Parameters
    ----------
    site_ids : tuple of str
        Names of the columns of the responses.
    mean, std : Tensor, (site,)
        Statistics of the natural responses, in the recording's unit.

    Examples
    --------
    >>> scale = SiteScale(("a", "b"), torch.zeros(2), torch.ones(2))
    >>> scale.index("b")
    1
    """

    site_ids: tuple[str, ...]
    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, model: SiteModel | Ensemble, device: torch.device | str = "cpu") -> SiteScale:
        """Return the names and natural statistics of a model's sites.

        Parameters
        ----------
        model : SiteModel or Ensemble
            A fitted model.
        device : torch.device or str
            Where the statistics go.

        Returns
        -------
        SiteScale
            Names, means and standard deviations.
        """
        mean, std = (
            torch.tensor(values, device=device) for values in (model.info.natural_mean, model.info.natural_std)
        )
        return cls(model.site_ids, mean, std)

    def index(self, site: str) -> int:
        """Return the column of a site.

        Parameters
        ----------
        site : str
            Name of the site.

        Returns
        -------
        int
            Its column in the responses.

        Raises
        ------
        ValueError
            When there is no such site; the closest name is suggested.
        """
        if site not in self.site_ids:
            close = difflib.get_close_matches(site, self.site_ids, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; the first are {', '.join(self.site_ids[:5])}"
            raise ValueError(f"there is no site {site!r} among the {len(self.site_ids)}{hint}")
        return self.site_ids.index(site)

    def indices(self, sites: tuple[str, ...] | None) -> list[int]:
        """Return the columns of several sites.

        Parameters
        ----------
        sites : tuple of str, optional
            Names; None means all.

        Returns
        -------
        list of int
            Their columns.
        """
        return list(range(len(self.site_ids))) if sites is None else [self.index(site) for site in sites]


class Objective:
    """A score per image to maximize; compose with ``+``, ``-`` and ``*``.

    Examples
    --------
    >>> Stretch("a") - 0.5 * Stretch("b")
    Stretch('a') + -0.5 * Stretch('b')
    """

    @property
    def family(self) -> str:
        """Word for the kind of objective in tables and file names: stretch, ohp (one-hot population) or composed."""
        return "composed"

    @property
    def target(self) -> str:
        """Name of the site the objective drives, or an empty string."""
        return ""

    def score(self, responses: Tensor, scale: SiteScale) -> Tensor:
        """Return the score of each image.

        Parameters
        ----------
        responses : Tensor, (image, site)
            Responses in the recording's unit.
        scale : SiteScale
            Names of the sites and their natural mean and standard deviation.

        Returns
        -------
        Tensor, (image,)
            Scores; larger is better.
        """
        raise NotImplementedError

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

    def score(self, responses: Tensor, scale: SiteScale) -> Tensor:
        """Return the weighted sum of the terms' scores.

        Parameters
        ----------
        responses : Tensor, (image, site)
            Responses in the recording's unit.
        scale : SiteScale
            Names and natural statistics of the sites.

        Returns
        -------
        Tensor, (image,)
            Scores.
        """
        return torch.stack([weight * term.score(responses, scale) for weight, term in self.terms]).sum(0)

    def __repr__(self) -> str:
        alone = len(self.terms) == 1  # "1.0 * Stretch('a')" is a sum, "Stretch('a')" is not
        return " + ".join(
            repr(term) if weight == 1 and not alone else f"{weight!r} * {term!r}" for weight, term in self.terms
        )


def _site_name(site: str) -> str:
    if not isinstance(site, str):
        raise TypeError(f"site is {site!r}; expected the name of a site as text")
    return str(site)  # numpy's strings have another repr


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
    >>> scale = SiteScale(("a", "b"), torch.zeros(2), torch.ones(2))
    >>> Stretch("b").score(torch.tensor([[1.0, 3.0]]), scale)
    tensor([3.])
    """

    site: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "site", _site_name(self.site))

    @property
    def family(self) -> str:
        """The word 'stretch'."""
        return "stretch"

    @property
    def target(self) -> str:
        """Name of the target site."""
        return self.site

    def score(self, responses: Tensor, scale: SiteScale) -> Tensor:
        """Return the target's response.

        Parameters
        ----------
        responses : Tensor, (image, site)
            Responses in the recording's unit.
        scale : SiteScale
            Names and natural statistics of the sites.

        Returns
        -------
        Tensor, (image,)
            Response of the target site.
        """
        return responses[:, scale.index(self.site)]

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
    >>> scale = SiteScale(("a", "b"), torch.zeros(2), torch.ones(2))
    >>> OneHot("b", form="softmax").score(torch.tensor([[1.0, 1.0]]), scale)
    tensor([0.5000])
    """

    site: str
    population: tuple[str, ...] | None = None
    temperature: float = 1.0
    form: str = "log"

    def __post_init__(self) -> None:
        object.__setattr__(self, "site", _site_name(self.site))
        object.__setattr__(self, "temperature", float(self.temperature))
        if self.population is not None:
            if isinstance(self.population, str):
                raise TypeError(f"population is {self.population!r}; expected several names, for example ('a', 'b')")
            object.__setattr__(self, "population", tuple(map(_site_name, self.population)))
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

    def score(self, responses: Tensor, scale: SiteScale) -> Tensor:
        """Return the one-hot score.

        Parameters
        ----------
        responses : Tensor, (image, site)
            Responses in the recording's unit.
        scale : SiteScale
            Names and natural statistics of the sites.

        Returns
        -------
        Tensor, (image,)
            Softmax (in (0, 1)) or its logarithm at the target.
        """
        columns = scale.indices(self.population)
        values = responses if self.form == "paper" else (responses - scale.mean) / scale.std
        logits = values[:, columns] / (1.0 if self.form == "paper" else self.temperature)
        at = columns.index(scale.index(self.site))
        return (logits.log_softmax(1) if self.form == "log" else logits.softmax(1))[:, at]

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

    def build(node: ast.expr) -> Objective:
        summands: list[ast.expr] = []
        while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):  # a sum over 1,000 sites, without recursion
            summands.append(node.right)
            node = node.left
        if summands:
            return Weighted(tuple((1.0, build(part)) for part in (node, *reversed(summands))))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            weight = ast.literal_eval(node.left)
            if type(weight) not in (int, float):
                raise TypeError(f"{weight!r} is not a weight")
            return weight * build(node.right)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Stretch", "OneHot"):
            arguments = [ast.literal_eval(value) for value in node.args]
            named = {str(pair.arg): ast.literal_eval(pair.value) for pair in node.keywords}
            return (Stretch if node.func.id == "Stretch" else OneHot)(*arguments, **named)
        raise ValueError(ast.dump(node))

    try:
        return build(ast.parse(text, mode="eval").body)
    except (ValueError, TypeError, SyntaxError, OverflowError, RecursionError, MemoryError) as error:
        start = repr(text)[:200]  # hostile text can be long
        raise ValueError(f"{start} is not an objective; expected for example \"Stretch('site00')\"") from error
