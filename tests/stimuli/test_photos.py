from __future__ import annotations

import hashlib
from importlib import resources

import numpy as np
import pytest
from PIL import Image

from stimuli import natural_photos, photos_from_folder
from stimuli._crops import open_photo, shares
from stimuli.photos import EMBEDDED_PHOTOGRAPHS


@pytest.fixture(scope="module")
def photos():
    return natural_photos(160, 64, seed=3)


def test_same_seed_same_images_other_seed_others(photos):
    again, other = natural_photos(160, 64, seed=3), natural_photos(160, 64, seed=4)
    np.testing.assert_array_equal(again.codes(), photos.codes())
    assert again.table.equals(photos.table)
    assert not set(other.stimulus_ids) & set(photos.stimulus_ids)


def test_every_photograph_takes_a_fair_share(photos):
    counts = photos.table["photograph"].value_counts()
    assert set(counts.index) == {photo.name for photo in EMBEDDED_PHOTOGRAPHS}
    assert counts.sum() == len(photos) == 160
    assert counts.min() >= 160 / len(counts) / 2 - 1
    assert (photos.table["family"] == "natural").all()
    # shuffled: the start of the set is not one photograph
    assert photos.table["photograph"][:20].nunique() > 5


def test_thirteen_hundred_distinct_crops():
    many = natural_photos(1300, 64, channels=1)
    assert len({image.tobytes() for image in many.codes()}) == 1300


def test_contrast_is_above_the_floor(photos):
    luma = np.einsum("nchw,c->nhw", photos.codes() / 255.0, [0.299, 0.587, 0.114])
    assert luma.std(axis=(1, 2)).min() >= 0.05


def test_a_row_of_the_table_remakes_its_crop(photos):
    """The window in the table, cut by hand from the file, is the image (up to resampling)."""
    row = photos.table.query("photograph == 'china'").sort_values("crop_side_px").iloc[-1]
    source = resources.files("sklearn.datasets.images") / "china.jpg"
    with source.open("rb") as file, Image.open(file) as image:
        x, y, side = row["crop_x_px"], row["crop_y_px"], row["crop_side_px"]
        expected = image.crop((x, y, x + side, y + side)).resize((64, 64), Image.Resampling.BICUBIC, reducing_gap=None)
    pixels = np.asarray(expected, dtype=float)
    pixels = pixels[:, ::-1] if row["mirrored"] else pixels
    shown = photos.codes([row["stimulus_id"]])[0].transpose(1, 2, 0)
    assert np.corrcoef(pixels.ravel(), shown.ravel())[0, 1] > 0.99


def test_windows_span_scales_inside_the_photograph(photos):
    sides = photos.table["crop_side_px"]
    assert sides.min() >= 64
    assert sides.max() > 350
    assert 0.3 < photos.table["mirrored"].mean() < 0.7
    # log-uniform: the geometric middle of 64 to 427 splits the sides of equal-sized photographs in half
    same = photos.table.query("photograph in ['china', 'flower', 'rocket']")
    assert 0.25 < (same["crop_side_px"] < np.sqrt(64 * 427)).mean() < 0.75


def test_gray_photographs_have_equal_channels_and_luma_agrees(photos):
    gray = photos.codes(list(photos.table["photograph"] == "gravel"))
    np.testing.assert_array_equal(gray[:, 0], gray[:, 2])
    one = natural_photos(30, 64, channels=1)
    assert one.shape == (1, 64, 64)


def test_provenance_holds_hashes_of_the_sources(photos):
    source = resources.files("sklearn.datasets.images") / "flower.jpg"
    record = photos.provenance
    assert record["seed"] == 3
    assert record["inputs"]["flower"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert "CC BY" in record["config"]["origins"]["flower"]


def test_missing_photograph_is_named(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="astronaut"):
        natural_photos(2, 64)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [({"n": 0}, "n is 0"), ({"channels": 2}, "channels"), ({"seed": -1}, "seed"), ({"size_px": 600}, "too small")],
)
def test_bad_numbers_are_refused(kwargs, words):
    with pytest.raises(ValueError, match=words):
        natural_photos(**{"n": 4, "size_px": 64} | kwargs)


def test_shares_follow_the_square_root_of_area_with_a_floor():
    assert shares([100.0, 400.0, 900.0], 60) == [10, 20, 30]
    assert sum(shares([1.0, 5.0, 7.0], 100)) == 100
    assert shares([1.0, 1e6], 100)[0] >= 20


