"""Arrays with named axes (HDF5, MATLAB, numpy) and the two public data sets, built in their own layouts."""

from __future__ import annotations

import dataclasses

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from neural_fits.recordings import SiteRecordings
from neural_fits.recordings_io import _header, tvsd
from neural_fits.recordings_io._matlab import char_text
from neural_fits.recordings_io._options import adds_up
from neural_fits.recordings_io.images import load_stimuli


@pytest.fixture
def trials():
    """(stimulus, repeat, site) with a missing trial."""
    values = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
    values[1, 2] = np.nan
    return values


def put(path, **arrays):
    if path.suffix == ".npz":
        np.savez(path, **{k: np.array(v) for k, v in arrays.items()})
    elif path.suffix == ".npy":
        np.save(path, arrays["data"])
    else:
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                text = np.asarray(values).dtype.kind == "U"
                file.create_dataset(
                    name, data=list(values) if text else values, dtype=h5py.string_dtype() if text else None
                )
    return path


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".npz", ".npy"])
@pytest.mark.parametrize(
    ("axes", "order"),
    [
        ("stimulus repeat site", (0, 1, 2)),
        ("repeat, image, neuroid", (1, 0, 2)),
        ("unit,stimulus,trial", (2, 0, 1)),
        ("Neuron image repetition", (2, 0, 1)),
    ],
)
def test_axes_are_put_in_order(trials, tmp_path, suffix, axes, order):
    path = put(tmp_path / f"x{suffix}", data=trials.transpose(order))
    recorded = SiteRecordings.load(path, axes=axes)
    np.testing.assert_array_equal(recorded.responses, trials)
    assert recorded.stimulus_ids == ("stimulus_0001", "stimulus_0002", "stimulus_0003", "stimulus_0004")
    assert recorded.site_ids == ["site_001", "site_002"]
    assert recorded.window_ms is None


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_ids_and_time_bins_beside_the_array_are_used(trials, tmp_path, suffix):
    four = np.stack([trials, trials * 2, trials * 3], axis=0)
    path = put(
        tmp_path / f"x{suffix}",
        rates=four,
        image_ids=["d", "c", "b", "a"],
        neuroid_ids=np.array([12, 7]),
        time_bins_ms=[[0, 50], [50, 100], [100, 150]],
    )
    recorded = SiteRecordings.load(path, axes="time stimulus repeat site")
    assert recorded.stimulus_ids == ("d", "c", "b", "a")
    assert recorded.site_ids == ["12", "7"]
    np.testing.assert_array_equal(recorded.responses, np.moveaxis(four, 0, 3))
    window = SiteRecordings.load(path, axes="time stimulus repeat site", window_ms=(50, 150))
    np.testing.assert_allclose(window.responses, trials * 5, rtol=1e-6)  # counts are summed


@pytest.mark.parametrize(
    ("unit", "sums"),
    [
        ("spikes/window", True),
        ("spikes/bin", True),
        ("spikes/s", False),
        ("Hz", False),
        ("spikes (Hz)", False),
        ("uV", False),
    ],
)
def test_which_units_add_up(trials, tmp_path, unit, sums):
    assert adds_up(unit) == sums
    four = np.stack([trials, trials * 3], axis=3)
    sites = SiteRecordings.load(put(tmp_path / "a.npy", data=trials), axes="stimulus repeat site").sites
    made = SiteRecordings(four, tuple("abcd"), sites, unit=unit, time_bins_ms=((0, 10), (10, 20)))
    made.save(tmp_path / "x.h5")
    window = SiteRecordings.load(tmp_path / "x.h5", window_ms=(0, 20))
    np.testing.assert_allclose(window.responses, trials * (4 if sums else 2), rtol=1e-6)


def test_means_have_one_repeat_and_the_window_can_be_stated(trials, tmp_path):
    path = put(tmp_path / "x.npy", data=trials[:, 0].T)
    recorded = SiteRecordings.load(path, axes="site stimulus", window_ms=(70, 170))
    np.testing.assert_array_equal(recorded.responses, trials[:, :1])
    assert recorded.window_ms == (70.0, 170.0)


