"""The command ``npc draw``: stimulus sets of parametric families, shapes and noise."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synth.commands.options import AsJson, Out, Overwrite, Quiet, Seed, finish
from synth.commands.screen import DistanceCm, Screen, WidthCm, screen_from

if TYPE_CHECKING:
    from stimuli import StimulusSet
    from synth.progress import Progress

#: What can be drawn beside the parametric families: what it is, and its parameters with their defaults.
OTHERS: dict[str, tuple[str, dict[str, str]]] = {
    "outline": ("shapes of the file --shapes", {"radius_deg": "as in the file", "spline": "False", "contrast": "1"}),
    "pink_noise": ("1/f^alpha noise", {"alpha": "1", "rms": "0.15"}),
    "phase_scrambled": ("the images of --from without their phases", {"fraction": "1"}),
}
_WITHOUT_PLACE = ("pink_noise", "phase_scrambled")  # they fill the image; only an aperture has a place


def draw(
    family: Annotated[str | None, typer.Argument(help="Name of a family; --list shows all.")] = None,
    out: Out = Path("npc_drawn"),
    show_list: Annotated[bool, typer.Option("--list", help="List the families, their parameters and ranges.")] = False,
    n: Annotated[int | None, typer.Option("-n", min=1, help="How many; by default 20.")] = None,
    among: Annotated[
        list[str] | None,
        typer.Option("--range", metavar="NAME=LOW:HIGH", help="Draw a parameter from this range; repeat."),
    ] = None,
    fixed: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Fix a parameter, or VALUE,VALUE to choose from; repeat."),
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Draw every combination of the values of --set.")] = False,
    size_deg: Annotated[
        float | None, typer.Option(help="Width of the images in degrees; by default 8, or as --from.")
    ] = None,
    size_px: Annotated[
        int | None, typer.Option(help="Width in pixels; by default as the screen needs, or 128 without one.")
    ] = None,
    at: Annotated[
        tuple[float, float] | None, typer.Option(metavar="X Y", help="Middle of patterns and aperture in degrees.")
    ] = None,
    aperture_deg: Annotated[
        float | None, typer.Option(help="Radius of a soft aperture in degrees; none by default.")
    ] = None,
    edge_deg: Annotated[
        float | None, typer.Option(help="Width of its edge, inside the radius; by default a quarter of the radius.")
    ] = None,
    rgb: Annotated[bool, typer.Option("--rgb", help="Three equal channels instead of one.")] = False,
    source: Annotated[Path | None, typer.Option("--from", help="Set whose images are phase-scrambled.")] = None,
    shapes: Annotated[
        Path | None, typer.Option(help="CSV file of outlines with the columns shape, x and y, one row per point.")
    ] = None,
    screen: Screen = None,
    width_cm: WidthCm = None,
    distance_cm: DistanceCm = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Draw a stimulus set: gratings, Gabors, shapes, noise. Its table holds the parameters of every image.

    Parameters without --range and --set follow the ranges that --list shows. The word all stands for every ready-made
    value, as in --set radii=all.

    Example: npc draw gabor -n 200 --range frequency_cpd=0.5:4 --set contrast=1 --aperture-deg 4 --out gabors

    Example: npc draw grating --grid --set frequency_cpd=1,2,4 --set orientation_deg=0,45,90,135 --out gratings

    Example: npc draw contour --grid --set radii=all --set orientation_deg=all --set radius_deg=2 --out shapes
    """
    from stimuli.apertures import Aperture
    from stimuli.files import require_free
    from synth.progress import Progress

    if show_list:
        typer.echo(_listed())
        return
    if family is None:
        raise ValueError("npc draw needs the name of a family, such as gabor; npc draw --list shows all")
    require_free(out, overwrite, lambda folder: (folder / "set.json").is_file())
    if edge_deg is not None and aperture_deg is None:
        raise ValueError("--edge-deg is the edge of an aperture; give --aperture-deg too")
    if at is not None and aperture_deg is None and family in _WITHOUT_PLACE:
        raise ValueError(f"--at is the middle of an aperture for {family}; give --aperture-deg too")
    if shapes is not None and family != "outline":
        raise ValueError(f"--shapes is for outline; leave it out for {family}")
    if grid and among:
        raise ValueError("--grid takes no --range; give the values to combine with --set NAME=VALUE,VALUE")
    x, y = at or (0.0, 0.0)
    edge = edge_deg if edge_deg is not None else 0.25 * (aperture_deg or 0.0)
    asked: dict[str, Any] = {
        "size_deg": size_deg,
        "size_px": size_px,
        "display": screen_from(screen, width_cm, distance_cm),
        "aperture": None if aperture_deg is None else Aperture(aperture_deg, edge, x, y),
        "channels": 3 if rgb else None,
    }
    raster = {name: value for name, value in asked.items() if value is not None}
    values = _values(family, fixed or [], among or [], at)
    with warnings.catch_warnings(record=True) as told, Progress(quiet) as progress:
        warnings.simplefilter("always", UserWarning)
        progress.stage(f"drawing {family}")
        if family == "phase_scrambled":
            drawn = _scrambled(source, values, raster, seed, n, grid)
        else:
            if source is not None:
                raise ValueError(f"--from is for phase_scrambled; leave it out for {family}")
            drawn = _drawn(family, values, raster, seed, n, grid, shapes, progress)
    for warning in told:
        typer.echo(f"npc: {warning.message}", err=True)
    drawn.save(out, overwrite)
    counts = {"stimuli": len(drawn), "family": family, "size_px": drawn.size_px[1], "size_deg": drawn.size_deg}
    finish({**counts, "set": str(out)}, out, as_json)


