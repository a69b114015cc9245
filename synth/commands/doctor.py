"""The command ``npc doctor``: does this machine have what the engine needs."""

from __future__ import annotations

import json

import typer

from synth.commands.options import AsJson


def doctor(
    as_json: AsJson = False,
) -> None:
    """Check this machine: versions, device, embedded weights, import names, free disk.

    Example: npc doctor
    """
    from synth.doctor import examine

    findings = examine()
    if not as_json:
        for finding in findings["checks"]:
            typer.echo(f"{'ok  ' if finding['ok'] else 'BAD '} {finding['what']}: {finding['found']}")
    if as_json:
        typer.echo(json.dumps(findings, allow_nan=False))
    if not findings["ok"]:
        raise typer.Exit(1)
