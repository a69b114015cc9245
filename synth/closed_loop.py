"""The closed loop: fit, synthesize, show, record, judge, and again with what was learned.

In: the folder of a loop (`start_loop`) and recordings as they come. Out: in that folder one sub-folder a round
(``driver``, ``validator``, ``stimuli``, ``recordings.nc``, ``report.html``, tables) and the gains of all rounds. Every
step appears whole or not at all, so whoever calls `next_round` again goes on where it stopped. Called by ``npc loop``.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from neural_fits import SimulatedBrain, SiteRecordings, fit_sites, load_model
from neural_fits.site_model import Ensemble, SiteModel
from stimuli import StimulusSet
from stimuli.files import atomic_write
from synth._loop_data import merge_recordings, merged, on_natural_scale, seen_by
from synth._loop_gains import gain_figure, gains_per_round
from synth._loop_judge import judge
from synth._recorded_scores import recorded_scale
from synth.loop_state import LoopConfig, LoopState, extend_loop, loop_state, start_loop
from synth.objectives import Objective, OneHot, Stretch, parse_objective
from synth.progress import Progress
from synth.recipes import one_hot_form
from synth.site_overlap import overlapping_population
from synth.synthesize import synthesize

__all__ = [
    "LoopConfig",
    "LoopState",
    "Record",
    "extend_loop",
    "gains_per_round",
    "give_recordings",
    "loop_state",
    "merge_recordings",
    "next_round",
    "start_loop",
]

#: shows the images of a round (0: the natural ones) and returns what was recorded
Record = Callable[[StimulusSet, int], SiteRecordings]


def next_round(
    folder: str | Path,
    *,
    record: Record | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> LoopState:
    """Go on until a round is judged, or recordings are awaited.

    A round: a driver is fitted to one half of the natural photographs and one half of the synthesized images of earlier
    rounds, a validator to the others; images are made, shown and judged against the natural ones. Targets are chosen
    once, by the first driver.

    Parameters
    ----------
    folder : str or Path
        Folder of the loop, see `start_loop`.
    record : callable, optional
        Called with a stimulus set and the number of its round (0: the natural images); returns recordings. By default
        the simulated brain of the configuration, or nobody: then `give_recordings` brings them.
    device : str, optional
        Where networks run; the best there is by default.
    progress : Progress, optional
        Told of each stage.

    Returns
    -------
    LoopState
        Where the loop stands: what it waits for, the next round, or done.

    Raises
    ------
    FileNotFoundError
        When there is no loop in that folder.
    FileExistsError
        When another process works on it.
    ValueError
        When the data cannot be fitted or judged.

    Examples
    --------
    >>> import tempfile
    >>> from stimuli import natural_photos
    >>> few = LoopConfig(
    ...     rounds=1, targets=1, images=1, steps=1, folds=2, brain_sites=2, validator_readout="ridge",
    ...     backbone=("efficientnet-lite0",), layer="blocks.2",
    ... )
    >>> with tempfile.TemporaryDirectory() as place:
    ...     _ = start_loop(f"{place}/loop", few, natural_photos(60, size_px=64))
    ...     next_round(f"{place}/loop").step
    ...     gains_per_round(f"{place}/loop")["family"].tolist()
    'done'
    ['stretch']
    """
    progress = progress or Progress(quiet=True)
    with _locked(folder):
        state = loop_state(folder)
        record = record or _simulated(state)
        while state.step != "done":
            if state.waiting and record is None:
                break
            was = state.round
            _do(state, record, device, progress)
            state = loop_state(folder)
            if was and (state.round != was or state.step == "done"):
                break
        _write_gains(Path(folder))
        return state


def give_recordings(folder: str | Path, recordings: SiteRecordings) -> LoopState:
    """Hand over the recordings that a loop waits for.

    Parameters
    ----------
    folder : str or Path
        Folder of the loop.
    recordings : SiteRecordings
        Responses to all images that it waits for; to natural images too where some were shown again.

    Returns
    -------
    LoopState
        What comes next.

    Raises
    ------
    ValueError
        When nothing is awaited, or the recordings lack images, sites, or were measured otherwise than before.
    """
    with _locked(folder):
        state = loop_state(folder)
        if not state.waiting:
            raise ValueError(f"the loop waits for no recordings ({state}); leave them out")
        _keep(state, recordings)
        return loop_state(folder)


def _do(state: LoopState, record: Record | None, device: str | None, progress: Progress) -> None:
    """Do one step."""
    if state.step != "recordings":
        progress.stage(f"round {state.round} of {state.config.rounds}: {_WORDS[state.step]}")
    state.place.mkdir(exist_ok=True)
    if state.step in ("driver", "validator"):
        _fit(state, state.step, device, progress).save(state.place / state.step)
    elif state.step == "stimuli":
        _synthesize(state, device, progress)
    elif state.step == "recordings" and record is not None and state.waits_for is not None:
        progress.stage(f"recording the images in {state.waits_for}")
        _keep(state, record(StimulusSet.load(state.waits_for), state.round))
    elif state.step == "report":
        judge(state, device)


_WORDS = {
    "driver": "fitting the driver",
    "validator": "fitting the validator",
    "stimuli": "making images",
    "report": "judging",
}


def _keep(state: LoopState, recordings: SiteRecordings) -> None:
    """Check recordings and write them down."""
    natural = StimulusSet.load(state.folder / "natural")
    if not state.round:
        kept = recordings.align(natural, extra="drop")
        kept.check_usable()
        _refuse_hopeless(state.config, kept)
        kept.save(state.folder / "recordings_natural.nc")
        return
    shown = StimulusSet.load(state.place / "stimuli")
    known = SiteRecordings.load(state.folder / "recordings_natural.nc")
    config = state.config
    merge_recordings(natural, known, [(shown, recordings)], group=config.group, normalize=config.normalize)
    present = set(recordings.stimulus_ids)
    again = [name for name in natural.stimulus_ids if name in present]
    state.place.mkdir(exist_ok=True)
    recordings.select_stimuli([*shown.stimulus_ids, *again]).save(state.place / "recordings.nc")


def _refuse_hopeless(config: LoopConfig, recorded: SiteRecordings) -> None:
    """Refuse at once what could be neither made nor judged after hours of fitting and recording."""
    count, asked = len(recorded.site_ids), max(config.targets, config.population or 0)
    if not config.objectives and asked > count:
        raise ValueError(f"targets or population ask for {asked} sites, {count} were recorded; start a loop with fewer")
    if (recorded.n_repeats < 2).all():
        raise ValueError("no image has two repeats, so nothing could be judged; record the natural images again")
    for text in config.objectives:
        parse_objective(text).flat_terms(recorded_scale(recorded))  # refuses sites that were not recorded


def _fit(state: LoopState, role: str, device: str | None, progress: Progress) -> SiteModel | Ensemble:
    config = state.config
    stimuli, recordings = merged(state, state.round - 1)
    mine = seen_by(stimuli, role, group=config.group, seed=config.seed)
    stimuli = stimuli.select(mine)
    recordings = recordings.select_stimuli(stimuli.stimulus_ids)
    model = fit_sites(
        stimuli,
        recordings,
        backbone=config.backbone,
        layer=config.layer,
        readout=config.readout if role == "driver" else config.validator_readout,
        penalty=config.penalty if role == "driver" else "best",  # type: ignore[arg-type]
        group=config.group,
        folds=config.folds,
        seed=config.seed,
        device=device,
        progress=progress.stage,
    )
    natural = stimuli.select((stimuli.table["round"] == 0).to_numpy())
    return on_natural_scale(model, recordings.select_stimuli(natural.stimulus_ids))


def _synthesize(state: LoopState, device: str | None, progress: Progress) -> None:
    driver, config, out = load_model(state.place / "driver"), state.config, state.place / "stimuli"
    synthesize(
        driver,
        _objectives(state, driver),
        seeds=config.images,
        recipe=config.synthesis(),
        natural=StimulusSet.load(state.folder / "natural"),
        out=out,
        resume=Path(f"{out.resolve()}.partial", "run.json").is_file(),
        device=device,
        progress=progress.step,
    )


def _objectives(state: LoopState, driver: SiteModel | Ensemble) -> list[Objective]:
    """Return what every round asks for: as configured, or chosen by the first driver."""
    config = state.config
    if config.objectives:
        return [parse_objective(text) for text in config.objectives]
    first = driver if state.round == 1 else load_model(state.folder / "round1" / "driver")
    explained = first.held_out_scores()["explained_variance"].fillna(-np.inf)
    if config.targets > len(explained):
        raise ValueError(f"{config.targets} targets were asked for, {len(explained)} sites are fitted; ask for fewer")
    chosen = tuple(map(str, explained.sort_values(ascending=False, kind="stable").index[: config.targets]))
    objectives: list[Objective] = [Stretch(site) for site in chosen]
    form = one_hot_form(config.recipe)
    if config.population is not None:
        size = config.population
        return [*objectives, *(OneHot(site, overlapping_population(first, site, size), form=form) for site in chosen)]
    return objectives if len(chosen) < 2 else [*objectives, *(OneHot(site, chosen, form=form) for site in chosen)]


def _write_gains(folder: Path) -> None:
    """Bring the table and the picture of all rounds up to date."""
    gains = gains_per_round(folder)
    text = gains.to_csv(index=False, float_format="%.6g")
    table, picture = folder / "rounds.csv", folder / "gain_per_round.png"
    if len(gains) and not (picture.is_file() and table.is_file() and table.read_text(encoding="utf-8") == text):
        atomic_write(picture, gain_figure(folder))
        atomic_write(table, text)


def _simulated(state: LoopState) -> Record | None:
    """Return the simulated brain of the configuration, if there is one; it is built when first asked."""
    config = state.config
    if config.brain_sites is None:
        return None
    brains: list[SimulatedBrain] = []

    def record(stimuli: StimulusSet, number: int) -> SiteRecordings:
        if not brains:
            natural = StimulusSet.load(state.folder / "natural")
            brains.append(SimulatedBrain(natural, n_sites=config.brain_sites or 1, seed=config.seed))
        repeats = config.image_repeats if number else config.repeats
        return brains[0].record(stimuli, n_repeats=repeats, seed=config.seed + number)

    return record


@contextlib.contextmanager
def _locked(folder: str | Path) -> Iterator[None]:
    """Keep other processes out, and remove what a killed one was writing."""
    place = Path(folder)
    loop_state(place)  # refuses a folder without a loop before a lock is left in it
    with (place / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileExistsError(f"another process works on the loop in {str(place)!r}; wait for it") from None
        for left in (*place.glob(".*.tmp"), *place.glob("round*/.*.tmp")):
            if re.fullmatch(r"\..+\.[0-9a-f]{12}\.tmp", left.name):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield
