"""Shifts and affine warps of each image by its own numbers, with gradients that are the same at every run on a GPU.

In: images and one shift or one 2 x 3 matrix per image. Used by `transforms`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class _Roll(torch.autograd.Function):
    """Circular shift by whole pixels. The gradient is the opposite shift, so nothing is accumulated."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, down: Tensor, right: Tensor, reach: int) -> Tensor:
        ctx.save_for_backward(down, right)
        ctx.reach = reach
        count, channels, height, width = images.shape
        if reach > width:
            right, reach = right % width, width
        repeated = torch.cat([images[..., width - reach :], images, images[..., :reach]], -1).reshape(-1)
        rows = (torch.arange(height, device=images.device) - down[:, None]) % height
        first = torch.arange(count * channels, device=images.device).view(count, channels, 1) * height + rows[:, None]
        starts = first * (width + 2 * reach) + (reach - right)[:, None, None]
        # row k of this view is the image row that begins at element k, so whole rows are copied
        windows = repeated.as_strided((len(repeated) - width + 1, width), (1, 1))
        return windows.index_select(0, starts.view(-1)).view(images.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        down, right = ctx.saved_tensors
        return _Roll.apply(gradient, -down, -right, ctx.reach), None, None, None


def roll(images: Tensor, down: Tensor, right: Tensor, reach: int) -> Tensor:
    """Return images shifted circularly, each by its own number of pixels.

    Parameters
    ----------
    images : Tensor, (image, channel, height, width)
        Images.
    down, right : Tensor, (image,)
        Shifts in pixels, int64.
    reach : int
        Largest shift to either side, so that the shifts need not be read from the device.

    Returns
    -------
    Tensor, (image, channel, height, width)
        Shifted images.
    """
    shifted: Tensor = _Roll.apply(images, down, right, reach)
    return shifted


def warp(images: Tensor, matrix: Tensor, shift_px: Tensor, border: str) -> Tensor:
    """Return images resampled bilinearly: pixel p comes from ``matrix @ p + shift``, p measured from the middle.

    Parameters
    ----------
    images : Tensor, (image, channel, height, width)
        Images.
    matrix : Tensor, (image, 2, 2)
        From (right, down) of the new image to that of the old, in pixels.
    shift_px : Tensor, (image, 2)
        Right and down, in pixels.
    border : str
        ``"reflect"``, or ``"gray"``: 0.5 beyond the image.

    Returns
    -------
    Tensor, (image, channel, height, width)
        Warped images.
    """
    height, width = images.shape[-2:]
    right = (torch.arange(width, device=images.device, dtype=images.dtype) * 2 + (1 - width)).view(1, 1, width)
    down = (torch.arange(height, device=images.device, dtype=images.dtype) * 2 + (1 - height)).view(1, height, 1)
    grid = images.new_empty((len(images), height, width, 2))
    for axis, size in enumerate((width, height)):  # in units of half the image
        a, b = (matrix[:, axis, k].view(-1, 1, 1) / size for k in (0, 1))
        grid[..., axis] = a * right + (b * down + shift_px[:, axis].view(-1, 1, 1) * 2 / size)
    if border == "gray":
        return _sampled(images - 0.5, grid, "zeros") + 0.5
    return _sampled(images, grid, "reflection")


def _sampled(images: Tensor, grid: Tensor, padding: str) -> Tensor:
    if images.is_cuda:
        sampled: Tensor = _Sample.apply(images, grid, padding)
        return sampled
    return functional.grid_sample(images, grid, padding_mode=padding, align_corners=False)


class _Sample(torch.autograd.Function):
    """Bilinear `grid_sample` whose gradient adds whole numbers, of which the order on a GPU does not matter.

    Gradients become multiples of 2^-40 of the power of two above the largest of the image.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor, padding: str) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.padding, ctx.shape = padding, images.shape
        return functional.grid_sample(images, grid, padding_mode=padding, align_corners=False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        count, channels, height, width = ctx.shape
        largest = gradient.abs().amax((1, 2, 3), keepdim=True)
        _, exponent = torch.frexp(largest)
        scaled = torch.ldexp(gradient, 40 - exponent)
        x, y = (_source(grid[..., axis], size, ctx.padding) for axis, size in ((0, width), (1, height)))
        left, top = x.floor(), y.floor()
        planes = torch.arange(count * channels, device=gradient.device).view(count, channels, 1, 1) * (height * width)
        total = torch.zeros(count * channels * height * width, dtype=torch.int64, device=gradient.device)
        for column in (left, left + 1):
            for row in (top, top + 1):
                inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
                weight = (1 - (x - column).abs()) * (1 - (y - row).abs()) * inside
                pixel = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
                parts = (scaled * weight[:, None]).round().long()
                total.scatter_add_(0, (planes + pixel[:, None]).reshape(-1), parts.reshape(-1))
        result = torch.ldexp(total.view(ctx.shape).to(gradient.dtype), exponent - 40)
        return torch.where(largest.isfinite(), result, torch.nan), None, None


def _source(position: Tensor, size: int, padding: str) -> Tensor:
    """Return the pixel coordinate that `grid_sample` reads for a grid coordinate."""
    pixel = ((position + 1) * size - 1) / 2
    if padding == "zeros":
        return pixel
    distance = (pixel + 0.5).abs()
    extra = distance % size
    odd = (distance / size).floor() % 2 == 1
    return torch.where(odd, size - extra - 0.5, extra - 0.5).clamp(0, size - 1)


def check_border(border: str) -> None:
    if border not in ("reflect", "gray"):
        raise ValueError(f"border is {border!r}; expected 'reflect' or 'gray'")


def rotation(angle: Tensor, zoom: Tensor) -> Tensor:
    """Return the matrices (image, 2, 2) from the pixels of a view to those of the image."""
    cosine, sine = angle.cos() / zoom, angle.sin() / zoom
    return torch.stack([cosine, -sine, sine, cosine], 1).view(-1, 2, 2)
