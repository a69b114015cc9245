from __future__ import annotations

import numpy as np
import pytest

from neural_fits.folds import group_folds, part_of_groups


def test_halves_share_no_group_cover_everything_and_are_balanced():
    rng = np.random.default_rng(0)
    for seed in range(20):
        groups = rng.choice(list("abcdefghijk"), size=100, p=np.arange(1, 12) / 66)
        first, second = (part_of_groups(groups, half, seed) for half in "AB")
        assert sorted([*first, *second]) == list(range(100))
        assert not set(groups[first]) & set(groups[second])
        assert abs(len(first) - len(second)) <= np.unique(groups, return_counts=True)[1].max()
        assert (np.diff(first) > 0).all()
    assert not np.array_equal(part_of_groups(groups, "A", 0), part_of_groups(groups, "A", 1))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_parts_are_disjoint_and_cover_everything(count):
    groups = np.random.default_rng(0).choice(list("abcdefghijkl"), size=200)
    parts = [part_of_groups(groups, f"{k}/{count}", 1) for k in range(1, count + 1)]
    assert sorted(np.concatenate(parts)) == list(range(200))
    assert len({label for part in parts for label in set(groups[part])}) == 12
    assert sum(len(set(groups[part])) for part in parts) == 12


@pytest.mark.parametrize("part", ["C", "0/2", "3/2", "1/1", "", "1/x", "a"])
def test_other_parts_are_refused(part):
    with pytest.raises(ValueError, match="expected 'A' or 'B', 'k/n'"):
        part_of_groups(np.array(["a", "b", "c"]), part)


def test_too_few_groups_cannot_be_split():
    with pytest.raises(ValueError, match=r"belong to 1 group\(s\); a split into 2 needs at least 2"):
        part_of_groups(np.array(["a", "a"]), "A")


def test_folds_keep_groups_on_one_side():
    groups = np.random.default_rng(0).choice(list("abcdefgh"), size=60)
    folds = group_folds(groups, 4, seed=3)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(60))
    assert not any(set(groups[train]) & set(groups[test]) for train, test in folds)
