"""The nodes by themselves in the real frontend: blueprints give the graph their task needs and are found by the node
search; the task node speaks of the task that is chosen; languages arrive.
"""

from __future__ import annotations

import json

import comfy_server
import frontend
import make_blueprints
import make_locales
import pytest

from omnialpha.tasks import TASKS

WORDS = "OmniAlpha Matting by trimap"
CHOICES = ["matting_trimap", "text_to_rgba", "fg_to_bg"]
JOBS = {
    "search": {"search": WORDS},
    "choose": {"node": "OmniAlphaTask", "choose": CHOICES},
    "Chinese": {"node": "OmniAlphaTask", "choose": CHOICES, "language": "zh"},
}


@pytest.fixture(scope="module")
def results(fresh: comfy_server.ComfyServer) -> dict[str, dict]:
    """What a frontend made of each task's blueprint and of the other jobs; one browser for all."""
    paths = [make_blueprints.SUBGRAPHS / f"{make_blueprints.name_of(task)}.json" for task in TASKS.values()]
    found = frontend.drive(fresh.url, *({"workflow": path} for path in paths), *JOBS.values())
    served = fresh.get("/global_subgraphs").values()
    assert set(make_blueprints.made()) <= {entry["name"] for entry in served}
    return dict(zip([*TASKS, *JOBS], found, strict=True))


@pytest.mark.parametrize("task", TASKS)
def test_blueprint_gives_its_task(results: dict[str, dict], task: str):
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


def test_blueprint_is_found_by_the_node_search(results: dict[str, dict]):
    assert results["search"]["added"] == [WORDS], json.dumps(results["search"])


def test_task_node_speaks_of_its_task(results: dict[str, dict]):
    assert results["choose"]["problems"] == []
    trimap, text, background = results["choose"]["shown"]
    assert trimap["sockets"] == {
        "model": "model",
        "clip": "clip",
        "vae": "vae",
        "image": "picture",
        "guide": "trimap (1 = object, 0.5 = unknown)",
    }
    assert text["sockets"]["image"] == "picture: not used by this task"
    assert background["sockets"]["image"] == "object (RGBA)"
    for shown, name in zip((trimap, text, background), CHOICES):
        assert shown["instruction"].endswith(TASKS[name].instruction)
        assert shown["tooltip"] == f"{TASKS[name].title}: {TASKS[name].help}"
        unused = make_locales.BESIDE["omnialpha"]["unused"]
        useless = [
            key for key in ("pixels", "look") if not getattr(TASKS[name], {"pixels": "keeps", "look": "looks"}[key])
        ]
        assert shown["greyedOut"] == [[key, unused[key]] for key in useless]
    assert results["choose"]["renamed"] == "mine", "a name the artist gave stays"


def test_chinese_reaches_the_nodes(results: dict[str, dict]):
    words = json.loads((comfy_server.ROOT / "locales/zh/main.json").read_text(encoding="utf-8"))["omnialpha"]
    nodes = json.loads((comfy_server.ROOT / "locales/zh/nodeDefs.json").read_text(encoding="utf-8"))
    chinese = results["Chinese"]
    assert chinese["problems"] == []
    assert chinese["title"] == nodes["OmniAlphaTask"]["display_name"]
    assert chinese["shown"][0]["sockets"]["guide"] == words["roles"]["trimap"]
    assert chinese["shown"][0]["sockets"]["model"] == nodes["OmniAlphaTask"]["inputs"]["model"]["name"]
    assert chinese["shown"][1]["text"] == words["text"]["required"]
