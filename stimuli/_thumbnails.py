"""Small pictures of images, for pages, notebooks and contact sheets: to recognize an image by, not to measure it."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def picture(codes: NDArray[np.uint8], side_px: int) -> Image.Image:
    """Turn codes (c, h, w) into a picture whose longer side is at most `side_px`, antialiased; none is enlarged."""
    image = Image.fromarray(codes[0] if len(codes) == 1 else np.ascontiguousarray(codes.transpose(1, 2, 0)))
    if max(image.size) > side_px:
        scale = side_px / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    return image


def data_uri(codes: NDArray[np.uint8], side_px: int, most_bytes: int | None = None) -> str:
    """Encode a small picture as a data URI: PNG, or if that takes more than `most_bytes`, the best JPEG that fits."""
    image = picture(codes, side_px)
    data, kind = _encoded(image, None), "png"
    while most_bytes is not None and len(data) > most_bytes:
        kind = "jpeg"
        for quality in (90, 75, 55):
            data = _encoded(image, quality)
            if len(data) <= most_bytes:
                break
        else:
            if max(image.size) <= 16:
                break
            image = image.resize((max(1, image.width * 3 // 4), max(1, image.height * 3 // 4)), Image.Resampling.BOX)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _encoded(image: Image.Image, quality: int | None) -> bytes:
    buffer = io.BytesIO()
    if quality is None:
        image.save(buffer, format="PNG")
    else:
        image.save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()
