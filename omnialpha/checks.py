"""Checks of what comes in from outside, with messages that name what was found."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from .errors import OmniAlphaError

Size = tuple[int, int]


def check_layer(layer: Tensor, name: str = "A layer") -> Tensor:
    """`layer` itself, if it is a floating point [4, H, W] with at least one pixel.

    Raises:
        OmniAlphaError: it is not; the message starts with `name`.
    """
    if not _is_float(layer) or layer.ndim != 3 or layer.shape[0] != 4 or 0 in layer.shape:
        raise OmniAlphaError(
            f"{name} must be a float tensor [4, height, width] (red, green, blue, alpha), got {_kind(layer)}."
        )
    return layer


def check_plane(plane: Tensor, name: str = "A mask") -> Tensor:
    """`plane` itself, if it is a floating point [H, W] with at least one pixel.

    Raises:
        OmniAlphaError: it is not; the message starts with `name`.
    """
    if not _is_float(plane) or plane.ndim != 2 or 0 in plane.shape:
        raise OmniAlphaError(f"{name} must be a float tensor [height, width], got {_kind(plane)}.")
    return plane


def _is_float(value) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _kind(value) -> str:
    """What something is, for a message."""
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def check_finite(values: Tensor, name: str) -> Tensor:
    """`values` itself, if no number in it is NaN or infinite.

    Raises:
        OmniAlphaError: some are; the message starts with `name` and counts them.
    """
    # NaN and infinity both show in the extremes, which take a thirtieth of the time of looking at each value twice.
    if values.numel() and not torch.stack(values.aminmax()).isfinite().all():
        count = int((~torch.isfinite(values)).sum())
        raise OmniAlphaError(
            f"{name} holds NaN or infinity in {count} of {values.numel()} values. "
            f"The step that made it failed, or its file is damaged."
        )
    return values


def is_whole(value, least: int = 1) -> bool:
    """Is it a whole number of at least that much? True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def check_whole(value, name: str, least: int = 1) -> int:
    """`value` as an int, if it is a whole number of at least that much.

    Raises:
        OmniAlphaError: it is not; the message starts with `name`.
    """
    if not is_whole(value, least):
        raise OmniAlphaError(f"{name} is {value!r}, expected a whole number of {least} or more.")
    return int(value)


def check_size(size: Sequence[int], name: str = "A size") -> Size:
    """(height, width) as two whole numbers of at least 1.

    Raises:
        OmniAlphaError: anything else; the message starts with `name`.
    """
    sides = tuple(size)
    if len(sides) != 2 or not all(map(is_whole, sides)):
        raise OmniAlphaError(f"{name} is (height, width) in whole pixels, at least 1 each, got {sides}.")
    return int(sides[0]), int(sides[1])


def check_picture(picture: Tensor, name: str = "A picture") -> Tensor:
    """`picture` itself, if it is a floating point [3, H, W] with at least one pixel.

    Raises:
        OmniAlphaError: it is not; the message starts with `name`.
    """
    if not _is_float(picture) or picture.ndim != 3 or picture.shape[0] != 3 or 0 in picture.shape:
        raise OmniAlphaError(f"{name} must be a float tensor [3, height, width], got {_kind(picture)}.")
    return picture


def size_of(values: Tensor) -> Size:
    """(height, width) of a picture, layer or plane [..., height, width]."""
    height, width = values.shape[-2:]
    return height, width