def test_one_row_per_presentation(tmp_path):
    path = put(tmp_path / "x.npz", counts=np.arange(10.0).reshape(5, 2), stimulus_ids=list("babbc"))
    recorded = SiteRecordings.load(path, axes="presentation site")
    assert recorded.stimulus_ids == ("b", "a", "c")
    np.testing.assert_array_equal(recorded.responses[:, :, 0], [[0, 4, 6], [2, np.nan, np.nan], [8, np.nan, np.nan]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"2 arrays: 'rates', 'counts'; say which with dataset='rates'"),
        ({"dataset": "rates"}, r"the 3 axes of 'rates' with shape \(4, 3, 2\).*SiteRecordings\.load\('x\.npz', axes="),
        ({"dataset": "rate", "axes": "stimulus repeat site"}, "no dataset 'rate'; did you mean 'rates'"),
        ({"axes": "stimulus repat site"}, "'repat'; did you mean 'repeat'"),
        ({"dataset": "rates", "axes": "stimulus site"}, r"names 2 axes, but 'rates' in 'x\.npz' has shape \(4, 3, 2\)"),
        ({"dataset": "rates", "axes": "stimulus stimulus site"}, "names an axis twice"),
        ({"dataset": "rates", "axes": "stimulus repeat time"}, "lacks the word 'site'"),
        ({"dataset": "rates", "axes": "time repeat site"}, "lacks the word 'stimulus'"),
        ({"dataset": "rates", "axes": "presentation repeat site"}, "mixes presentation"),
        ({"dataset": "rates", "axes": "stimulus time site"}, "time axis of 3 bins, but the file does not say when"),
        ({"dataset": "rates", "axes": "site repeat stimulus"}, "4 ids in 'stimulus_ids' but 2 entries"),
        ({"dataset": "rates", "axes": 3}, "axes is a int"),
        ({"dataset": "rates", "axes": "stimulus repeat site", "window_ms": (170, 70)}, "window_ms is"),
    ],
)
def test_what_an_array_cannot_say_is_asked_for(trials, tmp_path, options, message):
    path = put(tmp_path / "x.npz", rates=trials, counts=trials, stimulus_ids=list("abcd"), lone=np.arange(3))
    with pytest.raises((ValueError, TypeError), match=message):
        SiteRecordings.load(path, **options)


def test_the_array_with_as_many_axes_as_named_is_taken(trials, tmp_path):
    path = put(tmp_path / "x.npz", rates=trials, positions=np.zeros((2, 2)))
    np.testing.assert_array_equal(SiteRecordings.load(path, axes="stimulus repeat site").responses, trials)


def test_ids_that_occur_twice_are_refused(trials, tmp_path):
    path = put(tmp_path / "x.h5", rates=trials, stimulus_ids=list("abca"))
    with pytest.raises(ValueError, match=r"stimulus_ids of 'x\.h5' must be unique.*'a'"):
        SiteRecordings.load(path, axes="stimulus repeat site")


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_missing_ids_are_refused_and_whole_numbers_have_no_point(tmp_path, suffix):
    counts = np.arange(10.0).reshape(5, 2)
    path = put(tmp_path / f"x{suffix}", counts=counts, stimulus_ids=np.array([2, np.nan, 1, np.nan, 2]))
    with pytest.raises(ValueError, match=r"lacks 2 of the 5 ids in 'stimulus_ids', the first in row 2; write"):
        SiteRecordings.load(path, axes="presentation site")
    path = put(tmp_path / f"y{suffix}", counts=counts, stimulus_ids=["a", "b", "", "a", "b"])
    with pytest.raises(ValueError, match=r"lacks 1 of the 5 ids in 'stimulus_ids', the first in row 3"):
        SiteRecordings.load(path, axes="presentation site")
    path = put(tmp_path / f"z{suffix}", counts=counts, stimulus_ids=np.array([2, 1.5, 1, 1, 2]))
    assert SiteRecordings.load(path, axes="presentation site").stimulus_ids == ("2", "1.5", "1")


def test_cells_of_numbers_are_ids_too(tmp_path):
    ids = np.array([3.0, "a", 0.0, 4.5], dtype=object)
    savemat(tmp_path / "x.mat", {"rates": np.ones((4, 2)), "stimulus_ids": ids})
    assert SiteRecordings.load(tmp_path / "x.mat", axes="stimulus site").stimulus_ids == ("3", "a", "0", "4.5")
    assert [char_text(np.array([[v]])) for v in (3.0, 0.0, 4.5, np.nan)] == ["3", "0", "4.5", ""]
    savemat(tmp_path / "y.mat", {"rates": np.ones((2, 2)), "stimulus_ids": np.array(["a", np.nan], dtype=object)})
    with pytest.raises(ValueError, match="lacks 1 of the 2 ids in 'stimulus_ids', the first in row 2"):
        SiteRecordings.load(tmp_path / "y.mat", axes="stimulus site")


