"""The command line on real files, in process; every kind of wrong input is one sentence and exit code 2."""

import json
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from command_line import npc
from PIL import Image

from neural_fits import SiteRecordings, load_model
from stimuli import StimulusSet
from synth import cli


def test_the_line_from_files_to_report(lab, monkeypatch, capsys, tmp_path):
    folder, brain = lab
    made = tmp_path / "made"
    code, out, _ = npc(
        monkeypatch, capsys, "synth", folder / "driver", "--out", made, "--stretch", "site01", "--one-hot", "all",
        "--images", 1, "--steps", 2, "--json",
    )  # fmt: skip
    assert code == 0
    assert json.loads(out.splitlines()[-1]) == {
        "images": 4,
        "objectives": 4,
        "set": str(made),
        "ended": {"steps": 4},
    }
    shown = StimulusSet.load(made)
    assert shown.table["target_site"].tolist() == ["site01", "site00", "site01", "site02"]

    judge = ("--reference", folder / "natural", "--driver", folder / "driver", "--validator", folder / "validator")
    natural = ("--recordings", folder / "natural.nc")
    code, out, _ = npc(monkeypatch, capsys, "evaluate", made, *judge, *natural, "--out", tmp_path / "a", "--json")
    before = json.loads(out.splitlines()[-1])
    assert code == 0
    assert before["stretch"]["median_gain"] is None  # nothing shown yet

    brain.record(shown, n_repeats=4, seed=1).save(tmp_path / "made.nc")
    both = (*natural, "--recordings", tmp_path / "made.nc")
    code, out, _ = npc(monkeypatch, capsys, "evaluate", made, *judge, *both, "--out", tmp_path / "b", "--json")
    after = json.loads(out.splitlines()[-1])
    assert code == 0
    assert after["stretch"]["targets"] == 1
    assert after["ohp"]["targets"] == 3
    assert np.isfinite(after["stretch"]["median_gain"])
    assert {path.name for path in (tmp_path / "b").iterdir()} == {
        "report.html", "summary.json", "images.csv", "targets.csv", "families.csv",
    }  # fmt: skip


def test_fit_with_choices_writes_table_and_picture(lab, monkeypatch, capsys, tmp_path):
    folder, _ = lab
    code, out, _ = npc(
        monkeypatch, capsys, "fit", folder / "natural", folder / "natural.nc", "--out", tmp_path / "m", "--json",
        "--backbone", "efficientnet-lite0", "--layer", "blocks.1", "--layer", "blocks.3+blocks.4", "--readout", "ridge",
        "--readout", "local", "--site", "site00", "--site", "site02", "--folds", 3, "--penalty", "one_se",
        "--min-reliability", "-0.9", "--cache", tmp_path / "cache",
    )  # fmt: skip
    assert code == 0
    assert json.loads(out.splitlines()[-1])["sites"] == 2
    table = pd.read_csv(tmp_path / "m" / "scores.csv", index_col="site_id")
    assert list(table.index) == ["site00", "site02"]
    assert {"r", "explained_variance_low", "rf_x_deg", "rf_sd_deg"} <= set(table)
    with Image.open(tmp_path / "m" / "sites.png") as picture:
        assert picture.width > 500
    config = load_model(tmp_path / "m").provenance["config"]
    assert len(config["inner_r"]) == 4
    assert config["chosen"] in config["inner_r"]
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_fit_asks_for_what_a_file_does_not_say(lab, monkeypatch, capsys, tmp_path):
    folder, _ = lab
    trials = SiteRecordings.load(folder / "natural.nc").responses
    np.savez(tmp_path / "plain.npz", trials=trials.transpose(1, 0, 2))
    fit = ("fit", folder / "natural", tmp_path / "plain.npz", "--out", tmp_path / "m")
    code, _, err = npc(monkeypatch, capsys, *fit)
    assert code == 2
    assert "axes" in err
    assert err.count("\n") == 1
    code, _, err = npc(monkeypatch, capsys, *fit, "--axes", "repeat stimulus site")
    assert code == 2
    assert "100 of the 100 stimuli have no recording" in err  # numbered ids are not those of the set


