"""Make locales/en from the nodes themselves and the task table, so that English is written once.

    make locales

Asks a running ComfyUI for the nodes' words (see comfy_server.py). The other languages in locales/ are written by hand;
tests/test_words.py says what they lack.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import comfy_server

from omnialpha.tasks import TASKS

LOCALES = comfy_server.ROOT / "locales"
VIEWER = comfy_server.ROOT / "web/viewer/words.js"
# What is said beside the nodes: categories and wires, and what web/task.js writes on the task node.
BESIDE = {
    "nodeCategories": {"OmniAlpha": "OmniAlpha", "layers": "layers", "sampling": "sampling", "loaders": "loaders"},
    "dataTypes": {"OMNIALPHA_SEQUENCE": "OMNIALPHA_SEQUENCE"},
    "omnialpha": {
        "roles": {
            "composite": "picture",
            "foreground": "object (RGBA)",
            "background": "background",
            "trimap": "trimap (1 = object, 0.5 = unknown)",
            "mask": "mask (1 = object)",
            "coarse_mask": "rough mask (1 = object)",
        },
        "unused": {
            "image": "picture: not used by this task",
            "guide": "guide: not used by this task",
            "pixels": "pixels: nothing that the picture shows is in what this task makes",
            "look": "look: this task has no object to look for",
        },
        "text": {
            "none": "text: not used by this task",
            "optional": "text: say what to draw, if you like",
            "required": "text: say in a few words what to draw, or which object",
        },
        "menu": {"instruction": "Write out the task's own instruction"},
    },
}


def escaped(text: str) -> str:
    """A text that vue-i18n shows as it is: braces, at signs and bars mean something to it."""
    return re.sub(r"[{}@|]", lambda found: f"{{'{found[0]}'}}", text)


def node_words(node: dict) -> dict:
    """The entry of nodeDefs.json for a node of /object_info."""
    specs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
    inputs = {
        name: {"name": escaped(options.get("display_name") or name), "tooltip": escaped(options["tooltip"])}
        for name, (_, options) in specs.items()
    }
    tips = node.get("output_tooltips") or [None] * len(node["output_name"])
    outputs = {
        str(slot): {"name": escaped(name)} | ({"tooltip": escaped(tip)} if tip else {})
        for slot, (name, tip) in enumerate(zip(node["output_name"], tips))
    }
    words = {"display_name": node["display_name"], "description": escaped(node["description"]), "inputs": inputs}
    return words | ({"outputs": outputs} if outputs else {})


def beside() -> dict:
    """Content of main.json."""
    tasks = {task.id: {"title": task.title, "help": task.help} for task in TASKS.values()}
    viewer = dict(re.findall(r"^  (\w+): '(.*)',$", VIEWER.read_text(encoding="utf-8"), re.MULTILINE))
    return {**BESIDE, "omnialpha": {**BESIDE["omnialpha"], "tasks": tasks, "viewer": viewer}}


def english(nodes: dict) -> dict[str, dict]:
    """File name -> content of locales/en, from ComfyUI's /object_info."""
    ours = {name: node for name, node in sorted(nodes.items()) if name.startswith("OmniAlpha")}
    return {"nodeDefs.json": {name: node_words(node) for name, node in ours.items()}, "main.json": beside()}


def text_of(words: dict) -> str:
    """Words as they lie in their file."""
    return json.dumps(words, indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write locales/en; return the exit status."""
    why_not = comfy_server.missing_comfyui()
    if why_not:
        print(f"Cannot make locales: {why_not}.", file=sys.stderr)
        return 2
    with comfy_server.ComfyServer() as server:
        files = english(server.get("/object_info"))
    folder = Path(LOCALES / "en")
    folder.mkdir(parents=True, exist_ok=True)
    for name, words in files.items():
        (folder / name).write_text(text_of(words), encoding="utf-8")
        print(f"locales/en/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