def _drawn(
    family: str,
    values: dict[str, Any],
    raster: dict[str, Any],
    seed: int,
    n: int | None,
    grid: bool,
    shapes: Path | None,
    progress: Progress,
) -> StimulusSet:
    from stimuli import families
    from stimuli.shape_file import read_shapes
    from stimuli.textures import pink_noise

    if shapes is None and family == "outline":
        raise ValueError("outline needs the file of shapes; give it with --shapes")
    if n is not None and (grid or shapes is not None):
        raise ValueError(f"-n does not go with {'--grid' if grid else '--shapes'}, which says how many; leave it out")
    if family in OTHERS:
        _refuse(family, values, grid)
    if shapes is not None:
        return families.draw(read_shapes(shapes, **values), **raster, progress=progress.step)
    if family == "pink_noise":
        return pink_noise(n or 20, seed=seed, **values, **raster)
    make = families.grid(family, **values) if grid else families.sample(family, n or 20, seed=seed, **values)
    return families.draw(make, **raster, progress=progress.step)


def _scrambled(
    source: Path | None, values: dict[str, Any], raster: Mapping[str, Any], seed: int, n: int | None, grid: bool
) -> StimulusSet:
    from stimuli import StimulusSet
    from stimuli.apertures import apply_aperture
    from stimuli.textures import phase_scrambled

    _refuse("phase_scrambled", values, grid)
    if source is None:
        raise ValueError("phase_scrambled needs the set whose images are scrambled; give its folder with --from")
    taken = sorted(set(raster) - {"aperture"})
    if taken or n is not None:
        option = f"--{taken[0].replace('_', '-')}" if taken else "-n"
        option = {"--display": "--screen", "--channels": "--rgb"}.get(option, option)
        raise ValueError(f"phase_scrambled takes size and number from the set of --from; leave {option} out")
    made = phase_scrambled(StimulusSet.load(source), **values, seed=seed)
    return apply_aperture(made, raster["aperture"]) if "aperture" in raster else made


def _refuse(family: str, values: Mapping[str, Any], grid: bool) -> None:
    known = OTHERS[family][1]
    from stimuli.hints import did_you_mean

    for name, value in values.items():
        if name not in known:
            hint = did_you_mean(name, known)
            raise ValueError(f"{family} has no parameter {name!r}: {hint}It has {', '.join(known)}")
        if isinstance(value, (tuple, list)):
            raise ValueError(f"{name} of {family} is {value!r}; give one value with --set")
    if grid:
        raise ValueError(f"--grid does not go with {family}; leave it out")


