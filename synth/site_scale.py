"""Names of the columns of responses, and the scale on which sites are compared.

In: a `SiteModel`, or names and statistics of recordings. Out: `SiteScale`, which every objective is given to score.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from neural_fits.site_model import Ensemble, SiteModel
    from synth.image_objectives import LayerUnit


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
    n_units : int
        How many of the columns, at the end, are layer units and not sites; see `with_units`.

    Examples
    --------
    >>> scale = SiteScale(("a", "b"), torch.zeros(2), torch.ones(2))
    >>> scale.index("b")
    1
    """

    site_ids: tuple[str, ...]
    mean: Tensor
    std: Tensor
    n_units: int = 0

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
        if site not in self._columns:
            if not self.site_ids:
                raise ValueError(f"there is no site {site!r}: a bare network has none; ask for LayerUnit objectives")
            close = difflib.get_close_matches(site, self.site_ids, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; the first are {', '.join(self.site_ids[:5])}"
            raise ValueError(f"there is no site {site!r} among the {len(self.site_ids)}{hint}")
        return self._columns[site]

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {site: column for column, site in reversed(list(enumerate(self.site_ids)))}

    def indices(self, sites: tuple[str, ...] | None) -> list[int]:
        """Return the columns of several sites.

        Parameters
        ----------
        sites : tuple of str, optional
            Names; None means all sites, without layer units.

        Returns
        -------
        list of int
            Their columns.
        """
        return list(range(len(self.site_ids) - self.n_units)) if sites is None else [self.index(site) for site in sites]

    def with_units(self, units: Iterable[LayerUnit]) -> SiteScale:
        """Return the scale of responses to which columns of layer units were added at the end.

        Parameters
        ----------
        units : iterable of LayerUnit
            The units, in the order of their columns; their mean is 0 and their standard deviation 1.

        Returns
        -------
        SiteScale
            Names and statistics of all columns.
        """
        names = tuple(unit.column for unit in units)
        mean, std = self.mean.new_zeros(len(names)), self.std.new_ones(len(names))
        mean, std = torch.cat([self.mean, mean]), torch.cat([self.std, std])
        return SiteScale(self.site_ids + names, mean, std, self.n_units + len(names))

    def to(self, device: torch.device | str) -> SiteScale:
        """Return the same scale on a device.

        Parameters
        ----------
        device : torch.device or str
            Where the statistics go.

        Returns
        -------
        SiteScale
            The scale.
        """
        return replace(self, mean=self.mean.to(device), std=self.std.to(device))
