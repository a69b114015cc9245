"""The closed loop: what a round teaches, the next one uses.

Each round fits a driver to everything recorded so far, makes images, shows them and judges them. A plan says first
which targets fit into a session. The folder is the state of the loop: stop this script at any time and start it again.
With an animal, leave `record` out: `next_round` returns when images are to be shown, and `give_recordings` goes on;
`npc loop` does the same from the command line.
"""

import argparse
from pathlib import Path

from neural_fits import SimulatedBrain, SiteRecordings, fit_sites
from stimuli import StimulusSet, natural_photos
from synth.closed_loop import LoopConfig, gains_per_round, loop_state, next_round, start_loop
from synth.session_plan import plan_session
from synth.site_overlap import balanced_patterns, overlapping_population, site_overlap

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=Path, default=Path("example_08"))
parser.add_argument("--small", action="store_true", help="seconds instead of a quarter of an hour")
options = parser.parse_args()
count, size_px, steps, rounds = (80, 64, 5, 2) if options.small else (640, 128, 150, 3)
network = {"backbone": "efficientnet-lite0", "layer": "blocks.2"} if options.small else {}

natural = natural_photos(count, size_px)
brain = SimulatedBrain(natural, n_sites=6 if options.small else 16)


def record(stimuli: StimulusSet, number: int) -> SiteRecordings:
    """Show the images of a round; round 0 are the natural ones."""
    return brain.record(stimuli, n_repeats=24 if number else 8, seed=number)


# 1. A pilot fit says which sites can be driven, and which of them look at the same place.
pilot = fit_sites(natural, record(natural, 0), **network)
site = pilot.site_ids[0]
print(site_overlap(pilot).round(2).to_string())
print(f"the sites that overlap most with {site}: {', '.join(overlapping_population(pilot, site, 3)[1:])}")
print(f"a pattern over them: {balanced_patterns(overlapping_population(pilot, site, 3), 2)[0]}")

# 2. What fits into a session: images x repeats x (stimulus + gap), with natural images to show again.
minutes = 3 if options.small else 15
plan = plan_session(pilot, 60 * minutes, targets=2 if options.small else 4, min_explained_variance=-1)
print(plan)
print(plan.table.round(2).to_string())

# 3. Rounds. Half of the images of each teach the next driver, the other half the validator that judges it.
folder = options.out / "loop"
if not folder.exists():
    config = LoopConfig(
        rounds=rounds,
        objectives=tuple(map(repr, plan.objectives)),
        images=len(plan.seeds),
        steps=steps,
        **({"backbone": (network["backbone"],), "layer": network["layer"]} if network else {}),
    )
    start_loop(folder, config, natural)
while loop_state(folder).step != "done":
    print(next_round(folder, record=record))
print(gains_per_round(folder).round(2).to_string(index=False))
print(folder / "gain_per_round.png")
