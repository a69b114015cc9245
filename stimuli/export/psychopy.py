"""PsychoPy: a conditions file, a monitor, and a short frame-counted script that runs as it is.

Checked against the source of PsychoPy 2026.2: the rules of conditions files, and the arguments of `Monitor`, `Window`,
`ImageStim` and `event.getKeys`.
"""

from __future__ import annotations

import pandas as pd

from stimuli import _table
from stimuli.display import Display
from stimuli.event_logs.names import is_nothing
from stimuli.export._checks import is_value
from stimuli.export._records import background_code, write_json
from stimuli.export.bundle import Bundle
from stimuli.templating import render

START = """
python run_rsvp.py                 fixation by the space bar; escape ends; b breaks a trial off
python run_rsvp.py --free          trials follow each other
python run_rsvp.py --windowed      for a test on a desk
Put your eye tracker where the script says so. Logs go to psychopy/logs, one CSV a run.
For the Builder: conditions.csv in a loop of type sequential; image_file is the image. Where an id looks
like a number, which PsychoPy cannot read among words, the column stimulus_id is left out.
"""


def write(bundle: Bundle) -> None:
    """
    Write conditions.csv, monitor.json and run_rsvp.py.

    Parameters
    ----------
    bundle : Bundle
        The set that is being exported.

    Examples
    --------
    >>> write(bundle)  # doctest: +SKIP
    """
    folder = bundle.folder / "psychopy"
    (folder / "conditions.csv").write_text(conditions(bundle), encoding="utf-8", newline="")
    display, timing = bundle.display, bundle.order.timing
    height, width = bundle.stimuli.size_px
    monitor = {
        "name": bundle.name,
        "size_pix": list(display.resolution_px),
        "width_cm": display.width_cm,
        "distance_cm": display.distance_cm,
        "refresh_hz": display.refresh_hz,
        "gamma": display.gamma if corrects(display) else None,
        "background_code": background_code(display),
    }
    write_json(folder / "monitor.json", monitor)
    size_deg = (bundle.stimuli.size_deg, bundle.stimuli.size_deg * height / width)
    script = render(
        "stimuli.export",
        "run_rsvp.py.j2",
        escape=False,
        name=bundle.name,
        exact=bundle.exact,
        units="pix" if bundle.exact else "deg",
        size=(width, height) if bundle.exact else size_deg,
        timing=timing,
        position=bundle.position_deg,
    )
    (folder / "run_rsvp.py").write_text(script + "\n", encoding="utf-8", newline="\n")


def corrects(display: Display) -> bool:
    """
    Say whether run_rsvp.py corrects the curve of a screen: PsychoPy's gamma is the plain ``L = a + k V^gamma``.

    Parameters
    ----------
    display : Display
        The screen.

    Returns
    -------
    bool
        False also where nothing is to be corrected.

    Examples
    --------
    >>> corrects(Display(gamma=2.2, pixel_values="linear")), corrects(Display(gamma=2.2))
    (True, False)
    """
    plain = display.gamma is not None and not display.gamma_offset and display.luminance_table is None
    return plain and display.pixel_values == "linear"


def conditions(bundle: Bundle) -> str:
    """
    Return the conditions: one row a presentation, with names that PsychoPy takes for variables.

    The importer of PsychoPy (2026.2) fails on a column of words in which one looks like a number, and loses one that
    pandas reads as missing: stimulus_id is left out then, and image_file says which image it was.

    Parameters
    ----------
    bundle : Bundle
        The set that is being exported.

    Returns
    -------
    str
        CSV text.

    Examples
    --------
    >>> conditions(bundle).splitlines()[0]  # doctest: +SKIP
    'trial,position,block,repeat,stimulus_id,filename,image_file,onset_ms_nominal,duration_ms'
    """
    order = bundle.order.table
    files = "../" + order["filename"]
    table = pd.concat([order.iloc[:, :6], files.rename("image_file"), order.iloc[:, 6:]], axis=1)
    if any(is_value(name) or is_nothing(name) for name in bundle.stimuli.stimulus_ids):
        table = table.drop(columns="stimulus_id")
    return _table.to_csv(table)
