"""The demo on drawn pictures: what it writes, and that its numbers are what they say."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image, ImageDraw

from omnialpha.cli import demo as module
from omnialpha.cli.demo_scenes import SIZE, load_scenes
from omnialpha.errors import OmniAlphaError
from omnialpha.files.pictures import read_layer
from omnialpha.files.sheet import CELL, Sheet
from omnialpha.layers.compositing import over
from omnialpha.tasks import FAMILIES, PIXELS, get_task


@pytest.fixture
def data(tmp_path):
    """Two objects and two backgrounds, drawn."""
    folder = tmp_path / "data"
    for part in ("objects", "backgrounds"):
        (folder / part).mkdir(parents=True)
    for name, colour in (("red-ball", (200, 40, 40, 255)), ("glass-disc", (40, 90, 200, 150))):
        image = Image.new("RGBA", (60, 40))
        ImageDraw.Draw(image).ellipse((4, 2, 55, 37), fill=colour)
        image.save(folder / "objects" / f"{name}.png")
    for name, colour in (("a", (30, 120, 60)), ("b", (220, 210, 190))):
        Image.new("RGB", (50, 50), colour).save(folder / "backgrounds" / f"{name}.png")
    (folder / "objects.json").write_text(json.dumps({"names": {"red-ball": "a red ball"}}))
    return folder


def test_the_demo_runs_all_families(data, tmp_path, capsys, monkeypatch):
    assert {get_task(task).family for task in module.TASKS} == set(FAMILIES)
    monkeypatch.setattr(module, "TASKS", module.TASKS[1::2])
    out = module.demo(tmp_path / "out", scenes=1, data=data)
    shown = capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    for task in module.TASKS:
        names = [f"{k + 1:02d}-{name}.png" for k, name in enumerate(get_task(task).names)]
        assert set(names) <= {path.name for path in (out / f"{task}-1").iterdir()}
        for pixels in PIXELS:
            assert set(results[task][pixels]["mean"]) == {measure.name for measure in module.measures(task)}
        assert task in shown
    kept, bare = (results["decomposition_auto"][pixels]["mean"]["recomposed PSNR dB"] for pixels in PIXELS)
    assert kept > 50 > 40 > bare, "what is kept recomposes to the picture, up to 8 bits"
    sheet = read_layer(out / "sheet.png")
    assert sheet.shape[1] > len(module.TASKS) * CELL and str(out / "sheet.png") in shown


def test_scenes_are_made_of_their_layers(data):
    first, second, third = load_scenes(3, data)
    assert (first.name, second.name) == ("glass disc", "a red ball")
    assert third.name == first.name and not torch.equal(third.composite, first.composite)  # another place
    for scene in (first, second):
        assert torch.equal(scene.composite, over(scene.foreground, scene.background))
        assert scene.composite.shape == (4, SIZE, SIZE) and bool((scene.composite[3] == 1).all())
        assert (scene.mask <= scene.coarse_mask).all()
    assert set(first.trimap.unique().tolist()) == {0.0, 0.5}  # nothing of glass is surely object
    assert set(second.trimap.unique().tolist()) == {0.0, 0.5, 1.0}


def perfect(task: str, scene) -> list[torch.Tensor]:
    return [getattr(scene, target) for target in get_task(task).targets]


def test_the_truth_is_measured_as_perfect(data):
    scene = load_scenes(2, data)[1]
    best = {"alpha MSE x1000": 0, "soft IoU": 1}
    for task in module.TASKS:
        for measure in module.measures(task):
            value = measure.value(scene, perfect(task, scene))
            assert value == best.get(measure.name, value) and (measure.name in best or value > 60), (task, measure.name)
            if measure.baseline:
                assert measure.baseline(scene) != value
        assert torch.allclose(module.recompose(task, scene, perfect(task, scene)), scene.composite)


def test_missing_pictures_are_named(tmp_path, data):
    with pytest.raises(OmniAlphaError, match="no demo pictures"):
        load_scenes(1, tmp_path)
    (data / "objects.json").write_text("{}")
    with pytest.raises(OmniAlphaError, match=r"objects\.json"):
        load_scenes(1, data)


def test_the_sheet_holds_cells_where_they_belong():
    sheet = Sheet("title", ["one", "two"])
    red = torch.tensor([1.0, 0, 0, 1]).view(4, 1, 1).expand(4, 20, 20)
    sheet.add("row", ["words"], [None, red])
    page = sheet.draw()
    assert page.shape[0] == 4 and bool((page[3] == 1).all())
    reds = (page[0] > 0.99) & (page[1] < 0.01)
    assert int(reds.sum()) == CELL * CELL
