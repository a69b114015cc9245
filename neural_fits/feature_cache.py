"""Features of a stimulus set on disk: computed once, checked at every opening, read in blocks of rows or columns.

In: a `FeatureExtractor`, a `StimulusSet` and a folder. Out: a `FeatureFile`. The file is plain safetensors; its name is
a hash of everything that decides the numbers, so another network, layer, size or picture never finds it. Called
by `FeatureExtractor.extract`; a source for `fit_ridge_streaming`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neural_fits.backbones import _hash_weights
from neural_fits.parallel import side_by_side
from stimuli import StimulusSet
from stimuli.provenance import sha256_bytes

if TYPE_CHECKING:
    from neural_fits.features import FeatureExtractor

#: part of the key: raise it when the same key would mean other numbers
FORMAT_VERSION = 1
_NO_DIGEST = "0" * 64
_IMAGES_HASHED_AT_ONCE = 64
_ORPHAN_SECONDS = 60.0


@dataclass(frozen=True)
class FeatureFile:
    """Features in a file, read in blocks; the whole is in memory only after `load`.

    Made by `cache_features` and `feature_rows`, which check the content.

    Parameters
    ----------
    path : Path
        The file.
    shape : tuple of int
        Stimuli, channels, height, width.
    offset : int
        Where the numbers begin, in bytes.

    Examples
    --------
    >>> import tempfile
    >>> from neural_fits.features import FeatureExtractor
    >>> from stimuli import natural_photos
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     extractor = FeatureExtractor("efficientnet-lite0", "blocks.2")
    ...     features = cache_features(extractor, natural_photos(4, size_px=64), folder)
    ...     features.shape, features.rows(1, 3).shape, features.columns(0, 100).shape
    ((4, 40, 8, 8), torch.Size([2, 40, 8, 8]), torch.Size([4, 100]))
    """

    path: Path
    shape: tuple[int, ...]
    offset: int

    def rows(self, start: int, stop: int) -> Tensor:
        """Return the features of consecutive stimuli.

        Parameters
        ----------
        start, stop : int
            First stimulus, and the one after the last.

        Returns
        -------
        Tensor, (stop - start, channel, height, width)
            Features, float32.
        """
        return torch.from_numpy(np.array(self._map()[start:stop])).view(-1, *self.shape[1:])

    def columns(self, start: int, stop: int) -> Tensor:
        """Return consecutive features of all stimuli.

        Parameters
        ----------
        start, stop : int
            First feature, and the one after the last, counted along (channel, height, width) flattened.

        Returns
        -------
        Tensor, (stimulus, stop - start)
            Features, float32.
        """
        return torch.from_numpy(np.array(self._map()[:, start:stop]))

    def load(self) -> Tensor:
        """Return all features.

        Returns
        -------
        Tensor, (stimulus, channel, height, width)
            Features, float32.
        """
        return self.rows(0, self.shape[0])

    def _map(self) -> NDArray[np.float32]:
        # A new map each time: the pages that one block touched leave this process's memory with it.
        shape = self.shape[0], int(np.prod(self.shape[1:]))
        return np.memmap(self.path, np.dtype("<f4"), "r", self.offset, shape)


def cache_features(
    extractor: FeatureExtractor, stimuli: StimulusSet, folder: str | os.PathLike[str], batch_size: int = 32
) -> FeatureFile:
    """Return the file with the features of a stimulus set, computing it where it is not there yet.

    The key holds the weights as they are now, the printed structure of the network, the layers, mean, std and
    ``input_px``, the size and the channels of the images, their ids and their pixels. It cannot hold the code of a
    network of your own: after a change of its ``forward`` alone, use another folder. A file that is cut or changed is
    found by its checksum and made again. Processes that write the same key at once each write their own file; the last
    to finish stays, whole.

    Parameters
    ----------
    extractor : FeatureExtractor
        The features.
    stimuli : StimulusSet
        The images.
    folder : path
        Folder of the cache; it is made when it is missing.
    batch_size : int
        Images a pass.

    Returns
    -------
    FeatureFile
        The features on disk, with a checked content.

    Raises
    ------
    OSError
        When the folder cannot be written or the disk is full; no half file is left.

    Examples
    --------
    >>> import tempfile
    >>> from neural_fits.features import FeatureExtractor
    >>> from stimuli import natural_photos
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     extractor = FeatureExtractor("efficientnet-lite0", "blocks.2")
    ...     cache_features(extractor, natural_photos(4, size_px=64), folder).shape
    (4, 40, 8, 8)
    """
    if not len(stimuli):
        raise ValueError("the stimulus set is empty; give at least one image")
    described = _describe(extractor, stimuli)
    key = sha256_bytes(json.dumps(described, sort_keys=True).encode())
    path = Path(folder) / f"features-{key[:32]}.safetensors"
    # A file that was cut or changed stays until the new one replaces it: deleting could hit another process's new one.
    with contextlib.suppress(ValueError, FileNotFoundError, NotADirectoryError):
        return feature_rows(path)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_orphans(path.parent)
    _write(path, extractor, stimuli, batch_size, {key: json.dumps(value) for key, value in described.items()})
    return feature_rows(path)


def cached_features(
    extractor: FeatureExtractor, stimuli: StimulusSet, folder: str | os.PathLike[str], batch_size: int = 32
) -> Tensor:
    """Return the features of a stimulus set from the cache, computing them where they are not there yet.

    Parameters
    ----------
    extractor : FeatureExtractor
        The features.
    stimuli : StimulusSet
        The images.
    folder : path
        Folder of the cache; see `cache_features`.
    batch_size : int
        Images a pass.

    Returns
    -------
    Tensor, (stimulus, channel, height, width)
        Features, float32, on the extractor's device.
    """
    return cache_features(extractor, stimuli, folder, batch_size).load().to(extractor.mean.device)


def feature_rows(path: str | os.PathLike[str]) -> FeatureFile:
    """Open a file of features after checking its content; nothing but blocks is ever held in memory.

    Parameters
    ----------
    path : path
        A file that `cache_features` wrote.

    Returns
    -------
    FeatureFile
        Access by rows and by columns.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When the file is of another kind, cut or changed.
    """
    path = Path(path)
    damaged = f"{str(path)!r} is no file of features, or was cut or changed; delete it and compute the features again"
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size:
                raise ValueError("longer than the file")
            header = json.loads(file.read(length))
            shape = tuple(int(side) for side in header["features"]["shape"])
            at_once = int(header["__metadata__"]["rows_per_check"])
            digest = header["__metadata__"]["sha256"]
        except (ValueError, KeyError, TypeError, struct.error) as error:
            raise ValueError(damaged) from error
    plausible = len(shape) == 4 and min(shape) > 0 and at_once > 0 and size == 8 + length + 4 * int(np.prod(shape))
    if not plausible or digest != _hash_file(path, 8 + length, shape, at_once):
        raise ValueError(damaged)
    return FeatureFile(path, shape, 8 + length)


def _hash_file(path: Path, offset: int, shape: tuple[int, ...], at_once: int) -> str:
    row_bytes = 4 * int(np.prod(shape[1:]))

    def digest(start: int) -> bytes:
        with path.open("rb") as file:
            file.seek(offset + start * row_bytes)
            return hashlib.sha256(file.read(min(at_once, shape[0] - start) * row_bytes)).digest()

    return _join(shape, side_by_side(digest, range(0, shape[0], at_once), torch.device("cpu")))


def _join(shape: tuple[int, ...], digests: list[bytes]) -> str:
    """Return the hash of the shape and of the hashes of all blocks, which can be taken side by side."""
    return sha256_bytes(str(shape).encode() + b"".join(digests))


def _describe(extractor: FeatureExtractor, stimuli: StimulusSet) -> dict[str, Any]:
    def digest(start: int) -> bytes:
        index = list(range(start, min(start + _IMAGES_HASHED_AT_ONCE, len(stimuli))))
        return hashlib.sha256(np.ascontiguousarray(stimuli.codes(index)).tobytes()).digest()

    pixels = side_by_side(digest, range(0, len(stimuli), _IMAGES_HASHED_AT_ONCE), torch.device("cpu"))
    backbone = extractor.backbone
    # Strides and kinds of layers are in the printed form only; addresses of functions in it are not the same twice.
    printed = re.sub(r" at 0x[0-9a-f]+", "", repr(backbone.network))
    return {
        "format": FORMAT_VERSION,
        "backbone": backbone.name,
        "network": sha256_bytes(printed.encode()),
        "weights": _hash_weights(backbone.network),  # as they are now: they may have been changed since loading
        "layers": list(extractor.layers_read),
        "mean": list(backbone.mean),
        "std": list(backbone.std),
        "input_px": extractor.input_px,
        "image_shape": list(stimuli.shape),
        "stimulus_ids": sha256_bytes(json.dumps(stimuli.stimulus_ids).encode()),
        "pixels": sha256_bytes(b"".join(pixels)),
    }


def _write(
    path: Path, extractor: FeatureExtractor, stimuli: StimulusSet, batch_size: int, about: dict[str, str]
) -> None:
    from neural_fits.features import for_image_batches

    device = extractor.mean.device
    with torch.no_grad():
        one = extractor(torch.from_numpy(stimuli.images([0])).to(device))
    shape = (len(stimuli), *one.shape[1:])
    offset = len(_header(shape, batch_size, _NO_DIGEST, about))
    row_bytes = 4 * one[0].numel()
    temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}.tmp"
    one_at_a_time = threading.Lock()
    with _writing(path):
        file = temporary.open("xb", buffering=0)
    try:
        with contextlib.suppress(OSError):  # not every network drive has locks; see _remove_orphans
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

        def put(position: int, data: bytes) -> None:
            left = memoryview(data)
            with one_at_a_time, _writing(path):
                file.seek(position)
                while left:
                    left = left[file.write(left) :]

        def compute(start: int, images: Tensor) -> bytes:
            data = extractor(images).float().cpu().contiguous().numpy().astype("<f4", copy=False).tobytes()
            put(offset + start * row_bytes, data)
            return hashlib.sha256(data).digest()

        digests = for_image_batches(compute, stimuli, batch_size, device)
        put(0, _header(shape, batch_size, _join(shape, digests), about))
        with _writing(path):
            os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        file.close()
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _header(shape: tuple[int, ...], rows_per_check: int, digest: str, about: dict[str, str]) -> bytes:
    """Return the head of a safetensors file: length, JSON padded with spaces to a multiple of eight bytes."""
    size = 4 * int(np.prod(shape))
    text = json.dumps(
        {
            "__metadata__": {**about, "rows_per_check": str(rows_per_check), "sha256": digest},
            "features": {"dtype": "F32", "shape": list(shape), "data_offsets": [0, size]},
        }
    ).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an error of the disk into one sentence."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise type(error)(
            f"cannot write features to {str(path)!r}: {reason}; free space or choose another folder"
        ) from error


def _remove_orphans(folder: Path) -> None:
    """Delete what killed processes left: a writer holds a lock on its file, and the dead hold none."""
    for left in folder.glob(".features-*.tmp"):
        with contextlib.suppress(OSError), left.open("rb") as file:
            if time.time() - left.stat().st_mtime > _ORPHAN_SECONDS:  # a newborn may not have its lock yet
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
