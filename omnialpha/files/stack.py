"""A stack: layers of one size with their names, back to front. What every format reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import Size, check_finite, check_layer, size_of
from ..errors import OmniAlphaError
from .pictures import MAX_PIXELS

# Of all layers of a file together; 8 GiB as float32 layers.
MAX_STACK_PIXELS = 8 * MAX_PIXELS


@dataclass(frozen=True)
class Stack:
    """Layers with their names.

    Attributes:
        layers: float32 [4, H, W] in [0, 1] each, all of one size, straight alpha, back to front.
        names: one per layer.

    Raises:
        OmniAlphaError: no layers, something that is no layer, NaN, sizes that differ, or another number of names.
    """

    layers: Sequence[Tensor]
    names: Sequence[str]

    def __post_init__(self):
        if not self.layers:
            raise OmniAlphaError("There are no layers; expected at least one.")
        if len(self.layers) != len(self.names):
            raise OmniAlphaError(f"{len(self.names)} names for {len(self.layers)} layers; give one name per layer.")
        for layer, name in zip(self.layers, self.names, strict=True):
            check_finite(check_layer(layer, f"Layer '{name}'"), f"Layer '{name}'")
        sizes = {(layer.shape[2], layer.shape[1]) for layer in self.layers}
        if len(sizes) > 1:
            found = ", ".join(f"{w}x{h}" for w, h in sorted(sizes))
            raise OmniAlphaError(f"Layers of one stack share one size; found {found} (width x height).")

    @property
    def size(self) -> Size:
        """(height, width) of the canvas."""
        return size_of(self.layers[0])


def place(pixels: Tensor, left: int, top: int, canvas: Size) -> Tensor:
    """A layer [4, h, w] on a transparent canvas; what lies beyond its edges is cut off.

    Args:
        pixels: the layer.
        left, top: where its corner lies on the canvas, in pixels; may be negative.
        canvas: (height, width).

    Returns:
        [4, height, width].
    """
    height, width = canvas
    if (left, top) == (0, 0) and tuple(pixels.shape[1:]) == (height, width):
        return pixels
    result = pixels.new_zeros(pixels.shape[0], height, width)
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + pixels.shape[1], height), min(left + pixels.shape[2], width)
    if y0 < y1 and x0 < x1:
        result[:, y0:y1, x0:x1] = pixels[:, y0 - top : y1 - top, x0 - left : x1 - left]
    return result


def check_canvas(size: Size, layers: int, name: str) -> None:
    """Refuses a file whose layers would not fit into memory, before they are read.

    Raises:
        OmniAlphaError: it has no pixels, or more than `MAX_PIXELS` a layer or `MAX_STACK_PIXELS` together.
    """
    height, width = size
    if height < 1 or width < 1:
        raise OmniAlphaError(f"{name} has a canvas of {width}x{height} pixels; expected at least 1x1.")
    if height * width > MAX_PIXELS or height * width * layers > MAX_STACK_PIXELS:
        raise OmniAlphaError(
            f"{name} is too large: {layers} layers of {width}x{height} pixels. Expected at most {MAX_PIXELS:,} pixels "
            f"a layer and {MAX_STACK_PIXELS:,} together; scale it down or merge layers first."
        )


def with_opacity(layer: Tensor, opacity: float) -> Tensor:
    """The layer with its alpha multiplied by `opacity` in [0, 1]."""
    return layer if opacity == 1 else torch.cat([layer[:3], layer[3:] * opacity])
