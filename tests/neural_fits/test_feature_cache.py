from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from neural_fits import feature_cache
from neural_fits.backbones import Backbone
from neural_fits.feature_cache import cache_features, cached_features, feature_rows
from neural_fits.features import FeatureExtractor
from stimuli import StimulusSet


class Counting(nn.Module):
    """A small network that counts the images it sees."""

    def __init__(self, stride=4, scale=1.0):
        super().__init__()
        self.conv, self.pool, self.seen = nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d(stride), 0
        weights = torch.randn(self.conv.weight.shape, generator=torch.Generator().manual_seed(0))
        self.conv.weight.data.copy_(scale * weights)
        self.conv.bias.data.zero_()

    def forward(self, images):
        self.seen += len(images)
        return self.pool(self.conv(images))


def backbone(network=None, **changed):
    return Backbone("module:Counting", network or Counting(), **{"input_px": 16} | changed)


def noise(n=7, seed=0, ids=None, shape=(3, 16, 16)):
    images = np.random.default_rng(seed).integers(0, 256, (n, *shape)).astype(np.uint8)
    return StimulusSet.from_arrays(images, {"stimulus_id": ids or [f"i{k}" for k in range(n)]})


def test_features_come_from_the_file_the_second_time(tmp_path):
    extractor, stimuli = FeatureExtractor(backbone(), "pool"), noise()
    wanted = extractor.extract(stimuli, 3)
    network = extractor.network
    first = extractor.extract(stimuli, 3, cache=tmp_path / "new" / "cache")
    seen = network.seen
    second = extractor.extract(stimuli, 3, cache=tmp_path / "new" / "cache")
    assert network.seen == seen > len(stimuli)
    assert torch.equal(first, wanted)
    assert torch.equal(second, wanted)
    # another batch size reads the same file
    assert torch.equal(extractor.extract(stimuli, 2, cache=tmp_path / "new" / "cache"), wanted)
    assert network.seen == seen
    # so does a new process: the same network loaded again
    again = FeatureExtractor(backbone(), ["pool"])
    assert torch.equal(again.extract(stimuli, cache=tmp_path / "new" / "cache"), wanted)
    assert again.network.seen == 0
    assert [path.suffix for path in (tmp_path / "new" / "cache").iterdir()] == [".safetensors"]


def changes():
    """(extractor, stimuli) that each differ in one thing from the first."""
    plain = FeatureExtractor(backbone(), "pool")
    touched = FeatureExtractor(backbone(), "pool")
    touched.network.conv.weight.data[0, 0, 0, 0] += 1e-3  # after the hash of the backbone was taken
    picture = noise().codes()
    picture[3, 0, 0, 0] ^= 1
    ids = [f"i{k}" for k in range(7)]
    return {
        "nothing": (plain, noise()),
        "weights": (FeatureExtractor(backbone(Counting(scale=2.0)), "pool"), noise()),
        "weights changed later": (touched, noise()),
        "stride without weights": (FeatureExtractor(backbone(Counting(stride=2)), "pool"), noise()),
        "layer": (FeatureExtractor(backbone(), "conv"), noise()),
        "layers": (FeatureExtractor(backbone(), ["conv", "pool"]), noise()),
        "order": (FeatureExtractor(backbone(), ["pool", "conv"]), noise()),
        "mean": (FeatureExtractor(backbone(mean=(0.5, 0.5, 0.5)), "pool"), noise()),
        "std": (FeatureExtractor(backbone(std=(0.5, 0.5, 0.5)), "pool"), noise()),
        "input_px": (FeatureExtractor(backbone(), "pool", input_px=32), noise()),
        "gray": (plain, noise(shape=(1, 16, 16))),
        "size": (plain, noise(shape=(3, 16, 32))),
        "one bit of one picture": (plain, StimulusSet.from_arrays(picture, {"stimulus_id": ids})),
        "ids": (plain, noise(ids=[*ids[:6], "other"])),
        "order of the stimuli": (plain, noise().select(ids[::-1])),
        "fewer": (plain, noise().select(slice(0, 5))),
    }


