"""From a table of responses and a folder of images to fitted sites.

What a laboratory has: `responses.csv`, one row per trial and site, and a folder of PNGs named after the image ids.
Without --csv and --images a simulated brain is recorded and written that way first.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from neural_fits import SimulatedBrain, SiteRecordings, fit_sites
from stimuli import StimulusSet, natural_photos


def write_a_laboratorys_files(folder: Path, small: bool) -> tuple[Path, Path]:
    """Record a simulated brain, and write what any program could write."""
    photos = natural_photos(160 if small else 640, size_px=64 if small else 128)
    recorded = SimulatedBrain(photos, n_sites=6 if small else 16).record(photos, n_repeats=4 if small else 8)
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    # The photograph goes into the name, so that related crops can be kept on one side of every split.
    names = [f"{name}-{k:04d}" for k, name in enumerate(photos.table["photograph"])]
    for name, codes in zip(names, photos.codes(), strict=True):
        Image.fromarray(codes.transpose(1, 2, 0)).save(images / f"{name}.png")
    image, repeat, site = (index.ravel() for index in np.indices(recorded.shape))
    table = pd.DataFrame(
        {
            "image_id": np.array(names)[image],
            "site_id": np.array(recorded.site_ids)[site],
            "repetition": repeat,
            "response": recorded.responses.ravel().round(3),
            "response_unit": "spikes/s",
            "window_start_ms": 70,
            "window_end_ms": 170,
            "region": "V4",
        }
    )
    rejected = np.random.default_rng(0).random(len(table)) < 0.02  # missing trials are simply not there
    table[~rejected].to_csv(folder / "responses.csv", index=False)
    return folder / "responses.csv", images


def read_images(folder: Path, size_deg: float) -> StimulusSet:
    """Read every PNG of a folder as a stimulus with the id that its file name gives."""
    paths = sorted(folder.glob("*.png"))
    if not paths:
        raise SystemExit(f"{folder} holds no PNG; give the folder of the images that were shown")
    codes = np.stack([np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1) for path in paths])
    ids = [path.stem for path in paths]
    groups = [name.rsplit("-", 1)[0] for name in ids]  # names without a hyphen are their own group
    return StimulusSet.from_arrays(
        codes, {"stimulus_id": ids, "photograph": groups}, size_deg=size_deg, name=folder.name
    )


def main() -> None:
    """Read, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--csv", type=Path, help="your table of responses")
    parser.add_argument("--images", type=Path, help="your folder of PNGs, named <image_id>.png")
    parser.add_argument("--size-deg", type=float, default=8.0, help="width of the images on the screen")
    parser.add_argument("--out", type=Path, default=Path("example_03"))
    parser.add_argument("--small", action="store_true", help="fewer images and sites, one network: seconds")
    options = parser.parse_args()
    if (options.csv is None) != (options.images is None):
        parser.error("give --csv and --images together, or neither")
    table, images = (
        (options.csv, options.images) if options.csv else write_a_laboratorys_files(options.out, options.small)
    )

    stimuli = read_images(images, options.size_deg)
    recorded = SiteRecordings.load(table)
    print(recorded)

    networks = "efficientnet-lite0" if options.small else ("efficientnet-lite0", "efficientnet-lite1")
    model = fit_sites(stimuli, recorded, backbone=networks)  # puts the recordings in the order of the images
    print(model.scores.round(2).to_string())
    options.out.mkdir(parents=True, exist_ok=True)
    recorded.save(options.out / "responses.nc")  # exact, smaller and faster to read


if __name__ == "__main__":
    main()
