"""Ask for what you want: objectives that you write, and sums of those that are there.

An objective gives every image a score. Yours is a function of (responses, images), in torch so that it has a gradient:
here it counts how far an image is from its mirror image. Objectives are added, subtracted and multiplied by numbers.
"""

import argparse
from pathlib import Path

import numpy as np
from torch import Tensor

from neural_fits import SimulatedBrain, fit_sites
from stimuli import StimulusSet, natural_photos
from synth import Contrast, Custom, Objective, Pattern, Stretch, Suppress, recipe, synthesize


def asymmetry(responses: Tensor, images: Tensor) -> Tensor:  # noqa: ARG001
    """Return the root-mean-square difference between each image and its mirror image, in % of the pixel range.

    Responses (image, site) are in spikes/s, images (image, channel, height, width) in [0, 1]; one score per image. With
    a recipe of random views the gradient is that on the views, turned and noisy; the best image is chosen without them.
    """
    return 100 * ((images - images.flip(-1)) ** 2).mean((1, 2, 3)).add(1e-8).sqrt()


def draw(path: Path, made: StimulusSet, names: list[str], sites: list[str], best: np.ndarray) -> None:
    """Draw the images, and under each the responses of all sites in standard deviations over photographs."""
    from matplotlib.figure import Figure  # without pyplot nothing depends on a screen

    figure = Figure(figsize=(1.75 * len(names) + 0.6, 4.6), layout="constrained")
    figure.suptitle("One model, several objectives: an image for each, and what the sites do", fontsize=10)
    axes = figure.subplots(2, len(names), height_ratios=[1, 1.2], squeeze=False)
    for axis in axes[1, 1:]:
        axis.sharey(axes[1, 0])
        axis.tick_params(labelleft=False)
    at = np.arange(len(sites))
    for k, (name, image) in enumerate(zip(names, made.images(), strict=True)):
        top, bottom = axes[:, k]
        top.imshow(image.transpose(1, 2, 0), vmin=0, vmax=1)
        top.set(xticks=[], yticks=[])
        top.set_title(name, fontsize=8)
        top.set_xlabel(f"asymmetry {made.table['asymmetry'][k]:.1f} %", fontsize=8)
        row = made.table.iloc[k]
        bottom.bar(at, [row[f"predicted_{site}"] for site in sites], color="C0", label="predicted")
        bottom.plot(at, [row[f"brain_{site}"] for site in sites], "ko", markersize=4, label="simulated brain")
        bottom.plot(at, best, "_", color="C1", markersize=14, label="best photograph")
        bottom.axhline(0, color="0.5", linewidth=0.8)
        bottom.set_xticks(at, [*"ABCD"], fontsize=8)
        bottom.set_xlabel("site", fontsize=8)
        bottom.tick_params(axis="y", labelsize=8)
        bottom.spines[["top", "right"]].set_visible(False)
    axes[1, 0].set_ylabel("response (standard deviations\nabove the mean of photographs)", fontsize=8)
    handles, labels = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Fit a model, ask for six things, judge, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("example_07"))
    parser.add_argument("--small", action="store_true", help="seconds instead of a minute")
    options = parser.parse_args()
    size_px, count, steps = (64, 120, 30) if options.small else (128, 640, 150)

    natural = natural_photos(count, size_px)
    brain = SimulatedBrain(natural, n_sites=8)
    model = fit_sites(natural, brain.record(natural, n_repeats=8), backbone="efficientnet-lite0")
    a, b, c, d = sites = list(model.scores["explained_variance"].nlargest(4).index)
    print(f"A, B, C, D are {', '.join(sites)}")

    # A weight is the price of one unit: here 1 % of asymmetry costs as much as 2 spikes/s of site A. Too high a price
    # (4 is) and the best image is the faint noise of the start, which is symmetric enough and drives nothing.
    unlike_its_mirror = Custom(asymmetry)
    wanted: dict[str, Objective] = {
        "A up": Stretch(a),
        "A up, B down": Stretch(a) + Suppress(b),
        "A against B, C, D": Contrast(a, against=(b, c, d)),
        "A, B at +3 sd,\nC, D at 0": Pattern({a: 3, b: 3, c: 0, d: 0}),
        "A up, symmetric": Stretch(a) - 2 * unlike_its_mirror,
        "A, B, C, D up,\nsymmetric": Stretch(a) + Stretch(b) + Stretch(c) + Stretch(d) - 3 * unlike_its_mirror,
    }
    made = synthesize(model, list(wanted.values()), seeds=1, recipe=recipe("robust", steps=steps)).stimuli

    # Responses in standard deviations over natural photographs, as Contrast and Pattern see them.
    columns = [model.site_ids.index(site) for site in sites]
    mean, sd = np.array(model.info.natural_mean)[columns], np.array(model.info.natural_std)[columns]
    truth = brain.truth(natural)[:, columns]
    predicted = (model.predict(made)[:, columns] - mean) / sd
    achieved = (brain.truth(made)[:, columns] - truth.mean(0)) / truth.std(0)
    results: dict[str, object] = {"asymmetry": asymmetry(None, _tensor(made)).tolist()}
    results |= {f"predicted_{site}": predicted[:, k] for k, site in enumerate(sites)}
    results |= {f"brain_{site}": achieved[:, k] for k, site in enumerate(sites)}
    made = made.with_columns(**results).save(options.out / "own", overwrite=True)
    for objective in made.table["objective"]:
        print(objective)
    best = ((truth - truth.mean(0)) / truth.std(0)).max(0)
    draw(options.out / "own_objectives.png", made, list(wanted), sites, best)
    print(f"wrote {options.out / 'own_objectives.png'} and the set {options.out / 'own'}")


def _tensor(stimuli: StimulusSet) -> Tensor:
    import torch

    return torch.from_numpy(stimuli.images())


if __name__ == "__main__":
    main()
