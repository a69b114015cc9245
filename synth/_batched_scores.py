"""Scores of many images at once, each with its own objective.

In: objectives, one per slot or one for all images; responses and images. Out: one score per image. `Objective.score`
and the engine both come here, so that a formula exists once and a slot's score has the same bits whatever the other
slots hold, wherever it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from synth._score_formulas import SITE_FORMULAS, mean_similarity, rms_contrast
from synth._score_tables import Tables, Terms

if TYPE_CHECKING:
    from synth.objectives import Objective, SiteScale


def score_images(terms: Terms, responses: Tensor, scale: SiteScale, images: Tensor | None) -> Tensor:
    """Return the scores (image,) of one objective on many images, which are one group where that matters."""
    responses = _as_responses(responses, scale, len(responses))
    extra: list[Tensor] = []
    rows: dict[tuple[int, int], int] = {}
    shared: dict[str, int] = {}  # what is measured on images, once
    for k, (_, term) in enumerate(terms):
        if term.kind in SITE_FORMULAS:
            continue
        if term.objective is not None:
            rows[0, k] = len(extra)
            extra.append(_own_score(term.objective, responses, scale, images))
        else:
            rows[0, k] = shared.setdefault(term.kind, len(extra))
            if rows[0, k] == len(extra):
                shown = _as_images(images, len(responses))
                everyone = torch.arange(len(shown), device=shown.device)[None]
                extra.append(rms_contrast(shown) if term.kind == "rms" else mean_similarity(shown, everyone)[0])
    return Tables([terms], rows, len(extra), scale)(responses.T, [row[None] for row in extra])[0]


class BatchedScores:
    """Scores of a batch in which every slot has its own objective.

    A few operations for each kind of term, however many slots; only objectives that score themselves (`Custom`, or a
    user's class with a ``score``) are called slot by slot. A slot's score has the same bits wherever the slot is and
    whatever the others hold, NaN included. Calling it never waits for the device; building it may.

    Parameters
    ----------
    objectives : sequence of Objective or None
        One for every slot; None for an empty slot, which scores 0 and has no gradient.
    groups : sequence of int
        Slots of one coupled job have the same number, and their order is that of its images; for other slots it does
        not matter.
    scale : SiteScale
        Names and natural statistics of the columns of the responses, on their device.

    Raises
    ------
    ValueError
        When objectives and groups differ in number, or an objective names a site that is not there.

    Examples
    --------
    >>> from synth.objectives import SiteScale, Stretch
    >>> scale = SiteScale(("a", "b"), torch.zeros(2), torch.ones(2))
    >>> scores = BatchedScores([Stretch("a"), None, 2 * Stretch("b")], [0, 1, 2], scale)
    >>> scores(torch.tensor([[1.0, 0.0], [torch.nan, 0.0], [0.0, 4.0]]))
    tensor([1., 0., 8.])
    """

    def __init__(self, objectives: Sequence[Objective | None], groups: Sequence[int], scale: SiteScale) -> None:
        if len(objectives) != len(groups):
            raise ValueError(f"there are {len(objectives)} objectives and {len(groups)} groups; give a group per slot")
        terms = _terms_of_slots(objectives, scale)
        self._scale = scale
        self._of_images = _ImageTerms(terms, groups, scale.mean.device)
        self._calls = _Calls(terms, groups)
        rows = self._of_images.rows | {key: self._of_images.count + row for key, row in self._calls.rows.items()}
        self._tables = Tables(terms, rows, self._of_images.count + self._calls.count, scale)
        self._slots = len(terms)

    def __call__(self, responses: Tensor, images: Tensor | None = None, views: Tensor | None = None) -> Tensor:
        """Return the score of each slot.

        Parameters
        ----------
        responses : Tensor, (slot, site)
            Responses in the recording's unit.
        images : Tensor, (slot, channel, height, width), optional
            The images; needed by some objectives.
        views : Tensor, (slot, channel, height, width), optional
            What gave the responses, where that is not the images: objectives that score themselves get it.

        Returns
        -------
        Tensor, (slot,)
            Scores.
        """
        responses = _as_responses(responses, self._scale, self._slots)
        extra = [
            *self._of_images(images, self._slots),
            *self._calls(responses, self._scale, images if views is None else views),
        ]
        return self._tables(responses.reshape(-1, 1), extra).squeeze(1)


def _terms_of_slots(objectives: Sequence[Objective | None], scale: SiteScale) -> list[Terms]:
    known: dict[int, Terms] = {}  # seeds share an objective; a user's may have no hash
    for objective in objectives:
        if objective is not None and id(objective) not in known:
            known[id(objective)] = objective.flat_terms(scale)
    return [() if objective is None else known[id(objective)] for objective in objectives]


class _ImageTerms:
    """RMS contrasts and similarities of the slots that ask for them, each computed once for a slot.

    ``rows`` maps (slot, number of the term) to a row of the ``count`` rows that a call returns.
    """

    def __init__(self, terms: Sequence[Terms], groups: Sequence[int], device: torch.device) -> None:
        asked = {
            kind: [
                (slot, k)
                for slot, of_slot in enumerate(terms)
                for k, (_, term) in enumerate(of_slot)
                if term.kind == kind
            ]
            for kind in ("rms", "similarity")
        }
        rms = list(dict.fromkeys(slot for slot, _ in asked["rms"]))
        similar = list(dict.fromkeys(slot for slot, _ in asked["similarity"]))
        grouped: dict[int, list[int]] = {}  # places in ``similar``
        for place, slot in enumerate(similar):
            grouped.setdefault(groups[slot], []).append(place)
        width = max(map(len, grouped.values()), default=0)
        members = np.full((len(grouped), width), len(similar))
        for row, places in enumerate(grouped.values()):
            members[row, : len(places)] = places
        row_of = {
            "rms": {slot: row for row, slot in enumerate(rms)},
            "similarity": {
                similar[place]: len(rms) + row * width + column
                for row, places in enumerate(grouped.values())
                for column, place in enumerate(places)
            },
        }
        self.rows = {key: row_of[kind][key[0]] for kind, keys in asked.items() for key in keys}
        self.count = len(rms) + members.size
        self._rms, self._similar, self._members = (
            torch.from_numpy(np.asarray(part, dtype=np.int64)).to(device) for part in (rms, similar, members)
        )

    def __call__(self, images: Tensor | None, slots: int) -> list[Tensor]:
        scores = []
        if len(self._rms):
            scores.append(rms_contrast(_as_images(images, slots).index_select(0, self._rms))[:, None])
        if len(self._similar):
            chosen = _as_images(images, slots).index_select(0, self._similar)
            scores.append(mean_similarity(chosen, self._members).view(-1, 1))
        return scores


class _Calls:
    """Objectives that score themselves: one call for a slot, or for a group of slots where they are coupled."""

    def __init__(self, terms: Sequence[Terms], groups: Sequence[int]) -> None:
        calls: dict[tuple[str, int, int], tuple[Objective, list[int]]] = {}
        for slot, of_slot in enumerate(terms):
            for k, (_, term) in enumerate(of_slot):
                if (objective := term.objective) is not None:
                    key = ("group", groups[slot], k) if objective.coupled else ("slot", slot, k)
                    calls.setdefault(key, (objective, []))[1].append(slot)
        called = [(slot, k) for (_, _, k), (_, slots) in calls.items() for slot in slots]
        self.rows: Mapping[tuple[int, int], int] = {key: row for row, key in enumerate(called)}
        self.count, self._calls = len(called), list(calls.values())

    def __call__(self, responses: Tensor, scale: SiteScale, images: Tensor | None) -> list[Tensor]:
        if not self._calls:
            return []
        rows = responses.split(1)
        shown = None if images is None else images.split(1)
        return [
            _own_score(
                objective,
                torch.cat([rows[slot] for slot in slots]),
                scale,
                None if shown is None else torch.cat([shown[slot] for slot in slots]),
            )[:, None]
            for objective, slots in self._calls
        ]


def _as_responses(responses: Tensor, scale: SiteScale, images: int) -> Tensor:
    expected = (images, len(scale.site_ids))
    if responses.shape != expected:
        raise ValueError(f"responses have shape {tuple(responses.shape)}; expected {expected}: (image, site)")
    dtype = torch.promote_types(torch.promote_types(responses.dtype, scale.mean.dtype), torch.float32)
    return responses.to(dtype)  # scores of half-precision responses are sums over many sites


def _as_images(images: Tensor | None, count: int) -> Tensor:
    if images is None or images.ndim != 4 or len(images) != count:
        got = "no images came" if images is None else f"images have shape {tuple(images.shape)}"
        raise ValueError(f"{got}; the objective measures images: give {count}, (image, channel, height, width)")
    return images.to(torch.promote_types(images.dtype, torch.float32))


def _own_score(objective: Objective, responses: Tensor, scale: SiteScale, images: Tensor | None) -> Tensor:
    score = objective.score(responses, scale, images)
    if not isinstance(score, Tensor) or score.shape != (len(responses),):
        got = f"a tensor of shape {tuple(score.shape)}" if isinstance(score, Tensor) else f"{type(score).__name__}"
        raise ValueError(f"{objective!r} returned {got} for {len(responses)} images; expected one score per image")
    return score
