"""What examples say of weak data: no ring on noise, no digit for a class that is never read, no weight on --small."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from neural_fits.inspection.spectral_tuning import SpectralTuning

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize(("height", "clear"), [(0.29, False), (0.31, True)])
def test_a_band_stands_out_beyond_three_standard_errors_even_where_its_own_is_small_by_chance(height, clear):
    stands_out = runpy.run_path(str(EXAMPLES / "12_perturbation.py"))["stands_out"]
    correlation, error = np.full((2, 4), 0.05), np.full((2, 4), 0.1)
    correlation[0, 0] = np.nan
    correlation[1, 2], error[1, 2] = height, 0.001
    shape = np.array([1.0, 2.0, 4.0]), np.arange(4) * 45.0
    assert stands_out(SpectralTuning("site", "additive", *shape, correlation, error, error, 0.005, 9, 3)) is clear
    assert not stands_out(SpectralTuning("site", "additive", *shape, correlation, error * 4, error, 0.005, 9, 3))


def test_a_digit_that_is_never_read_right_gets_no_picture_of_another():
    of_each = runpy.run_path(str(EXAMPLES / "15_capsules.py"))["of_each"]
    truth = torch.tensor([7, 3, 3, 5])
    read = torch.tensor([7, 9, 3, 0])
    parts = SimpleNamespace(held_out_images=torch.zeros(4, 1, 16, 16), held_out_labels=truth)
    places = of_each(parts, lambda _: torch.nn.functional.one_hot(read, 10))
    assert places.tolist() == [-1, -1, -1, 2, -1, -1, -1, 0, -1, -1]


@pytest.mark.parametrize("number", ["05", "11", "12", "13", "14", "15", "16", "17"])
def test_a_small_run_says_that_its_pictures_mean_nothing(number):
    (script,) = EXAMPLES.glob(f"{number}_*.py")
    assert 'print("--small: only checks that everything runs; figures and pictures mean nothing")' in script.read_text()
