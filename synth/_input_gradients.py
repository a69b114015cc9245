"""oneDNN convolutions on a CPU and their gradients with respect to the input, each in the fastest way measured.

In: tensors, channels last. Out: tensors in memory of their own. Used by `_fused`. Each image is treated by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

#: what oneDNN calls an activation, and its parameters
ACTIVATIONS: dict[str, tuple[str, list[float]]] = {
    "": ("none", []),
    "relu": ("relu", []),
    "relu6": ("hardtanh", [0.0, 6.0]),
}
_LAST = torch.channels_last
#: input channels up to which the gradient of a strided convolution is computed as a convolution of stride 1
_FEW_CHANNELS = 4


def onednn_takes(weight: Tensor) -> bool:
    """Return whether oneDNN convolves with such weights here.

    Parameters
    ----------
    weight : Tensor
        Weights of a convolution.

    Returns
    -------
    bool
        True on a CPU in float32, or in bfloat16 where the processor has it.
    """
    if not weight.is_cpu or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32


def onednn(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: list[int],
    stride: list[int] | None = None,
    dilation: list[int] | None = None,
    groups: int = 1,
    activation: str = "",
) -> Tensor:
    """Return activation(weight * inputs + bias), written once.

    Parameters
    ----------
    inputs : Tensor, (image, channel, height, width)
        Maps.
    weight : Tensor, (out, in / groups, height, width)
        Weights.
    bias : Tensor, (out,), or None
        Bias.
    padding, stride, dilation : list of int
        Along height and width.
    groups : int
        Groups of channels.
    activation : str
        A key of `ACTIVATIONS`.

    Returns
    -------
    Tensor, (image, out, height, width)
        Maps.
    """
    name, numbers = ACTIVATIONS[activation]
    settings = (padding, stride or [1, 1], dilation or [1, 1], groups, name, numbers, "")
    return cast(Tensor, torch.ops.mkldnn._convolution_pointwise(inputs, weight, bias, *settings))


def mask(gradient: Tensor, outputs: Tensor, activation: str, *, own: bool = False) -> Tensor:
    """Return the gradient where the activation let its input through, 0 elsewhere.

    Parameters
    ----------
    gradient : Tensor
        With respect to the outputs.
    outputs : Tensor
        Of the activation.
    activation : str
        ``"relu"`` or ``"relu6"``.
    own : bool
        The gradient is nobody else's and may be overwritten.

    Returns
    -------
    Tensor
        With respect to the inputs of the activation.
    """
    aten = torch.ops.aten
    operation = aten.threshold_backward if activation == "relu" else aten.hardtanh_backward
    bounds = (0,) if activation == "relu" else (0, 6)
    if own and gradient.dtype == torch.float32:  # in place is faster in float32, slower in bfloat16
        return cast(Tensor, operation.grad_input(gradient, outputs, *bounds, grad_input=gradient))
    return cast(Tensor, operation(gradient, outputs, *bounds))


def input_gradient(
    gradient: Tensor,
    inputs: Tensor,
    weight: Tensor,
    settings: tuple[list[int], list[int], list[int], int],
    made: Callable[[object, Callable[[], Any]], Any],
) -> Tensor:
    """Return the gradient of a convolution with respect to its inputs.

    Parameters
    ----------
    gradient : Tensor, (image, out, height, width)
        With respect to the outputs.
    inputs : Tensor, (image, in, height, width)
        The inputs; only their shape counts.
    weight : Tensor, (out, in / groups, height, width)
        Weights.
    settings : tuple
        Padding, stride, dilation (along height and width) and groups.
    made : callable
        Returns what its second argument computes from the weights, computed once per first argument.

    Returns
    -------
    Tensor, (image, in, height, width)
        Gradient.
    """
    padding, stride, dilation, groups = settings
    rows, columns = weight.shape[-2:]
    channels = inputs.shape[1]
    depthwise = groups == channels == weight.shape[0] and groups > 1
    dense = dilation == [1, 1] and stride == [1, 1] and rows > padding[0] and columns > padding[1]
    if dense and (depthwise or groups == rows == columns == 1):  # other kernels gain nothing
        turned = made(("turned", rows, columns), lambda: _turned(weight, depthwise))
        return onednn(gradient, turned, None, [rows - 1 - padding[0], columns - 1 - padding[1]], groups=groups)
    fits = dilation == [1, 1] and rows > 2 * padding[0] and columns > 2 * padding[1]
    if fits and depthwise and weight.dtype == torch.bfloat16:
        turned = made(("turned", rows, columns), lambda: _turned(weight, depthwise))
        return _spread(gradient, inputs, turned, padding, stride)
    even = inputs.shape[-2] == 2 * gradient.shape[-2] and inputs.shape[-1] == 2 * gradient.shape[-1]
    if even and stride == [2, 2] and dilation == [1, 1] and groups == 1 and channels <= _FEW_CHANNELS:
        return _from_phases(gradient, *made(("phases", rows, columns, *padding), lambda: _phases(weight, padding)))
    others = (None, stride, padding, dilation, False, [0, 0], groups, (True, False, False))
    return cast(Tensor, torch.ops.aten.convolution_backward(gradient, inputs, weight, *others)[0])


def _turned(weight: Tensor, depthwise: bool) -> Tensor:
    weight = weight if depthwise else weight.transpose(0, 1)
    return weight.flip(2, 3).contiguous(memory_format=_LAST)


def _spread(gradient: Tensor, inputs: Tensor, turned: Tensor, padding: list[int], stride: list[int]) -> Tensor:
    """Return the gradient of a strided depthwise convolution; PyTorch's own takes 10 times as long in bfloat16."""
    images, channels, height, width = inputs.shape
    more = [k - 1 - 2 * p for k, p in zip(turned.shape[-2:], padding, strict=True)]
    apart = turned.new_zeros(images, height + more[0], width + more[1], channels).permute(0, 3, 1, 2)
    places = apart[:, :, more[0] :: stride[0], more[1] :: stride[1]]
    places[:, :, : gradient.shape[2], : gradient.shape[3]] = gradient
    return onednn(apart, turned, None, padding, groups=channels)


