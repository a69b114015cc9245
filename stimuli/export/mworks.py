"""MWorks: an experiment in MWEL that shows the presentations in their order, and the list of images it includes.

Every component and parameter is one of the component reference of MWorks (core/MWComponents.yaml and the mouse input
plug-in, read in their repository), and the states follow its RSVP demo. Not run: MWorks needs macOS. From its source,
not from a run: images beside the folder of the experiment (``../images``) are found and sent to the server.
"""

from __future__ import annotations

from stimuli.export._records import background_code
from stimuli.export.bundle import Bundle
from stimuli.templating import render

START = """
Open rsvp.mwel in MWClient and run the protocol RSVP (images.mwel belongs to it).
The mouse plays the eye: hold it on the red point. Put your eye tracker, reward and photodiode where
rsvp.mwel says so. Set the size of the display and its distance in MWServer, and switch its color
management off: the gray control must be invisible.
A broken image is shown again, first in the next trial, so the order stays as it is.
Events: stimulus_presented (id; "" when it is gone), presentation (row of presentation.csv),
correct_fixation, trial_start_line. Export them to CSV for npc events.
Written from the documentation of MWorks, not run by us: try it before the animal is there.
"""
_LIST_LINE = 100_000  # images beyond this would make one line of many megabytes


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
    height, width = bundle.stimuli.size_px
    values = {
        "name": bundle.name,
        "timing": bundle.order.timing,
        "per_trial": bundle.order.config.images_per_trial,
        "gray": f"{background_code(bundle.display) / 255:.6f}",
        # MWorks fits the larger side into a square of this size
        "size_deg": bundle.stimuli.size_deg * max(1.0, height / width),
        "position": bundle.position_deg,
        "count": len(order),
        "images": list(zip(table["stimulus_id"], ("../" + table["filename"]), strict=True)),
        "order": ",".join(str(index[stimulus]) for stimulus in order["stimulus_id"]),
    }
    for name in ("rsvp.mwel", "images.mwel"):
        text = render("stimuli.export", f"{name}.j2", escape=False, **values) + "\n"
        (bundle.folder / "mworks" / name).write_text(text, encoding="utf-8", newline="\n")
