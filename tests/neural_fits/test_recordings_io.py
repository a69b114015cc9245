from __future__ import annotations

import os
import stat
import sys

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from neural_fits import recordings_io
from neural_fits.recordings import SiteRecordings
from neural_fits.recordings_io import _tidy, netcdf

FORMATS = [".nc", ".csv", ".parquet", ".h5", ".hdf5", ".npz", ".nwb"]
WITHOUT_META = (".csv", ".parquet")


@pytest.fixture
def ragged():
    """Everything that is easily lost: ragged repeats, stimuli and sites never recorded, unused repeats, odd names."""
    responses = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32) * 10
    responses[0] = np.nan  # the first stimulus never shown
    responses[3] = np.nan
    responses[:, :, 2] = np.nan  # a site without any trial
    responses[1, 2:, 0] = np.nan
    responses[2, 0, :] = np.nan  # a missing first repeat
    responses[:, 3] = np.nan  # a repeat that nobody saw
    responses[:, 4] = np.nan
    sites = pd.DataFrame(
        {
            "animal": ["m", None, "n, the second", 'q "x"'],
            "session": ["0012", "210325", "1", "1"],
            "channel": [3, 1, 2, 0],
            "depth_mm": [0.1, np.nan, 1 / 3, 2.0],
            "is_target": [True, False, False, True],
        },
        index=pd.Index(["007", "b", "NA", "été"], name="site_id"),
    )
    ids = ("0012", "0003", "nan", "1e5", "x, y", "z")
    return SiteRecordings(responses, ids, sites, window_ms=(70, 170.1), unit="Hz", meta={"a": [1, None], "b": "é"})


def assert_same(a, b):
    np.testing.assert_array_equal(a.responses, b.responses)
    assert a.responses.dtype == b.responses.dtype
    assert a.stimulus_ids == b.stimulus_ids
    pd.testing.assert_frame_equal(a.sites, b.sites)
    assert (a.window_ms, a.time_bins_ms, a.unit) == (b.window_ms, b.time_bins_ms, b.unit)


@pytest.mark.parametrize("suffix", FORMATS)
def test_round_trip_is_exact(ragged, tmp_path, suffix):
    path = tmp_path / f"day1{suffix}"
    ragged.save(path)
    back = SiteRecordings.load(path)
    assert_same(back, ragged)
    assert back.meta == ({} if suffix in WITHOUT_META else ragged.meta)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    back.save(path)  # over the old one
    assert_same(SiteRecordings.load(str(path)), ragged)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_time_axis_survives_and_a_window_is_taken_from_it(ragged, tmp_path, suffix):
    four = np.stack([ragged.responses, 2 * ragged.responses, -ragged.responses], axis=3)
    four[1, 0, 0, 2] = np.nan  # one bin of a trial
    bins = ((50, 100), (100, 150), (150, 200.5))
    resolved = SiteRecordings(four, ragged.stimulus_ids, ragged.sites, unit="spikes/bin", time_bins_ms=bins)
    resolved.save(tmp_path / f"x{suffix}")
    assert_same(SiteRecordings.load(tmp_path / f"x{suffix}"), resolved)
    window = SiteRecordings.load(tmp_path / f"x{suffix}", window_ms=(50, 150))
    np.testing.assert_allclose(window.responses, 3 * ragged.responses, rtol=1e-6)
    assert window.window_ms == (50.0, 150.0)
    with pytest.raises(ValueError, match="cuts the time bin"):
        SiteRecordings.load(tmp_path / f"x{suffix}", window_ms=(60, 150))


@pytest.mark.parametrize("suffix", [".nc", ".h5", ".npz", ".nwb"])
def test_one_time_bin_is_still_a_time_axis(ragged, tmp_path, suffix):
    one = SiteRecordings(ragged.responses[..., None], ragged.stimulus_ids, ragged.sites, time_bins_ms=((70, 170),))
    one.save(tmp_path / f"x{suffix}")
    assert_same(SiteRecordings.load(tmp_path / f"x{suffix}"), one)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_window_must_be_that_of_the_file(ragged, tmp_path, suffix):
    ragged.save(tmp_path / f"x{suffix}")
    assert_same(SiteRecordings.load(tmp_path / f"x{suffix}", window_ms=(70, 170.1)), ragged)
    with pytest.raises(ValueError, match=r"window_ms=\(50\.0, 150\.0\).*already taken in \(70\.0, 170\.1\) ms"):
        SiteRecordings.load(tmp_path / f"x{suffix}", window_ms=(50, 150))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("option", ["axes", "dataset"])
