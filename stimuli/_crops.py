"""Multi-scale square crops of photographs."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from stimuli.provenance import sha256_bytes
from stimuli.ranges import checked_seed

MIN_CONTRAST = 0.05  # standard deviation of the luma in [0, 1]
MIN_SIDE_PX = 64
_MODES = {1: "L", 3: "RGB"}
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as pillow's conversion to mode L


@dataclass
class Source:
    """A photograph on disk and the state of its drawing."""

    name: str
    path: Path
    size_px: tuple[int, int]  # width, height
    rng: np.random.Generator
    exhausted: bool = False
    windows: set[tuple[int, int, int, bool]] = field(default_factory=set)

    @property
    def short_side(self) -> int:
        """The shorter side in pixels."""
        return min(self.size_px)


def open_photo(path: str | os.PathLike[str], mode: str | None) -> Image.Image:
    """Read an image upright in the mode given (None: only check that it can be read)."""
    try:
        with Image.open(path) as opened:
            deep = opened.mode == "I" and opened.format != "PNG"  # PNG has no more than 16 bits, TIFF may have 32
            image = ImageOps.exif_transpose(opened)
            image.load()
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        raise ValueError(f"{path} cannot be read as an image: repair or remove the file.") from None
    if mode is None:
        return image
    if deep or image.mode == "F":
        raise ValueError(
            f"{path} holds {'32-bit or signed whole numbers' if deep else 'floating-point numbers'} without a known "
            "range: save it with 8 or 16 bits."
        )
    if image.mode.startswith("I"):  # 16 bits; pillow's own conversion would clip instead of scaling
        scaled = np.clip(np.asarray(image, dtype=np.float64) / 257.0 + 0.5, 0, 255)
        image = Image.fromarray(scaled.astype(np.uint8))
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, (128, 128, 128, 255))
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    return image.convert("RGB").convert(mode) if image.mode not in ("L", "RGB") else image.convert(mode)


def shares(areas: Sequence[float], n: int) -> list[int]:
    """Split n in proportion to the square roots of areas, none below half an equal share (largest remainders)."""
    weights = np.sqrt(np.asarray(areas, dtype=np.float64))
    weights = np.maximum(weights / weights.sum(), 0.5 / len(weights))
    exact = n * weights / weights.sum()
    counts = np.floor(exact).astype(int)
    order = np.argsort(-(exact - counts), kind="stable")
    counts[order[: n - counts.sum()]] += 1
    return [int(count) for count in counts]


def draw(
    photographs: Sequence[tuple[str, Path]], n: int, size_px: int, channels: int, seed: int
) -> tuple[NDArray[np.uint8], dict[str, list[Any]]]:
    """Draw n distinct crops and the columns that describe them, in random order."""
    for name, value in (("n", n), ("size_px", size_px)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name} is {value!r}: give a positive whole number.")
    if channels not in _MODES:
        raise ValueError(f"channels is {channels!r}: give 1 (gray) or 3 (RGB).")
    seed = checked_seed(seed)
    lowest = max(math.ceil(0.75 * size_px), MIN_SIDE_PX)
    sources = _sources(photographs, lowest, size_px, seed)
    crops: list[NDArray[np.uint8]] = []
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    while len(crops) < n:
        active = [source for source in sources if not source.exhausted]
        if not active:
            raise ValueError(
                f"Only {len(crops)} of {n} crops could be drawn that are distinct and not nearly uniform: ask for "
                "fewer or give more photographs."
            )
        quotas = shares([source.size_px[0] * source.size_px[1] for source in active], n - len(crops))
        for source, quota in zip(active, quotas, strict=True):
            if quota:
                _draw_from(source, quota, lowest, size_px, channels, seen, crops, rows)
    # Shuffled, so that the first k of a set are not all of one photograph.
    order = np.random.default_rng([seed, len(sources)]).permutation(n)
    columns = {key: [rows[i][key] for i in order] for key in rows[0]}
    return np.stack([crops[i] for i in order]), columns


def _sources(photographs: Sequence[tuple[str, Path]], lowest: int, size_px: int, seed: int) -> list[Source]:
    sources = []
    for i, (name, path) in enumerate(photographs):
        source = Source(name, path, open_photo(path, None).size, np.random.default_rng([seed, i]))
        if source.short_side < lowest:
            raise ValueError(
                f"The photograph {name} is {source.size_px[0]} x {source.size_px[1]} px, too small for crops of "
                f"{size_px} px, which need a short side of {lowest} px: choose a smaller size_px or remove it."
            )
        sources.append(source)
    return sources


def _draw_from(
    source: Source,
    quota: int,
    lowest: int,
    size_px: int,
    channels: int,
    seen: set[str],
    crops: list[NDArray[np.uint8]],
    rows: list[dict[str, Any]],
) -> None:
    """Add up to `quota` crops of one photograph; mark it exhausted if it cannot give them."""
    image = open_photo(source.path, _MODES[channels])
    found = 0
    for _ in range(60 + 20 * quota):
        window = _window(source, lowest)
        if window in source.windows:
            continue
        source.windows.add(window)
        codes = _crop(image, window, size_px)
        digest = sha256_bytes(codes.tobytes())
        if digest in seen or _luma_contrast(codes) < MIN_CONTRAST:
            continue
        seen.add(digest)
        crops.append(codes)
        x, y, side, mirrored = window
        rows.append(
            {
                "photograph": source.name,
                "family": "natural",
                "crop_x_px": x,
                "crop_y_px": y,
                "crop_side_px": side,
                "mirrored": mirrored,
            }
        )
        found += 1
        if found == quota:
            return
    source.exhausted = True


def _window(source: Source, lowest: int) -> tuple[int, int, int, bool]:
    rng = source.rng
    width, height = source.size_px
    side = round(math.exp(rng.uniform(math.log(lowest), math.log(source.short_side))))
    side = min(max(side, lowest), source.short_side)
    return int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1)), side, bool(rng.integers(2))


def _crop(image: Image.Image, window: tuple[int, int, int, bool], size_px: int) -> NDArray[np.uint8]:
    x, y, side, mirrored = window
    box = (x, y, x + side, y + side)
    pixels = np.asarray(image.resize((size_px, size_px), Image.Resampling.LANCZOS, box=box))
    if mirrored:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def _luma_contrast(codes: NDArray[np.uint8]) -> float:
    """Give the standard deviation of the luma of codes (c, h, w) on the scale [0, 1]."""
    luma = codes[0] if codes.shape[0] == 1 else np.tensordot(_LUMA, codes, axes=1)
    return float(np.std(luma) / 255.0)