def test_nothing_that_decides_the_numbers_is_left_out_of_the_key(tmp_path):
    paths = {name: cache_features(*pair, tmp_path).path for name, pair in changes().items()}
    assert len(set(paths.values())) == len(paths)
    for name, (extractor, stimuli) in changes().items():
        assert torch.equal(extractor.extract(stimuli, cache=tmp_path), extractor.extract(stimuli)), name
    assert len(list(tmp_path.iterdir())) == len(paths)


def test_key_holds_the_format(tmp_path, monkeypatch):
    extractor = FeatureExtractor(backbone(), "pool")
    old = cache_features(extractor, noise(), tmp_path).path
    monkeypatch.setattr(feature_cache, "FORMAT_VERSION", 2)
    assert cache_features(extractor, noise(), tmp_path).path != old


def test_blocks_are_parts_of_the_whole(tmp_path):
    extractor, stimuli = FeatureExtractor(backbone(), "pool"), noise()
    wanted = extractor.extract(stimuli)
    file = feature_rows(cache_features(extractor, stimuli, tmp_path, batch_size=3).path)
    assert file.shape == tuple(wanted.shape) == (7, 4, 4, 4)
    assert torch.equal(file.load(), wanted)
    assert torch.equal(file.rows(2, 6), wanted[2:6])
    assert torch.equal(file.columns(5, 60), wanted.flatten(1)[:, 5:60])
    with safe_open(file.path, "pt") as independent:  # readable by everyone
        assert torch.equal(independent.get_tensor("features"), wanted)
        assert "pool" in independent.metadata()["layers"]


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "cut":
        data = data[:-5]
    elif how == "cut to nothing":
        data = data[:3]
    elif how == "cut in the header":
        data = data[:50]
    elif how == "longer":
        data += b"\0\0\0\0"
    elif how == "one bit of the last number":
        data[-1] ^= 1
    elif how == "one bit of the first number":
        data[8 + int.from_bytes(data[:8], "little")] ^= 1
    elif how == "length of the header":
        data[7] = 255
    else:
        data = data.replace(b"[7, 4, 4, 4]", b"[7, 2, 8, 4]")
    path.write_bytes(data)


@pytest.mark.parametrize(
    "how",
    [
        "cut",
        "cut to nothing",
        "cut in the header",
        "longer",
        "one bit of the last number",
        "one bit of the first number",
        "length of the header",
        "another shape of as many numbers",
    ],
)
def test_damaged_file_is_found_and_made_again(tmp_path, how):
    extractor, stimuli = FeatureExtractor(backbone(), "pool"), noise()
    wanted = extractor.extract(stimuli)
    path = cache_features(extractor, stimuli, tmp_path, batch_size=3).path
    whole = path.read_bytes()
    damage(path, how)
    with pytest.raises(ValueError, match="was cut or changed; delete it"):
        feature_rows(path)
    assert torch.equal(cached_features(extractor, stimuli, tmp_path, batch_size=3), wanted)
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


def test_missing_file_is_told(tmp_path):
    with pytest.raises(FileNotFoundError):
        feature_rows(tmp_path / "none.safetensors")


def test_error_of_the_network_leaves_nothing(tmp_path):
    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.passes = nn.AvgPool2d(4), 0

        def forward(self, images):
            self.passes += 1
            if self.passes > 3:
                raise ArithmeticError("no")
            return self.pool(images)

    with pytest.raises(ArithmeticError):
        cache_features(FeatureExtractor(Failing(), "pool"), noise(), tmp_path, batch_size=1)
    assert not list(tmp_path.iterdir())


def test_empty_set_is_refused(tmp_path):
    class Empty:
        def __len__(self):
            return 0

    with pytest.raises(ValueError, match="stimulus set is empty"):
        cache_features(FeatureExtractor(backbone(), "pool"), Empty(), tmp_path)


