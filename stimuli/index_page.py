"""One self-contained HTML page that shows every stimulus of a set, for eyes and for the record.

In: a `StimulusSet`, and predicted responses if there are any. Out: HTML without scripts or outside references, with the
pictures inside. Called by ``npc show`` and by the export.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stimuli import _groups, _thumbnails
from stimuli._predicted import Predicted
from stimuli.templating import render

if TYPE_CHECKING:
    from stimuli.stimulus_set import StimulusSet

MOST_SHOWN = 6000
_BYTES = 14_000_000  # of pictures, before base64 makes them a third larger
_MOST_PARAMETERS = 6
_MOST_TEXT = 48
_OPEN = 1500  # a page with more pictures starts with its families folded, all but the first
_SMALL = 6  # groups of so many images stand beside each other
_BLOCK = 48  # pictures that a browser lays out, or leaves out of sight, together
_NOT_TOLD = ("stimulus_id", "filename", "family", "target_site", "objective")


def index_html(
    stimuli: StimulusSet,
    predictions: pd.DataFrame | Mapping[str, pd.DataFrame] | None = None,
    facts: Mapping[str, object] | None = None,
    *,
    title: str | None = None,
) -> str:
    """
    Show a set on one self-contained HTML page, grouped by family and by the site that images were made for.

    The page has no script and asks for nothing from outside. Its pictures are small copies, made as good as keeps the
    page below 30 MB; of more than 6,000 stimuli an even choice from every group is shown, of more groups an even choice
    of groups, and the page says so. Equal sets give equal text: no time is written.

    Parameters
    ----------
    stimuli : StimulusSet
        What to show. The columns family, target_site and objective group it; what differs between the images of a
        family stands below each, what does not above all.
    predictions : DataFrame or mapping of str to DataFrame, optional
        Predicted responses: one row a stimulus with its id as index, one column a site; stimuli may lack. By the names
        of the models where there are several.
    facts : mapping of str to object, optional
        What else to state at the end, such as the rig or the model.
    title : str, optional
        Heading of the page; by default the name of the set.

    Returns
    -------
    str
        The page.

    Raises
    ------
    TypeError
        If predictions are no DataFrame of numbers.
    ValueError
        If predictions are for a stimulus that is not in the set, or twice for one, or an image cannot be read.

    Examples
    --------
    >>> import numpy as np
    >>> from stimuli import StimulusSet
    >>> gray = StimulusSet.from_arrays(np.full((1, 1, 8, 8), 0.5), {"stimulus_id": ["gray"]}, name="a < b")
    >>> page = index_html(gray, facts={"animal": "M1"})
    >>> "<h1>a &lt; b</h1>" in page, 'alt="gray, without a family"' in page, "M1" in page
    (True, True, True)
    """
    table = stimuli.table
    named = predictions if isinstance(predictions, Mapping) else {} if predictions is None else {"": predictions}
    predicted = [Predicted.of(frame, stimuli.stimulus_ids, model) for model, frame in named.items()]
    whole = _groups.groups(table)
    shown = _groups.thin(whole, MOST_SHOWN)
    targets = {group.target for group in whole if group.target}
    site = targets.pop() if len(targets) == 1 else None  # a set for one site: its predictions for every image
    count = sum(len(group.rows) for group in shown)
    side = 256 if count <= 60 else 192 if count <= 400 else 128 if count <= 2000 else 96
    pictures = _Pictures(stimuli, side, min(60_000, _BYTES // count))
    families = [
        _family(name, [each for each in shown if each.family == name], whole, pictures, predicted, site, count, first)
        for first, name in enumerate(dict.fromkeys(group.family for group in shown))
    ]
    height, width = stimuli.size_px
    scale = min(1.0, side / max(height, width))
    visible = {table["stimulus_id"].iloc[row] for group in shown for row in group.rows}
    return render(
        "stimuli",
        "index.html.j2",
        title=stimuli.name if title is None else title,
        summary=_summary(stimuli),
        notes=list(_notes(len(stimuli), count, len(whole) - len(shown), side, stimuli.size_px)),
        families=families,
        models=[
            {
                "name": each.model,
                "columns": each.columns(whole),
                "sites": [{**row, "shown": row["best"] in visible} for row in each.site_rows(table, whole)],
            }
            for each in predicted
        ],
        facts=[*_own_facts(stimuli), *((str(name), str(value)) for name, value in (facts or {}).items())],
        tile=144 if count <= 400 else 112,
        width=max(1, round(width * scale)),
        height=max(1, round(height * scale)),
    )


class _Pictures:
    """The figures of a set, read one by one."""

    def __init__(self, stimuli: StimulusSet, side_px: int, most_bytes: int) -> None:
        self.stimuli, self.side_px, self.most_bytes = stimuli, side_px, most_bytes
        self.table = stimuli.table

    def of(
        self, group: _groups.Group, told: Sequence[str], predicted: Sequence[Predicted], site: str | None
    ) -> Iterator[dict[str, Any]]:
        from markupsafe import Markup

        for row in group.rows:
            name = self.table["stimulus_id"].iloc[row]
            source = _thumbnails.data_uri(self.stimuli.codes([row])[0], self.side_px, self.most_bytes)
            yield {
                "id": name,
                "source": Markup(source),  # letters and digits: to escape megabytes takes seconds
                "alt": f"{name}, {group.title}",
                "predicted": [words for each in predicted if (words := each.words(name, site))],
                "said": [f"{key} {value}" for key in told if (value := cell_text(self.table[key].iloc[row]))],
            }


def _family(
    name: str,
    shown: list[_groups.Group],
    whole: list[_groups.Group],
    pictures: _Pictures,
    predicted: Sequence[Predicted],
    site: str | None,
    count: int,
    place: int,
) -> dict[str, Any]:
    rows = [row for group in whole if group.family == name for row in group.rows]
    same, told = _parameters(pictures.table.iloc[rows])

    def figures(group: _groups.Group) -> list[dict[str, Any]]:
        return list(pictures.of(group, told, predicted, group.target or site))

    return {
        "title": name,
        "count": len(rows),
        "same": same,
        "folded": count > _OPEN and place > 0,
        "blocks": list(_blocks(shown, {group.title: len(group.rows) for group in whole}, figures)),
    }


def _blocks(
    shown: list[_groups.Group], counts: Mapping[str, int], figures: Callable[[_groups.Group], list[dict[str, Any]]]
) -> Iterator[dict[str, Any]]:
    """Put large groups into grids of their own, and small ones beside each other."""
    beside: list[dict[str, Any]] = []
    for group in shown:
        found = figures(group)
        if group.target and len(found) <= _SMALL:
            beside.append({"target": group.target, "count": counts[group.title], "figures": found})
            if sum(len(each["figures"]) for each in beside) >= _BLOCK:
                yield {"target": "", "count": 0, "figures": [], "groups": beside}
                beside = []
            continue
        if beside:
            yield {"target": "", "count": 0, "figures": [], "groups": beside}
            beside = []
        for start in range(0, len(found), _BLOCK):
            target = group.target if start == 0 else ""
            some = found[start : start + _BLOCK]
            yield {"target": target, "count": counts[group.title], "figures": some, "groups": []}
    if beside:
        yield {"target": "", "count": 0, "figures": [], "groups": beside}


def _parameters(rows: pd.DataFrame) -> tuple[list[tuple[str, str]], list[str]]:
    """Tell the columns with one value in all rows, as text, from those that differ."""
    same, told = [], []
    for name in rows.columns:
        if name in _NOT_TOLD:
            continue
        text = cell_text(rows[name].iloc[0])
        if rows[name].nunique(dropna=False) > 1 or (len(rows) == 1 and text):
            told.append(str(name))
        elif text:
            same.append((str(name), text))
    return same, told[:_MOST_PARAMETERS]


def cell_text(value: Any) -> str:
    """
    Word a value of a stimulus table shortly.

    Parameters
    ----------
    value : object
        A number, text, boolean or missing value.

    Returns
    -------
    str
        Four significant digits of a number, at most 48 characters of a text; empty for a missing value.

    Examples
    --------
    >>> cell_text(0.123456), cell_text(True), cell_text(None)
    ('0.1235', 'yes', '')
    """
    if value is None or bool(pd.isna(value)):
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}"
    text = str(value)
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"


def _summary(stimuli: StimulusSet) -> str:
    channels, height, width = stimuli.shape
    kind = "gray" if channels == 1 else "color"
    noun = "image" if len(stimuli) == 1 else "images"
    return f"{len(stimuli):,} {kind} {noun} of {width} × {height} px, {stimuli.size_deg:g} deg wide on the screen."


def _notes(total: int, count: int, groups_left: int, side: int, size_px: tuple[int, int]) -> Iterator[str]:
    if count < total:
        kept = f"and leaves {groups_left:,} groups out" if groups_left else "from every group the same part"
        yield f"The page shows {count:,} of them, {kept}."
    if side < max(size_px) or count > 200:
        yield "The pictures here are small copies; the files of the set are exact."


def _own_facts(stimuli: StimulusSet) -> Iterator[tuple[str, str]]:
    display, record = stimuli.display, stimuli.provenance
    yield "stimuli", f"{len(stimuli):,}"
    yield "size", f"{stimuli.size_px[1]} × {stimuli.size_px[0]} px, {stimuli.size_deg:g} deg wide"
    yield "background", "gray, the 8-bit code 128" if display is None else f"{display.background:g} of the pixel code"
    if display is None:
        yield "screen", "not stated"
    else:
        yield (
            "screen",
            f"{display.resolution_px[0]} × {display.resolution_px[1]} px, {display.width_cm:g} cm wide, "
            f"{display.distance_cm:g} cm away: {display.ppd:.2f} px/deg",
        )
    for key in ("version", "seed"):
        if record.get(key) is not None:
            yield ("made with version" if key == "version" else key), str(record[key])
