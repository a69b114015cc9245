"""Runs that are killed, interrupted, damaged or cut short by a full disk, and what they become when they go on."""

from __future__ import annotations

import errno
import importlib.util
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from stimuli import StimulusSet
from synth.engine import Slots
from synth.image_objectives import Diversity
from synth.objectives import OneHot, Stretch
from synth.recipes import SynthesisConfig, recipe
from synth.synthesize import synthesize

SHORT = SynthesisConfig(steps=12, check_every=2)
OBJECTIVES = [Stretch("a"), OneHot("b")]


@pytest.fixture(autouse=True)
def two_workers_and_ctrl_c():
    threads, before = torch.get_num_threads(), signal.getsignal(signal.SIGINT)
    torch.set_num_threads(2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs the tests in its background
    yield
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, before)


def make(model, out, objectives=OBJECTIVES, **options):
    usual = {"recipe": SHORT, "seeds": 3, "slots": 2, "device": "cpu", "checkpoint_s": 0.0}
    return synthesize(model, objectives, out=out, **{**usual, **options})


def contents(folder):
    """Return the bytes that must not depend on what happened: name -> bytes."""
    files = [*sorted((folder / "images").iterdir()), folder / "stimuli.csv", folder / "trace.csv"]
    return {path.name: path.read_bytes() for path in files}


def interrupted(model, out, after=5, **options):
    """Make the images until Ctrl-C at a call of progress; return the folder of the run."""
    calls = []

    def stop(done, total, status):
        calls.append(done)
        if len(calls) == after:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.05)  # the main thread has to wake

    with pytest.raises(KeyboardInterrupt):
        make(model, out, progress=stop, **options)
    return out.with_suffix(".partial")


@pytest.fixture
def steps(monkeypatch):
    """Count the steps taken in all slots."""
    taken, real, lock = [], Slots._step, threading.Lock()

    def step(slots):
        with lock:
            taken.extend(slot.number for slot in slots.slots if slot is not None)
        return real(slots)

    monkeypatch.setattr(Slots, "_step", step)
    return taken


@pytest.fixture(scope="module")
def by_script(tmp_path_factory):
    """Run killed_run.py in a new folder; return folder and what it printed."""

    def call(*arguments):
        folder = tmp_path_factory.mktemp("killed")
        script = Path(__file__).with_name("killed_run.py")
        told = subprocess.run(
            [sys.executable, str(script), str(folder), *arguments], capture_output=True, text=True, check=False
        )
        assert told.returncode == 0, told.stderr
        return folder, json.loads(told.stdout)

    return call


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_no_byte(by_script):
    folder, hits = by_script("20", "1")
    assert hits == 20
    assert contents(folder / "killed") == contents(folder / "whole")
    assert len(StimulusSet.load(folder / "killed")) == 18
    assert sorted(path.name for path in folder.iterdir()) == ["killed", "whole"]  # also nothing hidden


@pytest.mark.slow
def test_a_kill_at_any_stage_of_ending_a_run_leaves_nothing_behind(by_script):
    folder, hits = by_script("stages")
    assert set(hits.values()) == {True}
    whole = contents(folder / "whole")
    for stage in hits:
        assert contents(folder / stage) == whole, stage
    assert sorted(path.name for path in folder.iterdir()) == sorted(["whole", *hits])


def test_ctrl_c_writes_a_checkpoint_and_the_run_goes_on_from_there(tiny_model, tmp_path, steps):
    model = tiny_model()
    make(model, tmp_path / "whole", checkpoint_s=1e9)
    assert len(steps) == 6 * 12
    steps.clear()
    partial = interrupted(model, tmp_path / "out", after=4, checkpoint_s=1e9)  # no checkpoint by time
    first = list(steps)
    assert list(partial.glob("slots-*.safetensors"))
    steps.clear()
    make(model, tmp_path / "out", resume=True)
    assert 0 < len(steps) < 6 * 12
    assert len(first) + len(steps) == 6 * 12  # no step is taken twice
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert not partial.exists()


