"""Perturbation analysis of signals: planted filters, an independent implementation, and what noise must leave alone."""

from __future__ import annotations

import gc
import math
import weakref

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from neural_fits.inspection.perturbation import (
    IterationMean,
    map_correlation,
    perturb_amplitude,
    time_mean,
    trial_correlation,
    with_amplitude,
)
from neural_fits.inspection.signal_perturbation import amplitude_gradient, perturb_signals
from neural_fits.inspection.spectral_pictures import draw_perturbation

RATE, TIME = 128.0, 256
FREQUENCIES = np.fft.rfftfreq(TIME, 1 / RATE)


def pink(trials: int, channels: int, seed: int = 0, time: int = TIME) -> np.ndarray:
    """Signals with the falling spectrum of an EEG, standardized."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.normal(size=(trials, channels, time)), axis=2)
    spectrum[..., 1:] /= np.sqrt(np.arange(1, spectrum.shape[2]))
    spectrum[..., 0] = 0
    signals = np.fft.irfft(spectrum, time, axis=2)
    return (signals / signals.std(2, keepdims=True)).astype(np.float32)


class BandPower(nn.Module):
    """Units whose course is the power of one channel in one band, raising or lowering them."""

    def __init__(self, center_hz, channel, sign, width_hz):
        super().__init__()
        gain = np.exp(-((FREQUENCIES - np.asarray(center_hz)[:, None]) ** 2) / (2 * width_hz**2))
        self.register_buffer("gain", torch.tensor(gain, dtype=torch.float32))
        self.register_buffer("sign", torch.tensor(sign, dtype=torch.float32))
        self.channel = list(channel)

    def forward(self, signals):
        band = torch.fft.irfft(torch.fft.rfft(signals[:, self.channel], dim=2) * self.gain, signals.shape[2], dim=2)
        return self.sign[:, None] * torch.log1p(band.square())


class LinearAndEnergy(nn.Module):
    """One unit that follows the filtered signal itself, and one that follows its energy, both at 20 Hz."""

    def forward(self, signals):
        gain = torch.tensor(2 * np.exp(-((FREQUENCIES - 20) ** 2) / 2), dtype=torch.float32)
        both = torch.zeros(len(signals), 1, TIME, dtype=torch.complex64)
        both[..., : len(FREQUENCIES)] = torch.fft.rfft(signals[:, :1], dim=2) * gain
        analytic = torch.fft.ifft(both, dim=2)
        return torch.cat([analytic.real, analytic.abs().square()], 1)


@pytest.mark.parametrize("kind", ["additive", "multiplicative"])
def test_twenty_planted_filters_are_found_with_their_signs(kind):
    rng = np.random.default_rng(3)
    width_hz = 1.5
    center, channel = rng.uniform(4, 60, 20), rng.integers(0, 3, 20)
    sign = np.where(rng.permutation(20) < 10, -1, 1)
    found = perturb_signals(BandPower(center, channel, sign, width_hz), pink(200, 3), RATE, kind=kind, iterations=12)
    best = found.strongest()
    assert len(best) == 20
    half_width = width_hz * math.sqrt(2 * math.log(2))
    assert np.abs(best["frequency_hz"].to_numpy() - center).max() <= max(half_width, FREQUENCIES[1])
    assert (np.sign(best["value"].to_numpy()) == sign).all()
    assert best["channel"].tolist() == [f"channel {k}" for k in channel]
    assert (best["value"].abs() > 10 * best["standard_error"]).all()
    assert (np.sign(found.mean_change) == sign).all() or kind == "multiplicative"


def test_gradient_finds_the_same_filters():
    rng = np.random.default_rng(4)
    center, channel, sign = rng.uniform(4, 60, 20), rng.integers(0, 2, 20), rng.choice([-1, 1], 20)
    best = amplitude_gradient(BandPower(center, channel, sign, 1.5), pink(80, 2), RATE, batch_size=30).strongest()
    assert np.abs(best["frequency_hz"].to_numpy() - center).max() <= 1.5 * math.sqrt(2 * math.log(2))
    assert (np.sign(best["value"].to_numpy()) == sign).all()


def test_phase_sensitive_and_energy_units_are_told_apart():
    signals, at = pink(150, 2), int(np.argmin(np.abs(FREQUENCIES - 20)))
    amplitude = perturb_signals(LinearAndEnergy(), signals, RATE, iterations=10)
    phase = perturb_signals(LinearAndEnergy(), signals, RATE, kind="phase", iterations=10)
    assert phase.values.shape == (1, len(FREQUENCIES), 2)
    linear_a, energy_a = amplitude.values[0, at]
    linear_p, energy_p = phase.values[0, at]
    assert abs(linear_a) < 0.1
    assert linear_p < -0.3
    assert energy_a > 0.4
    assert abs(energy_p) < 0.1
    assert phase.strongest().loc["unit 0", "frequency_hz"] == pytest.approx(20, abs=FREQUENCIES[1])


def by_loops(network, signals, kind, seed):
    """Another implementation, in float64, trial by trial, with the draws of the same generator."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(signals.astype(np.float64), axis=2)
    trials, channels, bins = spectrum.shape
    if kind == "phase":
        noise = rng.uniform(-math.pi, math.pi, (trials, 1, bins))
        noise[:, :, 0] = 0
        if signals.shape[2] % 2 == 0:
            noise[:, :, -1] = 0
    else:
        noise = rng.normal(0 if kind == "additive" else 1, 1 if kind == "additive" else 0.02, spectrum.shape)
    effects, acted = [], np.zeros_like(noise)
    for k in range(trials):
        turned = spectrum[k] * np.exp(1j * noise[k]) if kind == "phase" else np.empty_like(spectrum[k])
        acted[k] = np.abs(noise[k])
        for c in range(channels if kind != "phase" else 0):
            for f in range(bins):
                size, angle = np.abs(spectrum[k, c, f]), np.angle(spectrum[k, c, f])
                if kind == "additive":
                    new = max(0.0, size + noise[k, c, f])
                    acted[k, c, f] = new - size
                else:
                    new = size * noise[k, c, f]
                    acted[k, c, f] = noise[k, c, f]
                turned[c, f] = new * np.exp(1j * angle)
        changed = np.fft.irfft(turned, signals.shape[2], axis=1)
        old, new = (network(torch.tensor(each)[None].double())[0].numpy() for each in (signals[k], changed))
        effects.append(
            [stats.pearsonr(a, b)[0] for a, b in zip(old, new, strict=True)] if kind == "phase" else (new - old).mean(1)
        )
    effects = np.array(effects)
    out = np.full((*noise.shape[1:], effects.shape[1]), np.nan)
    for index in np.ndindex(out.shape):
        if np.ptp(acted[:, index[0], index[1]]) > 0:
            out[index] = stats.pearsonr(acted[:, index[0], index[1]], effects[:, index[2]])[0]
    return out


