"""Words of the pages of an inspection: what the model is, what a site is called, which band of a tuning is meant.

In: a model, a `SpectralTuning`. Out: text. Called by `inspection_page` and the sections.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from neural_fits.inspection.spectral_tuning import SpectralTuning
    from neural_fits.site_model import Ensemble, SiteModel

#: standard errors beyond which the largest of about a hundred bands is hardly noise
STANDS_OUT = 3
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def model_words(model: SiteModel | Ensemble) -> str:
    """Say in words what a model reads, of how many sites, and in which unit it answers."""
    members = model._members()
    height, width = model.info.size_px
    networks = [member.extractor.backbone.name for member in members]
    layers = ["+".join(member.extractor.layers_read) for member in members]
    if len(set(layers)) == 1:
        read = f"{_listed(networks)}, {_layer_word(layers[0])} {layers[0]}"
    else:
        read = _listed([f"{name} ({_layer_word(at)} {at})" for name, at in zip(networks, layers, strict=True)])
    count = _NUMBERS[len(members)] if len(members) < len(_NUMBERS) else str(len(members))
    mean = f"Mean of {count} models: " if len(members) > 1 else ""
    sites = f"{len(model.site_ids)} site{'s' if len(model.site_ids) > 1 else ''}"
    unit = f", responses in {model.info.unit}" if model.info.unit else ""
    return f"{mean}{read}, {sites}, images of {height} × {width} px{unit}"


def site_title(site: str) -> str:
    """Return the heading of a site's page, without the word twice."""
    return site if site.lower().startswith("site") else f"Site {site}"


def extreme_band(tuning: SpectralTuning, sign: int) -> str:
    """Name the band that moves the site most in one direction; nothing where none stands out of the noise."""
    beyond = sign * tuning.correlation / np.where(tuning.standard_error > 0, tuning.standard_error, np.nan)
    if not (np.nan_to_num(beyond) > STANDS_OUT).any():
        return ""
    row, column = divmod(int(np.nanargmax(sign * tuning.correlation)), tuning.correlation.shape[1])
    degrees = int(tuning.orientation_deg[column] + 0.5)  # 22.5 is 23, as 67.5 is 68
    return f"{tuning.frequency_cpd[row]:.1f} cycles/deg at {degrees} deg"


def _layer_word(layers: str) -> str:
    return "layers" if "+" in layers else "layer"


def _listed(names: list[str]) -> str:
    each = [f"{count} × {name}" if count > 1 else name for name, count in Counter(names).items()]
    return f"{', '.join(each[:-1])} and {each[-1]}" if len(each) > 1 else each[0]
