"""The layers of a network after a cut, run alone on activations that were computed once.

In: a `FeatureExtractor` and the last layer that stays as it is. Out: a function from the kept activations to the
features, and its weights in stages from the top down. Works on any network: what ran before the cut is replaced by
empty results of the right shape, and one comparison with the whole network shows whether that was right. Used by
``fine_tuning`` and ``site_fine_tuning``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neural_fits.backbones import Backbone
from neural_fits.features import FeatureExtractor, for_image_batches
from stimuli import StimulusSet
from stimuli.hints import did_you_mean

#: activations kept for each image, one tensor (image, ...) a layer
Kept = tuple[Tensor, ...]
Stage = list[tuple[str, nn.Parameter]]


@dataclass
class _Call:
    """When a module ran in one pass (in steps of a clock), how often, and what it yielded last."""

    started: int
    ended: float = math.inf
    count: int = 0
    output: object = None


class TunedPart:
    """The part of an extractor after a layer.

    Parameters
    ----------
    extractor : FeatureExtractor
        Network and layers read. It is copied; the copy's weights may be changed.
    freeze : str
        The last layer that stays as it is, with everything that runs before it.
    shape : tuple of int
        Channels, height and width of the images.
    device : torch.device, optional
        Where the copy computes; where the original does by default.

    Raises
    ------
    ValueError
        When the layer does not exist, nothing that is read comes after it, or later layers also read what was computed
        before it (a cut through a skip connection).

    Examples
    --------
    >>> part = TunedPart(FeatureExtractor("efficientnet-lite0", "blocks.3"), "blocks.2", (3, 64, 64))
    >>> images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> [kept.shape for kept in part.below(images)], part(part.below(images)).shape
    ([torch.Size([2, 40, 8, 8])], torch.Size([2, 80, 4, 4]))
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        freeze: str,
        shape: tuple[int, int, int],
        device: torch.device | None = None,
    ) -> None:
        self.freeze, self._shape = freeze, shape
        self.extractor = copied(extractor).to(device or extractor.mean.device)
        network = self.extractor.network
        known = extractor.backbone.layers()
        if freeze not in known:
            raise ValueError(
                f"backbone {extractor.backbone.name!r} has no layer {freeze!r} to freeze up to; "
                f"{did_you_mean(freeze, known)}its outermost layers are: "
                f"{', '.join(each for each in known if '.' not in each)}"
            )
        generator = torch.Generator().manual_seed(0)
        device = self.extractor.mean.device
        example = torch.rand(2, *shape, generator=generator).to(device)
        self._calls, whole = _recorded(self.extractor, example)
        cut = self._calls.get(freeze)
        read = self.extractor.layers_read
        if cut is None or all(self._calls[name].ended <= cut.ended for name in read):
            raise ValueError(
                f"no layer that is read ({', '.join(read)}) comes after {freeze!r}, so nothing would be tuned; freeze "
                "up to an earlier layer"
            )
        earlier = [name for name in read if name != freeze and self._calls[name].ended < cut.ended]
        self._kept_names = [*earlier, freeze]
        self._below = FeatureExtractor(self.extractor.backbone, self._kept_names, self.extractor.input_px)
        self._empty = _stubs(network, "", self._calls, cut.ended, self._kept_names)
        for call in self._calls.values():
            call.output = None  # only those of the stubs are needed
        weights = dict(network.named_parameters())
        for weight in weights.values():
            weight.requires_grad_(True)
        again = self(self.below(example))
        if again.shape != whole.shape or not torch.allclose(
            again, whole, rtol=1e-3, atol=1e-4 * float(whole.abs().max())
        ):
            raise ValueError(
                f"layers after {freeze!r} also read what was computed before it (a skip connection); freeze up to the "
                "end of a block"
            )
        found = torch.autograd.grad(again.sum(), list(weights.values()), allow_unused=True)
        network.requires_grad_(False)
        self._tuned = [name for name, gradient in zip(weights, found, strict=True) if gradient is not None]

    def below(self, images: Tensor) -> Kept:
        """Return what is kept of images: the activations of the cut, and of layers read before it.

        Parameters
        ----------
        images : Tensor, (image, channel, height, width)
            Values in [0, 1].

        Returns
        -------
        tuple of Tensor
            Activations, images first.
        """
        with torch.no_grad():
            outputs = self._below._run(self._below.network_input(images))
        kept = tuple(outputs[name] for name in self._kept_names)
        if not all(isinstance(each, Tensor) for each in kept):
            raise ValueError(f"layer {self.freeze!r} yields no single tensor; freeze up to another layer")
        return kept  # type: ignore[return-value]

    def below_all(self, stimuli: StimulusSet, change: Callable[[Tensor], Tensor] | None = None) -> Kept:
        """Return what is kept of a stimulus set.

        Parameters
        ----------
        stimuli : StimulusSet
            The images.
        change : callable, optional
            Applied to each batch of images before.

        Returns
        -------
        tuple of Tensor
            Activations, stimuli first.
        """

        def one(_: int, images: Tensor) -> Kept:
            return self.below(images if change is None else change(images))

        parts = for_image_batches(one, stimuli, 32, self.extractor.mean.device)
        return tuple(torch.cat(same) for same in zip(*parts, strict=True))

    def __call__(self, kept: Sequence[Tensor]) -> Tensor:
        """Return the features, with gradients to the weights after the cut.

        Parameters
        ----------
        kept : sequence of Tensor
            From `below`; may be changed in place.

        Returns
        -------
        Tensor, (image, channel, height, width)
            Features, as the whole extractor gives them.
        """
        count = len(kept[0])
        answers = dict(zip(self._kept_names, kept, strict=True))
        with _replaced(self.extractor.network, self._empty, answers, count):
            return self.extractor(self.extractor.mean.new_zeros(count, *self._shape))

    def stages(self) -> list[Stage]:
        """Return the weights that can be tuned, one list a stage, from the top of the network down.

        A stage is an outermost module that begins after the cut (a block, a layer); one of vectors alone, such as a
        normalization, belongs to the stage before it.

        Returns
        -------
        list of list of (str, nn.Parameter)
            Names and weights.
        """
        weights = dict(self.extractor.network.named_parameters())
        after = self._calls[self.freeze].ended
        stages: dict[str, Stage] = {}
        for name in self._tuned:
            path = name.split(".")[:-1]
            outer = (".".join(path[:k]) for k in range(1, len(path) + 1))
            key = next((each for each in outer if each in self._calls and self._calls[each].started > after), "")
            stages.setdefault(key, []).append((name, weights[name]))
        ordered = sorted(stages.items(), key=lambda item: self._calls[item[0]].started if item[0] else -1)
        merged: list[Stage] = []
        for _, stage in ordered:
            if merged and all(weight.ndim < 2 for _, weight in stage):
                merged[-1] = merged[-1] + stage
            else:
                merged.append(stage)
        return merged[::-1]


