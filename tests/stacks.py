"""Stacks of layers that the tests of files share."""

from __future__ import annotations

import torch

from omnialpha.files.stack import Stack

NAMES = ["Hintergrund ü", "前景", 'a/b: "c"']
TEXT = {"prompt": '{"1": "<&> ü"}', "workflow": "{}"}


def example(height: int = 30, width: int = 40, seed: int = 0, steps: int = 255) -> Stack:
    """Three layers on whole steps: an opaque one, one with colours under alpha 0, a soft one."""
    layers = torch.rand(3, 4, height, width, generator=torch.Generator().manual_seed(seed))
    layers[0, 3], layers[1, 3, : height // 2], layers[1, 3, height // 2 :] = 1, 0, 1
    return Stack(list((layers * steps).round() / steps), NAMES)


def same(found, wanted, tolerance: float = 1e-6) -> bool:
    return all(torch.allclose(a, b, rtol=0, atol=tolerance) for a, b in zip(found, wanted, strict=True))
