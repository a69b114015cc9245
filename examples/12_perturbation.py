"""Which frequencies does a network listen to? Disturb the spectrum of its inputs and see what its units do.

First signals: a small network learns to tell left from right hand in simulated EEG, and the amplitude noise that moves
its decision shows where and at which frequency it looks (planted: less power at 10 and 20 Hz and more at 75 Hz over the
opposite hemisphere). Then images: the spatial frequency and orientation that drive fitted sites on photographs, beside
what gratings do to the same sites in the (simulated) brain.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

from neural_fits import SimulatedBrain, fit_sites
from neural_fits.inspection.grating_tuning import grating_responses
from neural_fits.inspection.signal_perturbation import SignalPerturbation, perturb_signals
from neural_fits.inspection.spectral_pictures import draw_map, draw_perturbation
from neural_fits.inspection.spectral_tuning import SpectralTuning, TuningConfig, site_tunings
from stimuli import natural_photos

RATE_HZ, TIMES = 256, 256
CHANNELS = ("FC3", "FC4", "C3", "Cz", "C4", "CP3", "CP4", "Pz")
PLANTED = {10: -1, 20: -1, 75: +1}  # Hz: less or more power over the hemisphere opposite to the hand
BEYOND = 3  # standard errors; the largest of about a hundred bands of mere noise is hardly beyond
STAGES = {"0": "filters in time", "2": "filters in space", "4": "after squaring", "6": "after pooling"}


class Square(nn.Module):
    """Energy of a filter's output."""

    def forward(self, signals):
        """Square."""
        return signals.square()


class Log(nn.Module):
    """Logarithm of an energy."""

    def forward(self, energy):
        """Take the logarithm."""
        return energy.clamp(min=1e-4).log()


def simulated_eeg(trials: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return standardized signals (trial, channel, time) and the hand, 0 left and 1 right."""
    rng = np.random.default_rng(seed)
    hand = rng.integers(0, 2, trials)
    frequency = np.fft.rfftfreq(TIMES, 1 / RATE_HZ)
    spectrum = np.fft.rfft(rng.normal(size=(trials, len(CHANNELS), TIMES)), axis=2)
    spectrum[..., 1:] /= np.sqrt(frequency[1:])
    spectrum[..., 0] = 0
    for center, sign in PLANTED.items():
        bump = np.exp(-((frequency - center) ** 2) / (2 * (center / 10) ** 2))
        gain = np.full((trials, len(CHANNELS)), 1.0)
        for channel, opposite in (("C3", 1), ("C4", 0)):
            gain[:, CHANNELS.index(channel)] = np.where(hand == opposite, 1 + 0.9 * sign, 1.0)
        spectrum *= 1 + gain[:, :, None] * bump
    signals = np.fft.irfft(spectrum, TIMES, axis=2)
    return (signals / signals.std(2, keepdims=True)).astype(np.float32), hand


def trained_decoder(signals: np.ndarray, hand: np.ndarray, epochs: int) -> nn.Module:
    """Fit a network of filters in time, filters in space, squaring, pooling and logarithm."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(1, 16, (1, 33)), nn.Identity(), nn.Conv2d(16, 16, (len(CHANNELS), 1)), nn.Identity()),
        *(Square(), nn.Identity(), nn.AvgPool2d((1, 64), (1, 16)), Log(), nn.Flatten(), nn.Linear(16 * 11, 2)),
    )
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.0 if weight.ndim < 2 else weight[0].numel() ** -0.5, generator=generator)
    inputs, labels = torch.from_numpy(signals)[:, None], torch.from_numpy(hand)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs), generator=generator).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    return nn.Sequential(nn.Unflatten(1, (1, len(CHANNELS))), *network).eval()


