"""The command ``npc evaluate``: achieved control beside the forecasts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from synth.commands.options import AsJson, Device, Out, Overwrite, Seed, finish
from synth.commands.words import control_lines


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
    from neural_fits.preprocessing import join_sessions
    from stimuli import StimulusSet
    from stimuli.files import atomic_folder, made_of
    from synth.calibration import Calibration
    from synth.control import evaluate_control

    same = {path.resolve() for path in driver} & {path.resolve() for path in validator or []}
    if same:
        raise ValueError(f"{str(same.pop())!r} is both driver and validator; a validator must not have made the images")
    recorded = SiteRecordings.load(recordings[0])
    for path in recordings[1:]:
        more = SiteRecordings.load(path)
        again = set(recorded.stimulus_ids) & set(more.stimulus_ids)  # the gray control, normalizers: more repeats
        recorded = join_sessions([recorded, more]) if again else recorded.concat_stimuli(more)
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
        typer.echo(control_lines(report.summary))
    finish({**report.summary, "report": str(page)}, page, as_json)
