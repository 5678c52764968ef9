"""Make subgraphs/*.json: one blueprint per task, found by the frontend's node search under its title.

    make templates

A blueprint is a task with all it needs and nothing else: the checkpoint, sockets named for what goes in, one output per
layer. ComfyUI serves them from the pack's folder `subgraphs`. Standard library only.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from workflow_builder import Board, Wire, sockets, stable_id

from omnialpha.tasks import TASKS, Task

SUBGRAPHS = Path(__file__).resolve().parent.parent / "subgraphs"
INPUT, OUTPUT = -10, -20  # the edges of a subgraph are nodes with these ids
LINK = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
# What sockets and outputs are called, by role.
LABELS = {
    "composite": "picture",
    "foreground": "object",
    "background": "background",
    "trimap": "trimap (1 = object, 0.5 = unknown)",
    "mask": "mask (1 = object)",
    "coarse_mask": "rough mask (1 = object)",
}
# More words that lead to a family in the node search.
ALIASES = {
    "generation": ["draw", "text to image", "transparent"],
    "completion": ["complete", "inpaint", "composition"],
    "matting": ["cut out", "remove background", "alpha matte", "segment"],
    "removal": ["remove object", "erase", "inpaint", "clean plate"],
    "decomposition": ["layers", "split", "separate", "layer decomposition"],
}


@dataclass
class Edge:
    """The sockets of one side of a subgraph, in order."""

    node: int
    slots: list[dict] = field(default_factory=list)

    def socket(self, name: str, kind: str, label: str | None = None) -> Wire:
        """Add a socket; for an input edge, the wire to connect to nodes within."""
        self.slots.append({"name": name, "type": kind, "label": label or name})
        return Wire(self.node, len(self.slots) - 1, kind)


def blueprint(task: Task) -> dict:
    """A workflow that holds one subgraph node, as the frontend publishes blueprints."""
    board, inputs, outputs = Board(), Edge(INPUT), Edge(OUTPUT)
    given: dict = {}
    if task.image_role == "foreground":
        # LoadImage takes colour and alpha apart, and a cut-out means nothing without its alpha.
        picture = inputs.socket("image", "IMAGE", LABELS["foreground"])
        mask = inputs.socket("mask", "MASK", "its mask (1 = transparent)")
        given["image"] = board.add(
            "OmniAlphaLayer", "Put together again", (0, 180), (320, 130), image=picture, mask=mask
        )["layer"]
    elif task.image_role:
        given["image"] = inputs.socket("image", "IMAGE", LABELS[task.image_role])
    if task.guide_role:
        given["guide"] = inputs.socket("guide", "MASK", LABELS[task.guide_role])
    loader = {"checkpoint": inputs.socket("checkpoint", "COMBO")}
    loaded = board.add("OmniAlphaLoadCheckpoint", "Load Checkpoint", (0, 0), (320, 110), **loader)
    promoted = [*(["text"] if task.text != "none" else []), "instruction", "seed", "steps"]
    if task.image_role is None:
        promoted += ["width", "height"]
    kinds = {socket.name: socket.kind for socket in sockets("OmniAlphaTask")}
    given |= {name: inputs.socket(name, kinds[name]) for name in promoted}
    made = board.add(
        "OmniAlphaTask",
        task.title,
        (420, 0),
        (400, 660),
        model=loaded["MODEL"],
        clip=loaded["CLIP"],
        vae=loaded["VAE"],
        task=task.id,
        **given,
    )
    node = board.nodes[-1]["id"]
    outputs.socket("layers", "IMAGE")
    board.give(made["layers"], OUTPUT, 0)
    if len(task.targets) > 1:
        for k, role in enumerate(task.targets):
            layer = board.add(
                "ImageFromBatch", f"The {LABELS[role]}", (920, 160 * k), (320, 110), image=made["layers"], batch_index=k
            )
            outputs.socket(LABELS[role], "IMAGE")
            board.give(layer["IMAGE"], OUTPUT, k + 1)
    return _published(task, board, inputs, outputs, node)


def name_of(task: Task) -> str:
    """File name without .json, and the name in the node search."""
    return f"OmniAlpha {task.title}"


def _published(task: Task, board: Board, inputs: Edge, outputs: Edge, task_node: int) -> dict:
    name = name_of(task)
    definition = stable_id("blueprint", task.id)
    widgets = [slot["name"] for slot in inputs.slots if slot["type"] not in ("IMAGE", "MASK")]
    defaults = {socket.name: socket.options.get("default") for socket in sockets("OmniAlphaTask")}
    defaults["checkpoint"] = "micro"
    # "-1" is a widget of the edge, any other id one of a node within: last, as their values are not saved here.
    shown = [*(["-1", widget] for widget in widgets), [str(task_node), "control_after_generate"]]
    values = [defaults[widget] for widget in widgets]
    links = [dict(zip(LINK, row)) for row in board.links]
    node = {
        "id": 1,
        "type": definition,
        "pos": [0, 0],
        "size": [400, 120 + 30 * len(inputs.slots)],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [_instance_socket(slot) for slot in inputs.slots],
        "outputs": [
            {"label": slot["label"], "name": slot["name"], "type": slot["type"], "links": None}
            for slot in outputs.slots
        ],
        "title": name,
        "properties": {"proxyWidgets": shown},
        "widgets_values": values,
    }
    subgraph = {
        "id": definition,
        "version": 1,
        "state": {"lastGroupId": 0, "lastNodeId": len(board.nodes), "lastLinkId": len(links), "lastRerouteId": 0},
        "revision": 0,
        "config": {},
        "name": name,
        "inputNode": {"id": INPUT, "bounding": [-260, 0, 160, 40 + 20 * len(inputs.slots)]},
        "outputNode": {"id": OUTPUT, "bounding": [1340, 0, 160, 40 + 20 * len(outputs.slots)]},
        "inputs": _edge(task, "in", inputs, links, "origin"),
        "outputs": _edge(task, "out", outputs, links, "target"),
        "widgets": [],
        "nodes": board.nodes,
        "groups": [],
        "links": links,
        "extra": {},
    }
    return {
        "id": stable_id("blueprint", task.id, "file"),
        "revision": 0,
        "last_node_id": 1,
        "last_link_id": 0,
        "nodes": [node],
        "links": [],
        "groups": [],
        "definitions": {"subgraphs": [subgraph]},
        "config": {},
        "extra": {"BlueprintDescription": task.help, "BlueprintSearchAliases": [task.id, *ALIASES[task.family]]},
        "version": 0.4,
    }


def _instance_socket(slot: dict) -> dict:
    """An input of the subgraph node; those that are widgets say so."""
    widget = {} if slot["type"] in ("IMAGE", "MASK") else {"widget": {"name": slot["name"]}}
    return {"label": slot["label"], "name": slot["name"], "type": slot["type"], **widget, "link": None}


def _edge(task: Task, side: str, edge: Edge, links: list[dict], end: str) -> list[dict]:
    """The sockets of a side with the links within that lead to them."""
    return [
        {
            "id": stable_id("blueprint", task.id, side, slot["name"]),
            "name": slot["name"],
            "type": slot["type"],
            "linkIds": [k["id"] for k in links if (k[f"{end}_id"], k[f"{end}_slot"]) == (edge.node, index)],
            "label": slot["label"],
        }
        for index, slot in enumerate(edge.slots)
    ]


def made() -> dict[str, dict]:
    """Every blueprint by its name."""
    return {name_of(task): blueprint(task) for task in TASKS.values()}


def text_of(blueprint: dict) -> str:
    """A blueprint as it lies in its file."""
    return json.dumps(blueprint, indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Write them all and remove those of tasks that are gone; return the exit status."""
    SUBGRAPHS.mkdir(exist_ok=True)
    for path in SUBGRAPHS.glob("*.json"):
        path.unlink()
    for name, graph in made().items():
        (SUBGRAPHS / f"{name}.json").write_text(text_of(graph), encoding="utf-8")
    print(f"subgraphs: {len(TASKS)} blueprints")
    return 0


if __name__ == "__main__":
    sys.exit(main())
