"""NWB: files as laboratories write them (made with pynwb), and our own."""

from __future__ import annotations

import datetime
import json
import sys
import warnings

import h5py
import numpy as np
import pandas as pd
import pytest
from pynwb import NWBHDF5IO, NWBFile, TimeSeries, validate
from pynwb.base import ImageReferences, Images
from pynwb.epoch import TimeIntervals
from pynwb.image import GrayscaleImage, ImageSeries, IndexSeries, RGBAImage, RGBImage

from neural_fits.recordings import SiteRecordings
from neural_fits.recordings_io import _header
from neural_fits.recordings_io._nwb_units import _inside
from neural_fits.recordings_io.images import load_stimuli

NAMES = ("zebra.png", "ant.png", "10.png")  # their order is not the alphabet's
#: image, onset in s; the repeats are ragged
SHOWN = [(0, 1.0), (1, 2.0), (2, 3.0), (1, 4.0), (0, 5.0), (1, 6.0)]
#: spikes relative to the onset in ms: 70 is inside the default window, 170 is not
SPIKES = {0: [69.0, 70.0, 100.0, 170.0], 1: [71.0], 2: [], 3: [120.0, 169.0, 169.5], 4: [171.0, 300.0], 5: [80.0] * 4}


def spike_times(unit=0):
    times = [SHOWN[k][1] + ms / 1000 for k, offsets in SPIKES.items() for ms in offsets]
    return np.sort(np.array(times)) if unit == 0 else np.array([1.09, 5.1])


def new_file():
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    return NWBFile(session_description="x", identifier="day 1", session_start_time=start)


def add_images(nwb, ordered=True, names=NAMES, **kinds):
    rng = np.random.default_rng(0)
    images = [GrayscaleImage(name=n, data=rng.integers(0, 256, (4, 5), dtype=np.uint8)) for n in names]
    order = {"order_of_images": ImageReferences(name="order_of_images", data=images)} if ordered else {}
    stimuli = Images(name="stimuli", images=images, description="x", **order)
    nwb.add_stimulus_template(stimuli)
    return stimuli


def add_units(nwb, obs=None):
    device = nwb.create_device(name="array")
    group = nwb.create_electrode_group(name="A", description="x", location="V4", device=device)
    nwb.add_unit_column(name="quality", description="x")
    nwb.add_unit_column(name="depth_mm", description="x")
    for unit in (0, 1):
        more = {} if obs is None else {"obs_intervals": np.array(obs[unit], dtype=float)}
        nwb.add_unit(
            spike_times=spike_times(unit), quality=("good", "mua")[unit], depth_mm=0.5 * unit, electrode_group=group,
            id=7 + unit, **more,
        )  # fmt: skip


def add_trials(nwb, shown=SHOWN, **columns):
    for name in columns:
        nwb.add_trial_column(name=name, description="x")
    for row, (_, onset) in enumerate(shown):
        nwb.add_trial(start_time=onset, stop_time=onset + 0.1, **{k: v[row] for k, v in columns.items()})


