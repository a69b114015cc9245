"""A random order of items, some of which occur several times, without the same item twice in a row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def shuffled_block(
    counts: NDArray[np.int64], previous: int | None, rng: np.random.Generator
) -> NDArray[np.int64] | None:
    """
    Shuffle items, item k ``counts[k]`` times, so that none follows itself nor `previous`; None if there is no order.

    Items that would follow their like are taken out of a uniform permutation and put back at random where they do not,
    those of the item with most free places first; such a place is always left while no item fills more than half of
    the block.
    """
    items = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    before = np.concatenate([[-1 if previous is None else previous], items[:-1]])
    repeats = items == before
    if not repeats.any():
        return items
    kept, held = items[~repeats], list(items[repeats])
    while held:
        places = {item: _free_places(kept, item, previous) for item in dict.fromkeys(held)}
        item = max(places, key=lambda candidate: len(places[candidate]))
        if len(places[item]) == 0:
            return None
        kept = np.insert(kept, rng.choice(places[item]), item)
        held.remove(item)
    return kept


def _free_places(sequence: NDArray[np.int64], item: int, previous: int | None) -> NDArray[np.int64]:
    """Return where `item` can be put in between without a neighbor of its kind."""
    left = np.concatenate([[-1 if previous is None else previous], sequence])
    right = np.concatenate([sequence, [-1]])
    return np.flatnonzero((left != item) & (right != item))
