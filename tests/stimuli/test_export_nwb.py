"""The NWB file: images, order and table in it, read back by others' code and by ours; judged in test_clients.py."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import h5py
import numpy as np
import pytest
from exported import IDS, bundle, some_stimuli

pytest.importorskip("pynwb")

from stimuli import StimulusSet
from stimuli.event_logs import read_event_log
from stimuli.export import nwb
from stimuli.export.export_set import export_set
from stimuli.sequence import SequenceConfig


def write(folder, **named):
    made = bundle(folder, **named)
    (made.folder / "nwb").mkdir()
    nwb.write(made)
    return made, made.folder / "nwb" / "stimuli.nwb"


@pytest.mark.parametrize("channels", [1, 3])
def test_images_and_order_are_in_the_file(channels, tmp_path):
    """Read by h5py alone, so that no code of pynwb on the way in hides what pynwb did on the way out."""
    made, path = write(tmp_path / "set", channels=channels, size_px=(12, 24))
    with h5py.File(path) as file:
        template = file["stimulus/templates/stimuli"]
        listed = [file[reference].name.rsplit("/", 1)[-1] for reference in template["order_of_images"][:]]
        assert listed == [*IDS, "gray"]
        for name in listed:
            codes = made.stimuli.codes([name])[0]
            stored = template[name][:]
            assert stored.dtype == np.uint8
            np.testing.assert_array_equal(stored, codes[0] if channels == 1 else codes.transpose(1, 2, 0))
        series = file["stimulus/presentation/presented_stimuli"]
        order = made.order.table
        assert [listed[k] for k in series["data"][:]] == order["stimulus_id"].tolist()
        np.testing.assert_allclose(series["timestamps"][:], order["onset_ms_nominal"] / 1000)
        assert file["session_start_time"][()].startswith(b"2026-11-23T00:00:00")
        assert file["general/subject/subject_id"][()] == b"Mx 1"


def test_the_order_reads_back_from_table_and_series(tmp_path):
    made, path = write(tmp_path / "set")
    order = made.order.table
    log = read_event_log(path, made.stimuli)
    for name in ("stimulus_id", "repeat", "trial", "position", "block"):
        assert log.table[name].tolist() == order[name].tolist(), name
    np.testing.assert_allclose(log.table["duration_s"], order["duration_ms"] / 1000, atol=1e-9)
    series = read_event_log(path, made.stimuli, part=nwb.SERIES)
    assert series.table["stimulus_id"].tolist() == order["stimulus_id"].tolist()
    assert series.table["repeat"].tolist() == order["repeat"].tolist()


@pytest.mark.parametrize("name", ["order_of_images", "description", "namespace", "neurodata_type", "object_id"])
def test_names_that_nwb_keeps_are_refused(name, tmp_path):
    made = bundle(tmp_path / "set")
    stimuli = StimulusSet.from_arrays(made.stimuli.select([0, 1]).codes(), {"stimulus_id": ["a", name]})
    with pytest.raises(ValueError, match=f"stimulus_id '{name}' is a name that NWB keeps for itself: rename"):
        nwb.write(dataclasses.replace(made, stimuli=stimuli))


def test_our_readers_of_recordings_find_the_images(tmp_path):
    from neural_fits.recordings_io.images import load_stimuli

    made, path = write(tmp_path / "set")
    found = load_stimuli(path, size_deg=6.0)
    assert found.stimulus_ids == made.stimuli.stimulus_ids
    np.testing.assert_array_equal(found.codes(), made.stimuli.codes())


def test_the_bytes_are_the_same_again_and_differ_with_the_set(tmp_path):
    first, second, other = write(tmp_path / "a")[1], write(tmp_path / "b")[1], write(tmp_path / "c", seed=2)[1]
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes() != other.read_bytes()


def test_every_object_has_an_id_of_its_own(tmp_path):
    _, path = write(tmp_path / "set")
    ids = []
    with h5py.File(path) as file:
        ids.append(file.attrs["object_id"])
        file.visititems(lambda name, item: ids.append(item.attrs["object_id"]) if "object_id" in item.attrs else None)
    assert len(ids) == len(set(ids)) > 15


def test_images_are_read_one_at_a_time(tmp_path, monkeypatch):
    made = bundle(tmp_path / "set")
    (made.folder / "nwb").mkdir()
    asked = []
    codes = type(made.stimuli).codes
    monkeypatch.setattr(type(made.stimuli), "codes", lambda self, index=None: asked.append(index) or codes(self, index))
    nwb.write(made)
    assert asked == [[k] for k in range(5)]


def test_a_day_that_is_no_date_is_the_epoch(tmp_path):
    made = bundle(tmp_path / "set", day="monday")
    assert nwb._file(made, nwb._Maker("any")).session_start_time.year == 1970


def test_without_pynwb_one_sentence(tmp_path):
    script = (
        "import sys; sys.modules['pynwb'] = None\n"
        "from stimuli.export import nwb\n"
        "try: nwb.write(None)\n"
        "except ImportError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "pip install 'neural-population-control[nwb]'" in said


def test_a_missing_extra_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynwb", None)
    said = []
    with pytest.raises(ImportError, match=r"neural-population-control\[nwb\]"):
        export_set(
            some_stimuli(), tmp_path / "out", rigs=["psychopy", "nwb"], sequence=SequenceConfig(), progress=said.append
        )
    assert said == []
    assert not (tmp_path / "out").exists()
