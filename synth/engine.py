"""The one loop: a batch of images, each with its own objective and random stream, climbs its own score.

In: a frozen model (images -> responses), jobs, a config. Out: one 8-bit image and one score trace per job. The batch
has a fixed number of slots; empty slots are filled with copies, so shapes never change and an image does not depend on
its neighbors. Called by `synthesize` only.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from neural_fits.parallel import side_by_side
from stimuli.appearance import quantize, to_float
from synth.constraints import fix_luminance_contrast, gaussian_blur, total_variation
from synth.image_params import PARAMS, STARTS, Fourier, Pixels
from synth.objectives import Objective, SiteScale
from synth.recipes import SynthesisConfig


@dataclass(frozen=True)
class Job:
    """One image to make.

    Parameters
    ----------
    objective : Objective
        What is asked.
    seed : int
        Seed of its random stream.
    """

    objective: Objective
    seed: int


@dataclass(frozen=True)
class Made:
    """One image made.

    Parameters
    ----------
    codes : ndarray, (channel, height, width)
        8-bit image.
    step : int
        Step after which it stood, counted from 1; 0 is the start.
    trace : list of (int, float)
        Step and score on the plain, constrained, 8-bit image, as the driver sees it.
    """

    codes: np.ndarray
    step: int
    trace: list[tuple[int, float]]


def run(
    model: nn.Module,
    scale: SiteScale,
    jobs: Sequence[Job],
    config: SynthesisConfig,
    size_px: tuple[int, int],
    *,
    slots: int = 4,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> list[Made]:
    """Make one image per job.

    Parameters
    ----------
    model : nn.Module
        Frozen network from images (image, channel, height, width) in [0, 1] to responses (image, site).
    scale : SiteScale
        Names and natural statistics of the sites, on the device.
    jobs : sequence of Job
        Objectives and seeds.
    config : SynthesisConfig
        The recipe.
    size_px : tuple of int
        Height and width of the images in pixels.
    slots : int
        Images optimized together.
    device : torch.device
        Where the work is done.
    progress : callable, optional
        Called with (image steps done, image steps in all).

    Returns
    -------
    list of Made
        In the order of the jobs.

    Raises
    ------
    ValueError
        When an image or a score is no longer finite; the message names the objective.
    """
    tally = _Tally(len(jobs) * config.steps, progress)

    def make(first: int) -> list[Made]:
        chunk = list(jobs[first : first + slots])
        filled = chunk + [chunk[-1]] * (slots - len(chunk))
        try:
            return _run_batch(model, scale, filled, config, size_px, device, tally.of_batch(len(chunk)))[: len(chunk)]
        except BaseException as error:
            tally.stopped = tally.stopped or error
            raise

    try:
        return [image for batch in side_by_side(make, range(0, len(jobs), slots), device) for image in batch]
    except BaseException as error:  # also Ctrl-C: batches on other threads end at their next reading
        tally.stopped = tally.stopped or error
        raise tally.stopped from None  # the first failure, not that of a batch which it stopped


class _Tally:
    """Image steps done by all batches together."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self.total, self.progress, self.done = total, progress, 0
        self.stopped: BaseException | None = None
        self._lock = threading.Lock()

    def of_batch(self, images: int) -> Callable[[int], None]:
        seen = 0

        def report(step: int) -> None:
            nonlocal seen
            if self.stopped:
                raise InterruptedError("another batch failed or the run was interrupted")
            with self._lock:
                self.done += (step - seen) * images
                seen = step
                if self.progress is not None and self.done:
                    self.progress(self.done, self.total)

        return report


@torch.enable_grad()
def _run_batch(
    model: nn.Module,
    scale: SiteScale,
    jobs: list[Job],
    config: SynthesisConfig,
    size_px: tuple[int, int],
    device: torch.device,
    report: Callable[[int], None],
) -> list[Made]:
    generators = [_stream(job, config) for job in jobs]
    shape = (config.channels or 3, *size_px)
    starts = torch.stack([STARTS[config.start](shape, generator) for generator in generators])
    param: Pixels | Fourier = PARAMS[config.param](starts.to(device))
    advance = _OPTIMIZERS[config.optimizer](param.latent, config.step_size)
    best = _Best(jobs, config)
    for step in range(config.steps + 1):
        if step % config.check_every == 0 or step == config.steps:
            best.read(step, model, scale, _constrained(param(), config))
            report(step)
        if step == config.steps:
            break
        views = _constrained(param(), config)
        for transform in config.transforms:
            views = transform(views, generators)
        gain = _scores(jobs, model(views), scale).sum()
        if config.total_variation:
            gain = gain - config.total_variation * total_variation(2 * views).sum()
        (gradient,) = torch.autograd.grad(gain, param.latent)
        start_blur, end_blur = config.gradient_blur_px
        blur = start_blur + (end_blur - start_blur) * step / max(config.steps - 1, 1)
        advance(gaussian_blur(gradient, blur) if blur else gradient)
        with torch.no_grad():
            param.project_(_constrained(param(), config))
    return best.made()


