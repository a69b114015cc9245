"""The closed loop: merged data against planted responses, who sees what, resuming, and recordings from files."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from neural_fits import SimulatedBrain, SiteRecordings, load_model
from stimuli import StimulusSet, natural_photos
from synth import _loop_judge, closed_loop
from synth._loop_data import seen_by
from synth.closed_loop import (
    LoopConfig,
    extend_loop,
    gains_per_round,
    give_recordings,
    loop_state,
    merge_recordings,
    next_round,
    start_loop,
)
from synth.commands.loop import loop as loop_command
from synth.commands.loop import plan as plan_command

TINY = LoopConfig(
    rounds=2,
    targets=4,
    images=2,
    steps=2,
    folds=3,
    repeats=4,
    image_repeats=4,
    brain_sites=4,
    validator_readout="ridge",
    backbone=("efficientnet-lite0",),
    layer="blocks.2",
)


@pytest.fixture(scope="module")
def natural():
    return natural_photos(60, size_px=64)


@pytest.fixture(scope="module")
def fixed_slots():
    """Slots chosen by a timing may differ between two runs, and images with them."""
    made = closed_loop.synthesize
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(closed_loop, "synthesize", lambda *given, **named: made(*given, **named, slots=4))
        yield


@pytest.fixture(scope="module")
def looped(natural, fixed_slots, tmp_path_factory):
    """A loop of two rounds on a simulated brain, never interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "loop"
    start_loop(folder, TINY, natural)
    while loop_state(folder).step != "done":
        next_round(folder)
    return folder


def recordings(ids, rates, repeats=4, sites=("a", "b"), noise=0.0, seed=0, **named):
    """Trials around known rates (stimulus, site)."""
    trials = np.repeat(np.asarray(rates, dtype=float)[:, None], repeats, axis=1)
    trials = trials + noise * np.random.default_rng(seed).standard_normal(trials.shape)
    return SiteRecordings(trials, tuple(ids), pd.DataFrame(index=pd.Index(sites, name="site_id")), **named)


def pictures(names, seed, **columns):
    images = np.random.default_rng(seed).random((len(names), 1, 4, 4))
    return StimulusSet.from_arrays(images, {"stimulus_id": list(names), **columns}, name=f"set{seed}")


@pytest.fixture
def planted():
    """Twelve natural images and two rounds of four images, at two sites."""
    rng = np.random.default_rng(0)
    names = [f"n{k}" for k in range(12)]
    base = pictures(names, 0, photograph=[f"p{k // 2}" for k in range(12)])
    rates = rng.uniform(1, 20, (12, 2))
    rounds = []
    for number in (1, 2):
        made = [f"r{number}_{k}" for k in range(4)]
        shown = pictures(made, number, objective=["Stretch('a')"] * 2 + ["Stretch('b')"] * 2)
        rounds.append((shown, recordings(made, rng.uniform(10, 40, (4, 2)))))
    return base, recordings(names, rates), rounds


def test_merged_data_hold_every_image_once_with_its_responses(planted):
    base, recorded, rounds = planted
    stimuli, responses = merge_recordings(base, recorded, rounds)
    assert stimuli.stimulus_ids == list(responses.stimulus_ids)
    assert len(set(stimuli.stimulus_ids)) == len(stimuli) == 20
    assert stimuli.table["round"].tolist() == [0] * 12 + [1] * 4 + [2] * 4
    expected = np.concatenate([part.mean() for part in (recorded, *(pair[1] for pair in rounds))])
    np.testing.assert_array_equal(responses.mean(), expected)
    np.testing.assert_array_equal(stimuli.codes()[12:16], rounds[0][0].codes())
    groups = stimuli.table["photograph"]
    assert groups[12:].nunique() == 4
    assert groups[12] == groups[13] != groups[14]
    assert groups[12] != groups[16]  # the same target in another round
    assert groups[:12].tolist() == base.table["photograph"].tolist()


def test_natural_images_without_photographs_are_their_own_groups(planted):
    base, recorded, rounds = planted
    bare = pictures(base.stimulus_ids, 0)
    stimuli, _ = merge_recordings(bare, recorded, rounds)
    assert stimuli.table["photograph"][:12].tolist() == base.stimulus_ids


