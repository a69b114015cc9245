"""README_RIG.txt: one page that says what is in an exported set and how to start it on each rig."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping

from stimuli.display import Display
from stimuli.export import monkeylogic, mworks, psychopy
from stimuli.export._records import background_code
from stimuli.export.bundle import Bundle
from stimuli.gray import GRAY_CODE
from stimuli.sequence import PresentationOrder
from stimuli.templating import render

WIDTH = 100
_LEAST_PPD, _MOST_PPD = 10.0, 150.0
_NOT_SAID = "unknown"  # neither a measured curve nor a correction is stated
_LIGHT = {
    _NOT_SAID: "No gamma is built into the images, and nothing is stated of the light that a code becomes. Leave the "
    "rig as it is in all of your sessions; where it corrects its screen, say so by --pixel-values linear.",
    "display": "No gamma is built into the images, and the set was made for this screen as it is: load no gamma table, "
    "correct nothing.",
    "linear": "No gamma is built into the images. Light must be proportional to the code: correct the curve of the "
    "screen in the rig, and measure that it is straight.",
    "srgb": "The codes are sRGB: set the screen to sRGB, and measure that it shows it.",
}
_OWN_PPD = {"mworks": mworks.own_ppd, "monkeylogic": monkeylogic.own_ppd}  # degrees that are shares of the whole screen
_VALUES = {
    _NOT_SAID: "not stated: as the rig is set up",
    "display": "unchanged through the screen's own curve, which the rig must not correct",
    "linear": "proportional to luminance, so the rig must correct the curve of the screen",
    "srgb": "sRGB, so the rig must show sRGB",
}


def notes(
    display: Display,
    size_px: tuple[int, int],
    size_deg: float,
    order: PresentationOrder,
    position_deg: tuple[float, float] = (0.0, 0.0),
) -> list[str]:
    """
    Return what a rig should be told loudly, one sentence each.

    Parameters
    ----------
    display : Display
        The screen.
    size_px : tuple of int
        Height and width of the images.
    size_deg : float
        Their width on the screen in degrees.
    order : PresentationOrder
        The order of presentations.
    position_deg : tuple of float
        Middle of the images, x to the right and y up.

    Returns
    -------
    list of str
        Nothing where the rig shows the pixels as they are, at the times that were asked for.

    Examples
    --------
    >>> from stimuli.sequence import SequenceConfig, presentation_order
    >>> order = presentation_order(["a", "b"], SequenceConfig(repeats=1), refresh_hz=60)
    >>> notes(Display(width_cm=60.0, refresh_hz=60, gamma=2.2), (255, 255), 8.0, order)
    ['The lead-in is 166.667 ms on this screen instead of 160.']
    """
    found = []
    resampled = display.resampling(size_px, size_deg)
    if resampled is not None:
        found.append(resampled)
    if not _LEAST_PPD <= display.ppd <= _MOST_PPD:
        found.append(
            f"This screen has {display.ppd:.3g} px/deg, which few have: check its resolution, its width and its "
            "distance (both in cm)."
        )
    half_deg = (size_deg / 2, size_deg / 2 * size_px[0] / size_px[1])
    reach = [(abs(p) + h) * display.ppd for p, h in zip(position_deg, half_deg, strict=True)]
    if any(2 * r > side + 1 for r, side in zip(reach, display.resolution_px, strict=True)):
        found.append("The images reach beyond the edge of this screen: show them smaller, or nearer to its middle.")
    if background_code(display) != GRAY_CODE:
        found.append(
            f"The background of this screen is the code {background_code(display)} and the gray of the images is "
            f"{GRAY_CODE}: every image will stand out as a square."
        )
    if display.pixel_values == "display" and display.gamma is None and display.luminance_table is None:
        found.append("Nothing is known of the luminance of this screen: measure it, to know what light was shown.")
    if display.pixel_values == "linear" and not psychopy.corrects(display):
        found.append(
            "Light must be proportional to the code, and no script here corrects the curve of this screen "
            f"({_curve(display)}): load its gamma table yourself before every run."
        )
    if order.refresh_hz is None:
        found.append("The refresh rate is not known, so times are not rounded to frames.")
    words = {"duration_ms": "image", "gap_ms": "gap", "lead_in_ms": "lead-in", "inter_trial_ms": "time between trials"}
    for name, word in words.items():
        asked, shown = getattr(order.config, name), getattr(order.timing, name)
        if abs(asked - shown) > 0.01:
            found.append(f"The {word} is {shown:g} ms on this screen instead of {asked:g}.")
    if display.refresh_hz is not None and order.refresh_hz not in (None, display.refresh_hz):
        found.append(f"The order was made for {order.refresh_hz:g} Hz and the screen has {display.refresh_hz:g} Hz.")
    return found


def facts(bundle: Bundle) -> dict[str, str]:
    """
    Return what report and README say of an exported set.

    Parameters
    ----------
    bundle : Bundle
        The set that is being exported.

    Returns
    -------
    dict of str to str
        Names and values, in order.

    Examples
    --------
    >>> facts(bundle)["trials"]  # doctest: +SKIP
    '40 of 6 images (the last may be shorter)'
    """
    order, display = bundle.order, bundle.display
    timing, config = order.timing, order.config
    trials = int(order.table["trial"].iloc[-1]) + 1
    minutes, seconds = divmod(round(order.seconds), 60)
    told = {
        "presentations": f"{len(order.table):,} in {int(order.table['block'].iloc[-1]) + 1} blocks",
        "trials": f"{trials:,} of {config.images_per_trial} images (the last may be shorter)",
        "timing": f"image {timing.duration_ms:g} ms, gap {timing.gap_ms:g} ms, lead-in {timing.lead_in_ms:g} ms, "
        f"{timing.inter_trial_ms:g} ms between trials",
        "nominal duration": f"{minutes} min {seconds} s, if no trial is broken off",
        "order": f"seed {config.seed}, animal {config.animal or 'not named'}, day {config.day or 'not named'}",
        "position": "at the fixation point"
        if bundle.position_deg == (0.0, 0.0)
        else "middle at x {:g}, y {:g} deg from the fixation point (x right, y up)".format(*bundle.position_deg),
        "pixel values": _VALUES[_stated(display)],
    }
    if config.normalizers:
        told["normalizers"] = f"{len(config.normalizers)}, shown {1 + config.normalizers_per_block} times a block"
    if bundle.predictions:
        told["predicted responses"] = ", ".join(bundle.predictions)
    return told


def _stated(display: Display) -> str:
    known = display.gamma is not None or display.luminance_table is not None
    return _NOT_SAID if display.pixel_values == "display" and not known else display.pixel_values


def readme(bundle: Bundle, starts: Mapping[str, str]) -> str:
    """
    Write the page.

    Parameters
    ----------
    bundle : Bundle
        The set that is being exported.
    starts : mapping of str to str
        How to start on each rig, by its folder.

    Returns
    -------
    str
        Plain text.

    Examples
    --------
    >>> print(readme(bundle, {}))  # doctest: +SKIP
    """
    display, stimuli = bundle.display, bundle.stimuli
    height, width = stimuli.size_px
    told = facts(bundle)
    pad = max(map(len, told)) + 2
    told_loudly = notes(display, stimuli.size_px, stimuli.size_deg, bundle.order, bundle.position_deg)
    return render(
        "stimuli.export",
        "README_RIG.txt.j2",
        escape=False,
        name=bundle.name,
        count=len(stimuli),
        kind="gray" if stimuli.shape[0] == 1 else "color",
        width=width,
        height=height,
        size_deg=stimuli.size_deg,
        display=display,
        blank=bundle.blank_id,
        background=background_code(display),
        diagonal_cm=math.hypot(display.width_cm, display.height_cm),
        own_ppd={name: f"{ppd(display):.2f}" for name, ppd in _OWN_PPD.items() if name in starts},
        light=_wrapped(_light(display, "psychopy" in starts), "  "),
        notes=[_wrapped(note, "  ! ") for note in told_loudly],
        facts=[_wrapped(value, f"  {key:<{pad}}") for key, value in told.items()],
        starts={name: _indented(text) for name, text in starts.items()},
        predictions=list(bundle.predictions),
    )


def _curve(display: Display) -> str:
    if display.luminance_table is not None:
        return "photometer readings"
    return "not known: measure it" if display.gamma is None else "a gamma with an offset"


def _light(display: Display, by_psychopy: bool) -> str:
    """Say what the rig has to do about the curve of its screen."""
    corrected = by_psychopy and psychopy.corrects(display)
    return _LIGHT[_stated(display)] + (f" run_rsvp.py corrects the gamma {display.gamma:g}." if corrected else "")


def _wrapped(text: str, first: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first), break_long_words=False)


def _indented(text: str) -> str:
    lines = textwrap.dedent(text).strip().splitlines()
    return "\n".join(_wrapped(line, "  ") if len(line) > WIDTH + 4 else f"  {line}" for line in lines)
