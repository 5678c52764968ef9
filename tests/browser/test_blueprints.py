"""The blueprints in the real frontend: each opens and gives the graph its task needs; the node search finds them."""

from __future__ import annotations

import json

import comfy_server
import frontend
import make_blueprints
import pytest

from omnialpha.tasks import TASKS

WORDS = "OmniAlpha Matting by trimap"


@pytest.fixture(scope="module", params=["pinned", "newest"])
def results(request: pytest.FixtureRequest) -> dict[str, dict]:
    """What a frontend made of each task's blueprint, and what it found under `WORDS`."""
    front_end = None
    if request.param == "newest":
        front_end = frontend.find_newest() or pytest.skip(frontend.missing_newest())
    paths = [make_blueprints.SUBGRAPHS / f"{make_blueprints.name_of(task)}.json" for task in TASKS.values()]
    with comfy_server.ComfyServer(front_end=front_end) as server:
        found = frontend.drive(server.url, *({"workflow": path} for path in paths), {"search": WORDS})
        served = server.get("/global_subgraphs").values()
    assert {entry["name"] for entry in served} == set(make_blueprints.made())
    return dict(zip([*TASKS, "search"], found, strict=True))


@pytest.mark.parametrize("task", TASKS)
def test_gives_its_task(results: dict[str, dict], task: str):
    assert results[task]["problems"] == []
    nodes = {node["class_type"]: node["inputs"] for node in results[task]["output"].values()}
    made = nodes["OmniAlphaTask"]
    assert made["task"] == task and made["seed"] == 0 and made["instruction"] == ""
    assert nodes["OmniAlphaLoadCheckpoint"]["checkpoint"] == "micro"
    assert all(isinstance(made[name], list) for name in ("model", "clip", "vae"))
    names = [socket["name"] for socket in results[task]["workflow"]["nodes"][0]["inputs"]]
    row = TASKS[task]
    assert ("image" in names, "guide" in names) == (bool(row.image_role), bool(row.guide_role))
    assert ("text" in names) == (row.text != "none")


def test_found_by_the_node_search(results: dict[str, dict]):
    assert results["search"]["added"] == [WORDS], json.dumps(results["search"])
