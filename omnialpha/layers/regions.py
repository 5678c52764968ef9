"""Regions of a picture as [H, W] bool: grown, and what of one hangs together with another."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def grow(region: Tensor, width: int) -> Tensor:
    """The region grown by `width` pixels in a square; its time depends on the logarithm of the width."""
    for axis in (0, 1):
        padding = (0, 0, width, width) if axis == 0 else (width, width)
        region, span = F.pad(region, padding), 1
        while span < 2 * width + 1:  # each pixel now speaks for `span` of them
            step = min(span, 2 * width + 1 - span)
            length = region.shape[axis] - step
            region = region.narrow(axis, 0, length) | region.narrow(axis, step, length)
            span += step
    return region


def shrink(region: Tensor, width: int) -> Tensor:
    """The region shrunk by `width` pixels in a square; beyond the border it goes on."""
    return ~grow(~region, width)


def reached(seeds: Tensor, region: Tensor) -> Tensor:
    """The parts of a region that hang together with seeds, over edges and corners."""
    found, count = seeds & region, -1
    while (now := int(found.sum())) != count:
        count = now
        for _ in range(8):
            found = grow(found, 1) & region
    return found


def filled(region: Tensor) -> Tensor:
    """The region with its holes: all that cannot be reached from the border around it, over edges and corners."""
    border = F.pad(torch.zeros_like(region), (1, 1, 1, 1), value=True)
    return ~reached(border, ~F.pad(region, (1, 1, 1, 1)))[1:-1, 1:-1]
