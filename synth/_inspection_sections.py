"""The sections of the page of one site: pictures with captions, one sentence how to read them, one on their limits.

In: a `SiteInspection`. Out: frozen sections that the template writes. A section that the site cannot have says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neural_fits.site_maps import field_table
from synth import _inspection_pictures as pictures
from synth._inspection_words import STANDS_OUT, extreme_band
from synth._report_words import number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from synth.site_inspection import SiteInspection

_STARTS = {
    "pink": "faint noise, so that nothing in them is of a photograph",
    "uniform": "noise, so that nothing in them is of a photograph",
    "gray": "gray, so that nothing in them is of a photograph",
    "natural": "the best natural images, of which much may be left",
}


@dataclass(frozen=True)
class View:
    """One picture, or an image and the same with maps over it."""

    sources: tuple[tuple[str, str], ...]  # data URI, alternative text
    caption: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    """One view of the site."""

    key: str
    title: str
    reading: str
    limit: str
    views: tuple[View, ...] = ()
    drawings: tuple[View, ...] = ()  # with axes, so larger
    numbers: tuple[tuple[str, str], ...] = ()
    reason: str = ""


def sections(found: SiteInspection) -> list[Section]:
    """Return all sections of a site's page."""
    return [_field(found), _activation(found), _saliency(found), _tuning(found), _made(found)]


def unit_text(found: SiteInspection, value: float) -> str:
    """Write a response with its unit."""
    unit = found.model.info.unit
    return number(float(value)) + (f"\u00a0{unit}" if unit else "")


def degrees(value: float) -> str:
    """Write degrees of visual angle as exactly as a field is known."""
    return f"{value:.1f}".replace("-0.0", "0.0").replace("-", "−") if np.isfinite(value) else "–"


def _field(found: SiteInspection) -> Section:
    height, width = found.model.info.size_px
    wide = found.model.info.size_deg
    size_deg = wide * height / width, wide
    views, numbers = [], []
    shown = (
        ("weights of the readout", "Where the readout puts its weight on the feature map, without any image."),
        ("gradient on images", "Which pixels change the response, on average over natural images."),
    )
    read = found.readout_field
    maps = (
        (read, None if read is None else field_table(read[None], wide, size_deg[0])),
        (found.gradient_field.maps[0], found.gradient_field.table()),
    )
    for (values, table), (name, note) in zip(maps, shown, strict=True):
        if values is not None and table is not None:
            x, y, sd = table.iloc[0, :3].astype(float)
            drawn = pictures.field(values, size_deg, (x, y), sd)
            views.append(View(((drawn, f"Receptive field of {found.site}: {name}"),), name, note))
            where = f"x {degrees(x)}, y {degrees(y)} deg; sd {degrees(sd)} deg"
            if abs(x) + sd > wide / 2 or abs(y) + sd > size_deg[0] / 2:
                where += "; it reaches the border of the image and may go on beyond"
            numbers.append((f"center and width, {name}", where if np.isfinite(x) else "nowhere: the map is empty"))
    return Section(
        "field",
        "Receptive field",
        "Bright is where the site looks (square root of the map); the cross is the center of the part above half of "
        "the maximum, the circle one standard deviation of a Gaussian of that width.",
        "Both maps are the model's: the readout's map leaves out the surround that each position of the layer sees, "
        "and the gradient's holds for small changes of these images.",
        drawings=tuple(views),
        numbers=tuple(numbers),
        reason="" if found.readout_field is not None else f"Weights left out: {found.left_out['readout_field']}",
    )


def _activation(found: SiteInspection) -> Section:
    views: list[View] = []
    if found.activation is not None:
        limit = float(np.abs(found.activation).max()) or 1.0
        shown = [("best", k + 1, place) for k, place in enumerate(found.best)]
        shown += [("worst", k + 1, place) for k, place in enumerate(found.worst)]
        for values, (rank, k, place) in zip(found.activation, shown, strict=True):
            image = found.natural.images([place])[0]
            name = found.natural.stimulus_ids[place]
            pair = (
                (pictures.picture(image), f"Natural image {name}, {rank} {k} of {found.site}"),
                (pictures.map_over(image, values, limit, signed=True), f"Activation map of {found.site} on {name}"),
            )
            views.append(View(pair, f"{rank} {k}: {unit_text(found, found.responses[place])}", name))
    return Section(
        "activation",
        f"Activation maps on its best and worst of {len(found.natural)} natural images",
        "Red drives the site, blue suppresses it, all pictures on one scale; a map adds up to the predicted response "
        f"minus the site's offset of {unit_text(found, found.offset)}.",
        "Best and worst are by the model's prediction, and a position of the map stands for all that the layer sees "
        "round it.",
        tuple(views),
        reason=found.left_out.get("activation", ""),
    )