def test_an_image_made_again_counts_once_with_what_it_did_last(planted):
    """A start that no step bettered is the same image in two rounds; the loop once refused its recordings for ever."""
    base, recorded, rounds = planted
    shown, _ = rounds[1]
    again = StimulusSet.concat([shown.select([0, 1, 3]), rounds[0][0].select([2])])
    later = recordings(again.stimulus_ids, np.full((4, 2), 7.0))
    stimuli, responses = merge_recordings(base, recorded, [*rounds, (again, later)])
    assert stimuli.stimulus_ids == list(responses.stimulus_ids)
    assert stimuli.table["round"].tolist() == [0] * 12 + [1] * 3 + [2] + [3] * 4
    assert (responses.align(again, extra="drop").mean() == 7.0).all()
    stimuli, _ = merge_recordings(base, recorded, [rounds[0], rounds[0]])
    assert stimuli.table["round"].tolist() == [0] * 12 + [2] * 4
    other = pictures(shown.stimulus_ids, 9, objective=shown.table["objective"].tolist())
    with pytest.raises(ValueError, match="is another image in a later round"):
        merge_recordings(base, recorded, [rounds[1], (other, rounds[1][1])])


def test_lost_sites_are_missing_and_new_ones_are_left_out(planted):
    base, recorded, rounds = planted
    shown, _ = rounds[0]
    later = recordings(shown.stimulus_ids, np.full((4, 2), 7.0), sites=("new", "b"))
    _, responses = merge_recordings(base, recorded, [(shown, later)])
    assert responses.site_ids == ["a", "b"]
    assert np.isnan(responses.mean()[12:, 0]).all()
    assert (responses.mean()[12:, 1] == 7.0).all()
    with pytest.raises(ValueError, match="none of the 2 recorded sites"):
        merge_recordings(base, recorded, [(shown, recordings(shown.stimulus_ids, np.ones((4, 2)), sites=("x", "y")))])
    with pytest.raises(ValueError, match="unit is"):
        merge_recordings(base, recorded, [(shown, recordings(shown.stimulus_ids, np.ones((4, 2)), unit="uV"))])


def test_normalize_undoes_a_planted_drift(planted):
    base, recorded, rounds = planted
    shown, responses = rounds[0]
    gain, offset = np.array([2.0, 0.5]), np.array([-3.0, 4.0])
    again = recorded.select_stimuli(base.stimulus_ids[2:9])
    drifted = responses.concat_stimuli(again)
    drifted = dataclasses.replace(drifted, responses=drifted.responses * gain + offset)
    _, merged = merge_recordings(base, recorded, [(shown, drifted)], normalize=True)
    np.testing.assert_allclose(merged.mean()[12:], responses.mean(), rtol=1e-4)
    np.testing.assert_array_equal(merged.mean()[:12], recorded.mean())  # the first day is the measure
    assert merged.meta["parts"][1]["preprocessing"][-1]["natural_images"] == 7
    _, raw = merge_recordings(base, recorded, [(shown, drifted)])
    np.testing.assert_allclose(raw.mean()[12:], responses.mean() * gain + offset, rtol=1e-5)
    few = drifted.select_stimuli([*shown.stimulus_ids, *base.stimulus_ids[2:6]])
    with pytest.raises(ValueError, match="shows 4 natural images again"):
        merge_recordings(base, recorded, [(shown, few)], normalize=True)


def test_normalize_takes_equally_many_trials_from_both_days():
    """With noise as large as the signal, 40 trials against 2 would scale a day by .8 that needs no scaling."""
    names = [f"n{k}" for k in range(400)]
    base, rates = pictures(names, 0), np.random.default_rng(0).standard_normal((400, 2))
    shown = pictures(["made"], 1, objective=["Stretch('a')"])
    first = recordings(names, rates, repeats=2, noise=1.5, seed=1)
    second = recordings([*names, "made"], np.concatenate([rates, [[10.0, 10.0]]]), repeats=40, noise=1.5, seed=2)
    _, merged = merge_recordings(base, first, [(shown, second)], normalize=True)
    np.testing.assert_allclose(merged.mean()[-1], 10.0, rtol=0.1)


def test_driver_and_validator_share_no_image_and_no_photograph(planted):
    base, recorded, rounds = planted
    stimuli, _ = merge_recordings(base, recorded, rounds)
    seen = {role: seen_by(stimuli, role) for role in ("driver", "validator")}
    assert sorted(np.concatenate(list(seen.values()))) == list(range(20))
    photographs = [set(stimuli.table["photograph"][part[part < 12]]) for part in seen.values()]
    assert not photographs[0] & photographs[1]
    for part in seen.values():  # one image of each objective and round
        assert stimuli.table.iloc[part[part >= 12]].groupby(["round", "photograph"]).size().tolist() == [1] * 4