def write(nwb, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with NWBHDF5IO(str(path), "w") as io:
            io.write(nwb)
    return path


def names_shown(shown=SHOWN):
    return [NAMES[i] for i, _ in shown]


EXPECTED = {"zebra.png": [2, 0, np.nan], "ant.png": [1, 3, 4], "10.png": [0, np.nan, np.nan]}


def assert_expected(recorded, order=("zebra.png", "ant.png", "10.png")):
    assert recorded.stimulus_ids == tuple(order)
    np.testing.assert_array_equal(recorded.responses[:, :, 0], [EXPECTED[i] for i in order])


def test_trials_with_names_and_units(tmp_path):
    nwb = new_file()
    add_units(nwb)
    add_trials(nwb, stimulus_name=names_shown())
    recorded = SiteRecordings.load(write(nwb, tmp_path / "x.nwb"))
    assert_expected(recorded)
    assert recorded.site_ids == ["unit_7", "unit_8"]
    assert recorded.window_ms == (70.0, 170.0)
    assert recorded.unit == "spikes/window"
    assert recorded.sites["quality"].tolist() == ["good", "mua"]
    assert recorded.sites["depth_mm"].tolist() == [0.0, 0.5]
    assert recorded.sites["electrode_group"].tolist() == ["A", "A"]
    assert recorded.sites["location"].tolist() == ["V4", "V4"]
    assert recorded.meta["dataset"] == "trials"
    assert recorded.meta["stimulus_column"] == "stimulus_name"


def test_spikes_are_counted_from_the_onset_of_the_image_where_trials_begin_earlier(tmp_path):
    nwb = new_file()
    add_units(nwb)
    for name in ("stimulus_name", "stimulus_onset"):
        nwb.add_trial_column(name=name, description="x")
    for image, onset in SHOWN:
        times = {"start_time": onset - 0.4, "stop_time": onset + 0.3}
        nwb.add_trial(**times, stimulus_name=NAMES[image], stimulus_onset=onset)
    assert_expected(SiteRecordings.load(write(nwb, tmp_path / "x.nwb")))


def test_another_window_is_counted_and_the_nominal_duration_is_not_used(tmp_path):
    nwb = new_file()
    add_units(nwb)
    add_trials(nwb, stimulus_id=names_shown(), stimuli_presentation_time_ms=[100.0] * 6)
    recorded = SiteRecordings.load(write(nwb, tmp_path / "x.nwb"), window_ms=(0, 400))
    assert recorded.responses[0, :2, 0].tolist() == [4, 2]
    assert recorded.window_ms == (0.0, 400.0)


@pytest.mark.parametrize("first", [0, 1])
def test_numbers_are_names_through_the_order_of_the_images(tmp_path, first):
    nwb = new_file()
    add_units(nwb)
    add_images(nwb)
    add_trials(nwb, stimulus_presented=[i + first for i, _ in SHOWN])
    recorded = SiteRecordings.load(write(nwb, tmp_path / "x.nwb"))
    assert_expected(recorded)
    assert set(recorded.stimulus_ids) == set(load_stimuli(tmp_path / "x.nwb", size_deg=8.0).stimulus_ids)
    assert recorded.meta["stimulus_numbers"] == f"{first}-based"


def test_numbers_that_may_count_from_zero_or_one_stay_numbers_and_match_no_images(tmp_path):
    nwb = new_file()
    add_units(nwb)
    add_images(nwb, names=[f"im{k}" for k in range(5)])
    add_trials(nwb, stimulus_presented=[1, 2, 3, 1, 4, -1])
    recorded = SiteRecordings.load(write(nwb, tmp_path / "x.nwb"))
    assert recorded.stimulus_ids == ("1", "2", "3", "4")
    assert "0 never occurs, and the largest is 4 with 5 images" in recorded.meta["stimulus_numbers"]
    with pytest.raises(ValueError, match="5 of the 5 stimuli have no recording"):
        recorded.align(load_stimuli(tmp_path / "x.nwb", size_deg=8.0), extra="drop")


@pytest.mark.parametrize("numbers", [[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]])
def test_numbers_beyond_the_images_stay_numbers(tmp_path, numbers):
    nwb = new_file()
    add_units(nwb)
    add_images(nwb, names=[f"im{k}" for k in range(5)])
    add_trials(nwb, stimulus_presented=numbers)
    recorded = SiteRecordings.load(write(nwb, tmp_path / "x.nwb"))
    assert recorded.stimulus_ids == tuple(map(str, numbers))
    assert "stimulus_numbers" not in recorded.meta


def test_zero_shown_with_the_last_images_missing_counts_from_zero(tmp_path):
    nwb = new_file()
    add_units(nwb)
    add_images(nwb, names=[f"im{k}" for k in range(5)])
    add_trials(nwb, stimulus_presented=[2.0, 0.0, np.nan, 1.0, 2.0, 1.0])
    recorded = SiteRecordings.load(write(nwb, tmp_path / "x.nwb"))
    assert recorded.stimulus_ids == ("im2", "im0", "im1")
    assert recorded.meta["stimulus_numbers"] == "0-based"
    assert recorded.meta["presentations_left_out"] == {"no stimulus": 1}


def test_numbers_without_an_order_of_images_stay_numbers(tmp_path):
    nwb = new_file()
    add_units(nwb)
    add_images(nwb, ordered=False)
    add_trials(nwb, stimulus_presented=[i for i, _ in SHOWN])
    assert SiteRecordings.load(write(nwb, tmp_path / "x.nwb")).stimulus_ids == ("0", "1", "2")


def test_an_index_series_with_the_same_onsets_knows_better_than_the_numbers(tmp_path):
    """As one laboratory writes it: the trials hold ids with gaps, the IndexSeries counts the images."""
    nwb = new_file()
    add_units(nwb)
    images = add_images(nwb)
    add_trials(nwb, stimulus_presented=[(40, 7, 99)[i] for i, _ in SHOWN])
    data, times = np.array([i for i, _ in SHOWN], dtype=np.uint32), np.array([t for _, t in SHOWN])
    nwb.add_stimulus(IndexSeries(name="shown", data=data, indexed_images=images, unit="N/A", timestamps=times))
    recorded = SiteRecordings.load(write(nwb, tmp_path / "x.nwb"))
    assert_expected(recorded)
    assert "stimulus_numbers" not in recorded.meta


def test_a_column_of_image_names_is_preferred_to_other_texts(tmp_path):
    nwb = new_file()
    add_units(nwb)
    add_images(nwb)
    add_trials(nwb, stimulus_name=["scenes"] * 6, image_name=[f"h{i}" for i, _ in SHOWN], stimulus=names_shown())
    recorded = SiteRecordings.load(write(nwb, tmp_path / "x.nwb"))
    assert_expected(recorded)
    assert recorded.meta["stimulus_column"] == "stimulus"


@pytest.mark.parametrize("rate", [None, 1.0])
@pytest.mark.parametrize("link", ["indexed_images", "indexed_timeseries"])
def test_an_index_series_without_a_table(tmp_path, rate, link):
    nwb = new_file()
    add_units(nwb)
    images = add_images(nwb)
    pixels = np.zeros((3, 4, 4), np.uint8)
    nwb.add_stimulus_template(ImageSeries(name="scenes", data=pixels, unit="n.a.", format="raw", rate=1.0))
    data = np.array([i for i, _ in SHOWN], dtype=np.uint32)
    when = {"timestamps": np.array([t for _, t in SHOWN])} if rate is None else {"starting_time": 1.0, "rate": rate}
    nwb.add_stimulus(IndexSeries(name="shown", data=data, unit="N/A", indexed_images=images, **when))
    write(nwb, tmp_path / "x.nwb")
    if link == "indexed_timeseries":  # deprecated: pynwb reads it, but no longer writes it
        with h5py.File(tmp_path / "x.nwb", "a") as file:
            del file["stimulus/presentation/shown/indexed_images"]
            file["stimulus/presentation/shown/indexed_timeseries"] = h5py.SoftLink("/stimulus/templates/scenes")
    recorded = SiteRecordings.load(tmp_path / "x.nwb")
    if link == "indexed_timeseries":
        assert recorded.stimulus_ids == ("scenes_0000", "scenes_0001", "scenes_0002")
        stimuli = load_stimuli(tmp_path / "x.nwb", dataset="scenes", size_deg=8.0)
        assert stimuli.stimulus_ids == list(recorded.stimulus_ids)
    np.testing.assert_array_equal(recorded.responses[:, :, 0], list(EXPECTED.values()))


def test_tables_of_presentations_are_asked_for_and_found_by_name(tmp_path):
    nwb = new_file()
    add_units(nwb)
    nwb.add_stimulus_template(
        ImageSeries(
            name="natural_scenes_template", data=np.zeros((3, 4, 4), np.uint8), unit="x", format="raw", rate=1.0
        )
    )
    nwb.add_stimulus_template(
        ImageSeries(name="gratings_template", data=np.zeros((3, 4, 4), np.uint8), unit="x", format="raw", rate=1.0)
    )
    for name in ("natural_scenes_presentations", "gratings_presentations"):
        table = TimeIntervals(name=name, description="x")
        table.add_column(name="frame", description="x")
        table.add_column(name="stimulus_name", description="x")
        for i, onset in [*SHOWN, (-1, 7.0), (1, np.nan), (2, -1.0)]:
            table.add_row(start_time=onset, stop_time=onset + 0.2, frame=float(i), stimulus_name="scenes")
        nwb.add_time_intervals(table)
    path = write(nwb, tmp_path / "x.nwb")
    with pytest.raises(ValueError, match=r"2 tables: .*'natural_scenes_presentations'.*dataset="):
        SiteRecordings.load(path)
    with pytest.raises(ValueError, match="did you mean 'natural_scenes_presentations'"):
        SiteRecordings.load(path, dataset="natural_scene_presentations")
    recorded = SiteRecordings.load(path, dataset="natural_scenes_presentations")
    assert recorded.stimulus_ids == tuple(f"natural_scenes_template_000{i}" for i in range(3))
    np.testing.assert_array_equal(recorded.responses[:, :, 0], list(EXPECTED.values()))
    assert recorded.meta["presentations_left_out"] == {"no onset": 2, "no stimulus": 1}


@pytest.mark.parametrize("column", ["fixation_correct", "correct"])
def test_broken_fixations_are_left_out_and_counted(tmp_path, column):
    nwb = new_file()
    add_units(nwb)
    add_trials(nwb, stimulus_id=names_shown(), **{column: [True, False, True, True, True, True]})
    recorded = SiteRecordings.load(write(nwb, tmp_path / "x.nwb"))
    np.testing.assert_array_equal(recorded.responses[2, :, 0], [3, 4])  # ant.png without its first presentation
    assert recorded.meta["presentations_left_out"] == {"fixation not correct": 1}


def test_units_that_were_not_observed_are_nan(tmp_path):
    nwb = new_file()
    add_units(nwb, obs=[[[0, 4.1], [4.1, 5.5]], [[1.071, 2.5], [4.0, 9.0]]])
    add_trials(nwb, stimulus_id=names_shown())
    recorded = SiteRecordings.load(write(nwb, tmp_path / "x.nwb"))
    nan = np.nan
    # Unit 0: intervals that touch are one; image 1 at 6 s is after them. Unit 1: cut window at 1 s, unobserved at 3 s.
    np.testing.assert_array_equal(recorded.responses[:, :, 0], [[2, 0, nan], [1, 3, nan], [0, nan, nan]])
    np.testing.assert_array_equal(recorded.responses[:, :, 1], [[nan, 1, nan], [0, 0, 0], [nan, nan, nan]])


def test_observed_windows_against_a_plain_loop():
    rng = np.random.default_rng(0)
    for _ in range(50):
        intervals = np.sort(rng.integers(0, 20, (rng.integers(1, 5), 2)), axis=1).astype(float)
        start = rng.integers(0, 20, 10).astype(float)
        end = start + 2
        covered = np.zeros(22, dtype=bool)
        for a, b in intervals.astype(int):
            covered[a:b] = True
        plain = [covered[int(a) : int(b)].all() for a, b in zip(start, end, strict=True)]
        assert _inside(start, end, intervals).tolist() == plain


def test_placeholder_times_are_refused(tmp_path):
    nwb = new_file()
    add_units(nwb)
    add_trials(nwb, shown=[(0, 0.0), (1, 0.0)], stimulus_id=["a", "b"])
    with pytest.raises(ValueError, match="same onset 0 s to all 2 presentations"):
        SiteRecordings.load(write(nwb, tmp_path / "x.nwb"))


def test_files_that_lack_something_say_what(tmp_path):
    nwb = new_file()
    add_trials(nwb, contrast=[1.0] * 6)
    with pytest.raises(ValueError, match=r"no table of intervals has a column such as stimulus_id.*'contrast'"):
        SiteRecordings.load(write(nwb, tmp_path / "x.nwb"))
    nwb = new_file()
    add_trials(nwb, stimulus_id=names_shown())
    with pytest.raises(ValueError, match="no units with spike times"):
        SiteRecordings.load(write(nwb, tmp_path / "y.nwb"))
    with pytest.raises(ValueError, match=r"axes='stimulus site' was given for 'y\.nwb', but NWB"):
        SiteRecordings.load(tmp_path / "y.nwb", axes="stimulus site")
    content = (tmp_path / "y.nwb").read_bytes()
    for size in (0, 100, len(content) // 2):
        (tmp_path / "z.nwb").write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"'z\.nwb' cannot be read as NWB"):
            SiteRecordings.load(tmp_path / "z.nwb")


def test_without_pynwb_one_sentence_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "x.nwb").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "pynwb", None)
    with pytest.raises(ImportError, match=r"neural-population-control\[nwb\]"):
        SiteRecordings.load(tmp_path / "x.nwb")


