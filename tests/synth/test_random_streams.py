"""Streams are SplitMix64, evenly or normally distributed, and depend on key, step and draw alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from synth.random_streams import Streams

MASK = (1 << 64) - 1
GOLDEN, MIX_1, MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


def streams(*keys, step=0):
    return Streams(torch.tensor(keys), torch.full((len(keys),), step))


def scramble(z):
    z = ((z ^ (z >> 30)) * MIX_1) & MASK
    z = ((z ^ (z >> 27)) * MIX_2) & MASK
    return z ^ (z >> 31)


def reference(key, step, draw, count):
    """The 64-bit numbers of one image, in whole numbers of Python."""
    base = scramble((key & MASK) ^ scramble((step * MIX_2 + MIX_1) & MASK))
    start = scramble(base ^ (draw << 32))
    return [scramble((start + (k + 1) * GOLDEN) & MASK) for k in range(count)]


def test_the_reference_is_splitmix64():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]  # seed 1234567
    assert [scramble((1234567 + (k + 1) * GOLDEN) & MASK) for k in range(3)] == published


@settings(max_examples=50, deadline=None)
@given(INT64, st.integers(0, 1 << 40), st.integers(1, 5))
def test_numbers_are_those_of_the_reference(key, step, draw):
    ours = streams(key, step=step)
    for _ in range(draw - 1):
        ours.uniform(2)
    expected = [(bits & 0xFFFFFF) * 2.0**-24 for bits in reference(key, step, draw, 7)]
    assert ours.uniform(7)[0].tolist() == expected
    whole = [10 + (bits >> 16) % 9 for bits in reference(key, step, draw + 1, 4)]
    assert ours.integers(10, 18, 4)[0].tolist() == whole


def test_normal_numbers_are_those_of_box_and_muller():
    bits = np.array(reference(5, 3, 1, 4), dtype=np.uint64)
    radius = np.sqrt(-2 * np.log(((bits & 0xFFFFFF) + 1) * 2.0**-24))
    angle = 2 * np.pi * ((bits >> np.uint64(24)) & 0xFFFFFF) * 2.0**-24
    expected = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:7]
    np.testing.assert_allclose(streams(5, step=3).normal(7)[0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("key", [0, 1, -7, 1 << 62])
def test_distributions(key):
    ours = streams(key, step=11)
    assert stats.kstest(ours.uniform(20000)[0].numpy(), "uniform").pvalue > 1e-3
    normal = ours.normal(20000)[0].numpy()
    assert stats.kstest(normal, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(normal[:10000], normal[10000:])[0, 1]) < 0.05  # the two halves come of the same bits
    counts = np.bincount(ours.integers(0, 4, 20000)[0].numpy(), minlength=5)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_uniform_numbers_stay_below_one_and_normal_ones_finite():
    ours = streams(*range(50))
    uniform = ours.uniform(5000)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert uniform.dtype == torch.float32
    assert ours.normal(5001).abs().max() < 5.9


def test_keys_steps_and_draws_give_unrelated_numbers():
    first = streams(3, 4, step=7)
    rows = [*first.uniform(4000), *first.uniform(4000), *streams(3, 4, step=8).uniform(4000)]
    rows += [streams(7, step=3).uniform(4000)[0], streams(3 ^ 7, step=0).uniform(4000)[0]]
    correlations = np.corrcoef(torch.stack(rows).numpy())
    assert np.abs(correlations - np.eye(len(rows))).max() < 0.08
    # few collisions over a grid of neighbors, as of true random numbers
    seen = torch.stack([Streams(torch.arange(300), torch.full((300,), step)).uniform(2) for step in range(30)])
    assert len(set(map(tuple, seen.view(-1, 2).tolist()))) == 9000


def test_numbers_do_not_depend_on_neighbors_or_shape():
    alone = streams(5, step=2)
    batch = Streams(torch.tensor([9, 5, 5, 1]), torch.tensor([0, 2, 3, 2]))
    for draw in (lambda s: s.normal(3, 4, 5), lambda s: s.uniform(), lambda s: s.integers(-3, 3, 2)):
        ours, theirs = draw(alone), draw(batch)
        assert theirs.shape == (4, *ours.shape[1:])
        assert torch.equal(ours[0], theirs[1])
    flat, square = streams(5).uniform(12), streams(5).uniform(3, 4)
    assert torch.equal(flat.view(3, 4), square[0])


def test_views_have_streams_of_their_own_that_do_not_depend_on_how_many_there_are():
    two, three = streams(5, 6).repeat(2).uniform(9), streams(5, 6).repeat(3).uniform(9)
    assert torch.equal(two[:2], three[:2])
    assert torch.equal(two[2:], three[3:5])
    assert len({tuple(row) for row in three.tolist()}) == 6
    assert torch.equal(streams(6).repeat(3).uniform(9), three[3:])
    assert not torch.equal(streams(5).uniform(9)[0], two[0])


def test_integers_reach_both_ends():
    drawn = streams(1).integers(-19, 18, 4000)
    assert drawn.dtype == torch.int64
    assert (drawn.min(), drawn.max()) == (-19, 18)


def test_global_random_state_is_left_alone_and_keys_too():
    before, keys = torch.random.get_rng_state(), torch.arange(4)
    ours = Streams(keys, torch.zeros(4, dtype=torch.int64))
    ours.normal(5)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(keys, torch.arange(4))
