"""Photographs that images start from."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
import torch

from stimuli import StimulusSet, natural_photos
from synth import Diversity, Stretch, SynthesisConfig, synthesize
from synth.driver import driver_of
from synth.natural_starts import best_starts, photographs_for

CPU = torch.device("cpu")
NAMES = [f"photo{k}" for k in range(7)]


@pytest.fixture
def photographs():
    codes = np.random.default_rng(0).integers(0, 256, (7, 3, 32, 32), dtype=np.uint8)
    return StimulusSet.from_arrays(codes, {"stimulus_id": NAMES}, size_deg=6.5)


def test_seed_k_starts_from_the_photograph_of_rank_k(tiny_model, photographs):
    model = tiny_model()
    objectives = [Stretch("b"), -1 * Stretch("b")]
    ranked = np.argsort(-model.predict(photographs)[:, 1])
    found = best_starts(driver_of(model, objectives, CPU), objectives, photographs, [0, 3, 9], CPU)
    assert found[0] == [NAMES[ranked[k]] for k in (0, 3, 2)]  # ranks begin anew after the seventh
    assert found[1] == [NAMES[ranked[-1 - k]] for k in (0, 3, 2)]


def test_images_judged_together_start_from_one_photograph(tiny_model, photographs):
    model = tiny_model()
    objective = Diversity(Stretch("a"), 0.1)
    assert objective.coupled
    (names,) = best_starts(driver_of(model, [objective], CPU), [objective], photographs, [0, 1, 2], CPU)
    assert len(set(names)) == 1


def test_an_image_starts_from_its_photograph_and_does_not_depend_on_other_seeds(tiny_model, photographs):
    model = tiny_model()
    still = SynthesisConfig(start="natural", param="pixels", steps=1, step_size=1e-9, keep="last")
    made = synthesize(model, Stretch("c"), seeds=[0, 2], recipe=still, natural=photographs, slots=1).stimuli
    for row, name in enumerate(made.table["base"]):
        np.testing.assert_array_equal(made.codes([row]), photographs.codes([NAMES.index(name)]))
    moving = dataclasses.replace(still, steps=4, step_size=0.05)
    both = synthesize(model, Stretch("c"), seeds=[0, 2], recipe=moving, natural=photographs, slots=1).stimuli
    alone = synthesize(model, Stretch("c"), seeds=[2], recipe=moving, natural=photographs, slots=1).stimuli
    np.testing.assert_array_equal(both.codes([1]), alone.codes([0]))
    assert both.codes([0]).tobytes() != both.codes([1]).tobytes()


def test_without_photographs_the_embedded_ones_are_used(tiny_model):
    square = photographs_for(driver_of(tiny_model(), [Stretch("a")], CPU), None)
    assert square.shape == (3, 32, 32)
    oblong = driver_of(tiny_model(size_px=(32, 40)), [Stretch("a")], CPU)
    with pytest.raises(ValueError, match=r"32 x 40 px; give natural="):
        photographs_for(oblong, None)
    given = natural_photos(3, 48)
    assert photographs_for(oblong, given) is given


def test_photographs_of_another_size_are_refused(tiny_model):
    with pytest.raises(ValueError, match="48"):
        synthesize(tiny_model(), Stretch("a"), seeds=1, natural=natural_photos(3, 48))


def test_photographs_are_scored_where_the_driver_is(tiny_model, photographs, monkeypatch):
    class Enough(ValueError):
        pass

    def stop(driver, objectives, photographs, seeds, device):
        raise Enough(f"{device} {next(driver.network.buffers()).device}")

    engine = sys.modules["synth.synthesize"]
    monkeypatch.setattr(engine, "best_starts", stop)
    monkeypatch.setattr(engine, "_workers_device", lambda device, address, held: torch.device("cuda"))
    with pytest.raises(Enough, match=r"^cpu cpu$"):  # GPUs are the workers', the driver is still here
        synthesize(tiny_model(), Stretch("a"), natural=photographs, backend="ray")
