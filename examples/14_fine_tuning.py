"""Teach a network classes of your own: new head, last blocks tuned gently, beside a linear probe of the untouched one.

Small gray patches of the embedded photographs, of equal mean and contrast: which picture is a patch from? Patches that
are held out come from other places of the pictures than those that are learned from. With `--folder` your own pictures
are read instead, one sub-folder a class. Then the same for simulated recorded sites: the last block read is tuned with
their readout, beside the frozen readout in the same folds.
"""

import argparse
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

from neural_fits import SimulatedBrain, fit_sites
from neural_fits.networks.classifier import Classifier, share_right
from neural_fits.networks.fine_tuning import ClassTuning, fine_tune
from neural_fits.networks.site_fine_tuning import SiteTuning, TunedSites, fine_tune_sites
from stimuli import StimulusSet, natural_photos
from stimuli.class_folder import images_by_class

FILES = (
    "brick.png",
    "grass.png",
    "gravel.png",
    "moon.png",
    "coins.png",
    "hubble_deep_field.jpg",
    "coffee.png",
    "camera.png",
)
TILES = 4  # a side: each picture is cut into 4 x 4 tiles, and no patch leaves its tile


def patches(per_class: int, size_px: int, side_px: int = 24) -> StimulusSet:
    """Cut patches of 24 px and enlarge them; a tile of a picture is one group."""
    draw = np.random.default_rng(0)
    images, ids, labels, tiles = [], [], [], []
    for file in FILES:
        picture = Image.open(Path(skimage.__file__).parent / "data" / file).convert("L")
        wide, high = picture.width / TILES, picture.height / TILES
        for k in range(per_class):
            row, column = divmod(k % TILES**2, TILES)
            left = column * wide + draw.random() * (wide - side_px)
            top = row * high + draw.random() * (high - side_px)
            box = (left, top, left + side_px, top + side_px)
            patch = np.asarray(picture.resize((size_px, size_px), Image.Resampling.LANCZOS, box=box)).astype(float)
            patch = (patch - patch.mean()) / max(patch.std(), 1e-6) * 0.18 + 0.5
            images.append(patch.clip(0, 1)[None])
            label = file.split(".")[0].split("_")[0]
            ids.append(f"{label}_{k:03d}")
            labels.append(label)
            tiles.append(f"{label}, tile {row} {column}")
    return StimulusSet.from_arrays(np.stack(images), {"stimulus_id": ids, "label": labels, "photograph": tiles})


def tuned_sites(count: int, epochs: int) -> TunedSites:
    """Record a simulated brain, fit its sites, and tune what was fitted."""
    natural = natural_photos(count, size_px=64)
    recorded = SimulatedBrain(natural, n_sites=12, seed=0).record(natural, n_repeats=8, seed=0)
    model = fit_sites(natural, recorded, backbone="efficientnet-lite0", layer="blocks.4", folds=3)
    return fine_tune_sites(model, natural, recorded, SiteTuning(epochs=epochs, learning_rate=3e-4, head_rate=1e-3))


def picture(path: Path, images: StimulusSet, found: Classifier, sites: TunedSites, note: str) -> None:
    """Draw examples of each class, confusions of probe and tuned network, the training, and sites frozen and tuned."""
    from matplotlib.figure import Figure  # without pyplot nothing depends on a screen

    names = found.class_names
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    examples, tables, curve = figure.subfigures(1, 3, width_ratios=[1.0, 2.6, 1.2])
    axes = examples.subplots(len(names), 3, squeeze=False)
    examples.suptitle("three patches a class", fontsize=10)
    for row, name in zip(axes, names, strict=True):
        ids = images.table.loc[images.table["label"] == name, "stimulus_id"].iloc[:3]
        for axis, image in zip(row, images.images(list(ids)), strict=True):
            axis.imshow(image.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    both = {"linear probe, network untouched": "probe_confusion", "last blocks tuned": "confusion"}
    total = int(found.confusion.to_numpy().sum())
    before, after = (share_right(found.tables[key]) for key in both.values())
    verdict = "better than" if after > before else "no better than"
    tables.suptitle(f"{total} patches from places not trained on: tuned {verdict} the probe{note}", fontsize=10)
    for axis, (title, key) in zip(tables.subplots(1, 2), both.items(), strict=True):
        counts = found.tables[key]
        axis.imshow(counts, cmap="Greys")
        axis.set_title(f"{title}\n{share_right(counts):.1%} right", fontsize=10)
        axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
        axis.set_yticks(range(len(names)), names if key == "probe_confusion" else [], fontsize=8)
        axis.set_xlabel("named as", fontsize=9)
        for (i, j), count in np.ndenumerate(counts.to_numpy()):
            if count:
                bright = count > counts.to_numpy().max() / 2
                axis.text(j, i, int(count), ha="center", va="center", fontsize=8, color="white" if bright else "black")
        if key == "probe_confusion":
            axis.set_ylabel("true class", fontsize=9)
    (axis, lower), training = curve.subplots(2), found.tables["training"]
    axis.plot(training["epoch"], training["held_out_loss"], "o-", ms=3, color="#1f5fa8", label="stopping groups")
    axis.plot(training["epoch"], training["training_loss"], "-", color="#b9c0c9", label="training patches")
    kept = training[training["kept"]]
    axis.plot(kept["epoch"], kept["held_out_loss"], "o", ms=9, mfc="none", color="#c2410c", label="kept")
    axis.set(xlabel="epoch (0: the probe)", ylabel="cross-entropy (nats)", ylim=(0, None))
    axis.set_title("training on the patches", fontsize=10)
    axis.legend(frameon=False, fontsize=7)
    scores = sites.scores
    ends = min(0.0, float(scores[["r", "frozen_r"]].min().min())), 1
    lower.plot(ends, ends, "-", color="#b9c0c9", lw=1)
    lower.plot(scores["frozen_r"], scores["r"], "o", ms=4, color="#1f5fa8")
    lower.set(xlabel="held-out r, frozen readout", ylabel="r, tuned", xlim=ends, ylim=ends, aspect="equal")
    mean = scores[["frozen_r", "r"]].mean()
    lower.set_title(
        f"{len(scores)} simulated sites: mean r\n{mean['frozen_r']:.3f} frozen, {mean['r']:.3f} tuned", fontsize=10
    )
    for each in (axis, lower):
        each.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Tune, score, draw, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="pictures of your own, one sub-folder a class")
    parser.add_argument("--out", type=Path, default=Path("example_14"))
    parser.add_argument("--small", action="store_true", help="under a minute; only checks that everything runs")
    options = parser.parse_args()
    if options.small:
        print("--small: only checks that everything runs; figures and pictures mean nothing")
    images = images_by_class(options.folder) if options.folder else patches(16 if options.small else 80, 64)
    epochs, views = (1, 1) if options.small else (12, 3)
    config = ClassTuning(learning_rate=2e-4, head_rate=2e-4, test_share=0.4, epochs=epochs, views=views)
    found = fine_tune("efficientnet-lite0", images, config=config, progress=print)
    options.out.mkdir(parents=True, exist_ok=True)
    sites = tuned_sites(*((60, 1) if options.small else (240, 8)))
    print(sites)
    note = " (--small)" if options.small else ""
    picture(options.out / "fine_tuning.png", images, found, sites, note)
    folder = found.save(options.out / "network", overwrite=True)
    print(found)
    print(f"wrote {options.out / 'fine_tuning.png'} and the network: load_backbone('saved:{folder}')")


if __name__ == "__main__":
    main()
