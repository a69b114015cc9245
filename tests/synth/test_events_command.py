"""npc events: a log of a rig in, a table of what was shown or recordings out."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from neural_fits import SimulatedBrain, SiteRecordings
from neural_fits.preprocessing import join_sessions
from stimuli import StimulusSet, natural_photos
from stimuli.gray import with_gray_control
from synth.commands.evaluate import evaluate
from synth.commands.events import events
from synth.commands.fit import fit


@pytest.fixture
def call(tmp_path):
    """Call the command on a set of three images and a log of five presentations, one of them broken."""
    noise = np.random.default_rng(0).random((3, 1, 8, 8))
    StimulusSet.from_arrays(noise, {"stimulus_id": ["a", "b", "c"]}).save(tmp_path / "set")
    shown = ["b", "a", "b", "gray", "a"]
    lines = [f"{name},{0.2 * k:.1f},{k != 2}" for k, name in enumerate(shown)]
    (tmp_path / "run.csv").write_text("\n".join(["stimulus_id,onset_s,shown", *lines]))
    app = typer.Typer()
    app.command()(events)

    def run(*options):
        arguments = [str(tmp_path / "run.csv"), "--set", str(tmp_path / "set"), *map(str, options)]
        return CliRunner().invoke(app, arguments)

    return run


def test_the_log_is_summarized_and_written(call, tmp_path):
    done = call("--json", "--out", tmp_path / "log.csv")
    assert done.exit_code == 0, done.output
    result = json.loads(done.output.splitlines()[-1])
    assert (result["presentations"], result["broken"], result["format"]) == (5, 1, "psychopy")
    assert (result["fewest_repeats"], result["most_repeats"], result["never_shown"]) == (0, 2, ["c"])
    assert (tmp_path / "log.csv").read_text().splitlines()[1] == "-1,-1,-1,0,b,0.0,,True"
    said = call()
    assert (
        said.output.splitlines()[-1] == "repeats per stimulus: 0 to 2; never shown: c"
    )  # no path: nothing was written
    assert call("--overwrite", "--out", tmp_path / "log.csv").output.splitlines()[-1] == str(tmp_path / "log.csv")
    assert json.loads(call("--json").stdout.splitlines()[-1])["broken"] == 1


@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_responses_become_recordings(suffix, call, tmp_path):
    path = tmp_path / f"trials{suffix}"
    values = np.arange(10.0).reshape(5, 2)
    if suffix == ".npy":
        np.save(path, values)
    else:
        path.write_text("left,right\n" + "\n".join(f"{a},{b}" for a, b in values))
    done = call("--responses", path, "--window-ms", 70, 170, "--out", tmp_path / "recorded.nc")
    assert done.exit_code == 0, done.output
    recorded = SiteRecordings.load(tmp_path / "recorded.nc")
    assert recorded.stimulus_ids == ("a", "b", "c", "gray")
    assert recorded.site_ids == (["site_0001", "site_0002"] if suffix == ".npy" else ["left", "right"])
    assert recorded.window_ms == (70.0, 170.0)
    np.testing.assert_array_equal(recorded.responses[0], [[2.0, 3.0], [8.0, 9.0]])
    np.testing.assert_array_equal(recorded.responses[1], [[0.0, 1.0], [np.nan, np.nan]])
    assert np.isnan(recorded.responses[2]).all()


@pytest.mark.parametrize(
    ("content", "options", "sentence"),
    [
        (None, ["--responses", "trials.npy", "--out", "r.nc"], "there is no file"),
        (b"x", ["--responses", "trials.npy"], "say by --out where"),
        (b"x", ["--responses", "trials.npy", "--out", "r.nc"], "cannot be read as an array"),
        (b"x", ["--responses", "trials.txt", "--out", "r.nc"], "neither .npy nor .csv"),
        (b"", ["--responses", "trials.npy", "--out", "r.nc"], "cannot be read as an array"),
        (b"PK\3\4", ["--responses", "trials.npy", "--out", "r.nc"], "not an archive of arrays"),
        (b"s0\nx\n", ["--responses", "trials.csv", "--out", "r.nc"], "'x' in line 2 where a response is expected"),
        (b"s0,s1\n1,2,\n", ["--responses", "trials.csv", "--out", "r.nc"], "3 cells in line 2"),
        (b"s0\n1\n", ["--sites", "ids.txt"], "--sites tells of the responses"),
        (None, ["--like", "r.nc"], "--like tells of the responses"),
        (None, ["--broken-left-out"], "--broken-left-out tells of the responses"),
        (None, ["--out", "run.csv", "--overwrite"], "--out 'run.csv' would replace a file that this command reads"),
        (b"1", ["--out", "old.csv"], "--out 'old.csv' exists: give another name, or replace it with --overwrite"),
        (None, ["--out", "set"], "--out 'set' is a folder"),
        (b"s0\n1\n", ["--responses", "trials.csv", "--out", "trials.csv"], "--out 'trials.csv' would replace"),
        (None, ["--out", "run.csv"], "--out 'run.csv' would replace a file that this command reads"),
        (None, ["--out", "set/../set/stimuli.csv"], "would replace a file"),
        (b"s0\n1\n", ["--responses", "trials.csv", "--out", "r.nc"], "responses have 1 rows"),
        (None, ["--out", "log.nc"], "name that ends in .csv"),
        (None, ["--format", "psychpy"], "did you mean 'psychopy'"),
    ],
)
def test_mistakes_get_one_sentence_and_write_nothing(content, options, sentence, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / options[1]).write_bytes(content)
    before = contents(tmp_path)
    done = call(*options)
    assert isinstance(done.exception, (ValueError, OSError)), done.output
    assert sentence in str(done.exception)
    assert contents(tmp_path) == before


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_archive_saved_under_the_name_of_an_array_is_refused(call, tmp_path):
    with (tmp_path / "trials.npy").open("wb") as file:
        np.savez(file, responses=np.zeros((5, 2)))
    done = call("--responses", tmp_path / "trials.npy", "--out", tmp_path / "r.nc")
    assert isinstance(done.exception, ValueError)
    assert "not an archive of arrays" in str(done.exception)


def test_sites_have_the_names_that_the_lab_gives(call, tmp_path):
    np.save(tmp_path / "trials.npy", np.arange(10.0).reshape(5, 2))
    options = ["--responses", tmp_path / "trials.npy", "--out", tmp_path / "r.nc", "--overwrite", "--json"]
    invented = json.loads(call(*options).stdout.splitlines()[-1])["notes"]
    assert "called site_0001 to site_0002 by their columns" in invented[0]
    assert "hold gray besides the set; npc fit wants the exported folder" in invented[1]
    assert "npc: the sites are called site_0001" in call(*options[:-1]).stderr
    (tmp_path / "sites.csv").write_text("site_id,region\nV4-17,V4\nIT-3,IT\n")
    named = json.loads(call(*options, "--sites", tmp_path / "sites.csv").stdout.splitlines()[-1])["notes"]
    assert named == invented[1:]
    recorded = SiteRecordings.load(tmp_path / "r.nc")
    assert (recorded.site_ids, recorded.sites["region"].tolist()) == (["V4-17", "IT-3"], ["V4", "IT"])
    (tmp_path / "sites.csv").write_text("only_one\n")
    done = call(*options, "--sites", tmp_path / "sites.csv")
    assert "with 1 sites is expected" in str(done.exception)


def test_rows_are_for_every_presentation_unless_said_otherwise(call, tmp_path):
    np.save(tmp_path / "trials.npy", np.arange(4.0).reshape(4, 1))
    options = ["--responses", tmp_path / "trials.npy", "--out", tmp_path / "r.nc"]
    sentence = str(call(*options).exception)
    assert "have 4 rows" in sentence
    assert "5 presentations, 4 of them shown whole" in sentence
    assert "--broken-left-out" in sentence
    assert not (tmp_path / "r.nc").exists()
    assert call(*options, "--broken-left-out").exit_code == 0
    assert SiteRecordings.load(tmp_path / "r.nc").responses[0, :, 0].tolist() == [1.0, 3.0]


def test_a_file_is_replaced_only_when_that_was_said(call, tmp_path):
    np.save(tmp_path / "trials.npy", np.zeros((5, 1)))
    for options in (["--out", "log.csv"], ["--responses", "trials.npy", "--out", "r.nc"]):
        paths = [option if option.startswith("--") else tmp_path / option for option in options]
        paths[-1].write_bytes(b"of another day")
        assert isinstance(call(*paths).exception, FileExistsError)
        assert paths[-1].read_bytes() == b"of another day"
        assert call(*paths, "--overwrite").exit_code == 0
        assert paths[-1].read_bytes() != b"of another day"


SITES = pd.DataFrame({"region": ["V4", "IT"]}, index=pd.Index(["right", "left"], name="site_id"))


@pytest.mark.parametrize("file", ["day1.nc", "day1.csv", "day1.npz"])
def test_responses_are_measured_as_in_earlier_recordings(file, call, tmp_path):
    earlier = SiteRecordings(np.ones((2, 1, 2)), ("x", "y"), SITES, window_ms=(70, 170), unit="spikes/s")
    earlier.save(tmp_path / file)
    np.save(tmp_path / "trials.npy", np.arange(10.0).reshape(5, 2))
    (tmp_path / "trials.csv").write_text("left,right\n" + "\n".join(f"{2 * k + 1},{2 * k}" for k in range(5)))
    like = ["--like", tmp_path / file, "--overwrite", "--out", tmp_path / "day2.nc", "--responses"]
    for responses in ("trials.npy", "trials.csv"):
        done = call(*like, tmp_path / responses, "--json")
        assert done.exit_code == 0, (done.output, done.exception)
        assert not any("called site_0001" in note for note in json.loads(done.stdout.splitlines()[-1])["notes"])
        new = SiteRecordings.load(tmp_path / "day2.nc")
        assert new.sites.loc[["right", "left"], "region"].tolist() == ["V4", "IT"]
        old = SiteRecordings.load(tmp_path / file)
        for joined in (join_sessions([old, new]), old.concat_stimuli(new)):
            assert (joined.site_ids, joined.window_ms, joined.unit) == (["right", "left"], (70.0, 170.0), "spikes/s")
            assert joined.mean()[2].tolist() == [5.0, 6.0]  # "a": presentations 1 and 4
    (tmp_path / "ids.txt").write_text("left\nright\n")  # the columns of this array
    same = ["--unit", "spikes/s", "--window-ms", 70, 170, "--sites", tmp_path / "ids.txt"]
    assert call(*like, tmp_path / "trials.npy", *same).exit_code == 0
    assert SiteRecordings.load(tmp_path / "day2.nc").site_ids == ["left", "right"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--unit", "spikes/window"], "--unit contradicts --like 'day1.nc', which has the unit 'spikes/s'"),
        (
            ["--window-ms", 50, 150],
            "window_ms=(50.0, 150.0) was given for 'day1.nc', whose responses were already taken in (70.0, 170.0) ms",
        ),
        (["--sites", "ids.txt"], "--sites and --like 'day1.nc' differ in 2 ids ('middle', 'right')"),
        (["--responses", "three.npy"], "with 2 sites is expected"),
        (["--responses", "other.csv"], "differ in 2 ids ('middle', 'right')"),
        (["--responses", "time.npy"], "but the recordings of --like have one response a trial"),
        (["--like", "bins.nc"], "but the recordings of --like have 2 time bins"),
        (["--like", "unknown.nc", "--window-ms", 70, 170], "--like 'unknown.nc', which has an unknown window"),
        (["--like", "absent.nc"], "absent.nc"),
        (["--like", "bins.nc", "--window-ms", 70, 170], "--like 'bins.nc', which has time bins"),
        (["--like", "day2.nc", "--out", "day2.nc", "--overwrite"], "would replace a file that this command reads"),
    ],
)
def test_what_contradicts_the_earlier_recordings_is_refused(options, sentence, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recorded = SiteRecordings(np.ones((2, 1, 2)), ("x", "y"), SITES, window_ms=(70, 170), unit="spikes/s")
    recorded.save("day1.nc")
    recorded.save("day2.nc")
    dataclasses.replace(recorded, window_ms=None).save("unknown.nc")
    bins = ((0, 50), (50, 100))
    SiteRecordings(np.ones((2, 1, 2, 2)), ("x", "y"), SITES, time_bins_ms=bins).save("bins.nc")
    np.save("trials.npy", np.zeros((5, 2)))
    np.save("three.npy", np.zeros((5, 3)))
    np.save("time.npy", np.zeros((5, 2, 2)))
    (tmp_path / "ids.txt").write_text("left\nmiddle\n")
    (tmp_path / "other.csv").write_text("left,middle\n" + "1,2\n" * 5)
    before = contents(tmp_path)
    done = call("--responses", "trials.npy", "--like", "day1.nc", "--out", "new.nc", *options)
    assert isinstance(done.exception, (ValueError, FileNotFoundError)), done.output
    assert sentence in str(done.exception)
    assert contents(tmp_path) == before


def test_spike_times_recorded_earlier_are_counted_in_the_window_given(call, tmp_path):
    pynwb = pytest.importorskip("pynwb")
    nwb = pynwb.NWBFile(session_description="x", identifier="x", session_start_time=datetime(2026, 1, 1, tzinfo=UTC))
    nwb.add_trial_column("stimulus_id", "x")
    for k, name in enumerate("xyx"):
        nwb.add_trial(start_time=float(k), stop_time=k + 0.5, stimulus_id=name)
    for _ in range(2):
        nwb.add_unit(spike_times=[0.1, 1.1, 1.12])
    with pynwb.NWBHDF5IO(str(tmp_path / "day1.nwb"), "w") as io:
        io.write(nwb)
    np.save(tmp_path / "trials.npy", np.zeros((5, 2)))
    options = ["--like", tmp_path / "day1.nwb", "--responses", tmp_path / "trials.npy", "--out", tmp_path / "r.nc"]
    for window in (None, (50, 150)):
        done = call(*options, *(["--overwrite", "--window-ms", *window] if window else []))
        assert done.exit_code == 0, done.exception
        old, new = SiteRecordings.load(tmp_path / "day1.nwb", window_ms=window), SiteRecordings.load(tmp_path / "r.nc")
        assert join_sessions([old, new]).site_ids == old.site_ids == new.site_ids
        assert new.window_ms == (window or (70, 170))  # that of spikes by default
        assert repr(new) in done.output


def test_time_bins_are_those_of_the_earlier_recordings(call, tmp_path):
    bins = ((50, 70), (70, 90), (90, 110))
    SiteRecordings(np.ones((1, 1, 2, 3)), ("x",), SITES, time_bins_ms=bins, unit="spikes/bin").save(tmp_path / "a.nc")
    np.save(tmp_path / "trials.npy", np.zeros((5, 2, 3)))
    options = ["--responses", tmp_path / "trials.npy", "--like", tmp_path / "a.nc", "--out", tmp_path / "r.nc"]
    assert call(*options).exit_code == 0
    new = SiteRecordings.load(tmp_path / "r.nc")
    assert (new.time_bins_ms, new.unit, new.site_ids) == (bins, "spikes/bin", ["right", "left"])
    assert call(*options, "--overwrite", "--time-bins-ms", 50, 20).exit_code == 0
    assert "--time-bins-ms contradicts" in str(call(*options, "--overwrite", "--time-bins-ms", 40, 20).exception)
    np.save(tmp_path / "trials.npy", np.zeros((5, 2, 4)))
    for given, sentence in (([], "3 time_bins_ms, but"), (["--time-bins-ms", 50, 20], "has 3 bins from 50 to 110 ms")):
        assert sentence in str(call(*options, "--overwrite", *given).exception)


def test_responses_in_time_need_their_bins(call, tmp_path):
    np.save(tmp_path / "trials.npy", np.arange(40.0).reshape(5, 2, 4))
    options = ["--responses", tmp_path / "trials.npy", "--out", tmp_path / "r.nc", "--overwrite"]
    assert "by --time-bins-ms START WIDTH" in str(call(*options).exception)
    assert call(*options, "--time-bins-ms", 50, 20).exit_code == 0
    recorded = SiteRecordings.load(tmp_path / "r.nc")
    assert recorded.time_bins_ms == ((50, 70), (70, 90), (90, 110), (110, 130))
    assert recorded.responses[0, :, 1].tolist() == [[12.0, 13.0, 14.0, 15.0], [36.0, 37.0, 38.0, 39.0]]
    assert SiteRecordings.load(tmp_path / "r.nc", window_ms=(70, 110)).responses[0, 0].tolist() == [19.0, 27.0]
    assert "time_bins_ms" in str(call(*options, "--time-bins-ms", 50, 0).exception)
    np.save(tmp_path / "trials.npy", np.zeros((5, 2)))
    assert "leave --time-bins-ms out" in str(call(*options, "--time-bins-ms", 50, 20).exception)
    np.save(tmp_path / "trials.npy", np.zeros(5))
    assert "array of shape (5,)" in str(call(*options).exception)


def test_two_runs_of_a_session_become_one_for_fit_and_evaluate(tmp_path, monkeypatch):
    """Whatever the order in each run, the joined files are the recordings that a brain gave, trial by trial."""
    monkeypatch.chdir(tmp_path)
    photos = natural_photos(24, size_px=64)
    made = photos.select(slice(20, 24))
    columns = {"stimulus_id": made.stimulus_ids, "objective": ["Stretch('site00')"] * 4, "target_site": ["site00"] * 4}
    StimulusSet.from_arrays(made.codes(), columns, size_deg=made.size_deg).save("made")
    photos.select(slice(0, 20)).save("natural")
    shown = with_gray_control(photos).save("exported")
    truth = SimulatedBrain(shown, n_sites=2, seed=0).record(shown, n_repeats=4)
    truth.save("truth.nc")
    (tmp_path / "ids.txt").write_text("\n".join(truth.site_ids))
    rng = np.random.default_rng(0)
    for run in (0, 1):
        rows = [(k, 2 * run + repeat) for repeat in (0, 1) for k in rng.permutation(len(shown))]
        lines = [f"{shown.stimulus_ids[k]},{0.2 * at:.1f}" for at, (k, _) in enumerate(rows)]
        (tmp_path / f"run{run}.csv").write_text("\n".join(["stimulus_id,onset_s", *lines]))
        np.save(f"trials{run}.npy", np.array([truth.responses[k, repeat] for k, repeat in rows]))
        window = [] if truth.window_ms is None else ["--window-ms", *map(str, truth.window_ms)]
        measured = ["--like", "run0.nc"] if run else ["--sites", "ids.txt", "--unit", truth.unit, *window]
        responses = ["--responses", f"trials{run}.npy", *measured]
        npc(events, f"run{run}.csv", "--set", "exported", *responses, "--out", f"run{run}.nc")
    simple = ["--backbone", "efficientnet-lite0", "--readout", "ridge", "--folds", "2", "-q"]
    npc(fit, "exported", "run0.nc", "run1.nc", *simple, "--out", "joined")
    npc(fit, "exported", "truth.nc", *simple, "--out", "direct")
    assert (tmp_path / "joined/scores.csv").read_text() == (tmp_path / "direct/scores.csv").read_text()
    judged = ["made", "--reference", "natural", "--driver", "joined"]
    npc(evaluate, *judged, "--recordings", "run0.nc", "--recordings", "run1.nc", "--out", "control")
    npc(evaluate, *judged, "--recordings", "truth.nc", "--out", "direct_control")
    tables = [(tmp_path / name / "images.csv").read_text() for name in ("control", "direct_control")]
    assert tables[0] == tables[1]


def npc(command, *arguments):
    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, (done.output, done.exception)