# ---- binned counts


SPECIFICATION = {  # what a file carries of the extension it was written with
    "namespace": {
        "namespaces": [
            {
                "name": "ndx-binned-spikes",
                "doc": "x",
                "version": "0.1.0",
                "author": ["x"],
                "contact": ["x"],
                "schema": [{"namespace": "core"}, {"source": "ndx-binned-spikes.extensions"}],
            }
        ]
    },
    "ndx-binned-spikes.extensions": {
        "groups": [
            {
                "neurodata_type_def": "BinnedAlignedSpikes",
                "neurodata_type_inc": "NWBDataInterface",
                "doc": "x",
                "datasets": [{"name": "data", "dtype": "numeric", "doc": "x", "shape": [None, None, None]}],
            }
        ]
    },
}


def binned_file(path, width="bin_width_in_milliseconds", first="milliseconds_from_event_to_first_bin", spec=True):
    nwb = new_file()
    add_units(nwb)
    nwb.create_processing_module(name="ecephys", description="x").add(
        TimeSeries(name="other", data=np.zeros(2), unit="x", rate=1.0)
    )
    psth = np.full((2, 3, 2, 4), np.nan)
    counts = np.arange(2 * 4 * 4).reshape(2, 4, 4)  # (unit, event, bin)
    labels, shown = ["im10", "im9", "im1"], [0, 1, 0, 2]
    for label in range(3):
        events = [e for e, c in enumerate(shown) if c == label]
        psth[:, ["im1", "im9", "im10"].index(labels[label]), : len(events)] = counts[:, events]
    nwb.add_scratch(psth, name="psth_pipeline_format", description="x")
    write(nwb, path)
    with h5py.File(path, "a") as file:
        group = file["processing/ecephys"].create_group("BinnedAlignedSpikesToStimulus")
        group.attrs.update({"namespace": "ndx-binned-spikes", "neurodata_type": "BinnedAlignedSpikes"})
        group.attrs.update({width: 50.0, first: -50.0, "object_id": "1"})
        group["data"] = counts.astype(np.uint64)
        group["event_timestamps"] = np.arange(4.0)
        group["condition_indices"] = np.array(shown, dtype=np.uint64)
        group.create_dataset("condition_labels", data=labels, dtype=h5py.string_dtype())
        group["units_region"] = np.array([1, 0])
        for name, content in SPECIFICATION.items() if spec else ():
            file[f"specifications/ndx-binned-spikes/0.1.0/{name}"] = json.dumps(content)
    return counts