@pytest.mark.parametrize("kind", ["additive", "multiplicative", "phase"])
@pytest.mark.parametrize("time", [12, 13])
def test_equals_an_implementation_by_loops(kind, time):
    signals = pink(20, 2, seed=1, time=time).astype(np.float64)

    def network(x):
        return torch.stack([x[:, 0].roll(1, 1) * x[:, 1], x.square().sum(1), (x[:, 0] - 1).relu() + 0.1 * x[:, 1]], 1)

    found = perturb_signals(network, signals, 10.0, kind=kind, iterations=1, seed=5)
    expected = by_loops(network, signals, kind, 5)
    assert np.array_equal(np.isnan(found.values), np.isnan(expected))
    assert np.nanmax(np.abs(found.values - expected)) < 1e-7
    assert np.isnan(found.values[0, 0]).all() == (kind == "phase")  # the mean has no phase


def seen_by(network_input_list):
    def network(signals):
        network_input_list.append(signals.clone())
        return signals

    return network


@pytest.mark.parametrize("time", [32, 33])
def test_phase_noise_keeps_amplitudes_and_the_relation_of_channels(time):
    seen: list[torch.Tensor] = []
    signals = torch.from_numpy(pink(5, 3, time=time)) + 0.3
    perturb_signals(seen_by(seen), signals, 32.0, kind="phase", iterations=1)
    before, after = (torch.fft.rfft(each, dim=2) for each in seen)
    assert torch.allclose(before.abs(), after.abs(), atol=1e-4)
    assert torch.allclose(before[:, :, 0], after[:, :, 0], atol=1e-4)
    assert torch.allclose(before[:, 0] * before[:, 1].conj(), after[:, 0] * after[:, 1].conj(), atol=2e-3)
    assert not torch.allclose(before[:, :, 3], after[:, :, 3], atol=0.5)


