"""A small exported set, for the tests of exporters."""

from __future__ import annotations

import numpy as np

from stimuli import Display, StimulusSet
from stimuli.export.bundle import Bundle
from stimuli.export.export_set import export_set
from stimuli.gray import with_gray_control
from stimuli.sequence import SequenceConfig, presentation_order

IDS = ["stretch_s1_0", "stretch-s1.0", "best.natural", "img_0012"]
SCREEN = Display(resolution_px=(1920, 1080), width_cm=53.0, distance_cm=57.0, refresh_hz=60.0)


def some_stimuli(channels=1, size_px=(24, 24)):
    """Return four noise images with every code, and columns of all kinds."""
    codes = np.random.default_rng(0).integers(0, 256, (4, channels, *size_px), dtype=np.uint8)
    table = {
        "stimulus_id": IDS,
        "filename": [f"images/{k}_{name}.png" for k, name in enumerate(IDS)],
        "family": ["synthesized", "synthesized", None, "Bäume, groß"],
        "contrast": [0.1, float("nan"), 1.0, 0.25],
        "held_out": [True, False, True, False],
        "degrees": [1, 2, 3, 4],
    }
    return StimulusSet.from_arrays(codes, table, size_deg=6.0, display=SCREEN, name="round 1: stretch")


def bundle(folder, channels=1, size_px=(24, 24), **named):
    """Save the set with its gray control and an order, as export_set hands them to an exporter."""
    stimuli = with_gray_control(some_stimuli(channels, size_px)).save(folder)
    settings = {"repeats": 3, "images_per_trial": 4, "seed": 1, "animal": "Mx 1", "day": "2026-11-23"} | named
    files = dict(zip(stimuli.stimulus_ids, stimuli.table["filename"], strict=True))
    order = presentation_order(stimuli.stimulus_ids, SequenceConfig(**settings), filenames=files, refresh_hz=60.0)
    return Bundle(stimuli, order, SCREEN, folder, "round_1_stretch", "gray")


def export(folder, rigs, **named):
    """Export the set for rigs and return the folder and the order."""
    config = SequenceConfig(**({"repeats": 3, "images_per_trial": 4, "animal": "m1", "day": "2026-11-23"} | named))
    return export_set(some_stimuli(), folder, rigs=rigs, sequence=config)
