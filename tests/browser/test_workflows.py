"""Every workflow opens undamaged in the real frontend and gives the API export that is committed."""

from __future__ import annotations

import json
from pathlib import Path

import comfy_server
import frontend
import pytest

WORKFLOWS = sorted((Path(__file__).resolve().parents[2] / "workflows").glob("*.json"))


BROKEN = Path("broken")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, dict]:
    """What the frontend made of each workflow, and of a broken one; one server and one browser for all."""
    graph = json.loads(WORKFLOWS[0].read_text(encoding="utf-8"))
    next(node for node in graph["nodes"] if node["type"].startswith("OmniAlpha"))["type"] = "OmniAlphaDoesNotExist"
    broken = tmp_path_factory.mktemp("workflows") / "broken.json"
    broken.write_text(json.dumps(graph), encoding="utf-8")
    with comfy_server.ComfyServer(model_names=frontend.model_names(WORKFLOWS)) as server:
        results = frontend.drive(server.url, *({"workflow": path} for path in [*WORKFLOWS, broken]))
    return dict(zip([*WORKFLOWS, BROKEN], results, strict=True))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_opens_undamaged(opened: dict[Path, dict], path: Path):
    assert opened[path]["problems"] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_export_is_current(opened: dict[Path, dict], path: Path):
    committed = json.loads((path.parent / "api" / path.name).read_text(encoding="utf-8"))
    assert opened[path]["output"] == committed, "export it anew: make workflows"


def test_damage_is_noticed(opened: dict[Path, dict]):
    """The checks above mean something."""
    assert any("no such node" in problem for problem in opened[BROKEN]["problems"])