def test_amplitude_noise_keeps_phases():
    seen: list[torch.Tensor] = []
    perturb_signals(seen_by(seen), torch.from_numpy(pink(5, 2, time=32)).double() * 9, 32.0, iterations=1)
    before, after = (torch.fft.rfft(each, dim=2) for each in seen)
    moved = (after - before).abs()
    there = (before.abs() > 4)[:, :, 1:-1]
    assert there.float().mean() > 0.8
    assert ((before * after.conj()).imag.abs()[:, :, 1:-1][there] < 1e-6).all()
    assert moved[:, :, 1:-1].std() == pytest.approx(math.sqrt(1 - 2 / math.pi), rel=0.25)


def test_the_mean_of_a_signal_is_a_frequency():
    signals = pink(200, 1, time=32) + 1.0
    found = perturb_signals(lambda x: x.mean(2), signals, 32.0, iterations=3, scale=0.5)
    assert found.strongest()["frequency_hz"].tolist() == [0.0]
    assert found.values[0, 0, 0] == pytest.approx(1.0, abs=1e-4)
    assert np.abs(found.values[0, 1:, 0]).max() < 0.25


def test_gradient_equals_finite_differences():
    signals = torch.from_numpy(pink(6, 2, time=16)).double()

    def network(x):
        return torch.stack([(x[:, 0] * x[:, 1]).tanh(), x[:, 1].exp()], 1)

    found = amplitude_gradient(network, signals, 16.0, units=["product", "exp"])
    spectrum = torch.fft.rfft(signals, dim=2)
    for channel, bin_ in ((0, 0), (0, 3), (1, 8)):
        moved = []
        for step in (1e-5, -1e-5):
            amplitude = spectrum.abs()
            amplitude[:, channel, bin_] += step
            moved.append(network(torch.fft.irfft(with_amplitude(spectrum, amplitude), 16, dim=2)).mean(2))
        numeric = ((moved[0] - moved[1]) / 2e-5).mean(0)
        assert np.allclose(found.values[channel, bin_], numeric, atol=1e-8)
    assert found.units == ("product", "exp")
    assert found.kind == "gradient"
    with torch.no_grad():  # as a notebook may be in
        assert np.array_equal(amplitude_gradient(network, signals, 16.0).values, found.values)


def test_decisions_and_accuracy_are_watched():
    signals = pink(60, 1)
    power = BandPower([10, 40], [0, 0], [1, 1], 4.0)
    labels = power(torch.from_numpy(signals)).mean(2).argmax(1).tolist()
    gentle = perturb_signals(power, signals, RATE, kind="multiplicative", labels=labels, iterations=3)
    assert gentle.accuracy == 1.0
    assert gentle.decisions_kept == gentle.accuracy_perturbed > 0.95
    rough = perturb_signals(power, signals, RATE, scale=40.0, labels=[1 - k for k in labels], iterations=3)
    assert rough.accuracy == 0.0
    assert rough.accuracy_perturbed == pytest.approx(1 - rough.decisions_kept)
    assert rough.decisions_kept < 0.95


