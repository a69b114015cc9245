"""The same job by other image-synthesis packages: N gradient steps toward the mean of one channel of a layer per image.

Each peer is a function from a `Task` to a callable that does the steps and returns the images; what comes before the
steps (copying the network, wrapping it as that package wants it) is not timed, nor is what frees the network of hooks.
Every peer keeps its own parametrization, optimizer and step size, as its users do; where it asks its user for the model
or the objective function (plenoptic, horama), it gets a truncated frozen one, which is the best a user can do.
A peer that is not installed is named and left out. Read by ``synthesis.py``; alone, it checks that each peer climbs:

    python benchmarks/synthesis_peers.py [--size-px 64] [--steps 16] [--targets 2]
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import importlib.metadata
import io
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Run = Callable[[], Tensor]


@dataclass(frozen=True)
class Task:
    """What is to be done: one image of `size_px` for each of the `targets`, channels of the network's `layer`.

    The network takes images normalized by ImageNet's mean and standard deviation, as every peer does by default; it is
    copied and stays as it is.
    """

    network: nn.Module
    layer: str
    targets: tuple[int, ...]
    size_px: int
    steps: int
    transforms: bool = False
    device: torch.device = torch.device("cpu")  # noqa: RUF009
    seed: int = 0

    def copy_of_network(self, frozen: bool = False) -> nn.Module:
        """Return the network as its users have it: in evaluation mode, weights that require gradients."""
        return copy.deepcopy(self.network).to(self.device).eval().requires_grad_(not frozen)


@dataclass(frozen=True)
class Peer:
    """One way to do the task: `module` must be there, `transforms` says which kinds of task it knows."""

    name: str
    prepare: Callable[[Task], Run]
    module: str = ""
    transforms: tuple[bool, ...] = (False, True)
    views: int = 1  # images of the network's size that pass it for each image and step

    def missing(self, task: Task) -> str:
        """Return why the peer cannot do the task, or an empty string."""
        if task.transforms not in self.transforms:
            return f"only with transforms={self.transforms[0]}"
        try:
            if self.module:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    importlib.import_module(self.module)
        except (ImportError, RuntimeError) as error:
            return f"not installed ({error})"
        if self.module.startswith("lucent") and (task.device.type == "cuda") != torch.cuda.is_available():
            return f"lucent uses cuda:0 where there is one; asked for {task.device}"
        return ""


class _Stop(Exception):
    """Ends the forward pass at the layer."""


class Truncated(nn.Module):
    """Images in [0, 1] -> the layer's activations, nothing computed beyond it."""

    def __init__(self, network: nn.Module, layer: str) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))
        self.found: list[Tensor] = []
        network.get_submodule(layer).register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        self.found = [output]
        raise _Stop

    def normalized(self, images: Tensor) -> Tensor:
        """Return the activations of images that are normalized already."""
        with contextlib.suppress(_Stop):
            self.network(images)
        return self.found.pop()

    def forward(self, images: Tensor) -> Tensor:
        """Return the activations."""
        return self.normalized((images - self.mean) / self.std)


def _truncated(task: Task) -> Truncated:
    return Truncated(task.copy_of_network(frozen=True), task.layer).to(task.device).eval()


def scores(task: Task, images: Tensor) -> Tensor:
    """Return what each image reached: the mean of its target channel on the plain image."""
    with torch.no_grad():
        maps = _truncated(task)(images.to(task.device).clamp(0, 1))
    return _at_targets(maps, task.targets).cpu()


def _at_targets(maps: Tensor, targets: tuple[int, ...]) -> Tensor:
    """Return the mean of target k in map k."""
    return torch.stack([maps[k, channel].mean() for k, channel in enumerate(targets)])