@pytest.mark.parametrize("suffix", [".h5", ".npz", ".npy"])
def test_stimuli_that_were_only_numbered_say_why_they_match_nothing(trials, tmp_path, suffix):
    recorded = SiteRecordings.load(put(tmp_path / f"x{suffix}", data=trials), axes="stimulus repeat site")
    assert recorded.meta == {"stimulus_ids": "numbered by their order; the file names none"}
    why = r"; the file of recordings names no stimuli, so they were numbered; put an array stimulus_ids into it\.$"
    with pytest.raises(ValueError, match=r"4 of the 4 stimuli have no recording.*" + why):
        recorded.align(list("abcd"))
    assert recorded.align(recorded.stimulus_ids[::-1]).stimulus_ids == recorded.stimulus_ids[::-1]
    renamed = dataclasses.replace(recorded, stimulus_ids=tuple("abcd"))
    with pytest.raises(ValueError, match="1 of the 1 stimuli have no recording") as caught:
        renamed.align(["e"])
    assert "numbered" not in str(caught.value)


def test_stimuli_named_by_the_file_carry_no_note(trials, tmp_path):
    path = put(tmp_path / "x.npz", data=trials, stimulus_ids=list("abcd"))
    assert SiteRecordings.load(path, axes="stimulus repeat site").meta == {}


def test_python_objects_are_never_unpickled(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[{}, {}]], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", a=np.array([[{}, {}]], dtype=object))
    for name in ("x.npy", "x.npz"):
        with pytest.raises(ValueError, match="Python objects"):
            SiteRecordings.load(tmp_path / name, axes="stimulus site")


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".npz", ".npy", ".mat"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_damaged_files_are_named(trials, tmp_path, suffix, kept):
    path = tmp_path / f"x{suffix}"
    if suffix in (".npy", ".mat"):
        put(path, data=trials)
    else:
        sites = SiteRecordings.load(put(tmp_path / "a.npy", data=trials), axes="stimulus repeat site").sites
        SiteRecordings(trials, tuple("abcd"), sites).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ValueError, match=rf"'x\{suffix}' cannot be read as"):
        SiteRecordings.load(path, axes=None if suffix in (".h5", ".hdf5", ".npz") else "stimulus repeat site")


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_our_own_files_need_no_options_and_take_none(trials, tmp_path, suffix, monkeypatch):
    sites = SiteRecordings.load(put(tmp_path / "a.npy", data=trials), axes="stimulus repeat site").sites
    made = SiteRecordings(trials, tuple("abcd"), sites, window_ms=(70, 170))
    path = tmp_path / f"x{suffix}"
    made.save(path)
    assert SiteRecordings.load(path, window_ms=(70, 170)).window_ms == (70.0, 170.0)
    with pytest.raises(ValueError, match=r"already taken in \(70\.0, 170\.0\) ms"):
        SiteRecordings.load(path, window_ms=(50, 150))
    for option in ({"axes": "stimulus repeat site"}, {"dataset": "responses"}):
        with pytest.raises(ValueError, match="this package wrote it"):
            SiteRecordings.load(path, **option)
    monkeypatch.setattr(_header, "FORMAT_VERSION", 99)
    made.save(path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="version 99, but this package reads up to 1"):
        SiteRecordings.load(path)


# ---- MATLAB


def put_matlab(file, name, values):
    """A MATLAB array as HDF5 holds it: axes reversed, class in an attribute; a list of text is a cell array."""
    if isinstance(values, list):
        cells = []
        for k, text in enumerate(values):
            place = f"#refs#/{name.replace('/', '_')}_{k}"
            file[place] = np.array([[ord(c)] for c in text], dtype=np.uint16)
            file[place].attrs["MATLAB_class"] = np.bytes_("char")
            cells.append(file[place].ref)
        file.create_dataset(name, data=np.array([cells], dtype=h5py.ref_dtype), dtype=h5py.ref_dtype)
        file[name].attrs["MATLAB_class"] = np.bytes_("cell")
    else:
        file[name] = np.asarray(values).T
        file[name].attrs["MATLAB_class"] = np.bytes_("double")