def test_stages_of_a_network_are_read_by_name_in_evaluation_mode():
    network = nn.Sequential(nn.Conv1d(2, 3, 5), nn.Dropout(0.5), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(36, 2))
    network.train()
    network[1].eval()
    signals = pink(10, 2, time=16)
    found = perturb_signals(network, signals, 16.0, layer="0", kind="phase", iterations=2)
    same = perturb_signals(network[0], signals, 16.0, kind="phase", iterations=2)
    assert np.array_equal(found.values, same.values, equal_nan=True)
    assert found.values.shape == (1, 9, 3)
    assert network.training
    assert network[0].training
    assert not network[1].training
    assert not network[0]._forward_hooks
    network[1].train()
    once, again = (perturb_signals(network, signals, 16.0, iterations=1, batch_size=b).mean_change for b in (3, 10))
    assert np.allclose(once, again, atol=1e-6)


def test_memory_does_not_grow_with_iterations():
    held = []

    def count(done, total):
        assert total == 12
        if done in (3, 12):
            held.append(sum(each.numel() for each in gc.get_objects() if type(each) is torch.Tensor))

    perturb_signals(lambda x: x.square(), pink(30, 2, time=32), 32.0, iterations=12, progress=count)
    assert held[0] == held[1]


@pytest.mark.parametrize("kind", ["additive", "phase"])
def test_activations_over_time_are_let_go_batch_by_batch(kind):
    made: list[weakref.ref] = []
    alive = []

    def network(signals):
        output = signals.repeat(1, 5, 3)
        alive.append(sum(each() is not None for each in made))
        made.append(weakref.ref(output))
        return output

    perturb_signals(network, pink(40, 1, time=32), 32.0, kind=kind, iterations=2, batch_size=4)
    assert len(alive) == 30
    assert max(alive) <= (10 if kind == "phase" else 0)  # only for phases are the 10 batches from before compared


def test_a_place_chosen_in_other_noise_gives_a_height_without_bias():
    signals = pink(60, 2, time=64)
    draws = torch.Generator().manual_seed(0)

    def network(x):  # units that do not hear the signals at all
        return torch.randn(len(x), 5, generator=draws)

    first, second = (perturb_signals(network, signals, 64.0, iterations=3, seed=seed) for seed in (0, 1))
    assert first.strongest()["value"].abs().mean() > 0.15
    fair = np.sign(first.strongest()["value"]) * second.strongest(chosen_in=first)["value"]
    assert abs(fair.mean()) < 0.08
    assert second.strongest(chosen_in=first)["channel"].tolist() == first.strongest()["channel"].tolist()
    with pytest.raises(ValueError, match="give two results of the same channels, frequencies and units"):
        first.strongest(chosen_in=perturb_signals(lambda x: x, signals[:, :1], 64.0, iterations=1))


def test_seeds(global_rng_untouched):
    signals = pink(20, 1, time=32)
    with global_rng_untouched():
        first, same, other = (
            perturb_signals(lambda x: x.square(), signals, 32.0, iterations=2, seed=seed).values for seed in (0, 0, 1)
        )
    assert np.array_equal(first, same)
    assert not np.allclose(first, other)


def test_added_noise_never_makes_an_amplitude_negative():
    amplitude = torch.tensor([[0.2, 2.0]])
    perturbed, applied = perturb_amplitude(amplitude, torch.tensor([[-1.0, 1.0]]), "additive")
    assert perturbed.tolist() == [[0.0, 3.0]]
    assert applied[0].tolist() == pytest.approx([-0.2, 1.0])


def test_map_correlation_is_pearsons_and_not_times_the_number_of_samples():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 4, 3, 50))
    found = map_correlation(torch.tensor(first), torch.tensor(second))
    expected = [
        [stats.pearsonr(a, b)[0] for a, b in zip(*pair, strict=True)] for pair in zip(first, second, strict=True)
    ]
    assert np.allclose(found, expected)
    assert map_correlation(torch.ones(1, 1, 9) * 0.1, torch.rand(1, 1, 9, generator=torch.Generator())).isnan().all()


