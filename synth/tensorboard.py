"""Score curves and images for TensorBoard, where it is installed."""

from __future__ import annotations

from pathlib import Path

from synth.synthesis import Synthesis

_MOST_IMAGES = 64


def require_tensorboard() -> None:
    """Raise unless TensorBoard is installed: call it before long work.

    Raises
    ------
    ImportError
        When it is not.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise ImportError("TensorBoard is not installed; install it with: python -m pip install tensorboard") from error


def write_traces(made: Synthesis, folder: str | Path) -> None:
    """Write the score of every image at every reading, and the first images.

    Parameters
    ----------
    made : Synthesis
        The images.
    folder : path
        Folder of the event file.

    Raises
    ------
    ImportError
        When TensorBoard is not installed.
    """
    require_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for name, step, score in made.trace.itertuples(index=False):
            writer.add_scalar(f"score/{name}", score, step)
        for k, name in enumerate(made.stimuli.stimulus_ids[:_MOST_IMAGES]):
            writer.add_image(name, made.stimuli.codes([k])[0])
