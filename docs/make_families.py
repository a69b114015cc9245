"""Draw docs/families.png and the table of parameters in docs/families.md: ``python docs/make_families.py``.

The picture shows every family, six stimuli each (three texture metamers, the slow part; none where plenoptic is not
installed). Everything is drawn from fixed seeds.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from stimuli import StimulusSet, natural_photos
from stimuli.apertures import Aperture
from stimuli.competitors import affine_copies, contrast_copies, cropped_copies
from stimuli.contact_sheet import save_contact_sheet
from stimuli.families import FAMILIES, draw, grid, sample
from stimuli.files import atomic_write
from stimuli.scenes import scenes
from stimuli.shape_file import OutlineShape
from stimuli.strokes import FIGURES
from stimuli.textures import phase_scrambled, pink_noise

HERE = Path(__file__).parent
START, END = "<!-- families: written by make_families.py -->", "<!-- end of families -->"
EACH = 6
SIZE_PX = 128


def all_families() -> StimulusSet:
    """Make six stimuli of every family, gray, 8 deg wide."""
    window = Aperture(4.0, 1.0)
    patterns = {name: sample(name, EACH, seed=2) for name in FAMILIES}
    patterns["stroke"] = grid("stroke", figure=list(FIGURES), radius_deg=2.5, orientation_deg=30.0)[1:7]
    patterns["contour"] = sample("contour", EACH, seed=2, radius_deg=2.5, contrast=-1.0)
    sets = [draw(made, size_px=SIZE_PX, aperture=window) for made in patterns.values()]
    arrow = ((3, 0), (0, 2), (0, 0.8), (-3, 0.8), (-3, -0.8), (0, -0.8), (0, -2))
    outlines = [
        OutlineShape(shape="arrow", points=arrow, spline=spline, radius_deg=2.5, orientation_deg=turn)
        for spline in (False, True)
        for turn in (0.0, 45.0, 90.0)
    ]
    sets.append(draw(outlines, size_px=SIZE_PX))
    sets += [pink_noise(EACH // 3, alpha=alpha, size_px=SIZE_PX) for alpha in (0.5, 1.0, 1.5)]
    natural = natural_photos(EACH, SIZE_PX, channels=1, seed=4)
    sets.append(natural)
    best = natural.select([3, 4])  # stands for the best of a site
    sets += [phase_scrambled(best, fraction) for fraction in (0.3, 0.6, 1.0)]
    if importlib.util.find_spec("plenoptic") is not None:
        from synth.texture_metamers import TextureConfig, texture_metamers

        surfaces = natural_photos(80, SIZE_PX, channels=1, seed=4)
        places = [surfaces.table["photograph"].tolist().index(name) for name in ("brick", "grass", "gravel")]
        sets.append(texture_metamers(surfaces.select(places), config=TextureConfig(steps=15), device="cpu"))
    sets += [affine_copies(best, EACH // 2), contrast_copies(best, gains=(0.5, 1.5, 2.0))]
    sets += [cropped_copies(best, Aperture(radius, 0.5 * radius, 0.5, -0.5)) for radius in (1.0, 2.0, 3.0)]
    sets += [scenes(EACH // 3, variation=level, size_px=SIZE_PX, seed=3) for level in ("low", "medium", "high")]
    return StimulusSet.concat(sets, name="Families")


def table() -> str:
    """Give the parameters of every parametric family and their ranges as a Markdown table."""
    lines = ["| family | what it is | parameters and where `sample` draws them |", "|---|---|---|"]
    for name, kind in FAMILIES.items():
        what = (kind.__doc__ or "").strip().splitlines()[0].replace("``", "`").replace("|", "\\|").rstrip(".")
        drawn = [
            f"`{key}` {allowed}" for key, allowed in kind.ranges.items() if key not in ("contrast", "x_deg", "y_deg")
        ]
        lines.append(f"| `{name}` | {what} | {'<br>'.join(drawn)} |")
    return "\n".join(lines)


def with_table(page: str) -> str:
    """Put the table between its marks in the page."""
    before, _, rest = page.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{table()}\n{END}{after}"


def main() -> None:
    """Write the picture and the table."""
    page = HERE / "families.md"
    atomic_write(page, with_table(page.read_text(encoding="utf-8")))
    save_contact_sheet(all_families(), HERE / "families.png", columns=12)


if __name__ == "__main__":
    main()