def test_options_of_no_use_are_refused(ragged, tmp_path, suffix, option):
    ragged.save(tmp_path / f"x{suffix}")
    with pytest.raises(ValueError, match=rf"{option}='x' was given for 'x\{suffix}', but .*; leave {option} out"):
        SiteRecordings.load(tmp_path / f"x{suffix}", **{option: "x"})


@pytest.mark.parametrize("suffix", FORMATS)
def test_round_trip_of_the_plainest_recordings(tmp_path, suffix):
    sites = pd.DataFrame(index=pd.Index(["s"], name="site_id"))
    plain = SiteRecordings(np.array([[[1.5]], [[2.5]]]), ("a", "b"), sites)
    plain.save(tmp_path / f"x{suffix}")
    back = SiteRecordings.load(tmp_path / f"x{suffix}")
    assert_same(back, plain)
    assert back.window_ms is None
    assert back.unit == "spikes/window"


@pytest.mark.parametrize("suffix", FORMATS)
def test_any_float32_survives(tmp_path, suffix):
    bits = np.random.default_rng(1).integers(0, 2**32, size=(50, 2, 3), dtype=np.uint32)
    values = bits.view(np.float32).copy()
    sites = pd.DataFrame(index=pd.Index(["a", "b", "c"], name="site_id"))
    wild = SiteRecordings(values, tuple(f"i{i}" for i in range(50)), sites)
    wild.save(tmp_path / f"x{suffix}")
    np.testing.assert_array_equal(SiteRecordings.load(tmp_path / f"x{suffix}").responses, values)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(ragged, tmp_path, suffix, monkeypatch):
    path = tmp_path / f"day1{suffix}"
    ragged.save(path)
    before = path.read_bytes()

    def disk_full(*args, **kwargs):
        raise OSError("disk full")

    # One fails while the content is made, the other while it goes to the disk.
    monkeypatch.setattr(*((xr.Dataset, "to_netcdf") if suffix == ".nc" else (os, "fsync")), disk_full)
    with pytest.raises(OSError, match="disk full"):
        ragged.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_others_can_read_the_file_as_any_other(ragged, tmp_path):
    (tmp_path / "plain").write_text("")
    ragged.save(tmp_path / "x.csv")
    assert stat.S_IMODE((tmp_path / "x.csv").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_unknown_suffix_and_missing_places(ragged, tmp_path):
    with pytest.raises(ValueError, match=r"'x\.mat'.*written as \.nc, \.nwb, .* or \.parquet"):
        ragged.save(tmp_path / "x.mat")
    with pytest.raises(ValueError, match=r"'x\.txt'.*read as \.nc, \.nwb, .*\.mat, .* or \.parquet"):
        SiteRecordings.load(tmp_path / "x.txt")
    with pytest.raises(FileNotFoundError, match=r"no\.nc"):
        SiteRecordings.load(tmp_path / "no.nc")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ragged.save(tmp_path / "nowhere" / "x.nc")
    assert recordings_io.__all__ == ["read", "write"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_zero_character_is_refused_by_all_alike(tmp_path, suffix):
    sites = pd.DataFrame(index=pd.Index(["s"], name="site_id"))
    with pytest.raises(ValueError, match="zero character"):
        SiteRecordings(np.zeros((1, 1, 1)), ("a\0",), sites).save(tmp_path / f"x{suffix}")


# ---- netCDF


def test_netcdf_has_brain_score_names(ragged, tmp_path):
    ragged.save(tmp_path / "x.nc")
    with xr.open_dataset(tmp_path / "x.nc", engine="h5netcdf") as file:
        array = file["responses"].load()
    assert array.dims == ("presentation", "neuroid", "time_bin")
    shown = ~np.isnan(ragged.responses).all(axis=2)
    assert array.shape == (shown.sum(), 4, 1)  # no padding
    assert {"stimulus_id", "repetition"} <= {c for c in array.coords if array[c].dims == ("presentation",)}
    assert {"neuroid_id", "animal", "session"} <= {c for c in array.coords if array[c].dims == ("neuroid",)}
    assert float(array["time_bin_start"][0]) == 70.0
    assert float(array["time_bin_end"][0]) == 170.1
    one = array.isel(presentation=(array["stimulus_id"] == "0003").values & (array["repetition"] == 1).values)
    np.testing.assert_array_equal(one.values[0, :, 0], ragged.responses[1, 1])


def brain_score_file(path, id_name="image_id", **changes):
    """An assembly as the Brain-Score people write it: other variable name, transposed, presentations in any order."""
    coords = {
        id_name: ("presentation", ["b", "a", "b", "a", "b"]),
        "repetition": ("presentation", [5, 7, 7, 5, 9]),
        "object_name": ("presentation", list("ppppp")),
        "neuroid_id": ("neuroid", [11, 12]),
        "region": ("neuroid", ["V4", "IT"]),
        "time_bin_start": ("time_bin", [70]),
        "time_bin_end": ("time_bin", [170]),
    } | changes.get("coords", {})
    coords = {k: v for k, v in coords.items() if v is not None}
    values = changes.get("values", np.arange(10.0).reshape(2, 5, 1))
    array = xr.DataArray(values, dims=("neuroid", "presentation", "time_bin"), coords=coords, name="dicarlo.X")
    array.to_dataset().to_netcdf(path, engine="h5netcdf")


@pytest.mark.parametrize("id_name", ["image_id", "stimulus_id"])
def test_a_brain_score_assembly_is_read(tmp_path, id_name):
    brain_score_file(tmp_path / "x.nc", id_name)
    recorded = SiteRecordings.load(tmp_path / "x.nc")
    nan = np.nan
    assert recorded.stimulus_ids == ("b", "a")
    assert recorded.site_ids == ["11", "12"]
    assert recorded.sites["region"].tolist() == ["V4", "IT"]
    assert recorded.window_ms == (70.0, 170.0)
    np.testing.assert_array_equal(recorded.responses[:, :, 0], [[0, 2, 4], [3, 1, nan]])
    np.testing.assert_array_equal(recorded.responses[:, :, 1], [[5, 7, 9], [8, 6, nan]])


def test_an_assembly_without_some_image_ids_is_refused(tmp_path):
    ids = ("presentation", [7.0, np.nan, 8.0, 7.0, np.nan])
    brain_score_file(tmp_path / "x.nc", coords={"image_id": ids})
    with pytest.raises(ValueError, match=r"'x\.nc' lacks 2 of the 5 ids in 'image_id', the first in row 2"):
        SiteRecordings.load(tmp_path / "x.nc")


def test_several_time_bins_become_a_time_axis(tmp_path):
    values = np.arange(30.0).reshape(2, 5, 3)
    bins = {"time_bin_start": ("time_bin", [0, 10, 20]), "time_bin_end": ("time_bin", [10, 20, 30])}
    brain_score_file(tmp_path / "x.nc", values=values, coords=bins)
    recorded = SiteRecordings.load(tmp_path / "x.nc")
    assert recorded.time_bins_ms == ((0, 10), (10, 20), (20, 30))
    np.testing.assert_array_equal(recorded.responses[0, :, 1], values[1, [0, 2, 4]])  # image b, repeats 5, 7, 9
    window = SiteRecordings.load(tmp_path / "x.nc", window_ms=(10, 30))
    np.testing.assert_array_equal(window.responses[0, :, 1], values[1, [0, 2, 4], 1:].sum(axis=1))


def test_repetition_index_and_unstacked_images_are_read(tmp_path):
    coords = {"repetition": None, "repetition_index": ("presentation", [5, 7, 7, 5, 9])}
    brain_score_file(tmp_path / "x.nc", coords=coords)
    np.testing.assert_array_equal(
        SiteRecordings.load(tmp_path / "x.nc").responses[:, :, 0], [[0, 2, 4], [3, 1, np.nan]]
    )
    values = np.arange(12.0).reshape(3, 2, 2)
    array = xr.DataArray(
        values,
        dims=("image", "repetition", "neuroid"),
        coords={"image_id": ("image", list("bca")), "neuroid_id": ("neuroid", ["u", "v"])},
        name="rates",
    )
    for engine in ("h5netcdf", "scipy"):  # netCDF-4 and the classic format
        array.to_dataset().to_netcdf(tmp_path / "y.nc", engine=engine)
        recorded = SiteRecordings.load(tmp_path / "y.nc")
        assert recorded.stimulus_ids == ("b", "c", "a")
        assert recorded.site_ids == ["u", "v"]
        np.testing.assert_array_equal(recorded.responses, values)


def test_repeats_are_counted_where_the_file_does_not_number_them(tmp_path):
    brain_score_file(tmp_path / "x.nc", coords={"repetition": None})
    recorded = SiteRecordings.load(tmp_path / "x.nc")
    np.testing.assert_array_equal(recorded.responses[:, :, 0], [[0, 2, 4], [1, 3, np.nan]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coords": {"repetition": ("presentation", [5, 7, 5, 5, 9])}}, "1 presentations twice.*'b'"),
        (
            {"coords": {"image_id": None, "imageid": ("presentation", list("abcde"))}},
            "stimulus_id or image_id.*'imageid'",
        ),
        ({"coords": {"neuroid_id": None}}, "neuroid_id.*'neuroid'"),
        (
            {
                "values": np.zeros((2, 5, 3)),
                "coords": {"time_bin_start": None, "time_bin_end": None},
            },
            "3 time bins without the coordinates time_bin_start",
        ),
    ],
)
def test_assemblies_that_cannot_be_read_say_why(tmp_path, changes, message):
    brain_score_file(tmp_path / "x.nc", **changes)
    with pytest.raises(ValueError, match=message):
        SiteRecordings.load(tmp_path / "x.nc")


def test_a_newer_format_asks_for_a_newer_package(ragged, tmp_path, monkeypatch):
    monkeypatch.setattr(netcdf, "FORMAT_VERSION", 99)
    ragged.save(tmp_path / "x.nc")
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"version 99.*up to 1.*update"):
        SiteRecordings.load(tmp_path / "x.nc")


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.95])
def test_a_damaged_netcdf_is_named(ragged, tmp_path, kept):
    ragged.save(tmp_path / "x.nc")
    data = (tmp_path / "x.nc").read_bytes()
    (tmp_path / "x.nc").write_bytes(data[: int(len(data) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(ValueError, match=r"'x\.nc' cannot be read as netCDF-4"):
        SiteRecordings.load(tmp_path / "x.nc")


@pytest.mark.parametrize("suffix", [".nc", ".h5"])
def test_flipped_bits_in_the_responses_are_noticed(ragged, tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    ragged.save(path)
    with h5py.File(path) as file:
        chunk = file["responses"].id.get_chunk_info(0)
    content = path.read_bytes()
    for place in range(chunk.byte_offset, chunk.byte_offset + chunk.size, 7):
        data = bytearray(content)
        data[place] ^= 0xFF
        path.write_bytes(data)
        with pytest.raises(ValueError, match="cannot be read as"):
            SiteRecordings.load(path)


def test_attributes_of_other_programs_are_not_taken_for_ours(tmp_path):
    brain_score_file(tmp_path / "x.nc")
    with h5py.File(tmp_path / "x.nc", "a") as file:
        file.attrs["meta"] = "free text"
        file.attrs["format_version"] = 7
        file.attrs["unit"] = "?"
    recorded = SiteRecordings.load(tmp_path / "x.nc")
    assert recorded.meta == {}
    assert recorded.unit == "spikes/window"


def test_text_called_netcdf_and_another_netcdf(tmp_path):
    (tmp_path / "x.nc").write_text("stimulus_id,site_id\n" * 50)
    with pytest.raises(ValueError, match="cannot be read as netCDF-4"):
        SiteRecordings.load(tmp_path / "x.nc")
    xr.Dataset({"t2m": (("lat", "lon"), np.zeros((2, 2)))}).to_netcdf(tmp_path / "y.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"0 variables over \(presentation, neuroid\).*'lat'"):
        SiteRecordings.load(tmp_path / "y.nc")


def test_a_column_name_that_netcdf_cannot_hold(tmp_path):
    sites = pd.DataFrame({"rate/base": [1.0]}, index=pd.Index(["s"], name="site_id"))
    with pytest.raises(ValueError, match="'rate/base'"):
        SiteRecordings(np.zeros((1, 1, 1)), ("a",), sites).save(tmp_path / "x.nc")
    assert list(tmp_path.iterdir()) == []


# ---- CSV

HEADER = "stimulus_id,site_id,repetition,response"


def read_text(tmp_path, text, encoding="utf-8"):
    (tmp_path / "x.csv").write_bytes(text.encode(encoding))
    return SiteRecordings.load(tmp_path / "x.csv")


def test_a_hand_written_csv_is_read(tmp_path):
    text = """image_id,site_id,repetition,response,animal,window_start_ms,window_end_ms,depth,tag,object
001,s1,1,3.5,0012,70,170,0.5,007,face
001,s2,1,,0012,70,170,2,008,face
002,s1,1,nan,0012,70,170,0.5,007,dog
002,s1,2,7,0012,70,170,0.5,007,dog

002,s2,1,8,0012,70,170,2,008,dog
"""
    recorded = read_text(tmp_path, text.replace("\n", "\r\n"), "utf-8-sig")
    nan = np.nan
    assert recorded.stimulus_ids == ("001", "002")
    np.testing.assert_array_equal(recorded.responses[:, :, 0], [[3.5, nan], [nan, 7]])
    np.testing.assert_array_equal(recorded.responses[:, :, 1], [[nan, nan], [8, nan]])
    assert recorded.window_ms == (70.0, 170.0)
    assert list(recorded.sites.columns) == ["animal", "depth", "tag"]
    assert recorded.sites["animal"].tolist() == ["0012", "0012"]
    assert recorded.sites["tag"].tolist() == ["007", "008"]
    assert recorded.sites["depth"].tolist() == [0.5, 2.0]
    assert recorded.meta == {"columns_not_read": ["object"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stimulus_id,site_id,repetition,resp\na,s,0,1", "no column 'response'.*'resp'"),
        ("stimulus,site_id,repetition,response\na,s,0,1", "no column 'stimulus_id' or 'image_id'.*'stimulus'"),
        ("stimulus_id|site_id|repetition|response\na|s|0|1", "no column 'stimulus_id'"),
        ("stimulus_id;site_id;repetition;response\na;s;0;1.234,5", "line 2: response '1.234,5' is not a number"),
        (f"{HEADER}\na,s,0,1\n\nb,s,0,many\n", "line 4: response 'many' is not a number"),
        (f"{HEADER}\na,s,first,1\n", "line 2: repetition 'first' is not a number"),
        (f"{HEADER}\na,s,0.5,1\n", "line 2: repetition '0.5' is not a whole number"),
        (f"{HEADER}\na,s,,1\n", "line 2: repetition '' is not a number"),
        (f"{HEADER}\na,s,0,1\nb,s,0,1\na,s,0,2\n", "'a', site 's', repetition 0 a second time in line 4"),
        (f"{HEADER}\na,s,0,1\n,s,0,1\n", "line 3: stimulus_id '' is empty"),
        (f"{HEADER}\na,s,0,1\nb\n", "line 3: site_id '' is empty"),
        (f"{HEADER}\na,s,0,1\na,s,1,1,9\n", "cannot be read as a CSV.*line 3 has 5 fields where the header has 4"),
        (f"{HEADER}\na,s,0,1,9\n", "cannot be read as a CSV.*line 2 has 5 fields"),
        (f"{HEADER}\n", "no rows"),
        ("", "cannot be read as a CSV.*it is empty"),
        (f'{HEADER}\n"a,s,0,1\n', "cannot be read as a CSV.*a quote .* never closed"),
        (f"{HEADER},window_start_ms,window_end_ms\na,s,0,1,70,170\nb,s,0,1,50,170\n", "2 values of window_start_ms"),
        (f"{HEADER},window_start_ms,window_end_ms\na,s,0,1,soon,170\n", "window_start_ms 'soon' is not a number"),
    ],
)
def test_a_bad_csv_gets_one_sentence(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_text(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert "'x.csv'" in str(caught.value)
    assert "oken" not in str(caught.value)  # no sentence of pandas' about tokens


def test_binary_called_csv(tmp_path):
    (tmp_path / "x.csv").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(ValueError, match=r"'x\.csv' cannot be read as a CSV file \(line 2 is not UTF-8 text\)"):
        SiteRecordings.load(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_bytes(b"stimulus_id,site_id\n" + bytes(100))
    with pytest.raises(ValueError, match=r"'x\.csv'"):
        SiteRecordings.load(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("separator", "suffix", "decimal"),
    [(";", ".csv", "."), (";", ".csv", ","), ("\t", ".csv", ","), ("\t", ".tsv", "."), (",", ".csv", ".")],
)
def test_other_separators_and_decimal_commas(tmp_path, separator, suffix, decimal):
    rows = [
        ["image_id", "neuroid_id", "repeat", "response", "window_start_ms", "window_end_ms", "depth_mm", "name"],
        ["a,1" if separator != "," else "a1", "s", "1", "3.25", "70.5", "170", "0.5", "x"],
        ["b", "s", "1", "-4", "70.5", "170", "0.5", "x"],
    ]
    text = "\n".join(separator.join(c.replace(".", decimal) for c in row) for row in rows)
    (tmp_path / f"x{suffix}").write_text(text)
    recorded = SiteRecordings.load(tmp_path / f"x{suffix}")
    assert recorded.responses.ravel().tolist() == [3.25, -4.0]
    assert recorded.stimulus_ids == (rows[1][0], "b")
    assert recorded.window_ms == (70.5, 170.0)
    assert recorded.sites["depth_mm"].tolist() == [0.5]


def test_several_windows_of_each_trial_are_time_bins(tmp_path):
    rows = "\n".join(f"{i},s,0,{v},{t},{t + 10}" for i, v, t in (("a", 2, 10), ("a", 1, 0), ("b", 4, 10), ("b", 3, 0)))
    recorded = read_text(tmp_path, f"{HEADER},window_start_ms,window_end_ms\n{rows}\n")
    assert recorded.time_bins_ms == ((0, 10), (10, 20))
    np.testing.assert_array_equal(recorded.responses[:, 0, 0], [[1, 2], [3, 4]])
    with pytest.raises(ValueError, match="a second time in line 6"):
        read_text(tmp_path, f"{HEADER},window_start_ms,window_end_ms\n{rows}\nb,s,0,3,0,10\n")


def test_a_trial_counter_in_place_of_repetitions_is_refused_before_memory_runs_out(tmp_path, monkeypatch):
    monkeypatch.setattr(_tidy, "_MOST_CELLS", 1000)
    rows = "\n".join(f"i{t % 200},s,{t},1" for t in range(400))
    with pytest.raises(ValueError, match="numbers 400 repetitions"):
        read_text(tmp_path, f"{HEADER}\n{rows}\n")


def test_rows_may_come_in_any_order(ragged, tmp_path):
    ragged.save(tmp_path / "x.csv")
    lines = (tmp_path / "x.csv").read_text(encoding="utf-8").splitlines()
    mixed = [lines[0], *np.random.default_rng(0).permutation(lines[1:])]
    back = read_text(tmp_path, "\n".join(mixed))
    again = back.align(ragged.stimulus_ids).select_sites(ragged.site_ids)
    assert_same(again, ragged)


# ---- Parquet


def test_a_parquet_table_of_another_program_is_read(tmp_path):
    table = pd.DataFrame(
        {
            "image_id": pd.Categorical(["b", "a", "b", "a"]),
            "neuroid_id": [7, 7, 7, 12],
            "repeat": [1, 1, 2, 1],
            "response": np.array([1, 2, np.nan, 4], dtype=np.float64),
            "region": pd.Series(["V4", "V4", "V4", None], dtype="string"),
            "depth": [0.5, 0.5, 0.5, 2.0],
            "day": [1, 2, 3, 4],
        }
    )
    table.to_parquet(tmp_path / "x.parquet")
    recorded = SiteRecordings.load(tmp_path / "x.parquet")
    nan = np.nan
    assert recorded.stimulus_ids == ("b", "a")
    assert recorded.site_ids == ["7", "12"]
    np.testing.assert_array_equal(recorded.responses[:, :, 0], [[1, nan], [2, nan]])
    np.testing.assert_array_equal(recorded.responses[:, :, 1], [[nan, nan], [4, nan]])
    assert recorded.sites["depth"].tolist() == [0.5, 2.0]
    assert recorded.sites["region"].isna().tolist() == [False, True]
    assert recorded.meta == {"columns_not_read": ["day"]}
    for changed, message in (
        (table.assign(response=["1", "x", "", "2"]), r"row 2: response 'x' is not a number"),
        (table.assign(repeat=1), r"site '7', repetition 1 a second time in row 3"),
        (table.rename(columns={"response": "responses"}), r"no column 'response'.*closest is 'responses'"),
    ):
        changed.to_parquet(tmp_path / "x.parquet")
        with pytest.raises(ValueError, match=message):
            SiteRecordings.load(tmp_path / "x.parquet")


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.95])
def test_a_damaged_parquet_file_is_named(ragged, tmp_path, kept):
    ragged.save(tmp_path / "x.parquet")
    content = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "x.parquet").write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ValueError, match=r"'x\.parquet' cannot be read as Parquet"):
        SiteRecordings.load(tmp_path / "x.parquet")


def test_without_pyarrow_one_sentence_names_the_extra(ragged, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"neural-population-control\[parquet\]"):
        ragged.save(tmp_path / "x.parquet")
    assert list(tmp_path.iterdir()) == []
