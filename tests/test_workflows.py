"""The workflows and blueprints that tools make are the ones that lie in the repository."""

from __future__ import annotations

import json
from pathlib import Path

import make_blueprints
import make_workflows
import public_workflows
import pytest

from omnialpha.checkpoint.settings import PUBLIC
from omnialpha.tasks import TASKS

ROOT = Path(__file__).resolve().parent.parent
MADE = make_workflows.made()


@pytest.mark.parametrize("name", MADE)
def test_workflow_is_the_one_its_table_describes(name: str):
    committed = (ROOT / f"workflows/{name}.json").read_text(encoding="utf-8")
    assert committed == make_workflows.text_of(MADE[name]), "make it anew: make templates, then make workflows"


def test_the_public_checkpoint_has_a_workflow_for_each_task_it_was_trained_on():
    assert {row.task for row in public_workflows.PUBLIC} == set(PUBLIC)


def test_every_workflow_has_a_thumbnail():
    for path in sorted((ROOT / "workflows").glob("*.json")):
        assert path.with_suffix(".jpg").is_file(), f"{path.stem}.jpg is missing: make pictures"


@pytest.mark.parametrize("row", public_workflows.PUBLIC, ids=lambda row: row.name)
def test_files_are_offered_where_comfyui_can_fetch_them(row: public_workflows.Public):
    """ComfyUI offers a file under the name a widget holds, from Hugging Face, and only safetensors."""
    nodes = public_workflows_nodes(row)
    offered = [(node, model) for node in nodes for model in node["properties"].get("models", [])]
    for node, model in offered:
        assert model["name"] in node["widgets_values"] and model["name"].endswith(".safetensors")
        assert model["url"].startswith("https://huggingface.co/") and "/resolve/main/" in model["url"]
    assert {model["name"] for _, model in offered} == {name for name in row.files if not name.endswith(".gguf")}
    note = nodes[0]["widgets_values"][0]
    assert all(name in note for name in row.files), "the note lists every file"


def public_workflows_nodes(row: public_workflows.Public) -> list[dict]:
    return MADE[f"omnialpha_public_{row.name}"]["nodes"]


def test_every_family_of_tasks_is_shown_somewhere():
    graphs = [json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "workflows").glob("*.json")]
    nodes = [node for graph in graphs for node in graph["nodes"] if node["type"] == "OmniAlphaTask"]
    shown = {node["widgets_values"][0] for node in nodes}
    assert {TASKS[task].family for task in shown} == {task.family for task in TASKS.values()}


@pytest.mark.parametrize("name", make_blueprints.made())
def test_blueprint_is_the_one_its_task_describes(name: str):
    committed = (ROOT / f"subgraphs/{name}.json").read_text(encoding="utf-8")
    assert committed == make_blueprints.text_of(make_blueprints.made()[name]), "make it anew: make templates"


def test_there_is_one_blueprint_per_task():
    assert {path.stem for path in (ROOT / "subgraphs").iterdir()} == set(make_blueprints.made())
    assert len(make_blueprints.made()) == len(TASKS)
