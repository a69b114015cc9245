"""Objectives on recorded responses: which of them have a meaning there, and their scores on equal trial noise.

In: objectives as text, recordings. Out: objectives, the recorded scale, scores. Called by `control` and `baselines`.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from neural_fits.recordings import SiteRecordings
from stimuli import StimulusSet
from synth._objective_sites import is_of_sites, read_columns
from synth.control_statistics import REPLICATES, trial_deviations
from synth.objectives import Objective, OneHot, SiteScale, Weighted, parse_objective

SPLITS = 20
RATIO_FAMILIES = ("stretch", "ohp")  # their gain is a ratio to the baseline, that of all others a difference in score
_ROWS = 8192  # scored together: they fit into a processor's cache


def judged_objectives(stimuli: StimulusSet, everything: tuple[str, ...]) -> list[Objective]:
    """Return the objective of every image, or say which of them recorded responses cannot judge.

    One-hot control is scored as a probability whatever form was climbed, and over the same sites in every model and in
    the recordings, which may hold more; ``everything`` names them.
    """
    table = stimuli.table
    for column in ("objective", "target_site"):
        if column not in table:
            raise ValueError(f"the stimulus set has no column {column!r}; give a set made by synthesize")
    known: dict[str, Objective] = {}
    for text in table["objective"]:
        if text not in known:
            known[text] = parse_objective(text)
    refused = [objective for objective in known.values() if not is_of_sites(objective)]
    if refused:
        images = int(table["objective"].isin([text for text, each in known.items() if each in refused]).sum())
        raise ValueError(
            f"{images} of the {len(table)} images were made for what responses of sites cannot show, such as "
            f"{refused[0]!r}, which measures a layer, the image or something of your own; judge a set made for "
            "Stretch, OneHot, Suppress, Contrast, Pattern or sums of these alone"
        )
    return [_over(known[text], everything, top=True) for text in table["objective"]]


def _over(objective: Objective, everything: tuple[str, ...], top: bool) -> Objective:
    if isinstance(objective, OneHot):
        form = "softmax" if top else objective.form
        return dataclasses.replace(objective, population=objective.population or everything, form=form)
    if isinstance(objective, Weighted):
        return Weighted(tuple((weight, _over(term, everything, False)) for weight, term in objective.terms))
    return objective


def recorded_scale(natural: SiteRecordings) -> SiteScale:
    """Return names, means and standard deviations of the recorded natural responses."""
    mean = natural.mean()
    return SiteScale(
        tuple(natural.site_ids), torch.from_numpy(np.nanmean(mean, axis=0)), torch.from_numpy(np.nanstd(mean, axis=0))
    )


def part_of(scale: SiteScale, sites: Sequence[str]) -> SiteScale:
    """Return the scale of some of its sites, those that it knows."""
    known = [site for site in sites if site in set(scale.site_ids)]
    columns = scale.indices(tuple(known))
    return SiteScale(tuple(known), scale.mean[columns], scale.std[columns])


def score(objective: Objective, responses: NDArray[np.floating], scale: SiteScale) -> NDArray[np.float64]:
    """Return scores (...) of responses (..., site) in double precision."""
    rows = np.asarray(responses, dtype=np.float64).reshape(-1, responses.shape[-1])
    parts = [
        objective.score(torch.from_numpy(rows[start : start + _ROWS]), scale).numpy()
        for start in range(0, max(len(rows), 1), _ROWS)
    ]
    return np.concatenate(parts).reshape(responses.shape[:-1]).astype(np.float64)


def is_linear(objective: Objective, scale: SiteScale) -> bool:
    """Whether the score of a mean response is the mean score: trial noise then does not shift it."""
    return all(term.kind == "linear" for _, term in objective.flat_terms(scale))


def half_of_trials(natural: SiteRecordings) -> int:
    """Return how many trials a half of the natural images' holds."""
    counts = natural.n_repeats[natural.n_repeats > 0]
    return max(int(np.median(counts)) // 2, 1)


def achieved_scores(
    recorded: SiteRecordings, objectives: Sequence[Objective], scale: SiteScale, trials: int, seed: int
) -> NDArray[np.float64]:
    """Return the score of every image by its own objective (image,).

    Where the score is no linear function of responses, noise shifts it; the mean over random choices of ``trials``
    repeats is shifted as the natural images' scores on their halves are.
    """
    everything = recorded.mean()
    some = np.stack([_mean_of_trials(recorded.responses, trials, seed + split) for split in range(2 * SPLITS)])
    values = np.full(len(objectives), np.nan)
    for objective in dict.fromkeys(objectives):
        rows = [k for k, other in enumerate(objectives) if other == objective]
        shown = everything[None, rows] if is_linear(objective, scale) else some[:, rows]
        values[rows] = score(objective, shown, scale).mean(axis=0)
    return values


def _mean_of_trials(responses: NDArray[np.float32], trials: int, seed: int) -> NDArray[np.float32]:
    """Return means (image, site) over that many random trials, fewer where fewer were recorded.

    The order of trials is shared by the sites; a site that lacks some takes its next ones.
    """
    keys = np.random.default_rng(seed).random(responses.shape[:2])[:, :, None]
    chosen = np.argsort(np.where(np.isnan(responses), np.inf, keys), axis=1)[:, :trials]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # an image that a site was never shown stays NaN
        return np.nanmean(np.take_along_axis(responses, chosen, axis=1), axis=1)


def own_scores(
    objectives: Sequence[Objective], responses: NDArray[np.floating], scale: SiteScale
) -> NDArray[np.float64]:
    """Return the score of every image (image,) by its own objective."""
    values = np.full(len(objectives), np.nan)
    for objective in dict.fromkeys(objectives):
        rows = [k for k, other in enumerate(objectives) if other == objective]
        values[rows] = score(objective, responses[rows], scale)
    return values


def fewest_repeats(recorded: SiteRecordings, objectives: Sequence[Objective], scale: SiteScale) -> NDArray[np.int64]:
    """Return how many repeats of every image were recorded, at the site of its objective that has the fewest."""
    columns = {objective: read_columns(objective, scale) for objective in dict.fromkeys(objectives)}
    counts = recorded.n_repeats
    return np.array([counts[k, columns[objective]].min() for k, objective in enumerate(objectives)], dtype=np.int64)


def image_replicates(
    recorded: SiteRecordings,
    objectives: Sequence[Objective],
    scale: SiteScale,
    achieved: NDArray[np.float64],
    seed: int,
) -> NDArray[np.float64]:
    """Return the score of every image with resampled repeats (image, replicate), around its achieved score.

    Only the deviations are taken from the resamples: noise counts twice in their mean, which bends a curved score.
    """
    means = recorded.mean().astype(np.float64)
    replicates = np.empty((len(objectives), REPLICATES))
    for k, (objective, value) in enumerate(zip(objectives, achieved, strict=True)):
        moved = trial_deviations(recorded.responses[k], REPLICATES, np.random.default_rng([seed, 1, k]))
        scores = score(objective, means[k] + moved, scale)
        replicates[k] = scores - scores.mean() + value
    return replicates