def test_single_images_go_to_driver_and_validator_in_turns(planted):
    base, recorded, rounds = planted
    alone = [(shown.select([0, 2]), responses) for shown, responses in rounds]
    stimuli, _ = merge_recordings(base, recorded, alone)
    seen = [stimuli.table["round"].iloc[seen_by(stimuli, role)] for role in ("driver", "validator")]
    assert [sorted(set(part)) for part in seen] == [[0, 1], [0, 2]]


def test_a_loop_leaves_everything_in_its_folder(looped, natural):
    for number in (1, 2):
        place = looped / f"round{number}"
        assert (place / "report.html").read_text().count("<img") > 0
        shown = StimulusSet.load(place / "stimuli")
        assert SiteRecordings.load(place / "recordings.nc").shape == (16, 4, 4)
        assert shown.table["seed"].unique().tolist() == [0, 1]
    first, second = (StimulusSet.load(looped / f"round{k}" / "stimuli") for k in (1, 2))
    assert set(first.table["objective"]) == set(second.table["objective"])
    assert not set(first.stimulus_ids) & set(second.stimulus_ids)
    gains = gains_per_round(looped)
    assert gains["round"].tolist() == [1, 1, 2, 2]
    assert gains["presentations"].tolist() == [64] * 4
    pd.testing.assert_frame_equal(gains, pd.read_csv(looped / "rounds.csv"), rtol=1e-5, check_dtype=False)
    targets = pd.read_csv(looped / "round2" / "targets.csv")
    stretch = targets[targets["family"] == "stretch"]
    assert gains["median_gain"][2] == pytest.approx(
        np.median(stretch["achieved"] / stretch["best_natural"] - 1), rel=1e-4
    )
    first, second = (pd.read_csv(looped / f"round{k}" / "images.csv") for k in (1, 2))
    assert first["forecast"].isna().all()  # nothing to calibrate by
    assert second["forecast"].notna().all()  # by what the first round achieved
    assert (second["forecast_low"] <= second["forecast_high"]).all()
    assert (looped / "gain_per_round.png").read_bytes().startswith(b"\x89PNG")
    assert not list(looped.rglob(".*.tmp"))


def test_the_second_round_learns_from_the_first_and_the_judge_from_others(looped, natural):
    seen = {}
    for number in (1, 2):
        for role in ("driver", "validator"):
            record = load_model(looped / f"round{number}" / role).provenance["fitted_on"]
            seen[number, role] = set(record["images"])
    assert not seen[1, "driver"] & seen[1, "validator"]
    assert not seen[2, "driver"] & seen[2, "validator"]
    for role in ("driver", "validator"):
        assert seen[1, role] < seen[2, role]
        assert 6 <= len(seen[2, role] - seen[1, role]) <= 8  # of 8, two that no step betters may be one photograph


def test_models_keep_the_scale_of_natural_images(looped, natural):
    recorded = SiteRecordings.load(looped / "recordings_natural.nc")
    first, second = (load_model(looped / f"round{k}" / "driver") for k in (1, 2))
    assert first.info == second.info
    stimuli, _ = merge_recordings(natural, recorded, [])
    mine = seen_by(stimuli, "driver", seed=0)
    np.testing.assert_allclose(second.info.natural_std, recorded.mean()[mine].astype(float).std(0), rtol=1e-6)


def test_an_interrupted_loop_ends_as_one_that_was_not(looped, natural, fixed_slots, tmp_path, monkeypatch):
    folder = tmp_path / "loop"
    start_loop(folder, TINY, natural)
    writers = [
        *((closed_loop, name) for name in ("_fit", "_synthesize", "_keep", "judge", "_write_gains", "load_model")),
        *((_loop_judge, name) for name in ("render_report", "evaluate_control")),
    ]
    for turn in range(40):
        with monkeypatch.context() as patch:  # every call fails at another place, before or after the work
            module, name = writers[turn % len(writers)]
            original = getattr(module, name)

            def broken(*given, original=original, after=turn % 3 == 0, **named):
                if after:
                    original(*given, **named)
                raise KeyboardInterrupt

            patch.setattr(module, name, broken)
            try:
                state = next_round(folder)
            except KeyboardInterrupt:
                state = loop_state(folder)
        if state.step == "done":
            break
    assert next_round(folder).step == "done"
    for pattern in ("round*/stimuli/images/*.png", "round*/*/weights.safetensors", "round*/*.csv", "rounds.csv"):
        files = sorted(path.relative_to(looped) for path in looped.glob(pattern))
        assert files == sorted(path.relative_to(folder) for path in folder.glob(pattern))
        assert files
        for file in files:
            assert (folder / file).read_bytes() == (looped / file).read_bytes(), file


