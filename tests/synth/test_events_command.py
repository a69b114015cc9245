"""npc events: a log of a rig in, a table of what was shown or recordings out."""

from __future__ import annotations

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from neural_fits import SiteRecordings
from stimuli import StimulusSet
from synth.commands.events import events


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
    assert "repeats per stimulus: 0 to 2; never shown: c" in said.output


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
        (b"s0\nx\n", ["--responses", "trials.csv", "--out", "r.nc"], "not a table of numbers"),
        (b"s0\n1\n", ["--responses", "trials.csv", "--out", "r.nc"], "responses have 1 rows"),
        (None, ["--out", "log.nc"], "name that ends in .csv"),
        (None, ["--format", "psychpy"], "did you mean 'psychopy'"),
    ],
)
def test_mistakes_get_one_sentence_and_write_nothing(content, options, sentence, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / options[1]).write_bytes(content)
    before = sorted(path.name for path in tmp_path.iterdir())
    done = call(*options)
    assert isinstance(done.exception, (ValueError, FileNotFoundError)), done.output
    assert sentence in str(done.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
