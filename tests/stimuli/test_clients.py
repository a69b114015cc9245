"""Programs of others read what we write, each in a process of its own; and each of them finds a planted mistake."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil

import h5py
import numpy as np
import pytest
from clients import bids_errors, brainscore, nwb_findings, psychopy
from exported import IDS, bundle, export, some_stimuli

from stimuli import StimulusSet
from stimuli.event_logs import read_event_log
from stimuli.export.export_set import export_set
from stimuli.export.psychopy import conditions
from stimuli.sequence import PresentationOrder, SequenceConfig

RIGS = ("psychopy", "bids", "brainscore", "nwb")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The folder of a set exported for all of them."""
    return export(tmp_path_factory.mktemp("exported") / "set", RIGS)


@pytest.fixture
def planned(exported):
    """The order that was exported."""
    return PresentationOrder.from_csv(exported / "presentation.csv").table


IMPORT = """
import json, sys
from psychopy.data import importConditions
rows, names = importConditions(sys.argv[1], returnFieldNames=True)
gui = {"wx", "PyQt5", "PyQt6", "pyglet"} & {name.split(".")[0] for name in sys.modules}
print(json.dumps({"names": list(names), "gui": sorted(gui), "rows": [
    {key: value.item() if hasattr(value, "item") else value for key, value in row.items()} for row in rows]}))
"""


def test_psychopy_imports_the_conditions(exported, planned, tmp_path):
    read = psychopy(IMPORT, tmp_path, str(exported / "psychopy" / "conditions.csv"))
    assert read["gui"] == []
    assert len(read["rows"]) == len(planned)
    for row, plan in zip(read["rows"], planned.to_dict("records"), strict=True):
        for name in ("trial", "position", "block", "repeat", "stimulus_id"):
            assert row[name] == plan[name]
        assert row["image_file"] == f"../{plan['filename']}"


def called(ids):
    """Return stimuli of these ids; the last is the gray control, so that no other id comes to them."""
    stimuli = some_stimuli().select(slice(0, len(ids)))
    codes = stimuli.codes()
    codes[-1] = 128
    table = stimuli.table.assign(stimulus_id=ids)
    return StimulusSet.from_arrays(codes, table, size_deg=6.0, display=stimuli.display, name="called")


@pytest.mark.parametrize("ids", [["0012", "1e5", "12", "word"], ["0012", "12", "7"], ["True", "False"]])
def test_ids_that_look_like_values_survive_psychopy(ids, tmp_path):
    folder = tmp_path / "set"
    export_set(called(ids), folder, rigs=["psychopy"], sequence=SequenceConfig(repeats=2))
    listed = str(folder / "psychopy" / "conditions.csv")
    assert len(psychopy(IMPORT, tmp_path, listed)["rows"]) == 2 * len(ids)
    log = read_event_log(psychopy(RUN, tmp_path, listed, str(tmp_path / "wide")), StimulusSet.load(folder))
    plan = PresentationOrder.from_csv(folder / "presentation.csv").table
    assert log.table["stimulus_id"].tolist() == plan["stimulus_id"].tolist()


@pytest.mark.parametrize("lost", ["NA", "None", "12", "true"])
def test_conditions_leave_out_ids_that_psychopy_loses(lost, tmp_path):
    """Such as a bundle of one's own may hold; the image is named by its file all the same."""
    made = bundle(tmp_path / "set")
    assert "stimulus_id" in conditions(made).splitlines()[0].split(",")
    table = made.stimuli.table.assign(stimulus_id=["a", lost, "b", "c", "gray"])
    named = StimulusSet.from_arrays(made.stimuli.codes(), table)
    header = conditions(dataclasses.replace(made, stimuli=named)).splitlines()[0].split(",")
    assert "stimulus_id" not in header
    assert "image_file" in header


def test_psychopy_refuses_a_name_with_a_space(exported, tmp_path):
    text = (exported / "psychopy" / "conditions.csv").read_text()
    (tmp_path / "bad.csv").write_text(text.replace("image_file", "image file"))
    with pytest.raises(AssertionError, match="ConditionsImportError"):
        psychopy(IMPORT, tmp_path, str(tmp_path / "bad.csv"))


RUN = """
import json, sys
from psychopy.data import ExperimentHandler, TrialHandler, importConditions
run = ExperimentHandler(dataFileName=sys.argv[2], savePickle=False, saveWideText=False, extraInfo={"animal": "m1"})
loop = TrialHandler(importConditions(sys.argv[1]), nReps=1, method="sequential", name="images")
run.addLoop(loop)
run.addData("welcome.started", 0.01)
run.nextEntry()
for k, row in enumerate(loop):
    if k not in (3, 4):
        run.addData("image.started", 1 + 0.2 * k)
        run.addData("image.stopped", 1.1 + 0.2 * k)
    run.nextEntry()
print(json.dumps(run.saveAsWideText(sys.argv[2] + ".csv", delim="comma")))
"""


