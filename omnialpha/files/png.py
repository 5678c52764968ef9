"""Layers as PNG files of 8 or 16 bits. Pillow writes no 16-bit colour; pypng (pure Python, no dependencies) does."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import BinaryIO

from einops import rearrange
from torch import Tensor

from ..checks import check_finite, check_layer
from .packages import need
from .pictures import png_text, to_pil


def write_png(layer: Tensor, file: BinaryIO, text: Mapping[str, str] | None = None) -> None:
    """A layer as 8-bit RGBA, rounded.

    Args:
        layer: [4, H, W] in [0, 1], straight alpha.
        file: open for writing.
        text: entries for the text chunks, any Unicode.
    """
    to_pil(layer).save(file, format="PNG", pnginfo=png_text(text))


def write_png16(layer: Tensor, file: BinaryIO, text: Mapping[str, str] | None = None) -> None:
    """A layer as 16-bit RGBA, rounded; arguments as in `write_png`."""
    png = need("png")
    check_finite(check_layer(layer), "The layer")
    pixels = rearrange(layer.detach().cpu(), "c h w -> h w c")
    words = (pixels.clamp(0, 1).double() * 65535).round().numpy().astype(">u2")
    height, width = words.shape[:2]
    plain = io.BytesIO()
    writer = png.Writer(width, height, greyscale=False, alpha=True, bitdepth=16)
    writer.write_packed(plain, (row.tobytes() for row in words))
    plain.seek(0)
    header, *rest = png.Reader(plain).chunks()
    png.write_chunks(file, [header, *(chunk[:2] for chunk in png_text(text).chunks), *rest])
