"""The smallest change of a photograph that drives a site: base-image mode.

`synthesize(..., base=photographs)` starts from photographs and keeps each image within `max_rms_change` of its own.
How much response does a budget buy? The model was fitted on other photographs, and the judge is the simulated brain,
without noise. Control: the same change, turned by 180 degrees.
"""

import argparse
from pathlib import Path

import numpy as np

from neural_fits import SimulatedBrain, fit_sites
from stimuli import StimulusSet, natural_photos
from synth import Stretch, recipe, synthesize


def draw(path: Path, base: StimulusSet, changed: dict[float, StimulusSet], site: str, best: dict[str, float]) -> None:
    """Draw each photograph, what became of it, and the difference, above curves of the response against the budget."""
    from matplotlib.figure import Figure  # without pyplot nothing depends on a screen

    n, budgets = len(base), list(changed)
    height = 3.7 * max(1.0, 4.0 / (len(budgets) + 1))
    figure = Figure(figsize=(max(1.55 * (len(budgets) + 1) + 0.3, 6.4), height * n + 3.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[height * n, 3.2])
    above.suptitle(
        f"Photographs changed to drive {site}\nbelow each: response predicted | of the simulated brain (spikes/s)",
        fontsize=9,
    )
    axes = above.subplots(2 * n, len(budgets) + 1, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for k, photo in enumerate(base.images()):
        for column, stimuli in enumerate([base, *changed.values()]):
            image, row = stimuli.images([k])[0], stimuli.table.iloc[k]
            axes[2 * k, column].imshow(image.transpose(1, 2, 0), vmin=0, vmax=1)
            axes[2 * k, column].set_xlabel(f"{row['predicted']:.1f} | {row['brain']:.1f}", fontsize=8)
            if column:
                gain = 0.16 / budgets[column - 1]
                seen = np.clip(0.5 + gain * (image - photo), 0, 1)
                axes[2 * k + 1, column].imshow(seen.transpose(1, 2, 0), vmin=0, vmax=1)
                axes[2 * k + 1, column].set_xlabel(f"difference x {gain:.3g}", fontsize=8)
                axes[2 * k, column].set_title(f"change of {100 * budgets[column - 1]:g} %", fontsize=8)
        axes[2 * k, 0].set_title(f"photograph {k + 1}", fontsize=8)
        axes[2 * k + 1, 0].set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal")
        axes[2 * k + 1, 0].text(0, 0, "what was added,\ngray is no change", ha="center", va="center", fontsize=8)

    panels = below.subplots(1, 2, sharex=True, sharey=True)
    x = [0.0, *(100 * budget for budget in budgets)]
    for panel, name, title in zip(
        panels, ("predicted", "brain"), ("predicted by the model", "simulated brain, without noise"), strict=True
    ):
        for k in range(n):
            y, turned = (
                [base.table[name][k], *(stimuli.table[column][k] for stimuli in changed.values())]
                for column in (name, f"{name}_turned")
            )
            panel.plot(x, y, "o-", color=f"C{k}", markersize=3, label=f"photograph {k + 1}")
            panel.plot(x, turned, ":", color=f"C{k}", label=f"{k + 1}, change turned by 180°")
        panel.axhline(best[name], color="0.5", linestyle="--", linewidth=1, label="best photograph")
        panel.set_title(title, fontsize=9)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    below.supxlabel("root-mean-square change (% of the pixel range)", fontsize=8)
    panels[0].set_ylabel(f"response of {site} (spikes/s)", fontsize=8)
    below.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=n + 1, fontsize=7, frameon=False
    )
    figure.savefig(path, dpi=150)


def main() -> None:
    """Fit, change photographs within several budgets, judge, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budgets", type=float, nargs="+", help="largest root-mean-square changes; the range is 1")
    parser.add_argument("--out", type=Path, default=Path("example_06"))
    parser.add_argument("--small", action="store_true", help="seconds instead of a minute")
    options = parser.parse_args()
    size_px, count, steps = (64, 120, 30) if options.small else (128, 720, 100)
    kept_out = ["coffee", "chelsea"] if options.small else ["coffee", "chelsea", "astronaut"]
    budgets = options.budgets or ([0.02, 0.08] if options.small else [0.005, 0.01, 0.02, 0.04, 0.08])

    # 1. A model of a few sites, fitted on other photographs than those that will be changed.
    natural = natural_photos(count, size_px)
    out = natural.table["photograph"].isin(kept_out).to_numpy()
    fitted = natural.select(~out)
    brain = SimulatedBrain(natural, n_sites=8)
    model = fit_sites(fitted, brain.record(fitted, n_repeats=8), backbone="efficientnet-lite0")
    site = model.scores["explained_variance"].idxmax()
    column = model.site_ids.index(site)
    print(f"{site}: explained variance {model.scores['explained_variance'][site]:.2f} on held-out photographs")

    def judged(stimuli: StimulusSet, suffix: str = "") -> StimulusSet:
        responses = {"predicted": model.predict(stimuli)[:, column], "brain": brain.truth(stimuli)[:, column]}
        return stimuli.with_columns(**{name + suffix: values for name, values in responses.items()})

    # 2. Of each photograph kept out, the crop with the middle response: room to go up, and to be wrong.
    middle = []
    for photograph in kept_out:
        crops = natural.select((natural.table["photograph"] == photograph).to_numpy())
        order = np.argsort(model.predict(crops)[:, column])
        middle.append(crops.stimulus_ids[order[len(order) // 2]])
    base = judged(natural.select(middle))
    best = {"predicted": model.predict(natural)[:, column].max(), "brain": brain.truth(natural)[:, column].max()}

    # 3. The same objective within each budget.
    changed = {}
    for budget in budgets:
        config = recipe("robust", steps=steps, start="base", max_rms_change=budget)
        made = judged(synthesize(model, Stretch(site), seeds=1, base=base, recipe=config).stimuli)
        difference = made.images() - base.images()
        turned = np.clip(base.images() + difference[..., ::-1, ::-1], 0, 1)
        control = judged(StimulusSet.from_arrays(turned, {"stimulus_id": made.stimulus_ids}))
        made = made.with_columns(
            rms_change=np.sqrt((difference**2).mean((1, 2, 3))),
            predicted_turned=control.table["predicted"],
            brain_turned=control.table["brain"],
        )
        changed[budget] = made.save(options.out / f"change_{budget:g}", overwrite=True)
        print(made.table[["base", "rms_change", "predicted", "brain", "brain_turned"]].round(4).to_string(index=False))
    draw(options.out / "base_image.png", base, changed, site, best)
    print(f"wrote {options.out / 'base_image.png'} and a set for each budget")


if __name__ == "__main__":
    main()
