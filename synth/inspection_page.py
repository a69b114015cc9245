"""Show what a model says of its sites: one self-contained page a site, and an index of them.

In: `SiteInspection`s. Out: HTML without scripts or outside references, or a folder of pages. Called by ``npc inspect``.
jinja2 and matplotlib are imported when something is rendered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stimuli.files import atomic_folder, made_of
from stimuli.templating import render
from synth import _inspection_pictures as pictures
from synth._inspection_sections import degrees, sections, unit_text
from synth._inspection_words import model_words, site_title
from synth._report_words import number
from synth.recipes import RECIPES
from synth.site_inspection import SiteInspection

#: what a folder of inspections holds, so that it may be replaced
INSPECTION_FILES = made_of("index.html", "sites", "maximizing")


def inspection_html(found: SiteInspection, facts: Mapping[str, str] | None = None, index: str = "") -> str:
    """Render one site as a self-contained HTML page.

    Parameters
    ----------
    found : SiteInspection
        What to show.
    facts : mapping of str to str, optional
        What else to state at the end.
    index : str
        Address of the page of all sites; no link where empty.

    Returns
    -------
    str
        The page. Equal inspections and facts give equal text.

    Examples
    --------
    >>> page = inspection_html(inspect_sites(model, "site03")[0])  # doctest: +SKIP
    """
    shown = sections(found)
    return render(
        "synth",
        "inspection.html.j2",
        title=site_title(found.site),
        index=index,
        model=model_words(found.model),
        figures=_key_figures(found),
        doubt=_doubt(found),
        sections=shown,
        facts={**_own_facts(found), **(facts or {})},
    )


def inspection_index_html(inspections: Sequence[SiteInspection], pages: Sequence[str]) -> str:
    """Render the page that leads to the pages of all sites.

    Parameters
    ----------
    inspections : sequence of SiteInspection
        The sites.
    pages : sequence of str
        The address of each page.

    Returns
    -------
    str
        The page.

    Raises
    ------
    ValueError
        When there is no site, or not one page a site.
    """
    if not inspections or len(inspections) != len(pages):
        raise ValueError(f"{len(inspections)} inspections and {len(pages)} pages; give at least one, and one page each")
    return render(
        "synth",
        "inspection_index.html.j2",
        title="Inside the sites",
        model=model_words(inspections[0].model),
        natural=len(inspections[0].natural),
        cards=[_card(found, page) for found, page in zip(inspections, pages, strict=True)],
    )


def save_inspections(
    inspections: Sequence[SiteInspection],
    folder: str | Path,
    overwrite: bool = False,
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Write ``index.html``, ``sites/SITE.html`` and the stimulus set ``maximizing``, whole or not at all.

    Parameters
    ----------
    inspections : sequence of SiteInspection
        The sites, of one call of `inspect_sites`.
    folder : str or Path
        Where to write.
    overwrite : bool
        Replace earlier pages.
    facts : mapping of str to str, optional
        What else to state on every page.

    Returns
    -------
    Path
        The index.

    Raises
    ------
    FileExistsError
        When something is there and `overwrite` is False, or it is something else.
    """
    names = page_names([found.site for found in inspections])
    with atomic_folder(folder, overwrite, INSPECTION_FILES) as place:
        (place / "sites").mkdir()
        for found, name in zip(inspections, names, strict=True):
            page = inspection_html(found, facts, "../index.html")
            (place / "sites" / name).write_text(page, encoding="utf-8")
        index = inspection_index_html(inspections, [f"sites/{name}" for name in names])
        (place / "index.html").write_text(index, encoding="utf-8")
        inspections[0].made.save(place / "maximizing")
    return Path(folder) / "index.html"


