"""What does a channel of a network look for? Images that drive it, beside the photographs that drive it best.

No recordings and no fit: the driver is the bare network. `LayerUnit(layer, channel)` is the mean of a channel over its
map, `LayerUnit(layer, channel, position=(row, column))` the same filter at one place.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from neural_fits.features import FeatureExtractor
from stimuli import StimulusSet, natural_photos
from synth import LayerUnit, recipe, synthesize


def best_photographs(
    extractor: FeatureExtractor, units: list[LayerUnit], photos: StimulusSet
) -> tuple[np.ndarray, np.ndarray]:
    """Return the place of the best photograph of each unit in the set, and its activation."""
    features = extractor.extract(photos)
    activations = np.stack([unit.read(features).numpy() for unit in units])
    return activations.argmax(1), activations.max(1)


def contact_sheet(path: Path, photos: StimulusSet, made: StimulusSet, layers: list[str]) -> None:
    """Draw two rows a layer: the best photograph of each unit above the image made for it."""
    from matplotlib.figure import Figure  # without pyplot nothing depends on a screen

    table = made.table
    columns = int(table["layer"].value_counts().max())
    figure = Figure(figsize=(max(1.45 * columns + 0.9, 6.4), 3.55 * len(layers) + 0.6), layout="constrained")
    figure.suptitle(
        "What drives a channel of EfficientNet-Lite0\n"
        f"numbers: mean activation of the map (x times that of the best of {len(photos)} photographs)\n"
        "last column: one unit (row, column) of the map, where the ticks on the edges point",
        fontsize=9,
    )
    for band, layer in zip(figure.subfigures(len(layers), 1, squeeze=False).flat, layers, strict=True):
        axes = band.subplots(2, columns, squeeze=False)
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        for k, (at, row) in enumerate(table[table["layer"] == layer].iterrows()):
            photo, image = photos.images([row["best_photo"]])[0], made.images([at])[0]
            axes[0, k].imshow(photo.transpose(1, 2, 0), vmin=0, vmax=1)
            axes[1, k].imshow(image.transpose(1, 2, 0), vmin=0, vmax=1)
            title = f"channel {row['channel']}"
            if row["row"] >= 0:
                title = f"unit ({row['row']}, {row['column']}) of {title}"
                for axis in axes[:, k]:
                    axis.set(xticks=[row["x_px"]], yticks=[row["y_px"]], xticklabels=[], yticklabels=[])
            axes[0, k].set_title(title, fontsize=8)
            axes[0, k].set_xlabel(f"{row['best_photo_activation']:.1f}", fontsize=8)
            gain = row["activation"] / row["best_photo_activation"]
            times = f"  (x {gain:.1f})" if gain > 0 else ""
            axes[1, k].set_xlabel(f"{row['activation']:.1f}{times}", fontsize=8)
        axes[0, 0].set_ylabel(f"{layer}\nbest photograph", fontsize=8)
        axes[1, 0].set_ylabel(f"{layer}\nsynthesized", fontsize=8)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Synthesize, compare with photographs, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", nargs="+", default=["blocks.1", "blocks.2", "blocks.4"])
    parser.add_argument("--out", type=Path, default=Path("example_05"))
    parser.add_argument("--small", action="store_true", help="seconds instead of a minute")
    options = parser.parse_args()
    size_px, steps, channels, n_photos = (64, 30, 2, 40) if options.small else (128, 150, 6, 640)
    photos = natural_photos(n_photos, size_px)

    sets = []
    for layer in options.layers:  # a run for each layer: together, every image would pass through all of them
        extractor = FeatureExtractor("efficientnet-lite0", layer, input_px=size_px)
        rows, cols = extractor(torch.zeros(1, 3, size_px, size_px)).shape[-2:]
        units = [LayerUnit(layer, channel) for channel in range(channels)]
        units.append(LayerUnit(layer, channels - 1, position=(rows // 4, cols // 4)))  # a place in the upper left
        best, natural = best_photographs(extractor, units, photos)
        made = synthesize(extractor, units, seeds=1, recipe=recipe("robust", start="pink", steps=steps))
        reached = made.trace.groupby("stimulus_id")["score"].max()[made.stimuli.stimulus_ids].to_numpy()
        beyond = int((reached > natural).sum())
        print(f"{layer}: {rows} x {cols} map, {beyond} of {len(units)} images beyond the best photograph")
        places = [unit.position or (-1, -1) for unit in units]
        columns = {
            "layer": layer,
            "channel": [unit.channel for unit in units],
            "row": [place[0] for place in places],
            "column": [place[1] for place in places],
            "x_px": [(place[1] + 0.5) * size_px / cols for place in places],
            "y_px": [(place[0] + 0.5) * size_px / rows for place in places],
            "activation": reached,
            "best_photo": [photos.stimulus_ids[k] for k in best],
            "best_photo_activation": natural,
        }
        sets.append(made.stimuli.with_columns(**columns))

    saved = StimulusSet.concat(sets, name="filters").save(options.out / "filters", overwrite=True)
    print(saved.table[["objective", "best_photo_activation", "activation"]].round(2).to_string(index=False))
    contact_sheet(options.out / "filters.png", photos, saved, options.layers)
    print(f"wrote {options.out / 'filters.png'} and the set {options.out / 'filters'}")


if __name__ == "__main__":
    main()
