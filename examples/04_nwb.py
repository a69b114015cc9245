"""From spike times in an NWB file to fitted sites.

The file holds the images, a table of trials that says which image was shown when, and units with spike times. Without
--nwb such a file is made from a simulated brain. Needs the extra `nwb`.
"""

import argparse
import datetime
import warnings
from pathlib import Path

import numpy as np
from pynwb import NWBHDF5IO, NWBFile
from pynwb.base import ImageReferences, Images
from pynwb.image import RGBImage

from neural_fits import SimulatedBrain, SiteRecordings, fit_sites, load_stimuli
from stimuli import natural_photos

SIZE_DEG = 8.0


def make_file(path: Path, small: bool) -> Path:
    """Write spike times of a simulated brain: 100 ms of image, 100 ms of gray, in random order."""
    photos = natural_photos(160 if small else 640, size_px=64 if small else 128)
    brain = SimulatedBrain(photos, n_sites=6 if small else 16)
    recorded = brain.record(photos, n_repeats=4 if small else 8)
    rng = np.random.default_rng(0)
    n_images, n_repeats, _ = recorded.shape
    order = rng.permutation(n_images * n_repeats)
    onsets = 1.0 + 0.2 * np.arange(len(order))
    image, repeat = np.divmod(order, n_repeats)

    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    nwb = NWBFile(session_description="simulated V4 sites", identifier=path.stem, session_start_time=start)
    # The photograph goes into the name, so that related crops can be kept on one side of every split.
    names = [f"{name}-{k:04d}.png" for k, name in enumerate(photos.table["photograph"])]
    pixels = [codes.transpose(1, 2, 0) for codes in photos.codes()]
    images = [RGBImage(name=name, data=data) for name, data in zip(names, pixels, strict=True)]
    references = ImageReferences(name="order_of_images", data=images)
    nwb.add_stimulus_template(
        Images(name="stimuli", description="natural photographs", images=images, order_of_images=references)
    )
    nwb.add_trial_column(name="stimulus_presented", description="number of the image in order_of_images")
    nwb.add_trial_column(name="stimulus_size_degrees", description="width of the image")
    nwb.add_trial_column(name="fixation_correct", description="whether the animal fixated")
    fixated = rng.random(len(order)) > 0.02
    for k, onset in enumerate(onsets):
        nwb.add_trial(
            start_time=onset,
            stop_time=onset + 0.1,
            stimulus_presented=int(image[k]),
            stimulus_size_degrees=SIZE_DEG,
            fixation_correct=bool(fixated[k]),
        )
    nwb.add_unit_column(name="unit_name", description="name of the unit")
    for site, name in enumerate(recorded.site_ids):
        expected = np.maximum(recorded.responses[image, repeat, site], 0) * 0.1  # spikes in the 100 ms of the window
        counts = np.floor(expected + rng.random(len(order))).astype(int)
        times = np.repeat(onsets + 0.07, counts) + rng.uniform(0, 0.1, counts.sum())
        nwb.add_unit(spike_times=np.sort(times), unit_name=name)
    with warnings.catch_warnings(), NWBHDF5IO(path=str(path), mode="w") as io:
        warnings.simplefilter("ignore")
        io.write(nwb)
    return path


def main() -> None:
    """Read, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nwb", type=Path, help="your file")
    parser.add_argument("--dataset", help="the table of presentations, where the file has several")
    parser.add_argument("--window-ms", type=float, nargs=2, default=(70.0, 170.0), help="where spikes are counted")
    parser.add_argument("--size-deg", type=float, help="width of the images on the screen, where the file does not say")
    parser.add_argument("--out", type=Path, default=Path("example_04"))
    parser.add_argument("--small", action="store_true", help="fewer images and sites, one network: seconds")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.nwb or make_file(options.out / "simulated.nwb", options.small)

    recorded = SiteRecordings.load(file, window_ms=tuple(options.window_ms), dataset=options.dataset)
    stimuli = load_stimuli(file, size_deg=options.size_deg)
    shown = set(recorded.stimulus_ids)
    stimuli = stimuli.select([name for name in stimuli.stimulus_ids if name in shown])
    stimuli = stimuli.with_columns(photograph=[name.rsplit("-", 1)[0] for name in stimuli.stimulus_ids])
    print(recorded)
    print("left out:", recorded.meta.get("presentations_left_out", "nothing"))

    networks = "efficientnet-lite0" if options.small else ("efficientnet-lite0", "efficientnet-lite1")
    model = fit_sites(stimuli, recorded, backbone=networks)
    median = model.scores[["r", "reliability", "explained_variance"]].median()
    print("medians over sites:", ", ".join(f"{name} {value:.2f}" for name, value in median.items()))
    recorded.save(options.out / "responses.nc")  # the counts alone: read in milliseconds from now on


if __name__ == "__main__":
    main()
