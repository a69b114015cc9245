from __future__ import annotations

import dataclasses
import hashlib
import json
from datetime import datetime
from importlib import metadata

import numpy as np
import pytest

from stimuli import provenance_record
from stimuli.provenance import sha256_bytes, sha256_file, to_jsonable


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 3
    sizes: tuple[float, ...] = (1.0, float("nan"))


def test_record_is_json_and_complete():
    record = provenance_record(seed=np.int64(4), config=Config(), inputs={"a.png": "00ff"})
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["seed"] == 4
    assert record["config"] == {"steps": 3, "sizes": [1.0, "nan"]}
    assert record["inputs"] == {"a.png": "00ff"}
    assert record["packages"]["numpy"] == np.__version__
    assert record["packages"]["pandas"] == metadata.version("pandas")
    assert datetime.fromisoformat(record["time_utc"]).utcoffset().total_seconds() == 0


def test_missing_distribution_is_uninstalled(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    record = provenance_record()
    assert record["version"] == "uninstalled"
    assert record["packages"] == {}


def test_what_json_cannot_hold_is_named():
    with pytest.raises(TypeError, match=r"config\['net'\]\[1\] is of type object"):
        provenance_record(config={"net": [1, object()]})
    assert to_jsonable({"s": {2, 1}, "a": np.arange(2)}) == {"s": [1, 2], "a": [0, 1]}


def test_hashes_agree_with_hashlib(tmp_path):
    data = bytes(range(256)) * 5000
    (tmp_path / "f").write_bytes(data)
    assert sha256_file(tmp_path / "f") == sha256_bytes(data) == hashlib.sha256(data).hexdigest()
