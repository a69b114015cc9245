"""The networks that are trained here: what they reach on held-out pictures, and how long that takes on a CPU.

Capsules: a network trained on the training part of scikit-learn's digits, read on the held-out part, for a stratified
and for an ordered split (other writers); beside it the installed one. Drawings are judged by their squared error,
against that of the mean picture of each digit. Routing: our tensor operations against the paper's procedure as plain
loops in numpy, and against the same with a loop over lower capsules only, in one run. U-Net: trained on scenes of
cut-outs, read on scenes on other photographs, as intersection over union of the pixels of objects.
Processor time is about what the training takes on a machine with nothing else to do, over all threads. ``--json`` adds
one JSON object on the last line.

    python benchmarks/networks.py [--only capsules routing unet] [--threads 2] [--small] [--json]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch

from neural_fits.backbones import load_backbone
from neural_fits.networks.capsule_backbone import DIGIT_TRAINING
from neural_fits.networks.capsule_layers import dynamic_routing
from neural_fits.networks.capsule_training import CapsuleTraining, accuracy, train_capsules
from neural_fits.networks.capsules import CapsuleNetwork
from neural_fits.networks.digits import DigitSplit, digits

#: the U-Net of the scenes of cut-outs
UNET = {"depth": 3, "width": 16, "padding": "same", "norm": "batch"}
#: the routing of the network of digits: image, upper, lower, dim
ROUTING = (16, 10, 128, 16)


def capsules(small: bool) -> dict[str, object]:
    """Train on both splits of the digits."""
    result: dict[str, object] = {}
    for split in ("stratified", "order"):
        parts = digits(split)
        began, used = time.perf_counter(), time.process_time()
        training = CapsuleTraining(epochs=2) if small else DIGIT_TRAINING
        network = train_capsules(parts.images, parts.labels, training).network
        result[f"capsules_{split}_seconds"] = round(time.perf_counter() - began, 1)
        result[f"capsules_{split}_cpu_s"] = round(time.process_time() - used, 1)
        result |= _read(f"capsules_{split}", network, parts)
    result |= _read("capsules_installed", load_backbone("capsnet-digits").network, digits())
    result["capsules_parameters"] = sum(each.numel() for each in network.parameters())
    return result


@torch.no_grad()
def _read(name: str, network: CapsuleNetwork, parts: DigitSplit) -> dict[str, object]:
    """Return how well held-out digits are read and drawn."""
    images, labels = parts.held_out_images, parts.held_out_labels
    drawn = network.decode(network.capsules(images))
    means = torch.stack([parts.images[parts.labels == digit].mean(0) for digit in range(10)])
    return {
        f"{name}_held_out": len(labels),
        f"{name}_accuracy": round(accuracy(network, images, labels), 4),
        f"{name}_drawing_error": round(float((drawn - images).square().mean()), 4),
        f"{name}_mean_picture_error": round(float((means[labels] - images).square().mean()), 4),
    }


def loops(predictions: np.ndarray, iterations: int = 3) -> np.ndarray:
    """Return the upper capsules by the paper's procedure, one number after the other."""
    images, uppers, lowers, dims = predictions.shape
    made = np.zeros((images, uppers, dims))
    for n in range(images):
        agreed = np.zeros((lowers, uppers))
        for _ in range(iterations):
            shares = np.exp(agreed)
            shares /= shares.sum(1, keepdims=True)
            for j in range(uppers):
                total = [0.0] * dims
                for i in range(lowers):
                    for d in range(dims):
                        total[d] += shares[i, j] * predictions[n, j, i, d]
                length = sum(value**2 for value in total) ** 0.5
                made[n, j] = [value * length / (1 + length**2) for value in total]
            for i in range(lowers):
                for j in range(uppers):
                    agreed[i, j] += sum(predictions[n, j, i, d] * made[n, j, d] for d in range(dims))
    return made


def half_loops(predictions: np.ndarray, iterations: int = 3) -> np.ndarray:
    """Return the upper capsules with numpy over images, upper capsules and dimensions, and a loop over lower ones."""
    images, uppers, lowers, _ = predictions.shape
    agreed = np.zeros((images, uppers, lowers))
    for _ in range(iterations):
        shares = np.exp(agreed)
        shares /= shares.sum(1, keepdims=True)
        total = np.zeros((images, uppers, predictions.shape[3]))
        for i in range(lowers):
            total += shares[:, :, i, None] * predictions[:, :, i]
        length = np.linalg.norm(total, axis=2, keepdims=True)
        made = total * length / (1 + length**2)
        for i in range(lowers):
            agreed[:, :, i] += (predictions[:, :, i] * made).sum(2)
    return made


def routing(small: bool) -> dict[str, object]:
    """Time the routing of the digit network against loops."""
    shape = (2, *ROUTING[1:]) if small else ROUTING
    predictions = np.random.default_rng(0).normal(0, 0.3, shape)
    tensor = torch.from_numpy(predictions).float()
    with torch.no_grad():
        ours = _best(lambda: dynamic_routing(tensor), 3 if small else 50)
        plain, partly = _best(lambda: loops(predictions), 1), _best(lambda: half_loops(predictions), 1 if small else 10)
        error = float(np.abs(dynamic_routing(tensor)[0].numpy() - loops(predictions)).max())
    return {
        "routing_images": shape[0],
        "routing_ms": round(1e3 * ours, 3),
        "routing_loops_ms": round(1e3 * plain, 1),
        "routing_half_loops_ms": round(1e3 * partly, 2),
        "routing_times_faster_than_loops": round(plain / ours, 1),
        "routing_times_faster_than_half_loops": round(partly / ours, 1),
        "routing_largest_difference": float(f"{error:.1e}"),
    }


def _best(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def unet(small: bool) -> dict[str, object]:
    """Train on scenes of cut-outs, and find the objects on photographs never seen."""
    from neural_fits.networks.cutout_segmentation import cutout_task
    from neural_fits.networks.segmentation import SegmentationConfig, fit_segmentation
    from neural_fits.networks.segmentation_scores import matched_objects, mean_iou
    from neural_fits.networks.unet import UNet

    train, test = cutout_task(8, 4) if small else cutout_task()
    config = SegmentationConfig(steps=4) if small else SegmentationConfig()
    began, used = time.perf_counter(), time.process_time()
    network = UNet(**UNET)
    fitted = fit_segmentation(network, train.images, train.objects, config)
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    found, truth = fitted.mask(test.images), test.objects > 0
    return {
        "unet_iou": round(mean_iou(found, truth), 4),
        "unet_objects_f1": round(matched_objects(fitted.objects(test.images), test.objects).f1, 4),
        "unet_network": UNET,
        "unet_scenes": len(test.images),
        "unet_seconds": round(seconds, 1),
        "unet_cpu_s": round(cpu, 1),
        "unet_parameters": sum(each.numel() for each in fitted.network.parameters()),
    }


PARTS = {"capsules": capsules, "routing": routing, "unet": unet}


def main() -> None:
    """Run the parts asked for, print what they reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="seconds, to see that it runs; figures mean nothing")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result: dict[str, object] = {"threads": options.threads}
    for name in options.only:
        found = PARTS[name](options.small)
        for key, value in found.items():
            print(f"{key:40} {value}", flush=True)
        result |= found
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
