"""From a model to a folder that a rig shows: a comparison of families, its order, its screen, its forecasts.

Sites are recorded (by a simulated brain), two models are fitted on different photographs, and a set of photographs,
gratings and synthesized images is exported for PsychoPy, MWorks, MonkeyLogic, Psychtoolbox, BIDS, Brain-Score and NWB,
with what both models expect of every image. Then a log comes back, here one made up with two broken trials, and says
which image was shown when.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from neural_fits import SimulatedBrain, fit_sites
from stimuli import Display, StimulusSet, natural_photos
from stimuli.apertures import Aperture
from stimuli.event_logs import read_event_log
from stimuli.export.export_set import RIGS, export_set
from stimuli.families import draw, sample
from stimuli.gray import with_gray_control
from stimuli.sequence import PresentationOrder, SequenceConfig
from synth import Stretch, recipe, synthesize


def comparison(model, natural: StimulusSet, count: int, steps: int) -> StimulusSet:
    """Put photographs, gratings and images synthesized for two sites into one set for the screen of the photographs."""
    size_deg, size_px, display = natural.size_deg, natural.size_px[1], natural.display
    aperture = Aperture(0.45 * size_deg, 0.1 * size_deg)
    patterns = sample("grating", count, seed=1, frequency_cpd=(2 / size_deg, 8 / size_deg))
    gratings = draw(patterns, size_deg=size_deg, size_px=size_px, aperture=aperture, channels=3, display=display)
    objectives = [Stretch(site) for site in model.site_ids[:2]]
    made = synthesize(model, objectives, seeds=2, recipe=recipe("robust", steps=steps))
    parts = {"photograph": natural.select(slice(0, count)), "grating": gratings, "synthesized": made.stimuli}
    sets = []
    for name, part in parts.items():
        ids = [f"{name}_{k + 1}" for k in range(len(part))]
        table = part.table.drop(columns=["stimulus_id", "filename"]).assign(stimulus_id=ids)
        sets.append(StimulusSet.from_arrays(part.codes(), table, size_deg=size_deg, display=display, name=name))
    return StimulusSet.concat(sets, name="comparison")


def played(folder: Path, path: Path) -> None:
    """Write the log of a run in which the animal broke off two trials, as psychopy/run_rsvp.py would."""
    order = PresentationOrder.from_csv(folder / "presentation.csv").table
    broken = order[order["trial"].isin([1, 3]) & (order["position"] < 2)]
    whole = order[~order["trial"].isin([1, 3])]
    again = order[order["trial"].isin([1, 3])]
    rows = pd.concat([broken.assign(shown=(broken["position"] < 1).astype(int)), whole.assign(shown=1)])
    rows = pd.concat([rows.sort_values("onset_ms_nominal"), again.assign(shown=1)])
    rows = rows.assign(onset_s=np.arange(len(rows)) * 0.2 + 1.0, duration_s=0.1)
    rows.drop(columns=["onset_ms_nominal", "duration_ms"]).to_csv(path, index=False)


def main() -> None:
    """Fit, make, export, read back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("example_10"))
    parser.add_argument("--small", action="store_true", help="seconds instead of a minute")
    options = parser.parse_args()
    size_px, photographs, count, steps = (64, 90, 4, 10) if options.small else (128, 640, 20, 100)

    # 1. Two models that saw different photographs: the driver makes images, the judge only predicts them.
    display = Display(resolution_px=(1920, 1080), width_cm=53.0, distance_cm=57.0, refresh_hz=60.0)
    size_deg = size_px / display.ppd  # so that a pixel of the file is a pixel of the screen
    natural = natural_photos(photographs, size_px).on_screen(display, size_deg=size_deg)
    brain = SimulatedBrain(natural, n_sites=4)
    recorded = brain.record(natural, n_repeats=6)
    driver = fit_sites(natural, recorded, split="A", backbone="efficientnet-lite0")
    judge = fit_sites(natural, recorded, split="B", backbone="efficientnet-lite1")

    # 2. A set for the same screen, with the gray control, and what both models expect.
    stimuli = with_gray_control(comparison(driver, natural, count, steps))
    predictions = {
        name: pd.DataFrame(model.predict(stimuli), index=stimuli.stimulus_ids, columns=list(model.site_ids))
        for name, model in {"driver": driver, "judge": judge}.items()
    }

    # 3. The folder for the rig. The first photograph is shown twice a block, to follow drift.
    sequence = SequenceConfig(repeats=5, normalizers=("photograph_1",), animal="m1", day="1", seed=1)
    folder = export_set(
        stimuli,
        options.out / "comparison",
        rigs=list(RIGS),
        sequence=sequence,
        predictions=predictions,
        overwrite=True,
        progress=print,
    )
    print((folder / "README_RIG.txt").read_text().split("START:")[0])
    site, family = driver.site_ids[0], stimuli.table.set_index("stimulus_id")["family"]
    both = pd.DataFrame({name: frame[site] for name, frame in predictions.items()})
    print(f"mean prediction for {site}:\n{both.groupby(family).mean().round(2).to_string()}")

    # 4. After the session: the log says what was shown. Broken trials stay in it, marked, and came again later.
    log_path = options.out / "run.csv"
    played(folder, log_path)
    log = read_event_log(log_path, StimulusSet.load(folder))
    shown = log.table[log.table["shown"]]
    repeats = shown.groupby("stimulus_id").size()
    print(json.dumps({"presentations": len(shown), "broken": int((~log.table["shown"]).sum())}))
    print(f"every image was shown {repeats.min()} times or more; {folder} is what goes to the rig")


if __name__ == "__main__":
    main()
