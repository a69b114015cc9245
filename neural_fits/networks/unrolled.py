"""A recurrent model as a plain network: images in, the mean rates of its units in some time bins out.

What `FeatureExtractor`, `synthesize` and everything else that reads a network can take as it is; made by
`RecurrentSites.at`. Saved with its weights as any network that is built from a description.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neural_fits.backbones import Backbone
from neural_fits.features import FeatureExtractor
from neural_fits.networks._recurrent_reading import bin_means
from neural_fits.networks.recurrent import ModularRNN, Wiring
from neural_fits.networks.timeline import Timeline
from neural_fits.readout import LinearReadout

#: the layer that yields the rates, (image, bin * unit)
RATES = "rates"


class Unrolled(nn.Module):
    """Image to mean rates of all units in some time bins: ``P' f(x(t))``.

    Parameters
    ----------
    extractor : FeatureExtractor
        Features of the image.
    components : LinearReadout
        From features to the inputs of the network.
    network : ModularRNN
        The dynamics.
    timeline : Timeline
        Steps and bins.
    bins : sequence of int
        Places of the bins read.

    Examples
    --------
    >>> extractor = FeatureExtractor("efficientnet-lite0", "blocks.2")
    >>> components = LinearReadout(torch.zeros(2, 40, 4, 4), torch.ones(2))
    >>> network = ModularRNN(Wiring(units=4), n_inputs=2)
    >>> unrolled = Unrolled(extractor, components, network, Timeline(((0, 50), (50, 90))), [1])
    >>> unrolled(torch.zeros(3, 3, 32, 32)).shape
    torch.Size([3, 12])
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        components: LinearReadout,
        network: ModularRNN,
        timeline: Timeline,
        bins: Sequence[int],
    ) -> None:
        super().__init__()
        self.extractor, self.components, self.network = extractor, components, network
        self.timeline, self.bins = timeline, tuple(int(k) for k in bins)
        self.rates = nn.Identity()  # a layer with a name, to be read
        self.pooling: Tensor
        self.register_buffer("pooling", timeline.pooling()[:, list(self.bins)])

    def forward(self, images: Tensor) -> Tensor:
        """Return the rates.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Values in [0, 1].

        Returns
        -------
        Tensor, (image, bin * unit)
            Mean rates in each bin, all units of the first bin first.
        """
        rates = self.network(self.components(self.extractor(images)), self.timeline)
        return self.rates(bin_means(rates, self.pooling).flatten(1))

    def built_from(self) -> dict[str, Any]:
        """Return what `build_unrolled` needs to make such a network without its weights.

        Returns
        -------
        dict
            JSON-able.
        """
        backbone, network, time = self.extractor.backbone, self.network, self.timeline
        wiring = network.wiring
        config = {
            "base": dict(backbone.built_from or {"base": backbone.name}),
            "mean": list(backbone.mean),
            "std": list(backbone.std),
            "base_px": backbone.input_px,
            "fixed_size": backbone.fixed_size,
            "layers": list(self.extractor.layers_read),
            "input_px": self.extractor.input_px,
            "components": list(self.components.weight.shape),
            "modules": list(wiring.modules),
            "units": wiring.units,
            "tau_ms": network.tau_ms,
            "bins_ms": [list(each) for each in time.bins_ms],
            "step_ms": time.step_ms,
            "latency_ms": time.latency_ms,
            "duration_ms": time.duration_ms,
            "hold_ms": None if time.hold_ms is None else list(time.hold_ms),
            "bins": list(self.bins),
        }
        return {"architecture": "unrolled", "config": config}


def build_unrolled(
    *,
    base: Mapping[str, Any],
    mean: Sequence[float],
    std: Sequence[float],
    base_px: int,
    fixed_size: bool,
    layers: Sequence[str],
    input_px: int | None,
    components: Sequence[int],
    modules: Sequence[str],
    units: int,
    tau_ms: float,
    bins_ms: Sequence[Sequence[float]],
    step_ms: float,
    latency_ms: float,
    duration_ms: float | None,
    hold_ms: Sequence[float] | None,
    bins: Sequence[int],
) -> Unrolled:
    """Return an unrolled network of that shape; its weights are to be loaded.

    Parameters
    ----------
    base : mapping
        How the network below the features is built, as in `Backbone.built_from`.
    mean, std : sequence of float
        Its preprocessing.
    base_px : int
        Its native size in pixels.
    fixed_size : bool
        Whether it takes no other.
    layers : sequence of str
        Layers read.
    input_px : int, optional
        Size to which images are resized for it.
    components : sequence of int
        Shape of the weights from features to inputs: input, channel, height, width.
    modules : sequence of str
        Names of the modules.
    units : int
        Units of each.
    tau_ms : float
        Time constant.
    bins_ms : sequence of (float, float)
        All time bins.
    step_ms : float
        Length of a step.
    latency_ms : float
        When the input arrives.
    duration_ms : float, optional
        How long it lasts.
    hold_ms : tuple of float, optional
        When the hold signal is on.
    bins : sequence of int
        Places of the bins read.

    Returns
    -------
    Unrolled
        The network.
    """
    from neural_fits.networks.architectures import build_network

    network = build_network(base)
    name = str(base.get("base", base.get("architecture")))
    backbone = Backbone(name, network, tuple(mean), tuple(std), base_px, fixed_size, built_from=_own(base))
    extractor = FeatureExtractor(backbone, layers[0] if len(layers) == 1 else list(layers), input_px)
    readout = LinearReadout(torch.zeros(*components), torch.zeros(components[0]))
    recurrent = ModularRNN(Wiring(tuple(modules), units), components[0], tau_ms)
    held = None if hold_ms is None else (float(hold_ms[0]), float(hold_ms[1]))
    pairs = tuple((float(start), float(end)) for start, end in bins_ms)
    return Unrolled(extractor, readout, recurrent, Timeline(pairs, step_ms, latency_ms, duration_ms, held), bins)


def _own(base: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the description of a network that is not found by its name alone."""
    return None if set(base) == {"base"} else dict(base)
