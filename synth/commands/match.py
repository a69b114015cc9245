"""The command ``npc match``: the images of a set made alike in mean, contrast, histogram or spectrum."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synth.commands.options import AsJson, Device, Out, Overwrite, Quiet, Seed, finish

if TYPE_CHECKING:
    from neural_fits.site_model import Ensemble, SiteModel
    from stimuli import StimulusSet
    from stimuli.matching import Matched
    from synth.progress import Progress


def match(
    stimuli: Annotated[Path, typer.Argument(help="Folder of the set.")],
    out: Out = Path("npc_matched"),
    mean: Annotated[
        str | None, typer.Option(help="Mean of every image, 0 to 1, such as 0.5; or average, that of the set.")
    ] = None,
    rms: Annotated[
        str | None,
        typer.Option(help="RMS contrast (standard deviation) of every image, up to 0.5; or average, that of the set."),
    ] = None,
    max_clipped: Annotated[
        float | None,
        typer.Option(help="Lower the shared --rms until no image is clipped in more than this fraction, such as 0.01."),
    ] = None,
    histogram: Annotated[
        str | None, typer.Option(help="Same pixel values for all: average, or the id of a stimulus that has them.")
    ] = None,
    spectrum: Annotated[
        str | None, typer.Option(help="Same amplitude spectrum for all: full, or rotational (mean over orientations).")
    ] = None,
    aperture_deg: Annotated[
        float | None, typer.Option(help="Compare inside a round window of this radius in degrees; gray outside.")
    ] = None,
    edge_deg: Annotated[
        float | None,
        typer.Option(help="Width of its soft edge, inside the radius; by default a quarter of the radius."),
    ] = None,
    at: Annotated[
        tuple[float, float] | None, typer.Option(metavar="X Y", help="Middle of the window in degrees.")
    ] = None,
    keep_surround: Annotated[
        bool, typer.Option("--keep-surround", help="Leave images as they are outside the window.")
    ] = False,
    gray: Annotated[bool, typer.Option("--gray", help="Turn color into luma first.")] = False,
    model: Annotated[
        list[Path] | None, typer.Option(help="Model whose predictions before and after are compared; repeat.")
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Make the images of a set alike, and report what was clipped and what that did to predicted responses.

    In this order: spectrum, histogram, then mean and contrast inside the window. Uniform images stay. Writes the new
    set with matching.csv (before and after, per image) and, with --model, predicted_change.csv (per image and site).

    Example: npc match natural --mean 0.5 --rms 0.2 --max-clipped 0.01 --aperture-deg 3 --model driver --out matched

    Example: npc match natural --gray --spectrum rotational --histogram average --out shine
    """
    from stimuli import StimulusSet
    from stimuli.apertures import Aperture
    from stimuli.files import require_free
    from stimuli.matching import match_appearance
    from synth.progress import Progress

    if aperture_deg is None and (edge_deg is not None or at is not None or keep_surround):
        raise ValueError("--edge-deg, --at and --keep-surround describe a window; give its --aperture-deg too")
    require_free(out, overwrite, lambda folder: (folder / "set.json").is_file())  # save looks closer
    original = StimulusSet.load(stimuli)
    models = _models(model or [], original)  # before the work, so that a wrong name does not cost it
    window = None
    if aperture_deg is not None:
        window = Aperture(aperture_deg, 0.25 * aperture_deg if edge_deg is None else edge_deg, *(at or (0.0, 0.0)))
    with Progress(quiet) as progress:
        progress.stage(f"matching {len(original)} images")
        matched = match_appearance(
            original,
            mean=_number("--mean", mean),
            rms=_number("--rms", rms),
            max_clipped=max_clipped,
            histogram=histogram,
            spectrum=spectrum,
            aperture=window,
            keep_surround=keep_surround,
            gray=gray,
            seed=seed,
        )
        beside = {"matching.csv": matched.report.to_csv(index=False, float_format="%.6g")}
        effects: dict[str, Any] = {}
        if models:
            beside["predicted_change.csv"], effects = _compare(original, matched.stimuli, models, device, progress)
    saved = matched.stimuli.save(out, overwrite, beside)
    result = matched.summary() | {"effects": effects, "set": str(out)}
    if not as_json:
        typer.echo(_told(matched, rms, max_clipped is not None, effects))
    finish(result | {"stimuli": len(saved)}, out, as_json)


