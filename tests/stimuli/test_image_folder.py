"""Finished images as they are: codes unchanged, order and table kept, every hostile file one clear sentence."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stimuli import StimulusSet
from stimuli.image_folder import images_from_folder

CODES = np.random.default_rng(0).integers(0, 256, (3, 24, 32), dtype=np.uint8)


def put(folder, name, codes=CODES[0], **options):
    Image.fromarray(codes).save(folder / name, **options)
    return folder / name


def huge_png(path, width=60_000, height=60_000):
    """Write a small file whose header claims a picture of 3.6 gigapixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def test_codes_order_and_ids_are_those_of_the_files(tmp_path):
    for name, codes in zip(("b.png", "a.bmp", "c.png"), CODES, strict=True):
        put(tmp_path, name, codes)
    made = images_from_folder(tmp_path, size_deg=4.0)
    assert made.stimulus_ids == ["a", "b", "c"]
    assert np.array_equal(made.codes()[:, 0], CODES[[1, 0, 2]])
    assert (made.size_px, made.size_deg) == ((24, 32), 4.0)


def test_saved_and_loaded_codes_are_those_of_the_files(tmp_path):
    (tmp_path / "mine").mkdir()
    put(tmp_path / "mine", "x.png")
    images_from_folder(tmp_path / "mine").save(tmp_path / "set")
    assert np.array_equal(StimulusSet.load(tmp_path / "set").codes()[0, 0], CODES[0])


def test_gray_among_color_gets_three_equal_channels(tmp_path):
    put(tmp_path, "gray.png")
    color = np.moveaxis(CODES, 0, -1)
    put(tmp_path, "rgb.png", np.ascontiguousarray(color))
    codes = images_from_folder(tmp_path).codes()
    assert np.array_equal(codes[0], np.stack([CODES[0]] * 3))
    assert np.array_equal(codes[1], CODES)


