"""The command line ``npc``: mounts the commands of `synth.commands`; an error is one sentence and exit code 2."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer

from synth._allocator import keep_freed_memory
from synth.commands.collect import collect
from synth.commands.demo import demo
from synth.commands.doctor import doctor
from synth.commands.draw import draw
from synth.commands.evaluate import evaluate
from synth.commands.events import events
from synth.commands.export import export
from synth.commands.fit import fit
from synth.commands.inspect import inspect
from synth.commands.loop import loop, plan
from synth.commands.match import match
from synth.commands.options import Interrupted
from synth.commands.show import show
from synth.commands.synthesize import synth

app = typer.Typer(
    name="npc",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """**Neural population control**: fit recorded sites, synthesize images that drive them, judge what they did.

    Start with `npc demo`: a whole experiment on a simulated brain, offline, in a few minutes. With your own recordings:
    `npc collect` images, `npc fit`, `npc synth`, `npc export` for your rig, `npc events` when they were shown, and
    `npc evaluate`; or fit, synthesis and judgement round after round with `npc loop`.
    """
    if show:
        from importlib.metadata import version as installed

        typer.echo(installed("neural-population-control"))
        raise typer.Exit


PANELS = {
    "An experiment": (demo, loop, plan),
    "Images": (collect, draw, match, show, export, events),
    "Models, synthesis, judgement": (fit, synth, evaluate, inspect),
    "This machine": (doctor,),
}
for panel, commands in PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)


def main() -> None:
    """Run ``npc``; wrong input ends in one sentence on standard error and exit code 2."""
    keep_freed_memory()
    try:
        app(_ray_address(sys.argv[1:]))
    except Interrupted as stop:
        sys.exit(_say(str(stop), 130))
    except SystemExit as stop:  # typer turns Ctrl-C into a silent exit
        sys.exit(_say("interrupted; nothing was written", 130) if stop.code == 130 else stop.code)
    except (ValueError, TypeError, OSError, ArithmeticError, ImportError, RuntimeError, MemoryError) as error:
        if os.environ.get("NPC_TRACEBACK"):
            raise
        if isinstance(error, (RuntimeError, MemoryError)):  # of torch: no memory, no such device
            error = type(error)(f"{error or 'out of memory'} (NPC_TRACEBACK=1 shows where)")
        full = getattr(error, "errno", None) == errno.ENOSPC
        text = "the disk is full and nothing was kept; free some space or choose another place with --out"
        sys.exit(_say(text if full else " ".join(str(error).split()), 2))


def _ray_address(arguments: list[str]) -> list[str]:
    """Give ``--ray`` without an address the address ``local``."""
    following = [*arguments[1:], "--"]
    alone = [k for k, word in enumerate(arguments) if word == "--ray" and following[k].startswith("-")]
    return [part for k, word in enumerate(arguments) for part in ([word, "local"] if k in alone else [word])]


def _say(text: str, code: int) -> int:
    sys.stderr.write(f"npc: {text}\n")
    return code
