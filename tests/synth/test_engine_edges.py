"""What a second pair of eyes found in the engine, each with the input that showed it."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from neural_fits.features import FeatureExtractor
from stimuli import natural_photos
from synth import autotune, execution, synthesize
from synth._slots import Slots, Task
from synth.aperture import Aperture
from synth.driver import driver_of
from synth.engine import run
from synth.execution import Execution
from synth.folding import fold
from synth.image_objectives import Custom
from synth.image_params import Pixels
from synth.jobs import Job
from synth.objectives import Objective, OneHot, SiteScale, Stretch
from synth.recipes import SynthesisConfig
from synth.run_folder import RunFolder
from synth.store import Memory

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SHORT = SynthesisConfig(steps=2)
TWO = SiteScale(("a", "b"), torch.zeros(2), torch.ones(2))


def sums(images):
    return torch.stack([images.sum((1, 2, 3)), -images.sum((1, 2, 3))], 1)


def task(network, config, size_px=(8, 8)):
    return Task(network, network, TWO, config, size_px, CPU)


def test_resume_does_not_time_the_acceleration_again(tiny_model, tmp_path, monkeypatch):
    """Two timings may differ: the run would be refused, and no option of the command line could save it."""
    model, out = tiny_model(), tmp_path / "set"
    monkeypatch.setattr(autotune, "choose_acceleration", lambda *_: "other")
    monkeypatch.setattr(execution, "ACCELERATIONS", ("none", "graphs", "other"))

    def stop(done, *_):
        if done > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(model, Stretch("a"), seeds=3, recipe=SHORT, device="cpu", out=out, slots=1, progress=stop)
    monkeypatch.setattr(autotune, "choose_acceleration", lambda *_: "none")
    made = synthesize(model, Stretch("a"), seeds=3, recipe=SHORT, device="cpu", out=out, resume=True)
    assert made.stimuli.provenance["config"]["accelerate"] == "other"
    assert made.stimuli.provenance["config"]["slots"] == 1


def test_an_image_whose_gradient_died_between_readings_goes_on_alike_after_a_resume(tmp_path):
    """That it moved since its last reading is part of its state: checkpoints fall between its readings too."""
    config = SynthesisConfig(param="pixels", start="gray", optimizer="sign", step_size=1 / 32, steps=11, check_every=4)
    jobs = [Job(Stretch("a"), 0)]

    def saturating(images):  # no gradient after six steps
        return (images.sum((1, 2, 3)) - 96).clamp(max=33)[:, None].expand(-1, 2)  # 6 a step

    whole = Memory()
    run(task(saturating, config), jobs, slots=1, store=whole)

    slots = Slots(task(saturating, config), 1)
    slots.put([(0, jobs[0], None)])
    slots.read()
    slots.advance()
    slots.read()
    for _ in range(2):  # as a neighbor out of phase makes it do
        slots._step()
    slots.slots[0].step += 2
    with RunFolder(tmp_path / "run", {}) as folder:
        folder.checkpoint(0, slots.unfinished())
        run(task(saturating, config), jobs, slots=1, store=folder)
        made = folder.made(0)
    assert (made.ended, made.trace) == (whole.made(0).ended, whole.made(0).trace)
    np.testing.assert_array_equal(made.codes, whole.made(0).codes)


def test_memory_of_what_did_not_fit_is_given_back_before_less_is_tried():
    held, alive = [], []

    def network(images):
        alive.append(any(size > len(images) and each() is not None for size, each in held))
        if len(images) > 1:
            held.append((len(images), weakref.ref(images)))
            raise RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)")
        return sums(images)

    store = Memory()
    gc.disable()
    try:
        with pytest.warns(RuntimeWarning, match="out of memory with . slots; going on with"):
            run(task(network, SHORT), [Job(Stretch("a"), seed) for seed in range(4)], slots=4, store=store)
    finally:
        gc.enable()
    assert held
    assert not any(alive)
    assert store.finished() == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "failure", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")]
)
def test_the_usual_number_of_slots_need_not_fit(tiny_model, monkeypatch, failure):
    """A timing without memory is slow, it is not the end of the run."""
    driver = driver_of(tiny_model(), [Stretch("a")], CPU)
    jobs = [Job(Stretch("a"), seed) for seed in range(200)]
    advance = Slots.advance

    def small_only(slots):
        if slots.count > 2:
            raise failure
        advance(slots)

    monkeypatch.setattr(Slots, "advance", small_only)
    assert autotune.choose_slots(Execution(CPU, accelerate="none"), driver, SHORT, jobs) == 2


def test_what_cannot_be_captured_runs_without_graphs(monkeypatch):
    """Also where there is no site at all to time it with."""
    bare = FeatureExtractor("efficientnet-lite0", "blocks.0", input_px=32)
    wanted = Custom(lambda responses, images: images.mean((1, 2, 3)), "bright")
    driver = driver_of(bare, [wanted], CPU)
    advance = Slots.advance

    def plain_only(slots):
        if slots.task.climb == "graphs":
            raise RuntimeError("operation not permitted when stream is capturing")
        advance(slots)

    monkeypatch.setattr(Slots, "advance", plain_only)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    plain = Execution.task

    def on_cpu(execution, driver, config, base=None):
        made = plain(Execution(CPU, accelerate="none"), driver, config, base)
        return dataclasses.replace(made, climb="graphs") if execution.accelerate == "graphs" else made

    monkeypatch.setattr(Execution, "task", on_cpu)
    assert autotune.choose_acceleration(Execution(CUDA), driver, SHORT, [Job(wanted, 0)]) == "none"


def test_graphs_are_captured_on_their_gpu_and_anew_when_slots_become_fewer(tiny_model, monkeypatch):
    captured, current = [], []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # one worker, as on a GPU

    @contextlib.contextmanager
    def device(which):
        current.append(which)
        yield
        current.pop()

    def make_graphed_callables(network, samples):
        shape = samples[0].shape
        captured.append((tuple(shape), list(current)))

        def replay(images):
            assert images.shape == shape
            if len(images) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return network(images)

        return replay

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make_graphed_callables)
    driver = driver_of(tiny_model(), [Stretch("a")], CPU)
    execution = Execution(CPU, slots=4)
    object.__setattr__(execution, "accelerate", "graphs")  # a CPU refuses it
    store = Memory()
    config = SynthesisConfig(steps=2, views=2)
    with pytest.warns(RuntimeWarning, match="going on with"):
        run(execution.task(driver, config), [Job(Stretch("a"), k) for k in range(4)], slots=4, store=store)
    assert store.finished() == {0, 1, 2, 3}
    assert captured == [((views, 3, 32, 32), [CPU]) for views in (8, 4, 2)]


def test_a_head_without_gpu_describes_those_of_its_workers():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert Execution(CUDA, slots=4, backend="ray").description() == "cuda, of other machines"


@dataclasses.dataclass
class Warm(Objective):
    """As users write them: equality without a hash."""

    site: str
    together: bool = False

    @property
    def coupled(self):
        return self.together

    def score(self, responses, scale, images=None):
        return responses[:, scale.index(self.site)]


@pytest.mark.parametrize("together", [False, True])
def test_an_objective_without_hash_is_made(tiny_model, together):
    made = synthesize(tiny_model(), Warm("a", together), seeds=2, recipe=SHORT, device="cpu")
    assert len(made.stimuli) == 2


class _WithoutDouble(torch.Tensor):
    """A tensor of a device without double precision, until it is brought to the CPU."""

    def __deepcopy__(self, memo):
        return self

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.double:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        if func is torch.Tensor.cpu:
            return args[0].as_subclass(torch.Tensor)
        return super().__torch_function__(func, types, args, kwargs or {})


def test_scores_ask_no_device_for_double_precision():
    scale = SiteScale(("a", "b"), *(torch.ones(2).as_subclass(_WithoutDouble) for _ in range(2)))
    assert OneHot("a").score(torch.tensor([[3.0, 1.0]]), scale).item() == pytest.approx(-np.log1p(np.exp(-2)), rel=1e-5)


def test_folding_asks_no_device_for_double_precision():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    network[1].running_var.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(0))
    images = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        expected = network(images)
    network[1].running_var = network[1].running_var.as_subclass(_WithoutDouble)
    folded = fold(network, (8, 8))
    assert type(folded[1]) is not nn.BatchNorm2d
    torch.testing.assert_close(folded(images), expected, rtol=1e-4, atol=1e-5)


def test_the_folder_may_be_the_current_one(tiny_model, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    made = synthesize(tiny_model(), Stretch("a"), seeds=1, recipe=SHORT, device="cpu", slots=1, out=".")
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert (tmp_path / "here" / "set.json").is_file()
    assert len(made.stimuli.codes()) == 1


class Scattered(Pixels):
    """Channels last: what the fused optimizer would read in another order than the gradient."""

    def encode(self, images):
        return super().encode(images).contiguous(memory_format=torch.channels_last)


def test_a_latent_that_would_climb_wrongly_is_refused():
    with pytest.raises(ValueError, match=r"the latent of param .*Scattered.* end its encode with .contiguous"):
        run(task(sums, SynthesisConfig(param=Scattered, steps=2)), [Job(Stretch("a"), 0)], slots=2, store=Memory())


def test_slots_are_timed_where_only_base_images_meet_the_constraints(tiny_model):
    aperture = Aperture(radius=0.2, edge=0.2)
    config = SynthesisConfig(channels=3, start="base", aperture=aperture, mean_luminance=0.9, steps=2)
    model, base = tiny_model(), natural_photos(1, size_px=32)
    driver = driver_of(model, [Stretch("a")], CPU)
    job = Job(Stretch("a"), 0, base.stimulus_ids[0])
    assert autotune._rate(Execution(CPU, accelerate="none"), driver, config, job, 1) > 0


def test_a_bare_network_may_have_no_column_at_all():
    bare = FeatureExtractor("efficientnet-lite0", "blocks.0", input_px=32)
    bright = Custom(lambda responses, images: images.mean((1, 2, 3)), "bright")
    made = synthesize(bare, bright, seeds=1, recipe=SynthesisConfig(steps=10), device="cpu")
    assert made.trace["score"].iloc[-1] > made.trace["score"].iloc[0] + 0.01


@pytest.mark.parametrize("name", ["min_gain", "total_variation", "gradient_decay", "step_size", "output_gain"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_recipe_of_numbers_that_compare_with_nothing_is_refused(name, value):
    """A gain of NaN ended every image at its first chance; an output gain of NaN wrote black images."""
    with pytest.raises(ValueError, match=name):
        SynthesisConfig(param="pixels", **{name: value})


@pytest.mark.parametrize("seeds", [[0.5, 1.5], 2.0, np.array([1.0])])
def test_seeds_are_not_rounded(tiny_model, seeds):
    with pytest.raises(TypeError, match=r"seeds is .* expected a whole number"):
        synthesize(tiny_model(), Stretch("a"), seeds=seeds, recipe=SHORT, device="cpu", slots=1)


def test_numbers_of_numpy_are_recorded(tiny_model, tmp_path):
    numbers = {"seeds": np.array([3, -1]), "slots": np.int64(2), "out": tmp_path / "set"}
    made = synthesize(tiny_model(), Stretch("a"), recipe=SHORT, device="cpu", **numbers)
    assert made.stimuli.table["seed"].tolist() == [3, -1]
