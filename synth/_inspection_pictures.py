"""Pictures of a site inspection as data URIs: photographs, maps laid over them, fields in degrees, the tuning.

In: parts of a `SiteInspection`. Out: data URIs of PNGs. matplotlib is imported when it draws.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from neural_fits.inspection.overlay import overlay
from neural_fits.inspection.spectral_pictures import draw_map
from synth._report_pictures import inline

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_MOST_PX, _DPI = 256, 160
_INK, _MARK = "#22272e", "#36e0c0"


def picture(image: NDArray[np.float32]) -> str:
    """Return an image (channel, height, width) in [0, 1] as a data URI."""
    codes = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return _png(np.repeat(codes, 3 // len(codes), 0).transpose(1, 2, 0))


def map_over(image: NDArray[np.float32], values: NDArray[np.float32], limit: float, signed: bool = False) -> str:
    """Return an image in gray with a map over it in color as a data URI."""
    return _png(overlay(image, values, limit, signed))


def speckle_over(image: NDArray[np.float32], values: NDArray[np.floating]) -> str:
    """Return the same for a map of pixels, blurred over 1 % of its width: the eye needs it to see where it is dense."""
    from scipy.ndimage import gaussian_filter

    blurred = gaussian_filter(values.astype(np.float32), values.shape[1] / 100)
    return map_over(image, blurred, float(np.quantile(blurred, 0.995)))  # a few pixels would darken all others


def field(values: NDArray[np.float64], size_deg: tuple[float, float], center: tuple[float, float], sd: float) -> str:
    """Draw a field in degrees, with its center and a circle of one standard deviation."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    high, wide = size_deg
    figure = Figure(figsize=(4.0, 0.7 + 3.0 * min(high / wide, 1.6)), layout="constrained")
    axis = figure.subplots()
    bounds = (-wide / 2, wide / 2, -high / 2, high / 2)
    axis.imshow(np.sqrt(values), extent=bounds, cmap="magma", vmin=0, interpolation="nearest")
    if np.isfinite(center).all():
        axis.plot(*center, "+", color=_MARK, ms=11, mew=1.8)
        axis.add_patch(Circle(center, sd, fill=False, color=_MARK, lw=1.6))
    axis.set(xlim=bounds[:2], ylim=bounds[2:], xlabel="x (deg)", ylabel="y (deg)")
    return _drawn(figure)


def spectrum(
    values: NDArray[np.float64], edges_cpd: NDArray[np.float64], angles: NDArray[np.float64], unit: str, ring: bool
) -> str:
    """Draw a map of spatial frequency x orientation with its color bar, and a ring on its largest value."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.6), layout="constrained")
    axis = figure.subplots()
    figure.colorbar(draw_map(axis, values, edges_cpd, angles, ring=ring), ax=axis).set_label(unit, fontsize=9)
    return _drawn(figure)


def responses(values: NDArray[np.float32], made: NDArray[np.float64], unit: str) -> str:
    """Draw the predicted responses to natural images, sorted, and those to the images made."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.3), layout="constrained")
    axis = figure.subplots()
    axis.plot(np.arange(1, len(values) + 1), np.sort(values)[::-1], color=_INK, lw=1.6, label="natural images, sorted")
    for k, value in enumerate(made):
        axis.axhline(value, color="#00735c", lw=1.2, label="" if k else "images made for the site")
    axis.set(xlabel="rank of the natural image", ylabel=f"predicted response ({unit})", xlim=(0, len(values) + 1))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
    return _drawn(figure)


def _drawn(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return inline(buffer.getvalue(), "image/png")


def _png(codes: NDArray[np.uint8]) -> str:
    image = Image.fromarray(np.ascontiguousarray(codes))
    image.thumbnail((_MOST_PX, _MOST_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return inline(buffer.getvalue(), "image/png")
