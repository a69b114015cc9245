"""The command ``npc evaluate``: achieved control beside the forecasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from synth.commands.options import AsJson, Device, Out, Overwrite, Seed, finish
from synth.commands.words import control_lines

if TYPE_CHECKING:
    from neural_fits import SiteRecordings


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
    normalize: Annotated[
        bool,
        typer.Option("--normalize", help="Scale later recordings by the natural images shown again in them."),
    ] = False,
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
    from neural_fits import load_model
    from stimuli import StimulusSet
    from stimuli.files import atomic_folder, made_of
    from synth.calibration import Calibration
    from synth.control import evaluate_control

    same = {path.resolve() for path in driver} & {path.resolve() for path in validator or []}
    if same:
        raise ValueError(f"{str(same.pop())!r} is both driver and validator; a validator must not have made the images")
    recorded, days = _joined(recordings, normalize)
    drivers, validators = ({path: load_model(path) for path in paths} for paths in (driver, validator or []))
    report = evaluate_control(
        StimulusSet.load(stimuli),
        reference=StimulusSet.load(reference),
        recordings=recorded,
        drivers=list(drivers.values()),
        validators=list(validators.values()),
        calibration=None if calibration is None else Calibration.from_json(calibration.read_text("utf-8", "replace")),
        seed=seed,
        device=device,
    )
    files = ("report.html", "summary.json", "images.csv", "targets.csv", "families.csv")
    with atomic_folder(out, overwrite, made_of(*files)) as folder:
        report.to_html(folder / "report.html", _facts(drivers, validators, recorded, days))
        report.images.to_csv(folder / "images.csv", index=False, float_format="%.6g")
        report.targets.to_csv(folder / "targets.csv", index=False, float_format="%.6g")
        report.families.to_csv(folder / "families.csv", index=False, float_format="%.6g")
        report.to_json(folder / "summary.json")
    for note in days:
        typer.echo(f"npc: {note}", err=True)
    if not as_json:
        typer.echo(control_lines(report.summary))
    finish({**report.summary, "report": str(out / "report.html")}, out / "report.html", as_json)


def _joined(paths: Sequence[Path], normalize: bool) -> tuple[SiteRecordings, list[str]]:
    """Put recordings together, and say how those of later days compare with the first."""
    from neural_fits import SiteRecordings
    from neural_fits.preprocessing import join_sessions
    from synth.day_scale import gain_between, to_scale_of

    first = recorded = SiteRecordings.load(paths[0])
    notes = []
    for path in paths[1:]:
        more = SiteRecordings.load(path)
        images, gain = gain_between(first, more)
        if normalize and more.site_ids != first.site_ids:
            more = more.select_sites(first.site_ids)
        more = to_scale_of(more, first, str(path)) if normalize else more
        # images of both, such as the gray control and normalizers, are more repeats
        again = set(recorded.stimulus_ids) & set(more.stimulus_ids)
        recorded = join_sessions([recorded, more]) if again else recorded.concat_stimuli(more)
        if not images:
            notes.append(
                f"{path} shares no image with {paths[0]}: a change of gain between the two would count as control; "
                "show some natural images again"
            )
        elif not normalize:
            notes.append(
                f"the {images} images shown in {paths[0]} and again in {path} were answered {gain:.2f} times as "
                "strongly then (median over sites); --normalize undoes a change of gain"
            )
    return recorded, notes


def _facts(
    drivers: Mapping[Path, object], validators: Mapping[Path, object], recorded: SiteRecordings, days: Sequence[str]
) -> dict[str, str]:
    """Return what the methods paragraph should know beside the report."""
    import numpy as np

    repeats = recorded.n_repeats[recorded.n_repeats > 0]
    told = {"repeats": f"{repeats.min()} to {repeats.max()}, median {int(np.median(repeats))}, over images and sites"}
    for role, models in (("driver", drivers), ("validator", validators)):
        if models:
            told[role] = "; ".join(f"{path.name}: {model!r}" for path, model in models.items())
    return told | ({"days": "; ".join(days)} if days else {})