def test_a_matlab_file_is_read_in_matlabs_order(trials, tmp_path):
    values = trials.transpose(2, 0, 1)  # size(x) in MATLAB: site, image, repeat
    with h5py.File(tmp_path / "new.mat", "w") as file:
        put_matlab(file, "session/rates", values)
        put_matlab(file, "stimulus_ids", ["b_1.png", "ä", "c", "d"])
        put_matlab(file, "site_ids", np.array([[3.0, 9.0]]))
    recorded = SiteRecordings.load(tmp_path / "new.mat", axes="site image repeat")
    np.testing.assert_array_equal(recorded.responses, trials)
    assert recorded.stimulus_ids == ("b_1.png", "ä", "c", "d")
    assert recorded.site_ids == ["3", "9"]
    with pytest.raises(ValueError, match=r"shape \(2, 4, 3\)"):
        SiteRecordings.load(tmp_path / "new.mat", dataset="session/rates")
    ids = np.array(["b_1.png", "ä", "c", "d"], dtype=object)
    savemat(tmp_path / "old.mat", {"rates": values, "gain": [1, 2, 3], "stimulus_ids": ids, "site_ids": [3, 9]})
    with pytest.raises(ValueError, match=r"axes of 'rates' with shape \(2, 4, 3\)"):
        SiteRecordings.load(tmp_path / "old.mat")  # the vectors are no candidates
    old = SiteRecordings.load(tmp_path / "old.mat", axes="site image repeat")
    np.testing.assert_array_equal(old.responses, trials)
    assert (old.stimulus_ids, old.site_ids) == (recorded.stimulus_ids, recorded.site_ids)


# ---- npc_v4_data.h5


def npc_v4_file(path):
    rng = np.random.default_rng(0)
    neural = {}
    with h5py.File(path, "w") as file:
        file["images/naturalistic"] = rng.integers(0, 256, (6, 4, 4), dtype=np.uint8)
        file["images/curvature"] = rng.integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
        for where, repeats, sites, made, shown in (
            ("monkey_m/ohp/session_1", 4, 3, 2, 6),
            ("monkey_m/stretch/session_1", 3, 2, 3, 6),
            ("monkey_n/stretch/session_2", 2, 1, 2, 5),  # saw fewer of the naturalistic images
        ):
            neural[where] = rng.random((repeats, shown, sites))
            file[f"neural/naturalistic/{where}"] = neural[where]
            file[f"neural/synthetic/{where}"] = rng.random((repeats + 1, made, sites))
            file[f"images/synthetic/{where}"] = rng.integers(0, 256, (made, 4, 4)).astype(np.float64)
            file[f"target_inds/{where}"] = np.array([sites - 1])
        file["neural/curvature/monkey_m"] = rng.random((2, 3, 2))
        file["readme"] = "x"
    return neural


def test_the_data_of_2019_are_merged(tmp_path):
    neural = npc_v4_file(tmp_path / "npc_v4_data.h5")
    with pytest.raises(ValueError, match="'curvature', 'naturalistic', 'synthetic'; say which with dataset="):
        SiteRecordings.load(tmp_path / "npc_v4_data.h5")
    with pytest.raises(ValueError, match="did you mean 'naturalistic'"):
        SiteRecordings.load(tmp_path / "npc_v4_data.h5", dataset="natural")
    recorded = SiteRecordings.load(tmp_path / "npc_v4_data.h5", dataset="naturalistic")
    assert recorded.shape == (6, 4, 6)
    assert recorded.window_ms == (70.0, 170.0)
    assert recorded.site_ids == [
        "m_ohp_1_0",
        "m_ohp_1_1",
        "m_ohp_1_2",
        "m_stretch_1_0",
        "m_stretch_1_1",
        "n_stretch_2_0",
    ]
    assert recorded.sites["animal"].tolist() == ["monkey_m"] * 5 + ["monkey_n"]
    assert recorded.sites["setting"].tolist() == ["ohp"] * 3 + ["stretch"] * 3
    assert recorded.sites["session"].tolist() == ["session_1"] * 5 + ["session_2"]
    assert recorded.sites["neuroid_index"].tolist() == [0, 1, 2, 0, 1, 0]
    assert recorded.sites["is_target"].tolist() == [False, False, True, False, True, True]
    first = np.moveaxis(neural["monkey_m/ohp/session_1"], 0, 1).astype(np.float32)
    np.testing.assert_array_equal(recorded.responses[:, :, :3], first)
    last = np.moveaxis(neural["monkey_n/stretch/session_2"], 0, 1).astype(np.float32)
    np.testing.assert_array_equal(recorded.responses[:5, :2, 5:], last)
    assert np.isnan(recorded.responses[5, :, 5]).all()
    assert np.isnan(recorded.responses[:, 2:, 5]).all()
    with pytest.raises(ValueError, match="axes="):
        SiteRecordings.load(tmp_path / "npc_v4_data.h5", dataset="naturalistic", axes="repeat stimulus site")


