"""MWorks: an experiment in MWEL that shows the presentations in their order, and the list of images it includes.

Every component and parameter is one of the component reference of MWorks (core/MWComponents.yaml and the mouse input
plug-in, read in their repository), and the states follow its RSVP demo. Not run: MWorks needs macOS. From its source,
not from a run: images beside the folder of the experiment (``../images``) are found and sent to the server; a degree of
MWorks is a fixed share of the whole screen (`own_ppd`); an update of the display ends when the frame is drawn, which is
shown one refresh later, and the predicted time of that is the time of its event #stimDisplayUpdate.
"""

from __future__ import annotations

import math

from stimuli.display import Display
from stimuli.export._records import background_code
from stimuli.export.bundle import Bundle
from stimuli.templating import render

START = """
Open rsvp.mwel in MWClient and run the protocol RSVP (images.mwel belongs to it).
The mouse plays the eye: hold it on the red point. Put your eye tracker, reward and photodiode where
rsvp.mwel says so. Set width, height and distance of the display in MWServer to those of SCREEN above:
MWorks spreads its own degrees over the whole screen, and sizes and positions in rsvp.mwel are written
for these (without them MWServer takes 53.14 degrees for the width). Switch its color management off:
the gray control must be invisible.
A broken image is shown again, first in the next trial, so the order stays as it is.
Events: stimulus_presented (id; "" when it is gone), output_time (when the screen shows that, in us, as
MWorks predicts it), presentation (row of presentation.csv), correct_fixation, trial_start_line. Export
them all to CSV for npc events; without output_time, onsets are up to a frame early.
Written from the documentation of MWorks, not run by us: try it before the animal is there.
"""
_LIST_LINE = 100_000  # images beyond this would make one line of many megabytes


def own_ppd(display: Display) -> float:
    """
    Return the pixels per degree of MWorks, ``resolution_px[0] / (2 atan(width_cm / 2 / distance_cm))``.

    Parameters
    ----------
    display : Display
        The screen.

    Returns
    -------
    float
        Pixels per degree, the same in x and y; more than `Display.ppd`, which is that of the middle of the screen.

    Examples
    --------
    >>> round(own_ppd(Display()), 2), round(Display().ppd, 2)
    (38.5, 36.04)
    """
    return display.resolution_px[0] / (2 * math.degrees(math.atan(display.width_cm / 2 / display.distance_cm)))


def write(bundle: Bundle) -> None:
    """
    Write rsvp.mwel and images.mwel.

    Parameters
    ----------
    bundle : Bundle
        The set that is being exported.

    Raises
    ------
    ValueError
        If there are too many presentations for one experiment.

    Examples
    --------
    >>> write(bundle)  # doctest: +SKIP
    """
    table, order = bundle.stimuli.table, bundle.order.table
    index = {stimulus: k for k, stimulus in enumerate(table["stimulus_id"])}
    if len(order) > _LIST_LINE:
        raise ValueError(
            f"The order has {len(order):,} presentations and one MWorks experiment takes {_LIST_LINE:,}: export fewer "
            "repeats, or parts of the set."
        )
    side, x, y = _place(bundle)
    refresh_hz = bundle.display.refresh_hz
    values = {
        "name": bundle.name,
        "timing": bundle.order.timing,
        "half_frame": 500 / refresh_hz if refresh_hz else 0.0,
        "per_trial": bundle.order.config.images_per_trial,
        "gray": f"{background_code(bundle.display) / 255:.6f}",
        "display": bundle.display,
        "own_ppd": own_ppd(bundle.display),
        "side": side,
        "position": (x, y),
        "count": len(order),
        "images": list(zip(table["stimulus_id"], ("../" + table["filename"]), strict=True)),
        "order": ",".join(str(index[stimulus]) for stimulus in order["stimulus_id"]),
    }
    for name in ("rsvp.mwel", "images.mwel"):
        text = render("stimuli.export", f"{name}.j2", escape=False, **values) + "\n"
        (bundle.folder / "mworks" / name).write_text(text, encoding="utf-8", newline="\n")


def _place(bundle: Bundle) -> tuple[float, float, float]:
    """Return the larger side of the images, which MWorks fits into a square, and their middle in its own degrees."""
    display, (height, width) = bundle.display, bundle.stimuli.size_px
    wide = float(width) if bundle.exact else bundle.stimuli.size_deg * display.ppd
    middle = [degrees * display.ppd for degrees in bundle.position_deg]
    if bundle.exact:  # edges of the image on edges of pixels, also where image or screen is odd
        sides = zip(middle, display.resolution_px, (width, height), strict=True)
        middle = [round(part) + (screen - size) % 2 / 2 for part, screen, size in sides]
    side, x, y = (part / own_ppd(display) for part in (wide * max(1.0, height / width), *middle))
    return side, x, y
