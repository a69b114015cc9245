"""Lucent's parts in our loop, and our models and objectives in lucent's.

In: params, transforms and objectives of torch-lucent 0.1.8. Out: an image param, a `Transform` and an `Objective` as
`engine` takes them; and the other way a lucent objective for ``lucent.optvis.render.render_vis``. Needs the extra
``lucent`` only where it is used; lucent works on ``cuda:0`` where there is one, and on the CPU elsewhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from neural_fits.backbones import Backbone, load_backbone
from neural_fits.features import FeatureExtractor
from neural_fits.site_model import Ensemble, SiteModel
from stimuli.hints import did_you_mean
from synth._lucent_parts import LucentObjective, LucentParam, LucentTransforms, Taps, as_units, describe, lucent_module
from synth.objectives import Objective, SiteScale


def from_lucent_param(
    param_f: Callable[..., tuple[Sequence[Tensor], Callable[[], Tensor]]],
    encode: Callable[[Tensor], Tensor] | None = None,
    name: str | None = None,
) -> LucentParam:
    """Return a lucent param as an image param of ours.

    Everything works that keeps one tensor with the image axis first: ``param.image`` with ``fft`` true or false,
    ``fft_image``, ``pixel_image``, codes of a generator. What shares weights over its images cannot have an image
    refilled while others go on and is refused: ``param.cppn``, and sums of several tensors.

    Parameters
    ----------
    param_f : callable
        Called with ``batch=n``, returns lucent's pair (params, image_f) for n images; for example
        ``functools.partial(lucent.optvis.param.image, 224)``.
    encode : callable, optional
        From images (image, channel, height, width) in [0, 1] to the tensor that renders to them. Known for the params
        of lucent itself.
    name : str, optional
        What tells this param from others, in files and random streams; found by itself for functions of lucent.

    Returns
    -------
    callable
        From start images (image, channel, height, width) to an image param as in `image_params`.

    Raises
    ------
    ValueError
        When `name` is needed; on a call, when the param has no single tensor with the image axis first, renders
        another shape than that of the start images, lies on another device, or has no `encode`.

    Examples
    --------
    >>> def plain(batch):
    ...     tensor = torch.zeros(batch, 3, 8, 8, requires_grad=True)
    ...     return [tensor], lambda: tensor
    >>> make = from_lucent_param(plain, encode=lambda images: images, name="plain")
    >>> make(torch.full((2, 3, 8, 8), 0.5))().mean().item()
    0.5
    """
    return LucentParam(name or describe(param_f, "param"), param_f, encode)


def from_lucent_transforms(
    transforms: Sequence[Callable[[Tensor], Tensor]], fit: str = "crop", name: str | None = None
) -> LucentTransforms:
    """Return lucent transforms as one `Transform` of ours.

    Lucent draws from the generators of the process, once for the whole batch. Here each image is transformed alone,
    with these generators at a state of its own stream, and they are put back. This reads the streams on the host at
    every step, which a captured CUDA graph cannot do. Leave ``transform.normalize()`` out: our models normalize.

    Parameters
    ----------
    transforms : sequence of callable
        Functions from images (image, channel, height, width) to images, for example
        ``lucent.optvis.transform.standard_transforms``; applied in this order.
    fit : str
        How images that were padded or scaled return to their size: ``"crop"`` keeps the middle, so that a change of
        scale is seen (what is too small is resized); ``"resize"`` is the rule of ``render_vis`` below 224 px.
    name : str, optional
        What tells these transforms from others, in files and random streams; found by itself for functions of lucent.

    Returns
    -------
    Transform
        The transforms.

    Raises
    ------
    ValueError
        When `name` is needed or `fit` is unknown.

    Examples
    --------
    >>> from synth.random_streams import Streams
    >>> flip = from_lucent_transforms([lambda images: images.flip(-1)], name="mirror")
    >>> flip(torch.tensor([[[[0.0, 1.0]]]]), Streams(torch.tensor([1]), torch.tensor([0])))
    tensor([[[[1., 0.]]]])
    """
    if fit not in ("crop", "resize"):
        raise ValueError(f"fit is {fit!r}; {did_you_mean(str(fit), ('crop', 'resize'))}expected 'crop' or 'resize'")
    known = name or ", ".join(describe(each, "transforms") for each in transforms)
    return LucentTransforms(known, fit, tuple(transforms))


def from_lucent_objective(
    objective: Any,
    network: str | nn.Module | Backbone | SiteModel | FeatureExtractor,
    *,
    coupled: bool = False,
    size_px: int | None = None,
    name: str | None = None,
) -> Objective:
    """Return a lucent objective as an `Objective` of ours: ``score = -loss`` of each image alone.

    On the driver itself, sums and multiples of lucent's objectives become columns of the responses, one for each layer
    objective: ``channel`` and ``neuron`` a `LayerUnit`, which can be read back from its text. Of others, ``score``
    computes the layers asked for from the images, by a `FeatureExtractor` each; lucent's hooks are never used. A layer
    is a map (image, channel, height, width) as that layer made it, where lucent's hooks see it after an in-place ReLU;
    of a layer without space height and width are 1, tokens of a transformer stand on their grid.

    Parameters
    ----------
    objective : lucent Objective, callable or str
        As ``render_vis`` takes it: a function of ``T(layer)`` to a loss, or text such as ``"layer2:5"``. Layers by
        lucent's names (``layer2_0_conv1``) or torch's (``layer2.0.conv1``); also ``input`` and ``labels``.
    network : str, nn.Module, Backbone, SiteModel or FeatureExtractor
        The network whose layers are meant: the driver that `synthesize` gets, a `SiteModel` or a `FeatureExtractor`; or
        another network as for `load_backbone`, which says how images are normalized.
    coupled : bool
        True for objectives that compare the images of a batch, as ``diversity``: the images of one objective are
        scored together, each with an equal share of the loss.
    size_px : int, optional
        Side of the gray images on which the objective is tried at once; that of the model by default, or the network's
        native size.
    name : str, optional
        What tells this objective from others, in files and random streams; found by itself for objectives of lucent.

    Returns
    -------
    Objective
        The objective.

    Raises
    ------
    ValueError
        For an unknown layer; for an objective that compares images or names one by ``batch=`` and is not `coupled`;
        when `name` is needed; from ``score``, without images.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    >>> brightness = from_lucent_objective(lambda T: -T("input").mean(), network, size_px=8, name="brightness")
    >>> scale = SiteScale((), torch.zeros(0), torch.zeros(0))
    >>> brightness.score(torch.zeros(2, 0), scale, torch.tensor([0.25, 0.75]).view(2, 1, 1, 1).expand(2, 3, 8, 8))
    tensor([0.2500, 0.7500])
    """
    if isinstance(objective, str):
        objective = lucent_module("objectives").as_objective(objective)
    driver = network.extractor if isinstance(network, SiteModel) else network
    if isinstance(driver, FeatureExtractor):
        taps = Taps(driver.backbone, driver.input_px)
    else:
        taps = Taps(load_backbone(driver))
    side = size_px or taps.input_px or taps.backbone.input_px
    size = network.info.size_px if isinstance(network, SiteModel) and not size_px else (side, side)
    if isinstance(driver, FeatureExtractor) and not coupled and name is None:
        units = as_units(objective, taps, size)
        if units is not None:
            return units
    made = LucentObjective(name or describe(objective, "objective"), taps.backbone.name, coupled, objective, taps)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lucent divides by one image less than there are
        loss = objective(taps.of(torch.full((2 if coupled else 1, 3, *size), 0.5, device=taps.device)))
    compares = any(f"{word}(" in made.name for word in ("diversity", "alignment", "channel_interpolate"))
    if not isinstance(loss, Tensor) or loss.numel() != 1 or loss.isnan().any() or (compares and not coupled):
        raise ValueError(
            f"lucent objective {made.name} is {loss} for a gray image alone; an objective that compares images needs "
            "coupled=True, one of a single image no batch=; a position outside a small map needs size_px="
        )
    return made


def to_lucent(objective: Objective, model: SiteModel | Ensemble, batch: int | None = None) -> Any:
    """Return an objective of ours as a lucent one: ``loss = -sum of the scores of the images``.

    Parameters
    ----------
    objective : Objective
        What is asked of the model's sites.
    model : SiteModel or Ensemble
        The model that ``render_vis`` gets; see `render_options` for the arguments that go with it.
    batch : int, optional
        Index of the one image that is meant; all by default. Add objectives to ask another thing of each image.

    Returns
    -------
    lucent.optvis.objectives.Objective
        The objective, named by its ``repr``.

    Raises
    ------
    ImportError
        When lucent is not installed.
    ValueError
        For an unknown site, or an objective on layers, for which lucent has its own.
    """
    if objective.units:
        raise ValueError(f"{objective!r} asks for layers of the network; use lucent's own objectives.channel for them")
    names = ["readout"] if isinstance(model, SiteModel) else [f"members_{k}_readout" for k in range(len(model.members))]
    scale = SiteScale.of(model, next(model.buffers()).device)
    nothing = torch.zeros(2, len(model.site_ids), device=scale.mean.device)
    objective.score(nothing, scale, torch.zeros(2, model.info.channels, *model.info.size_px, device=nothing.device))
    chosen = slice(None) if batch is None else slice(batch, batch + 1)

    def loss(layer: Callable[[str], Tensor]) -> Tensor:
        responses = torch.stack([layer(name)[chosen] for name in names]).mean(0)
        return -objective.score(responses, scale, layer("input")[chosen]).sum()

    return lucent_module("objectives").Objective(loss, repr(objective), repr(objective))


def render_options(model: SiteModel | Ensemble) -> dict[str, Any]:
    """Return the arguments with which ``render_vis`` suits a model of ours.

    Our models normalize by themselves and take images of one size; images come from ``param.image`` of that size, and
    what lucent's transforms pad or scale is resized to it. No window opens and no bar is drawn.

    Parameters
    ----------
    model : SiteModel or Ensemble
        The model.

    Returns
    -------
    dict
        Keyword arguments; change what you like, for example ``render_options(model) | {"transforms": []}``.

    Examples
    --------
    >>> from neural_fits.readout import LinearReadout
    >>> from neural_fits.site_model import SiteInfo
    >>> extractor = FeatureExtractor(nn.Sequential(nn.Conv2d(3, 4, 3)), "0")
    >>> readout = LinearReadout(torch.ones(1, 4, 6, 6), torch.zeros(1))
    >>> info = SiteInfo(("a",), (0,), (1,), (8, 8), 2, "Hz")
    >>> model = SiteModel(extractor, readout, info)
    >>> render_options(model)["fixed_image_size"]
    (8, 8)

    With lucent installed::

        with without_hooks(model):
            render_vis(model, to_lucent(Stretch("a"), model), thresholds=(64,), **render_options(model))
    """
    height, width = model.info.size_px
    channels = None if model.info.channels == 3 else model.info.channels
    return {
        "param_f": lambda: lucent_module("param").image(width, height, channels=channels),
        "fixed_image_size": (height, width),
        "preprocess": False,
        "show_image": False,
        "progress": False,
    }


@contextmanager
def without_hooks(network: nn.Module) -> Iterator[None]:
    """Remove at the end the hooks that were left in a network meanwhile, as every call of ``render_vis`` does.

    Parameters
    ----------
    network : nn.Module
        The network, or a model that holds it.

    Yields
    ------
    None
        Nothing.

    Examples
    --------
    >>> network = nn.Sequential(nn.ReLU())
    >>> with without_hooks(network):
    ...     _ = network[0].register_forward_hook(print)
    >>> len(network[0]._forward_hooks)
    0
    """
    before = {module: set(module._forward_hooks) for module in network.modules()}
    try:
        yield
    finally:
        for module in network.modules():
            for key in set(module._forward_hooks) - before.get(module, set()):
                del module._forward_hooks[key]
