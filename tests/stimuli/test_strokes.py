"""Line figures against distances sampled along the lines, their size and their symmetry."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial import cKDTree

from stimuli import Display
from stimuli.families import draw, grid
from stimuli.strokes import FIGURES, Stroke

DEGREES = np.linspace(0, 1, 2001)


def line(start, end):
    return np.array(start) + DEGREES[:, None] * (np.array(end) - np.array(start))


def arc(span):
    turn = np.radians(span) * (DEGREES - 0.5)
    return np.stack([np.cos(turn), np.sin(turn)], axis=1)


def ray(degrees):
    return line((0, 0), (math.cos(math.radians(degrees)), math.sin(math.radians(degrees))))


def wedge(half):
    """Two arms from (-1, 0), each at `half` degrees to the axis, up to the unit circle."""
    length = 2 * math.cos(math.radians(half))
    across, up = length * math.cos(math.radians(half)), length * math.sin(math.radians(half))
    return np.concatenate([line((-1, 0), (-1 + across, up)), line((-1, 0), (-1 + across, -up))])


#: Points along the lines of every figure in the unit circle, written out by hand.
POINTS = {
    "bar": line((-1, 0), (1, 0)),
    "tristar": np.concatenate([ray(0), ray(120), ray(240)]),
    "cross": np.concatenate([line((-1, 0), (1, 0)), line((0, -1), (0, 1))]),
    "star": np.concatenate([ray(45 * k) for k in range(8)]),
    "acute_angle": wedge(22.5),
    "right_angle": wedge(45.0),
    "obtuse_angle": wedge(67.5),
    "quarter_arc": arc(90),
    "half_arc": arc(180),
    "three_quarter_arc": arc(270),
    "circle": arc(360),
}


@pytest.mark.parametrize("figure", FIGURES)
def test_a_figure_is_what_lies_near_its_lines(figure):
    stroke = Stroke(figure=figure, radius_deg=1.6, width_deg=0.3, orientation_deg=25.0, x_deg=0.4, y_deg=-0.3)
    turn = math.radians(25.0)
    points = 1.6 * POINTS[figure] @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    places = np.random.default_rng(0).uniform(-3, 3, (4000, 2))
    distance, _ = cKDTree(points + np.array([0.4, -0.3])).query(places)
    clear = np.abs(distance - 0.15) > 0.005
    np.testing.assert_array_equal(stroke.signal(*places[clear].T), (distance < 0.15)[clear])


def test_every_figure_is_different_and_equal_turns_count_once():
    assert set(FIGURES) == set(POINTS)
    quarter_turns = grid("stroke", figure=list(FIGURES), orientation_deg=[0, 45, 90, 180])
    assert len(quarter_turns) == 3 + 4 + 2 + 1 + 6 * 4 + 1
    assert len(draw(quarter_turns, size_px=48)) == len(quarter_turns)


@pytest.mark.parametrize("distance_cm", [40.0, 57.0, 114.0])
def test_size_in_degrees_at_every_distance(distance_cm):
    display = Display(resolution_px=(640, 480), width_cm=53.0, distance_cm=distance_cm)
    bar = Stroke(figure="bar", radius_deg=1.5, width_deg=0.5)
    white = (draw([bar], size_deg=4.0, display=display).codes()[0, 0] - 128.0) / 127.0
    assert white.sum(axis=0).max() == pytest.approx(display.deg_to_px(0.5), abs=0.3)
    assert white.max(axis=0).sum() == pytest.approx(display.deg_to_px(3.5), abs=1.0)  # with its round ends


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Stroke(figure="square"), "figure of a stroke pattern is 'square': give 'bar' or"),
        (lambda: Stroke(figure="x" * 1000), "'x{59}…: give 'bar'"),
        (lambda: Stroke(width_deg=0.0), "width_deg"),
        (lambda: Stroke(radius_deg=1e-9), "radius_deg of a stroke pattern is 1e-09: give a finite number above 0.001"),
        (lambda: draw([Stroke(width_deg=0.05)], size_px=128), "a pixel is 0.0625 deg wide"),
        (lambda: draw([Stroke(radius_deg=3.0, x_deg=1.0)], size_px=128), "reaches 4.12 deg"),
    ],
)
def test_illegal_figures(make, words):
    with pytest.raises(ValueError, match=words):
        make()
