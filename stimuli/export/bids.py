"""BIDS: a valid dataset of stimuli and planned events, with the files of Stim-BIDS (BEP044, a draft).

BIDS 1.11 knows ``stimuli/`` and the column stim_file. Stim-BIDS (extension proposal 44, pull request 2022 of the
specification, not accepted when this was written) adds stimuli.tsv and the column stim_id; both are given.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stimuli.bids_labels import bids_labels
from stimuli.display import Display
from stimuli.export._records import write_json
from stimuli.export.bundle import Bundle

START = (
    "bids/ is a BIDS dataset. Replace the planned onsets in its *_events.tsv by those of the run, and n/a in the "
    "column shown by true, or by false where a presentation was broken; then read it back by npc events. stimuli.tsv "
    "and stim_id follow the draft of Stim-BIDS (BEP044); stim_file is BIDS as it is."
)
BIDS_VERSION = "1.11.0"
NOT_KNOWN = "n/a"
_SIZE = "ImageSize"  # an entry of stimuli.json that is no column
_README = """Stimuli of the set {name}, and the order in which they are to be shown.

The events are planned: onsets are nominal, from the start of the first trial, and nothing has been shown yet, which is
why the column shown holds n/a. Replace the onsets by those of the run, and n/a by true where the image was shown whole
and by false where the presentation was broken.

