"""The command ``npc inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synth.commands.options import AsJson, Device, Out, Overwrite, Quiet, Seed, finish

if TYPE_CHECKING:
    from neural_fits.site_model import Ensemble, SiteModel


def inspect(
    model: Annotated[Path, typer.Argument(help="Folder of a model, as npc fit writes it.")],
    site: Annotated[list[str] | None, typer.Option(help="Site to look into; repeat, or 'all'.")] = None,
    out: Out = Path("npc_inspection"),
    natural: Annotated[
        Path | None,
        typer.Option(help="Folder of natural images, best those recorded. By default embedded photographs."),
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=3, help="Take so many of the natural images, evenly; by default all.")
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="How many best, worst and maximizing images.")] = 3,
    recipe: Annotated[
        str, typer.Option(help="How maximizing images are made: robust (here from faint noise), or paper (2019).")
    ] = "robust",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Gradient steps of a maximizing image; by default the recipe's.")
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Look inside fitted sites: one page a site, with everything that the model says of it.

    Writes index.html, sites/SITE.html and the stimulus set maximizing. A page shows the receptive field, activation
    maps (what each part of an image adds to the response) on the natural images that the model expects to drive the
    site most and least, saliency (which pixels would change the response), the tuning to spatial frequency and
    orientation, and images that maximize the response; each with a sentence how to read it and one on its limits. Pages
    have no script and open anywhere. It takes about a minute a site on two cores. The model may be an ensemble.
    SmoothGrad needs captum, the extra 'inspect'.

    Example: npc inspect driver --site site03 --natural natural
    """
    from neural_fits import load_model
    from stimuli import StimulusSet
    from stimuli.files import require_free
    from synth.inspection_page import INSPECTION_FILES, save_inspections
    from synth.progress import Progress
    from synth.recipes import recipe as named
    from synth.site_inspection import MAXIMIZING, evenly, inspect_sites, photographs_of

    require_free(out, overwrite, INSPECTION_FILES)
    changes: dict[str, Any] = {} if steps is None else {"steps": steps}
    config = named(MAXIMIZING if recipe == "robust" else recipe, **changes)
    _require_model_folder(model)
    fitted = load_model(model)
    chosen = _sites(fitted, site or [])
    if natural is not None:
        _require_set_folder(natural)
    photographs = photographs_of(fitted) if natural is None else StimulusSet.load(natural)
    if size is not None:
        photographs = evenly(photographs, size)
    with Progress(quiet) as progress:
        found = inspect_sites(
            fitted,
            chosen,
            photographs,
            images=images,
            recipe=config,
            seed=seed,
            device=device,
            progress=progress,
        )
        page = save_inspections(found, out, overwrite, {"folder of the model": model.resolve().name})
    left_out = {each.site: each.left_out for each in found if each.left_out}
    finish({"sites": len(found), "page": str(page), "left_out": left_out}, page, as_json)


def _sites(fitted: SiteModel | Ensemble, named: list[str]) -> list[str]:
    """Return the sites that were named, or in one sentence which of them is none."""
    from neural_fits.inspection.targets import site_indices

    known = list(fitted.site_ids)
    if not named:
        few = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
        raise ValueError(f"no site was named; give --site, 'all' for every site, or one of {few}")
    if named == ["all"] and "all" not in known:
        return known
    for each in named:
        parts = [part.strip() for part in each.split(",")]
        if each not in known and len(parts) > 1:
            again = " ".join(f"--site {part}" for part in parts if part)
            raise ValueError(f"the model has no site {each!r}; repeat --site for several: {again}")
    site_indices(fitted, [each for each in named if each != "all"] or None)
    if "all" in named and "all" not in known:
        raise ValueError(f"--site all stands alone, {', '.join(named)} came; give all, or the sites")
    return named


def _require_model_folder(model: Path) -> None:
    """Refuse a path to a model's file, or to the folder round a model, with the folder that was meant."""
    if model.is_file() and (model.parent / "model.json").is_file():
        raise ValueError(f"MODEL is a folder, the file {str(model)!r} came; did you mean {str(model.parent)!r}?")
    if model.is_dir() and not (model / "model.json").is_file():
        inside = sorted(each for each in model.iterdir() if (each / "model.json").is_file())
        if inside:
            few = ", ".join(repr(str(each)) for each in inside[:5])
            raise FileNotFoundError(f"there is no model in {str(model)!r}; did you mean {few}?")


def _require_set_folder(natural: Path) -> None:
    """Refuse a folder or file inside a stimulus set, with the folder that was meant."""
    if not (natural / "set.json").is_file() and (natural.parent / "set.json").is_file():
        raise FileNotFoundError(
            f"there is no stimulus set in {str(natural)!r}; --natural is its folder, did you mean "
            f"{str(natural.parent)!r}?"
        )