def test_what_a_killed_process_was_writing_is_removed(looped, tmp_path):
    folder = tmp_path / "loop"
    shutil.copytree(looped, folder)
    (folder / "round1" / ".driver.0123456789ab.tmp").mkdir()
    (folder / ".rounds.csv.0123456789ab.tmp").write_text("half")
    (folder / ".mine.tmp").write_text("not ours")
    (folder / "rounds.csv").write_text("killed before this was written anew")
    assert next_round(folder).step == "done"
    assert {path.name for path in folder.rglob(".*")} == {".mine.tmp"}
    assert (folder / "rounds.csv").read_bytes() == (looped / "rounds.csv").read_bytes()


def test_two_processes_cannot_work_on_one_loop(looped):
    with (looped / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(FileExistsError, match="another process works on the loop"):
            next_round(looped)


def test_a_loop_can_be_extended(looped, tmp_path):
    folder = tmp_path / "loop"
    shutil.copytree(looped, folder)
    state = extend_loop(folder, 3)
    assert (state.round, state.step) == (3, "driver")
    assert loop_state(folder).config == dataclasses.replace(TINY, rounds=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 0}, "rounds is 0; expected 1 or more"),
        ({"image_repeats": 1}, "image_repeats is 1; expected 2"),
        ({"recipe": "robost"}, "did you mean 'robust'"),
        ({"objectives": ["Stretsh('a')"]}, "did you mean 'Stretch'"),
        ({"objectives": ["Stretch('a')", "Stretch('a')"]}, "given twice"),
        ({"objectives": ["LayerUnit('blocks.2', 0)"]}, "recordings cannot judge"),
    ],
)
def test_wrong_settings_are_refused_at_once(change, message):
    with pytest.raises(ValueError, match=message):
        LoopConfig(**change)


@pytest.mark.parametrize(
    ("change", "repeats", "message"),
    [
        ({"targets": 3}, 4, "ask for 3 sites, 2 were recorded"),
        ({"population": 3, "targets": 2}, 4, "ask for 3 sites, 2 were recorded"),
        ({"objectives": ("Stretch('c')",)}, 4, "'c'"),
        ({"targets": 2}, 1, "no image has two repeats"),
    ],
)
def test_what_could_not_be_judged_is_refused_before_anything_is_fitted(planted, change, repeats, message, tmp_path):
    base, recorded, _ = planted
    start_loop(tmp_path / "loop", LoopConfig(**change), base)
    with pytest.raises(ValueError, match=message):
        give_recordings(tmp_path / "loop", recordings(base.stimulus_ids, recorded.mean(), repeats))
    assert loop_state(tmp_path / "loop").waiting


def test_scores_without_a_zero_have_no_ratio(tmp_path):
    """A suppressed site scores minus its response: forecast over achieved was minus infinity, which JSON refuses."""
    row = {"family": "suppress", "objective": "Suppress('a')", "achieved": -3.0, "beyond": True, "gain": 1.0}
    (tmp_path / "round1").mkdir()
    table = pd.DataFrame([row | {"forecast_driver": -2.0, "forecast_validator": -2.5}])
    table.to_csv(tmp_path / "round1" / "targets.csv")
    facts = {"presentations": 4, "driver_ev_median": 0.5, "validator_ev_median": 0.5}
    (tmp_path / "round1" / "summary.json").write_text(json.dumps(facts))
    gains = gains_per_round(tmp_path)
    assert gains.filter(like="forecast_over_achieved").isna().all(axis=None)
    assert gains["median_gain"].tolist() == [1.0]