def _values(family: str, fixed: Sequence[str], among: Sequence[str], at: tuple[float, float] | None) -> dict[str, Any]:
    """Read the texts NAME=VALUE, NAME=VALUE,VALUE and NAME=LOW:HIGH."""
    ranges = {} if family in OTHERS else _ranges(family)
    values: dict[str, Any] = {}
    for option, texts in (("--set", fixed), ("--range", among)):
        for text in texts:
            name, equals, content = text.partition("=")
            name = name.strip()
            if not (name and equals and content.strip()):
                raise ValueError(f"{option} got {text!r}; give NAME=VALUE, such as contrast=1")
            if name in values:
                raise ValueError(f"{name} is given twice; give it once, by --set or by --range")
            if option == "--range":
                low, colon, high = content.partition(":")
                if not colon:
                    raise ValueError(f"--range got {text!r}; give NAME=LOW:HIGH, such as frequency_cpd=0.5:4")
                if hasattr(ranges.get(name), "values"):
                    raise ValueError(f"{name} of {family} is chosen from values; give --set {name}=VALUE,VALUE or all")
                values[name] = (_number(text, low), _number(text, high))
            elif content.strip() == "all" and (name in ranges or name in OTHERS.get(family, ("", {}))[1]):
                if not hasattr(ranges.get(name), "values"):
                    raise ValueError(f"{name} of {family} has no ready-made values that all could stand for; give some")
                values[name] = list(ranges[name].legal or ranges[name].values)
            else:
                values[name] = _one_or_more(text, content, ranges.get(name))
    if at is not None and family not in _WITHOUT_PLACE:
        if {"x_deg", "y_deg"} & set(values) or family == "outline":
            raise ValueError("--at stands for x_deg and y_deg of a family with these parameters; leave one of them out")
        values |= {"x_deg": at[0], "y_deg": at[1]}
    return values


def _ranges(family: str) -> Mapping[str, Any]:
    from stimuli.families import FAMILIES
    from stimuli.hints import did_you_mean

    if family not in FAMILIES:
        known = [*FAMILIES, *OTHERS]
        raise ValueError(
            f"There is no family {family!r}: {did_you_mean(family, known)}The families are {', '.join(known)}"
        )
    return FAMILIES[family].ranges


def _one_or_more(text: str, content: str, law: Any) -> Any:
    parts = [part.strip() for part in content.split(",")]
    known = getattr(law, "values", ())
    if any(isinstance(value, str) for value in known):  # the family says which names there are
        values: list[Any] = list(parts)
    elif any(isinstance(value, tuple) for value in known):
        values = [tuple(_number(text, cell) for cell in part.split()) for part in parts]
    else:
        values = [_value(text, part) for part in parts]
    return values[0] if len(values) == 1 else values


def _value(text: str, part: str) -> Any:
    words = {"true": True, "false": False}
    if part.lower() in words:
        return words[part.lower()]
    if len(part.split()) > 1:
        raise ValueError(f"{part!r} in {text!r} is not a number; put commas between values")
    return _number(text, part)


def _number(text: str, part: str) -> float | int:
    for kind in (int, float):
        try:
            return kind(part)
        except ValueError:
            continue
    raise ValueError(f"{part.strip()!r} in {text!r} is not a number; give a number, or true or false")


def _listed() -> str:
    from stimuli.families import FAMILIES

    lines = []
    for name, kind in FAMILIES.items():
        summary = (kind.__doc__ or "").strip().splitlines()[0]
        lines.append(f"{name}: {summary.replace('`', '')}")
        lines += [f"    {parameter:18} {allowed}" for parameter, allowed in kind.ranges.items()]
    for name, (what, parameters) in OTHERS.items():
        lines.append(f"{name}: {what}")
        lines += [f"    {parameter:18} {default}" for parameter, default in parameters.items()]
    return "\n".join(lines)
