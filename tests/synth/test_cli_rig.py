"""The command line through a rig: export, a log, recordings lined up with it, and judgement."""

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest
from command_line import npc

from neural_fits import SiteRecordings
from stimuli import StimulusSet, with_gray_control


@pytest.fixture
def made(lab, monkeypatch, capsys, tmp_path):
    """The folder of one image synthesized for one site."""
    out = tmp_path / "made"
    one = ("--stretch", "site01", "--images", 1, "--steps", 2, "-q")
    npc(monkeypatch, capsys, "synth", lab[0] / "driver", "--out", out, *one)
    return out


def test_the_line_through_a_rig(lab, monkeypatch, capsys, tmp_path):
    """Export, a log with a broken presentation, and recordings lined up with it."""
    folder, brain = lab
    made, rig = tmp_path / "made", tmp_path / "rig"
    npc(
        monkeypatch, capsys, "synth", folder / "driver", "--out", made, "--stretch", "site01", "--images", 2,
        "--steps", 2, "-q",
    )  # fmt: skip
    natural = StimulusSet.load(folder / "natural")
    again = natural.select([0, 5, 7])
    shown = StimulusSet.concat([StimulusSet.load(made), again])
    shown.save(tmp_path / "both")
    screen = ("--screen", "1920x1080", "--width-cm", 53, "--distance-cm", 57, "--refresh-hz", 60)
    code, out, err = npc(
        monkeypatch, capsys, "export", tmp_path / "both", "--for", "psychopy", *screen, "--repeats", 4, "--out", rig,
        "--model", folder / "driver", "--json",
    )  # fmt: skip
    assert code == 0
    assert "64 px" in err  # 8 deg on this screen are more pixels than the images have
    assert json.loads(out.splitlines()[-1])["presentations"] == 4 * 6
    exported = StimulusSet.load(rig)
    assert "gray" in exported.stimulus_ids
    forecast = exported.table.set_index("stimulus_id")["predicted_site01"]
    assert np.isfinite(forecast).all()

    plan = pd.read_csv(rig / "presentation.csv", dtype={"stimulus_id": str})
    log = plan.assign(onset_s=plan["onset_ms_nominal"] / 1000, duration_s=0.1, shown=True)
    broken = log.iloc[[3]].assign(shown=False, onset_s=log["onset_s"].iloc[3] - 0.05)
    log = pd.concat([log.iloc[:3], broken, log.iloc[3:]])
    log.to_csv(tmp_path / "run.csv", index=False)
    known = brain.record(exported, n_repeats=4, seed=2)
    row = {name: k for k, name in enumerate(known.stimulus_ids)}
    trials = np.stack([known.responses[row[n], r] for n, r in zip(log["stimulus_id"], log["repeat"], strict=True)])
    trials[3] = 1e6  # what was measured while the presentation broke must not count
    np.save(tmp_path / "trials.npy", trials)
    code, out, _ = npc(
        monkeypatch, capsys, "events", tmp_path / "run.csv", "--set", rig, "--responses", tmp_path / "trials.npy",
        "--out", tmp_path / "day2.npz", "--window-ms", 70, 170, "--json",
    )  # fmt: skip
    assert code == 0
    assert json.loads(out.splitlines()[-1])["broken"] == 1
    back = SiteRecordings.load(tmp_path / "day2.npz").align(exported)
    np.testing.assert_array_equal(back.responses[:, :4], known.align(exported).responses)


def test_images_shown_on_both_days_are_more_repeats(lab, made, monkeypatch, capsys, tmp_path):
    folder, brain = lab
    natural, shown = StimulusSet.load(folder / "natural"), StimulusSet.load(made)
    brain.record(shown, n_repeats=4, seed=1).save(tmp_path / "alone.nc")
    both = StimulusSet.concat([shown, natural.select([0, 5, 7])])
    brain.record(both, n_repeats=4, seed=1).save(tmp_path / "both.nc")
    summaries = []
    for name in ("alone", "both"):
        code, out, _ = npc(
            monkeypatch, capsys, "evaluate", made, "--reference", folder / "natural", "--driver", folder / "driver",
            "--recordings", folder / "natural.nc", "--recordings", tmp_path / f"{name}.nc", "--out", tmp_path / name,
            "--json",
        )  # fmt: skip
        assert code == 0
        summaries.append(json.loads(out.splitlines()[-1]))
    assert summaries[0]["stretch"]["targets"] == summaries[1]["stretch"]["targets"] == 1
    alone, joined = (pd.read_csv(tmp_path / name / "images.csv") for name in ("alone", "both"))
    shown_mean = SiteRecordings.load(tmp_path / "both.nc").align(shown, extra="drop").mean()[0, 1]
    assert joined["achieved"].iloc[0] == pytest.approx(shown_mean, rel=1e-4)
    assert np.isfinite(alone["achieved"]).all()


