"""The whole experiment in five steps, on a simulated brain.

Show natural images, fit a driver and a validator, synthesize, show again, judge. With recordings of your own, replace
the two `brain.record(...)` by `SiteRecordings.load(...)`.
"""

import argparse
from pathlib import Path

from neural_fits import SimulatedBrain, fit_sites
from stimuli import StimulusSet, natural_photos
from synth import OneHot, Stretch, evaluate_control, recipe, synthesize

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=Path, default=Path("example_01"))
parser.add_argument("--small", action="store_true", help="seconds instead of minutes")
options = parser.parse_args()
size_px, steps = (64, 10) if options.small else (128, 400)

# 1. Natural images, shown 8 times each.
natural = natural_photos(320 if options.small else 1280, size_px)
brain = SimulatedBrain(natural, n_sites=8)
recorded = brain.record(natural, n_repeats=8)

# 2. A driver, and a validator on other photographs with another readout.
#    For control, the mean of two readouts with strong penalties: it promises less, and keeps more of it.
driver = fit_sites(natural, recorded, split="A", readout="local+alternating", penalty="one_se")
validator = fit_sites(natural, recorded, split="B", readout="gaussian")
print(driver.scores.round(2))

# 3. Images: one site as high as possible, or one site up and the others down. A recipe is a frozen dataclass;
#    this one starts from the natural image that the driver scores best.
best = driver.scores["explained_variance"].nlargest(4).index
objectives = [Stretch(best[0]), OneHot(best[0], population=tuple(best))]
made = synthesize(driver, objectives, seeds=2, recipe=recipe("robust", steps=steps), natural=natural)
made.stimuli.save(options.out / "round1", overwrite=True)

# 4. Show the files, not the arrays.
shown = StimulusSet.load(options.out / "round1")
everything = recorded.concat_stimuli(brain.record(shown, n_repeats=8, seed=1))

# 5. What was achieved, beside what was forecast.
report = evaluate_control(shown, reference=natural, recordings=everything, drivers=[driver], validators=[validator])
print(report.targets.drop(columns="objective").round(2).to_string())
print(report.to_html(options.out / "report.html"))
