"""Look inside fitted sites: fields, activation maps, saliency, spectral tuning, maximizing images, all of one site.

In: a `SiteModel` or `Ensemble`, and natural images. Out: a `SiteInspection` a site. Shown by `inspection_page`, called
by ``npc inspect``. What a site cannot have is left out with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neural_fits.fit import best_device
from neural_fits.image_size import require_image_size
from neural_fits.inspection.receptive_fields import GradientFields, gradient_fields
from neural_fits.inspection.saliency import saliency, smooth_grad
from neural_fits.inspection.site_activation import site_activation_maps, site_offsets
from neural_fits.inspection.spectral_tuning import SpectralTuning, TuningConfig, site_tunings
from neural_fits.inspection.targets import site_indices
from neural_fits.site_maps import receptive_fields
from neural_fits.site_model import Ensemble, SiteModel
from stimuli import StimulusSet, natural_photos
from stimuli.provenance import sha256_bytes
from synth._inspection_gratings import grating_responses, octaves
from synth.driver import driver_of
from synth.objectives import Stretch
from synth.progress import Progress
from synth.recipes import SynthesisConfig
from synth.recipes import recipe as named
from synth.synthesis import Synthesis
from synth.synthesize import synthesize

Result = TypeVar("Result")
#: natural images over which gradients and tuning are averaged, evenly over the set
_SAMPLE = 32
#: embedded photographs where none are given
_EMBEDDED = 320
#: from faint noise: an image that starts from a photograph shows that photograph, not what the site wants
MAXIMIZING = named("robust", start="pink")


@dataclass(frozen=True, eq=False)
class SiteInspection:
    """What a model says of one site.

    Parameters
    ----------
    site : str
        Its id.
    model : SiteModel or Ensemble
        Where it comes from.
    natural : StimulusSet
        The natural images.
    responses : ndarray, (stimulus,)
        Predicted responses to them, in the recording's unit.
    best, worst : tuple of int
        Places of the natural images with the highest and the lowest predicted responses, the extreme one first.
    readout_field : ndarray, (row, column), or None
        Where the readout puts its weight, see `neural_fits.site_maps.receptive_fields`.
    gradient_field : GradientFields
        Which pixels change the response.
    offset : float
        Part of the response that no position of the image gives.
    activation : ndarray, (image, row, column), or None
        Activation maps of the best and then the worst images; each sums to the predicted response minus `offset`.
    saliency : ndarray, (image, height, width)
        Saliency of the best images.
    smooth_grad : ndarray, (image, height, width), or None
        The same over noise.
    tuning : SpectralTuning or None
        Spatial frequency x orientation.
    gratings : ndarray, (frequency, orientation), or None
        Predicted responses to gratings of full contrast minus that to gray, mean over four phases, in bands of one
        octave.
    grating_edges_cpd : ndarray, (frequency + 1,)
        Edges of these bands, in cycles per degree; gratings stand at their geometric means.
    made : Synthesis
        Images that maximize the response, of all inspected sites; `made_images` picks those of this one.
    left_out : dict of str to str
        Why a part that is None is missing.
    sha256 : dict of str to str
        Hashes of the model and of the natural images.
    """

    site: str
    model: SiteModel | Ensemble
    natural: StimulusSet
    responses: NDArray[np.float32]
    best: tuple[int, ...]
    worst: tuple[int, ...]
    readout_field: NDArray[np.float64] | None
    gradient_field: GradientFields
    offset: float
    activation: NDArray[np.float32] | None
    saliency: NDArray[np.float32]
    smooth_grad: NDArray[np.float32] | None
    tuning: SpectralTuning | None
    gratings: NDArray[np.float64] | None
    grating_edges_cpd: NDArray[np.float64]
    made: Synthesis
    left_out: dict[str, str]
    sha256: dict[str, str]

    @property
    def made_images(self) -> StimulusSet:
        """The maximizing images of this site."""
        return self.made.stimuli.select((self.made.stimuli.table["target_site"] == self.site).to_numpy())


def inspect_sites(
    model: SiteModel | Ensemble,
    sites: str | Sequence[str] | None = None,
    natural: StimulusSet | None = None,
    *,
    images: int = 3,
    recipe: str | SynthesisConfig = MAXIMIZING,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> list[SiteInspection]:
    """Compute every view of sites that the packages have.

    Parameters
    ----------
    model : SiteModel or Ensemble
        The model.
    sites : str or sequence of str, optional
        Ids of the sites; all by default.
    natural : StimulusSet, optional
        Natural images of the size the model was fitted on, at least 3, best those recorded; embedded photographs by
        default.
    images : int
        How many best, worst and maximizing images.
    recipe : str or SynthesisConfig
        How maximizing images are made; by default ``recipe("robust", start="pink")``.
    seed : int
        First seed of the maximizing images, and the seed of the noise in `smooth_grad` and tuning.
    device : str or torch.device, optional
        Where to work; the best there is by default.
    progress : Progress, optional
        Is told the stages.

    Returns
    -------
    list of SiteInspection
        In the order asked.

    Raises
    ------
    ValueError
        For an unknown site, no site, natural images of another size or in color where the model was fitted on gray
        ones, or a number below 1.

    Examples
    --------
    >>> inspect_sites(model, "site03", images=2)  # doctest: +SKIP
    """
    chosen = [sites] if isinstance(sites, str) else list(dict.fromkeys(model.site_ids if sites is None else sites))
    if chosen:
        site_indices(model, chosen)  # refuses unknown sites before any work
    if not chosen or images < 1:
        raise ValueError(f"{len(chosen)} sites and {images} images were asked; expected at least one of each")
    photographs = photographs_of(model) if natural is None else natural
    if len(photographs) < max(3, images):
        raise ValueError(f"there are {len(photographs)} natural images; give at least {max(3, images)}")
    if photographs.shape[0] > model.info.channels:
        raise ValueError("the natural images are in color, the model was fitted on gray images; give gray ones")
    require_image_size(photographs, model.info.size_px, model.info.size_deg)
    told = progress or Progress(quiet=True)
    home, place = next(model.buffers()).device, best_device(device)
    try:
        model.to(place)
        told.stage(f"predicting {len(photographs)} natural images")
        responses = model.predict(photographs)
        told.stage("spatial frequency and orientation")
        sample = evenly(photographs, _SAMPLE)
        tunings = _or_reason(lambda: site_tunings(model, sample, chosen, TuningConfig(seed=seed), progress=told.step))
        edges = octaves(model)
        gratings = _or_reason(lambda: grating_responses(model, edges))
        told.stage(f"synthesizing {len(chosen) * images} images")
        made = synthesize(
            model,
            [Stretch(site) for site in chosen],
            seeds=range(seed, seed + images),
            recipe=recipe,
            natural=photographs,
            device=place,
            progress=told.step,
        )
        told.stage("fields, activation maps and saliency")
        shown = torch.from_numpy(sample.images()).to(place)
        pixels = (sha256_bytes(photographs.codes([k]).tobytes()) for k in range(len(photographs)))
        sha256 = {
            "model": driver_of(model, [], place).sha256(),
            "natural images": sha256_bytes("".join(pixels).encode()),
        }
        fields = receptive_fields(model)
        common = _Common(
            model, photographs, responses, fields, shown, tunings, gratings, edges, made, images, seed, sha256
        )
        found = []
        for done, site in enumerate(chosen, 1):
            found.append(_inspect(site, common))
            told.step(done, len(chosen))
        return found
    finally:
        model.to(home)


def photographs_of(model: SiteModel | Ensemble) -> StimulusSet:
    """Return crops of the embedded photographs of the size and color that a model was fitted on.

    Parameters
    ----------
    model : SiteModel or Ensemble
        The model.

    Returns
    -------
    StimulusSet
        320 images.

    Raises
    ------
    ValueError
        When the model's images are not square.
    """
    height, width = model.info.size_px
    if height != width:
        raise ValueError(
            f"the embedded photographs are square, the model takes images of {height} x {width} px; give natural "
            "images of that size"
        )
    return natural_photos(_EMBEDDED, height, channels=model.info.channels).on_screen(size_deg=model.info.size_deg)


@dataclass(frozen=True, eq=False)
class _Common:
    """What all sites of an inspection share."""

    model: SiteModel | Ensemble
    natural: StimulusSet
    responses: NDArray[np.float32]
    readout_fields: NDArray[np.float64]
    sample: Tensor
    tunings: dict[str, SpectralTuning] | str
    gratings: NDArray[np.float64] | str
    grating_edges_cpd: NDArray[np.float64]
    made: Synthesis
    images: int
    seed: int
    sha256: dict[str, str]


def _inspect(site: str, common: _Common) -> SiteInspection:
    model, column = common.model, common.model.site_ids.index(site)
    order = [int(k) for k in np.argsort(-common.responses[:, column], kind="stable")]
    best, worst = tuple(order[: common.images]), tuple(order[::-1][: common.images])
    shown = torch.from_numpy(common.natural.images([*best, *worst])).to(common.sample.device)
    activation = _or_reason(lambda: _numpy(site_activation_maps(model, shown, site)[:, 0]))
    smooth = _or_reason(lambda: _numpy(smooth_grad(model, site, shown[: common.images], seed=common.seed)))
    readout = common.readout_fields[column]
    if not readout.any():
        field: NDArray[np.float64] | str = "the readout has no weight for this site"
    else:
        field = readout if np.ptp(readout) > 1e-6 * readout.max() else "the readout weighs the whole image alike"
    missing = {
        "readout_field": field,
        "activation": activation,
        "smooth_grad": smooth,
        "tuning": common.tunings,
        "gratings": common.gratings,
    }
    return SiteInspection(
        site=site,
        model=model,
        natural=common.natural,
        responses=common.responses[:, column],
        best=best,
        worst=worst,
        readout_field=None if isinstance(field, str) else field,
        gradient_field=gradient_fields(model, [site], common.sample),
        offset=float(site_offsets(model, site)[0]),
        activation=None if isinstance(activation, str) else activation,
        saliency=_numpy(saliency(model, site, shown[: common.images])),
        smooth_grad=None if isinstance(smooth, str) else smooth,
        tuning=None if isinstance(common.tunings, str) else common.tunings[site],
        gratings=None if isinstance(common.gratings, str) else common.gratings[:, :, column],
        grating_edges_cpd=common.grating_edges_cpd,
        made=common.made,
        left_out={part: value for part, value in missing.items() if isinstance(value, str)},
        sha256=common.sha256,
    )


def evenly(photographs: StimulusSet, most: int) -> StimulusSet:
    """Return at most so many images, evenly over a set.

    Parameters
    ----------
    photographs : StimulusSet
        The set.
    most : int
        How many.

    Returns
    -------
    StimulusSet
        The whole set where it has no more.
    """
    count = min(most, len(photographs))
    return photographs.select([k * len(photographs) // count for k in range(count)])


def _or_reason(make: Callable[[], Result]) -> Result | str:
    """Return what is made, or in one sentence why it cannot be."""
    try:
        return make()
    except (ValueError, ImportError) as error:
        return str(error)


def _numpy(maps: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = maps.detach().cpu().numpy()
    return found
