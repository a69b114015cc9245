"""The notebook view of a stimulus set."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stimuli import _thumbnails

THUMBNAILS = 8
_SIDE_PX = 192
_FIGURE = "display:inline-block;vertical-align:top;width:96px;margin:2px 6px 2px 0"
_IMAGE = "display:block;width:96px;height:auto;background:#808080"
_CAPTION = "display:block;font-size:10px;line-height:1.3;overflow-wrap:anywhere"


def render(title: str, ids: Sequence[str], codes: Sequence[NDArray[np.uint8]], head: pd.DataFrame, more: int) -> str:
    """Render a title, a strip of thumbnails and the head of the table; all text is escaped."""
    pictures = []
    for name, image in zip(ids, codes, strict=True):
        label = html.escape(name, quote=True)
        source = _thumbnails.data_uri(image, _SIDE_PX)
        pictures.append(
            f'<span style="{_FIGURE}"><img src="{source}" alt="{label}" title="{label}" style="{_IMAGE}">'
            f'<small style="{_CAPTION}">{label}</small></span>'
        )
    rest = f"<div>and {more:,} more</div>" if more else ""
    table = head.to_html(escape=True, index=False, border=0, float_format=lambda value: f"{value:.4g}")
    return (
        f"<div><strong>{html.escape(title)}</strong><div>{''.join(pictures)}</div>{rest}"
        f'<div style="overflow-x:auto">{table}</div></div>'
    )