def copied(extractor: FeatureExtractor) -> FeatureExtractor:
    """Return an extractor of a copy of the network, whose weights may be changed.

    Parameters
    ----------
    extractor : FeatureExtractor
        The original.

    Returns
    -------
    FeatureExtractor
        The copy, on the same device; its name and hash are still those of the original.
    """
    backbone = copy.deepcopy(extractor.backbone)
    return FeatureExtractor(backbone, extractor.layer, extractor.input_px).to(extractor.mean.device)


def default_freeze(backbone: Backbone, block: str | None) -> str:
    """Return the layer to freeze up to when none is named, so that one block and what follows it are tuned.

    Parameters
    ----------
    backbone : Backbone
        The network.
    block : str, optional
        The block to tune, one of a series: ``"blocks.4"``, ``"layer4.1"``.

    Returns
    -------
    str
        The block before it.

    Raises
    ------
    ValueError
        When there is none.

    Examples
    --------
    >>> default_freeze(FeatureExtractor("efficientnet-lite0", "blocks.4").backbone, "blocks.4")
    'blocks.3'
    """
    series, _, last = (block or "").rpartition(".")
    before = f"{series}.{int(last) - 1}" if last.isdigit() else ""
    if before not in backbone.layers():
        raise ValueError(
            f"backbone {backbone.name!r} has no default layer to freeze up to; name one"
            f"{f' before {block!r}' if block else ''} with freeze=: its outermost layers are: "
            f"{', '.join(each for each in backbone.layers() if '.' not in each)}"
        )
    return before


def _recorded(extractor: FeatureExtractor, example: Tensor) -> tuple[dict[str, _Call], Tensor]:
    """Return when each module ran, with its output on one of the images, and the features of all."""
    calls: dict[str, _Call] = {}
    clock = iter(range(1_000_000))
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        def before(*_: object) -> None:
            calls.setdefault(name, _Call(next(clock))).count += 1

        def after(_module: nn.Module, _inputs: object, output: object) -> None:
            calls[name].ended, calls[name].output = next(clock), output

        handles.append(module.register_forward_pre_hook(before))
        handles.append(module.register_forward_hook(after, prepend=True))  # before the extractor ends the pass

    for name, module in extractor.network.named_modules():
        if name:
            watch(name, module)
    try:
        with torch.no_grad():
            extractor(example[:1])
            first = dict(calls)
            calls.clear()
            whole = extractor(example)
    finally:
        for handle in handles:
            handle.remove()
    return first, whole


def _stubs(
    module: nn.Module, prefix: str, calls: dict[str, _Call], cut: float, kept: Sequence[str]
) -> dict[str, object]:
    """Return the outermost modules that end before the cut and hold nothing that is kept, with their outputs."""
    found: dict[str, object] = {}
    for child_name, child in module.named_children():
        name = f"{prefix}{child_name}"
        call = calls.get(name)
        if name in kept:
            continue
        inside = any(each.startswith(f"{name}.") for each in kept)
        if call is not None and call.ended <= cut and call.count == 1 and not inside:
            found[name] = call.output
        else:
            found.update(_stubs(child, f"{name}.", calls, cut, kept))
    return found


@contextmanager
def _replaced(network: nn.Module, empty: dict[str, object], answers: dict[str, Tensor], count: int) -> Iterator[None]:
    """Let modules answer at once: those before the cut by zeros of the right shape, the kept ones by what was kept."""
    changed = []

    def answer(name: str, result: Callable[[], object]) -> None:
        module = network.get_submodule(name)
        module.forward = lambda *_inputs, **_options: result()
        changed.append(module)

    try:
        for name, output in empty.items():
            answer(name, lambda output=output: _zeros(output, count))  # type: ignore[misc]
        for name, tensor in answers.items():
            answer(name, lambda tensor=tensor: tensor)  # type: ignore[misc]
        yield
    finally:
        for module in changed:
            del module.forward


def _zeros(output: object, count: int) -> object:
    """Return zeros of the shapes of an output on one image, for several images."""
    if isinstance(output, Tensor):
        return output.new_zeros((count * output.shape[0], *output.shape[1:])) if output.ndim else output
    if isinstance(output, (list, tuple)):
        return type(output)(_zeros(each, count) for each in output)
    if isinstance(output, dict):
        return {key: _zeros(each, count) for key, each in output.items()}
    return output
