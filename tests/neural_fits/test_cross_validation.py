from __future__ import annotations

import numpy as np
import pytest
import torch

from neural_fits.cross_validation import READOUTS, Option, cross_validate, readout_family
from neural_fits.folds import group_folds
from neural_fits.readout import Compressed, LinearReadout, ReadoutFamily, uncompressed


def least_squares(features, responses):
    flat = torch.cat([features.flatten(1), torch.ones(len(features), 1)], 1)
    solution = torch.linalg.lstsq(flat, responses).solution.T
    return LinearReadout(solution[:, :-1].reshape(-1, *features.shape[1:]).contiguous(), solution[:, -1].contiguous())


def memory(features, responses):
    """A readout that knows its training stimuli by heart and nothing else: one feature is the stimulus's number."""
    weight = torch.zeros(responses.shape[1], *features.shape[1:])
    rows = features.flatten(1).argmax(1)
    weight.view(len(weight), -1)[:, rows] = responses.T
    return LinearReadout(weight, torch.zeros(responses.shape[1]))


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    good = torch.randn(90, 4, 1, 1, generator=generator)
    responses = good.flatten(1) @ torch.randn(4, 3, generator=generator)
    responses += 0.3 * torch.randn(90, 3, generator=generator)
    groups = np.repeat(np.arange(30), 3)
    return good, responses.numpy(), groups, group_folds(groups, 5, 0)


def test_the_choice_is_made_on_held_out_training_stimuli(data):
    """An option that is perfect on what it was fitted on and knows nothing else is never chosen."""
    good, responses, groups, folds = data
    by_heart = torch.eye(90)[:, :, None, None]
    options = [
        Option("by heart", uncompressed(by_heart), ReadoutFamily(memory)),
        Option("fair", uncompressed(good), ReadoutFamily(least_squares)),
    ]
    chosen, readout, predicted, inner = cross_validate(options, responses, folds, groups)
    assert chosen.name == "fair"
    assert inner["fair"] > 0.8 > 0.2 > inner["by heart"]
    _, _, alone, nothing = cross_validate(options[1:], responses, folds, groups)
    assert nothing == {}
    np.testing.assert_array_equal(predicted, alone)
    np.testing.assert_allclose(readout.weight, least_squares(good, torch.from_numpy(responses)).weight, atol=1e-5)


def test_a_fold_never_sees_what_it_predicts(data):
    good, responses, groups, folds = data
    options = [
        Option(name, uncompressed(features), ReadoutFamily(least_squares))
        for name, features in (("good", good), ("noise", torch.randn(90, 4, 1, 1, generator=torch.Generator())))
    ]
    _, _, before, _ = cross_validate(options, responses, folds, groups)
    for _, test in folds:
        spoiled = responses.copy()
        spoiled[test] = np.random.default_rng(0).normal(1e3, 1e3, spoiled[test].shape)
        _, _, after, _ = cross_validate(options, spoiled, folds, groups)
        np.testing.assert_allclose(after[test], before[test], atol=1e-4)


def test_shuffled_responses_score_nothing(data):
    good, responses, groups, folds = data
    wide = torch.cat([good, torch.randn(90, 60, 1, 1, generator=torch.Generator().manual_seed(1))], 1)
    rng, r = np.random.default_rng(0), []
    for _ in range(20):
        shuffled = responses[rng.permutation(90)]
        option = Option("ridge", READOUTS["ridge"].compress(wide), READOUTS["ridge"])
        _, _, predicted, _ = cross_validate([option], shuffled, folds, groups)
        r += [np.corrcoef(predicted[:, s], shuffled[:, s])[0, 1] for s in range(3) if predicted[:, s].std() > 1e-6]
    r = np.array(r)
    assert r.mean() < 2 * r.std() / len(r) ** 0.5


def test_the_way_back_is_taken(data):
    good, responses, groups, folds = data
    doubled = Compressed(good * 2, lambda readout: LinearReadout(readout.weight * 2, readout.bias))
    option = Option("doubled", doubled, ReadoutFamily(least_squares))
    _, readout, predicted, _ = cross_validate([option], responses, folds, groups)
    plain = Option("plain", uncompressed(good), ReadoutFamily(least_squares))
    _, wanted, same, _ = cross_validate([plain], responses, folds, groups)
    torch.testing.assert_close(readout.weight, wanted.weight)
    np.testing.assert_allclose(predicted, same, atol=1e-4)


def test_a_stronger_penalty_is_taken_by_one_se(data):
    good, responses, *_ = data
    noisy = torch.from_numpy(responses) + 3 * torch.randn(90, 3, generator=torch.Generator().manual_seed(2))
    best, strong = (readout_family("ridge", rule).solve(good, noisy) for rule in ("best", "one_se"))
    assert (strong.weight.flatten(1).norm(dim=1) < best.weight.flatten(1).norm(dim=1)).all()


def test_joined_readouts_are_their_mean(data):
    _, responses, *_ = data
    features = torch.randn(90, 4, 5, 5, generator=torch.Generator().manual_seed(3))
    answers = torch.from_numpy(responses)
    parts = []
    for name in ("local", "alternating"):
        family = readout_family(name, "one_se")
        compressed = family.compress(features)
        parts.append(compressed.expand(family.solve(compressed.features, answers)))
    joined = readout_family("local+alternating", "one_se").solve(features, answers)
    torch.testing.assert_close(joined(features), (parts[0](features) + parts[1](features)) / 2)
    with pytest.raises(ValueError, match="unknown readout 'alternate'; did you mean 'alternating'"):
        readout_family("local+alternate")


def test_held_out_stimuli_cannot_sway_the_choice(data):
    """What is held out follows another option, which says nothing elsewhere; its fold still takes the training's."""
    good, responses, groups, folds = data
    generator = torch.Generator().manual_seed(3)
    tempting = torch.randn(90, 4, 1, 1, generator=generator)
    strong = 1e3 * (tempting.flatten(1) @ torch.randn(4, 3, generator=generator)).numpy()
    fair = Option("good", uncompressed(good), ReadoutFamily(least_squares))
    _, _, wanted, _ = cross_validate([fair], responses, folds, groups)
    for _, test in folds:
        there = torch.zeros(90, 1, 1, 1)
        there[test] = 1
        spoiled = responses.copy()
        spoiled[test] = strong[test]
        options = [fair, Option("tempting", uncompressed(tempting * there), ReadoutFamily(least_squares))]
        chosen, _, predicted, inner = cross_validate(options, spoiled, folds, groups, seed=1)
        np.testing.assert_allclose(predicted[test], wanted[test], atol=1e-4)
        assert chosen.name == "tempting", inner  # on everything it is the better one
