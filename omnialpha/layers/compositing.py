"""RGBA layers: a float32 tensor [4, H, W] in [0, 1] with straight alpha. Lists of layers go back to front.

Straight alpha means that colour is not multiplied by alpha, so a pixel of alpha 0 still has a (hidden) colour. The
model works on straight alpha; whatever mixes pixels (compositing, resizing) weights colours by alpha, so that hidden
ones never come into view.

Resizing is in `resizing`; pictures are read and written in `files.pictures`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..checks import check_layer, check_picture, check_plane
from ..errors import OmniAlphaError
from .regions import shrink
from .resizing import shows

# Alpha below this is 0 in 8 bits.
_HALF_STEP = 0.5 / 255


def opaque(rgb: Tensor) -> Tensor:
    """A picture [3, H, W] in [0, 1] as a layer [4, H, W] with alpha 1.

    Raises:
        OmniAlphaError: another shape.
    """
    return torch.cat([check_picture(rgb), torch.ones_like(rgb[:1])])


def grey_layer(mask: Tensor) -> Tensor:
    """A mask or trimap [H, W] in [0, 1] as an opaque grey layer [4, H, W]: how a guide enters the model.

    Raises:
        OmniAlphaError: another shape.
    """
    return opaque(check_plane(mask).expand(3, -1, -1))


def over(top: Tensor, bottom: Tensor, linear_light: bool = False) -> Tensor:
    """`top` composited over `bottom` (Porter-Duff over, straight alpha in and out).

    Args:
        top: [4, H, W] in [0, 1].
        bottom: [4, H, W] in [0, 1].
        linear_light: mix the light that sRGB colours stand for (IEC 61966-2-1), not their values.

    Returns:
        [4, H, W] in [0, 1], black where the result is fully transparent.

    Raises:
        OmniAlphaError: not layers, or of different sizes.
    """
    if check_layer(top).shape != check_layer(bottom).shape:
        raise OmniAlphaError(
            f"Layers to composite must have one size, got {top.shape[2]}x{top.shape[1]} over "
            f"{bottom.shape[2]}x{bottom.shape[1]} pixels (width x height). Resize one of them first."
        )
    above, below = top[3:], bottom[3:] * (1 - top[3:])
    alpha = above + below
    # As a weighted mean, not as a quotient of premultiplied colours: exact where one of the two layers is alone.
    weight = torch.where(alpha > 0, above / torch.where(alpha > 0, alpha, 1), 0)
    if linear_light:
        mixed = to_srgb(torch.lerp(to_linear(bottom[:3]), to_linear(top[:3]), weight))
        # Where one of the two is alone nothing is mixed, and nothing rounded.
        colour = torch.where(weight <= 0, bottom[:3], torch.where(weight >= 1, top[:3], mixed))
    else:
        colour = torch.lerp(bottom[:3], top[:3], weight)
    return torch.cat([torch.where(alpha > 0, colour, 0), alpha]).clamp(0, 1)


def to_linear(colour: Tensor) -> Tensor:
    """sRGB values in [0, 1] as linear light in [0, 1] (IEC 61966-2-1)."""
    return torch.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055).clamp_min(0) ** 2.4)


def to_srgb(light: Tensor) -> Tensor:
    """Linear light in [0, 1] as sRGB values in [0, 1]; undoes `to_linear`."""
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.clamp_min(1e-9) ** (1 / 2.4) - 0.055)


def flatten(layers: Sequence[Tensor], linear_light: bool = False) -> Tensor:
    """All layers, back to front, composited into one [4, H, W]; `linear_light` as for `over`.

    Raises:
        OmniAlphaError: no layers, or of different sizes.
    """
    if not layers:
        raise OmniAlphaError("There are no layers to composite; expected at least one.")
    result = check_layer(layers[0])
    for layer in layers[1:]:
        result = over(layer, result, linear_light)
    return result


def over_colour(layer: Tensor, rgb: Sequence[float] = (1.0, 1.0, 1.0)) -> Tensor:
    """A layer over a plain colour (white unless told), as an opaque picture [3, H, W] in [0, 1].

    Raises:
        OmniAlphaError: not a layer.
    """
    return _over_picture(layer, layer.new_tensor(rgb)[:, None, None])


def checkerboard(layer: Tensor, cell: int = 8) -> Tensor:
    """A layer over the usual grey checkerboard with cells of that many pixels: [3, H, W] in [0, 1], for looking at.

    Raises:
        OmniAlphaError: not a layer.
    """
    return _over_picture(layer, squares(layer, cell))


def squares(layer: Tensor, cell: int = 8) -> Tensor:
    """The grey checkerboard itself, [3, H, W], as large as a layer.

    Raises:
        OmniAlphaError: not a layer.
    """
    _, height, width = check_layer(layer).shape
    rows, columns = (torch.arange(side, device=layer.device) // cell for side in (height, width))
    dark = (rows[:, None] + columns) % 2
    return (0.85 - 0.2 * dark.to(layer.dtype)).expand(3, -1, -1)


def _over_picture(layer: Tensor, picture: Tensor) -> Tensor:
    """[3, H, W]: a layer over something opaque that broadcasts to [3, H, W]."""
    colour, alpha = check_layer(layer).split((3, 1))
    return colour * alpha + picture * (1 - alpha)


def clean_hidden(layer: Tensor) -> Tensor:
    """The layer with black wherever alpha is 0 in 8 bits, so that no hidden colours end up in files; itself where it
    has none.

    Raises:
        OmniAlphaError: not a layer.
    """
    colour, alpha = check_layer(layer).split((3, 1))
    shown = shows(alpha)
    return layer if bool(shown.all()) else torch.cat([torch.where(shown, colour, 0), alpha])


def snap_alpha(layer: Tensor, low: int = 5, high: int = 250) -> Tensor:
    """The layer with nearly transparent pixels made transparent and nearly opaque ones opaque.

    Args:
        layer: [4, H, W] in [0, 1].
        low: alpha up to this goes to 0, in 8-bit steps.
        high: alpha from this goes to 255, in 8-bit steps.

    Raises:
        OmniAlphaError: not a layer, or the two thresholds overlap.
    """
    if not 0 <= low < high <= 255:
        raise OmniAlphaError(f"Snapping alpha needs 0 <= low < high <= 255, got low = {low} and high = {high}.")
    colour, alpha = check_layer(layer).split((3, 1))
    steps = (alpha * 255).round()
    alpha = torch.where(steps <= low, 0, torch.where(steps >= high, 1, alpha))
    return torch.cat([colour, alpha])


def trimap(alpha: Tensor, width: int) -> Tensor:
    """Sure object, sure background and an unknown band around everything in between.

    Args:
        alpha: [H, W] in [0, 1].
        width: how far the band reaches from any soft or edge pixel, in pixels (square neighbourhood); 0 leaves only the
            soft pixels unknown.

    Returns:
        [H, W] with 1 = object, 0 = background, 0.5 = unknown. The picture's border counts as neither.

    Raises:
        OmniAlphaError: not a mask, or a negative width.
    """
    if width < 0:
        raise OmniAlphaError(f"A trimap's band cannot be {width} pixels wide; expected 0 or more.")
    check_plane(alpha)
    object_, background = (shrink(sure, width) for sure in (alpha >= 1 - _HALF_STEP, alpha < _HALF_STEP))
    return torch.where(object_, 1.0, torch.where(background, 0.0, 0.5)).to(alpha.dtype)
