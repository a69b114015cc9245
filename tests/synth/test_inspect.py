"""npc inspect: pages that hold what was measured, on any model, and look right in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from browser import browse
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from neural_fits.backbones import Backbone
from neural_fits.features import FeatureExtractor
from neural_fits.inspection.saliency import smooth_grad
from neural_fits.readout import LinearReadout
from neural_fits.site_model import Ensemble, SiteInfo, SiteModel
from stimuli import StimulusSet, natural_photos
from synth import SynthesisConfig
from synth import _inspection_pictures as pictures
from synth._inspection_sections import sections
from synth._inspection_words import extreme_band, model_words, site_title
from synth._report_words import number
from synth.commands.inspect import inspect
from synth.inspection_page import inspection_html, inspection_index_html, page_names, save_inspections
from synth.site_inspection import MAXIMIZING, inspect_sites

QUICK = SynthesisConfig(start="natural", steps=3)
SECTIONS = ("field", "activation", "saliency", "tuning", "made")

app = typer.Typer()
app.command()(inspect)
app.command()(lambda: None)  # a second command, so that the first has a name


def npc(*arguments):
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


@pytest.fixture(scope="module")
def natural():
    return natural_photos(12, 64).on_screen(size_deg=6.5)


@pytest.fixture
def model(tiny_model):
    return tiny_model(size_px=(64, 64))


@pytest.fixture(scope="module")
def kept():
    return {}


@pytest.fixture
def found(model, natural, kept):
    """Two sites, inspected once: every model of the same seed is the same."""
    if "found" not in kept:
        kept["found"] = inspect_sites(model, ["b", "a"], natural, images=2, recipe=QUICK)
    return kept["found"]


def test_the_findings_are_the_models(found, model, natural):
    assert [each.site for each in found] == ["b", "a"]
    responses = model.predict(natural)
    for each in found:
        column = model.site_ids.index(each.site)
        order = np.argsort(-responses[:, column], kind="stable")
        assert each.best == tuple(order[:2])
        assert each.worst == tuple(order[::-1][:2])
        shown = responses[[*each.best, *each.worst], column]
        np.testing.assert_allclose(each.activation.sum((1, 2)) + each.offset, shown, rtol=1e-4, atol=1e-4)
        assert each.made_images.table["target_site"].tolist() == [each.site] * 2
        assert each.gradient_field.names == (each.site,)
        assert each.tuning.name == each.site
        assert not each.left_out
    assert found[0].gratings.shape == (5, 8)
    np.testing.assert_allclose(found[0].grating_edges_cpd, 64 / 6.5 / 2.0 ** np.arange(6, 0, -1))
    images = torch.from_numpy(natural.images(list(found[0].best))).requires_grad_()
    (gradient,) = torch.autograd.grad(model(images)[:, 1].sum(), images)
    np.testing.assert_allclose(found[0].saliency, gradient.abs().amax(1), rtol=1e-4, atol=1e-7)


def test_gratings_are_those_of_the_bands(found, model):
    edges = found[0].grating_edges_cpd
    x, y = np.meshgrid((np.arange(64) + 0.5) / 64 * 6.5 - 3.25, 3.25 - (np.arange(64) + 0.5) / 64 * 6.5)
    gray = model(torch.full((1, 3, 64, 64), 0.5))[0, 1]
    for band, turn in ((0, 0), (2, 3), (3, 6)):
        frequency, angle = np.sqrt(edges[band] * edges[band + 1]), np.radians(22.5 * turn)
        along = x * np.cos(angle) + y * np.sin(angle)
        waves = [0.5 + 0.5 * np.cos(2 * np.pi * frequency * along + phase * np.pi / 2) for phase in range(4)]
        images = torch.from_numpy(np.stack(waves)).float()[:, None].expand(-1, 3, -1, -1)
        wanted = float(model(images)[:, 1].mean() - gray)
        assert found[0].gratings[band, turn] == pytest.approx(wanted, rel=0.05, abs=0.05)


def test_a_page_has_every_section_with_its_reading_and_limits(found, model, natural):
    page = inspection_html(found[0], {"note": "<tag>"}, "../index.html")
    for key in SECTIONS:
        assert f'<h2 id="{key}">' in page
        assert f'<a href="#{key}">' in page
    assert page.count('class="read"') == page.count('class="limit soft"') == 5
    assert "<script" not in page
    assert re.search(r'(src|href)="(?!data:|#|\.\./index)', page) is None
    assert "&lt;tag&gt;" in page
    best = float(model.predict(natural)[:, 1].max())
    assert f"best 1: {best:.3g}"[:11] in page.replace("−", "-")
    sources = re.findall(r'src="(data:image/png;base64,[^"]+)"', page)
    # 2 fields, 4 pairs, 2 triples, 2 tunings, best natural, 2 made, responses
    assert len(sources) == 2 + 8 + 6 + 2 + 3 + 1
    assert page == inspection_html(found[0], {"note": "<tag>"}, "../index.html")


@pytest.mark.parametrize("which", ["page", "index"])
def test_pages_fit_a_phone_and_a_screen(found, tmp_path, which):
    source = inspection_html(found[0]) if which == "page" else inspection_index_html(found, ["a.html", "b.html"])
    seen, console = browse(source, tmp_path, selector=".views img, .plots img", least_px=90)
    for width, look in seen.items():
        assert look["scroll"] <= look["client"], width
        assert (look["broken"], look["small"], look["outside"], look["over"]) == ([], [], [], [])
    assert console == []


def test_a_layer_without_space_says_what_is_left_out(natural):
    network = nn.Sequential(nn.Conv2d(3, 4, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    random = torch.Generator().manual_seed(0)
    network[0].weight.data = torch.randn(4, 3, 5, 5, generator=random)
    network[0].bias.data.zero_()
    flat = SiteModel(
        FeatureExtractor(Backbone("module:flat", network, input_px=64), "3"),
        LinearReadout(torch.randn(1, 4, 1, 1, generator=random), torch.zeros(1)),
        SiteInfo(("a",), (1.0,), (1.0,), (64, 64), 6.5, "spikes"),
    )
    (found,) = inspect_sites(flat, "a", natural, images=1, recipe=QUICK)
    assert found.activation is None
    assert "saliency" in found.left_out["activation"]
    page = inspection_html(found)
    assert "Left out: layer &#39;3&#39; has no space" in page
    assert page.count('class="read"') == 4
    assert found.readout_field is None  # the same everywhere: a center would be made up
    assert "Weights left out: the readout weighs the whole image alike" in page
    assert page.count("center and width") == 1
    assert "Which pixels change the response" in inspection_index_html([found], ["a.html"])


def test_ensembles_gray_images_and_other_shapes(tiny_model, natural):
    size = (48, 64)
    members = [tiny_model(size_px=size, seed=seed) for seed in (0, 1)]
    for each in members:
        object.__setattr__(each.info, "channels", 1)
    gray = StimulusSet.from_arrays(natural.codes()[:, :1, 8:56], size_deg=6.5)
    (found,) = inspect_sites(Ensemble(members), ["c"], gray, images=1, recipe=QUICK)
    assert found.saliency.shape == (1, *size)
    assert found.made_images.shape == (1, *size)
    assert found.gradient_field.maps.shape == (1, *size)
    assert inspection_html(found).count("<img") == 2 + 4 + 3 + 1 + 2 + 1
    with pytest.raises(ValueError, match="square, the model takes images of 48 x 64 px; give natural"):
        inspect_sites(Ensemble(members), ["c"], images=1, recipe=QUICK)


def test_mistakes_are_named_before_any_work(model, natural):
    with pytest.raises(ValueError, match="no site 'bb'; did you mean 'b'"):
        inspect_sites(model, "bb", natural)
    with pytest.raises(ValueError, match="0 sites and 3 images"):
        inspect_sites(model, [], natural)
    object.__setattr__(model.info, "channels", 1)
    with pytest.raises(ValueError, match="in color, the model was fitted on gray"):
        inspect_sites(model, "b", natural)
    object.__setattr__(model.info, "channels", 3)
    with pytest.raises(ValueError, match="give at least 5"):
        inspect_sites(model, "b", natural.select([0, 1, 2, 3]), images=5)


def rgb(source):
    data = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(float)


@pytest.fixture
def corner(tiny_model, natural, kept):
    """One site that reads the upper left of the map, one that reads nothing; scored, inspected once."""
    if "corner" in kept:
        return kept["corner"]
    model = tiny_model(("a", "silent"), size_px=(64, 64))
    model.readout.weight[1] = 0
    model.readout.weight[0, :, 2:] = model.readout.weight[0, :, :, 2:] = 0
    columns = ["r", "explained_variance", "explained_variance_low"]
    model.scores = pd.DataFrame([[0.5, 0.4, 0.2], [-0.2, 0.0, -0.1]], index=["a", "silent"], columns=columns)
    kept["corner"] = model, *inspect_sites(model, natural=natural, images=1, recipe=QUICK)
    return kept["corner"]


def test_a_corner_stays_where_it_is_in_every_picture(corner):
    _, found, _ = corner
    page, index = inspection_html(found), inspection_index_html([found], ["a.html"])
    for each in (found.readout_field, found.gradient_field.maps[0], found.activation[0]):
        down, across = np.unravel_index(np.abs(each).argmax(), each.shape)
        assert max(down / each.shape[0], across / each.shape[1]) < 0.3
    places = re.findall(r"x (\S+), y (\S+) deg; sd (\S+) deg", page.replace("−", "-"))
    assert len(places) == 2
    for x, y, sd in np.array(places, float):
        assert 1.8 < -x < 3.25
        assert 1.8 < y < 3.25
        assert 0 < sd < 1
    drawn = rgb(re.findall(r'src="(data:[^"]+)"', index)[1])
    colored = np.ptp(drawn, axis=2) > 60  # the map over a gray picture
    assert colored[:32, :32].any()
    assert not np.append(colored[32:], colored[:, 32:].T, 0).any()


def test_positive_activation_is_red_whether_or_not_a_cell_is_negative(found):
    for least in (0.0, -1.0):
        values = np.zeros_like(found[0].activation)
        values[:, 3, 3], values[:, 9, 9] = 1.0, least
        page = inspection_html(replace(found[0], activation=values))
        drawn = rgb(re.findall(r'src="(data:[^"]+)" alt="Activation map', page)[0])
        red, green, blue = drawn.reshape(-1, 3)[np.ptp(drawn, axis=2).argmax()]
        if least == 0:
            assert red > 1.5 * max(green, blue)
        cold = drawn[..., 2] > 1.3 * drawn[..., 0]
        assert cold.any() == (least < 0)


def test_a_planted_tuning_is_told_with_its_signs(found):
    edges, angles = 2.0 ** np.arange(-1, 4), np.arange(4) * 45.0
    bands, none = np.zeros((4, 4)), np.full((4, 4), 0.05)
    bands[1, 1], bands[3, 2] = 0.5, -0.4
    given = {"edges_cpd": edges, "orientation_deg": angles, "standard_error": none}
    tuned = replace(found[0], tuning=replace(found[0].tuning, correlation=bands, **given))
    page = inspection_html(tuned)
    assert (
        "Most driven: 1.4 cycles/deg at 45 deg (ring); most suppressed: 5.7 cycles/deg at 90 deg; of 16 bands." in page
    )
    weak = replace(found[0], tuning=replace(found[0].tuning, correlation=np.minimum(bands, 0.1), **given))
    said = "Most driven: no band stands out (3 standard errors); most suppressed: 5.7 cycles/deg at 90 deg;"
    assert said in inspection_html(weak)
    assert pictures.spectrum(bands, edges, angles, "r", ring=True) != pictures.spectrum(
        bands, edges, angles, "r", False
    )
    drawn = [re.findall(r'src="(data:[^"]+)" alt="Tuning of', inspection_html(each))[0] for each in (tuned, weak)]
    label = "correlation of contrast with response"
    assert drawn[0] == pictures.spectrum(bands, edges, angles, label, ring=True)
    assert drawn[1] == pictures.spectrum(np.minimum(bands, 0.1), edges, angles, label, ring=False)


def test_an_orientation_is_told_as_the_middle_of_its_band(found):
    """Neighbors of the largest band, however strong, do not move it off the ring."""
    bands = np.zeros((2, 8))
    bands[0, [0, 1, 2]] = 0.3, 0.5, 0.4
    bands[1, 1] = 0.4
    given = {"edges_cpd": np.array([1.0, 2, 4]), "orientation_deg": np.arange(8) * 22.5, "correlation": bands}
    tuning = replace(found[0].tuning, standard_error=np.full((2, 8), 0.05), **given)
    assert extreme_band(tuning, 1) == "1.4 cycles/deg at 23 deg"
    assert extreme_band(tuning, -1) == ""


def test_a_field_that_reaches_the_border_is_said_to(found):
    maps = np.zeros((1, 64, 64))
    said = "reaches the border of the image"
    for left, reaches in ((24, False), (0, True)):
        maps[:] = 0
        maps[0, 24:40, left : left + 16] = 1
        (field, *_) = sections(
            replace(
                found[0],
                readout_field=None,
                gradient_field=replace(found[0].gradient_field, maps=maps),
                left_out={"readout_field": "none"},
            )
        )
        assert (said in field.numbers[0][1]) == reaches


def test_pages_say_in_words_what_the_model_is(found, tiny_model):
    page = inspection_html(found[0])
    one = re.search(r'<p class="soft">([^<]+)</p>', page)[1]
    network = found[0].model.extractor.backbone.name
    layer = found[0].model.extractor.layers_read[0]
    assert one.startswith(f"{network}, layer {layer}, 3 sites, images of 64 × 64 px, responses in spikes. Everything")
    assert "SiteModel(" not in page
    assert "center of the field (gradient on images)" in page
    twice = model_words(Ensemble([tiny_model(seed=0), tiny_model(seed=1)]))
    assert twice.startswith(f"Mean of two models: 2 × {network}, layer {layer}, 3 sites")
    assert [site_title(name) for name in ("site03", "b")] == ["site03", "Site b"]


def test_smooth_grad_and_numbers_are_those_of_the_site(found, model, natural):
    images = torch.from_numpy(natural.images(list(found[0].best)))
    np.testing.assert_allclose(found[0].smooth_grad, smooth_grad(model, "b", images), rtol=1e-4, atol=1e-7)
    index = inspection_index_html(found, ["b.html", "a.html"])
    page = inspection_html(found[0])
    assert found[0].sha256 == found[1].sha256
    for each in found:
        best, made = each.responses.max(), each.made_images.table["forecast_response"].max()
        for text in (f"{number(float(best))}\u00a0spikes", f"made: {number(float(made))}\u00a0spikes"):
            assert text in index
    for fact in (
        "start &#39;natural&#39;, 3 steps, seeds 0, 1",
        found[0].sha256["model"][:16],
        "SHA-256 of the natural",
    ):
        assert fact in page


def test_a_site_that_the_model_does_not_predict_is_said_to_be_so(corner, monkeypatch):
    model, good, bad = corner
    index = inspection_index_html([good, bad], ["a.html", "b.html"])
    assert index.count("No evidence that the model predicts") == 1
    assert "No evidence" not in inspection_html(good)
    assert "explained variance, held out (cut at 0)" in inspection_html(bad)
    assert "cut at 0" not in inspection_html(good)
    assert "its correlation is −0.20" in inspection_html(bad)
    monkeypatch.setitem(model.scores, "explained_variance_low", [-0.01, -0.1])
    assert "interval of its explained variance includes 0" in inspection_html(good)


def test_a_silent_site_has_words_and_no_missing_numbers(corner):
    *_, silent = corner
    page = inspection_html(silent)
    assert "Weights left out: the readout has no weight for this site" in page
    assert "nowhere: the map is empty" in page
    assert "the contrast of no band changes the response" in page
    assert not re.search(r"\bnan\b", re.sub('data:[^"]+', "", page))


def test_images_start_from_noise_unless_asked_otherwise(model, natural, found):
    (made,) = inspect_sites(model, "a", natural, images=1, recipe=replace(MAXIMIZING, steps=1))
    page = inspection_html(made)
    assert "they start from faint noise, so that nothing in them is of a photograph" in page
    assert "recipe &#39;robust&#39;, start &#39;pink&#39;, 1 steps, seeds 0" in page
    assert "they start from the best natural images" in inspection_html(found[0])


def test_names_of_pages_are_safe_and_distinct():
    names = page_names(["a/b", "a b", "a-b_2", "../..", "", "A B", "é"])
    assert len({name.lower() for name in names}) == 7
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+\.html", name) for name in names)


def test_the_folder_is_whole_and_not_replaced_unasked(found, tmp_path):
    index = save_inspections(found, tmp_path / "o", facts={"folder of the model": "driver"})
    assert index == tmp_path / "o" / "index.html"
    links = re.findall(r'href="([^"#]+)"', index.read_text("utf-8"))
    assert links == ["sites/b.html", "sites/a.html"]
    assert all((tmp_path / "o" / link).is_file() for link in links)
    assert 'href="../index.html"' in (tmp_path / "o" / "sites" / "a.html").read_text("utf-8")
    assert len(StimulusSet.load(tmp_path / "o" / "maximizing")) == 4
    with pytest.raises(FileExistsError):
        save_inspections(found, tmp_path / "o")
    save_inspections(found, tmp_path / "o", overwrite=True)


def test_the_command_writes_pages_and_tells_where(model, natural, tmp_path):
    natural.save(tmp_path / "natural")
    (tmp_path / "driver").mkdir()
    given = (tmp_path / "driver", "--natural", tmp_path / "natural", "--steps", 2, "--images", 1, "--quiet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neural_fits.load_model", lambda path: model)
        done = npc(*given, "--site", "a", "--size", 6, "--out", tmp_path / "o", "--device", "cpu", "--json")
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout.splitlines()[-1]) == {
            "sites": 1,
            "page": str(tmp_path / "o" / "index.html"),
            "left_out": {},
        }
        page = (tmp_path / "o" / "sites" / "a.html").read_text("utf-8")
        assert "of 6 natural images" in page
        assert "recipe &#39;robust&#39;, start &#39;pink&#39;, 2 steps, seeds 0" in page
        assert isinstance(npc(*given, "--site", "a", "--out", tmp_path / "o").exception, FileExistsError)
        unnamed = npc(*given, "--out", tmp_path / "p")
    assert "no site was named; give --site, 'all' for every site, or one of a, b, c" in str(unnamed.exception)
    assert not (tmp_path / "p").exists()


def test_the_command_says_what_was_meant_before_any_work(model, natural, tmp_path):
    natural.save(tmp_path / "natural")
    (tmp_path / "run" / "driver").mkdir(parents=True)
    manifest = tmp_path / "run" / "driver" / "model.json"
    manifest.write_text("{}")
    said = {
        ("run", "--site", "a"): f"no model in '{tmp_path / 'run'}'; did you mean '{manifest.parent}'?",
        ("run/driver/model.json", "--site", "a"): f"did you mean '{manifest.parent}'?",
        ("run/driver", "--site", "all", "--site", "site99"): "the model has no site 'site99'",
        ("run/driver", "--site", "all", "--site", "a"): "--site all stands alone",
        ("run/driver", "--site", "a,b"): "repeat --site for several: --site a --site b",
        ("run/driver", "--site", "zz", "--natural", "nowhere"): "the model has no site 'zz'",
        ("run/driver", "--site", "all", "--natural", tmp_path / "natural" / "images"): (
            f"did you mean '{tmp_path / 'natural'}'?"
        ),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neural_fits.load_model", lambda path: model)
        patch.setattr("synth.site_inspection.inspect_sites", lambda *given, **more: pytest.fail("work began"))
        for (place, *more), words in said.items():
            assert words in str(npc(tmp_path / place, *more, "--out", tmp_path / "o").exception), (place, more)


def test_without_captum_the_page_says_what_is_missing(model, natural, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "captum.attr", None)
    (found,) = inspect_sites(model, "a", natural, images=1, recipe=QUICK)
    page = inspection_html(found)
    assert "SmoothGrad is left out: this view needs captum" in page
    assert "best 1: image, saliency<" in page
