from .aperture import Aperture
from .control import ControlReport, evaluate_control
from .image_objectives import Custom, Diversity, LayerUnit, MinimalContrast
from .objectives import Objective, OneHot, Stretch
from .recipes import SynthesisConfig, recipe
from .site_objectives import Contrast, Pattern, Suppress
from .synthesis import Synthesis
from .synthesize import synthesize
from .transforms import Affine, Jitter, PixelNoise

__all__ = [
    "Affine",
    "Aperture",
    "Contrast",
    "ControlReport",
    "Custom",
    "Diversity",
    "Jitter",
    "LayerUnit",
    "MinimalContrast",
    "Objective",
    "OneHot",
    "Pattern",
    "PixelNoise",
    "Stretch",
    "Suppress",
    "Synthesis",
    "SynthesisConfig",
    "evaluate_control",
    "recipe",
    "synthesize",
]
