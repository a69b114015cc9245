"""Make images in child processes that are killed; run as a script, not collected as a test.

Usage: killed_run.py FOLDER KILLS SEED makes FOLDER/whole in one go and FOLDER/killed with kills at random moments.
       killed_run.py FOLDER stages makes FOLDER/<stage> with one kill at each stage of ending a run.
Prints JSON: how many kills hit a running child, or the name of each stage and whether its kill hit.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neural_fits.backbones import Backbone
from neural_fits.features import FeatureExtractor
from neural_fits.readout import LinearReadout
from neural_fits.site_model import SiteInfo, SiteModel
from synth import OneHot, Stretch, synthesize
from synth.recipes import recipe

SITES = ("a", "b", "c")


def model() -> SiteModel:
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2))
    for weight in network.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) / 8
    extractor = FeatureExtractor(Backbone("module:Tiny", network, (0.5,) * 3, (0.25,) * 3, 48), "2")
    shape = extractor(torch.zeros(1, 3, 48, 48)).shape[1:]
    readout = LinearReadout(torch.randn(3, *shape, generator=generator), torch.zeros(3))
    return SiteModel(extractor, readout, SiteInfo(SITES, (0.0,) * 3, (1.0,) * 3, (48, 48), 6.0, "spikes"))


def make(out: Path, steps: int = 120, seeds: int = 3, **options: Any) -> None:
    config = recipe("robust", steps=steps, check_every=4, patience=10)
    objectives = [Stretch(site) for site in SITES] + [OneHot(site) for site in SITES]
    begun = out.exists() or (out.with_suffix(".partial") / "run.json").exists()
    synthesize(
        model(), objectives, seeds=seeds, recipe=config, out=out, resume=begun,
        slots=3, checkpoint_s=0.02, device="cpu", **options,
    )  # fmt: skip


def child(work: Callable[[], None]) -> int:
    """Return the process number of a child that does the work."""
    number = os.fork()
    if not number:
        try:
            work()
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
        os._exit(0)
    return number


def killed(number: int) -> bool:
    """Wait for a child, and say whether it was killed; end when it failed."""
    _, status = os.waitpid(number, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.waitstatus_to_exitcode(status):
        sys.exit(1)
    return False


def at_random(folder: Path, kills: int, seed: int) -> int:
    began = time.monotonic()
    killed(child(lambda: make(folder / "whole")))
    whole = time.monotonic() - began
    out, chance, hits = folder / "killed", random.Random(seed), 0
    while not out.exists() or out.with_suffix(".partial").exists():
        number = child(lambda: make(out))
        if hits < kills:
            last, most = time.monotonic() + chance.uniform(0, whole / 3), (hits + 1) * 12 / kills
            while time.monotonic() < last and len(list(out.with_suffix(".partial").glob("done/*.json"))) <= most:
                time.sleep(0.003)  # however fast the machine is, images are left for the kills to come
            os.kill(number, signal.SIGKILL)
        hits += killed(number)
    return hits


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(after: int, where: Any, name: str) -> None:
    """Let this process die in a call of a function, once so many calls are done."""
    real, calls = getattr(where, name), []

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) > after:
            die()
        return real(*args, **kwargs)

    setattr(where, name, call)


def stages() -> dict[str, Callable[[], None]]:
    from stimuli import files, png
    from synth import run_folder

    module = sys.modules["synth.synthesize"]
    return {
        "first": lambda: dying(0, run_folder, "atomic_write"),  # before run.json
        "image": lambda: dying(3, Path, "replace"),  # an image without its trace
        "assembled": lambda: dying(0, module, "with_forecast"),
        "saving": lambda: dying(6 + 3, png, "encode"),  # six images were encoded before, three for the set
        "swapping": lambda: dying(0, files, "_swap"),
        "saved": lambda: dying(0, module, "remove_run"),
        "removing": lambda: dying(5, os, "unlink"),
        "removed": lambda: dying(0, os, "rmdir"),
    }


def at_stages(folder: Path) -> dict[str, bool]:
    hits = {}
    killed(child(lambda: make(folder / "whole", steps=8, seeds=1)))
    for name, prepare in stages().items():
        out = folder / name

        def work(out: Path = out, prepare: Callable[[], None] = prepare) -> None:
            prepare()
            make(out, steps=8, seeds=1)

        hits[name] = killed(child(work))
        killed(child(lambda out=out: make(out, steps=8, seeds=1)))  # type: ignore[misc]
    return hits


def main() -> None:
    folder = Path(sys.argv[1])
    if sys.argv[2] == "stages":
        print(json.dumps(at_stages(folder)))
    else:
        print(json.dumps(at_random(folder, int(sys.argv[2]), int(sys.argv[3]))))


if __name__ == "__main__":
    main()