@pytest.mark.parametrize(
    "names",
    [
        ("bin_width_in_milliseconds", "milliseconds_from_event_to_first_bin"),
        ("bin_width_in_ms", "event_to_bin_offset_in_ms"),
    ],
)
def test_binned_counts_and_the_psth_made_from_them_agree(tmp_path, names):
    counts = binned_file(tmp_path / "x.nwb", *names)
    with pytest.raises(ValueError, match="'BinnedAlignedSpikesToStimulus', 'psth_pipeline_format'"):
        SiteRecordings.load(tmp_path / "x.nwb")
    binned = SiteRecordings.load(tmp_path / "x.nwb", dataset="BinnedAlignedSpikesToStimulus")
    assert binned.stimulus_ids == ("im10", "im9", "im1")
    assert binned.site_ids == ["unit_8", "unit_7"]  # as units_region says
    assert binned.time_bins_ms == ((-50, 0), (0, 50), (50, 100), (100, 150))
    np.testing.assert_array_equal(binned.responses[0, 1, 0], counts[0, 2])
    assert np.isnan(binned.responses[1, 1]).all()
    psth = SiteRecordings.load(tmp_path / "x.nwb", dataset="psth_pipeline_format")
    assert psth.stimulus_ids == ("im1", "im9", "im10")  # natural order
    np.testing.assert_array_equal(psth.align(binned.stimulus_ids).responses, binned.responses)
    window = SiteRecordings.load(tmp_path / "x.nwb", dataset="psth_pipeline_format", window_ms=(50, 150))
    np.testing.assert_array_equal(window.responses, psth.responses[..., 2:].sum(axis=3))


