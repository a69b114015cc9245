"""Two days: the gain between them is found and undone, and one file given twice is refused."""

import numpy as np
import pandas as pd
import pytest

from neural_fits import SiteRecordings
from synth.day_scale import gain_between, to_scale_of

SITES = pd.DataFrame(index=pd.Index([f"s{k}" for k in range(5)], name="site_id"))


def day(gain=1.0, offset=0.0, seed=0, names=None, repeats=4):
    names = names or [f"i{k}" for k in range(30)]
    rates = 5 + 4 * np.array([np.random.default_rng(abs(hash_of(name))).random(5) for name in names])
    noise = np.random.default_rng([seed, 1]).normal(0, 0.2, (len(names), repeats, 5))
    return SiteRecordings(gain * (rates[:, None] + noise) + offset, tuple(names), SITES)


def hash_of(name):
    return sum(ord(letter) * 31**k for k, letter in enumerate(name))


def test_a_planted_gain_is_found():
    images, gain = gain_between(day(), day(gain=1.8, seed=1, names=[f"i{k}" for k in range(20, 45)]))
    assert images == 10
    assert gain == pytest.approx(1.8, rel=0.05)


def test_nothing_in_common_is_no_number():
    images, gain = gain_between(day(), day(names=["x", "y"]))
    assert images == 0
    assert np.isnan(gain)


def test_a_planted_gain_and_offset_are_undone_also_for_new_images():
    names = [f"i{k}" for k in range(30)] + ["new0", "new1"]
    truth = day(seed=2, names=names)
    later = day(gain=2.0, offset=-3.0, seed=2, names=names)
    back = to_scale_of(later, day(), "day 2")
    assert np.abs(back.mean() - truth.mean()).max() < 0.5
    assert np.abs(later.mean() - truth.mean()).max() > 2


def test_too_few_shared_images_are_refused_by_name():
    with pytest.raises(ValueError, match="day 2 shows 1 natural images again"):
        to_scale_of(day(names=["i0", "z"]), day(), "day 2")


def test_one_file_given_twice_is_refused():
    once = day()
    with pytest.raises(ValueError, match="same trials of 30 images"):
        gain_between(once, once)
    few = once.select_stimuli(["i0"]).select_sites(["s0"])  # equal by chance where it is a handful of counts
    assert gain_between(few, few) == (1, 1.0)
