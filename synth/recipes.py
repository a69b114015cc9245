"""Named synthesis configurations.

`SynthesisConfig` says everything about how an image is made; two images with equal objective, seed, config and model
are equal. ``"paper"`` is the rule of 2019, ``"robust"`` the default. Read by `synthesize` and `engine`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stimuli.hints import did_you_mean
from synth.aperture import Aperture
from synth.constraints import Constraints
from synth.image_params import PARAMS
from synth.natural_statistics import NaturalStatistics
from synth.optimizers import OPTIMIZERS
from synth.starts import STARTS
from synth.transforms import Affine, Jitter, Transform

ImageParam = Callable[..., Any]


@dataclass(frozen=True)
class SynthesisConfig:
    """How an image is made from an objective.

    Parameters
    ----------
    param : str or callable
        What is optimized: ``"pixels"``, ``"fourier"`` coefficients, the ``"phase"`` of a natural spectrum, or the
        weights of a random network that draws the change of the start (``"deep_prior"``); or what makes a
        parametrization of your own from start images and statistics, with a ``repr`` that names it exactly.
    start : str
        First image: ``"uniform"`` noise, faint ``"pink"`` noise, ``"gray"``, the ``"natural"`` photograph that the
        driver scores best, or the ``"base"`` image of each job.
    channels : int, optional
        3 for color, 1 for gray images; by default as the images the model was fitted on.
    steps : int
        Gradient steps.
    optimizer : str
        ``"adam"``, ``"sign"`` of the gradient, ``"gradient_std"`` or ``"gradient_norm"``: the gradient divided by its
        standard deviation over pixels, or by its length.
    step_size : float
        Step in units of the latent; for pixels [0, 1].
    transforms : tuple of Transform
        Random views, applied in this order at every step.
    views : int
        Random views of each image a step; their scores are averaged.
    gradient_blur_px : tuple of float
        Standard deviation of the Gaussian that smooths the pixel gradient, at the first and the last step; 0 is none.
    gradient_decay : float
        The spectrum of the pixel gradient is multiplied by ``1 / frequency^decay``; 0 leaves it.
    total_variation : float
        Weight of the penalty on quadratic total variation, of images scaled to [-1, 1].
    mean_luminance, rms_contrast : float, optional
        Fixed exactly where given, in units of [0, 1]; inside the aperture, where there is one.
    aperture : Aperture, optional
        Where the image may be; outside it is gray, or as the base image.
    max_rms_change, max_change : float, optional
        Largest root-mean-square and largest absolute change of the base image, in units of [0, 1].
    statistics : NaturalStatistics, optional
        Spectrum and colors of your own photographs, for ``"fourier"`` and ``"phase"``.
    keep : str
        ``"best"``: the image with the best score without views, after constraints and 8-bit rounding, read every
        `check_every` steps; or ``"last"``.
    check_every : int
        Steps between readings of the score.
    patience : int, optional
        An image ends early after so many readings without a gain worth it; None spends the whole budget.
    min_gain : float
        A gain is worth it when it exceeds this fraction of all that was gained since the start.
    output_gain : float
        Deviations from gray are multiplied by it when the image is written.

    Raises
    ------
    ValueError
        For a value out of range or an unknown name.

    Examples
    --------
    >>> SynthesisConfig(steps=20).steps
    20
    """

    param: str | ImageParam = "fourier"
    start: str = "pink"
    channels: int | None = None
    steps: int = 150
    optimizer: str = "adam"
    step_size: float = 0.05
    transforms: tuple[Transform, ...] = ()
    views: int = 1
    gradient_blur_px: tuple[float, float] = (0.0, 0.0)
    gradient_decay: float = 0.0
    total_variation: float = 0.0
    mean_luminance: float | None = None
    rms_contrast: float | None = None
    aperture: Aperture | None = None
    max_rms_change: float | None = None
    max_change: float | None = None
    statistics: NaturalStatistics | None = None
    keep: str = "best"
    check_every: int = 10
    patience: int | None = None
    min_gain: float = 0.01
    output_gain: float = 1.0

    def __post_init__(self) -> None:
        for name, known in (
            ("param", tuple(PARAMS) if isinstance(self.param, str) else (self.param,)),
            ("start", (*STARTS, "natural")),
            ("optimizer", tuple(OPTIMIZERS)),
            ("keep", ("best", "last")),
            ("channels", (None, 1, 3)),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(map(repr, known))}")
        if self.steps < 1 or self.check_every < 1 or self.views < 1 or not 0 < self.step_size < math.inf:
            raise ValueError("steps, check_every and views must be at least 1 and step_size above 0")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience is {self.patience}; expected a number of readings of at least 1, or None")
        weights = (self.total_variation, self.min_gain, self.gradient_decay, *self.gradient_blur_px)
        if not all(0 <= weight < math.inf for weight in weights):  # nothing compares with a NaN
            raise ValueError(
                "total_variation, min_gain, gradient_decay and gradient_blur_px must be finite and must not be negative"
            )
        if not math.isfinite(self.output_gain):
            raise ValueError(f"output_gain is {self.output_gain}; expected a finite number")
        if self.param != "pixels" and (any(self.gradient_blur_px) or self.gradient_decay):
            raise ValueError("gradient_blur_px and gradient_decay smooth pixel gradients; use them with param='pixels'")
        if self.param == "phase" and self.start == "gray":
            raise ValueError(
                "a gray image has no phases to optimize; start param='phase' from 'pink' or 'uniform' noise"
            )
        _ = self.constraints  # refuses what no image satisfies

    @property
    def constraints(self) -> Constraints:
        """What every image satisfies exactly."""
        return Constraints(
            mean_luminance=self.mean_luminance,
            rms_contrast=self.rms_contrast,
            aperture=self.aperture,
            max_rms_change=self.max_rms_change,
            max_change=self.max_change,
        )


def param_of(config: SynthesisConfig) -> ImageParam:
    """Return what makes the parametrization of a configuration.

    Parameters
    ----------
    config : SynthesisConfig
        The configuration.

    Returns
    -------
    callable
        Takes start images (image, channel, height, width) and natural statistics or None.

    Examples
    --------
    >>> param_of(SynthesisConfig()).__name__
    'Fourier'
    """
    return PARAMS[config.param] if isinstance(config.param, str) else config.param


#: from the best photograph: Fourier coefficients in natural colors, random affine views, free contrast; every part was
#: chosen by what simulated brains did, see the table of ablations in docs/control.md
ROBUST = SynthesisConfig(start="natural", steps=400, transforms=(Affine(rotate_deg=10.0, rescale=0.1, shift_px=6.0),))

#: the released code of Bashivan, Kar & DiCarlo 2019 on [-1, 1] images: step 0.01 is 0.005 in [0, 1]
PAPER = SynthesisConfig(
    param="pixels",
    start="uniform",
    channels=1,
    steps=200,
    optimizer="gradient_std",
    step_size=0.005,
    transforms=(Jitter(-19, 18),),
    total_variation=500.0,
    keep="last",
    output_gain=0.99 * 128 / 127.5,  # their 8-bit code is floor(0.99 * 128 * x + 128)
)

RECIPES = {"robust": ROBUST, "paper": PAPER}


def recipe(name: str | SynthesisConfig, **changes: object) -> SynthesisConfig:
    """Return a named recipe, with changes.

    Parameters
    ----------
    name : str or SynthesisConfig
        ``"robust"``, ``"paper"``, or a config.
    **changes : object
        Fields of `SynthesisConfig` to replace.

    Returns
    -------
    SynthesisConfig
        The configuration.

    Raises
    ------
    ValueError
        For an unknown recipe; the closest name is suggested.

    Examples
    --------
    >>> recipe("paper", steps=700).steps
    700
    """
    if isinstance(name, str):
        if name not in RECIPES:
            raise ValueError(f"unknown recipe {name!r}; {did_you_mean(name, RECIPES)}known: {', '.join(RECIPES)}")
        name = RECIPES[name]
    known = [field.name for field in dataclasses.fields(SynthesisConfig)]
    for change in changes:
        if change not in known:
            raise ValueError(f"a recipe has no {change!r}; {did_you_mean(change, known)}it has {', '.join(known)}")
    return dataclasses.replace(name, **changes)  # type: ignore[arg-type]


def recipe_name(config: SynthesisConfig) -> str:
    """Return the name of a configuration: of a recipe, also with other steps, or ``"custom"``.

    Parameters
    ----------
    config : SynthesisConfig
        The configuration.

    Returns
    -------
    str
        The name.

    Examples
    --------
    >>> recipe_name(recipe("robust")), recipe_name(recipe("paper", steps=700))
    ('robust', 'paper, 700 steps')
    """
    for name, known in RECIPES.items():
        if dataclasses.replace(known, steps=config.steps) == config:
            return name if known.steps == config.steps else f"{name}, {config.steps} steps"
    return "custom"


def one_hot_form(name: str) -> str:
    """Return the form of `OneHot` that belongs to a recipe: that of 2019 for ``"paper"``.

    Parameters
    ----------
    name : str
        Name of a recipe.

    Returns
    -------
    str
        ``"paper"`` or ``"log"``.
    """
    return "paper" if name == "paper" else "log"
