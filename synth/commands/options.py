"""Options and the last line that the commands of ``npc`` share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write; it appears when everything is done.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed; the same seed gives the same files on the same machine.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the best there is by default.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result in that folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on the last line.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


class Interrupted(Exception):
    """A command was interrupted and left something to go on with; the message says what."""


def finish(result: dict[str, Any], path: Path, as_json: bool) -> None:
    """Print the result as one JSON object, or the path of what was written."""
    typer.echo(json.dumps(result, allow_nan=False) if as_json else str(path))