@pytest.mark.parametrize(("kind", "shape"), [("naturalistic", (6, 1)), ("synthetic", (7, 1)), ("curvature", (3, 3))])
def test_images_of_2019_bear_the_ids_of_the_recordings(tmp_path, kind, shape):
    npc_v4_file(tmp_path / "npc_v4_data.h5")
    recorded = SiteRecordings.load(tmp_path / "npc_v4_data.h5", dataset=kind)
    with pytest.raises(ValueError, match=r"size_deg=8\.0"):
        load_stimuli(tmp_path / "npc_v4_data.h5", kind)
    stimuli = load_stimuli(tmp_path / "npc_v4_data.h5", kind, size_deg=8.0)
    assert (len(stimuli), stimuli.shape[0]) == shape
    assert list(recorded.align(stimuli).stimulus_ids) == stimuli.stimulus_ids
    with h5py.File(tmp_path / "npc_v4_data.h5") as file:
        if kind == "synthetic":
            assert stimuli.stimulus_ids[2] == "synthetic_m_stretch_1_0001"
            pixels = file["images/synthetic/monkey_m/stretch/session_1"][0]
            np.testing.assert_array_equal(stimuli.codes()[2, 0], pixels)
            where = file["neural/synthetic/monkey_m/stretch/session_1"][:]
            found = recorded.select_stimuli(["synthetic_m_stretch_1_0001"]).responses[0]
            np.testing.assert_array_equal(found[:4, 3:5], where[:, 0].astype(np.float32))
            assert np.isnan(found[:, [0, 1, 2, 5]]).all()
        elif kind == "curvature":
            np.testing.assert_array_equal(stimuli.codes()[1], file["images/curvature"][1].transpose(2, 0, 1))
            assert recorded.site_ids == ["m_0", "m_1"]


def test_a_wrong_count_of_images_or_targets_is_refused(tmp_path):
    npc_v4_file(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["images/synthetic/monkey_m/ohp/session_1"]
        file["images/synthetic/monkey_m/ohp/session_1"] = np.zeros((5, 4, 4))
        file["target_inds/monkey_m/ohp/session_1"][0] = 3
    with pytest.raises(ValueError, match="responses to 2 images, but there are 5"):
        SiteRecordings.load(tmp_path / "a.h5", dataset="synthetic")
    with pytest.raises(ValueError, match="names site 3 of 3"):
        SiteRecordings.load(tmp_path / "a.h5", dataset="naturalistic")


# ---- TVSD


def normalized(folder, test=None):
    test = np.zeros((1024, 2, 3)) if test is None else test
    rng = np.random.default_rng(0)
    train = rng.normal(size=(1024, 3))
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "THINGS_normMUA.mat", "w") as file:
        put_matlab(file, "train_MUA", train)
        put_matlab(file, "test_MUA", test.mean(axis=2))
        put_matlab(file, "test_MUA_reps", test)
        put_matlab(file, "reliab", np.stack([np.full(1024, 0.2), np.arange(1024) / 1024], axis=1))
        put_matlab(file, "SNR", np.stack([np.ones(1024), np.full(1024, np.nan)], axis=1))
    return train


def things_log(folder):
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "things_imgs.mat", "w") as file:
        put_matlab(
            file, "train_imgs/things_path", ["aardvark\\aardvark_01b.jpg", "abacus\\abacus_02s.jpg", "ant\\ant_03s.jpg"]
        )
        put_matlab(file, "test_imgs/things_path", ["bear\\bear_01b.jpg", "bee\\bee_01b.jpg"])


