"""What cannot be a log, or not of this set, gets one sentence; odd but good logs are read."""

from __future__ import annotations

import numpy as np
import pytest

from stimuli.event_logs import EventLog, read_event_log
from stimuli.event_logs.log import event_log
from stimuli.event_logs.names import StimulusNames

IDS = ["face_1", "face-1", "tree.2", "gray"]


def log_of(**columns):
    return event_log(columns, StimulusNames(IDS), format="psychopy", file="run.csv")


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"stimulus": [], "onset_s": []}, "holds no presentation"),
        ({"stimulus": ["face_2"], "onset_s": [0.0]}, "did you mean 'face_1'"),
        ({"stimulus": ["face_1"] * 2, "onset_s": [1.0, 1.0]}, "row 2 is the same as the onset 1 s of row 1"),
        (
            {"stimulus": ["face_1"] * 3, "onset_s": [1.0, 3.0, 2.0]},
            "2 s of row 3 is before the onset 3 s of row 2 .*: two runs in one file\\? give each its own",
        ),
        ({"stimulus": ["face_1"], "onset_s": [np.nan]}, "no onset for 1 presentations"),
        ({"stimulus": ["face_1"], "onset_s": [1.0], "duration_s": [-0.1]}, "duration -0.1 s in row 1"),
    ],
)
def test_what_cannot_be_a_log_is_refused(columns, sentence):
    with pytest.raises(ValueError, match=sentence):
        log_of(**columns)


def test_a_broken_presentation_needs_no_onset_and_counts_for_nothing():
    log = log_of(stimulus=["gray", "face_1", "gray"], onset_s=[1.0, np.nan, 2.0], shown=[True, False, True])
    assert isinstance(log, EventLog)
    assert log.table["repeat"].tolist() == [0, -1, 1]
    assert log.counts().to_dict() == {"face_1": 0, "face-1": 0, "tree.2": 0, "gray": 2}


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"\xff\xfe\x00", "not UTF-8"),
        ("a.csv", b"stimulus_id,onset_s\na,1\0\n", "null characters"),
        ("a.csv", b"stimulus_id,onset_s\nface_1,0.5,7\n", "3 cells in row 2 where its header has 2"),
        ("a.csv", b"stimulus_id,onset_s\nface_1\n", "1 cells in row 2"),
        (
            "a.csv",
            b"stimulus_id,stimulus_id,onset_s\nface_1,face_1,1\n",
            "'stimulus_id' without a name of its own",
        ),
        ("a.csv", b"stimulus_id,onset_s\nface_1,soon\n", "onset_s = 'soon' in row 2 where a number"),
        ("a.csv", b"stimulus_id,onset_s\nface_1,inf\n", "onset_s = 'inf' in row 2"),
        ("a.csv", b"stimulus_id,onset_s,shown\nface_1,1,maybe\n", "shown = 'maybe' in row 2"),
        ("a.csv", b"stimulus_id,onset_s,trial\nface_1,1,0.5\n", "a whole number"),
        ("a.csv", b"stimulus_id,onset_s\nface_1,1\n\nface_2,2\n", "names the stimulus 'face_2'"),
        ("a.csv", b"stimulus_id,start\nface_1,1\n", "format of 'a.csv' cannot be told from its columns"),
        ("a.csv", b"who,onset_s\nx,1\n", "no column 'stimulus_id' or 'filename'"),
        ("a.csv", b"image,a.started,b.started\nface_1,1,2\n", "onsets a.started, b.started: say by part"),
        (
            "a.csv",
            b"stimulus_id,filename,onset_s\ngray,x.png,0\nface_1,images/tree.2.png,1\n",
            "names the stimulus 'x.png'",
        ),
        (
            "a.csv",
            b"stimulus_id,filename,onset_s\ngray,gray.png,0\nface_1,images/tree.2.png,1\n",
            "'face_1' and 'images/tree.2.png' in row 3, which .* 'face_1' and 'tree.2': correct stimulus_id or file",
        ),
        (
            "a.tsv",
            b"onset\tduration\tstim_file\tshown\n1\t.1\tgray\tn/a\n2\t.1\tgray\tn/a\n",
            "n/a for 2 of 2 presentations, the first in row 2, which is the plan as it was exported: write the onsets",
        ),
        (
            "a.tsv",
            b"onset\tduration\tstim_file\tshown\n1\t.1\tgray\tfalse\n2\t.1\tgray\tn/a\n",
            "n/a for 1 of 2 presentations, the first in row 3, which says neither",
        ),
        ("a.tsv", b"onset\tduration\n1\t2\n", "no column 'stim_file' or 'stim_id'"),
        ("a.tsv", b"onset\tduration\tstim_file\tstim_id\n1\t2\tgray\ttree.2\n", "the two stimuli 'gray' and 'tree.2'"),
        ("a.csv", b"time,name,value\n1,x,2\n", "shows no image"),
        ("a.csv", b"time,name,value\n,stimulus_presented,2\n", "no time in row 2"),
        ("a.csv", b"time,name,value\n1,stimulus_presented,4\n", "shows the image 4 in row 2, but the set has 4 images"),
        ("a.csv", b"time,name,value\n1.25,stimulus_presented,2\n", "the time 1.25 in row 2, where MWorks counts"),
        ("a.csv", "time,name,value\n1,stimulus_presented,\u00b2\n".encode(), "names the stimulus '\u00b2'"),
        (
            "a.csv",
            b"time,name,value\n0,presentation,0\n1,output_time,5e6\n2,stimulus_presented,gray\n",
            "output_time more than a second from the time of its event",
        ),
        ("a.csv", b"time,name,value\n1,#stimDisplayUpdate,__import__('os')\n", "neither JSON nor a Python literal"),
        ("a.csv", b"time,value\n1,2\n", "no column 'name' or 'event' or 'code'"),
        ("a.nwb", b"not HDF5", "cannot be read as NWB"),
    ],
)
def test_hostile_files_get_one_sentence(file, text, sentence, tmp_path):
    (tmp_path / file).write_bytes(text)
    with pytest.raises(ValueError, match=sentence):
        read_event_log(tmp_path / file, IDS)


