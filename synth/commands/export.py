"""The command ``npc export``: a stimulus set as a folder that a rig shows unedited."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synth.commands.options import AsJson, Device, Out, Overwrite, Quiet, Seed, finish
from synth.commands.predicted import predicted_by
from synth.commands.screen import DistanceCm, Screen, WidthCm, screen_from

if TYPE_CHECKING:
    from stimuli import Display, StimulusSet
    from stimuli.sequence import PresentationOrder, SequenceConfig


def export(
    stimuli: Annotated[Path, typer.Argument(help="Folder of the stimulus set.")],
    rig: Annotated[
        list[str] | None,
        typer.Option(
            "--for",
            metavar="RIG",
            help="psychopy, mworks, monkeylogic, psychtoolbox, bids, brainscore, nwb, or all; repeat.",
        ),
    ] = None,
    out: Out = Path("npc_export"),
    natural: Annotated[
        Path | None,
        typer.Option(help="Natural set of which --natural-images are shown too, so that days can be compared."),
    ] = None,
    natural_images: Annotated[int, typer.Option(min=1, help="How many of them, drawn by --seed.")] = 20,
    screen: Screen = None,
    width_cm: WidthCm = None,
    distance_cm: DistanceCm = None,
    refresh_hz: Annotated[
        float | None, typer.Option(help="Refresh rate of the screen; times are rounded to its frames.")
    ] = None,
    gamma: Annotated[
        float | None, typer.Option(help="Measured exponent of the screen; codes stay as they are.")
    ] = None,
    pixel_values: Annotated[
        str | None,
        typer.Option(help="display (codes go to the screen unchanged), linear (the rig corrects its curve) or srgb."),
    ] = None,
    position_deg: Annotated[
        tuple[float, float],
        typer.Option(metavar="X Y", help="Middle of the images in degrees from fixation, x right and y up."),
    ] = (0.0, 0.0),
    repeats: Annotated[int | None, typer.Option(min=1, help="Presentations of each image, one a block (10).")] = None,
    images_per_trial: Annotated[int | None, typer.Option(min=1, help="Images in a trial (6).")] = None,
    on_ms: Annotated[float | None, typer.Option(help="How long an image is on, in ms (100).")] = None,
    off_ms: Annotated[float | None, typer.Option(help="How long the gray after it is, in ms (100).")] = None,
    lead_in_ms: Annotated[float | None, typer.Option(help="From fixation to the first image, in ms (160).")] = None,
    inter_trial_ms: Annotated[float | None, typer.Option(help="Between two trials, in ms (500).")] = None,
    blanks: Annotated[int | None, typer.Option(min=0, help="Gray images a block (1).")] = None,
    normalizer: Annotated[
        list[str] | None, typer.Option(help="Image shown twice a block, to follow drift; repeat.")
    ] = None,
    animal: Annotated[str | None, typer.Option(help="Each animal has an order of its own.")] = None,
    day: Annotated[str | None, typer.Option(help="Each day has an order of its own.")] = None,
    order: Annotated[
        Path | None, typer.Option(help="presentation.csv of an earlier export, instead of a new order.")
    ] = None,
    model: Annotated[
        list[Path] | None,
        typer.Option(help="Model whose predictions go with the images, the driver first; repeat for validators."),
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write a stimulus set as a folder that a rig shows unedited.

    The folder holds the images, the block-randomized order, the screen, a page README_RIG.txt, checksums, and scripts
    or files for each rig. A uniform gray image is added, which must be invisible on a rig that is set up rightly.

    Example: npc export gabors --for psychopy --screen 1920x1080 --width-cm 53 --distance-cm 57 --refresh-hz 60

    Example: npc export round1 --natural natural --for mworks --for bids --repeats 20 --animal m1 --day 1 --model driver
    """
    from stimuli import StimulusSet
    from stimuli.export.export_set import RIGS, export_set, require_replaceable
    from stimuli.export.readme_rig import notes
    from stimuli.gray import with_gray_control
    from stimuli.sequence import PresentationOrder, SequenceConfig
    from synth.progress import Progress

    if not rig:
        raise ValueError(f"npc export needs a rig: --for {', --for '.join(RIGS)}, or --for all")
    require_replaceable(out, overwrite)
    asked: dict[str, Any] = {
        "repeats": repeats,
        "images_per_trial": images_per_trial,
        "duration_ms": on_ms,
        "gap_ms": off_ms,
        "lead_in_ms": lead_in_ms,
        "inter_trial_ms": inter_trial_ms,
        "blanks_per_block": blanks,
        "normalizers": None if normalizer is None else tuple(normalizer),
        "animal": animal,
        "day": day,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    if order is not None and (given or seed):
        name = next(iter(given), "seed")
        option = {"duration_ms": "on-ms", "gap_ms": "off-ms", "blanks_per_block": "blanks", "normalizers": "normalizer"}
        raise ValueError(
            f"--order brings an order with all of its times; leave --{option.get(name, name.replace('_', '-'))} out"
        )
    sequence: SequenceConfig | PresentationOrder = (
        SequenceConfig(seed=seed, **given) if order is None else PresentationOrder.from_csv(order)
    )
    shown = StimulusSet.load(stimuli)
    if natural is not None:
        shown = _and_some(shown, StimulusSet.load(natural), natural_images, seed)
    display = _display(shown.display, screen_from(screen, width_cm, distance_cm), refresh_hz, gamma, pixel_values)
    with Progress(quiet) as progress:
        shown = with_gray_control(shown) if model else shown
        predictions, facts = predicted_by(shown, model or [], device, progress.stage)
        folder = export_set(
            shown,
            out,
            rigs=list(RIGS) if "all" in rig else rig,
            sequence=sequence,
            display=display,
            position_deg=position_deg,
            predictions=predictions or None,
            facts=facts,
            overwrite=overwrite,
            progress=progress.stage,
        )
    made, final = StimulusSet.load(folder, verify=False), PresentationOrder.from_csv(folder / "presentation.csv")
    told = [] if made.display is None else notes(made.display, made.size_px, made.size_deg, final, position_deg)
    for note in told:
        typer.echo(f"npc: {note}", err=True)
    if not as_json:
        typer.echo(f"{len(made)} images, {len(final.table)} presentations, {final.seconds / 60:.1f} min")
    result = {
        "stimuli": len(made),
        "presentations": len(final.table),
        "seconds": round(final.seconds, 3),
        "rigs": list(RIGS) if "all" in rig else list(dict.fromkeys(rig)),
        "notes": told,
        "set": str(out),
    }
    finish(result, out, as_json)


def _and_some(stimuli: StimulusSet, natural: StimulusSet, count: int, seed: int) -> StimulusSet:
    """Add some natural images that are not in the set."""
    import numpy as np

    known = set(stimuli.stimulus_ids)
    others = [name for name in natural.stimulus_ids if name not in known]
    if count > len(others):
        raise ValueError(
            f"--natural-images asks for {count} and {natural.name!r} has {len(others)} others; ask for fewer"
        )
    chosen = sorted(np.random.default_rng(seed).choice(len(others), count, replace=False))
    return stimuli.concat([stimuli, natural.select([others[k] for k in chosen])], name=stimuli.name)


def _display(
    own: Display | None,
    given: Display | None,
    refresh_hz: float | None,
    gamma: float | None,
    pixel_values: str | None,
) -> Display | None:
    """Return the screen that was asked for, or that of the set with what was measured since."""
    display = given or own
    named: dict[str, Any] = {"refresh_hz": refresh_hz, "gamma": gamma, "pixel_values": pixel_values}
    changes = {name: value for name, value in named.items() if value is not None}
    if display is None and changes:
        option = next(iter(changes)).replace("_", "-")
        raise ValueError(
            f"--{option} describes a screen and the set has none; give --screen, --width-cm, --distance-cm"
        )
    return display if display is None else dataclasses.replace(display, **changes)
