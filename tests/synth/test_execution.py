"""Where and how: names, choices by timing, reduced precision, and that nothing grows with the work."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from neural_fits.features import FeatureExtractor
from synth import autotune
from synth.driver import driver_of
from synth.execution import Execution
from synth.image_objectives import Diversity, LayerUnit
from synth.jobs import Job
from synth.objectives import Stretch
from synth.recipes import SynthesisConfig, recipe
from synth.synthesize import synthesize

CPU = torch.device("cpu")
SHORT = SynthesisConfig(steps=2)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"accelerate": "graph"}, r"accelerate is 'graph'; did you mean 'graphs'\? known: none, graphs"),
        ({"backend": "rya"}, r"backend is 'rya'; did you mean 'ray'\? known: local, ray"),
        ({"accelerate": "graphs"}, "accelerate='graphs' needs a CUDA device and the device is cpu; leave it out"),
        ({"slots": 0}, "slots is 0; expected the number of images to optimize together, at least 1"),
        ({"slots": -3}, "slots is -3"),
    ],
)
def test_wrong_names_and_numbers_are_told(tiny_model, options, told):
    with pytest.raises(ValueError, match=told) as refused:
        Execution(CPU, **options)
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match=told):
        synthesize(tiny_model(), [Stretch("a")], recipe=SHORT, device="cpu", **options)


def test_what_was_used_is_recorded(tiny_model):
    made = synthesize(tiny_model(), [Stretch("a")], seeds=3, recipe=SHORT, device="cpu", slots=2, amp=True)
    config = made.stimuli.provenance["config"]
    told = {name: config[name] for name in ("slots", "device", "amp", "accelerate", "backend")}
    assert told == {"slots": 2, "device": "cpu", "amp": "bfloat16", "accelerate": "none", "backend": "local"}
    full = Execution(CPU, slots=4, accelerate="none")
    assert full.provenance()["amp"] == "off"
    assert full.description().startswith("cpu, ")


def chosen(model, monkeypatch, jobs, rates=None, threads=2, config=SHORT):
    """Return the slots chosen when timings are as given, and which were timed."""
    timed = []

    def rate(execution, driver, config, job, slots):
        timed.append(slots)
        return (rates or {}).get(slots, 0.0)  # what does not fit

    monkeypatch.setattr(autotune, "_rate", rate)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    driver = driver_of(model, [job.objective for job in jobs[:1]], CPU)
    return autotune.choose_slots(Execution(CPU), driver, config, jobs), timed


def jobs(n, objective=None):
    return [Job(objective or Stretch("a"), seed) for seed in range(n)]


def test_few_jobs_are_spread_over_the_threads_without_timing(tiny_model, monkeypatch):
    model = tiny_model()
    for n, threads, slots in ((1, 2, 1), (2, 2, 1), (3, 2, 2), (7, 2, 4), (8, 2, 4), (12, 2, 4), (8, 8, 1), (32, 2, 4)):
        assert chosen(model, monkeypatch, jobs(n), threads=threads) == (slots, []), (n, threads)


def test_many_jobs_get_what_is_clearly_faster(tiny_model, monkeypatch):
    model, many = tiny_model(), jobs(200)
    assert chosen(model, monkeypatch, many, {4: 100.0, 8: 100.0, 2: 100.0}) == (4, [4, 8, 2])
    assert chosen(model, monkeypatch, many, {4: 100.0, 8: 110.0, 2: 90.0})[0] == 4  # within what timings vary
    assert chosen(model, monkeypatch, many, {4: 100.0, 8: 130.0, 2: 120.0})[0] == 8
    assert chosen(model, monkeypatch, many, {4: 100.0, 8: 90.0, 2: 150.0})[0] == 2
    assert chosen(model, monkeypatch, many, {4: 100.0, 2: 90.0})[0] == 4  # 8 do not fit


def test_coupled_jobs_fit_together(tiny_model, monkeypatch):
    model, several = tiny_model(), Diversity(Stretch("a"))
    assert chosen(model, monkeypatch, jobs(6, several))[0] == 6
    together = jobs(6, several) + jobs(200)
    slots, timed = chosen(model, monkeypatch, together, {4: 100.0, 8: 50.0, 2: 900.0})
    assert slots == 6
    assert 2 not in timed
    assert chosen(model, monkeypatch, together, {4: 100.0, 8: 130.0})[0] == 8


@pytest.mark.parametrize("param", ["pixels", "fourier", "phase"])
def test_timing_works_for_every_recipe_and_leaves_the_threads(tiny_model, param):
    model, threads = tiny_model(), torch.get_num_threads()
    config = SynthesisConfig(param=param, start="base", channels=3, max_rms_change=0.1, steps=3)
    for objective in (Stretch("a"), Diversity(Stretch("a")), LayerUnit("2", 0)):
        driver = driver_of(model, [objective], CPU)
        assert autotune._rate(Execution(CPU, accelerate="none"), driver, config, Job(objective, 0, "x"), 2) > 0
    assert torch.get_num_threads() == threads


def test_a_cpu_is_never_given_graphs(tiny_model):
    driver = driver_of(tiny_model(), [Stretch("a")], CPU)
    assert Execution(CPU).tuned(driver, SHORT, jobs(1)).accelerate == "none"
    asked = Execution(CPU, slots=3, accelerate="none").tuned(driver, SHORT, jobs(1))
    assert (asked.slots, asked.accelerate) == (3, "none")


def test_graphs_are_chosen_where_they_are_faster(tiny_model, monkeypatch):
    driver = driver_of(tiny_model(), [Stretch("a")], CPU)
    gpu = Execution(torch.device("cuda"))
    for rates, best in (({"none": 1.0, "graphs": 2.0}, "graphs"), ({"none": 2.0, "graphs": 1.0}, "none")):
        monkeypatch.setattr(autotune, "_rate", lambda execution, *rest, rates=rates: rates[execution.accelerate])
        assert autotune.choose_acceleration(gpu, driver, SHORT, jobs(9)) == best


def test_reduced_precision_reaches_nearly_the_same_score():
    bare = FeatureExtractor("efficientnet-lite0", "blocks.2", input_px=64)
    units = [LayerUnit("blocks.2", channel) for channel in (3, 11)]
    config = recipe("robust", steps=30)
    scores, codes = [], []
    for amp in (False, True):
        made = synthesize(bare, units, seeds=2, recipe=config, slots=2, device="cpu", amp=amp)
        driver = driver_of(bare, units, CPU)
        with torch.no_grad():  # judged in full precision
            responses = driver.network(torch.from_numpy(made.stimuli.images()))
        scores.append([responses[k, k // 2].item() for k in range(4)])
        codes.append(made.stimuli.codes())
        best = made.trace.groupby("stimulus_id", sort=False)["score"].max()
        np.testing.assert_allclose(best, scores[-1], rtol=1e-3)  # readings are in full precision
        assert made.stimuli.provenance["config"]["amp"] == ("bfloat16" if amp else "off")
        gained = best.to_numpy() - made.trace.groupby("stimulus_id", sort=False)["score"].first().to_numpy()
        assert (gained > 0.5).all()
    full, reduced = np.array(scores)
    assert np.mean(reduced) == pytest.approx(np.mean(full), rel=0.05)
    assert not np.array_equal(*codes)  # it was really reduced


def test_nothing_stays_open_and_the_model_is_left_as_it_was(tiny_model, tmp_path):
    model = tiny_model()
    objectives = [Stretch("a"), LayerUnit("0", 1), LayerUnit("2", 2)]

    def once(k):
        synthesize(model, objectives, seeds=2, recipe=SHORT, slots=2, device="cpu", out=tmp_path / str(k))

    def counted():
        hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
        return hooks, len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), torch.get_num_threads()

    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kinds = {name: type(module) for name, module in model.named_modules()}
    graded = {name: weight.requires_grad for name, weight in model.named_parameters()}
    once(0)
    before = counted()
    for k in range(1, 21):
        once(k)
    assert counted() == before
    assert {name: type(module) for name, module in model.named_modules()} == kinds
    assert {name: weight.requires_grad for name, weight in model.named_parameters()} == graded
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name])


MANY = """
    import json, resource, sys, tracemalloc
    sys.path.insert(0, sys.argv[1])
    import torch
    import killed_run
    from synth import Stretch, SynthesisConfig, synthesize
    torch.set_num_threads(1)
    peaks = []
    for n in (20, 200, int(sys.argv[3])):
        if n != 20:  # the first call loads what is needed
            tracemalloc.start()
        synthesize(
            killed_run.model(), Stretch("a"), seeds=n, recipe=SynthesisConfig(steps=1), slots=50, device="cpu",
            out=f"{sys.argv[2]}/{n}",
        )
        peaks.append((tracemalloc.get_traced_memory()[1], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
        tracemalloc.stop()
    print(json.dumps(peaks))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_jobs(tmp_path):
    here = str(Path(__file__).parent)
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MANY), here, str(tmp_path), "2000"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    _, few, many = json.loads(told.stdout)
    image = 3 * 48 * 48
    # names, traces and table rows stay, about 2 kB a job; images of 7 kB do not
    assert (many[0] - few[0]) / 1800 < 0.5 * image
    assert many[1] - few[1] < 1e8  # of the whole process, loosely: the allocator keeps what it likes


def test_slots_and_device_do_not_enter_the_configuration():
    fields = {field.name for field in dataclasses.fields(SynthesisConfig)}
    assert not fields & {field.name for field in dataclasses.fields(Execution)}
