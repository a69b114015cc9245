"""A run on disk: what it keeps, what damage it survives, and whom it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from synth.jobs import Made, Unfinished
from synth.run_folder import RunFolder

RECORD = {"recipe": "SynthesisConfig(a=(1, 2), steps=2)", "slots": 4, "jobs": [["Stretch('a')", 0, ""]]}


def image(seed=0, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (channels, 5, 7), dtype=np.uint8)


def state(step, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tensors = {"latent": torch.randn(3, 4, generator=generator), "best_codes": torch.arange(6, dtype=torch.uint8)}
    numbers = {"step": step, "attempt": 1, "best": -np.inf, "trace": [[0, 0.1], [step, 1 / 3]]}
    return Unfinished(tensors, numbers)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_come_back_exactly(tmp_path, channels):
    trace = [(0, 0.1), (10, 1 / 3), (20, -1e-30)]
    with RunFolder(tmp_path / "run", RECORD) as run:
        run.add(7, Made(image(0, channels), 20, trace, "patience", 2))
        run.add(12, Made(None, 0, [], "not finite"))
        assert run.finished() == {7, 12}
        made, none = run.made(7), run.made(12)
        assert run.item(7).read_bytes().startswith(b"\x89PNG")
    np.testing.assert_array_equal(made.codes, image(0, channels))
    assert (made.step, made.trace, made.ended, made.restarts) == (20, trace, "patience", 2)
    assert none.codes is None
    assert none.ended == "not finite"


def test_states_come_back_exactly_and_the_furthest_counts(tmp_path):
    with RunFolder(tmp_path / "run", RECORD) as run:
        run.checkpoint(0, {3: state(10), 4: state(20, 1)})
        run.checkpoint(1, {4: state(30, 2)})  # an older run of more workers may have left files
        found = run.unfinished()
        assert sorted(found) == [3, 4]
        assert found[4].numbers["step"] == 30
        for name, tensor in state(30, 2).tensors.items():
            assert torch.equal(found[4].tensors[name], tensor)
        assert found[3].numbers == state(10).numbers
        run.checkpoint(0, {})
        assert sorted(run.unfinished()) == [4]


def test_damaged_files_are_made_again(tmp_path):
    with RunFolder(tmp_path / "run", RECORD) as run:
        for number in range(4):
            run.add(number, Made(image(number), 1, [(0, 0.0)]))
        run.checkpoint(0, {9: state(10)})
        run.item(0).write_bytes(run.item(0).read_bytes()[:-9])  # truncated
        run.item(1).unlink()
        run.item(2).with_suffix(".json").write_text("{")
        checkpoint = tmp_path / "run" / "slots-0.safetensors"
        whole = checkpoint.read_bytes()
        for damaged in (whole[:50], whole[:-3], b"", b"\0" * 100):
            checkpoint.write_bytes(damaged)
            assert run.unfinished() == {}
        assert run.finished() == {3}


def test_only_the_same_run_is_resumed(tmp_path):
    place = tmp_path / "run"
    with pytest.raises(FileNotFoundError, match="there is no interrupted run in"):
        RunFolder(place, RECORD, resume=True)
    assert not place.exists()
    RunFolder(place, RECORD).__exit__(None, None, None)
    with pytest.raises(FileExistsError, match="holds an interrupted run; go on with it by --resume"):
        RunFolder(place, RECORD)
    with RunFolder(place, RECORD, resume=True):
        pass
    for change, told in (
        ({"slots": 8}, r"was started with slots 4, and now it is 8 \(--slots\)"),
        (
            {"recipe": "SynthesisConfig(a=(1, 2), steps=3)"},
            "started with steps=2., and now it is steps=3. .the recipe",
        ),
        (
            {"jobs": [["Stretch('b')", 0, ""]]},
            "with Stretch..a.. with seed 0, and now it is Stretch..b.. with",
        ),
        ({"jobs": [["Stretch('a')", 0, ""]] * 3}, r"was started with 1 images, and now it is 3 \(targets, --images"),
        ({"model_sha256": "f"}, "was started with another model; ask for the same to go on, or delete that folder"),
        ({"torch": "9"}, "was started with torch None, and now it is 9"),
    ):
        with pytest.raises(ValueError, match=told):
            RunFolder(place, RECORD | change, resume=True)
    (place / "run.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged; delete the folder and start anew"):
        RunFolder(place, RECORD, resume=True)


def test_a_run_of_another_format_is_refused(tmp_path):
    place = tmp_path / "run"
    RunFolder(place, RECORD).__exit__(None, None, None)
    record = json.loads((place / "run.json").read_text())
    (place / "run.json").write_text(json.dumps(record | {"format_version": 99}))
    with pytest.raises(ValueError, match="was started with format_version 99"):
        RunFolder(place, RECORD, resume=True)


def test_two_processes_cannot_share_a_folder(tmp_path):
    place = tmp_path / "run"
    script = """
        import sys
        from synth.run_folder import RunFolder
        try:
            RunFolder(sys.argv[1], {"slots": 4}, resume=sys.argv[2] == "resume")
        except FileExistsError as error:
            print(error)
    """
    with RunFolder(place, {"slots": 4}) as run:
        for how in ("resume", "new"):
            other = subprocess.run(
                [sys.executable, "-c", textwrap.dedent(script), str(place), how],
                capture_output=True,
                text=True,
                check=True,
            )
            assert "another process is making images in" in other.stdout
        run.add(0, Made(image(), 1, []))
    with RunFolder(place, {"slots": 4}, resume=True) as again:
        assert again.finished() == {0}


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    with RunFolder(tmp_path / "run", RECORD) as run:
        run.add(0, Made(image(), 1, []))
        run.checkpoint(0, {3: state(10)})

        def full(self, *args):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("pathlib.Path.replace", full)
        with pytest.raises(OSError, match="the disk is full"):
            run.add(1, Made(image(1), 1, []))
        with pytest.raises(OSError, match="the disk is full"):
            run.checkpoint(0, {3: state(20)})
        monkeypatch.undo()
        assert run.finished() == {0}
        assert run.unfinished()[3].numbers["step"] == 10
