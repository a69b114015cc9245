"""Further objectives on responses: a site low, a site against others, a whole pattern.

In: responses (image, site). Out: score (image,). They compose with those of `objectives`, whose ``parse_objective``
reads their ``repr``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real

from synth._score_tables import Term, Terms
from synth.objectives import Objective, SiteScale, site_name


@dataclass(frozen=True, repr=False)
class Suppress(Objective):
    """Drive one site as low as possible: ``S = -y_target``.

    Parameters
    ----------
    site : str
        Name of the target site.

    Examples
    --------
    >>> import torch
    >>> scale = SiteScale(("a", "b"), torch.zeros(2), torch.ones(2))
    >>> Suppress("b").score(torch.tensor([[1.0, 3.0]]), scale)
    tensor([-3.])
    """

    site: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "site", site_name(self.site))

    @property
    def family(self) -> str:
        """The word 'suppress'."""
        return "suppress"

    @property
    def target(self) -> str:
        """Name of the target site."""
        return self.site

    def _terms(self, scale: SiteScale) -> Terms:
        return ((-1.0, Term("linear", [scale.index(self.site)])),)

    def __repr__(self) -> str:
        return f"Suppress({self.site!r})"


@dataclass(frozen=True, repr=False)
class Contrast(Objective):
    """Drive one site against named others: ``S = z_target - mean z_others``.

    ``z = (y - mean) / std`` are responses normalized over natural images. The score is linear, so it never saturates,
    and others may be pushed below their natural mean; where each other site counts only while it rivals the target,
    use `OneHot` with a population.

    Parameters
    ----------
    site : str
        Name of the target site.
    against : tuple of str
        Names of the others, at least one.

    Raises
    ------
    ValueError
        When others are missing, repeated, or hold the target.

    Examples
    --------
    >>> import torch
    >>> scale = SiteScale(("a", "b", "c"), torch.zeros(3), torch.ones(3))
    >>> Contrast("a", against=("b", "c")).score(torch.tensor([[5.0, 1.0, 3.0]]), scale)
    tensor([3.])
    """

    site: str
    against: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "site", site_name(self.site))
        if isinstance(self.against, str):
            raise TypeError(f"against is {self.against!r}; expected several names, for example ('b', 'c')")
        object.__setattr__(self, "against", tuple(map(site_name, self.against)))
        if not self.against or self.site in self.against or len(set(self.against)) != len(self.against):
            raise ValueError(
                f"target {self.site!r} is set against {len(self.against)} sites; name each other site once, and not "
                "the target"
            )

    @property
    def family(self) -> str:
        """The word 'contrast'."""
        return "contrast"

    @property
    def target(self) -> str:
        """Name of the target site."""
        return self.site

    def _terms(self, scale: SiteScale) -> Terms:
        columns = [scale.index(self.site), *scale.indices(self.against)]
        share = -1.0 / len(self.against)
        return ((1.0, Term("linear", columns, True, [1.0] + [share] * len(self.against))),)

    def __repr__(self) -> str:
        return f"Contrast({self.site!r}, against={self.against!r})"


@dataclass(frozen=True, repr=False)
class Pattern(Objective):
    """Clamp sites to a pattern: ``S = -sum_j w_j (r_j - v_j)^2 / sum_j w_j``.

    r is the response in the unit of the values: ``z = (y - mean) / std`` over natural images, or the recording's.

    Parameters
    ----------
    values : mapping or tuple of (str, float)
        The sites and the values v wanted.
    weights : mapping or tuple of float, optional
        The weight w of every site: by name, or in the order of the values; equal by default. At least one above 0.
    form : str
        Unit of the values: ``"z"`` (default) or ``"recording"``.

    Raises
    ------
    ValueError
        When a site is repeated, a number is not finite, or weights do not fit the values.

    Examples
    --------
    >>> import torch
    >>> scale = SiteScale(("a", "b"), torch.zeros(2), torch.ones(2))
    >>> Pattern({"a": 1.0, "b": 0.0}).score(torch.tensor([[1.0, 2.0]]), scale)
    tensor([-2.])
    """

    values: tuple[tuple[str, float], ...]
    weights: tuple[float, ...] | None = None
    form: str = "z"

    def __init__(
        self,
        values: Mapping[str, float] | Iterable[tuple[str, float]],
        weights: Mapping[str, float] | Iterable[float] | None = None,
        form: str = "z",
    ) -> None:
        pairs = tuple(values.items() if isinstance(values, Mapping) else values)
        if any(isinstance(pair, str) or len(pair) != 2 for pair in pairs):
            raise ValueError(f"values are {pairs!r}; expected pairs of a site and a number")
        wanted = tuple((site_name(site), number(value, f"the value of {site!r}")) for site, value in pairs)
        sites = [site for site, _ in wanted]
        if not sites or len(set(sites)) != len(sites):
            raise ValueError(f"a pattern has values for {sites}; name at least one site, and each once")
        if isinstance(weights, Mapping):
            if set(weights) != set(sites):
                raise ValueError(f"weights are given for {list(weights)}; expected those of the values, {sites}")
            weights = [weights[site] for site in sites]
        if weights is not None:
            weights = tuple(number(weight, "a weight") for weight in weights)
            if len(weights) != len(sites) or min(weights) < 0 or not 0 < math.fsum(weights) < math.inf:
                raise ValueError(f"weights are {weights}; expected {len(sites)} numbers from 0, not all of them 0")
        if form not in ("z", "recording"):
            raise ValueError(f"form is {form!r}; expected 'z' or 'recording'")
        for name, value in (("values", wanted), ("weights", weights), ("form", str(form))):
            object.__setattr__(self, name, value)

    @property
    def family(self) -> str:
        """The word 'pattern'."""
        return "pattern"

    def _terms(self, scale: SiteScale) -> Terms:
        columns = [scale.index(site) for site, _ in self.values]
        weights = self.weights or (1.0,) * len(columns)
        total = math.fsum(weights)
        shares, wanted = [weight / total for weight in weights], [value for _, value in self.values]
        return ((1.0, Term("squares", columns, self.form == "z", shares, wanted)),)

    def __repr__(self) -> str:
        weights = "" if self.weights is None else f", weights={self.weights!r}"
        form = "" if self.form == "z" else f", form={self.form!r}"
        return f"Pattern({self.values!r}{weights}{form})"


def number(value: float, what: str) -> float:
    """Return a finite Python float, or say what is wrong with it.

    Parameters
    ----------
    value : float
        Any real number.
    what : str
        What it is, for the message.

    Returns
    -------
    float
        The number.

    Raises
    ------
    TypeError
        When it is not a number.
    ValueError
        When it is not finite.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{what} is {value!r}; expected a number")
    if not math.isfinite(value):
        raise ValueError(f"{what} is {value!r}; expected a finite number")
    return float(value)
