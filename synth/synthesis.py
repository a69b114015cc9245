"""Images made, and how: from a store full of images to a stimulus set with its table, traces and provenance.

Called by `synthesize` when all jobs are done.
"""

from __future__ import annotations

import dataclasses
import html
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from neural_fits.features import FeatureExtractor
from neural_fits.site_model import Ensemble, SiteModel
from stimuli import Display, StimulusSet
from stimuli.provenance import provenance_record, sha256_bytes
from synth.driver import Driver
from synth.execution import Execution
from synth.jobs import Job
from synth.recipes import SynthesisConfig, recipe_name
from synth.store import Store


@dataclass(frozen=True, eq=False)
class Synthesis:
    """Images made, and how.

    Parameters
    ----------
    stimuli : StimulusSet
        The images; columns ``family, objective, target_site, seed, recipe, step``, how an image ``ended``, how many
        ``restarts`` it had, and ``forecast_response``, what the driver expects of the target on the 8-bit image;
        ``base`` where the images change given ones.
    trace : DataFrame
        Columns ``stimulus_id, step, score``: the driver's score of the 8-bit image as it was made.
    config : SynthesisConfig
        The recipe.
    """

    stimuli: StimulusSet
    trace: pd.DataFrame
    config: SynthesisConfig

    def save(self, folder: str | os.PathLike[str], overwrite: bool = False) -> Synthesis:
        """Write the stimulus set, with ``trace.csv`` beside the table.

        Parameters
        ----------
        folder : path
            The folder to make.
        overwrite : bool
            Replace an existing stimulus set.

        Returns
        -------
        Synthesis
            The same, with images that are read from the folder.
        """
        saved = self.stimuli.save(folder, overwrite, beside={"trace.csv": self.trace.to_csv(index=False)})
        return dataclasses.replace(self, stimuli=saved)

    def _repr_html_(self) -> str:
        return f"<p><b>{html.escape(repr(self))}</b></p>{self.stimuli._repr_html_()}"

    def __repr__(self) -> str:
        return f"Synthesis({len(self.stimuli)} images, {self.config.steps} steps, param {self.config.param!r})"


def assemble(
    driver: Driver,
    jobs: list[Job],
    store: Store,
    config: SynthesisConfig,
    execution: Execution,
    display: Display | None,
    run_sha256: str,
) -> Synthesis:
    """Return the images, which stay on disk where the store is a folder, their table and traces.

    Parameters
    ----------
    driver : Driver
        What drove the images.
    jobs : list of Job
        What was asked, in the order of the set.
    store : Store
        Holds the images.
    config : SynthesisConfig
        The recipe.
    execution : Execution
        Where and how they were made.
    display : Display or None
        The screen they are meant for.
    run_sha256 : str
        Hash of all that decides their bytes.

    Returns
    -------
    Synthesis
        Without forecasts.

    Raises
    ------
    ValueError
        When there is no image at all, because numbers broke.
    """
    rows, traces, items, broken = [], [], [], []
    for number, job in enumerate(jobs):
        made = store.made(number)
        if made.codes is None:
            broken.append(job)
            continue
        name = _image_id(job, made.codes)
        row = {
            "stimulus_id": name,
            "filename": f"images/{name}.png",
            "family": job.objective.family,
            "objective": repr(job.objective),
            "target_site": job.objective.target,
            "seed": job.seed,
            "recipe": recipe_name(config),
            "step": made.step,
            "ended": made.ended,
            "restarts": made.restarts,
        }
        rows.append(row | ({"base": job.base} if job.base else {}))
        traces += [(name, step, score) for step, score in made.trace]
        items.append(store.item(number))
    if broken:
        said = (
            f"the image or score of {broken[0].objective!r} (seed {broken[0].seed}) is not a finite number at the "
            "first reading; look for infinite or missing numbers in the model's weights and site statistics"
        )
        if not rows:
            raise ValueError(said)
        warnings.warn(f"{said}; {len(broken)} of {len(jobs)} images are left out", RuntimeWarning, stacklevel=3)
    columns = {
        name: pd.Series([row[name] for row in rows], dtype=object if isinstance(value, str) else None)
        for name, value in rows[0].items()
    }
    stimuli = StimulusSet(
        items,
        pd.DataFrame(columns),
        shape=(driver.channels, *driver.size_px),
        size_deg=driver.size_deg,
        display=display,
        provenance=provenance_record(
            config={
                "synthesis": repr(config),
                **execution.provenance(),
                "seeds": sorted({job.seed for job in jobs}),
                "run_sha256": run_sha256,
            },
            inputs={f"model.{key}": value for key, value in driver.inputs.items()},
        ),
        name="synthesis",
    )
    return Synthesis(stimuli, pd.DataFrame(traces, columns=["stimulus_id", "step", "score"]), config)


def saved_before(out: Path, run_sha256: str, config: SynthesisConfig) -> Synthesis | None:
    """Return the set that the very same run has saved before, if there is one.

    Parameters
    ----------
    out : Path
        Folder of the set.
    run_sha256 : str
        Hash of all that decides the bytes of the images.
    config : SynthesisConfig
        The recipe.

    Returns
    -------
    Synthesis or None
        The set.
    """
    if not (out / "set.json").is_file():
        return None
    stimuli = StimulusSet.load(out)
    if stimuli.provenance.get("config", {}).get("run_sha256") != run_sha256:
        return None
    return Synthesis(stimuli, pd.read_csv(out / "trace.csv", converters={"score": float}), config)


def with_forecast(made: Synthesis, model: SiteModel | Ensemble | FeatureExtractor) -> Synthesis:
    """Return the same with what the driver expects of each target on the 8-bit image.

    Parameters
    ----------
    made : Synthesis
        The images.
    model : SiteModel, Ensemble or FeatureExtractor
        The driver; a bare network expects nothing of sites.

    Returns
    -------
    Synthesis
        With the column ``forecast_response``.
    """
    targets = made.stimuli.table["target_site"]
    values = np.full(len(targets), np.nan)
    if not isinstance(model, FeatureExtractor):
        responses = model.predict(made.stimuli)
        for row, site in enumerate(targets):
            if site in model.site_ids:
                values[row] = responses[row, model.site_ids.index(site)]
    return dataclasses.replace(made, stimuli=made.stimuli.with_columns(forecast_response=values.tolist()))


def _image_id(job: Job, image: np.ndarray) -> str:
    # A file name that people can read, and a hash of objective and content: two objectives may end in the same image.
    target = re.sub("[^A-Za-z0-9]", "-", job.objective.target)[:40] or "image"
    digest = sha256_bytes(f"{job.objective!r}{job.base}".encode() + image.tobytes())
    return f"{job.objective.family}_{target}_{job.seed}_{digest[:8]}"
