"""The layer viewer, used as an artist would: both kinds of nodes, in the pinned and in the newest frontend."""

from __future__ import annotations

import json
from pathlib import Path

import comfy_server
import frontend
import numpy as np
import pytest
from PIL import Image

# width, height, and the layers back to front: a plain background, a half transparent square, a disc over its corner
WIDTH, HEIGHT = 96, 64
NAMES = "sky, square, disc"
SKY, SQUARE, DISC = (30, 60, 90, 255), (200, 40, 40, 128), (250, 220, 0, 255)
LIGHTER = (130, 160, 190, 255)
# points that lie in: the background alone, the square alone, the disc over the square
POINTS = {"sky": (8, 56), "square": (30, 20), "disc": (60, 40)}


def _pictures(folder: Path) -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    square = (abs(x - 40) < 24) & (abs(y - 28) < 20)
    disc = (x - 60) ** 2 + (y - 40) ** 2 < 15**2
    whole = np.ones_like(square)
    for name, where, colour in (("sky", whole, SKY), ("lighter", whole, LIGHTER), ("square", square, SQUARE), ("disc", disc, DISC)):
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


def use_viewer(front_end: Path | None, folder: Path) -> dict[str, dict]:
    """What tools/drive_viewer.mjs saw on classic and on Vue nodes; one server and one browser for all."""
    with comfy_server.ComfyServer(front_end=front_end) as server:
        _pictures(server.base / "input")
        order = {"url": server.url, "folder": folder, "prompt": _graph(), "again": [1, "image", "lighter.png"]}
        return frontend.run_script("drive_viewer.mjs", order, seconds=1200)