def test_states_survive_a_second_interruption_before_the_other_worker_wrote_its_own(tiny_model, tmp_path):
    from synth.run_folder import RunFolder

    model = tiny_model()
    partial = interrupted(model, tmp_path / "out", after=6)
    record = RunFolder.recorded(partial)
    record.pop("format_version")
    with RunFolder(partial, record, resume=True) as run:
        before = set(run.unfinished()) - run.finished()
    assert len(before) >= 2
    with RunFolder(partial, record, resume=True) as run:
        run.checkpoint(0, {})  # this worker has begun with other images, the other was killed
    with RunFolder(partial, record, resume=True) as run:
        assert set(run.unfinished()) - run.finished() == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"recipe": SynthesisConfig(steps=12, check_every=3)},
            r"with check_every=2, and now it is check_every=3 \(the recipe\)",
        ),
        ({"seeds": 4}, "with 6 images, and now it is 8"),
        ({"seeds": [0, 1, 5]}, "seed 2, and now it is .* seed 5"),
        ({"slots": 3}, "with slots 2, and now it is 3"),
        ({"amp": True}, "with amp False, and now it is True"),
        ({"objectives": [Stretch("a"), OneHot("c")]}, r"OneHot\(.b.\) with seed 0, and now"),
        ("weights", "with another model"),
        ("statistics", "with another model"),
    ],
)
def test_another_run_is_refused_in_one_sentence_and_loses_nothing(tiny_model, tmp_path, change, told):
    model = tiny_model()
    partial = interrupted(model, tmp_path / "out", after=8)
    before = {path.name: path.read_bytes() for path in partial.rglob("*") if path.is_file() and path.name != "lock"}
    other, options = model, change
    if isinstance(change, str):
        other, options = tiny_model(seed=1) if change == "weights" else tiny_model(), {}
    if change == "statistics":
        object.__setattr__(other.info, "natural_std", (9.0, 9.0, 9.0))
    with pytest.raises(ValueError, match=told) as refused:
        make(other, tmp_path / "out", **{"resume": True, **options})
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith("ask for the same to go on, or delete that folder")
    images = {name: data for name, data in before.items() if not name.startswith("slots-")}
    assert images.items() <= {p.name: p.read_bytes() for p in partial.rglob("*") if p.is_file()}.items()
    make(model, tmp_path / "out", resume=True)
    make(model, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_slots_that_were_chosen_by_timing_are_taken_from_the_run(tiny_model, tmp_path, monkeypatch):
    model = tiny_model()
    monkeypatch.setattr("synth.autotune.choose_slots", lambda *args: 2)
    interrupted(model, tmp_path / "out", slots=None)
    monkeypatch.setattr("synth.autotune.choose_slots", lambda *args: pytest.fail("slots were chosen again"))
    made = make(model, tmp_path / "out", slots=None, resume=True)
    assert made.stimuli.provenance["config"]["slots"] == 2


def test_a_complete_set_is_returned_as_it_is(tiny_model, tmp_path, steps):
    model, out = tiny_model(), tmp_path / "out"
    made = make(model, out)
    for slots in (2, None):
        steps.clear()
        again = make(model, out, resume=True, slots=slots)
        assert not steps
        assert again.stimuli.stimulus_ids == made.stimuli.stimulus_ids
        np.testing.assert_array_equal(again.stimuli.codes(), made.stimuli.codes())
        assert again.trace.equals(made.trace)
    with pytest.raises(FileExistsError, match=r"choose another folder, or replace it with --overwrite"):
        make(model, out, resume=True, recipe=SynthesisConfig(steps=2))
    (out.with_suffix(".partial")).mkdir()  # what a run leaves that is killed at the very end
    make(model, out, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_set_was_saved_and_the_run_still_lies_there(tiny_model, tmp_path, monkeypatch, steps):
    model, out = tiny_model(), tmp_path / "out"

    def killed(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["synth.synthesize"], "remove_run", killed)
    with pytest.raises(KeyboardInterrupt):
        make(model, out)
    monkeypatch.undo()
    assert out.exists()
    assert out.with_suffix(".partial").exists()
    (tmp_path / f".out.{'0' * 12}.tmp").mkdir()
    (tmp_path / ".out.mine").mkdir()
    made = make(model, out, resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.mine", "out"]
    assert made.stimuli.codes().shape == (6, 3, 32, 32)  # read from the set, not from the folder that is gone
    assert made.trace.equals(make(model, tmp_path / "other").trace)


def test_images_of_a_run_that_was_being_removed_are_not_taken_for_those_of_the_next(tiny_model, tmp_path):
    model, out = tiny_model(), tmp_path / "out"
    partial = interrupted(model, out, after=16)
    assert list((partial / "done").glob("*.png"))
    (partial / "run.json").unlink()  # removed first, then the process was killed
    make(model, out, [Stretch("c")], recipe=SynthesisConfig(steps=4))
    make(model, tmp_path / "whole", [Stretch("c")], recipe=SynthesisConfig(steps=4))
    assert contents(out) == contents(tmp_path / "whole")


def test_damaged_images_and_states_are_made_again(tiny_model, tmp_path):
    model, out = tiny_model(), tmp_path / "out"
    make(model, tmp_path / "whole")
    partial = interrupted(model, out, after=16)
    first, *_ = sorted((partial / "done").glob("*.png"))
    good = first.read_bytes()
    first.write_bytes(good[:-20] + bytes(8) + good[-12:])
    for states in partial.glob("slots-*"):
        states.write_bytes(states.read_bytes()[:-7])
    make(model, out, resume=True)
    assert contents(out) == contents(tmp_path / "whole")


def test_coupled_images_go_on_together(tiny_model, tmp_path, steps):
    model, out = tiny_model(), tmp_path / "out"
    options = {"objectives": [Diversity(Stretch("a"), weight=0.5), Stretch("b")], "slots": 3}
    make(model, tmp_path / "whole", **options)
    steps.clear()
    interrupted(model, out, after=3, **options)
    make(model, out, resume=True, **options)
    assert len(steps) == 6 * 12
    assert contents(out) == contents(tmp_path / "whole")


def test_a_second_run_must_say_what_it_wants(tiny_model, tmp_path):
    model, out = tiny_model(), tmp_path / "out"
    with pytest.raises(FileNotFoundError, match="there is no interrupted run in"):
        make(model, out, resume=True)
    with pytest.raises(ValueError, match="there is nothing to resume without a folder"):
        make(model, None, resume=True)
    interrupted(model, out)
    with pytest.raises(FileExistsError, match="holds an interrupted run; go on with it by --resume"):
        make(model, out)
    with pytest.raises(FileExistsError, match="holds an interrupted run; go on with it by --resume"):
        make(model, out, overwrite=True)


def test_overwrite_keeps_the_old_set_until_the_new_one_is_there(tiny_model, tmp_path):
    model, out = tiny_model(), tmp_path / "out"
    make(model, out, seeds=1)
    old = contents(out)
    with pytest.raises(FileExistsError, match="--overwrite"):
        make(model, out)
    partial = interrupted(model, out, overwrite=True)
    assert contents(out) == old
    with pytest.raises(FileExistsError, match="--overwrite"):  # said before the work, not after it
        make(model, out, resume=True, progress=lambda *told: pytest.fail("work was begun"))
    assert partial.exists()
    make(model, out, resume=True, overwrite=True)
    make(model, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_a_run_that_is_refused_leaves_no_folder(tiny_model, tmp_path):
    coupled = [Diversity(Stretch("a"))]
    with pytest.raises(ValueError, match="depend on each other but only 2 fit"):
        make(tiny_model(), tmp_path / "new" / "out", coupled)
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("where", ["image", "set"])
def test_full_disk_keeps_finished_images_and_says_so(tiny_model, tmp_path, monkeypatch, where):
    model, out = tiny_model(), tmp_path / "out"
    partial, real = out.with_suffix(".partial"), Path.open
    makes_set = threading.Event()

    def full(path, *args, **options):
        written = len(list(partial.glob("done/*.json")))
        if (where == "image" and written >= 2) or (where == "set" and path.name == "stimuli.csv"):
            makes_set.set()
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match=r"^the disk is full; the images finished so far are kept in '.*out\.partial': "):
        make(model, out, checkpoint_s=1e9)
    monkeypatch.undo()
    assert makes_set.is_set()
    assert len(list(partial.glob("done/*.json"))) in ({6} if where == "set" else {2, 3})  # there are two workers
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]
    make(model, out, resume=True)
    make(model, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")


# ---- the command, in processes of its own

COMMAND = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import killed_run
import neural_fits, synth.progress, synth.synthesize
neural_fits.load_model = lambda folder: killed_run.model()
from synth.cli import main
sys.exit(main())
"""


def npc(*arguments):
    """Return a process that runs npc on the model of killed_run."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(Path(__file__).parent), "synth", "model", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.slow
def test_a_notice_of_termination_ends_the_command_as_ctrl_c_does(tmp_path):
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    options = ("--stretch", "all", "--images", 4, "--steps", 150, "--slots", 3, "-q", "--out", out)
    first = npc(*options)
    until = time.monotonic() + 40
    while not list(partial.glob("done/*.json")):
        assert first.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)  # so that it is still there when the second comes
    code, printed, told = ended(npc(*options))
    assert (code, printed) == (2, "")
    assert told == f"npc: another process is making images in '{partial}'; wait for it, or choose another folder\n"
    first.send_signal(signal.SIGCONT)
    time.sleep(0.05)  # in a stopped process any thread may take the next signal, and only the main one acts at once
    first.send_signal(signal.SIGTERM)
    code, printed, told = ended(first)
    assert (code, printed, told) == (130, "", "npc: interrupted; give the same command with --resume to go on\n")
    assert list(partial.glob("slots-*.safetensors"))
    assert not out.exists()
    assert ended(npc(*options, "--resume")) == (0, f"{out}\n", "")

    spec = importlib.util.spec_from_file_location("killed_run", Path(__file__).with_name("killed_run.py"))
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    whole = {"seeds": 4, "slots": 3, "recipe": recipe("robust", steps=150)}
    make(script.model(), tmp_path / "whole", [Stretch(site) for site in "abc"], **whole)
    assert contents(out) == contents(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_two_processes_on_one_folder(tiny_model, tmp_path):
    model, out, told = tiny_model(), tmp_path / "out", []

    def second(done, total, status):
        if not told:
            for options in ({}, {"resume": True}):
                with pytest.raises(FileExistsError) as refused:
                    make(model, out, **options)
                told.append(str(refused.value))

    make(model, out, progress=second)
    assert len(told) == 2
    for sentence in told:
        assert sentence.startswith(f"another process is making images in '{out}.partial'")
        assert sentence.endswith("wait for it, or choose another folder")
    make(model, tmp_path / "whole")
    assert contents(out) == contents(tmp_path / "whole")
