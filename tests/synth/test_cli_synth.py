"""The options of ``npc synth``: what they become, and what is refused in one sentence."""

from __future__ import annotations

import json
import signal
import sys

import numpy as np
import pytest

from stimuli import StimulusSet, natural_photos
from synth import cli
from synth.objectives import OneHot, Stretch
from synth.recipes import recipe
from synth.synthesize import synthesize


@pytest.fixture
def npc(monkeypatch, capsys, tiny_model):
    """Call ``npc synth model ...`` on a tiny model; return exit code, standard output and standard error."""
    monkeypatch.setattr("neural_fits.load_model", lambda folder: tiny_model())

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["npc", "synth", "model", "-q", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return stopped.value.code or 0, captured.out, captured.err

    return call


@pytest.fixture
def asked(monkeypatch, npc):
    """Call, but return the arguments that `synthesize` is given."""
    given = []

    class Enough(ValueError):
        pass

    def stop(model, objectives, **options):
        given.append((list(objectives), options))
        raise Enough("enough")

    def call(*arguments):
        given.clear()
        monkeypatch.setattr(sys.modules["synth.synthesize"], "synthesize", stop)
        assert npc(*arguments) == (2, "", "npc: enough\n")
        return given[0]

    return call


def test_defaults(asked):
    objectives, options = asked("--stretch", "a")
    assert objectives == [Stretch("a")]
    assert options["recipe"] == recipe("robust")
    assert list(options["seeds"]) == [0, 1, 2, 3, 4]
    usual = {
        "base": None,
        "natural": None,
        "resume": False,
        "overwrite": False,
        "device": None,
        "slots": None,
        "amp": False,
    }
    assert options.items() >= (usual | {"backend": "local", "address": None}).items()


def test_targets_of_all_kinds_come_in_order(asked):
    text = repr(Stretch("a") - 0.5 * Stretch("b"))
    objectives, _ = asked("--objective", text, "--one-hot", "b", "--stretch", "all", "--objective", "Suppress('c')")
    assert [repr(each) for each in objectives[3:]] == [repr(OneHot("b", form="log")), text, "Suppress('c')"]
    assert objectives[:3] == [Stretch("a"), Stretch("b"), Stretch("c")]
    objectives, _ = asked("--one-hot", "all", "--population", "a", "--population", "c", "--recipe", "paper")
    assert objectives == [OneHot(site, ("a", "c"), form="paper") for site in "ac"]


def test_example_of_the_help_is_understood(asked):
    objectives, _ = asked("--objective", "Stretch('a') - 0.5 * Stretch('b')")
    assert objectives == [Stretch("a") - 0.5 * Stretch("b")]


def test_options_become_arguments(asked, tmp_path):
    _, options = asked(
        "--stretch", "a", "--images", 3, "--seed", 7, "--steps", 11, "--patience", 4, "--slots", 6, "--bf16",
        "--resume", "--overwrite", "--device", "cpu", "--out", tmp_path / "x", "--recipe", "paper",
    )  # fmt: skip
    assert list(options["seeds"]) == [7, 8, 9]
    assert options["recipe"] == recipe("paper", steps=11, patience=4)
    wanted = {"slots": 6, "amp": True, "resume": True, "overwrite": True, "device": "cpu", "out": tmp_path / "x"}
    assert options.items() >= wanted.items()


@pytest.mark.parametrize(
    ("arguments", "address"),
    [
        (("--ray", "--stretch", "a"), "local"),
        (("--stretch", "a", "--ray"), "local"),
        (("--stretch", "a", "--ray", "10.0.0.1:6379"), "10.0.0.1:6379"),
        (("--ray", "auto", "--stretch", "a"), "auto"),
        (("--ray=10.0.0.1:6379", "--stretch", "a"), "10.0.0.1:6379"),
    ],
)
def test_ray_takes_an_address_or_none(asked, arguments, address):
    _, options = asked(*arguments)
    assert (options["backend"], options["address"]) == ("ray", address)


def test_base_images_are_changed_within_the_budget(npc, tmp_path):
    base = natural_photos(2, size_px=32).save(tmp_path / "base")
    budget = ("--max-rms-change", 0.05, "--max-change", 0.1)
    code, out, err = npc(
        "--stretch", "a", "--base", tmp_path / "base", *budget, "--images", 1, "--steps", 20, "--slots", 2,
        "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert json.loads(out) == {"images": 2, "objectives": 1, "set": str(tmp_path / "out"), "ended": {"steps": 2}}
    made = StimulusSet.load(tmp_path / "out")
    assert made.table["base"].tolist() == list(base.stimulus_ids)
    change = made.images() - base.images()
    rms = np.sqrt((change**2).mean((1, 2, 3)))
    assert (rms <= 0.05 + 1 / 255).all()
    assert (rms > 0.02).all()
    assert np.abs(change).max() <= 0.1 + 1 / 255


def test_over_production_keeps_the_best_judged(npc, tmp_path, monkeypatch, tiny_model):
    judge = tiny_model(seed=5)
    monkeypatch.setattr("neural_fits.load_model", lambda folder: judge if folder.name == "judge" else tiny_model())
    few = ("--stretch", "a", "--stretch", "b", "--images", 2, "--steps", 3, "--slots", 2, "--recipe", "paper")
    assert npc(*few, "--over-produce", 3, "--validator", "judge", "--out", tmp_path / "kept")[0] == 0
    assert npc(*few[:4], "--images", 6, *few[6:], "--out", tmp_path / "all")[0] == 0
    kept, everything = StimulusSet.load(tmp_path / "kept"), StimulusSet.load(tmp_path / "all")
    for column, site in enumerate("ab"):
        mine = (everything.table["target_site"] == site).to_numpy()
        best = np.argsort(-np.where(mine, judge.predict(everything)[:, column], -np.inf))[:2]
        names = [everything.stimulus_ids[k] for k in best]
        assert set(kept.table["stimulus_id"][kept.table["target_site"] == site]) == set(names)
    assert kept.table["candidates"].unique().tolist() == [6]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all", "kept"]


@pytest.mark.parametrize(
    ("objective", "told"),
    [("Diversity(Stretch('a'))", "responses cannot be scored by it"), ("Stretch('c')", "no site 'c' among the 2")],
)
def test_what_a_validator_cannot_judge_is_told_before_the_work(npc, tmp_path, monkeypatch, tiny_model, objective, told):
    judge = tiny_model(sites=("a", "b"))
    monkeypatch.setattr("neural_fits.load_model", lambda folder: judge if folder.name == "judge" else tiny_model())
    monkeypatch.setattr(sys.modules["synth.synthesize"], "synthesize", lambda *a, **b: pytest.fail("work was begun"))
    options = ("--over-produce", 2, "--validator", "judge", "--out", tmp_path / "out")
    code, _, err = npc("--objective", objective, *options)
    assert code == 2
    assert told in err


def test_patience_ends_images_early(npc, tmp_path):
    arguments = ("--stretch", "a", "--images", 2, "--steps", 600, "--patience", 1, "--slots", 2, "--json")
    code, out, _ = npc(*arguments, "--out", tmp_path / "out")
    assert code == 0
    assert json.loads(out)["ended"] == {"patience": 2}


def test_tensorboard_files_are_written(npc, tmp_path):
    pytest.importorskip("tensorboard", reason="needs TensorBoard: python -m pip install tensorboard")
    code, _, err = npc(
        "--stretch", "a", "--images", 1, "--steps", 20, "--out", tmp_path / "out", "--tensorboard", tmp_path / "board"
    )
    assert (code, err) == (0, "")
    assert len(list((tmp_path / "board").glob("events.out.tfevents.*"))) == 1


def test_missing_tensorboard_is_told_before_the_work(npc, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setattr(sys.modules["synth.synthesize"], "synthesize", lambda *a, **b: pytest.fail("work was begun"))
    code, _, err = npc("--stretch", "a", "--out", tmp_path / "out", "--tensorboard", tmp_path / "board")
    assert code == 2
    assert err.startswith("npc: TensorBoard is not installed; install it with")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--objective", "Stretch('aa')"), "no site 'aa' among the 3; did you mean 'a'?"),
        (("--objective", "Stretsh('a')"), "is not an objective: did you mean 'Stretch'?"),
        (("--objective", "__import__('os').getcwd()"), "is not an objective"),
        (("--objective", "LayerUnit('22', 0)"), "has no layer '22'"),
        (("--objective", "Custom('my_lab:warm')"), "was read from text and cannot score"),
        (("--objective", "Stretch('a')", "--stretch", "a"), "Stretch('a') is given twice"),
        (("--stretch", "a", "--max-change", "0.1"), "bound the change of base images; give --base SET"),
        (("--stretch", "a", "--max-rms-change", "0.1"), "bound the change of base images; give --base SET"),
        (("--stretch", "a", "--base", "nothing"), "nothing"),
        (("--stretch", "a", "--resume"), "there is no interrupted run in"),
        (("--stretch", "a", "--ray", "127.0.0.1:1"), "there is no Ray cluster at '127.0.0.1:1'"),
        (("--objective", "Diversity(Stretch('a'))", "--slots", "2"), "5 images of Diversity(Stretch('a')) depend on"),
        (("--population", "a"), "no target was named"),
        (("--stretch", "a", "--over-produce", "2"), "--over-produce and --validator belong together"),
        (("--stretch", "a", "--validator", "judge"), "--over-produce and --validator belong together"),
    ],
)
def test_wrong_input_is_one_sentence_and_leaves_nothing(npc, tmp_path, monkeypatch, arguments, told):
    if "--ray" in arguments:
        pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    code, out, err = npc("--out", tmp_path / "out", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("npc: ")
    assert err.count("\n") == 1
    assert told in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [("--images", "0"), ("--steps", "0"), ("--patience", "0"), ("--slots", "0")])
def test_numbers_below_one_are_refused(npc, arguments):
    code, _, err = npc("--stretch", "a", *arguments)
    assert code == 2
    assert arguments[0] in err


def test_base_of_another_size_and_without_ray(npc, tmp_path, monkeypatch):
    natural_photos(2, size_px=48).save(tmp_path / "base")
    code, _, err = npc("--stretch", "a", "--base", tmp_path / "base", "--out", tmp_path / "out")
    assert code == 2
    assert "base images are 3 x 48 x 48 (channels, height, width), the driver takes 3 x 32 x 32" in err
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = npc("--stretch", "a", "--ray", "--out", tmp_path / "out")
    assert code == 2
    assert err.startswith("npc: Ray is not installed; install it with")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_interruption_tells_what_can_be_done(npc, monkeypatch, tmp_path):
    before = signal.getsignal(signal.SIGTERM)

    def early(*args, **options):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(sys.modules["synth.synthesize"], "synthesize", early)
    arguments = ("--stretch", "a", "--out", tmp_path / "out", "--steps", 4, "--images", 2, "--slots", 2)
    assert npc(*arguments) == (130, "", "npc: interrupted; nothing was written\n")

    def late(*args, **options):
        def stop(done, total, status):
            if done:
                raise KeyboardInterrupt

        synthesize(*args, **{**options, "progress": stop})

    monkeypatch.setattr(sys.modules["synth.synthesize"], "synthesize", late)
    assert npc(*arguments) == (130, "", "npc: interrupted; give the same command with --resume to go on\n")
    monkeypatch.setattr(sys.modules["synth.synthesize"], "synthesize", synthesize)
    assert npc(*arguments, "--resume") == (0, f"{tmp_path / 'out'}\n", "")
    assert signal.getsignal(signal.SIGTERM) is before


def test_full_disk_is_told_with_what_is_kept(npc, monkeypatch, tmp_path):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("stimuli._set_io._table.to_csv", full)
        code, out, err = npc("--stretch", "a", "--out", tmp_path / "out", "--steps", 20, "--images", 1)
    assert (code, out) == (2, "")
    kept = (
        f"npc: the disk is full; the images finished so far are kept in '{tmp_path / 'out.partial'}': free some space "
    )
    assert err == kept + "and go on by --resume (resume=True in Python)\n"
    code, out, _ = npc("--stretch", "a", "--out", tmp_path / "out", "--steps", 20, "--images", 1, "--resume")
    assert (code, out) == (0, f"{tmp_path / 'out'}\n")


def test_param_is_that_of_the_recipe_or_the_one_asked_for(asked, npc):
    assert asked("--stretch", "a", "--param", "deep_prior")[1]["recipe"] == recipe("robust", param="deep_prior")
    code, _, said = npc("--stretch", "a", "--param", "deep")
    assert code == 2
    assert "param is 'deep'; expected one of" in said
