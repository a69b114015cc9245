"""The command ``npc events``: the log of a rig in, and what it means for the recordings out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from synth.commands.options import AsJson, finish


def events(
    log: Annotated[
        Path,
        typer.Argument(help="Log of the rig: PsychoPy .csv, MWorks event table, BIDS events.tsv, or .nwb."),
    ],
    stimuli: Annotated[Path, typer.Option("--set", help="Folder of the set that was exported and shown.")],
    format: Annotated[
        str | None, typer.Option(help="psychopy, mworks, bids or nwb; by default told from the file.")
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(help="Where there are several: PsychoPy's component, or the table or IndexSeries of an NWB file."),
    ] = None,
    responses: Annotated[
        Path | None,
        typer.Option(
            help="Responses, one row per presentation in the order of the log: .npy (presentation, site), or .csv with "
            "site ids in its first row."
        ),
    ] = None,
    window_ms: Annotated[
        tuple[float, float] | None, typer.Option(help="Counting window of the responses after onset, in ms.")
    ] = None,
    unit: Annotated[str, typer.Option(help="Unit of the responses.")] = "spikes/window",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="With --responses the recordings (.nc .nwb .h5 .npz .csv .parquet), else the log (.csv).",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read what a rig has shown, number the repeats by it, and line responses up with it.

    Broken presentations count for nothing. The recordings that come out are what npc fit, npc evaluate and npc loop
    take.

    Example: npc events run1.csv --set exported/

    Example: npc events run1.csv --set exported/ --responses trials.npy --window-ms 70 170 --out recorded.nc
    """
    from neural_fits.line_up import line_up
    from stimuli import StimulusSet
    from stimuli.event_logs import read_event_log

    if responses is not None and out is None:
        raise ValueError("--responses makes recordings: say by --out where to write them, such as --out recorded.nc")
    shown = read_event_log(log, StimulusSet.load(stimuli), format, part=part)
    counts = shown.counts()
    result: dict[str, Any] = {
        "format": shown.format,
        "presentations": len(shown),
        "broken": int((~shown.shown).sum()),
        "stimuli": len(counts),
        "fewest_repeats": int(counts.min()),
        "most_repeats": int(counts.max()),
        "never_shown": [str(name) for name in counts.index[counts == 0]],
    }
    if responses is not None and out is not None:
        values, sites = _read_responses(responses)
        recorded = line_up(shown, values, sites, window_ms=window_ms, unit=unit)
        recorded.save(out)
        result |= {"sites": len(sites), "recordings": str(out)}
    elif out is not None:
        if out.suffix.lower() != ".csv":
            raise ValueError(f"--out {str(out)!r} is for the log without --responses: give a name that ends in .csv")
        result["log"] = str(shown.to_csv(out))
    if not as_json:
        typer.echo(repr(shown))
        missing = result["never_shown"]
        typer.echo(
            f"repeats per stimulus: {result['fewest_repeats']} to {result['most_repeats']}"
            + (f"; never shown: {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}" if missing else "")
        )
    finish(result, out or log, as_json)


def _read_responses(path: Path) -> tuple[Any, list[str]]:
    """Return responses (presentation, site[, time]) and ids of the sites, numbered where the file names none."""
    import numpy as np
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: give responses as .npy or .csv")
    if path.suffix.lower() == ".npy":
        try:
            array = np.load(path, allow_pickle=False)
        except ValueError as error:
            raise ValueError(f"{str(path)!r} cannot be read as an array: save plain numbers by numpy.save") from error
        if array.ndim < 2:
            raise ValueError(f"{str(path)!r} holds an array of shape {array.shape}: (presentation, site) is expected")
        return array, [f"site_{k + 1:04d}" for k in range(array.shape[1])]
    if path.suffix.lower() != ".csv":
        raise ValueError(f"{str(path)!r} is neither .npy nor .csv: give responses as one of these")
    try:
        table = pd.read_csv(path, dtype=np.float64)
    except (ValueError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{str(path)!r} is not a table of numbers under site ids ({reason}): one row per presentation is expected"
        ) from error
    return table.to_numpy(), [str(name) for name in table.columns]
