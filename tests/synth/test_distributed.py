"""Jobs over a local Ray of two workers: the same set as one process, also when a worker dies."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from synth import distributed
from synth.image_objectives import Custom, Diversity
from synth.objectives import Stretch
from synth.recipes import SynthesisConfig
from synth.synthesize import synthesize

SHORT = SynthesisConfig(steps=12, check_every=2)


def make(model, objectives, **options):
    return synthesize(
        model, objectives, **{"recipe": SHORT, "seeds": 2, "slots": 2, "device": "cpu", "backend": "ray"} | options
    )


def contents(folder):
    files = [*sorted((folder / "images").iterdir()), folder / "stimuli.csv", folder / "trace.csv"]
    return {path.name: path.read_bytes() for path in files}


def rays():
    """Return the numbers of all processes of Ray that live."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            state = (place / "stat").read_text().rsplit(")", 1)[1].split()[0]
            command = (place / "cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:
            continue
        if state != "Z" and (b"raylet" in command or b"gcs_server" in command or b"ray::" in command):
            found.add(int(place.name))
    return found


def once_in(folder, deed):
    """Return an objective that does a deed at its first score after the model was tried out in the main process."""
    path, main = str(folder / "worker"), os.getpid()

    def score(responses, images):
        import os
        import pathlib

        if os.getpid() != main and not pathlib.Path(path).exists():
            pathlib.Path(path).write_text(str(os.getpid()))
            deed()
        return responses[:, 0] + images.mean((1, 2, 3))

    return Custom(score)


def test_a_cluster_of_our_own_leaves_no_process(tiny_model):
    ray, before = pytest.importorskip("ray"), rays()
    made = make(tiny_model(), [Stretch("a")], address="local")
    assert len(made.stimuli) == 2
    assert not ray.is_initialized()
    until = time.monotonic() + 20
    while rays() - before and time.monotonic() < until:
        time.sleep(0.1)
    assert not rays() - before


@pytest.fixture(scope="module")
def two_workers():
    """A cluster for the whole file, as a user may have one already."""
    ray = pytest.importorskip("ray", reason="needs Ray: python -m pip install 'neural-population-control[ray]'")
    before = rays()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()
    until = time.monotonic() + 20
    while rays() - before and time.monotonic() < until:
        time.sleep(0.1)
    assert not rays() - before


def test_set_is_that_of_one_process(two_workers, tiny_model, tmp_path):
    model = tiny_model()
    objectives = [*(Stretch(site) for site in "abc"), Diversity(Stretch("b"), weight=0.5)]
    seen = []
    made = make(model, objectives, seeds=2, out=tmp_path / "ray", progress=lambda *told: seen.append(told))
    make(model, objectives, seeds=2, out=tmp_path / "one", backend="local")
    assert contents(tmp_path / "ray") == contents(tmp_path / "one")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "ray"]
    config = made.stimuli.provenance["config"]
    assert (config["backend"], config["slots"], config["device"]) == ("ray", 2, "cpu")
    assert [done for done, _, _ in seen] == [48, 96]  # a chunk of four images for each worker
    assert {total for _, total, _ in seen} == {96}
    assert str(seen[-1][2]) == "8 of 8 images"
    assert two_workers.is_initialized()  # the user's own cluster is left as it was


def test_a_killed_worker_is_replaced_and_the_set_is_the_same(two_workers, tiny_model, tmp_path):
    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    model, objectives = tiny_model(), [once_in(tmp_path, die), Stretch("a"), Stretch("b")]
    made = make(model, objectives)
    victim = int((tmp_path / "worker").read_text())
    assert victim != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(victim, 0)
    expected = make(model, objectives, backend="local")
    np.testing.assert_array_equal(made.stimuli.codes(), expected.stimuli.codes())
    assert made.trace.equals(expected.trace)


def test_workers_that_always_die_end_the_run_with_a_sentence(two_workers, tiny_model, tmp_path, monkeypatch):
    main = os.getpid()

    def deadly(responses, images):
        if os.getpid() != main:
            os.kill(os.getpid(), signal.SIGKILL)
        return responses[:, 0]

    monkeypatch.setattr(distributed, "_RETRIES", 1)
    with pytest.raises(RuntimeError, match=r"^workers died 2 times while they made the same images: ") as failed:
        make(tiny_model(), [Custom(deadly)])
    assert "\n" not in str(failed.value)


