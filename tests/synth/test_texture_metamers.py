"""Texture metamers: statistics of the 8-bit codes by plenoptic's own model, planted orientation, sizes, errors."""

import importlib.util

import numpy as np
import pytest

from stimuli import StimulusSet
from stimuli.gray import with_gray_control
from synth import texture_metamers as module
from synth.texture_metamers import TextureConfig, fitting_scales, texture_metamers

plenoptic = pytest.importorskip("plenoptic", reason="plenoptic is not installed: pip install -e '.[textures]'")
QUICK = TextureConfig(steps=12, n_scales=2)
HASTY = TextureConfig(steps=1, n_scales=1)


def oblique(n=2, channels=1):
    """Noise whose energy lies along one oblique direction."""
    rng = np.random.default_rng(0)
    fy, fx = np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64), indexing="ij")
    wanted = np.exp(-(((np.hypot(fx, fy) - 0.12) / 0.04) ** 2)) * np.cos(np.arctan2(fy, fx) - np.pi / 4) ** 8
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((n, 1, 64, 64))) * wanted).real
    images = np.clip(0.5 + 0.15 * noise / noise.std(), 0, 1).repeat(channels, axis=1)
    ids = ["p", "q", "r"][:n]
    return StimulusSet.from_arrays(images, {"stimulus_id": ids, "photograph": ids, "target_site": ["v"] * n})


def direction(image):
    """Mean orientation of the energy, and how concentrated it is (0 to 1)."""
    power = np.abs(np.fft.fft2(image - image.mean())) ** 2
    fy, fx = np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64), indexing="ij")
    mean = (power * np.exp(2j * np.arctan2(fy, fx))).sum() / power.sum()
    return np.degrees(np.angle(mean)) / 2, np.abs(mean)


@pytest.fixture(scope="module")
def made():
    lines = []
    return texture_metamers(oblique(), 1, QUICK, seed=1, device="cpu", progress=lines.append), lines


def test_statistics_of_the_codes_are_those_of_the_source(made):
    import torch

    textures, _ = made
    model = plenoptic.models.PortillaSimoncelli((64, 64), 2, 4, 7)
    source = torch.as_tensor(oblique().images())
    wanted = model(source)[:, 0]
    got = model(torch.as_tensor(textures.images()))[:, 0]
    noise = model(torch.as_tensor(np.random.default_rng(5).permuted(source.numpy().reshape(2, 1, -1), axis=2)
                                  .reshape(2, 1, 64, 64)))[:, 0]  # fmt: skip
    for k in range(2):
        near = (got[k] - wanted[k]).norm() / (noise[k] - wanted[k]).norm()
        assert near < 0.1
    assert (textures.table["statistics_error"] < 0.1).all()
    assert (textures.table["statistics_error"] > 0).all()


def test_orientation_and_contrast_stay_and_the_arrangement_does_not(made):
    textures, _ = made
    sources = oblique().images()[:, 0].astype(float)
    for k, image in enumerate(textures.images()[:, 0].astype(float)):
        source = sources[k]
        assert direction(image)[0] == pytest.approx(45, abs=5)
        assert direction(image)[1] == pytest.approx(direction(source)[1], abs=0.1)
        assert (image.mean(), image.std()) == pytest.approx((source.mean(), source.std()), rel=0.05)
        assert abs(np.corrcoef(image.ravel(), source.ravel())[0, 1]) < 0.3


def test_table_and_progress_say_what_was_done(made):
    textures, lines = made
    table = textures.table
    assert list(table["source"]) == ["p", "q"]
    assert list(table["photograph"]) == ["p", "q"]
    assert set(table["family"]) == {"texture_metamer"}
    assert set(table["n_scales"]) == {2}
    assert set(table["target_site"]) == {"v"}
    assert len(lines) == 2
    assert lines[-1].startswith("texture 2 of 2")
    assert textures.provenance["config"]["steps"] == 12


def test_a_metamer_depends_on_seed_source_and_number_alone():
    textures = texture_metamers(oblique(), 2, HASTY, seed=1, device="cpu")
    assert list(textures.table["source"]) == ["p", "p", "q", "q"]
    assert len(set(textures.stimulus_ids)) == 4
    alone = texture_metamers(oblique().select(["q"]), 1, HASTY, seed=1, device="cpu")
    assert (alone.codes() == textures.codes([2])).all()
    other = texture_metamers(oblique().select(["q"]), 1, HASTY, seed=2, device="cpu")
    assert other.stimulus_ids != alone.stimulus_ids


def test_uniform_sources_are_left_out_and_any_whole_number_is_a_seed():
    lines = []
    both = with_gray_control(oblique(1))
    made = texture_metamers(both, 1, HASTY, seed=np.int64(3), device="cpu", progress=lines.append)
    assert list(made.table["source"]) == ["p"]
    assert lines[0].startswith("texture 1 of 1")
    assert made.stimulus_ids == texture_metamers(oblique(1), 1, HASTY, seed=3, device="cpu").stimulus_ids
    with pytest.raises(ValueError, match="is uniform"):
        texture_metamers(both.select(["gray"]), 1, HASTY, device="cpu")


def test_color_sources_give_gray_textures_with_three_channels():
    color = texture_metamers(oblique(1, channels=3), 1, HASTY, device="cpu")
    assert color.shape == (3, 64, 64)
    assert (color.codes()[:, 0] == color.codes()[:, 2]).all()


def test_scales_fit_into_the_image():
    assert fitting_scales((256, 128), TextureConfig()) == 4
    assert fitting_scales((64, 64), TextureConfig()) == 3
    assert fitting_scales((64, 64), TextureConfig(spatial_corr_width=9)) == 2
    assert fitting_scales((50, 50), TextureConfig()) == 1
    for size, config in (((65, 64), TextureConfig()), ((64, 64), TextureConfig(n_scales=4))):
        with pytest.raises(ValueError, match="have no room for"):
            fitting_scales(size, config)
    with pytest.raises(ValueError, match="sides of 112 px or more that 16 divides"):
        texture_metamers(oblique(), 1, TextureConfig(n_scales=4))


def test_without_plenoptic_the_error_says_what_to_install(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == "plenoptic" else found(name))
    with pytest.raises(ModuleNotFoundError, match=r"neural-population-control\[textures\]"):
        texture_metamers(oblique())


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"n_orientations": 1}, {"spatial_corr_width": 8}, {"spatial_corr_width": 1}, {"n_scales": 0}],
)
def test_wrong_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TextureConfig(**wrong)


def test_wrong_counts_are_refused():
    with pytest.raises(ValueError, match="n is 0"):
        texture_metamers(oblique(), 0)
    for wrong in (-1, 2**32):
        with pytest.raises(ValueError, match=f"seed is {wrong}"):
            texture_metamers(oblique(), seed=wrong)
