"""What does a channel of a network look for? Images that drive it, above the photographs that drive it best.

No recordings and no fit: the driver is the bare network. `layer_grid` takes whole layers, some channels, or single
places of a map: `LayerUnit(layer, channel, position=(row, column))` is the filter of a channel at one place.
"""

import argparse
from pathlib import Path

from stimuli import StimulusSet, natural_photos
from stimuli.files import atomic_write
from synth import LayerUnit, recipe
from synth.layer_grid import grids_png, layer_grid


def main() -> None:
    """Synthesize, compare with photographs, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", nargs="+", default=["blocks.1", "blocks.2", "blocks.4"])
    parser.add_argument("--out", type=Path, default=Path("example_05"))
    parser.add_argument("--small", action="store_true", help="under a minute; only checks that everything runs")
    options = parser.parse_args()
    if options.small:
        print("--small: only checks that everything runs; figures and pictures mean nothing")
    size_px, steps, channels, n_photos = (64, 30, 2, 40) if options.small else (128, 150, 6, 640)
    photos = natural_photos(n_photos, size_px)
    config = recipe("robust", start="pink", steps=steps)

    grids = []
    for layer in options.layers:
        units = [*range(channels), LayerUnit(layer, channels - 1, position=(3, 3))]  # one place of the map
        grid = layer_grid("efficientnet-lite0", layer, units, size_px=size_px, natural=photos, recipe=config)
        beyond = int((grid.activations > grid.nearest_activations[:, 0]).sum())
        print(f"{layer}: {grid.map_size} map, {beyond} of {len(units)} images beyond the best photograph")
        grids.append(grid)

    made = StimulusSet.concat([grid.synthesis.stimuli for grid in grids], name="filters")
    saved = made.save(options.out / "filters", overwrite=True)
    print(saved.table[["objective", "natural_activation", "activation"]].round(2).to_string(index=False))
    note = " (--small)" if options.small else ""
    picture = grids_png(grids, f"What drives the channels of EfficientNet-Lite0{note}")
    atomic_write(options.out / "filters.png", picture)
    print(f"wrote {options.out / 'filters.png'} and the set {options.out / 'filters'}")


if __name__ == "__main__":
    main()
