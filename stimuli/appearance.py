"""Pixel codes: from floating-point images to 8 bits and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROUNDING = 0.5 / 255.0  # an excursion of less than half a code from [0, 1] is rounding, more is clipped or a mistake


def beyond_range(values: ArrayLike) -> NDArray[np.bool_]:
    """
    Say which values 8-bit codes cannot hold, so that they are clipped: those half a code or more outside [0, 1].

    Parameters
    ----------
    values : array of float
        Values of images, nominally in [0, 1].

    Returns
    -------
    array of bool
        Whether each is clipped; False for what only rounding moves back into the range.

    Examples
    --------
    >>> beyond_range([-0.01, -1e-9, 0.5, 1.001, 1.01]).tolist()
    [True, False, False, False, True]
    """
    array = np.asarray(values)
    return np.asarray((array < -ROUNDING) | (array > 1.0 + ROUNDING))


def quantize(images: ArrayLike) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """
    Round images to 8-bit codes and report what had to be clipped.

    The code is ``floor(255 * x + 0.5)`` clipped to 0 … 255, so that the gray 0.5 is always the code 128 (rounding half
    to even or truncation would differ between programs).

    Parameters
    ----------
    images : array of float, shape (n, c, h, w)
        Images, nominally in [0, 1].

    Returns
    -------
    codes : array of uint8, shape (n, c, h, w)
        The 8-bit pixel codes.
    clipped_fraction : array of float, shape (n,)
        Fraction of the values of each image that lay outside [0, 1] by more than rounding, see `beyond_range`.

    Raises
    ------
    TypeError
        If the images are not floating point.
    ValueError
        If the array is not 4-D or holds NaN or infinity.

    Examples
    --------
    >>> import numpy as np
    >>> codes, clipped = quantize(np.full((1, 1, 2, 2), 0.5))
    >>> int(codes[0, 0, 0, 0]), float(clipped[0])
    (128, 0.0)
    """
    array = np.asarray(images)
    if not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"quantize got images of type {array.dtype}: give floating-point images in [0, 1].")
    if array.ndim != 4:
        raise ValueError(f"quantize got images of shape {array.shape}: give (image, channel, height, width).")
    codes = np.empty(array.shape, dtype=np.uint8)
    clipped = np.zeros(len(array), dtype=np.float64)
    for i, image in enumerate(array):  # image by image: float64 copies of a whole set would be large
        if not np.isfinite(image).all():
            raise ValueError(f"Image {i} of {len(array)} holds NaN or infinity: give finite values in [0, 1].")
        x = image.astype(np.float64)
        codes[i] = np.clip(np.floor(255.0 * x + 0.5), 0, 255)
        clipped[i] = np.mean(beyond_range(x)) if x.size else 0.0
    return codes, clipped


def to_float(codes: ArrayLike) -> NDArray[np.float32]:
    """
    Turn 8-bit codes into float32 images, ``x = code / 255``.

    Parameters
    ----------
    codes : array of uint8
        Pixel codes of any shape.

    Returns
    -------
    array of float32
        Values in [0, 1], same shape.

    Raises
    ------
    TypeError
        If the codes are not uint8.

    Examples
    --------
    >>> import numpy as np
    >>> to_float(np.array([0, 255], dtype=np.uint8)).tolist()
    [0.0, 1.0]
    """
    array = np.asarray(codes)
    if array.dtype != np.uint8:
        raise TypeError(f"to_float got codes of type {array.dtype}: give uint8 codes.")
    return array.astype(np.float32) / np.float32(255.0)


def to_gray(codes: ArrayLike) -> NDArray[np.uint8]:
    """
    Turn RGB codes into their luma (ITU-R BT.601), ``0.299 R + 0.587 G + 0.114 B``, as pillow's mode L does.

    Parameters
    ----------
    codes : array of uint8, shape (..., c, h, w)
        Pixel codes; one channel stays as it is.

    Returns
    -------
    array of uint8, shape (..., 1, h, w)
        The luma, rounded.

    Raises
    ------
    TypeError
        If the codes are not uint8.
    ValueError
        If there are not 1 or 3 channels.

    Examples
    --------
    >>> import numpy as np
    >>> to_gray(np.array([255, 0, 0], np.uint8).reshape(3, 1, 1)).item()
    76
    """
    array = np.asarray(codes)
    if array.dtype != np.uint8:
        raise TypeError(f"to_gray got codes of type {array.dtype}: give uint8 codes.")
    if array.ndim < 3 or array.shape[-3] not in (1, 3):
        raise ValueError(
            f"to_gray got codes of shape {array.shape}: give (..., channel, height, width), 1 or 3 channels."
        )
    if array.shape[-3] == 1:
        return array
    weights = np.array([19595, 38470, 7471], np.uint32)  # 16-bit fractions that sum to 1, so that gray stays gray
    luma = (array.astype(np.uint32) * weights[:, None, None]).sum(axis=-3, keepdims=True)
    return ((luma + 0x8000) >> 16).astype(np.uint8)
