"""The sections of the page of one site: pictures with captions, one sentence how to read them, one on their limits.

In: a `SiteInspection`. Out: frozen sections that the template writes. A section that the site cannot have says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neural_fits.inspection.receptive_fields import GradientFields
from synth import _inspection_pictures as pictures
from synth._report_words import number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neural_fits.inspection.spectral_tuning import SpectralTuning
    from synth.site_inspection import SiteInspection

#: standard errors beyond which the largest of about a hundred bands is hardly noise
_STANDS_OUT = 3


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


def field_tables(found: SiteInspection) -> tuple[GradientFields, GradientFields]:
    """Return the readout's field and the gradient's with names for people."""
    height, width = found.model.info.size_px
    wide = found.model.info.size_deg
    return GradientFields(("readout",), found.readout_field[None], wide, wide * height / width), found.gradient_field


def unit_text(found: SiteInspection, value: float) -> str:
    """Write a response with its unit."""
    unit = found.model.info.unit
    return number(float(value)) + (f"\u00a0{unit}" if unit else "")


def _field(found: SiteInspection) -> Section:
    height, width = found.model.info.size_px
    wide = found.model.info.size_deg
    views, numbers = [], []
    captions = (
        ("weights of the readout", "Where the readout puts its weight on the feature map, without any image."),
        ("gradient on images", "Which pixels change the response, on average over natural images."),
    )
    for each, (name, note) in zip(field_tables(found), captions, strict=True):
        row = each.table().iloc[0]
        center = float(row["rf_x_deg"]), float(row["rf_y_deg"])
        drawn = pictures.field(each.maps[0], (wide * height / width, wide), center, float(row["rf_sd_deg"]))
        views.append(View(((drawn, f"Receptive field of {found.site}: {name}"),), name, note))
        where = f"x {number(center[0])}, y {number(center[1])} deg; sd {number(float(row['rf_sd_deg']))} deg"
        numbers.append((f"center and width, {name}", where))
    return Section(
        "field",
        "Receptive field",
        "Bright is where the site looks (square root of the map); the cross is its center, the circle one standard "
        "deviation.",
        "Both maps are the model's: the readout's map leaves out the surround that each position of the layer sees, "
        "and the gradient's holds for small changes of these images.",
        drawings=tuple(views),
        numbers=tuple(numbers),
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
                (pictures.map_over(image, values, limit), f"Activation map of {found.site} on {name}"),
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
            blurred = pictures.smooth(values[k])
            high = float(np.quantile(blurred, 0.995)) or 1.0  # a few pixels would darken all others
            sources.append((pictures.map_over(image, blurred, high), f"{kind} of {found.site} on {name}"))
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
    numbers: tuple[tuple[str, str], ...] = ()
    if (tuning := found.tuning) is not None:
        bands = tuning.correlation, tuning.edges_cpd, tuning.orientation_deg
        drawn = pictures.spectrum(*bands, "correlation of contrast with response")
        alt = f"Tuning of {found.site} to spatial frequency and orientation"
        error = float(np.nanmedian(tuning.standard_error))
        note = f"{tuning.n_images} images disturbed {tuning.n_iterations} times; standard error about {number(error)}."
        drawings.append(View(((drawn, alt),), "small changes of natural images", note))
        numbers = tuple(
            _extreme(tuning, name, sign) for name, sign in (("most driven by", 1), ("most suppressed by", -1))
        )
    if found.gratings is not None:
        angles = np.arange(found.gratings.shape[1]) * 180.0 / found.gratings.shape[1]
        unit = f"response minus that to gray ({found.model.info.unit})"
        drawn = pictures.spectrum(found.gratings, found.grating_edges_cpd, angles, unit)
        note = "Predicted responses to gratings of full contrast, mean over four phases."
        drawings.append(View(((drawn, f"Predicted responses of {found.site} to gratings"),), "gratings on gray", note))
    reasons = {found.left_out[part] for part in ("tuning", "gratings") if part in found.left_out}
    return Section(
        "tuning",
        "Spatial frequency and orientation",
        "Red bands raise the response when their contrast grows, blue ones lower it; orientation is the direction in "
        "which a grating varies, so 0 deg is a vertical grating.",
        "Natural images and gratings need not agree, because the model is nonlinear; values of the first map below two "
        "or three standard errors are noise.",
        drawings=tuple(drawings),
        numbers=numbers,
        reason="; ".join(sorted(reasons)),
    )


def _extreme(tuning: SpectralTuning, name: str, sign: int) -> tuple[str, str]:
    """Return the band that moves the site most in one direction, where one stands out of the noise."""
    beyond = sign * tuning.correlation / np.where(tuning.standard_error > 0, tuning.standard_error, np.nan)
    if not (np.nan_to_num(beyond) > _STANDS_OUT).any():
        return f"{name}, on natural images", f"no band beyond {_STANDS_OUT} standard errors"
    frequency, orientation = tuning.preferred(sign)
    return f"{name}, on natural images", f"{number(frequency)} cycles/deg at {orientation:.0f} deg"


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
        "What the images share, and natural ones of lower response lack, is what the model thinks the site wants.",
        "The numbers are forecasts of the very model that made the images and are too hopeful: judge them by a model "
        "of other images or another network (npc evaluate) and by recording.",
        tuple(views),
        (View(((drawn, f"Predicted responses of {found.site}"),), "predicted responses"),),
    )
