"""NIMH MonkeyLogic: a conditions file with one condition a trial, and a timing script.

Checked against the documentation of NIMH MonkeyLogic (columns of conditions files, ``pic``, search path) and its
runtime library 2 (``create_scene``, ``run_scene``, ``Info``), read in their sources, and so is the size of its degree
(mlconfig.m: `own_ppd`; a setting of newer versions, AdjustedPPD, off by default, has another). Recalled, not run: that
a HoldTime in milliseconds becomes the nearest number of frames (half a frame is taken off to help it), that timing
scripts know ``Screen.PixelsPerDegree`` (public ones use it), and that names which begin with ``../`` are found from the
task folder. MonkeyLogic needs Windows and MATLAB.
"""

from __future__ import annotations

import math

from stimuli.display import Display
from stimuli.export.bundle import Bundle
from stimuli.templating import render

START = """
In MATLAB: monkeylogic; load conditions.txt. Conditions: increasing order; on error: repeat immediately;
one block; trials to run: all conditions. Set resolution, diagonal and distance of the subject screen as
in SCREEN above, and its background to the gray code above, divided by 255. Sizes are in pixels, positions
in MonkeyLogic's own degrees: its menu must show the px/deg that stand for it in SCREEN above.
If images are not found, add the folder images by "Set path". Photodiode trigger: in the main menu.
Condition c is trial c - 1 of presentation.csv. Event codes: 10 fixation point, 101 first image on, 102
second image on and so forth, 200 image off, 90 reward. Onsets in ms: the user variable onset_ms.
Written from the documentation of MonkeyLogic, not run by us: try it before the animal is there.
"""
MOST_IMAGES = 90  # of a trial: each has an event code from 101 on, and 200 is taken
_FIXED = ("Condition", "Info", "Frequency", "Block", "Timing File", "TaskObject#1")


def own_ppd(display: Display) -> float:
    """
    Return the pixels per degree of MonkeyLogic, ``diagonal_px / (2 atan(diagonal_cm / 2 / distance_cm))``.

    Parameters
    ----------
    display : Display
        The screen.

    Returns
    -------
    float
        Pixels per degree; more than `Display.ppd`, which is that of the middle of the screen.

    Examples
    --------
    >>> round(own_ppd(Display()), 2), round(Display().ppd, 2)
    (39.23, 36.04)
    """
    diagonal_cm = math.hypot(display.width_cm, display.height_cm)
    diagonal_deg = 2 * math.degrees(math.atan(diagonal_cm / 2 / display.distance_cm))
    return math.hypot(*display.resolution_px) / diagonal_deg


def write(bundle: Bundle) -> None:
    """
    Write conditions.txt and rsvp_timing.m.

    Parameters
    ----------
    bundle : Bundle
        The set that is being exported.

    Raises
    ------
    ValueError
        If a trial has too many images.

    Examples
    --------
    >>> write(bundle)  # doctest: +SKIP
    """
    folder = bundle.folder / "monkeylogic"
    (folder / "conditions.txt").write_text(conditions(bundle), encoding="ascii", newline="\n")
    refresh_hz = bundle.display.refresh_hz
    script = render(
        "stimuli.export",
        "rsvp_timing.m.j2",
        escape=False,
        name=bundle.name,
        timing=bundle.order.timing,
        half_frame=f"{500 / refresh_hz:.3f}" if refresh_hz else "0",
        own_ppd=None if bundle.position_deg == (0.0, 0.0) else f"{own_ppd(bundle.display):.4f}",
    )
    (folder / "rsvp_timing.m").write_text(script + "\n", encoding="ascii", newline="\n")


def conditions(bundle: Bundle) -> str:
    r"""
    Return the conditions: tab-delimited, one row a trial, numbered from 1 without gaps.

    Parameters
    ----------
    bundle : Bundle
        The set that is being exported.

    Returns
    -------
    str
        The text of the file; a shorter last trial has fewer columns, and none is empty.

    Raises
    ------
    ValueError
        If a trial has too many images.

    Examples
    --------
    >>> conditions(bundle).splitlines()[1][:30]  # doctest: +SKIP
    "1\t'trial',0,'images',6\t1\t1\trs"
    """
    order = bundle.order.table
    longest = int(order.groupby("trial").size().max())
    if longest > MOST_IMAGES:
        raise ValueError(
            f"A trial has {longest} images and MonkeyLogic's script takes {MOST_IMAGES}: set fewer images per trial."
        )
    height, width = bundle.stimuli.size_px
    x, y = (_short(degrees * bundle.display.ppd / own_ppd(bundle.display)) for degrees in bundle.position_deg)
    size = ""
    if not bundle.exact:
        wide = bundle.stimuli.size_deg * bundle.display.ppd
        size = f",{round(wide)},{round(wide * height / width)}"
    lines = ["\t".join([*_FIXED, *(f"TaskObject#{k + 2}" for k in range(longest))])]
    for trial, rows in enumerate(order.groupby("trial")["filename"].agg(list)):
        info = f"'trial',{trial},'images',{len(rows)}"
        images = [f"pic(../{name},{x},{y}{size})" for name in rows]
        lines.append("\t".join([str(trial + 1), info, "1", "1", "rsvp_timing", "fix(0,0)", *images]))
    return "\n".join(lines) + "\n"


def _short(number: float) -> str:
    """Return a number with up to four decimals, never with an exponent."""
    return f"{number:.4f}".rstrip("0").rstrip(".")