def test_ten_thousand_characters_are_named_briefly(tmp_path):
    (tmp_path / "a.csv").write_text(f"stimulus_id,onset_s\n{'x' * 10_000},1\n")
    with pytest.raises(ValueError, match=r"x{80}…") as error:
        read_event_log(tmp_path / "a.csv", IDS)
    assert len(str(error.value)) < 400


def test_a_number_that_is_an_id_and_another_place_is_refused(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("time,name,value\n1,stimulus_presented,1\n")
    assert read_event_log(path, ["x", "1"]).table["stimulus_id"].tolist() == ["1"]
    with pytest.raises(ValueError, match="the id of one image and the place of another"):
        read_event_log(path, ["1", "x"])
    path.write_text("time,name,value\n0,presentation,0\n1,stimulus_presented,1\n")  # our rsvp.mwel logs ids
    assert read_event_log(path, ["1", "x"]).table["stimulus_id"].tolist() == ["1"]
    path.write_text("time,name,value\n1,stimulus_presented,01\n")
    assert read_event_log(path, ["x", "y", "01"]).table["stimulus_id"].tolist() == ["01"]


def test_quotation_marks_are_characters_in_bids_and_quotes_in_csv(tmp_path):
    (tmp_path / "a.tsv").write_text('onset\tduration\tstim_file\tnote\n1\t0.1\tgray\t"half\n2\t0.1\tgray\t"x" y\n')
    assert read_event_log(tmp_path / "a.tsv", IDS).table["onset_s"].tolist() == [1.0, 2.0]
    (tmp_path / "a.csv").write_text('"stimulus_id","onset_s","note"\n"gray","1","a, b\nc"\n"gray","2",""\n')
    log = read_event_log(tmp_path / "a.csv", IDS)
    assert log.table["onset_s"].tolist() == [1.0, 2.0]
    (tmp_path / "a.csv").write_text('stimulus_id,onset_s\n"gray" x,1\n')
    with pytest.raises(ValueError, match="cannot be read as a table"):
        read_event_log(tmp_path / "a.csv", IDS)


def test_a_mark_of_the_byte_order_and_cells_of_several_lines(tmp_path):
    (tmp_path / "a.tsv").write_text("onset\tduration\tstim_file\n1\t0.1\tgray\n", encoding="utf-8-sig")
    assert len(read_event_log(tmp_path / "a.tsv", IDS)) == 1
    (tmp_path / "a.csv").write_text('stimulus_id,note,onset_s\ngray,"two\nlines",1\n\ngray,,soon\n')
    with pytest.raises(ValueError, match="onset_s = 'soon' in row 5"):
        read_event_log(tmp_path / "a.csv", IDS)


def test_a_stimulus_may_be_called_none(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("stimulus_id,onset_s\nnone,1\nNaN,2\n,3\nn/a,4\n")
    assert read_event_log(path, ["none", "NaN", "a"]).table["stimulus_id"].tolist() == ["none", "NaN"]
    with pytest.raises(ValueError, match="holds no presentation"):
        read_event_log(path, ["a"])


def test_what_is_no_file_no_format_or_no_ids(tmp_path):
    with pytest.raises(FileNotFoundError, match="give the log of a rig"):
        read_event_log(tmp_path / "nothing.csv", IDS)
    (tmp_path / "run.csv").write_text("stimulus_id,onset_s\nface_1,1\n")
    with pytest.raises(ValueError, match="did you mean 'psychopy'"):
        read_event_log(tmp_path / "run.csv", IDS, "psychpy")
    with pytest.raises(TypeError, match="give a StimulusSet or a list"):
        read_event_log(tmp_path / "run.csv", "face_1")
    with pytest.raises(ValueError, match="occurs more than once"):
        read_event_log(tmp_path / "run.csv", ["face_1", "face_1"])


def test_an_nwb_file_that_names_nothing(tmp_path):
    pynwb = pytest.importorskip("pynwb")
    from datetime import UTC, datetime

    nwb = pynwb.NWBFile(session_description="x", identifier="x", session_start_time=datetime(2026, 1, 1, tzinfo=UTC))
    nwb.add_trial(start_time=1.0, stop_time=2.0)
    with pynwb.NWBHDF5IO(str(tmp_path / "a.nwb"), "w") as io:
        io.write(nwb)
    with pytest.raises(ValueError, match="does not say which stimulus was shown when"):
        read_event_log(tmp_path / "a.nwb", IDS)
