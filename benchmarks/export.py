"""Export of a large set for all rigs: seconds against the floor of copying and hashing, and memory against the number.

A set of 1/f noise lies on the disk, made in parts. A process of its own loads and exports it for every rig; another one
does the same with a fifth of the images. Each tells its peak memory beyond what the imports take, and its
processor time, which is about what the export takes on a machine with nothing else to do. The floor, in the
same run, is what no export avoids: copying the bytes of the images once and hashing the whole result once. ``--json``
adds one JSON object on the last line.

    python benchmarks/export.py [--images 5000] [--size-px 256] [--rig psychopy ...] [--json]
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stimuli import Display, StimulusSet
from stimuli.export.export_set import RIGS, export_set
from stimuli.provenance import sha256_file
from stimuli.sequence import SequenceConfig
from stimuli.textures import pink_noise

PART = 250


def make(folder: Path, count: int, size_px: int) -> None:
    """Save a set in parts, so that it is never in memory, and then as a whole."""
    parts = []
    display = Display(width_cm=53.0 * 288 / size_px, refresh_hz=60.0)  # a pixel of the file is one of the screen
    for first in range(0, count, PART):
        images = pink_noise(min(PART, count - first), seed=first, size_px=size_px, size_deg=8.0, display=display)
        ids = [f"noise_{k}" for k in range(first, first + len(images))]
        table = images.table.drop(columns=["stimulus_id", "filename"]).assign(stimulus_id=ids)
        part = StimulusSet.from_arrays(images.codes(), table, size_deg=8.0, display=display, name="noise")
        parts.append(part.save(folder / "parts" / str(first)))
    StimulusSet.concat(parts, name="noise").save(folder / "set")
    shutil.rmtree(folder / "parts")


def peak_mb() -> float:
    """Return the peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_one(source: Path, out: Path, count: int, rigs: list[str]) -> dict[str, float]:
    """Export the first images of a set, after a small export has imported everything."""
    whole = StimulusSet.load(source, verify=False)
    export_set(whole.select(slice(0, 2)), out / "warm", rigs=rigs, sequence=SequenceConfig(repeats=2))
    before, worked, began = peak_mb(), time.process_time(), time.perf_counter()
    steps = [("start", began)]
    stimuli = StimulusSet.load(source).select(slice(0, count))
    export_set(
        stimuli,
        out / "set",
        rigs=rigs,
        sequence=SequenceConfig(repeats=10),
        progress=lambda line: steps.append((line, time.perf_counter())),
    )
    seconds = time.perf_counter() - began
    steps.append(("end", began + seconds))
    named = {line: round(after - at, 2) for (line, at), (_, after) in itertools.pairwise(steps)}
    took = {"images": count, "seconds": seconds, "cpu_s": time.process_time() - worked, "steps": named}
    return {**took, "extra_mb": peak_mb() - before, "imports_mb": before}


def floor(exported: Path, out: Path) -> dict[str, float]:
    """Copy the images once and hash everything once, as fast as this machine does."""
    began = time.perf_counter()
    out.mkdir()
    for path in sorted((exported / "images").iterdir()):
        shutil.copyfile(path, out / path.name)
    copied = time.perf_counter() - began
    files = [path for path in exported.rglob("*") if path.is_file()]
    began = time.perf_counter()
    for path in files:
        sha256_file(path)
    size = sum(path.stat().st_size for path in files) / 1e6
    return {"copy_s": copied, "hash_s": time.perf_counter() - began, "files": len(files), "exported_mb": size}


def main() -> None:
    """Make the set, export it in processes of their own, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--size-px", type=int, default=256)
    parser.add_argument("--rig", nargs="+", default=list(RIGS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run_one(*options.child, options.images, options.rig)))
        return
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        make(place, options.images, options.size_px)
        runs = []
        for count in (max(1, options.images // 5), options.images):
            out = place / f"out{count}"
            command = [sys.executable, __file__, "--child", str(place / "set"), str(out), "--images", str(count)]
            told = subprocess.run([*command, "--rig", *options.rig], check=True, capture_output=True, text=True).stdout
            runs.append(json.loads(told.splitlines()[-1]))
        lowest = floor(out / "set", place / "floor")
    few, many = runs
    needed = lowest["copy_s"] + lowest["hash_s"]
    result = {
        "images": options.images,
        "size_px": options.size_px,
        "rigs": options.rig,
        "seconds": round(many["seconds"], 1),
        "cpu_s": round(many["cpu_s"], 1),
        "floor_s": round(needed, 2),
        "ratio_to_floor": round(many["seconds"] / needed, 1),
        "extra_mb": {str(run["images"]): round(run["extra_mb"], 1) for run in runs},
        "extra_kb_per_image": round(1024 * (many["extra_mb"] - few["extra_mb"]) / (many["images"] - few["images"]), 2),
        "imports_mb": round(many["imports_mb"], 1),
        "steps_s": many["steps"],
        **{key: round(value, 2) for key, value in lowest.items()},
    }
    for key, value in result.items():
        print(f"{key:20} {value}")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
