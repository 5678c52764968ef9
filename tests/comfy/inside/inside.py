"""What the checks share: the pack, its nodes, the job, and short ways to common things."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path

import torch

job: dict = {}
nodes: dict = {}  # node id -> class
imported: set = set()  # names of the modules that importing the pack brought in
pack = None  # the imported pack


def part(name: str):
    """A module of the pack, such as "nodes.adapters.positions"."""
    return importlib.import_module(f"{pack_name()}.{name}")


def pack_name() -> str:
    """Under what the pack was imported."""
    return pack.__name__


def run(node_id: str, *args, **kwargs) -> tuple:
    """What a node puts out."""
    return nodes[node_id].execute(*args, **kwargs).args


def golden(path: str) -> Path:
    """A file of the golden fixtures."""
    return Path(job["golden"]) / path


@cache
def micro():
    """(MODEL, CLIP, VAE) of the built-in checkpoint."""
    return run("OmniAlphaLoadCheckpoint", "micro")


def fails(call, *words: str) -> str:
    """The message of the OmniAlphaError that `call` raises; it must hold all of `words`."""
    errors = part("omnialpha.errors")
    try:
        call()
    except errors.OmniAlphaError as error:
        message = str(error)
        assert all(word in message for word in words), message
        return message
    raise AssertionError("no OmniAlphaError was raised")


def worst(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest absolute difference."""
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    return float((found.float() - wanted.float()).abs().max())


def picture(seed: int, height: int = 64, width: int = 64, channels: int = 3) -> torch.Tensor:
    """IMAGE [1, H, W, C] of soft blotches."""
    noise = torch.randn(1, channels, height // 8, width // 8, generator=torch.Generator().manual_seed(seed))
    soft = torch.nn.functional.interpolate(noise, size=(height, width), mode="bicubic")
    return torch.sigmoid(2 * soft).movedim(1, -1)
