"""Pictures of the control report as data URIs: large enough to see, small enough that the page stays one file.

In: stimulus sets and ids. Out: a mapping to data URIs, and words about what was done to the pixels.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from stimuli import StimulusSet

SHOWN_CSS_PX = 160  # the page shows every picture at least this wide
_BYTES = 3_600_000  # of base64 text; the rest of the page comes on top
#: largest side in pixels and JPEG quality (None: PNG, every pixel as it is); the first that fits is taken
_WAYS = (
    *((side, None) for side in (384, 256, 192, SHOWN_CSS_PX)),
    *((256, 90), (192, 90), (SHOWN_CSS_PX, 80), (SHOWN_CSS_PX, 60)),
)


@dataclass(frozen=True)
class Pictures:
    """Encoded pictures by role and id, and a sentence about their encoding (empty: every pixel as it was shown)."""

    sources: dict[tuple[str, str], str]
    note: str


def encode(wanted: Sequence[tuple[str, StimulusSet, str]]) -> Pictures:
    """Encode every picture once, all in the best way in which the page stays small; none is enlarged."""
    unique = {(role, name): source for role, source, name in wanted}
    largest = max((max(source.size_px) for source in unique.values()), default=0)
    ways = list(dict.fromkeys((min(side, largest), quality) for side, quality in _WAYS))
    for side, quality in ways:
        found: dict[tuple[str, str], str] = {}
        total = 0
        for (role, name), source in unique.items():
            found[role, name] = _picture(source, name, side, quality)
            total += len(found[role, name])
            if total > _BYTES and (side, quality) != ways[-1]:
                break
        else:
            break
    return Pictures(found, _note(side, quality, largest))


def _note(side: int, quality: int | None, largest: int) -> str:
    reduced = f"reduced to {side} px at most" if side < largest else ""
    packed = "compressed as JPEG" if quality is not None else ""
    done = " and ".join(filter(None, (reduced, packed)))
    return f"For this page the pictures were {done}; the files of the set are exact." if done else ""


def _picture(source: StimulusSet, name: str, side: int, quality: int | None) -> str:
    codes = source.codes([name])[0]
    image = Image.fromarray(codes[0] if len(codes) == 1 else codes.transpose(1, 2, 0).copy())
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if quality is None:
        image.save(buffer, format="PNG")
    else:
        image.save(buffer, format="JPEG", quality=quality)
    return inline(buffer.getvalue(), "image/png" if quality is None else "image/jpeg")


def inline(data: bytes, kind: str) -> str:
    """Return bytes as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
