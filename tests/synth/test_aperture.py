"""The aperture of the constraints is the aperture of the stimuli, in fractions of the image width."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stimuli import apertures
from synth.aperture import Aperture


@settings(max_examples=50, deadline=None)
@given(radius=st.floats(0.1, 0.9), share=st.floats(0.0, 1.0), x=st.floats(-0.1, 0.1), y=st.floats(-0.1, 0.1))
def test_same_mask_as_in_degrees(radius, share, x, y):
    size_deg = 8.0
    mask = Aperture(x, y, radius, share * radius).mask(20, 30)
    window = apertures.Aperture(radius * size_deg, min(share, 1.0) * radius * size_deg, x * size_deg, y * size_deg)
    assert mask.shape == (1, 1, 20, 30)
    assert mask.dtype == torch.float32
    if share * radius > 1e-3:  # at a sharp edge, rounding may open a pixel that it closes here
        torch.testing.assert_close(
            mask[0, 0].double(), torch.from_numpy(window.mask((20, 30), size_deg)), atol=1e-6, rtol=0
        )


def test_mask_has_the_middle_where_it_is_asked():
    mask = Aperture(x=0.25, y=0.25, radius=0.2, edge=0.1).mask(16, 16)[0, 0]
    assert mask[:8, 8:].sum() == pytest.approx(mask.sum().item())  # right of and above the middle
    assert mask[3:5, 11:13].min() == 1.0
    torch.testing.assert_close(mask, mask.T.flip(0, 1))


def test_closed_everywhere_is_refused_in_its_own_units():
    with pytest.raises(ValueError, match=r"radius=0\.1.*closed at every pixel of an image of 8 x 9"):
        Aperture(x=3.0, radius=0.1, edge=0.0).mask(8, 9)
