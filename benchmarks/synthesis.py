"""Synthesis against its floor and its peers, in one run: time per image and step, and time to a given quality.

Networks have random weights where speed alone counts. Figures are CPU time of one thread on a CPU, and on a GPU time
between two synchronizations; contestants take turns, medians are shown. The floor is 4 FLOP for each multiplication
below the layer (forward, and gradient with respect to the input) at the rate of a product of two 2048 x 2048 matrices
measured in the same run. ``python benchmarks/synthesis.py --json``; ``--quick`` for a small run, ``--quality``,
``--memory`` and ``--scale`` for the studies named there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from synthesis_peers import MEAN, PEERS, STD, Peer, run_peer
from synthesis_peers import Task as Job
from synthesis_studies import VIEWS, memory, quality, scale
from torch.utils.flop_counter import FlopCounterMode

from neural_fits.backbones import Backbone, load_backbone
from neural_fits.features import FeatureExtractor
from synth._allocator import keep_freed_memory
from synth._slots import Slots
from synth.driver import driver_of
from synth.engine import run
from synth.execution import Execution
from synth.image_objectives import LayerUnit
from synth.jobs import Job as ImageJob
from synth.recipes import SynthesisConfig
from synth.store import Memory

BATCH = 8
PLAIN = SynthesisConfig(param="pixels", step_size=0.03, check_every=10)
FOURIER = SynthesisConfig(param="fourier", step_size=0.05, check_every=10, transforms=VIEWS)


def networks() -> dict[str, tuple[torch.nn.Module, str]]:
    from torchvision.models import resnet18

    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = resnet18()
    for name, buffer in plain.named_buffers():  # batch norms that do something
        if buffer.is_floating_point():
            noise = torch.randn(buffer.shape, generator=generator)
            buffer.copy_(noise.abs() + 0.5 if "var" in name else 0.1 * noise)
    return {
        "resnet18 layer2": (plain, "layer2"),
        "lite0 blocks.4": (load_backbone("efficientnet-lite0").network, "blocks.4"),
    }


def lively(network: torch.nn.Module, layer: str, size_px: int) -> tuple[int, ...]:
    """Return the channels that answer noise most: one without gradient would be started anew, and cost more steps."""
    extractor = FeatureExtractor(Backbone("module:bench", network, MEAN, STD, size_px), layer, size_px)
    with torch.no_grad():
        noise = torch.rand(2, 3, size_px, size_px, generator=torch.Generator().manual_seed(0))
        means = extractor(noise).mean((0, 2, 3))
    return tuple(means.topk(BATCH).indices.tolist())


def engine_task(job: Job, config: SynthesisConfig, amp: bool = False) -> tuple[Any, list[ImageJob]]:
    """Return the engine's task and its jobs; networks are folded here, outside what is timed."""
    extractor = FeatureExtractor(Backbone("module:bench", job.network, MEAN, STD, job.size_px), job.layer, job.size_px)
    objectives = [LayerUnit(job.layer, channel) for channel in job.targets]
    driver = driver_of(extractor, objectives, job.device)
    accelerate = "graphs" if job.device.type == "cuda" else "none"
    config = replace(config, steps=job.steps)
    task = Execution(job.device, len(job.targets), amp, accelerate).task(driver, config)
    return task, [ImageJob(objective, 0) for objective in objectives]


def ours(job: Job, config: SynthesisConfig, amp: bool = False) -> Callable[[], float]:
    """Return a function that makes the images by the engine and returns seconds, its readings included."""
    task, jobs = engine_task(job, config, amp)

    def seconds() -> float:
        store = Memory()
        spent = timed(lambda: run(task, jobs, slots=len(jobs), store=store), job.device)
        assert all(store.made(k).restarts == 0 for k in range(len(jobs)))  # else there were more steps
        return spent

    return seconds


def steps_alone(job: Job, config: SynthesisConfig, amp: bool = False) -> Callable[[], float]:
    """Return a function that takes the steps, without readings, and returns seconds."""
    task, jobs = engine_task(job, replace(config, check_every=10**6), amp)
    slots = Slots(task, len(jobs))
    for number, each in enumerate(jobs):
        slots.put([(number, each, None)])

    def seconds() -> float:
        for slot in slots.slots:
            slot.step = 0
        return timed(slots.advance, job.device)

    return seconds


