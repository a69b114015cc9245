"""The commands ``npc loop`` and ``npc plan``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synth.commands.options import AsJson, Device, Interrupted, Overwrite, Quiet, finish

if TYPE_CHECKING:
    from neural_fits import SiteRecordings
    from synth.closed_loop import LoopConfig


def loop(
    folder: Annotated[Path, typer.Argument(help="Folder of the loop; made at the first call.")],
    natural: Annotated[Path | None, typer.Option(help="Folder of the natural set; starts a loop.")] = None,
    recordings: Annotated[
        list[Path] | None,
        typer.Option(help="Responses to the images that the loop waits for, natural or synthesized; repeat for more."),
    ] = None,
    brain: Annotated[
        str | None, typer.Option(help="'simulated': a simulated brain plays the animal, all rounds in one call.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds in all (3); can be raised later.")] = None,
    targets: Annotated[int | None, typer.Option(min=1, help="Sites driven, the best explained ones (8).")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="Images per objective and round (2).")] = None,
    objective: Annotated[
        list[str] | None, typer.Option(help="Instead of --targets: any objective as Python writes it; repeat.")
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="Objectives and images from a plan of npc plan.")] = None,
    population: Annotated[
        int | None,
        typer.Option(min=2, help="Size of one-hot populations of overlapping fields; by default all targets."),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe of the synthesis (robust).")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Gradient steps; by default the recipe's.")] = None,
    backbone: Annotated[
        list[str] | None, typer.Option(help="Network of driver and validator; repeat. By default lite0 and lite1.")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Layer of every --backbone; embedded ones have a default.")] = None,
    group: Annotated[str | None, typer.Option(help="Column of natural images kept together (photograph).")] = None,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Scale each round by the natural images shown again in it.")
    ] = False,
    sites: Annotated[int | None, typer.Option(min=2, help="Sites of the simulated brain (32).")] = None,
    photos: Annotated[
        int | None, typer.Option(min=40, help="Natural images for a simulated brain without --natural (640).")
    ] = None,
    size_px: Annotated[int | None, typer.Option(min=32, help="Their side in pixels (128).")] = None,
    window_ms: Annotated[
        tuple[float, float] | None, typer.Option(help="Start and end of the counting window after onset, in ms.")
    ] = None,
    axes: Annotated[str | None, typer.Option(help="Order of the axes of a plain array of responses.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Which table or array of the recordings' file.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of splits, images and simulated trials (0).")] = None,
    device: Device = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run the closed loop: fit, synthesize, wait for recordings, judge, learn from them, and again.

    The first call makes FOLDER; each later one says what is awaited, or goes on. ROUND/stimuli holds the images to
    show; give the responses by --recordings. Every round has a report.html; rounds.csv and gain_per_round.png compare
    them. After an interruption ``npc loop FOLDER`` goes on, or says what it still waits for.

    Example: npc loop day1 --natural natural/ --recordings natural.nc --targets 6

    Example: npc loop day1 --recordings round1.nwb

    Example: npc loop trial --brain simulated
    """
    from synth.closed_loop import extend_loop, gains_per_round, give_recordings, loop_state, next_round, start_loop
    from synth.progress import Progress

    if brain not in (None, "simulated"):
        raise ValueError(f"--brain is {brain!r}; the only one is 'simulated', leave it out to bring recordings")
    given: dict[str, Any] = {
        "targets": targets,
        "images": images,
        "objectives": None if objective is None else tuple(objective),
        "population": population,
        "recipe": recipe,
        "steps": steps,
        "backbone": None if backbone is None else tuple(backbone),
        "layer": layer,
        "group": group,
        "normalize": normalize or None,
        "brain_sites": sites if brain is None else sites or 32,
        "seed": seed,
    }
    if plan is not None:
        if objective or targets or images:
            raise ValueError("--plan brings objectives and images; leave --objective, --targets and --images out")
        given |= _planned(plan)
    given = {name: value for name, value in given.items() if value is not None}
    if (folder / "loop.json").is_file():
        state = loop_state(folder)
        _refuse_changes(folder, state.config, given, {"natural": natural, "photos": photos, "size-px": size_px})
        if rounds is not None and rounds != state.config.rounds:
            state = extend_loop(folder, rounds)
    else:
        state = start_loop(folder, *_begin(given, natural, brain, rounds, photos, size_px))
    try:
        with Progress(quiet) as progress:
            if recordings:
                state = next_round(folder, device=device, progress=progress) if not state.waiting else state
                state = give_recordings(folder, _read(recordings, axes, window_ms, dataset))
            while state.step != "done" and (not state.waiting or state.config.brain_sites is not None):
                state = next_round(folder, device=device, progress=progress)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; npc loop {folder} goes on") from None
    gains = gains_per_round(folder)
    if len(gains) and not as_json:
        typer.echo(gains.round(2).to_string(index=False, header=[_HEADS.get(str(name), str(name)) for name in gains]))
    if not as_json:
        typer.echo(str(state))
    finite = gains.notna() & ~gains.isin([float("inf"), -float("inf")])
    told = gains.astype(object).where(finite, None).to_dict("records")
    judged = f"round{max((row['round'] for row in told), default=0)}"
    result = {
        "round": state.round,
        "step": state.step,
        "waits_for": None if state.waits_for is None else str(state.waits_for),
        "rounds": told,
        "report": str(folder / judged / "report.html") if told else None,
    }
    finish(result, folder / "rounds.csv" if told else state.waits_for or folder, as_json)


