"""Convolution, bias and activation as one operation, with a gradient to the image alone.

In: a frozen convolution or pooling and the activation next to it. Out: a module with the same output. Used by `fold`.

On a CPU it saves passes over memory: the bias and the activation are applied while the output is written; the mask of
an activation is applied in place, by the consumer of its output, to a gradient that nobody else holds; an asymmetric
("same") padding is a row of zeros in the kernel instead of a padded copy of the map. Input
gradients that PyTorch computes slowly are computed in other ways, see `_input_gradients`.
Elsewhere, and in float64, it runs the ordinary operations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from synth._input_gradients import input_gradient, mask, onednn, onednn_takes

_LAST = torch.channels_last
#: attribute of an activated output: the same values for a consumer that masks its own gradient, kind, version
_MARK = "_activated"


def activation_of(module: nn.Module) -> str:
    """Return which activation a module is: ``"relu"``, ``"relu6"``, or empty when it is none of them.

    Parameters
    ----------
    module : nn.Module
        Any module.

    Returns
    -------
    str
        ``"relu"``, ``"relu6"`` or ``""``.
    """
    if type(module) is nn.ReLU:
        return "relu"
    if type(module) in (nn.ReLU6, nn.Hardtanh) and (module.min_val, module.max_val) == (0.0, 6.0):
        return "relu6"
    return ""


class FusedConv(nn.Module):
    """A frozen convolution with the activation that follows it.

    Parameters
    ----------
    conv : nn.Conv2d
        Where stride, padding, dilation and groups come from; timm's ``Conv2dSame`` too.
    weight : Tensor, (out, in / groups, height, width)
        Weights, batch norm included.
    bias : Tensor, (out,)
        Bias.
    activation : str
        As `activation_of` returns it.
    """

    def __init__(self, conv: nn.Conv2d, weight: Tensor, bias: Tensor, activation: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().contiguous(memory_format=_LAST), requires_grad=False)
        self.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.stride, self.dilation, self.groups = list(conv.stride), list(conv.dilation), conv.groups
        self.same, self.activation = is_same(conv), activation
        self.padding = [0, 0] if self.same else [int(each) for each in conv.padding]
        self._made: dict[object, Any] = {}

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> FusedConv:
        self._made = {}  # the weights go to another device or type
        return cast("FusedConv", super()._apply(fn, recurse))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the output, activated where oneDNN does it; a `SkippedActivation` follows.

        Parameters
        ----------
        inputs : Tensor, (image, channel, height, width)
            Maps.

        Returns
        -------
        Tensor, (image, channel, height, width)
            Maps.
        """
        inputs = inputs if inputs.dtype == self.weight.dtype else inputs.to(self.weight.dtype)
        before, more = self._pads((inputs.shape[-2], inputs.shape[-1]))
        if not onednn_takes(self.weight):
            if any(more):
                inputs = functional.pad(inputs, (before[1], before[1] + more[1], before[0], before[0] + more[0]))
                before = [0, 0]
            # not activated: the module after it does it, in place
            return functional.conv2d(inputs, self.weight, self.bias, self.stride, before, self.dilation, self.groups)
        # One more row of zeros on top of the kernel and one more row of padding on both sides: padding below only.
        weight = self.made(("grown", *more), lambda: self._grown(more)) if any(more) else self.weight
        padding = [first + extra for first, extra in zip(before, more, strict=True)]
        source, made_by = _unmasked(inputs)
        outputs, unmasked = _Convolve.apply(source, self, weight, padding, made_by)
        return _marked(outputs, unmasked, self.activation)

    def _pads(self, size: tuple[int, int]) -> tuple[list[int], list[int]]:
        """Return the rows and columns of padding before the map, and how many more there are after it."""
        if not self.same:
            return self.padding, [0, 0]
        reach = [(k - 1) * d + 1 for k, d in zip(self.weight.shape[-2:], self.dilation, strict=True)]
        total = [
            max((-(-pixels // s) - 1) * s + r - pixels, 0)
            for pixels, s, r in zip(size, self.stride, reach, strict=True)
        ]
        return [each // 2 for each in total], [each % 2 for each in total]

    def _grown(self, more: list[int]) -> Tensor:
        by = (more[1] * self.dilation[1], 0, more[0] * self.dilation[0], 0)
        return functional.pad(self.weight, by).contiguous(memory_format=_LAST)

    def made(self, key: object, make: Callable[[], Any]) -> Any:
        """Return what is derived from the weights, computed once.

        Parameters
        ----------
        key : object
            Its name.
        make : callable
            Computes it.

        Returns
        -------
        object
            What `make` returned.
        """
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


class FusedPool(nn.Module):
    """Maximum pooling that passes an activation on: ``pool(relu(x)) = relu(pool(x))``, so a smaller map is masked.

    Parameters
    ----------
    pool : nn.MaxPool2d
        What to do.
    """

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the pooled maps.

        Parameters
        ----------
        inputs : Tensor, (image, channel, height, width)
            Maps.

        Returns
        -------
        Tensor, (image, channel, height, width)
            Maps.
        """
        source, made_by = _unmasked(inputs)
        if not made_by:
            return cast(Tensor, self.pool(inputs))
        size = (self.pool.kernel_size, self.pool.stride, self.pool.padding, self.pool.dilation)
        pairs = [[each, each] if isinstance(each, int) else list(each) for each in size]
        outputs, unmasked = _Pool.apply(source, pairs, made_by)
        return _marked(outputs, unmasked, made_by)


class PassedNorm(nn.Module):
    """What is left of a batch norm that is part of the convolution before it: timm's own activation, or nothing.

    Parameters
    ----------
    norm : nn.Module
        The batch norm.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        act = getattr(norm, "act", None)
        self.act = SkippedActivation(act) if isinstance(act, nn.Module) else nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the inputs, activated.

        Parameters
        ----------
        inputs : Tensor
            Maps.

        Returns
        -------
        Tensor
            Maps.
        """
        return cast(Tensor, self.act(inputs))


class SkippedActivation(nn.Module):
    """An activation that does nothing where the operation before it has applied it.

    Parameters
    ----------
    activation : nn.Module
        The activation.
    """

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation, self.kind = activation, activation_of(activation)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the activated inputs.

        Parameters
        ----------
        inputs : Tensor
            Maps.

        Returns
        -------
        Tensor
            Maps.
        """
        mark = getattr(inputs, _MARK, None)
        done = mark is not None and mark[1:] == (self.kind, inputs._version)
        return inputs if done else cast(Tensor, self.activation(inputs))


def is_same(conv: nn.Module) -> bool:
    """Return whether a convolution is timm's, padded so that the output has ceil(input / stride) positions.

    Parameters
    ----------
    conv : nn.Module
        The convolution.

    Returns
    -------
    bool
        True for ``Conv2dSame``.
    """
    return type(conv).__name__ == "Conv2dSame" and type(conv).__module__.startswith("timm.")


class _Convolve(torch.autograd.Function):
    """Outputs: the maps, and the same maps for a consumer that masks the gradient itself."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, layer: FusedConv, weight: Tensor, padding: list[int], made_by: str
    ) -> tuple[Tensor, Tensor | None]:
        inputs = inputs.contiguous(memory_format=_LAST)
        outputs = onednn(
            inputs, weight, layer.bias, padding, layer.stride, layer.dilation, layer.groups, layer.activation
        )
        ctx.layer, ctx.weight, ctx.padding, ctx.made_by = layer, weight, padding, made_by
        ctx.save_for_backward(inputs, outputs if layer.activation else None)
        ctx.set_materialize_grads(False)
        return outputs, outputs.detach() if layer.activation else None

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None, masked: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs, outputs = ctx.saved_tensors
        total = _joined(gradient, masked, outputs, ctx.layer.activation)
        layer = ctx.layer
        settings = (ctx.padding, layer.stride, layer.dilation, layer.groups)
        result = input_gradient(total, inputs, ctx.weight, settings, layer.made)
        if ctx.made_by:
            result = mask(result, inputs, ctx.made_by, own=True)
        return result, None, None, None, None


class _Pool(torch.autograd.Function):
    """As `_Convolve`; the mask of the activation before the pooling is applied to what comes after it."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, settings: list[list[int]], made_by: str) -> tuple[Tensor, Tensor]:
        outputs, indices = torch.ops.aten.max_pool2d_with_indices(inputs, *settings, False)
        ctx.settings, ctx.made_by = settings, made_by
        ctx.save_for_backward(inputs, outputs, indices)
        ctx.set_materialize_grads(False)
        return outputs, outputs.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None, masked: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs, outputs, indices = ctx.saved_tensors
        total = _joined(gradient, masked, outputs, ctx.made_by)
        pooled = torch.ops.aten.max_pool2d_with_indices_backward(total, inputs, *ctx.settings, False, indices)
        return pooled, None, None


def _unmasked(inputs: Tensor) -> tuple[Tensor, str]:
    """Return the inputs and which activation made them, if the gradient with respect to them is to be masked here."""
    mark = getattr(inputs, _MARK, None)
    if mark is None or mark[2] != inputs._version or not mark[0].requires_grad:
        return inputs, ""
    return mark[0], mark[1]


def _marked(outputs: Tensor, unmasked: Tensor | None, activation: str) -> Tensor:
    if unmasked is not None and not outputs.is_inference():  # such tensors have no version
        setattr(outputs, _MARK, (unmasked, activation, outputs._version))
    return outputs


def _joined(gradient: Tensor | None, masked: Tensor | None, outputs: Tensor | None, activation: str) -> Tensor:
    """Return the sum of what came masked and what has to be."""
    if gradient is not None and outputs is not None:
        gradient = mask(gradient, outputs, activation)
    total = masked if gradient is None else gradient if masked is None else gradient + masked
    return cast(Tensor, total).contiguous(memory_format=_LAST)
