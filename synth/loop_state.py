"""A closed loop on disk: what it does, and where it stands.

In: natural images and a `LoopConfig`. Out: a folder, and the `LoopState` that is read from it: the folder is the state.
Called by `closed_loop` and ``npc loop``.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from stimuli import StimulusSet
from stimuli.files import atomic_folder, atomic_write
from stimuli.provenance import provenance_record, to_jsonable
from synth._objective_sites import is_of_sites
from synth.objectives import parse_objective
from synth.recipes import SynthesisConfig, recipe

#: the steps of a round, and the file that each leaves behind last
_MADE = (
    ("driver", "driver/model.json"),
    ("validator", "validator/model.json"),
    ("stimuli", "stimuli/set.json"),
    ("recordings", "recordings.nc"),
    ("report", "summary.json"),
)


@dataclass(frozen=True)
class LoopConfig:
    """What a closed loop does; kept in ``loop.json``.

    Parameters
    ----------
    rounds : int
        Rounds in all; can be raised later with `extend_loop`.
    targets : int
        Sites driven, in every round the same: those that the first driver explains best on held-out images. Each is
        stretched, and, when there are two or more, driven against its population.
    images : int
        Images per objective and round. One half teaches the next driver, the other half the next validator.
    objectives : tuple of str
        Instead of `targets`: objectives as their ``repr``.
    population : int, optional
        Size of each one-hot population: the sites whose receptive fields overlap the target's most. By default the
        population is the targets.
    recipe : str
        Name of the synthesis recipe.
    steps : int, optional
        Gradient steps; the recipe's own by default.
    brain_sites : int, optional
        Number of sites of a `SimulatedBrain` that plays the animal; by default recordings are waited for.
    repeats, image_repeats : int
        Trials of a simulated brain for each natural and each synthesized image.
    backbone : tuple of str
        Networks of driver and validator.
    layer : str, optional
        Layer read; the default of each network when None.
    readout, validator_readout : str
        Readouts of driver and validator.
    penalty : str
        Penalty rule of the driver, see `fit_sites`.
    group : str
        Column of natural images whose equal values stay together in splits.
    folds : int
        Folds of the cross-validation.
    normalize : bool
        Scale each round by the natural images shown again in it, see `merge_recordings`.
    seed : int
        Seed of splits, images and simulated trials.

    Raises
    ------
    ValueError
        For a number out of range, an unknown recipe, or an objective that cannot be read or judged.

    Examples
    --------
    >>> LoopConfig(rounds=2, targets=4).rounds
    2
    """

    rounds: int = 3
    targets: int = 8
    images: int = 2
    objectives: tuple[str, ...] = ()
    population: int | None = None
    recipe: str = "robust"
    steps: int | None = None
    brain_sites: int | None = None
    repeats: int = 8
    image_repeats: int = 24
    backbone: tuple[str, ...] = ("efficientnet-lite0", "efficientnet-lite1")
    layer: str | None = None
    readout: str = "local+alternating"
    validator_readout: str = "gaussian"
    penalty: str = "one_se"
    group: str = "photograph"
    folds: int = 5
    normalize: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("objectives", "backbone"):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("rounds", "targets", "images", "repeats", "image_repeats"):
            least = 2 if name.endswith("repeats") else 1
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; expected {least} or more")
        parsed = [parse_objective(text) for text in self.objectives]
        for k, objective in enumerate(parsed):
            if not is_of_sites(objective) or objective in parsed[:k]:
                raise ValueError(
                    f"{objective!r} is given twice, or measures a layer or the image, which recordings cannot judge; "
                    "give Stretch, OneHot, Suppress, Contrast, Pattern or sums of these, each once"
                )
        self.synthesis()

    def synthesis(self) -> SynthesisConfig:
        """Return the configuration of the synthesis.

        Returns
        -------
        SynthesisConfig
            The recipe, with the number of steps asked for.
        """
        return recipe(self.recipe) if self.steps is None else recipe(self.recipe, steps=self.steps)


@dataclass(frozen=True)
class LoopState:
    """Where a loop stands, as read from its folder.

    Parameters
    ----------
    folder : Path
        The folder of the loop.
    config : LoopConfig
        What it does.
    round : int
        The round under way, from 1; 0 before the natural images were recorded.
    step : str
        What comes next: ``"driver"``, ``"validator"``, ``"stimuli"``, ``"recordings"``, ``"report"``, or ``"done"``.
    """

    folder: Path
    config: LoopConfig
    round: int
    step: str

    @property
    def waits_for(self) -> Path | None:
        """Folder of the stimulus set whose recordings are awaited, or None."""
        return (self.place / "stimuli" if self.round else self.folder / "natural") if self.waiting else None

    @property
    def waiting(self) -> bool:
        """Whether recordings are awaited."""
        return self.step == "recordings"

    @property
    def place(self) -> Path:
        """Folder of the round under way."""
        return self.folder / f"round{self.round}" if self.round else self.folder

    def __str__(self) -> str:
        if self.step == "done":
            return f"all {self.config.rounds} rounds are done; see {self.folder / 'rounds.csv'}"
        if self.waiting:
            return (
                f"show the images in {self.waits_for} and give the responses: npc loop {self.folder} --recordings FILE"
            )
        return f"round {self.round} of {self.config.rounds}: next is {self.step}"


def start_loop(folder: str | Path, config: LoopConfig, natural: StimulusSet) -> LoopState:
    """Make the folder of a loop: the natural images, and what is to be done.

    Parameters
    ----------
    folder : str or Path
        Folder to make.
    config : LoopConfig
        What the loop does.
    natural : StimulusSet
        Natural images, shown before the first round; they train the models and are the baseline of every round.

    Returns
    -------
    LoopState
        Waits for recordings of the natural images.

    Raises
    ------
    FileExistsError
        When something is there already.

    Examples
    --------
    >>> import tempfile
    >>> from stimuli import natural_photos
    >>> with tempfile.TemporaryDirectory() as place:
    ...     state = start_loop(f"{place}/loop", LoopConfig(brain_sites=4), natural_photos(20, size_px=64))
    >>> state.step, state.round
    ('recordings', 0)
    """
    with atomic_folder(folder, False, lambda _: False) as place:
        natural.save(place / "natural")
        _write_config(place, config)
    return loop_state(folder)


def extend_loop(folder: str | Path, rounds: int) -> LoopState:
    """Change the number of rounds of a loop.

    Parameters
    ----------
    folder : str or Path
        Folder of the loop.
    rounds : int
        Rounds in all.

    Returns
    -------
    LoopState
        Where it stands.
    """
    _write_config(Path(folder), dataclasses.replace(loop_state(folder).config, rounds=rounds))
    return loop_state(folder)


def loop_state(folder: str | Path) -> LoopState:
    """Return where a loop stands.

    Parameters
    ----------
    folder : str or Path
        Folder of the loop.

    Returns
    -------
    LoopState
        Read from what lies in the folder.

    Raises
    ------
    FileNotFoundError
        When there is no loop in that folder.
    ValueError
        When ``loop.json`` cannot be read.
    """
    folder = Path(folder)
    file = folder / "loop.json"
    if not file.is_file():
        raise FileNotFoundError(f"there is no loop in {str(folder)!r}; start one by --natural SET or --brain simulated")
    try:
        config = LoopConfig(**json.loads(file.read_text(encoding="utf-8"))["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(file)!r} was damaged or is of another version: {error}; start a new loop") from error
    if not (folder / "recordings_natural.nc").is_file():
        return LoopState(folder, config, 0, "recordings")
    for number in range(1, config.rounds + 1):
        for step, name in _MADE:
            if not (folder / f"round{number}" / name).is_file():
                return LoopState(folder, config, number, step)
    return LoopState(folder, config, config.rounds, "done")


def _write_config(folder: Path, config: LoopConfig) -> None:
    told = to_jsonable(config)
    record = {"format_version": 1, "config": told, "provenance": provenance_record(seed=config.seed, config=told)}
    atomic_write(folder / "loop.json", json.dumps(record, indent=1, allow_nan=False))
