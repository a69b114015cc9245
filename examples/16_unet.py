"""A U-Net twice: it finds and separates objects in photographs, and, untrained, it draws images that drive sites.

1. Train on scenes of eight solid objects on nine photographs; test on new scenes on five other photographs, and on one
   larger than any it was trained on, tile by tile.
2. Optimize the weights of random U-Nets (``param="deep_prior"``) beside Fourier coefficients and pixels. The driver, a
   model of other photographs and another backbone, and the simulated brain itself say what the images are worth.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from neural_fits import SimulatedBrain, fit_sites
from neural_fits.networks.cutout_segmentation import crowded_scenes, cutout_task
from neural_fits.networks.segmentation import Segmentation, SegmentationConfig, fit_segmentation
from neural_fits.networks.segmentation_scores import matched_objects, mean_iou
from neural_fits.networks.unet import UNet
from stimuli import natural_photos
from stimuli.cutouts import sample_cutouts
from synth import Stretch, recipe, synthesize
from synth.progress import Progress


def segmentation(small: bool) -> tuple[Segmentation, dict]:
    """Train, score, and return what the picture shows."""
    train, test = cutout_task(40, 6) if small else cutout_task()
    config = SegmentationConfig(steps=12) if small else SegmentationConfig()
    network = UNet(1, 2, depth=3, width=4 if small else 16, padding="same", norm="batch")
    began = time.perf_counter()
    with Progress() as progress:
        progress.stage(f"training a U-Net for {config.steps} steps")
        learned = fit_segmentation(network, train.images, train.objects, config, progress.step)
    seconds = time.perf_counter() - began
    return learned, shown(learned, test, seconds)


def shown(learned: Segmentation, test, seconds: float) -> dict:
    """Score held-out scenes, and segment one larger than all of them."""
    chances = learned.probability(test.images).numpy()
    iou = mean_iou(learned.mask(test.images), test.objects > 0)
    f1 = matched_objects(learned.objects(test.images), test.objects).f1
    photo = natural_photos(60, 192, channels=1, seed=5)
    held_out = photo.select(photo.table["photograph"].isin(set(test.photographs)).to_numpy())
    large = crowded_scenes(1, sample_cutouts(), held_out, most_objects=9, size_range=(0.15, 0.3), seed=6)
    print(f"U-Net: IoU {iou:.3f}, objects found and separated (F1) {f1:.2f}, trained in {seconds:.0f} s")
    return {
        **{"test": test, "chances": chances, "found": learned.objects(test.images), "iou": iou, "f1": f1},
        **{"large": large, "large_found": learned.objects(large.images, tile_px=64)},
    }


def draw_segmentation(path: Path, learned: Segmentation, result: dict) -> None:
    """Draw held-out scenes over chances and objects, and the large scene."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.9), layout="constrained")
    figure.suptitle(
        f"U-Net on photographs that it never saw: IoU {result['iou']:.2f} over {len(result['chances'])} scenes, "
        f"single objects F1 {result['f1']:.2f}",
        fontsize=10,
    )
    left, right = figure.subfigures(1, 2, width_ratios=(5, 4.1))
    columns = min(5, len(result["chances"]))
    axes = left.subplots(3, columns)
    for k in range(columns):
        axes[0, k].imshow(result["test"].images[k][0].numpy(), cmap="gray", vmin=0, vmax=1)
        axes[1, k].imshow(result["chances"][k], cmap="magma", vmin=0, vmax=1)
        axes[2, k].imshow(colored(result["found"][k]))
    for row, name in enumerate(("scene (96 px)", "P(object)", "objects")):
        axes[row, 0].set_ylabel(name, fontsize=8)
    large = right.subplots(2, 2)
    large[0, 0].imshow(result["large"].images[0][0].numpy(), cmap="gray", vmin=0, vmax=1)
    large[0, 0].set_title("192 px, nine 64 px tiles", fontsize=8)
    large[0, 1].imshow(colored(result["large_found"][0]))
    large[0, 1].set_title("objects", fontsize=8)
    large[1, 0].imshow(colored(result["large"].objects[0]))
    large[1, 0].set_title("truth", fontsize=8)
    large[1, 1].plot(learned.loss["step"], learned.loss["loss"].rolling(10, min_periods=1).mean(), color="0.2")
    large[1, 1].set_title("weighted cross-entropy", fontsize=8)
    large[1, 1].set_xlabel("step", fontsize=8)
    large[1, 1].tick_params(labelsize=7)
    for axis in [*axes.flat, *large.flat[:3]]:
        axis.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=100)


