"""Scripts for Psychtoolbox and MonkeyLogic, run in Octave against stand-ins of both."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from test_export_rigs import export, planned

from stimuli import Display, StimulusSet

OCTAVE = Path(__file__).parent / "octave"
needs_octave = pytest.mark.skipif(
    shutil.which("octave-cli") is None, reason="needs Octave, which runs MATLAB scripts (apt-get install octave)"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return export(tmp_path_factory.mktemp("octave") / "set", "monkeylogic", "psychtoolbox")


def octave(command, **variables):
    environment = {**os.environ, **{key: str(value) for key, value in variables.items()}}
    finished = subprocess.run(
        ["octave-cli", "--norc", "--quiet", "--path", str(OCTAVE), "--eval", command],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.splitlines()


@needs_octave
@pytest.mark.parametrize(("fail_at", "scenes", "error"), [(0, 11, 0), (10, 1, 4), (103, 6, 3), (200, 3, 3)])
def test_monkeylogic_timing_runs_in_octave(made, fail_at, scenes, error):
    script = made / "monkeylogic" / "rsvp_timing.m"
    lines = octave(f"run_timing('{script}', 5)", FAIL_AT=fail_at)
    shown = [line.split() for line in lines if line.startswith("SCENE")]
    assert len(shown) == scenes
    assert shown[0] == ["SCENE", "10", "1", "10"]
    expected = [part for k in range(5) for part in (("[1", f"{k + 2}]", "6"), ("1", "6"))]
    assert [tuple(line[2:]) for line in shown[1:]] == expected[: scenes - 1]
    assert [line[1] for line in shown[1:]] == [c for k in range(5) for c in (f"{101 + k}", "200")][: scenes - 1]
    assert f"ERROR {error}" in lines
    assert ("REWARD" in lines) == (error == 0)
    assert "trial = 7" in lines
    if not error:
        assert "completed = 5" in lines
        assert "onset_ms = [166.66667 366.66667 566.66667 766.66667 966.66667]" in lines


@needs_octave
def test_monkeylogic_is_checked_to_have_the_degrees_of_the_positions(made, tmp_path):
    folder = export(tmp_path / "set", "monkeylogic", position_deg=(2.0, -1.0), repeats=1)
    script = folder / "monkeylogic" / "rsvp_timing.m"
    assert "REWARD" in octave(f"run_timing('{script}', 5)", FAIL_AT=0, PPD=39.2)
    wrong = octave(f"try, run_timing('{script}', 5), catch e, disp(e.message), end", FAIL_AT=0, PPD=36.04)
    assert wrong[-1].startswith("MonkeyLogic has 36.04 px/deg and the set was made for 39.23")
    centered = made / "monkeylogic" / "rsvp_timing.m"
    assert "REWARD" in octave(f"run_timing('{centered}', 5)", FAIL_AT=0, PPD=36.04)


@needs_octave
@pytest.mark.parametrize(("gap_ms", "break_at"), [(0.0, "nan"), (50.0, "nan"), (0.0, "0.85")])
def test_psychtoolbox_with_a_short_gap_or_none(tmp_path, gap_ms, break_at):
    folder = export(tmp_path / "set", "psychtoolbox", gap_ms=gap_ms, repeats=1)
    lines = octave(f"cd('{folder}/psychtoolbox'); run_rsvp()", BREAK_AT=break_at, STOP_AT="nan")
    log = pd.read_csv(next((folder / "psychtoolbox" / "logs").iterdir()), dtype={"stimulus_id": str})
    plan = planned(folder)
    first, later = plan[plan["trial"] == 0]["stimulus_id"], plan[plan["trial"] > 0]["stimulus_id"]
    broken = break_at != "nan"
    assert log["stimulus_id"].tolist() == ([*first[:2], *later, *first] if broken else plan["stimulus_id"].tolist())
    assert len([line for line in lines if line.startswith("TEX")]) == len(log)
    assert log["shown"].tolist() == [k != 1 or not broken for k in range(len(log))]
    whole = log[log["shown"] == 1]
    assert whole["duration_s"].to_numpy() == pytest.approx(0.1, abs=1e-4)  # six frames
    within = whole.groupby("trial")["onset_s"].diff().dropna()
    assert (within[within < 0.5] * 1000).to_numpy() == pytest.approx(100 + gap_ms, abs=0.1)


@needs_octave
def test_psychtoolbox_refuses_a_screen_of_other_pixels(tmp_path):
    folder = export(tmp_path / "set", "psychtoolbox", display=Display(resolution_px=(1280, 720), refresh_hz=60.0))
    command = f"cd('{folder}/psychtoolbox'); try, run_rsvp(), catch e, disp(e.message), end"
    lines = octave(command, BREAK_AT="nan", STOP_AT="nan")
    assert lines[-1].startswith("The screen has 1920 x 1080 px and the set was made for 1280 x 720: set its resolution")
    assert "CLOSED" in lines
    assert not (folder / "psychtoolbox" / "logs").exists()


@needs_octave
def test_psychtoolbox_scripts_run_in_octave(made, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(made, folder)
    script = folder / "psychtoolbox" / "load_set.m"
    script.write_text(script.read_text().replace("s.shift_px = [0, 0]", "s.shift_px = [30, -40]"))
    lines = octave(f"cd('{folder}/psychtoolbox'); run_rsvp()", BREAK_AT="nan", STOP_AT="nan")
    plan = planned(made)
    assert lines[0] == "OPEN 128"
    codes = dict(zip(StimulusSet.load(made).stimulus_ids, StimulusSet.load(made).codes(), strict=True))
    expected = [f"TEX {codes[name].sum()} [982 492 998 508] 0" for name in plan["stimulus_id"]]
    assert lines[1:] == [*expected, "CLOSED"]
    log = pd.read_csv(next((folder / "psychtoolbox" / "logs").iterdir()), dtype={"stimulus_id": str})
    assert log.iloc[:, :6].equals(plan.iloc[:, :6])
    assert log["duration_s"].to_numpy() == pytest.approx(0.1, abs=1e-4)
    onset = log["onset_s"] - log["onset_s"][0]
    assert (onset[:5] * 1000).tolist() == pytest.approx(list(range(0, 1000, 200)), abs=0.1)
    assert log["shown"].tolist() == [1] * len(plan)


@needs_octave
def test_psychtoolbox_breaks_and_stops(made, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(made, folder)
    plan = planned(made)
    first, later = plan[plan["trial"] == 0]["stimulus_id"], plan[plan["trial"] > 0]["stimulus_id"]
    expected = [*first[:2], *later, *first]  # broken in the second image, shown again at the end
    for stop, count in (("nan", len(expected)), (3.3, 7)):
        octave(f"cd('{folder}/psychtoolbox'); run_rsvp()", BREAK_AT=0.95, STOP_AT=stop)
        (path,) = (folder / "psychtoolbox" / "logs").iterdir()
        log = pd.read_csv(path, dtype={"stimulus_id": str})
        path.unlink()
        assert log["stimulus_id"].tolist() == expected[:count]
        assert log["shown"].tolist()[:3] == [1, 0, 1]