def test_an_interrupted_run_goes_on(two_workers, tiny_model, tmp_path):
    model, objectives = tiny_model(), [Stretch(site) for site in "abc"]

    def stop(done, total, status):
        if status.images >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(model, objectives, seeds=4, out=tmp_path / "out", progress=stop)
    partial = tmp_path / "out.partial"
    kept = {path.name: path.stat().st_mtime_ns for path in (partial / "done").glob("*.png")}
    assert 4 <= len(kept) < 12
    seen = []
    make(
        model,
        objectives,
        seeds=4,
        out=tmp_path / "out",
        resume=True,
        progress=lambda *told: seen.append(told[2].images),
    )
    assert seen[0] > len(kept)
    assert seen[-1] == 12
    make(model, objectives, seeds=4, out=tmp_path / "one", backend="local")
    assert contents(tmp_path / "out") == contents(tmp_path / "one")

    # and the other way around: a run of one process goes on with Ray
    def stop_later(done, total, status):
        if status.images >= 4:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        make(model, objectives, seeds=4, out=tmp_path / "mixed", backend="local", progress=stop_later)
    make(model, objectives, seeds=4, out=tmp_path / "mixed", resume=True)
    assert contents(tmp_path / "mixed") == contents(tmp_path / "one")


def test_wrong_input_of_a_worker_is_told_as_it_is(two_workers, tiny_model, tmp_path):
    def fail():
        raise KeyError("broken")

    with pytest.raises(KeyError) as failed:
        make(tiny_model(), [once_in(tmp_path, fail)])
    assert type(failed.value) is KeyError
    assert str(failed.value) == "'broken'"
    with pytest.raises(ValueError, match="depend on each other but only 2 fit"):
        make(tiny_model(), [Diversity(Stretch("a"))], seeds=3)


def test_chunks_hold_every_job_once_and_keep_together_what_belongs_together():
    units = [[0], [1, 2, 3], [4], [5], [6, 7]]
    for slots, workers in ((3, 1), (3, 2), (4, 9)):
        chunks = list(distributed._chunks(units, slots, workers))
        assert sorted(number for chunk in chunks for number in chunk) == list(range(8))
        for unit in units:
            assert any(set(unit) <= set(chunk) for chunk in chunks)
        assert all(len(chunk) <= max(slots, 4 * slots) for chunk in chunks)
    many = list(distributed._chunks([[k] for k in range(100)], 4, 2))
    assert {len(chunk) for chunk in many[:-1]} == {16}  # a few fillings of the slots
    few = list(distributed._chunks([[k] for k in range(16)], 4, 4))
    assert [len(chunk) for chunk in few] == [4] * 4  # every worker has something to do


def test_without_ray_it_is_said_how_to_get_it(tiny_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"^Ray is not installed; .* 'neural-population-control\[ray\]'$"):
        make(tiny_model(), [Stretch("a")])


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nonsense", "a:b", "127.0.0.1:99999"])
def test_a_wrong_address_is_told_at_once(tiny_model, monkeypatch, address):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: pytest.fail("Ray tries for many minutes"))
    with pytest.raises(ConnectionError, match=f"^there is no Ray cluster at '{address}' .*; give host:port"):
        make(tiny_model(), [Stretch("a")], address=address)


def test_a_cluster_of_our_own_is_started_and_left(tiny_model, monkeypatch):
    ray = pytest.importorskip("ray")
    calls, before = [], signal.getsignal(signal.SIGTERM)

    def init(**options):
        calls.append(options)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ray does with a function of its own

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("left"))
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0, "GPU": 3.0})
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # must not be taken for what was asked
    with contextlib.suppress(KeyError), distributed.cluster(None) as device:
        assert device == torch.device("cuda")
        assert signal.getsignal(signal.SIGTERM) is before
        raise KeyError
    threads = torch.get_num_threads()
    assert calls[0].items() >= {"address": "local", "num_cpus": threads}.items()
    assert calls[1:] == ["left"]
