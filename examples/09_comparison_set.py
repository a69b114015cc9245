"""A comparison set for one site: what a synthesized image has to beat.

The best natural image alone is a weak rival. This set puts beside it what control papers compare with: copies of the
best natural images (moved and turned, as high in contrast as the synthesized ones, cropped to the receptive field),
gratings and contours, textures with the same statistics, scrambled images and objects in scenes. The best natural
images are chosen on half of the trials; every image is then judged by the simulated brain without noise. Writes the
set, a page with the model's predictions below every picture (index.html), a contact sheet, and a picture of the
responses.
"""

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd

from neural_fits import SimulatedBrain, fit_sites
from neural_fits.site_maps import site_table
from stimuli import StimulusSet, natural_photos
from stimuli.apertures import Aperture
from stimuli.competitors import affine_copies, best_stimuli, contrast_copies, cropped_copies
from stimuli.contact_sheet import save_contact_sheet
from stimuli.families import draw, sample
from stimuli.files import atomic_write
from stimuli.gray import with_gray_control
from stimuli.index_page import index_html
from stimuli.scenes import scenes
from stimuli.textures import phase_scrambled
from synth import Stretch, recipe, synthesize
from synth.texture_metamers import TextureConfig, texture_metamers


def picture(path: Path, stimuli: StimulusSet, responses: np.ndarray, site: str) -> None:
    """Draw the responses to every image by family, below the image that drives the site most in each."""
    from matplotlib.figure import Figure  # without pyplot nothing depends on a screen

    family = stimuli.table["family"].to_numpy()
    names = list(dict.fromkeys(family))
    figure = Figure(figsize=(0.95 * len(names) + 1.2, 5.2), layout="constrained")
    grid = figure.add_gridspec(2, len(names), height_ratios=[1, 3.2])
    below = figure.add_subplot(grid[1, :])
    spread = np.random.default_rng(0).uniform(-0.22, 0.22, len(family))
    for column, name in enumerate(names):
        rows = np.flatnonzero(family == name)
        strongest = rows[responses[rows].argmax()]
        axes = figure.add_subplot(grid[0, column], xticks=[], yticks=[])
        axes.imshow(stimuli.images([strongest])[0].transpose(1, 2, 0), vmin=0, vmax=1)
        below.plot(column + spread[rows], responses[rows], "o", color=f"C{column % 10}", markersize=4, alpha=0.7)
    below.axhline(responses[family == "natural"].max(), color="0.4", linestyle="--", linewidth=1)
    below.set_xlim(-0.5, len(names) - 0.5)
    labels = [f"{name.replace('_', chr(10))}\n({(family == name).sum()})" for name in names]
    below.set_xticks(range(len(names)), labels, fontsize=8)
    below.set_ylabel(f"response of {site} (spikes/s)")
    below.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Strongest image of every family, and all responses; dashed: best natural image", fontsize=10)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Record, fit, synthesize, gather the rivals, judge, show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("example_09"))
    parser.add_argument("--small", action="store_true", help="half a minute instead of some minutes")
    options = parser.parse_args()
    size_px, count, steps, few = (64, 120, 20, 4) if options.small else (128, 720, 150, 16)

    # 1. A model of a few sites, and one site to control.
    natural = natural_photos(count, size_px)
    brain = SimulatedBrain(natural, n_sites=8)
    recorded = brain.record(natural, n_repeats=8)
    model = fit_sites(natural, recorded, backbone="efficientnet-lite0")
    table = site_table(model)
    site = table["explained_variance"].idxmax()
    column = model.site_ids.index(site)
    field = table.loc[site]
    print(f"{site}: explained variance {field['explained_variance']:.2f} on held-out photographs")

    # 2. Images synthesized for it.
    made = synthesize(model, Stretch(site), seeds=few // 2, recipe=recipe("robust", steps=steps)).stimuli

    # 3. The best natural images, chosen on the first half of the trials, and copies of them.
    first_half = np.nanmean(recorded.responses[:, :4, column], axis=1)
    best = best_stimuli(natural, first_half, few, target_site=site)
    strongest = best.select(slice(0, few // 2))
    gray = made.images().mean(axis=1)
    rivals = [
        best,
        affine_copies(strongest, 4),
        contrast_copies(strongest, rms_contrasts=[float(gray.std(axis=(1, 2)).mean())]),
    ]
    radius = min(3 * field["rf_sd_deg"], natural.size_deg / 2)
    window = Aperture(radius, radius / 3, x_deg=field["rf_x_deg"], y_deg=field["rf_y_deg"])
    rivals += [cropped_copies(strongest, window), phase_scrambled(strongest)]

    # 4. Families with parameters, textures with the statistics of the best images, objects on backgrounds.
    for name in ("grating", "hyperbolic", "contour"):
        rivals.append(draw(sample(name, few), size_px=size_px, channels=3))
    if importlib.util.find_spec("plenoptic") is None:
        print("without plenoptic (pip install 'neural-population-control[textures]') there are no textures")
    else:
        config = TextureConfig(steps=4 if options.small else 30)
        rivals.append(texture_metamers(strongest.select(slice(0, few // 4)), 1, config))
    rivals.append(scenes(few, backgrounds=natural, variation="medium"))

    # 5. One set of all of them, judged, saved and shown.
    everything = with_gray_control(StimulusSet.concat([made, *rivals], name=f"comparison set for {site}"))
    predictions = pd.DataFrame(model.predict(everything), index=everything.stimulus_ids, columns=model.site_ids)
    truth = brain.truth(everything)[:, column]
    saved = everything.with_columns(brain=truth).save(options.out / "set", overwrite=True)
    atomic_write(options.out / "index.html", index_html(saved, predictions, {"judge": "simulated brain"}))
    save_contact_sheet(saved, options.out / "contact_sheet.png")
    picture(options.out / "responses.png", saved, truth, site)
    by_family = saved.table.groupby("family", sort=False)["brain"].agg(["count", "median", "max"]).round(1)
    print(by_family.to_string())
    print(f"wrote {options.out / 'index.html'}, contact_sheet.png, responses.png and the set")


if __name__ == "__main__":
    main()
