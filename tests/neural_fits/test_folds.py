from __future__ import annotations

import numpy as np
import pytest

from neural_fits.folds import group_folds, group_labels, part_of_groups
from stimuli import StimulusSet
from stimuli.gray import with_gray_control


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


def photographs(columns, n=40):
    images = np.random.default_rng(0).random((n, 1, 8, 8))
    return StimulusSet.from_arrays(images, {"stimulus_id": [f"s{i}" for i in range(n)], **columns})


def test_labels_stay_whole_where_a_stimulus_has_no_photograph():
    names = [f"IMG_{i // 2:03d}" for i in range(40)]
    stimuli = with_gray_control(photographs({"photograph": names}))
    groups = group_labels(stimuli, "photograph")
    assert groups.tolist() == [*names, "gray"]
    first, second = part_of_groups(groups, "A"), part_of_groups(groups, "B")
    assert abs(len(first) - len(second)) <= 1
    assert not set(groups[first]) & set(groups[second])
    assert sorted(len(test) for _, test in group_folds(groups, 4, seed=0)) == [10, 10, 10, 11]


@pytest.mark.parametrize("gone", [None, np.nan])
@pytest.mark.parametrize("labels", [["mountain", "sea"], [10, 234], [0.5, 12.25], [True, False]])
def test_every_stimulus_without_a_label_is_a_group_of_its_own(labels, gone):
    groups = group_labels(photographs({"day": [labels[0], gone, labels[1], gone, labels[0]]}, 5), "day")
    assert groups.tolist() == [str(labels[0]), "s1", str(labels[1]), "s3", str(labels[0])]


def test_labels_without_gaps_and_without_the_column():
    assert group_labels(photographs({"day": [3, 12, 3]}, 3), "day").tolist() == ["3", "12", "3"]
    assert group_labels(photographs({}, 3), "photograph").tolist() == ["s0", "s1", "s2"]
    with pytest.raises(ValueError, match="no column 'dya' to group by; did you mean 'day'"):
        group_labels(photographs({"day": [3, 12, 3]}, 3), "dya")