class _Best:
    """Scores of the 8-bit images, and the image that each job keeps."""

    def __init__(self, jobs: list[Job], config: SynthesisConfig) -> None:
        self.jobs, self.config = jobs, config
        self.traces: list[list[tuple[int, float]]] = [[] for _ in jobs]
        self.kept: list[tuple[float, int, np.ndarray | None]] = [(-np.inf, 0, None) for _ in jobs]

    @torch.no_grad()
    def read(self, step: int, model: nn.Module, scale: SiteScale, images: Tensor) -> None:
        written = (0.5 + self.config.output_gain * (images - 0.5)).clamp(0, 1)
        self._refuse_infinite("image", written.mean((1, 2, 3)).tolist(), step)
        codes, _ = quantize(written.cpu().numpy())
        scores = _scores(self.jobs, model(torch.from_numpy(to_float(codes)).to(images.device)), scale).tolist()
        self._refuse_infinite("score", scores, step)
        for slot, score in enumerate(scores):
            self.traces[slot].append((step, score))
            if self.config.keep == "last" or score > self.kept[slot][0]:
                self.kept[slot] = (score, step, codes[slot])

    def _refuse_infinite(self, what: str, values: list[float], step: int) -> None:
        for job, value in zip(self.jobs, values, strict=True):
            if not np.isfinite(value):
                raise ValueError(
                    f"the {what} of {job.objective!r} became {value} at step {step}; lower step_size, or look for "
                    "infinite or missing numbers in the model's weights and site statistics"
                )

    def made(self) -> list[Made]:
        return [
            Made(codes, step, trace)
            for (_, step, codes), trace in zip(self.kept, self.traces, strict=True)
            if codes is not None
        ]


def _constrained(images: Tensor, config: SynthesisConfig) -> Tensor:
    return fix_luminance_contrast(images, config.mean_luminance, config.rms_contrast)


def _scores(jobs: list[Job], responses: Tensor, scale: SiteScale) -> Tensor:
    return torch.cat([job.objective.score(responses[slot : slot + 1], scale) for slot, job in enumerate(jobs)])


def _stream(job: Job, config: SynthesisConfig) -> torch.Generator:
    """Return the random stream of a job: a function of objective, seed and config alone."""
    digest = hashlib.sha256(f"{job.objective!r} {job.seed} {config!r}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


class _Adam:
    """Adam (Kingma & Ba 2015) ascending; each element has its own state, so images stay independent."""

    def __init__(self, latent: Tensor, step_size: float) -> None:
        self.latent, self.step_size, self.count = latent, step_size, 0
        self.first, self.second = torch.zeros_like(latent), torch.zeros_like(latent)

    @torch.no_grad()
    def __call__(self, gradient: Tensor) -> None:
        self.count += 1
        self.first.lerp_(gradient, 0.1)
        self.second.lerp_(gradient**2, 0.001)
        first = self.first / (1 - 0.9**self.count)
        second = self.second / (1 - 0.999**self.count)
        self.latent += self.step_size * first / (second.sqrt() + 1e-8)


class _GradientStd:
    """The rule of 2019: ``x + step * g / (std(g) + 1e-8)``, std over the latent of an image, mean not removed."""

    def __init__(self, latent: Tensor, step_size: float) -> None:
        self.latent, self.step_size = latent, step_size

    @torch.no_grad()
    def __call__(self, gradient: Tensor) -> None:
        std = gradient.std(tuple(range(1, gradient.ndim)), keepdim=True, unbiased=False)
        self.latent += self.step_size * gradient / (std + 1e-8)


_OPTIMIZERS: dict[str, type[_Adam] | type[_GradientStd]] = {"adam": _Adam, "gradient_std": _GradientStd}