def test_sessions_are_joined_and_an_array_is_carried_on(lab, monkeypatch, capsys, tmp_path):
    folder, brain = lab
    natural = StimulusSet.load(folder / "natural")
    brain.record(natural, n_repeats=2, seed=5).save(tmp_path / "day2.nc")
    files = (folder / "natural.nc", tmp_path / "day2.nc")
    how = ("--backbone", "efficientnet-lite0", "--layer", "blocks.2", "--folds", 3, "-q")
    normalizers = [part for name in natural.stimulus_ids[:20] for part in ("--normalizer", name)]
    code, out, _ = npc(
        monkeypatch, capsys, "fit", folder / "natural", *files, "--out", tmp_path / "joined", *how, *normalizers,
        "--no-outliers", "--parts", 2,
    )  # fmt: skip
    assert code == 0
    assert "median over 3 sites" in out
    model = load_model(tmp_path / "joined")
    assert len(model.members) == 2
    carry = ("fit", folder / "natural", folder / "natural.nc", "--transfer", tmp_path / "joined")
    code, _, err = npc(monkeypatch, capsys, *carry, "--out", tmp_path / "carried", "-q")
    assert code == 2
    assert "100 of the 100 images" in err
    code, _, err = npc(monkeypatch, capsys, *carry, "--out", tmp_path / "carried", "--readout", "ridge")
    assert code == 2
    assert "leave --readout out" in err
    code, _, err = npc(
        monkeypatch, capsys, "fit", folder / "natural", files[0], "--normalizer", "a", "--out", tmp_path / "x"
    )
    assert code == 2
    assert "more than one file" in err


def test_a_missing_library_is_one_sentence(lab, monkeypatch, capsys, tmp_path):
    folder, _ = lab
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "day.parquet").write_bytes(b"PAR1")
    code, _, err = npc(
        monkeypatch, capsys, "fit", folder / "natural", tmp_path / "day.parquet", "--out", tmp_path / "m"
    )
    assert code == 2
    assert err.count("\n") == 1


def test_same_seed_same_bytes_whatever_the_process_did_before(lab, monkeypatch, capsys, tmp_path):
    folder, _ = lab
    sets = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        arguments = ("--stretch", "site00", "--images", 1, "--steps", 2, "--seed", seed, "-q")
        assert npc(monkeypatch, capsys, "synth", folder / "driver", "--out", tmp_path / name, *arguments)[0] == 0
        sets.append({path.name: path.read_bytes() for path in (tmp_path / name / "images").iterdir()})
    assert sets[0] == sets[1]
    assert set(sets[0].values()) != set(sets[2].values())


def test_demo_summary_and_files(monkeypatch, capsys, tmp_path):
    size = ("--natural", 100, "--sites", 3, "--targets", 2, "--images", 1, "--size-px", 64, "--steps", 2)
    code, out, err = npc(monkeypatch, capsys, "demo", "--out", tmp_path / "demo", *size, "--json")
    assert code == 0, err
    summary = json.loads(out.splitlines()[-1])
    assert summary == json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert set(summary) >= {"sites", "driver_ev_median", "stretch", "ohp", "seconds", "device", "report"}
    forecasts = {"forecast_over_achieved_driver", "forecast_over_achieved_validator"}
    assert set(summary["stretch"]) >= {"targets", "fraction_beyond_best_natural", "median_gain"} | forecasts
    assert set(summary["ohp"]) >= {"targets", "fraction_improved", "median_improvement"}
    assert len(StimulusSet.load(tmp_path / "demo" / "synthesized")) == 4
    assert SiteRecordings.load(tmp_path / "demo" / "recordings_synthesized.nc").shape == (4, 32, 3)
    assert "synthesizing 4 images" in err  # progress goes to standard error
    code, _, err = npc(monkeypatch, capsys, "demo", "--out", tmp_path / "demo", *size)
    assert code == 2
    assert "--overwrite" in err


