"""Which sites an objective is about.

In: objectives. Out: columns of responses. Called by `judges`, `calibration`, `_recorded_scores` and the closed loop.
"""

from __future__ import annotations

from collections.abc import Sequence

from synth.objectives import Objective, OneHot, SiteScale, Stretch, Weighted
from synth.site_objectives import Contrast, Pattern, Suppress

_OF_SITES = (Stretch, OneHot, Suppress, Contrast, Pattern)


def is_of_sites(objective: Objective) -> bool:
    """Say whether recorded responses of sites can judge an objective."""
    if isinstance(objective, Weighted):
        return all(is_of_sites(term) for _, term in objective.terms)
    return isinstance(objective, _OF_SITES)


def require_sites(objectives: Sequence[Objective]) -> None:
    """Refuse objectives that see more than the responses of sites."""
    for objective in objectives:
        if not is_of_sites(objective):
            raise ValueError(
                f"{objective!r} measures the image or a network and not only sites, so responses cannot be scored by "
                "it; choose the other images with stimuli.select(...)"
            )


def targeted_columns(objective: Objective, scale: SiteScale) -> list[int]:
    """Return the columns of the sites that images of an objective are made to move: targets, or a whole pattern."""
    if isinstance(objective, Weighted):
        return sorted({column for _, term in objective.terms for column in targeted_columns(term, scale)})
    if isinstance(objective, Pattern):
        return [scale.index(site) for site, _ in objective.values]
    return [scale.index(objective.target)] if objective.target else []


def read_columns(objective: Objective, scale: SiteScale) -> list[int]:
    """Return the columns of all sites that the score depends on."""
    return sorted({int(column) for _, term in objective.flat_terms(scale) for column in term.columns})
