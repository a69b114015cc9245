"""Responses that fitted models predict for a set, for the commands that show or export it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from stimuli import StimulusSet


def predicted_by(
    stimuli: StimulusSet, folders: Sequence[Path], device: str | None, say: Callable[[str], object] = lambda _: None
) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """Return what each model predicts for the images, and where the models come from."""
    import pandas as pd

    from neural_fits import load_model
    from stimuli.provenance import sha256_file
    from synth._predictions import predict_on

    predictions, facts = {}, {}
    for folder in folders:
        name = folder.resolve().name
        if name in predictions:
            raise ValueError(f"two models are in folders of the name {name!r}; rename one, the name tells them apart")
        say(f"predicting with {name}")
        model = load_model(folder)
        responses = predict_on(model, stimuli, device)
        predictions[name] = pd.DataFrame(responses, index=stimuli.stimulus_ids, columns=list(model.site_ids))
        facts[f"model {name}"] = f"{model.info.unit}; sha256 of model.json {sha256_file(folder / 'model.json')}"
    return predictions, facts
