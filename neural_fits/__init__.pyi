from .backbones import Backbone, load_backbone
from .features import FeatureExtractor
from .fit import fit_sites
from .readout import LinearReadout
from .recordings import SiteRecordings
from .reliability import split_half_reliability
from .scores import explained_variance, site_scores
from .simulate import SimulatedBrain
from .site_model import Ensemble, SiteInfo, SiteModel, load_model

__all__ = [
    "Backbone",
    "Ensemble",
    "FeatureExtractor",
    "LinearReadout",
    "SimulatedBrain",
    "SiteInfo",
    "SiteModel",
    "SiteRecordings",
    "explained_variance",
    "fit_sites",
    "load_backbone",
    "load_model",
    "site_scores",
    "split_half_reliability",
]