def test_a_round_that_lost_its_targets_calibrates_nothing(looped, tmp_path):
    """Of four targets two were lost on the first day: too few for a calibration, and no reason to stop."""
    folder = tmp_path / "loop"
    shutil.copytree(looped, folder)
    kept = SiteRecordings.load(folder / "round1" / "recordings.nc")
    kept.select_sites(kept.site_ids[:2]).save(folder / "round1" / "recordings.nc")
    (folder / "round2" / "summary.json").unlink()
    assert next_round(folder).step == "done"
    assert pd.read_csv(folder / "round2" / "images.csv")["forecast"].isna().all()


def test_a_damaged_loop_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no loop in"):
        next_round(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "loop.json").write_text('{"config": {"turns": 3}}')
    with pytest.raises(ValueError, match="was damaged or is of another version"):
        loop_state(tmp_path)


@pytest.fixture
def npc():
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("loop")(loop_command)
    app.command("plan")(plan_command)

    def call(*arguments):
        result = CliRunner().invoke(app, [*map(str, arguments), "--quiet"], catch_exceptions=True)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    return call


def test_a_loop_on_files_waits_for_them(natural, npc, tmp_path):
    folder = tmp_path / "loop"
    natural.save(tmp_path / "natural")
    brain = SimulatedBrain(natural, n_sites=3, seed=5)
    small = ("--rounds", 2, "--images", 1, "--steps", 1, "--backbone", "efficientnet-lite0", "--layer", "blocks.2")
    with pytest.raises(ValueError, match="needs the natural images"):
        npc("loop", folder)
    out = npc("loop", folder, "--natural", tmp_path / "natural", "--objective", "Stretch('site01')", *small)
    assert f"show the images in {folder / 'natural'}" in out
    assert npc("loop", folder) in out  # says again what it waits for

    brain.record(natural, n_repeats=4).save(tmp_path / "day1.csv")
    assert f"show the images in {folder / 'round1' / 'stimuli'}" in npc(
        "loop", folder, "--recordings", tmp_path / "day1.csv"
    )
    with pytest.raises(ValueError, match="have no recording"):
        npc("loop", folder, "--recordings", tmp_path / "day1.csv")
    with pytest.raises(ValueError, match="was started with images 1, now 4 came"):
        npc("loop", folder, "--images", 4)
    with pytest.raises(ValueError, match="leave --natural out"):
        npc("loop", folder, "--natural", tmp_path / "natural")

    shown = StimulusSet.load(folder / "round1" / "stimuli")
    today = brain.record(shown, n_repeats=3, seed=1).concat_stimuli(
        brain.record(natural.select([4, 7]), n_repeats=3, seed=2)
    )
    today.save(tmp_path / "day2.npz")
    told = json.loads(npc("loop", folder, "--recordings", tmp_path / "day2.npz", "--json").splitlines()[-1])
    assert (told["round"], told["step"]) == (2, "recordings")
    assert told["rounds"][0]["presentations"] == 3
    kept = SiteRecordings.load(folder / "round1" / "recordings.nc")
    assert kept.stimulus_ids == (*shown.stimulus_ids, *natural.select([4, 7]).stimulus_ids)
    judged = pd.read_csv(folder / "round1" / "images.csv")
    assert judged["achieved"][0] == pytest.approx(kept.mean()[0, 1], rel=1e-4)
    with pytest.raises(ValueError, match="waits for no recordings"):
        give_recordings(_done(folder, tmp_path), today)


def _done(folder, tmp_path):
    """A copy of the loop, of which only the first round is left."""
    copied = tmp_path / "copied"
    shutil.copytree(folder, copied)
    extend_loop(copied, 1)
    return copied


def test_a_plan_becomes_a_loop(looped, natural, npc, tmp_path):
    plan = tmp_path / "plan.json"
    driver, known = looped / "round1" / "driver", looped / "recordings_natural.nc"
    # a command without --quiet
    app = typer.Typer()
    app.command("loop")(loop_command)
    app.command("plan")(plan_command)
    arguments = ["plan", str(driver), "--minutes", "5", "--targets", "2", "--images", "1", "--out", str(plan)]
    result = CliRunner().invoke(app, [*arguments, "--recordings", str(known), "--min-ev", "-1", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.output.splitlines()[-1])
    assert told["presentations"] == (4 + 20) * 24
    natural.save(tmp_path / "natural")
    npc("loop", tmp_path / "loop", "--natural", tmp_path / "natural", "--plan", plan)
    config = loop_state(tmp_path / "loop").config
    assert config.images == 1
    assert len(config.objectives) == 4
    assert {text.split("'")[1] for text in config.objectives} == set(told["targets"])
