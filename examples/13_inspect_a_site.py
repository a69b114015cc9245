"""Look inside fitted sites, and ask a bare network which pixels carry a class.

The first half is what ``npc inspect MODEL --site all`` does: one page a site with receptive field, activation maps,
saliency, tuning and maximizing images. Here the brain is simulated, so the planted receptive fields are known. The
second half asks a classifier about photographs by saliency, SmoothGrad and integrated gradients.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from neural_fits import SimulatedBrain, fit_sites
from neural_fits.inspection.overlay import overlay
from neural_fits.inspection.saliency import integrated_gradients, saliency, smooth_grad
from neural_fits.inspection.targets import target_name
from stimuli import natural_photos
from stimuli.photos import EMBEDDED_PHOTOGRAPHS
from synth import recipe
from synth.inspection_page import save_inspections
from synth.site_inspection import inspect_sites

NETWORK = "efficientnet-lite0"
CLASSES = {"chelsea": "Egyptian cat", "coffee": "espresso", "rocket": "projectile", "motorcycle": "moped"}


def photograph(name: str, size_px: int) -> torch.Tensor:
    """Return the middle of an embedded photograph as an image (1, 3, height, width)."""
    from importlib.resources import as_file, files

    from PIL import Image

    known = next(each for each in EMBEDDED_PHOTOGRAPHS if each.name == name)
    with as_file(files(known.package) / known.file) as path, Image.open(path) as picture:
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        square = picture.convert("RGB").crop((left, top, left + side, top + side)).resize((size_px, size_px))
    return torch.from_numpy(np.asarray(square, dtype=np.float32) / 255).permute(2, 0, 1)[None]


def saliency_sheet(path: Path, size_px: int, samples: int) -> None:
    """Draw a row a photograph: the image, and what each method says of its class."""
    from matplotlib.figure import Figure  # without pyplot nothing depends on a screen

    heads = ("photograph, class asked", "saliency", "SmoothGrad", "integrated gradients\n(red for, blue against)")
    figure = Figure(figsize=(9, 2.3 * len(CLASSES) + 0.5), layout="constrained")
    panels = figure.subplots(len(CLASSES), len(heads))
    for axis, head in zip(panels[0], heads, strict=True):
        axis.set_title(head, fontsize=10)
    for row, (name, asked) in zip(panels, CLASSES.items(), strict=True):
        image = photograph(name, size_px)
        maps = [
            saliency(NETWORK, asked, image)[0],
            smooth_grad(NETWORK, asked, image, samples=samples)[0],
            integrated_gradients(NETWORK, asked, image, steps=samples)[0].sum(0),
        ]
        row[0].imshow(image[0].permute(1, 2, 0).numpy())
        row[0].set_ylabel(target_name(NETWORK, asked), fontsize=10)
        for axis, values, signed in zip(row[1:], maps, (False, False, True), strict=True):
            blurred = gaussian_filter(values.numpy(), size_px / 100)  # for the eye, which cannot weigh speckle
            axis.imshow(overlay(image[0], blurred, float(np.quantile(np.abs(blurred), 0.995)), signed))
        for axis in row:
            axis.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=110)


def main() -> None:
    """Record, fit, inspect; then ask the bare network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("example_13"))
    parser.add_argument("--small", action="store_true", help="under a minute; only checks that everything runs")
    options = parser.parse_args()
    if options.small:
        print("--small: only checks that everything runs; figures and pictures mean nothing")
    size_px, n_photos, sites, steps = (64, 60, 2, 5) if options.small else (128, 640, 4, 150)

    natural = natural_photos(n_photos, size_px).on_screen(size_deg=8.0)
    brain = SimulatedBrain(natural, n_sites=sites)
    recorded = brain.record(natural)
    model = fit_sites(natural, recorded, backbone=NETWORK)
    found = inspect_sites(
        model, natural=natural, images=2 if options.small else 3, recipe=recipe("robust", start="pink", steps=steps)
    )
    for each in found:
        row, planted = each.gradient_field.table().iloc[0], recorded.sites.loc[each.site]
        truth = 8 * (planted["rf_center_x"] - 0.5), 8 * (0.5 - planted["rf_center_y"])
        print(
            f"{each.site}: planted center {truth[0]:+.2f}, {truth[1]:+.2f} deg, found "
            f"{row['rf_x_deg']:+.2f}, {row['rf_y_deg']:+.2f} deg"
        )
    print(f"wrote {save_inspections(found, options.out / 'pages', overwrite=True)}")

    saliency_sheet(options.out / "saliency.png", 96 if options.small else 224, 4 if options.small else 50)
    print(f"wrote {options.out / 'saliency.png'}")


if __name__ == "__main__":
    main()
