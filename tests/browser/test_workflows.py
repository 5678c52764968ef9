"""Every workflow, in every frontend.

It opens undamaged, gives the API export that is committed, and does so again once saved and opened, and once all of it
lies in a subgraph.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import comfy_server
import frontend
import pytest

WORKFLOWS = sorted((Path(__file__).resolve().parents[2] / "workflows").glob("*.json"))
BROKEN = Path("broken")
GGUF = next(path for path in WORKFLOWS if path.stem.endswith("gguf"))
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def opened(stocked: comfy_server.ComfyServer, tmp_path_factory: pytest.TempPathFactory) -> dict[Path, dict]:
    """What a frontend made of each workflow, and of a broken one; one browser for all."""
    graph = json.loads(WORKFLOWS[0].read_text(encoding="utf-8"))
    next(node for node in graph["nodes"] if node["type"].startswith("OmniAlpha"))["type"] = "OmniAlphaDoesNotExist"
    broken = tmp_path_factory.mktemp("workflows") / "broken.json"
    broken.write_text(json.dumps(graph), encoding="utf-8")
    jobs = [{"workflow": path, "reload": True, "subgraph": True} for path in WORKFLOWS] + [{"workflow": broken}]
    return dict(zip([*WORKFLOWS, BROKEN], frontend.drive(stocked.url, *jobs), strict=True))


@each_workflow
def test_opens_undamaged(opened: dict[Path, dict], path: Path):
    assert opened[path]["problems"] == []


@each_workflow
def test_export_is_current(opened: dict[Path, dict], path: Path):
    assert plain(opened[path]["output"]) == exported(path), "export it anew: make workflows"


@each_workflow
def test_survives_saving(opened: dict[Path, dict], path: Path):
    assert plain(opened[path]["reloaded"]) == exported(path)


@each_workflow
def test_survives_in_a_subgraph(opened: dict[Path, dict], path: Path):
    assert sorted(unrolled(opened[path]["subgraph"])) == sorted(unrolled(exported(path)))


def test_damage_is_noticed(opened: dict[Path, dict]):
    """The checks above mean something."""
    assert any("no such node" in problem for problem in opened[BROKEN]["problems"])


def test_what_is_missing_is_named(fresh: comfy_server.ComfyServer):
    """Without the GGUF pack only its loader is missing; model files that lack are offered for download."""
    matting = next(path for path in WORKFLOWS if path.stem == "omnialpha_public_matting")
    gguf, public = frontend.drive(fresh.url, {"workflow": GGUF}, {"workflow": matting, "offers": True})
    missing = [problem for problem in gguf["problems"] if "no such node" in problem]
    assert [problem.split("(")[1].split(")")[0] for problem in missing] == ["UnetLoaderGGUF"]
    names = {
        model["name"]
        for node in json.loads(matting.read_text(encoding="utf-8"))["nodes"]
        for model in node["properties"].get("models", [])
    }
    assert len(names) == 4 and all(name in public["offers"] for name in names)
    assert "not allowed" not in public["offers"] and "Invalid" not in public["offers"]


def exported(path: Path) -> dict:
    return json.loads((path.parent / "api" / path.name).read_text(encoding="utf-8"))


def plain(graph: dict) -> dict:
    """Without the id of the pack a node is from, which newer frontends add."""
    return {key: {**node, "_meta": {"title": node["_meta"]["title"]}} for key, node in graph.items()}


def unrolled(graph: dict) -> Iterator[str]:
    """Each node with all that leads to it, without ids: equal for graphs that compute the same."""

    def tree(node_id: str) -> dict:
        node = graph[node_id]
        # A button's label that newer frontends let out of subgraphs; ComfyUI passes it by.
        inputs = {name: value_of(value) for name, value in node["inputs"].items() if name != "upload"}
        return {"class_type": node["class_type"], "inputs": inputs}

    def value_of(value):
        return [tree(value[0]), value[1]] if isinstance(value, list) and str(value[0]) in graph else value

    return (json.dumps(tree(node_id), sort_keys=True) for node_id in graph)
