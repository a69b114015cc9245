"""From a model and objectives to a stimulus set, and what is refused before any work is done."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import torch

from neural_fits.site_model import Ensemble
from stimuli import Display, StimulusSet
from synth import synthesize as public
from synth.objectives import OneHot, SiteScale, Stretch, parse_objective
from synth.recipes import PAPER, SynthesisConfig
from synth.synthesize import Synthesis, synthesize

SHORT = SynthesisConfig(steps=3, check_every=2)


def make(model, objectives, recipe=SHORT, **options):
    return synthesize(model, objectives, recipe=recipe, device="cpu", **{"seeds": 2, "slots": 2, **options})


def test_set_holds_one_image_per_objective_and_seed(tiny_model):
    model = tiny_model()
    objectives = [Stretch("a"), OneHot("b"), Stretch("c") - 0.5 * Stretch("a")]
    made = make(model, objectives)
    table = made.stimuli.table
    assert isinstance(made, Synthesis)
    assert made.config == SHORT
    assert made.stimuli.shape == (3, 32, 32)
    assert table.columns.tolist()[2:] == [
        *("family", "objective", "target_site", "seed", "recipe", "step", "ended", "restarts"),
        "forecast_response",
    ]
    assert table["family"].tolist() == ["stretch"] * 2 + ["ohp"] * 2 + ["composed"] * 2
    assert table["objective"].tolist() == [repr(objective) for objective in objectives for _ in range(2)]
    assert [parse_objective(text) for text in table["objective"][::2]] == objectives
    assert table["target_site"].tolist() == list("aabbcc")
    assert table["seed"].tolist() == [0, 1] * 3
    assert set(table["recipe"]) == {"custom"}
    assert table["step"].isin([0, 2, 3]).all()
    assert set(table["ended"]) == {"steps"}
    assert set(table["restarts"]) == {0}
    assert table["stimulus_id"].is_unique
    assert table["stimulus_id"].str.fullmatch(r"(stretch|ohp|composed)_[abc]_[01]_[0-9a-f]{8}").all()
    assert repr(made) == "Synthesis(6 images, 3 steps, param 'fourier')"
    assert "Synthesis(6 images, 3 steps, param &#x27;fourier&#x27;)" in made._repr_html_()


def test_trace_tells_the_score_of_every_reading(tiny_model):
    made = make(tiny_model(), [Stretch("a"), Stretch("b")])
    assert made.trace.columns.tolist() == ["stimulus_id", "step", "score"]
    assert made.trace["step"].tolist() == [0, 2, 3] * 4
    assert made.trace["stimulus_id"].tolist() == [name for name in made.stimuli.stimulus_ids for _ in range(3)]
    best = made.trace.groupby("stimulus_id", sort=False)["score"].max()
    # the score of a stretch image is the response of its site, and the best image was kept
    np.testing.assert_allclose(best.to_numpy(), made.stimuli.table["forecast_response"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recipe", [SHORT, "paper"])
def test_forecast_is_the_prediction_from_the_files(tiny_model, tmp_path, recipe):
    model = tiny_model()
    made = make(model, [Stretch("a"), OneHot("c"), Stretch("b") + Stretch("a")], recipe)
    made.stimuli.save(tmp_path / "round1")
    saved = StimulusSet.load(tmp_path / "round1")
    np.testing.assert_array_equal(saved.codes(), made.stimuli.codes())
    responses = model.predict(saved)
    columns = [model.site_ids.index(site) for site in saved.table["target_site"]]
    expected = responses[np.arange(len(saved)), columns]
    np.testing.assert_allclose(saved.table["forecast_response"], expected, rtol=1e-6)
    pd.testing.assert_frame_equal(saved.table, made.stimuli.table)


def test_named_recipe_is_recorded_and_gray_images_stay_gray(tiny_model):
    made = make(tiny_model(), [Stretch("a")], "paper", seeds=1)
    assert made.config == PAPER
    assert made.stimuli.shape == (1, 32, 32)
    assert made.stimuli.table["recipe"].tolist() == ["paper"]
    assert made.stimuli.table["step"].tolist() == [200]


@pytest.mark.parametrize("size_px", [(32, 32), (40, 24)])
def test_images_have_the_size_of_the_model(tiny_model, size_px):
    from neural_fits.readout import LinearReadout
    from neural_fits.site_model import SiteInfo, SiteModel

    extractor = tiny_model(size_px=(32, 32)).extractor
    shape = extractor(torch.zeros(1, 3, *size_px)).shape[1:]
    info = SiteInfo(("a",), (0.0,), (1.0,), size_px, 3.25, "spikes")
    model = SiteModel(extractor, LinearReadout(torch.ones(1, *shape), torch.zeros(1)), info)
    display = Display(resolution_px=(800, 600), width_cm=40.0, distance_cm=57.0)
    made = make(model, Stretch("a"), seeds=1, display=display)
    assert made.stimuli.size_px == size_px
    assert made.stimuli.size_deg == 3.25
    assert made.stimuli.display == display


def test_seeds_name_the_images_whatever_their_order_and_company(tiny_model):
    model = tiny_model()
    several = make(model, [Stretch("a")], seeds=[7, 0, 3])
    alone = make(model, [Stretch("a")], seeds=np.array([3]))
    assert several.stimuli.table["seed"].tolist() == [7, 0, 3]
    assert alone.stimuli.stimulus_ids[0] == several.stimuli.stimulus_ids[2]
    np.testing.assert_array_equal(alone.stimuli.codes()[0], several.stimuli.codes()[2])
    counted = make(model, [Stretch("a")], seeds=np.int64(2))
    assert counted.stimuli.table["seed"].tolist() == [0, 1]


def test_ids_are_legal_file_names_whatever_the_sites_are_called(tiny_model, tmp_path):
    sites = ("../ä b", "été/2²", "x" * 300)
    made = make(tiny_model(sites), [Stretch(site) for site in sites], SynthesisConfig(steps=1), seeds=1)
    made.stimuli.save(tmp_path / "set")
    assert [len(name) < 80 for name in made.stimuli.stimulus_ids] == [True] * 3
    assert StimulusSet.load(tmp_path / "set").table["target_site"].tolist() == list(sites)


def test_two_objectives_that_end_in_the_same_image_have_two_ids(tiny_model, monkeypatch):
    monkeypatch.setattr("synth._slots.start_generator", lambda job, attempt: torch.Generator().manual_seed(0))
    made = make(tiny_model(), [2 * Stretch("a"), 3 * Stretch("a")], SynthesisConfig(steps=1, keep="last"), seeds=1)
    first, second = made.stimuli.codes()
    np.testing.assert_array_equal(first, second)
    assert len(set(made.stimuli.stimulus_ids)) == 2


def test_objective_enters_the_id():
    from synth.jobs import Job
    from synth.synthesis import _image_id

    image = np.zeros((1, 2, 2), np.uint8)
    first, second = (_image_id(Job(weight * Stretch("a"), 0), image) for weight in (2, 3))
    assert first != second
    assert first.startswith("composed_a_0_")


def test_ensemble_drives_too(tiny_model):
    members = [tiny_model(seed=seed) for seed in (0, 1)]
    made = make(Ensemble(members), [Stretch("b")])
    expected = np.mean([member.predict(made.stimuli)[:, 1] for member in members], axis=0)
    np.testing.assert_allclose(made.stimuli.table["forecast_response"], expected, rtol=1e-5)


def test_scale_of_a_model_is_its_natural_statistics(tiny_model):
    model = tiny_model()
    scale = SiteScale.of(model)
    assert scale.site_ids == model.site_ids
    assert tuple(scale.mean.tolist()) == pytest.approx(model.info.natural_mean)
    assert tuple(scale.std.tolist()) == pytest.approx(model.info.natural_std)


def test_progress_is_passed_on(tiny_model):
    seen = []
    make(
        tiny_model(),
        [Stretch("a")],
        seeds=3,
        progress=lambda done, total, status: seen.append((done, total, str(status))),
    )
    assert seen[-1][:2] == (9, 9)
    assert seen[-1][2].startswith("3 of 3 images, median score ")


def test_family_names():
    kinds = [objective.family for objective in (Stretch("a"), OneHot("a"), 1 * Stretch("a"))]
    assert kinds == ["stretch", "ohp", "composed"]


def test_provenance_says_how(tiny_model):
    model = tiny_model()
    model.provenance = {"inputs": {"recordings": "abc"}}
    record = make(model, [Stretch("a")], seeds=1).stimuli.provenance
    assert record["config"]["synthesis"] == repr(SHORT)
    assert record["config"]["device"] == "cpu"
    assert record["inputs"] == {"model.recordings": "abc"}


@pytest.mark.parametrize(
    ("objectives", "options", "error", "message"),
    [
        ([], {}, ValueError, "no objective was given"),
        ([Stretch("a"), Stretch("a")], {}, ValueError, r"Stretch\('a'\) is given twice"),
        (["a"], {}, TypeError, r"'a' is not an objective.*; expected for example Stretch\('a'\)"),
        ([Stretch("aa")], {}, ValueError, r"no site 'aa' among the 3; did you mean 'a'\?"),
        ([OneHot("a", ("a", "z"))], {}, ValueError, "no site 'z' among the 3"),
        ([Stretch("b") - Stretch("zz")], {}, ValueError, "no site 'zz'"),
        ([Stretch("a")], {"seeds": 0}, ValueError, "seeds is 0; expected a number of at least 1"),
        ([Stretch("a")], {"seeds": -2}, ValueError, "seeds is -2"),
        ([Stretch("a")], {"seeds": []}, ValueError, r"seeds is \[\]"),
        ([Stretch("a")], {"seeds": [1, 1]}, ValueError, r"seeds is \[1, 1\]; .* distinct seeds"),
        ([Stretch("a")], {"slots": 0}, ValueError, "slots is 0"),
        ([Stretch("a")], {"recipe": "robst"}, ValueError, "did you mean 'robust'"),
    ],
)
def test_bad_input_is_refused_before_any_step(tiny_model, monkeypatch, objectives, options, error, message):
    module = sys.modules["synth.synthesize"]  # the name in the package is the function
    monkeypatch.setattr(module, "execute", lambda *args, **kwargs: pytest.fail("work was begun"))
    with pytest.raises(error, match=message):
        make(tiny_model(), objectives, **options)


def test_name_in_the_package_is_the_function_although_its_module_has_the_same():
    assert public is synthesize
    assert sys.modules["synth"].synthesize is synthesize
