"""Objects placed on canvases: foregrounds as they are met in the world, soft, see-through, hairy or with a shadow.

Arrays are float32 [h, w, c] in [0, 1]; alpha is straight and hidden pixels (alpha 0) are black. What happens to an
object is a table (`EFFECTS`): each effect has a chance, and leaves a tag that says what the layer claims to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .objects import ObjectFile, load_object, pick

STORE = 128  # least side in pixels at which objects are kept in memory
MEMORY = 2**28  # bytes of objects to keep
FAINT = 2 / 255  # alpha below this is nothing

# How often each effect meets an object; a config may say otherwise.
CHANCES = {
    "flip": 0.5,
    "tilt": 0.4,
    "stretch": 0.3,
    "hair": 0.08,
    "blur": 0.12,
    "glass": 0.15,
    "fade": 0.1,
    "swap": 0.15,
    "tint": 0.15,
    "harmonise": 0.15,
    "shadow": 0.1,
}


class ObjectBank:
    """Objects, loaded when first used; the latest stay in memory.

    Args:
        entries: from one of the finders in `objects`.
        size: longer side in pixels of the pictures they will be placed on.
    """

    def __init__(self, entries: Sequence[ObjectFile], size: int = STORE):
        self.entries, self.side = list(entries), max(STORE, size)
        self._load = lru_cache(max(16, MEMORY // (4 * self.side**2)))(self._load)

    @cached_property
    def names(self) -> list[str]:
        """The objects' names, in order."""
        return [entry.name for entry in self.entries]

    def picture(self, index: int) -> Image.Image:
        """An object centred in a square, premultiplied ("RGBa"). Raises OmniAlphaError where it cannot be read."""
        return Image.fromarray(self._load(index), "RGBa")

    def _load(self, index: int) -> np.ndarray:
        return load_object(self.entries[index], self.side)


@dataclass
class Layer:
    """A foreground: `pixels` [h, w, 4] straight alpha, the object's `name`, and `tags` for what was done to it."""

    pixels: np.ndarray
    name: str
    tags: list[str] = field(default_factory=list)


def happens(rng: np.random.Generator, chance: float) -> bool:
    """True by this chance; what never happens draws no number, so leaving an effect out changes nothing else."""
    return chance > 0 and rng.random() < chance


def place_freely(
    image: Image.Image, size: tuple[int, int], rng: np.random.Generator, chances: dict[str, float], scale=(0.5, 0.97)
) -> Image.Image:
    """Somewhere on a transparent canvas, flipped, tilted or stretched by chance. Premultiplied in and out.

    `scale` is the range of the object's longer side, as a share of the canvas' shorter one.
    """
    height, width = size
    if happens(rng, chances.get("flip", 0)):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if happens(rng, chances.get("tilt", 0)):
        image = image.rotate(rng.uniform(-30, 30), Image.Resampling.BICUBIC, expand=True)
        image = image.crop(image.getbbox())
    side = rng.uniform(*scale) * min(height, width)
    stretch = rng.uniform(0.75, 1.3) if happens(rng, chances.get("stretch", 0)) else 1.0
    scale_to = side / max(image.size)
    w = max(8, int(scale_to * image.width))
    h = int(np.clip(scale_to * image.height * stretch, 8, height))
    canvas = Image.new("RGBa", (width, height))
    left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
    canvas.paste(image.resize((w, h), Image.Resampling.LANCZOS), (left, top))
    return canvas


