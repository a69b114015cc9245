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
            help="Responses, one row per presentation in the order of the log: .npy (presentation, site[, time]), or "
            ".csv with site ids in its first row."
        ),
    ] = None,
    sites: Annotated[
        Path | None,
        typer.Option(
            help="Ids of the sites in the order of the columns of .npy, one per line, or .csv with the column site_id "
            "and others, such as region."
        ),
    ] = None,
    window_ms: Annotated[
        tuple[float, float] | None, typer.Option(help="Counting window of the responses after onset, in ms.")
    ] = None,
    time_bins_ms: Annotated[
        tuple[float, float] | None,
        typer.Option(help="For .npy with time: start of the first bin after onset and width of each, in ms."),
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

    Example: npc events run1.csv --set exported/ --responses trials.npy --sites ids.txt --window-ms 70 170 --out day1.nc

    Several runs or sessions: one call for each log with the responses to it. Then npc fit exported/ run1.nc run2.nc,
    npc evaluate --recordings run1.nc --recordings run2.nc: repeats come side by side, sites are matched by their ids.
    """
    from neural_fits.line_up import line_up
    from neural_fits.trial_responses import read_sites, read_trial_responses
    from stimuli import StimulusSet
    from stimuli.event_logs import read_event_log

    if responses is not None and out is None:
        raise ValueError("--responses makes recordings: say by --out where to write them, such as --out recorded.nc")
    lost = next((name for name, given in (("--sites", sites), ("--time-bins-ms", time_bins_ms)) if given), None)
    if responses is None and lost is not None:
        raise ValueError(f"{lost} tells of the responses: give them by --responses, or leave {lost} out")
    _refuse_to_replace(out, [log, responses, sites, stimuli / "stimuli.csv", stimuli / "presentation.csv"])
    shown = read_event_log(log, StimulusSet.load(stimuli), format, part=part)
    counts, notes = shown.counts(), list(shown.notes)
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
        values, named = read_trial_responses(responses, None if sites is None else read_sites(sites))
        bins = _time_bins(time_bins_ms, values.shape, responses)
        recorded = line_up(shown, values, named, window_ms=window_ms, time_bins_ms=bins, unit=unit)
        recorded.save(out)
        if sites is None and responses.suffix.lower() == ".npy":
            notes.append(
                f"the sites are called {named.index[0]} to {named.index[-1]} by their columns, and recordings are "
                "joined by these ids: name them by --sites where other files have other columns"
            )
        besides = recorded.stimulus_ids[len(shown.stimulus_ids) :]
        if besides:
            notes.append(
                f"the recordings hold {', '.join(besides)} besides the set; npc fit wants the exported folder, which "
                "has it too"
            )
        result |= {"sites": len(named), "recordings": str(out)}
    elif out is not None:
        if out.suffix.lower() != ".csv":
            raise ValueError(f"--out {str(out)!r} is for the log without --responses: give a name that ends in .csv")
        result["log"] = str(shown.to_csv(out))
    for note in notes:
        typer.echo(f"npc: {note}", err=True)
    result["notes"] = notes
    if not as_json:
        typer.echo(repr(shown))
        missing = result["never_shown"]
        typer.echo(
            f"repeats per stimulus: {result['fewest_repeats']} to {result['most_repeats']}"
            + (f"; never shown: {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}" if missing else "")
        )
    finish(result, out or log, as_json)


def _refuse_to_replace(out: Path | None, given: list[Path | None]) -> None:
    for path in given:
        if out is not None and path is not None and out.exists() and path.exists() and out.samefile(path):
            raise ValueError(f"--out {str(out)!r} would replace a file that this command reads: give another name")


def _time_bins(
    given: tuple[float, float] | None, shape: tuple[int, ...], path: Path
) -> list[tuple[float, float]] | None:
    """Return (start, end) of every bin where the responses have a time axis."""
    if (given is None) != (len(shape) == 2):
        remedy = "say when its bins are by --time-bins-ms START WIDTH" if given is None else "leave --time-bins-ms out"
        axes = "(presentation, site)" if len(shape) == 2 else "(presentation, site, time)"
        raise ValueError(f"{str(path)!r} has shape {shape}, read as {axes}: {remedy}")
    if given is None:
        return None
    start, width = given
    return [(start + k * width, start + (k + 1) * width) for k in range(shape[2])]
