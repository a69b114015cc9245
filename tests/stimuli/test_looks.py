"""Which patterns look the same: those, and no others, have one key, and a grid has every look once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stimuli.families import FAMILIES, draw, grid
from stimuli.gratings import Gabor, Grating
from stimuli.polar import Hyperbolic, LogPolar, Radial
from stimuli.raster import rendered
from stimuli.shape_file import OutlineShape
from stimuli.shapes import ContourShape

SQUARE = ((1, 1), (-1, 1), (-1, -1), (1, -1))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Grating(), Grating(orientation_deg=180.0)),
        (Grating(phase_deg=30.0), Grating(orientation_deg=-180.0, phase_deg=330.0)),
        (Grating(phase_deg=-90.0), Grating(phase_deg=270.0)),
        (Grating(contrast=-0.5), Grating(contrast=0.5, phase_deg=180.0)),
        (Grating(frequency_cpd=0.8, orientation_deg=30.0, x_deg=0.5, y_deg=-2.0),
         Grating(frequency_cpd=0.8, orientation_deg=30.0, phase_deg=-288 * (0.5 * math.cos(math.pi / 6) - 1.0))),
        (Gabor(orientation_deg=20.0, phase_deg=70.0, x_deg=1.0),
         Gabor(orientation_deg=200.0, phase_deg=-70.0, x_deg=1.0)),
        (Gabor(contrast=-1.0, zero_mean=True), Gabor(phase_deg=540.0, zero_mean=True)),
        (Radial(phase_deg=0.0, contrast=-1.0), Radial(phase_deg=180.0)),
        (LogPolar(radial_frequency=-3.0, angular_cycles=2, phase_deg=10.0),
         LogPolar(radial_frequency=3.0, angular_cycles=-2, phase_deg=-10.0)),
        (LogPolar(radial_frequency=0.0, angular_cycles=-2), LogPolar(radial_frequency=0.0, angular_cycles=2)),
        (Hyperbolic(), Hyperbolic(orientation_deg=90.0, phase_deg=360.0)),
        (Hyperbolic(orientation_deg=-60.0), Hyperbolic(orientation_deg=30.0)),
        (ContourShape(radii=(1.0, 0.5, 1.0, 0.5)), ContourShape(radii=(2.0, 1.0, 2.0, 1.0), orientation_deg=180.0)),
        (OutlineShape(points=SQUARE), OutlineShape(points=SQUARE[2:] + SQUARE[:2], orientation_deg=90.0)),
        (OutlineShape(points=SQUARE), OutlineShape(points=tuple((2 * x, 2 * y) for x, y in SQUARE[::-1]))),
        (Grating(contrast=0.0), Grating(contrast=0.0, frequency_cpd=2.0)),
    ],
)  # fmt: skip
def test_what_looks_the_same_has_one_key(one, other):
    first, second = (rendered(pattern.fitted(72, 8.0), 72, 8.0) for pattern in (one, other))
    np.testing.assert_allclose(first, second, atol=1e-9)
    assert one.key() == other.key()


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_one_key_is_one_look(name, data):
    """Of coarse values many look the same; no two that do not may share a key."""
    values = {
        "orientation_deg": [0.0, 90.0, 180.0], "phase_deg": [0.0, 90.0, 180.0, 270.0, 360.0], "contrast": [-1.0, 1.0],
        "angular_cycles": [-2, 2], "radial_frequency": [-3.0, 0.0, 3.0], "x_deg": [0.0, 1.0], "y_deg": [0.0],
        "radii": [(1.0, 0.5) * 2, (2.0, 1.0) * 2, (1.0, 1.0, 0.5, 0.5)], "figure": ["bar", "cross", "right_angle"],
        "radius_deg": [1.0], "zero_mean": [False, True], "aspect": [1.0], "width_deg": [0.5],
        "frequency_cpd": [1.0], "sigma_deg": [0.5],
    }  # fmt: skip
    cycles = {"angular_cycles": [2, 4]} if name == "radial" else {}
    parameters = {key: (values | cycles)[key] for key in FAMILIES[name].ranges}
    pair = [FAMILIES[name](**{key: data.draw(st.sampled_from(v)) for key, v in parameters.items()}) for _ in range(2)]
    seen = [rendered(pattern.fitted(36, 8.0), 36, 8.0) for pattern in pair]
    assert (pair[0].key() == pair[1].key()) == np.allclose(*seen, atol=1e-6)


def test_a_grid_has_every_look_once():
    assert [g.orientation_deg for g in grid("grating", orientation_deg=range(0, 360, 45))] == [0.0, 45.0, 90.0, 135.0]
    round_clock = grid("grating", orientation_deg=range(0, 361, 45), phase_deg=range(0, 361, 90), contrast=[-1, 1])
    assert len(draw(round_clock, size_px=72)) == 4 * 4
    assert len(draw(grid("hyperbolic", orientation_deg=[0, 45, 90], phase_deg=[0, 360]), size_px=72)) == 2


def test_the_seed_of_the_sampler_does_not_make_a_look():
    assert Grating(seed=1).key() == Grating(seed=2).key() != Grating(phase_deg=1.0).key()