def test_an_extension_that_is_neither_carried_nor_installed_is_named(tmp_path):
    binned_file(tmp_path / "x.nwb", spec=False)
    with pytest.raises(ValueError, match="extension 'ndx-binned-spikes' without carrying its specification"):
        SiteRecordings.load(tmp_path / "x.nwb")


# ---- our own


@pytest.fixture
def ours():
    responses = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
    responses[0] = np.nan
    responses[1, 1] = np.nan
    responses[2, 0, 1] = np.nan
    sites = pd.DataFrame(
        {"animal": ["m", None], "channel": [3, 1], "depth/mm": [0.1, np.nan], "is_target": [True, False]},
        index=pd.Index(["été", "007"], name="site_id"),
    )
    return SiteRecordings(responses, ("x, y", "b", "0012", "nan"), sites, (70, 170.5), "Hz", {"a": [1, None]})


@pytest.mark.parametrize("resolved", [False, True])
def test_our_file_is_valid_and_exact(ours, tmp_path, resolved):
    if resolved:
        four = np.stack([ours.responses, ours.responses + 1], axis=3)
        ours = SiteRecordings(four, ours.stimulus_ids, ours.sites, unit="x", time_bins_ms=((0, 10), (10, 30)))
    ours.save(tmp_path / "x.nwb")
    assert validate(path=str(tmp_path / "x.nwb")) == []
    back = SiteRecordings.load(tmp_path / "x.nwb")
    np.testing.assert_array_equal(back.responses, ours.responses)
    pd.testing.assert_frame_equal(back.sites, ours.sites)
    for name in ("stimulus_ids", "window_ms", "time_bins_ms", "unit", "meta"):
        assert getattr(back, name) == getattr(ours, name)
    with NWBHDF5IO(str(tmp_path / "x.nwb"), "r") as io:  # what others find in it
        nwb = io.read()
        assert len(nwb.trials) == 8
        assert nwb.trials["stimulus_id"][0] == "b"
        assert nwb.processing["recorded_responses"]["responses"].unit == ours.unit
    with pytest.raises(ValueError, match="dataset='trials' was given"):
        SiteRecordings.load(tmp_path / "x.nwb", dataset="trials")