def test_the_wide_csv_that_psychopy_writes_is_read_back(exported, planned, tmp_path):
    file = psychopy(RUN, tmp_path, str(exported / "psychopy" / "conditions.csv"), str(tmp_path / "wide"))
    log = read_event_log(file, StimulusSet.load(exported))
    assert log.table["stimulus_id"].tolist() == planned["stimulus_id"].tolist()
    shown = [k not in (3, 4) for k in range(len(planned))]
    assert log.shown.tolist() == shown
    assert log.table["repeat"][shown].tolist() == planned[shown].groupby("stimulus_id").cumcount().tolist()
    np.testing.assert_allclose(log.table["onset_s"][shown], 1 + 0.2 * np.flatnonzero(shown))
    np.testing.assert_allclose(log.table["duration_s"][shown], 0.1)


def test_the_bids_validator_finds_no_error(exported, tmp_path):
    assert bids_errors(exported / "bids", tmp_path) == []


@pytest.mark.parametrize("mistake", ["a lost image", "an onset of text", "no name"])
def test_the_bids_validator_finds_a_mistake(mistake, exported, tmp_path):
    dataset = shutil.copytree(exported / "bids", tmp_path / "bids")
    if mistake == "a lost image":
        next((dataset / "stimuli").glob("*.png")).unlink()
    elif mistake == "an onset of text":
        events = next(dataset.rglob("*_events.tsv"))
        events.write_text(re.sub(r"\n[\d.]+\t", "\nsoon\t", events.read_text(), count=1))
    else:
        (dataset / "dataset_description.json").write_text(json.dumps({"BIDSVersion": "1.11.0"}))
    assert bids_errors(dataset, tmp_path)


LOAD = """
import json, sys, zipfile
from pathlib import Path
from brainscore_core.supported_data_standards.brainio import packaging, stimuli
place, out = Path(sys.argv[1]), sys.argv[2]
record = json.loads(next(place.glob("*.json")).read_text())
zipfile.ZipFile(next(place.glob("*.zip"))).extractall(out)
loaded = stimuli.StimulusSetLoader(
    csv_path=str(next(place.glob("*.csv"))), stimuli_directory=out, cls=stimuli.StimulusSet).load()
loaded.identifier = record["identifier"]
packaging.check_naming_convention(record["identifier"])
valid = packaging.validate_stimulus_set_only(loaded)
loaded.stimulus_paths = {key: str(path) for key, path in loaded.stimulus_paths.items()}
packaging.check_experiment_stimulus_set(loaded)
print(json.dumps({"valid": valid, "ids": loaded["stimulus_id"].tolist(), "degrees": loaded["degrees"].tolist(),
                  "sums": [packaging.sha1_hash(str(next(place.glob(f"*.{kind}")))) for kind in ("csv", "zip")],
                  "recorded": [record["csv_sha1"], record["zip_sha1"]]}))
"""


def test_brain_score_loads_and_validates_the_set(exported, tmp_path):
    found = brainscore(LOAD, tmp_path, str(exported / "brainscore"), str(tmp_path / "unpacked"))
    assert found["valid"] is True
    assert found["ids"] == [*IDS, "gray"]
    assert found["degrees"] == [6.0] * 5
    assert found["sums"] == found["recorded"]


@pytest.mark.parametrize("ids", [["0012", "12", "7", "1e5"], ["True", "False"]])
def test_ids_that_look_like_values_survive_brain_score(ids, tmp_path):
    folder = export_set(called(ids), tmp_path / "set", rigs=["brainscore"], sequence=SequenceConfig(repeats=2))
    found = brainscore(LOAD, tmp_path, str(folder / "brainscore"), str(tmp_path / "unpacked"))
    assert found["valid"] is True
    assert found["ids"] == [f"id_{name}" for name in ids]


def test_brain_score_refuses_numbers_with_gaps(exported, tmp_path):
    import zipfile

    place = shutil.copytree(exported / "brainscore", tmp_path / "brainscore")
    file, table = next(place.glob("*.zip")), next(place.glob("*.csv"))
    with zipfile.ZipFile(file) as archive:
        images = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in images.items():
            archive.writestr(name.replace("image_5", "image_7"), data)
    table.write_text(table.read_text(encoding="utf-8").replace("image_5.png", "image_7.png"), encoding="utf-8")
    with pytest.raises(AssertionError, match="not sequentially numbered"):
        brainscore(LOAD, tmp_path, str(place), str(tmp_path / "unpacked"))


def test_pynwb_and_nwbinspector_accept_the_file(exported, tmp_path):
    pynwb = pytest.importorskip("pynwb")
    assert pynwb.validate(path=str(exported / "nwb" / "stimuli.nwb")) == []
    assert nwb_findings(exported / "nwb" / "stimuli.nwb", tmp_path) == set()


def test_pynwb_and_nwbinspector_find_a_mistake(exported, tmp_path):
    pynwb = pytest.importorskip("pynwb")
    path = shutil.copy(exported / "nwb" / "stimuli.nwb", tmp_path / "bad.nwb")
    with h5py.File(path, "a") as file:
        del file["general/subject/sex"]
    assert nwb_findings(path, tmp_path) == {"check_subject_sex"}
    with h5py.File(path, "a") as file:
        del file["stimulus/presentation/presented_stimuli/data"]
    assert pynwb.validate(path=str(path)) != []