def test_normalized_mua_of_tvsd(tmp_path):
    test = np.random.default_rng(1).normal(size=(1024, 2, 3))
    train = normalized(tmp_path / "monkeyF", test)
    path = tmp_path / "monkeyF" / "THINGS_normMUA.mat"
    with pytest.raises(ValueError, match="'train', 'test'; say which"):
        SiteRecordings.load(path)
    recorded = SiteRecordings.load(path, dataset="train")
    assert recorded.stimulus_ids == ("train_00001", "train_00002", "train_00003")
    np.testing.assert_array_equal(recorded.responses[:, 0], train.T.astype(np.float32))
    assert recorded.sites["region"].value_counts().to_dict() == {"V1": 512, "IT": 320, "V4": 192}
    assert recorded.sites["region"].iloc[[511, 512, 831, 832]].tolist() == ["V1", "IT", "IT", "V4"]
    assert recorded.sites["array"].iloc[[0, 63, 64, 1023]].tolist() == ["1", "1", "2", "16"]
    assert set(recorded.sites["animal"]) == {"monkeyF"}
    np.testing.assert_allclose(recorded.sites["reliability"], 0.1 + np.arange(1024) / 2048)
    assert (recorded.sites["snr"] == 1).all()  # a day without a value is left out
    things_log(tmp_path / "monkeyF" / "_logs")
    named = SiteRecordings.load(path, dataset="test")
    assert named.stimulus_ids == ("bear_01b", "bee_01b")
    assert named.meta["things_path"] == ["bear/bear_01b.jpg", "bee/bee_01b.jpg"]
    np.testing.assert_array_equal(named.responses, test.transpose(1, 2, 0).astype(np.float32))
    with pytest.raises(ValueError, match="averaged over one window per area"):
        SiteRecordings.load(path, dataset="test", window_ms=(50, 150))


def test_no_region_is_guessed(tmp_path):
    normalized(tmp_path / "data")
    recorded = SiteRecordings.load(tmp_path / "data" / "THINGS_normMUA.mat", dataset="train")
    assert not {"region", "animal"} & set(recorded.sites)
    normalized(tmp_path / "monkeyN")
    recorded = SiteRecordings.load(tmp_path / "monkeyN" / "THINGS_normMUA.mat", dataset="train")
    assert recorded.sites["region"].iloc[[511, 512, 767, 768]].tolist() == ["V1", "V4", "V4", "IT"]


@pytest.mark.parametrize("block", [2**27, 1])
def test_time_courses_of_tvsd(tmp_path, monkeypatch, block):
    monkeypatch.setattr(tvsd, "_BLOCK_BYTES", block)
    rng = np.random.default_rng(0)
    times = np.arange(-20.0, 60.0, 10.0)
    # trial, train, test, rep, count, correct, day
    table = np.array(
        [[1, 3, 0, 0, 1, 1, 1], [2, 0, 2, 0, 2, 1, 1], [3, 1, 0, 0, 3, 1, 1], [4, 0, 2, 0, 1, 1, 2]], float
    )
    data = rng.normal(size=(3, 4, len(times)))  # electrode, trial, time
    path = tmp_path / "monkeyN_THINGS_MUA_trials.mat"
    with h5py.File(path, "w") as file:
        put_matlab(file, "ALLMUA", data)
        put_matlab(file, "ALLMAT", table)
        put_matlab(file, "tb", times[None])
    with pytest.raises(ValueError, match="'train', 'test'; say which"):
        SiteRecordings.load(path, window_ms=(0, 30))
    with pytest.raises(ValueError, match=r"time course from -20 to 50 ms.*window_ms"):
        SiteRecordings.load(path, dataset="test")
    with pytest.raises(ValueError, match="reaches beyond the samples"):
        SiteRecordings.load(path, dataset="test", window_ms=(0, 70))
    things_log(tmp_path / "_logs")
    recorded = SiteRecordings.load(path, dataset="test", window_ms=(0, 30))
    assert recorded.stimulus_ids == ("bee_01b",)
    assert recorded.meta["things_path"] == ["bee/bee_01b.jpg"]
    expected = data[:, [1, 3], 2:5].mean(axis=2).T
    np.testing.assert_allclose(recorded.responses[0], expected, rtol=1e-6)
    assert "region" not in recorded.sites  # channels are in the order of the recording system
    savemat(tmp_path / "_logs" / "monkeyN_1024chns_mapping_x.mat", {"mapping": [[3, 1, 2]]})
    mapped = SiteRecordings.load(path, dataset="train", window_ms=(0, 30))
    assert mapped.stimulus_ids == ("aardvark_01b", "ant_03s")
    np.testing.assert_allclose(mapped.responses[1, 0], data[[2, 0, 1], 0, 2:5].mean(axis=1), rtol=1e-6)
    savemat(tmp_path / "_logs" / "monkeyN_1024chns_mapping_x.mat", {"mapping": [[3, 3, 2]]})
    with pytest.raises(ValueError, match="is no order of the 3 channels"):
        SiteRecordings.load(path, dataset="train", window_ms=(0, 30))
