"""The engine on a GPU: the same bytes at every run, with and without graphs, after a resume; near the CPU's scores."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from synth import OneHot, Stretch, synthesize
from synth.recipes import ROBUST

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; none was found"),
]
SHORT = dataclasses.replace(ROBUST, start="pink", steps=12, check_every=4)


def make(model, device="cuda", recipe=SHORT, slots=8, **options):
    objectives = [Stretch(site) for site in model.site_ids] + [OneHot(site) for site in model.site_ids]
    return synthesize(model, objectives, seeds=3, recipe=recipe, device=device, slots=slots, **options)


@pytest.fixture(scope="module")
def model():
    from neural_fits import SimulatedBrain, fit_sites
    from stimuli import natural_photos

    natural = natural_photos(80, size_px=64)
    return fit_sites(natural, SimulatedBrain(natural, n_sites=4).record(natural))


@pytest.mark.parametrize("accelerate", ["none", "graphs"])
@pytest.mark.parametrize("amp", [False, True])
def test_same_bytes_at_every_run(model, accelerate, amp):
    first, again = (make(model, accelerate=accelerate, amp=amp) for _ in range(2))
    np.testing.assert_array_equal(first.stimuli.codes(), again.stimuli.codes())
    assert first.trace.equals(again.trace)


def test_neighbors_and_place_do_not_matter(model):
    whole = make(model)
    alone = synthesize(model, [OneHot(model.site_ids[2])], seeds=[1], recipe=SHORT, device="cuda", slots=8)
    row = whole.stimuli.stimulus_ids.index(alone.stimuli.stimulus_ids[0])
    np.testing.assert_array_equal(whole.stimuli.codes([row]), alone.stimuli.codes())


@pytest.mark.parametrize("options", [{"accelerate": "graphs"}, {"amp": True}, {"device": "cpu"}])
def test_other_ways_reach_the_same_scores(model, options):
    last = make(model, accelerate="none").trace.groupby("stimulus_id", sort=False)["score"].max().to_numpy()
    other = make(model, **options).trace.groupby("stimulus_id", sort=False)["score"].max().to_numpy()
    np.testing.assert_allclose(other, last, rtol=0.1, atol=0.1 * np.abs(last).max())


def test_resume_gives_the_same_bytes(model, tmp_path):
    whole = make(model, out=tmp_path / "whole")

    def stop(done, total, status):
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(model, out=tmp_path / "cut", progress=stop)
    resumed = make(model, out=tmp_path / "cut", resume=True)
    np.testing.assert_array_equal(resumed.stimuli.codes(), whole.stimuli.codes())


def test_steps_do_not_wait_for_the_device(model):
    from synth._slots import Slots
    from synth.driver import driver_of
    from synth.execution import Execution
    from synth.jobs import Job

    objectives = [Stretch(site) for site in model.site_ids]
    device = torch.device("cuda")
    driver = driver_of(model, objectives, device)
    config = dataclasses.replace(SHORT, channels=3)
    slots = Slots(Execution(device, 4, accelerate="none").task(driver, config), 4)
    for number, objective in enumerate(objectives):
        slots.put([(number, Job(objective, 0), None)])
    slots.read()
    slots.advance()
    slots.read()
    torch.cuda.set_sync_debug_mode("error")
    try:
        slots.advance()
    finally:
        torch.cuda.set_sync_debug_mode("default")
