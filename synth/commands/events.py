"""The command ``npc events``: the log of a rig in, and what it means for the recordings out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synth.commands.options import AsJson, Overwrite, finish

if TYPE_CHECKING:
    import pandas as pd

    from neural_fits import SiteRecordings

Bins = list[tuple[float, float]]


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
            help="Responses, one row for every presentation, also the broken ones, in the order of the log: .npy "
            "(presentation, site[, time]), or .csv with site ids in its first row."
        ),
    ] = None,
    broken_left_out: Annotated[
        bool, typer.Option("--broken-left-out", help="The responses have no rows for broken presentations.")
    ] = False,
    like: Annotated[
        Path | None,
        typer.Option(
            help="Earlier recordings of the same sites, in any format that npc fit reads: sites (for .npy in their "
            "order), unit and window or time bins are as there."
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
    unit: Annotated[
        str | None, typer.Option(help="Unit of the responses; by default that of --like, else spikes/window.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="With --responses the recordings (.nc .nwb .h5 .npz .csv .parquet), else the log (.csv).",
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Read what a rig has shown, number the repeats by it, and line responses up with it.

    Broken presentations count for nothing. The recordings that come out are what npc fit, npc evaluate and npc loop
    take.

    Example: npc events run1.csv --set exported/

    Example: npc events run1.csv --set exported/ --responses trials.npy --sites ids.txt --window-ms 70 170 --out run1.nc

    Example: npc events run2.csv --set exported/ --responses trials2.npy --like run1.nc --out run2.nc

    Several runs or sessions: one call for each log with the responses to it, by --like measured as the first. Then
    npc fit exported/ run1.nc run2.nc, npc evaluate --recordings run1.nc --recordings run2.nc: repeats come side by
    side, sites are matched by their ids.
    """
    from neural_fits.line_up import line_up
    from neural_fits.trial_responses import read_sites, read_trial_responses
    from stimuli import StimulusSet
    from stimuli.event_logs import read_event_log

    if responses is not None and out is None:
        raise ValueError("--responses makes recordings: say by --out where to write them, such as --out recorded.nc")
    of_responses = {
        "--sites": sites,
        "--like": like,
        "--time-bins-ms": time_bins_ms,
        "--broken-left-out": broken_left_out,
    }
    lost = next((name for name, given in of_responses.items() if given), None)
    if responses is None and lost is not None:
        raise ValueError(f"{lost} tells of the responses: give them by --responses, or leave {lost} out")
    given = [log, responses, like, sites, stimuli / "stimuli.csv", stimuli / "presentation.csv"]
    _refuse_to_replace(out, given, overwrite)
    shown = read_event_log(log, StimulusSet.load(stimuli), format, part=part)
    counts, notes = shown.counts(), list(shown.notes)
    made = ""
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
        table = None if sites is None else read_sites(sites)
        earlier = None if like is None else _load_alike(like, table, unit, window_ms)
        if earlier is not None:
            table = earlier.sites if table is None else table
            unit, window_ms = earlier.unit, earlier.window_ms
        values, named = read_trial_responses(responses, table)
        bins = _time_bins(time_bins_ms, values.shape, responses, earlier)
        unit = "spikes/window" if unit is None else unit
        recorded = line_up(
            shown,
            values,
            named,
            window_ms=window_ms,
            time_bins_ms=bins,
            unit=unit,
            broken_left_out=broken_left_out,
        )
        recorded.save(out)
        if table is None and responses.suffix.lower() == ".npy":
            notes.append(
                f"the sites are called {named.index[0]} to {named.index[-1]} by their columns, and recordings are "
                "joined by these ids: name them by --sites or --like where other files have other columns"
            )
        besides = recorded.stimulus_ids[len(shown.stimulus_ids) :]
        if besides:
            notes.append(
                f"the recordings hold {', '.join(besides)} besides the set; npc fit wants the exported folder, which "
                "has it too"
            )
        result |= {"sites": len(named), "unit": unit, "window_ms": window_ms, "recordings": str(out)}
        made = repr(recorded)
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
        if made:
            typer.echo(made)
    if out is not None or as_json:
        finish(result, out or log, as_json)


