"""The command ``npc demo``: a whole experiment on a simulated brain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synth.commands.options import AsJson, Device, Out, Overwrite, Quiet, Seed, finish
from synth.commands.words import control_lines, percent


def demo(
    out: Out = Path("npc_demo"),
    seed: Seed = 0,
    sites: Annotated[int, typer.Option(min=2, help="Simulated sites recorded.")] = 32,
    natural: Annotated[int, typer.Option(min=80, help="Natural images shown.")] = 1280,
    targets: Annotated[int, typer.Option(help="Stretch targets, and size of the one-hot population.")] = 8,
    images: Annotated[int, typer.Option(min=1, help="Images per target and objective.")] = 2,
    size_px: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 128,
    recipe: Annotated[str, typer.Option(help="robust, or paper (the rule of 2019).")] = "robust",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Gradient steps; by default the recipe's (robust 400, paper 200).")
    ] = None,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run a whole control experiment on a simulated brain, offline.

    Natural photographs are shown to simulated sites, a driver is fitted to their noisy trials, stretch and one-hot
    images are synthesized, shown to the same sites and judged beside the forecasts. Writes the image sets, recordings,
    models, report.html and summary.json.

    Example: npc demo --out my_demo
    """
    from synth.demo import DemoConfig, run_demo
    from synth.progress import Progress

    config = DemoConfig(
        seed=seed,
        sites=sites,
        natural=natural,
        targets=targets,
        images=images,
        size_px=size_px,
        recipe=recipe,
        steps=steps,
    )
    with Progress(quiet) as progress:
        summary = run_demo(out, config, device=device, overwrite=overwrite, progress=progress)
    if not as_json:
        typer.echo(control_lines(summary))
        typer.echo(f"driver explains {percent(summary['driver_ev_median'])} of held-out variance (median over sites)")
        typer.echo(f"{summary['seconds']:.0f} s on {summary['device']}, {summary['peak_memory_mb']} MB at most")
    finish(summary, Path(summary["report"]), as_json)
