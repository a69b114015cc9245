from .control import ControlReport, evaluate_control
from .image_params import Fourier, Pixels
from .objectives import Objective, OneHot, Stretch
from .recipes import SynthesisConfig, recipe
from .synthesize import Synthesis, synthesize
from .transforms import Affine, Jitter, PixelNoise

__all__ = [
    "Affine",
    "ControlReport",
    "Fourier",
    "Jitter",
    "Objective",
    "OneHot",
    "PixelNoise",
    "Pixels",
    "Stretch",
    "Synthesis",
    "SynthesisConfig",
    "evaluate_control",
    "recipe",
    "synthesize",
]
