"""What drives the images: its columns, its hash, and what is refused before any step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from neural_fits.backbones import Backbone
from neural_fits.features import FeatureExtractor
from neural_fits.readout import LinearReadout
from neural_fits.site_model import Ensemble, SiteInfo, SiteModel
from synth.driver import driver_of
from synth.image_objectives import Custom, LayerUnit
from synth.objectives import OneHot, Stretch
from synth.recipes import SynthesisConfig
from synth.synthesize import synthesize

CPU = torch.device("cpu")


def named(name, seed=0, input_px=None):
    """Return a site model on a named network with random weights."""
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 4, 5, stride=2), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2))
    for weight in network.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) / 5
    extractor = FeatureExtractor(Backbone(name, network, (0.5,) * 3, (0.25,) * 3, 32), "2", input_px)
    shape = extractor(torch.zeros(1, 3, 32, 32)).shape[1:]
    readout = LinearReadout(torch.randn(2, *shape, generator=generator), torch.zeros(2))
    return SiteModel(extractor, readout, SiteInfo(("a", "b"), (0.1, 0.2), (1.0, 2.0), (32, 32), 6.0, "spikes"))


def images(n=3, side=32):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_columns_are_the_sites_and_then_the_units(tiny_model):
    model, shown = tiny_model(), images()
    units = [LayerUnit("0", 2), LayerUnit("2", 5, position=(1, 3)), LayerUnit("0", 0), LayerUnit("2", 5)]
    driver = driver_of(model, [Stretch("b"), *units, units[0] - 2 * Stretch("a")], CPU)
    # layers come in the order of their first unit, each unit once
    assert driver.scale.site_ids == ("a", "b", "c", "0[2]", "0[0]", "2[5, 1, 3]", "2[5]")
    first, second = (FeatureExtractor(model.extractor.backbone, layer)(shown) for layer in ("0", "2"))
    expected = [first[:, 2].mean((1, 2)), first[:, 0].mean((1, 2)), second[:, 5, 1, 3], second[:, 5].mean((1, 2))]
    responses = driver.network(shown)
    torch.testing.assert_close(responses[:, 3:], torch.stack(expected, 1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(responses[:, :3], model(shown))
    torch.testing.assert_close(driver.scale.mean, torch.tensor([0.1] * 3 + [0.0] * 4))
    torch.testing.assert_close(driver.scale.std, torch.tensor([0.5, 0.75, 1.0] + [1.0] * 4))
    assert (driver.size_px, driver.size_deg, driver.channels) == ((32, 32), 6.5, 3)


def test_a_model_without_units_is_taken_as_it_is(tiny_model):
    model = tiny_model()
    model.provenance = {"inputs": {"recordings": "abc"}}
    driver = driver_of(model, [Stretch("a"), OneHot("b")], CPU)
    assert driver.network is model
    assert driver.inputs == {"recordings": "abc"}


def test_a_bare_network_drives_its_units():
    bare = named("one").extractor
    driver = driver_of(bare, [LayerUnit("0", 1), LayerUnit("2", 3)], CPU)
    assert driver.scale.site_ids == ("0[1]", "2[3]")
    assert (driver.size_px, driver.size_deg, driver.channels, driver.inputs) == ((32, 32), 8.0, 3, {})
    torch.testing.assert_close(driver.network(images())[:, 1], bare(images())[:, 3].mean((1, 2)), rtol=1e-5, atol=1e-6)
    assert driver_of(FeatureExtractor(bare.backbone, "2", 40), [LayerUnit("0", 1)], CPU).size_px == (40, 40)
    made = synthesize(bare, LayerUnit("2", 3), seeds=1, recipe=SynthesisConfig(steps=10), slots=1, device="cpu")
    assert made.stimuli.table["forecast_response"].isna().all()
    assert made.trace["score"].iloc[-1] > made.trace["score"].iloc[0]


def test_an_ensemble_is_asked_by_the_name_of_its_networks():
    first, second = named("one", 0), named("two", 1, input_px=24)
    ensemble, shown = Ensemble([first, second]), images()
    units = [LayerUnit("2", 0), LayerUnit("2", 0, backbone="two"), LayerUnit("2", 0, backbone="one")]
    responses = driver_of(ensemble, units, CPU).network(shown)
    expected = [model.extractor(shown)[:, 0].mean((1, 2)) for model in (first, second, first)]
    torch.testing.assert_close(responses[:, 2:], torch.stack(expected, 1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(responses[:, :2], ensemble(shown))
    alike = Ensemble([named("one", 0), named("one", 1)])
    read = driver_of(alike, [LayerUnit("2", 0, backbone="one")], CPU).network(shown)[:, 2]
    torch.testing.assert_close(read, expected[0], rtol=1e-5, atol=1e-6)  # the first of that name


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        (Stretch("aa"), r"no site 'aa' .*did you mean 'a'\?"),
        (OneHot("a", ("a", "bb")), r"no site 'bb' .*did you mean 'b'\?"),
        (LayerUnit("22", 0), r"has no layer '22'; did you mean '2'\?"),
        (LayerUnit("2", 0, backbone="onne"), r"the model has no network 'onne'; did you mean 'one'\? known: one"),
        (LayerUnit("2", 6), r"LayerUnit\('2', 6\) is not in it"),
        (LayerUnit("2", 0, position=(9, 0)), r"is not in it"),
        (Custom(lambda responses, images: responses), r"returned shape \(2, 2\) for 2 images"),
        (Custom(lambda responses, images: 1.0), r"returned a float for 2 images"),
        (Custom("my_lab:warm"), "was read from text and cannot score"),
    ],
)
def test_what_is_not_there_is_told_before_any_step(objective, told):
    with pytest.raises(ValueError, match=told) as refused:
        driver_of(named("one"), [Stretch("a"), objective], CPU)
    assert "\n" not in str(refused.value)


def test_objectives_of_ones_own_class_must_score_every_image():
    class Whole(Stretch):
        def score(self, responses, scale, images=None):
            return responses.sum()

    with pytest.raises(ValueError, match=r"on 2 images is of shape \(\); expected one number per image"):
        driver_of(named("one"), [Whole("a")], CPU)


def test_a_bare_network_has_no_sites_and_another_thing_is_no_model():
    with pytest.raises(ValueError, match="no site 'a'"):
        driver_of(named("one").extractor, [Stretch("a")], CPU)
    with pytest.raises(TypeError, match="the model is Conv2d; expected a SiteModel, an Ensemble or a FeatureExtractor"):
        driver_of(nn.Conv2d(3, 3, 1), [Stretch("a")], CPU)


def test_hash_changes_with_everything_that_changes_a_score():
    def sha(model, objectives=None):
        return driver_of(model, objectives or [Stretch("a")], CPU).sha256()

    assert sha(named("one")) == sha(named("one"))
    other = [named("one", 1), named("one"), named("one"), named("one"), named("one", input_px=40)]
    other[1].readout.bias.data[0] += 1e-3
    object.__setattr__(other[2].info, "natural_std", (1.0, 2.5))
    other[3].extractor.mean += 0.01
    hashes = [sha(model) for model in (named("one"), *other[:4])]
    hashes += [sha(named("one"), [LayerUnit(layer, 0)]) for layer in ("0", "2")]
    hashes += [sha(model.extractor, [LayerUnit("2", 0)]) for model in (named("one"), other[4])]
    assert len(set(hashes)) == len(hashes)
