"""From the exported set through the rig's own script to a log, and back: what stood on the screen is what is read.

The scripts run against the stand-ins of test_export_rigs.py and test_export_mworks.py.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pandas as pd
import pytest
import test_export_mworks as on_mworks
import test_export_rigs as on_rigs

from stimuli import StimulusSet
from stimuli.event_logs import read_event_log
from stimuli.sequence import PresentationOrder


def numbered(names, shown):
    """Number the repeats of what was shown, one by one."""
    seen: dict[str, int] = {}
    found = []
    for name, whole in zip(names, shown, strict=True):
        found.append(seen.get(name, 0) if whole else -1)
        seen[name] = seen.get(name, 0) + whole
    return found


def test_psychopy(tmp_path, monkeypatch):
    """An image was shown whole if it stood for its six frames and nobody pressed b in the last."""
    folder = on_rigs.export(tmp_path / "set", "psychopy")
    keys = {frame: ["b"] for frame in (55, 130, 205)}
    rig = on_rigs.FakePsychoPy(monkeypatch, keys)
    rig.run(folder, tmp_path / "log.csv", "--free")
    stimuli = StimulusSet.load(folder)
    files = {Path(name).name: stimulus for stimulus, name in stimuli.table[["stimulus_id", "filename"]].values}
    on_screen = [next((files[part] for part in drawn if part in files), None) for drawn in rig.frames]
    names, whole, first, frame = [], [], [], 0
    for name, run in itertools.groupby(on_screen):
        length = len(list(run))
        if name is not None:
            names.append(name)
            first.append((frame + 1) / 60)
            whole.append(length == 6 and frame + length not in keys)
        frame += length
    assert not all(whole), "the keys broke no image, so the test shows nothing of broken ones"
    log = read_event_log(tmp_path / "log.csv", stimuli)
    assert log.table["stimulus_id"].tolist() == names
    assert log.shown.tolist() == whole
    assert log.table["repeat"].tolist() == numbered(names, whole)
    assert max(abs(log.table["onset_s"] - first)) < 1e-6
    plan = PresentationOrder.from_csv(folder / "presentation.csv").table
    assert (log.counts() >= plan["stimulus_id"].value_counts().reindex(log.counts().index)).all()


def test_mworks(tmp_path):
    folder = on_mworks.export(tmp_path / "set")
    away = [(900, 940), (1750, 1752), (3000, 3300)]
    nodes = on_mworks.read(folder)
    run = on_mworks.Experiment(nodes, lambda time: not any(a <= time < b for a, b in away)).run()
    events = [(0, "presentation", 0), *((round(time * 1000), name, value) for time, name, value in run.events)]
    pd.DataFrame(events, columns=["time", "name", "value"]).to_csv(tmp_path / "events.csv", index=False)
    shown, broken = on_mworks.presented(run)
    whole = [each not in broken for each in shown]
    assert len(broken) >= 2
    log = read_event_log(tmp_path / "events.csv", StimulusSet.load(folder))
    assert log.table["stimulus_id"].tolist() == [name for _, name in shown]
    assert log.shown.tolist() == whole
    onset_ms = [onset for onset, _, _ in on_mworks.on_screen(run)]
    assert (1000 * log.table["onset_s"]).tolist() == pytest.approx(onset_ms, abs=0.001)
    assert log.table["repeat"].tolist() == numbered([name for _, name in shown], whole)
    plan = PresentationOrder.from_csv(folder / "presentation.csv").table
    for column in ("stimulus_id", "repeat"):
        assert log.table[log.shown][column].tolist() == plan[column].tolist()  # the order stays on this rig