def sensitivity(network: nn.Module, signals: np.ndarray, iterations: int) -> dict[str, tuple[float, float]]:
    """Return for each stage the correlation with phase and with amplitude noise, mean over its units.

    One run finds the channel and frequency of each unit, another run, of other noise, gives the height and its sign:
    the largest of 1,000 values of one run would be about 0.1 in a stage that listens to nothing.
    """
    found = {}
    for layer, name in STAGES.items():
        options = {"layer": str(int(layer) + 1), "iterations": iterations}  # the first module only adds an axis
        both = []
        for kind in ("phase", "additive"):
            chosen, other = (perturb_signals(network, signals, RATE_HZ, kind=kind, seed=k, **options) for k in (0, 1))
            agree = np.sign(chosen.strongest()["value"])
            both.append((agree * other.strongest(chosen_in=chosen)["value"]).mean())
        found[name] = (both[0], both[1])
    return found


def draw_eeg(band, found: SignalPerturbation, stages: dict[str, tuple[float, float]]) -> None:
    """Draw the map of the unit for the right hand, what was planted, and the sensitivity of the stages."""
    left, right = band.subplots(1, 2, width_ratios=[1.7, 1])
    drawn = draw_perturbation(left, found, "right hand")
    for center, sign in PLANTED.items():
        for channel, turn in (("C3", 1), ("C4", -1)):
            at = CHANNELS.index(channel) + 0.5
            left.text(center, at, "+" if sign * turn > 0 else "\N{MINUS SIGN}", ha="center", va="center", size=12)
    left.set_xlim(1, 100)
    left.set_title("Noise on which amplitudes moves “right hand”?\n(+ and \N{MINUS SIGN}: planted sign)", fontsize=9)
    band.colorbar(drawn, ax=left, pad=0.02).set_label("correlation", fontsize=8)
    at = np.arange(len(stages))
    phase, amplitude = np.array(list(stages.values())).T
    right.barh(at - 0.2, phase, 0.36, color="#c2670a", label="phase")
    right.barh(at + 0.2, amplitude, 0.36, color="#0b62a8", label="amplitude")
    right.set_yticks(at, list(stages))
    right.invert_yaxis()
    right.set_xlabel("|correlation| where it is strongest\n(place found with other noise)", fontsize=9)
    right.set_title("What each stage is sensitive to", fontsize=9)
    right.legend(fontsize=8, frameon=False, loc="lower right")
    right.spines[["top", "right"]].set_visible(False)


def alike(first: np.ndarray, second: np.ndarray) -> float:
    """Return the correlation of two maps over the bands that both have."""
    known = ~np.isnan(first)
    return float(np.corrcoef(first[known], second[known])[0, 1])


def stands_out(tuning: SpectralTuning) -> bool:
    """Return whether the highest band is above its noise; few iterations make single errors small by chance."""
    highest = np.nanargmax(tuning.correlation)
    error = max(tuning.standard_error.flat[highest], np.nanmedian(tuning.standard_error))
    return bool(tuning.correlation.flat[highest] > BEYOND * error)


def draw_sites(band, tunings: dict, gratings: dict[str, dict[str, np.ndarray]]) -> None:
    """Draw each site's tuning on photographs above the responses of model and brain to gratings."""
    title = "Spatial tuning of three sites (gray: a 64 px image has no frequency there; ring: the highest band,\n"
    title += f"on photographs only if beyond {BEYOND} standard errors)"
    band.suptitle(title, fontsize=10)
    axes = band.subplots(1 + len(gratings), len(tunings), squeeze=False, sharex=True)
    for k, (site, tuning) in enumerate(tunings.items()):
        clear = stands_out(tuning)
        drawn = [draw_map(axes[0, k], tuning.correlation, tuning.edges_cpd, tuning.orientation_deg, ring=clear)]
        most = "most at {:.2g} cpd, {:.0f} deg".format(*tuning.preferred()) if clear else "no band stands out"
        axes[0, k].set_title(f"{site}: {most}", fontsize=9)
        for axis, responses in zip(axes[1:, k], gratings.values(), strict=True):
            shown = responses[site]
            drawn.append(draw_map(axis, shown, tuning.edges_cpd, tuning.orientation_deg))
            axis.set_title(f"r = {alike(tuning.correlation, shown):.2f} with the photographs' map", fontsize=9)
        for axis, each in zip(axes[:, k], drawn, strict=True):
            band.colorbar(each, ax=axis, pad=0.03).ax.tick_params(labelsize=7)
            axis.set_ylabel("")
            axis.set_xlabel("orientation (deg)" if axis is axes[-1, k] else "")
    names = ["noise on photographs\n(model; correlation)"]
    names += [f"gratings\n({name}; response \N{MINUS SIGN} gray)" for name in gratings]
    for axis, name in zip(axes[:, 0], names, strict=True):
        axis.set_ylabel(f"{name}\n\nspatial frequency (cpd)", fontsize=9)