def test_recorded_stimuli_that_are_not_in_the_set_are_left_out_and_named(lab, monkeypatch, capsys, tmp_path):
    folder, brain = lab
    natural = StimulusSet.load(folder / "natural")
    brain.record(with_gray_control(natural), n_repeats=4).save(tmp_path / "all.nc")
    fit = ("--backbone", "efficientnet-lite0", "--folds", 3, "-q", "--site", "site01")
    code, _, err = npc(
        monkeypatch, capsys, "fit", folder / "natural", tmp_path / "all.nc", "--out", tmp_path / "a", *fit
    )
    assert code == 0
    assert "left out 1 recorded stimuli" in err
    assert "gray" in err
    SiteRecordings.load(tmp_path / "all.nc").align(natural, extra="drop").save(tmp_path / "some.nc")
    npc(monkeypatch, capsys, "fit", folder / "natural", tmp_path / "some.nc", "--out", tmp_path / "b", *fit)
    both = [pd.read_csv(tmp_path / name / "scores.csv") for name in "ab"]
    pd.testing.assert_frame_equal(*both)


def test_a_change_of_gain_between_days_is_stated_and_undone(lab, made, monkeypatch, capsys, tmp_path):
    folder, brain = lab
    natural, shown = StimulusSet.load(folder / "natural"), StimulusSet.load(made)
    day2 = brain.record(StimulusSet.concat([shown, natural.select(slice(0, 40))]), n_repeats=4, seed=3)
    day2.save(tmp_path / "same.nc")
    dataclasses.replace(day2, responses=2 * day2.responses).save(tmp_path / "double.nc")
    day2.select_stimuli(shown.stimulus_ids).save(tmp_path / "apart.nc")
    told = {}
    undo = ("--normalize",)
    for name, more in (("same", ()), ("same", undo), ("double", ()), ("double", undo), ("apart", ())):
        code, out, err = npc(
            monkeypatch, capsys, "evaluate", made, "--reference", folder / "natural", "--driver", folder / "driver",
            "--recordings", folder / "natural.nc", "--recordings", tmp_path / f"{name}.nc", "--json",
            "--out", tmp_path / f"{name}{len(more)}", *more,
        )  # fmt: skip
        assert code == 0
        told[name + "".join(more)] = (json.loads(out.splitlines()[-1])["stretch"]["median_gain"], err)
    same, double = (
        float(re.search(r"40 images .* answered ([\d.]+) times", told[k][1])[1]) for k in ("same", "double")
    )
    assert double == pytest.approx(2 * same, abs=0.02)  # the noise of the two days is in both
    assert "shares no image" in told["apart"][1]
    assert told["double--normalize"][0] == pytest.approx(told["same--normalize"][0], abs=1e-4)
    assert abs(told["double"][0] - told["same"][0]) > 0.01
    assert "times as strongly" in (tmp_path / "double0" / "report.html").read_text()
    page = (tmp_path / "double0" / "report.html").read_text()
    assert "driver: SiteModel" in page or "driver: Ensemble" in page  # the methods paragraph names the model
    code, _, err = npc(
        monkeypatch, capsys, "evaluate", made, "--reference", folder / "natural", "--driver", folder / "driver",
        "--recordings", folder / "natural.nc", "--recordings", folder / "natural.nc", "--out", tmp_path / "twice",
    )  # fmt: skip
    assert code == 2
    assert "same trials" in err


def test_a_set_without_photographs_is_said_to_be_split_one_by_one(lab, monkeypatch, capsys, tmp_path):
    folder, _ = lab
    bare = StimulusSet.load(folder / "natural")
    table = bare.table.drop(columns="photograph")
    StimulusSet.from_arrays(bare.codes(), table, size_deg=bare.size_deg).save(tmp_path / "bare")
    fit = ("--backbone", "efficientnet-lite0", "--folds", 3, "-q", "--site", "site01", "--readout", "ridge")
    for name, words in ((tmp_path / "bare", "split one by one"), (folder / "natural", "")):
        code, _, err = npc(
            monkeypatch, capsys, "fit", name, folder / "natural.nc", "--out", tmp_path / f"m{len(words)}", *fit
        )
        assert code == 0
        assert ("split one by one" in err) == bool(words)