def _phases(weight: Tensor, padding: list[int]) -> tuple[Tensor, list[int], list[int]]:
    """Return the kernel that computes an input gradient at stride 2 as one convolution of stride 1.

    Pixel 2 q + r takes from output position i the weight k = r + padding - 2 (i - q), so each of the four r has its own
    kernel over i - q. Also returned: its padding, and the position at which q = 0.
    """
    low = [-((k - 1 - p) // 2) for k, p in zip(weight.shape[-2:], padding, strict=True)]
    high = [(1 + p) // 2 for p in padding]
    taps = [last - first + 1 for first, last in zip(low, high, strict=True)]
    kernel = weight.new_zeros(2, 2, weight.shape[1], weight.shape[0], *taps)
    for r_row in (0, 1):
        for r_column in (0, 1):
            for i in range(taps[0]):
                for j in range(taps[1]):
                    row = r_row + padding[0] - 2 * (i + low[0])
                    column = r_column + padding[1] - 2 * (j + low[1])
                    if 0 <= row < weight.shape[2] and 0 <= column < weight.shape[3]:
                        kernel[r_row, r_column, :, :, i, j] = weight[:, :, row, column].t()
    pad = [max(-first, last) for first, last in zip(low, high, strict=True)]
    start = [p + first for p, first in zip(pad, low, strict=True)]
    return kernel.flatten(0, 2).contiguous(memory_format=_LAST), pad, start


def _from_phases(gradient: Tensor, kernel: Tensor, pad: list[int], start: list[int]) -> Tensor:
    height, width = gradient.shape[-2:]
    phases = onednn(gradient, kernel, None, pad)
    phases = phases[:, :, start[0] : start[0] + height, start[1] : start[1] + width].permute(0, 2, 3, 1)
    split = phases.unflatten(3, (2, 2, -1)).transpose(2, 3)  # image, row, r, column, r, channel
    return split.reshape(len(gradient), 2 * height, 2 * width, -1).permute(0, 3, 1, 2)
