from .class_activation import class_activation_maps
from .cue_combination import combine_trials
from .filter_cues import cue_combination_maps
from .grad_cam import grad_cam
from .grating_tuning import grating_responses
from .overlay import overlay, upsampled
from .receptive_fields import gradient_fields, layer_support
from .saliency import integrated_gradients, saliency, smooth_grad
from .signal_perturbation import amplitude_gradient, perturb_signals
from .site_activation import site_activation_maps, site_offsets
from .spectral_tuning import TuningConfig, site_tunings, spectral_tuning
from .targets import target_function

__all__ = [
    "TuningConfig",
    "amplitude_gradient",
    "class_activation_maps",
    "combine_trials",
    "cue_combination_maps",
    "grad_cam",
    "gradient_fields",
    "grating_responses",
    "integrated_gradients",
    "layer_support",
    "overlay",
    "perturb_signals",
    "saliency",
    "site_activation_maps",
    "site_offsets",
    "site_tunings",
    "smooth_grad",
    "spectral_tuning",
    "target_function",
    "upsampled",
]
