"""ComfyUI's IMAGE and MASK on one side, the library's layers on the other.

An IMAGE is float32 [B, H, W, C] in [0, 1], a MASK [B, H, W]; a layer is float32 [4, H, W], straight alpha. A batch of
images is a list of layers, back to front.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from ...omnialpha.checks import check_finite
from ...omnialpha.errors import OmniAlphaError
from ...omnialpha.layers.compositing import opaque
from .inputs import white_is_transparent

SAME = 1e-3  # of an 8-bit step: more than sums of floats go astray, less than the nearest other step of 16 bits

_NAMES = "omnialpha_names"  # attribute of a batch of layers


def to_layers(image: Tensor, name: str = "The image") -> list[Tensor]:
    """IMAGE -> layers [4, H, W]; grey and RGB pictures come out opaque.

    Args:
        image: [B, H, W, C] with 1, 3 or 4 channels, or [H, W, C].
        name: how messages call it.

    Raises:
        OmniAlphaError: another number of axes or channels, or NaN.
    """
    if image.ndim == 3:
        image = image[None]
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4) or 0 in image.shape:
        raise OmniAlphaError(
            f"{name} has shape {list(image.shape)}; expected pictures [batch, height, width, channels] with 1, 3 or 4 "
            f"channels. Is something other than a picture connected?"
        )
    check_finite(image, name)
    pictures = rearrange(image, "b h w c -> b c h w").float().clamp(0, 1)
    if pictures.shape[1] == 4:
        return list(pictures)
    return [opaque(picture.expand(3, -1, -1)) for picture in pictures]


def to_image(layers: Sequence[Tensor], names: Sequence[str] = ()) -> Tensor:
    """Layers [C, H, W] of one size -> IMAGE [B, H, W, C], 3 or 4 channels as the layers have.

    Args:
        layers: back to front.
        names: of the layers. They travel with this very batch, see `names_of`.

    Raises:
        OmniAlphaError: no layer, or layers of different sizes (an IMAGE batch has one size).
    """
    sizes = {tuple(layer.shape[1:]) for layer in layers}
    if len(sizes) != 1:
        found = ", ".join(f"{w}x{h}" for h, w in sorted(sizes)) or "none"
        raise OmniAlphaError(f"Layers of one batch share one size; found {found} (width x height).")
    image = rearrange(torch.stack(list(layers)), "b c h w -> b h w c").contiguous()
    if names:
        setattr(image, _NAMES, tuple(names))
    return image


def names_of(image: Tensor) -> tuple[str, ...] | None:
    """The names of a batch's layers, None where another node made it: whatever makes a new tensor loses them."""
    return getattr(image, _NAMES, None)


def through_bytes(layers: Sequence[Tensor]) -> list[Tensor]:
    """Layers whose 8-bit values survive nodes that cut to 8 bits, as SaveImage does.

    A value within `SAME` of a step k/255 is set to what 255 times it cuts to k; every other keeps its precision. So the
    pixels of an 8-bit picture come out exactly, and those of a 16-bit one do not change.
    """
    layers = [layer.clamp(0, 1) for layer in layers]
    steps = [(layer * 255).round() for layer in layers]
    return [
        torch.where((layer * 255 - step).abs() <= SAME, step / 255, layer)
        for layer, step in zip(layers, steps, strict=True)
    ]


def transparency(layers: Sequence[Tensor]) -> Tensor:
    """The layers' alpha as a MASK [B, H, W] in ComfyUI's polarity for alpha: 1 = transparent."""
    return torch.stack([1 - layer[3] for layer in layers])


def to_planes(mask: Tensor, name: str = "The mask") -> list[Tensor]:
    """MASK [B, H, W] or [H, W] -> planes [H, W] in [0, 1].

    Raises:
        OmniAlphaError: another number of axes, or NaN.
    """
    if mask.ndim == 4 and mask.shape[1] == 1:
        mask = mask[:, 0]
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim != 3 or 0 in mask.shape:
        raise OmniAlphaError(f"{name} has shape {list(mask.shape)}; expected a mask [batch, height, width].")
    return list(check_finite(mask, name).float().clamp(0, 1))


def object_planes(mask: Tensor, polarity: str) -> list[Tensor]:
    """MASK -> planes [H, W] with 1 = object, by what white means in it (`inputs.polarity_input`). OmniAlphaError."""
    planes = to_planes(mask)
    return [1 - plane for plane in planes] if white_is_transparent(polarity) else planes


def is_stand_in(planes: Sequence[Tensor]) -> bool:
    """Is this the empty 64x64 mask that LoadImage gives for files without alpha?"""
    return all(plane.shape == (64, 64) and not plane.any() for plane in planes)


def one_picture(image: Tensor, name: str) -> Tensor:
    """The only layer of an IMAGE.

    Raises:
        OmniAlphaError: a batch of several, or not a picture.
    """
    layers = to_layers(image, name)
    if len(layers) != 1:
        raise OmniAlphaError(
            f"{name} is a batch of {len(layers)} pictures; expected one. Put 'Rebatch Images' (batch size 1) in front: "
            f"the node then runs once per picture."
        )
    return layers[0]


def one_plane(mask: Tensor, name: str) -> Tensor:
    """The only plane [H, W] of a MASK.

    Raises:
        OmniAlphaError: a batch of several, or not a mask.
    """
    planes = to_planes(mask, name)
    if len(planes) != 1:
        raise OmniAlphaError(f"{name} is a batch of {len(planes)} masks; expected one.")
    return planes[0]


def check_same_size(plane: Tensor, layer: Tensor, name: str) -> Tensor:
    """`plane` [H, W], if it is as large as `layer` [4, H, W].

    Raises:
        OmniAlphaError: the sizes differ; the message names both.
    """
    if plane.shape != layer.shape[1:]:
        (h, w), (height, width) = plane.shape, layer.shape[1:]
        hint = (
            "LoadImage gives such an empty mask for files without alpha: draw one in its mask editor, or leave this "
            "input open."
            if is_stand_in([plane])
            else "Give both the same size, for example with 'Resize Image/Mask'."
        )
        raise OmniAlphaError(f"{name} is {w}x{h} and the picture {width}x{height} (width x height). {hint}")
    return plane
