"""Which sites an objective is about.

In: objectives. Out: columns of responses. Called by `judges` and `calibration`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from synth._score_formulas import SITE_FORMULAS
from synth.objectives import Objective, SiteScale, Weighted
from synth.site_objectives import Pattern


def require_sites(objectives: Sequence[Objective]) -> None:
    """Refuse objectives that see more than the responses of sites."""
    for objective in objectives:
        if objective.units or objective.coupled or not _on_sites(objective):
            raise ValueError(
                f"{objective!r} measures the image or a network and not only sites, so responses cannot be scored by "
                "it; choose the other images with stimuli.select(...)"
            )


def _on_sites(objective: Objective) -> bool:
    names = tuple(dict.fromkeys(_names(objective)))
    scale = SiteScale(names, torch.zeros(len(names)), torch.ones(len(names)))
    try:
        return all(term.kind in SITE_FORMULAS for _, term in objective.flat_terms(scale))
    except ValueError:  # asks for sites it does not name
        return False


def _names(objective: Objective) -> list[str]:
    """Return the names in an objective, and one more, for those that compare their target with all there are."""
    if isinstance(objective, Weighted):
        return [name for _, term in objective.terms for name in _names(term)]
    if isinstance(objective, Pattern):
        return [site for site, _ in objective.values]
    others = getattr(objective, "against", None) or getattr(objective, "population", None) or ("", " ")
    return [objective.target, *others]


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


def scores(objective: Objective, responses: NDArray[np.floating], scale: SiteScale) -> NDArray[np.float64]:
    """Return the scores (row,) of responses (row, site) in the recording's unit, in double precision."""
    exact = SiteScale(scale.site_ids, scale.mean.double().cpu(), scale.std.double().cpu(), scale.n_units)
    return np.asarray(objective.score(torch.from_numpy(np.asarray(responses, dtype=np.float64)), exact).numpy())