def test_sixteen_bits_transparency_and_rotation(tmp_path):
    deep = CODES[0].astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "a_deep.png")
    clear = np.dstack([np.full((24, 32), 200, np.uint8), np.zeros((24, 32), np.uint8)])
    Image.fromarray(clear, mode="LA").save(tmp_path / "b_clear.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    Image.fromarray(np.ascontiguousarray(np.rot90(CODES[1]))).save(tmp_path / "c_turned.png", exif=exif)
    codes = images_from_folder(tmp_path).codes()[:, 0]
    assert np.array_equal(codes[0], CODES[0])
    assert (codes[1] == 128).all()
    assert np.array_equal(codes[2], CODES[1])


def test_a_table_chooses_orders_and_describes(tmp_path):
    for name, codes in zip(("a.png", "b.png", "c.png"), CODES, strict=True):
        put(tmp_path, name, codes)
    (tmp_path / "images.csv").write_text("filename,stimulus_id,category\nc.png,007,face\na.png,12,hand\n")
    made = images_from_folder(tmp_path, tmp_path / "images.csv")
    assert made.stimulus_ids == ["007", "12"]
    assert made.table["category"].tolist() == ["face", "hand"]
    assert np.array_equal(made.codes()[:, 0], CODES[[2, 0]])
    assert images_from_folder(tmp_path, pd.DataFrame({"filename": ["b.png"]})).stimulus_ids == ["b"]


def test_cells_of_a_table_stay_what_they_are(tmp_path):
    for name, codes in zip(("NA.png", "b.png", "c.png"), CODES, strict=True):
        put(tmp_path, name, codes)
    (tmp_path / "images.csv").write_text(
        "filename,stimulus_id,code,label,score,serial,flag,long\n"
        f"NA.png,NA,0012,None,0.5,{2**53 + 1},TRUE,12345678901234567890123\n"
        f"b.png,null,7,NA,NA,,False,1\nc.png,c,13,,1e3,-4,n/a,2\n\n"
    )
    made = images_from_folder(tmp_path, tmp_path / "images.csv")
    table = made.table
    assert made.stimulus_ids == ["NA", "null", "c"]
    assert table["code"].tolist() == ["0012", "7", "13"]
    assert table["label"].tolist() == ["None", "NA", None]
    assert table["score"].tolist()[::2] == [0.5, 1000.0]
    assert np.isnan(table["score"][1])
    assert [None if pd.isna(value) else int(value) for value in table["serial"]] == [2**53 + 1, None, -4]
    assert table["flag"].tolist()[:2] == [True, False]
    assert table["long"].tolist() == ["12345678901234567890123", "1", "2"]
    assert StimulusSet.load(made.save(tmp_path / "set") and tmp_path / "set").table.equals(table)


def test_a_table_with_rows_of_other_lengths_is_refused(tmp_path):
    put(tmp_path, "a.png")
    (tmp_path / "images.csv").write_text("filename,level\na.png,1,\n")
    with pytest.raises(ValueError, match=r"images\.csv cannot be read as a CSV table: .* different lengths"):
        images_from_folder(tmp_path, tmp_path / "images.csv")


def test_the_index_that_pandas_writes_and_a_byte_order_mark_are_taken(tmp_path):
    put(tmp_path, "a.png")
    pd.DataFrame({"filename": ["a.png"]}).to_csv(tmp_path / "images.csv", encoding="utf-8-sig")
    assert images_from_folder(tmp_path, tmp_path / "images.csv").table["unnamed"].tolist() == [0]


def test_images_of_32_bits_are_refused_by_name(tmp_path):
    Image.fromarray(np.arange(768, dtype=np.int32).reshape(24, 32) // 4).save(tmp_path / "deep.tif")
    with pytest.raises(ValueError, match=r"deep\.tif holds 32-bit"):
        images_from_folder(tmp_path)


@pytest.mark.parametrize("name", ["with space.png", "größe.png", "=cmd.png", "-x.png", "a" * 220 + ".png"])
def test_names_that_cannot_be_ids_are_refused_by_name(tmp_path, name):
    put(tmp_path, name)
    with pytest.raises(ValueError, match=r"cannot be a file name.*Rename the file") as refused:
        images_from_folder(tmp_path)
    assert repr(name.removesuffix(".png"))[:20] in str(refused.value)


@pytest.mark.parametrize("name", ["../out.png", "/etc/out.png", "sub/out.png", "..", "a\\b.png"])
def test_a_table_cannot_point_outside(tmp_path, name):
    (tmp_path / "in").mkdir()
    put(tmp_path / "in", "a.png")
    put(tmp_path, "out.png")
    with pytest.raises(ValueError, match="is not the name of a file in in"):
        images_from_folder(tmp_path / "in", pd.DataFrame({"filename": ["a.png", name]}))


def test_duplicate_ids_are_refused(tmp_path):
    put(tmp_path, "a.png")
    put(tmp_path, "a.bmp", CODES[1])
    with pytest.raises(ValueError, match="'a' occurs more than once"):
        images_from_folder(tmp_path)


def test_a_huge_header_is_refused_without_memory(tmp_path):
    huge_png(tmp_path / "huge.png")
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"huge\.png claims a side of more than 8192 px"):
        images_from_folder(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    huge_png(tmp_path / "huge.png", 9000, 10)  # small enough for pillow
    with pytest.raises(ValueError, match=r"huge\.png claims a side"):
        images_from_folder(tmp_path)


def test_truncated_files_are_refused_by_name(tmp_path):
    path = put(tmp_path, "cut.png", np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(ValueError, match=r"cut\.png is truncated"):
        images_from_folder(tmp_path)
    path.write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"cut\.png cannot be read as an image"):
        images_from_folder(tmp_path)


def test_images_of_other_sizes_are_refused(tmp_path):
    put(tmp_path, "a.png")
    put(tmp_path, "b.png", CODES[1][:20])
    with pytest.raises(ValueError, match=r"b\.png is 32 x 20 px where a\.png is 32 x 24 px"):
        images_from_folder(tmp_path)


def test_faults_of_the_table_are_named(tmp_path):
    put(tmp_path, "alpha.png")
    with pytest.raises(ValueError, match="no column 'filename': did you mean 'file_name'"):
        images_from_folder(tmp_path, pd.DataFrame({"file_name": ["alpha.png"]}))
    with pytest.raises(FileNotFoundError, match=r"no file 'alpa\.png': did you mean 'alpha\.png'"):
        images_from_folder(tmp_path, pd.DataFrame({"filename": ["alpa.png"]}))
    with pytest.raises(FileNotFoundError, match="There is no table"):
        images_from_folder(tmp_path, tmp_path / "none.csv")
    with pytest.raises(ValueError, match="no rows"):
        images_from_folder(tmp_path, pd.DataFrame({"filename": []}))
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x81,")
    with pytest.raises(ValueError, match=r"binary\.csv cannot be read as a CSV table"):
        images_from_folder(tmp_path, tmp_path / "binary.csv")
