"""A stimulus set as a folder that rigs show unedited: images, order, screen, predictions, scripts, checksums."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd

from stimuli._table import some
from stimuli.display import Display
from stimuli.export import _records, readme_rig
from stimuli.export._checks import check_order, check_position, check_table
from stimuli.export.bundle import Bundle
from stimuli.files import atomic_folder, require_free
from stimuli.gray import gray_control_id, with_gray_control
from stimuli.hints import did_you_mean
from stimuli.index_page import index_html
from stimuli.nwb_files import require_pynwb
from stimuli.provenance import provenance_record, sha256_file
from stimuli.sequence import PresentationOrder, SequenceConfig, presentation_order
from stimuli.stimulus_set import StimulusSet

#: rigs and formats, and the module that writes each; imported when asked for
RIGS = {
    "psychopy": "stimuli.export.psychopy",
    "mworks": "stimuli.export.mworks",
    "monkeylogic": "stimuli.export.monkeylogic",
    "psychtoolbox": "stimuli.export.psychtoolbox",
    "bids": "stimuli.export.bids",
    "brainscore": "stimuli.export.brainscore",
    "nwb": "stimuli.export.nwb",
}


def export_set(
    stimuli: StimulusSet,
    folder: str | os.PathLike[str],
    *,
    rigs: Sequence[str],
    sequence: SequenceConfig | PresentationOrder,
    display: Display | None = None,
    position_deg: tuple[float, float] = (0.0, 0.0),
    predictions: pd.DataFrame | Mapping[str, pd.DataFrame] | None = None,
    facts: Mapping[str, str] | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """
    Write a set as a folder that rigs show unedited.

    The folder holds images/, stimuli.csv, presentation.csv, display.json, README_RIG.txt, report.html, provenance.json,
    checksums.sha256, and a folder for each rig; `StimulusSet.load` opens it too. A uniform gray image is added as
    control. Pixel codes are those of the set. Of the table, the column size_deg is written anew, and columns
    ``predicted_*``, which an earlier export has added, are left out. Images are read and written one by one. The folder
    appears whole or not at all. The same input gives the same bytes in every file but provenance.json, which holds the
    time and is therefore not listed in checksums.sha256 (a format may put in a time of its own; its module says so).

    Parameters
    ----------
    stimuli : StimulusSet
        The set; ids and file names must be safe on every system.
    folder : path
        The folder to make.
    rigs : sequence of str
        Names from `RIGS`; none writes the common files only.
    sequence : SequenceConfig or PresentationOrder
        How to order the presentations, or an order made before.
    display : Display, optional
        The screen; by default that of the set, and one of both must be there.
    position_deg : tuple of float
        Middle of the images on the screen, x to the right and y up from the fixation point, in degrees.
    predictions : DataFrame or mapping of str to DataFrame, optional
        Predicted responses, indexed by stimulus_id with one column a site, by name of the model where there are
        several. Those of the first model become columns ``predicted_<site>`` of stimuli.csv.
    facts : mapping of str to str, optional
        What else the report and the provenance should state, such as the hashes of models.
    overwrite : bool
        Replace an earlier export that holds no other file, such as a log of a run, and none that was edited since.
    progress : callable, optional
        Takes a line of text at each step.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If the set has no display, a name or a cell is not safe, an image is damaged, or a rig is unknown.
    FileExistsError
        If the folder holds something that may not be replaced.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> noise = np.random.default_rng(0).random((3, 1, 8, 8))
    >>> three = StimulusSet.from_arrays(noise, {"stimulus_id": ["a", "b", "c"]}, display=Display())
    >>> with tempfile.TemporaryDirectory() as place:
    ...     made = export_set(three, f"{place}/set", rigs=["psychopy"], sequence=SequenceConfig(repeats=2))
    ...     StimulusSet.load(made).stimulus_ids
    ['a', 'b', 'c', 'gray']
    """
    say = progress or (lambda _: None)
    if isinstance(rigs, str):
        raise TypeError(f"rigs is {rigs!r}: give a list of names, such as [{rigs!r}].")
    modules = {name: _rig(name) for name in dict.fromkeys(rigs)}
    if "nwb" in modules:
        require_pynwb()
    target = Path(folder)
    require_replaceable(target, overwrite)
    screen = display or stimuli.display
    if not isinstance(screen, Display):
        raise ValueError(
            f"{stimuli.name!r} is made for no screen: give display=Display(resolution_px=(1920, 1080), width_cm=53, "
            "distance_cm=57) with the numbers of your rig (npc export: --screen 1920x1080 --width-cm 53 --distance-cm "
            "57)."
        )
    position = check_position(position_deg)
    check_table(stimuli)
    say(f"checking {len(stimuli)} images")
    ready = with_gray_control(stimuli).on_screen(screen)
    blank = gray_control_id(ready)
    order = _order(sequence, ready, blank, screen)
    tables = _records.named_predictions(predictions, ready.stimulus_ids)
    ready, plain = _with_columns(ready, tables)
    with atomic_folder(target, overwrite, is_export) as place:
        say(f"writing {len(ready)} images")
        saved = ready.save(place)
        bundle = Bundle(saved, order, screen, place, _records.slug(stimuli.name), blank, tables, position)
        order.to_csv(place / "presentation.csv")
        described = _records.display_record(screen, saved.size_px, saved.size_deg, position)
        _records.write_json(place / "display.json", described)
        _records.write_predictions(place, tables)
        for name, module in modules.items():
            say(f"writing {name}")
            (place / name).mkdir()
            module.write(bundle)
        starts = {name: str(module.START) for name, module in modules.items()}
        (place / "README_RIG.txt").write_text(readme_rig.readme(bundle, starts), encoding="utf-8", newline="\n")
        say("writing report.html")
        told = {**readme_rig.facts(bundle), **(facts or {})}
        page = index_html(saved._replace(table=plain), tables, told, title=bundle.name)
        (place / "report.html").write_text(page, encoding="utf-8", newline="\n")
        _records.write_checksums(place)
        config = {"sequence": order.config, "display": screen, "position_deg": position, "rigs": list(modules)}
        config["facts"] = dict(facts or {})
        inputs = {name: sha256_file(place / name) for name in ("stimuli.csv", "presentation.csv", _records.CHECKSUMS)}
        record = provenance_record(seed=order.config.seed, config=config, inputs=inputs)
        _records.write_json(place / _records.PROVENANCE, {**record, "stimuli": stimuli.provenance})
    return target


def is_export(folder: Path) -> bool:
    """
    Say whether a folder holds an exported set as it was written, so that replacing it deletes nobody's work.

    Parameters
    ----------
    folder : Path
        Any folder.

    Returns
    -------
    bool
        Whether every file is one of the export's own and has the SHA-256 in checksums.sha256.

    Examples
    --------
    >>> is_export(Path("nowhere"))
    False
    """
    return _records.foreign_files(folder) == []


def require_replaceable(folder: str | os.PathLike[str], overwrite: bool) -> None:
    """
    Raise unless an exported set may be written at a folder: call it before long work.

    Parameters
    ----------
    folder : path
        The folder to make.
    overwrite : bool
        Whether an earlier export may be replaced.

    Raises
    ------
    FileExistsError
        If the folder holds something else, or files that were added or edited after the export.
    OSError
        If the location cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     require_replaceable(f"{place}/new", overwrite=True)
    """
    foreign = _records.foreign_files(Path(folder)) if overwrite else None
    if foreign:
        raise FileExistsError(
            f"{folder} holds {some(foreign)}, added or edited after the export, which overwriting would delete: move "
            "them away or choose another folder."
        )
    require_free(folder, overwrite, is_export)


def _rig(name: str) -> Any:
    if name not in RIGS:
        raise ValueError(f"There is no exporter for {name!r}: {did_you_mean(name, RIGS)}there are {', '.join(RIGS)}.")
    return import_module(RIGS[name])


def _order(
    sequence: SequenceConfig | PresentationOrder, stimuli: StimulusSet, blank: str, display: Display
) -> PresentationOrder:
    if isinstance(sequence, PresentationOrder):
        check_order(sequence, stimuli)
        return sequence
    if not isinstance(sequence, SequenceConfig):
        raise TypeError(f"sequence is {sequence!r}: give a SequenceConfig or a PresentationOrder.")
    table = stimuli.table
    files = dict(zip(table["stimulus_id"], table["filename"], strict=True))
    return presentation_order(
        stimuli.stimulus_ids, sequence, filenames=files, blank_id=blank, refresh_hz=display.refresh_hz
    )


def _with_columns(stimuli: StimulusSet, tables: Mapping[str, pd.DataFrame]) -> tuple[StimulusSet, pd.DataFrame]:
    """Add the size on screen and the predictions of the first model to the set; return also its table without them."""
    table = stimuli.table  # what an earlier export has added says nothing of this one
    added = [name for name in map(str, table) if name == "size_deg" or name.startswith("predicted_")]
    table = table.drop(columns=added)
    columns: dict[str, Any] = {"size_deg": stimuli.size_deg}
    for frame in list(tables.values())[:1]:
        columns |= {f"predicted_{site}": frame[site].to_numpy() for site in frame.columns}
    return stimuli._replace(table=table).with_columns(**columns), table
