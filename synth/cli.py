"""The command line ``npc``: its commands, each in `synth.commands` or here, and what happens to errors.

Each command reads files, calls one function of the Python interface and writes files. Wrong input ends in one sentence
and exit code 2. torch is imported inside the commands, so that ``npc --help`` answers at once.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from synth._allocator import keep_freed_memory
from synth.commands.collect import collect
from synth.commands.fit import fit
from synth.commands.loop import add_loop
from synth.commands.options import AsJson, Device, Interrupted, Out, Overwrite, Quiet, Seed, finish
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
    `npc fit`, then `npc synth`, show the images, then `npc evaluate`; or all of it round after round with `npc loop`.
    """
    if show:
        from importlib.metadata import version as installed

        typer.echo(installed("neural-population-control"))
        raise typer.Exit


@app.command()
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
        typer.echo(_control_lines(summary))
        typer.echo(f"driver explains {_percent(summary['driver_ev_median'])} of held-out variance (median over sites)")
        typer.echo(f"{summary['seconds']:.0f} s on {summary['device']}, {summary['peak_memory_mb']} MB at most")
    finish(summary, Path(summary["report"]), as_json)


app.command()(collect)
app.command()(fit)
app.command()(synth)
add_loop(app)


@app.command()
def evaluate(
    stimuli: Annotated[Path, typer.Argument(help="Folder of the synthesized set.")],
    reference: Annotated[Path, typer.Option(help="Folder of the natural set it is compared with.")],
    recordings: Annotated[
        list[Path],
        typer.Option(help="Responses: natural images, and synthesized ones if shown; repeat for more files."),
    ],
    driver: Annotated[list[Path], typer.Option(help="Model that made the images; repeat for several.")],
    validator: Annotated[list[Path] | None, typer.Option(help="Model that did not; repeat for several.")] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Calibration of the forecasts, JSON as Calibration.to_json() returns it.")
    ] = None,
    out: Out = Path("npc_control"),
    seed: Seed = 0,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Judge a synthesized set: achieved control beside the forecasts of driver and validator.

    Without responses to the synthesized images the report holds forecasts only. Writes report.html, summary.json and
    the tables images.csv, targets.csv and families.csv.

    Example: npc evaluate synthesized --reference natural --recordings day1.nc --recordings day2.nc --driver driver
    """
    from neural_fits import SiteRecordings, load_model
    from stimuli import StimulusSet
    from stimuli.files import atomic_folder, made_of
    from synth.calibration import Calibration
    from synth.control import evaluate_control

    same = {path.resolve() for path in driver} & {path.resolve() for path in validator or []}
    if same:
        raise ValueError(f"{str(same.pop())!r} is both driver and validator; a validator must not have made the images")
    recorded = SiteRecordings.load(recordings[0])
    for path in recordings[1:]:
        recorded = recorded.concat_stimuli(SiteRecordings.load(path))
    report = evaluate_control(
        StimulusSet.load(stimuli),
        reference=StimulusSet.load(reference),
        recordings=recorded,
        drivers=[load_model(path) for path in driver],
        validators=[load_model(path) for path in validator or []],
        calibration=None if calibration is None else Calibration.from_json(calibration.read_text("utf-8", "replace")),
        seed=seed,
        device=device,
    )
    files = ("report.html", "summary.json", "images.csv", "targets.csv", "families.csv")
    with atomic_folder(out, overwrite, made_of(*files)) as folder:
        report.to_html(folder / "report.html")
        report.images.to_csv(folder / "images.csv", index=False, float_format="%.6g")
        report.targets.to_csv(folder / "targets.csv", index=False, float_format="%.6g")
        report.families.to_csv(folder / "families.csv", index=False, float_format="%.6g")
        report.to_json(folder / "summary.json")
    page = out / "report.html"
    if not as_json:
        typer.echo(_control_lines(report.summary))
    finish({**report.summary, "report": str(page)}, page, as_json)


@app.command()
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


def _percent(value: float | None) -> str:
    return "an unknown part" if value is None else f"{value:.0%}"


def _control_lines(summary: dict[str, Any]) -> str:
    lines = []
    for name, key, fraction, gain, verb in (
        ("stretch", "stretch", "fraction_beyond_best_natural", "median_gain", "beyond their best natural image"),
        ("one-hot", "ohp", "fraction_improved", "median_improvement", "above their best natural image"),
    ):
        block = summary[key]
        if not block["targets"]:
            continue
        if block[fraction] is None:
            lines.append(f"{name}: {block['targets']} targets, not shown yet: forecasts only")
            continue
        ratios = [
            f"{role} forecast {block[f'forecast_over_achieved_{role}']:.2f} x achieved"
            for role in ("driver", "validator")
            if block[f"forecast_over_achieved_{role}"] is not None
        ]
        gained = "" if block[gain] is None else f", median gain {block[gain]:+.0%}"
        lines.append(
            f"{name}: {block[fraction]:.0%} of {block['targets']} targets {verb}{gained}; " + ", ".join(ratios)
        )
    if other := summary.get("other"):
        lines.append(
            f"other objectives: {other['fraction_improved']:.0%} of {other['targets']} targets above their best "
            f"natural image, median difference {other['median_improvement']:+.2g}"
            if other["fraction_improved"] is not None
            else f"other objectives: {other['targets']} targets, not shown yet: forecasts only"
        )
    return "\n".join(lines)