def test_trial_correlation_leaves_out_what_is_not_known():
    rng = np.random.default_rng(1)
    noise, change = rng.normal(size=(40, 2, 3)), rng.normal(size=(40, 2)) + 1e4
    change[:7, 1] = np.nan
    noise[:, 1, 2] = 0.25
    found = trial_correlation(torch.tensor(noise), torch.tensor(change)).numpy()
    assert found.shape == (2, 3, 2)
    for c, f in np.ndindex(2, 3):
        if (c, f) == (1, 2):
            assert np.isnan(found[c, f]).all()
            continue
        assert found[c, f, 0] == pytest.approx(stats.pearsonr(noise[:, c, f], change[:, 0])[0])
        assert found[c, f, 1] == pytest.approx(stats.pearsonr(noise[7:, c, f], change[7:, 1])[0])
    assert trial_correlation(torch.tensor(noise), torch.ones(40, 1)).isnan().all()


def test_iteration_mean_equals_numpy():
    values = np.random.default_rng(2).normal(size=(9, 4)) + 100
    values[3:, 1], values[:, 2] = np.nan, np.nan
    mean = IterationMean()
    for row in values:
        mean.add(torch.tensor(row))
    for column in (0, 1, 3):
        known = values[~np.isnan(values[:, column]), column]
        assert mean.mean()[column] == pytest.approx(known.mean())
        assert mean.standard_error()[column] == pytest.approx(stats.sem(known))
    assert np.isnan(mean.mean()[2])


def test_time_mean_takes_any_axes_as_time_and_keeps_small_changes():
    given = torch.rand(3, 4, 5, 2, generator=torch.Generator())
    assert torch.allclose(time_mean(given), given.double().mean((2, 3)), rtol=1e-12)
    assert torch.equal(time_mean(given[:, :, 0, 0]), given[:, :, 0, 0].double())
    high = 1e3 + torch.rand(1, 1, 100_000, generator=torch.Generator())
    assert time_mean(high).item() == pytest.approx(high.double().mean().item(), abs=1e-9)


def test_a_band_is_a_mean_over_its_frequencies():
    found = perturb_signals(lambda x: x.square(), pink(30, 2, time=32), 32.0, iterations=2)
    assert np.allclose(found.in_band(4, 6), found.values[:, 4:7].mean(1))
    with pytest.raises(ValueError, match="no frequency lies between 40 and 50 Hz"):
        found.in_band(40, 50)


def test_pictures():
    from matplotlib.figure import Figure

    found = perturb_signals(lambda x: x.square(), pink(30, 2, time=32), 32.0, iterations=2, channels=["C3", "C4"])
    axis = Figure().subplots()
    drawn = draw_perturbation(axis, found, "unit 1")
    assert np.allclose(drawn.get_array(), found.values[:, :, 1])
    assert [each.get_text() for each in axis.get_yticklabels()] == ["C3", "C4"]
    with pytest.raises(ValueError, match="no unit 'unit 7'"):
        draw_perturbation(axis, found, "unit 7")


SIGNALS = np.zeros((4, 1, 8), dtype=np.float32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "aditive"}, "did you mean 'additive'"),
        ({"scale": -1.0}, "scale is -1.0"),
        ({"iterations": 0}, "iterations is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"rate_hz": 0.0}, "rate_hz is 0.0"),
        ({"signals": SIGNALS[0]}, r"\(1, 8\); expected \(trial, channel, time\)"),
        ({"signals": SIGNALS * np.nan}, "NaN or infinite"),
        ({"network": lambda x: x.mean(2), "kind": "phase"}, "name a layer that keeps time"),
        ({"network": lambda x: x.mean((1, 2))}, r"yields \(4,\); expected a tensor"),
        ({"network": nn.Sequential(nn.ReLU()), "layer": "O"}, "no layer 'O'"),
        ({"layer": "0"}, "was asked of a function"),
        ({"channels": ["a", "b"]}, "there are 1 channels and 2 names"),
        ({"labels": [0]}, "1 labels for 4 trials"),
    ],
)
def test_errors_say_what_to_do(options, message):
    call = {"network": lambda x: x, "signals": SIGNALS, "rate_hz": 8.0, "iterations": 1, **options}
    with pytest.raises(ValueError, match=message):
        perturb_signals(**call)
