"""Photographs to start from: for every objective those that the driver scores best.

An image that starts from the best photograph keeps what natural images have and the driver does not see; from noise,
sites that prefer smooth contours were driven less than by photographs. Called by `synthesize` for recipes whose start
is ``"natural"``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from neural_fits.features import for_image_batches
from stimuli import StimulusSet, natural_photos
from synth.driver import Driver
from synth.objectives import Objective

#: photographs among which starts are found when none are given
_EMBEDDED = 320


def photographs_for(driver: Driver, given: StimulusSet | None) -> StimulusSet:
    """Return the photographs given, or crops of the embedded ones that fit the driver.

    Parameters
    ----------
    driver : Driver
        Tells size and channels.
    given : StimulusSet, optional
        Photographs of your own.

    Returns
    -------
    StimulusSet
        Photographs.

    Raises
    ------
    ValueError
        When there are no embedded photographs of the driver's shape.
    """
    if given is not None:
        return given
    height, width = driver.size_px
    if height != width:
        raise ValueError(
            f"the recipe starts from photographs, and the embedded ones are square, not {height} x {width} px; give "
            "natural=, a StimulusSet of this size, or a recipe with start='pink'"
        )
    return natural_photos(_EMBEDDED, height, channels=driver.channels)


@torch.no_grad()
def best_starts(
    driver: Driver,
    objectives: Sequence[Objective],
    photographs: StimulusSet,
    seeds: Sequence[int],
    device: torch.device,
) -> list[list[str]]:
    """Return the photographs that the driver scores best: for seed 0 the best, for seed 1 the second, and so on.

    Parameters
    ----------
    driver : Driver
        What drives the images, on the device.
    objectives : sequence of Objective
        What is asked.
    photographs : StimulusSet
        Photographs of the driver's size.
    seeds : sequence of int
        Seeds of the images of each objective; the ranks begin anew where there are fewer photographs.
    device : torch.device
        Where the driver is.

    Returns
    -------
    list of list of str
        For each objective, one name a seed. Images that are judged together all start from the best.
    """

    def scored(_: object, images: torch.Tensor) -> torch.Tensor:
        images = images.expand(-1, driver.channels, -1, -1)
        responses = driver.network(images)
        return torch.stack([objective.score(responses, driver.scale, images) for objective in objectives], 1).cpu()

    scores = torch.cat(for_image_batches(scored, photographs, 32, device)).nan_to_num(-torch.inf)
    names, found = photographs.stimulus_ids, []
    for column, objective in enumerate(objectives):
        order = torch.argsort(scores[:, column], descending=True, stable=True).tolist()
        found.append([names[order[0 if objective.coupled else seed % len(order)]] for seed in seeds])
    return found
