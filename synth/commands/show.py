"""The command ``npc show``: a contact sheet and a page of every stimulus of a set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synth.commands.options import AsJson, Device, Overwrite, finish
from synth.commands.predicted import predicted_by

FILES = ("contact_sheet.png", "index.html")


def show(
    stimuli: Annotated[Path, typer.Argument(help="Folder of a stimulus set.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to write; by default beside the set, NAME_show.")
    ] = None,
    model: Annotated[
        list[Path] | None,
        typer.Option(help="Model whose predicted responses stand below the pictures; repeat for validators."),
    ] = None,
    columns: Annotated[int | None, typer.Option(min=1, max=100, help="Pictures in a row of the contact sheet.")] = None,
    side_px: Annotated[
        int, typer.Option(min=16, max=1024, help="Longer side of a picture of the contact sheet.")
    ] = 112,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Show a stimulus set: contact_sheet.png and index.html, a page of its own without scripts, grouped by family.

    Example: npc show round1 --model driver --model validator
    """
    from stimuli import StimulusSet
    from stimuli.contact_sheet import save_contact_sheet
    from stimuli.files import atomic_folder, atomic_write, made_of, require_free
    from stimuli.index_page import index_html

    place = stimuli.resolve()
    target = place.parent / f"{place.name}_show" if out is None else out
    require_free(target, overwrite, made_of(*FILES))
    shown = StimulusSet.load(stimuli)
    predictions, facts = predicted_by(shown, model or [], device)
    with atomic_folder(target, overwrite, made_of(*FILES)) as folder:
        save_contact_sheet(shown, folder / FILES[0], columns=columns, side_px=side_px)
        atomic_write(folder / FILES[1], index_html(shown, predictions, facts))
    if open_page:
        typer.launch(str(target / FILES[1]))
    finish({"stimuli": len(shown), "page": str(target / FILES[1])}, target / FILES[1], as_json)