def _saliency(found: SiteInspection) -> Section:
    maps: list[tuple[str, NDArray[np.float32]]] = [("saliency", found.saliency)]
    if found.smooth_grad is not None:
        maps.append(("SmoothGrad", found.smooth_grad))
    views = []
    for k, place in enumerate(found.best):
        image, name = found.natural.images([place])[0], found.natural.stimulus_ids[place]
        sources = [(pictures.picture(image), f"Natural image {name}")]
        for kind, values in maps:
            sources.append((pictures.speckle_over(image, values[k]), f"{kind} of {found.site} on {name}"))
        views.append(View(tuple(sources), f"best {k + 1}: image, {', '.join(kind for kind, _ in maps)}", name))
    return Section(
        "saliency",
        "Saliency on its best natural images",
        "Yellow pixels would change the response most if they changed a little; SmoothGrad averages this over noisy "
        "copies of the image.",
        "A gradient tells what a small change would do, not what the pixel contributes now; maps are blurred over 1 % "
        "of the width for the eye, and each has its own scale.",
        tuple(views),
        reason="" if found.smooth_grad is not None else f"SmoothGrad is left out: {found.left_out['smooth_grad']}",
    )


def _tuning(found: SiteInspection) -> Section:
    drawings: list[View] = []
    reasons = [found.left_out[part] for part in ("tuning", "gratings") if part in found.left_out]
    if (tuning := found.tuning) is not None and not np.nan_to_num(tuning.correlation).any():
        reasons.append("the contrast of no band changes the response")
    elif tuning is not None:
        bands = tuning.correlation, tuning.edges_cpd, tuning.orientation_deg
        driven, suppressed = extreme_band(tuning, 1), extreme_band(tuning, -1)
        drawn = pictures.spectrum(*bands, "correlation of contrast with response", ring=bool(driven))
        alt = f"Tuning of {found.site} to spatial frequency and orientation"
        none = f"no band stands out ({STANDS_OUT} standard errors)"
        note = (
            f"Most driven: {driven + ' (ring)' if driven else none}; most suppressed: {suppressed or none}; of "
            f"{np.isfinite(tuning.correlation).sum()} bands. "
            f"{tuning.n_images} images disturbed {tuning.n_iterations} times; standard error about "
            f"{np.nanmedian(tuning.standard_error):.2f}. Gray: the images hold no such frequency."
        )
        drawings.append(View(((drawn, alt),), "small changes of natural images", note))
    if found.gratings is not None:
        angles = np.arange(found.gratings.shape[1]) * 180.0 / found.gratings.shape[1]
        unit = f"response minus that to gray ({found.model.info.unit})"
        drawn = pictures.spectrum(found.gratings, found.grating_edges_cpd, angles, unit, ring=True)
        note = "Predicted responses to gratings of full contrast, mean over four phases; ring: the highest."
        drawings.append(View(((drawn, f"Predicted responses of {found.site} to gratings"),), "gratings on gray", note))
    return Section(
        "tuning",
        "Spatial frequency and orientation",
        "Red bands raise the response when their contrast grows, blue ones lower it; orientation is the direction in "
        "which a grating varies, so 0 deg is a vertical grating.",
        "Natural images and gratings need not agree, because the model is nonlinear; values of the first map below two "
        "or three standard errors are noise.",
        drawings=tuple(drawings),
        reason="; ".join(dict.fromkeys(reasons)),
    )


def _made(found: SiteInspection) -> Section:
    made, natural = found.made_images, found.natural
    forecast = made.table["forecast_response"].to_numpy(float)
    best = found.best[0]
    alt = f"Best natural image of {found.site}"
    views = [
        View(
            ((pictures.picture(natural.images([best])[0]), alt),),
            f"best natural: {unit_text(found, found.responses[best])}",
            natural.stimulus_ids[best],
        )
    ]
    seeds = made.table["seed"]
    for name, image, value, seed in zip(made.stimulus_ids, made.images(), forecast, seeds, strict=True):
        shown = ((pictures.picture(image), f"Image made for {found.site}: {name}"),)
        views.append(View(shown, f"made: {unit_text(found, value)}", f"seed {seed}"))
    drawn = pictures.responses(found.responses, forecast, found.model.info.unit)
    return Section(
        "made",
        "Images that maximize the response",
        "What the images share, and natural ones of lower response lack, is what the model thinks the site wants; they "
        f"start from {_STARTS.get(found.made.config.start, found.made.config.start)}.",
        "The numbers are forecasts of the very model that made the images and are too hopeful: judge them by a model "
        "of other images or another network (npc evaluate) and by recording.",
        tuple(views),
        (View(((drawn, f"Predicted responses of {found.site}"),), "predicted responses"),),
    )