def test_recordings_without_any_response_are_refused(ours, tmp_path):
    empty = SiteRecordings(np.full_like(ours.responses, np.nan), ours.stimulus_ids, ours.sites)
    with pytest.raises(ValueError, match=r"\(4, 3, 2\) hold no recorded response"):
        empty.save(tmp_path / "x.nwb")
    assert list(tmp_path.iterdir()) == []


def test_the_first_electrode_says_where_a_unit_is(tmp_path):
    nwb = new_file()
    group = nwb.create_electrode_group(name="A", description="x", location="?", device=nwb.create_device(name="d"))
    for place in ("V4", "IT", "V1"):
        nwb.add_electrode(location=place, group=group)
    nwb.add_unit(spike_times=spike_times(0), electrodes=[1])
    nwb.add_unit(spike_times=spike_times(1)[::-1], electrodes=[2, 0])  # spike times out of order are sorted
    add_trials(nwb, stimulus_id=names_shown())
    recorded = SiteRecordings.load(write(nwb, tmp_path / "x.nwb"))
    assert recorded.sites["location"].tolist() == ["IT", "V1"]
    assert recorded.sites["electrode_group"].tolist() == ["A", "A"]
    assert recorded.responses[0, :2, 1].tolist() == [1, 1]


def test_our_file_of_a_newer_package(ours, tmp_path, monkeypatch):
    monkeypatch.setattr(_header, "FORMAT_VERSION", 99)
    ours.save(tmp_path / "x.nwb")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="version 99, but this package reads up to 1"):
        SiteRecordings.load(tmp_path / "x.nwb")