def page_names(sites: Sequence[str]) -> list[str]:
    """Return a file name for every site that no file system minds, and none twice.

    Parameters
    ----------
    sites : sequence of str
        Ids of the sites.

    Returns
    -------
    list of str
        Names that end in ``.html``.

    Examples
    --------
    >>> page_names(["V4/3", "V4.3", "../../x"])
    ['V4-3.html', 'V4-3_2.html', 'x.html']
    """
    used: dict[str, int] = {}
    names = []
    for site in sites:
        stem = re.sub("[^A-Za-z0-9]+", "-", site).strip("-")[:60] or "site"
        used[stem.lower()] = count = used.get(stem.lower(), 0) + 1
        while count > 1 and f"{stem}_{count}".lower() in used:
            count += 1
        names.append(f"{stem}_{count}.html" if count > 1 else f"{stem}.html")
        used.setdefault(names[-1].removesuffix(".html").lower(), 1)
    return names


def _key_figures(found: SiteInspection) -> list[tuple[str, str]]:
    figures = []
    if found.model.scores is not None and found.site in found.model.scores.index:
        row = found.model.scores.loc[found.site]
        for column, label in (("explained_variance", "explained variance, held out"), ("r", "correlation, held out")):
            if column in row and np.isfinite(row[column]):
                cut = " (cut at 0)" if column == "explained_variance" and row[column] == 0 else ""
                figures.append((f"{row[column]:.2f}".replace("-", "−"), label + cut))
    unit = found.model.info.unit
    best, forecast = found.responses[found.best[0]], found.made_images.table["forecast_response"].max()
    figures.append((number(float(best)), f"{unit}, predicted, best natural image"))
    figures.append((number(float(forecast)), f"{unit}, predicted, best image made for it"))
    row = found.gradient_field.table().iloc[0]
    center = f"{degrees(row['rf_x_deg'])}, {degrees(row['rf_y_deg'])}"
    figures.append((center, "deg right and up of the middle: center of the field (gradient on images)"))
    return figures


def _doubt(found: SiteInspection) -> str:
    """Say that a model does not predict a site, where its held-out scores show that."""
    if found.model.scores is None or found.site not in found.model.scores.index:
        return ""
    row = found.model.scores.loc[[found.site]].reindex(columns=["r", "explained_variance_low"])
    r, low = row.to_numpy(float)[0]
    if not (r <= 0 or low <= 0):
        return ""
    why = f"its correlation is {r:.2f}" if r <= 0 else "the interval of its explained variance includes 0"
    return (
        f"No evidence that the model predicts this site: on held-out images {why.replace('-', '−')}. What follows "
        "describes the model, hardly the site."
    )


def _card(found: SiteInspection, page: str) -> dict[str, Any]:
    best = found.natural.images([found.best[0]])[0]
    forecast = found.made_images.table["forecast_response"].to_numpy(float)
    strongest = int(np.nanargmax(forecast)) if np.isfinite(forecast).any() else 0
    shown = [
        (
            pictures.picture(best),
            f"Best natural image of {found.site}",
            unit_text(found, found.responses[found.best[0]]),
        ),
        (
            pictures.speckle_over(best, found.gradient_field.maps[0]),
            f"Which pixels change the response of {found.site}",
            "receptive field",
        ),
        (
            pictures.picture(found.made_images.images([strongest])[0]),
            f"Image made for {found.site}",
            f"made: {unit_text(found, forecast[strongest])}",
        ),
    ]
    figures = _key_figures(found)[:2]
    return {"site": found.site, "page": page, "pictures": shown, "figures": figures, "doubt": _doubt(found)}


def _own_facts(found: SiteInspection) -> dict[str, str]:
    info = found.model.info
    height, width = info.size_px
    config, record = found.made.config, found.made.stimuli.provenance
    like = (name for name, known in RECIPES.items() if replace(known, start=config.start, steps=config.steps) == config)
    seeds = ", ".join(str(seed) for seed in found.made_images.table["seed"])
    return {
        "images": f"{info.channels} × {height} × {width} px (channel, height, width), {info.size_deg:g} deg wide",
        "natural images": f"{len(found.natural)}, {found.natural.name}",
        "images made": f"recipe {next(like, 'custom')!r}, start {config.start!r}, {config.steps} steps, seeds {seeds}",
        **{f"SHA-256 of the {what}": digest[:16] for what, digest in found.sha256.items()},
        "software": f"{record['project']} {record['version']}, torch {record['packages']['torch']}",
    }
