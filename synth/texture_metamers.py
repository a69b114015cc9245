"""Textures with the statistics of an image and none of its arrangement, after Portilla & Simoncelli (2000).

In: a `StimulusSet`. Out: a set of metamers, each from noise of its own. Needs the extra ``textures`` (plenoptic), which
computes the statistics; torch, hence not in `stimuli`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neural_fits.fit import best_device
from stimuli import StimulusSet
from stimuli.appearance import quantize, to_float
from stimuli.competitors import copied_set, is_uniform
from stimuli.provenance import sha256_bytes
from stimuli.ranges import checked_seed, whole

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


@dataclass(frozen=True)
class TextureConfig:
    """Which statistics are matched, and for how long.

    Parameters
    ----------
    steps : int
        Steps of the optimizer at most, of up to ten evaluations each; it ends early when nothing changes any more.
    n_scales : int, optional
        Scales of the steerable pyramid; by default 4, or as many as the image has room for.
    n_orientations : int
        Its orientations.
    spatial_corr_width : int
        Side of the neighborhoods, in pixels of each scale, in which correlations are matched; odd.

    Raises
    ------
    ValueError
        When a number is out of range.

    Examples
    --------
    >>> TextureConfig(steps=20).n_orientations
    4
    """

    steps: int = 40
    n_scales: int | None = None
    n_orientations: int = 4
    spatial_corr_width: int = 7

    def __post_init__(self) -> None:
        for name, low, high in (("steps", 1, 10_000), ("n_orientations", 2, 16), ("spatial_corr_width", 3, 31)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name} is {value!r}; expected a whole number from {low} to {high}")
        if self.spatial_corr_width % 2 == 0:
            raise ValueError(f"spatial_corr_width is {self.spatial_corr_width}; expected an odd number")
        if self.n_scales is not None and self.n_scales not in range(1, 11):
            raise ValueError(f"n_scales is {self.n_scales!r}; expected a whole number from 1 to 10, or None")


def texture_metamers(
    stimuli: StimulusSet,
    n: int = 1,
    config: TextureConfig | None = None,
    *,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: Callable[[str], None] | None = None,
) -> StimulusSet:
    """Make n images of every stimulus that share its texture statistics, each from a noise image of its own.

    The statistics are those of Portilla & Simoncelli, A parametric texture model based on joint statistics of complex
    wavelet coefficients, IJCV 40:49-71 (2000), of the luma: moments of the pixels, and correlations within and between
    the bands of a steerable pyramid. The images wrap round: left and right, top and bottom edges fit.

    Parameters
    ----------
    stimuli : StimulusSet
        The sources; uniform ones, such as the gray control, are left out.
    n : int
        Metamers of each.
    config : TextureConfig, optional
        Which statistics, and for how long; 40 steps for an image of 128 px take about 15 s on one core.
    seed : int
        Seed of the noise; a metamer depends on the seed, its number and the id of its source alone.
    device : str or torch.device, optional
        Where to compute; the best there is by default.
    progress : callable, optional
        Takes one line for every image.

    Returns
    -------
    StimulusSet
        The metamers, gray (three equal channels for a color set), with the columns statistics_error, n_scales, seed and
        those of `stimuli.competitors.copied_set`; the family is texture_metamer. statistics_error is how far the
        statistics of the 8-bit image are from those of its source, as a fraction of how far its noise was.

    Raises
    ------
    ModuleNotFoundError
        When plenoptic is not installed.
    ValueError
        When the images have no room for the scales, a number is out of range, or every source is uniform.

    Examples
    --------
    >>> made = texture_metamers(natural_photos(2, 128), n=3)  # doctest: +SKIP
    """
    if importlib.util.find_spec("plenoptic") is None:
        raise ModuleNotFoundError(
            "texture metamers need plenoptic, which is not installed; run: "
            "python -m pip install 'neural-population-control[textures]'"
        )
    whole("n", n, 1)
    seed = checked_seed(seed)
    config = config or TextureConfig()
    scales = fitting_scales(stimuli.size_px, config)
    place, told = best_device(device), progress or (lambda _: None)
    total = n * sum(not is_uniform(stimuli.codes([place])[0]) for place in range(len(stimuli)))
    done = 0

    def copies(source: str, image: NDArray[np.float64]) -> Iterator[tuple[NDArray[np.float64], dict[str, Any]]]:
        nonlocal done
        luma = image if len(image) == 1 else np.tensordot(_LUMA, image, axes=1)[None]
        for number in range(n):
            rng = np.random.default_rng([seed, number, int(sha256_bytes(source.encode())[:12], 16)])
            noise = luma.mean() + luma.std() * rng.standard_normal(luma.shape)
            texture, error = _matched(luma, np.clip(noise, 0.0, 1.0), scales, config, place)
            done += 1
            told(f"texture {done} of {total}: statistics {100 * error:.1f} % off")
            yield np.repeat(texture, len(image), axis=0), {"statistics_error": error, "n_scales": scales, "seed": seed}

    settings = asdict(config) | {"n_scales": scales, "n": n}
    return copied_set(stimuli, "texture_metamer", copies, settings, seed)


def fitting_scales(size_px: tuple[int, int], config: TextureConfig) -> int:
    """Return how many scales of the pyramid are used for images of a size.

    Parameters
    ----------
    size_px : tuple of int
        Height and width.
    config : TextureConfig
        Asked scales and neighborhoods.

    Returns
    -------
    int
        Both sides can be halved so often, and the smallest scale holds a whole neighborhood.

    Raises
    ------
    ValueError
        When there is no room for the scales asked, or for one.

    Examples
    --------
    >>> fitting_scales((128, 128), TextureConfig()), fitting_scales((96, 64), TextureConfig())
    (4, 3)
    """

    def fits(scales: int) -> bool:
        return all(side % 2**scales == 0 and side // 2**scales >= config.spatial_corr_width for side in size_px)

    wanted = [config.n_scales] if config.n_scales is not None else [4, 3, 2, 1]
    found = next((scales for scales in wanted if fits(scales)), None)
    if found is None:
        least = config.spatial_corr_width * 2 ** wanted[-1]
        raise ValueError(
            f"images of {size_px[0]} x {size_px[1]} px have no room for texture statistics of {wanted[-1]} scales; "
            f"expected sides of {least} px or more that {2 ** wanted[-1]} divides; change the size or n_scales"
        )
    return found


def _matched(
    luma: NDArray[np.float64], start: NDArray[np.float64], scales: int, config: TextureConfig, device: torch.device
) -> tuple[NDArray[np.float64], float]:
    """Change an image (1, h, w) until its statistics are those of another; return it and how far off its codes are."""
    plenoptic: Any = importlib.import_module("plenoptic")  # an extra without type hints
    target, first = (torch.as_tensor(image[None], dtype=torch.float32, device=device) for image in (luma, start))
    shape = (luma.shape[1], luma.shape[2])
    model = plenoptic.models.PortillaSimoncelli(shape, scales, config.n_orientations, config.spatial_corr_width).to(
        device
    )
    loss = plenoptic.loss.portilla_simoncelli_loss_factory(model, target)
    metamer = plenoptic.Metamer(target, model, loss_function=loss)
    metamer.setup(
        first,
        optimizer=torch.optim.LBFGS,
        optimizer_kwargs={
            "max_iter": 10,
            "max_eval": 10,
            "history_size": 100,
            "line_search_fn": "strong_wolfe",
            "lr": 1,
        },
    )
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():  # its own progress bar
        warnings.filterwarnings("ignore", message="Loss has converged")
        metamer.synthesize(max_iter=config.steps, stop_criterion=1e-9)
    made = metamer.metamer.detach().cpu().numpy()[0].astype(np.float64)
    with torch.no_grad():
        shown = torch.as_tensor(to_float(quantize(made[None])[0]), device=device)
        wanted = model(target)
        left, at_first = (float(loss(model(image), wanted)) for image in (shown, first))
    return made, left / max(at_first, 1e-12)
