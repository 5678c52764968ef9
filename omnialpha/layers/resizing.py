"""Resizing layers without bleeding hidden colour, and fitting pictures to the model's sizes and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import Size, check_layer, check_plane, check_size, size_of
from ..errors import OmniAlphaError

FITS = ("scale", "pad", "exact")
ROUNDING = 1e-6  # what float32 loses of 1 in a resize


def shows(alpha: Tensor) -> Tensor:
    """Where alpha is above 0 in 8 bits. Below that nobody sees a colour, and one that was divided by alpha is noise."""
    return (alpha * 255).round() > 0


def resize(layer: Tensor, size: Size) -> Tensor:
    """A layer at another size: premultiplied, antialiased bicubic.

    Colours are weighted by their alpha, so whatever lies hidden under alpha 0 never bleeds into view. An opaque layer
    stays exactly opaque, and a layer that already has the size comes back unchanged.

    Args:
        layer: [4, H, W] in [0, 1], straight alpha.
        size: (height, width) wanted, in pixels.

    Returns:
        [4, height, width] in [0, 1], straight alpha, black where alpha is 0 in 8 bits.

    Raises:
        OmniAlphaError: not a layer, or not a size.
    """
    height, width = check_size(size)
    if check_layer(layer).shape[1:] == (height, width):
        return layer
    colour, alpha = layer[:3], layer[3:]
    if bool((alpha == 1).all()):
        return torch.cat([_interpolate(colour, (height, width)).clamp(0, 1), alpha.new_ones(1, height, width)])
    scaled = _interpolate(torch.cat([colour * alpha, alpha]), (height, width))
    colour, alpha = scaled[:3], scaled[3:]
    # Bicubic overshoots at edges. Only the quotient of the two is the colour, so it is taken before either is clamped.
    visible = shows(alpha)
    colour = torch.where(visible, colour / torch.where(visible, alpha, 1), 0)
    return torch.cat([colour, alpha]).clamp(0, 1)


def resize_plane(plane: Tensor, size: Size) -> Tensor:
    """A mask [H, W] in [0, 1] at another (height, width): antialiased bicubic.

    Raises:
        OmniAlphaError: not a mask, or not a size.
    """
    size = check_size(size)
    return plane if check_plane(plane).shape == size else _interpolate(plane[None], size)[0].clamp(0, 1)


def _interpolate(channels: Tensor, size: Size) -> Tensor:
    """[C, H, W] -> [C, *size], not clamped."""
    return F.interpolate(channels[None], size=size, mode="bicubic", antialias=True, align_corners=False)[0]


def fit_size(h: int, w: int, pixels: float, multiple: int) -> Size:
    """The size at which the model sees an h x w picture.

    The aspect is kept and the area comes to about `pixels`, small pictures being enlarged; then each side goes to the
    nearest multiple, and to one multiple at least. A very long picture is shortened rather than let outgrow the area.

    Args:
        h: height, in pixels.
        w: width, in pixels.
        pixels: area wanted.
        multiple: what both sides have to be divisible by.

    Returns:
        (height, width).

    Raises:
        OmniAlphaError: h or w below 1.
    """
    check_size((h, w), "A picture's size")
    scale = math.sqrt(pixels / (h * w))
    longest = pixels / multiple
    height, width = (max(multiple, round(min(side * scale, longest) / multiple) * multiple) for side in (h, w))
    return height, width


@dataclass(frozen=True)
class Frame:
    """How one picture was fitted to the model's size, so that the result can be put back into the picture's frame.

    Attributes:
        source: (height, width) of the picture, in pixels.
        size: (height, width) that the model works at.
        mode: "scale" stretches both axes to `size`; the slight change of aspect is undone later. "pad" keeps the
            aspect, centres the picture and repeats its edges; undoing crops them away. "exact" changes nothing and
            insists that the picture already has `size`.

    Raises:
        OmniAlphaError: unknown mode, or "exact" with sizes that differ.
    """

    source: Size
    size: Size
    mode: str = "scale"

    def __post_init__(self):
        if self.mode not in FITS:
            raise OmniAlphaError(f"Unknown fit '{self.mode}', expected one of: {', '.join(FITS)}.")
        check_size(self.source, "A picture's size")
        check_size(self.size, "A working size")
        if self.mode == "exact" and tuple(self.source) != tuple(self.size):
            raise OmniAlphaError(
                f"Fit 'exact' leaves pictures as they are, so a {_wide(self.source)} picture cannot be worked on at "
                f"{_wide(self.size)} pixels (width x height). Use fit 'scale' or 'pad', or resize the picture first."
            )

    @property
    def inner(self) -> Size:
        """(height, width) of the picture proper within `size`."""
        if self.mode != "pad":
            return self.size
        scale = min(self.size[0] / self.source[0], self.size[1] / self.source[1])
        height, width = (
            min(whole, max(1, round(side * scale))) for side, whole in zip(self.source, self.size, strict=True)
        )
        return height, width

    @property
    def corner(self) -> Size:
        """(top, left) of the picture proper within `size`."""
        return (self.size[0] - self.inner[0]) // 2, (self.size[1] - self.inner[1]) // 2

    def apply(self, layer: Tensor) -> Tensor:
        """A layer [4, *source] as the model sees it: [4, *size].

        Raises:
            OmniAlphaError: the layer has another size than `source`.
        """
        self._check(layer, self.source)
        inner = resize(layer, self.inner)
        if self.inner == tuple(self.size):
            return inner
        (top, left), (height, width) = self.corner, self.inner
        margins = (left, self.size[1] - width - left, top, self.size[0] - height - top)
        return F.pad(inner[None], margins, mode="replicate")[0]

    def undo(self, layer: Tensor) -> Tensor:
        """A layer [4, *size] that the model made, back in the picture's frame: [4, *source].

        Raises:
            OmniAlphaError: the layer has another size than `size`.
        """
        self._check(layer, self.size)
        restored = resize(self.crop(layer), self.source)
        # The weights of a resize add up to one but for rounding, and nodes that cut to 8 bits would make 254 of that.
        return torch.where(restored > 1 - ROUNDING, 1, restored)

    def crop(self, planes: Tensor) -> Tensor:
        """The picture proper within planes [..., *size]: a view [..., *inner]."""
        (top, left), (height, width) = self.corner, self.inner
        return planes[..., top : top + height, left : left + width]

    def _check(self, layer: Tensor, size: Size) -> None:
        found = size_of(check_layer(layer))
        if found != tuple(size):
            raise OmniAlphaError(
                f"This frame takes layers of {_wide(size)} pixels (width x height), got one of {_wide(found)}."
            )


def _wide(size: Size) -> str:
    """Width first, as people name picture sizes."""
    return f"{size[1]}x{size[0]}"
