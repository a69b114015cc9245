"""The command ``npc synth``."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synth.commands.options import AsJson, Device, Interrupted, Out, Overwrite, Quiet, Seed, finish

if TYPE_CHECKING:
    from synth.objectives import Objective


def synth(
    model: Annotated[Path, typer.Argument(help="Folder of the driver, as npc fit writes it.")],
    out: Out = Path("npc_synthesized"),
    stretch: Annotated[list[str] | None, typer.Option(help="Site to drive up; repeat, or 'all'.")] = None,
    one_hot: Annotated[
        list[str] | None, typer.Option(help="Site up, its population down; repeat, or 'all' of it.")
    ] = None,
    population: Annotated[
        list[str] | None, typer.Option(help="Site of the one-hot population; repeat. All by default.")
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(help="Any objective as Python writes it, \"Stretch('s3') - 0.5 * Stretch('s7')\"; repeat."),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Images per target, each from its own seed.")] = 5,
    recipe: Annotated[str, typer.Option(help="robust, or paper (the rule of 2019).")] = "robust",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Gradient steps; by default the recipe's (robust 400, paper 200).")
    ] = None,
    param: Annotated[
        str | None,
        typer.Option(
            help="What is optimized: fourier coefficients, pixels, the phase of a natural spectrum, or deep_prior: the "
            "weights of a random network that draws the image. By default the recipe's."
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            min=1, help="End an image after so many readings (one every 10 steps) without gain; by default never."
        ),
    ] = None,
    natural: Annotated[
        Path | None,
        typer.Option(
            help="Folder of natural images to start from, best those recorded: seed 0 from the best, seed 1 from the "
            "second. By default embedded photographs."
        ),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(help="Folder of a set whose images are changed; bound the change, .03 is hard to see."),
    ] = None,
    max_rms_change: Annotated[
        float | None, typer.Option(help="Largest root-mean-square change of a base image; the range of pixels is 1.")
    ] = None,
    max_change: Annotated[float | None, typer.Option(help="Largest change of any pixel of a base image.")] = None,
    over_produce: Annotated[
        int, typer.Option(min=1, help="Make so many times the images and keep those that --validator scores best.")
    ] = 1,
    validator: Annotated[
        list[Path] | None, typer.Option(help="Model that judges an over-production; of several, half forecast.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run; same images.")] = False,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Images optimized together; by default what is fast here.")
    ] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help="Gradients in bfloat16: faster; readings stay exact.")] = False,
    ray: Annotated[
        str | None, typer.Option(metavar="[ADDRESS]", help="Spread over a Ray cluster, or over this machine.")
    ] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for score curves in TensorBoard.")] = None,
    seed: Seed = 0,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Synthesize images that drive chosen sites.

    Writes a stimulus set: images/*.png, stimuli.csv with target, seed and forecast of every image, trace.csv with the
    scores on the way, set.json. The driver's own forecast is optimistic: judge the set with a validator by npc
    evaluate. With --over-produce the columns judge_score and judge_forecast say what the judges think. Finished images
    are kept in OUT.partial; after Ctrl-C or a crash give the same command with --resume.

    Example: npc synth driver --stretch site03 --one-hot site03 --population site03 --population site07
    """
    from neural_fits import load_model
    from stimuli import StimulusSet
    from stimuli.files import require_free
    from synth._objective_sites import require_sites
    from synth.judges import keep_best
    from synth.objectives import SiteScale
    from synth.progress import Progress
    from synth.recipes import recipe as named
    from synth.synthesize import synthesize

    if not stretch and not one_hot and not objective:
        raise ValueError(
            "no target was named; give --stretch SITE or --one-hot SITE, 'all' for every site, or --objective"
        )
    if population and not one_hot:
        raise ValueError("--population is for --one-hot; name its targets, or 'all'")
    if base is None and (max_rms_change is not None or max_change is not None):
        raise ValueError("--max-rms-change and --max-change bound the change of base images; give --base SET")
    if (over_produce > 1) != bool(validator):
        raise ValueError("--over-produce and --validator belong together: images are judged by a model of other images")
    changes: dict[str, Any] = {
        name: value
        for name, value in (
            ("param", param),
            ("steps", steps),
            ("patience", patience),
            ("max_rms_change", max_rms_change),
            ("max_change", max_change),
            ("start", "base" if base else None),
        )
        if value is not None
    }
    config = named(recipe, **changes)
    if tensorboard is not None:
        from synth.tensorboard import require_tensorboard, write_traces

        require_tensorboard()
    driver = load_model(model)
    wanted = _objectives(driver.site_ids, stretch, one_hot, population, objective, recipe)
    judges = [load_model(path) for path in validator or []]
    if judges:  # what they cannot judge is said before the long work
        require_sites(wanted)
        for scale in map(SiteScale.of, judges):
            for each in wanted:
                each.flat_terms(scale)
    if over_produce > 1:
        require_free(out, overwrite, lambda place: (place / "set.json").is_file())
    given = None if base is None else StimulusSet.load(base)
    candidates = images * over_produce
    place = out.with_name(f"{out.name}.candidates") if over_produce > 1 else out
    # a scheduler's notice, or a closed terminal, ends the run as Ctrl-C does, with a checkpoint
    notices = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(notice, signal.default_int_handler) for notice in notices]
    try:
        with Progress(quiet) as progress:
            progress.stage(f"synthesizing {len(wanted) * candidates * (1 if given is None else len(given))} images")
            made = synthesize(
                driver,
                wanted,
                seeds=range(seed, seed + candidates),
                recipe=config,
                base=given,
                natural=None if natural is None else StimulusSet.load(natural),
                out=place,
                resume=resume,
                overwrite=overwrite,
                device=device,
                slots=slots,
                amp=bf16,
                backend="local" if ray is None else "ray",
                address=ray,
                progress=progress.step,
            )
    except KeyboardInterrupt:
        if not Path(f"{place.resolve()}.partial", "run.json").is_file():
            raise
        raise Interrupted("interrupted; give the same command with --resume to go on") from None
    finally:
        for notice, handler in zip(notices, before, strict=True):
            signal.signal(notice, handler)
    if tensorboard is not None:
        write_traces(made, tensorboard)
    if place != out:
        made = keep_best(made, judges, images, seed, device=device).save(out, overwrite)
        shutil.rmtree(place)
    table = made.stimuli.table
    ended, unmoved = table["ended"].value_counts().to_dict(), int((table["step"] == 0).sum())
    if unmoved:
        typer.echo(f"npc: {unmoved} images are their own start: no later one scored higher; see trace.csv", err=True)
    finish({"images": len(made.stimuli), "objectives": len(wanted), "set": str(out), "ended": ended}, out, as_json)


def _objectives(
    sites: tuple[str, ...],
    stretch: list[str] | None,
    one_hot: list[str] | None,
    population: list[str] | None,
    objective: list[str] | None,
    recipe: str,
) -> list[Objective]:
    from synth.objectives import OneHot, Stretch, parse_objective
    from synth.recipes import one_hot_form

    def named(chosen: list[str] | None, everything: tuple[str, ...]) -> list[str]:
        return list(everything) if chosen == ["all"] else list(chosen or [])

    pool = tuple(population) if population else None
    wanted: list[Objective] = [Stretch(site) for site in named(stretch, sites)]
    wanted += [OneHot(site, pool, form=one_hot_form(recipe)) for site in named(one_hot, pool or sites)]
    return wanted + [parse_objective(text) for text in objective or []]
