from .capsule_training import CapsuleTraining, train_capsules
from .capsules import CapsuleNetwork
from .fine_tuning import ClassTuning, fine_tune
from .overlap_tile import overlap_tile
from .recurrent_files import load_recurrent
from .recurrent_fit import RecurrentConfig, fit_recurrent
from .recurrent_sites import RecurrentSites
from .saved import save_backbone
from .segmentation import SegmentationConfig, fit_segmentation
from .site_fine_tuning import SiteTuning, fine_tune_sites
from .unet import UNet

__all__ = [
    "CapsuleNetwork",
    "CapsuleTraining",
    "ClassTuning",
    "RecurrentConfig",
    "RecurrentSites",
    "SegmentationConfig",
    "SiteTuning",
    "UNet",
    "fine_tune",
    "fine_tune_sites",
    "fit_recurrent",
    "fit_segmentation",
    "load_recurrent",
    "overlap_tile",
    "save_backbone",
    "train_capsules",
]
