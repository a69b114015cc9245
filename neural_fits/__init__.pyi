from .backbones import Backbone, load_backbone
from .ensembles import fit_parts, transfer
from .features import FeatureExtractor
from .fit import fit_sites
from .readout import LinearReadout
from .recordings import SiteRecordings
from .recordings_io.images import load_stimuli
from .reliability import split_half_reliability
from .scores import explained_variance, score_intervals, site_scores
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
    "fit_parts",
    "fit_sites",
    "load_backbone",
    "load_model",
    "load_stimuli",
    "score_intervals",
    "site_scores",
    "split_half_reliability",
    "transfer",
]
