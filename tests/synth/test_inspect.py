"""npc inspect: pages that hold what was measured, on any model, and look right in a browser."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
import typer
from browser import browse
from torch import nn
from typer.testing import CliRunner

from neural_fits.backbones import Backbone
from neural_fits.features import FeatureExtractor
from neural_fits.readout import LinearReadout
from neural_fits.site_model import Ensemble, SiteInfo, SiteModel
from stimuli import StimulusSet, natural_photos
from synth import SynthesisConfig
from synth.commands.inspect import inspect
from synth.inspection_page import inspection_html, inspection_index_html, page_names, save_inspections
from synth.site_inspection import inspect_sites

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
    if not kept:
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
    with pytest.raises(ValueError, match="give at least 5"):
        inspect_sites(model, "b", natural.select([0, 1, 2, 3]), images=5)


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
        assert "of 6 natural images" in (tmp_path / "o" / "sites" / "a.html").read_text("utf-8")
        assert isinstance(npc(*given, "--site", "a", "--out", tmp_path / "o").exception, FileExistsError)
        unnamed = npc(*given, "--out", tmp_path / "p")
    assert "no site was named; give --site, 'all' for every site, or one of a, b, c" in str(unnamed.exception)
    assert not (tmp_path / "p").exists()


def test_without_captum_the_page_says_what_is_missing(model, natural, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "captum.attr", None)
    (found,) = inspect_sites(model, "a", natural, images=1, recipe=QUICK)
    page = inspection_html(found)
    assert "SmoothGrad is left out: this view needs captum" in page
    assert "best 1: image, saliency<" in page
