"""Shapes against an independent spline, polygon test and curvature; hostile coordinate files."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon
from scipy.interpolate import BSpline

from stimuli import Display, StimulusSet
from stimuli.families import draw
from stimuli.shape_file import MAX_BYTES, OutlineShape, read_shapes
from stimuli.shapes import BASE_SHAPES, ContourShape, closed_spline, convexity_radii, inside


def periodic_spline(control):
    """The same curve by scipy: uniform cubic B-spline, the control points continued round."""
    n = len(control)
    around = np.vstack([control[-1:], control, control[:2]])
    return BSpline(np.arange(-3, n + 4), around, 3)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(3, 20), seed=st.integers(0, 99))
def test_the_spline_is_the_uniform_cubic_b_spline(n, seed):
    control = np.random.default_rng(seed).uniform(-1, 1, (n, 2))
    reference = periodic_spline(control)
    t = np.arange(n * 8) / 8
    for derivative in range(3):
        ours = closed_spline(control, steps=8, derivative=derivative)
        np.testing.assert_allclose(ours, reference(t, nu=derivative), atol=1e-9)


def test_the_weights_of_a_segment():
    """The four weights of the formula, written out, at an arbitrary place."""
    control = np.array([[1.0, 0.0], [0.5, 2.0], [-1.0, 0.5], [-0.5, -1.0], [0.7, -0.9]])
    t = 0.25
    weights = np.array([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    np.testing.assert_allclose(closed_spline(control, steps=4)[4 + 1], weights @ control[:4])  # segment 1


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), n=st.integers(3, 30))
def test_inside_agrees_with_matplotlib_on_simple_polygons(seed, n):
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * math.pi, n))
    polygon = rng.uniform(0.5, 2, n)[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    places = rng.uniform(-2, 2, (300, 2))
    np.testing.assert_array_equal(inside(polygon, *places.T), Polygon(polygon).contains_points(places))
    axis = rng.uniform(-2, 2, 12)
    by_rows = inside(polygon, axis[None, :], axis[:, None])
    np.testing.assert_array_equal(by_rows, inside(polygon, *np.meshgrid(axis, axis)))


def test_inside_is_even_odd():
    angle = np.arange(5) * (4 * math.pi / 5)
    pentagram = np.stack([np.cos(angle), np.sin(angle)], 1)
    assert not inside(pentagram, np.array(0.0), np.array(0.0))
    assert inside(pentagram, np.array(0.8), np.array(0.0))


def test_a_disk_has_its_area_and_curvature():
    disk = ContourShape(radii=(1.0,) * 32, radius_deg=2.0)
    codes = draw([disk], size_px=128).codes()[0, 0]
    white = ((codes - 128.0) / 127.0).sum() * (8.0 / 128) ** 2
    assert white == pytest.approx(math.pi * 4.0, rel=0.005)
    assert len(np.unique(codes)) > 20  # the edge has steps between: antialiased
    assert list(disk.curvature_per_deg().values()) == pytest.approx([0.5] * 8, rel=0.01)


@pytest.mark.parametrize("shape", [BASE_SHAPES[7], BASE_SHAPES[30], (1.0, 0.4, 0.9, 0.6, 0.5)])
def test_area_and_curvature_of_any_contour(shape):
    """Area by the shoelace formula on scipy's curve, curvature from its derivatives at the angle."""
    contour = ContourShape(radii=shape, radius_deg=3.0, orientation_deg=20.0)
    angle = np.arange(len(shape)) * 2 * math.pi / len(shape) + math.radians(20.0)
    control = np.array(shape)[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    t = np.linspace(0, len(shape), 20_000, endpoint=False)
    curve = periodic_spline(control)
    place, first, second = (curve(t, nu=k) for k in range(3))
    scale = 3.0 / np.hypot(*place.T).max()
    corners = scale * place
    area = 0.5 * np.sum(corners[:, 0] * np.roll(corners[:, 1], -1) - corners[:, 1] * np.roll(corners[:, 0], -1))
    codes = draw([contour], size_px=128).codes()[0, 0]
    assert ((codes - 128.0) / 127.0).sum() * (8.0 / 128) ** 2 == pytest.approx(area, rel=0.01)
    curvature = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    curvature /= np.hypot(*first.T) ** 3 * scale
    direction = np.degrees(np.arctan2(place[:, 1], place[:, 0]))
    for position, measured in contour.curvature_per_deg().items():
        off = (direction - position + 180.0) % 360.0 - 180.0
        assert measured == pytest.approx(curvature[np.argmin(np.abs(off))], abs=0.03)


def test_tips_and_dents_are_where_they_were_asked():
    tips = ["sharp", "", "", "broad", "", "", "", ""]
    for dented in (False, True):
        shape = ContourShape(radii=convexity_radii(tips, dented=dented), radius_deg=2.0)
        bent = shape.curvature_per_deg()
        assert bent[0] > 1.3 * bent[135] > 0.65  # the disk of this radius has 0.5
        turned = dataclasses.replace(shape, orientation_deg=90.0)
        assert turned.curvature_per_deg()[90] == pytest.approx(bent[0])
        columns = turned.columns()
        assert columns["curvature_at_090_per_deg"] == pytest.approx(bent[0])
    round_, dented = (convexity_radii(["broad", "", "broad", ""] * 2, dented=d) for d in (False, True))
    between = [ContourShape(radii=radii).curvature_per_deg()[45] for radii in (round_, dented)]
    assert between[1] < between[0] < 0


@pytest.mark.parametrize("distance_cm", [40.0, 57.0, 114.0])
def test_size_in_degrees_at_every_distance(distance_cm):
    display = Display(resolution_px=(640, 480), width_cm=53.0, distance_cm=distance_cm)
    codes = draw([ContourShape(radii=(1.0,) * 24, radius_deg=1.5)], size_deg=4.0, display=display).codes()[0, 0]
    across = ((codes[len(codes) // 2] - 128.0) / 127.0).sum()
    assert across == pytest.approx(display.deg_to_px(3.0), abs=1.0)


@settings(max_examples=15, deadline=None)
@given(
    base=st.sampled_from(BASE_SHAPES),
    radius=st.floats(0.8, 2.4),
    turn=st.floats(-180.0, 180.0),
    x=st.floats(-1.0, 1.0),
    y=st.floats(-1.0, 1.0),
)
def test_the_farthest_point_is_at_the_radius(base, radius, turn, x, y):
    shape = ContourShape(radii=base, radius_deg=radius, orientation_deg=turn, x_deg=x, y_deg=y)
    assert np.hypot(*(shape.placed() - [x, y]).T).max() == pytest.approx(radius)
    codes = draw([shape], size_px=96).codes()[0, 0]
    rows, columns = np.nonzero(codes > 160)
    across = ((columns + 0.5) / 96 - 0.5) * 8.0 - x
    up = -((rows + 0.5) / 96 - 0.5) * 8.0 - y
    assert radius - 0.25 < np.hypot(across, up).max() < radius + 0.1


def test_a_positive_turn_is_counterclockwise():
    arm = ContourShape(radii=convexity_radii(["sharp"] + [""] * 7, dented=True), radius_deg=3.0)
    right, up = (draw([dataclasses.replace(arm, orientation_deg=t)], size_px=65).codes()[0, 0] for t in (0.0, 90.0))
    assert right[32, 50] > 200 > 130 > right[32, 14]
    np.testing.assert_allclose(np.rot90(right.astype(int)), up, atol=8)


def test_a_contour_beside_its_origin_has_no_curvature_there():
    shape = ContourShape(radii=(1000.0, 1.0, 1.0))
    beside = shape.curvature_per_deg()
    assert math.isnan(beside[180])
    # toward 0 deg the contour passes twice; the outer passage is the tip, at the first control point
    place, first, second = (closed_spline(shape.control_points(), derivative=k)[0] for k in range(3))
    tip = (first[0] * second[1] - first[1] * second[0]) / np.hypot(*first) ** 3 * np.hypot(*place) / 1.5
    assert beside[0] == pytest.approx(tip, rel=0.01)


def test_rotational_symmetry_counts_once():
    cross = convexity_radii(["sharp", ""] * 4)
    keys = {ContourShape(radii=cross, orientation_deg=t).key() for t in range(0, 360, 45)}
    assert len(keys) == 2


def test_a_shape_that_leaves_the_image_is_refused():
    with pytest.raises(ValueError, match=r"A contour pattern reaches 4.2 deg .* ends at 4 deg"):
        draw([ContourShape(radii=(1.0,) * 16, radius_deg=3.2, x_deg=1.0)], size_px=64)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ContourShape(radii=(1.0, 2.0)), "3 to 360 positive numbers"),
        (lambda: ContourShape(radii="abc"), "3 to 360"),
        (lambda: ContourShape(radii=(1.0, 0.0, 1.0)), "A radius of a contour shape is 0.0"),
        (lambda: ContourShape(orientation_deg=math.nan), "orientation_deg"),
        (lambda: ContourShape(radius_deg=0.0), "radius_deg"),
        (lambda: convexity_radii(["pointed"]), "'pointed': give 'sharp', 'broad'"),
        (lambda: OutlineShape(points=((0, 0), (1, 1))), "2 points: give 3 to 2000"),
        (lambda: OutlineShape(points=((0, 0), (1, 1), (2, 2))), "encloses no area"),
        (lambda: OutlineShape(points=((0, 0), (1, 1), (math.inf, 2))), "A coordinate"),
    ],
)
def test_illegal_shapes(make, words):
    with pytest.raises(ValueError, match=words):
        make()


SQUARE = "shape,x,y\nsquare,1,1\nsquare,-1,1\nsquare,-1,-1\nsquare,1,-1\n"


def test_a_file_of_outlines(tmp_path):
    file = tmp_path / "shapes.csv"
    file.write_text("note,y,shape,x\n" + "".join(f",{y},wedge,{x}\n" for x, y in ((0, 0), (3, 0), (0, 2))))
    (wedge,) = read_shapes(file)
    assert (wedge.shape, wedge.radius_deg) == ("wedge", 3.0)
    made = draw([wedge], size_px=128).save(tmp_path / "set")
    right, up = np.meshgrid(((np.arange(128) + 0.5) / 128 - 0.5) * 8, -((np.arange(128) + 0.5) / 128 - 0.5) * 8)
    middle = (right > 0.1) & (up > 0.1) & (right / 3 + up / 2 < 0.95)
    away = (right < -0.1) | (up < -0.1) | (right / 3 + up / 2 > 1.05)
    codes = made.codes()[0, 0]
    assert (codes[middle] == 255).all()
    assert (codes[away] == 128).all()
    row = StimulusSet.load(tmp_path / "set").table.iloc[0]
    assert (row["family"], row["shape"], row["points"]) == ("outline", "wedge", 3)


def test_a_file_scaled_smoothed_and_with_a_byte_order_mark(tmp_path):
    file = tmp_path / "square.csv"
    file.write_text("\ufeff" + SQUARE, encoding="utf-8")
    plain, smooth = (read_shapes(file, spline=s, radius_deg=2.0, contrast=-1.0)[0] for s in (False, True))
    assert np.hypot(*plain.placed().T).max() == np.hypot(*smooth.placed().T).max() == pytest.approx(2.0)
    assert len(plain.placed()) == 4 < len(smooth.placed())
    assert draw([plain], size_px=64).codes()[0, 0, 32, 32] == 0
    assert read_shapes(file, spline=True)[0].radius_deg < math.sqrt(2)  # a spline passes inside of its points


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "0 columns 'shape'"),
        ("shape,x\na,1\n", "0 columns 'y'"),
        ("Shape,x,y\na,1,1\n", "0 columns 'shape': did you mean 'Shape'"),
        ("shape,x,y,x\na,1,1,1\n", "2 columns 'x'"),
        ("shape,x,y\n", "holds no points"),
        ("shape,x,y\na,1\n", "row 2 has 2 cells for 3 columns"),
        (SQUARE + "square,1,one\n", "row 6, y is 'one'"),
        (SQUARE + "square,1,nan\n", "y is 'nan'"),
        (SQUARE + "square,1,inf\n", "y is 'inf'"),
        (SQUARE + "square,1,1e300\n", "y is '1e300'"),
        (SQUARE + "b,0,0\n", "'b' has 1 points"),
        (SQUARE + "b,0,0\nb,1,1\nb,2,2\n", "'b' encloses no area"),
        (SQUARE + "b,0,0\nsquare,1,1\n", "row 7, the shape 'square' comes again"),
        (SQUARE.replace("square", "../up"), r"The shape name '\.\./up' cannot be a file name"),
        (SQUARE.replace("square", "=1+1"), "The shape name '=1"),
        (SQUARE.replace("square", "kreis ä"), "The shape name"),
        (SQUARE.replace("square", ""), "The shape name ''"),
        (SQUARE + f"square,1,{'9' * 10_000}x\n", "y is '9999"),
        (SQUARE + f"square,1,{'9' * 200_000}\n", "field larger than field limit"),
        (SQUARE + 'square,"1,1\n', "cannot be read"),
        (SQUARE + "square,1,\0\n", "row 6, y is|line contains NUL"),
        ("shape,x,y\n" + "many,0.5,1\nmany,1,0\n" * 1500, "has 3000 points: give 3 to 2000"),
    ],
)
def test_hostile_files_end_in_one_sentence(tmp_path, text, words):
    file = tmp_path / "shapes.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=words) as caught:
        read_shapes(file)
    assert len(str(caught.value)) < 500 + len(str(tmp_path))
    assert "\n" not in str(caught.value)


