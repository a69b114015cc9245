"""What a round of the closed loop is fitted on: natural images and the synthesized ones of earlier rounds, as one set.

In: stimuli and recordings of every round. Out: one `StimulusSet`, one `SiteRecordings`, and who may see which image.
Called by `closed_loop`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neural_fits.folds import group_labels, part_of_groups
from neural_fits.recordings import SiteRecordings
from neural_fits.site_model import Ensemble, SiteModel
from stimuli import StimulusSet
from synth.day_scale import to_scale_of
from synth.loop_state import LoopState

Round = tuple[StimulusSet, SiteRecordings]
#: reference images below which a scale between two days is a guess


def merge_recordings(
    natural: StimulusSet,
    recorded: SiteRecordings,
    rounds: Sequence[Round],
    *,
    group: str = "photograph",
    normalize: bool = False,
) -> Round:
    """Put the synthesized images of earlier rounds and their responses beside the natural ones, as training data.

    Every image is there once, with the mean of its trials, one that a later round made again with those of that round:
    the readouts have no weights, and to repeat a row would let leave-one-out choose its penalty on a copy of what it
    fits. A few images far from the natural ones weigh more than their number all the same: on one simulated brain 16 of
    them beside 200 photographs lowered the error on others of their kind from 1.13 to .76 sd of natural responses, on
    photographs not at all (.77, .75). Counted three times they lowered it to .62, but the images then made were no
    better.

    Parameters
    ----------
    natural : StimulusSet
        Natural images.
    recorded : SiteRecordings
        Responses to them; its sites are those of the result.
    rounds : sequence of (StimulusSet, SiteRecordings)
        Of each round the images, with the column ``objective``, and responses to them; also to natural images shown
        again, if there are any. A site that a round lacks is NaN there, one that only a round has is left out.
    group : str
        Column that keeps related images on one side of a split. The images of one round and objective are one group.
    normalize : bool
        Scale the responses of each round, site by site, so that mean and standard deviation over the natural images
        shown again are those of `recorded`, on equally many repeats; at least 5 of them.

    Returns
    -------
    stimuli : StimulusSet
        All images, with the columns ``round`` (0 for natural ones) and `group`.
    recordings : SiteRecordings
        Their responses, in that order.

    Raises
    ------
    ValueError
        When an image has no recording, two have the same id, no site is common, or units or windows differ.

    Examples
    --------
    >>> from neural_fits import SimulatedBrain
    >>> from stimuli import natural_photos
    >>> photos = natural_photos(6, size_px=64)
    >>> brain = SimulatedBrain(photos, n_sites=2)
    >>> natural, made = photos.select(range(4)), photos.select([4, 5]).with_columns(objective="Stretch('site00')")
    >>> stimuli, recordings = merge_recordings(natural, brain.record(natural), [(made, brain.record(made))])
    >>> stimuli.table["round"].tolist(), recordings.shape
    ([0, 0, 0, 0, 1, 1], (6, 8, 2))
    """
    everything = base = recorded.align(natural, extra="drop")
    sets = [natural.with_columns(**{"round": 0, group: group_labels(natural, group).tolist()})]
    for number, (shown, responses) in enumerate(rounds, start=1):
        responses = at_sites(responses, base)
        if normalize:
            responses = to_scale_of(responses, base, f"round {number}")
        responses = responses.align(shown, extra="drop")
        kept = _not_made_again(shown, [later for later, _ in rounds[number:]])
        if not kept:
            continue
        shown = shown.select(kept)
        labels = [f"round {number}: {text}" for text in shown.table["objective"]]
        sets.append(shown.with_columns(**{"round": number, group: labels}))
        everything = everything.concat_stimuli(responses.select_stimuli(kept))
    return StimulusSet.concat(sets), everything


def _not_made_again(shown: StimulusSet, later: Sequence[StimulusSet]) -> list[str]:
    """Return the images of a round that no later one made again: two rounds may leave the same start unchanged."""
    kept = list(shown.stimulus_ids)
    for other in later:
        for name in set(kept) & set(other.stimulus_ids):
            if not np.array_equal(shown.codes([name]), other.codes([name])):
                raise ValueError(f"stimulus {name!r} is another image in a later round; give every image its own id")
            kept.remove(name)
    return kept


def merged(state: LoopState, rounds: int) -> Round:
    """Return natural images and those of the first rounds of a loop, with their responses."""
    return merge_recordings(
        StimulusSet.load(state.folder / "natural"),
        SiteRecordings.load(state.folder / "recordings_natural.nc"),
        [shown_in(state.folder / f"round{number}") for number in range(1, rounds + 1)],
        group=state.config.group,
        normalize=state.config.normalize,
    )


def shown_in(place: Path) -> Round:
    """Return the images of a round, and the recordings as they came."""
    return StimulusSet.load(place / "stimuli"), SiteRecordings.load(place / "recordings.nc")


def at_sites(recordings: SiteRecordings, like: SiteRecordings) -> SiteRecordings:
    """Return recordings at the sites of others: NaN where a site was not recorded, without those that are new."""
    known = {site: k for k, site in enumerate(recordings.site_ids)}
    common = [site for site in like.site_ids if site in known]
    if not common:
        raise ValueError(
            f"none of the {len(known)} recorded sites ({', '.join(list(known)[:3])}, ...) is among the "
            f"{len(like.site_ids)} of the natural images ({', '.join(like.site_ids[:3])}, ...); use the same names"
        )
    responses = np.full((*recordings.shape[:2], len(like.site_ids), *recordings.shape[3:]), np.nan, dtype=np.float32)
    for k, site in enumerate(like.site_ids):
        if site in known:
            responses[:, :, k] = recordings.responses[:, :, known[site]]
    return dataclasses.replace(recordings, responses=responses, sites=like.sites)


def seen_by(stimuli: StimulusSet, role: str, *, group: str = "photograph", seed: int = 0) -> NDArray[np.int_]:
    """Return the images of a merged set that a model of that role may see.

    Natural images are halved by photograph (A drives, B validates), the synthesized ones of each round and objective
    in turns, so that no image is seen by both.

    Parameters
    ----------
    stimuli : StimulusSet
        Made by `merge_recordings`.
    role : {"driver", "validator"}
        Who asks.
    group : str
        Column of the photographs.
    seed : int
        Seed of the halves.

    Returns
    -------
    ndarray of int
        Positions in the set.
    """
    table = stimuli.table
    natural = np.flatnonzero(table["round"].to_numpy() == 0)
    labels = group_labels(stimuli, group)[natural]
    half = natural[part_of_groups(labels, "A" if role == "driver" else "B", seed)]
    turn = (table.groupby(["round", group], sort=False).cumcount() + table["round"]).to_numpy() % 2
    made = np.flatnonzero((table["round"].to_numpy() > 0) & (turn == (1 if role == "driver" else 0)))
    return np.concatenate([half, made])


def on_natural_scale(model: SiteModel | Ensemble, recordings: SiteRecordings) -> SiteModel | Ensemble:
    """Give a model the mean and standard deviation of its sites over natural images alone.

    Objectives in units of z mean natural images; a fit takes the statistics of all it sees, which synthesized images
    widen from round to round.

    Parameters
    ----------
    model : SiteModel or Ensemble
        Fitted on natural and synthesized images; changed in place.
    recordings : SiteRecordings
        Responses to the natural ones among them.

    Returns
    -------
    SiteModel or Ensemble
        The model.
    """
    means = recordings.select_sites(model.site_ids).mean().astype(np.float64)
    info = dataclasses.replace(
        model.info,
        natural_mean=tuple(np.nanmean(means, axis=0).tolist()),
        natural_std=tuple(np.nanstd(means, axis=0).tolist()),
    )
    for part in (model, *model._members()):
        part.info = info
    return model
