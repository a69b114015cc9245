"""npc show: the sheet and the page of a saved set, predictions below the pictures, nothing left after an error."""

import json

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from stimuli import natural_photos
from synth.commands.show import show

app = typer.Typer()
app.command()(show)
app.command()(lambda: None)  # a second command, so that the first has a name


def npc(*arguments):
    return CliRunner().invoke(app, ["show", *map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("show")
    natural_photos(6, 64).save(place / "natural")
    return place


def test_sheet_and_page_stand_beside_the_set(folder):
    done = npc(folder / "natural")
    assert done.exit_code == 0, done.output
    page = folder / "natural_show" / "index.html"
    assert done.stdout.strip() == str(page)
    assert page.read_text("utf-8").count("<figure") == 6
    with Image.open(folder / "natural_show" / "contact_sheet.png") as sheet:
        assert sheet.width > 4 * 64
    assert sorted(path.name for path in folder.iterdir()) == ["natural", "natural_show"]
    again = npc(folder / "natural")
    assert isinstance(again.exception, FileExistsError)
    assert npc(folder / "natural", "--overwrite").exit_code == 0


def test_predictions_of_a_model_stand_below_the_pictures(folder, tmp_path, tiny_model):
    natural = natural_photos(6, 64)
    model = tiny_model(size_px=(64, 64), size_deg=8.0)
    models = []
    for name in ("driver", "judge"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.json").write_text("{}")
        models += ["--model", tmp_path / name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neural_fits.load_model", lambda path: model)
        done = npc(folder / "natural", "--out", tmp_path / "o", *models, "--device", "cpu", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"stimuli": 6, "page": str(tmp_path / "o" / "index.html")}
    page = (tmp_path / "o" / "index.html").read_text("utf-8")
    best = float(np.max(model.predict(natural)[:, 0]))
    assert f'<th scope="row">a</th><td>{best:.4g}</td>' in page
    assert "Largest predicted response, by driver" in page
    assert "Largest predicted response, by judge" in page
    assert page.count("<span>judge: ") == 6  # one below each picture, beside the one of the driver


def test_nothing_is_left_when_something_is_wrong(folder, tmp_path):
    assert isinstance(npc(tmp_path / "absent").exception, FileNotFoundError)
    image = next((folder / "natural" / "images").iterdir())
    whole = image.read_bytes()
    try:
        image.write_bytes(whole[:50])
        assert isinstance(npc(folder / "natural", "--out", tmp_path / "o").exception, ValueError)
    finally:
        image.write_bytes(whole)
    assert not list(tmp_path.iterdir())