def main() -> None:
    """Perturb EEG, perturb photographs, compare with gratings, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("example_12"))
    parser.add_argument("--small", action="store_true", help="under a minute; only checks that everything runs")
    options = parser.parse_args()
    if options.small:
        print("--small: only checks that everything runs; figures and pictures mean nothing")
    trials, epochs, iterations, n_photos, sites = (120, 3, 3, 80, 3) if options.small else (800, 30, 40, 640, 24)
    from matplotlib.figure import Figure  # without pyplot nothing depends on a screen

    # 1. Signals.
    signals, hand = simulated_eeg(trials + 200, seed=0)
    network = trained_decoder(signals[:trials], hand[:trials], epochs)
    units = ("left hand", "right hand")
    given = {"labels": hand[trials:], "channels": CHANNELS, "units": units, "iterations": iterations * 5}
    found = perturb_signals(network, signals[trials:], RATE_HZ, **given)
    print(f"held-out accuracy {found.accuracy:.1%}; {found.decisions_kept:.1%} of decisions survive the noise")
    for center in PLANTED:
        values = dict(zip(CHANNELS, found.in_band(0.8 * center, 1.2 * center)[:, 1].round(3), strict=True))
        print(f"{center} Hz, unit 'right hand': C3 {values['C3']:+.3f}, C4 {values['C4']:+.3f}, Pz {values['Pz']:+.3f}")
    stages = sensitivity(network, signals[trials:], max(2, iterations // 8))

    # 2. Images.
    natural = natural_photos(n_photos, size_px=64)
    brain = SimulatedBrain(natural, n_sites=sites, seed=1)
    model = fit_sites(natural, brain.record(natural, n_repeats=8), backbone="efficientnet-lite0")
    best = model.held_out_scores()["explained_variance"].nlargest(3).index
    config = TuningConfig(iterations=max(2, iterations // 4))
    tunings = site_tunings(model, natural.select(slice(0, 480)), list(best), config)
    edges = tunings[best[0]].edges_cpd
    drawn = {"size_px": 64, "size_deg": natural.size_deg, "contrast": 0.5}
    gratings = {}
    for name, respond in (("model", model), ("brain", brain)):
        found_gratings = grating_responses(respond, edges, **drawn)
        gratings[name] = {site: found_gratings[:, :, model.site_ids.index(site)] for site in best}
    for site in best:
        r = [alike(tunings[site].correlation, each[site]) for each in gratings.values()]
        print(f"{site}: map on photographs and gratings, r = {r[0]:.2f} in the model, {r[1]:.2f} in the brain")

    figure = Figure(figsize=(9, 9.6), layout="constrained")
    if options.small:
        figure.suptitle("(--small)")
    top, bottom = figure.subfigures(2, 1, height_ratios=[2.6, 7.0])
    draw_eeg(top, found, stages)
    draw_sites(bottom, tunings, gratings)
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "perturbation.png", dpi=100)
    print(f"wrote {options.out / 'perturbation.png'}")


if __name__ == "__main__":
    main()
