"""The notebook view of a stimulus set."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stimuli import png

THUMBNAILS = 8
_STYLE = "image-rendering:auto;width:96px;height:auto;margin:2px"


def render(title: str, ids: Sequence[str], codes: Sequence[NDArray[np.uint8]], head: pd.DataFrame, more: int) -> str:
    """Render a title, a strip of thumbnails and the head of the table; all text is escaped."""
    pictures = []
    for name, image in zip(ids, codes, strict=True):
        data = base64.b64encode(png.encode(_shrink(image))).decode("ascii")
        label = html.escape(name, quote=True)
        pictures.append(f'<img src="data:image/png;base64,{data}" alt="{label}" title="{label}" style="{_STYLE}">')
    rest = f"<div>and {more} more</div>" if more else ""
    table = head.to_html(escape=True, index=False, border=0)
    return f"<div><strong>{html.escape(title)}</strong><div>{''.join(pictures)}</div>{rest}{table}</div>"


def _shrink(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # Every k-th pixel keeps notebooks small; the strip is for recognition, not for measurement.
    step = max(1, -(-max(codes.shape[1:]) // 192))
    return np.ascontiguousarray(codes[:, ::step, ::step])