def timed(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        began = time.perf_counter()
        work()
        torch.cuda.synchronize(device)
        return time.perf_counter() - began
    began = time.process_time()
    work()
    return time.process_time() - began


def gemm_seconds(device: torch.device, dtype: torch.dtype, times: int = 2) -> float:
    """Return seconds for one FLOP of a large product."""
    a, b = (torch.ones(2048, 2048, device=device, dtype=dtype) for _ in range(2))
    return timed(lambda: [a @ b for _ in range(times)], device) / (times * 2 * 2048**3)


def flops(job: Job) -> float:
    """Return the FLOP of one image and step: 4 for each multiply-accumulate below the layer."""
    extractor = FeatureExtractor(Backbone("module:bench", job.network, MEAN, STD, job.size_px), job.layer, job.size_px)
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        extractor(torch.zeros(1, 3, job.size_px, job.size_px, device=job.device))
    return 2.0 * counted.get_total_flops()


def speed(job: Job, rounds: int) -> dict[str, Any]:
    """Return medians over rounds, every contestant once a round: ms per image and step, and ratios to ours."""
    one = replace(job, targets=job.targets[:1])
    with_views = replace(job, transforms=True)
    longer = replace(job, steps=3 * job.steps)  # a reading every 10 steps, and one of the start
    work: dict[str, Callable[[], float]] = {
        "ours, steps alone": steps_alone(job, PLAIN),
        "ours, steps alone, bf16": steps_alone(job, PLAIN, amp=True),
        "ours": ours(longer, PLAIN),
        "ours, Fourier": ours(longer, replace(FOURIER, transforms=())),
        "ours, Fourier, transforms": ours(longer, FOURIER),
        "ours, Fourier, transforms, bf16": ours(longer, FOURIER, amp=True),
    }
    left_out = {}
    for peer in PEERS:
        for task in (job, with_views):
            name = peer.name + (", transforms" if task.transforms else "")
            if why := peer.missing(task):
                left_out[name] = why
            else:  # one by one, a few targets tell as much as all
                work[name] = peer_work(peer, replace(task, targets=task.targets[:2]) if "one by one" in name else task)
    rates = {"gemm fp32": torch.float32, "gemm bf16": torch.bfloat16}
    seen: dict[str, list[float]] = {name: [] for name in (*rates, *work)}
    for _ in range(rounds):
        for name, dtype in rates.items():
            seen[name].append(gemm_seconds(job.device, dtype))
        for name, call in work.items():
            images = 2 if "one by one" in name else len(job.targets)
            steps = longer.steps if name.startswith("ours") and "alone" not in name else job.steps
            seen[name].append(call() / (images * steps))
        print(f"  round {len(seen['ours'])} of {rounds}", file=sys.stderr)
    median = {name: statistics.median(values) for name, values in seen.items()}
    floor = flops(one) * median["gemm fp32"]
    ms = {name: round(1000 * value, 3) for name, value in median.items() if name not in rates}
    ours_with = median["ours, Fourier, transforms"]
    ratio = {name: round(value / ours_with, 2) for name, value in median.items() if "transforms" in name}
    plain = {
        name: round(value / median["ours"], 2) for name, value in median.items() if name in ms and name not in ratio
    }
    return {
        "ms_per_image_step": ms["ours"],
        "floor_ms": round(1000 * floor, 3),
        "gflop_per_image_step": round(flops(one) / 1e9, 3),
        "gemm_gflops": {name: round(1e-9 / median[name], 1) for name in rates},
        "gemm_fraction": round(floor / median["ours, steps alone"], 3),
        "gemm_fraction_with_readings": round(floor / median["ours"], 3),
        "amp_speedup": round(median["ours, steps alone"] / median["ours, steps alone, bf16"], 2),
        "amp_gemm_fraction": round(flops(one) * median["gemm bf16"] / median["ours, steps alone, bf16"], 3),
        "speedup_vs_lucent_default_b1": ratio.get("lucent.render_vis, one by one, transforms"),
        "speedup_vs_lucent_default_b8": ratio.get("lucent.render_vis, one batch, transforms"),
        "ms": ms,
        "times_ours_with_equal_transforms": ratio,
        "times_ours_without": plain,
        "left_out": left_out,
    }


def peer_work(peer: Peer, task: Job) -> Callable[[], float]:
    return lambda: run_peer(peer, task)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    parser.add_argument("--quick", action="store_true", help="small images, few steps, one round")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quality", action="store_true", help="also time to 95 %% of the best score, against lucent")
    parser.add_argument("--memory", action="store_true", help="also the peak memory of 100 and of 10,000 small jobs")
    parser.add_argument("--scale", action="store_true", help="also rates at 32 to 1024 slots, and a whole population")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)
    keep_freed_memory()  # as the command line does; peers gain too
    size, steps, rounds = (64, 4, 1) if options.quick else (224, 10, 3)
    found = {}
    for name, (network, layer) in networks().items():
        targets = lively(network.eval(), layer, size)
        job = Job(network.to(device), layer, targets, size, steps, device=device)
        print(f"{name}, {size} px", file=sys.stderr)
        found[name] = speed(job, rounds)
    first = next(iter(found.values()))
    contract = ("ms_per_image_step", "gemm_fraction", "amp_speedup")
    contract += ("speedup_vs_lucent_default_b1", "speedup_vs_lucent_default_b8")
    result: dict[str, Any] = {"device": options.device, **{key: first[key] for key in contract}, "networks": found}
    for name, study in (("quality", quality), ("memory", memory), ("scale", scale)):
        if getattr(options, name):
            result[name] = study(device, options.quick)
    if not options.json:
        for name, figures in found.items():
            print(name)
            for key, value in figures.items():
                rows = value.items() if isinstance(value, dict) else [("", value)]
                for row, number in rows:
                    print(f"  {key:36s} {row:44s} {number}")
        print({key: value for key, value in result.items() if key != "networks"})
    print(json.dumps(result))


if __name__ == "__main__":
    main()
