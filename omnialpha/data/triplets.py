"""Triplets: a foreground, a background, and the composite of the two, with guides (paper section 3.4).

Arrays are float32 [h, w, c] in [0, 1]; alpha is straight and hidden pixels (alpha 0) are black.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from .backgrounds import draw_background, load_photos
from .guides import draw_coarse_mask, draw_mask, draw_trimap
from .objects import find_objects, load_object

STORE = 128  # side at which objects are kept in memory


@dataclass(frozen=True)
class ObjectBank:
    """Objects of one split, in memory: premultiplied uint8 [count, STORE, STORE, 4] and their names."""

    pixels: np.ndarray
    names: list[str]


def load_bank(node_modules: Path | str, split: str) -> ObjectBank:
    """All objects of a split ("train" or "test") from the npm packages; see `objects.find_objects`."""
    files = [entry for entry in find_objects(node_modules) if entry.split == split]
    return ObjectBank(np.stack([load_object(entry.path, STORE) for entry in files]), [entry.name for entry in files])


class Composer:
    """Draws foregrounds, backgrounds and guides for one split, reproducibly.

    Args:
        bank: objects to place.
        split: "train" or "test": which photographs serve as backgrounds.
        seed: the same seed draws the same pictures.
        vary: False keeps objects upright, undistorted and in their own colours and alpha.
    """

    def __init__(self, bank: ObjectBank, split: str, seed: int, vary: bool = True):
        self.bank, self.vary = bank, vary
        self.photos = load_photos(split)
        self.rng = np.random.default_rng(seed)

    def background(self, size: tuple[int, int]) -> np.ndarray:
        """A background, [h, w, 3]."""
        return draw_background(self.photos, size, self.rng)

    def foreground(self, size: tuple[int, int], index: int | None = None) -> tuple[np.ndarray, str]:
        """An object somewhere on a transparent canvas: ([h, w, 4] straight alpha, its name)."""
        index = int(self.rng.integers(len(self.bank.names))) if index is None else index
        straight = self._unpremultiply(self._place(Image.fromarray(self.bank.pixels[index], "RGBa"), size))
        if self.vary:
            straight = self._recolour(self._soften(straight))
        straight[straight[..., 3] < 2 / 255] = 0
        return straight, self.bank.names[index]

    def portrait(self, size: tuple[int, int], index: int) -> tuple[np.ndarray, str]:
        """An object as words alone can describe it: centred, upright, in its own colours. As `foreground` otherwise."""
        height, width = size
        side = int(self.rng.uniform(0.84, 0.9) * min(size))
        image = Image.fromarray(self.bank.pixels[index], "RGBa").resize((side, side), Image.Resampling.LANCZOS)
        canvas = Image.new("RGBa", (width, height))
        canvas.paste(image, ((width - side) // 2, (height - side) // 2))
        straight = self._unpremultiply(canvas)
        straight[straight[..., 3] < 2 / 255] = 0
        return straight, self.bank.names[index]

    def guides(self, alpha: np.ndarray) -> dict[str, np.ndarray]:
        """The three guides for an alpha [h, w], keyed by role."""
        draw = {"trimap": draw_trimap, "mask": draw_mask, "coarse_mask": draw_coarse_mask}
        return {role: make(alpha, self.rng) for role, make in draw.items()}

    def _place(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        rng, (height, width) = self.rng, size
        if self.vary:
            if rng.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            if rng.random() < 0.4:
                image = image.rotate(rng.uniform(-30, 30), Image.Resampling.BICUBIC)
        side = rng.uniform(0.5, 0.97) * min(height, width)
        stretch = rng.uniform(0.75, 1.3) if self.vary and rng.random() < 0.3 else 1.0
        w, h = max(8, int(side)), int(np.clip(side * stretch, 8, height))
        image = image.resize((w, h), Image.Resampling.LANCZOS)
        canvas = Image.new("RGBa", (width, height))
        canvas.paste(image, (int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))))
        if self.vary and rng.random() < 0.12:
            canvas = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 0.03 * min(size))))
        return canvas

    @staticmethod
    def _unpremultiply(image: Image.Image) -> np.ndarray:
        pixels = np.asarray(image, np.float32) / 255
        alpha = pixels[..., 3:]
        return np.concatenate([np.clip(pixels[..., :3] / np.maximum(alpha, 1 / 255), 0, 1), alpha], -1)

    def _recolour(self, layer: np.ndarray) -> np.ndarray:
        """Swapped or scaled colour channels: more objects than there are."""
        rng, draw = self.rng, self.rng.random()
        if draw < 0.15:
            layer[..., :3] = layer[..., rng.permutation(3)]
        elif draw < 0.3:
            layer[..., :3] = np.clip(layer[..., :3] * rng.uniform(0.6, 1.3, 3), 0, 1)
        return layer

    def _soften(self, layer: np.ndarray) -> np.ndarray:
        """Glass (even alpha) or a fade across the object: emoji themselves are nearly all opaque."""
        rng, draw = self.rng, self.rng.random()
        if draw < 0.15:
            layer[..., 3] *= rng.uniform(0.35, 0.9)
        elif draw < 0.25:
            y, x = np.mgrid[0 : layer.shape[0], 0 : layer.shape[1]] / np.array(layer.shape[:2])[:, None, None] - 0.5
            angle = rng.uniform(0, 2 * np.pi)
            slope = (x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(0.8, 2) + 0.8
            layer[..., 3] *= np.clip(slope, 0.1, 1)
        return layer


def composite(foreground: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Straight-alpha "over": [h, w, 4] on [h, w, 3] -> [h, w, 3]."""
    alpha = foreground[..., 3:]
    return foreground[..., :3] * alpha + background * (1 - alpha)


def opaque(picture: np.ndarray) -> np.ndarray:
    """An RGB picture [h, w, 3] or a plane [h, w] as an opaque RGBA layer [h, w, 4]."""
    rgb = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, -1)
    return np.concatenate([rgb, np.ones_like(rgb[..., :1])], -1)
