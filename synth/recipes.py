"""Named synthesis configurations.

`SynthesisConfig` says everything about how an image is made; two images with equal objective, seed, config and model
are equal. ``"paper"`` is the rule of 2019, ``"robust"`` the default. Read by `synthesize` and `engine`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from stimuli.hints import did_you_mean
from synth.constraints import check_luminance_contrast
from synth.image_params import PARAMS, STARTS
from synth.transforms import Affine, Jitter, PixelNoise, Transform


@dataclass(frozen=True)
class SynthesisConfig:
    """How an image is made from an objective.

    Parameters
    ----------
    param : str
        What is optimized: ``"pixels"`` or ``"fourier"``.
    start : str
        First image: ``"uniform"`` noise or faint ``"pink"`` noise.
    channels : int, optional
        3 for color, 1 for gray images; by default as the images the model was fitted on.
    steps : int
        Gradient steps.
    optimizer : str
        ``"adam"``, or ``"gradient_std"``: the gradient divided by its standard deviation over pixels.
    step_size : float
        Step in units of the latent; for pixels [0, 1].
    transforms : tuple of Transform
        Random views, applied in this order at every step.
    gradient_blur_px : tuple of float
        Standard deviation of the Gaussian that smooths the pixel gradient, at the first and the last step; 0 is none.
    total_variation : float
        Weight of the penalty on quadratic total variation, of images scaled to [-1, 1].
    mean_luminance, rms_contrast : float, optional
        Fixed exactly where given, in units of [0, 1].
    keep : str
        ``"best"``: the image with the best score without views, after constraints and 8-bit rounding, read every
        `check_every` steps; or ``"last"``.
    check_every : int
        Steps between readings of the score.
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

    param: str = "fourier"
    start: str = "pink"
    channels: int | None = None
    steps: int = 150
    optimizer: str = "adam"
    step_size: float = 0.05
    transforms: tuple[Transform, ...] = ()
    gradient_blur_px: tuple[float, float] = (0.0, 0.0)
    total_variation: float = 0.0
    mean_luminance: float | None = None
    rms_contrast: float | None = None
    keep: str = "best"
    check_every: int = 10
    output_gain: float = 1.0

    def __post_init__(self) -> None:
        for name, known in (
            ("param", tuple(PARAMS)),
            ("start", tuple(STARTS)),
            ("optimizer", ("adam", "gradient_std")),
            ("keep", ("best", "last")),
            ("channels", (None, 1, 3)),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(map(repr, known))}")
        if self.steps < 1 or self.check_every < 1 or not self.step_size > 0:
            raise ValueError("steps and check_every must be at least 1 and step_size above 0")
        if self.total_variation < 0 or min(self.gradient_blur_px) < 0:
            raise ValueError("total_variation and gradient_blur_px must not be negative")
        check_luminance_contrast(self.mean_luminance, self.rms_contrast)
        if self.param != "pixels" and any(self.gradient_blur_px):
            raise ValueError("gradient_blur_px smooths pixel gradients; use it with param='pixels'")


#: recipe B of our measurements: Fourier coefficients in natural colors, random affine views, pixel noise, free contrast
ROBUST = SynthesisConfig(transforms=(Affine(rotate_deg=10.0, rescale=0.1, shift_px=6.0), PixelNoise(sd=0.25)))

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