def place_centred(image: Image.Image, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Upright, in the middle, nearly filling the canvas: as words alone can describe it. Premultiplied."""
    height, width = size
    side = int(rng.uniform(0.84, 0.9) * min(size))
    canvas = Image.new("RGBa", (width, height))
    left, top = (width - side) // 2, (height - side) // 2
    canvas.paste(image.resize((side, side), Image.Resampling.LANCZOS), (left, top))
    return canvas


def unpremultiply(image: Image.Image) -> np.ndarray:
    """ "RGBa" -> straight float32 [h, w, 4]; nothing stays where alpha is too faint to see."""
    pixels = np.asarray(image, np.float32) / 255
    alpha = pixels[..., 3:]
    straight = np.concatenate([np.clip(pixels[..., :3] / np.maximum(alpha, 1 / 255), 0, 1), alpha], -1)
    return clean(straight)


def clean(layer: np.ndarray) -> np.ndarray:
    """Zero colour and alpha where alpha is below `FAINT`; float32."""
    layer = layer.astype(np.float32)
    layer[layer[..., 3] < FAINT] = 0
    return layer


def _hair(layer, rng, scene):
    """Strands that grow out of the object's edge, each thinner than a pixel at its tip."""
    height, width = layer.shape[:2]
    solid = layer[..., 3] > 0.5
    inner = np.asarray(Image.fromarray(solid).convert("L").filter(ImageFilter.MinFilter(5))) > 0
    ys, xs = np.nonzero(solid & ~inner)
    if not len(ys):
        return layer
    zoom = 4  # drawn large and reduced: the only way to a strand of half a pixel
    strands = Image.new("RGBa", (width * zoom, height * zoom))
    pen = ImageDraw.Draw(strands)
    cy, cx = ys.mean(), xs.mean()
    reach = rng.uniform(0.06, 0.16) * min(height, width)
    for index in rng.integers(len(ys), size=int(rng.integers(40, 140))):
        y, x = float(ys[index]), float(xs[index])
        angle = np.arctan2(y - cy, x - cx) + rng.normal(0, 0.4)
        bend, length = rng.normal(0, 0.5), reach * rng.uniform(0.4, 1)
        colour = tuple(int(255 * value) for value in layer[ys[index], xs[index], :3])
        steps = np.linspace(0, 1, 7)
        path = [(x + length * s * np.cos(angle + bend * s), y + length * s * np.sin(angle + bend * s)) for s in steps]
        for s, start, end in zip(steps, path, path[1:]):
            thick = max(1, round(zoom * 0.9 * (1 - s)))
            pen.line([start[0] * zoom, start[1] * zoom, end[0] * zoom, end[1] * zoom], fill=(*colour, 255), width=thick)
    grown = unpremultiply(strands.resize((width, height), Image.Resampling.BOX))
    return over(layer, grown)


def _blur(layer, rng, scene):
    """Out of focus."""
    radius = rng.uniform(0.5, 0.03 * min(layer.shape[:2]))
    return unpremultiply(premultiplied(layer).filter(ImageFilter.GaussianBlur(radius)))


def _glass(layer, rng, scene):
    """Even transparency."""
    layer[..., 3] *= rng.uniform(0.35, 0.9)
    return layer


def _fade(layer, rng, scene):
    """Transparency that grows in one direction."""
    y, x = np.mgrid[0 : layer.shape[0], 0 : layer.shape[1]] / np.array(layer.shape[:2])[:, None, None] - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    slope = (x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(0.8, 2) + 0.8
    layer[..., 3] *= np.clip(slope, 0.1, 1)
    return layer


def _swap(layer, rng, scene):
    """Colour channels exchanged: more objects than there are."""
    layer[..., :3] = layer[..., rng.permutation(3)]
    return layer


def _tint(layer, rng, scene):
    """Colour channels scaled."""
    layer[..., :3] = np.clip(layer[..., :3] * rng.uniform(0.6, 1.3, 3), 0, 1)
    return layer


def _harmonise(layer, rng, scene):
    """Part of the way to the background's mean and spread of colour (Reinhard et al. 2001, in RGB)."""
    weight = layer[..., 3:]
    if scene is None or weight.sum() < 1:
        return layer
    mean = (layer[..., :3] * weight).sum((0, 1)) / weight.sum()
    spread = np.sqrt((((layer[..., :3] - mean) ** 2) * weight).sum((0, 1)) / weight.sum()) + 1e-3
    towards = (layer[..., :3] - mean) * np.clip(scene.std((0, 1)) / spread, 0.5, 1.5) + scene.mean((0, 1))
    amount = rng.uniform(0.15, 0.45)
    layer[..., :3] = np.clip(layer[..., :3] * (1 - amount) + towards * amount, 0, 1)
    return layer


def _shadow(layer, rng, scene):
    """A soft shadow, part of the layer: dark see-through pixels below the object, so that recomposing stays exact."""
    height, width = layer.shape[:2]
    offset = rng.uniform(0.02, 0.07, 2) * (height, width) * (1, rng.choice([-1, 1]))
    cast = Image.fromarray((layer[..., 3] * 255).astype(np.uint8))
    cast = cast.transform(cast.size, Image.Transform.AFFINE, (1, 0, -offset[1], 0, 1, -offset[0]))
    cast = cast.filter(ImageFilter.GaussianBlur(rng.uniform(0.01, 0.04) * min(height, width)))
    dark = np.zeros_like(layer)
    dark[..., 3] = np.asarray(cast, np.float32) / 255 * rng.uniform(0.3, 0.65)
    return over(layer, dark)


# name -> what it does, in the order in which it is applied; glass and fade exclude each other, as do swap and tint.
EFFECTS = {
    "hair": _hair,
    "blur": _blur,
    "glass": _glass,
    "fade": _fade,
    "swap": _swap,
    "tint": _tint,
    "harmonise": _harmonise,
    "shadow": _shadow,
}
EXCLUDES = {"fade": "glass", "tint": "swap"}


class Composer:
    """Draws foregrounds from a bank, reproducibly.

    Args:
        bank: objects to place.
        rng: where all chance comes from: the same generator draws the same pictures.
        chances: effect or placement -> how often; those left out never happen. See `CHANCES`.
        centred: portraits, upright in the middle, in place of free placement.
        scale: range of an object's longer side, as a share of the canvas' shorter one.
    """

    def __init__(self, bank: ObjectBank, rng: np.random.Generator, chances=None, centred=False, scale=(0.5, 0.97)):
        self.bank, self.rng, self.centred, self.scale = bank, rng, centred, scale
        self.chances = CHANCES if chances is None else chances
        self.problems: set[str] = set()  # objects that could not be read, in words

    def foreground(self, size: tuple[int, int], index: int | None = None, scene: np.ndarray | None = None) -> Layer:
        """An object on a transparent canvas of `size` (h, w); `scene` [h, w, 3] is what harmonising goes towards.

        Objects that cannot be read are noted in `problems`, and others take their place.
        """
        index, image = pick(self.rng, len(self.bank.entries), self.bank.picture, self.problems, index)
        if self.centred:
            placed = place_centred(image, size, self.rng)
        else:
            placed = place_freely(image, size, self.rng, self.chances, self.scale)
        layer, tags = unpremultiply(placed), []
        for name, effect in EFFECTS.items():
            if happens(self.rng, self.chances.get(name, 0)) and EXCLUDES.get(name) not in tags:
                layer = effect(layer, self.rng, scene)
                tags.append(name)
        return Layer(clean(layer), self.bank.names[index], tags)


def premultiplied(layer: np.ndarray) -> Image.Image:
    """Straight float32 [h, w, 4] -> an "RGBa" picture, safe to scale and blur."""
    alpha = layer[..., 3:]
    return Image.fromarray((np.concatenate([layer[..., :3] * alpha, alpha], -1) * 255).round().astype(np.uint8), "RGBa")


def over(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Straight-alpha "over" of two layers [h, w, 4] (Porter and Duff 1984)."""
    a, b = top[..., 3:], bottom[..., 3:]
    alpha = a + b * (1 - a)
    colour = (top[..., :3] * a + bottom[..., :3] * b * (1 - a)) / np.maximum(alpha, 1e-6)
    return np.concatenate([np.where(alpha > 0, colour, 0), alpha], -1).astype(np.float32)


def composite(foreground: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Straight-alpha "over" on an opaque picture: [h, w, 4] on [h, w, 3] -> [h, w, 3]."""
    alpha = foreground[..., 3:]
    return foreground[..., :3] * alpha + background * (1 - alpha)
