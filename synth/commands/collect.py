"""The command ``npc collect``: natural photographs, or a lab's own images, as a stimulus set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synth.commands.options import AsJson, Out, Overwrite, Seed, finish


def collect(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of images; without it the photographs inside installed packages.")
    ] = None,
    out: Out = Path("natural"),
    crops: Annotated[
        int | None,
        typer.Option(min=1, help="Cut so many square crops at many scales; without it FOLDER is taken as it is."),
    ] = None,
    size_px: Annotated[int, typer.Option(min=16, help="Side of the crops in pixels.")] = 128,
    size_deg: Annotated[float, typer.Option(help="Width of the images on the screen, in degrees.")] = 8.0,
    gray: Annotated[bool, typer.Option("--gray", help="Crops in gray instead of color.")] = False,
    table: Annotated[
        Path | None, typer.Option(help="CSV with a column filename and any others: chooses, orders, describes.")
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make a stimulus set from photographs, or from finished images as they are.

    Finished images keep their pixel codes; their file names become the ids that recordings refer to.

    Example: npc collect my_images/ --size-deg 8 --out shown/

    Example: npc collect my_photographs/ --crops 640 --size-px 128 --out natural/

    Example: npc collect --crops 640 --out natural/
    """
    from stimuli.image_folder import images_from_folder
    from stimuli.photos import natural_photos, photos_from_folder

    if table is not None and (folder is None or crops is not None):
        raise ValueError("--table describes finished images: give their FOLDER, and no --crops")
    channels = 1 if gray else 3
    if folder is None:
        made = natural_photos(crops or 640, size_px, channels=channels, seed=seed).on_screen(size_deg=size_deg)
    elif crops is None:
        if gray:
            raise ValueError("--gray goes with --crops: finished images are taken as they are")
        made = images_from_folder(folder, table, size_deg=size_deg)
    else:
        made = photos_from_folder(folder, crops, size_px, channels=channels, seed=seed).on_screen(size_deg=size_deg)
    saved = made.save(out, overwrite=overwrite)
    height, width = saved.size_px
    finish(
        {"set": str(out), "stimuli": len(saved), "size_px": [height, width], "size_deg": saved.size_deg}, out, as_json
    )
