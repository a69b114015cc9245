"""Capsules: a network whose units are vectors, what they say about a digit, and how one unit changes what they say.

A capsule network (Sabour, Frosst & Hinton 2017) is trained on scikit-learn's handwritten digits: the length of a
capsule says whether its digit is there, the direction how it is written. Then one unit at a time is moved and the
capsule drawn, images are made that drive each capsule, and sites of a simulated brain are read from its layers, as from
any backbone.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from neural_fits import SimulatedBrain, fit_sites
from neural_fits.backbones import load_backbone
from neural_fits.features import FeatureExtractor
from neural_fits.networks.capsule_backbone import DIGIT_TRAINING, capsule_backbone
from neural_fits.networks.capsule_pose import POSE_STEPS, pose_perturbation
from neural_fits.networks.capsule_training import CapsuleTraining, accuracy, train_capsules
from neural_fits.networks.capsules import CapsuleNetwork
from neural_fits.networks.digits import DigitSplit, digits
from neural_fits.networks.saved import save_backbone
from stimuli import natural_photos
from synth import LayerUnit, SynthesisConfig, synthesize


def trained(options: argparse.Namespace) -> tuple[CapsuleNetwork, DigitSplit]:
    """Train on four fifths of the digits, twice: held out are the last, of other writers, or some drawn at random."""
    training = CapsuleTraining(epochs=2) if options.small else DIGIT_TRAINING
    for split in ("order", "stratified"):
        parts = digits(split)
        images, labels = (parts.images[:300], parts.labels[:300]) if options.small else (parts.images, parts.labels)
        network = train_capsules(images, labels, training, progress=options.say).network
        right = accuracy(network, parts.held_out_images, parts.held_out_labels)
        print(f"split {split!r}: {right:.1%} of {len(parts.held_out_labels)} held-out digits are read right")
    return network, parts


def driven(network: CapsuleNetwork, steps: int) -> np.ndarray:
    """Return an image for each digit, made to lengthen its capsule."""
    extractor = FeatureExtractor(capsule_backbone(network), "lengths")
    units = [LayerUnit("lengths", digit) for digit in range(network.classes)]
    config = SynthesisConfig(channels=1, steps=steps, param="pixels", start="gray", gradient_blur_px=(2.0, 1.0))
    return synthesize(extractor, units, seeds=1, recipe=config).stimuli.images()[:, 0]


def of_each(parts: DigitSplit, network: CapsuleNetwork) -> torch.Tensor:
    """Return the place of the first held-out picture of each digit that is read right, -1 where none is."""
    right = network(parts.held_out_images).argmax(1) == parts.held_out_labels
    rows = [torch.nonzero((parts.held_out_labels == digit) & right).flatten() for digit in range(10)]
    return torch.stack([row[0] if len(row) else torch.tensor(-1) for row in rows])


def telling(poses: np.ndarray, count: int) -> np.ndarray:
    """Return the units that change the picture most, strongest first."""
    return np.argsort(-np.abs(poses[:, -1] - poses[:, 0]).sum((1, 2)))[:count]


def draw(path: Path, network: CapsuleNetwork, parts: DigitSplit, made: np.ndarray, shown: list[int], note: str) -> None:
    """Draw digits above what their capsules say and what drives them; below, capsules moved along single units."""
    from matplotlib.figure import Figure  # without pyplot nothing depends on a screen

    chosen = of_each(parts, network)
    images = parts.held_out_images[chosen]
    capsules = network.capsules(images)
    lengths, drawn = capsules.norm(dim=-1), network.decode(capsules, torch.arange(10))[:, 0]
    figure = Figure(figsize=(9, 7.6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[3.5, 4.1])
    title = f"The first held-out digit of each class that the capsule network reads right{note}"
    above.suptitle(title, fontsize=11, weight="bold")
    rows = [("digit", images[:, 0]), ("drawn from\nits capsule", drawn), ("made to drive\nthe capsule", made)]
    axes = above.subplots(3, 10)
    for line, (name, pictures) in zip(axes, rows, strict=True):
        line[0].set_ylabel(name, fontsize=9, rotation=0, ha="right", va="center")
        for axis, picture in zip(line, pictures, strict=True):
            plain(axis, picture)
    reached = network(torch.from_numpy(made)[:, None]).diagonal()
    for line, values in ((axes[0], lengths.diagonal()), (axes[2], reached)):
        for axis, value in zip(line, values, strict=True):
            axis.set_xlabel(f"length {value:.2f}", fontsize=8)
    for digit in torch.nonzero(chosen < 0).flatten().tolist():
        for axis in axes[:2, digit]:
            axis.images[0].remove()
        axes[0, digit].set_xlabel("none right", fontsize=8)
    below.suptitle("One unit of a capsule moved at a time, and the capsule drawn", fontsize=11, weight="bold")
    poses = pose_perturbation(network, images[shown], torch.tensor(shown)).numpy()
    for axis, digit, pose in zip(below.subplots(1, len(shown), squeeze=False)[0], shown, poses, strict=True):
        units = telling(pose, 8)
        axis.imshow(tiled(pose[units]), cmap="gray", vmin=0, vmax=1)
        axis.set_title(f"capsule of {digit}: the 8 of {len(pose)} units that change it most", fontsize=9)
        side = pose.shape[-1] + 1
        axis.set_yticks(side * np.arange(len(units)) + side / 2 - 1, [f"unit {unit}" for unit in units], fontsize=8)
        ends = [0, len(POSE_STEPS) // 2, len(POSE_STEPS) - 1]
        axis.set_xticks(side * np.array(ends) + side / 2 - 1, ["\N{MINUS SIGN}0.25", "as it is", "+0.25"], fontsize=8)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    figure.savefig(path, dpi=110)


def tiled(pictures: np.ndarray) -> np.ndarray:
    """Join pictures (row, column, height, width) with white lines of one pixel."""
    framed = np.pad(pictures, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=1.0)
    return np.concatenate(np.concatenate(framed, axis=1), axis=1)[:-1, :-1]


def plain(axis, picture) -> None:
    """Show one picture without ticks."""
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def as_backbone(small: bool) -> None:
    """Fit simulated sites on the installed network, layer by layer, beside an EfficientNet."""
    natural = natural_photos(40 if small else 240, size_px=32)
    brain = SimulatedBrain(natural, n_sites=3 if small else 8, seed=0)
    recorded = brain.record(natural, n_repeats=8, seed=0)
    network = load_backbone("capsnet-digits")
    for backbone, layer in ((network, "convolution"), (network, "primary"), ("efficientnet-lite0", "blocks.2")):
        model = fit_sites(natural, recorded, backbone=backbone, layer=layer, readout="ridge", folds=3)
        name = model.extractor.backbone.name
        print(f"sites on {name} {layer}: held-out r {model.scores['r'].median():.2f} (median of {len(model.scores)})")


def main() -> None:
    """Train, draw, save, and use as a backbone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--digits", nargs="+", type=int, default=[2, 5], help="whose capsules are moved")
    parser.add_argument("--out", type=Path, default=Path("example_15"))
    parser.add_argument("--small", action="store_true", help="under a minute; only checks that everything runs")
    options = parser.parse_args()
    if options.small:
        print("--small: only checks that everything runs; figures and pictures mean nothing")
    options.say = None if options.small else print
    options.out.mkdir(parents=True, exist_ok=True)

    network, parts = trained(options)
    made = driven(network, 10 if options.small else 60)
    note = " (--small)" if options.small else ""
    draw(options.out / "capsules.png", network, parts, made, options.digits, note)
    folder = save_backbone(capsule_backbone(network, "my-capsules"), options.out / "network", overwrite=True)
    print(f"load_backbone('saved:{folder}') -> {load_backbone(f'saved:{folder}').name}")
    as_backbone(options.small)
    print(f"wrote {options.out / 'capsules.png'}")


if __name__ == "__main__":
    main()