stimuli/stimuli.tsv, stimuli/stimuli.json and the column stim_id follow the draft of Stim-BIDS (BIDS extension proposal
44), stim_file is BIDS as it is. stimulus_name is the id in the exported set.
"""


def write(bundle: Bundle) -> None:
    """
    Write a BIDS dataset: the images under their labels, their table, and the planned events of one session.

    The subject is the animal of the sequence, "01" if it has no name, and the session its day.

    Parameters
    ----------
    bundle : Bundle
        The set that is being exported.
    """
    place = bundle.folder / "bids"
    labels = [f"stim-{label}" for label in bids_labels(bundle.stimuli.stimulus_ids)]
    files = [f"{label}_image.png" for label in labels]
    (place / "stimuli").mkdir()
    for source, name in zip(bundle.stimuli.table["filename"], files, strict=True):
        shutil.copyfile(bundle.folder / source, place / "stimuli" / name)
    _write_stimuli(bundle, place / "stimuli", labels)
    description = {
        "Name": f"Stimuli of {bundle.name}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "raw",
        "GeneratedBy": [{"Name": "neural-population-control"}],
    }
    write_json(place / "dataset_description.json", description)
    (place / "README.md").write_text(_README.format(name=bundle.name), encoding="utf-8", newline="\n")
    subject = f"sub-{_label(bundle.order.config.animal) or '01'}"
    day = _label(bundle.order.config.day)
    (place / "participants.tsv").write_text(_tsv(["participant_id"], [[subject]]), encoding="utf-8", newline="\n")
    write_json(place / "participants.json", {"participant_id": {"Description": "The animal that sees the stimuli."}})
    parts = [subject, f"ses-{day}"] if day else [subject]
    folder = place.joinpath(*parts, "beh")
    folder.mkdir(parents=True)
    _write_events(bundle, folder / "_".join([*parts, "task-rsvp_events.tsv"]), labels)


def stimulus_presentation(display: Display) -> dict[str, Any]:
    """
    Describe a screen by the names and SI units of BIDS, as far as it is known.

    Parameters
    ----------
    display : Display
        The screen.

    Returns
    -------
    dict
        Entries of ``StimulusPresentation`` in an events.json.

    Examples
    --------
    >>> stimulus_presentation(Display(resolution_px=(1920, 1080), width_cm=48.0, distance_cm=57.0))["ScreenSize"]
    [0.48, 0.27]
    """
    known = {
        "ScreenDistance": round(display.distance_cm / 100, 6),
        "ScreenResolution": list(display.resolution_px),
        "ScreenSize": [round(display.width_cm / 100, 6), round(display.height_cm / 100, 6)],
        "ScreenRefreshRate": display.refresh_hz,
    }
    return {name: value for name, value in known.items() if value is not None}


def _label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "", text)


def _write_stimuli(bundle: Bundle, place: Path, labels: Sequence[str]) -> None:
    table = bundle.stimuli.table
    own = {"stimulus_id": labels, "type": ["image"] * len(labels), "stimulus_name": table.pop("stimulus_id")}
    table = table.drop(columns="filename")
    table.columns = pd.Index(_renamed(table.columns, {*own, _SIZE}))
    rows = zip(*own.values(), *(table[name] for name in table.columns), strict=True)
    (place / "stimuli.tsv").write_text(_tsv([*own, *table.columns], rows), encoding="utf-8", newline="\n")
    about: dict[str, Any] = {
        "stimulus_id": {"Description": "Label of the stimulus, as in its file name and in stim_id of the events."},
        "type": {"Description": "Kind of the stimulus.", "Levels": {"image": "A still image."}},
        "stimulus_name": {"Description": "Id of the stimulus in the exported set."},
    }
    about |= {name: {"Description": f"Column {name} of the exported set."} for name in table.columns}
    height, width = bundle.stimuli.size_px
    about[_SIZE] = {
        "Description": "Width and height of all images.",
        "Pixels": [width, height],
        "DegreesOfVisualAngle": [bundle.stimuli.size_deg, bundle.stimuli.size_deg * height / width],
    }
    write_json(place / "stimuli.json", about)


def _renamed(columns: Iterable[str], taken: set[str]) -> list[str]:
    """Name the columns of the set so that none has a name that is taken, nor that of another once spaces are alike."""
    names: list[str] = []
    plain = [_cell(column) for column in columns]
    for name in plain:
        new = name
        while new in taken or new in names or (new != name and new in plain):
            new = f"set_{new}"
        names.append(new)
    return names


def _write_events(bundle: Bundle, path: Path, labels: Sequence[str]) -> None:
    label = dict(zip(bundle.stimuli.stimulus_ids, labels, strict=True))
    order = bundle.order.table
    columns: dict[str, Iterable[Any]] = {
        "onset": [float(f"{ms / 1000:.6f}") for ms in order["onset_ms_nominal"]],
        "duration": [float(f"{ms / 1000:.6f}") for ms in order["duration_ms"]],
        "trial_type": ["image"] * len(order),
        "stim_file": [f"{label[name]}_image.png" for name in order["stimulus_id"]],
        "stim_id": [label[name] for name in order["stimulus_id"]],
        **{name: order[name] for name in ("trial", "position", "block", "repeat")},
        "shown": [NOT_KNOWN] * len(order),
    }
    path.write_text(_tsv(list(columns), zip(*columns.values(), strict=True)), encoding="utf-8", newline="\n")
    about: dict[str, Any] = {
        "TaskName": "rsvp",
        "trial_type": {"Description": "Kind of event.", "Levels": {"image": "An image is on the screen."}},
        "stim_id": {"Description": "Label in stimuli/stimuli.tsv (Stim-BIDS, BEP044 draft)."},
        "trial": {"Description": "Trial, counted from 0."},
        "position": {"Description": "Place of the image in its trial, counted from 0."},
        "block": {"Description": "Block, counted from 0; each holds every stimulus."},
        "repeat": {"Description": "Planned repeat of the stimulus, counted from 0."},
        "shown": {
            "Description": "Whether the image was shown whole; n/a before the run.",
            "Levels": {"true": "It was.", "false": "Broken."},
        },
        "StimulusPresentation": stimulus_presentation(bundle.display),
    }
    write_json(path.with_suffix(".json"), about)


def _tsv(header: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """Join cells by tabs: BIDS knows no quotes."""
    return "".join("\t".join(map(_cell, row)) + "\n" for row in (header, *rows))


def _cell(value: Any) -> str:
    """Write a cell as BIDS has it: nothing is n/a, and tabs and line ends become spaces."""
    if pd.isna(value):
        return NOT_KNOWN
    text = repr(float(value)) if isinstance(value, float) else str(value)
    return re.sub(r"\s+", " ", text).strip() or NOT_KNOWN
