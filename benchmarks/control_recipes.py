"""The recipes that ``control.py`` compares: ours, those of 2019, of lucent and of MEI, and ascent on the brain itself.

The peers' rules climb our driver, two networks with averaged readouts, and once more what is customary: one network and
full ridge regression ("alone").
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from torch import Tensor

from synth import Affine, Jitter, PixelNoise, SynthesisConfig
from synth.lucent_views import Pad, Rescale, Rotate
from synth.random_streams import Streams
from synth.recipes import PAPER, ROBUST


@dataclass(frozen=True)
class Column:
    """One column of the table."""

    config: SynthesisConfig
    one_hot: str = "log"  # form of the one-hot objective
    penalty: str = "one_se"  # how the driver was fitted
    readout: str = "local+alternating"
    backbones: tuple[str, ...] = ("efficientnet-lite0", "efficientnet-lite1")
    on_brain: bool = False  # climb the noiseless brain itself


@dataclass(frozen=True)
class Unpad:
    """Cut the padding off again: a readout takes images of one size."""

    width_px: int

    def __call__(self, images: Tensor, streams: Streams) -> Tensor:
        """Return the middle of the images."""
        del streams
        inner = slice(self.width_px, -self.width_px)
        return images[..., inner, inner]


_LUCENT_VIEWS = (
    Pad(12),
    Jitter(-4, 4),
    Rescale(tuple(1 + (k - 5) / 50 for k in range(11))),
    Rotate((*map(float, range(-10, 11)), *(0.0,) * 5)),
    Jitter(-2, 2),
    Unpad(12),
)
_VIEWS = (Affine(rotate_deg=10.0, rescale=0.1, shift_px=6.0),)

#: how readouts are fitted where one thinks of prediction alone
_ALONE = {"penalty": "best", "readout": "ridge", "backbones": ("efficientnet-lite0",)}

#: the default, what it is judged against, and what is left of it without one of its parts
RECIPES = {
    "robust": Column(ROBUST),
    "paper": Column(PAPER, one_hot="paper"),
    "lucent": Column(SynthesisConfig(steps=512, step_size=0.05, transforms=_LUCENT_VIEWS)),
    "mei": Column(
        SynthesisConfig(
            param="pixels",
            start="pink",
            steps=200,
            optimizer="gradient_std",
            step_size=0.01,
            gradient_blur_px=(2.0, 1.0),
            mean_luminance=0.5,
            rms_contrast=0.2,
        )
    ),
    "pixel": Column(SynthesisConfig(param="pixels", start="uniform", steps=200, step_size=0.03)),
    "ceiling": Column(SynthesisConfig(steps=300, transforms=_VIEWS), on_brain=True),
}
ALONE = {
    f"{name} alone": dataclasses.replace(RECIPES[name], **_ALONE)  # type: ignore[arg-type]
    for name in ("paper", "lucent", "mei")
}
ABLATIONS = {
    "noise added": Column(dataclasses.replace(ROBUST, transforms=(*_VIEWS, PixelNoise(sd=0.25)))),
    "without views": Column(dataclasses.replace(ROBUST, transforms=())),
    "one network": Column(ROBUST, backbones=("efficientnet-lite0",)),
    "local readout": Column(ROBUST, readout="local"),
    "weakest penalty": Column(ROBUST, penalty="best"),
    "start from noise": Column(dataclasses.replace(ROBUST, start="pink")),
    "two views": Column(dataclasses.replace(ROBUST, views=2)),
    "50 steps": Column(dataclasses.replace(ROBUST, steps=50)),
}