def colored(objects: np.ndarray) -> np.ndarray:
    """Give each object a color."""
    from matplotlib import colormaps

    return np.where(objects[..., None] > 0, colormaps["tab10"]((objects - 1) % 10)[..., :3], 0.08)


def deep_prior(small: bool) -> dict:
    """Synthesize with three parametrizations and budgets; return z-scores beside natural images, and images."""
    size_px, budgets = 64, (3, 6) if small else (10, 25, 50)
    natural = natural_photos(60 if small else 240, size_px)
    brain = SimulatedBrain(natural, n_sites=3 if small else 6)
    recorded = brain.record(natural, n_repeats=8)
    driver = fit_sites(natural, recorded, split="A")
    judge = fit_sites(natural, recorded, split="B", backbone="efficientnet-lite0" if small else "efficientnet-lite1")
    sites = list(driver.scores["explained_variance"].nlargest(1 if small else 3).index)
    chosen = [list(driver.site_ids).index(site) for site in sites]
    readers = {"driver": driver, "independent model": judge, "simulated brain": brain}
    scores, images = {}, {}
    for param, step_size in (("pixels", 0.01), ("fourier", 0.05), ("deep_prior", 0.05)):
        for steps in budgets:
            config = recipe("robust", param=param, start="pink", step_size=step_size, steps=steps)
            made = synthesize(driver, [Stretch(site) for site in sites], seeds=1, recipe=config, slots=len(sites))
            for name, reader in readers.items():
                reached = [read(reader, stimuli)[:, chosen] for stimuli in (natural, made.stimuli)]
                z = (np.diag(reached[1]) - reached[0].mean(0)) / reached[0].std(0)
                scores.setdefault((name, param), []).append(float(z.mean()))
            print(f"{param}, {steps} steps: " + ", ".join(f"{n} {scores[n, param][-1]:.2f}" for n in readers))
        images[param] = made.stimuli.images()
    return {"scores": scores, "images": images, "budgets": budgets, "sites": sites, "readers": list(readers)}


@torch.no_grad()
def read(reader, stimuli) -> np.ndarray:
    """Return responses (image, site) without noise."""
    return (
        reader.truth(stimuli)
        if isinstance(reader, SimulatedBrain)
        else reader(torch.from_numpy(stimuli.images())).numpy()
    )


def draw_deep_prior(path: Path, result: dict) -> None:
    """Draw the images of the largest budget, and forecasts over steps."""
    from matplotlib.figure import Figure

    params = list(result["images"])
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(4, 5))
    axes = left.subplots(len(params), len(result["sites"]), squeeze=False)
    for row, param in enumerate(params):
        for k, site in enumerate(result["sites"]):
            axes[row, k].imshow(result["images"][param][k].transpose(1, 2, 0), vmin=0, vmax=1)
            axes[row, k].set(xticks=[], yticks=[])
            if row == 0:
                axes[row, k].set_title(site, fontsize=8)
        axes[row, 0].set_ylabel(param, fontsize=8)
    left.suptitle(f"after {result['budgets'][-1]} steps from faint noise", fontsize=9)
    plots = right.subplots(1, 3, sharex=True)
    for axis, name in zip(plots, result["readers"], strict=True):
        for param, style in zip(params, ("0.6", "tab:blue", "tab:red"), strict=True):
            axis.plot(result["budgets"], result["scores"][name, param], "o-", color=style, markersize=3, label=param)
        axis.set_title(name, fontsize=8)
        axis.set_xlabel("steps", fontsize=8)
        axis.set_ylim(bottom=min(0, *axis.get_ylim()))
        axis.tick_params(labelsize=7)
    plots[0].set_ylabel("response (SD of natural images)", fontsize=8)
    plots[0].legend(fontsize=7, frameon=False)
    sites = len(result["sites"])
    right.suptitle(f"mean over sites ({sites}), one seed, no interval: an example, no ranking", fontsize=9)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("example_16"))
    parser.add_argument("--small", action="store_true", help="under a minute; only checks that everything runs")
    options = parser.parse_args()
    if options.small:
        print("--small: only checks that everything runs; figures and pictures mean nothing")
    options.out.mkdir(parents=True, exist_ok=True)
    draw_segmentation(options.out / "unet.png", *segmentation(options.small))
    draw_deep_prior(options.out / "deep_prior.png", deep_prior(options.small))
    print(f"wrote {options.out / 'unet.png'} and {options.out / 'deep_prior.png'}")


if __name__ == "__main__":
    main()
