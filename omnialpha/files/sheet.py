"""Contact sheets: pictures in rows, words at the left. The demo, data reports, training and evaluation draw them."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import torch
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..layers.compositing import checkerboard, opaque
from .pictures import to_pil, write_layer

CELL = 128
GAP = 12
LABEL = 236
INK, PALE, PAPER = (32, 32, 36), (110, 110, 118), (250, 250, 248)


class Sheet:
    """A page that grows by one row at a time.

    Args:
        title: at the top.
        columns: headings of the picture columns.
    """

    def __init__(self, title: str, columns: Sequence[str]):
        self.title, self.columns = title, list(columns)
        self.rows: list[tuple[str, list[str], list[torch.Tensor | None]]] = []

    def add(self, heading: str, lines: Sequence[str], cells: Sequence[torch.Tensor | None]) -> None:
        """One row: words at the left, then a layer [4, H, W] (shown on a checkerboard) or nothing per column."""
        self.rows.append((heading, list(lines), list(cells)))

    def draw(self) -> torch.Tensor:
        """The page as an opaque layer [4, H, W]."""
        top = 74
        width = GAP + LABEL + len(self.columns) * (CELL + GAP)
        page = Image.new("RGB", (width, top + len(self.rows) * (CELL + GAP)), PAPER)
        pen, fonts = ImageDraw.Draw(page), [ImageFont.load_default(size) for size in (20, 14, 12)]
        pen.text((GAP, 14), self.title, INK, fonts[0])
        lefts = [GAP + LABEL + k * (CELL + GAP) for k in range(len(self.columns))]
        for left, words in zip(lefts, self.columns):
            pen.text((left, 50), words, PALE, fonts[2])
        for k, (heading, lines, cells) in enumerate(self.rows):
            y = top + k * (CELL + GAP)
            pen.text((GAP, y + 4), heading, INK, fonts[1])
            for i, line in enumerate(lines):
                pen.text((GAP, y + 30 + 18 * i), line, PALE, fonts[2])
            for left, layer in zip(lefts, cells):
                if layer is not None:
                    page.paste(_cell(layer), (left, y))
        pixels = torch.frombuffer(bytearray(page.tobytes()), dtype=torch.uint8).view(page.height, page.width, 3)
        return opaque(rearrange(pixels, "h w c -> c h w").float() / 255)

    def save(self, path: str | PathLike) -> None:
        """Write the page as PNG, whole or not at all."""
        write_layer(self.draw(), path)


def _cell(layer: torch.Tensor) -> Image.Image:
    """A layer on a checkerboard, as large as fits into a cell."""
    picture = to_pil(opaque(checkerboard(layer))).convert("RGB")
    return ImageOps.contain(picture, (CELL, CELL), Image.Resampling.LANCZOS)
