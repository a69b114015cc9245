"""What every round of a closed loop achieved: a table, and a picture of it.

In: the folder of a loop. Out: one row a round and kind of objective; a PNG. matplotlib is imported when drawing.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd

from synth._control_summary import over_achieved
from synth._recorded_scores import RATIO_FAMILIES

#: one a family of objectives
_COLORS = ("#0b62a8", "#c2670a", "#2a7f62", "#7d4fa3", "#555f6b")


def gains_per_round(folder: str | Path) -> pd.DataFrame:
    """Return what each judged round of a loop achieved.

    Parameters
    ----------
    folder : str or Path
        Folder of the loop.

    Returns
    -------
    DataFrame
        One row a round and family of objectives: ``targets``, ``presentations`` of the round (trials of all its
        images), ``fraction_beyond`` and ``median_gain`` as `evaluate_control` defines them, medians of forecast over
        achieved by driver and validator (NaN where scores have no natural zero), medians of the held-out explained
        variance of both. Empty before the first round was judged.
    """
    rows = []
    for number, targets, facts in _rounds(Path(folder)):
        for family, some in targets.groupby("family", sort=False):
            row = {"round": number, "family": family, "targets": len(some), "presentations": facts["presentations"]}
            row |= {"fraction_beyond": some["beyond"].astype(float).mean(), "median_gain": some["gain"].median()}
            for role in ("driver", "validator"):
                known = family in RATIO_FAMILIES
                row[f"forecast_over_achieved_{role}"] = over_achieved(some, f"forecast_{role}") if known else np.nan
            row |= {f"{role}_ev": facts[f"{role}_ev_median"] for role in ("driver", "validator")}
            rows.append(row)
    return pd.DataFrame(rows)


def gain_figure(folder: str | Path) -> bytes:
    """Draw the gain of every target over the rounds, and the median.

    Parameters
    ----------
    folder : str or Path
        Folder of the loop, with at least one judged round.

    Returns
    -------
    bytes
        A PNG.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    told = [targets.assign(round=number) for number, targets, _ in _rounds(Path(folder))]
    everything = pd.concat([part[["round", "family", "objective", "gain"]] for part in told])
    families = list(dict.fromkeys(everything["family"]))
    figure = Figure(figsize=(3.4 * len(families) + 0.4, 3.2), layout="constrained")
    for axis, family, color in zip(
        figure.subplots(1, len(families), squeeze=False)[0], families, _COLORS * len(families), strict=False
    ):
        percent = family in RATIO_FAMILIES  # of other objectives the gain is a difference of scores
        some = everything[everything["family"] == family]
        table = some.pivot_table(index="round", columns="objective", values="gain") * (100 if percent else 1)
        axis.plot(table.index, table, color=color, alpha=0.3, lw=1, marker=".", ms=3)
        axis.plot(table.index, table.median(axis=1), color=color, lw=2.5, marker="o", ms=5)
        axis.axhline(0, color="#22272e", lw=0.6)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_title(f"{'one-hot' if family == 'ohp' else family}, {table.shape[1]} targets and median", fontsize=9)
        axis.set_xlabel("round")
        axis.set_ylabel("gain over the best natural image" + (" (%)" if percent else " (score)"), fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def _rounds(folder: Path) -> list[tuple[int, pd.DataFrame, dict[str, float]]]:
    found: list[tuple[int, pd.DataFrame, dict[str, float]]] = []
    while (summary := folder / f"round{len(found) + 1}" / "summary.json").is_file():
        targets = pd.read_csv(summary.parent / "targets.csv")
        found.append((len(found) + 1, targets, json.loads(summary.read_text(encoding="utf-8"))))
    return found
