"""A stimulus set on disk: images/*.png, stimuli.csv and set.json."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stimuli import _table, png
from stimuli.files import atomic_folder, safe_member
from stimuli.provenance import sha256_bytes, sha256_file

FORMAT = "neural-population-control stimulus set"
FORMAT_VERSION = 1
_IGNORED = {".DS_Store", "Thumbs.db"}  # left by file browsers


@dataclass(frozen=True)
class Contents:
    """What the folder of a set holds."""

    table: pd.DataFrame
    paths: list[Path]
    manifest: dict[str, Any]


def write(
    folder: str | os.PathLike[str],
    images: Iterable[NDArray[np.uint8]],
    table: pd.DataFrame,
    manifest: dict[str, Any],
    overwrite: bool,
    beside: Mapping[str, str],
) -> Path:
    """Write a whole set, or nothing, and return the folder."""
    target = Path(folder).absolute()  # a lazy set must survive a change of the working directory
    if overwrite and is_set(target):
        foreign = _foreign_files(target)
        if foreign:
            raise FileExistsError(
                f"{target} also holds {_table.some(foreign)}, which overwriting would delete: move them or choose "
                "another folder."
            )
    with atomic_folder(target, overwrite, is_set) as temporary:
        hashes = []
        for filename, codes in zip(table["filename"], images, strict=True):
            data = png.encode(codes)
            path = safe_member(temporary, filename)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            hashes.append(sha256_bytes(data))
        table = table.copy()
        table.insert(2, _table.WRITTEN, pd.Series(hashes, dtype=object))
        text = _table.to_csv(table).encode("utf-8")
        (temporary / "stimuli.csv").write_bytes(text)
        for name, content in beside.items():
            safe_member(temporary, name).write_text(content, encoding="utf-8")
        record = {"format": FORMAT, "format_version": FORMAT_VERSION, **manifest, "beside": sorted(beside)}
        record |= {"columns": _table.column_kinds(table), "stimuli_csv_sha256": sha256_bytes(text)}
        content = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (temporary / "set.json").write_text(content, encoding="utf-8")
    return target


def is_set(folder: Path) -> bool:
    """Say whether a folder holds a stimulus set."""
    try:
        record = json.loads((folder / "set.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("format") == FORMAT


def _foreign_files(folder: Path) -> list[str]:
    record = json.loads((folder / "set.json").read_text(encoding="utf-8"))
    own = {"set.json", "stimuli.csv", *map(str, record.get("beside") or ())}
    # A damaged table owns nothing but images/*.png, see below.
    with contextlib.suppress(OSError, ValueError, KeyError, csv.Error):
        own |= set(_table.from_csv((folder / "stimuli.csv").read_bytes().decode("utf-8"), {})["filename"])
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        image = name.startswith("images/") and name.count("/") == 1 and name.endswith(".png")
        if not path.is_dir() and name not in own and not image and path.name not in _IGNORED:
            found.append(name)
    return found


def read(folder: str | os.PathLike[str], verify: bool) -> Contents:
    """Read the manifest and the table of a set and check them and its files."""
    place = Path(folder).absolute()  # a lazy set must survive a change of the working directory
    manifest = _manifest(place)
    table = _read_table(place, manifest)
    if len(table) != manifest["count"]:
        raise ValueError(f"{place} lists {len(table)} stimuli where set.json says {manifest['count']}: copy it again.")
    hashes = list(table.pop(_table.WRITTEN))
    shape = (manifest["channels"], manifest["height"], manifest["width"])
    paths: list[Path] = []
    problems: list[str] = []
    for filename, expected in zip(table["filename"], hashes, strict=True):
        try:
            path = safe_member(place, filename)
        except ValueError:
            problems.append(f"{filename!r} leaves the folder of the set")
            continue
        paths.append(path)
        problem = _file_problem(path, expected, shape, verify)
        if problem is not None:
            problems.append(f"{filename} {problem}")
    if problems:
        raise ValueError(
            f"In the stimulus set {place}, {problems[0]} ({len(problems)} of {len(table)} files are wrong in all): "
            "restore the set from its original."
        )
    try:
        _table.check_ids(list(table["stimulus_id"]))
        _table.check_filenames(list(table["filename"]))
    except (TypeError, ValueError) as error:
        raise ValueError(f"In the stimulus set {place}, {error}") from None
    return Contents(table, paths, manifest)


def _file_problem(path: Path, expected: str, shape: tuple[int, int, int], verify: bool) -> str | None:
    if not path.is_file():
        return "is missing"
    if not verify:
        return None
    problem = png.header_problem(path, shape)
    if problem is None and sha256_file(path) != expected:
        problem = "does not match its sha256"
    return problem


def _manifest(place: Path) -> dict[str, Any]:
    if not place.is_dir():
        raise FileNotFoundError(f"There is no folder {place}: give the folder of a saved stimulus set.")
    try:
        record = json.loads((place / "set.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{place} has no set.json: give the folder of a saved stimulus set.") from None
    except ValueError:
        raise ValueError(f"{place / 'set.json'} is not valid JSON: restore the set from its original.") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"{place / 'set.json'} does not describe a stimulus set: give the folder of a saved set.")
    version = record.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise ValueError(f"{place / 'set.json'} has the format version {version!r}: restore it from its original.")
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{place} is a stimulus set of format version {version} and this program reads up to {FORMAT_VERSION}: "
            "update neural-population-control."
        )
    for key in ("count", "channels", "height", "width"):
        value = record.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{place / 'set.json'} has {key} = {value!r} where a positive whole number is expected.")
    if record["channels"] not in png.MODES:
        raise ValueError(f"{place / 'set.json'} has channels = {record['channels']} where 1 or 3 is expected.")
    missing = sorted({"name", "size_deg", "display", "provenance", "columns", "stimuli_csv_sha256"} - set(record))
    if missing:
        raise ValueError(f"{place / 'set.json'} lacks {_table.some(missing)}: restore the set from its original.")
    return record


def _read_table(place: Path, manifest: dict[str, Any]) -> pd.DataFrame:
    path = place / "stimuli.csv"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: restore the set from its original.") from None
    if sha256_bytes(data) != manifest["stimuli_csv_sha256"]:
        raise ValueError(
            f"{path} was changed after the set was saved (its sha256 differs): restore it, or change the table "
            "with with_columns and save again."
        )
    try:
        table = _table.from_csv(data.decode("utf-8"), manifest["columns"])
    except (ValueError, AttributeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read: {error}; restore the set from its original.") from None
    absent = [name for name in (*_table.RESERVED, _table.WRITTEN) if name not in table.columns]
    if absent:
        raise ValueError(f"{path} has no column {_table.some(absent)}: restore the set from its original.")
    return table
