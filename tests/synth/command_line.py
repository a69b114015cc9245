"""``npc`` in process, and a lab's folder to call it on."""

import sys

import pytest

from neural_fits import SimulatedBrain
from stimuli import natural_photos
from synth import cli


def npc(monkeypatch, capsys, *arguments):
    """Return exit code, standard output and standard error of one call."""
    monkeypatch.setattr(sys, "argv", ["npc", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capsys.readouterr()
    return stopped.value.code or 0, captured.out, captured.err


def make_lab(folder):
    """Fill a lab's folder: natural set, recordings, and a fitted driver and validator."""
    natural = natural_photos(100, size_px=64).save(folder / "natural")
    brain = SimulatedBrain(natural, n_sites=3, seed=0)
    brain.record(natural, n_repeats=4).save(folder / "natural.nc")
    with pytest.MonkeyPatch.context() as patch:
        for name, split in (("driver", "A"), ("validator", "B")):
            fit = ("fit", folder / "natural", folder / "natural.nc", "--out", folder / name, "--split", split)
            patch.setattr(
                sys, "argv", ["npc", *map(str, fit), "--backbone", "efficientnet-lite0", "--folds", "3", "-q"]
            )
            with pytest.raises(SystemExit) as stopped:
                cli.main()
            assert not stopped.value.code
    return folder, brain