def test_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write features to .*; free space or choose another folder") as caught:
        cache_features(FeatureExtractor(backbone(), "pool"), noise(), tmp_path / "file")
    assert str(caught.value).count(";") == 1


def test_full_disk_is_one_sentence_and_no_half_file(tmp_path, monkeypatch):
    extractor = FeatureExtractor(backbone(), "pool")

    class Full:
        """A file on a disk that fills up after 2,000 bytes, as a real one does: first a short write, then an error."""

        def __init__(self, file):
            self.file, self.room = file, 2000

        def write(self, data):
            if not self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = self.file.write(data[: self.room])
            self.room -= written
            return written

        def __getattr__(self, name):
            return getattr(self.file, name)

    opened = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda path, mode="r", *rest, **options: (
            Full(opened(path, mode, *rest, **options)) if "x" in mode else opened(path, mode, *rest, **options)
        ),
    )
    with pytest.raises(OSError, match=r"cannot write features to .*: no space left on device; free space"):
        cache_features(extractor, noise(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_short_writes_are_completed(tmp_path, monkeypatch):
    class Short:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            return self.file.write(data[:100])

        def __getattr__(self, name):
            return getattr(self.file, name)

    opened = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda path, mode="r", *rest, **options: (
            Short(opened(path, mode, *rest, **options)) if "x" in mode else opened(path, mode, *rest, **options)
        ),
    )
    extractor = FeatureExtractor(backbone(), "pool")
    assert torch.equal(extractor.extract(noise(), cache=tmp_path), extractor.extract(noise()))


def test_leftovers_of_killed_processes_go_and_those_of_living_ones_stay(tmp_path):
    dead, living, young = (tmp_path / f".features-{name}.safetensors.00.tmp" for name in ("dead", "living", "young"))
    for path in (dead, living, young):
        path.write_bytes(b"half")
    long_ago = time.time() - 1000
    os.utime(dead, (long_ago, long_ago))
    os.utime(living, (long_ago, long_ago))
    with living.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        cache_features(FeatureExtractor(backbone(), "pool"), noise(), tmp_path)
    assert not dead.exists()
    assert living.exists()
    assert young.exists()


SCRIPT = """
import sys, time
import numpy as np, torch
from torch import nn
from neural_fits.features import FeatureExtractor
from stimuli import StimulusSet

class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool = nn.AvgPool2d(4)
    def forward(self, images):
        time.sleep(0.1)
        return self.pool(images)

images = np.random.default_rng(0).integers(0, 256, (12, 3, 16, 16)).astype(np.uint8)
stimuli = StimulusSet.from_arrays(images, {"stimulus_id": [f"i{k}" for k in range(12)]})
extractor = FeatureExtractor(Slow(), "pool")
torch.set_num_threads(1)
print("ready", flush=True)
sys.stdin.readline()
features = extractor.extract(stimuli, 1, cache=sys.argv[1])
wanted = torch.from_numpy(stimuli.images()).unflatten(2, (4, 4)).unflatten(4, (4, 4)).mean((3, 5))
torch.testing.assert_close(features, wanted)
print("done", flush=True)
"""


def test_two_processes_write_the_same_key_at_once(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path)]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    time.sleep(0.6)
    halves = [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]
    assert len(halves) == 2, "the two were to write at the same time"
    for process in both:
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "done\n")
    (only,) = tmp_path.iterdir()
    assert feature_rows(only).shape == (12, 3, 4, 4)


def test_killed_process_leaves_no_file_that_is_taken_for_whole(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("go\n")
    process.stdin.flush()
    deadline = time.time() + 20
    while not any(path.suffix == ".tmp" for path in tmp_path.iterdir()) and time.time() < deadline:
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=60)
    assert [path.suffix for path in tmp_path.iterdir()] == [".tmp"]
