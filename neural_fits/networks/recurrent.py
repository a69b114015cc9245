"""A recurrent network made of modules in a chain, as from V1 to IT or from AIP to M1: inputs in, rates over time out.

In: inputs (image, input) that are on for a while, a `Timeline`. Out: rates (image, step, unit) by Euler integration.
Fitted by `recurrent_fit`, held by `RecurrentSites`.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from neural_fits.networks.timeline import Timeline
from stimuli.hints import did_you_mean

#: gain of the first weights inside a module, 1.2 / sqrt(units), as in the network of 2020
_GAIN = 1.2


@dataclass(frozen=True)
class Wiring:
    """Which units may be linked: all inside a module, few between neighbors in the chain, none else.

    Parameters
    ----------
    modules : tuple of str
        Names of the modules, in the order in which the input passes them.
    units : int
        Units of each module.
    link_density : float
        Share of the possible links between neighboring modules that exist.
    feedback : bool
        Whether there are links from a module to the one before it as well.
    seed : int
        Seed of the links between modules, and of the first weights.

    Raises
    ------
    ValueError
        For no module, one named twice, text instead of a tuple, no unit, or a density outside [0, 1].

    Examples
    --------
    >>> Wiring(("V1", "V4", "IT"), units=10).links().sum()
    tensor(340.)
    """

    modules: tuple[str, ...] = ("V1", "V4", "IT")
    units: int = 50
    link_density: float = 0.1
    feedback: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.modules, str):  # a tuple of letters otherwise
            raise ValueError(f"modules is {self.modules!r}; give a tuple of names, such as ({self.modules!r},)")
        object.__setattr__(self, "modules", tuple(self.modules))
        if not self.modules or len(set(self.modules)) < len(self.modules):
            raise ValueError(f"modules are {self.modules}; give one name or more, each once")
        if self.units < 1 or not 0 <= self.link_density <= 1:
            raise ValueError(
                f"units is {self.units} and link_density is {self.link_density}; expected at least 1 unit a module and "
                "a density between 0 and 1"
            )

    @property
    def n_units(self) -> int:
        """Units of all modules."""
        return self.units * len(self.modules)

    def slice_of(self, module: str) -> slice:
        """Return where the units of a module stand.

        Parameters
        ----------
        module : str
            Its name.

        Returns
        -------
        slice
            Of the axis of units.

        Raises
        ------
        ValueError
            For an unknown module.
        """
        if module not in self.modules:
            raise ValueError(
                f"there is no module {module!r}; {did_you_mean(module, self.modules)}known: {', '.join(self.modules)}"
            )
        first = self.modules.index(module) * self.units
        return slice(first, first + self.units)

    def links(self) -> Tensor:
        """Return which links exist, drawn from the seed.

        Returns
        -------
        Tensor, (unit, unit)
            1 where the unit of the row hears the unit of the column, else 0.
        """
        rng, n = np.random.default_rng(self.seed), self.units
        links = torch.zeros(self.n_units, self.n_units)
        for k in range(len(self.modules)):
            links[k * n : (k + 1) * n, k * n : (k + 1) * n] = 1
        for k in range(len(self.modules) - 1):
            for hears, heard in ((k + 1, k), (k, k + 1)):  # drawn either way: feedback changes no forward link
                block = np.zeros(n * n, dtype=np.float32)
                block[rng.choice(n * n, round(self.link_density * n * n), replace=False)] = 1
                if hears > heard or self.feedback:
                    links[hears * n : (hears + 1) * n, heard * n : (heard + 1) * n] = torch.from_numpy(block).view(n, n)
        return links


class ModularRNN(nn.Module):
    """Rate units in modules: ``tau dx/dt = -x + J r + B u(t) + S h(t) + b`` with ``r = max(0, tanh x)``.

    The input u enters the first module only; a hold signal h, if the timeline has one, all modules. Links that are
    absent in the wiring have weight 0 and no gradient. One Euler step is ``x += step / tau * dx``, stable for the leak
    while the step is shorter than twice tau; steps longer than tau are refused.

    Parameters
    ----------
    wiring : Wiring
        Modules and links.
    n_inputs : int
        Number of inputs.
    tau_ms : float
        Time constant of all units in ms.

    Raises
    ------
    ValueError
        For no input or a time constant that is not positive.

    Notes
    -----
    After Michaels et al., PNAS 117:32124 (2020): three modules of 100 rectified saturating units, 10 % links between
    neighbors, 20 inputs, hold signal, tau = 100 ms in steps of 10 ms, learned start of x. Compared with a public
    reimplementation that reads the authors' weights; the text of the paper itself names the units, the sparse links,
    the two penalties and the variant without feedback.

    Examples
    --------
    >>> from neural_fits.networks.timeline import Timeline
    >>> network = ModularRNN(Wiring(units=4), n_inputs=2, tau_ms=50)
    >>> network(torch.ones(3, 2), Timeline(((0, 50), (50, 100)))).shape
    torch.Size([3, 10, 12])
    """

    def __init__(self, wiring: Wiring, n_inputs: int, tau_ms: float = 100.0) -> None:
        super().__init__()
        if n_inputs < 1 or not 0 < tau_ms < math.inf:
            raise ValueError(
                f"{n_inputs} input(s) and a time constant of {tau_ms} ms; expected 1 or more, and finite and above 0"
            )
        self.wiring, self.n_inputs, self.tau_ms = wiring, n_inputs, float(tau_ms)
        n, generator = wiring.n_units, torch.Generator().manual_seed(wiring.seed)
        links = wiring.links()
        scale = torch.full((n, n), 1 / math.sqrt(wiring.units))
        for module in wiring.modules:
            inside = wiring.slice_of(module)
            scale[inside, inside] *= _GAIN
        self.recurrent = nn.Parameter(torch.randn(n, n, generator=generator) * scale * links)
        self.inputs = nn.Parameter(torch.randn(wiring.units, n_inputs, generator=generator) / math.sqrt(n_inputs))
        self.hold = nn.Parameter(torch.zeros(n))
        self.bias = nn.Parameter(torch.zeros(n))
        self.start = nn.Parameter(torch.zeros(n))
        self.links: Tensor
        self.alive: Tensor
        self.register_buffer("links", links)
        self.register_buffer("alive", torch.ones(n))

    def weights(self) -> Tensor:
        """Return the weights between units, 0 where there is no link.

        Returns
        -------
        Tensor, (unit, unit)
            J.
        """
        return self.recurrent * self.links

    def forward(self, inputs: Tensor, timeline: Timeline) -> Tensor:
        """Return the rates after every step.

        Parameters
        ----------
        inputs : Tensor, (image, input)
            Input while the image is on.
        timeline : Timeline
            Steps, and when input and hold signal are on.

        Returns
        -------
        Tensor, (image, step, unit)
            Rates between 0 and 1.

        Raises
        ------
        ValueError
            When the inputs have another number, or a step is longer than the time constant.
        """
        if inputs.ndim != 2 or inputs.shape[1] != self.n_inputs:
            raise ValueError(f"inputs have shape {tuple(inputs.shape)}; expected (image, {self.n_inputs})")
        if timeline.step_ms > self.tau_ms:
            raise ValueError(
                f"a step of {timeline.step_ms:g} ms is longer than the time constant of {self.tau_ms:g} ms, which "
                "Euler steps do not follow; make step_ms shorter"
            )
        drive = torch.nn.functional.pad(inputs @ self.inputs.T, (0, self.wiring.n_units - self.wiring.units))
        weights, part = self.weights().T, timeline.step_ms / self.tau_ms
        x = self.start.expand(len(inputs), -1)
        rate = torch.relu(torch.tanh(x)) * self.alive
        rates = []
        for on, held in zip(timeline.gate().tolist(), timeline.hold().tolist(), strict=True):
            constant = self.bias + held * self.hold if held else self.bias
            total = torch.addmm(constant, rate, weights)
            x = x + part * (total - x + on * drive if on else total - x)
            rate = torch.relu(torch.tanh(x)) * self.alive
            rates.append(rate)
        return torch.stack(rates, 1)

    def lesioned(self, module: str, fraction: float = 1.0, seed: int = 0) -> ModularRNN:
        """Return a copy in which units of a module are silent.

        Parameters
        ----------
        module : str
            Name of the module.
        fraction : float
            Share of its units that fall silent.
        seed : int
            Seed of which ones.

        Returns
        -------
        ModularRNN
            The copy.

        Raises
        ------
        ValueError
            For an unknown module or a fraction outside [0, 1].
        """
        where = self.wiring.slice_of(module)
        if not 0 <= fraction <= 1:
            raise ValueError(f"fraction is {fraction}; expected a share of the units between 0 and 1")
        lost = np.random.default_rng(seed).permutation(self.wiring.units)[: round(fraction * self.wiring.units)]
        changed = copy.deepcopy(self)
        changed.alive[where.start + torch.from_numpy(lost)] = 0
        return changed

    def cut(self, source: str, to: str) -> ModularRNN:
        """Return a copy without the links from one module to another.

        Parameters
        ----------
        source : str
            Module whose rates are no longer heard.
        to : str
            Module that no longer hears them; the same one loses its inner links.

        Returns
        -------
        ModularRNN
            The copy.

        Raises
        ------
        ValueError
            For an unknown module, or two between which there is no link.
        """
        heard, hears = self.wiring.slice_of(source), self.wiring.slice_of(to)
        if not self.links[hears, heard].any():
            raise ValueError(f"no link leads from {source!r} to {to!r}; cut one between neighbors in the chain")
        changed = copy.deepcopy(self)
        changed.links[hears, heard] = 0
        return changed
