"""What several test folders share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def v4_data() -> Path:
    """Folder of the real V4 session; tests that need it are skipped where it is absent (it may not be shipped)."""
    root = os.environ.get("NPC_DATA") or Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(root) / "v4_210325"
    if not (folder / "responses_trials.npy").is_file():
        pytest.skip(
            "needs the Cowley, Stan, Pillow & Smith 2023 V4 data (shared/data/v4_210325); "
            "NPC_DATA names the folder that holds v4_210325"
        )
    return folder
