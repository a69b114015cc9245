"""The public surface, and that importing it is cheap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import stimuli

ROOT = Path(stimuli.__file__).parents[1]


def _modules_after(code):
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_loads_neither_torch_nor_pandas():
    loaded = _modules_after("import stimuli")
    assert "stimuli" in loaded
    assert not loaded & {"torch", "pandas", "numpy", "PIL", "skimage", "sklearn"}


def test_photographs_are_found_without_importing_their_packages():
    loaded = _modules_after("import stimuli; assert len(stimuli.natural_photos(14, 64)) == 14")
    assert "pandas" in loaded
    assert not loaded & {"torch", "skimage", "sklearn", "scipy"}


def test_public_names():
    """Names that users have in their scripts: adding is free, taking one away breaks them."""
    expected = {
        *("Aperture", "Display", "PresentationOrder", "SequenceConfig", "StimulusSet", "draw", "export_set", "grid"),
        *("images_from_folder", "match_appearance", "natural_photos", "photos_from_folder", "presentation_order"),
        *("provenance_record", "quantize", "read_event_log", "sample", "with_gray_control"),
    }
    assert {name for name in stimuli.__all__ if callable(getattr(stimuli, name))} == expected
