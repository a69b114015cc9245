"""Sites that answer to one thing early and to another late: a recurrent model, and images for a chosen time bin.

A simulated brain of three regions is recorded in 25 ms bins. A chain of three modules is fitted to it, each site read
from the module of its region, and scored beside a linear readout of every bin. Then a module is lesioned, and images
are made that drive one site early and not late, or late and not early, judged by the noiseless brain. Writes
time_resolved.png and the model.
"""

import argparse
from pathlib import Path

import numpy as np

from neural_fits.networks.recurrent_fit import RecurrentConfig, fit_recurrent
from neural_fits.networks.recurrent_sites import RecurrentSites
from neural_fits.networks.simulated_dynamics import SimulatedDynamics
from stimuli import StimulusSet, natural_photos
from synth import Stretch, recipe, synthesize

COLORS = {"V1": "#3b7dd8", "V4": "#2a9d6f", "IT": "#c8553d"}
EARLY, LATE = "#7b4bb7", "#e08a00"


def responses(axes, model: RecurrentSites, brain: SimulatedDynamics, natural: StimulusSet, middle: np.ndarray) -> None:
    """Draw the courses of the best site of each region: mean over images, and the strongest fifth of the forecasts.

    They are images the model was fitted to; how it does on others stands in the row below.
    """
    predicted, truth = model.predict(natural), brain.truth(natural)
    scores = model.scores.groupby(level=0)["r"].mean()
    for axis, region in zip(axes, COLORS, strict=True):
        site = scores[[name for name in brain.site_ids if name.startswith(region)]].idxmax()
        k = brain.site_ids.index(site)
        strong = predicted[:, k].mean(1).argsort()[-len(natural) // 5 :]
        for rows, width in ((strong, 2.2), (slice(None), 1.1)):
            axis.plot(middle, 40 * truth[rows, k].mean(0), "o", color=COLORS[region], markersize=2 + 1.5 * width)
            axis.plot(middle, 40 * predicted[rows, k].mean(0), "-", color=COLORS[region], linewidth=width)
        axis.set_title(f"{region}: site {site}", fontsize=9, color=COLORS[region])
        axis.set_ylim(0, 1.7 * axis.get_ylim()[1])  # room for the words


def held_out(axes, model: RecurrentSites, middle: np.ndarray) -> None:
    """Draw the held-out correlation in every bin, beside the linear readout of that bin."""
    table = model.scores.assign(region=[name[:2] for name in model.scores.index])
    top = table[["r", "baseline_r"]].groupby([table["region"], table["start_ms"]]).mean().to_numpy()
    for axis, region in zip(axes, COLORS, strict=True):
        mean = table[table["region"] == region].groupby("start_ms")[["r", "baseline_r"]].mean()
        axis.plot(middle, mean["r"], "o-", color=COLORS[region], markersize=4)
        axis.plot(middle, mean["baseline_r"], "s--", color="0.45", markersize=3.5, linewidth=1)
        axis.axhline(0, color="0.8", linewidth=0.8)
        axis.set_ylim(min(-0.1, np.nanmin(top) - 0.05), np.nanmax(top) + 0.08)


def lesions(axes, model: RecurrentSites, natural: StimulusSet, middle: np.ndarray) -> None:
    """Draw what is left of the mean responses when the middle module is silent.

    Sites that are read from it stay at the offset of their readout, which is above their response before the image.
    """
    whole, lesioned = model.predict(natural).mean(0), model.lesion("V4").predict(natural).mean(0)
    for axis, region in zip(axes, COLORS, strict=True):
        rows = [k for k, name in enumerate(model.site_ids) if name.startswith(region)]
        axis.plot(middle, 40 * whole[rows].mean(0), "-", color=COLORS[region], linewidth=2)
        axis.plot(middle, 40 * lesioned[rows].mean(0), ":", color="black", linewidth=1.8)
        axis.set_ylim(min(0, 40 * lesioned[rows].mean(0).min() - 1), 1.35 * axis.get_ylim()[1])  # room for the words


def picture(path: Path, model: RecurrentSites, brain: SimulatedDynamics, natural: StimulusSet, made: dict) -> None:
    """Draw everything."""
    from matplotlib.figure import Figure  # without pyplot nothing depends on a screen

    middle = np.array([(start + end) / 2 for start, end in brain.bins_ms])
    figure = Figure(figsize=(9, 9.6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[2.15, 1])
    grid = above.subplots(3, 3, sharex=True)
    responses(grid[0], model, brain, natural, middle)
    held_out(grid[1], model, middle)
    lesions(grid[2], model, natural, middle)
    titles = ("response (spikes/s)", "held-out correlation", "mean response (spikes/s)")
    for axes, title in zip(grid, titles, strict=True):
        axes[0].set_ylabel(title, fontsize=9)
    notes = (
        "line: model, on images\nit was fitted to\ndots: brain\nthick: images with\nstrongest forecast",
        "colored: recurrent model\ngray: linear readout\nof each bin alone",
        "colored: whole model\ndotted: V4 silent; sites read from it\nstay at the offset of their readout",
    )
    for axes, note in zip(grid, notes, strict=True):
        axes[0].text(0.03, 0.97, note, transform=axes[0].transAxes, va="top", fontsize=7, color="0.3")
    for axis in grid.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    for axis in grid[2]:
        axis.set_xlabel("time after image onset (ms)", fontsize=8)
    title = "A chain V1 → V4 → IT of recurrent modules, fitted to time-resolved responses"
    above.suptitle(title + made["note"], fontsize=11)

    parts = below.add_gridspec(2, 4, width_ratios=[1, 1, 0.15, 3.1])
    for row, (label, color) in enumerate((("early", EARLY), ("late", LATE))):
        for column in range(2):
            axis = below.add_subplot(parts[row, column], xticks=[], yticks=[])
            axis.imshow(made[label].images([column])[0].transpose(1, 2, 0), vmin=0, vmax=1)
            axis.spines[:].set(color=color, linewidth=3)
            if not column:
                axis.set_ylabel("for {:g}-{:g} ms".format(*made["bins"][label]), fontsize=9, color=color)
    axis = below.add_subplot(parts[:, 3])
    k = brain.site_ids.index(made["site"])
    everything = brain.truth(natural)[:, k] * 40
    axis.fill_between(middle, *np.quantile(everything, [0.05, 0.95], 0), color="0.88", label="photographs, 5 to 95 %")
    for label, color in (("early", EARLY), ("late", LATE)):
        courses = brain.truth(made[label])[:, k] * 40
        axis.plot(middle, courses.mean(0), "o-", color=color, linewidth=2, label=f"made for {label}")
        axis.axvspan(*made["bins"][label], color=color, alpha=0.13, linewidth=0)
    axis.set_xlabel("time after image onset (ms)", fontsize=8)
    axis.set_ylabel("response of the brain (spikes/s)", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_ylim(0, 1.4 * axis.get_ylim()[1])
    axis.legend(fontsize=8, frameon=False, loc="upper right", ncols=3, columnspacing=1, handlelength=1.5)
    below.suptitle(
        f"Images for {made['site']}: strong early but not late, and late but not early, shown to the noiseless brain",
        fontsize=11,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Record, fit, lesion, synthesize, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("example_17"))
    parser.add_argument("--small", action="store_true", help="under a minute; only checks that everything runs")
    options = parser.parse_args()
    if options.small:
        print("--small: only checks that everything runs; figures and pictures mean nothing")
    size_px, count, sites, repeats, steps = (32, 60, 1, 10, 8) if options.small else (64, 480, 4, 20, 120)

    # 1. Spike counts in eight bins of 25 ms.
    natural = natural_photos(count, size_px)
    brain = SimulatedDynamics(natural, sites_per_region=sites)
    recorded = brain.record(natural, n_repeats=repeats)

    # 2. A chain of modules; sites are read from the module of their region. No feedback, so that a lesion acts forward.
    config = RecurrentConfig(site_column="region", feedback=False, latency_ms=30, units=40, folds=3)
    if options.small:
        config = RecurrentConfig(site_column="region", feedback=False, units=8, components=5, max_epochs=5, folds=2)
    layer = "blocks.1" if options.small else None
    model = fit_recurrent(natural, recorded, config, layer=layer, progress=print)
    driven = model.scores[model.scores["start_ms"] >= 50]
    print(driven[["r", "baseline_r", "explained_variance", "baseline_explained_variance"]].mean().round(3).to_string())
    model.save(options.out / "model", overwrite=True)

    # 3. Images that drive one site in an early bin and not in a late one, and the other way round: the site that is
    # predicted well in both bins and differently by them.
    bins = {"early": (75.0, 100.0), "late": (175.0, 200.0)}
    both = model.at(list(bins.values()))
    early, late = np.split(both.predict(natural), 2, axis=1)
    r = np.minimum(*(both.scores["r"].to_numpy().reshape(2, -1)))
    alike = [np.corrcoef(early[:, k], late[:, k])[0, 1] for k in range(len(model.site_ids))]
    site = model.site_ids[int(np.argmax(r * (1 - np.array(alike))))]
    made: dict = {"bins": bins, "site": site, "note": " (--small)" if options.small else ""}
    names = {label: f"{site}@{start:g}-{end:g}ms" for label, (start, end) in bins.items()}
    for label, other in (("early", "late"), ("late", "early")):
        objective = Stretch(names[label]) - 0.7 * Stretch(names[other])
        chosen = recipe("robust", start="pink", steps=steps)
        made[label] = synthesize(both, objective, seeds=2, recipe=chosen).stimuli
        truth = brain.truth(made[label])[:, brain.site_ids.index(site)].mean(0) * 40
        print(f"{site}, images for the {label} bin: brain in spikes/s by bin {truth.round(1)}")
    print("each image maximizes its bin minus 0.7 x the other bin, not its bin alone: it may peak outside the bin")
    picture(options.out / "time_resolved.png", model, brain, natural, made)
    print(f"wrote {options.out / 'time_resolved.png'} and {options.out / 'model'}")


if __name__ == "__main__":
    main()