_HEADS = {
    "forecast_over_achieved_driver": "driver/achieved",
    "forecast_over_achieved_validator": "validator/achieved",
    "fraction_beyond": "beyond",
    "median_gain": "gain",
}


def _begin(
    given: dict[str, Any],
    natural: Path | None,
    brain: str | None,
    rounds: int | None,
    photos: int | None,
    size_px: int | None,
) -> tuple[LoopConfig, Any]:
    """Return configuration and natural images of a new loop."""
    from stimuli import StimulusSet, natural_photos
    from synth.closed_loop import LoopConfig

    if natural is None and brain is None:
        raise ValueError("a new loop needs the natural images that were shown: --natural SET; or --brain simulated")
    if natural is not None and (photos or size_px):
        raise ValueError("--photos and --size-px are for a simulated brain without --natural; leave them out")
    if brain is None and "brain_sites" in given:
        raise ValueError("--sites is for --brain simulated; leave it out")
    config = LoopConfig(**(given if rounds is None else {**given, "rounds": rounds}))
    if natural is not None:
        return config, StimulusSet.load(natural)
    return config, natural_photos(photos or 640, size_px or 128, seed=config.seed)


def _refuse_changes(folder: Path, config: LoopConfig, given: dict[str, Any], begun: dict[str, Any]) -> None:
    """Refuse options that would make another loop than the one in the folder."""
    for name, value in begun.items():
        if value is not None:
            raise ValueError(f"the loop in {str(folder)!r} has its natural images; leave --{name} out")
    was = dataclasses.asdict(config)
    for name, value in given.items():
        if value != was[name] and not (name == "brain_sites" and was[name] and value == 32):
            raise ValueError(
                f"the loop in {str(folder)!r} was started with {name} {was[name]!r}, now {value!r} came; leave the "
                "option out to go on, or start another loop"
            )


def _planned(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return {"objectives": tuple(map(str, told["objectives"])), "images": len(told["seeds"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is not a plan of npc plan: {error}") from error


def _read(
    paths: list[Path], axes: str | None, window_ms: tuple[float, float] | None, dataset: str | None
) -> SiteRecordings:
    from neural_fits import SiteRecordings
    from neural_fits.preprocessing import join_sessions

    sessions = [SiteRecordings.load(path, axes=axes, window_ms=window_ms, dataset=dataset) for path in paths]
    return sessions[0] if len(sessions) == 1 else join_sessions(sessions)


def plan(
    model: Annotated[Path, typer.Argument(help="Folder of the driver, as npc fit writes it.")],
    minutes: Annotated[float, typer.Option(help="Minutes of presentations that there are.")] = 30.0,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write, for npc loop --plan.")] = Path("plan.json"),
    targets: Annotated[int | None, typer.Option(min=1, help="Most targets; by default as many as fit.")] = None,
    images: Annotated[int, typer.Option(min=1, help="Images per objective.")] = 2,
    repeats: Annotated[int, typer.Option(min=1, help="Presentations of each image.")] = 24,
    stimulus_s: Annotated[float, typer.Option(help="Seconds an image is on.")] = 0.1,
    gap_s: Annotated[float, typer.Option(help="Seconds until the next one.")] = 0.1,
    reference_images: Annotated[int, typer.Option(min=0, help="Natural images to show again.")] = 20,
    recordings: Annotated[
        Path | None, typer.Option(help="Responses to the natural images, from which those are chosen.")
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(help="Candidate as Python writes it; repeat. By default stretch and one-hot of every site."),
    ] = None,
    spread: Annotated[
        float, typer.Option(min=0, max=1, help="0: the best explained sites; 1: also as different as can be.")
    ] = 0.5,
    min_ev: Annotated[float, typer.Option(help="Least explained variance of a target.")] = 0.1,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Plan a session: which targets fit into the time, balanced over sites that are explained well and differ.

    Example: npc plan driver --minutes 40 --repeats 20 --recordings natural.nc

    Example: npc loop day1 --natural natural/ --recordings natural.nc --plan plan.json
    """
    from neural_fits import SiteRecordings, load_model
    from synth.control import rounded
    from synth.objectives import parse_objective
    from synth.session_plan import plan_session

    if out.exists() and not overwrite:
        raise FileExistsError(f"{str(out)!r} exists; choose another file, or replace it with --overwrite")
    made = plan_session(
        load_model(model),
        60 * minutes,
        candidates=None if objective is None else [parse_objective(text) for text in objective],
        targets=targets,
        images=images,
        repeats=repeats,
        stimulus_s=stimulus_s,
        gap_s=gap_s,
        reference_images=reference_images,
        recordings=None if recordings is None else SiteRecordings.load(recordings),
        spread=spread,
        min_explained_variance=min_ev,
    )
    made.to_json(out)
    if not as_json:
        typer.echo(made.table.round(2).to_string(max_rows=40))
        typer.echo(repr(made))
    told = {"targets": list(map(str, made.table.index)), "presentations": made.presentations}
    finish({**told, "seconds": rounded(made.seconds), "plan": str(out)}, out, as_json)
