from .appearance import quantize
from .display import Display
from .photos import natural_photos, photos_from_folder
from .provenance import provenance_record
from .stimulus_set import StimulusSet

__all__ = [
    "Display",
    "StimulusSet",
    "natural_photos",
    "photos_from_folder",
    "provenance_record",
    "quantize",
]