_ALIKE = 0.02


def _number(option: str, text: str | None) -> float | str | None:
    if text is None or text == "average":
        return text
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{option} is {text!r}; give a number, or average") from None


def _models(paths: list[Path], stimuli: StimulusSet) -> dict[str, SiteModel | Ensemble]:
    """Return the models by their names, all of which take images of the size of the set."""
    if not paths:
        return {}
    from neural_fits.image_size import require_image_size
    from neural_fits.site_model import load_model

    models = {str(path): load_model(path) for path in paths}
    for model in models.values():
        require_image_size(stimuli, model.info.size_px, model.info.size_deg)
    return models


def _compare(
    before: StimulusSet,
    after: StimulusSet,
    models: dict[str, SiteModel | Ensemble],
    device: str | None,
    progress: Progress,
) -> tuple[str, dict[str, Any]]:
    """Return the table of all models as CSV text, and the summary of each."""
    import pandas as pd

    from neural_fits.appearance_effect import appearance_effect
    from neural_fits.fit import best_device

    tables, summaries = [], {}
    for name, model in models.items():
        progress.stage(f"predicting responses by {name!r}")
        effect = appearance_effect(before, after, model.to(best_device(device)))
        tables.append(effect.table.assign(model=name))
        summaries[name] = effect.summary()
    return pd.concat(tables).to_csv(index=False, float_format="%.6g"), summaries


def _told(matched: Matched, asked_rms: str | None, limited: bool, effects: dict[str, Any]) -> str:
    facts = matched.summary()
    lines = []
    if matched.limited_by is not None:
        lines.append(
            f"RMS contrast {matched.rms:.4g}, lowered from {asked_rms} for {matched.limited_by}; {matched.over_limit} "
            f"of {facts['stimuli']} images would be clipped too much as asked (clipped_as_asked in matching.csv)"
        )
    if "rms_contrast" in facts:
        low, high = facts["rms_contrast"]
        dark, bright = facts["mean_luminance"]
        lines.append(f"reached in 8 bits: mean {dark:.4f} to {bright:.4f}, RMS contrast {low:.4f} to {high:.4f}")
    if matched.rms is not None:
        reached = matched.report.loc[~matched.report["uniform"], "rms_contrast"]
        missed = int(((reached / matched.rms - 1).abs() > _ALIKE).sum())
        if missed:
            lines.append(
                f"{missed} of {len(reached)} images are off the RMS contrast {matched.rms:.4g} by more than 2 %, "
                "because they are clipped (rms_contrast in matching.csv): ask for less, or leave them out"
            )
    worst = facts["largest_clipped_fraction"]
    if worst:
        lines.append(
            f"clipped: {100 * facts['mean_clipped_fraction']:.2g} % of the values on average, {100 * worst:.2g} % in "
            f"{facts['most_clipped']}{'' if limited else '; --max-clipped lowers the contrast instead'}"
        )
    if facts["clipped_before"]:
        lines.append(
            f"clipped before, when the set was made: up to {100 * facts['clipped_before']:.2g} % of the values, which "
            "stays; lower the contrast of what it was made from instead"
        )
    if facts["uniform"]:
        lines.append(f"{facts['uniform']} uniform images left as they were")
    for name, effect in effects.items():
        change, r = effect["median_rms_change_sd"], effect["median_r"]
        moved, alike = ("?" if value is None else f"{value:.2f}" for value in (change, r))
        lines.append(
            f"{name}: predicted responses change by {moved} sd (rms, median site), r {alike} with those before"
        )
    return "\n".join(lines)
