"""Score curves and images as TensorBoard reads them back."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image

from synth.objectives import Stretch
from synth.recipes import SynthesisConfig
from synth.synthesize import synthesize
from synth.tensorboard import require_tensorboard, write_traces


@pytest.mark.parametrize("channels", [1, 3])
def test_curves_and_images_come_back(tiny_model, tmp_path, channels):
    pytest.importorskip("tensorboard", reason="needs TensorBoard: python -m pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = SynthesisConfig(steps=4, check_every=2, channels=channels)
    made = synthesize(tiny_model(), Stretch("a"), seeds=2, recipe=config, slots=2, device="cpu")
    write_traces(made, tmp_path / "events")
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    names = made.stimuli.stimulus_ids
    assert sorted(events.Tags()["scalars"]) == sorted(f"score/{name}" for name in names)
    for k, name in enumerate(names):
        curve = made.trace[made.trace["stimulus_id"] == name]
        found = events.Scalars(f"score/{name}")
        assert [event.step for event in found] == [0, 2, 4]
        np.testing.assert_allclose([event.value for event in found], curve["score"], rtol=1e-6)
        (image,) = events.Images(name)
        pixels = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)).convert("RGB"))
        expected = np.broadcast_to(made.stimuli.codes([k])[0], (3, 32, 32)).transpose(1, 2, 0)
        np.testing.assert_array_equal(pixels, expected)


def test_without_tensorboard_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"^TensorBoard is not installed; install it with: python -m pip install"):
        require_tensorboard()
