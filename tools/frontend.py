"""Chromium, Node.js and playwright-core: finding them, and running the scripts of this folder that drive the frontend.

Chromium is looked for in $CHROMIUM and on the PATH; playwright-core in tools/node_modules (`make browser-tools`) and
in $NODE_PATH. Standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
NEWEST = TOOLS.parent / ".cache/frontend/comfyui_frontend_package/static"  # put there by fetch_frontend.py
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_chromium() -> str | None:
    """The path of a Chromium or Chrome, or None."""
    named = os.environ.get("CHROMIUM")
    return named if named else next((path for name in BROWSERS if (path := shutil.which(name))), None)


def missing_browser() -> str | None:
    """Why the frontend cannot be driven, in words for a person; None when it can."""
    if find_chromium() is None:
        return "no Chromium found; install one or set CHROMIUM to it"
    if shutil.which("node") is None:
        return "no Node.js found"
    folders = [TOOLS / "node_modules", *map(Path, filter(None, os.environ.get("NODE_PATH", "").split(os.pathsep)))]
    if not any((folder / "playwright-core").is_dir() for folder in folders):
        return "no playwright-core found; run `make browser-tools`, or set NODE_PATH to a folder that holds it"
    return None


def find_newest() -> Path | None:
    """The newest frontend, unpacked: $COMFYUI_FRONTEND (the folder with its index.html) or `make newest-frontend`'s."""
    named = os.environ.get("COMFYUI_FRONTEND")
    folder = Path(named).expanduser() if named else NEWEST
    return folder if (folder / "index.html").is_file() else None


def missing_newest() -> str | None:
    """Why the newest frontend cannot be served, in words for a person; None when it can."""
    return None if find_newest() else "no newest frontend; run `make newest-frontend`, or set COMFYUI_FRONTEND to one"


# What a workflow for GGUF files needs of the pack that loads them: that its loader is there, with that one input.
# Graphs that name it can then be opened and exported as with that pack. It loads nothing: running such a graph fails.
GGUF_LOADER = """
import folder_paths


class UnetLoaderGGUF:
    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "load_unet", "bootleg"

    @classmethod
    def INPUT_TYPES(cls):
        names = {name for folder in folder_paths.get_folder_paths("diffusion_models") for name in listed(folder)}
        return {"required": {"unet_name": (sorted(names),)}}


def listed(folder):
    return [name for name in folder_paths.recursive_search(folder)[0] if name.endswith(".gguf")]


NODE_CLASS_MAPPINGS = {"UnetLoaderGGUF": UnetLoaderGGUF}
"""
OTHER_PACKS = {"gguf_loader.py": GGUF_LOADER}

# loader node -> folder below models that its first value, a file name, is in
MODEL_FOLDERS = {
    "UNETLoader": "diffusion_models",
    "UnetLoaderGGUF": "diffusion_models",
    "CLIPLoader": "text_encoders",
    "LoraLoaderModelOnly": "loras",
    "OmniAlphaLoadVAE": "vae",
}


def model_names(workflows: Iterable[Path]) -> set[str]:
    """The model files that UI workflows name, below models ("vae/some.safetensors")."""
    nodes = [node for path in workflows for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]]
    found = [(MODEL_FOLDERS.get(node["type"]), node.get("widgets_values")) for node in nodes]
    return {f"{folder}/{values[0]}" for folder, values in found if folder}


def drive(url: str, *jobs: dict, seconds: float = 600) -> list[dict]:
    """Load UI workflows in the frontend of a running ComfyUI and report what became of them.

    Args:
        url: of the server.
        jobs: one dict per workflow: "workflow" (path of a UI JSON) and, optionally, "screenshot" (path of a PNG),
            "run", "reload" (save it, open that again) and "subgraph" (put it all into a subgraph, then save and
            open that), "offers" (let it speak of missing model files).

    Returns:
        per job: "problems" (list of str; empty is good), "output" (the graph in API format) and, where asked for,
        "reloaded" and "subgraph" (what it gives after that), "offers" (what it says).

    Raises:
        RuntimeError: the browser itself failed.
    """
    return run_script("load_workflows.mjs", {"url": url, "jobs": jobs}, seconds)


def run_script(name: str, order: dict, seconds: float) -> list | dict:
    """Give a script of this folder its order and the browser; what it answers.

    Raises:
        RuntimeError: the browser itself failed.
    """
    text = json.dumps({**order, "chromium": find_chromium()}, default=str)
    done = subprocess.run(["node", str(TOOLS / name)], input=text, capture_output=True, text=True, timeout=seconds)
    if done.returncode != 0:
        raise RuntimeError(f"The frontend could not be driven:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout)
