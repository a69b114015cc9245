"""``npc export`` on real files: rigs, orders, screens, predictions of models, and wrong input in one sentence."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from neural_fits import SimulatedBrain, fit_sites
from stimuli import Display, StimulusSet, natural_photos
from stimuli.provenance import sha256_bytes
from stimuli.sequence import PresentationOrder
from synth.commands import export as command

SCREEN = ("--screen", "1920x1080", "--width-cm", 53, "--distance-cm", 57)


@pytest.fixture
def npc():
    app = typer.Typer()
    app.command("export")(command.export)
    app.command("other")(lambda: None)

    def run(*arguments):
        result = CliRunner().invoke(app, ["export", *map(str, arguments)])
        if result.exit_code and not isinstance(result.exception, SystemExit):
            raise result.exception  # what synth.cli.main turns into one sentence
        assert result.exit_code == 0, result.output
        return result

    return run


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    codes = np.random.default_rng(0).integers(0, 256, (5, 1, 16, 16), dtype=np.uint8)
    made = StimulusSet.from_arrays(codes, {"stimulus_id": list("abcde")}, size_deg=16 / Display().ppd, name="five")
    folder = tmp_path_factory.mktemp("source") / "five"
    made.save(folder)
    return folder


def test_natural_images_are_shown_again(npc, source, tmp_path):
    codes = np.random.default_rng(1).integers(0, 256, (9, 1, 16, 16), dtype=np.uint8)
    ids = ["a", *(f"n{k}" for k in range(8))]  # one of them is in the set
    natural = StimulusSet.from_arrays(codes, {"stimulus_id": ids}, size_deg=16 / Display().ppd)
    natural.save(tmp_path / "natural")
    told = []
    for seed in (0, 0, 1):
        out = tmp_path / f"out{len(told)}"
        more = ("--natural", tmp_path / "natural", "--natural-images", 4, "--seed", seed)
        npc(source, "--for", "bids", "--out", out, *SCREEN, *more)
        told.append(StimulusSet.load(out).stimulus_ids)
        assert told[-1][:5] == list("abcde")
        assert set(told[-1][5:9]) <= set(ids[1:])
        order = pd.read_csv(out / "presentation.csv")
        assert set(order["stimulus_id"]) == set(told[-1])
        codes_again = StimulusSet.load(out).codes(told[-1][5:9])
        np.testing.assert_array_equal(codes_again, natural.codes(told[-1][5:9]))
    assert told[0] == told[1] != told[2]
    with pytest.raises(ValueError, match=r"asks for 9 and .* has 8 others"):
        npc(source, "--for", "bids", "--out", tmp_path / "x", *SCREEN, *more[:2], "--natural-images", 9)


def test_a_set_for_one_rig(npc, source, tmp_path):
    out = tmp_path / "out"
    result = npc(
        *(source, "--for", "psychopy", "--out", out, *SCREEN, "--refresh-hz", 60, "--gamma", 2.2, "--json"),
        *("--repeats", 3, "--images-per-trial", 4, "--on-ms", 50, "--off-ms", 150, "--lead-in-ms", 200),
        *(
            "--position-deg",
            1.5,
            -2,
            "--inter-trial-ms",
            300,
            "--blanks",
            2,
            "--normalizer",
            "b",
            "--animal",
            "m1",
            "--day",
            "4",
            "--seed",
            7,
        ),
    )
    told = json.loads(result.stdout.splitlines()[-1])
    assert (told["stimuli"], told["presentations"], told["rigs"]) == (6, 3 * 8, ["psychopy"])
    assert told["notes"] == []
    order = PresentationOrder.from_csv(out / "presentation.csv")
    config = order.config
    assert (config.images_per_trial, config.duration_ms, config.gap_ms, config.lead_in_ms) == (4, 50.0, 150.0, 200.0)
    assert (config.inter_trial_ms, config.blanks_per_block, config.normalizers) == (300.0, 2, ("b",))
    assert (config.animal, config.day, config.seed, order.refresh_hz) == ("m1", "4", 7, 60.0)
    assert told["seconds"] == pytest.approx(order.seconds, abs=1e-3)
    assert json.loads((out / "display.json").read_text())["image_position_deg"] == [1.5, -2.0]
    display = StimulusSet.load(out).display
    assert (display.refresh_hz, display.gamma, display.width_cm) == (60.0, 2.2, 53.0)


def test_notes_are_said_loudly_and_an_order_is_taken_over(npc, source, tmp_path):
    npc(source, "--for", "psychopy", "--out", tmp_path / "one", *SCREEN, "--seed", 3)
    order = tmp_path / "one" / "presentation.csv"
    result = npc(tmp_path / "one", "--for", "mworks", "--out", tmp_path / "two", "--order", order)
    assert (tmp_path / "two" / "presentation.csv").read_bytes() == order.read_bytes()
    assert "npc: The refresh rate is not known" in result.stderr
    assert "6 images, 60 presentations" in result.stdout


def test_all_rigs(npc, source, tmp_path):
    out = tmp_path / "out"
    npc(source, "--for", "all", "--out", out, *SCREEN, "--repeats", 2)
    for rig in ("psychopy", "mworks", "monkeylogic", "psychtoolbox", "bids", "brainscore", "nwb"):
        assert any((out / rig).iterdir())


def test_predictions_of_models_on_the_png_codes(npc, tmp_path):
    natural = natural_photos(60, 64)
    brain = SimulatedBrain(natural, n_sites=3)
    driver = fit_sites(natural, brain.record(natural, n_repeats=4), backbone="efficientnet-lite0", layer="blocks.2")
    driver.save(tmp_path / "driver")
    driver.save(tmp_path / "judge")
    photos = natural.select(slice(0, 3))
    photos.save(tmp_path / "photos")
    out = tmp_path / "out"
    models = ("--model", tmp_path / "driver", "--model", tmp_path / "judge")
    npc(tmp_path / "photos", "--for", "psychopy", "--out", out, *SCREEN, *models, "--device", "cpu")
    exported = StimulusSet.load(out)
    expected = driver.predict(exported)
    assert len(exported) == 4  # the gray control is predicted too
    for k, site in enumerate(driver.site_ids):
        assert exported.table[f"predicted_{site}"].to_numpy() == pytest.approx(expected[:, k], rel=1e-4, abs=1e-4)
    judged = pd.read_csv(out / "predictions" / "judge.csv", index_col="stimulus_id")
    assert judged[list(driver.site_ids)].to_numpy() == pytest.approx(expected, rel=1e-4, abs=1e-4)
    facts = json.loads((out / "provenance.json").read_text())["config"]["facts"]
    assert set(facts) == {"model driver", "model judge"}


WRONG = {
    "no rig": (["--out", "x"], "npc export needs a rig: --for psychopy"),
    "rig": (["--for", "psychpy", *SCREEN], "did you mean 'psychopy'"),
    "no screen": (["--for", "psychopy"], "made for no screen"),
    "half a screen": (["--for", "psychopy", "--screen", "1920x1080"], "--width-cm and --distance-cm is missing"),
    "rate of no screen": (
        ["--for", "psychopy", "--refresh-hz", 60],
        "--refresh-hz describes a screen and the set has none",
    ),
    "values": (["--for", "psychopy", *SCREEN, "--pixel-values", "log"], "pixel_values is 'log'"),
    "normalizer": (["--for", "psychopy", *SCREEN, "--normalizer", "z"], "'z' is not among the 5 stimuli"),
    "order and times": (["--for", "psychopy", "--order", "p.csv", "--on-ms", 50], "leave --on-ms out"),
    "order": (["--for", "psychopy", "--order", "p.csv"], "There is no p.csv"),
    "endless images": (["--for", "psychopy", *SCREEN, "--on-ms", 1e300], "duration_ms is .* give at most 3,600,000"),
    "rate too high": (["--for", "psychopy", *SCREEN, "--refresh-hz", 1e9], "refresh_hz is .* from 1 to 10,000"),
    "rate too low": (["--for", "psychopy", *SCREEN, "--refresh-hz", 1e-9], "refresh_hz is .* from 1 to 10,000"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_sentence_and_nothing_is_written(npc, source, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    arguments, match = WRONG[case]
    with pytest.raises((ValueError, FileNotFoundError), match=match) as error:
        npc(source, *arguments)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_an_earlier_export_is_replaced_only_when_asked(npc, source, tmp_path):
    out = tmp_path / "out"
    npc(source, "--for", "psychopy", "--out", out, *SCREEN)
    with pytest.raises(FileExistsError, match="replace it with --overwrite"):
        npc(source, "--for", "psychopy", "--out", out, *SCREEN)
    script = out / "psychopy" / "run_rsvp.py"
    own = script.read_bytes()
    script.write_bytes(own + b"# our eye tracker\n")
    with pytest.raises(FileExistsError, match=r"holds 'psychopy/run_rsvp\.py', added or edited after the export"):
        npc(source, "--for", "mworks", "--out", out, *SCREEN, "--overwrite")
    assert script.read_bytes().endswith(b"# our eye tracker\n")
    script.write_bytes(own)
    npc(source, "--for", "mworks", "--out", out, *SCREEN, "--overwrite")
    assert not (out / "psychopy").exists()


@pytest.mark.parametrize(
    ("file", "old", "new", "match"),
    [
        ("presentation.json", '"normalizers": []', '"normalizers": 5', "normalizers is 5: give a tuple"),
        ("presentation.json", '"config"', '"other"', "does not hold its configuration"),
        ("presentation.csv", ",100.0\n", ",200.0\n", "duration_ms is not 100"),
        ("presentation.json", '"images_per_trial": 6', '"images_per_trial": 3', "a trial has not 3 images"),
    ],
)
def test_an_order_that_was_edited_is_refused(npc, source, tmp_path, file, old, new, match):
    npc(source, "--for", "psychopy", "--out", tmp_path / "one", *SCREEN)
    path = tmp_path / "one" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    order = ("--order", tmp_path / "one" / "presentation.csv")
    with pytest.raises(ValueError, match=match) as error:
        npc(source, "--for", "psychopy", "--out", tmp_path / "two", *SCREEN, *order)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize("damage", ["../../evil", "/etc/evil", "a b"])
def test_hostile_names_in_a_set_on_disk(npc, source, tmp_path, damage):
    folder = tmp_path / "hostile"
    shutil.copytree(source, folder)
    text = (folder / "stimuli.csv").read_text().replace("images/a.png", f"{damage}.png")
    (folder / "stimuli.csv").write_text(text)
    manifest = json.loads((folder / "set.json").read_text())
    manifest["stimuli_csv_sha256"] = sha256_bytes(text.encode())
    (folder / "set.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"leaves the folder|is missing"):
        npc(folder, "--for", "psychopy", "--out", tmp_path / "out", *SCREEN)
    assert [p.name for p in tmp_path.iterdir()] == ["hostile"]
