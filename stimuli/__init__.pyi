from .apertures import Aperture
from .appearance import quantize
from .display import Display
from .event_logs import read_event_log
from .export.export_set import export_set
from .families import draw, grid, sample
from .gray import with_gray_control
from .image_folder import images_from_folder
from .matching import match_appearance
from .photos import natural_photos, photos_from_folder
from .provenance import provenance_record
from .sequence import PresentationOrder, SequenceConfig, presentation_order
from .stimulus_set import StimulusSet

__all__ = [
    "Aperture",
    "Display",
    "PresentationOrder",
    "SequenceConfig",
    "StimulusSet",
    "draw",
    "export_set",
    "grid",
    "images_from_folder",
    "match_appearance",
    "natural_photos",
    "photos_from_folder",
    "presentation_order",
    "provenance_record",
    "quantize",
    "read_event_log",
    "sample",
    "with_gray_control",
]
