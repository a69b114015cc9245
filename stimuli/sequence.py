"""The order in which stimuli are shown: blocks of random permutations, cut into trials, with nominal onsets."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from stimuli import _table
from stimuli._shuffle import shuffled_block
from stimuli.files import atomic_write
from stimuli.gray import GRAY_ID
from stimuli.hints import did_you_mean
from stimuli.sequence_config import SequenceConfig

__all__ = ["COLUMNS", "PresentationOrder", "SequenceConfig", "presentation_order"]

#: columns of `PresentationOrder.table` and their kinds, as in presentation.csv
COLUMNS = {
    "trial": "int",
    "position": "int",
    "block": "int",
    "repeat": "int",
    "stimulus_id": "text",
    "filename": "text",
    "onset_ms_nominal": "float",
    "duration_ms": "float",
}
_ROUNDING = 0.01  # ms


@dataclass(frozen=True, eq=False)
class PresentationOrder:
    """
    The intended order of all presentations; what was really shown is in the rig's event log.

    All counts begin at 0. `table` has one row a presentation with the columns trial, position (in the trial), block,
    repeat (earlier presentations of the same stimulus), stimulus_id, filename, onset_ms_nominal (from the start of the
    first trial, if no trial is broken off) and duration_ms.

    Parameters
    ----------
    table : DataFrame
        The presentations, in order.
    config : SequenceConfig
        How the order was made, and its times as asked for.
    refresh_hz : float, optional
        Refresh rate to which the times of the table are rounded.

    Raises
    ------
    ValueError
        If a column is missing, the counts do not fit together, or trials and times are not those of the
        configuration, by which rigs show them.

    Examples
    --------
    >>> order = presentation_order(["a", "b", "gray"], SequenceConfig(repeats=2, images_per_trial=3))
    >>> len(order.table), order.timing.gap_ms
    (6, 100.0)
    """

    table: pd.DataFrame
    config: SequenceConfig
    refresh_hz: float | None = None

    def __post_init__(self) -> None:
        """Check the table."""
        missing = [name for name in COLUMNS if name not in self.table.columns]
        if missing:
            raise ValueError(f"The presentation order has no column {_table.some(missing)}: see PresentationOrder.")
        if not len(self.table):
            raise ValueError("The presentation order is empty: give at least one presentation.")
        frame = _table.tidy_table(self.table[list(COLUMNS)], len(self.table))
        wrong = [name for name, kind in _table.column_kinds(frame).items() if kind != COLUMNS[name]]
        if wrong:
            raise ValueError(
                f"The column {wrong[0]!r} of the presentation order does not hold {COLUMNS[wrong[0]]} values in every "
                "row: restore it from its original."
            )
        object.__setattr__(self, "table", frame)
        trial, onset = frame["trial"], frame["onset_ms_nominal"]
        checks = {
            "trial": trial.iloc[0] == 0 and trial.diff().iloc[1:].isin([0, 1]).all(),
            "position": (frame["position"] == frame.groupby("trial").cumcount()).all(),
            "repeat": (frame["repeat"] == frame.groupby("stimulus_id").cumcount()).all(),
            "onset_ms_nominal": (onset.iloc[0] >= 0) and (onset.diff().iloc[1:] > 0).all(),
            "duration_ms": (frame["duration_ms"] > 0).all(),
        }
        for name, good in checks.items():
            if not good:
                raise ValueError(
                    f"The column {name!r} of the presentation order does not follow from its rows (counts begin at 0, "
                    "onsets increase): make the order with presentation_order."
                )
        self._check_timing(frame)

    def _check_timing(self, frame: pd.DataFrame) -> None:
        """Raise where the table differs from the configuration: rigs go by this, so an edit would be half honored."""
        times, count = self.timing, self.config.images_per_trial
        lengths = frame.groupby("trial").size()
        short = (lengths != count) & (lengths.index < len(lengths) - 1)
        due = _onsets(frame["trial"].to_numpy(), frame["position"].to_numpy(), times)
        wrong = {
            f"duration_ms is not {times.duration_ms:g}": (frame["duration_ms"] - times.duration_ms).abs() > _ROUNDING,
            f"a trial has not {count} images": frame["trial"].map(short) | (frame["position"] >= count),
            "onset_ms_nominal does not follow from its times": (frame["onset_ms_nominal"] - due).abs() > _ROUNDING,
        }
        for what, rows in wrong.items():
            if rows.any():
                raise ValueError(
                    f"The presentation order differs in row {int(rows.to_numpy().argmax())} from its configuration, by "
                    f"which rigs show the images ({what}): make another order with presentation_order instead of "
                    "editing these columns."
                )

    @property
    def timing(self) -> SequenceConfig:
        """The configuration with the times that the screen can show."""
        return self.config.on_frames(self.refresh_hz)

    @property
    def seconds(self) -> float:
        """Nominal duration without broken trials, from the start of the first trial to the end of the last gap."""
        last = self.table.iloc[-1]
        return float(last["onset_ms_nominal"] + last["duration_ms"] + self.timing.gap_ms) / 1000

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """
        Write the table as CSV, and the configuration beside it as JSON of the same name.

        Parameters
        ----------
        path : path
            A name that ends in .csv.

        Returns
        -------
        Path
            The CSV file.

        Raises
        ------
        ValueError
            If the name does not end in .csv.

        Examples
        --------
        >>> import tempfile
        >>> order = presentation_order(["a", "b"], SequenceConfig(repeats=2))
        >>> with tempfile.TemporaryDirectory() as place:
        ...     again = PresentationOrder.from_csv(order.to_csv(f"{place}/presentation.csv"))
        >>> again.config == order.config, again.table.equals(order.table)
        (True, True)
        """
        target = Path(path)
        if target.suffix != ".csv":
            raise ValueError(f"{target} is not the name of a CSV file: give a name that ends in .csv.")
        record = {"config": dataclasses.asdict(self.config), "refresh_hz": self.refresh_hz}
        atomic_write(target.with_suffix(".json"), json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        return atomic_write(target, _table.to_csv(self.table))

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str]) -> PresentationOrder:
        """
        Read what `to_csv` wrote.

        Parameters
        ----------
        path : path
            The CSV file; the JSON file of the same name must lie beside it.

        Returns
        -------
        PresentationOrder
            The same order.

        Raises
        ------
        FileNotFoundError
            If one of the files is missing.
        ValueError
            If they cannot be read or do not fit together.

        Examples
        --------
        >>> PresentationOrder.from_csv("presentation.csv")  # doctest: +SKIP
        """
        place = Path(path)
        try:
            text = place.read_bytes().decode("utf-8")
            record = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"There is no {error.filename}: a presentation order is a CSV file with a JSON file of the same name."
            ) from None
        except ValueError:
            raise ValueError(f"{place} or the JSON file beside it is damaged: restore both.") from None
        try:
            return cls(_table.from_csv(text, COLUMNS), *_config_of(record))
        except (ValueError, TypeError, csv.Error) as error:
            raise ValueError(f"{place} is no presentation order: {error}") from None


def _config_of(record: object) -> tuple[SequenceConfig, float | None]:
    """Read the configuration and the refresh rate from the JSON beside the table."""
    given = record.get("config") if isinstance(record, dict) else None
    names = {field.name for field in dataclasses.fields(SequenceConfig)}
    if not isinstance(record, dict) or not isinstance(given, dict) or set(given) != names or "refresh_hz" not in record:
        raise ValueError("the JSON file beside it does not hold its configuration: restore it from its original.")
    return SequenceConfig(**given), record["refresh_hz"]


def presentation_order(
    stimulus_ids: Sequence[str],
    config: SequenceConfig,
    *,
    filenames: Mapping[str, str] | None = None,
    blank_id: str = GRAY_ID,
    refresh_hz: float | None = None,
) -> PresentationOrder:
    """
    Order stimuli in blocks: each is a random permutation of all stimuli, with more blanks and normalizers if asked.

    No stimulus is shown twice in a row, also not across the border of two blocks or trials. The random stream is
    ``numpy.random.default_rng([seed, h])`` with h the first 8 bytes (big endian) of the SHA-256 of the JSON text
    ``[animal, day]``. More repeats leave the earlier blocks as they are.

    Parameters
    ----------
    stimulus_ids : sequence of str
        All stimuli; the blank among them is shown ``blanks_per_block`` times a block.
    config : SequenceConfig
        Repeats, times, blanks, normalizers and seed.
    filenames : mapping of str to str, optional
        File names by id; by default ``images/<stimulus_id>.png``.
    blank_id : str
        The id of the gray control.
    refresh_hz : float, optional
        Refresh rate of the screen; all times are then rounded to whole frames.

    Returns
    -------
    PresentationOrder
        The order with nominal onsets.

    Raises
    ------
    ValueError
        If an id is given twice, a normalizer is not among them, or a stimulus could not but follow itself.

    Examples
    --------
    >>> order = presentation_order([f"s{k}" for k in range(5)], SequenceConfig(repeats=3, images_per_trial=5))
    >>> int(order.table["trial"].max()), int(order.table["repeat"].max()), round(order.seconds, 2)
    (3, 2, 5.74)
    """
    ids = list(stimulus_ids)
    _table.check_ids(ids)
    names = [name for name in ids if name != blank_id]
    counts = [1 + config.normalizers_per_block * (name in set(config.normalizers)) for name in names]
    for name in config.normalizers:
        if name not in names:
            raise ValueError(
                f"The normalizer {name!r} is not among the {len(names)} stimuli: {did_you_mean(name, names)}"
                "name stimuli of the set."
            )
    if config.blanks_per_block:
        names, counts = [*names, blank_id], [*counts, config.blanks_per_block]
    blocks: list[np.ndarray] = []
    rng = _stream(config)
    for _ in range(config.repeats):
        block = shuffled_block(np.array(counts, dtype=np.int64), int(blocks[-1][-1]) if blocks else None, rng)
        if block is None or not len(block):
            raise ValueError(
                f"{len(ids)} stimuli with {config.blanks_per_block} blanks and {config.normalizers_per_block} further "
                "presentations of normalizers a block cannot be shown without one following itself: give more stimuli "
                "or fewer of those."
            )
        blocks.append(block)
    return PresentationOrder(
        _table_of(np.stack(blocks), names, filenames or {}, config, refresh_hz), config, refresh_hz
    )


def _stream(config: SequenceConfig) -> np.random.Generator:
    named = json.dumps([config.animal, config.day]).encode()
    return np.random.default_rng([config.seed, int.from_bytes(hashlib.sha256(named).digest()[:8], "big")])


def _table_of(
    blocks: np.ndarray,
    names: Sequence[str],
    filenames: Mapping[str, str],
    config: SequenceConfig,
    refresh_hz: float | None,
) -> pd.DataFrame:
    files = np.array([filenames.get(name, f"images/{name}.png") for name in names], dtype=object)
    order = blocks.ravel()
    trial, position = np.divmod(np.arange(order.size), config.images_per_trial)
    times = config.on_frames(refresh_hz)
    return pd.DataFrame(
        {
            "trial": trial,
            "position": position,
            "block": np.repeat(np.arange(len(blocks)), blocks.shape[1]),
            "repeat": pd.Series(order).groupby(order).cumcount(),
            "stimulus_id": np.array(names, dtype=object)[order],
            "filename": files[order],
            "onset_ms_nominal": _onsets(trial, position, times),
            "duration_ms": times.duration_ms,
        }
    )


def _onsets(trial: np.ndarray, position: np.ndarray, times: SequenceConfig) -> np.ndarray:
    step = times.duration_ms + times.gap_ms
    length = times.lead_in_ms + times.images_per_trial * step + times.inter_trial_ms
    return np.round(trial * length + times.lead_in_ms + position * step, 3)