def _noise(seed, shape):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def test_folder_is_grouped_by_file_and_ignores_other_files(tmp_path):
    _noise(0, (90, 120, 3)).save(tmp_path / "b.png")
    _noise(1, (100, 100)).save(tmp_path / "a.tif")
    _noise(2, (100, 100, 3)).save(tmp_path / "c.webp", lossless=True)
    (tmp_path / "notes.txt").write_text("no image")
    made = photos_from_folder(tmp_path, n=12, size_px=32, seed=1)
    assert set(made.table["photograph"]) == {"a.tif", "b.png", "c.webp"}
    np.testing.assert_array_equal(made.codes(), photos_from_folder(tmp_path, n=12, size_px=32, seed=1).codes())
    assert made.provenance["inputs"]["b.png"] == hashlib.sha256((tmp_path / "b.png").read_bytes()).hexdigest()


def test_transparency_is_shown_on_gray(tmp_path):
    pixels = np.zeros((80, 80, 4), dtype=np.uint8)  # invisible black ...
    pixels[:, 40:] = 255  # ... beside opaque white
    Image.fromarray(pixels).save(tmp_path / "cut.png")
    codes = photos_from_folder(tmp_path, n=3, size_px=32).codes()
    for image in codes:
        assert {128, 255} <= set(np.unique(image)) or image.min() > 100


def test_exif_orientation_is_applied(tmp_path):
    ramp = np.tile(np.linspace(0, 255, 80).astype(np.uint8), (80, 1))  # dark left, bright right
    exif = Image.Exif()
    exif[0x0112] = 6  # show turned by 90 degrees clockwise: dark top, bright bottom
    Image.fromarray(ramp).save(tmp_path / "turned.png", exif=exif)
    image = photos_from_folder(tmp_path, n=1, size_px=64, channels=1).images()[0, 0]
    assert image[-5:].mean() - image[:5].mean() > 0.4
    assert abs(image[:, -5:].mean() - image[:, :5].mean()) < 0.05


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    ramp = np.tile(np.linspace(0, 65535, 100).astype(np.uint16), (100, 1))
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    image = photos_from_folder(tmp_path, n=1, size_px=64, channels=1).images()[0, 0]
    assert 0.1 < image.mean() < 0.9
    assert len(np.unique(image)) > 20


def test_whole_numbers_of_32_bits_are_refused_and_those_of_16_are_not(tmp_path):
    ramp = np.arange(96 * 96, dtype=np.int32).reshape(96, 96)
    Image.fromarray(ramp).save(tmp_path / "deep.tif")
    with Image.open(tmp_path / "deep.tif") as image:
        assert image.mode == "I"
    with pytest.raises(ValueError, match=r"deep\.tif holds 32-bit or signed whole numbers .* with 8 or 16 bits"):
        open_photo(tmp_path / "deep.tif", "L")
    for name in ("a.tif", "a.png"):
        Image.fromarray((ramp * 7 % 65536).astype(np.uint16)).save(tmp_path / name)
        expected = np.floor(ramp * 7 % 65536 / 257 + 0.5)
        np.testing.assert_array_equal(np.asarray(open_photo(tmp_path / name, "L")), expected)


def test_uniform_image_gives_way_and_only_uniform_images_end(tmp_path):
    Image.new("L", (100, 100), 90).save(tmp_path / "flat.png")
    with pytest.raises(ValueError, match="Only 0 of 3 crops"):
        photos_from_folder(tmp_path, n=3, size_px=32)
    _noise(0, (90, 120)).save(tmp_path / "noise.png")
    made = photos_from_folder(tmp_path, n=6, size_px=32)
    assert made.table["photograph"].tolist() == ["noise.png"] * 6


def test_unreadable_small_missing_and_empty_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no image"):
        photos_from_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        photos_from_folder(tmp_path / "absent")
    _noise(0, (90, 50)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match=r"small\.png is 50 x 90 px, too small"):
        photos_from_folder(tmp_path, n=2, size_px=32)
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"broken\.jpg cannot be read"):
        photos_from_folder(tmp_path, n=2, size_px=32)


def test_copies_of_a_photograph_give_no_copies_of_crops(tmp_path):
    """A 64 px image has one window and its mirror image, however many files hold it."""
    for name in ("a.png", "b.png", "c.png"):
        _noise(5, (64, 64)).save(tmp_path / name)
    made = photos_from_folder(tmp_path, n=2, size_px=64, channels=1)
    np.testing.assert_array_equal(made.codes()[0], made.codes()[1][..., ::-1])
    with pytest.raises(ValueError, match="Only 2 of 3 crops"):
        photos_from_folder(tmp_path, n=3, size_px=64, channels=1)