def _noise(task: Task, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(task.seed)
    return (0.5 + 0.02 * torch.randn(count, 3, task.size_px, task.size_px, generator=generator)).to(task.device)


def _each(task: Task, one: Callable[[Task], Run]) -> Run:
    """Do the targets one after the other."""
    runs = [one(replace(task, targets=(target,))) for target in task.targets]
    return lambda: torch.cat([run() for run in runs])


def hand(task: Task) -> Run:
    """Return the best loop by hand: truncated, frozen, channels_last, one batch, Adam on pixels, no reading."""
    network = _truncated(task).to(memory_format=torch.channels_last)
    images = _noise(task, len(task.targets)).contiguous(memory_format=torch.channels_last).requires_grad_()
    optimizer = torch.optim.Adam([images], lr=0.03)

    def run() -> Tensor:
        for _ in range(task.steps):
            loss = -_at_targets(network(images), task.targets).sum()
            (images.grad,) = torch.autograd.grad(loss, images)
            optimizer.step()
            with torch.no_grad():
                images.clamp_(0, 1)
        return images.detach()

    return run


def naive(task: Task) -> Run:
    """Return the usual loop: whole network, a hook, gradients of the weights too, the loss read at every step."""

    def one(task: Task) -> Run:
        network, found = task.copy_of_network(), {}
        network.get_submodule(task.layer).register_forward_hook(lambda _m, _i, output: found.update(layer=output))
        mean, std = (torch.tensor(values, device=task.device).view(1, 3, 1, 1) for values in (MEAN, STD))
        images = _noise(task, 1).requires_grad_()
        optimizer = torch.optim.Adam([images], lr=0.03)

        def run() -> Tensor:
            losses = []
            for _ in range(task.steps):
                optimizer.zero_grad()
                network((images - mean) / std)
                loss = -found["layer"][0, task.targets[0]].mean()
                loss.backward()
                optimizer.step()
                images.data.clamp_(0, 1)
                losses.append(loss.item())
            return images.detach()

        return run

    return _each(task, one)


def lucent_batch(task: Task) -> Run:
    """Return render_vis with its defaults on all targets in one batch, the objectives added."""
    from lucent.optvis import objectives, param, render

    network, layer = task.copy_of_network(), task.layer.replace(".", "_")
    if len(task.targets) == 1:
        wanted = objectives.channel(layer, task.targets[0])
    else:
        wanted = objectives.Objective.sum([objectives.channel(layer, c, batch=k) for k, c in enumerate(task.targets)])

    def run() -> Tensor:
        images = render.render_vis(
            network,
            wanted,
            param_f=lambda: param.image(task.size_px, batch=len(task.targets)),
            transforms=None if task.transforms else [],
            thresholds=(task.steps,),
            fixed_image_size=task.size_px if task.size_px < 224 else None,  # else it enlarges to 224
            show_image=False,
            progress=False,
        )
        return torch.from_numpy(images[-1]).permute(0, 3, 1, 2)

    return run


def lucent_single(task: Task) -> Run:
    """Return render_vis with its defaults, one target at a time."""
    return _each(task, lucent_batch)


def plenoptic_batch(task: Task) -> Run:
    """Return Metamer.synthesize with the objective as its loss, on all targets in one batch."""
    import plenoptic

    start = _noise(task, len(task.targets))

    def loss(maps: Tensor, _target: Tensor) -> Tensor:
        return -_at_targets(maps, task.targets).sum()

    metamer = plenoptic.Metamer(start, _truncated(task), loss_function=loss)
    metamer.setup(initial_image=start.clamp(0, 1), optimizer=torch.optim.Adam, optimizer_kwargs={"lr": 0.03})

    def run() -> Tensor:
        metamer.synthesize(max_iter=task.steps, stop_criterion=-1.0)
        return metamer.metamer.detach()

    return run


def plenoptic_single(task: Task) -> Run:
    """Return Metamer.synthesize, one target at a time."""
    return _each(task, plenoptic_batch)


def torch_dreams_batch(task: Task) -> Run:
    """Return Dreamer.render with its defaults; several images are several parameters with an optimizer each."""
    from torch_dreams import AutoImageParam, Dreamer
    from torch_dreams.batched_image_param import BatchedAutoImageParam

    network = task.copy_of_network()
    dreamer = Dreamer(network, quiet=True, device=str(task.device))
    if not task.transforms:
        dreamer.set_custom_transforms(nn.Identity())
    size = {"height": task.size_px, "width": task.size_px, "device": str(task.device), "standard_deviation": 0.01}
    single = len(task.targets) == 1
    start = AutoImageParam(**size) if single else BatchedAutoImageParam(batch_size=len(task.targets), **size)

    def run() -> Tensor:
        made = dreamer.render(
            layers=[network.get_submodule(task.layer)],
            image_parameter=start,
            iters=task.steps,
            custom_func=lambda layers: -_at_targets(layers[0], task.targets).sum(),
        )
        parts = [made] if single else made.image_params
        return torch.cat([part.postprocess(device=task.device).detach() for part in parts])

    return run


def torch_dreams_single(task: Task) -> Run:
    """Return Dreamer.render, one target at a time."""
    return _each(task, torch_dreams_batch)


def dreamlens_batch(task: Task) -> Run:
    """Return FeatureVisualizer.maximize_channels with its defaults."""
    from dreamlens import FeatureVisualizer, RenderConfig, TransformConfig

    visualizer = FeatureVisualizer(task.copy_of_network(), quiet=True, device=task.device)
    views = TransformConfig() if task.transforms else TransformConfig(transforms=nn.Identity())
    config = RenderConfig(width=task.size_px, height=task.size_px, steps=task.steps, transform=views)

    def run() -> Tensor:
        made = visualizer.maximize_channels(task.layer, task.targets, config=config)
        return made.image.as_nchw().detach()

    return run


def dreamlens_single(task: Task) -> Run:
    """Return FeatureVisualizer.maximize_channels, one target at a time."""
    return _each(task, dreamlens_batch)


def horama(task: Task) -> Run:
    """Return horama's Fourier optimization with its default 6 crops a step; it knows one image at a time, no other."""
    from horama import fourier

    def one(task: Task) -> Run:
        network = _truncated(task)
        mean, std = network.mean[0], network.std[0]

        def run() -> Tensor:
            with contextlib.redirect_stderr(io.StringIO()):  # its bar cannot be turned off
                image, _ = fourier(
                    lambda crops: network.normalized(crops)[:, task.targets[0]].mean(),
                    total_steps=task.steps,
                    image_size=task.size_px,
                    model_input_size=task.size_px,
                    device=task.device,
                )
            return (image.detach() * std + mean).clamp(0, 1)[None]

        return run

    return _each(task, one)


PEERS = (
    Peer("hand loop, one batch", hand, transforms=(False,)),
    Peer("plain full-network loop, one by one", naive, transforms=(False,)),
    Peer("lucent.render_vis, one by one", lucent_single, "lucent.optvis.render"),
    Peer("lucent.render_vis, one batch", lucent_batch, "lucent.optvis.render"),
    Peer("plenoptic Metamer, one by one", plenoptic_single, "plenoptic", transforms=(False,)),
    Peer("plenoptic Metamer, one batch", plenoptic_batch, "plenoptic", transforms=(False,)),
    Peer("torch-dreams, one by one", torch_dreams_single, "torch_dreams"),
    Peer("torch-dreams, one batch", torch_dreams_batch, "torch_dreams"),
    Peer("dreamlens, one by one", dreamlens_single, "dreamlens"),
    Peer("dreamlens, one batch", dreamlens_batch, "dreamlens"),
    Peer("horama fourier, one by one", horama, "horama", transforms=(True,), views=6),
)


def timed(run: Run, device: torch.device) -> tuple[Tensor, float]:
    """Return the images of a run and its seconds: CPU time of all threads, or device time between two events."""
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(device)
        start.record()
        images = run()
        end.record()
        torch.cuda.synchronize(device)
        return images, start.elapsed_time(end) / 1000
    began = time.process_time()
    images = run()
    return images, time.process_time() - began


def run_peer(peer: Peer, task: Task) -> tuple[Tensor, float]:
    """Return the images of a peer and the seconds of its steps; its warnings and its random numbers stay with it."""
    drawn = np.random.get_state()  # noqa: NPY002
    gpus = [task.device] if task.device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.manual_seed(task.seed)
        np.random.seed(task.seed)  # noqa: NPY002 - lucent and dreamlens draw there
        run = peer.prepare(task)
        images, seconds = timed(run, task.device)
    np.random.set_state(drawn)  # noqa: NPY002
    return images, seconds


def version(peer: Peer) -> str:
    """Return the installed version of a peer, for the record."""
    names = {"lucent": "torch-lucent", "torch_dreams": "torch-dreams"}
    top = peer.module.split(".")[0]
    try:
        return importlib.metadata.version(names.get(top, top)) if top else ""
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def main() -> None:
    from torchvision.models import resnet18

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, default in (("--size-px", 64), ("--steps", 16), ("--targets", 2)):
        parser.add_argument(option, type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    targets = tuple(range(options.targets))
    task = Task(resnet18(), "layer2", targets, options.size_px, options.steps, device=device)
    for transforms in (False, True):
        task = replace(task, transforms=transforms)
        for peer in PEERS:
            label = f"{peer.name + (', transforms' if transforms else ''):52s}"
            if why := peer.missing(task):
                print(f"{label} left out: {why}", flush=True)
                continue
            few, _ = run_peer(peer, replace(task, steps=1))
            images, seconds = run_peer(peer, task)
            before, after = scores(task, few), scores(task, images)
            per_step = 1000 * seconds / (task.steps * len(targets))
            climbs = "climbs" if bool((after > before).all()) else "DOES NOT CLIMB"
            print(
                f"{label} {version(peer):7s} {per_step:7.1f} ms an image-step  score {before.mean():.3f} -> "
                f"{after.mean():.3f}  {climbs}",
                flush=True,
            )


if __name__ == "__main__":
    main()
