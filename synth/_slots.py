"""A fixed number of images that climb together, each with its own objective, random stream, optimizer state and best.

Shapes never change, whatever images come and go, so results do not depend on neighbors and captured graphs stay valid.
Steps never wait for the device; only `read` does, once every few steps. Driven by `engine`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synth._batched_scores import BatchedScores
from synth.constraints import Constraints
from synth.jobs import Job, Made, Unfinished, start_generator
from synth.objectives import SiteScale
from synth.optimizers import OPTIMIZERS
from synth.preconditioning import fourier_smooth, gaussian_blur, total_variation
from synth.random_streams import Streams
from synth.recipes import SynthesisConfig, param_of
from synth.starts import start_image

Network = Callable[[Tensor], Tensor]
_MOST_RESTARTS = 3


@dataclass(frozen=True)
class Task:
    """What stays the same for all images of a run.

    Parameters
    ----------
    climb, judge : callable
        Images (image, channel, height, width) to responses (image, site), for the gradient and for the readings; they
        differ where the gradient is computed in reduced precision.
    scale : SiteScale
        Names and natural statistics of the sites, on the device.
    config : SynthesisConfig
        The recipe.
    size_px : tuple of int
        Height and width.
    device : torch.device
        Where the work is done.
    base_image : callable, optional
        From the name of a base image to the image (channel, height, width) in [0, 1].
    """

    climb: Network
    judge: Network
    scale: SiteScale
    config: SynthesisConfig
    size_px: tuple[int, int]
    device: torch.device
    base_image: Callable[[str], np.ndarray] | None = None


@dataclass
class _Slot:
    """What the host knows of one image under way."""

    number: int
    job: Job
    group: int
    step: int = 0
    attempt: int = 0
    best: float = -np.inf
    best_step: int = -1
    stale: int = 0
    mark: float = -np.inf
    trace: list[tuple[int, float]] = field(default_factory=list)
    ended: str = ""

    def due(self, config: SynthesisConfig) -> bool:
        """Say whether the image is to be read at the step it has reached; a step is read once."""
        unread = not self.trace or self.trace[-1][0] < self.step
        return unread and (self.step % config.check_every == 0 or self.step == config.steps)

    def restart(self) -> None:
        """Forget everything but the job, and take the next start."""
        self.attempt += 1
        self.step, self.best, self.best_step, self.stale, self.mark, self.trace = 0, -np.inf, -1, 0, -np.inf, []

    def numbers(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        names = ("step", "attempt", "best", "best_step", "stale", "mark", "trace")
        return {name: getattr(self, name) for name in names}


class Slots:
    """Images under way.

    Parameters
    ----------
    task : Task
        Networks, recipe and device.
    count : int
        Number of slots.
    """

    def __init__(self, task: Task, count: int) -> None:
        self.task, self.config, self.count = task, task.config, count
        self.slots: list[_Slot | None] = [None] * count
        self.shape = (self.config.channels or 3, *task.size_px)
        device = task.device
        gray = torch.full((count, *self.shape), 0.5, device=device)
        self.param = param_of(self.config)(gray, self.config.statistics)
        self.only_range = self.config.constraints == Constraints()
        self.optimizer = OPTIMIZERS[self.config.optimizer]
        self.latent = self.param.latent
        if not self.latent.is_contiguous():  # the fused optimizer takes memory as it lies
            raise ValueError(
                f"the latent of param {self.config.param!r} has shape {tuple(self.latent.shape)} and strides "
                f"{self.latent.stride()}; expected contiguous memory: end its encode with .contiguous()"
            )
        self.state = self.optimizer.start(self.latent.detach())
        self.bases = gray.clone() if task.base_image else None
        self.keys, self.steps = (torch.zeros(count, dtype=torch.int64, device=device) for _ in range(2))
        self.best_codes = torch.zeros(gray.shape, dtype=torch.uint8, device=device)
        self.best_scores = torch.full((count,), -torch.inf, device=device)
        self.moved = torch.zeros(count, dtype=torch.bool, device=device)
        self._scores: BatchedScores | None = None

    @property
    def free(self) -> list[int]:
        """Numbers of the empty slots."""
        return [number for number, slot in enumerate(self.slots) if slot is None]

    def steps_taken(self) -> dict[int, int]:
        """Return the steps of the images under way, by job number."""
        return {slot.number: slot.step for slot in self.slots if slot is not None}

    def put(self, jobs: Sequence[tuple[int, Job, Unfinished | None]]) -> None:
        """Fill empty slots with jobs that belong together: one, or all of a coupled objective.

        Parameters
        ----------
        jobs : sequence of (int, Job, Unfinished or None)
            Number of the job, the job, and where it stood.
        """
        for place, (number, job, unfinished) in zip(self.free, jobs, strict=False):
            slot = self.slots[place] = _Slot(number, job, group=jobs[0][0])
            if self.bases is not None and self.task.base_image is not None:
                self.bases[place] = torch.from_numpy(self.task.base_image(job.base)).to(self.bases)
            self._begin(place, slot)
            if unfinished is not None:
                self._restore(place, slot, unfinished)
        self._scores = None

    @torch.no_grad()
    def _begin(self, place: int, slot: _Slot) -> None:
        """Set a slot to the start image of its job."""
        base = None if self.bases is None else self.bases[place].cpu()
        start = start_image(self.config.start, self.shape, start_generator(slot.job, slot.attempt), slot.attempt, base)
        self.latent[place] = self.param.encode(start[None].to(self.task.device))[0]
        for tensor in self.state.values():
            tensor[place] = 0
        self.keys[place] = slot.job.key("views")
        self.steps[place] = 0
        self.best_scores[place] = -torch.inf
        self.moved[place] = False

    @torch.no_grad()
    def _restore(self, place: int, slot: _Slot, unfinished: Unfinished) -> None:
        for name, value in unfinished.numbers.items():
            setattr(slot, name, value)
        slot.trace = [(step, score) for step, score in unfinished.numbers["trace"]]
        for name, tensor in self._tensors(place).items():
            tensor.copy_(unfinished.tensors[name])
        self.steps[place] = slot.step
        self.best_scores[place] = slot.best

    def _tensors(self, place: int) -> dict[str, Tensor]:
        """Return views of all that a slot holds on the device, other than what its numbers say."""
        held = {"latent": self.latent.detach(), "best_codes": self.best_codes, "moved": self.moved, **self.state}
        return {name: tensor[place] for name, tensor in held.items()}

    def unfinished(self) -> dict[int, Unfinished]:
        """Return the state of all images under way, by job number: call it right after `read`."""
        return {
            slot.number: Unfinished(
                {name: tensor.cpu().clone() for name, tensor in self._tensors(place).items()}, slot.numbers()
            )
            for place, slot in enumerate(self.slots)
            if slot is not None
        }

    @property
    def unread(self) -> bool:
        """Whether an image waits for a reading."""
        return any(slot is not None and slot.due(self.config) for slot in self.slots)

    def advance(self) -> None:
        """Let every image step until the next of them is to be read, without waiting for the device."""
        every, budget = self.config.check_every, self.config.steps
        steps = min(min(every - slot.step % every, budget - slot.step) for slot in self.slots if slot is not None)
        for _ in range(steps):
            self._step()
        for slot in self.slots:
            if slot is not None:
                slot.step += steps

    @torch.enable_grad()
    def _step(self) -> None:
        config = self.config
        images = self._images()
        streams = Streams(self.keys, self.steps)
        views = images
        if config.views > 1:
            views, streams = images.repeat_interleave(config.views, 0), streams.repeat(config.views)
        for transform in config.transforms:
            views = transform(views, streams)
        responses = self.task.climb(views).unflatten(0, (self.count, config.views))
        seen = views.unflatten(0, (self.count, config.views))
        scores = [self._score(responses[:, view], images, seen[:, view]) for view in range(config.views)]
        gain = torch.stack(scores).mean(0).sum()
        if config.total_variation:
            gain = gain - config.total_variation * total_variation(2 * views).sum() / config.views
        (gradient,) = torch.autograd.grad(gain, self.latent)
        with torch.no_grad():
            self.moved |= gradient.flatten(1).any(1)
            first, last = config.gradient_blur_px
            if first or last:
                done = self.steps.to(torch.float32) / max(config.steps - 1, 1)
                gradient = gaussian_blur(gradient, (first + (last - first) * done).clamp(min=0), max(first, last))
            if config.gradient_decay:
                gradient = fourier_smooth(gradient, config.gradient_decay)
            self.steps += 1
            self.optimizer.ascend_(self.latent, gradient, self.state, config.step_size)
            if not self.param.bounded:
                self.param.project_(config.constraints(self.param(), self.bases))

    def _images(self) -> Tensor:
        """Render; that images are in [0, 1] is seen to by the parametrization or by projection."""
        images = self.param()
        return images if self.only_range else self.config.constraints(images, self.bases)

    def _score(self, responses: Tensor, images: Tensor, views: Tensor) -> Tensor:
        if self._scores is None:
            self._scores = BatchedScores(
                [None if slot is None else slot.job.objective for slot in self.slots],
                [-1 if slot is None else slot.group for slot in self.slots],
                self.task.scale,
            )
        return self._scores(responses, images, views)

    @torch.no_grad()
    def read(self) -> None:
        """Measure the images that are due as they would be saved, keep the best, and mark those that have ended.

        The image is constrained, written with 8 bits and seen without views and in full precision.
        """
        reading = [slot is not None and slot.due(self.config) for slot in self.slots]
        due = torch.tensor(reading, device=self.task.device)
        images = self._images()
        written = (0.5 + self.config.output_gain * (images - 0.5)).clamp(0, 1)
        codes = (written * 255 + 0.5).floor().to(torch.uint8)
        seen = codes.to(torch.float32) / 255
        scores = self._score(self.task.judge(seen), seen, seen)
        finite = images.flatten(1).isfinite().all(1) & scores.isfinite()
        better = due & finite & ((scores > self.best_scores) | (self.config.keep == "last"))
        self.best_codes.copy_(torch.where(better.view(-1, 1, 1, 1), codes, self.best_codes))
        self.best_scores.copy_(torch.where(better, scores, self.best_scores))
        flags = torch.stack([finite, better, self.moved]).cpu().tolist()
        self.moved &= ~due
        for place, (slot, score) in enumerate(zip(self.slots, scores.cpu().tolist(), strict=True)):
            if slot is not None and reading[place]:
                self._note(place, slot, score, *(flag[place] for flag in flags))
        self._end_groups()

    def _note(self, place: int, slot: _Slot, score: float, finite: bool, better: bool, moved: bool) -> None:
        """Update what the host knows of an image after its reading."""
        if not finite:
            slot.ended = "not finite"
            return
        if slot.step and not moved:
            alone = not slot.job.objective.coupled  # coupled images keep step with each other
            if len(slot.trace) == 1 and slot.attempt < _MOST_RESTARTS and alone:
                slot.restart()
                self._begin(place, slot)
                return
            slot.ended = "no gradient"
        slot.trace.append((slot.step, score))
        if better:
            slot.best, slot.best_step = score, slot.step
        if slot.step == 0 or score > slot.mark + self.config.min_gain * (slot.mark - slot.trace[0][1]):
            slot.mark, slot.stale = score, 0
        else:
            slot.stale += 1
        if slot.step == self.config.steps:
            slot.ended = slot.ended or "steps"
        elif self.config.patience is not None and slot.stale >= self.config.patience:
            slot.ended = slot.ended or "patience"

    def _end_groups(self) -> None:
        """Let coupled images go on until all of them have ended."""
        waiting = {slot.group for slot in self.slots if slot is not None and not slot.ended}
        for slot in self.slots:
            if slot is not None and slot.group in waiting and slot.ended != "not finite":
                slot.ended = ""

    def take_ended(self) -> list[tuple[int, Made]]:
        """Return the images that have ended, by job number, and empty their slots.

        Returns
        -------
        list of (int, Made)
            The images made.
        """
        done = []
        for place, slot in enumerate(self.slots):
            if slot is None or not slot.ended:
                continue
            codes = self.best_codes[place].cpu().numpy().copy() if slot.best_step >= 0 else None
            done.append((slot.number, Made(codes, max(slot.best_step, 0), slot.trace, slot.ended, slot.attempt)))
            self.slots[place] = None
            self._scores = None
            with torch.no_grad():  # numbers that are not finite are slow and must not stay
                self.latent[place] = 0
                for tensor in self.state.values():
                    tensor[place] = 0
        return done
