"""What a model knows of its sites beside the mapping: names, statistics, unit, and the images it takes.

Held by `SiteModel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SiteInfo:
    """What a model knows of its sites beside the mapping.

    Parameters
    ----------
    site_ids : tuple of str
        Names of the sites, in the order of the responses.
    natural_mean, natural_std : tuple of float
        Mean and standard deviation of each site's recorded mean responses over the stimuli it was fitted on.
    size_px : tuple of int
        Height and width of the images in pixels.
    size_deg : float
        Their side in degrees of visual angle.
    unit : str
        Unit of the responses.
    channels : int
        1 when the images were gray, 3 for color.

    Raises
    ------
    ValueError
        When the statistics do not match the sites.
    """

    site_ids: tuple[str, ...]
    natural_mean: tuple[float, ...]
    natural_std: tuple[float, ...]
    size_px: tuple[int, int]
    size_deg: float
    unit: str
    channels: int = 3

    def __post_init__(self) -> None:
        if not len(self.site_ids) == len(self.natural_mean) == len(self.natural_std):
            raise ValueError(
                f"{len(self.site_ids)} site ids, {len(self.natural_mean)} means and {len(self.natural_std)} standard "
                "deviations: give one of each per site"
            )

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> SiteInfo:
        """Return what a manifest says, whose lists were tuples.

        Parameters
        ----------
        entry : mapping
            The fields by name.

        Returns
        -------
        SiteInfo
            The same as was written.
        """
        lists = {key: tuple(value) for key, value in entry.items() if isinstance(value, list)}
        return cls(**{**entry, **lists})
