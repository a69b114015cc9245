"""The command ``npc fit``: images and recordings in, a scored model, its table and its picture out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from synth.commands.options import AsJson, Device, Out, Overwrite, Quiet, Seed, finish


def fit(
    stimuli: Annotated[Path, typer.Argument(help="Folder of the stimulus set that was shown.")],
    recordings: Annotated[
        list[Path],
        typer.Argument(help="Responses to it: .nwb .nc .h5 .mat .npz .npy .csv .parquet; several are joined."),
    ],
    out: Out = Path("npc_model"),
    backbone: Annotated[
        list[str] | None,
        typer.Option(
            help="Network: efficientnet-lite0, -lite1, -lite2, torchvision:NAME or timm:NAME; repeat for several. "
            "By default lite0 and lite1."
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="Layer of every --backbone; A+B reads two jointly. Repeat to let the training images choose. "
            "Embedded networks have a default."
        ),
    ] = None,
    readout: Annotated[
        list[str] | None,
        typer.Option(
            help="local (default), alternating, ridge, pls, gaussian or factorized (2019); repeat to let the training "
            "images choose."
        ),
    ] = None,
    penalty: Annotated[
        str, typer.Option(help="best, or one_se: the strongest ridge penalty within one standard error of the best.")
    ] = "best",
    site: Annotated[list[str] | None, typer.Option(help="Site to fit; repeat. By default all.")] = None,
    min_reliability: Annotated[
        float | None, typer.Option(help="Leave out less reliable sites (judged on half of the trials), such as 0.3.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="A or B fits on one half of the photographs only, 2/3 on the second third.")
    ] = None,
    group: Annotated[
        str,
        typer.Option(
            help="Column whose equal values stay together in splits; without it, images are split one by one."
        ),
    ] = "photograph",
    folds: Annotated[int, typer.Option(min=2, help="Cross-validation folds.")] = 5,
    input_px: Annotated[int | None, typer.Option(min=16, help="Resize images to this side for the network.")] = None,
    window_ms: Annotated[
        tuple[float, float] | None, typer.Option(help="Start and end of the counting window after onset, in ms.")
    ] = None,
    axes: Annotated[
        str | None, typer.Option(help="Order of the axes of a plain array, such as 'repeat stimulus site'.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Which table or array of the file, where there are several.")
    ] = None,
    normalizer: Annotated[
        list[str] | None,
        typer.Option(help="Image shown in all of several sessions, by which their responses are scaled; repeat."),
    ] = None,
    no_outliers: Annotated[
        bool, typer.Option("--no-outliers", help="Leave out trials far from the others of their image (8 robust sd).")
    ] = False,
    parts: Annotated[
        int | None, typer.Option(min=2, help="Fit a member on each of so many disjoint parts of the photographs.")
    ] = None,
    known: Annotated[
        Path | None,
        typer.Option("--transfer", help="Earlier model of the same array, carried to these recordings: few images do."),
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder in which features are kept for the next fit.")] = None,
    seed: Seed = 0,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fit readouts from network features to recorded sites, and score them on held-out images.

    Writes the model, scores.csv (one row a site: r, reliability, explained variance with a 95 % interval, receptive
    field) and sites.png. Fit a driver on split A and a validator on split B, with another readout, to get forecasts
    worth believing.

    Example: npc fit natural/ recordings.nc --split A --out driver

    Example: npc fit natural/ day1.nc day2.nc --normalizer img01 --normalizer img02 --min-reliability 0.3
    """
    from neural_fits import SiteRecordings, fit_parts, fit_sites, load_model, transfer
    from neural_fits.preprocessing import join_sessions, reject_outliers
    from neural_fits.site_maps import site_table, sites_png
    from neural_fits.site_model import MODEL_FILES
    from stimuli import StimulusSet
    from stimuli.files import atomic_write, require_free
    from synth.control import rounded
    from synth.progress import Progress

    require_free(out, overwrite, MODEL_FILES)
    shown = StimulusSet.load(stimuli)
    sessions = [SiteRecordings.load(path, axes=axes, window_ms=window_ms, dataset=dataset) for path in recordings]
    if normalizer and len(sessions) == 1:
        raise ValueError("--normalizer is for several sessions; give more than one file of recordings")
    recorded = sessions[0] if len(sessions) == 1 else join_sessions(sessions, normalizer)
    if group == "photograph" and group not in shown.table:
        typer.echo(
            f"npc: {stimuli} has no column photograph, so images are split one by one; related ones, such as crops of "
            "one photograph, may stand on both sides and scores be too good (--group names another column)",
            err=True,
        )
    extra = sorted(set(recorded.stimulus_ids) - set(shown.stimulus_ids))
    if extra and set(shown.stimulus_ids) <= set(recorded.stimulus_ids):  # such as the gray control of npc export
        recorded = recorded.align(shown, extra="drop")
        listed = ", ".join(extra[:3]) + (" …" if len(extra) > 3 else "")
        typer.echo(f"npc: left out {len(extra)} recorded stimuli that are not in {stimuli}: {listed}", err=True)
    recorded = recorded.select_sites(site) if site else recorded
    recorded = reject_outliers(recorded) if no_outliers else recorded
    common: dict[str, Any] = {"group": group, "folds": folds, "seed": seed, "device": device, "cache": cache}
    named = {
        "backbone": backbone,
        "layer": layer,
        "readout": readout,
        "penalty": None if penalty == "best" else penalty,
        "min_reliability": min_reliability,
        "split": split,
        "input_px": input_px,
    }
    fits: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    if known is not None and (fits or parts):
        option = "--" + next(iter(fits), "parts").replace("_", "-")
        raise ValueError(f"--transfer takes networks and readouts from the earlier model; leave {option} out")
    with Progress(quiet) as progress:
        if known is not None:
            progress.stage(f"carrying the model in {str(known)!r} to {len(recorded.site_ids)} sites")
            model = transfer(load_model(known), shown, recorded, **common)
        elif parts is not None:
            model = fit_parts(shown, recorded, parts, **common, **fits, progress=progress.stage)
        else:
            model = fit_sites(shown, recorded, **common, **fits, progress=progress.stage)
    path = model.save(out, overwrite)
    scores = site_table(model)
    atomic_write(path / "scores.csv", scores.to_csv(float_format="%.6g"))
    atomic_write(path / "sites.png", sites_png(model))
    medians = {name: rounded(scores[name].median()) for name in ("r", "reliability", "explained_variance")}
    if medians["reliability"] is None and not as_json:
        typer.echo("no image has two repeats: reliability is unknown, and npc evaluate will need repeats")
    if not as_json:
        typer.echo(
            scores.round(2).to_string(
                max_rows=12, header=[str(name).replace("explained_variance", "EV") for name in scores]
            )
        )
        typer.echo(
            f"median over {len(scores)} sites: " + ", ".join(f"{name} {value}" for name, value in medians.items())
        )
    finish({"sites": len(scores), **medians, "model": str(path)}, path, as_json)
