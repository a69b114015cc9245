"""Whether images have the size, in pixels and degrees, that a model was fitted on."""

from __future__ import annotations

import math

from stimuli import StimulusSet

_SAME = 0.01  # sizes that fit the pixels of a screen differ from round ones by less, see Display.resampling


def same_size_deg(a: float, b: float) -> bool:
    """Say whether two widths in degrees are one for a model: within 1 %, what rounding to whole pixels may change.

    Parameters
    ----------
    a, b : float
        Widths in degrees of visual angle.

    Returns
    -------
    bool
        Whether they are the same.

    Examples
    --------
    >>> same_size_deg(8.0, 8.0413), same_size_deg(8.0, 2.0)
    (True, False)
    """
    return math.isclose(a, b, rel_tol=_SAME)


def require_size_px(given: tuple[int, int], fitted: tuple[int, int]) -> None:
    """Refuse images of other pixels than a model was fitted on.

    Parameters
    ----------
    given, fitted : tuple of int
        Height and width in pixels of the images, and of those that the model was fitted on.

    Raises
    ------
    ValueError
        When they differ.

    Examples
    --------
    >>> require_size_px((64, 64), (64, 64))
    """
    if given != fitted:
        raise ValueError(
            f"images are {given[0]} x {given[1]} px, the model was fitted on {fitted[0]} x {fitted[1]} px; resize them"
        )


def require_image_size(stimuli: StimulusSet, size_px: tuple[int, int], size_deg: float) -> None:
    """Refuse images of another size than a model was fitted on.

    Parameters
    ----------
    stimuli : StimulusSet
        The images.
    size_px : tuple of int
        Height and width in pixels that the model was fitted on.
    size_deg : float
        Width in degrees of visual angle that it was fitted on.

    Raises
    ------
    ValueError
        When a size differs; widths in degrees by more than 1 %.

    Examples
    --------
    >>> import numpy as np
    >>> require_image_size(StimulusSet.from_arrays(np.zeros((1, 1, 4, 4)), size_deg=8.0), (4, 4), 8.0)
    """
    require_size_px(stimuli.size_px, size_px)
    if not same_size_deg(stimuli.size_deg, size_deg):
        raise ValueError(
            f"the images of {stimuli.name!r} are {stimuli.size_deg:g} deg wide, the model was fitted on images of "
            f"{size_deg:g} deg, so its predictions would be of something else; give images or a model of one size, or "
            f"stimuli.on_screen(size_deg={size_deg:g}) where that is the size at which they are shown"
        )