CELL = (
    st.text(max_size=8) | st.floats().map(str) | st.sampled_from(["a", "0", "1", "-1", '"', ",", "1e400", "\r", "\0"])
)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.lists(CELL, min_size=1, max_size=4), max_size=6),
    header=st.sampled_from(["shape,x,y", "y,x,shape,z", "shape,x"]),
    spline=st.booleans(),
)
def test_any_text_gives_shapes_or_one_sentence(tmp_path_factory, rows, header, spline):
    file = tmp_path_factory.getbasetemp() / "any.csv"
    text = "\n".join([header, *(",".join(row) for row in rows)])
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        shapes = read_shapes(file, spline=spline)
    except ValueError as error:
        message = str(error)
    else:
        message = ""
        draw(shapes[:1], size_px=16, size_deg=2.1 * max(shapes[0].radius_deg, 1.0))
    assert len(message) < 600 + len(str(file))


@settings(max_examples=60, deadline=None)
@given(radii=st.lists(st.floats(0.0011, 999.0), min_size=3, max_size=24), turn=st.floats(-360.0, 360.0))
def test_any_radii_give_a_row_and_a_picture(radii, turn):
    shape = ContourShape(radii=tuple(radii), radius_deg=2.0, orientation_deg=turn)
    row = shape.columns()
    assert sum(key.startswith("curvature_at_") for key in row) == 8
    assert not any(isinstance(value, float) and math.isinf(value) for value in row.values())
    assert np.hypot(*shape.outline().T).max() == pytest.approx(1.0)
    assert np.isfinite(shape.signal(np.zeros((1, 3)), np.zeros((2, 1)))).all()


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        read_shapes(tmp_path / "absent.csv")
    with pytest.raises(FileNotFoundError, match="no file"):
        read_shapes(tmp_path)
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"shape,x,y\n\xff\xfe\x00a,1,1\n")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_shapes(binary)
    large = tmp_path / "large.csv"
    with large.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ValueError, match="larger than 20 MB"):
        read_shapes(large)
