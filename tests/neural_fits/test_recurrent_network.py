"""Modular recurrent networks, against another integration, solve_ivp and planted lesions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from neural_fits.networks.recurrent import ModularRNN, Wiring
from neural_fits.networks.timeline import Timeline

BINS = tuple((20.0 * k, 20.0 * (k + 1)) for k in range(6))


def random_network(seed=0, **wiring):
    network = ModularRNN(Wiring(seed=seed, **{"units": 5, "link_density": 0.4, **wiring}), 3, tau_ms=40)
    generator = torch.Generator().manual_seed(seed)
    for parameter in (network.hold, network.bias, network.start):
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return network


def as_numpy(network):
    names = ("inputs", "hold", "bias", "start", "alive")
    return {"J": network.weights().detach().numpy(), **{k: getattr(network, k).detach().numpy() for k in names}}


def test_steps_agree_with_loops_in_double_precision():
    network = random_network().lesioned("V4", 0.4, seed=3).double()
    timeline = Timeline(((-20, 30), (30, 90)), step_ms=10, latency_ms=5, duration_ms=40, hold_ms=(0, 25))
    inputs = np.random.default_rng(0).standard_normal((2, 3))
    found = network(torch.from_numpy(inputs), timeline).detach().numpy()
    held = as_numpy(network)
    assert (held["alive"] == 0).sum() == 2
    for image, given in enumerate(inputs):
        x = held["start"].copy()
        rate = np.maximum(0, np.tanh(x)) * held["alive"]
        for step, start in enumerate(range(-20, 90, 10)):
            on = max(0, min(start + 10, 45) - max(start, 5)) / 10
            hold = max(0, min(start + 10, 25) - max(start, 0)) / 10
            change = np.zeros_like(x)
            for i in range(len(x)):
                drive = sum(held["inputs"][i, k] * given[k] for k in range(3)) if i < 5 else 0.0
                heard = sum(held["J"][i, j] * rate[j] for j in range(len(x)))
                change[i] = -x[i] + heard + on * drive + hold * held["hold"][i] + held["bias"][i]
            x = x + 10 / 40 * change
            rate = np.maximum(0, np.tanh(x)) * held["alive"]
            np.testing.assert_allclose(found[image, step], rate, atol=1e-12)


def test_short_steps_agree_with_solve_ivp():
    network, inputs = random_network(seed=1).double(), np.random.default_rng(1).standard_normal(3)
    held = as_numpy(network)
    drive = np.concatenate([held["inputs"] @ inputs, np.zeros(10)])

    def slope(time, x):
        return (-x + held["J"] @ np.maximum(0, np.tanh(x)) + (time >= 20) * drive + held["bias"]) / 40

    x = held["start"]
    for span in ((0, 20), (20, 80)):  # the solver must not step over the onset of the input
        x = solve_ivp(slope, span, x, rtol=1e-9, atol=1e-11, args=()).y[:, -1]
    exact = np.maximum(0, np.tanh(x))
    errors = []
    for step in (1.0, 0.5, 0.25):
        rates = network(torch.from_numpy(inputs)[None], Timeline(((0, 80),), step_ms=step, latency_ms=20))
        errors.append(np.abs(rates[0, -1].detach().numpy() - exact).max())
    assert errors[-1] < 2e-3
    np.testing.assert_allclose(np.array(errors[:-1]) / errors[1:], 2, rtol=0.1)  # first order


def test_links_are_as_wired_and_absent_ones_have_no_gradient():
    wiring = Wiring(("a", "b", "c"), units=20, link_density=0.1, seed=4)
    links = wiring.links().numpy()
    blocks = links.reshape(3, 20, 3, 20).sum((1, 3))
    assert blocks.tolist() == [[400, 40, 0], [40, 400, 40], [0, 40, 400]]
    forward = dataclasses.replace(wiring, feedback=False).links().numpy()
    assert forward.reshape(3, 20, 3, 20).sum((1, 3)).tolist() == [[400, 0, 0], [40, 400, 0], [0, 40, 400]]
    assert (forward <= links).all()
    network = ModularRNN(wiring, 2)
    network(torch.ones(4, 2), Timeline(BINS)).square().sum().backward()
    assert (network.recurrent.grad[network.links == 0] == 0).all()
    assert (network.recurrent.grad[network.links == 1] != 0).any()
    assert not torch.equal(links_of(5), links_of(4))


def links_of(seed):
    return Wiring(units=20, seed=seed).links()


@pytest.mark.parametrize("change", [lambda n: n.lesioned("V4"), lambda n: n.cut("V1", "V4")])
def test_a_lesion_changes_what_is_downstream_and_nothing_else(change):
    network = random_network(feedback=False, units=12)
    inputs = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
    whole, changed = network(inputs, Timeline(BINS)), change(network)(inputs, Timeline(BINS))
    first, middle, last = (network.wiring.slice_of(name) for name in ("V1", "V4", "IT"))
    assert torch.equal(whole[..., first], changed[..., first])
    assert (whole[..., last] - changed[..., last]).abs().max() > 0.01
    assert float(changed[..., middle].detach().std(0).max()) == pytest.approx(0, abs=1e-6)  # the image is lost
    again = network(inputs, Timeline(BINS))
    assert torch.equal(again, whole)  # the original is as it was
    feedback = random_network(feedback=True, units=12)
    moved = feedback(inputs, Timeline(BINS)) - change(feedback)(inputs, Timeline(BINS))
    assert moved[..., first].abs().max() > 1e-4  # with feedback it comes back


def test_a_part_of_a_module_is_silenced():
    network = random_network(units=10).lesioned("IT", 0.3, seed=1)
    assert network.alive.reshape(3, 10).sum(1).tolist() == [10, 10, 7]
    assert not torch.equal(network.alive, random_network(units=10).lesioned("IT", 0.3, seed=2).alive)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"latency_ms": 300}, "the image is on from 300 to inf ms"),
        ({"latency_ms": -50, "duration_ms": 20}, "the image is on from -50 to -30 ms; .* between 0 and 80 ms"),
        ({"latency_ms": float("nan")}, "finite times"),
        ({"duration_ms": float("inf")}, "finite times"),
        ({"hold_ms": (50, 0)}, "the hold signal is on from 50 to 0 ms"),
        ({"hold_ms": (80, 90)}, "the hold signal is on from 80 to 90 ms"),
        ({"hold_ms": (0, float("inf"))}, "finite times"),
        ({"step_ms": float("inf")}, "finite times"),
        ({"bins_ms": ((0, 40), (40, float("inf")))}, "finite times"),
        ({"bins_ms": ((40, 0),)}, "start < end"),
    ],
)
def test_times_at_which_nothing_can_happen_are_refused(given, match):
    with pytest.raises(ValueError, match=match):
        Timeline(**{"bins_ms": ((0, 40), (40, 80)), **given})


def test_an_input_from_before_the_bins_is_on_until_it_ends():
    assert Timeline(((0, 40),), step_ms=20, latency_ms=-50, duration_ms=80).gate().tolist() == [1.0, 0.5]


def test_numbers_and_names_that_make_no_network_are_refused():
    with pytest.raises(ValueError, match=r"modules is 'V1'; give a tuple of names, such as \('V1',\)"):
        Wiring(modules="V1")
    with pytest.raises(ValueError, match="time constant of inf ms"):
        ModularRNN(Wiring(units=2), 1, tau_ms=float("inf"))


def test_bins_are_found_by_place_or_window():
    timeline = Timeline(BINS)
    assert [timeline.find(one) for one in (1, np.int64(1), (20, 40), np.array([1]), [(20.0, 40.0)])] == [[1]] * 5
    assert timeline.find(((0, 20), (100, 120))) == timeline.find([0, -1]) == timeline.find(range(0, 6, 5)) == [0, 5]
    for wrong in (None, [0.0, 20.0], slice(0, 2), "early", 6, np.array([0.5]), [None], {0, 1}):
        with pytest.raises(ValueError, match=r"there is no time bin .* as \(start, end\)"):
            timeline.find(wrong)
    with pytest.raises(ValueError, match="each once"):
        timeline.find([0, -6])
