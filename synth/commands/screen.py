"""The options that describe a screen, shared by the commands of ``npc`` that make stimuli for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stimuli import Display

Screen = Annotated[
    str | None, typer.Option("--screen", metavar="WxH", help="Resolution of the screen in pixels, such as 1920x1080.")
]
WidthCm = Annotated[float | None, typer.Option("--width-cm", help="Width of the visible screen in cm.")]
DistanceCm = Annotated[float | None, typer.Option("--distance-cm", help="Distance from eye to screen in cm.")]


def screen_from(screen: str | None, width_cm: float | None, distance_cm: float | None) -> Display | None:
    """Return the display that the three options describe, or None where none is given."""
    from stimuli import Display

    if screen is None or width_cm is None or distance_cm is None:
        given = {"--screen": screen, "--width-cm": width_cm, "--distance-cm": distance_cm}
        missing = [name for name, value in given.items() if value is None]
        if len(missing) == len(given):
            return None
        raise ValueError(f"{' and '.join(missing)} is missing: a screen needs --screen, --width-cm and --distance-cm")
    sides = screen.lower().split("x")
    if len(sides) != 2 or not all(side.strip().isascii() and side.strip().isdigit() for side in sides):
        raise ValueError(f"--screen is {screen!r}; give width x height in pixels, such as 1920x1080")
    return Display(resolution_px=(int(sides[0]), int(sides[1])), width_cm=width_cm, distance_cm=distance_cm)
