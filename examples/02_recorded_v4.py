"""Recorded V4 sites: reliability, fits, synthesis and forecasts by a validator on other images.

Takes a folder with `images.zip` (image0001.jpg, ...) and `responses_trials.npy` (neuron, image, repeat), NaN after the
last repeat, as in the public data set of Cowley, Stan, Pillow & Smith (2023): session 210325, 50 neurons x 640 images.
"""

import argparse
import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from neural_fits import SiteRecordings, fit_sites
from stimuli import StimulusSet
from synth import OneHot, Stretch, evaluate_control, recipe, synthesize


def read_images(folder: Path) -> StimulusSet:
    """Return the images of one session, in the order of their numbers."""
    with zipfile.ZipFile(folder / "images.zip") as archive:
        names = [name for name in archive.namelist() if name.lower().endswith(".jpg")]
        names.sort(key=lambda name: int(re.findall(r"\d+", name)[-1]))  # the order inside the archive is arbitrary
        images = [np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names]
    table = pd.DataFrame({"stimulus_id": [Path(name).stem for name in names]})
    return StimulusSet.from_arrays(np.stack(images).transpose(0, 3, 1, 2), table, size_deg=8.0, name=folder.name)


def read_session(folder: Path) -> tuple[StimulusSet, SiteRecordings]:
    """Return the images and the responses of one session."""
    for name in ("images.zip", "responses_trials.npy"):
        if not (folder / name).is_file():
            raise SystemExit(f"{folder} has no {name}; give the folder of session 210325 (see this file's first lines)")
    stimuli = read_images(folder)
    trials = np.load(folder / "responses_trials.npy").transpose(1, 2, 0)  # to (stimulus, repeat, site)
    sites = pd.DataFrame(index=pd.Index([f"n{k:02d}" for k in range(trials.shape[2])], name="site_id"))
    ids = stimuli.stimulus_ids
    return stimuli, SiteRecordings(trials.astype(np.float32), ids, sites, (50.0, 150.0), "spikes/100 ms")


def main() -> None:
    """Run the line from recordings to forecasts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of one session")
    parser.add_argument("--out", type=Path, default=Path("example_02"))
    parser.add_argument("--small", action="store_true", help="fewer images, sites and steps: seconds")
    options = parser.parse_args()
    stimuli, recordings = read_session(options.data)
    if options.small:
        stimuli = stimuli.select(list(range(0, 640, 4)))
        recordings = recordings.select_stimuli(stimuli.stimulus_ids).select_sites(recordings.site_ids[:8])

    driver = fit_sites(stimuli, recordings, split="A", readout="local+alternating", penalty="one_se")
    validator = fit_sites(stimuli, recordings, split="B", readout="gaussian")
    for name, model in (("driver", driver), ("validator", validator)):
        median = model.scores[["r", "reliability", "explained_variance"]].median()
        print(f"{name}: medians over sites: " + ", ".join(f"{key} {value:.2f}" for key, value in median.items()))

    best = tuple(driver.scores["explained_variance"].nlargest(2 if options.small else 8).index)
    objectives = [*(Stretch(site) for site in best), *(OneHot(site, population=best) for site in best)]
    config = recipe("robust", steps=10 if options.small else 400)
    made = synthesize(driver, objectives, seeds=1 if options.small else 2, recipe=config, natural=stimuli)
    made.stimuli.save(options.out / "synthesized", overwrite=True)

    # Nobody has shown these images yet: the report holds forecasts of both models beside the best natural image.
    report = evaluate_control(
        StimulusSet.load(options.out / "synthesized"),
        reference=stimuli,
        recordings=recordings,
        drivers=[driver],
        validators=[validator],
    )
    print(report.targets.drop(columns=["objective", "achieved", "gain", "beyond"]).round(2).to_string())
    print(report.to_html(options.out / "report.html"))


if __name__ == "__main__":
    main()
