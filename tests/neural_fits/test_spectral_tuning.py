"""Spectral tuning of images: planted energy filters, the convention of gratings, and what a band's noise does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from neural_fits.backbones import Backbone, load_backbone
from neural_fits.features import FeatureExtractor
from neural_fits.inspection._spectral_bands import make_bands, rendered
from neural_fits.inspection.grating_tuning import band_edges, grating_responses
from neural_fits.inspection.spectral_pictures import draw_map, draw_tuning
from neural_fits.inspection.spectral_tuning import TuningConfig, site_tunings, spectral_tuning
from neural_fits.readout import LinearReadout
from neural_fits.site_model import Ensemble, SiteInfo, SiteModel
from stimuli import natural_photos
from stimuli.families import draw
from stimuli.gratings import Gabor, Grating

SIZE_PX, SIZE_DEG = 48, 8.0


class GaborEnergy(nn.Module):
    """Units ``sqrt(even^2 + odd^2)`` of Gabor pairs anywhere in the image, or the even filter alone."""

    def __init__(self, frequency_cpd, orientation_deg, place_deg, linear=False):
        super().__init__()
        x = ((np.arange(SIZE_PX) + 0.5) / SIZE_PX - 0.5) * SIZE_DEG
        pairs = [
            [
                Gabor(frequency_cpd=f, orientation_deg=o, phase_deg=p, sigma_deg=1.0, x_deg=a, y_deg=b).signal(
                    *np.meshgrid(x, -x)
                )
                for p in (0, 90)
            ]
            for f, o, (a, b) in zip(frequency_cpd, orientation_deg, place_deg, strict=True)
        ]
        filters = np.array(pairs) - np.mean(pairs, axis=(2, 3), keepdims=True)
        filters /= np.sqrt((filters**2).sum((2, 3), keepdims=True))
        self.register_buffer("filters", torch.tensor(filters, dtype=torch.float32))
        self.linear = linear
        self.units = nn.Identity()

    def forward(self, images):
        driven = torch.einsum("nhw,kphw->nkp", images.mean(1), self.filters)
        return self.units(driven[..., 0] if self.linear else driven.square().sum(2).sqrt())


def planted(frequency_cpd, orientation_deg, sign, linear=False, seed=0):
    place = np.random.default_rng(seed).uniform(-1, 1, (len(sign), 2))
    network = Backbone("module:planted", GaborEnergy(frequency_cpd, orientation_deg, place, linear))
    count = len(sign)
    weight = torch.diag(torch.tensor(sign, dtype=torch.float32))[:, :, None, None]
    names = tuple(f"s{k}" for k in range(count))
    info = SiteInfo(names, (0.0,) * count, (1.0,) * count, (SIZE_PX, SIZE_PX), SIZE_DEG, "spikes")
    return SiteModel(FeatureExtractor(network, "units"), LinearReadout(weight, torch.full((count,), 5.0)), info)


@pytest.fixture(scope="module")
def natural():
    return natural_photos(96, size_px=SIZE_PX)


@pytest.fixture(scope="module")
def few(natural):
    return natural.select(slice(0, 12))


def turned(degrees):
    return np.abs((np.asarray(degrees) + 90) % 180 - 90)


@pytest.mark.parametrize("kind", ["additive", "multiplicative"])
def test_twenty_planted_energy_filters_are_found_with_their_signs(kind, natural):
    rng = np.random.default_rng(7)
    frequency, orientation = 2 ** rng.uniform(-1.2, 1.1, 20), rng.uniform(0, 180, 20)
    sign = np.where(np.arange(20) % 4 == 3, -1, 1)
    found = site_tunings(
        planted(frequency, orientation, sign), natural, config=TuningConfig(kind, iterations=15, gradient=True)
    )
    best = np.array([found[f"s{k}"].preferred(int(s)) for k, s in enumerate(sign)])
    assert np.abs(np.log2(best[:, 0] / frequency)).max() < 0.5  # one band
    assert turned(best[:, 1] - orientation).max() < 11.25  # half a band
    for k, s in enumerate(sign):
        tuning = found[f"s{k}"]
        at = np.nanargmax(np.abs(tuning.correlation))
        assert np.sign(tuning.correlation.flat[at]) == s
        assert abs(tuning.correlation.flat[at]) > 8 * tuning.standard_error.flat[at]
        steepest = np.unravel_index(np.nanargmax(np.abs(tuning.gradient)), tuning.gradient.shape)
        assert np.abs(np.log2(tuning.frequency_cpd[steepest[0]] / frequency[k])) < 0.5
        assert turned(tuning.orientation_deg[steepest[1]] - orientation[k]) < 22.5
        assert np.sign(tuning.gradient[steepest]) == s


@pytest.mark.parametrize("orientation_deg", [0.0, 22.5, 45.0, 90.0, 112.5, 157.5])
@pytest.mark.parametrize("shape", [(48, 48), (32, 64), (45, 33)])
def test_bands_follow_the_convention_of_gratings(orientation_deg, shape):
    height, width = shape
    drawn = draw([Grating(frequency_cpd=1.2, orientation_deg=orientation_deg)], size_deg=8.0, size_px=64)
    window = np.outer(np.hanning(height), np.hanning(width))
    plane = np.abs(np.fft.fft2((drawn.images()[0, 0, :height, :width] - 0.5) * window))
    bands = make_bands(shape, 8.0 * width / 64, 0.5, 8, [0.8, 1.0, 1.4, 2.0])
    strongest = bands.band.flatten()[int(plane.argmax())]
    assert int(strongest) == 8 * 1 + round(orientation_deg / 22.5)


@pytest.mark.parametrize("shape", [(16, 16), (15, 20), (20, 15)])
@pytest.mark.parametrize("channels", [1, 3])
def test_noise_adds_its_contrast_to_its_band_and_to_no_other(shape, channels):
    images = torch.rand(2, channels, *shape, dtype=torch.float64, generator=torch.Generator())
    bands = make_bands(shape, 4.0, 1.0, 4, None).to(images)
    count = len(bands.bins)
    nothing, _ = rendered(images, bands, images.new_zeros(2, count), "additive")
    assert torch.allclose(nothing, images, atol=1e-12)
    for band in torch.nonzero(bands.bins)[:, 0].tolist():
        noise = images.new_zeros(2, count)
        noise[0, band] = 0.02
        changed, acted = rendered(images, bands, noise, "additive")
        added = changed - images
        assert torch.allclose(added[1], torch.zeros_like(added[1]), atol=1e-12)
        assert added[0].square().mean((1, 2)).sqrt().tolist() == pytest.approx([0.02] * channels)
        assert acted[0, band].item() == pytest.approx(0.02)
        spectrum = torch.fft.fft2(added[0]).abs()
        assert spectrum[:, bands.band != band].max() < 1e-10
        turned_, shift = rendered(images, bands, noise * 30, "phase")
        assert torch.allclose(torch.fft.fft2(turned_).abs(), torch.fft.fft2(images).abs(), atol=1e-9)
        assert shift[0, band].item() == pytest.approx(0.6)
        assert not torch.allclose(turned_[0], images[0], atol=1e-4)
        weaker, share = rendered(images, bands, noise * -100, "multiplicative")  # less than nothing is nothing
        assert torch.fft.fft2(weaker[0]).abs()[:, bands.band == band].max() < 1e-10
        assert share[0, band].item() == pytest.approx(-1.0)
    assert bands.band[0, 0] == -1
    wide = make_bands(shape, 4.0, 1.0, 4, [0.1, 100.0]).band
    for axis in (0, 1):
        at = shape[axis] // 2
        assert (wide.select(axis, at)[1:] == -1).all() == (shape[axis] % 2 == 0)


def test_gradient_equals_finite_differences(few):
    model = planted([0.8, 1.5], [30, 100], [1, -1]).double()
    images = torch.from_numpy(few.images()).double()
    bands = make_bands((SIZE_PX, SIZE_PX), SIZE_DEG, 1.0, 4, None).to(images)
    for kind in ("additive", "multiplicative", "phase"):
        config = TuningConfig(kind, iterations=1, octaves=1.0, orientations=4, gradient=True)
        with torch.no_grad():  # as a notebook may be in
            found = site_tunings(model, images, config=config)
        for band in (5, 9, 14):
            noise = torch.zeros(len(images), len(bands.bins), dtype=torch.float64)
            noise[:, band] = 1e-6
            up, down = (model(rendered(images, bands, sign * noise, kind)[0]) for sign in (1, -1))
            numeric = (up - down) / 2e-6
            numeric = (numeric.abs() if kind == "phase" else numeric).mean(0)
            ours = [found[site].gradient.flat[band] for site in model.site_ids]
            assert np.allclose(ours, numeric, rtol=1e-4, atol=1e-7)


def test_correlation_is_what_the_slopes_of_all_bands_predict(few):
    model = planted([1.0], [60], [1])
    images = torch.from_numpy(few.images()) * 0.5 + 0.25
    bands = make_bands((SIZE_PX, SIZE_PX), SIZE_DEG, 1.0, 4, None).to(images)
    slopes = []
    for band in range(len(bands.bins)):
        noise = torch.zeros(len(images), len(bands.bins))
        noise[:, band] = 1e-2
        up, down = (model(rendered(images, bands, sign * noise, "multiplicative")[0])[:, 0] for sign in (1, -1))
        slopes.append(((up - down) / 2e-2).numpy())
    slopes = np.array(slopes)
    expected = slopes.mean(1) / np.sqrt((slopes**2).sum(0).mean())
    config = TuningConfig("multiplicative", iterations=200, octaves=1.0, orientations=4)
    found = spectral_tuning(model, "s0", images, config)
    known = ~np.isnan(found.correlation.ravel())
    off = (found.correlation.ravel() - expected)[known]
    assert np.abs(expected).max() > 0.3
    assert np.abs(off).max() < 0.05


def test_phase_noise_tells_a_linear_filter_from_an_energy_unit(natural):
    values = {}
    for linear in (True, False):
        model = planted([1.0], [45], [1], linear)
        tuning = spectral_tuning(model, "s0", natural, TuningConfig("phase", iterations=10, octaves=1.0, gradient=True))
        values[linear] = tuning
    frequency, orientation = values[True].preferred()
    assert abs(np.log2(frequency)) < 0.6
    assert turned(orientation - 45) < 11.25
    row = int(np.argmin(np.abs(np.log2(values[True].frequency_cpd))))
    assert values[True].correlation[row, 2] > 2 * abs(values[False].correlation[row, 2])
    assert values[True].gradient[row, 2] > 3 * values[False].gradient[row, 2]


@pytest.mark.parametrize("kind", ["additive", "multiplicative", "phase"])
def test_bands_without_any_bin_are_not_defined(kind, few):
    tuning = spectral_tuning(planted([1.0], [45], [1]), "s0", few, TuningConfig(kind, iterations=2, gradient=True))
    empty = make_bands((SIZE_PX, SIZE_PX), SIZE_DEG, 0.5, 8, None).bins.reshape(tuning.correlation.shape) == 0
    assert empty.any()
    for value in (tuning.correlation, tuning.standard_error, tuning.gradient):
        assert np.array_equal(np.isnan(value), empty.numpy())


def test_one_site_or_all_at_once_is_the_same(few):
    model = planted([0.8, 1.5], [30, 100], [1, -1])
    config = TuningConfig(iterations=2, gradient=True)
    together = site_tunings(model, few, ["s1", "s0"], config)
    assert list(together) == ["s1", "s0"]
    alone = spectral_tuning(model, "s1", few, TuningConfig(iterations=2, batch_size=5, gradient=True))
    named = site_tunings(model, few, "s1", TuningConfig(iterations=2))
    assert list(named) == ["s1"]
    assert np.array_equal(named["s1"].correlation, together["s1"].correlation, equal_nan=True)
    assert np.isnan(named["s1"].gradient).all()
    assert np.allclose(together["s1"].correlation, alone.correlation, atol=1e-4, equal_nan=True)
    assert np.allclose(together["s1"].gradient, alone.gradient, rtol=1e-4, equal_nan=True)
    assert together["s1"].name == alone.name == "s1"
    both = Ensemble([model, planted([0.8, 1.5], [30, 100], [1, -1], seed=1)])
    assert spectral_tuning(both, "s0", few, config).correlation.shape == alone.correlation.shape
    assert not np.isfinite(alone.correlation[0]).all()  # the lowest ring has bins in some directions only


def test_seeds(few, global_rng_untouched):
    model = planted([1.0], [60], [1])
    with global_rng_untouched():
        first, same, other = (
            spectral_tuning(model, "s0", few, TuningConfig(iterations=2, seed=k)).correlation for k in (0, 0, 1)
        )
    assert np.array_equal(first, same, equal_nan=True)
    assert not np.allclose(first, other, equal_nan=True)


NETWORKS = ("torchvision:resnet18", "torchvision:mobilenet_v3_small", "timm:convnext_atto", "timm:vit_tiny_patch16_224")


@pytest.mark.parametrize("name", NETWORKS)
def test_any_classifier_gray_or_color(name):
    network = load_backbone(name, pretrained=False)
    side = 224 if network.fixed_size else 64
    for channels in (1, 3):
        images = torch.rand(3, channels, side, side, generator=torch.Generator())
        config = TuningConfig(iterations=1, octaves=1.0, orientations=4, gradient=True)
        tuning = spectral_tuning(network, 7, images, config, size_deg=6.0)
        assert tuning.edges_cpd[-1] == pytest.approx(side / 12)
        assert np.isfinite(tuning.correlation[1:]).all()
        assert np.isfinite(tuning.gradient[1:]).all()


@pytest.mark.parametrize(("layer", "unit"), [("blocks.1", 3), ("blocks.2", (3, 1, 2)), (("blocks.0", "blocks.2"), 20)])
def test_any_layer_and_shape(layer, unit, lite0):
    images = torch.rand(4, 3, 32, 64, generator=torch.Generator())
    config = TuningConfig(iterations=2, octaves=1.0)
    tuning = spectral_tuning(FeatureExtractor(lite0, layer), unit, images, config, size_deg=8.0)
    assert tuning.edges_cpd.tolist() == pytest.approx([0.125, 0.25, 0.5, 1.0, 2.0, 4.0])
    assert np.isfinite(tuning.correlation[2:]).all()


def test_table_and_pictures(few):
    from matplotlib.figure import Figure

    model = planted([0.8, 1.5], [30, 100], [1, -1])
    several = list(site_tunings(model, few, config=TuningConfig(iterations=2, gradient=True)).values())
    table = several[0].table()
    row = table.loc[table["correlation"].idxmax()]
    assert abs(np.log2(np.sqrt(row["low_cpd"] * row["high_cpd"]) / 0.8)) < 0.75
    assert len(table) == several[0].correlation.size
    axis = Figure().subplots()
    drawn = draw_tuning(axis, several[1], "gradient", limit=3.0)
    assert drawn.get_clim() == (-3.0, 3.0)
    assert np.allclose(drawn.get_array().filled(np.nan), several[1].gradient, equal_nan=True)
    assert [each.get_text() for each in axis.get_yticklabels()] == ["0.25", "0.5", "1", "2"]
    assert [line.get_markeredgecolor() for line in axis.lines] == ["#22272e", "white"]
    row, column = np.unravel_index(np.nanargmax(several[1].gradient), several[1].gradient.shape)
    middle = np.log2(several[1].frequency_cpd[row])
    assert np.allclose([line.get_xydata()[0] for line in axis.lines], [several[1].orientation_deg[column], middle])
    with pytest.raises(ValueError, match="no value 'correlatoin'; did you mean 'correlation'"):
        draw_tuning(axis, several[1], "correlatoin")
    axis = Figure().subplots()
    draw_map(axis, np.full((2, 4), np.nan), np.array([2.2, 2.8, 3.6]), np.arange(4) * 45.0)
    assert not axis.lines  # nothing is defined, so nothing is the highest
    assert [each.get_text() for each in axis.get_yticklabels()] == ["2.2", "2.8", "3.6"]


def test_preferred_needs_a_value_of_that_sign(few):
    tuning = spectral_tuning(planted([1.0], [60], [1]), "s0", few, TuningConfig(iterations=1))
    nothing = type(tuning)(**{**vars(tuning), "correlation": np.abs(tuning.correlation)})
    with pytest.raises(ValueError, match="no band lowers the response of 's0'"):
        nothing.preferred(-1)
    wrapped = np.zeros(tuning.correlation.shape)
    wrapped[4, 0], wrapped[4, -1] = 1.0, 1.0  # 0 and 157.5 deg: between them across the end of the circle
    assert type(tuning)(**{**vars(tuning), "correlation": wrapped}).preferred()[1] == pytest.approx(168.75)


PLACES = ("target", "images", "size_deg")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "phasse"}, "no kind of perturbation 'phasse'; did you mean 'phase'"),
        ({"scale": 0}, "scale is 0"),
        ({"iterations": 0}, "iterations is 0"),
        ({"octaves": 0}, "octaves is 0"),
        ({"orientations": 0}, "orientations is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"edges_cpd": [2.0, 1.0]}, "give at least two rising positive frequencies"),
        ({"edges_cpd": [100.0, 200.0]}, "no frequency of images of 48 x 48 px"),
        ({"size_deg": None}, "size_deg is None, and the width of the images in degrees is needed"),
        ({"images": torch.zeros(2, 3, 48, 48)}, r"images have shape \(2, 3, 48, 48\); expected at least three"),
        ({"images": torch.full((4, 3, 48, 48), torch.nan)}, "not finite"),
        ({"images": torch.ones(4, 3, 48, 48) * 255}, "255"),
        ({"target": (99, 0, 0)}, "99"),
    ],
)
def test_errors_say_what_to_do(options, message, lite0):
    images = torch.rand(4, 3, 48, 48, generator=torch.Generator())
    call = {"target": 1, "images": images, "size_deg": 8.0} | {k: v for k, v in options.items() if k in PLACES}
    noise = {"iterations": 1} | {k: v for k, v in options.items() if k not in PLACES}
    with pytest.raises(ValueError, match=message):
        spectral_tuning(FeatureExtractor(lite0, "blocks.1"), config=TuningConfig(**noise), **call)


def test_an_unknown_site_is_named_and_no_site_refused(few):
    with pytest.raises(ValueError, match="no site 's9'"):
        site_tunings(planted([1.0], [60], [1]), few, ["s9"])
    with pytest.raises(ValueError, match="no site was given"):
        site_tunings(planted([1.0], [60], [1]), few, [])


def test_images_have_the_size_that_the_model_was_fitted_on(few):
    model, config = planted([1.0], [60], [1]), TuningConfig(iterations=1)
    half = few.on_screen(size_deg=SIZE_DEG / 2)
    with pytest.raises(ValueError, match="4 deg wide, the model was fitted on images of 8 deg"):
        spectral_tuning(model, "s0", half, config)
    with pytest.raises(ValueError, match="size_deg is 4, but the model or the images say 8 deg"):
        spectral_tuning(model, "s0", few, config, size_deg=4.0)
    with pytest.raises(ValueError, match="32 x 48 px, the model was fitted on 48 x 48 px"):
        spectral_tuning(model, "s0", torch.from_numpy(few.images())[:, :, :32], config)
    extractor = model.extractor
    with pytest.raises(ValueError, match="size_deg is 8, but the model or the images say 4 deg"):
        spectral_tuning(extractor, 0, half, config, size_deg=8.0)
    assert spectral_tuning(extractor, 0, half, config).edges_cpd[-1] == pytest.approx(6.0)
    named = spectral_tuning(model, "s0", torch.from_numpy(few.images()), config, size_deg=8.0).edges_cpd
    assert np.array_equal(named, spectral_tuning(model, "s0", few, config).edges_cpd)


@pytest.mark.parametrize("orientations", [2, 6, 10])
def test_diagonals_between_two_bands_go_to_either_one_of_them(orientations):
    band = make_bands((16, 16), 1.0, 1.0, orientations, [1.0, 8.0]).band
    per_band = 180 / orientations
    up, down = int(band[-3, 3]), int(band[3, 3])  # modulated along 45 and 135 deg
    assert up == 45 // per_band + 1
    assert down == (135 // per_band + 1) % orientations


def test_a_plain_network_is_left_as_it_was():
    network = nn.Sequential(nn.Conv2d(3, 4, 5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5)).train()
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator())
    one, two = (
        spectral_tuning(network, 2, images, TuningConfig(iterations=1, gradient=True), size_deg=2.0) for _ in range(2)
    )
    assert np.array_equal(one.correlation, two.correlation, equal_nan=True)  # without dropout
    assert network.training
    assert all(weight.requires_grad for weight in network.parameters())


def test_passes_through_the_network_do_not_grow_with_the_sites(few):
    model = planted([1.0] * 6, [60] * 6, [1] * 6)
    passes = []
    model.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    site_tunings(model, few, config=TuningConfig(iterations=3))
    assert passes == [False] * 4
    site_tunings(model, few, config=TuningConfig(iterations=3, gradient=True))
    assert passes[4:] == [False] * 4 + [True]


def test_grating_responses_are_those_of_the_planted_filters():
    model = planted([0.7, 1.3], [0, 90], [1, -1])
    edges = band_edges((SIZE_PX, SIZE_PX), SIZE_DEG, 0.5)
    assert np.array_equal(edges, make_bands((SIZE_PX, SIZE_PX), SIZE_DEG, 0.5, 8, None).edges_cpd)
    found = grating_responses(model, edges, size_px=SIZE_PX, size_deg=SIZE_DEG, contrast=0.5)
    assert found.shape == (len(edges) - 1, 8, 2)
    middle = np.sqrt(edges[1:] * edges[:-1])
    for k, (frequency, column, sign) in enumerate([(0.7, 0, 1), (1.3, 4, -1)]):
        at = np.unravel_index((sign * found[:, :, k]).argmax(), found.shape[:2])
        assert at == (int(np.abs(np.log2(middle / frequency)).argmin()), column)
        assert found[(*at, k)] * sign > 0
    grating = draw(
        [Grating(frequency_cpd=float(middle[2]), orientation_deg=22.5, phase_deg=p) for p in (0, 90, 180, 270)],
        size_deg=SIZE_DEG,
        size_px=SIZE_PX,
    )
    gray = model(torch.full((1, 3, SIZE_PX, SIZE_PX), 0.5))
    expected = (model.predict(grating).mean(0) - gray.numpy()[0]) / 2  # an energy filter's response grows with contrast
    assert np.allclose(found[2, 1], expected, atol=0.02)
