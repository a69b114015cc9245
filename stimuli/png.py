"""8-bit PNG files: encode without metadata, read back with every check."""

from __future__ import annotations

import io
import os
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MODES = {1: "L", 3: "RGB"}
_LEVEL = 3  # of zlib: photographs take 1 % more room than at pillow's 6, and less than half of the time
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def encode(codes: NDArray[np.uint8]) -> bytes:
    """
    Encode codes as a PNG of mode L or RGB, without gamma, profile or time chunks.

    Parameters
    ----------
    codes : array of uint8, shape (c, h, w)
        Pixel codes; c is 1 or 3.

    Returns
    -------
    bytes
        The file; equal codes give equal bytes with the same libraries.

    Examples
    --------
    >>> encode(np.zeros((1, 2, 2), np.uint8))[1:4]
    b'PNG'
    """
    pixels = codes[0] if codes.shape[0] == 1 else np.ascontiguousarray(codes.transpose(1, 2, 0))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=_LEVEL)
    return buffer.getvalue()


def header_problem(path: str | os.PathLike[str], shape: tuple[int, int, int]) -> str | None:
    """
    Say what is wrong with the size or mode of a PNG, or None.

    Parameters
    ----------
    path : path
        The file.
    shape : tuple of int
        Channels, height and width expected.

    Returns
    -------
    str or None
        The end of a sentence about the file.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return _mismatch(image, shape)
    except UNREADABLE:
        return "is not a readable PNG"


def _mismatch(image: Image.Image, shape: tuple[int, int, int]) -> str | None:
    channels, height, width = shape
    if image.size != (width, height):
        return f"is {image.size[1]} x {image.size[0]} px (height x width) where the set has {height} x {width}"
    if image.mode != MODES[channels]:
        return f"has the mode {image.mode} where the set has {MODES[channels]}"
    return None


def read(path: str | os.PathLike[str], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """
    Read a PNG as codes.

    Parameters
    ----------
    path : path
        The file.
    shape : tuple of int
        Channels, height and width expected.

    Returns
    -------
    array of uint8, shape (c, h, w)
        Pixel codes.

    Raises
    ------
    ValueError
        If the file is missing, truncated, no PNG, or of another size or mode.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            problem = _mismatch(image, shape)
            pixels = np.array(image, dtype=np.uint8) if problem is None else np.empty(0, np.uint8)
    except FileNotFoundError:
        raise ValueError(f"The image {path} is missing: restore the file or load the set again.") from None
    except UNREADABLE:
        raise ValueError(f"The image {path} is truncated or not a PNG: restore it from the original set.") from None
    if problem is not None:
        raise ValueError(f"The image {path} {problem}: restore it from the original set.")
    return pixels[np.newaxis] if shape[0] == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
