"""The layer viewer, used as an artist would: both kinds of nodes, in every frontend."""

from __future__ import annotations

from pathlib import Path

import comfy_server
import frontend
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

# width, height, and the layers back to front: a plain background, a half transparent square, a disc over its corner
WIDTH, HEIGHT = 96, 64
NAMES = "sky, square, disc"
SKY, SQUARE, DISC = (30, 60, 90, 255), (200, 40, 40, 128), (250, 220, 0, 255)
LIGHTER = (130, 160, 190, 255)
# points that lie in: the background alone, the square alone, the disc over the square
POINTS = {"sky": (8, 56), "square": (30, 20), "disc": (60, 40)}


def _pictures(folder: Path) -> None:
    """The layers as files, and another background."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    square = (abs(x - 40) < 24) & (abs(y - 28) < 20)
    disc = (x - 60) ** 2 + (y - 40) ** 2 < 15**2
    whole = np.ones_like(square)
    files = {"sky": (whole, SKY), "lighter": (whole, LIGHTER), "square": (square, SQUARE), "disc": (disc, DISC)}
    for name, (where, colour) in files.items():
        Image.fromarray(np.where(where[..., None], colour, 0).astype(np.uint8)).save(folder / f"{name}.png")


def _graph() -> dict[str, dict]:
    """API graph: three files, each put together again with its alpha, one batch, the viewer."""
    graph = {}
    for index, name in enumerate(("sky", "square", "disc")):
        graph[f"{index + 1}"] = {"class_type": "LoadImage", "inputs": {"image": f"{name}.png"}}
        inputs = {"image": [f"{index + 1}", 0], "mask_polarity": "1 = transparent", "clean_hidden": True}
        inputs |= {"mask": [f"{index + 1}", 1]} if index else {}  # a file without alpha brings an empty mask
        graph[f"{index + 4}"] = {"class_type": "OmniAlphaLayer", "inputs": inputs}
    graph["7"] = {"class_type": "ImageBatch", "inputs": {"image1": ["4", 0], "image2": ["5", 0]}}
    graph["8"] = {"class_type": "ImageBatch", "inputs": {"image1": ["7", 0], "image2": ["6", 0]}}
    graph["9"] = {"class_type": "OmniAlphaPreviewLayers", "inputs": {"layers": ["8", 0], "names": NAMES}}
    return graph


@pytest.fixture(scope="module")
def used(fresh: comfy_server.ComfyServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, dict], Path]:
    """(what tools/drive_viewer.mjs saw, by mode; folder of screenshots) of one frontend; one browser for all."""
    folder = tmp_path_factory.mktemp("viewer")
    _pictures(fresh.base / "input")
    order = {"url": fresh.url, "folder": folder, "prompt": _graph(), "again": [1, "image", "lighter.png"]}
    return frontend.run_script("drive_viewer.mjs", order, seconds=1800), folder


@pytest.fixture(params=["classic", "vue"])
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def facts(used: tuple[dict[str, dict], Path], mode: str) -> dict:
    assert used[0][mode]["isVue"] == (mode == "vue"), "the frontend did not draw the nodes that were asked for"
    return used[0][mode]


def _row(name: str, shown: bool = True, opacity: float = 1) -> dict:
    return {"name": name, "shown": shown, "solo": False, "opacity": opacity, "said": f"{opacity * 100:.0f} %"}


FIRST = [_row("disc"), _row("square"), _row("sky")]
CHANGED = [_row("disc", shown=False), _row("square", opacity=0.5), _row("sky", shown=False)]
LEFT = [_row("disc"), *CHANGED[1:]]  # once the disc was brought back in the large view


def test_rows_are_the_layers_front_on_top(facts: dict):
    assert facts["note"] == "Run the graph to see its layers."
    assert facts["rows"] == FIRST


# screenshot -> (the layers drawn, how opaque, the background)
LOOKS = {
    "all": ({"sky": 1, "square": 1, "disc": 1}, None),
    "checkerboard": ({"square": 1, "disc": 1}, None),
    "white": ({"square": 1, "disc": 1}, (255, 255, 255)),
    "green": ({"square": 1, "disc": 1}, (0, 255, 0)),
    "middle": ({"square": 1}, (0, 0, 0)),
    "solo": ({"sky": 1}, (0, 0, 0)),
    "half": ({"square": 0.5}, (0, 0, 0)),
    "zoom": ({"square": 0.5}, (0, 0, 0)),
    "again": ({"square": 0.5, "disc": 1}, (0, 0, 0)),
}
LAYERS = {"sky": SKY, "square": SQUARE, "disc": DISC}
COVERS = {"sky": ("sky",), "square": ("sky", "square"), "disc": ("sky", "square", "disc")}  # point -> layers there


@pytest.mark.parametrize("look", LOOKS)
def test_layers_are_composited(used: tuple[dict[str, dict], Path], mode: str, look: str):
    opacities, background = LOOKS[look]
    with Image.open(used[1] / f"{mode}-{look}.png") as picture:
        seen = np.asarray(picture.convert("RGB"), dtype=float)
    for point, (x, y) in POINTS.items():
        row, column = int((y + 0.5) * seen.shape[0] / HEIGHT), int((x + 0.5) * seen.shape[1] / WIDTH)
        found = seen[row, column]
        drawn = [name for name in COVERS[point] if name in opacities]
        if background is None and not {"sky", "disc"} & set(drawn):
            continue  # the checkerboard shows through: looked at below
        expected = np.array(background or (0, 0, 0), dtype=float)
        for name in drawn:
            *colour, alpha = LAYERS[name]
            expected += (np.array(colour) - expected) * alpha / 255 * opacities[name]
        assert abs(found - expected).max() <= 2, (look, point, found, expected)


def test_checkerboard_is_seen_through_the_layers(used: tuple[dict[str, dict], Path], mode: str):
    with Image.open(used[1] / f"{mode}-checkerboard.png") as picture:
        corner = picture.convert("RGB").crop((0, 0, 24, 24))
    greys = {colour for count, colour in corner.getcolors() if count > 50}
    assert greys == {(0xA6,) * 3, (0xD9,) * 3}


def test_large_view_has_the_same_state_and_keys(facts: dict):
    assert facts["changed"] == facts["zoomRows"] == CHANGED
    assert facts["focus"] == "omnialpha-pane", "keys should move the picture at once"
    assert facts["open"] == 0, "Escape should close it"
    assert facts["afterZoom"] == LEFT


def test_large_view_zooms_where_the_pointer_is(facts: dict):
    assert facts["fitted"]["width"] / facts["fitted"]["height"] == pytest.approx(WIDTH / HEIGHT, rel=0.01)
    actual, wheeled = facts["scales"]
    assert actual == "100 %" and int(wheeled.split()[0]) > 150
    assert facts["stays"] == pytest.approx([10, 10], abs=0.6)
    assert facts["dragged"] == pytest.approx([50, 30], abs=1)


def test_another_run_changes_the_pictures_only(facts: dict):
    assert facts["afterRun"] == LEFT
    assert facts["fewest"] == 3, "layers were missing for a moment: it flickers"


@pytest.mark.parametrize("then", ["afterUndo", "afterTab"])
def test_nodes_made_anew_show_what_was_looked_at(facts: dict, then: str):
    """Undo and coming back to a tab open the graph again; its results come before or after it."""
    assert facts[then] == LEFT


def test_works_in_a_subgraph(facts: dict):
    assert facts["inSubgraph"] == FIRST


def test_workflow_and_prompt_know_nothing_of_the_viewer(facts: dict):
    kept = facts["kept"]
    assert kept["values"] == [NAMES] and kept["widgets"] == ["names", "viewer"]
    assert kept["inputs"] == {"layers": ["8", 0], "names": NAMES}
    assert not [name for name in kept["properties"] if "omnialpha" in name.lower()]


def test_frontend_shows_the_pictures_nowhere_else(facts: dict):
    assert facts["kept"]["others"] == 0


def test_size_follows_the_node(facts: dict):
    width, height = facts["fresh"]
    assert 300 <= width <= 400 and 400 <= height <= 560, "a new node"
    small, large = facts["boxes"], facts["larger"]
    for axis, by in (("width", 200), ("height", 100)):
        assert large["viewer"][axis] - small["viewer"][axis] == pytest.approx(by, abs=2)
    for box in (small, large):
        inner, outer = box["picture"], box["stage"]
        assert inner["width"] / inner["height"] == pytest.approx(WIDTH / HEIGHT, rel=0.02)
        assert inner["width"] <= outer["width"] + 1 and inner["height"] <= outer["height"] + 1
        assert max(inner["width"] / outer["width"], inner["height"] / outer["height"]) > 0.98, "as large as can be"


def test_many_layers_scroll(facts: dict):
    assert facts["many"] == {"rows": 30, "scrolls": True, "grown": 0, "markup": 0}


def test_pictures_that_are_gone_are_explained(facts: dict):
    assert facts["gone"].startswith("The pictures are gone")


def test_nothing_goes_wrong_unseen(facts: dict):
    assert facts["problems"] == []
