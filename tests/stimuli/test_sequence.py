"""Presentation orders: complete blocks, no repetition, streams of their own, onsets, frames, and files read back."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stimuli._shuffle import shuffled_block
from stimuli.sequence import PresentationOrder, SequenceConfig, presentation_order

IDS = [f"s{k:02d}" for k in range(11)]


def order_of(ids=IDS, **config):
    return presentation_order([*ids, "gray"], SequenceConfig(**config))


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 30),
    repeats=st.integers(1, 6),
    blanks=st.integers(0, 4),
    extra=st.integers(1, 3),
    normal=st.integers(0, 3),
    per_trial=st.integers(1, 9),
    seed=st.integers(0, 2**32),
)
def test_blocks_are_complete_and_nothing_follows_itself(n, repeats, blanks, extra, normal, per_trial, seed):
    ids = [f"s{k}" for k in range(n)]
    normalizers = tuple(ids[: min(normal, n)])
    config = SequenceConfig(
        repeats=repeats,
        images_per_trial=per_trial,
        blanks_per_block=blanks,
        normalizers=normalizers,
        normalizers_per_block=extra,
        seed=seed,
    )
    expected = Counter({name: 1 + extra * (name in normalizers) for name in ids})
    if blanks:
        expected["gray"] = blanks
    most, total = max(expected.values()), sum(expected.values())
    possible = 2 * most <= total + 1 if repeats == 1 else 2 * most <= total
    if not possible:
        with pytest.raises(ValueError, match="following itself"):
            presentation_order([*ids, "gray"], config)
        return
    table = presentation_order([*ids, "gray"], config).table
    shown = table["stimulus_id"].tolist()
    assert all(a != b for a, b in itertools.pairwise(shown))
    for _, block in table.groupby("block"):
        assert Counter(block["stimulus_id"]) == expected
    assert table["block"].nunique() == repeats
    for _, rows in table.groupby("stimulus_id"):
        assert rows["repeat"].tolist() == list(range(len(rows)))
    lengths = table.groupby("trial").size()
    assert (lengths.iloc[:-1] == per_trial).all()
    assert table["trial"].tolist() == [k // per_trial for k in range(len(table))]
    assert table["position"].tolist() == [k % per_trial for k in range(len(table))]


def test_orders_of_a_small_block_are_all_as_likely():
    counts = np.array([1, 1, 1, 2])
    rng = np.random.default_rng(1)
    found = Counter(tuple(shuffled_block(counts, None, rng)) for _ in range(7200))
    assert len(found) == 36  # of the 60 orders of a, b, c, d, d those without dd
    assert min(found.values()) > 120
    assert max(found.values()) < 290


def test_positions_are_uniform_without_blanks():
    table = presentation_order(IDS, SequenceConfig(repeats=2200, blanks_per_block=0, seed=3)).table
    place = np.arange(len(table)) % len(IDS)
    counts = np.zeros((len(IDS), len(IDS)))
    np.add.at(counts, (table["stimulus_id"].str[1:].astype(int).to_numpy(), place), 1)
    assert np.abs(counts / 200 - 1).max() < 0.3  # 4.2 sd of a multinomial count of 200


def test_same_seed_same_order_and_each_animal_and_day_its_own():
    first = order_of(seed=5, animal="m1", day="1").table
    assert first.equals(order_of(seed=5, animal="m1", day="1").table)
    others = [{"seed": 6}, {"animal": "m2"}, {"day": "2"}, {"animal": "m", "day": "11"}]
    for changed in others:
        again = order_of(**{"seed": 5, "animal": "m1", "day": "1", **changed}).table
        assert not first["stimulus_id"].equals(again["stimulus_id"])


def test_the_documented_random_stream_is_used():
    digest = hashlib.sha256(json.dumps(["m1", "d3"]).encode()).digest()
    rng = np.random.default_rng([7, int.from_bytes(digest[:8], "big")])
    expected = rng.permutation(np.arange(len(IDS)))
    table = presentation_order(IDS, SequenceConfig(repeats=1, blanks_per_block=0, seed=7, animal="m1", day="d3")).table
    assert table["stimulus_id"].tolist() == [IDS[k] for k in expected]


def test_more_repeats_leave_the_first_blocks_as_they_are():
    few, more = order_of(repeats=2).table, order_of(repeats=5).table
    assert few.equals(more.iloc[: len(few)])


def test_nominal_onsets_and_duration():
    config = SequenceConfig(
        repeats=1, images_per_trial=4, duration_ms=100, gap_ms=50, lead_in_ms=200, inter_trial_ms=1000
    )
    order = presentation_order(IDS[:6], config)  # six images and a blank: trials of 4 and 3
    assert order.table["onset_ms_nominal"].tolist() == [200, 350, 500, 650, 2000, 2150, 2300]
    assert order.seconds == pytest.approx(2.45)


def test_times_are_rounded_to_frames_and_the_request_is_kept():
    config = SequenceConfig(repeats=1, duration_ms=90, gap_ms=3, lead_in_ms=160, inter_trial_ms=500)
    order = presentation_order(IDS, config, refresh_hz=60.0)
    assert order.config == config
    assert order.table["duration_ms"].unique() == pytest.approx([1000 * 5 / 60])
    assert order.timing.gap_ms == 0
    frames = order.table["onset_ms_nominal"] * 60 / 1000
    assert np.abs(frames - frames.round()).max() < 1e-3
    assert presentation_order(IDS, SequenceConfig(duration_ms=1), refresh_hz=60).timing.duration_ms > 16


def test_names_of_files_come_from_the_set():
    order = presentation_order(["a", "b", "gray"], SequenceConfig(repeats=1), filenames={"a": "images/first.png"})
    files = dict(zip(order.table["stimulus_id"], order.table["filename"], strict=True))
    assert files == {"a": "images/first.png", "b": "images/b.png", "gray": "images/gray.png"}


def test_written_orders_are_read_back(tmp_path):
    order = presentation_order(
        [*IDS, "gray"], SequenceConfig(normalizers=("s01",), animal="Ü", day="2026-11-23"), refresh_hz=59.94
    )
    again = PresentationOrder.from_csv(order.to_csv(tmp_path / "presentation.csv"))
    assert again.table.equals(order.table)
    assert (again.config, again.refresh_hz, again.seconds) == (order.config, 59.94, order.seconds)
    first = (tmp_path / "presentation.csv").read_text().splitlines()[0]
    assert first == "trial,position,block,repeat,stimulus_id,filename,onset_ms_nominal,duration_ms"


def test_a_damaged_order_is_refused(tmp_path):
    order = order_of(repeats=2)
    path = order.to_csv(tmp_path / "p.csv")
    text = path.read_text()
    path.write_text(text.replace("0,1,0,0", "0,1,0,1", 1))
    with pytest.raises(ValueError, match="'repeat' of the presentation order does not follow"):
        PresentationOrder.from_csv(path)
    path.write_text(text.replace("stimulus_id", "stimulus", 1))
    with pytest.raises(ValueError, match="no column 'stimulus_id'"):
        PresentationOrder.from_csv(path)
    path.write_text(text.replace("0,0,0,0", "x,0,0,0", 1))
    with pytest.raises(ValueError, match="is no presentation order"):
        PresentationOrder.from_csv(path)
    (tmp_path / "p.json").unlink()
    with pytest.raises(FileNotFoundError, match="JSON file of the same name"):
        PresentationOrder.from_csv(path)


@pytest.mark.parametrize("column", ["trial", "position", "onset_ms_nominal", "duration_ms"])
def test_a_table_that_does_not_fit_together_is_refused(column):
    order = order_of(repeats=2)
    table = order.table.copy()
    table.loc[3, column] = -5
    with pytest.raises(ValueError, match=f"'{column}'"):
        PresentationOrder(table, order.config)


def test_times_and_trials_are_those_of_the_configuration(tmp_path):
    """Rigs go by the configuration: an edit of these columns would be shown in the report and not on the screen."""
    order = order_of(repeats=2, images_per_trial=3)
    for column, value, match in (
        ("duration_ms", 200.0, "in row 4 .*duration_ms is not 100.*instead of editing"),
        ("onset_ms_nominal", order.table["onset_ms_nominal"][4] + 5, "in row 4 .*onset_ms_nominal does not follow"),
    ):
        table = order.table
        table = table.assign(**{column: table[column].where(table.index != 4, value)})
        with pytest.raises(ValueError, match=match):
            PresentationOrder(table, order.config)
    two = order_of(repeats=2, images_per_trial=2).table
    with pytest.raises(ValueError, match=r"in row 0 .*a trial has not 3 images"):
        PresentationOrder(two, order.config)
    with pytest.raises(ValueError, match=r"in row 0 .*a trial has not 2 images"):
        PresentationOrder(order.table, order_of(repeats=2, images_per_trial=2).config)
    path = order.to_csv(tmp_path / "p.csv")
    path.write_text(path.read_text().replace(",100.0\n", ",200.0\n"))
    with pytest.raises(ValueError, match="duration_ms is not 100"):
        PresentationOrder.from_csv(path)


def test_damaged_json_beside_an_order_is_one_sentence(tmp_path):
    path = order_of(repeats=2).to_csv(tmp_path / "p.csv")
    whole = json.loads((tmp_path / "p.json").read_text())
    config = whole["config"]
    wrong = {
        "does not hold its configuration": [
            *(3, [], {}, {**whole, "config": 5}, {**whole, "config": {}}, {"config": config}),
            {**whole, "config": {**config, "extra": 1}},
        ],
        "normalizers is 5: give a tuple": [{**whole, "config": {**config, "normalizers": 5}}],
        r"normalizers is \[5\]: give a tuple": [{**whole, "config": {**config, "normalizers": [5]}}],
        "normalizers is None": [{**whole, "config": {**config, "normalizers": None}}],
        "refresh_hz is 'fast'": [{**whole, "refresh_hz": "fast"}],
        r"refresh_hz is \[60\]": [{**whole, "refresh_hz": [60]}],
        "refresh_hz is nan": [{**whole, "refresh_hz": float("nan")}],
    }
    for match, records in wrong.items():
        for record in records:
            (tmp_path / "p.json").write_text(json.dumps(record))
            with pytest.raises(ValueError, match=f"is no presentation order: .*{match}"):
                PresentationOrder.from_csv(path)


@pytest.mark.parametrize("refresh_hz", [1e9, 1e-9, 0, -60, float("inf"), True])
def test_impossible_refresh_rates_are_refused(refresh_hz):
    with pytest.raises(ValueError, match=r"refresh_hz is .*: give frames per second from 1 to 10,000"):
        presentation_order(IDS, SequenceConfig(), refresh_hz=refresh_hz)


@pytest.mark.parametrize(
    ("config", "error", "match"),
    [
        ({"duration_ms": 1e300}, ValueError, r"duration_ms is 1e\+300 ms: give at most 3,600,000, an hour"),
        ({"gap_ms": 3_600_001}, ValueError, "gap_ms is"),
        ({"normalizers": 5}, TypeError, "normalizers is 5: give a tuple of stimulus ids"),
        ({"normalizers": (5,)}, TypeError, "give a tuple of stimulus ids"),
        ({"repeats": 0}, ValueError, "repeats is 0: give at least 1"),
        ({"repeats": 1.5}, TypeError, "repeats is 1.5: give a whole number"),
        ({"images_per_trial": True}, TypeError, "images_per_trial is True"),
        ({"duration_ms": 0}, ValueError, "duration_ms is 0"),
        ({"gap_ms": float("nan")}, ValueError, "gap_ms is nan"),
        ({"gap_ms": "100"}, TypeError, "gap_ms is '100'"),
        ({"normalizers": ("a", "a")}, ValueError, "name each stimulus once"),
        ({"normalizers": "a"}, TypeError, "give a tuple of stimulus ids"),
        ({"animal": 3}, TypeError, "animal is 3: give text"),
        ({"day": "1\n2"}, ValueError, "day is '1.n2': give one line of printable text"),
    ],
)
def test_wrong_configurations(config, error, match):
    with pytest.raises(error, match=match):
        SequenceConfig(**config)


def test_wrong_stimuli():
    with pytest.raises(ValueError, match="'s0' is not among the 11 stimuli: did you mean"):
        presentation_order(IDS, SequenceConfig(normalizers=("s0",)))
    with pytest.raises(ValueError, match="occurs more than once"):
        presentation_order(["a", "a"], SequenceConfig())
    with pytest.raises(ValueError, match="cannot be a file name"):
        presentation_order(["../a", "b"], SequenceConfig())
    with pytest.raises(ValueError, match="following itself"):
        presentation_order(["a"], SequenceConfig(blanks_per_block=0))
    with pytest.raises(ValueError, match=r"ends in \.csv"):
        order_of().to_csv("presentation.txt")


def test_configurations_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SequenceConfig().seed = 3
