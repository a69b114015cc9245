"""The best images and their copies: order, planted transforms against scipy and closed forms, contrast of the codes."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from stimuli import StimulusSet
from stimuli._warp import warp
from stimuli.apertures import Aperture
from stimuli.competitors import affine_copies, best_stimuli, contrast_copies, cropped_copies
from stimuli.gray import with_gray_control
from stimuli.textures import phase_scrambled


def blobs(n=3, size=48, channels=1, **columns):
    """Smooth images, so that interpolation is exact enough to compare with."""
    noise = np.random.default_rng(0).random((n, channels, size, size))
    smooth = ndimage.gaussian_filter(noise, (0, 0, 3, 3), mode="wrap")
    smooth = 0.5 + 0.5 * (smooth - 0.5) / np.abs(smooth - 0.5).max()
    return StimulusSet.from_arrays(smooth, {"stimulus_id": list("abcdefgh"[:n]), **columns}, size_deg=6.0)


def test_best_are_in_order_and_know_what_they_were_chosen_from():
    three = blobs()
    best = best_stimuli(three, pd.Series({"c": 5.0, "a": 1.0, "b": np.nan}), 2, target_site="v7")
    assert best.stimulus_ids == ["c", "a"]
    told = best.table[["score", "rank", "chosen_from", "target_site"]].to_dict("list")
    assert told == {"score": [5.0, 1.0], "rank": [1, 2], "chosen_from": [2, 2], "target_site": ["v7", "v7"]}
    assert best_stimuli(three, [0.0, 2.0, 1.0]).stimulus_ids == ["b"]
    assert best_stimuli(three, [1.0, 1.0, 1.0], 2).stimulus_ids == ["a", "b"]
    assert "target_site" not in best_stimuli(three, [0.0, 2.0, 1.0]).table


@pytest.mark.parametrize(
    ("scores", "k", "error", "words"),
    [
        ({"a": 1.0, "b": 2.0}, 1, ValueError, "lack the stimulus 'c'"),
        ([1.0, 2.0], 1, ValueError, r"shape \(2,\) for 3"),
        ([1.0, np.nan, np.inf], 2, ValueError, "1 of 3 have a score"),
        (["x", "y", "z"], 1, TypeError, "something else than numbers"),
        ([1.0, 2.0, 3.0], 0, ValueError, "k is 0"),
        (pd.Series([1.0, 2.0, 3.0, 9.0], index=["a", "b", "c", "a"]), 1, ValueError, "scores have 'a' twice"),
    ],
)
def test_wrong_scores_are_refused(scores, k, error, words):
    with pytest.raises(error, match=words):
        best_stimuli(blobs(), scores, k)


def test_warp_that_moves_nothing_changes_nothing():
    image = np.random.default_rng(1).random((2, 9, 14))
    for outside, order in (("mirror", 3), ("empty", 1)):
        np.testing.assert_allclose(warp(image, (9, 14), outside=outside, order=order), image, atol=1e-12)


def test_warp_agrees_with_whole_pixels_quarter_turns_and_scipy():
    image = np.random.default_rng(1).random((1, 12, 12))
    np.testing.assert_allclose(warp(image, (12, 12), rotation_deg=90)[0], np.rot90(image[0]), atol=1e-12)
    moved = warp(image, (12, 12), right_px=3, up_px=2, outside="empty", order=1)[0]
    np.testing.assert_allclose(moved[:10, 3:], image[0, 2:, :9], atol=1e-12)
    assert np.abs(moved[10:]).max() == np.abs(moved[:, :3]).max() == 0
    smooth = blobs(1).images()[0].astype(float)
    turned = warp(smooth, (48, 48), rotation_deg=20)[0]
    wanted = ndimage.rotate(smooth[0], 20, reshape=False, order=3, mode="reflect")  # counterclockwise as shown
    np.testing.assert_allclose(turned[8:-8, 8:-8], wanted[8:-8, 8:-8], atol=1e-3)


def test_a_planted_disk_moves_turns_and_grows_as_the_table_says():
    x, y = np.meshgrid(np.arange(64), np.arange(64))
    disk = np.exp(-((x - 37) ** 2 + (y - 26) ** 2) / 18.0)  # 5.5 px right of and 5.5 px above the middle
    source = StimulusSet.from_arrays(128 / 255 + disk[None, None] / 3, size_deg=8.0)
    made = affine_copies(source, 6, shift_deg=1, rotation_deg=90, outside="gray")
    for row, image in zip(made.table.itertuples(), 3 * (made.images()[:, 0] - 128 / 255), strict=True):
        total = image.sum()
        found = (x * image).sum() / total - 31.5, 31.5 - (y * image).sum() / total
        angle = np.radians(row.rotation_deg)
        away = row.zoom * np.array(
            [5.5 * np.cos(angle) - 5.5 * np.sin(angle), 5.5 * np.sin(angle) + 5.5 * np.cos(angle)]
        )
        assert found == pytest.approx(away + np.array([row.x_deg * 8, row.y_deg * 8]), abs=0.2)
        assert total == pytest.approx(disk.sum() * row.zoom**2, rel=0.05)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), shift=st.floats(0, 0.5), turn=st.floats(0, 180), zoom=st.floats(1, 1.6))
def test_a_copy_put_back_is_its_source(seed, shift, turn, zoom):
    smooth = blobs(1)
    made = affine_copies(smooth, 1, shift_deg=shift, rotation_deg=turn, zoom=zoom, seed=seed)
    row = made.table.iloc[0]
    moved = made.images()[0].astype(float)
    centered = warp(moved, (48, 48), right_px=-row["x_deg"] * 8, up_px=-row["y_deg"] * 8)
    back = warp(centered, (48, 48), rotation_deg=-row["rotation_deg"], scale=1 / row["zoom"])
    y, x = np.mgrid[-23.5:24, -23.5:24]
    seen = np.hypot(x, y) < 11  # at every zoom and shift this part of the source stays on the canvas
    assert np.abs(back[0] - smooth.images()[0, 0])[seen].max() < 0.03
    assert 0 <= made.images().min() <= made.images().max() <= 1


@settings(max_examples=30, deadline=None)
@given(gain=st.floats(0.1, 1.0), seed=st.integers(0, 2**31))
def test_lowered_contrast_is_the_asked_one_for_any_image(gain, seed):
    image = np.random.default_rng(seed).uniform(0.2, 0.8, (1, 1, 40, 40))
    source = StimulusSet.from_arrays(image)
    made = contrast_copies(source, gains=[gain])
    assert made.images().std() == pytest.approx(gain * source.images().std(), abs=0.002)
    assert made.images().mean() == pytest.approx(source.images().mean(), abs=0.002)


def test_copies_stay_within_their_ranges_and_depend_on_their_source_alone():
    three = blobs(photograph=["p", "q", "p"], target_site=["v", "v", "w"], other=[1, 2, 3])
    made = affine_copies(three, 20, shift_deg=0.4, rotation_deg=10, zoom=1.5, seed=2)
    table = made.table
    assert len(made) == 60
    assert (table["family"] == "affine_copy").all()
    assert list(table["source"]) == [name for name in "abc" for _ in range(20)]
    assert list(table["photograph"][::20]) == ["p", "q", "p"]
    assert list(table["target_site"][::20]) == ["v", "v", "w"]
    assert "other" not in table
    for column, largest in (("x_deg", 0.4), ("y_deg", 0.4), ("rotation_deg", 10)):
        assert 0.8 * largest < table[column].abs().max() <= largest
    assert 1 / 1.5 <= table["zoom"].min() < 0.75
    assert 1.35 < table["zoom"].max() <= 1.5
    alone = affine_copies(three.select(["c"]), 2, shift_deg=0.4, rotation_deg=10, zoom=1.5, seed=2)
    assert (alone.codes() == made.codes([40, 41])).all()
    assert alone.stimulus_ids == made.stimulus_ids[40:42]
    other = affine_copies(three, 20, shift_deg=0.4, rotation_deg=10, zoom=1.5, seed=3)
    assert not set(other.stimulus_ids) & set(made.stimulus_ids)


def test_gray_outside_is_the_code_128():
    nearly = np.ones((1, 1, 32, 32))
    nearly[0, 0, 16, 16] = 253 / 255  # a uniform one would be left out
    white = StimulusSet.from_arrays(nearly, size_deg=4.0)
    made = affine_copies(white, 8, shift_deg=2, rotation_deg=0, zoom=1, outside="gray")
    for row, codes in zip(made.table.itertuples(), made.codes()[:, 0], strict=True):
        right, up = abs(row.x_deg) * 8, abs(row.y_deg) * 8
        assert ((codes > 128).sum(), (codes == 255).sum()) == pytest.approx(((32 - right) * (32 - up),) * 2, abs=64)
        assert codes.min() == 128
        corner = codes[0 if row.y_deg < 0 else -1, 0 if row.x_deg > 0 else -1]  # from which the source moved away
        assert corner == 128 or min(right, up) < 1


def test_contrast_is_that_of_the_codes_and_the_mean_stays():
    three = blobs(channels=3)
    gained = contrast_copies(three, gains=[0.5, 1.2])
    before, after = three.images().astype(float), gained.images().astype(float)
    np.testing.assert_allclose(after[::2].mean(axis=(2, 3)), before.mean(axis=(2, 3)), atol=1e-3)
    np.testing.assert_allclose(after[::2].std(axis=(2, 3)), 0.5 * before.std(axis=(2, 3)), rtol=0.01)
    np.testing.assert_allclose(gained.table["rms_contrast"], after.std(axis=(1, 2, 3)), rtol=1e-5)
    assert list(gained.table["gain"]) == [0.5, 1.2] * 3
    matched = contrast_copies(three, rms_contrasts=[0.08])
    np.testing.assert_allclose(matched.table["rms_contrast"], 0.08, rtol=0.01)
    assert not matched.table["clipped_fraction"].any()


def test_a_cast_of_color_counts_as_contrast_and_stays():
    red = blobs(channels=3).codes() / 255.0 * 0.5 + np.array([0.3, 0.1, 0.1])[:, None, None]
    source = StimulusSet.from_arrays(red)
    matched = contrast_copies(source, rms_contrasts=[0.12])
    np.testing.assert_allclose(matched.images().std(axis=(1, 2, 3)), 0.12, rtol=0.01)
    np.testing.assert_allclose(matched.images().mean((2, 3)), source.images().mean((2, 3)), atol=2e-3)
    assert not matched.table["clipped_fraction"].any()
    with pytest.raises(
        ValueError, match=r"RMS contrast of 0\.05: the means of its color channels alone differ by 0\.09"
    ):
        contrast_copies(source, rms_contrasts=[0.05])


def test_what_is_clipped_is_told():
    wide = np.full((1, 1, 8, 8), 0.5)
    wide[0, 0, 0, :4], wide[0, 0, 1, :4] = 0.9, 0.1
    made = contrast_copies(StimulusSet.from_arrays(wide), gains=[2.0])
    assert made.table["clipped_fraction"].tolist() == [8 / 64]
    assert sorted(np.unique(made.codes()).tolist()) == [0, 128, 255]


def test_cropping_shows_the_source_inside_and_gray_outside():
    three = blobs()
    field = Aperture(1.0, 0.25, x_deg=1.5, y_deg=-1.0)
    made = cropped_copies(three, field)
    mask = field.mask((48, 48), 6.0)
    assert (made.codes()[:, :, mask == 0] == 128).all()
    assert (made.codes()[:, :, mask == 1] == three.codes()[:, :, mask == 1]).all()
    assert mask[48 // 2 + 8, 48 // 2 + 12] == 1
    assert set(made.table["aperture_x_deg"]) == {1.5}
    assert list(made.table["source"]) == list("abc")


def test_copies_can_stand_beside_their_sources(tmp_path):
    three = blobs(family=["natural"] * 3)
    both = StimulusSet.concat(
        [three, affine_copies(three, 1), contrast_copies(three), cropped_copies(three, Aperture(2.0))]
    )
    assert both.table["family"].value_counts().to_dict() == {
        "natural": 3,
        "affine_copy": 3,
        "contrast_copy": 6,
        "cropped_copy": 3,
    }
    both.save(tmp_path / "set")
    assert StimulusSet.load(tmp_path / "set").provenance["parts"][1]["provenance"]["config"]["family"] == "affine_copy"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: affine_copies(s, 0), "n is 0"),
        (lambda s: affine_copies(s, 1, zoom=0.5), "zoom is 0.5"),
        (lambda s: affine_copies(s, 1, shift_deg=7), "shift_deg is 7"),
        (lambda s: affine_copies(s, 1, rotation_deg=float("nan")), "rotation_deg is nan"),
        (lambda s: affine_copies(s, 1, outside="black"), "outside is 'black'"),
        (
            lambda s: affine_copies(s, 2, shift_deg=0, rotation_deg=0, zoom=1),
            "Images 0 and 1 of 6 are the same picture",
        ),
        (lambda s: affine_copies(s, 1, seed=2**32), r"seed is 4294967296: give a whole number below 2\*\*32"),
        (lambda s: contrast_copies(s, gains=[-1]), "gains is -1"),
        (lambda s: contrast_copies(s, gains=[0]), "gains is 0: give a number from 0.01 to 100"),
        (lambda s: contrast_copies(s, rms_contrasts=[0]), "rms_contrasts is 0: give a number from 0.004 to 0.5"),
        (lambda s: contrast_copies(s, rms_contrasts=[0.7]), "rms_contrasts is 0.7"),
        (lambda s: cropped_copies(s, Aperture(0.5, x_deg=90.0)), "closed at every pixel"),
    ],
)
def test_wrong_input_is_one_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call(blobs())


def test_a_list_is_a_list():
    for name in ("gains", "rms_contrasts"):
        for wrong in (2.0, "2"):
            with pytest.raises(TypeError, match=f"{name} is {wrong!r}: give a list of numbers"):
                contrast_copies(blobs(), **{name: wrong})
    assert list(contrast_copies(blobs(1), gains=np.array([0.5, 0.7])).table["gain"]) == [0.5, 0.7]


@pytest.mark.parametrize(
    "copied",
    [
        lambda s: affine_copies(s, 2),
        contrast_copies,
        phase_scrambled,
        lambda s: cropped_copies(s, Aperture(1.0, 0.5)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_uniform_sources_are_left_out_of_every_kind_of_copy(copied, channels):
    bare = blobs(channels=channels)
    made = copied(with_gray_control(bare))
    assert made.stimulus_ids == copied(bare).stimulus_ids
    red = np.zeros((1, 3, 8, 8))
    red[0, 0] = 1.0
    with pytest.raises(ValueError, match="Every image of 'stimuli' is uniform"):
        copied(StimulusSet.from_arrays(red if channels == 3 else np.full((1, 1, 8, 8), 0.5)))


@pytest.mark.parametrize(("frequency", "scale", "most"), [(0.425, 0.834, 0.8), (0.4, 0.5, 0.1), (0.3, 0.55, 0.37)])
@pytest.mark.parametrize("turned", [False, True])
def test_what_a_smaller_copy_cannot_hold_is_not_aliased(frequency, scale, most, turned):
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * frequency * np.arange(160.0)) * np.ones((160, 1))
    image = (wave.T if turned else wave)[None]
    seen = warp(image, (64, 64), scale=scale, rotation_deg=25.0)[0, 16:48, 16:48]
    assert np.ptp(seen) < 0.02
    cut_out = warp(image, (64, 64), scale=scale, rotation_deg=25.0, outside="empty", order=1)[0, 16:48, 16:48]
    assert np.ptp(cut_out) < most  # a blur leaves a part


@pytest.mark.parametrize("scale", [0.9, 0.5])
def test_what_a_smaller_copy_can_hold_stays(scale):
    frequency = 0.3 * scale  # 0.3 cycles per pixel of the copy
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * frequency * (np.arange(160.0) - 79.5)) * np.ones((160, 1))
    seen = warp(wave[None], (64, 64), scale=scale)[0]
    wanted = 0.5 + 0.5 * np.cos(2 * np.pi * 0.3 * (np.arange(64.0) - 31.5))
    np.testing.assert_allclose(seen[20], wanted, atol=0.03)
