"""Cut-outs on backgrounds: place, size and turn as planted, levels of variation, hostile files."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stimuli import Display, StimulusSet, natural_photos
from stimuli.cutouts import Cutout, read_cutouts, sample_cutouts
from stimuli.scenes import VARIATIONS, Variation, composed, scenes

DARK = np.zeros((1, 64, 64), np.float32)


def painted():
    codes = np.zeros((24, 16, 4), np.uint8)
    codes[2:22, 3:13] = 255
    codes[12:22, 3:13, :3] = 0
    return codes


def arrow():
    """A white block, 20 high and 10 wide, with a black lower half: its up can be seen."""
    return Cutout("arrow", painted())


def middle(weights):
    rows, columns = np.indices(weights.shape)
    total = weights.sum()
    return (columns * weights).sum() / total - 31.5, 31.5 - (rows * weights).sum() / total


def test_what_is_transparent_is_cut_away_and_not_drawn():
    assert arrow().codes.shape == (20, 10, 4)
    ground = np.random.default_rng(0).uniform(0.1, 0.9, (3, 64, 64)).astype(np.float32)
    codes = composed(arrow(), ground, 8.0, width_deg=2.0)
    outside = np.ones((64, 64), bool)
    outside[22:42, 26:38] = False
    assert (codes == np.floor(255 * ground + 0.5))[:, outside].all()
    assert not (codes == np.floor(255 * ground + 0.5))[:, 26:38, 29:35].any()


@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (1.3, -0.7), (-2.05, 1.6)])
def test_middle_lies_where_asked(x, y):
    block = Cutout("block", np.full((20, 10, 4), 255, np.uint8))
    drawn = composed(block, DARK, 8.0, x_deg=x, y_deg=y, width_deg=2.5)[0] / 255
    assert middle(drawn) == pytest.approx((x * 8, y * 8), abs=0.05)
    assert drawn.sum() == pytest.approx(20 * 10, rel=0.02)  # 2.5 deg are 20 px, the longer side
    inside = drawn > 0.5
    assert (inside.any(axis=1).sum(), inside.any(axis=0).sum()) == pytest.approx((20, 10), abs=1)


def test_turn_is_counterclockwise():
    """The white half is above; a quarter of a turn takes it to the left."""
    assert middle(composed(arrow(), DARK, 8.0, width_deg=2.5)[0] / 255) == pytest.approx((0, 5), abs=0.1)
    turned = composed(arrow(), DARK, 8.0, width_deg=2.5, rotation_deg=90)[0] / 255
    assert middle(turned) == pytest.approx((-5, 0), abs=0.1)
    slightly = composed(arrow(), DARK, 8.0, width_deg=2.5, rotation_deg=30)[0] / 255
    assert middle(slightly) == pytest.approx((-2.5, 5 * np.cos(np.pi / 6)), abs=0.1)


def disk():
    x = np.arange(-24, 25)
    codes = np.full((49, 49, 4), 255, np.uint8)
    codes[..., 3] = 255 * (np.hypot(x, x[:, None]) <= 24.5)
    return Cutout("disk", codes)


@settings(max_examples=40, deadline=None)
@given(
    x=st.floats(-1.5, 1.5), y=st.floats(-1.5, 1.5), width=st.floats(1.0, 4.0), turn=st.floats(-180, 180),
    ground=st.floats(0, 0.6),
)  # fmt: skip
def test_a_disk_has_its_place_and_size_whatever_is_asked(x, y, width, turn, ground):
    view = {"x_deg": x, "y_deg": y, "width_deg": width, "rotation_deg": turn}
    behind = np.full((1, 64, 64), ground, np.float32)
    codes = composed(disk(), behind, 8.0, **view)
    weights = (codes[0] / 255 - codes[0, 0, 0] / 255) / (1 - codes[0, 0, 0] / 255)
    assert middle(weights) == pytest.approx((x * 8, y * 8), abs=0.1)
    assert weights.sum() == pytest.approx(np.pi / 4 * (width * 8) ** 2, rel=0.06)
    assert abs(int(codes[0, 0, 0]) - 255 * ground) <= 0.5
    assert (codes == composed(disk(), behind, 8.0, **view)).all()


@pytest.mark.parametrize("distance_cm", [40.0, 57.0, 114.0])
def test_degrees_are_degrees_at_every_distance(distance_cm):
    screen = Display(distance_cm=distance_cm, resolution_px=(960, 540))
    size_px = round(4 * screen.ppd)
    made = scenes(1, cutouts=[disk()], backgrounds="gray", variation="low", size_deg=4.0, display=screen)
    wide = (made.codes()[0, 0] > 192).sum(axis=1).max()  # 2 deg
    assert made.size_px == (size_px, size_px)
    assert wide == pytest.approx(2 * screen.ppd, abs=1.5)


def test_a_shrunken_object_is_averaged_and_not_sampled():
    noise = np.full((256, 256, 4), 255, np.uint8)
    noise[..., :3] *= np.random.default_rng(0).integers(0, 2, (256, 256, 1), dtype=np.uint8)
    drawn = composed(Cutout("noise", noise), DARK, 8.0, width_deg=4.0)[0, 20:44, 20:44]
    assert drawn.mean() == pytest.approx(127.5, abs=3)
    assert drawn.std() < 20  # half of the range without a filter


def test_half_opaque_is_half_object_and_half_background():
    veil = np.full((64, 64, 4), 100, np.uint8)
    veil[..., 3] = 51
    codes = composed(Cutout("veil", veil), np.full((3, 64, 64), 200 / 255, np.float32), 8.0, width_deg=8.0)
    assert (codes == 180).all()  # 100 / 5 + 200 * 4 / 5


def test_levels_vary_as_they_say_and_share_object_background_and_direction():
    behind = natural_photos(20, 64, channels=1)
    found = {level: scenes(12, variation=level, backgrounds=behind, seed=3).table for level in VARIATIONS}
    for level, ranges in VARIATIONS.items():
        table = found[level]
        assert (table["variation"] == level).all()
        assert table[["x_deg", "y_deg"]].abs().max().max() <= ranges.shift * 8
        assert table["rotation_deg"].abs().max() <= ranges.turn_deg
        assert np.abs(np.log(table["width_deg"] / 4)).max() <= np.log(ranges.zoom) + 1e-9
        for column in ("cutout", "background"):
            assert list(table[column]) == list(found["low"][column])
    assert found["low"]["width_deg"].nunique() == 1
    assert not found["low"][["x_deg", "y_deg", "rotation_deg"]].any().any()
    high, medium = found["high"], found["medium"]
    np.testing.assert_allclose(high["x_deg"] / medium["x_deg"], 0.25 / 0.12)
    np.testing.assert_allclose(high["rotation_deg"] / medium["rotation_deg"], 3.0)
    assert high["rotation_deg"].abs().max() > 60
    assert high["cutout"].value_counts().max() == 2  # eight objects in turn


def test_a_scene_depends_on_its_number_and_seed_alone():
    few, many = scenes(3, size_px=64, seed=5), scenes(9, size_px=64, seed=5)
    assert (few.codes() == many.codes([0, 1, 2])).all()
    assert few.stimulus_ids == many.stimulus_ids[:3]
    assert few.stimulus_ids != scenes(3, size_px=64, seed=6).stimulus_ids


def test_scenes_carry_the_photograph_of_their_background():
    behind = natural_photos(20, 64, channels=1)
    photograph = dict(zip(behind.stimulus_ids, behind.table["photograph"], strict=True))
    table = scenes(9, backgrounds=behind, seed=1).table
    assert list(table["photograph"]) == [photograph[name] for name in table["background"]]
    assert set(scenes(6, size_px=64).table["photograph"]) <= set(natural_photos(160, 64).table["photograph"])
    assert "photograph" not in scenes(1, backgrounds="gray", size_px=64).table


@pytest.mark.parametrize("seed", [1, 2])
def test_an_object_comes_on_every_background_before_it_comes_on_one_again(seed):
    behind = natural_photos(12, 32, channels=1)
    mug, cube = sample_cutouts(["mug", "cube"])
    made = scenes(24, cutouts=[mug, cube], backgrounds=behind, variation="low", seed=seed)  # all there are
    assert len({*zip(made.table["cutout"], made.table["background"], strict=True)}) == 24
    orders = [list(made.table["background"][k::2]) for k in (0, 1)]
    assert orders[0] != orders[1]
    many = scenes(48, cutouts=[mug, cube], backgrounds=behind, variation="high", seed=seed).table
    assert many.groupby(["cutout", "background"]).size().tolist() == [2] * 24
    with pytest.raises(ValueError, match="25 scenes are asked for, and without variation there are 24"):
        scenes(25, cutouts=[mug, cube], backgrounds=behind, variation="low", seed=seed)
    with pytest.raises(ValueError, match="40 scenes are asked for, and without variation there are 8"):
        scenes(40, backgrounds="gray", size_px=32, variation=Variation(size=0.3))


@pytest.mark.parametrize("width_deg", [0.5, 1.0, 2.0])
def test_a_shrunken_object_covers_what_it_should(width_deg):
    block = Cutout("block", np.full((190, 190, 4), 255, np.uint8))
    drawn = composed(block, DARK, 8.0, width_deg=width_deg)[0] / 255
    assert np.sqrt(drawn.sum()) / 8 == pytest.approx(width_deg, rel=0.01)


def test_gray_stays_gray_and_own_backgrounds_decide_the_size(tmp_path):
    plain = scenes(2, backgrounds="gray", size_px=64, channels=3)
    assert plain.shape == (3, 64, 64)
    assert (plain.codes()[:, :, 0] == 128).all()
    assert set(plain.table["background"]) == {"gray"}
    screen = Display()
    noise = np.random.default_rng(0).random((2, 1, 48, 80))
    own = StimulusSet.from_arrays(noise, {"stimulus_id": ["p", "q"]}, size_deg=5.0, display=screen)
    made = scenes(4, backgrounds=own, variation=Variation(shift=0.1), seed=1)
    assert (made.shape, made.size_deg, made.display) == ((1, 48, 80), 5.0, screen)
    assert set(made.table["background"]) <= {"p", "q"}
    assert set(made.table["variation"]) == {"own"}
    assert StimulusSet.load(made.save(tmp_path / "made") and tmp_path / "made").stimulus_ids == made.stimulus_ids
    assert scenes(1, backgrounds="gray", size_deg=2.0, display=screen).size_px == (round(2 * screen.ppd),) * 2


def test_sample_objects_are_cut_out_and_shaded():
    objects = sample_cutouts()
    assert len(objects) == 8
    for each in objects:
        alpha = each.codes[..., 3]
        assert max(alpha.shape) > 100, each.name
        assert 0.1 < (alpha == 255).mean() < 0.95, each.name
        assert ((alpha > 0) & (alpha < 255)).sum() > 50, each.name  # soft edges
        assert each.codes[alpha == 255][:, :3].std() > 20, each.name
    with pytest.raises(ValueError, match="did you mean 'mug'"):
        sample_cutouts(["mugg"])


def test_cutouts_are_read_from_png_files(tmp_path):
    Image.fromarray(painted()).save(tmp_path / "b.png")
    Image.fromarray(np.dstack([np.full((5, 5), 200, np.uint8), np.eye(5, dtype=np.uint8) * 255])).save(
        tmp_path / "A.PNG"
    )
    (tmp_path / "notes.txt").write_text("no picture")
    found = read_cutouts(tmp_path)
    assert [each.name for each in found] == ["A", "b"]
    assert found[0].codes[0, 0].tolist() == [200, 200, 200, 255]
    assert (found[1].codes == arrow().codes).all()


def header(width, height):
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + b"\0\0\x10\0IDAT"


def test_hostile_cutouts_are_refused_in_one_sentence(tmp_path):
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 4), dtype=np.uint8)).save(whole)
    opaque = np.full((4, 4, 4), 255, np.uint8)
    cases = {
        "cannot be read": whole.read_bytes()[:4000],
        "cannot be read as a PNG": b"GIF89a",
        "60000|cannot be read": header(60000, 60000),
        "9000 x 9000 px": header(9000, 9000),
        "has no transparency": opaque[..., :3],
        "opaque everywhere": opaque,
        "transparent everywhere": np.zeros((4, 4, 4), np.uint8),
    }
    for number, (words, content) in enumerate(cases.items()):
        place = tmp_path / str(number)
        place.mkdir()
        if isinstance(content, bytes):
            (place / "x.png").write_bytes(content)
        else:
            Image.fromarray(content).save(place / "x.png")
        with pytest.raises(ValueError, match=words):
            read_cutouts(place)
    for place, words in ((tmp_path / "absent", "no folder"), (tmp_path / "empty", "no PNG")):
        if "empty" in place.name:
            place.mkdir()
        with pytest.raises(FileNotFoundError, match=words):
            read_cutouts(place)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"n": 0}, ValueError, "n is 0"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"seed": 2**32}, ValueError, "seed is 4294967296"),
        ({"size_px": 1}, ValueError, "size_px"),
        ({"size_deg": 0}, ValueError, "size_deg is 0"),
        ({"variation": "hihg"}, ValueError, "did you mean 'high'"),
        ({"cutouts": []}, TypeError, "cutouts hold none"),
        ({"cutouts": ["mug"]}, TypeError, "cutouts hold a str"),
        ({"backgrounds": "sky"}, TypeError, "backgrounds is 'sky'"),
    ],
)
def test_wrong_input_is_one_sentence(given, error, words):
    with pytest.raises(error, match=words):
        scenes(**({"n": 1, "backgrounds": "gray", "size_px": 32} | given))


def test_wrong_ranges_are_refused():
    for wrong in ({"shift": 0.6}, {"zoom": 0.5}, {"turn_deg": float("nan")}, {"size": True}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Variation(**wrong)
    with pytest.raises(ValueError, match="the shape"):
        Cutout("x", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(TypeError, match="float64"):
        Cutout("x", np.zeros((4, 4, 4)))