# ---- images


def test_images_come_in_their_order_and_with_their_pixels(tmp_path):
    nwb = new_file()
    stimuli = add_images(nwb)
    add_trials(nwb, stimulus_id=names_shown(), stimulus_size_degrees=[6.0] * 6)
    pixels = [stimuli.images[n].data for n in NAMES]
    made = load_stimuli(write(nwb, tmp_path / "x.nwb"))
    assert made.stimulus_ids == list(NAMES)
    assert made.size_deg == 6.0
    np.testing.assert_array_equal(made.codes()[:, 0], pixels)


def test_colors_fractions_and_transparency(tmp_path):
    nwb = new_file()
    rgb = np.random.default_rng(0).random((4, 4, 3)).astype(np.float32)
    rgba = np.concatenate([rgb, np.zeros((4, 4, 1), np.float32)], axis=2)
    gray = np.full((4, 4), 0.25, np.float32)
    images = [RGBImage(name="a", data=rgb), RGBAImage(name="b", data=rgba), GrayscaleImage(name="c", data=gray)]
    nwb.add_stimulus(Images(name="mixed", images=images, description="x"))
    path = write(nwb, tmp_path / "x.nwb")
    with pytest.raises(ValueError, match="does not say how large"):
        load_stimuli(path)
    codes = load_stimuli(path, size_deg=4.0).codes()
    np.testing.assert_array_equal(codes[0], np.rint(rgb * 255).astype(np.uint8).transpose(2, 0, 1))
    assert (codes[1] == 128).all()
    assert (codes[2] == 64).all()


def test_images_that_cannot_be_read_say_why(tmp_path):
    nwb = new_file()
    nwb.add_stimulus(ImageSeries(name="movie", external_file=["a.mp4"], unit="x", format="external", timestamps=[0.0]))
    path = write(nwb, tmp_path / "x.nwb")
    with pytest.raises(ValueError, match="holds no images"):
        load_stimuli(path)
    nwb = new_file()
    pair = [GrayscaleImage(name="a", data=np.zeros((4, 4))), GrayscaleImage(name="b", data=np.zeros((4, 6)))]
    nwb.add_stimulus(Images(name="odd", images=pair, description="x"))
    nwb.add_stimulus(Images(name="even", images=[GrayscaleImage(name="a", data=np.zeros((4, 4)))], description="x"))
    path = write(nwb, tmp_path / "y.nwb")
    with pytest.raises(ValueError, match=r"2 sets of images: .*dataset="):
        load_stimuli(path, size_deg=1.0)
    with pytest.raises(ValueError, match=r"'a' has \(4, 4\), 'b' has \(4, 6\)"):
        load_stimuli(path, dataset="odd", size_deg=1.0)
    (tmp_path / "z.csv").write_text("x")
    with pytest.raises(ValueError, match=r"images are read from \.nwb"):
        load_stimuli(tmp_path / "z.csv")
    with pytest.raises(FileNotFoundError):
        load_stimuli(tmp_path / "none.nwb")
