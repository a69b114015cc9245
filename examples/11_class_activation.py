"""Where in an image is a class seen, and where does a site's response come from? Class activation maps.

Three pictures. A classifier on photographs, with the box round the strongest region. A fitted site on the photographs
that drive it best and least: the map and an offset add up to the predicted response. And maps of single trials of a
time-frequency classifier, combined so that noisy trials count less.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import nn
from torch.nn import functional

from neural_fits import SimulatedBrain, SiteModel, fit_sites
from neural_fits.inspection.class_activation import class_activation_maps
from neural_fits.inspection.cue_combination import combine_trials
from neural_fits.inspection.filter_cues import cue_combination_maps
from neural_fits.inspection.overlay import box, overlay, upsampled
from neural_fits.inspection.site_activation import site_activation_maps, site_offsets
from stimuli import StimulusSet, natural_photos

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

#: photographs of scikit-image and the center of the square cut from them, as parts of height and width
PICTURES = {"camera": (0.5, 0.5), "chelsea": (0.5, 0.55), "coffee": (0.5, 0.45), "motorcycle": (0.5, 0.5)}
FREQUENCIES = np.arange(2, 82, 2)  # Hz
TIMES = np.arange(-0.2, 1.0, 0.025)  # s
BAND = (FREQUENCIES > 23) & (FREQUENCIES < 33)


def picture(name: str, size_px: int) -> torch.Tensor:
    """Return a square photograph (1, channel, size, size) in [0, 1]."""
    from skimage import data

    raw = np.asarray(data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(data, name)())
    image = torch.from_numpy(raw.astype(np.float32) / 255)
    image = image[None, None] if image.ndim == 2 else image.permute(2, 0, 1)[None]
    side = min(image.shape[-2:])
    top, left = (
        int(np.clip(part * length - side / 2, 0, length - side))
        for part, length in zip(PICTURES[name], image.shape[-2:], strict=True)
    )
    cut = image[..., top : top + side, left : left + side]
    return functional.interpolate(cut, (size_px, size_px), mode="bilinear", antialias=True, align_corners=False)


def draw_classes(figure: SubFigure, size_px: int) -> None:
    """Draw the map of the best class of every photograph, with the box of its largest region above 20 %."""
    from matplotlib.patches import Rectangle

    figure.suptitle(
        "A classifier (EfficientNet-Lite0): evidence for its best class, and the box of the largest region\n"
        "above 20 % of the maximum; mean of the map + offset of the class = class score",
        fontsize=11,
    )
    for axis, name in zip(figure.subplots(1, len(PICTURES)), PICTURES, strict=True):
        image = picture(name, size_px)
        found = class_activation_maps("efficientnet-lite0", image, top=1)
        mean, offset, score = (float(each.mean()) for each in (found.maps, found.bias, found.scores))
        evidence = found.maps[0, 0].relu()
        top, left, bottom, right = box(upsampled(evidence, (size_px, size_px)))
        axis.imshow(overlay(image[0], evidence))
        axis.add_patch(Rectangle((left, top), right - left - 1, bottom - top - 1, fill=False, ec="#7fdbff", lw=1.5))
        axis.set_title(f"{found.names[0][0]}", fontsize=10, pad=3)
        axis.set_xlabel(f"mean {mean:.2f} {offset:+.2f} = score {score:.2f}", fontsize=9)
        axis.set(xticks=[], yticks=[])
        print(f"{name}: {found.names[0][0]}, score {score:.3f}, box {(top, left, bottom, right)}")


def fitted(size_px: int, n: int) -> tuple[SiteModel, SimulatedBrain, StimulusSet]:
    """Fit simulated sites on some photographs; return the model, the brain and crops of the other photographs."""
    photos = natural_photos(n, size_px)
    held_out = photos.table["photograph"].isin(["chelsea", "coffee", "motorcycle", "china"])
    brain = SimulatedBrain(photos, n_sites=8, seed=0)
    shown = photos.select(np.flatnonzero(~held_out))
    model = fit_sites(shown, brain.record(shown), backbone="efficientnet-lite0", layer="blocks.4", folds=3)
    return model, brain, photos.select(np.flatnonzero(held_out))


def draw_site(figure: SubFigure, model: SiteModel, brain: SimulatedBrain, photos: StimulusSet) -> None:
    """Draw what each place adds to the response of the best-fitted site, on its best and its worst photographs."""
    site = model.held_out_scores()["explained_variance"].idxmax()
    k = model.site_ids.index(site)
    predicted = model.predict(photos)[:, k]
    best = photos.table.assign(at=range(len(photos)), predicted=predicted).sort_values("predicted", ascending=False)
    best = best.drop_duplicates("photograph")  # one crop of each photograph
    worst = int(np.argmin(predicted))
    chosen = [*best["at"].iloc[:4], worst]
    images = torch.from_numpy(photos.images(chosen))
    maps, offset = site_activation_maps(model, images, site)[:, 0], float(site_offsets(model, site))
    drive, limit = maps.sum((1, 2)), float(maps.abs().max())
    error = float((drive + offset - model(images)[:, k]).abs().max())
    print(f"{site}: sum of the map and offset equal the response to {error:.1e} spikes/s")
    true = brain.truth(photos.select(chosen))[:, k]
    figure.suptitle(
        f"A site ({site}, simulated) on photographs that its model never saw: red drives it, blue suppresses it\n"
        "sum of the map + offset = predicted response in spikes/s (true one in brackets)",
        fontsize=11,
    )
    axes = figure.subplots(1, len(chosen))
    for place, axis in enumerate(axes):
        axis.imshow(overlay(images[place], maps[place], limit, signed=True))
        at = chosen[place]
        axis.set_xlabel(f"{drive[place]:+.1f} + {offset:.1f} = {predicted[at]:.1f} ({true[place]:.1f})", fontsize=9)
        axis.set_title("worst" if at == worst else ("best", "2nd", "3rd", "4th")[place], fontsize=10, pad=3)
        axis.set(xticks=[], yticks=[])


def spectrograms(n: int, artifacts: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return trials (trial, 1, frequency, time): alpha bursts in all, beta bursts of 23-33 Hz in class 1 only.

    Some trials carry strong artifacts of muscles.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    trials = 2.5 * gaussian_filter(rng.normal(size=(n, len(FREQUENCIES), len(TIMES))), (0, 1, 1.5))
    for trial, label in zip(trials, labels, strict=True):
        start = rng.integers(8, 30)
        trial[3:6, start : start + 10] += 2.0  # 8 to 12 Hz
        start = rng.integers(8, 30)
        trial[BAND, start : start + 12] += 2.0 * label
        if rng.random() < artifacts:
            start, low = rng.integers(0, 20), rng.integers(23, 30)
            trial[low : low + 8, start : start + 26] += rng.uniform(8, 14) * rng.random((8, 26))
    return torch.from_numpy(trials[:, None]).float(), torch.from_numpy(labels)


def trained(steps: int) -> nn.Module:
    """Return a small network that tells the two classes apart, trained on clean trials."""
    trials, labels = spectrograms(400, artifacts=0, seed=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            *(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 16, 5, padding=2), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)),
        )
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        batch = torch.from_numpy(rng.integers(0, len(trials), 32))
        loss = functional.cross_entropy(network(trials[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def draw_trials(figure: SubFigure, steps: int) -> None:
    """Draw maps of class 1 averaged over trials, plainly and by cue combination, and their profiles over frequency."""
    network = trained(steps)
    clean, clean_labels = spectrograms(200, artifacts=0, seed=2)
    trials, labels = spectrograms(80, artifacts=0.2, seed=3)
    accuracy = float((network(clean).argmax(1) == clean_labels).float().mean())
    kept = labels == 1
    single = class_activation_maps(network, trials[kept], classes=1).maps[:, 0]
    by_filter = cue_combination_maps(network, trials, labels.tolist()).maps[kept]
    averages = {
        "plain mean of all trials": single.mean(0).numpy(),
        "trials as cues": combine_trials(single).values,
        "filters and trials as cues": combine_trials(by_filter).values,
    }
    figure.suptitle(
        f"A classifier of spectrograms that looks for bursts of 23-33 Hz ({100 * accuracy:.0f} % correct): its maps of "
        f"{int(kept.sum())} trials,\n20 % of them with artifacts of muscles, averaged plainly and by cue combination",
        fontsize=11,
    )
    axes = figure.subplots(1, 4, width_ratios=[1, 1, 1, 0.9], sharey=True)
    edges = (TIMES[0], TIMES[-1] + 0.025, FREQUENCIES[0] - 1, FREQUENCIES[-1] + 1)
    colors = ("0.45", "#c2410c", "#0b62a8")
    axes[3].axhspan(23, 33, color="0.88")
    axes[3].text(0.98, 28, "planted", fontsize=8, ha="right", va="center", transform=axes[3].get_yaxis_transform())
    for axis, (name, values), color in zip(axes, averages.items(), colors, strict=False):
        axis.imshow(values, origin="lower", aspect="auto", extent=edges, cmap="inferno", vmin=0)
        axis.axhline(23, color="w", lw=1, ls="--")
        axis.axhline(33, color="w", lw=1, ls="--")
        axis.set_title(name, fontsize=9, pad=3, color=color, weight="bold")
        axis.set_xlabel("time (s)", fontsize=9)
        profile = values.mean(1)
        axes[3].plot(profile / profile.max(), FREQUENCIES, color=color, lw=1.6)
        inside = profile[BAND].clip(0).sum() / profile.clip(0).sum()
        print(f"{name}: most at {FREQUENCIES[profile.argmax()]} Hz, {100 * inside:.0f} % of it between 23 and 33 Hz")
    axes[0].set_ylabel("frequency (Hz)", fontsize=9)
    axes[3].set_xlim(-0.15, 1.6)
    axes[3].set_title("mean over time", fontsize=9, pad=3)
    axes[3].set_xlabel("part of its maximum", fontsize=9)
    axes[3].spines[["top", "right"]].set_visible(False)
    for axis in axes:
        axis.tick_params(labelsize=8)


def main() -> None:
    """Draw the three pictures into one."""
    from matplotlib.figure import Figure  # without pyplot nothing depends on a screen

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("example_11"))
    parser.add_argument("--small", action="store_true", help="under a minute; only checks that everything runs")
    options = parser.parse_args()
    if options.small:
        print("--small: only checks that everything runs; figures and pictures mean nothing")
    size_px, n_photos, steps = (64, 90, 40) if options.small else (128, 640, 500)
    figure = Figure(figsize=(9, 9.5), layout="constrained")
    if options.small:
        figure.suptitle("(--small)")
    above, middle, below = figure.subfigures(3, 1, height_ratios=[3.0, 2.7, 3.4])
    draw_classes(above, 288)
    draw_site(middle, *fitted(size_px, n_photos))
    draw_trials(below, steps)
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "class_activation.png", dpi=150)
    print(f"wrote {options.out / 'class_activation.png'}")


if __name__ == "__main__":
    main()