def wrong(lab, tmp_path):
    """Return name -> (arguments, words that the sentence must hold)."""
    folder, _ = lab
    natural, recorded = folder / "natural", folder / "natural.nc"
    (tmp_path / "file").write_text("")
    fit, out = ("fit", natural, recorded), ("--out", tmp_path / "out")
    one = ("--backbone", "efficientnet-lite0")
    ids = StimulusSet.load(natural).stimulus_ids

    other = SiteRecordings.load(recorded)
    renamed = [f"x{k}" for k in range(len(ids))]
    SiteRecordings(other.responses, tuple(renamed), other.sites, other.window_ms).save(tmp_path / "renamed.nc")
    silent = other.responses.copy()
    silent[:, :, 1] = np.nan
    SiteRecordings(silent, tuple(ids), other.sites, other.window_ms).save(tmp_path / "silent.nc")

    cut, resized = tmp_path / "cut", tmp_path / "resized"
    StimulusSet.load(natural).save(cut)
    image = next((cut / "images").iterdir())
    image.write_bytes(image.read_bytes()[:200])
    StimulusSet.load(natural).save(resized)
    manifest = json.loads((resized / "set.json").read_text())
    manifest["height"] = manifest["width"] = 32
    (resized / "set.json").write_text(json.dumps(manifest))
    return {
        "network": ((*fit, *out, "--backbone", "efficientnet-lite9"), "did you mean 'efficientnet-lite"),
        "layer": ((*fit, *out, *one, "--layer", "blocks.44"), "did you mean 'blocks.4"),
        "readout": ((*fit, *out, *one, "--readout", "rigde"), "did you mean 'ridge'"),
        "device": ((*fit, *out, *one, "--device", "cuda:99"), "device 'cuda:99'"),
        "ids": (("fit", natural, tmp_path / "renamed.nc", *out), "x0"),
        "nan site": (("fit", natural, tmp_path / "silent.nc", *out), "site01"),
        "truncated": (("fit", cut, recorded, *out), image.name),
        "size": (("fit", resized, recorded, *out), "64"),
        "no set": (("fit", tmp_path / "nothing", recorded, *out), "nothing"),
        "no recordings": (("fit", natural, tmp_path / "no.nc", *out), "no.nc"),
        "unwritable": ((*fit, "--out", tmp_path / "file" / "out"), "file"),
        "out is taken": (("synth", folder / "driver", "--out", tmp_path, "--stretch", "site00"), "choose another"),
        "no model": (("synth", natural, *out, "--stretch", "site00"), "model.json"),
        "site": (("synth", folder / "driver", *out, "--stretch", "site0O"), "did you mean 'site0"),
        "recipe": (("synth", folder / "driver", *out, "--stretch", "site00", "--recipe", "robus"), "'robust'"),
        "own judge": (
            (
                "evaluate",
                natural,
                "--reference",
                natural,
                "--recordings",
                recorded,
                "--driver",
                folder / "driver",
                "--validator",
                folder / "driver",
                *out,
            ),
            "both driver and validator",
        ),
        "population alone": (
            ("synth", folder / "driver", *out, "--stretch", "site00", "--population", "site01"),
            "--one-hot",
        ),
        "no target": (("synth", folder / "driver", *out), "--stretch"),
        "demo size": (("demo", *out, "--targets", 40), "40 targets"),
        "demo place": (("demo", "--out", tmp_path / "file" / "demo"), "file"),
    }


def test_wrong_input_is_one_sentence_and_exit_code_2(lab, monkeypatch, capsys, tmp_path):
    for name, (arguments, words) in wrong(lab, tmp_path).items():
        before = sorted(path for path in tmp_path.rglob("*"))
        quiet = () if arguments[0] == "evaluate" else ("-q",)
        code, out, err = npc(monkeypatch, capsys, *arguments, *quiet)
        assert code == 2, name
        assert out == "", name
        assert err.startswith("npc: "), name
        assert err.count("\n") == 1, name
        assert words in err, (name, err)
        assert "Traceback" not in err, name
        assert sorted(path for path in tmp_path.rglob("*")) == before, name  # nothing half-written


def test_an_option_that_does_not_exist_exits_with_2(monkeypatch, capsys):
    code, _, err = npc(monkeypatch, capsys, "demo", "--sseed", 1)
    assert code == 2
    assert "--sseed" in err


def test_doctor_finds_this_machine_fit(monkeypatch, capsys):
    code, out, _ = npc(monkeypatch, capsys, "doctor", "--json")
    findings = json.loads(out.splitlines()[-1])
    assert code == 0
    assert findings["ok"]
    assert {check["what"] for check in findings["checks"]} >= {"torch", "device", "import synth", "free disk"}


@pytest.mark.parametrize("command", ["demo", "fit", "synth", "evaluate", "doctor"])
def test_help_teaches_by_an_example(monkeypatch, capsys, command):
    code, out, _ = npc(monkeypatch, capsys, command, "--help")
    assert code == 0
    assert f"Example: npc {command}" in out


def test_help_is_instant_and_never_imports_torch():
    script = (
        "import sys; sys.argv = ['npc', '--help']\n"
        "from synth.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.exit(len({'torch', 'pandas', 'timm'} & set(sys.modules)))"
    )
    began = time.perf_counter()
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert time.perf_counter() - began < 5  # a second on an idle machine


def test_full_disk_and_interruption_are_said_in_words(monkeypatch, capsys):
    def fail(error):
        def app(arguments):
            raise error

        monkeypatch.setattr(cli, "app", app)
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code, capsys.readouterr().err

    code, text = fail(OSError(28, "No space left on device"))
    assert code == 2
    assert "disk is full" in text
    code, text = fail(SystemExit(130))
    assert (code, text) == (130, "npc: interrupted; nothing was written\n")
