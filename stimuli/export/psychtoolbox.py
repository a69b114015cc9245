"""Psychtoolbox: a function that reads the set into MATLAB or Octave, and a short script that shows it.

The arguments of ``Screen`` (OpenWindow, MakeTexture, DrawTexture, Flip, GetFlipInterval) were read in the demos of
Psychtoolbox. The scripts run in Octave against stand-ins of its functions (in the tests); recalled, not run: the rest
of Psychtoolbox, and `readtable` of MATLAB.
"""

from __future__ import annotations

from stimuli.export._records import background_code
from stimuli.export.bundle import Bundle
from stimuli.templating import render

START = """
In MATLAB or Octave with Psychtoolbox, in the folder psychtoolbox:
  s = load_set();                    order, table, sizes, times, and the pixels by s.read(n)
  run_rsvp()                         shows it; space starts a trial, b breaks it off, escape ends
Logs go to psychtoolbox/logs, one CSV a run. No gamma table is loaded; if GRAY above asks for one, load
it before (LoadNormalizedGammaTable).
Put your eye tracker into is_fixating, in run_rsvp.m. Run by us without a screen only: try it before the
animal is there.
"""


def write(bundle: Bundle) -> None:
    """
    Write load_set.m and run_rsvp.m.

    Parameters
    ----------
    bundle : Bundle
        The set that is being exported.

    Examples
    --------
    >>> write(bundle)  # doctest: +SKIP
    """
    height, width = bundle.stimuli.size_px
    wide = width if bundle.exact else round(bundle.stimuli.size_deg * bundle.display.ppd)
    for name in ("load_set.m", "run_rsvp.m"):
        text = render(
            "stimuli.export",
            f"psychtoolbox_{name}.j2",
            escape=False,
            name=bundle.name,
            size_deg=bundle.stimuli.size_deg,
            width=wide,
            height=height if bundle.exact else round(wide * height / width),
            exact=bundle.exact,
            shift=[
                round(bundle.position_deg[0] * bundle.display.ppd),
                -round(bundle.position_deg[1] * bundle.display.ppd),
            ],
            display=bundle.display,
            background=background_code(bundle.display),
            timing=bundle.order.timing,
        )
        (bundle.folder / "psychtoolbox" / name).write_text(text + "\n", encoding="ascii", newline="\n")