def _refuse_to_replace(out: Path | None, given: list[Path | None], overwrite: bool) -> None:
    for path in given:
        if out is not None and path is not None and out.exists() and path.exists() and out.samefile(path):
            raise ValueError(f"--out {str(out)!r} would replace a file that this command reads: give another name")
    if out is not None and out.is_dir():
        raise IsADirectoryError(f"--out {str(out)!r} is a folder: give the name of a file")
    if out is not None and out.exists() and not overwrite:
        raise FileExistsError(f"--out {str(out)!r} exists: give another name, or replace it with --overwrite")


def _load_alike(
    like: Path, sites: pd.DataFrame | None, unit: str | None, window_ms: tuple[float, float] | None
) -> SiteRecordings:
    """Load earlier recordings and refuse what is said otherwise of the new ones."""
    from neural_fits import SiteRecordings

    try:
        earlier = SiteRecordings.load(like)
    except ValueError:
        if window_ms is None:
            raise
        earlier = SiteRecordings.load(like, window_ms=window_ms)  # a time course, of which it takes a part
    if window_ms is not None and earlier.window_ms is not None:
        earlier = SiteRecordings.load(like, window_ms=window_ms)  # spikes are counted in it, others refuse another one
    if sites is not None and set(sites.index) != set(earlier.site_ids):
        odd = sorted(set(sites.index) ^ set(earlier.site_ids))
        listed = ", ".join(map(repr, odd[:3])) + (", ..." if len(odd) > 3 else "")
        raise ValueError(
            f"--sites and --like {str(like)!r} differ in {len(odd)} ids ({listed}): give the same ids in both, or "
            "leave one of them out"
        )
    window = "time bins" if earlier.time_bins_ms is not None else "an unknown window"
    for option, differs, there in (
        ("--unit", unit not in (None, earlier.unit), f"the unit {earlier.unit!r}"),
        ("--window-ms", window_ms not in (None, earlier.window_ms), window),
    ):
        if differs:
            raise ValueError(
                f"{option} contradicts --like {str(like)!r}, which has {there}: leave {option} out where the responses "
                "were measured so, else --like"
            )
    return earlier


def _time_bins(
    given: tuple[float, float] | None, shape: tuple[int, ...], path: Path, earlier: SiteRecordings | None
) -> Bins | None:
    """Return (start, end) of every bin where the responses have a time axis."""
    known = None if earlier is None else earlier.time_bins_ms
    if earlier is not None and (known is None) != (len(shape) == 2):
        has = "one response a trial" if known is None else f"{len(known)} time bins"
        raise ValueError(
            f"{str(path)!r} has shape {shape}, but the recordings of --like have {has}: give responses that were "
            "measured alike, or leave --like out"
        )
    if known is not None and given is None:
        return list(known)
    if (given is None) != (len(shape) == 2):
        remedy = "say when its bins are by --time-bins-ms START WIDTH" if given is None else "leave --time-bins-ms out"
        axes = "(presentation, site)" if len(shape) == 2 else "(presentation, site, time)"
        raise ValueError(f"{str(path)!r} has shape {shape}, read as {axes}: {remedy}")
    if given is None:
        return None
    start, width = given
    bins = [(start + k * width, start + (k + 1) * width) for k in range(shape[2])]
    if known is None:
        return bins
    edges, there = ([edge for pair in pairs for edge in pair] for pairs in (bins, known))
    if len(edges) != len(there) or any(abs(a - b) > 1e-6 for a, b in zip(edges, there, strict=True)):
        raise ValueError(
            f"--time-bins-ms contradicts --like, which has {len(known)} bins from {there[0]:g} to {there[-1]:g} ms "
            f"where {str(path)!r} would have {len(bins)} from {edges[0]:g} to {edges[-1]:g} ms: leave it out"
        )
    return list(known)
