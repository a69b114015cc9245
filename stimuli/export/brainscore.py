"""Brain-Score: a CSV and a flat ZIP of RGB images, named and numbered as brainscore-core asks.

Rules from `brainscore_core.supported_data_standards.brainio` 2.5.0 (packaging.py, stimuli.py).
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from stimuli import _table, png
from stimuli.export._checks import is_value
from stimuli.export._records import write_json
from stimuli.export.bundle import Bundle

START = (
    "Unpack brainscore/stimulus_*.zip into a folder and load it with the CSV: StimulusSet.from_files(csv_path, folder) "
    "of brainscore_core.supported_data_standards.brainio.stimuli. The JSON file beside them holds the identifier (for "
    "a submission, <lab>.<FirstAuthorYear>) and the SHA-1 sums that Brain-Score asks for. Where an id of the set looks "
    "like a number, which Brain-Score would read as one (0012 as 12), every id in the CSV begins with id_; the JSON "
    "file says so as stimulus_id_prefix."
)
_PREFIX = "id_"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a ZIP can hold: equal sets give equal bytes


def write(bundle: Bundle) -> None:
    """
    Write ``stimulus_<identifier>.csv``, ``.zip`` and ``.json``.

    Images are repeated to three channels, because Brain-Score's check refuses gray files, and called ``image_<n>.png``,
    counted from 1 in the order of the set; the column filename of the CSV says which is which, and degrees is the width
    on the screen. Columns of the set that have these or other names of Brain-Score's own are left out. Brain-Score
    reads the CSV with pandas, which would turn the ids 0012 and 12 into one number: where any id looks like a number or
    a truth value, all of them are written with ``id_`` before them.

    Parameters
    ----------
    bundle : Bundle
        The set that is being exported.
    """
    name = identifier(bundle.name)
    place = bundle.folder / "brainscore"
    stem = "stimulus_" + name.replace(".", "_")
    filenames = [f"image_{k + 1}.png" for k in range(len(bundle.stimuli))]
    table = bundle.stimuli.table
    for column in ("filename", "image_id", "degrees", "stimulus_path_within_store", "stimulus_current_local_file_path"):
        table = table.drop(columns=column, errors="ignore")  # they mean something else to Brain-Score
    prefix = _PREFIX if any(is_value(name) for name in table["stimulus_id"]) else ""
    table["stimulus_id"] = prefix + table["stimulus_id"]
    table.insert(1, "filename", pd.Series(filenames, dtype=object))
    table.insert(2, "degrees", bundle.stimuli.size_deg)
    (place / f"{stem}.csv").write_text(_table.to_csv(table), encoding="utf-8", newline="")
    _write_zip(place / f"{stem}.zip", filenames, _colored(bundle))
    record = {
        "identifier": name,
        "csv_sha1": _sha1(place / f"{stem}.csv"),
        "zip_sha1": _sha1(place / f"{stem}.zip"),
        "class": "StimulusSet",
        "count": len(filenames),
        "stimulus_id_prefix": prefix,
    }
    write_json(place / f"{stem}.json", record)


def identifier(name: str) -> str:
    """
    Turn the name of a set into an identifier as Brain-Score has them, ``<lab>.<FirstAuthorYear>``.

    Parameters
    ----------
    name : str
        Any text.

    Returns
    -------
    str
        ``npc.`` and the letters and digits of the name, beginning with a capital letter.

    Examples
    --------
    >>> identifier("round1-stretch images")
    'npc.Round1StretchImages'
    >>> identifier("2019")
    'npc.Set2019'
    """
    words = re.findall(r"[A-Za-z0-9]+", name)
    joined = "".join(word[0].upper() + word[1:] for word in words)
    return f"npc.{joined}" if joined[:1].isalpha() and len(joined) > 1 else f"npc.Set{joined}"


def _colored(bundle: Bundle) -> Iterator[bytes]:
    gray = bundle.stimuli.shape[0] == 1
    for k, filename in enumerate(bundle.stimuli.table["filename"]):  # one by one: a set may be larger than memory
        if gray:
            yield png.encode(np.repeat(bundle.stimuli.codes([k])[0], 3, axis=0))
        else:
            yield (bundle.folder / filename).read_bytes()


def _write_zip(path: Path, names: list[str], contents: Iterator[bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in zip(names, contents, strict=True):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3  # as on Unix, wherever it is written
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)  # stored: a PNG is compressed already


def _sha1(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()
