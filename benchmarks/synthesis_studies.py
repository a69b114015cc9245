"""Longer studies of synthesis: time to a given quality, memory of many jobs, rates at many slots. See synthesis.py."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from synthesis_peers import MEAN, STD
from synthesis_peers import Task as Job
from torch import Tensor

from neural_fits.backbones import Backbone, load_backbone
from neural_fits.features import FeatureExtractor
from synth import LayerUnit, OneHot, Stretch, synthesize
from synth.driver import driver_of
from synth.engine import run
from synth.execution import Execution
from synth.jobs import Job as ImageJob
from synth.recipes import ROBUST, SynthesisConfig
from synth.store import Memory
from synth.transforms import Affine

GOAL = 0.95
#: lucent's defaults in one resampling: rotations up to 10 degrees, scales .9 to 1.1, shifts of two jitters, gray border
VIEWS = (Affine(10.0, 0.1, 7.0, border="gray"),)
OURS = {
    "ours, pixels": SynthesisConfig(param="pixels", step_size=0.03),
    "ours, Fourier": SynthesisConfig(step_size=0.05),
    "ours, Fourier, step .1": SynthesisConfig(step_size=0.1),
    "ours, Fourier, transforms": SynthesisConfig(step_size=0.05, transforms=VIEWS),
}


def quality(device: torch.device, quick: bool) -> dict[str, Any]:
    """Return CPU or device seconds until the median of 32 targets has 95 % of the best score that any method reaches.

    The score of an image is the mean of its target channel on the plain image; the best is taken over methods, target
    by target. All targets advance together, so the time is steps times targets times the time of an image and step.
    """
    size, targets, most = (48, 4, 24) if quick else (96, 32, 512)
    network = load_backbone("efficientnet-lite0").network.to(device).eval()
    job = Job(network, "blocks.4", tuple(range(targets)), size, most, device=device)
    reached: dict[str, dict[int, Tensor]] = {}
    ms: dict[str, float] = {}
    for name, config in OURS.items():
        for amp in (False, True):
            label = name + (", bf16" if amp else "")
            reached[label], ms[label] = _our_scores(job, config, amp)
            print(f"  {label}", file=sys.stderr)
    try:
        for name, views in (("lucent defaults", True), ("lucent, no transforms", False)):
            reached[name], ms[name] = _lucent_scores(job, views)
            print(f"  {name}", file=sys.stderr)
    except ImportError:
        print("  lucent is not installed", file=sys.stderr)
    best = torch.stack([torch.stack(list(scores.values())).amax(0) for scores in reached.values()]).amax(0)
    found = {}
    for name, scores in reached.items():
        medians = {step: float((score / best).median()) for step, score in scores.items()}
        steps = next((step for step, median in sorted(medians.items()) if median >= GOAL), None)
        found[name] = {
            "steps_to_95_percent": steps,
            "seconds_to_95_percent": None if steps is None else round(steps * targets * ms[name] / 1000, 2),
            "ms_per_image_step": round(ms[name], 3),
            "median_fraction_at_the_end": round(medians[max(medians)], 3),
            **_over_fp32(name, reached),
            "seconds_in_all": round(max(medians) * targets * ms[name] / 1000, 2),
        }
    return {"size_px": size, "targets": targets, "budget_steps": most, **found}


def _over_fp32(name: str, reached: dict[str, dict[int, Tensor]]) -> dict[str, float]:
    """Return the score that bfloat16 gradients reached, in parts of that of float32: median over targets."""
    full = reached.get(name.removesuffix(", bf16"), {})
    if not name.endswith(", bf16") or not full:
        return {}
    best, best_full = (torch.stack(list(scores.values())).amax(0) for scores in (reached[name], full))
    return {"bf16_score_over_fp32": round(float((best / best_full).median()), 4)}


def _seconds(work: Any, device: torch.device) -> float:
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - began


def _our_scores(job: Job, config: SynthesisConfig, amp: bool) -> tuple[dict[int, Tensor], float]:
    bare = FeatureExtractor(Backbone("module:bench", job.network, MEAN, STD, job.size_px), job.layer, job.size_px)
    objectives = [LayerUnit(job.layer, channel) for channel in job.targets]
    driver = driver_of(bare, objectives, job.device)
    config = replace(config, steps=job.steps, check_every=8, keep="last")
    task = Execution(job.device, 8, amp, "none").task(driver, config)
    store = Memory()
    jobs = [ImageJob(objective, 0) for objective in objectives]
    seconds = _seconds(lambda: run(task, jobs, slots=8, store=store), job.device)
    traces = [dict(store.made(k).trace) for k in range(len(objectives))]
    scores = {step: torch.tensor([trace[step] for trace in traces]) for step in traces[0]}
    return scores, 1000 * seconds / (job.steps * len(jobs))


def _lucent_scores(job: Job, views: bool) -> tuple[dict[int, Tensor], float]:
    from lucent.optvis import objectives, param, render
    from synthesis_peers import scores

    steps = tuple(range(8, job.steps + 1, 8))
    found: dict[int, list[Tensor]] = {step: [] for step in steps}
    seconds = 0.0
    with torch.random.fork_rng():
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 - lucent draws there
        for first in range(0, len(job.targets), 8):
            part = job.targets[first : first + 8]
            network, layer = job.copy_of_network(), job.layer.replace(".", "_")
            wanted = objectives.Objective.sum([objectives.channel(layer, c, batch=k) for k, c in enumerate(part)])
            kept: list[np.ndarray] = []

            def work(network: Any = network, wanted: Any = wanted, count: int = len(part), kept: list = kept) -> None:
                kept += render.render_vis(
                    network,
                    wanted,
                    param_f=lambda: param.image(job.size_px, batch=count),
                    transforms=None if views else [],
                    thresholds=steps,
                    fixed_image_size=job.size_px,
                    show_image=False,
                    progress=False,
                )

            seconds += _seconds(work, job.device)
            for step, images in zip(steps, kept, strict=True):
                found[step].append(scores(replace(job, targets=part), torch.from_numpy(images).permute(0, 3, 1, 2)))
    return {step: torch.cat(parts) for step, parts in found.items()}, 1000 * seconds / (job.steps * len(job.targets))


def memory(device: torch.device, quick: bool) -> dict[str, Any]:
    """Return the peak memory of a process that makes few, and many, small images into a folder."""
    del device
    few, many = (20, 200) if quick else (100, 10_000)
    found = {}
    for jobs in (few, many):
        ran = subprocess.run(
            [sys.executable, __file__, str(jobs)], capture_output=True, text=True, check=True, timeout=3600
        )
        found[f"{jobs}_jobs"] = json.loads(ran.stdout.splitlines()[-1])
    return found


def _many_small(jobs: int) -> dict[str, Any]:
    torch.set_num_threads(2)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 5, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(8, 10, 3))
    bare = FeatureExtractor(Backbone("module:small", network, MEAN, STD, 32), "2", 32)
    objectives = [LayerUnit("2", channel) for channel in range(10)]
    with tempfile.TemporaryDirectory() as place:
        began = time.perf_counter()
        made = synthesize(
            bare,
            objectives,
            seeds=jobs // 10,
            recipe=SynthesisConfig(steps=2),
            out=f"{place}/set",
            slots=8,
            device="cpu",
        )
        seconds = time.perf_counter() - began
    # not ru_maxrss, which a child inherits from its parent
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {"images": len(made.stimuli), "peak_mb": round(int(peak.split()[1]) / 1024), "seconds": round(seconds, 1)}


def scale(device: torch.device, quick: bool) -> dict[str, Any]:
    """Return image-steps a second at several numbers of slots, and seconds for a whole population, on a GPU."""
    if device.type != "cuda":
        return {"unmeasured": "no GPU here"}
    from neural_fits import SimulatedBrain, fit_sites
    from stimuli import natural_photos

    natural = natural_photos(160 if quick else 640, size_px=128)
    sites = 8 if quick else 107
    model = fit_sites(natural, SimulatedBrain(natural, n_sites=sites).record(natural), device=device)
    config = replace(ROBUST, start="pink", channels=3, steps=20, check_every=20)
    found: dict[str, Any] = {}
    objectives = [Stretch(site) for site in model.site_ids]
    driver = driver_of(model, objectives, device)
    for slots in (32, 64) if quick else (32, 64, 128, 256, 512, 1024):
        for accelerate in ("none", "graphs"):
            for amp in (False, True):
                task = Execution(device, slots, amp, accelerate).task(driver, config)
                jobs = [ImageJob(objectives[k % sites], k) for k in range(slots)]
                run(task, jobs, slots=slots, store=Memory())  # kernels are chosen
                seconds = _seconds(lambda t=task, j=jobs, s=slots: run(t, j, slots=s, store=Memory()), device)
                found[f"{slots} slots, {accelerate}, {'bf16' if amp else 'fp32'}"] = round(slots * 20 / seconds)
    wanted = objectives + [OneHot(site) for site in model.site_ids]
    for amp in (False, True):
        seconds = _seconds(lambda a=amp: synthesize(model, wanted, seeds=5, device=device, amp=a), device)
        found[f"seconds for {sites} sites x 5 seeds x 2 objectives, {'bf16' if amp else 'fp32'}"] = round(seconds, 1)
    return found


if __name__ == "__main__":
    print(json.dumps(_many_small(int(sys.argv[1]))))
